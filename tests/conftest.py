"""Folders of real clips and golden numbers; tests that need one that is missing are left out."""

import os
import sys
from pathlib import Path

import pytest

# Many small processes on few cores: threads of each would only wait for those of the others.
os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.tiny_data import TinyData


def pytest_addoption(parser):
    parser.addoption('--kills', type=int, default=12, help='how often a training is killed')


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


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """A data set of 3 classes in jpg frames; `tiny_data.argv(...)` is a command line for it."""
    return TinyData(tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def own_data(tmp_path):
    """The same, for one test alone, which may break it."""
    return TinyData(tmp_path / 'data')
