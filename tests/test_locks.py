"""Two runs in one folder: trainings keep each other out, extractions share the work."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets.video import count_packets
from runtime.errors import InputError
from runtime.locks import LOCK_NAME, lock, result_folder
from tests.helpers import grey_frames, run_script, write_video
from tests.processes import LIMIT_SEC, ROOT, start_main, wait_for
from tests.tiny_data import run_main

HOLD = ('import sys, time; sys.path.insert(0, sys.argv[2]); from pathlib import Path; '
        'from runtime.locks import lock\n'
        'with lock(Path(sys.argv[1])) as is_held:\n'
        '    print(is_held, flush=True); sys.stdin.readline()')


def holder(path):
    """A process that holds a lock until it is ended or its stdin is closed."""
    process = subprocess.Popen([sys.executable, '-c', HOLD, str(path), str(ROOT)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == 'True\n'
    return process


@pytest.mark.parametrize('signum', [None, signal.SIGKILL])
def test_a_lock_is_gone_with_its_process(tmp_path, signum):
    path = tmp_path / 'a.lock'
    process = holder(path)
    with lock(path) as is_held:
        assert not is_held
    if signum:
        process.send_signal(signum)
    process.communicate()
    with lock(path) as is_held:
        assert is_held and path.exists()
    assert not path.exists()


def test_a_lock_is_waited_for(tmp_path):
    path = tmp_path / 'a.lock'
    first = holder(path)
    waiting = subprocess.Popen([sys.executable, '-c', HOLD.replace('[1]))', '[1]), waits=True)'),
                                str(path), str(ROOT)], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    time.sleep(0.3)
    first.communicate()
    assert waiting.stdout.readline() == 'True\n'
    with lock(path) as is_held:
        assert not is_held
    waiting.communicate()


def test_who_has_a_folder_is_said(tmp_path):
    process = holder(tmp_path / LOCK_NAME)
    with pytest.raises(InputError) as raised, result_folder(tmp_path, is_training=True,
                                                            is_new=True):
        pass
    text = str(raised.value)
    assert f'process {process.pid} on ' in text and ' since 20' in text
    assert '--resume_path auto' in text and '--result_path' in text
    with result_folder(tmp_path, is_training=False, is_new=False):  # an evaluation may write there
        pass
    process.communicate()
    with result_folder(tmp_path, is_training=True, is_new=True):
        assert (tmp_path / LOCK_NAME).exists()
    assert not list(tmp_path.iterdir())


def test_two_comparisons_in_one_folder(tiny_data, tmp_path):
    """The second would take each run for one that failed, and its record from one that is done."""
    (tmp_path / 'recipe.txt').write_text('--nesterov\n')
    process = holder(tmp_path / LOCK_NAME)
    done = run_script('compare', *tiny_data.argv(tmp_path), '--recipes', tmp_path / 'recipe.txt')
    process.communicate()
    assert done.returncode == 2 and 'give the same command again' in done.stderr
    assert f'another comparison (process {process.pid} on ' in done.stderr
    assert os.listdir(tmp_path) == ['recipe.txt']


def test_two_trainings_in_one_folder(tiny_data, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path / 'results', '--n_epochs', 1000, '--no_val')
    process = start_main(argv, tmp_path / 'output')
    wait_for((tmp_path / 'results' / 'save_1.pth').exists, process)
    assert run_main(argv) == 2
    assert f'another training (process {process.pid} on ' in capsys.readouterr().err
    os.kill(process.pid, signal.SIGKILL)
    process.join(LIMIT_SEC)
    epoch = max(int(path.stem[5:]) for path in (tmp_path / 'results').glob('save_*.pth'))
    assert run_main([*argv, '--resume_path', 'auto', '--n_epochs', epoch + 1]) == 0
    assert not (tmp_path / 'results' / LOCK_NAME).exists()


# ---------------------------------------------------------------- extractions

N_VIDEOS = 8


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    for i in range(N_VIDEOS):
        write_video(folder / 'a' / f'v{i}.mp4', grey_frames([(40 * i + n) % 256
                                                            for n in range(60)], 120, 160))
    return folder


def start_extraction(videos, destination, *more):
    return subprocess.Popen([sys.executable, '-m', 'util_scripts.generate_video_jpgs', str(videos),
                             str(destination), 'kinetics', '--n_jobs', '1', *more], cwd=ROOT,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def assert_whole(videos, destination):
    for video in videos.glob('*/*.mp4'):
        frames = list((destination / 'a' / video.stem).glob('image_*.jpg'))
        assert len(frames) == count_packets(str(video)) and all(path.stat().st_size
                                                                for path in frames)
    assert not [path for path in destination.rglob('.extracting-*')]


@pytest.mark.slow
@pytest.mark.parametrize('more', [(), ('--overwrite',)])
def test_two_extractions_share_the_work(videos, tmp_path, seed, more):
    rng = random.Random(seed)
    first = start_extraction(videos, tmp_path, *more)
    time.sleep(rng.uniform(0, 1))
    second = start_extraction(videos, tmp_path, *more)
    ended = [process.communicate() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], ended
    assert_whole(videos, tmp_path)
    counts = [int(out.split(' done')[0].split()[-1]) for out, _ in ended]
    assert sum(counts) == (2 * N_VIDEOS if more else N_VIDEOS)


@pytest.mark.slow
def test_an_extraction_that_is_killed_leaves_its_work_to_the_other(videos, tmp_path):
    first = start_extraction(videos, tmp_path)
    wait_for(lambda: [*tmp_path.glob('a/.extracting-*')])
    second = start_extraction(videos, tmp_path)
    first.kill()
    first.communicate()
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert_whole(videos, tmp_path)


def test_what_another_run_makes_is_not_deleted(videos, tmp_path):
    """The temporaries of a killed run are, those of one that goes on are not."""
    folder = tmp_path / 'a'
    folder.mkdir()
    for name in ('.extracting-old', '.extracting-new'):
        (folder / name).mkdir()
    process = holder(folder / '.extracting-new.lock')
    extraction = start_extraction(videos, tmp_path)
    assert extraction.communicate()[0] and extraction.returncode == 0
    process.kill()
    process.communicate()
    assert not (folder / '.extracting-old').exists() and (folder / '.extracting-new').exists()


def test_locks_are_where_their_folder_is(tmp_path):
    with pytest.raises(OSError), lock(Path(tmp_path, 'gone', 'a.lock')):
        pass
