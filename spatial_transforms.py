"""Spatial transforms: crops, flips and colours of uint8 (T, C, H, W) clips, one draw per clip.

They are torchvision's (transforms.v2) wherever it has them, which draws once for all frames of a
tensor. `Normalize` is the part that runs on the device, for a whole batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import (CenterCrop, Compose,  # noqa: F401  (part of this module)
                                       functional as F)

CORNERS = ('center', 'top_left', 'top_right', 'bottom_left', 'bottom_right')
# Multi-scale corner cropping of Wang et al., "Towards Good Practices for Very Deep Two-Stream
# ConvNets" (2015), with the five scales of Hara et al. (2017).
CORNER_CROP_SCALES = tuple(2 ** (-i / 4) for i in range(5))


class Resize(v2.Resize):
    """Short side to `size` pixels, aspect kept; bilinear with antialias, as Pillow does it."""

    def __init__(self, size: int) -> None:
        super().__init__(size, v2.InterpolationMode.BILINEAR, antialias=True)


class RandomResizedCrop(v2.RandomResizedCrop):
    """A random part of the frame, resized to `size` x `size`.

    Its area is `min_scale`...1 of the frame's, its aspect `min_ratio`...1 / `min_ratio`
    (Szegedy et al., "Going Deeper with Convolutions", CVPR 2015).
    """

    def __init__(self, size: int, min_scale: float = 0.25, min_ratio: float = 0.75) -> None:
        super().__init__(size, (min_scale, 1.0), (min_ratio, 1.0 / min_ratio), antialias=True)
        # Numbers rather than a tensor, which torch would make numbers of for each clip.
        self._log_ratio: Any = torch.log(torch.tensor(self.ratio)).tolist()


class CornerCrop:
    """A square at `position` (one of CORNERS), its side `scale` times the short side, resized to
    `size` x `size`."""

    def __init__(self, size: int, position: str, scale: float = 1.0) -> None:
        if position not in CORNERS:
            raise ValueError(f'position {position!r}: not one of {CORNERS}')
        self.size, self.position, self.scale = size, position, scale

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        top, left, height, width = self.box(*clip.shape[-2:])
        square = clip[..., top:top + height, left:left + width]
        return F.resize(square, [self.size, self.size], antialias=True)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the square in frames of a size."""
        side = max(1, round(min(height, width) * self.scale))
        if self.position == 'center':
            return round((height - side) / 2), round((width - side) / 2), side, side
        top = height - side if self.position.startswith('bottom') else 0
        left = width - side if self.position.endswith('right') else 0
        return top, left, side, side


class EvenCrops:
    """`n` squares of `size` along the long side of the frames, whose short side is resized to it,
    or to `short_side`.

    uint8 (T, C, H, W) -> (n, T, C, size, size): from end to end, evenly placed; one: the centre.
    """

    def __init__(self, size: int, n: int, short_side: int | None = None) -> None:
        self.size, self.n, self.resize = size, n, Resize(short_side or size)

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        return self.crop(self.resize(clip))

    def crop(self, clip: torch.Tensor) -> torch.Tensor:
        """The squares of frames that are resized already."""
        if self.n == 1:
            return F.center_crop(clip, [self.size, self.size]).unsqueeze(0)
        height, width = clip.shape[-2:]
        top, left = (round((side - self.size) / 2) for side in (height, width))
        crops = []
        for i in range(self.n):
            begin = round(i * (max(height, width) - self.size) / (self.n - 1))
            top, left = (begin, left) if height > width else (top, begin)
            crops.append(clip[..., top:top + self.size, left:left + self.size])
        return torch.stack(crops)


class MultiScaleCornerCrop:
    """A `CornerCrop` at a random one of CORNERS and of `scales`."""

    def __init__(self, size: int, scales: Sequence[float] = CORNER_CROP_SCALES) -> None:
        self.size, self.scales = size, tuple(scales)

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        return self.draw()(clip)

    def draw(self) -> CornerCrop:
        position = CORNERS[int(torch.randint(len(CORNERS), ()))]
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        return CornerCrop(self.size, position, scale)


class RandomHorizontalFlip:
    """Mirrors the clip with probability 0.5.

    is_flow: channel 0 is horizontal optical flow with 0 at 127.5; mirroring turns its sign.
    """

    def __init__(self, is_flow: bool = False) -> None:
        self.is_flow = is_flow

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        if torch.rand(()) < 0.5:
            return clip
        clip = F.horizontal_flip(clip)
        if not self.is_flow:
            return clip
        return torch.cat([255 - clip[..., :1, :, :], clip[..., 1:, :, :]], dim=-3)


class ColorJitter(v2.ColorJitter):
    """Brightness, contrast and saturation times 1 - x...1 + x, hue turned by up to so much of the
    colour circle, which is at most a half."""

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4,
                 hue: float = 0.1) -> None:
        super().__init__(brightness, contrast, saturation, hue)


