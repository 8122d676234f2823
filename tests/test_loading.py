"""Loaders: batches, loader processes and what is looked for before the first batch."""

import gc
import json
import multiprocessing
import os
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from datasets import loading
from datasets.annotations import read_annotation
from datasets.frames import FrameError, JpgFrames
from datasets.loading import build_loader, notes_on_data
from opts import parse_opts
from tests.helpers import grey_frames, write_video
from tests.processes import LIMIT_SEC, start_main
from tests.tiny_data import assert_same_batches, loader_of, write_large_annotation
from util_scripts import check_data

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')


def test_videos_without_segment_are_left_out_and_counted(own_data, capsys):
    annotation = own_data.read()
    del annotation['database']['red_0']['annotations']['segment']
    own_data.write(annotation)
    loader = loader_of(own_data, 'train')
    assert len(loader.dataset) == 11
    assert '1 of 12 videos' in capsys.readouterr().err


@pytest.mark.parametrize('crop', ['center', 'nocrop'])
def test_windows_are_batched_over_videos(tiny_data, crop):
    batches = list(loader_of(tiny_data, 'inference', '--inference_stride', 4, '--inference_crop',
                             crop, '--inference_batch_size', 5))
    n_videos = [len(batch.videos.unique()) for batch in batches]
    if crop == 'nocrop':
        assert max(n_videos) == 1
    else:
        assert {len(batch.videos) for batch in batches[:-1]} == {5} and max(n_videos) > 1


# How processes start is tried with one of them, which imports torch anew by `spawn`.
@pytest.mark.slow
@pytest.mark.parametrize('start_method, n_threads, epochs', [
    ('fork', 2, (1, 2)), ('spawn', 1, (1,)), ('forkserver', 1, (1,))])
def test_batches_are_the_same_for_any_workers(tiny_data, start_method, n_threads, epochs):
    own = loader_of(tiny_data, 'train')
    other = loader_of(tiny_data, 'train', '--n_threads', n_threads, start_method=start_method)
    for epoch in epochs:
        own.batch_sampler.set_position(epoch)
        other.batch_sampler.set_position(epoch)
        assert_same_batches(list(own), list(other))


def test_epochs_differ(tiny_data):
    loader = loader_of(tiny_data, 'train')
    first = next(iter(loader)).clips
    loader.batch_sampler.set_position(1)
    assert not torch.equal(next(iter(loader)).clips, first)


def test_more_loader_processes_than_processors_are_no_warning(tiny_data):
    n_threads = len(os.sched_getaffinity(0)) + 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(next(iter(loader_of(tiny_data, 'val', '--n_threads', n_threads))).labels)


@pytest.mark.parametrize('n_threads', [0, 2])
def test_errors_of_loader_processes_keep_their_sentence(own_data, n_threads):
    own_data.frame('blue_5', 3).write_bytes(b'')
    loader = loader_of(own_data, 'val', '--n_threads', n_threads)
    with pytest.raises(FrameError) as raised:
        list(loader)
    assert 'blue_5/image_00003.jpg: the frame is empty' in str(raised.value)
    assert 'Traceback' not in str(raised.value)


def test_missing_videos_of_a_large_set_are_named_when_they_are_read(own_data):
    for frame in own_data.frame('red_5').parent.iterdir():
        frame.unlink()
    with pytest.raises(FrameError, match='red_5'):
        loader_of(own_data, 'val')
    loader = loader_of(own_data, 'val', '--no-check_paths')
    with pytest.raises(FrameError, match='red_5'):
        list(loader)


