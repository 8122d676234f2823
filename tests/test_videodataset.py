"""Samples: frames that are read once, and videos with bad frames that are replaced or left out."""

import json
from collections import Counter

import pytest
import torch

from datasets.frames import FrameError, JpgFrames
from tests.tiny_data import assert_same_batches, loader_of, run_main


class CountingReader:
    """A reader that counts how often it reads which frame."""

    def __init__(self, reader):
        self._reader, self.counts = reader, Counter()

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def read_transformed(self, path, frames, n_frames, transform):
        self.counts.update((path, frame) for frame in frames)
        return self._reader.read_transformed(path, frames, n_frames, transform)


@pytest.mark.parametrize('flags', [('--inference_stride', 1), ('--inference_views', '5x3')])
@pytest.mark.parametrize('batch_size', [1000, 6])
def test_frames_of_overlapping_windows_are_read_once(tiny_data, flags, batch_size):
    """Once in a batch: where a video is cut, in both batches."""
    loader = loader_of(tiny_data, 'inference', *flags, '--inference_batch_size', batch_size)
    dataset, total, n_batches = loader.dataset, Counter(), 0
    for keys in loader.batch_sampler:
        dataset.reader = CountingReader(JpgFrames())
        for key in keys:
            dataset[key]
        assert max(dataset.reader.counts.values()) == 1
        total += dataset.reader.counts
        n_batches += 1
    n_frames = int((dataset.records.ends - dataset.records.begins).sum())
    assert len(total) == n_frames
    # A clip of 8 frames shares at most 7 with the next.
    n_cuts = n_batches - 1
    assert total.total() <= n_frames + 7 * n_cuts
    assert n_cuts > 5 or total.total() == n_frames


def _break(data, video_id, number=1):
    data.frame(video_id, number).write_bytes(b'no image')


def _numbers(loader, *video_ids):
    names = loader.dataset.records.video_ids
    by_name = {names[i]: i for i in range(len(names))}
    return [by_name[video_id] for video_id in video_ids]


TRAIN_CLIPS = ('--train_t_crop', 'center', '--sample_duration', 30)  # every frame is read


def test_bad_training_videos_are_replaced_by_the_next_of_their_class(own_data, capsys):
    whole = list(loader_of(own_data, 'train', *TRAIN_CLIPS))
    _break(own_data, 'red_1')
    _break(own_data, 'green_3', 2)
    with pytest.raises(FrameError, match='image_0000[12].jpg: the frame is not a JPEG'):
        list(loader_of(own_data, 'train', *TRAIN_CLIPS))
    loader = loader_of(own_data, 'train', *TRAIN_CLIPS, '--bad_frames', 'skip')
    batches = list(loader)
    red_1, red_2, green_3, green_0 = _numbers(loader, 'red_1', 'red_2', 'green_3', 'green_0')
    instead = {red_1: red_2, green_3: green_0}
    assert len(batches) == len(whole)
    for batch, other in zip(batches, whole):
        assert torch.equal(batch.labels, other.labels) and batch.clips.shape == other.clips.shape
        assert batch.videos.tolist() == [instead.get(i, i) for i in other.videos.tolist()]
        good = torch.tensor([i not in instead for i in other.videos.tolist()])
        assert torch.equal(batch.clips[good], other.clips[good])
    assert {bad.video for batch in batches for bad in batch.bad} == set(instead)
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('bad frames: 2 of 12 videos were replaced') and 'not a JPEG' in line


@pytest.mark.slow
@pytest.mark.parametrize('n_threads', [1, 2])
def test_what_is_replaced_depends_on_seed_epoch_and_index_alone(own_data, n_threads):
    _break(own_data, 'red_1')
    flags = ('--bad_frames', 'skip', '--sample_duration', 16)
    own, other = (loader_of(own_data, 'train', *flags, '--n_threads', n, start_method='fork')
                  for n in (0, n_threads))
    for epoch in (3, 1):
        for loader in (own, other):
            loader.batch_sampler.set_position(epoch)
        assert_same_batches(list(own), list(other))


