"""What came out of the demo: its test videos, counted and drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from util_scripts.helpers import plotting
from util_scripts.helpers.evaluation import (Scores, Truth, count_confusions, read_results,
                                             read_truth)
from util_scripts.helpers.run_logs import read_run

MAX_WRONG_CLIPS = 4  # in the picture of clips, before one right one per class
FRAME_NUMBERS = list(range(1, 33, 4))  # of the 32 in a clip of the demo


def choose_clips(truth: Truth, scores: Scores, classes: Sequence[str]) -> list[tuple[str, str]]:
    """(video id, its label) of some wrong ones, if any, then of a right one per class, each of
    another scene."""
    labelled = sorted((video_id, label) for video_id in scores for label in truth[video_id])
    is_right = {video_id: next(iter(scores[video_id])) == label for video_id, label in labelled}
    chosen = [video for video in labelled if not is_right[video[0]]][:MAX_WRONG_CLIPS]
    for place, name in enumerate(classes):
        right = [video for video in labelled if video[1] == name and is_right[video[0]]]
        chosen += right[place % len(right):][:1] if right else []
    return chosen


def draw_pictures(annotation: Path, results: Path, jpg_path: Path) -> torch.Tensor:
    """Write curves.png, confusion.png and clips.png into the folder of the results; the
    (n_classes, n_classes) counts of videos, rows true, columns predicted."""
    classes, truth, _ = read_truth(annotation, 'validation')
    scores, _ = read_results(results / 'val.json', truth, len(classes), 1)
    counts = count_confusions(truth, scores, classes)
    clips = []
    for video_id, label in choose_clips(truth, scores, classes):
        frames = [np.asarray(Image.open(jpg_path / label / video_id / f'image_{number:05d}.jpg'))
                  for number in FRAME_NUMBERS]
        clips.append(plotting.Clip(np.stack(frames), FRAME_NUMBERS, label,
                                   *next(iter(scores[video_id].items())), video_id))
    plotting.draw_runs({'': read_run(results)}, results / 'curves.png')
    plotting.draw_confusion(counts.numpy(), classes, results / 'confusion.png')
    plotting.draw_clips(clips, results / 'clips.png')
    return counts
