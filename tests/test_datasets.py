"""Annotations, frame readers, samples, batches and loaders."""

import json
import os
import warnings
from collections import Counter

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.annotations import (AnnotationError, Strings, label_list_records, read_annotation,
                                  taxonomy_records)
from datasets.frames import FrameError, Hdf5Flow, Hdf5Frames, JpgFrames, video_path
from datasets.loading import build_loader
from opts import parse_opts
from tests.helpers import grey_frames, write_video
from tests.tiny_data import run_main
from util_scripts import check_data


def _loader(data, split, *flags, start_method=None):
    opts = parse_opts(data.argv('unused', *flags))
    annotation = read_annotation(opts.annotation_path)
    return build_loader(opts, split, annotation, start_method=start_method)


def _same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert all(torch.equal(a, b) for a, b in zip(batch[:4], other[:4]))
        assert batch.bad == other.bad


# ---------------------------------------------------------------- annotations

def test_strings_hold_any_text():
    names = ['v_1', '', 'Grüße, 世界', 'a b']
    column = Strings(names)
    assert [column[i] for i in range(len(column))] == names


def test_records_follow_the_annotation(tiny_data):
    annotation = read_annotation(tiny_data.annotation_path)
    records, n_left_out = label_list_records(annotation, 'training')
    assert n_left_out == 0 and len(records) == 12
    assert records.class_names == ('red', 'green', 'blue')
    entry = tiny_data.read()['database']['green_1']['annotations']
    i = [records.video_ids[i] for i in range(12)].index('green_1')
    assert records.paths[i] == 'green/green_1'
    assert int(records.labels[i]) == 1
    assert records.frames(i) == range(*entry['segment'])


def test_test_videos_have_no_label_and_lie_under_test(tiny_data):
    records, _ = label_list_records(read_annotation(tiny_data.annotation_path), 'testing')
    assert records.labels.tolist() == [-1, -1, -1]
    assert records.paths[0] == 'test/red_6'


@pytest.mark.parametrize('frames', [[0], [3, 4, 5], [0, 2, 3, 9], [5, 4, 4]])
def test_hdf5_frames_come_in_the_order_asked_for(tmp_path, tiny_data, frames):
    path = tmp_path / 'video.hdf5'
    with h5py.File(path, 'w') as file:
        images = file.create_dataset('video', (9,), h5py.vlen_dtype(np.uint8))
        for i in range(9):
            images[i] = np.frombuffer(tiny_data.frame(number=i + 1).read_bytes(), np.uint8)
    reader, jpg = Hdf5Frames(), tiny_data.frame().parent
    if 9 in frames:
        with pytest.raises(FrameError, match='frame 9: the file has 9 frames'):
            reader.read(path, frames)
    else:
        assert torch.equal(reader.read(path, frames),
                           JpgFrames().read(jpg, [frame + 1 for frame in frames]))


def test_video_path_of_the_annotation_wins(own_data):
    annotation = own_data.read()
    annotation['database']['red_0']['video_path'] = 'elsewhere/red'
    own_data.write(annotation)
    records, _ = label_list_records(read_annotation(own_data.annotation_path), 'training')
    assert records.paths[0] == 'elsewhere/red'


def test_videos_without_segment_are_left_out_and_counted(own_data, capsys):
    annotation = own_data.read()
    del annotation['database']['red_0']['annotations']['segment']
    own_data.write(annotation)
    loader = _loader(own_data, 'train')
    assert len(loader.dataset) == 11
    assert '1 of 12 videos' in capsys.readouterr().err


@pytest.mark.golden
@pytest.mark.parametrize('use', ['trimmed', 'untrimmed'])
def test_activitynet_samples(golden_dir, use):
    folder = golden_dir / 'json/activitynet'
    expected = json.loads((folder / 'expected.json').read_text())
    n_frames = json.loads((folder / 'frames.json').read_text())
    annotation = read_annotation(folder / 'input/activity_net.json')
    assert list(annotation.class_names) == expected['class_names']
    for subset, samples in expected[use].items():
        records, _ = taxonomy_records(annotation, subset, lambda path: n_frames.get(path, 0),
                                      trimmed=use == 'trimmed')
        found = [{'video_id': records.video_ids[i],
                  'segment': [records.frames(i).start, records.frames(i).stop],
                  **({'label': int(records.labels[i])} if use == 'trimmed' else {})}
                 for i in range(len(records))]
        assert found == samples


