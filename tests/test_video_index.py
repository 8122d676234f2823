"""--video_index: what is known of video files is kept across runs, and is the same."""

import json
import os
import pickle
import sqlite3

import pytest

import main as main_module
from datasets import video
from datasets.video import Video, count_frames, read_rgb
from datasets.video_index import VideoIndex
from runtime.errors import InputError
from tests.helpers import write_video
from tests.test_video import noise, remux
from util_scripts import folder_json


@pytest.fixture
def index(tmp_path):
    return VideoIndex(tmp_path / 'known.idx')


def make(folder, name):
    if name == 'raw.h264':
        made = write_video(folder / 'made.mp4', noise(40), codec='libx264', gop_size=10,
                           options={'bf': '0'})
        remux(made, folder / name, 'h264')
        return str(folder / name)
    codec = 'libvpx' if name == 'a.webm' else 'mpeg4'
    return str(write_video(folder / name, noise(40), codec=codec, gop_size=10))


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.avi', 'a.webm', 'raw.h264', 'a.mpg'])
def test_frames_are_the_same_and_no_packets_are_looked_for(tmp_path, index, monkeypatch, name):
    monkeypatch.setattr(video, 'MIN_CHECKED', 1)
    path = make(tmp_path, name)
    n_frames = count_frames(path)
    numbers = [25, 26, 31]
    for _ in range(3):  # as often as something is found out
        found = dict(read_rgb(path, numbers, n_frames=n_frames, index=index))
    kept = index.load(path, video._version(path))
    video._notes.cache_clear()  # as in another run
    monkeypatch.setattr(Video, 'packets', None)
    monkeypatch.setattr(Video, 'places', None)
    again = dict(read_rgb(path, numbers, n_frames=n_frames,
                          index=pickle.loads(pickle.dumps(index))))
    assert all((again[number] == found[number]).all() for number in numbers)
    assert index.load(path, video._version(path)) == kept


@pytest.mark.parametrize('change', [
    lambda notes: 5, lambda notes: {**notes, 'n_read': 'a'}, lambda notes: {**notes, 'shape': [1]},
    lambda notes: {**notes, 'way': 10 ** 30}, lambda notes: {**notes, 'packets': {}},
    lambda notes: {**notes, 'places': [*notes['places'][:4], [1], [1]]}])
def test_notes_of_another_kind_are_made_again(tmp_path, index, change):
    path = make(tmp_path, 'a.mp4')
    for _ in range(3):
        found = dict(read_rgb(path, [5], n_frames=40, index=index))
    version = video._version(path)
    notes = index.load(path, version)
    index.save(path, version, change(notes))
    video._notes.cache_clear()
    again = dict(read_rgb(path, [5], n_frames=40, index=index))
    assert (again[5] == found[5]).all()


def test_a_video_that_changes_is_looked_at_again(tmp_path, index):
    path = make(tmp_path, 'a.mkv')
    list(read_rgb(path, [25], n_frames=40, index=index))
    before = index.load(path, video._version(path))
    write_video(tmp_path / 'a.mkv', noise(30), codec='mpeg4', gop_size=5)
    os.utime(path, (1, 1))
    assert index.load(path, video._version(path)) is None
    list(read_rgb(path, [25], n_frames=30, index=index))
    assert (before['packets'][0], index.load(path, video._version(path))['packets'][0]) == (40, 30)


def test_what_another_version_kept_is_found_out_again(tmp_path, index):
    path = make(tmp_path, 'a.mkv')
    index.save(path, video._version(path), {'container': 'avi', 'packets': None, 'way': 0})
    numbers = [number for number, _ in read_rgb(path, [25], n_frames=40, index=index)]
    assert numbers == [25]
    assert index.load(path, video._version(path))['container'] == 'matroska'


def test_an_index_that_is_none_is_named(tmp_path):
    (tmp_path / 'text').write_text('no index at all\n' * 100)
    with sqlite3.connect(tmp_path / 'other') as other:
        other.execute('CREATE TABLE videos (x)')
    other.close()
    for name in ('text', 'gone/a.idx'):
        with pytest.raises(InputError, match=f'{name}: cannot be used as an index of videos'):
            VideoIndex(tmp_path / name)
    path = make(tmp_path, 'a.mkv')
    with pytest.raises(InputError, match='other: cannot be used'):
        list(read_rgb(path, [1], index=VideoIndex(tmp_path / 'other')))
    index = VideoIndex(tmp_path / 'good')
    index.save(path, video._version(path), {})
    with sqlite3.connect(tmp_path / 'good') as good:
        good.execute("UPDATE videos SET notes = '{'")
    good.close()
    with pytest.raises(InputError, match='good: cannot be used'):
        index.load(path, video._version(path))


@pytest.mark.slow
def test_a_training_with_loader_processes_fills_it(tmp_path):
    for name in ('run/a', 'run/b', 'jump/c', 'jump/d'):
        write_video(tmp_path / 'v' / f'{name}.avi', noise(20, seed=ord(name[-1])), gop_size=5)
    folder_json.main([str(tmp_path / 'v'), str(tmp_path / 'own.json'), '--val_fraction', '0'])
    flags = ['--root_path', tmp_path, '--video_path', 'v', '--annotation_path', 'own.json',
             '--file_type', 'video', '--n_threads', 1, '--no_val', '--sample_duration', 4,
             '--sample_size', 32, '--no_cuda', '--model_depth', 10, '--batch_size', 2,
             '--resnet_widen_factor', 0.125, '--n_epochs', 1]
    logs = []
    for name in ('without', 'with'):
        index = [] if name == 'without' else ['--video_index', 'known.idx']
        main_module.main([*map(str, flags), '--result_path', name, *index])
        logs.append((tmp_path / name / 'train.log').read_text())
    assert logs[0] == logs[1]
    with sqlite3.connect(tmp_path / 'known.idx') as kept:
        rows = kept.execute('SELECT path, notes FROM videos').fetchall()
    kept.close()
    assert {os.path.basename(os.fsdecode(path)) for path, _ in rows} == {
        'a.avi', 'b.avi', 'c.avi', 'd.avi'}
    assert all(json.loads(notes)['packets'][0] == 20 for _, notes in rows)