def test_no_file_of_a_large_set_is_looked_for_at_the_start(tiny_data, tmp_path, monkeypatch):
    write_large_annotation(tmp_path / 'large.json', 10_001)
    monkeypatch.setattr(JpgFrames, 'check', None)
    monkeypatch.setattr(JpgFrames, 'count', None)
    opts = parse_opts([*tiny_data.argv('unused'), '--annotation_path',
                       str(tmp_path / 'large.json')])
    annotation = read_annotation(opts.annotation_path)
    loader = build_loader(opts, 'train', annotation)
    assert len(loader.dataset) == 10_001
    with pytest.raises(FrameError, match='_000010_000020/image_00'):
        next(iter(loader))
    with pytest.raises(TypeError):
        build_loader(parse_opts([*tiny_data.argv('unused'), '--check_paths']), 'train', annotation)


def test_names_of_files_may_hold_any_bytes(own_data):
    name = b'caf\xe9'.decode(errors='surrogateescape')
    own_data.frame('red_0').parent.rename(own_data.root / 'jpg' / 'red' / name)
    annotation = own_data.read()
    annotation['database'][name] = annotation['database'].pop('red_0')
    own_data.write(annotation)
    assert sum(len(batch.labels) for batch in loader_of(own_data, 'train')) == 12


@pytest.fixture
def untrimmed(tmp_path):
    """Arguments of main.py for four video files in the way of ActivityNet, the last of them broken.
    """
    database = {}
    for name in 'abcd':
        write_video(tmp_path / 'videos' / f'v_{name}.mp4', grey_frames(range(20, 220, 5)),
                    codec='libx264', gop_size=10)
        database[name] = {'subset': 'training' if name in 'ac' else 'validation', 'fps': 25,
                          'annotations': [{'segment': [0.2, 1.2], 'label': 'Surfing'}]}
    (tmp_path / 'videos' / 'v_d.mp4').write_text('no video')
    (tmp_path / 'anet.json').write_text(json.dumps({
        'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None},
                     {'nodeName': 'Surfing', 'nodeId': 1, 'parentId': 0}], 'database': database}))
    return ['--root_path', str(tmp_path), '--video_path', 'videos', '--annotation_path',
            'anet.json', '--result_path', 'unused', '--dataset', 'activitynet', '--file_type',
            'video', '--n_threads', '0', '--sample_duration', '8', '--batch_size', '6']


def test_activitynet_from_video_files(untrimmed, capsys):
    opts = parse_opts([*untrimmed, '--bad_frames', 'skip'])
    annotation = read_annotation(opts.annotation_path)
    train, = build_loader(opts, 'train', annotation)
    assert train.clips.shape == (2, 3, 8, 112, 112)
    assert 6 <= train.segments.min() and train.segments.max() <= 31
    val, = build_loader(opts, 'val', annotation)
    # Grey levels name the frames: 20, 25, 30 ...
    levels = val.clips.float().mean((1, 3, 4))
    for row, (begin, end) in zip(levels, val.segments.tolist()):
        assert (row - torch.arange(15 + 5 * begin, 15 + 5 * end, 5)).abs().max() < 2
    inference = build_loader(opts, 'inference', annotation)
    assert inference.dataset.records.ends.tolist() == [41]
    assert capsys.readouterr().err.count('v_d.mp4') == 2
    with pytest.raises(FrameError, match='v_d.mp4'):
        build_loader(parse_opts(untrimmed), 'val', annotation)


def test_check_data_names_broken_files_of_a_taxonomy(untrimmed, tmp_path):
    assert check_data.main([*untrimmed, '--n_threads', '1', '--save',
                            str(tmp_path / 'found.txt')]) == 1
    rows = [row.split('\t') for row in (tmp_path / 'found.txt').read_text().splitlines()[1:]]
    assert [(row[0], row[1]) for row in rows] == [
        ('undecodable', 'validation'), ('in training and validation', 'validation')]


# ---------------------------------------------------------------- order and draws

def test_an_epoch_goes_on_from_its_middle(tiny_data):
    whole, rest = (loader_of(tiny_data, 'train') for _ in range(2))
    whole.batch_sampler.set_position(3)
    rest.batch_sampler.set_position(3, 2)
    assert_same_batches(list(whole)[2:], rest)