def test_taxonomy_without_fps_names_the_cure(tmp_path):
    path = tmp_path / 'anet.json'
    path.write_text(json.dumps({
        'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None},
                     {'nodeName': 'Surfing', 'nodeId': 1, 'parentId': 0}],
        'database': {'x': {'subset': 'training',
                           'annotations': [{'segment': [1.0, 2.0], 'label': 'Surfing'}]}}}))
    with pytest.raises(AnnotationError, match='add_fps_into_activitynet_json'):
        taxonomy_records(read_annotation(path), 'training', lambda _: 100)


def test_short_segments_are_widened(tmp_path):
    path = tmp_path / 'anet.json'
    marks = [{'segment': [sec, sec + 0.05], 'label': 'Surfing'} for sec in (1.0, 9.9)]
    path.write_text(json.dumps({
        'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None},
                     {'nodeName': 'Surfing', 'nodeId': 1, 'parentId': 0}],
        'database': {'x': {'subset': 'training', 'fps': 10, 'annotations': marks}}}))
    records, _ = taxonomy_records(read_annotation(path), 'training', lambda _: 100)
    assert [records.frames(i) for i in range(2)] == [range(11, 19), range(93, 101)]


# ---------------------------------------------------------------- readers

def _as_hdf5(tiny_data, folder):
    """The training videos as hdf5 files, and their annotation, frames counted from 0."""
    annotation = tiny_data.read()
    for video_id, entry in annotation['database'].items():
        entry['annotations']['segment'] = [0, entry['annotations']['segment'][1] - 1]
        label = entry['annotations'].get('label')
        if label is None:
            continue
        (folder / 'hdf5' / label).mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / 'hdf5' / label / f'{video_id}.hdf5', 'w') as file:
            frames = sorted(tiny_data.frame(video_id).parent.iterdir())
            data = file.create_dataset('video', len(frames), h5py.vlen_dtype(np.uint8))
            for i, frame in enumerate(frames):
                data[i] = np.frombuffer(frame.read_bytes(), np.uint8)
    (folder / 'annotation.json').write_text(json.dumps(annotation))


@pytest.mark.parametrize('split', ['train', 'val', 'inference'])
def test_hdf5_gives_the_same_samples_as_jpg(tiny_data, tmp_path, split):
    _as_hdf5(tiny_data, tmp_path)
    jpg = list(_loader(tiny_data, split))
    opts = parse_opts([*tiny_data.argv('unused'), '--root_path', str(tmp_path),
                       '--video_path', 'hdf5', '--file_type', 'hdf5'])
    hdf5 = list(build_loader(opts, split, read_annotation(opts.annotation_path)))
    _same([batch._replace(segments=batch.segments - 1) for batch in jpg], hdf5)


def test_flow_has_two_channels_from_two_datasets(tmp_path):
    path = tmp_path / 'x.hdf5'
    with h5py.File(path, 'w') as file:
        for name, grey in (('video_u', 40), ('video_v', 200)):
            Image.new('L', (16, 12), grey).save(tmp_path / 'frame.jpg')
            data = file.create_dataset(name, 3, h5py.vlen_dtype(np.uint8))
            for i in range(3):
                data[i] = np.frombuffer((tmp_path / 'frame.jpg').read_bytes(), np.uint8)
    reader = Hdf5Flow()
    assert reader.count(path) == 3
    clip = reader.read(path, [0, 2])
    assert clip.shape == (2, 2, 12, 16)
    assert clip[:, 0].unique().tolist() == [40] and clip[:, 1].unique().tolist() == [200]
    with pytest.raises(FrameError, match='video'):
        Hdf5Frames().read(path, [0])


def test_long_names_are_cut_before_the_suffix():
    name = 'v' * 300
    assert video_path('root', f'label/{name}', '.hdf5') == f'root/label/{"v" * 250}.hdf5'
    assert video_path('root', 'label/v_1.5', '') == 'root/label/v_1.5'


