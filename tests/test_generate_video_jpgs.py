"""From videos to folders of images: what is in them, and what a run says about bad files."""

import csv
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from datasets import scaling
from datasets.frames import JpgFrames
from datasets.scaling import Scaler, scaled_size
from datasets.video import Video
from runtime.errors import InputError
from tests.helpers import (ROOT, cut_short, die_of_b, fail, grey_frames, run_script, write_sound,
                           write_video)
from tests.processes import finish, wait_for
from util_scripts import generate_video_jpgs
from util_scripts.check_data import main as check_data
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_jpgs import (Job, JpgFolders, extract_shared, main, shared_out,
                                              temporary_path)
from util_scripts.helpers.jobs import run_jobs
from util_scripts.helpers.video_io import frames_at, jpegs, resample, steady_times

LEVELS = range(20, 220, 10)


@pytest.fixture
def videos(tmp_path):
    return tmp_path / 'videos'


@pytest.fixture
def jpgs(tmp_path):
    return tmp_path / 'jpg'


def extract(videos, jpgs, *flags, dataset='ucf101'):
    """Exit status, in this process."""
    return main([str(videos), str(jpgs), dataset, '--n_jobs', '1', *map(str, flags)])


def images(folder):
    """The images of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix == '.jpg')


def picture_size(path):
    """(width, height)"""
    with Image.open(path) as image:
        return image.size


def levels(folder):
    """Mean brightness of each image, to the next of LEVELS."""
    means = [np.asarray(Image.open(path).convert('L')).mean() for path in images(folder)]
    return [int(round(mean, -1)) for mean in means]


def mean_colours(path):
    """Mean R, G, B of the four quarters of an image: (2, 2, 3)."""
    pixels = np.asarray(Image.open(path), dtype=float)
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    return np.array([[pixels[y:y + height, x:x + width].mean((0, 1)) for x in (0, width)]
                     for y in (0, height)])


def leftovers(folder):
    return [path for path in folder.rglob('.extracting-*')]


# ---------------------------------------------------------------- what is in the folder

def test_an_image_a_frame_counted_from_1(videos, jpgs):
    write_video(videos / 'Run' / 'v_Run_g01_c01.avi', grey_frames(LEVELS))
    assert extract(videos, jpgs) == 0
    folder = jpgs / 'Run' / 'v_Run_g01_c01'
    assert [path.name for path in images(folder)] == [f'image_{n:05d}.jpg' for n in range(1, 21)]
    assert levels(folder) == list(LEVELS)
    assert not leftovers(jpgs)


def test_images_are_rgb_for_pillow_and_the_reader(videos, jpgs):
    write_video(videos / 'Run' / 'a.mp4', grey_frames([50, 100], height=100, width=180))
    extract(videos, jpgs)
    path = jpgs / 'Run' / 'a' / 'image_00001.jpg'
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ('JPEG', 'RGB', (432, 240))
    assert JpgFrames().read(path.parent, [1]).shape == (1, 3, 240, 432)


@pytest.mark.parametrize('width, height, size, expected', [
    (320, 240, 240, (320, 240)), (240, 320, 240, (240, 320)), (340, 256, 240, (319, 240)),
    (1280, 720, 240, (427, 240)), (50, 50, 240, (240, 240)), (321, 241, 112, (149, 112)),
    (2000, 2, 3, (3000, 3))])
def test_short_side_is_scaled_and_aspect_kept(width, height, size, expected):
    assert scaled_size(width, height, size) == expected


def test_size_flag_also_enlarges(videos, jpgs):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50], height=48, width=64))
    extract(videos, jpgs, '--size', 96)
    assert picture_size(jpgs / 'Run' / 'a' / 'image_00001.jpg') == (128, 96)


def four_colours(height=96, width=128):
    """A frame with red, green / blue, white quarters: (1, H, W, 3)."""
    frame = np.zeros((1, height, width, 3), dtype=np.uint8)
    top, left = slice(height // 2), slice(width // 2)
    bottom, right = slice(height // 2, None), slice(width // 2, None)
    frame[:, top, left] = 200, 30, 30
    frame[:, top, right] = 30, 200, 30
    frame[:, bottom, left] = 30, 30, 200
    frame[:, bottom, right] = 220, 220, 220
    return frame


def test_colours(videos, jpgs):
    frames = four_colours()
    write_video(videos / 'Run' / 'a.avi', frames)
    extract(videos, jpgs, '--size', 96, '--quality', 2)
    shown = mean_colours(jpgs / 'Run' / 'a' / 'image_00001.jpg')
    expected = frames[0, [[24, 24], [72, 72]], [[32, 96], [32, 96]]]
    # Averages are pulled together by a few levels where the colours meet.
    assert np.abs(shown - expected).max() < 6


def random_frame(colour_space, colour_range, width=64, height=48):
    frame = av.VideoFrame(width, height, 'yuv420p')
    rng = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    frame.colorspace, frame.color_range = colour_space, colour_range
    return frame


@pytest.mark.parametrize('pix_fmt', Scaler.STEPS)
@pytest.mark.parametrize('colour_space', [1, 2, 5, 6, 9])
@pytest.mark.parametrize('colour_range', [0, 1, 2])
def test_frames_that_keep_their_size_get_the_same_pixels_faster(pix_fmt, colour_space,
                                                                colour_range, monkeypatch):
    frame = random_frame(colour_space, colour_range)
    ours = Scaler(48, pix_fmt=pix_fmt)(frame)
    monkeypatch.setattr(scaling, 'BT601_SPACES', ())
    exact = Scaler(48, pix_fmt=pix_fmt)(frame)
    assert np.array_equal(ours.to_ndarray(), exact.to_ndarray())


@pytest.mark.skipif(not hasattr(av.VideoStream, 'set_display_rotation'),
                    reason='this PyAV cannot write a rotation; the odd clips have some')
@pytest.mark.parametrize('rotation, turns', [(90, 1), (-90, -1), (180, 2)])
def test_rotation_is_applied(videos, jpgs, rotation, turns):
    write_video(videos / 'Run' / 'turned.mp4', four_colours(), rotation=rotation)
    write_video(videos / 'Run' / 'plain.mp4', four_colours())
    extract(videos, jpgs, '--size', 96)
    turned, plain = (jpgs / 'Run' / name / 'image_00001.jpg' for name in ('turned', 'plain'))
    assert picture_size(turned) == ((96, 128) if turns % 2 else (128, 96))
    assert np.abs(mean_colours(turned) - np.rot90(mean_colours(plain), turns)).max() < 6


@pytest.mark.parametrize('pixel_aspect, size', [('4/3', (171, 96)), ('3/4', (96, 96)),
                                                ('255/254', (128, 96))])
def test_pixels_that_are_not_square_are_shown_as_they_should(videos, jpgs, pixel_aspect, size):
    write_video(videos / 'Run' / 'a.mp4', four_colours(), pixel_aspect=pixel_aspect)
    extract(videos, jpgs, '--size', 96)
    assert picture_size(jpgs / 'Run' / 'a' / 'image_00001.jpg') == size


def test_quality(videos, jpgs, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), dtype=np.uint8)
    write_video(videos / 'Run' / 'a.avi', noise)
    n_bytes = []
    for quality in (2, 6, 31):
        extract(videos, tmp_path / str(quality), '--quality', quality)
        n_bytes.append((tmp_path / str(quality) / 'Run' / 'a' / 'image_00003.jpg').stat().st_size)
    assert n_bytes[0] > 1.3 * n_bytes[1] > 2 * n_bytes[2]


# ---------------------------------------------------------------- frame rates

def test_fps_repeats_and_leaves_out(videos, jpgs, tmp_path):
    write_video(videos / 'Run' / 'a.avi', grey_frames(LEVELS), fps=20)
    extract(videos, jpgs, '--fps', 10)
    assert levels(jpgs / 'Run' / 'a') == list(LEVELS)[::2]
    extract(videos, tmp_path / 'more', '--fps', 40)
    assert levels(tmp_path / 'more' / 'Run' / 'a') == [level for level in LEVELS for _ in range(2)]


def test_fps_follows_time_stamps(videos, jpgs):
    # One second for the first frame, then a steady 10 a second.
    write_video(videos / 'Run' / 'a.mkv', grey_frames([50, 100, 150]), fps=10, times=[0, 10, 11])
    extract(videos, jpgs, '--fps', 10)
    assert levels(jpgs / 'Run' / 'a') == [50] * 10 + [100, 150]


RATES = [(30, 30), (30, 15), (30, 10), (29.97, 29.97), (25, 50), (25, 30), (23.976, 5), (5, 30)]


@pytest.mark.parametrize('n_frames', [1, 3, 250])
@pytest.mark.parametrize('rate, fps', RATES)
@pytest.mark.parametrize('unit', [None, 0.001])
def test_resample_takes_what_is_on_the_screen(rate, fps, n_frames, unit):
    """Also where time stamps are rounded to milliseconds, as in Matroska."""
    times = [n / rate for n in range(n_frames)]
    stamped = [(round(t / unit) * unit if unit else t, n) for n, t in enumerate(times)]
    chosen = list(resample(stamped, fps, 1 / rate))
    assert len(chosen) == max(1, round(n_frames / rate * fps))
    late_sec = [k / fps - times[n] for k, n in enumerate(chosen)]
    assert all(-0.4 / max(rate, fps) - 0.0011 <= late <= 1 / rate + 0.0011 for late in late_sec)
    assert all(a <= b for a, b in pairwise(chosen))
    if rate == fps:
        assert chosen == list(range(n_frames))


def test_resample_of_nothing_is_nothing():
    assert list(resample([], 10, 0.1)) == []


STAMPS = {
    'steady': ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    'not from 0': ([7, 8, 9, 11], [0, 1, 2, 4]),
    'negative': ([-2, -1, 0, 1], [0, 1, 2, 3]),
    'order of decoding': ([0, 2, 1, 3, 5, 4, 6], [0, 1, 2, 3, 4, 5, 6]),
    'all missing': ([None] * 4, [0, 1, 2, 3]),
    'one missing': ([0, 1, None, 3, 4], [0, 1, 2, 3, 4]),
    'all the same': ([0] * 4, [0, 1, 2, 3]),
    'a broken clock': ([0, 1, 90_000, 90_001], [0, 1, 2, 3]),
    'none': ([], []),
}


@pytest.mark.parametrize('stamps, expected', STAMPS.values(), ids=STAMPS.keys())
def test_times_increase_whatever_the_stamps_are(stamps, expected):
    timed = list(steady_times(((stamp, n) for n, stamp in enumerate(stamps)), 1))
    assert timed == [(sec, n) for n, sec in enumerate(expected)]


# ---------------------------------------------------------------- folders and names

@pytest.mark.parametrize('dataset, video, folder', [
    ('kinetics', 'arm wrestling/abc_000001_000011.mp4', 'arm wrestling/abc_000001_000011'),
    ('kinetics', 'test/abc_000001_000011.mp4', 'test/abc_000001_000011'),
    ('mit', 'clapping/yt-a_1.mp4', 'clapping/yt-a_1'),
    ('ucf101', 'Run/v_Run_g01_c01.avi', 'Run/v_Run_g01_c01'),
    ('hmdb51', 'run/a!()[]#;&+~@ b.avi', 'run/a!()[]#;&+~@ b'),
    ('activitynet', 'v_-abc.mp4', 'v_-abc'),
    ('activitynet', 'abc.mp4', 'v_abc'),
])
def test_layout(videos, jpgs, dataset, video, folder):
    write_video(videos / video, grey_frames([50, 100]))
    assert extract(videos, jpgs, dataset=dataset) == 0
    assert len(images(jpgs / folder)) == 2


@pytest.mark.parametrize('extension', ['.avi', '.mp4', '.mkv', '.mov', '.webm', '.AVI', '.Mp4'])
def test_extensions(videos, jpgs, extension):
    codec = 'libvpx' if extension == '.webm' else 'mpeg4'
    made = write_video(videos / 'Run' / f'a{extension.lower()}', grey_frames([50, 100]),
                       codec=codec)
    made.rename(made.with_suffix(extension))
    assert extract(videos, jpgs) == 0
    assert len(images(jpgs / 'Run' / 'a')) == 2


@pytest.mark.parametrize('stem', ['n' * 251, '動画 é', 'a.b', 'file:a', '%05d', '-x'])
def test_names(videos, jpgs, stem):
    made = write_video(videos / 'クラス' / 'a.mp4', grey_frames([50, 100]))
    made.rename(made.with_name(f'{stem}.mp4'))
    assert extract(videos, jpgs) == 0
    assert len(images(jpgs / 'クラス' / stem)) == 2


def test_a_name_that_is_no_utf8(videos, jpgs, capsys):
    made = write_video(videos / 'Run' / 'a.mp4', grey_frames([50, 100]))
    broken = made.rename(made.with_name(os.fsdecode(b'caf\xe9.mp4')))
    assert extract(videos, jpgs) == 0
    broken.write_bytes(b'')
    JpgFolders.write(jpgs / 'aside', [])
    assert main([str(videos), str(jpgs / 'aside'), 'ucf101', '--n_jobs', '1']) == 1
    assert 'caf\\udce9.mp4' in capsys.readouterr().err


def test_relative_path_with_a_colon(tmp_path, monkeypatch):
    write_video(tmp_path / 'a:b.mp4', grey_frames([50]))
    monkeypatch.chdir(tmp_path)
    assert extract('.', 'jpg', dataset='activitynet') == 0
    assert len(images(tmp_path / 'jpg' / 'v_a:b')) == 1


def test_two_files_of_one_name_are_both_left(videos, jpgs, capsys):
    for name in ('a.avi', 'a.mp4', 'b.avi'):
        write_video(videos / 'Run' / name, grey_frames([50]))
    write_video(videos / 'Walk' / 'a.avi', grey_frames([50]))
    assert extract(videos, jpgs) == 1
    out, err = capsys.readouterr()
    assert sorted(path.name for path in (jpgs / 'Run').iterdir()) == ['b']
    assert (jpgs / 'Walk' / 'a').is_dir()
    assert err.count('failed: ') == 2 and 'a.avi and a.mp4 would both be a' in err
    assert '2 done' in out and '2 failed' in out


# ---------------------------------------------------------------- runs that go on

def test_what_is_done_is_skipped(videos, jpgs, capsys):
    for name in 'abc':
        write_video(videos / 'Run' / f'{name}.avi', grey_frames([50, 100]))
    extract(videos, jpgs)
    before = {path: path.stat().st_mtime_ns for path in jpgs.rglob('*.jpg')}
    capsys.readouterr()
    assert extract(videos, jpgs) == 0
    assert '3 videos: 0 done, 3 skipped' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in jpgs.rglob('*.jpg')} == before


def test_folders_of_the_2020_code_are_done(videos, jpgs):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    folder = jpgs / 'Run' / 'a'
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f'image_0000{number}.jpg').write_bytes(b'theirs')
    (folder / 'n_frames').write_text('2')
    assert extract(videos, jpgs) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        'image_00001.jpg', 'image_00002.jpg', 'n_frames']
    assert (folder / 'image_00001.jpg').read_bytes() == b'theirs'
    assert extract(videos, jpgs, '--fps', 30) == 0  # also two of them
    assert (folder / 'image_00001.jpg').read_bytes() == b'theirs'


def test_folders_of_the_2020_code_with_too_few_frames_are_made_again(videos, jpgs, capsys):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    folder = jpgs / 'Run' / 'a'
    folder.mkdir(parents=True)
    (folder / 'image_00001.jpg').write_bytes(b'theirs')
    (folder / 'n_frames').write_text('1')
    (folder / 'notes.txt').write_text('mine')
    assert extract(videos, jpgs) == 0
    assert '1 done' in (out := capsys.readouterr().out) and '1 made again' in out
    assert levels(folder) == [50, 100] and not (folder / 'n_frames').exists()
    assert (folder / 'notes.txt').read_text() == 'mine'
    assert not leftovers(jpgs)


def test_folders_of_the_2020_code_of_another_size_are_made_again(videos, jpgs):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    assert extract(videos, jpgs) == 0
    folder = jpgs / 'Run' / 'a'
    (folder / '.extracted.json').unlink()
    for size in (240, 48):
        before = (folder / 'image_00001.jpg').read_bytes()
        assert extract(videos, jpgs, '--size', size) == 0
        with Image.open(folder / 'image_00001.jpg') as image:
            assert min(image.size) == size
        assert (before == (folder / 'image_00001.jpg').read_bytes()) == (size == 240)


def test_a_file_in_the_place_of_a_folder_is_named(videos, jpgs, capsys):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    (jpgs / 'Run').mkdir(parents=True)
    (jpgs / 'Run' / 'a').write_text('notes')
    assert extract(videos, jpgs) == 1
    assert 'Run/a holds files but no frames: move it away' in capsys.readouterr().err


def longer_video(videos, folder):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100, 150]))


def later_video(videos, folder):
    os.utime(videos / 'Run' / 'a.avi', (1e9, 1e9))


def missing_frame(videos, folder):
    (folder / 'image_00001.jpg').unlink()


def cut_frame(videos, folder):
    cut_short(folder / 'image_00002.jpg', 0.5)


def empty_frame(videos, folder):
    (folder / 'image_00002.jpg').write_bytes(b'')


def broken_record(videos, folder):
    (folder / '.extracted.json').write_text('{}')


CHANGES = {
    'rate': (None, ('--fps', 5)), 'size': (None, ('--size', 96)),
    'quality': (None, ('--quality', 2)),
    'longer video': (longer_video, ()), 'later video': (later_video, ()),
    'missing frame': (missing_frame, ()), 'cut frame': (cut_frame, ()),
    'empty frame': (empty_frame, ()), 'broken record': (broken_record, ()),
    'overwrite': (None, ('--overwrite',)),
}


@pytest.mark.parametrize('change, flags', CHANGES.values(), ids=CHANGES)
def test_what_has_changed_is_made_again(videos, jpgs, tmp_path, capsys, change, flags):
    for name in 'ab':
        write_video(videos / 'Run' / f'{name}.avi', grey_frames([50, 100]))
    extract(videos, jpgs)
    if change:
        change(videos, jpgs / 'Run' / 'a')
    assert extract(videos, jpgs, *flags) == 0
    assert f'{2 if flags else 1} made again' in capsys.readouterr().out
    extract(videos, tmp_path / 'fresh', *flags)
    ours, fresh = (sorted((path.name, path.read_bytes()) for path in (root / 'Run' / 'a').iterdir())
                   for root in (jpgs, tmp_path / 'fresh'))
    assert ours == fresh and not leftovers(jpgs)
    capsys.readouterr()
    kept = [flag for flag in flags if flag != '--overwrite']
    assert extract(videos, jpgs, *kept) == 0
    assert '0 done, 2 skipped' in capsys.readouterr().out


def test_frames_stay_where_the_video_is_broken_now(videos, jpgs, capsys):
    path = write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    extract(videos, jpgs)
    path.write_bytes(b'')
    assert extract(videos, jpgs) == 1
    assert '1 failed\n' in capsys.readouterr().out
    assert levels(jpgs / 'Run' / 'a') == [50, 100]


def test_runs_with_other_flags_do_not_undo_each_other(videos, jpgs):
    video = write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    planned = Job(video, jpgs / 'Run' / 'a', JpgFolders, size=24, quality=6, fps=None)
    extract(videos, jpgs, '--size', 36)  # another run, before this one comes to the video
    assert 'another run has made its frames with other flags' in extract_shared(planned).why
    assert JpgFrames().read(str(jpgs / 'Run' / 'a'), [1]).shape == (1, 3, 36, 48)
    assert extract_shared(replace(planned, is_again=True)).kind == 'done'
    assert extract_shared(planned).kind == 'skipped'


def test_the_record_is_no_frame(videos, jpgs):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    extract(videos, jpgs)
    assert (jpgs / 'Run' / 'a' / '.extracted.json').is_file()
    assert JpgFrames().count(str(jpgs / 'Run' / 'a')) == 2


def test_an_empty_folder_is_not_done(videos, jpgs):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    (jpgs / 'Run' / 'a').mkdir(parents=True)
    assert extract(videos, jpgs) == 0
    assert len(images(jpgs / 'Run' / 'a')) == 2


def test_a_folder_of_other_files_is_kept(videos, jpgs, capsys):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    (jpgs / 'Run' / 'a').mkdir(parents=True)
    (jpgs / 'Run' / 'a' / 'notes.txt').write_text('mine')
    assert extract(videos, jpgs) == 1
    assert 'move it away' in capsys.readouterr().err
    assert (jpgs / 'Run' / 'a' / 'notes.txt').read_text() == 'mine'
    assert not leftovers(jpgs)


def test_half_done_folders_are_done_again(videos, jpgs):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    half = temporary_path(jpgs / 'Run' / 'a')
    other = temporary_path(jpgs / 'Run' / 'a video that is no longer there')
    for folder in (half, other):
        folder.mkdir(parents=True)
        (folder / 'image_00001.jpg').write_bytes(b'half')
        (folder / 'image_00009.jpg').write_bytes(b'half')
    assert extract(videos, jpgs) == 0
    assert levels(jpgs / 'Run' / 'a') == [50, 100]
    assert not leftovers(jpgs)


def test_processes_give_the_same_images(videos, jpgs, tmp_path):
    for name in 'abc':
        write_video(videos / 'Run' / f'{name}.avi', grey_frames(LEVELS))
    extract(videos, jpgs)
    assert main([str(videos), str(tmp_path / 'pool'), 'ucf101', '--n_jobs', '2']) == 0
    ours = {path.relative_to(jpgs): path.read_bytes() for path in jpgs.rglob('*.jpg')}
    theirs = {path.relative_to(tmp_path / 'pool'): path.read_bytes()
              for path in (tmp_path / 'pool').rglob('*.jpg')}
    assert len(ours) == 3 * len(LEVELS) and ours == theirs


@pytest.mark.parametrize('fps', [None, 10, 40])
def test_threads_give_the_same_images(videos, fps):
    path = write_video(videos / 'Run' / 'a.avi', noise_frames(60))
    made = {}
    for n_threads in (1, 3):
        with Video(path) as opened:
            made[n_threads] = list(jpegs(opened, size=96, quality=6, fps=fps, n_threads=n_threads))
    assert made[1] == made[3] and len(set(made[1])) > 20


def test_threads_pass_errors_on(videos):
    (videos / 'Run').mkdir(parents=True)
    path = write_video(videos / 'Run' / 'a.avi', grey_frames(LEVELS))
    with Video(path) as opened, pytest.raises(av.error.FFmpegError):
        list(jpegs(opened, size=100_000, quality=6, n_threads=2))


@pytest.mark.parametrize('n_jobs, n_threads', [(1, 1), (5, 1), (6, 2), (100, 4)])
def test_idle_processors_are_shared_out(n_jobs, n_threads):
    jobs = [Job(f'{name}.avi', name, JpgFolders, 240, 6, None) for name in 'abc']
    found = shared_out(jobs, n_jobs)
    assert found == [replace(job, n_threads=n_threads) for job in jobs]


def test_a_video_alone_is_done_by_threads(videos, jpgs, tmp_path):
    write_video(videos / 'Run' / 'a.avi', noise_frames(30))
    extract(videos, jpgs)
    assert main([str(videos), str(tmp_path / 'pool'), 'ucf101', '--n_jobs', '3']) == 0
    ours, theirs = ([path.read_bytes() for path in images(root / 'Run' / 'a')]
                    for root in (jpgs, tmp_path / 'pool'))
    assert len(ours) == 30 and ours == theirs


def test_processes_start_without_what_is_slow_to_import():
    names = subprocess.run([sys.executable, '-c', 'import sys, util_scripts.generate_video_jpgs; '
                            'print(*sys.modules)'], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split()
    assert not {'torch', 'numpy', 'tqdm'} & set(names)


@pytest.mark.slow
def test_ctrl_c(videos, jpgs):
    noise = np.random.default_rng(0).integers(0, 255, (1, 360, 640, 3), dtype=np.uint8)
    first = write_video(videos / 'Run' / '0.avi', np.repeat(noise, 150, axis=0))
    for number in range(1, 8):
        shutil.copy(first, first.with_name(f'{number}.avi'))
    process = subprocess.Popen([sys.executable, '-m', 'util_scripts.generate_video_jpgs',
                                str(videos), str(jpgs), 'ucf101', '--size', '720', '--n_jobs', '2'],
                               cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               # Ignored in what a shell started in the background.
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_for(lambda: list(jpgs.rglob('image_00002.jpg')))
    # A terminal's Ctrl-C goes to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    assert 'Traceback' not in err and 'interrupted' in err
    assert not leftovers(jpgs)
    finished = [len(images(folder)) for folder in jpgs.glob('Run/*')]
    assert set(finished) <= {150} and len(finished) < 8
    time.sleep(0.3)
    assert [len(images(folder)) for folder in jpgs.glob('Run/*')] == finished  # nobody goes on


SLOW_TO_START = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
if __name__ == '__mp_main__':
    with open(sys.argv[2], 'a') as file:
        print(os.getpid(), file=file)
    time.sleep(1)
from runtime.errors import run
from tests.helpers import die_of_b
from util_scripts.helpers.jobs import run_jobs
if __name__ == '__main__':
    run(lambda argv: run_jobs(die_of_b, list('acdefg'), 2, print))
"""


