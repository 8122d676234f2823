"""R(2+1)D: a ResNet whose convolutions in space and time are two, one in space and one in time.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
"""

from functools import partial
from typing import Any

from torch import nn

from models.base import Conv3d, Size, Steps, keyword_options, triple
from models.resnet import BASIC_LAYERS, LAYERS, BasicBlock, Bottleneck, ResNet, layers_of

DEFAULT_DEPTH = 18


def conv_bn_2p1d(index: int, in_planes: int, planes: int, kernel_size: Size, stride: Size = 1,
                 groups: int = 1) -> Steps:
    """The named steps that stand for `resnet.conv_bn`: (1, k, k), ReLU between, then (k, 1, 1)."""
    t, h, w = triple(kernel_size)
    t_stride, h_stride, w_stride = triple(stride)
    # As many weights as the 3D convolution has: M_i of section 3.5 in the paper. Saved networks for
    # flow have the width that three input channels give.
    n = max(in_planes, 3)
    mid_planes = max(1, t * h * w * n * planes // (h * w * n + t * planes))
    return {
        f'conv{index}_s': Conv3d(in_planes, mid_planes, (1, h, w), (1, h_stride, w_stride), groups),
        f'bn{index}_s': nn.BatchNorm3d(mid_planes),
        f'relu{index}_s': nn.ReLU(),
        f'conv{index}_t': Conv3d(mid_planes, planes, (t, 1, 1), (t_stride, 1, 1), groups),
        f'bn{index}_t': nn.BatchNorm3d(planes)}


def generate_model(model_depth: int, **options: Any) -> ResNet:
    """An R(2+1)D of a depth in `LAYERS`, InputError for another; options: those of `ResNet`."""
    layers = layers_of('resnet2p1d', LAYERS, model_depth)
    block = BasicBlock if model_depth in BASIC_LAYERS else Bottleneck
    return ResNet(partial(block, convolution=conv_bn_2p1d), layers, convolution=conv_bn_2p1d,
                  **options)


OPTIONS = keyword_options(ResNet)