def test_frames_are_the_decoded_images(tiny_data):
    path = tiny_data.frame().parent
    clip = JpgFrames().read(path, [3, 1])
    for row, number in zip(clip, (3, 1)):
        image = np.array(Image.open(path / f'image_{number:05d}.jpg').convert('RGB'))
        assert np.abs(row.permute(1, 2, 0).numpy().astype(int) - image).max() <= 2


def test_a_video_all_in_grey_is_read_as_rgb(tmp_path):
    for i in range(1, 4):
        Image.new('L', (16, 12), 90).save(tmp_path / f'image_{i:05d}.jpg')
    clip = JpgFrames().read(tmp_path, [1, 2, 3])
    assert clip.shape == (3, 3, 12, 16) and clip.unique().tolist() == [90]


# ---------------------------------------------------------------- samples and batches

def test_training_batches_are_uint8_clips(tiny_data):
    batch = next(iter(_loader(tiny_data, 'train')))
    assert batch.clips.shape == (4, 3, 8, 32, 32) and batch.clips.dtype == torch.uint8
    assert batch.labels.shape == (4,) and batch.segments.shape == (4, 2)


def test_validation_has_even_clips_of_each_video(tiny_data):
    loader = _loader(tiny_data, 'val', '--n_val_samples', 2, '--batch_size', 4)
    videos = torch.cat([batch.videos for batch in loader])
    assert videos.bincount().tolist() == [2] * 6


def test_inference_windows_cover_each_video_in_order(tiny_data):
    loader = _loader(tiny_data, 'inference', '--inference_stride', 4)
    batches = list(loader)
    videos = torch.cat([batch.videos for batch in batches]).tolist()
    segments = torch.cat([batch.segments for batch in batches])
    assert videos == sorted(videos)
    for i in range(len(loader.dataset)):
        own = segments[torch.tensor(videos) == i]
        frames = loader.dataset.records.frames(i)
        assert own[:, 0].tolist() == list(frames)[::4][:len(own)]
        assert own[-1, 1] == frames.stop


@pytest.mark.parametrize('crop', ['center', 'nocrop'])
def test_windows_are_batched_over_videos(tiny_data, crop):
    batches = list(_loader(tiny_data, 'inference', '--inference_stride', 4, '--inference_crop',
                           crop, '--inference_batch_size', 5))
    n_videos = [len(batch.videos.unique()) for batch in batches]
    if crop == 'nocrop':
        assert max(n_videos) == 1
    else:
        assert {len(batch.videos) for batch in batches[:-1]} == {5} and max(n_videos) > 1


class CountingReader:
    """A reader that counts how often it reads which frame."""

    def __init__(self, reader):
        self._reader, self.counts = reader, Counter()

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def read(self, path, frames, n_frames=None):
        self.counts.update((path, frame) for frame in frames)
        return self._reader.read(path, frames, n_frames)


@pytest.mark.parametrize('flags', [('--inference_stride', 1), ('--inference_views', '5x3')])
@pytest.mark.parametrize('batch_size', [1000, 6])
def test_frames_of_overlapping_windows_are_read_once(tiny_data, flags, batch_size):
    """Once in a batch: where a video is cut, in both batches."""
    loader = _loader(tiny_data, 'inference', *flags, '--inference_batch_size', batch_size)
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


@pytest.mark.parametrize('split', ['train', 'val', 'inference'])
def test_stride_holds_in_every_split(tiny_data, split):
    batch = next(iter(_loader(tiny_data, split, '--sample_t_stride', 2)))
    spans = batch.segments[:, 1] - batch.segments[:, 0]
    assert spans.max() > 8


@pytest.mark.parametrize('flags', [('--train_crop', 'corner'), ('--train_crop', 'center'),
                                   ('--colorjitter', '--no_hflip'),
                                   ('--train_t_crop', 'center')])
def test_training_flags_change_what_is_read(tiny_data, flags):
    def clips(*flags):
        return next(iter(_loader(tiny_data, 'train', *flags))).clips
    assert clips(*flags).shape == clips().shape
    assert not torch.equal(clips(*flags), clips())


@pytest.mark.parametrize('start_method', ['fork', 'spawn', 'forkserver'])
def test_batches_are_the_same_for_any_workers(tiny_data, start_method):
    own = _loader(tiny_data, 'train')
    other = _loader(tiny_data, 'train', '--n_threads', 2, start_method=start_method)
    for epoch in (1, 2):
        own.batch_sampler.set_position(epoch)
        other.batch_sampler.set_position(epoch)
        _same(list(own), list(other))