@pytest.mark.slow
def test_processes_are_deaf_to_ctrl_c_from_their_first_moment(tmp_path):
    """It reaches the whole group, and the parent alone, which is spared here, answers it."""
    (tmp_path / 'slow.py').write_text(SLOW_TO_START)
    started = tmp_path / 'started'
    process = subprocess.Popen([sys.executable, str(tmp_path / 'slow.py'), str(ROOT), str(started)],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_for(lambda: started.is_file() and len(started.read_text().split()) == 2)
    for pid in started.read_text().split():
        os.kill(int(pid), signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, '') and len(out.splitlines()) == 6


def test_a_process_that_dies_costs_its_own_job_alone():
    results = {}
    run_jobs(die_of_b, list('abcdefgh'), 2, results.__setitem__)
    assert results == {job: None if job == 'b' else job.upper() for job in 'abcdefgh'}


def test_an_error_in_a_process_is_passed_on():
    with pytest.raises(RuntimeError, match='bug in a'):
        run_jobs(fail, ['a'], 2, lambda *_: None)


# ---------------------------------------------------------------- bad files

def test_bad_files_are_named_and_the_others_done(videos, jpgs, capsys):
    write_video(videos / 'Run' / 'good.avi', grey_frames([50, 100]))
    (videos / 'Run' / 'empty.avi').touch()
    (videos / 'Run' / 'text.mp4').write_text('no video at all\n' * 100)
    write_sound(videos / 'Run' / 'sound.mp4')
    (videos / 'Run' / 'a folder.avi').mkdir()
    (videos / 'Run' / '._good.avi').write_bytes(b'macOS')
    cut_short(write_video(videos / 'Run' / 'no index.mp4', grey_frames(LEVELS)), 0.5)
    assert extract(videos, jpgs) == 1
    out, err = capsys.readouterr()
    failed = dict(line.removeprefix(f'failed: {videos / "Run"}/').split(': ', 1)
                  for line in err.splitlines() if line.startswith('failed'))
    assert failed.keys() == {'empty.avi', 'text.mp4', 'sound.mp4', 'no index.mp4'}
    assert failed['sound.mp4'] == 'no video stream in it'
    assert '5 videos: 1 done, 0 skipped (there already), 0 damaged, 4 failed' in out
    assert [path.name for path in (jpgs / 'Run').iterdir()] == ['good']


def noise_frames(n_frames=100):
    return np.random.default_rng(0).integers(0, 255, (n_frames, 48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize('extension', ['.mkv', '.avi'])
def test_a_video_that_is_cut_short_keeps_what_decodes(videos, jpgs, capsys, extension):
    path = write_video(videos / 'Run' / f'a{extension}', noise_frames())
    cut_short(path, 0.6)
    assert extract(videos, jpgs) == 1
    out, err = capsys.readouterr()
    assert 50 <= len(images(jpgs / 'Run' / 'a')) <= 65
    assert f'damaged: {path}: ' in err and 'kept' in err
    assert '1 damaged, 0 failed' in out
    before = (jpgs / 'Run' / 'a').stat().st_mtime_ns
    assert extract(videos, jpgs) == 1
    again = capsys.readouterr()
    assert again.err == err and '0 done, 0 skipped (there already), 1 damaged' in again.out
    assert (jpgs / 'Run' / 'a').stat().st_mtime_ns == before


def test_an_error_in_the_middle_keeps_what_decodes(videos, jpgs, capsys):
    path = write_video(videos / 'Run' / 'a.mp4', noise_frames(), codec='libx264', gop_size=10)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle:middle + len(data) // 20] = b'\xff' * (len(data) // 20)
    path.write_bytes(data)
    assert extract(videos, jpgs) == 1
    assert 80 <= len(images(jpgs / 'Run' / 'a')) < 100
    assert f'damaged: {path}: ' in capsys.readouterr().err


def test_a_video_without_frames_fails(videos, jpgs, capsys):
    path = write_video(videos / 'Run' / 'a.avi', noise_frames(1))
    data = path.read_bytes()
    path.write_bytes(data[:data.index(b'movi') + 4])
    assert extract(videos, jpgs) == 1
    assert 'no frame decodes' in capsys.readouterr().err
    assert not (jpgs / 'Run' / 'a').exists() and not leftovers(jpgs)


def test_frames_damaged_in_place_are_made_again_as_it_is_said(videos, jpgs, tmp_path, capsys):
    """As many bytes as before, as after a crash; no run sees that without reading all frames."""
    write_video(videos / 'Run' / 'a.avi', noise_frames(3))
    extract(videos, jpgs)
    folder_json([str(jpgs), str(tmp_path / 'own.json'), '--val_fraction', '0'])
    path = jpgs / 'Run' / 'a' / 'image_00002.jpg'
    whole = path.read_bytes()
    for spoiled in (bytes(len(whole)), whole[:-300] + bytes(300)):
        path.write_bytes(spoiled)
        capsys.readouterr()
        flags = ['--video_path', str(jpgs), '--annotation_path', str(tmp_path / 'own.json'),
                 '--no_val', '--n_threads', '1', '--sample_duration', '1']
        assert check_data(flags) == 1
        said = re.search('undecodable: training.*: (.*?): the frame is .*; delete the file and '
                         'extract the video again|truncated: training.*: (.*?): the frame is .*; '
                         'delete the file and extract', capsys.readouterr().err)
        Path(said[1] or said[2]).unlink()
        assert extract(videos, jpgs) == 0 and path.read_bytes() == whole
        assert check_data(flags) == 0


@pytest.mark.parametrize('error, words', [
    (errno.EROFS, None), (errno.EFBIG, 'Run/a cannot be written: File too large'),
    (errno.EACCES, 'Run/a cannot be written: Permission denied')])
def test_a_place_that_cannot_be_written_to_is_named(videos, jpgs, monkeypatch, capsys, error,
                                                    words):
    for name in 'ab':
        write_video(videos / 'Run' / f'{name}.avi', grey_frames([50]))

    def write(path, frames):
        raise OSError(error, os.strerror(error))
    monkeypatch.setattr(generate_video_jpgs.JpgFolders, 'write', write)
    if words is None:
        with pytest.raises(InputError, match='cannot be written: Read-only file system'):
            extract(videos, jpgs)
        return
    assert extract(videos, jpgs) == 1
    out, err = capsys.readouterr()
    assert words in err and 'mend or remove what failed' in err and 'written' not in out


def test_a_full_disk_ends_the_run(videos, jpgs, monkeypatch):
    for name in 'ab':
        write_video(videos / 'Run' / f'{name}.avi', grey_frames([50]))

    def write(path, frames):
        path.mkdir()
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(generate_video_jpgs.JpgFolders, 'write', write)
    with pytest.raises(InputError, match='No space left'):
        extract(videos, jpgs)
    assert not leftovers(jpgs)


@pytest.mark.parametrize('make, dataset, match', [
    (lambda videos: None, 'ucf101', 'no such folder'),
    (lambda videos: videos.write_text('x'), 'ucf101', 'not a folder'),
    (lambda videos: videos.mkdir(), 'ucf101', r'no video .*\.avi, \.mp4, \.mkv, \.mov, \.webm'),
    (lambda videos: write_video(videos / 'a.avi', grey_frames([50])), 'ucf101',
     'label folders .*, and 1 in the folder itself: move them'),
    (lambda videos: write_video(videos / 'Run' / 'a.avi', grey_frames([50])), 'activitynet',
     'no video in it'),
])
def test_no_videos(videos, jpgs, make, dataset, match):
    make(videos)
    with pytest.raises(InputError, match=match):
        extract(videos, jpgs, dataset=dataset)


def test_a_destination_that_is_a_file(videos, jpgs):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50]))
    jpgs.write_text('x')
    with pytest.raises(InputError, match='another destination'):
        extract(videos, jpgs)


