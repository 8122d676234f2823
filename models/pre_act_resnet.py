"""Pre-activation 3D ResNet: batch norm and ReLU come before each convolution of a block.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016. As in Hara et al., CVPR 2018,
the stem keeps its own norm, shortcuts start from the plain input, and no norm ends the network.
"""

from typing import Any

import torch
from torch import nn

from models.base import Conv3d, Steps, keyword_options
from models.resnet import BASIC_LAYERS, LAYERS, ResidualBlock, ResNet, layers_of

DEFAULT_DEPTH = 18


def bn_conv(index: int, in_planes: int, planes: int, kernel_size: int, stride: int = 1) -> Steps:
    """The named steps of the `index`-th convolution of a block, with what goes before it."""
    return {f'bn{index}': nn.BatchNorm3d(in_planes), f'relu{index}': nn.ReLU(),
            f'conv{index}': Conv3d(in_planes, planes, kernel_size, stride)}


class PreActBlock(ResidualBlock):
    """path(x) + shortcut(x): nothing follows the sum, so a clear path runs through all blocks."""

    def activation(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of path and shortcut as it is."""
        return x


class PreActBasicBlock(PreActBlock):
    """Two 3x3x3 convolutions."""

    def __init__(self, in_planes: int, planes: int, stride: int, **options: Any) -> None:
        path = {**bn_conv(1, in_planes, planes, 3, stride), **bn_conv(2, planes, planes, 3)}
        super().__init__(path, in_planes, planes, stride, **options)


class PreActBottleneck(PreActBlock):
    """1x1x1 to `planes`, 3x3x3, 1x1x1 to four times as many."""

    def __init__(self, in_planes: int, planes: int, stride: int, **options: Any) -> None:
        path = {**bn_conv(1, in_planes, planes, 1), **bn_conv(2, planes, planes, 3, stride),
                **bn_conv(3, planes, planes * 4, 1)}
        super().__init__(path, in_planes, planes * 4, stride, **options)


def generate_model(model_depth: int, **options: Any) -> ResNet:
    """A PreResNet of a depth in `LAYERS`, InputError for another; options: those of `ResNet`."""
    layers = layers_of('preresnet', LAYERS, model_depth)
    block = PreActBasicBlock if model_depth in BASIC_LAYERS else PreActBottleneck
    return ResNet(block, layers, **options)


OPTIONS = keyword_options(ResNet)
