"""X3D: a small 2D network, expanded one axis at a time into an efficient one for video.

Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", CVPR 2020. Modules
have the names of PyTorchVideo's weights.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import nn

from models.base import Conv3d, keyword_options
from models.csn import BlockNet, Bottleneck, GlobalAverage, Head, Stage
from runtime.errors import InputError

# By size the blocks of each stage. XS, S and M are one network, trained on other clips: 4 frames of
# 160 pixels, 13 of 160, 16 of 224; L was on 16 of 312.
SIZES = {**dict.fromkeys(('xs', 's', 'm'), (3, 5, 11, 7)), 'l': (5, 10, 25, 15)}
STEM_PLANES = 24
PLANES = (24, 48, 96, 192)
MID_PLANES = (54, 108, 216, 432)
# Channels that a squeeze leaves of MID_PLANES: a sixteenth, rounded to eights.
SQUEEZED = {54: 8, 108: 8, 216: 16, 432: 32}
NUM_FEATURES = 2048


class SqueezeExcitation(nn.Module):
    """Scales each channel by what all of them are on average (Hu et al., CVPR 2018)."""

    def __init__(self, planes: int, squeezed: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv3d(planes, squeezed, 1), nn.ReLU(),
                                   nn.Conv3d(squeezed, planes, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, planes, t, h, w) -> the same shape."""
        return x * self.block(x.mean(dim=(2, 3, 4), keepdim=True))


def norm_and_excitation(planes: int, is_excited: bool) -> nn.Module:
    """What follows the convolution of a block; every other block has an excitation."""
    last = SqueezeExcitation(planes, SQUEEZED[planes]) if is_excited else nn.Identity()
    return nn.Sequential(nn.BatchNorm3d(planes), last)


def make_stem(n_input_channels: int) -> nn.Module:
    """1x3x3, then 5x1x1 of each channel: (N, C, T, H, W) -> (N, 24, T, H/2, W/2).

    In PyTorchVideo's names the first is the one in time; the kernels say otherwise.
    """
    conv = nn.Sequential(OrderedDict(
        conv_t=Conv3d(n_input_channels, STEM_PLANES, (1, 3, 3), (1, 2, 2)),
        conv_xy=Conv3d(STEM_PLANES, STEM_PLANES, (5, 1, 1), groups=STEM_PLANES)))
    return nn.Sequential(OrderedDict(
        conv=conv, norm=nn.BatchNorm3d(STEM_PLANES), relu=nn.ReLU()))


def make_pool() -> nn.Module:
    """Of the head: wider, averaged, and wider still: (N, 192, t, h, w) -> (N, 2048, 1, 1, 1)."""
    return nn.Sequential(OrderedDict(
        pre_conv=Conv3d(PLANES[-1], MID_PLANES[-1], 1), pre_norm=nn.BatchNorm3d(MID_PLANES[-1]),
        pre_act=nn.ReLU(), pool=GlobalAverage(),
        post_conv=Conv3d(MID_PLANES[-1], NUM_FEATURES, 1), post_act=nn.ReLU()))


def generate_model(*, model_size: str = 'm', n_classes: int = 400,
                   n_input_channels: int = 3) -> BlockNet:
    """An X3D of a size in `SIZES`, of any clips; its feature map is (N, 192, T, H/32, W/32).

    The classifier gets `num_features`, 2048, that the head makes of the 192. Raises InputError for
    another size.
    """
    if model_size not in SIZES:
        raise InputError(f'x3d has no size {model_size!r}: choose one of {", ".join(SIZES)}')
    in_planes = STEM_PLANES
    stages: list[nn.Module] = []
    for n_blocks, planes, mid_planes in zip(SIZES[model_size], PLANES, MID_PLANES):
        blocks = []
        for i in range(n_blocks):
            blocks.append(Bottleneck(
                in_planes, mid_planes, planes, (1, 2, 2) if i == 0 else 1,
                norm=partial(norm_and_excitation, is_excited=i % 2 == 0), activation=nn.SiLU))
            in_planes = planes
        stages.append(Stage(blocks))
    return BlockNet(make_stem(n_input_channels), stages,
                    Head(make_pool(), NUM_FEATURES, n_classes))


OPTIONS = keyword_options(generate_model)
