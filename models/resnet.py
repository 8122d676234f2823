"""3D ResNet, and the parts that every residual family builds on.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; in three dimensions:
Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", CVPR 2018.

Released weights name the modules of a block side by side (`conv1`, `bn1`, `conv2`, ...), and
R(2+1)D has four of them where a ResNet has two. So a convolution is a dict of named steps, a block
or a stem joins such dicts, and what runs is the steps in their order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.attention import KINDS, NonLocal, SqueezeExcitation, start_as_identity
from models.base import (Classifier, Conv3d, Steps, add_steps, conv_bn, init_weights,
                         keyword_options, layers_of, recomputable, run_steps)
from runtime.errors import InputError

BASIC_LAYERS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_LAYERS = {
    50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
LAYERS = BASIC_LAYERS | BOTTLENECK_LAYERS
DEFAULT_DEPTH = 18


class PadShortcut(nn.Module):
    """Shortcut A: take every `stride`-th place, fill the channels that are missing with zeros."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.missing_planes = out_planes - in_planes
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_planes, t, h, w) -> (N, out_planes, ceil(t / stride), ...); gradients pass."""
        x = x[:, :, ::self.stride, ::self.stride, ::self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.missing_planes))

    def extra_repr(self) -> str:
        return f'missing_planes={self.missing_planes}, stride={self.stride}'


def shortcut(resnet_shortcut: str, in_planes: int, out_planes: int, stride: int) -> nn.Module:
    """What a block adds to its path: x itself where the shape stays, else type A or B of it."""
    if resnet_shortcut not in ('A', 'B'):
        raise InputError(f'no shortcut type {resnet_shortcut!r}: choose A (zero padding) '
                         'or B (projection)')
    if stride == 1 and in_planes == out_planes:
        return nn.Identity()
    if resnet_shortcut == 'A':
        return PadShortcut(in_planes, out_planes, stride)
    return nn.Sequential(Conv3d(in_planes, out_planes, 1, stride), nn.BatchNorm3d(out_planes))


class ResidualBlock(nn.Module):
    """relu(path(x) + shortcut(x)), where the path is a dict of named steps.

    An option of all blocks is an argument here and of `ResNet`; the blocks of the families hand it
    on as it is.

    attention: 'se' ends the path with a squeeze-and-excitation layer, 'nonlocal' puts a non-local
               block behind the sum
    """

    is_recomputed = False

    def __init__(self, path: Steps, in_planes: int, out_planes: int, stride: int, *,
                 resnet_shortcut: str = 'B', attention: str = 'none') -> None:
        super().__init__()
        if attention == 'se':
            path = {**path, 'se': SqueezeExcitation(out_planes)}
        self.path = add_steps(self, path)
        self.downsample = shortcut(resnet_shortcut, in_planes, out_planes, stride)
        # What follows the sum.
        after: Steps = {'nonlocal': NonLocal(out_planes)} if attention == 'nonlocal' else {}
        self.after = add_steps(self, after)
        self.out_planes = out_planes

    @recomputable
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_planes, t, h, w) -> (N, out_planes, ceil(t / stride), ...)."""
        x = self.activation(run_steps(self, self.path, x) + self.downsample(x))
        return run_steps(self, self.after, x)

    def activation(self, x: torch.Tensor) -> torch.Tensor:
        """What the sum of path and shortcut becomes."""
        return F.relu(x)


class BasicBlock(ResidualBlock):
    """Two 3x3x3 convolutions; `convolution` makes the steps of each."""

    def __init__(self, in_planes: int, planes: int, stride: int, *,
                 convolution: Callable[..., Steps] = conv_bn, **options: Any) -> None:
        path = {**convolution(1, in_planes, planes, 3, stride), 'relu1': nn.ReLU(),
                **convolution(2, planes, planes, 3)}
        super().__init__(path, in_planes, planes, stride, **options)


