"""Counts: top-k hits, means a group, sums divided once."""

import math

import pytest
import torch

from metrics import (Sums, confusion_counts, mean_class_accuracy, mean_per_group, most_confused,
                     topk_hits)


def test_topk_hits_count_rows_and_cap_k_at_the_classes():
    scores = torch.tensor([[3., 2., 1.], [3., 2., 1.], [1., 2., 3.]])
    labels = torch.tensor([0, 1, 0])
    assert [int(hits) for hits in topk_hits(scores, labels, (1, 2, 5))] == [1, 2, 3]


def test_mean_per_group():
    rows = torch.tensor([[1., 2.], [5., 6.], [3., 4.]])
    means, numbers = mean_per_group(rows, torch.tensor([7, 4, 7]))
    assert numbers.tolist() == [4, 7]
    assert means.tolist() == [[5., 6.], [2., 3.]]


def test_sums_are_divided_once():
    sums = Sums()
    for n_clips, loss in ((8, 1.0), (2, 6.0)):
        sums.add(clips=n_clips, loss=torch.tensor(loss) * n_clips)
    assert sums.mean('loss', 'clips') == 2.0
    assert math.isnan(Sums().mean('loss', 'clips'))


def test_confusion_counts_add_up():
    scores = torch.eye(3)[[0, 1, 1, 2, 1, 1]]
    labels = torch.tensor([0, 0, 0, 2, 2, 2])
    counts = confusion_counts(scores, labels)
    assert counts.tolist() == [[1, 2, 0], [0, 0, 0], [0, 2, 1]]
    parts = confusion_counts(scores[:2], labels[:2]) + confusion_counts(scores[2:], labels[2:])
    assert torch.equal(parts, counts)
    assert mean_class_accuracy(counts) == pytest.approx(1 / 3)  # class 1 does not occur
    assert most_confused(counts, 5) == [(0, 1, 2), (2, 1, 2)]
    assert most_confused(counts, 1) == [(0, 1, 2)]
    assert math.isnan(mean_class_accuracy(torch.zeros(2, 2, dtype=torch.int64)))
