"""Counts that add up exactly: over batches, and over processes. Divide once, at the end."""

from collections.abc import Mapping, Sequence

import torch


def topk_hits(scores: torch.Tensor, labels: torch.Tensor, ks: Sequence[int]
              ) -> list[torch.Tensor]:
    """For each k, how many rows have their label among the k best scores.

    (N, n_classes) scores, (N,) labels -> list of 0-d integer tensors. A k above n_classes counts
    as n_classes.
    """
    n_best = min(max(ks), scores.shape[1])
    hits = scores.topk(n_best, dim=1).indices == labels.view(-1, 1)
    return [hits[:, :k].sum() for k in ks]


def topk_any_hits(scores: torch.Tensor, targets: torch.Tensor, ks: Sequence[int]
                  ) -> list[torch.Tensor]:
    """For each k, how many rows have one of their labels among the k best scores.

    (N, n_classes) scores, (N, n_classes) targets, 1 for each label -> as `topk_hits`. A row without
    a label has no hit.
    """
    n_best = min(max(ks), scores.shape[1])
    hits = targets.gather(1, scores.topk(n_best, dim=1).indices) > 0
    return [hits[:, :k].any(dim=1).sum() for k in ks]


def topk_hits_by_class(scores: torch.Tensor, targets: torch.Tensor, k: int) -> torch.Tensor:
    """For each class, how many of the rows that have its label have it among the k best scores.

    (N, n_classes) scores, (N, n_classes) targets, 1 for each label -> (n_classes,) counts.
    """
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (torch.zeros_like(targets).scatter_(1, best, 1) * targets).sum(dim=0)


def mean_per_group(rows: torch.Tensor, groups: torch.Tensor
                   ) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the rows of each group, groups in ascending order.

    (N, D) rows, (N,) group numbers -> (G, D) means, (G,) group numbers.
    """
    numbers, inverse, counts = groups.unique(return_inverse=True, return_counts=True)
    sums = rows.new_zeros(len(numbers), rows.shape[1]).index_add_(0, inverse, rows)
    return sums / counts.unsqueeze(1), numbers


def confusion_counts(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How often a class was taken for which: (n_classes, n_classes), rows true, columns best.

    (N, n_classes) scores, (N,) labels; counts of batches and of processes add up.
    """
    return confusion_of_pairs(labels, scores.argmax(dim=1), scores.shape[1])


def confusion_of_pairs(true: torch.Tensor, predicted: torch.Tensor, n_classes: int) -> torch.Tensor:
    """As `confusion_counts`, of class numbers: (N,) true, (N,) predicted."""
    cells = true * n_classes + predicted
    # Unlike bincount, this does not wait for a GPU.
    counts = cells.new_zeros(n_classes ** 2).index_add_(0, cells, torch.ones_like(cells))
    return counts.view(n_classes, n_classes)


def mean_class_accuracy(counts: torch.Tensor) -> float:
    """Mean over the classes that occur of the share that is right; nan where none occurs."""
    return mean_of_classes(counts.diagonal(), counts.sum(dim=1))


def mean_of_classes(right: torch.Tensor, totals: torch.Tensor) -> float:
    """Mean of right / totals, (n_classes,) counts each, over the classes that occur."""
    occurs = totals > 0
    return float((right[occurs] / totals[occurs]).mean())


def average_precision(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """(N,) scores, (N,) targets, 1 or 0 -> average precision of one class; nan without a positive,
    and where a score is nan.

    AP = sum over the distinct scores, best first, of (R_i - R_{i-1}) P_i, where P_i and R_i are
    precision and recall of the rows that score at least as much. So it is not interpolated, rows of
    equal scores count together, and the order of the rows does not matter: the definition of
    sklearn.metrics.average_precision_score. It is the area under the curve of Everingham et al.,
    "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015, before that is made
    monotonic.
    """
    if not targets.any() or scores.isnan().any():
        return float('nan')
    scores, order = scores.sort(descending=True)
    is_last = torch.ones_like(scores, dtype=torch.bool)  # of the rows with its score
    is_last[:-1] = scores[1:] != scores[:-1]
    ends = is_last.nonzero().flatten()
    hits = targets[order].double().cumsum(0)[ends]
    gained = hits.diff(prepend=hits.new_zeros(1))
    return float((gained * hits / (ends + 1)).sum() / hits[-1])


def average_precisions(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(N, n_classes) scores and targets -> (n_classes,) float64 `average_precision`, on the CPU."""
    columns = zip(scores.cpu().unbind(dim=1), targets.cpu().unbind(dim=1))
    return torch.tensor([average_precision(*column) for column in columns], dtype=torch.float64)


def mean_average_precision(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean of `average_precisions` over the classes with a positive; nan where none has one."""
    return float(average_precisions(scores, targets).nanmean())


def most_confused(counts: torch.Tensor, n: int) -> list[tuple[int, int, int]]:
    """[(true, predicted, how often)] of the `n` most frequent mistakes, the worst first."""
    mistakes = counts.clone().fill_diagonal_(0).flatten()
    # Stable: of equal counts the first classes come first.
    order = mistakes.argsort(descending=True, stable=True)[:n].tolist()
    return [(*divmod(cell, len(counts)), int(mistakes[cell])) for cell in order if mistakes[cell]]


class Sums:
    """Named running sums, kept as float64 tensors where the values are: adding never waits.

        sums = Sums()
        sums.add(clips=8, loss=loss * 8)
        sums.mean('loss', 'clips')
    """

    def __init__(self, totals: Mapping[str, float] | Sequence[tuple[str, float]] = ()) -> None:
        self._sums = {name: torch.tensor(value, dtype=torch.float64)
                      for name, value in dict(totals).items()}

    def add(self, **values: torch.Tensor | float) -> None:
        for name, value in values.items():
            value = torch.as_tensor(value, dtype=torch.float64).detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def total(self, name: str) -> float:
        """The sum as a Python number; 0 where nothing was added."""
        return float(self._sums.get(name, 0))

    def totals(self) -> dict[str, float]:
        """All sums as Python numbers, by name: what `Sums(totals)` starts from."""
        return {name: float(value) for name, value in self._sums.items()}

    def tensor(self, names: Sequence[str], device: torch.device) -> torch.Tensor:
        """The sums of these names as one float64 tensor, for processes to add."""
        return torch.stack([self._sums[name].to(device) for name in names])

    def mean(self, name: str, count: str) -> float:
        """total(name) / total(count); nan where nothing was counted."""
        n = self.total(count)
        return self.total(name) / n if n else float('nan')