@pytest.mark.parametrize('flags', [['--n_jobs', '0'], ['--n_jobs', 'x'], ['--fps', '0'],
                                   ['--fps', 'nan'], ['--size', '0'], ['--quality', '32']])
def test_flags_are_checked(videos, jpgs, flags):
    with pytest.raises(InputError, match='is not a number of'):
        extract(videos, jpgs, *flags)


def test_as_a_command(videos, jpgs):
    missing = run_script('generate_video_jpgs', videos, jpgs, 'ucf101')
    assert missing.returncode == 2 and missing.stdout == ''
    assert missing.stderr.startswith('error: ') and missing.stderr.count('\n') == 1
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    (videos / 'Run' / 'b.avi').touch()
    partly = run_script('generate_video_jpgs', videos, jpgs, 'ucf101', '--n_jobs', '2')
    assert partly.returncode == 1 and 'failed: ' in partly.stderr
    assert partly.stdout.startswith('2 videos: 1 done')


# ---------------------------------------------------------------- real clips

def sources(videos_dir, folder):
    """{path below the videos: row of SOURCES.csv} of a folder."""
    with open(videos_dir / 'SOURCES.csv', newline='') as file:
        return {row['path']: row for row in csv.DictReader(file)
                if row['path'].startswith(folder + '/')}