class RandAugment(v2.RandAugment):
    """`n_ops` random operations of a magnitude of 0...30 (Cubuk et al., "RandAugment", 2020).

    fill: one value per channel, 0...255, for what comes into the frame from outside

    What an operation does to a colour may depend on the whole picture. That is the whole clip here,
    so that it does the same in all frames.
    """

    WHOLE_CLIP = ('Contrast', 'AutoContrast', 'Equalize')

    def __init__(self, fill: Sequence[float], n_ops: int, magnitude: int) -> None:
        super().__init__(n_ops, magnitude, interpolation=v2.InterpolationMode.BILINEAR,
                         fill=list(fill))

    def _apply_image_or_video_transform(self, image: Any, transform_id: str, *args: Any,
                                        **kwargs: Any) -> Any:
        apply = super()._apply_image_or_video_transform
        if transform_id not in self.WHOLE_CLIP:
            return apply(image, transform_id, *args, **kwargs)
        columns = image.transpose(0, 1)  # (C, T, H, W): the frames one below the other
        tall = apply(columns.flatten(1, 2), transform_id, *args, **kwargs)
        return tall.view(columns.shape).transpose(0, 1)


class RandomErasing(v2.RandomErasing):
    """With probability `p` a random box has one colour in all frames (Zhong et al., "Random
    Erasing Data Augmentation", AAAI 2020).

    value: one per channel, 0...255
    """

    def __init__(self, p: float, value: Sequence[float]) -> None:
        super().__init__(p, value=list(value))


class PickFirstChannels:
    """The first `n` channels: (T, C, H, W) -> (T, n, H, W)."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        return clip[..., :self.n, :, :]


class FirstResize(NamedTuple):
    """What a transform does first: it resizes a box of the frames.

    box:  (top, left, height, width), in pixels of the frames
    size: (height, width) that the box is resized to
    rest: what the transform does then: uint8 (T, C, height, width) -> the transform's result
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]
    rest: Callable[[torch.Tensor], torch.Tensor]


def first_resize(transform: Callable[[torch.Tensor], torch.Tensor], height: int,
                 width: int) -> FirstResize:
    """The `FirstResize` of a transform of frames of a size, for readers that can crop and resize
    while they decode.

    Draws what the transform would draw for it. For a transform that begins otherwise it is the
    whole frame in its own size.
    """
    first, *others = transform.transforms if isinstance(transform, Compose) else [transform]
    whole = FirstResize((0, 0, height, width), (height, width), transform)
    if isinstance(first, RandomResizedCrop):
        drawn = first.make_params([torch.empty(1).expand(3, height, width)])
        box = drawn['top'], drawn['left'], drawn['height'], drawn['width']
        return FirstResize(box, (first.size[0], first.size[1]), _in_order(others))
    if isinstance(first, MultiScaleCornerCrop):
        first = first.draw()
    if isinstance(first, CornerCrop):
        return FirstResize(first.box(height, width), (first.size, first.size), _in_order(others))
    if isinstance(first, EvenCrops):
        others, first = [first.crop, *others], first.resize
    if isinstance(first, Resize):
        short = min(height, width)
        size = first.size[0] * height // short, first.size[0] * width // short
        return whole._replace(size=size, rest=_in_order(others))
    return whole


def _in_order(transforms: Sequence[Callable[[torch.Tensor], torch.Tensor]]
              ) -> Callable[[torch.Tensor], torch.Tensor]:
    return Compose(transforms) if transforms else lambda clip: clip


class Normalize(nn.Module):
    """(N, C, T, H, W) uint8 -> float: scaled to 0...value_scale, minus mean, divided by std.

    `mean` and `std`: one value per channel, in units of the scaled image. The result has the
    default float type.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float],
                 value_scale: float = 1) -> None:
        super().__init__()
        means, stds = torch.tensor(mean), torch.tensor(std)
        self.register_buffer('factor', _per_channel(value_scale / 255 / stds), persistent=False)
        self.register_buffer('offset', _per_channel(means / stds), persistent=False)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips * self.factor - self.offset


class BatchMix:
    """Mixes each clip of a batch with the one before it, and their targets in the same proportion:
    mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018), CutMix with a box
    through all frames (Yun et al., "CutMix", ICCV 2019), or one of both, drawn for each batch.

    mixup, cutmix: alpha of Beta(alpha, alpha) that the proportion is drawn from, 0 for none

    clips (N, C, T, H, W) uint8 or float, labels (N,) class numbers or (N, n_classes) of 0 and 1
    -> clips, targets (N, n_classes), both float. One draw per batch, of torch's CPU generator.
    """

    def __init__(self, n_classes: int, mixup: float = 0, cutmix: float = 0) -> None:
        rows = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        self._mix = v2.RandomChoice([kind(alpha=float(alpha), num_classes=n_classes)
                                     for kind, alpha in rows if alpha])

    def __call__(self, clips: torch.Tensor, labels: torch.Tensor
                 ) -> tuple[torch.Tensor, torch.Tensor]:
        mixed, targets = self._mix(tv_tensors.Video(clips.float()), labels)
        # The order in memory that the network is fastest with, which is lost on the way.
        mixed = mixed.as_subclass(torch.Tensor).contiguous(
            memory_format=torch.channels_last_3d if _is_channels_last(clips)
            else torch.contiguous_format)
        return mixed, targets


def _is_channels_last(clips: torch.Tensor) -> bool:
    return clips.is_contiguous(memory_format=torch.channels_last_3d)


def _per_channel(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)
