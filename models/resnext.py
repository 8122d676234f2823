"""3D ResNeXt: the 3x3x3 convolution of a bottleneck runs in groups, as many as its cardinality.

Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.
"""

from functools import partial
from typing import Any

from models.base import keyword_options
from models.resnet import BOTTLENECK_LAYERS as LAYERS, Bottleneck, ResNet, layers_of


class ResNeXtBottleneck(Bottleneck):
    """A bottleneck of `groups` groups, each of planes / 32 channels (at least one)."""

    def __init__(self, in_planes: int, planes: int, stride: int, *, groups: int,
                 **options: Any) -> None:
        super().__init__(in_planes, planes, stride, expansion=2, groups=groups,
                         mid_planes=groups * max(1, planes // 32), **options)


def generate_model(model_depth: int, *, resnext_cardinality: int = 32, **options: Any) -> ResNet:
    """A ResNeXt of a depth in `LAYERS`, InputError for another; options: those of `ResNet`."""
    layers = layers_of('resnext', LAYERS, model_depth)
    block = partial(ResNeXtBottleneck, groups=resnext_cardinality)
    return ResNet(block, layers, planes=(128, 256, 512, 1024), **options)


OPTIONS = keyword_options(generate_model, ResNet)