def test_the_draws_leave_other_random_numbers_as_they_are(tiny_data):
    batches = iter(loader_of(tiny_data, 'train'))
    next(batches)
    state = torch.get_rng_state()
    next(batches)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('n_threads', [0, 2])
def test_videos_that_are_left_out_are_black(tiny_data, n_threads):
    flags = ('--inference_stride', 8, '--inference_batch_size', 4, '--n_threads', n_threads)
    whole = list(loader_of(tiny_data, 'inference', *flags))
    loader = loader_of(tiny_data, 'inference', *flags)
    loader.leave_out([1, 3])
    clips = {}
    for batch in loader:
        for clip, video, segment in zip(batch.clips, batch.videos.tolist(), batch.segments):
            if video < 0:
                assert not clip.any()
            clips.setdefault(video, []).append(clip)
    assert clips.keys() == {-1, 0, 2, 4, 5}
    for video in (0, 2, 4, 5):
        own = torch.cat([batch.clips[batch.videos == video] for batch in whole])
        assert torch.equal(torch.stack(clips[video]), own)


# ---------------------------------------------------------------- what is said of the data

@pytest.mark.parametrize('split, flags, said', [
    ('train', ('--batch_size', 1), ['12 clips per epoch in 12 steps']),
    ('train', ('--batch_size', 16, '--sample_t_stride', 2), [
        '--batch_size 16 is more than the data: 12 clips per epoch in 1 step; with fewer than 10 a '
        'network learns slowly, give --batch_size 8',
        '2 of 12 videos for training have fewer frames than --sample_duration 8 (the shortest']),
    ('train', ('--batch_size', 4), [
        '12 clips per epoch in 3 steps; with fewer than 10 a network learns slowly']),
    ('train', ('--batch_size', 4, '--repeated_aug', 2, '--speed_jitter', 0.5, 4), [
        '24 clips per epoch in 6 steps; with fewer than 10 a network learns slowly',
        '11 of 12 videos for training have fewer frames than --sample_duration 8 takes at '
        '--speed_jitter 4, 29 (']),
    ('train', ('--batch_size', 1, '--balanced_sampling'), [
        '12 clips per epoch in 12 steps', '--balanced_sampling: about 4 videos of each class per '
        'epoch']),
    ('val', ('--n_val_samples', 2), []),
    ('val', ('--sample_duration', 64), [
        '6 of 6 videos for validation have fewer frames than --sample_duration 64 ']),
    ('val', ('--n_val_samples', 40), ['6 of 6 videos for validation are too short for '
                                      '--n_val_samples 40 clips']),
    ('inference', (), [])])
def test_notes_on_data(tiny_data, split, flags, said):
    opts = parse_opts(tiny_data.argv('unused', *flags))
    notes = list(notes_on_data(opts, split, loader_of(tiny_data, split, *flags)))
    assert len(notes) == len(said)
    assert all(note.startswith(words) for note, words in zip(notes, said)), notes


def test_the_rarest_class_of_a_balanced_training_is_told(own_data):
    annotation = own_data.read()
    for i in range(1, 4):
        annotation['database'][f'red_{i}']['subset'] = 'unused'
    own_data.write(annotation)
    flags = ('--batch_size', 1, '--balanced_sampling')
    _, note = notes_on_data(parse_opts(own_data.argv('unused', *flags)), 'train',
                            loader_of(own_data, 'train', *flags))
    assert note.endswith('about 3 videos of each class per epoch; the rarest has 1, each of which '
                         'comes up to 3 times')


def test_a_training_of_one_class_is_told(own_data):
    annotation = own_data.read()
    for entry in annotation['database'].values():
        if entry['annotations'].get('label') != 'red' and entry['subset'] == 'training':
            entry['subset'] = 'unused'
    own_data.write(annotation)
    notes = notes_on_data(parse_opts(own_data.argv('unused')), 'train',
                          loader_of(own_data, 'train'))
    assert 'all videos for training are of one class' in list(notes)[1]


