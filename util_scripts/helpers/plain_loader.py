"""Clips the plain way: frame by frame with Pillow, floats made in the loader process.

What pixels of the loader are compared with, and what its speed is measured against:

    python -m util_scripts.benchmark --against_plain
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

import spatial_transforms as S
from datasets.sampling import sample_draw
from opts import Options, normalization
from temporal_transforms import as_clips


class PlainClips(Dataset[Any]):
    """The samples of a `VideoDataset` of jpg frames, by the same keys and with the same draws.

    A sample is its clips, float (C, T, h, w) normalised, and its class number. Training crops are
    random ones, others the centre's.
    """

    def __init__(self, dataset: Any, opts: Options, split: str) -> None:
        self.dataset, self.size, self.is_training = dataset, opts.sample_size, split == 'train'
        self.short_side = opts.sample_resize or opts.sample_size
        self.crop = S.RandomResizedCrop(self.size, opts.train_crop_min_scale,
                                        opts.train_crop_min_ratio)
        mean, std = normalization(opts)
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self.value_scale = opts.value_scale

    def __getitem__(self, key: Any) -> tuple[list[torch.Tensor], int]:
        dataset, records = self.dataset, self.dataset.records
        with sample_draw(dataset.seed, key.epoch, key.index, key.draw):
            clips = as_clips(dataset.temporal_transform(records.frames(key.index)))
            first = self._open(key.index, clips[0][0])
            spatial = self._random_crop(first.size) if self.is_training else self._centre
        return [torch.stack([self._as_tensor(spatial(self._open(key.index, frame)))
                             for frame in clip], 1)
                for clip in clips[key.begin_clip:key.end_clip]], int(records.targets([key.index]))

    def _open(self, index: int, frame: int) -> Image.Image:
        with open(f'{self.dataset.path(index)}/image_{frame:05d}.jpg', 'rb') as file:
            return Image.open(file).convert('RGB')

    def _random_crop(self, size: tuple[int, int]) -> Callable[[Image.Image], Image.Image]:
        """The function of a frame that a draw gives."""
        width, height = size
        box = self.crop.make_params([torch.empty(1, 3, height, width, device='meta')])
        edges = (box['left'], box['top'], box['left'] + box['width'], box['top'] + box['height'])
        is_mirrored = bool(torch.rand(()) >= 0.5)

        def crop(frame: Image.Image) -> Image.Image:
            frame = frame.crop(edges).resize((self.size, self.size), Image.Resampling.BILINEAR)
            return frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else frame
        return crop

    def _centre(self, frame: Image.Image) -> Image.Image:
        short = min(frame.size)
        frame = frame.resize([int(self.short_side * side / short) for side in frame.size],
                             Image.Resampling.BILINEAR)
        left, top = (round((side - self.size) / 2) for side in frame.size)
        return frame.crop((left, top, left + self.size, top + self.size))

    def _as_tensor(self, frame: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)
        return (pixels.float() * (self.value_scale / 255) - self.mean) / self.std


def plain_collate(samples: list[tuple[list[torch.Tensor], int]]
                  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Float clips (N, C, T, h, w), labels (N,)."""
    clips = torch.stack([clip for clips, _ in samples for clip in clips])
    return clips, torch.tensor([label for clips, label in samples for _ in clips])
