"""check_data: each kind of trouble is named, and what is right is not."""

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from datasets.video import Video
from runtime.errors import InputError
from tests.helpers import cut_short, grey_frames, run_script, write_video
from tests.tiny_data import MultiLabelData, TinyData
from util_scripts import check_data, folder_json
from util_scripts.helpers.near_duplicates import hashes, near_duplicates


def call(argv):
    """Exit status, in this process."""
    return check_data.main(list(map(str, argv)))


@pytest.fixture
def data(tmp_path):
    return TinyData(tmp_path / 'data')


def check(data, tmp_path, *flags):
    """(exit status, {(kind, subset, name): reason}) of the data."""
    status = call([*data.argv('unused'), '--file_type', 'jpg', '--save', tmp_path / 'found.txt',
                   *flags])
    header, *rows = (line.split('\t') for line in
                     (tmp_path / 'found.txt').read_text().splitlines())
    assert header == ['kind', 'subset', 'path', 'reason']
    return status, {(kind, subset, path.split('/')[-1]): why for kind, subset, path, why in rows}


def test_what_is_right_is_not_named(tiny_data, tmp_path, capsys):
    status, found = check(tiny_data, tmp_path)
    assert status == 0 and found == {}
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ['training', 'validation']
    assert 'samples read' in out and out.splitlines()[-2].split()[-2:] == ['12', '6']
    assert out.splitlines()[-1] == f'written: {tmp_path / "found.txt"}'
    assert err == ''


def edit(data, change):
    annotation = data.read()
    change(annotation['database'])
    data.write(annotation)


def segment(annotation, video_id):
    return annotation[video_id]['annotations']['segment']


def remove(data, video_id):
    folder = data.frame(video_id).parent
    for path in folder.iterdir():
        path.unlink()
    return folder


def copy_into_validation(data):
    source, target = data.frame('red_0').parent, data.frame('red_5').parent
    remove(data, 'red_5')
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    edit(data, lambda database: segment(database, 'red_5').__setitem__(
        1, segment(database, 'red_0')[1]))


def drop_class(database):
    for video_id in [name for name in database if name.startswith('blue')]:
        if database[video_id]['subset'] == 'training':
            del database[video_id]


