"""Frames and an annotation to measure on, where none are given."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from util_scripts.helpers.timing import moving_frames

# The least number of batches, where a video of 40 frames is taken as two clips.
N_BATCHES = {'training': 16, 'validation': 4}


def make_data(folder: Path | str, n_videos: int = 8, n_frames: int = 40, batch_size: int = 8
              ) -> list[str]:
    """Frames and an annotation in a folder; the flags of main.py that name them.

    Every class is one video, which as many entries of the annotation name as some batches need.
    """
    folder, rng = Path(folder), np.random.default_rng(0)
    labels = [f'class_{i}' for i in range(n_videos)]
    database: dict[str, object] = {}
    for label in labels:
        _write_video(folder / 'jpg' / label, n_frames, rng)
        for subset, n_batches in N_BATCHES.items():
            for i in range(math.ceil(n_batches * batch_size / n_videos)):
                marks = {'label': label, 'segment': [1, n_frames + 1]}
                database[f'{label}_{subset}_{i}'] = {'subset': subset, 'annotations': marks,
                                                     'video_path': label}
    (folder / 'annotation.json').write_text(json.dumps({'labels': labels, 'database': database}))
    return ['--video_path', str(folder / 'jpg'), '--annotation_path',
            str(folder / 'annotation.json'), '--n_classes', str(n_videos)]


def _write_video(folder: Path, n_frames: int, rng: np.random.Generator) -> None:
    """`moving_frames` in files of about 10 kB each."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(moving_frames(n_frames, rng)):
        Image.fromarray(frame).save(folder / f'image_{i + 1:05d}.jpg', quality=75)