@pytest.mark.videos
def test_ucf101_clips(videos_dir, jpgs):
    assert main([str(videos_dir / 'ucf101' / 'videos'), str(jpgs), 'ucf101']) == 0
    n_bytes = []
    for path, row in sources(videos_dir, 'ucf101').items():
        label, name = path.split('/')[-2:]
        folder = jpgs / label / name.rsplit('.', 1)[0]
        assert len(images(folder)) == int(row['frames']), path
        if row['width'] == '320':
            n_bytes += [image.stat().st_size for image in images(folder)]
    assert 4_000 < np.mean(n_bytes) < 9_000


# The better of two video streams, as FFmpeg takes; SOURCES.csv has the first.
BETTER_STREAM = {'odd/tc_nasa_13013.mp4': 390}
DAMAGED = {'odd/decord_corrupted.mp4'}


@pytest.mark.videos
def test_odd_files_are_right_or_named(videos_dir, jpgs, capsys):
    assert main([str(videos_dir / 'odd'), str(jpgs), 'activitynet']) == 1
    err = capsys.readouterr().err
    for path, row in sources(videos_dir, 'odd').items():
        folder = jpgs / f'v_{path.split("/")[1].rsplit(".", 1)[0]}'
        named = f'{videos_dir / path}: ' in err
        assert named == (path in DAMAGED), path
        if not named:
            n_frames = BETTER_STREAM.get(path, int(row['frames']))
            assert len(images(folder)) == n_frames, path
        width, height = (int(row[side]) for side in ('width', 'height'))
        size = picture_size(folder / 'image_00001.jpg')
        assert min(size) == 240
        is_portrait = (width < height) != (row['rotation'] in ('90', '-90'))
        assert (size[0] < size[1]) == is_portrait, path