# What is done to the data, then kind, subset, name and what the reason says.
TROUBLE = {
    'folder missing': (lambda d: remove(d, 'red_0').rmdir(), 'missing', 'training', 'red_0',
                       'no such folder'),
    'folder empty': (lambda d: remove(d, 'red_5'), 'empty', 'validation', 'red_5', 'no frames'),
    'frame empty': (lambda d: d.frame(number=3).write_bytes(b''), 'empty', 'training', 'red_0',
                    'image_00003.jpg'),
    'frame cut short': (lambda d: d.frame(number=4).write_bytes(
        d.frame(number=4).read_bytes()[:-200]), 'truncated', 'training', 'red_0',
        'image_00004.jpg'),
    'no image': (lambda d: d.frame(number=2).write_text('text'), 'undecodable', 'training',
                 'red_0', 'image_00002.jpg'),
    'another size': (lambda d: Image.open(d.frame()).resize((20, 20)).save(d.frame(number=5)),
                     'sizes or colours that change', 'training', 'red_0', '20x20'),
    'a frame less': (lambda d: d.frame(number=4).unlink(), 'wrong frame count', 'training',
                     'red_0', 'last'),
    'a frame more': (lambda d: edit(d, lambda a: segment(a, 'red_0').__setitem__(
        1, segment(a, 'red_0')[1] - 1)), 'wrong frame count', 'training', 'red_0', 'by the '
        'annotation'),
    'in both': (copy_into_validation, 'in training and validation', 'validation', 'red_5',
                'red_0'),
    'in both by path': (lambda d: edit(d, lambda a: a['red_5'].update(
        video_path='red/red_0', annotations=a['red_0']['annotations'])),
        'in training and validation', 'validation', 'red_0', 'red_0'),
    'label without videos': (lambda d: edit(d, drop_class), 'label without videos', 'training',
                             'blue', 'no video in this subset; add some, or take it out'),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', TROUBLE)
def test_trouble_is_named(data, tmp_path, capsys, name):
    spoil, kind, subset, path, why = TROUBLE[name]
    spoil(data)
    status, found = check(data, tmp_path)
    assert status == 1 and found.keys() == {(kind, subset, path)}
    assert why in found[kind, subset, path]
    out, err = capsys.readouterr()
    column = {'training': -2, 'validation': -1}[subset]
    row, = (line.split() for line in out.splitlines() if line.startswith(f'{kind}  '))
    assert row[column] == '1'
    assert err.startswith(f'{kind}: {subset}: ')


def test_too_short_is_by_the_flags_of_the_clip(tiny_data, tmp_path):
    lengths = {video_id: entry['annotations']['segment'][1] - 1 for video_id, entry
               in tiny_data.read()['database'].items() if entry['subset'] == 'training'}
    for flags, need in ((('--sample_duration', 20), 20),
                        (('--sample_duration', 8, '--sample_t_stride', 2), 15)):
        _, found = check(tiny_data, tmp_path, '--no_val', *flags)
        assert {name for _, _, name in found} == {name for name, n in lengths.items() if n < need}
        assert {kind for kind, _, _ in found} == {'too short'}
        for (_, _, name), why in found.items():
            n = lengths[name]
            taken = f' of which --sample_t_stride 2 takes {(n + 1) // 2}' if len(flags) > 2 else ''
            assert f'has {n} frames{taken} for clips of {flags[1]}' in why


def test_only_what_a_run_reads(data, tmp_path):
    remove(data, 'red_5')
    remove(data, 'blue_0')
    assert {name for _, _, name in check(data, tmp_path, '--no_val')[1]} == {'blue_0'}
    assert {name for _, _, name in check(data, tmp_path, '--no_train')[1]} == {'red_5'}
    data.frame('red_5').parent.parent.parent.joinpath('test/green_6/image_00002.jpg').unlink()
    status, found = check(data, tmp_path, '--inference', '--inference_subset', 'test', '--no_val',
                          '--no_train')
    assert {(subset, name) for _, subset, name in found} == {('testing', 'green_6')}


def test_parts_of_longer_videos_are_right(data, tmp_path):
    edit(data, lambda a: a['red_0']['annotations'].update(segment=[2, 9]))
    assert check(data, tmp_path, '--sample_duration', 4) == (0, {})


def test_parts_that_begin_with_the_video_are_right(data, tmp_path):
    end = segment(data.read()['database'], 'red_0')[1]
    edit(data, lambda a: [a['red_0']['annotations'].update(segment=[1, 5]),
                          a.update(red_0b={**a['red_0'], 'video_path': 'red/red_0', 'annotations': {
                              'label': 'red', 'segment': [5, end]}})])
    assert check(data, tmp_path, '--sample_duration', 4) == (0, {})
    edit(data, lambda a: a.pop('red_0b'))
    assert {name for _, _, name in check(data, tmp_path, '--sample_duration', 4)[1]} == {'red_0'}
    edit(data, lambda a: a['red_0'].update(n_frames=end - 1))
    assert check(data, tmp_path, '--sample_duration', 4) == (0, {})
    edit(data, lambda a: a['red_0'].update(n_frames=end))
    assert {name for _, _, name in check(data, tmp_path, '--sample_duration', 4)[1]} == {'red_0'}
    edit(data, lambda a: a['red_0'].update(n_frames='many'))
    with pytest.raises(InputError, match='"n_frames" \'many\' is not the number of frames'):
        check(data, tmp_path)


def test_long_lists_are_saved_and_not_printed(data, tmp_path, capsys):
    edit(data, lambda a: [entry['annotations'].update(segment=[1, 99]) for entry in a.values()
                          if entry['subset'] != 'testing'])
    edit(data, lambda a: a.update({f'x{i}': a['red_0'] for i in range(9)}))
    status, found = check(data, tmp_path)
    assert status == 1 and len(found) == 27
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 21 and '7 more; --save' in err


def test_hdf5_files(tmp_path):
    database = {}
    for name, n_frames in (('good', 3), ('short', 2), ('cut', 3), ('broken', 3), ('gone', 3)):
        database[name] = {'subset': 'training', 'annotations': {'label': 'a', 'segment': [0, 3]}}
        path = tmp_path / 'h5' / 'a' / f'{name}.hdf5'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (16, 12), (90, 90, 90)).save(tmp_path / 'frame.jpg')
        with h5py.File(path, 'w') as file:
            data = file.create_dataset('video', n_frames, h5py.vlen_dtype(np.uint8))
            for i in range(n_frames):
                data[i] = np.frombuffer((tmp_path / 'frame.jpg').read_bytes(), np.uint8)
            if name == 'broken':
                data[1] = np.zeros(9, np.uint8)
    cut_short(tmp_path / 'h5' / 'a' / 'cut.hdf5', 0.5)
    (tmp_path / 'h5' / 'a' / 'gone.hdf5').unlink()
    (tmp_path / 'own.json').write_text(json.dumps({'labels': ['a'], 'database': database}))
    assert call(['--video_path', tmp_path / 'h5', '--annotation_path', tmp_path / 'own.json',
                 '--file_type', 'hdf5', '--no_val', '--n_threads', 1, '--sample_duration', 2,
                 '--save', tmp_path / 'found.txt']) == 1
    rows = [line.split('\t') for line in (tmp_path / 'found.txt').read_text().splitlines()[1:]]
    assert {path.split('/')[-1]: kind for kind, _, path, _ in rows} == {
        'short.hdf5': 'wrong frame count', 'cut.hdf5': 'truncated', 'broken.hdf5': 'undecodable',
        'gone.hdf5': 'missing'}


