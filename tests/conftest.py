"""Folders of real clips and golden numbers; tests that need one that is missing are left out."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


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
