"""3D DenseNet: each layer sees the output of all layers before it in its block.

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017; in three dimensions:
Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", CVPR 2018.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.base import (Classifier, Conv3d, Steps, init_weights, keyword_options, layers_of,
                         recomputable)

LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}
STEM_PLANES = 64
GROWTH_RATE = 32
BOTTLENECK_PLANES = 4 * GROWTH_RATE


def norm_relu_conv(index: int, in_planes: int, planes: int, kernel_size: int) -> Steps:
    """The named steps of the `index`-th convolution of a layer, with what goes before it."""
    return {f'norm{index}': nn.BatchNorm3d(in_planes), f'relu{index}': nn.ReLU(),
            f'conv{index}': Conv3d(in_planes, planes, kernel_size)}


class DenseLayer(nn.Sequential):
    """1x1x1, 3x3x3: (N, in_planes, t, h, w) -> (N, in_planes + GROWTH_RATE, t, h, w)."""

    is_recomputed = False

    def __init__(self, in_planes: int) -> None:
        super().__init__(OrderedDict({**norm_relu_conv(1, in_planes, BOTTLENECK_PLANES, 1),
                                      **norm_relu_conv(2, BOTTLENECK_PLANES, GROWTH_RATE, 3)}))

    @recomputable
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x, then the new channels."""
        return torch.cat([x, super().forward(x)], dim=1)


def dense_block(in_planes: int, n_layers: int) -> nn.Sequential:
    """`n_layers` dense layers, named denselayer1, denselayer2, ..."""
    return nn.Sequential(OrderedDict(
        (f'denselayer{i + 1}', DenseLayer(in_planes + i * GROWTH_RATE)) for i in range(n_layers)))


class HalvingPool(nn.Module):
    """Averages 2x2x2 places; an axis with one place left, as of a short clip, stays as it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, planes, t, h, w) -> (N, planes, t // 2, h // 2, w // 2), each at least 1."""
        pooled = F.avg_pool3d(x, [min(2, size) for size in x.shape[2:]])
        # torch's pool forgets the memory format, and all layers of the next block would mix two.
        if x.is_contiguous(memory_format=torch.channels_last_3d):
            pooled = pooled.contiguous(memory_format=torch.channels_last_3d)
        return pooled


def transition(in_planes: int, planes: int) -> nn.Sequential:
    """Between blocks: a 1x1x1 convolution to `planes`, then half the places in time and space."""
    return nn.Sequential(OrderedDict(
        norm=nn.BatchNorm3d(in_planes), relu=nn.ReLU(), conv=Conv3d(in_planes, planes, 1),
        pool=HalvingPool()))


class DenseNet(Classifier):
    """Stem, dense blocks of `layers` layers with transitions between, norm, ReLU, head.

    The feature map of a (N, C, T, H, W) clip is (N, F, T/16, H/32, W/32), rounded up in the stem
    and down after it, each at least 1; `no_max_pool` doubles each size, `conv1_t_stride` divides
    the first.
    """

    classifier_name = 'classifier'

    def __init__(self, layers: Sequence[int], *, n_classes: int = 400, n_input_channels: int = 3,
                 conv1_t_size: int = 7, conv1_t_stride: int = 1, no_max_pool: bool = False) -> None:
        super().__init__()
        planes = STEM_PLANES
        self.features = nn.Sequential(OrderedDict(
            conv1=Conv3d(n_input_channels, planes, (conv1_t_size, 7, 7), (conv1_t_stride, 2, 2)),
            norm1=nn.BatchNorm3d(planes), relu1=nn.ReLU()))
        if not no_max_pool:
            self.features.add_module('pool1', nn.MaxPool3d(kernel_size=3, stride=2, padding=1))
        for i, n_layers in enumerate(layers, start=1):
            if i > 1:
                self.features.add_module(f'transition{i - 1}', transition(planes, planes // 2))
                planes //= 2
            self.features.add_module(f'denseblock{i}', dense_block(planes, n_layers))
            planes += n_layers * GROWTH_RATE
        self.features.add_module('norm5', nn.BatchNorm3d(planes))

        self.num_features = planes
        self.classifier = nn.Linear(planes, n_classes)
        init_weights(self)
        nn.init.zeros_(self.classifier.bias)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> (N, F, t, h, w) feature map."""
        return F.relu(self.features(x))


def generate_model(model_depth: int, **options: Any) -> DenseNet:
    """A DenseNet of a depth in `LAYERS`, InputError for another; options: those of `DenseNet`."""
    return DenseNet(layers_of('densenet', LAYERS, model_depth), **options)


OPTIONS = keyword_options(DenseNet)
