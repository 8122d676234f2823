"""Counts: top-k hits, means a group, sums divided once."""

import math

import pytest
import torch

from metrics import (Sums, average_precision, average_precisions, confusion_counts,
                     mean_average_precision, mean_class_accuracy, mean_per_group, most_confused,
                     topk_any_hits, topk_hits)


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


def test_any_of_the_labels_is_a_hit_and_no_label_is_none():
    scores = torch.tensor([[3., 2., 1.], [3., 2., 1.], [1., 2., 3.], [1., 2., 3.]])
    targets = torch.tensor([[1., 0., 1.], [0., 1., 1.], [1., 0., 0.], [0., 0., 0.]])
    assert [int(hits) for hits in topk_any_hits(scores, targets, (1, 2, 5))] == [1, 2, 3]


@pytest.mark.parametrize('scores, targets, expected', [
    # Precision 1 at recall 1/2, 2/3 at 1.
    ([4, 3, 2, 1], [1, 0, 1, 0], 1 / 2 * 1 + 1 / 2 * 2 / 3),
    ([1, 4, 2, 3], [0, 1, 1, 0], 1 / 2 * 1 + 1 / 2 * 2 / 3),
    # Rows of one score count together: precision 1/2 at recall 1/2, 2/4 at 1.
    ([4, 4, 2, 2], [1, 0, 1, 0], 1 / 2),
    ([1, 1, 1, 1], [0, 0, 0, 1], 1 / 4),
    ([1, 2, 3], [1, 1, 1], 1),
    ([-math.inf, -math.inf, 0.5], [1, 0, 1], 1 / 2 * 1 + 1 / 2 * 2 / 3),
    ([0.5], [1], 1)])
def test_average_precision_by_hand(scores, targets, expected):
    scores, targets = torch.tensor(scores, dtype=torch.float32), torch.tensor(targets)
    assert average_precision(scores, targets) == pytest.approx(expected)
    order = torch.randperm(len(scores))
    assert average_precision(scores[order], targets[order]) == average_precision(scores, targets)


def test_scores_that_are_nan_have_no_precision():
    for order in ([0, 1], [1, 0]):
        targets = torch.tensor([1, 0])[order]
        assert math.isnan(average_precision(torch.full((2,), math.nan), targets))


def by_definition(scores, targets):
    """Sum over the thresholds of gained recall times precision."""
    value, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [target for score, target in zip(scores, targets) if score >= threshold]
        recall = sum(chosen) / sum(targets)
        value += (recall - recall_before) * sum(chosen) / len(chosen)
        recall_before = recall
    return value


def test_average_precision_of_many_rows():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(20, (200, 5), generator=generator) / 20
    targets = (torch.rand(200, 5, generator=generator) < 0.1).float()
    targets[:, 3] = 0
    expected = [by_definition(scores[:, i].tolist(), targets[:, i].tolist()) for i in (0, 1, 2, 4)]
    found = average_precisions(scores, targets)
    assert found[[0, 1, 2, 4]].tolist() == pytest.approx(expected) and math.isnan(found[3])
    assert mean_average_precision(scores, targets) == pytest.approx(sum(expected) / 4)
    assert math.isnan(mean_average_precision(scores[:0], targets[:0]))