def test_epochs_differ(tiny_data):
    loader = _loader(tiny_data, 'train')
    first = next(iter(loader)).clips
    loader.batch_sampler.set_position(1)
    assert not torch.equal(next(iter(loader)).clips, first)


def test_more_loader_processes_than_processors_are_no_warning(tiny_data):
    n_threads = len(os.sched_getaffinity(0)) + 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(next(iter(_loader(tiny_data, 'val', '--n_threads', n_threads))).labels)


@pytest.mark.parametrize('n_threads', [0, 2])
def test_errors_of_loader_processes_keep_their_sentence(own_data, n_threads):
    own_data.frame('blue_5', 3).write_bytes(b'')
    loader = _loader(own_data, 'val', '--n_threads', n_threads)
    with pytest.raises(FrameError) as raised:
        list(loader)
    assert 'blue_5/image_00003.jpg: the frame is empty' in str(raised.value)
    assert 'Traceback' not in str(raised.value)


def test_missing_videos_of_a_large_set_are_named_when_they_are_read(own_data):
    for frame in own_data.frame('red_5').parent.iterdir():
        frame.unlink()
    with pytest.raises(FrameError, match='red_5'):
        _loader(own_data, 'val')
    loader = _loader(own_data, 'val', '--no-check_paths')
    with pytest.raises(FrameError, match='red_5'):
        list(loader)


# ---------------------------------------------------------------- bad frames

def _break(data, video_id, number=1):
    data.frame(video_id, number).write_bytes(b'no image')


def _numbers(loader, *video_ids):
    names = loader.dataset.records.video_ids
    by_name = {names[i]: i for i in range(len(names))}
    return [by_name[video_id] for video_id in video_ids]


TRAIN_CLIPS = ('--train_t_crop', 'center', '--sample_duration', 30)  # every frame is read


def test_bad_training_videos_are_replaced_by_the_next_of_their_class(own_data, capsys):
    whole = list(_loader(own_data, 'train', *TRAIN_CLIPS))
    _break(own_data, 'red_1')
    _break(own_data, 'green_3', 2)
    with pytest.raises(FrameError, match='image_0000[12].jpg: the frame is not a JPEG'):
        list(_loader(own_data, 'train', *TRAIN_CLIPS))
    loader = _loader(own_data, 'train', *TRAIN_CLIPS, '--bad_frames', 'skip')
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


@pytest.mark.parametrize('n_threads', [1, 2])
def test_what_is_replaced_depends_on_seed_epoch_and_index_alone(own_data, n_threads):
    _break(own_data, 'red_1')
    flags = ('--bad_frames', 'skip', '--sample_duration', 16)
    own, other = (_loader(own_data, 'train', *flags, '--n_threads', n, start_method='fork')
                  for n in (0, n_threads))
    for epoch in (3, 1):
        for loader in (own, other):
            loader.batch_sampler.set_position(epoch)
        _same(list(own), list(other))


def test_videos_that_are_missing_are_replaced_and_said_at_the_start(own_data, capsys):
    for frame in own_data.frame('blue_0').parent.iterdir():
        frame.unlink()
    loader = _loader(own_data, 'train', '--bad_frames', 'skip')
    assert 'blue_0' in capsys.readouterr().err
    assert sum(len(batch.labels) for batch in loader) == 12


def test_a_class_without_any_good_video_is_named(own_data):
    for i in range(4):
        _break(own_data, f'green_{i}')
    loader = _loader(own_data, 'train', *TRAIN_CLIPS, '--bad_frames', 'skip')
    with pytest.raises(FrameError, match="no other video of class 'green'"):
        list(loader)


