"""Annotations, frame readers, samples, batches and loaders."""

import json

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from datasets import build_loader
from datasets.annotations import (AnnotationError, Strings, label_list_records, read_annotation,
                                  taxonomy_records)
from datasets.frames import FrameError, Hdf5Flow, Hdf5Frames, JpgFrames, video_path
from opts import parse_opts


def _loader(data, split, *flags, start_method=None):
    opts = parse_opts(data.argv('unused', *flags))
    annotation = read_annotation(opts.annotation_path)
    return build_loader(opts, split, annotation, start_method=start_method)


def _same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert all(torch.equal(a, b) for a, b in zip(batch, other))


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
        own.set_epoch(epoch)
        other.set_epoch(epoch)
        _same(list(own), list(other))


def test_epochs_differ(tiny_data):
    loader = _loader(tiny_data, 'train')
    first = next(iter(loader)).clips
    loader.set_epoch(1)
    assert not torch.equal(next(iter(loader)).clips, first)


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
