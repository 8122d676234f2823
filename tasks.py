"""Loss, scores and metrics of single-label and of multi-label classification."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn

from metrics import (confusion_counts, mean_average_precision, mean_class_accuracy, topk_any_hits,
                     topk_hits)
from runtime import distributed
from runtime.errors import InputError

KINDS = ('clip', 'video')


# ---------------------------------------------------------------- what is no score

class NotFinite(InputError):
    """The network gave nan or infinity for a video, which the message names."""

    def __init__(self, video: object) -> None:
        super().__init__(f'{video}: the network gave no finite scores; give --precision fp32 or '
                         'bf16 in place of fp16, or weights whose training did not diverge')


def finite_or_nan(scores: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """(N, n_classes) scores, nan in the rows where a logit is not finite: a sigmoid hides that.
    """
    return scores.where(logits.isfinite().all(dim=1, keepdim=True), torch.nan)


def check_finite(video: object, *values: torch.Tensor | None) -> None:
    """Raise NotFinite for a video where any of its scores or features is not finite."""
    if not all(tensor is None or bool(tensor.isfinite().all()) for tensor in values):
        raise NotFinite(video)


# ---------------------------------------------------------------- metrics of a whole pass

# (scores, labels) of the clips or of the videos of a batch.
Rows = tuple[torch.Tensor, torch.Tensor]


class MetricAccumulator(Protocol):
    """Collects a pass over a validation set, batch by batch, for metrics that no mean of batches or
    of processes is."""

    def add(self, *kinds: Rows) -> None:
        """Add what a batch gave: one pair per kind of KINDS."""

    def total(self) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """({metric: value}, {kind: confusion counts}) over all processes."""


class ConfusionAccumulator:
    """Confusion matrices of the clips and of the videos of a pass, and their mean-class accuracy.
    """

    def __init__(self, n_classes: int, device: torch.device) -> None:
        self._counts = torch.zeros(len(KINDS), n_classes, n_classes, dtype=torch.int64,
                                   device=device)

    def add(self, *kinds: Rows) -> None:
        """(scores (N, n_classes), labels (N,)) of a batch's clips, and of its videos."""
        self._counts += torch.stack([confusion_counts(*kind) for kind in kinds])

    def total(self) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """({metric: value}, {'clip', 'video': (n_classes, n_classes) counts}), of all processes;
        rows are true, columns predicted."""
        counts = dict(zip(KINDS, distributed.total(self._counts).cpu()))
        return {f'{kind}_mean_class': mean_class_accuracy(own)
                for kind, own in counts.items()}, counts


class ScoreAccumulator:
    """Scores of all clips and of all videos of a pass, and their mean average precision, which no
    mean of batches or of processes is."""

    def __init__(self, n_classes: int, device: torch.device) -> None:
        nothing = torch.empty(0, n_classes, device=device)
        self._rows: dict[str, list[Rows]] = {kind: [(nothing, nothing)] for kind in KINDS}

    def add(self, *kinds: Rows) -> None:
        """(scores (N, n_classes), targets (N, n_classes)) of a batch's clips, and of its videos."""
        for own, rows in zip(self._rows.values(), kinds):
            own.append(rows)

    def total(self) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """({metric: value}, {}), of all processes: there is no confusion of several labels."""
        columns = {kind: map(torch.cat, zip(*rows)) for kind, rows in self._rows.items()}
        return {f'{kind}_map': mean_average_precision(*map(distributed.all_rows, own))
                for kind, own in columns.items()}, {}


# ---------------------------------------------------------------- losses for rare classes

class BalancedCrossEntropy(nn.CrossEntropyLoss):
    """Cross entropy in which all classes count alike, whatever their numbers of videos: a clip of
    class c counts n_videos / (n_classes * counts[c]) times, which is 1 on average.

    The mean is over the clips, not over their weights, so that the loss of a batch is the mean of
    those of its parts. counts: (n_classes,), of the training; a class without a video counts for
    nothing.
    """

    def __init__(self, counts: torch.Tensor, n_videos: int, label_smoothing: float = 0.0) -> None:
        is_known = counts > 0
        weights = (n_videos / (is_known.sum() * counts.clamp(min=1))).where(is_known, 0)
        super().__init__(weight=weights.to(torch.get_default_dtype()), reduction='none',
                         label_smoothing=label_smoothing)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(logits, labels).mean()


def balanced_bce(counts: torch.Tensor, n_videos: int) -> nn.Module:
    """Binary cross entropy in which the videos that have a class count together as much as those
    that have not: each counts (n_videos - counts[c]) / counts[c] times; (n_classes,) counts."""
    is_known = (counts > 0) & (counts < n_videos)
    factors = ((n_videos - counts) / counts.clamp(min=1)).where(is_known, 1)
    return nn.BCEWithLogitsLoss(pos_weight=factors.to(torch.get_default_dtype()))


# ---------------------------------------------------------------- the two tasks

@dataclass(frozen=True)
class Task:
    """How logits (N, n_classes) are trained, turned into scores and evaluated.

    criterion:   (logits, labels as `Batch` has them) -> mean loss over the clips
    scores:      logits -> (N, n_classes) in 0...1
    hits:        (scores, labels, ks) -> as metrics.topk_hits
    accumulator: (n_classes, device) -> a MetricAccumulator
    metrics:     names of the metrics of a validation beside loss and top-k hits
    best_by:     the metric that decides which checkpoint is the best
    shown:       metrics that are printed, {name: in words}
    """

    criterion: nn.Module
    scores: Callable[[torch.Tensor], torch.Tensor]
    hits: Callable[[torch.Tensor, torch.Tensor, Sequence[int]], list[torch.Tensor]]
    accumulator: Callable[[int, torch.device], MetricAccumulator]
    metrics: tuple[str, ...]
    best_by: str
    shown: dict[str, str]


SINGLE_LABEL = Task(
    nn.CrossEntropyLoss(), partial(torch.softmax, dim=1), topk_hits, ConfusionAccumulator,
    ('clip_mean_class', 'video_mean_class'), 'video_top1',
    {'clip_top1': 'clip top-1', 'video_top1': 'video top-1', 'video_top5': 'top-5',
     'video_mean_class': 'mean-class'})
# The loss is the mean over the classes too.
MULTI_LABEL = Task(
    nn.BCEWithLogitsLoss(), torch.sigmoid, topk_any_hits, ScoreAccumulator,
    ('clip_map', 'video_map'), 'video_map',
    {'clip_top1': 'clip top-1', 'video_top1': 'video top-1', 'clip_map': 'clip mAP',
     'video_map': 'video mAP'})
# By --multi_label.
TASKS = {False: SINGLE_LABEL, True: MULTI_LABEL}


def training_criterion(multi_label: bool, *, label_smoothing: float = 0.0,
                       class_counts: torch.Tensor | None = None, n_videos: int = 0) -> nn.Module:
    """(logits, labels as `Batch` has them, or float targets (N, n_classes)) -> mean loss over the
    clips that a training lowers.

    label_smoothing: share of each target that is spread evenly over all classes (Szegedy et al.,
                     CVPR 2016); of one label per video alone
    class_counts:    (n_classes,) of `n_videos` videos, for a loss that makes up for rare classes
    """
    if multi_label:
        return MULTI_LABEL.criterion if class_counts is None else balanced_bce(class_counts,
                                                                               n_videos)
    if class_counts is not None:
        return BalancedCrossEntropy(class_counts, n_videos, label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)
