"""Checkpoints on disk: disks that are full, names and order."""

import os
import time

import pytest
import torch

import checkpoint
from checkpoint import CheckpointError
from tests.helpers import files_of_at_most

WEIGHTS = {'fc.weight': torch.arange(6.).reshape(2, 3), 'fc.bias': torch.zeros(2)}

# A training of no network in particular: `newest` builds none.
TRAINING = {'state_dict': WEIGHTS, 'format_version': 1, 'network_options': {}, 'clip_options': {},
            'epoch': 1, 'optimizer': {'state': {}, 'param_groups': []}, 'scheduler': {},
            'options': {}}


# ---------------------------------------------------------------- writing

@pytest.mark.parametrize('limit', [0, 1000, 100_000, 799_000])
def test_a_full_disk_leaves_the_older_file_alone(tmp_path, limit):
    path = tmp_path / 'save_1.pth'
    checkpoint.save(path, {'state_dict': WEIGHTS})
    before = path.read_bytes()
    with files_of_at_most(limit), pytest.raises(
            CheckpointError, match='cannot be written .File too large.; free'):
        checkpoint.save(path, {'state_dict': {'a': torch.zeros(200_000)}})
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
        checkpoint.save(folder / name, TRAINING)
        os.utime(folder / name, (now - age, now - age))


def test_the_newest_that_can_be_gone_on_with(tmp_path):
    """Those that are passed over are named, with what is wrong; weights alone are no training."""
    told = []
    assert checkpoint.newest(tmp_path, told.append) is None
    assert checkpoint.newest(tmp_path / 'gone', told.append) is None and not told
    write_all(tmp_path, 'save_9.pth', 'save_2.pth', 'save_3.pth', 'save_last.pth')
    assert checkpoint.newest(tmp_path, told.append).name == 'save_last.pth' and not told
    (tmp_path / 'save_last.pth').write_bytes((tmp_path / 'save_last.pth').read_bytes()[:-10])
    flip(tmp_path / 'save_3.pth', WEIGHTS['fc.weight'].numpy().tobytes())
    assert checkpoint.newest(tmp_path, told.append).name == 'save_2.pth'
    told.sort()
    assert 'save_3.pth: is damaged' in told[0] and 'cut short' in told[1] and len(told) == 2
    now = time.time()
    for name, change in {'save_4.pth': {'class_names': 5}, 'save_5.pth': {'options': 3},
                         'save_6.pth': {'position': {'epoch': 0}}}.items():
        checkpoint.save(tmp_path / name, {**TRAINING, **change})
    torch.save({'state_dict': WEIGHTS}, tmp_path / 'save_7.pth')
    for name in ('save_4.pth', 'save_5.pth', 'save_6.pth', 'save_7.pth'):
        os.utime(tmp_path / name, (now + 9, now + 9))
    told.clear()
    assert checkpoint.newest(tmp_path, told.append).name == 'save_2.pth'
    words = ('class_names is 5', 'options is 3', 'position.', 'save_7.pth: ')
    assert len(told) == 6 and all(any(word in line for line in told) for word in words)


def test_a_state_of_nan_is_passed_over(tmp_path):
    write_all(tmp_path, 'save_1.pth', 'save_2.pth')
    optimizer = {**TRAINING['optimizer'], 'state': {0: {'exp_avg': torch.tensor([torch.nan])}}}
    checkpoint.save(tmp_path / 'save_2.pth', {**TRAINING, 'optimizer': optimizer})
    told = []
    assert checkpoint.newest(tmp_path, told.append).name == 'save_1.pth'
    assert told == [f'passed over: {tmp_path / "save_2.pth"}: holds nan or infinity']


def flip(path, content):
    """Change one bit of some content of a file."""
    data = bytearray(path.read_bytes())
    data[data.index(content) + 1] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize('keep, kept', [
    (0, {'save_9.pth', 'save_2.pth', 'save_3.pth'}), (2, {'save_2.pth', 'save_3.pth'}),
    (1, {'save_3.pth'}), (9, {'save_9.pth', 'save_2.pth', 'save_3.pth'})])
def test_the_newest_few_are_kept(tmp_path, keep, kept):
    write_all(tmp_path, 'save_best.pth', 'save_last.pth', 'save_9.pth', 'save_2.pth', 'save_3.pth')
    checkpoint.prune(tmp_path, keep)
    assert set(os.listdir(tmp_path)) == kept | {'save_best.pth', 'save_last.pth'}
