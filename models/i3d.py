"""I3D: Inception with its filters and pools inflated into time.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR
2017. Modules have the names of the PyTorch weights `rgb_imagenet.pt` and `flow_imagenet.pt`, and
padding is TensorFlow's SAME, with which these were trained.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.base import Classifier, Conv3d, add_steps, init_weights, recomputable, run_steps
from runtime.errors import InputError

MIN_FRAMES, MIN_SIZE = 8, 32
# Places in the windows over the feature map that the head averages.
HEAD_SIDE = 7
# By Inception module its channels: 1x1x1 | 1x1x1, 3x3x3 | 1x1x1, 3x3x3 | pool, 1x1x1.
MIXED = {
    'Mixed_3b': (64, 96, 128, 16, 32, 32), 'Mixed_3c': (128, 128, 192, 32, 96, 64),
    'Mixed_4b': (192, 96, 208, 16, 48, 64), 'Mixed_4c': (160, 112, 224, 24, 64, 64),
    'Mixed_4d': (128, 128, 256, 24, 64, 64), 'Mixed_4e': (112, 144, 288, 32, 64, 64),
    'Mixed_4f': (256, 160, 320, 32, 128, 128),
    'Mixed_5b': (256, 160, 320, 32, 128, 128), 'Mixed_5c': (384, 192, 384, 48, 128, 128)}
# Modules that a pool of stride 2 comes before, with its name and kernel.
POOLED = {'Mixed_4b': ('MaxPool3d_4a_3x3', 3), 'Mixed_5b': ('MaxPool3d_5a_2x2', 2)}


def pad_same(x: torch.Tensor, kernel_size: tuple, stride: tuple) -> torch.Tensor:
    """(N, C, t, h, w) padded with zeros as TensorFlow's SAME is: the end gets the odd one.

    A convolution or pool of this kernel and stride then gives ceil(size / stride) places. No stride
    is longer than its kernel here. Pools see what a ReLU gave, so that zeros are as good as minus
    infinity.
    """
    padding: list[int] = []
    for size, kernel, step in zip(x.shape[2:], kernel_size, stride):
        # Of numbers above 0 alone: ONNX divides those below otherwise than Python.
        missing = kernel - 1 - (size - 1) % step
        padding = [missing // 2, missing - missing // 2, *padding]
    return F.pad(x, padding)


class SameMaxPool3d(nn.Module):
    """A max pool over a clip that is padded as SAME."""

    def __init__(self, kernel_size: tuple, stride: tuple) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.pool = nn.MaxPool3d(kernel_size, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, t, h, w) -> (N, C, ceil(t / stride), ...)."""
        return self.pool(pad_same(x, self.kernel_size, self.stride))


class Unit3d(nn.Module):
    """Convolution padded as SAME, batch norm, ReLU."""

    def __init__(self, in_planes: int, planes: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        if stride == 1:  # half of an odd kernel on each side is SAME
            self.conv3d: nn.Conv3d = Conv3d(in_planes, planes, kernel_size)
        else:
            self.conv3d = nn.Conv3d(in_planes, planes, kernel_size, stride, bias=False)
        self.bn = nn.BatchNorm3d(planes, eps=1e-3, momentum=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_planes, t, h, w) -> (N, planes, ceil(t / stride), ...)."""
        if self.conv3d.stride != (1, 1, 1):
            x = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return F.relu(self.bn(self.conv3d(x)))


class Inception(nn.Module):
    """Four paths side by side, whose channels are joined; `planes` as in `MIXED`."""

    is_recomputed = False

    def __init__(self, in_planes: int, planes: tuple) -> None:
        super().__init__()
        self.b0 = Unit3d(in_planes, planes[0], 1)
        self.b1a = Unit3d(in_planes, planes[1], 1)
        self.b1b = Unit3d(planes[1], planes[2], 3)
        self.b2a = Unit3d(in_planes, planes[3], 1)
        self.b2b = Unit3d(planes[3], planes[4], 3)
        self.b3a = nn.MaxPool3d(kernel_size=3, stride=1, padding=1)
        self.b3b = Unit3d(in_planes, planes[5], 1)
        self.out_planes = planes[0] + planes[2] + planes[4] + planes[5]

    @recomputable
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_planes, t, h, w) -> (N, out_planes, t, h, w)."""
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)),
                          self.b3b(self.b3a(x))], dim=1)


class Logits(nn.Module):
    """The classifier, a convolution over single places."""

    def __init__(self, in_planes: int, n_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_planes, n_classes, 1, bias=False)
        self.conv3d.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_planes) -> (N, n_classes)."""
        return self.conv3d(x[:, :, None, None, None]).flatten(1)


class I3D(Classifier):
    """Stem, nine Inception modules with pools between, head.

    The feature map of a (N, C, T, H, W) clip is (N, 1024, T/8, H/32, W/32), rounded up. Raises
    InputError for clips of less than 8 frames or 32 pixels.
    """

    classifier_name = 'logits.conv3d'
    num_features = 1024
    fixed_axes = ('size',)  # the head treats large maps otherwise than small ones

    def __init__(self, *, n_classes: int = 400, n_input_channels: int = 3) -> None:
        super().__init__()
        self.logits = Logits(self.num_features, n_classes)  # first, as in the released weights
        steps: dict[str, nn.Module] = {
            'Conv3d_1a_7x7': Unit3d(n_input_channels, 64, 7, 2),
            'MaxPool3d_2a_3x3': SameMaxPool3d((1, 3, 3), (1, 2, 2)),
            'Conv3d_2b_1x1': Unit3d(64, 64, 1),
            'Conv3d_2c_3x3': Unit3d(64, 192, 3),
            'MaxPool3d_3a_3x3': SameMaxPool3d((1, 3, 3), (1, 2, 2))}
        in_planes = 192
        for name, planes in MIXED.items():
            if name in POOLED:
                pool, size = POOLED[name]
                steps[pool] = SameMaxPool3d((size,) * 3, (2, 2, 2))
            steps[name] = module = Inception(in_planes, planes)
            in_planes = module.out_planes
        self.steps = add_steps(self, steps)
        init_weights(self)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> (N, F, t, h, w) feature map."""
        n_frames, *sides = x.shape[2:]
        if n_frames < MIN_FRAMES or any(side < MIN_SIZE for side in sides):
            raise InputError(f'i3d takes clips of at least {MIN_FRAMES} frames and {MIN_SIZE} '
                             f'pixels, and these are of {n_frames} frames and {min(sides)} pixels; '
                             'give a larger --sample_duration or --sample_size')
        return run_steps(self, self.steps, x)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(N, F, t, h, w) feature map -> (N, n_classes) logits, or (N, F) with `pre_logits`.

        A map of 7x7 places or more, as of 224 pixels, is averaged in windows of two frames and 7x7
        places, as the original does it, and then over these: so the first and the last frame count
        half. A smaller one is averaged as it is. Logits are those of the mean, which is the mean of
        the logits.
        """
        n_frames, *sides = features.shape[2:]
        if all(side >= HEAD_SIDE for side in sides):
            features = F.avg_pool3d(features, (min(2, n_frames), HEAD_SIDE, HEAD_SIDE), stride=1)
        pooled = features.mean(dim=(2, 3, 4))
        return pooled if pre_logits else self.logits(pooled)


def generate_model(**options: int) -> I3D:
    """An I3D; options: those of `I3D`."""
    return I3D(**options)


OPTIONS: dict[str, Any] = {}
