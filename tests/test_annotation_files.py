"""The scripts that make annotation files: beside the recorded ones, and with anything missing."""

import copy
import json
import os
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datasets.annotations import label_list_records, read_annotation
from opts import STORAGES, parse_opts
from runtime.errors import InputError
from tests.helpers import grey_frames, write_sound, write_video
from util_scripts import (add_fps_into_activitynet_json, generate_video_jpgs, hmdb51_json,
                          kinetics_json, mit_json, remove_dataparallel, ucf101_json)
from util_scripts.helpers.annotation_files import write_json
from util_scripts.helpers.videos import video_stem


def make_frames(root, n_frames):
    """{folder: number of frames} -> empty images below `root`, which is returned."""
    for folder, n in n_frames.items():
        (root / folder).mkdir(parents=True)
        paths = [f'{root / folder}/image_{number:05d}.jpg' for number in range(1, n + 1)]
        for path in paths[:1]:
            Path(path).touch()
        for path in paths[1:]:
            os.link(paths[0], path)  # a fifth of the time of another file
    return root


def make_hdf5(root, n_frames, names=('video',)):
    """The same as HDF5 files with datasets of these names."""
    for path, n in n_frames.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(root / f'{path}.hdf5', 'w') as file:
            for name in names:
                images = file.create_dataset(name, (n,), dtype=h5py.vlen_dtype(np.uint8))
                for i in range(n):
                    images[i] = np.zeros(3, dtype=np.uint8)
    return root


def make_flow(root, n_frames):
    """The same as HDF5 files of optical flow."""
    return make_hdf5(root, n_frames, ('video_u', 'video_v'))


def make_videos(root, n_frames):
    """The same as video files."""
    for path, n in n_frames.items():
        write_video(root / f'{path}.mp4', grey_frames(range(50, 50 + n)))
    return root


# How frames may be stored: number of the first, and what makes such files.
STORED = {'jpg': (1, make_frames), 'hdf5': (0, make_hdf5), 'flow': (0, make_flow),
          'video': (1, make_videos)}


