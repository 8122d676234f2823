"""Checkpoints on disk: disks that are full, names and order."""

import os
import resource
import time

import pytest
import torch

import checkpoint
from checkpoint import CheckpointError

WEIGHTS = {'fc.weight': torch.arange(6.).reshape(2, 3), 'fc.bias': torch.zeros(2)}


# ---------------------------------------------------------------- writing

@pytest.mark.parametrize('limit', [0, 1000, 100_000, 799_000])
def test_a_full_disk_leaves_the_older_file_alone(tmp_path, limit):
    path = tmp_path / 'save_1.pth'
    checkpoint.save(path, {'state_dict': WEIGHTS})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(CheckpointError, match='cannot be written .File too large.; free'):
            checkpoint.save(path, {'state_dict': {'a': torch.zeros(200_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ['save_1.pth']


@pytest.mark.parametrize('name', ['gone/a.pth', 'file/a.pth', 'folder'])
def test_where_nothing_can_be_written(tmp_path, name):
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(CheckpointError, match=f'{name}: the checkpoint cannot be written'):
        checkpoint.save(tmp_path / name, {'state_dict': WEIGHTS})
    assert sorted(os.listdir(tmp_path)) == ['file', 'folder']


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(_handle):
        raise KeyboardInterrupt
    monkeypatch.setattr(os, 'fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / 'a.pth', {'state_dict': WEIGHTS})
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- the checkpoints of a folder

def write_all(folder, *names):
    now = time.time()
    for age, name in enumerate(reversed(names)):
        checkpoint.save(folder / name, {'state_dict': WEIGHTS})
        os.utime(folder / name, (now - age, now - age))


def test_the_newest_that_loads(tmp_path):
    assert checkpoint.newest(tmp_path) is None and checkpoint.newest(tmp_path / 'gone') is None
    write_all(tmp_path, 'save_9.pth', 'save_2.pth', 'save_last.pth')
    assert checkpoint.newest(tmp_path).name == 'save_last.pth'
    path = tmp_path / 'save_last.pth'
    path.write_bytes(path.read_bytes()[:-10])
    assert checkpoint.newest(tmp_path).name == 'save_2.pth'


@pytest.mark.parametrize('keep, kept', [
    (0, {'save_9.pth', 'save_2.pth', 'save_3.pth'}), (2, {'save_2.pth', 'save_3.pth'}),
    (1, {'save_3.pth'}), (9, {'save_9.pth', 'save_2.pth', 'save_3.pth'})])
def test_the_newest_few_are_kept(tmp_path, keep, kept):
    write_all(tmp_path, 'save_best.pth', 'save_last.pth', 'save_9.pth', 'save_2.pth', 'save_3.pth')
    checkpoint.prune(tmp_path, keep)
    assert set(os.listdir(tmp_path)) == kept | {'save_best.pth', 'save_last.pth'}