@pytest.mark.slow
@pytest.mark.usefixtures('forked')
def test_video_files_with_processes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    videos = tmp_path / 'videos'
    for i in range(4):
        write_video(videos / 'a' / f'good{i}.mp4', grey_frames(range(20 + i, 200, 9)))
    for name in ('cut', 'gone', 'empty', 'other'):
        write_video(videos / 'b' / f'{name}.mkv', noise)
    folder_json.main([str(videos), str(tmp_path / 'own.json'), '--val_fraction', '0'])
    cut_short(videos / 'b' / 'cut.mkv', 0.5)
    cut_short(videos / 'b' / 'empty.mkv', 0)
    (videos / 'b' / 'gone.mkv').unlink()
    write_video(videos / 'b' / 'other.mkv', noise[:50])
    made = run_script('check_data', '--video_path', videos, '--annotation_path',
                      tmp_path / 'own.json', '--file_type', 'video', '--no_val', '--n_threads', 2,
                      '--save', tmp_path / 'found.txt')
    assert made.returncode == 1, made.stderr
    rows = [line.split('\t') for line in (tmp_path / 'found.txt').read_text().splitlines()[1:]]
    assert {path.split('/')[-1]: kind for kind, _, path, _ in rows} == {
        'cut': 'truncated', 'gone': 'missing', 'empty': 'empty', 'other': 'wrong frame count'}


def test_wrong_flags_are_one_sentence(tiny_data, tmp_path):
    for argv, match in ((['--video_path', 'x'], '--annotation_path is missing'),
                        ([*tiny_data.argv('unused'), '--saved'], r'--saved.*check_data --help'),
                        (['--video_path', 'x', '--annotation_path', 'gone.json'], 'gone.json')):
        with pytest.raises(InputError, match=match):
            call(argv)


@pytest.mark.videos
def test_a_real_set_is_right(videos_dir, tmp_path):
    videos = videos_dir / 'hmdb51' / 'videos'
    folder_json.main([str(videos), str(tmp_path / 'own.json'), '--val_fraction', '0'])
    assert call(['--video_path', videos, '--annotation_path', tmp_path / 'own.json',
                 '--file_type', 'video', '--no_val', '--n_threads', 1]) == 0


def test_what_lies_in_the_folder_is_found(tiny_data, tmp_path, capsys):
    assert call(tiny_data.argv(tmp_path)) == 0
    assert 'not given: --file_type jpg (in jpg)' in capsys.readouterr().err


# ---------------------------------------------------------------- the page, and near-duplicates

