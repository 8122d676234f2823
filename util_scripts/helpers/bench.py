"""What the measurements of a benchmark share: options, a device, and data where none are given."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from datasets.annotations import Annotation
from datasets.loading import build_loader
from opts import Options, normalization, replace
from spatial_transforms import Normalize
from weights import Weights

# The least number of batches of made-up data, where a video of 40 frames is taken as two clips.
N_BATCHES = {'training': 16, 'validation': 4}
HEIGHT, WIDTH = 240, 320  # of made-up frames


@dataclass(frozen=True)
class Bench:
    """One benchmark: what its measurements take.

    weights: those of --resume_path, which may be an exported network; None without
    """

    opts: Options
    annotation: Annotation
    device: torch.device
    seconds: float
    is_against_plain: bool
    videos: Path | None = None
    against: tuple[str, ...] = ()
    weights: Weights | None = None

    def loader(self, split: str, **changes: Any) -> Any:
        """The loader of a split as main.py has it, of options with these changes."""
        opts = replace(self.opts, **changes)
        return build_loader(opts, split, self.annotation, pin_memory=self.device.type == 'cuda')

    def normalize(self) -> Normalize:
        mean, std = normalization(self.opts)
        return Normalize(mean, std, self.opts.value_scale).to(self.device)


def wait_for(device: torch.device) -> None:
    """Return when the device has done all it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


# ---------------------------------------------------------------- made-up data

def moving_frames(n_frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A picture of coarse and fine structure that moves: uint8 (HEIGHT, WIDTH, 3) per frame."""
    coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
    size = WIDTH + 2 * n_frames, HEIGHT + n_frames
    picture = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
    picture = (picture + rng.normal(0, 3, (*picture.shape[:2], 1))).clip(0, 255).astype(np.uint8)
    for i in range(n_frames):
        yield picture[i:i + HEIGHT, 2 * i:2 * i + WIDTH]


def make_data(folder: Path | str, n_videos: int = 8, n_frames: int = 40, batch_size: int = 8
              ) -> list[str]:
    """Frames, in files of about 10 kB each, and an annotation in a folder; the flags of main.py
    that name them.

    Every class is one video, which as many entries of the annotation name as some batches need.
    """
    folder, rng = Path(folder), np.random.default_rng(0)
    labels = [f'class_{i}' for i in range(n_videos)]
    database: dict[str, object] = {}
    for label in labels:
        (folder / 'jpg' / label).mkdir(parents=True)
        for i, frame in enumerate(moving_frames(n_frames, rng), 1):
            Image.fromarray(frame).save(folder / 'jpg' / label / f'image_{i:05d}.jpg', quality=75)
        for subset, n_batches in N_BATCHES.items():
            for i in range(math.ceil(n_batches * batch_size / n_videos)):
                marks = {'label': label, 'segment': [1, n_frames + 1]}
                database[f'{label}_{subset}_{i}'] = {'subset': subset, 'annotations': marks,
                                                     'video_path': label}
    (folder / 'annotation.json').write_text(json.dumps({'labels': labels, 'database': database}))
    return ['--video_path', str(folder / 'jpg'), '--annotation_path',
            str(folder / 'annotation.json'), '--n_classes', str(n_videos)]