@pytest.mark.videos
@pytest.mark.parametrize('path, mean_difference', [
    ('ucf101/videos/Basketball/v_Basketball_g01_c01.avi', 3),  # 4:2:0, BT.601
    ('odd/decord_video_0.mov', 4),  # BT.709
    ('odd/tc_av1_video.mkv', 4),  # BT.709, bright colours
    ('odd/tc_h264_10bits.mp4', 6),
    ('odd/tc_testsrc2_odd_height_and_width_444.mp4', 10)])  # edges of colours lose by 4:2:0
def test_colours_of_real_clips(videos_dir, path, mean_difference):
    """Beside PyAV's own conversion, which is one or two levels darker than the standard says."""
    with Video(videos_dir / path) as video:
        first = next(video.frames())
        width, height = scaled_size(first.width, first.height, 240)
        expected = first.reformat(width, height, 'rgb24').to_ndarray().astype(float)
    with Video(videos_dir / path) as video:
        data = next(jpegs(video, size=240, quality=1))
    difference = np.asarray(Image.open(io.BytesIO(data)), dtype=float) - expected
    assert np.abs(difference.mean((0, 1))).max() < 3.5
    assert np.abs(difference).mean() < mean_difference


@pytest.mark.videos
def test_time_stamps_that_go_back(videos_dir):
    """This clip's are in the order of decoding: resampled to its own rate, nothing changes."""
    path = videos_dir / 'ucf101/videos/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi'
    with Video(path) as video:
        stamps = [frame.pts for frame in video.frames()]
    assert any(b < a for a, b in pairwise(stamps))
    with Video(path) as video:
        resampled = [frame.pts for frame in frames_at(video, 25)]
    assert resampled == stamps
