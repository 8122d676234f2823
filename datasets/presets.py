"""Presets: what training, validation and inference do to a video, from its frames to the pixels.

Everything here is a function of the options and of a split: 'train', 'val' or 'inference'. Training
crops at random and augments; validation takes clips evenly placed in a video, and inference
windows that cover it, both from the centre of the frames unless flags say otherwise.
"""

from collections.abc import Callable
from typing import Any

import torch

import spatial_transforms as S
import temporal_transforms as T
from opts import Options, normalization

SpatialTransform = Callable[[torch.Tensor], torch.Tensor]

# By --train_t_crop.
TEMPORAL_CROPS: dict[str, type[T.LoopPadding]] = {'random': T.TemporalRandomCrop,
                                                  'center': T.TemporalCenterCrop}
# By --train_crop.
SPATIAL_CROPS: dict[str, Callable[[Options], SpatialTransform]] = {
    'random': lambda opts: S.RandomResizedCrop(opts.sample_size, opts.train_crop_min_scale,
                                               opts.train_crop_min_ratio),
    'corner': lambda opts: S.MultiScaleCornerCrop(opts.sample_size),
    'center': lambda opts: _center_crop(opts),
}
# What training does to cropped clips, in this order: one row per augmentation, of whether the
# options want it, and the transform. Any of torchvision.transforms.v2 will do: it draws once for
# all frames of a clip.
AUGMENTATIONS: list[tuple[Callable[[Options], Any], Callable[[Options], SpatialTransform]]] = [
    (lambda opts: not opts.no_hflip,
     lambda opts: S.RandomHorizontalFlip(is_flow=opts.input_type == 'flow')),
    (lambda opts: opts.rand_augment and opts.rand_augment[0],
     lambda opts: S.RandAugment(_blank(opts), *opts.rand_augment)),
    (lambda opts: opts.colorjitter,
     lambda opts: S.ColorJitter(*([] if opts.colorjitter is True else opts.colorjitter))),
    (lambda opts: opts.random_erasing,
     lambda opts: S.RandomErasing(opts.random_erasing, value=_blank(opts))),
]


def temporal_transform(opts: Options, split: str) -> T.TemporalTransform:
    """Which frames make a clip: frame numbers -> a clip, or a list of clips."""
    crop: T.TemporalTransform
    if split == 'train' and opts.speed_jitter:
        crop = T.SpeedJitter(TEMPORAL_CROPS[opts.train_t_crop], opts.sample_duration,
                             *opts.speed_jitter)
    elif split == 'train':
        crop = TEMPORAL_CROPS[opts.train_t_crop](opts.sample_duration)
    elif split == 'val':
        crop = T.TemporalEvenCrop(opts.sample_duration, opts.n_val_samples)
    elif opts.inference_views:
        crop = T.EvenWindows(opts.sample_duration, opts.inference_views[0])
    else:
        crop = T.SlidingWindow(opts.sample_duration, opts.inference_stride)
    return T.Compose([T.TemporalSubsampling(opts.sample_t_stride), crop])


def spatial_transform(opts: Options, split: str) -> SpatialTransform:
    """What happens to the pixels of a clip: uint8 (T, C, H, W) -> uint8 (T, C, h, w).

    With --inference_views, S crops of each: uint8 (S, T, C, h, w).
    """
    if split == 'train':
        return S.Compose([SPATIAL_CROPS[opts.train_crop](opts),
                          *(make(opts) for is_wanted, make in AUGMENTATIONS if is_wanted(opts))])
    if split == 'inference' and opts.inference_views:
        return S.EvenCrops(opts.sample_size, opts.inference_views[1], _short_side(opts))
    if split == 'inference' and opts.inference_crop == 'nocrop':
        return S.Resize(_short_side(opts))
    return _center_crop(opts)


def batch_mix(opts: Options) -> S.BatchMix | None:
    """What happens to whole batches of training, on the device; None for nothing."""
    if not (opts.mixup or opts.cutmix):
        return None
    return S.BatchMix(opts.n_classes, opts.mixup, opts.cutmix)


def _blank(opts: Options) -> list[float]:
    """The mean that is subtracted, of each channel, as pixels of 0...255: 0 for the network."""
    mean, _ = normalization(opts)
    return [float(round(255 * value / opts.value_scale)) for value in mean]


def _center_crop(opts: Options) -> SpatialTransform:
    return S.Compose([S.Resize(_short_side(opts)), S.CenterCrop(opts.sample_size)])


def _short_side(opts: Options) -> int:
    """What frames are resized to before a crop, in pixels."""
    return opts.sample_resize or opts.sample_size


def n_crops(opts: Options, split: str) -> int:
    """How many crops the spatial transform makes of a clip."""
    return opts.inference_views[1] if split == 'inference' and opts.inference_views else 1


def decode_options(opts: Options, split: str) -> dict[str, Any]:
    """What a reader is told of --frame_template, --fast_decode, --exact_pixels, --video_index."""
    if opts.file_type == 'video':
        return {'is_exact': opts.exact_pixels, 'index': opts.video_index}
    names = {'template': opts.frame_template} if opts.frame_template else {}
    if not opts.fast_decode:
        return names
    # A random crop may be much smaller than the frame, so no pixels are left out there.
    return names | {'is_fast': True, 'min_side': 0 if split == 'train' else _short_side(opts)}