def scene(seed, n_frames=12, size=(48, 64)):
    """Frames (T, H, W, 3) of patches that drift: another picture for each seed."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 255, (16, 24, 3)).repeat(4, axis=0).repeat(4, axis=1)
    frames = [np.roll(patches, shift, axis=1)[:size[0], :size[1]] for shift in range(n_frames)]
    return np.stack(frames).astype(np.uint8)


def copied(frames, kind):
    """The frames as another copy of the video may have them."""
    rng = np.random.default_rng(9)
    if kind == 'noise':
        frames = frames + rng.normal(0, 6, frames.shape)
    elif kind == 'bright':
        frames = frames * 0.8 + 40
    elif kind == 'size':
        frames = np.stack([np.asarray(Image.fromarray(frame).resize((90, 70)))
                           for frame in frames])
    elif kind == 'later':
        frames = frames[2:]
    elif kind == 'mirrored':
        frames = frames[:, :, ::-1]
    return np.clip(frames, 0, 255).astype(np.uint8)


@pytest.mark.parametrize('kind', ['noise', 'bright', 'size', 'later', 'mirrored'])
def test_copies_are_nearly_the_same_and_others_are_not(kind, seed):
    others = [hashes(list(scene(seed + number))) for number in range(60)]
    ones = [hashes(list(copied(scene(seed + 7), kind))), hashes(list(scene(seed + 1000)))]
    found = near_duplicates(ones, others)
    assert [(near.one, near.other) for near in found] == [(0, 7)]
    assert found[0].is_mirrored == (kind == 'mirrored')


def test_frames_without_contrast_are_like_none():
    dark = hashes([np.zeros((48, 64, 3), np.uint8)] * 3)
    assert dark.shape == (0, 256) and near_duplicates([dark], [dark]) == []
    assert near_duplicates([], []) == []


def test_fewer_frames_are_compared_of_many_videos(monkeypatch):
    from util_scripts.helpers import near_duplicates as module
    monkeypatch.setattr(module, 'MOST_COMPARISONS', 300)
    others = [hashes(list(scene(number))) for number in range(60)]
    assert [near.other for near in near_duplicates([others[3]], others)] == [3]


@pytest.mark.slow
def test_planted_copies_are_found_and_the_page_shows_them(tmp_path):
    database = {}
    for number in range(8):
        name, subset = f'v{number}', 'training' if number < 5 else 'validation'
        frames = copied(scene(2), 'noise') if number == 6 else scene(number)
        write_video(tmp_path / 'videos' / 'ab'[number % 2] / f'{name}.mp4', frames)
        database[name] = {'subset': subset, 'annotations': {'label': 'ab'[number % 2],
                                                            'segment': [1, 13]}}
    (tmp_path / 'a.json').write_text(json.dumps({'labels': ['a', 'b'], 'database': database}))
    argv = ['--video_path', tmp_path / 'videos', '--annotation_path', tmp_path / 'a.json',
            '--file_type', 'video', '--n_classes', 2, '--n_threads', 0, '--sample_duration', 8,
            '--sample_size', 32]
    assert call(argv) == 0
    done = run_script('check_data', *argv, '--page', tmp_path / 'page.html')
    assert done.returncode == 1
    assert [line.split(':')[2].split('/')[-1] for line in done.stderr.splitlines()
            if line.startswith('nearly in both')] == ['v6']
    assert 'v2 in training is nearly the same' in done.stderr
    page = (tmp_path / 'page.html').read_text()
    assert '64x48 (5)' in page and '25 (5)' in page and 'Clips of 8 frames of 32x32' in page
    # Two strips of the pair, and clips of the training: three of class a, two of class b.
    assert page.count('<img ') == 2 + 5
    assert page.count('src="data:image/jpeg') == page.count('<img ')


@pytest.mark.slow
def test_a_page_of_frames_and_of_lists_of_labels(tiny_data, tmp_path):
    done = run_script('check_data', *tiny_data.argv('unused'), '--page', tmp_path / 'page.html')
    assert (tmp_path / 'page.html').exists() and f'written: {tmp_path}' in done.stdout
    data = MultiLabelData(tmp_path / 'several')
    run_script('check_data', *data.argv('unused'), '--page', tmp_path / 'other.html')
    assert 'Classes' in (tmp_path / 'other.html').read_text()


@pytest.mark.slow
@pytest.mark.videos
def test_real_clips_are_nearly_the_same_where_they_are_of_one_recording(videos_dir):
    files = sorted((videos_dir / 'ucf101' / 'videos').glob('*/*_c0*.*'))
    found = []
    for file in files:
        with Video(file) as video:
            frames = [frame.to_ndarray(format='rgb24') for frame in video.frames()]
        found.append(hashes(frames[::max(1, len(frames) // 8)]))
    pairs = {(files[number].name, files[other].name) for number, own in enumerate(found)
             for other in range(number) if near_duplicates([own], [found[other]])}
    assert len(files) >= 8 and pairs == {('v_Basketball_g01_c02.mp4', 'v_Basketball_g01_c01.avi')}
