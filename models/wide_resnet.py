"""Wide 3D ResNet: the inner layers of a bottleneck are k times as wide.

Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016.
"""

from functools import partial
from typing import Any

from models.base import keyword_options
from models.resnet import BOTTLENECK_LAYERS as LAYERS, Bottleneck, ResNet, layers_of


def generate_model(model_depth: int, *, wide_resnet_k: int = 2, **options: Any) -> ResNet:
    """A WideResNet of a depth in `LAYERS`, InputError for another; options: those of `ResNet`.

    Released weights have the default stem of 64 channels; the 2020 code built one of 64 * k, which
    is `stem_planes=64 * wide_resnet_k`.
    """
    layers = layers_of('wideresnet', LAYERS, model_depth)
    planes = tuple(width * wide_resnet_k for width in (64, 128, 256, 512))
    return ResNet(partial(Bottleneck, expansion=2), layers, planes=planes, **options)


OPTIONS = keyword_options(generate_model, ResNet)
