"""Batches by seed, epoch and index: the same for any sharing, every sample once."""

import pytest
import torch

from datasets.sampling import (NO_VIDEO, BalancedBatches, ClipBatches, Key, ShuffledBatches,
                               VideoBatches, sample_draw)
from tests.tiny_data import MultiLabelData, loader_of


def _indices(batches):
    return [[key.index for key in batch] for batch in batches]


def test_shuffled_batches_hold_each_sample_once_and_change_by_epoch_and_seed():
    batches = ShuffledBatches(40, 16, seed=1)
    first = _indices(batches)
    assert [len(batch) for batch in first] == [16, 16, 8] and len(batches) == 3
    assert sorted(sum(first, [])) == list(range(40))
    assert _indices(batches) == first
    batches.set_position(0, 2)
    assert _indices(batches) == first[2:]
    batches.set_position(1)
    assert _indices(batches) != first
    assert _indices(ShuffledBatches(40, 16, seed=2)) != first


@pytest.mark.parametrize('n_samples, batch_size, sizes', [
    (130, 128, [130]), (135, 128, [135]), (136, 128, [128, 8]), (5, 128, [5]), (3, 3, [3]),
    (39, 16, [16, 23]), (40, 16, [16, 16, 8]), (48, 16, [16, 16, 16]), (10, 4, [4, 6]),
    (12, 4, [4, 4, 4]), (1, 1, [1]), (3, 1, [1, 1, 1])])
def test_a_last_batch_of_few_clips_joins_the_one_before(n_samples, batch_size, sizes):
    batches = ShuffledBatches(n_samples, batch_size, seed=1)
    own = _indices(batches)
    assert [len(batch) for batch in own] == sizes == [
        batches.total(i) for i in range(len(batches))]
    assert [[key.index for key in batches.batch(0, i)] for i in range(len(batches))] == own
    assert sorted(sum(own, [])) == list(range(n_samples))
    batches.set_position(0, len(sizes) - 1)
    assert _indices(batches) == own[-1:]
    assert batches.smallest_share() == min(sizes)


@pytest.mark.parametrize('n_samples, batch_size', [(11, 4), (3, 3), (28, 10)])
@pytest.mark.parametrize('world_size', [2, 3, 7])
def test_ranks_share_the_batches_of_one_process(world_size, n_samples, batch_size):
    whole = _indices(ShuffledBatches(n_samples, batch_size, seed=1))
    samplers = [ShuffledBatches(n_samples, batch_size, 1, rank, world_size)
                for rank in range(world_size)]
    assert len(whole) == len(samplers[0])
    for i, parts in enumerate(zip(*map(_indices, samplers))):
        # Processes beyond the last sample of a batch repeat its first.
        own = [part for rank, part in enumerate(parts) if rank < samplers[0].total(i)]
        assert sorted(sum(own, [])) == sorted(whole[i])
        assert all(parts)


@pytest.mark.parametrize('world_size', [1, 2, 5, 12])
def test_evaluation_shares_every_video_once(world_size):
    shares = [VideoBatches(10, 3, rank, world_size) for rank in range(world_size)]
    batches = [batch for share in shares for batch in _indices(share)]
    assert sorted(batches) == _indices(VideoBatches(10, 3))
    assert all(len(list(share)) == len(share) for share in shares)
    assert sum(share.n_own_videos() for share in shares) == 10


@pytest.mark.parametrize('one_video', [False, True])
@pytest.mark.parametrize('world_size', [1, 2, 4])
def test_clip_batches_hold_every_clip_once_and_are_those_of_one_process(one_video, world_size):
    n_clips, size = [3, 1, 9, 4, 8, 30, 2, 2, 40, 5], 4
    whole = list(ClipBatches(n_clips, size, one_video))
    shares = [ClipBatches(n_clips, size, one_video, rank, world_size) for rank in range(world_size)]
    assert sorted(batch for share in shares for batch in share) == sorted(whole)
    assert all(len(list(share)) == len(share) for share in shares)
    assert sum(share.n_own_clips() for share in shares) == sum(n_clips)
    clips = []
    for batch in whole:
        n = sum(key.end_clip - key.begin_clip for key in batch)
        assert 0 < n <= size
        assert not one_video or len(batch) == 1
        clips += [(key.index, clip) for key in batch
                  for clip in range(key.begin_clip, key.end_clip)]
    assert clips == [(i, clip) for i, n in enumerate(n_clips) for clip in range(n)]
    for share in shares:
        videos = [key.index for batch in share for key in batch]
        assert videos == sorted(videos)


def test_windows_of_a_video_count_each_crop():
    assert ClipBatches([3, 1], 4, n_crops=2).n_windows(0) == 6


def test_a_process_reads_eight_batches_in_a_row():
    shares = [ClipBatches([1] * 64, 2, rank=rank, world_size=2) for rank in range(2)]
    assert [[key.index for batch in share for key in batch] for share in shares] == [
        [*range(0, 16), *range(32, 48)], [*range(16, 32), *range(48, 64)]]


