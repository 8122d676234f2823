"""3D ResNet, and the parts that every residual family builds on.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; in three dimensions:
Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", CVPR 2018.

Released weights name the modules of a block side by side (`conv1`, `bn1`, `conv2`, ...), and
R(2+1)D has four of them where a ResNet has two. So a convolution is a dict of named steps, a block
or a stem joins such dicts, and what runs is the steps in their order.
"""

import torch.nn.functional as F
from torch import nn

from models.base import (Classifier, Conv3d, add_steps, conv_bn, init_weights, layers_of,
                         recomputable, run_steps)
from runtime.errors import InputError

BASIC_LAYERS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_LAYERS = {
    50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
LAYERS = BASIC_LAYERS | BOTTLENECK_LAYERS


class PadShortcut(nn.Module):
    """Shortcut A: take every `stride`-th place, fill the channels that are missing with zeros."""

    def __init__(self, in_planes, out_planes, stride):
        super().__init__()
        self.missing_planes = out_planes - in_planes
        self.stride = stride

    def forward(self, x):
        """(N, in_planes, t, h, w) -> (N, out_planes, ceil(t / stride), ...); gradients pass."""
        x = x[:, :, ::self.stride, ::self.stride, ::self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.missing_planes))

    def extra_repr(self):
        return f'missing_planes={self.missing_planes}, stride={self.stride}'


def shortcut(shortcut_type, in_planes, out_planes, stride):
    """What a block adds to its path: x itself where the shape stays, else type A or B of it."""
    if shortcut_type not in ('A', 'B'):
        raise InputError(f'no shortcut type {shortcut_type!r}: choose A (zero padding) '
                         'or B (projection)')
    if stride == 1 and in_planes == out_planes:
        return nn.Identity()
    if shortcut_type == 'A':
        return PadShortcut(in_planes, out_planes, stride)
    return nn.Sequential(Conv3d(in_planes, out_planes, 1, stride), nn.BatchNorm3d(out_planes))


class ResidualBlock(nn.Module):
    """relu(path(x) + shortcut(x)), where the path is a dict of named steps."""

    is_recomputed = False

    def __init__(self, path, in_planes, out_planes, stride, shortcut_type):
        super().__init__()
        self.path = add_steps(self, path)
        self.downsample = shortcut(shortcut_type, in_planes, out_planes, stride)
        self.out_planes = out_planes

    @recomputable
    def forward(self, x):
        """(N, in_planes, t, h, w) -> (N, out_planes, ceil(t / stride), ...)."""
        return F.relu(run_steps(self, self.path, x) + self.downsample(x))


class BasicBlock(ResidualBlock):
    """Two 3x3x3 convolutions; `convolution` makes the steps of each."""

    def __init__(self, in_planes, planes, stride, shortcut_type, *, convolution=conv_bn):
        path = {**convolution(1, in_planes, planes, 3, stride), 'relu1': nn.ReLU(),
                **convolution(2, planes, planes, 3)}
        super().__init__(path, in_planes, planes, stride, shortcut_type)


class Bottleneck(ResidualBlock):
    """1x1x1 to `mid_planes`, 3x3x3 among these (made by `convolution`), 1x1x1 to the output."""

    def __init__(self, in_planes, planes, stride, shortcut_type, *, mid_planes=None, expansion=4,
                 groups=1, convolution=conv_bn):
        mid_planes = mid_planes or planes
        out_planes = planes * expansion
        path = {**conv_bn(1, in_planes, mid_planes, 1), 'relu1': nn.ReLU(),
                **convolution(2, mid_planes, mid_planes, 3, stride, groups), 'relu2': nn.ReLU(),
                **conv_bn(3, mid_planes, out_planes, 1)}
        super().__init__(path, in_planes, out_planes, stride, shortcut_type)


class ResNet(Classifier):
    """Stem, four stages of residual blocks, head: the network of all families but DenseNet.

    `block(in_planes, planes, stride, shortcut_type)` builds a block, which says its `out_planes`;
    `layers` and `planes` are the number of blocks and their width by stage; `convolution` makes the
    steps of the stem as it does those of a block. All widths are multiplied by `widen_factor`.

    The feature map of a (N, C, T, H, W) clip is (N, F, T/16, H/32, W/32), rounded up; `no_max_pool`
    doubles each size, `conv1_t_stride` divides the first. Raises InputError for an unknown
    `shortcut_type` and for a `widen_factor` that leaves a layer without channels.
    """

    def __init__(self, block, layers, *, n_classes=400, n_input_channels=3, shortcut_type='B',
                 planes=(64, 128, 256, 512), stem_planes=64, widen_factor=1.0, conv1_t_size=7,
                 conv1_t_stride=1, no_max_pool=False, convolution=conv_bn):
        super().__init__()
        if int(min(stem_planes, *planes) * widen_factor) < 1:
            raise InputError(f'a widen factor of {widen_factor} leaves no channels: give at least '
                             f'{1 / min(stem_planes, *planes)}')
        in_planes = int(stem_planes * widen_factor)
        stem = {**convolution(1, n_input_channels, in_planes,
                              (conv1_t_size, 7, 7), (conv1_t_stride, 2, 2)), 'relu': nn.ReLU()}
        if not no_max_pool:
            stem['maxpool'] = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)
        self.stem = add_steps(self, stem)

        for i, (n_blocks, width) in enumerate(zip(layers, planes), start=1):
            stage = nn.Sequential()
            for stride in (1 if i == 1 else 2,) + (1,) * (n_blocks - 1):
                stage.append(block(in_planes, int(width * widen_factor), stride, shortcut_type))
                in_planes = stage[-1].out_planes
            self.add_module(f'layer{i}', stage)

        self.num_features = in_planes
        self.fc = nn.Linear(in_planes, n_classes)
        init_weights(self)

    def forward_features(self, x):
        """(N, C, T, H, W) float clips -> (N, F, t, h, w) feature map."""
        x = run_steps(self, self.stem, x)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def generate_model(model_depth, **options):
    """A 3D ResNet of a depth in `LAYERS`, InputError for another; options: those of `ResNet`."""
    layers = layers_of('resnet', LAYERS, model_depth)
    block = BasicBlock if model_depth in BASIC_LAYERS else Bottleneck
    return ResNet(block, layers, **options)