def write_files(folder, files):
    """{name: text} -> files in `folder`, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, newline='')
    return folder


def call(script, *argv):
    return script.main([str(argument) for argument in argv])


def load(path):
    return json.loads(path.read_text())


# ---------------------------------------------------------------- recorded files

def golden_call(name, lists, frames, dst):
    """Run the script of a data set as its recorded files were made."""
    script, argv = {
        'ucf101': (ucf101_json, [lists, frames, dst]),
        'hmdb51': (hmdb51_json, [lists, frames, dst]),
        'kinetics': (kinetics_json, [lists, 400, frames, 'jpg', dst / 'kinetics.json']),
        'mit': (mit_json, [lists, frames, dst / 'mit.json']),
    }[name]
    return call(script, *argv)


@pytest.mark.golden
@pytest.mark.parametrize('name', ['ucf101', 'hmdb51', 'kinetics', 'mit'])
def test_equal_to_recorded_annotations(golden_dir, tmp_path, name):
    folder = golden_dir / 'json' / name
    frames = make_frames(tmp_path / 'jpg', load(folder / 'frames.json'))
    assert not golden_call(name, folder / 'input', frames, tmp_path / 'a' / 'b')
    recorded = [path for path in folder.glob('*.json') if path.name != 'frames.json']
    for path in recorded:
        made = load(tmp_path / 'a' / 'b' / path.name)
        assert made == load(path) and list(made) == list(load(path))
    assert len(recorded) == len(list((tmp_path / 'a' / 'b').iterdir()))


@pytest.mark.videos
def test_all_published_lists(videos_dir, tmp_path):
    lists = videos_dir / 'annotations'
    frames = make_frames(tmp_path / 'jpg', {'Biking/v_Biking_g05_c02': 3, 'ride_bike/a': 1})
    call(ucf101_json, lists / 'ucf101', frames, tmp_path)
    made = load(tmp_path / 'ucf101_01.json')
    assert len(made['labels']) == 101 and made['labels'][10] == 'Biking'
    assert len(made['database']) == 13_320
    assert made['database']['v_Biking_g05_c02']['annotations']['segment'] == [1, 4]
    name = '#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_ba_med_0'
    frames = make_frames(tmp_path / 'hmdb', {f'ride_bike/{name}': 5})
    call(hmdb51_json, lists / 'hmdb51', frames, tmp_path)
    made = load(tmp_path / 'hmdb51_1.json')
    assert len(made['labels']) == 51 and len(made['database']) == 3_570 + 1_530
    assert made['database'][name] == {'subset': 'training', 'annotations': {
        'label': 'ride_bike', 'segment': [1, 6]}}


# ---------------------------------------------------------------- files as they come

UCF101 = {'classInd.txt': '\ufeff1 Run\r\n2 Walk\r\n\r\n',
          'trainlist01.txt': 'Run/v_Run_g08_c01.avi 1\r\n\r\nWalk/v_Walk_g08_c01.avi 2\r\n',
          'testlist01.txt': 'Run/v_Run_g01_c01.avi\r\n'}
HMDB51 = {'run_test_split1.txt': 'a!()[]#;&+~@ b.avi 1 \n\nc.d.avi 2 \nunused.avi 0 \n',
          'brush_hair_test_split1.txt': 'x.avi 2 \n', 'readme.txt': 'not a list'}
KINETICS = {'kinetics-700_train.csv': 'label,youtube_id,time_start,time_end,split\r\n'
                                      'yoga,-a,7,17,train\r\n"clay, pottery",1e5,10,20,train\r\n',
            'kinetics-700_val.csv': 'label,youtube_id,time_start,time_end,split\nyoga,b,0,10,val\n',
            'kinetics-700_test.csv': 'youtube_id,time_start,time_end,split\nc,1,11,test\n'}
MIT = {'moments_categories.txt': 'clapping,0\r\nmopping floor,1\r\n',
       'trainingSet.csv': 'clapping/a_1.mp4,clapping,3,0\r\n\r\n',
       'validationSet.csv': 'mopping floor/b.c_2.mp4,mopping floor,4,1\r\n',
       'testingSet.csv': 'd_3.mp4\r\n'}
LISTS = {'ucf101': UCF101, 'hmdb51': HMDB51, 'kinetics': KINETICS, 'mit': MIT}


def video(subset, label=None, segment=None):
    annotations = {} if label is None else {'label': label}
    if segment:
        annotations['segment'] = segment
    return {'subset': subset, 'annotations': annotations}


# Frames on the disk, the file written, and what is in it.
CASES = {
    'ucf101': ({'Run/v_Run_g08_c01': 3}, 'ucf101_01.json', ['Run', 'Walk'], {
        'v_Run_g08_c01': video('training', 'Run', [1, 4]),
        'v_Walk_g08_c01': video('training', 'Walk'),
        'v_Run_g01_c01': video('validation', 'Run')}),
    'hmdb51': ({'run/a!()[]#;&+~@ b': 2, 'run/c.d': 1}, 'hmdb51_1.json', ['brush_hair', 'run'], {
        'a!()[]#;&+~@ b': video('training', 'run', [1, 3]),
        'c.d': video('validation', 'run', [1, 2]),
        'x': video('validation', 'brush_hair')}),
    'kinetics': ({'yoga/-a_000007_000017': 3, 'test/c_000001_000011': 2}, 'kinetics.json',
                 ['yoga', 'clay, pottery'], {
        '-a_000007_000017': video('training', 'yoga', [1, 4]),
        '1e5_000010_000020': video('training', 'clay, pottery'),
        'b_000000_000010': video('validation', 'yoga'),
        'c_000001_000011': video('testing', None, [1, 3])}),
    'mit': ({'clapping/a_1': 2, 'mopping floor/b.c_2': 1, 'test/d_3': 4}, 'mit.json',
            ['clapping', 'mopping floor'], {
        'a_1': video('training', 'clapping', [1, 3]),
        'b.c_2': video('validation', 'mopping floor', [1, 2]),
        'd_3': video('testing', None, [1, 5])}),
}


def make(name, lists, frames, dst, video_type='jpg'):
    script, argv = {
        'ucf101': (ucf101_json, [lists, frames, dst, '--video_type', video_type]),
        'hmdb51': (hmdb51_json, [lists, frames, dst, '--video_type', video_type]),
        'kinetics': (kinetics_json, [lists, 700, frames, video_type, dst / 'kinetics.json']),
        'mit': (mit_json, [lists, frames, dst / 'mit.json', '--video_type', video_type]),
    }[name]
    return call(script, *argv)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('video_type', STORED)
def test_lists_as_they_come(tmp_path, capsys, name, video_type):
    """CRLF, a byte order mark, empty lines, trailing spaces, any name; HDF5 counts from 0."""
    n_frames, file_name, labels, database = CASES[name]
    first, make_stored = STORED[video_type]
    frames = make_stored(tmp_path / 'frames', n_frames)
    assert not make(name, write_files(tmp_path / 'lists', LISTS[name]), frames, tmp_path / 'dst',
                    video_type)
    database = copy.deepcopy(database)
    for entry in database.values():
        if 'segment' in entry['annotations']:
            n = entry['annotations']['segment'][1] - entry['annotations']['segment'][0]
            entry['annotations']['segment'] = [first, first + n]
    path = tmp_path / 'dst' / file_name
    assert load(path) == {'labels': labels, 'database': database}
    n_missing = sum('segment' not in entry['annotations'] for entry in database.values())
    missing = f', {n_missing} of them without frames and left out in use' if n_missing else ''
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f'{path}: {len(database)} videos{missing}', f'written: {path}']
    file_type, input_type = STORAGES[video_type]
    assert f'--video_path {frames} --annotation_path {path} ' in lines[2]
    opts = parse_opts(shlex.split(lines[2].partition(' main.py ')[2]))
    assert (opts.file_type, opts.input_type) == (file_type, input_type)
    assert len(path.read_text().splitlines()) == len(database) + 5  # a line a video
    records, _ = label_list_records(read_annotation(path), 'training', first_frame=first)
    assert len(records) == 1


MIRRORED = {
    'train.csv': 'label,youtube_id,time_start,time_end,split\nyoga,a,7,17,train\n'
                 'yoga,b,0,10,train\nclay,old,0,10,train\n',
    'val.csv': 'label,youtube_id,time_start,time_end,split\nclay,c,0,10,validate\n',
    'test.csv': 'label,youtube_id,time_start,time_end,split\nclay,d,1,11,test\n,e,1,11,test\n'}


@pytest.mark.parametrize('video_type', STORED)
def test_kinetics_as_its_mirror_has_it(tmp_path, video_type, capsys):
    """All videos of a subset in a folder; replacements come first; labels for testing are kept."""
    first, make_stored = STORED[video_type]
    frames = make_stored(tmp_path / 'frames', {
        'train/a_000007_000017': 3, 'train/b_000000_000010': 1, 'clay/old_000000_000010': 2,
        'replacement/of_broken/b_000000_000010': 4, 'val/c_000000_000010': 2,
        'test/d_000001_000011': 3, 'test/e_000001_000011': 2})
    lists = write_files(tmp_path / 'lists', MIRRORED)
    (frames / 'train' / 'notes.txt').touch()
    make('kinetics', lists, frames, tmp_path, video_type)
    assert 'frames: not taken: 1 with extension .txt (notes.txt)' in capsys.readouterr().err
    made = load(tmp_path / 'kinetics.json')

    def at(path, *entry):
        return video(*entry) | {'video_path': path}
    assert made == {'labels': ['yoga', 'clay'], 'database': {
        'a_000007_000017': at('train/a_000007_000017', 'training', 'yoga', [first, first + 3]),
        'b_000000_000010': at('replacement/of_broken/b_000000_000010', 'training', 'yoga',
                              [first, first + 4]),
        'old_000000_000010': video('training', 'clay', [first, first + 2]),
        'c_000000_000010': at('val/c_000000_000010', 'validation', 'clay', [first, first + 2]),
        'd_000001_000011': at('test/d_000001_000011', 'testing', 'clay', [first, first + 3]),
        'e_000001_000011': video('testing', None, [first, first + 2])}}
    annotation = read_annotation(tmp_path / 'kinetics.json')
    records, _ = label_list_records(annotation, 'testing', first_frame=first)
    assert [records.labels[i] for i in range(2)] == [[1], []]
    assert records.paths[0] == 'test/d_000001_000011'


# The same videos, as the lists are written by other programs.
HEADER = 'label,youtube_id,time_start,time_end,split\n'
OTHERWISE = {
    'tabs, other strokes': ('ucf101', {
        'classInd.txt': '1\tRun\n2\tWalk\n', 'testlist01.txt': '.\\Run\\v_Run_g01_c01.avi\n',
        'trainlist01.txt': 'Run\\v_Run_g08_c01.avi\t1\nWalk/v_Walk_g08_c01.avi   2\n'}),
    'hidden files of macOS': ('hmdb51', {
        '._run_test_split1.txt': '\0\5\x16\7',
        'run_test_split1.txt': 'a!()[]#;&+~@ b.avi\t1\rc.d.avi\t2\r'}),
    'of Excel': ('kinetics', {
        'kinetics-700_train.csv': 'Label;YouTube_ID;Time_Start;Time_End;Split;\n'
                                  'yoga ;-a;7;17;train;\nclay, pottery;1e5;10;20;train;\n'}),
    'other names': ('kinetics', {
        'kinetics-700_val.csv': None, 'validate.csv': HEADER + 'yoga,b,0.0,10.0,validate\n'}),
    'strokes of Windows': ('mit', {'trainingSet.csv': 'clapping\\a_1.mp4,clapping,3,0\r\n'})}


@pytest.mark.parametrize('name, changes', OTHERWISE.values(), ids=OTHERWISE)
def test_lists_as_other_programs_write_them(tmp_path, name, changes):
    n_frames, file_name, labels, database = CASES[name]
    files = {file: text for file, text in (LISTS[name] | changes).items() if text is not None}
    frames = make_frames(tmp_path / 'frames', n_frames)
    make(name, write_files(tmp_path / 'lists', files), frames, tmp_path / 'dst')
    assert load(tmp_path / 'dst' / file_name) == {'labels': labels, 'database': database}


def test_lists_that_contradict_themselves_are_said(tmp_path, capsys):
    frames = make_frames(tmp_path / 'jpg', {'Run/v_Run_g08_c01': 3, 'yoga/-a_000007_000017': 3})
    lists = write_files(tmp_path / 'lists', UCF101 | KINETICS | {
        'trainlist01.txt': 'Run/v_Run_g08_c01.avi 2\n',
        'kinetics-700_train.csv': HEADER + 'yoga,-a,7,17,val\nyoga,b,0,10,train\n',
        'kinetics-700_val.csv': HEADER + 'clay,c,7,17,val\n'})
    make('ucf101', lists, frames, tmp_path)
    assert 'such as line 1, have another class number' in capsys.readouterr().err
    make('kinetics', lists, frames, tmp_path)
    err = capsys.readouterr().err
    assert '1 of its 2 rows are of another subset' in err
    assert "no video for training has the label 'clay'" in err
    assert load(tmp_path / 'kinetics.json')['labels'] == ['yoga', 'clay']
    (lists / 'kinetics-700_val.csv').unlink()
    make('kinetics', lists, frames, tmp_path)
    assert 'no list of videos for validation' in capsys.readouterr().err


def test_kinetics_from_the_mirror_to_an_annotation(tmp_path, capsys):
    """Of broken videos, those that replace them are extracted, and no others."""
    videos = make_videos(tmp_path / 'videos', {
        'train/a_000007_000017': 9, 'replacement/of_broken/b_000000_000010': 8,
        'val/c_000000_000010': 9, 'test/d_000001_000011': 9})
    (videos / 'train' / 'b_000000_000010.mp4').write_bytes(b'broken')
    assert call(generate_video_jpgs, videos, tmp_path / 'jpg', 'kinetics', '--size', 8) == 0
    out, err = capsys.readouterr()
    assert '4 videos: 4 done' in out and '1 videos are not taken' in err and 'replacement' in err
    make('kinetics', write_files(tmp_path / 'lists', MIRRORED), tmp_path / 'jpg', tmp_path)
    database = load(tmp_path / 'kinetics.json')['database']
    assert {video_id[0]: entry['annotations'].get('segment')
            for video_id, entry in database.items()} == {
        'a': [1, 10], 'b': [1, 9], 'o': None, 'c': [1, 10], 'd': [1, 10], 'e': None}


def test_a_video_in_two_lists_is_said(tmp_path, capsys):
    lists = write_files(tmp_path / 'lists', KINETICS | {
        'kinetics-700_val.csv': 'label,youtube_id,time_start,time_end\nyoga,-a,7,17\n'})
    frames = make_frames(tmp_path / 'jpg', {'yoga/-a_000007_000017': 3})
    make('kinetics', lists, frames, tmp_path)
    database = load(tmp_path / 'kinetics.json')['database']
    assert database['-a_000007_000017']['subset'] == 'validation'
    assert '1 listed more than once' in capsys.readouterr().out


def test_long_hdf5_names_and_broken_files(tmp_path, capsys):
    stem = 'v_Run_' + 'n' * 249
    lists = write_files(tmp_path / 'lists', UCF101 | {'trainlist01.txt': f'Run/{stem}.avi 1\n'})
    frames = make_hdf5(tmp_path / 'hdf5', {f'Run/{stem[:250]}': 4})
    (frames / 'Run' / 'v_Run_g01_c01.hdf5').write_bytes(b'broken')
    make('ucf101', lists, frames, tmp_path, 'hdf5')
    database = load(tmp_path / 'ucf101_01.json')['database']
    assert database[stem]['annotations']['segment'] == [0, 4]
    assert 'segment' not in database['v_Run_g01_c01']['annotations']
    assert 'v_Run_g01_c01.hdf5' in capsys.readouterr().err


# ---------------------------------------------------------------- what is wrong

# Data set, changed files (None: missing), what the sentence says.
WRONG = [
    ('ucf101', {'classInd.txt': None}, ['classInd.txt', 'no such file']),
    ('ucf101', {'classInd.txt': 'Run\n'}, ['classInd.txt, line 1', "'Run'"]),
    ('ucf101', {'classInd.txt': '1 Run\n1 Walk\n'}, ['classInd.txt, line 2']),
    ('ucf101', {'classInd.txt': '1 Run\n2 Run\n'}, ['classInd.txt, line 2']),
    ('ucf101', {'classInd.txt': '\n'}, ['classInd.txt', 'names no class']),
    ('ucf101', {'trainlist01.txt': '', 'testlist01.txt': ''}, ['ucf101_01.json', 'name no video']),
    ('ucf101', {'trainlist01.txt': None, 'testlist01.txt': None}, ['trainlist01.txt']),
    ('ucf101', {'testlist01.txt': None}, ['testlist01.txt', 'no such file']),
    ('ucf101', {'trainlist01.txt': 'Run/a.avi 1\n\nSwim/b.avi 3\n'},
     ['trainlist01.txt, line 3', 'Swim/b.avi 3', 'classInd.txt']),
    ('ucf101', {'trainlist01.txt': 'v_Run_g01_c01.avi\n'}, ['trainlist01.txt, line 1']),
    ('hmdb51', {'run_test_split1.txt': None, 'brush_hair_test_split1.txt': None}, ['_test_split1']),
    ('hmdb51', {'run_test_split1.txt': 'a.avi 0\n', 'brush_hair_test_split1.txt': 'x.avi 0\n'},
     ['hmdb51_1.json', 'name no video']),
    ('hmdb51', {'run_test_split1.txt': 'a.avi\n'}, ['run_test_split1.txt, line 1', 'a.avi']),
    ('hmdb51', {'run_test_split1.txt': 'a.avi 1\nb.avi 3 \n'}, ['line 2', 'b.avi 3']),
    ('kinetics', {'kinetics-700_train.csv': None}, ['kinetics-700_train.csv', 'no such file']),
    ('kinetics', {'kinetics-700_train.csv': None, 'kinetics-600_train.csv': ''},
     ['kinetics-700_train.csv: no such file; did you mean', 'kinetics-600_train.csv?']),
    ('kinetics', {'kinetics-700_train.csv': HEADER + ',a,1,2,train\n'}, ['line 2', 'a label']),
    ('kinetics', {'kinetics-700_train.csv': HEADER + 'a,b,a,1,2,train\n'}, ['line 2', 'a,b,a']),
    ('kinetics', {'kinetics-700_train.csv': HEADER + 'a,b,1,inf,train\n'}, ['line 2', 'inf']),
    ('kinetics', {'kinetics-700_train.csv': HEADER + 'a,b,1,2,"train\na,c,1,2,train\n'},
     ['line 2', 'quotation mark']),
    ('kinetics', {'kinetics-700_train.csv': HEADER + 'a' * 140_000 + ',b,1,2,train\n'},
     ['more than any list']),
    ('kinetics', {'kinetics-700_train.csv': HEADER + 'a\x1b[0m,b,1,2,train\n'},
     ["class 'a\\x1b[0m'", 'rename it']),
    ('kinetics', {'kinetics-700_train.csv': ''}, ['train.csv, line 1', 'youtube_id']),
    ('kinetics', {'kinetics-700_val.csv': 'youtube_id,time_start,time_end\n'}, ['column label']),
    ('kinetics', {'kinetics-700_test.csv': 'youtube_id,time_start,time_end\na,1,2\nb,x,3\n'},
     ['test.csv, line 3', 'b,x,3']),
    ('kinetics', {'kinetics-700_test.csv': 'youtube_id,time_start,time_end\na,1\n'}, ['line 2']),
    ('mit', {'moments_categories.txt': None}, ['moments_categories.txt', 'no such file']),
    ('mit', {'moments_categories.txt': 'clapping,0\nclapping,1\n'}, ['.txt, line 2']),
    ('mit', {'moments_categories.txt': 'clapping\n'}, ['moments_categories.txt, line 1']),
    ('mit', {'trainingSet.csv': 'clapping/a.mp4,jumping,1,2\n'}, ['trainingSet.csv, line 1']),
    ('mit', {'validationSet.csv': None}, ['validationSet.csv', 'no such file']),
]


@pytest.mark.parametrize('name, changes, words', WRONG)
def test_wrong_lists_are_one_sentence(tmp_path, name, changes, words):
    files = {file: text for file, text in (LISTS[name] | changes).items() if text is not None}
    frames = make_frames(tmp_path / 'jpg', CASES[name][0])
    with pytest.raises(InputError) as error:
        make(name, write_files(tmp_path / 'lists', files), frames, tmp_path / 'dst')
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / 'dst').exists()


@pytest.mark.parametrize('name', CASES)
def test_wrong_folders_are_one_sentence(tmp_path, name):
    lists = write_files(tmp_path / 'lists', LISTS[name])
    with pytest.raises(InputError, match='nowhere: no such folder'):
        make(name, tmp_path / 'nowhere', tmp_path, tmp_path / 'dst')
    with pytest.raises(InputError, match='nowhere: no such folder'):
        make(name, lists, tmp_path / 'nowhere', tmp_path / 'dst')
    with pytest.raises(InputError, match='no frames of any'):
        make(name, lists, lists, tmp_path / 'dst')
    assert not (tmp_path / 'dst').exists()


# ---------------------------------------------------------------- writing

def test_writing_an_annotation(tmp_path):
    path = tmp_path / 'a.json'
    write_json(path, {'labels': [], 'database': {}})
    assert json.loads(path.read_text()) == {'labels': [], 'database': {}}
    with pytest.raises(InputError, match='another path'):
        write_json(path / 'below a file.json', {})


@pytest.mark.parametrize('name, stem', [('a.avi', 'a'), ('a.MP4', 'a'), ('a.b.webm', 'a.b'),
                                        ('a', 'a'), ('a.b', 'a.b')])
def test_video_stem(name, stem):
    assert video_stem(name) == stem


# ---------------------------------------------------------------- ActivityNet's frame rates

def activitynet(video_ids):
    return {'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None}],
            'database': {video_id: {'subset': 'training', 'duration': 2.0, 'annotations': [
                {'segment': [0.1, 1.5], 'label': 'Archery'}]} for video_id in video_ids},
            'version': 'VERSION 1.3'}


@pytest.fixture
def activitynet_videos(tmp_path):
    folder = tmp_path / 'videos'
    write_video(folder / 'v_-a.mp4', grey_frames([50] * 10), fps='30000/1001')
    write_video(folder / 'v_b.mkv', grey_frames([50] * 10), fps=25)
    return folder


def test_fps_is_added(tmp_path, activitynet_videos, capsys):
    before = activitynet(['-a', 'b', 'gone'])
    (activitynet_videos / 'v_b.mkv').rename(activitynet_videos / 'b.mkv')  # extracted to v_b too
    write_json(tmp_path / 'in.json', before)
    assert call(add_fps_into_activitynet_json, activitynet_videos, tmp_path / 'in.json',
                tmp_path / 'new' / 'out.json') == 0
    made = load(tmp_path / 'new' / 'out.json')
    assert made['database']['-a'].pop('fps') == pytest.approx(30000 / 1001)
    assert made['database']['b'].pop('fps') == 25
    assert made == before == load(tmp_path / 'in.json')
    assert '3 videos, 1 of them not found and 0 not readable' in capsys.readouterr().out


def test_fps_is_added_in_place_and_bad_videos_are_named(tmp_path, activitynet_videos, capsys):
    write_json(tmp_path / 'in.json', activitynet(['-a', 'c', 'd']))
    (activitynet_videos / 'v_c.mp4').touch()
    write_sound(activitynet_videos / 'v_d.mp4')
    assert call(add_fps_into_activitynet_json, activitynet_videos, tmp_path / 'in.json') == 1
    database = load(tmp_path / 'in.json')['database']
    assert [video_id for video_id, entry in database.items() if 'fps' in entry] == ['-a']
    assert 'v_d.mp4: no video stream' in capsys.readouterr().err


# ---------------------------------------------------------------- remove_dataparallel

def test_remove_dataparallel(tmp_path):
    weights = {'module.fc.weight': torch.ones(2, 3), 'module.fc.bias': torch.zeros(2)}
    torch.save({'epoch': 3, 'arch': 'resnet-18', 'state_dict': weights}, tmp_path / 'save_3.pth')
    assert not call(remove_dataparallel, tmp_path / 'save_3.pth')
    made = torch.load(tmp_path / 'save_3_without_dataparallel.pth', weights_only=True)
    assert list(made['state_dict']) == ['fc.weight', 'fc.bias']
    assert made['epoch'] == 3 and made['arch'] == 'resnet-18'
    assert list(torch.load(tmp_path / 'save_3.pth')['state_dict']) == list(weights)
    assert not call(remove_dataparallel, tmp_path / 'save_3.pth', '--dst_file_path',
                    tmp_path / 'new' / 'x.pth')
    assert (tmp_path / 'new' / 'x.pth').is_file()


class Dangerous:
    def __reduce__(self):
        return print, ('this must not run',)


@pytest.mark.parametrize('state', [None, {'epoch': 1}, Dangerous()])
def test_remove_dataparallel_refuses_what_is_no_checkpoint(tmp_path, capsys, state):
    path = tmp_path / 'a.pth'
    if state is None:
        path.write_text('no checkpoint')
    else:
        torch.save(state, path)
    with pytest.raises(InputError, match=r'a\.pth'):
        call(remove_dataparallel, path)
    assert list(tmp_path.iterdir()) == [path] and capsys.readouterr().out == ''


def test_what_has_no_frames_is_counted_by_reason(tmp_path, capsys):
    lists = write_files(tmp_path / 'lists', {
        'classInd.txt': '1 Run\n', 'testlist01.txt': 'Run/b.avi\n',
        'trainlist01.txt': 'Run/a.avi 1\nRun/c.avi 1\nRun/d.avi 1\nRun/e.avi 1\n'})
    frames = make_frames(tmp_path / 'jpg', {'Run/a': 3, 'Run/b': 2, 'Run/c': 0})
    call(ucf101_json, lists, frames, tmp_path)
    err = capsys.readouterr().err
    assert '2 videos not there (d, ...)' in err and '1 videos without frames (c)' in err
