"""Counts: top-k hits, means a group, sums divided once."""

import math

import numpy as np
import pytest
import torch

from metrics import (Sums, average_precision, average_precisions, confusion_counts,
                     confusion_of_pairs, mean_average_precision, mean_class_accuracy,
                     mean_of_classes, mean_per_group, most_confused, topk_any_hits, topk_hits,
                     topk_hits_by_class)


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


# ---------------------------------------------------------------- against scikit-learn

N_DRAWS = 40


def draw_labels(rng):
    """Distinct scores (N, n_classes) float64 of 3 to 30 classes, and labels that leave some out."""
    n, n_classes = int(rng.integers(1, 200)), int(rng.integers(3, 31))
    occurring = rng.choice(n_classes, int(rng.integers(1, n_classes + 1)), replace=False)
    return rng.standard_normal((n, n_classes)), rng.choice(occurring, n)


def draw_targets(rng):
    """Scores (N, n_classes) float32 with many ties or none, and targets of which some classes have
    no positive, or nothing but positives."""
    n, n_classes = int(rng.integers(1, 300)), int(rng.integers(1, 12))
    scores = rng.random((n, n_classes))
    if rng.random() < 0.5:
        scores = scores.round(1)
    share = rng.choice([0, 0.02, 0.3, 1], n_classes)
    return scores.astype(np.float32), rng.random((n, n_classes)) < share


def test_topk_and_mean_class_accuracy_are_those_of_scikit_learn(seed):
    import sklearn.metrics  # a second that the other processes of tests do not need
    rng = np.random.default_rng(seed)
    for _ in range(N_DRAWS):
        scores, labels = draw_labels(rng)
        n_classes = scores.shape[1]
        tensors = torch.from_numpy(scores), torch.from_numpy(labels)
        ks = range(1, n_classes)
        expected = [sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, normalize=False,
                                                         labels=range(n_classes)) for k in ks]
        assert [int(hits) for hits in topk_hits(*tensors, ks)] == expected
        counts = confusion_counts(*tensors)
        best = scores.argmax(axis=1)
        expected = sklearn.metrics.confusion_matrix(labels, best, labels=range(n_classes))
        assert counts.tolist() == expected.tolist()
        # balanced_accuracy_score, which warns of classes that are predicted and do not occur.
        expected = sklearn.metrics.recall_score(labels, best, labels=np.unique(labels),
                                                average='macro', zero_division=0)
        assert mean_class_accuracy(counts) == pytest.approx(expected)


def test_average_precision_is_that_of_scikit_learn(seed):
    import sklearn.metrics
    rng = np.random.default_rng(seed)
    for _ in range(N_DRAWS):
        scores, targets = draw_targets(rng)
        tensors = torch.from_numpy(scores), torch.from_numpy(targets)
        occurs = targets.any(axis=0)
        expected = np.array([sklearn.metrics.average_precision_score(target, score)
                             for score, target in zip(scores.T[occurs], targets.T[occurs])])
        found = average_precisions(*tensors).numpy()
        assert np.isnan(found[~occurs]).all()
        assert found[occurs] == pytest.approx(expected)
        singly = [average_precision(*column) for column in zip(*(t.unbind(1) for t in tensors))]
        assert np.array_equal(singly, found, equal_nan=True)
        mean = mean_average_precision(*tensors)
        assert mean == pytest.approx(expected.mean()) if occurs.any() else math.isnan(mean)


def test_no_rows_have_no_mean_average_precision():
    assert math.isnan(mean_average_precision(torch.zeros(0, 5), torch.zeros(0, 5)))


def test_topk_hits_by_class_are_those_of_rows_with_its_label():
    scores = torch.tensor([[3., 2., 1.], [3., 2., 1.], [1., 2., 3.], [3., 2., 1.]])
    targets = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]])
    assert topk_hits_by_class(scores, targets, 1).tolist() == [1, 0, 0]
    assert topk_hits_by_class(scores, targets, 2).tolist() == [1, 1, 0]
    assert topk_hits_by_class(scores, targets, 9).tolist() == targets.sum(dim=0).tolist()


def test_confusion_of_pairs_and_mean_of_classes():
    counts = confusion_of_pairs(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 2]), 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0] * 4, [0, 0, 1, 0], [0] * 4]
    assert mean_of_classes(counts.diagonal(), counts.sum(dim=1)) == 0.75


def test_any_label_among_the_best_by_hand_of_random_scores(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand((40, 7), generator=generator)
    targets = (torch.rand((40, 7), generator=generator) < 0.2).float()
    expected = [sum(any(targets[i, c] for c in sorted(range(7), key=lambda c: -scores[i, c])[:k])
                    for i in range(40)) for k in (1, 3, 6)]
    assert [int(hits) for hits in topk_any_hits(scores, targets, (1, 3, 6))] == expected


def test_what_is_right_is_no_mistake():
    counts = torch.tensor([[9, 1, 0], [0, 9, 2], [0, 0, 9]])
    assert most_confused(counts, 9) == [(1, 2, 2), (0, 1, 1)] and counts[0, 0] == 9


def test_sums_go_on_from_totals():
    sums = Sums({'loss': 1.5})
    sums.add(loss=0.5, clips=3)
    assert sums.totals() == {'loss': 2.0, 'clips': 3.0}
    assert Sums(list(sums.totals().items())).totals() == sums.totals() and sums.total('gone') == 0
    assert sums.tensor(['clips', 'loss'], torch.device('cpu')).tolist() == [3, 2]
