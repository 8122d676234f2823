"""Channel-separated network (CSN): a ResNet whose 3x3x3 convolutions see one channel each.

Tran et al., "Video Classification with Channel-Separated Convolutional Networks", ICCV 2019.
Modules have the names of PyTorchVideo's weights, and are the parts of its X3D too.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import nn

from models.base import Classifier, Conv3d, init_weights, keyword_options, layers_of, recomputable
from models.resnet import BOTTLENECK_LAYERS
from runtime.errors import InputError

LAYERS = {26: (2, 2, 2, 2), **{depth: BOTTLENECK_LAYERS[depth] for depth in (50, 101, 152)}}
DEFAULT_DEPTH = 101
PLANES = (64, 128, 256, 512)
EXPANSION = 4


def reduced(planes: int, stride: int | tuple) -> nn.Module:
    """Interaction reduced: in a bottleneck the 1x1x1 convolutions alone mix channels."""
    return Conv3d(planes, planes, 3, stride, groups=planes)


def preserved(planes: int, stride: int | tuple) -> nn.Module:
    """Interaction preserved: one more 1x1x1 convolution makes up for the channels' separation."""
    return nn.Sequential(Conv3d(planes, planes, 1), nn.BatchNorm3d(planes),
                         reduced(planes, stride))


# By --csn_interaction, what takes the place of a bottleneck's 3x3x3 convolution.
CONVOLUTIONS = {'reduced': reduced, 'preserved': preserved}


class Bottleneck(nn.Module):
    """relu(branch1(x) + branch2(x)): 1x1x1 to `mid_planes`, `convolution`, 1x1x1 to `out_planes`.

    convolution:      (planes, stride) -> the convolution in space and time
    norm, activation: what follows it; `norm` takes its planes
    """

    is_recomputed = False

    def __init__(self, in_planes: int, mid_planes: int, out_planes: int, stride: int | tuple, *,
                 convolution: Callable[..., nn.Module] = reduced,
                 norm: Callable[[int], nn.Module] = nn.BatchNorm3d,
                 activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        is_wider = in_planes != out_planes
        self.branch1_conv = (Conv3d(in_planes, out_planes, 1, stride)
                             if is_wider or stride != 1 else nn.Identity())
        self.branch1_norm = nn.BatchNorm3d(out_planes) if is_wider else nn.Identity()
        self.branch2 = nn.Sequential(OrderedDict(
            conv_a=Conv3d(in_planes, mid_planes, 1), norm_a=nn.BatchNorm3d(mid_planes),
            act_a=nn.ReLU(),
            conv_b=convolution(mid_planes, stride), norm_b=norm(mid_planes), act_b=activation(),
            conv_c=Conv3d(mid_planes, out_planes, 1), norm_c=nn.BatchNorm3d(out_planes)))

    @recomputable
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_planes, t, h, w) -> (N, out_planes, ceil(t / stride), ...)."""
        return F.relu(self.branch1_norm(self.branch1_conv(x)) + self.branch2(x))


class Stage(nn.Module):
    """Bottlenecks one after the other."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.res_blocks = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, t, h, w) -> (N, out_planes, ceil(t / stride), ...)."""
        return self.res_blocks(x)


class GlobalAverage(nn.Module):
    """The average over time and space."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, t, h, w) -> (N, C, 1, 1, 1)."""
        return x.mean(dim=(2, 3, 4), keepdim=True)


class Head(nn.Module):
    """A pool to a single place, then the classifier."""

    def __init__(self, pool: nn.Module, num_features: int, n_classes: int) -> None:
        super().__init__()
        self.pool = pool
        self.proj = nn.Linear(num_features, n_classes)

    def forward(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(N, C, t, h, w) -> (N, n_classes), or (N, num_features) with `pre_logits`."""
        pooled = self.pool(features).flatten(1)
        return pooled if pre_logits else self.proj(pooled)


class BlockNet(Classifier):
    """Six blocks: the stem, four stages, the head."""

    classifier_name = 'blocks.5.proj'

    def __init__(self, stem: nn.Module, stages: Iterable[nn.Module], head: Head) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([stem, *stages, head])
        self.num_features = head.proj.in_features
        init_weights(self)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> the feature map of the last stage."""
        for block in self.blocks[:-1]:
            x = block(x)
        return x

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """That feature map -> (N, n_classes) logits, or (N, num_features) with `pre_logits`."""
        return self.blocks[-1](features, pre_logits)


def generate_model(model_depth: int, *, n_classes: int = 400, n_input_channels: int = 3,
                   csn_interaction: str = 'reduced') -> BlockNet:
    """A CSN of a depth in `LAYERS`, of any clips; its feature map is (N, 2048, T/8, H/32, W/32).

    Raises InputError for another depth, or for an interaction that is not in `CONVOLUTIONS`.
    """
    if csn_interaction not in CONVOLUTIONS:
        raise InputError(f'no interaction {csn_interaction!r}: choose one of '
                         f'{", ".join(CONVOLUTIONS)}')
    in_planes = PLANES[0]
    stages: list[nn.Module] = []
    stem = nn.Sequential(OrderedDict(
        conv=Conv3d(n_input_channels, in_planes, (3, 7, 7), (1, 2, 2)),
        norm=nn.BatchNorm3d(in_planes), relu=nn.ReLU(),
        pool=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))))
    for n_blocks, planes in zip(layers_of('csn', LAYERS, model_depth), PLANES):
        blocks = []
        for i in range(n_blocks):
            stride = 2 if i == 0 and stages else 1
            blocks.append(Bottleneck(in_planes, planes, planes * EXPANSION, stride,
                                     convolution=CONVOLUTIONS[csn_interaction]))
            in_planes = planes * EXPANSION
        stages.append(Stage(blocks))
    return BlockNet(stem, stages, Head(GlobalAverage(), in_planes, n_classes))


OPTIONS = keyword_options(generate_model)
