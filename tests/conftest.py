"""Folders of real clips and golden numbers; tests that need one that is missing are left out."""

import gc
import multiprocessing
import os
import secrets
import sys
from pathlib import Path

import pytest

# Many small processes on few cores: threads of each would only wait for those of the others.
os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime.output import be_quiet

# Here and on top of this file is nothing that imports torch: of several processes the first only
# hands out tests, and the others wait until it has begun.

# What the server of forks has imported need not be imported in each of its processes; whichever
# test starts it, tests of processes will use it.
multiprocessing.set_forkserver_preload(['main', 'tests.processes'])


def pytest_addoption(parser):
    parser.addoption('--kills', type=int, default=8, help='how often a training is killed')
    parser.addoption('--deep', action='store_true',
                     help='compute recorded logits of deep networks, and export them, for minutes')
    parser.addoption('--seed', type=int, help='of tests that draw their cases; by default another '
                                              'one each time, which is printed where a test fails')


def pytest_collection_finish():
    """What has been imported stays; each search for garbage in it takes half a second."""
    gc.freeze()


def _folder(variable):
    if variable not in os.environ:
        pytest.skip(f'{variable} names no folder')
    return Path(os.environ[variable]).resolve()


@pytest.fixture(scope='session')
def videos_dir():
    """Real clips: the folder named by R3D_VIDEOS."""
    return _folder('R3D_VIDEOS')


@pytest.fixture(scope='session')
def golden_dir():
    """Recorded numbers: the folder named by R3D_GOLDEN."""
    return _folder('R3D_GOLDEN')


@pytest.fixture(autouse=True)
def talking():
    """What a command that was called in this process with --quiet ends with."""
    yield
    be_quiet(False)


@pytest.fixture
def forked(monkeypatch):
    """Processes that the code spawns are forked from a server that has torch imported, instead."""
    get_context = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, 'get_context', lambda method=None: get_context(
        'forkserver' if method == 'spawn' else method))


@pytest.fixture
def seed(request):
    """The seed of a test that draws its cases: that of --seed, or a new one."""
    given = request.config.getoption('--seed')
    seed = secrets.randbits(32) if given is None else given
    print(f'drawn with --seed {seed}')  # shown where the test fails
    return seed


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """A data set of 3 classes in jpg frames; `tiny_data.argv(...)` is a command line for it."""
    from tests.tiny_data import TinyData
    return TinyData(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """A data set of its own with save_1.pth of a training on it, whose classes are three."""
    from tests.tiny_data import TinyData, run_main
    data = TinyData(tmp_path_factory.mktemp('data'))
    assert run_main(data.argv(data.root, '--n_epochs', 1, '--no_val')) == 0
    return data


@pytest.fixture
def own_data(tiny_data, tmp_path):
    """The same, for one test alone, which may break it."""
    from tests.tiny_data import TinyData
    return TinyData(tmp_path / 'data', tiny_data)