def test_steps_of_several_nodes_are_counted_together(tiny_data):
    """--batch_size is for one node: the batch of all is twice as large."""
    loader = loader_of(tiny_data, 'train', '--batch_size', 12)
    opts = parse_opts(tiny_data.argv('unused', '--batch_size', 6))
    note, = notes_on_data(opts, 'train', loader)
    assert note.endswith('in 1 step; with fewer than 10 a network learns slowly, give '
                         '--batch_size 4')


def test_a_loader_process_that_begins_as_the_main_process_ends():
    """What that asks for may come before the process knows what to do then."""
    context = multiprocessing.get_context('forkserver')
    begin = loading._IgnoreStops(context)
    begin._main_ends.set()
    process = context.Process(target=exec, daemon=True, args=(
        f'import time\nbegin(0)\ntime.sleep({LIMIT_SEC})\nraise SystemExit(1)', {'begin': begin}))
    process.start()
    process.join()
    assert process.exitcode == 0


# ---------------------------------------------------------------- shared memory

def _batches(loader, epochs):
    """All batches of some epochs, held together."""
    held = []
    for epoch in epochs:
        if hasattr(loader.batch_sampler, 'set_position'):
            loader.batch_sampler.set_position(epoch)
        held += list(loader)
    return held


@pytest.mark.slow
@pytest.mark.parametrize('n_threads', [1, 2])
@pytest.mark.parametrize('flags', [(), ('--multi_label',)])
def test_batches_that_are_held_stay_as_they_were(tiny_data, n_threads, flags):
    own, other = (loader_of(tiny_data, 'train', *flags, '--n_threads', n, '--batch_size', 2)
                  for n in (0, n_threads))
    assert_same_batches(_batches(own, range(1, 5)), _batches(other, range(1, 5)))


def test_batches_grow_and_shrink(own_data):
    """Windows at the sizes of their videos, which differ from batch to batch."""
    for i, video_id in enumerate(['red_4', 'green_4', 'blue_5']):
        for path in own_data.frame(video_id).parent.iterdir():
            with Image.open(path) as picture:
                picture.resize((picture.width * (i + 2), picture.height)).save(path)
    flags = ('--inference_crop', 'nocrop', '--batch_size', 2)
    own, other = (list(loader_of(own_data, 'inference', *flags, '--n_threads', n)) for n in (0, 1))
    assert len({batch.clips.shape for batch in own}) > 3
    assert_same_batches(own, other)


@pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='reads /proc')
def test_a_batch_from_a_loader_process_holds_one_file(tiny_data):
    """Of its shared memory: thousands of open files would be too many."""
    loader = loader_of(tiny_data, 'train', '--n_threads', 1, '--batch_size', 2)
    held = list(loader)
    before = len(os.listdir('/proc/self/fd'))
    n_held = len(held)
    held.clear()
    gc.collect()
    assert before - len(os.listdir('/proc/self/fd')) == n_held


@pytest.mark.slow
def test_too_little_shared_memory_is_an_error(tiny_data, tmp_path):
    """Files of shared memory are files, whose size a limit holds for."""
    argv = tiny_data.argv(tmp_path / 'results', '--n_threads', 1)
    process = start_main(argv, tmp_path / 'output', file_limit=2 ** 16)
    process.join(LIMIT_SEC)
    assert process.exitcode == 2
    line = (tmp_path / 'output').read_text().splitlines()[-1]
    assert line.startswith('error: /dev/shm: ') and '--batch_size' in line


@needs_gpu
@pytest.mark.parametrize('n_threads', [1, 2])
def test_pinned_batches_are_the_same(tiny_data, n_threads):
    own = loader_of(tiny_data, 'train', '--batch_size', 2)
    other = loader_of(tiny_data, 'train', '--batch_size', 2, '--n_threads', n_threads,
                      pin_memory=True)
    batches = _batches(other, range(1, 5))
    assert all(column.is_pinned() for batch in batches for column in batch[:4])
    assert_same_batches(_batches(own, range(1, 5)), batches)
