"""Losses that make up for rare classes, by hand and in runs."""

import pytest
import torch
from torch.nn import functional

from tasks import training_criterion
from tests.tiny_data import run_main

COUNTS = torch.tensor([6, 3, 1, 0])
LOGITS = torch.tensor([[1., 2, 3, 0], [0, 0, 1, 1], [2, 1, 0, 0]])
LABELS = torch.tensor([0, 2, 2])


def balanced(counts=COUNTS, n_videos=10, **options):
    return training_criterion(False, class_counts=counts, n_videos=n_videos, **options)


def test_clips_count_inversely_to_their_class():
    """10 videos of three classes: 10 / (3 * 6), 10 / (3 * 3), 10 / (3 * 1)."""
    losses = functional.cross_entropy(LOGITS, LABELS, reduction='none')
    expected = (10 / 18 * losses[0] + 10 / 3 * losses[1] + 10 / 3 * losses[2]) / 3
    assert torch.allclose(balanced()(LOGITS, LABELS), expected)


def test_a_loss_is_the_mean_of_those_of_its_parts():
    """As accumulated batches and several processes need it."""
    parts = balanced()(LOGITS[:1], LABELS[:1]) + 2 * balanced()(LOGITS[1:], LABELS[1:])
    assert torch.allclose(balanced()(LOGITS, LABELS), parts / 3)


def test_weights_are_1_on_average_over_the_videos_and_where_classes_are_alike():
    weights = balanced().weight
    assert float((weights * COUNTS).sum() / 10) == pytest.approx(1)
    assert balanced(torch.tensor([4, 4, 4]), 12).weight.tolist() == [1, 1, 1]


def test_smoothed_labels_of_weighted_classes():
    weights = balanced(label_smoothing=0.2).weight
    logs = -torch.log_softmax(LOGITS, dim=1)
    expected = 0
    for row, label in zip(logs, LABELS):
        expected += 0.8 * weights[label] * row[label] + 0.2 / 4 * (weights * row).sum()
    assert torch.allclose(balanced(label_smoothing=0.2)(LOGITS, LABELS), expected / 3)


def test_present_and_absent_count_alike_in_each_class():
    targets = torch.tensor([[1., 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]])
    criterion = training_criterion(True, class_counts=torch.tensor([6, 3, 10, 0]), n_videos=10)
    expected = 0
    for column, factor in enumerate((4 / 6, 7 / 3, 1, 1)):
        scores = torch.sigmoid(LOGITS[:, column])
        has = targets[:, column]
        expected -= (factor * has * scores.log() + (1 - has) * (1 - scores).log()).sum()
    assert torch.allclose(criterion(LOGITS, targets), expected / 12)


def test_without_the_flag_nothing_is_weighted():
    assert torch.equal(training_criterion(False)(LOGITS, LABELS),
                       functional.cross_entropy(LOGITS, LABELS))


def losses(folder, name):
    rows = [line.split('\t') for line in (folder / f'{name}.log').read_text().splitlines()]
    return [float(row[rows[0].index('loss')]) for row in rows[1:]]


def test_training_alone_is_weighted(own_data, tmp_path):
    """red has half of its videos: all see the same clips, and validation losses stay comparable."""
    annotation = own_data.read()
    for i in range(2):
        annotation['database'][f'red_{i}']['subset'] = 'unused'
    own_data.write(annotation)
    for name, flags in {'plain': (), 'weighted': ('--class_weights', 'balanced')}.items():
        assert run_main(own_data.argv(tmp_path / name, '--n_epochs', 1, '--learning_rate', 1e-12,
                                      '--weight_decay', 0, '--batch_size', 10, *flags)) == 0
    assert losses(tmp_path / 'plain', 'val') == losses(tmp_path / 'weighted', 'val')
    assert losses(tmp_path / 'plain', 'train') != losses(tmp_path / 'weighted', 'train')