@pytest.mark.parametrize('one_video', [False, True])
def test_videos_that_are_left_out_leave_blanks_in_batches_of_others(one_video):
    n_clips, size, left_out = [3, 1, 9, 4, 8, 30, 2, 2, 40, 5], 8, [0, 1, 2, 5, 9]
    whole = list(ClipBatches(n_clips, size, one_video, n_crops=2))
    shares = [ClipBatches(n_clips, size, one_video, rank, 2, n_crops=2) for rank in range(2)]
    for share in shares:
        share.leave_out(left_out)
    batches = [batch for share in shares for batch in share]
    expected = [[Key(NO_VIDEO, end_clip=2 * (key.end_clip - key.begin_clip))
                 if key.index in left_out else key for key in batch] for batch in whole]
    assert sorted(batches) == sorted(
        batch for batch in expected if any(key.index != NO_VIDEO for key in batch))
    assert 0 < sum(key.index == NO_VIDEO for batch in batches for key in batch) or one_video
    assert sum(len(share) for share in shares) == len(batches)
    assert sum(share.n_own_clips() for share in shares) == 2 * sum(
        n for i, n in enumerate(n_clips) if i not in left_out)


def test_draw_depends_on_seed_epoch_and_index_alone_and_is_undone():
    def draw(*parts):
        with sample_draw(*parts):
            return torch.rand(3).tolist()
    before = torch.get_rng_state()
    first = draw(1, 2, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert draw(1, 2, 3) == first
    assert len({tuple(draw(*parts)) for parts in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4


# ---------------------------------------------------------------- repeated and balanced

# Videos of each class, the last of which has none: 20, 2, 5 and none.
GROUPS = [list(range(20)), [20, 21], list(range(22, 27)), []]


@pytest.mark.parametrize('n_draws, batch_size', [(2, 8), (3, 12), (4, 4), (5, 10)])
def test_repeated_draws_are_in_one_batch(n_draws, batch_size):
    batches = ShuffledBatches(21, batch_size, seed=1, n_draws=n_draws)
    batches.set_position(3)
    own = list(batches)
    assert batches.n_samples == 21 * n_draws == sum(map(len, own))
    assert [len(batch) for batch in own] == [batches.total(i) for i in range(len(batches))]
    for batch in own:
        videos = {key.index for key in batch}
        assert sorted((key.index, key.draw) for key in batch) == [
            (video, draw) for video in sorted(videos) for draw in range(n_draws)]
        # Neighbours, which are mixed, are of different videos where there are several.
        assert len(videos) == 1 or all(a.index != b.index for a, b in zip(batch, batch[1:]))
    assert sorted(key.index for batch in own for key in batch) == sorted(
        list(range(21)) * n_draws)


def test_one_draw_is_what_it_was():
    assert list(ShuffledBatches(30, 8, 1, n_draws=1)) == list(ShuffledBatches(30, 8, 1))
    assert all(key == Key(key.index, 0) for batch in ShuffledBatches(30, 8, 1) for key in batch)


def test_a_draw_of_a_video_is_its_own_and_the_first_is_the_usual_one():
    def draw(*parts):
        with sample_draw(*parts):
            return torch.rand(3).tolist()
    assert draw(1, 2, 3, 0) == draw(1, 2, 3)
    assert len({tuple(draw(1, 2, 3, number)) for number in range(20)}) == 20


def test_balanced_batches_have_all_classes_alike_often():
    batches = BalancedBatches(GROUPS, 27, 9, seed=1)
    seen = set()
    for epoch in range(1, 31):
        batches.set_position(epoch)
        keys = [key for batch in batches for key in batch]
        assert len(keys) == 27 == batches.n_samples
        assert [sum(key.index in group for key in keys) for group in GROUPS] == [9, 9, 9, 0]
        counts = torch.tensor([key.index for key in keys]).bincount(minlength=27)
        for group in GROUPS[:3]:  # none comes again before all others came
            assert counts[group].max() - counts[group].min() <= 1
        # Each time it comes is another draw, counted from 0.
        assert sorted((key.index, key.draw) for key in keys) == [
            (video, draw) for video in range(27) for draw in range(counts[video])]
        seen |= {key.index for key in keys}
    assert len(seen) == 27  # also of the class of which an epoch has a part
    batches.set_position(1)
    assert list(batches) != keys


def test_classes_that_share_videos_unevenly():
    """28 videos of 3 classes: one class has one more, not always the same."""
    batches = BalancedBatches(GROUPS, 28, 7, seed=1)
    larger = set()
    for epoch in range(10):
        batches.set_position(epoch)
        shares = [sum(key.index in group for batch in batches for key in batch)
                  for group in GROUPS[:3]]
        assert sorted(shares) == [9, 9, 10]
        larger.add(shares.index(10))
    assert len(larger) > 1


def test_a_video_of_several_classes_is_another_draw_each_time():
    batches = BalancedBatches([[0, 1], [0], [0, 2]], 9, 9, seed=1)
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == 9 and {key.index for key in keys} == {0, 1, 2}


def test_fewer_videos_than_classes():
    batches = BalancedBatches([[0, 1, 2], [0], [1], [2]], 3, 3, seed=1)
    assert sum(map(len, batches)) == 3


@pytest.mark.parametrize('world_size', [1, 2, 3, 7])
@pytest.mark.parametrize('n_draws', [1, 2])
@pytest.mark.parametrize('is_balanced', [False, True])
def test_ranks_share_repeated_and_balanced_batches(world_size, n_draws, is_balanced):
    def batches(**shares):
        if is_balanced:
            return BalancedBatches(GROUPS, 27, 8, 1, n_draws=n_draws, **shares)
        return ShuffledBatches(27, 8, 1, n_draws=n_draws, **shares)
    whole, samplers = batches(), [batches(rank=rank, world_size=world_size)
                                  for rank in range(world_size)]
    for sampler in (whole, *samplers):
        sampler.set_position(5, 1)
    for i, (batch, *parts) in enumerate(zip(whole, *samplers, strict=True), 1):
        own = [part for rank, part in enumerate(parts) if rank < whole.total(i)]
        assert sorted(sum(own, [])) == sorted(batch) and all(parts)
    whole.set_position(5)
    assert list(whole)[1:] == [whole.batch(5, i) for i in range(1, len(whole))]


def test_samples_by_class(tmp_path):
    data = MultiLabelData(tmp_path)
    records = loader_of(data, 'train').dataset.records
    *classes, none = records.labels.samples_by_class()
    for number, samples in enumerate(classes):
        assert samples.tolist() == [i for i in range(14) if number in records.labels[i]]
    assert none.tolist() == [i for i in range(14) if not records.labels[i]] == [6, 13]


def test_draws_are_those_of_earlier_versions():
    """Recorded: a training that is resumed with other code goes on with the same batches."""
    batches = BalancedBatches([[0, 1, 2], [3, 4]], 5, 5, seed=1)
    batches.set_position(1)
    assert batches.is_balanced and not ShuffledBatches(5, 5, seed=1).is_balanced
    assert [key.index for key in next(iter(batches))] == [3, 1, 0, 4, 2]
    with batches.batch_draw(0):
        assert torch.rand(2).tolist() == pytest.approx([0.1951506, 0.0555268])


def test_draws_of_balanced_batches_are_all_different():
    batches = BalancedBatches(GROUPS, 27, 9, seed=1, n_draws=3)
    keys = [key for batch in batches for key in batch]
    counts = torch.tensor([key.index for key in keys]).bincount(minlength=27)
    assert len(keys) == 81 and sorted((key.index, key.draw) for key in keys) == [
        (video, draw) for video in range(27) for draw in range(counts[video])]


def test_a_key_is_of_the_whole_video_without_being_told():
    assert Key(5) == (5, 0, 0, None, 0)


def test_a_position_holds_for_the_epoch_that_it_is_of():
    batches = ShuffledBatches(40, 16, seed=1)
    batches.set_position(2, 1)
    assert len(list(batches)) == 2 and {key.epoch for batch in batches for key in batch} == {2}
    batches.set_position(3)
    assert len(list(batches)) == 3


def test_what_is_drawn_for_a_batch_differs_by_process_batch_epoch_and_seed():
    def seeds(seed, epoch, rank):
        batches = ShuffledBatches(40, 16, seed, rank, 2)
        batches.set_position(epoch)
        return [batches.draw_seed(i) for i in range(3)]
    found = sum((seeds(*where) for where in ((1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1))), [])
    assert len(set(found)) == 12 and seeds(1, 1, 0) == found[:3]


def test_crops_share_the_places_of_a_batch():
    assert [len(batch) for batch in ClipBatches([1] * 6, 6, n_crops=3)] == [2, 2, 2]
    assert [len(batch) for batch in ClipBatches([1] * 3, 2, n_crops=3)] == [1, 1, 1]


@pytest.mark.parametrize('n_samples, batch_size, world_size, share', [
    (40, 16, 2, 4), (48, 16, 3, 5), (130, 128, 4, 32), (3, 3, 7, 1)])
def test_the_smallest_share_of_a_batch(n_samples, batch_size, world_size, share):
    samplers = [ShuffledBatches(n_samples, batch_size, 1, rank, world_size)
                for rank in range(world_size)]
    assert {sampler.smallest_share() for sampler in samplers} == {share}
    assert min(len(batch) for sampler in samplers for batch in sampler) == share


def test_a_process_without_a_sample_takes_the_first_alone():
    shares = [list(ShuffledBatches(3, 3, 1, rank, 5)) for rank in range(5)]
    assert [len(batch) for [batch] in shares] == [1] * 5
    assert shares[3] == shares[4] == shares[0]