def test_videos_that_are_missing_are_replaced_and_said_at_the_start(own_data, capsys):
    for frame in own_data.frame('blue_0').parent.iterdir():
        frame.unlink()
    loader = loader_of(own_data, 'train', '--bad_frames', 'skip')
    assert 'blue_0' in capsys.readouterr().err
    assert sum(len(batch.labels) for batch in loader) == 12


def test_a_class_without_any_good_video_is_named(own_data):
    for i in range(4):
        _break(own_data, f'green_{i}')
    loader = loader_of(own_data, 'train', *TRAIN_CLIPS, '--bad_frames', 'skip')
    with pytest.raises(FrameError, match="no other video of class 'green'"):
        list(loader)


@pytest.mark.slow
@pytest.mark.parametrize('n_threads', [0, 2])
def test_bad_clips_are_left_out_of_validation(own_data, capsys, n_threads):
    flags = ('--n_val_samples', 3, '--sample_duration', 4, '--batch_size', 3)
    whole = list(loader_of(own_data, 'val', *flags))
    _break(own_data, 'red_4')  # the first of its clips
    for number in range(1, 10):
        _break(own_data, 'blue_5', number)
    for frame in list(own_data.frame('blue_5').parent.iterdir())[9:]:
        frame.write_bytes(b'')
    loader = loader_of(own_data, 'val', *flags, '--bad_frames', 'skip', '--n_threads', n_threads,
                       start_method='fork' if n_threads else None)
    batches = list(loader)
    red_4, blue_5 = _numbers(loader, 'red_4', 'blue_5')
    assert len(batches) == len(whole) - 1
    videos = torch.cat([batch.videos for batch in batches])
    assert (videos == red_4).sum() == 2 and (videos == blue_5).sum() == 0
    assert 'bad frames: 2 of 6 videos were left out' in capsys.readouterr().err


def test_inference_leaves_out_the_windows_with_bad_frames(own_data):
    flags = ('--sample_duration', 4, '--inference_stride', 4)
    n_whole = sum(len(batch.labels) for batch in loader_of(own_data, 'inference', *flags))
    _break(own_data, 'green_4', 6)
    for batch_size in (1, 3, 64):
        loader = loader_of(own_data, 'inference', *flags, '--bad_frames', 'skip',
                           '--inference_batch_size', batch_size)
        segments = [(video, *segment) for batch in loader
                    for video, segment in zip(batch.videos.tolist(), batch.segments.tolist())]
        green_4, = _numbers(loader, 'green_4')
        assert len(segments) == n_whole - 1
        assert (green_4, 5, 9) not in segments and (green_4, 1, 5) in segments


def test_when_nothing_can_be_read_it_is_an_error(own_data):
    for label in ('red', 'green', 'blue'):
        for i in (4, 5):
            for frame in own_data.frame(f'{label}_{i}').parent.iterdir():
                frame.write_bytes(b'')
    with pytest.raises(FrameError, match='the frame is empty'):
        list(loader_of(own_data, 'val', '--bad_frames', 'skip'))


def test_a_run_goes_on_without_bad_videos(own_data, tmp_path, capsys):
    _break(own_data, 'red_1')
    for frame in own_data.frame('green_5').parent.iterdir():
        frame.write_bytes(b'')
    assert run_main(own_data.argv(tmp_path / 'results', '--bad_frames', 'skip', '--n_epochs', 1,
                                  '--sample_duration', 30, '--inference')) == 0
    err = capsys.readouterr().err
    assert err.count('bad frames: 1 of 12 videos were replaced') == 1
    assert err.count('bad frames: 1 of 6 videos were left out') == 2
    results = json.loads((tmp_path / 'results' / 'val.json').read_text())['results']
    assert results.keys() == {'red_4', 'red_5', 'green_4', 'blue_4', 'blue_5'}