class Bottleneck(ResidualBlock):
    """1x1x1 to `mid_planes`, 3x3x3 among these (made by `convolution`), 1x1x1 to the output."""

    def __init__(self, in_planes: int, planes: int, stride: int, *, mid_planes: int | None = None,
                 expansion: int = 4, groups: int = 1, convolution: Callable[..., Steps] = conv_bn,
                 **options: Any) -> None:
        mid_planes = mid_planes or planes
        out_planes = planes * expansion
        path = {**conv_bn(1, in_planes, mid_planes, 1), 'relu1': nn.ReLU(),
                **convolution(2, mid_planes, mid_planes, 3, stride, groups), 'relu2': nn.ReLU(),
                **conv_bn(3, mid_planes, out_planes, 1)}
        super().__init__(path, in_planes, out_planes, stride, **options)


class ResNet(Classifier):
    """Stem, four stages of residual blocks, head: the network of all families but DenseNet.

    `block(in_planes, planes, stride, resnet_shortcut=..., attention=...)` builds a block, which
    says its `out_planes`; `layers` and `planes` are the number of blocks and their width by stage;
    `convolution` makes the steps of the stem as it does those of a block. All widths, and the
    `stem_planes`, are multiplied by `resnet_widen_factor`.

    The feature map of a (N, C, T, H, W) clip is (N, F, T/16, H/32, W/32), rounded up; `no_max_pool`
    doubles each size, `conv1_t_stride` divides the first. `attention` is that of all blocks ('se'),
    or of every other block of the third and fourth stage ('nonlocal'). Raises InputError for an
    unknown `resnet_shortcut` or `attention`, and for a `resnet_widen_factor` that leaves a layer
    without channels.
    """

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, block: Callable[..., Any], layers: Sequence[int],
                 planes: Sequence[int] = (64, 128, 256, 512),
                 convolution: Callable[..., Steps] = conv_bn, *, n_classes: int = 400,
                 n_input_channels: int = 3, resnet_shortcut: str = 'B', stem_planes: int = 64,
                 resnet_widen_factor: float = 1.0, conv1_t_size: int = 7, conv1_t_stride: int = 1,
                 no_max_pool: bool = False, attention: str = 'none') -> None:
        super().__init__()
        if attention not in KINDS:
            raise InputError(f'no attention {attention!r}: choose one of {", ".join(KINDS)}')
        if int(min(stem_planes, *planes) * resnet_widen_factor) < 1:
            raise InputError(f'a widen factor of {resnet_widen_factor} leaves no channels: give '
                             f'at least {1 / min(stem_planes, *planes)}')
        in_planes = int(stem_planes * resnet_widen_factor)
        stem = {**convolution(1, n_input_channels, in_planes,
                              (conv1_t_size, 7, 7), (conv1_t_stride, 2, 2)), 'relu': nn.ReLU()}
        if not no_max_pool:
            stem['maxpool'] = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)
        self.stem = add_steps(self, stem)

        for i, (n_blocks, width) in enumerate(zip(layers, planes), start=1):
            stage = nn.Sequential()
            for j in range(n_blocks):
                # The last block of a stage is one of every other, so that no stage goes without.
                has_attention = attention == 'se' or (i >= 3 and (n_blocks - j) % 2 == 1)
                built = block(in_planes, int(width * resnet_widen_factor),
                              2 if i > 1 and j == 0 else 1, resnet_shortcut=resnet_shortcut,
                              attention=attention if has_attention else 'none')
                stage.append(built)
                in_planes = built.out_planes
            self.add_module(f'layer{i}', stage)

        self.num_features = in_planes
        self.fc = nn.Linear(in_planes, n_classes)
        init_weights(self)
        start_as_identity(self)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> (N, F, t, h, w) feature map."""
        x = run_steps(self, self.stem, x)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def generate_model(model_depth: int, **options: Any) -> ResNet:
    """A 3D ResNet of a depth in `LAYERS`, InputError for another; options: those of `ResNet`."""
    layers = layers_of('resnet', LAYERS, model_depth)
    block = BasicBlock if model_depth in BASIC_LAYERS else Bottleneck
    return ResNet(block, layers, **options)


OPTIONS = keyword_options(ResNet)