@pytest.mark.parametrize('n_threads', [0, 2])
def test_bad_clips_are_left_out_of_validation(own_data, capsys, n_threads):
    flags = ('--n_val_samples', 3, '--sample_duration', 4, '--batch_size', 3)
    whole = list(_loader(own_data, 'val', *flags))
    _break(own_data, 'red_4')  # the first of its clips
    for number in range(1, 10):
        _break(own_data, 'blue_5', number)
    for frame in list(own_data.frame('blue_5').parent.iterdir())[9:]:
        frame.write_bytes(b'')
    loader = _loader(own_data, 'val', *flags, '--bad_frames', 'skip', '--n_threads', n_threads,
                     start_method='fork' if n_threads else None)
    batches = list(loader)
    red_4, blue_5 = _numbers(loader, 'red_4', 'blue_5')
    assert len(batches) == len(whole) - 1
    videos = torch.cat([batch.videos for batch in batches])
    assert (videos == red_4).sum() == 2 and (videos == blue_5).sum() == 0
    assert 'bad frames: 2 of 6 videos were left out' in capsys.readouterr().err


def test_inference_leaves_out_the_windows_with_bad_frames(own_data):
    flags = ('--sample_duration', 4, '--inference_stride', 4)
    n_whole = sum(len(batch.labels) for batch in _loader(own_data, 'inference', *flags))
    _break(own_data, 'green_4', 6)
    for batch_size in (1, 3, 64):
        loader = _loader(own_data, 'inference', *flags, '--bad_frames', 'skip',
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
        list(_loader(own_data, 'val', '--bad_frames', 'skip'))


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


# ---------------------------------------------------------------- large sets

def _large(path, n_videos):
    names = [f'{i:011d}_000010_000020' for i in range(n_videos)]
    path.write_text(json.dumps({'labels': ['a', 'b'], 'database': {
        name: {'subset': 'training', 'annotations': {'label': 'ab'[i % 2], 'segment': [1, 301]}}
        for i, name in enumerate(names)}}))
    return names


def test_the_index_is_a_few_numbers_a_video(tmp_path):
    names = _large(tmp_path / 'large.json', 5000)
    records, _ = label_list_records(read_annotation(tmp_path / 'large.json'), 'training')
    columns = [value for value in vars(records).values() if torch.is_tensor(value)]
    strings = (records.video_ids, records.paths)
    n_bytes = sum(c.element_size() * c.numel() for c in columns) + sum(
        s._ends.element_size() * s._ends.numel() for s in strings)
    assert n_bytes / len(names) < 40
    assert sum(s._data.numel() for s in strings) == sum(2 * len(name) + 2 for name in names)
    assert records.video_ids[4999] == names[4999] and records.paths[1] == f'b/{names[1]}'


def test_no_file_of_a_large_set_is_looked_for_at_the_start(tiny_data, tmp_path, monkeypatch):
    _large(tmp_path / 'large.json', 10_001)
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


# ---------------------------------------------------------------- names and other schemas

def test_names_of_files_may_hold_any_bytes(own_data):
    name = b'caf\xe9'.decode(errors='surrogateescape')
    own_data.frame('red_0').parent.rename(own_data.root / 'jpg' / 'red' / name)
    annotation = own_data.read()
    annotation['database'][name] = annotation['database'].pop('red_0')
    own_data.write(annotation)
    assert sum(len(batch.labels) for batch in _loader(own_data, 'train')) == 12


@pytest.mark.parametrize('change, match', [
    ({'video_path': 3}, '"video_path" 3'),
    ({'annotations': {'label': 'red', 'segment': [1, 2 ** 40]}}, 'segment'),
])
def test_entries_that_cannot_be(own_data, change, match):
    annotation = own_data.read()
    annotation['database']['red_0'].update(change)
    own_data.write(annotation)
    with pytest.raises(AnnotationError, match=f"'red_0'.*{match}"):
        label_list_records(read_annotation(own_data.annotation_path), 'training')


@pytest.mark.parametrize('marks', [3, ['x'], [{'label': 'Surfing', 'segment': [0, 1e400]}],
                                   [{'label': 'Surfing', 'segment': None}]])
def test_marks_of_a_taxonomy_that_cannot_be(tmp_path, marks):
    path = tmp_path / 'anet.json'
    path.write_text(json.dumps({
        'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None},
                     {'nodeName': 'Surfing', 'nodeId': 1, 'parentId': 0}],
        'database': {'x': {'subset': 'training', 'fps': 10, 'annotations': marks}}}))
    with pytest.raises(AnnotationError, match="'x'"):
        taxonomy_records(read_annotation(path), 'training', lambda _: 100)


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
