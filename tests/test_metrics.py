"""Counts: top-k hits, means a group, sums divided once."""

import math

import torch

from metrics import Sums, mean_per_group, topk_hits


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
