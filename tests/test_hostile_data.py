"""Data made wrong on purpose, by kind: annotations, frames, HDF5, files that are no files."""

import copy
import json
import os
import random
import socket

import h5py
import numpy as np
import pytest
import simplejpeg
import torch

from datasets.annotations import label_list_records, read_annotation, taxonomy_records
from datasets.frames import FrameError, Hdf5Frames, JpgFrames
from features import Features, pack, read_features, unpack, write_features
from results import PartialResults
from runtime.errors import InputError
from runtime.files import file_size, parse_json, read_file
from tests.helpers import run_script
from tests.tiny_data import run_main

ODD_JSON = [None, True, False, 0, -1, 1.5, 2 ** 31, 10 ** 400, float('nan'), float('inf'), '', 'a',
            'a\0b', '\ud800', '\x1b[2J', 'a\nb', '../..', '/', [], [[]], [1], [1, 2, 3],
            [True, 9], [1, 9.5], ['1', '9'], [9, 1], [0, 10 ** 400], [float('nan'), 1], {},
            {'a': 1}, 'x' * 5000]


def _places(value, path=()):
    """The paths to all values in a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in (value if isinstance(value, dict) else range(len(value))):
            yield from _places(value[key], (*path, key))


def _replaced(value, path, odd):
    if not path:
        return odd
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return value


LABELS = {'labels': ['red', 'green'], 'database': {
    'a': {'subset': 'training', 'annotations': {'label': 'red', 'segment': [1, 9]}},
    'b': {'subset': 'validation', 'video_path': 'x/b',
          'annotations': {'label': ['green', 'red'], 'segment': [2, 20]}},
    'c': {'subset': 'testing', 'annotations': {'segment': [1, 9]}}}}
TAXONOMY = {'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None, 'parentName': None},
                         {'nodeName': 'Run', 'nodeId': 1, 'parentId': 0, 'parentName': 'Root'}],
            'database': {'v': {'subset': 'training', 'fps': 25.0, 'duration': 4.0,
                               'annotations': [{'label': 'Run', 'segment': [0.5, 2.0]}]}}}


def read_all(path):
    """All that is read of an annotation file."""
    annotation = read_annotation(path)
    for subset in ('training', 'validation', 'testing'):
        if annotation.is_taxonomy:
            records, _ = taxonomy_records(annotation, subset, lambda path: 100)
        else:
            records, _ = label_list_records(annotation, subset, multi_label=True)
        for i in range(len(records)):
            assert 0 < len(records.frames(i)) and records.targets([i]) is not None
            os.path.exists(f'/nowhere/{records.paths[i]}')  # fails for what is no path at all


@pytest.mark.parametrize('right', [LABELS, TAXONOMY], ids=['labels', 'taxonomy'])
def test_an_odd_value_at_each_place_of_an_annotation(tmp_path, right):
    path = tmp_path / 'a.json'
    n_refused = 0
    for place in _places(right):
        for odd in ODD_JSON:
            path.write_text(json.dumps(_replaced(right, place, odd)))
            try:
                read_all(path)
            except InputError as error:
                assert str(error).startswith(f'{path}: '), error
                n_refused += 1
    assert n_refused > 100


BAD_JSON = {
    'nested lists': '[' * 1_000_000, 'nested objects': '{"a":' * 100_000, 'cut': '{"labels": [',
    'an id twice': '{"labels": ["a"], "database": {"v": {"subset": "training"}, "v": {}}}',
    'digits': '{"labels": ' + '1' * 5000 + '}', 'bytes': '\x80', 'empty': '', 'a nul': '\0',
}


@pytest.mark.parametrize('name', BAD_JSON)
def test_texts_that_are_no_json(tmp_path, name):
    path = tmp_path / 'a.json'
    path.write_bytes(BAD_JSON[name].encode('latin-1'))
    with pytest.raises(InputError, match='a.json: not JSON'):
        read_annotation(path)
    ended = run_script('eval_accuracy', path, path, '--subset', 'validation')
    assert ended.returncode == 2 and 'Traceback' not in ended.stderr


def test_json_as_python_reads_it():
    for value in ({'a': [1, 2.5, None, True, 'ü']}, [], 'a', 3):
        assert parse_json(json.dumps(value)) == value
        assert parse_json(json.dumps(value).encode()) == value


def test_results_with_odd_values(tmp_path):
    truth, path = tmp_path / 'truth.json', tmp_path / 'val.json'
    truth.write_text(json.dumps({'labels': ['red', 'green'], 'database': {
        'b': {'subset': 'validation', 'annotations': {'label': 'green', 'segment': [1, 9]}}}}))
    right = {'results': {'b': [{'label': 'red', 'score': 0.75}, {'label': 'green', 'score': 0.25}]}}
    for place in _places(right):
        for odd in ODD_JSON:
            path.write_text(json.dumps(_replaced(right, place, odd)))
            ended = run_script('eval_accuracy', truth, path, '--subset', 'validation', '-k', 1)
            assert ended.returncode in (0, 2), ended
            assert ended.returncode == 0 or ended.stderr.count('\n') == 1, ended.stderr


def test_partial_results_with_odd_values(tmp_path):
    partial = PartialResults(tmp_path, 'val', {'model': 'resnet'})
    with partial:
        partial.add('a', {'result': [{'label': 'red', 'score': 1.0}]})
    path, = tmp_path.glob('*.jsonl')
    header = path.read_bytes().splitlines(keepends=True)[0]
    right = {'video': 'a', 'result': [{'label': 'red', 'score': 1.0}],
             'features': pack(torch.ones(1, 2), torch.tensor([[1, 5]]))}
    for place in _places(right):
        for odd in ODD_JSON:
            path.write_bytes(header + json.dumps(_replaced(right, place, odd)).encode() + b'\n')
            try:
                rows = partial.read()
                assert rows
            except InputError as error:
                assert str(error).startswith(f'{path}: ')
                continue
            for row in rows.values():
                assert 'features' not in row or unpack(row['features'])


# ---------------------------------------------------------------- files that are no files

@pytest.fixture(params=['pipe', 'socket', 'device', 'folder', 'link to a device'])
def no_file(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    path = tmp_path / 'x'
    if request.param == 'pipe':
        os.mkfifo(path)
    elif request.param == 'socket':
        with socket.socket(socket.AF_UNIX) as server:
            server.bind('x')
    elif request.param == 'device':
        return '/dev/zero'
    elif request.param == 'folder':
        path.mkdir()
    else:
        path.symlink_to('/dev/zero')
    return str(path)


def test_what_is_no_file_is_not_read(no_file, tmp_path):
    for read in (read_file, file_size):
        with pytest.raises(OSError):
            read(no_file)
    with pytest.raises(InputError):
        read_annotation(no_file)
    with pytest.raises(InputError):
        read_features(no_file)
    with pytest.raises(FrameError):
        Hdf5Frames().check(no_file, 0, 1)


FLAGS_OF_FILES = {
    'eval_accuracy': ('{}', 'results.json'), 'find_class_order': ('{}',),
    'describe_checkpoint': ('{}',), 'remove_dataparallel': ('{}', 'out.pth'),
    'plot_log': ('{}',), 'plot_results': ('{}', '{}'), 'knn': ('{}', '{}'),
}


@pytest.mark.parametrize('command', FLAGS_OF_FILES)
def test_commands_do_not_wait_for_what_is_no_file(no_file, command):
    ended = run_script(command, *(word.format(no_file) for word in FLAGS_OF_FILES[command]))
    assert ended.returncode == 2 and 'Traceback' not in ended.stderr


@pytest.mark.parametrize('flag', ['--annotation_path', '--resume_path', '--pretrain_path',
                                  '--result_path'])
def test_main_does_not_wait_for_what_is_no_file(tiny_data, no_file, tmp_path, capsys, flag):
    if os.path.isdir(no_file) and flag == '--result_path':
        return
    assert run_main(tiny_data.argv(tmp_path / 'results', flag, no_file)) == 2
    assert 'Traceback' not in capsys.readouterr().err


def test_a_frame_that_is_a_pipe(own_data):
    os.mkfifo(own_data.root / 'image_00001.jpg')
    with pytest.raises(FrameError, match='image_00001.jpg: cannot be read: it is a pipe'):
        JpgFrames().read(str(own_data.root), [1])


def test_paths_that_no_file_can_have():
    for path in ('a\0b', 'x' * 5000):
        for read in (read_file, file_size):
            with pytest.raises(OSError):
                read(path)


# ---------------------------------------------------------------- frames

def _jpeg(width=48, height=36, claimed=None):
    data = bytearray(simplejpeg.encode_jpeg(np.full((height, width, 3), 99, np.uint8)))
    if claimed:
        at = data.index(b'\xff\xc0') + 5
        data[at:at + 4] = claimed[1].to_bytes(2, 'big') + claimed[0].to_bytes(2, 'big')
    return bytes(data)


def test_a_frame_that_claims_to_be_larger_than_memory(tmp_path):
    (tmp_path / 'image_00001.jpg').write_bytes(_jpeg(claimed=(65_500, 65_500)))
    with pytest.raises(FrameError, match='image_00001.jpg: .*claims 65500x65500 pixels'):
        JpgFrames().read(str(tmp_path), [1])


def test_mutated_images(tmp_path, seed):
    rng, right = random.Random(seed), _jpeg()
    for _ in range(300):
        data = bytearray(right)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / 'image_00001.jpg').write_bytes(data)
        try:
            clip = JpgFrames().read(str(tmp_path), [1])
            assert clip.shape[:2] == (1, 3) and clip.dtype == torch.uint8
        except FrameError as error:
            assert 'image_00001.jpg: ' in str(error)


# ---------------------------------------------------------------- HDF5

BYTES = h5py.vlen_dtype(np.uint8)
ODD_HDF5 = {
    'a scalar': lambda file: file.create_dataset('video', data=3),
    'a text': lambda file: file.create_dataset('video', data='text'),
    'texts': lambda file: file.create_dataset('video', data=['a', 'b'], dtype=h5py.string_dtype()),
    'numbers': lambda file: file.create_dataset('video', data=np.arange(4)),
    'a table of bytes': lambda file: file.create_dataset('video', data=np.zeros((3, 9), np.uint8)),
    'numbers in rows': lambda file: file.create_dataset('video', (3,), h5py.vlen_dtype(np.float64)),
    'rows of rows': lambda file: file.create_dataset('video', (2, 2), BYTES),
    'a group': lambda file: file.create_group('video'),
    'a type': lambda file: file.__setitem__('video', np.dtype('u1')),
    'a loop': lambda file: file.__setitem__('video', h5py.SoftLink('/video')),
    'two links': lambda file: (file.__setitem__('video', h5py.SoftLink('/b')),
                               file.__setitem__('b', h5py.SoftLink('/video'))),
    'another file': lambda file: file.__setitem__('video', h5py.ExternalLink('gone.h5', '/video')),
    'nothing': lambda file: None, 'no rows': lambda file: file.create_dataset('video', (0,), BYTES),
    'unwritten rows': lambda file: file.create_dataset('video', (2 ** 40,), BYTES, chunks=(8,)),
    'empty': lambda file: file.create_dataset('video', data=h5py.Empty('f')),
}


@pytest.mark.parametrize('kind', ODD_HDF5)
def test_hdf5_of_another_kind(tmp_path, kind):
    path = str(tmp_path / 'a.hdf5')
    with h5py.File(path, 'w') as file:
        ODD_HDF5[kind](file)
    for call in (lambda: Hdf5Frames().check(path, 0, 1), lambda: Hdf5Frames().read(path, [0])):
        if kind != 'unwritten rows' or call.__code__.co_names[-1] == 'read':
            with pytest.raises(FrameError, match='a.hdf5: '):
                call()


def hdf5_video(path, n_frames=6):
    with h5py.File(path, 'w') as file:
        rows = file.create_dataset('video', (n_frames,), BYTES, maxshape=(None,))
        for i in range(n_frames):
            rows[i] = np.frombuffer(_jpeg(), np.uint8)
    return path


def test_rows_that_claim_more_than_memory(tmp_path):
    path = hdf5_video(tmp_path / 'a.hdf5')
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at = file['video'].id.get_chunk_info(0).byte_offset
    data[at:at + 4] = (10 ** 9).to_bytes(4, 'little')
    path.write_bytes(data)
    with pytest.raises(FrameError, match='a.hdf5: frame 0'):
        Hdf5Frames().read(str(path), [0])
    assert Hdf5Frames().read(str(path), [1]).shape == (1, 3, 36, 48)


@pytest.fixture
def features_file(tmp_path):
    write_features(tmp_path / 'f.h5', Features(
        np.ones((3, 4), np.float32), ['a', 'b', 'c'], np.array([[1, 9]] * 3),
        np.array([0, 1, 0]), ['red', 'green']))
    return tmp_path / 'f.h5'


def test_features_of_another_kind(features_file):
    assert len(read_features(features_file).video_ids) == 3
    for name in Features._fields:
        for odd in (3, 'text', np.zeros((2, 2, 2)), ['a'], np.zeros(0), h5py.Empty('f'),
                    np.array([1 + 2j] * 3)):
            data = features_file.read_bytes()
            with h5py.File(features_file, 'a') as file:
                del file[name]
                file.create_dataset(name, data=odd)
            try:
                found = read_features(features_file)
                assert name == 'class_names' or len(getattr(found, name)) == 3
            except InputError as error:
                assert str(error).startswith(f'{features_file}: ')
            features_file.write_bytes(data)
    with h5py.File(features_file, 'a') as file:
        del file['features']
        file.create_dataset('features', (2 ** 40, 64), np.float32, chunks=(1, 64))
    with pytest.raises(InputError, match='claims more'):
        read_features(features_file)


# ---------------------------------------------------------------- names

@pytest.mark.parametrize('name', ['a\nb', 'a\rb', '\33[2J', '\x9b', '\u202eb', 'a\0', 'a\x7f'])
def test_labels_that_no_table_and_no_terminal_can_have(tmp_path, name):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps({'labels': ['red', name], 'database': {}}))
    with pytest.raises(InputError, match='a.json: label .* control characters'):
        read_annotation(path)
    path.write_text(json.dumps(_replaced(TAXONOMY, ('taxonomy', 1, 'nodeName'), name)))
    with pytest.raises(InputError, match='a.json: label .* control characters'):
        read_annotation(path)
