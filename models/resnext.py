"""3D ResNeXt: the 3x3x3 convolution of a bottleneck runs in `cardinality` groups.

Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.
"""

from functools import partial

from models.resnet import BOTTLENECK_LAYERS as LAYERS, Bottleneck, ResNet, layers_of


class ResNeXtBottleneck(Bottleneck):
    """A bottleneck of `cardinality` groups, each of planes / 32 channels (at least one)."""

    def __init__(self, in_planes, planes, stride, shortcut_type, *, cardinality):
        super().__init__(in_planes, planes, stride, shortcut_type, expansion=2, groups=cardinality,
                         mid_planes=cardinality * max(1, planes // 32))


def generate_model(model_depth, *, cardinality=32, **options):
    """A ResNeXt of a depth in `LAYERS`, InputError for another; options: those of `ResNet`."""
    layers = layers_of('resnext', LAYERS, model_depth)
    block = partial(ResNeXtBottleneck, cardinality=cardinality)
    return ResNet(block, layers, planes=(128, 256, 512, 1024), **options)
