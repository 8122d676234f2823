"""Processes in trouble: signals while they start, launchers that are killed, little of a system."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.processes import (LIMIT_SEC, ROOT, free_port, limit_open_files, mount_shared_memory,
                             start_fresh, start_main, start_ranks, torchrun, wait_for)
from tests.tiny_data import TinyData

pytestmark = pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='reads /proc')


def shell(command):
    return subprocess.run(['bash', '-c', command], cwd=ROOT, text=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_modules_are_imported(tiny_data, tmp_path, signum):
    argv = tiny_data.argv(tmp_path, '--n_epochs', 1000)
    process = start_fresh(argv)
    maps = Path(f'/proc/{process.pid}/maps')
    wait_for(lambda: 'libtorch' in maps.read_text())  # it is being imported
    process.send_signal(signum)
    _, err = process.communicate(timeout=LIMIT_SEC)
    assert process.returncode == 128 + signum and 'Traceback' not in err, err
    assert err.startswith(f'stopped by {signum.name} before')


def _children(pid):
    return [int(child) for task in Path(f'/proc/{pid}/task').iterdir()
            for child in (task / 'children').read_text().split()]


def _ranks(launcher):
    """What runs main.py of the processes that a launcher has started: others come and go."""
    found = []
    for pid in _children(launcher.pid):
        with suppress(OSError):  # it has ended
            if b'main.py' in Path(f'/proc/{pid}/cmdline').read_bytes():
                found.append(pid)
    return found


def _watching(launcher, n_ranks):
    """The ranks of a launcher, once all of them watch it, in a thread that begins before torch is
    imported: on a busy machine that may take a second."""
    wait_for(lambda: len(_ranks(launcher)) == n_ranks, launcher)
    ranks = _ranks(launcher)
    wait_for(lambda: all(len([*Path(f'/proc/{rank}/task').iterdir()]) > 1 for rank in ranks))
    return ranks


def _runs(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.slow
def test_ranks_end_with_a_launcher_that_is_killed(tiny_data, tmp_path, seed):
    """At any moment: before they have met, and later."""
    argv = tiny_data.argv(tmp_path, '--n_epochs', 1000, '--no_val')
    launcher = torchrun(2, argv, tmp_path / 'output')
    ranks = _watching(launcher, 2)
    time.sleep(random.Random(seed).uniform(0.5, 4))
    launcher.kill()
    wait_for(lambda: not any(map(_runs, ranks)))
    launcher.join()


@pytest.mark.slow
def test_ranks_end_before_all_have_come(tiny_data, tmp_path):
    """One of two nodes: its rank waits for the other, and ends with its launcher."""
    argv = tiny_data.argv(tmp_path, '--n_epochs', 1000)
    launcher = torchrun(1, argv, tmp_path / 'output', '--nnodes', 1, '--master_port', free_port())
    rank, = _watching(launcher, 1)
    launcher.kill()
    wait_for(lambda: not _runs(rank))
    launcher.join()


@pytest.mark.slow
def test_requests_to_stop_are_passed_on(tiny_data, tmp_path):
    """By the processes of --distributed, of two nodes, to those that they have started."""
    argv = tiny_data.argv(tmp_path, '--n_epochs', 1000, '--no_val', '--distributed',
                          '--world_size', 2)
    nodes = start_ranks(2, argv, tmp_path / 'output', 'node')
    wait_for((tmp_path / 'save_1.pth').exists, nodes[0])
    for node in nodes:
        node.terminate()
    for node in nodes:
        node.join(LIMIT_SEC)
    said = (tmp_path / 'output').read_text()
    assert [node.exitcode for node in nodes] == [143, 143] and 'Traceback' not in said, said
    assert '2 processes on 2 nodes, started by --distributed' in said
    assert (tmp_path / 'save_last.pth').exists()


@pytest.mark.slow
def test_a_result_folder_that_is_deleted_is_made_again(tiny_data, tmp_path):
    folder = tmp_path / 'results'
    process = start_main(tiny_data.argv(folder, '--n_epochs', 1000, '--no_val'),
                         tmp_path / 'output')
    wait_for((folder / 'save_2.pth').exists, process)
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    wait_for(lambda: [*folder.glob('save_*.pth')] and (folder / 'train.log').exists(), process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(LIMIT_SEC)
    output = (tmp_path / 'output').read_text()
    assert process.exitcode == 143 and 'was deleted' in output and 'Traceback' not in output
    assert (folder / 'train.log').read_text().startswith('epoch\t')


def _ended(process, tmp_path):
    """(exit status, all that it said) of a process that writes to `output`."""
    process.join(LIMIT_SEC)
    return process.exitcode, (tmp_path / 'output').read_text()


@pytest.mark.slow
def test_few_open_files(tiny_data, tmp_path):
    """Too few for imports, and too few for processes."""
    argv = tiny_data.argv(tmp_path / 'results', '--n_epochs', 1, '--n_threads', 4)
    ended = shell(f'ulimit -n 12; exec {sys.executable} main.py {" ".join(map(str, argv))}')
    assert 'Traceback' not in ended.stderr, ended.stderr
    assert ended.returncode == 0 or 'ulimit -n' in ended.stderr, ended.stderr
    status, said = _ended(start_main(argv, tmp_path / 'output',
                                     before=partial(limit_open_files, 40)), tmp_path)
    assert 'Traceback' not in said and (status == 0 or 'ulimit -n' in said), said


@pytest.mark.slow
@pytest.mark.parametrize('options', ['size=8k', 'ro'])
@pytest.mark.skipif(shell('unshare -rm mount -t tmpfs -o ro tmpfs /dev/shm').returncode != 0,
                    reason='has no namespaces of mounts')
def test_shared_memory_that_is_tiny_or_cannot_be_written(tiny_data, tmp_path, options):
    with tempfile.TemporaryDirectory(dir='/var/tmp') as folder:  # others may be in /dev/shm
        data = TinyData(Path(folder) / 'data', tiny_data)
        argv = data.argv(Path(folder) / 'results', '--n_epochs', 1, '--n_threads', 2)
        status, said = _ended(start_main(argv, tmp_path / 'output',
                                         before=partial(mount_shared_memory, options)), tmp_path)
    assert status == 2 and 'Traceback' not in said, said
    assert '/dev/shm' in said and '--n_threads 0' in said
