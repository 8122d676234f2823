"""What came out of the demo: a verdict for each test video, counted and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metrics import confusion_of_pairs
from util_scripts.helpers import plotting
from util_scripts.helpers.files import read_json
from util_scripts.helpers.run_logs import read_run

MAX_WRONG_CLIPS = 4  # in the picture of clips, before one right one per class
FRAME_NUMBERS = list(range(1, 33, 4))  # of the 32 in a clip of the demo


@dataclass(frozen=True)
class Verdict:
    """What was said of a test video: the best class and its score, 0…1."""

    video_id: str
    truth: str
    predicted: str
    score: float


def read_verdicts(annotation_path: Path, result_path: Path) -> list[Verdict]:
    """One Verdict for each test video, sorted by name."""
    database = read_json(annotation_path, 'the annotation')['database']
    results = read_json(result_path, 'the result of inference')['results']
    return [Verdict(video_id, database[video_id]['annotations']['label'],
                    result[0]['label'], result[0]['score'])
            for video_id, result in sorted(results.items())]


def count_confusions(verdicts: Sequence[Verdict], classes: Sequence[str]) -> torch.Tensor:
    """(n_classes, n_classes) counts of videos, rows true, columns predicted."""
    pairs = [(classes.index(verdict.truth), classes.index(verdict.predicted))
             for verdict in verdicts]
    true, predicted = torch.tensor(pairs).unbind(dim=1)
    return confusion_of_pairs(true, predicted, len(classes))


def choose_clips(verdicts: Sequence[Verdict], classes: Sequence[str]) -> list[Verdict]:
    """Some wrong ones, if any, then a right one per class, each of another scene."""
    wrong = [verdict for verdict in verdicts if verdict.truth != verdict.predicted]
    chosen = wrong[:MAX_WRONG_CLIPS]
    for place, name in enumerate(classes):
        right = [verdict for verdict in verdicts if verdict.truth == verdict.predicted == name]
        chosen += right[place % len(right):][:1] if right else []
    return chosen


def load_clip(jpg_path: Path, verdict: Verdict) -> plotting.Clip:
    """The frames of a Verdict's video as a plotting.Clip."""
    folder = jpg_path / verdict.truth / verdict.video_id
    frames = [np.asarray(Image.open(folder / f'image_{number:05d}.jpg').convert('RGB'))
              for number in FRAME_NUMBERS]
    return plotting.Clip(np.stack(frames), FRAME_NUMBERS, verdict.truth, verdict.predicted,
                         verdict.score, verdict.video_id)


def draw_pictures(dst: Path, verdicts: Sequence[Verdict], counts: torch.Tensor,
                  classes: Sequence[str]) -> None:
    """Write curves.png, confusion.png and clips.png into `dst`/results."""
    results = dst / 'results'
    plotting.draw_curves(read_run(results), results / 'curves.png')
    plotting.draw_confusion(counts.numpy(), classes, results / 'confusion.png')
    plotting.draw_clips([load_clip(dst / 'jpg', verdict)
                         for verdict in choose_clips(verdicts, classes)], results / 'clips.png')
