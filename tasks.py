"""What a network is to say of a clip: its one class, or which of the classes it has (multi-label).

A `Task` is all that this changes: the loss, the scores, and what a validation measures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from metrics import (confusion_counts, mean_average_precision, mean_class_accuracy, topk_any_hits,
                     topk_hits)
from runtime import distributed

KINDS = ('clip', 'video')


# ---------------------------------------------------------------- measures of a whole pass

class ConfusionTally:
    """Confusion matrices of the clips and of the videos of a pass, and their mean-class accuracy.
    """

    def __init__(self, n_classes, device):
        self._counts = torch.zeros(len(KINDS), n_classes, n_classes, dtype=torch.int64,
                                   device=device)

    def add(self, *kinds):
        """(scores (N, n_classes), labels (N,)) of a batch's clips, and of its videos."""
        self._counts += torch.stack([confusion_counts(*kind) for kind in kinds])

    def total(self):
        """({measure: value}, {'clip', 'video': (n_classes, n_classes) counts}), of all processes;
        rows are true, columns predicted."""
        counts = dict(zip(KINDS, distributed.total(self._counts).cpu()))
        return {f'{kind}_mean_class': mean_class_accuracy(own)
                for kind, own in counts.items()}, counts


class ScoreTally:
    """Scores of all clips and of all videos of a pass, and their mean average precision, which no
    mean of batches or of processes is."""

    def __init__(self, n_classes, device):
        nothing = torch.empty(0, n_classes, device=device)
        self._rows = {kind: [(nothing, nothing)] for kind in KINDS}

    def add(self, *kinds):
        """(scores (N, n_classes), targets (N, n_classes)) of a batch's clips, and of its videos."""
        for own, rows in zip(self._rows.values(), kinds):
            own.append(rows)

    def total(self):
        """({measure: value}, {}), of all processes: there is no confusion of several labels."""
        columns = {kind: map(torch.cat, zip(*rows)) for kind, rows in self._rows.items()}
        return {f'{kind}_map': mean_average_precision(*map(distributed.all_rows, own))
                for kind, own in columns.items()}, {}


# ---------------------------------------------------------------- the two tasks

@dataclass(frozen=True)
class Task:
    """How logits (N, n_classes) are trained, read and measured.

    criterion: (logits, labels as `Batch` has them) -> mean loss over the clips
    scores:    logits -> (N, n_classes) in 0...1
    hits:      (scores, labels, ks) -> as metrics.topk_hits
    tally:     (n_classes, device) -> a ConfusionTally, or what has its methods
    measures:  names of what a validation measures beside loss and top-k hits
    best_by:   the measure of the best checkpoint
    shown:     measures that are printed, {name: in words}
    """

    criterion: nn.Module
    scores: Callable
    hits: Callable
    tally: Callable
    measures: tuple
    best_by: str
    shown: dict


SINGLE_LABEL = Task(
    nn.CrossEntropyLoss(), partial(torch.softmax, dim=1), topk_hits, ConfusionTally,
    ('clip_mean_class', 'video_mean_class'), 'video_top1',
    {'clip_top1': 'clip top-1', 'video_top1': 'video top-1', 'video_top5': 'top-5',
     'video_mean_class': 'mean-class'})
# The loss is the mean over the classes too.
MULTI_LABEL = Task(
    nn.BCEWithLogitsLoss(), torch.sigmoid, topk_any_hits, ScoreTally,
    ('clip_map', 'video_map'), 'video_map',
    {'clip_top1': 'clip top-1', 'video_top1': 'video top-1', 'clip_map': 'clip mAP',
     'video_map': 'video mAP'})
# By --multi_label.
TASKS = {False: SINGLE_LABEL, True: MULTI_LABEL}
