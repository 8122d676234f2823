"""Checkpoints on disk: files that are none or hostile, disks that are full, names and order."""

import io
import os
import pickle
import resource
import tarfile
import time
import zipfile

import numpy as np
import pytest
import torch

import checkpoint
from checkpoint import CheckpointError

WEIGHTS = {'fc.weight': torch.arange(6.).reshape(2, 3), 'fc.bias': torch.zeros(2)}


def refused(path, content=None):
    """The sentence with which a file is refused; content is what torch.save writes, or bytes."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load(path)
    message = str(raised.value)
    assert message.startswith(f'{path}: ') and '\n' not in message and '; ' in message
    return message


# ---------------------------------------------------------------- what is written is read

@pytest.mark.parametrize('prefix', ['', 'module.', 'module.module.'])
@pytest.mark.parametrize('is_bare', [False, True])
@pytest.mark.parametrize('is_zip', [False, True])
def test_both_forms_and_formats_with_and_without_prefix(tmp_path, prefix, is_bare, is_zip):
    weights = {prefix + name: value for name, value in WEIGHTS.items()}
    torch.save(weights if is_bare else {'epoch': 3, 'state_dict': weights}, tmp_path / 'a.pth',
               _use_new_zipfile_serialization=is_zip)
    state = checkpoint.load(tmp_path / 'a.pth')
    assert state['state_dict'].keys() == WEIGHTS.keys()
    assert all(torch.equal(state['state_dict'][name], WEIGHTS[name]) for name in WEIGHTS)
    assert state.get('behind_module', False) == bool(prefix)
    assert state.get('epoch') == (None if is_bare else 3)


def test_that_names_were_behind_module_outlasts_another_save(tmp_path):
    torch.save({f'module.{name}': value for name, value in WEIGHTS.items()}, tmp_path / 'a.pth')
    checkpoint.save(tmp_path / 'b.pth', checkpoint.load(tmp_path / 'a.pth'))
    assert checkpoint.load(tmp_path / 'b.pth')['behind_module']


# ---------------------------------------------------------------- hostile files

class Evil:
    """Its pickle makes a folder when it is read by a careless program."""

    def __init__(self, call=os.mkdir, argument='evil-was-here'):
        self.call, self.argument = call, argument

    def __reduce__(self):
        return self.call, (self.argument,)


CODE = "__import__('os').mkdir('evil-was-here')"
HOSTILE = {
    'whole': Evil(), 'eval': Evil(eval, CODE), 'exec': Evil(exec, CODE),
    'system': Evil(os.system, 'mkdir evil-was-here'), 'weights': {'state_dict': Evil()},
    'one weight': {'state_dict': {**WEIGHTS, 'conv1.weight': Evil()}},
    'name of a weight': {'state_dict': {**WEIGHTS, (1, Evil()): WEIGHTS['fc.bias']}},
    'optimizer': {'state_dict': WEIGHTS, 'optimizer': Evil()},
    'nested': {'state_dict': WEIGHTS, 'scheduler': {'a': [({'b': Evil()},)]}},
    'a module': torch.nn.Linear(2, 2),
}
WRITERS = {
    'zip': torch.save,
    'legacy': lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    'pickle 0': lambda content, path: path.write_bytes(pickle.dumps(content, 0)),
    'pickle 2': lambda content, path: path.write_bytes(pickle.dumps(content, 2)),
    'pickle 5': lambda content, path: path.write_bytes(pickle.dumps(content, 5)),
}


@pytest.mark.parametrize('name', HOSTILE)
@pytest.mark.parametrize('form', WRITERS)
def test_a_hostile_pickle_does_nothing(tmp_path, monkeypatch, name, form):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'evil.pth'
    WRITERS[form](HOSTILE[name], path)
    message = refused(path)
    assert form not in ('zip', 'legacy') or 'run code from the file' in message
    assert os.listdir(tmp_path) == ['evil.pth']


def test_hostile_files_of_the_oldest_form_do_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open('evil.pth', 'w') as archive:
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            content = pickle.dumps(Evil())
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert '.tar form' in refused(tmp_path / 'evil.pth')
    assert os.listdir(tmp_path) == ['evil.pth']


def test_what_a_file_wants_to_run_is_named(tmp_path):
    message = refused(tmp_path / 'a.pth', {'state_dict': WEIGHTS, 'best': np.float64(0.5)})
    assert 'run code from the file (numpy.' in message
    torch.save({'state_dict': WEIGHTS}, tmp_path / 'b.pth')
    with zipfile.ZipFile(tmp_path / 'b.pth', 'a') as archive:
        archive.writestr('b/constants.pkl', b'')  # the mark of compiled programs
    assert 'TorchScript form' in refused(tmp_path / 'b.pth')


# ---------------------------------------------------------------- files that are no checkpoint

@pytest.mark.parametrize('content, message', [
    ('a text', 'holds a str'), ([1, 2], 'holds a list'), ({}, 'no state_dict of weights'),
    ({'epoch': 3}, 'no state_dict of weights'), ({'state_dict': {}}, 'no state_dict of weights'),
    ({'state_dict': [WEIGHTS['fc.bias']]}, 'no state_dict of weights'),
    ({'state_dict': {**WEIGHTS, 'epoch': 3}}, "'epoch' in its state_dict is of type int"),
    ({'state_dict': {**WEIGHTS, 7: WEIGHTS['fc.bias']}}, '7 in its state_dict'),
    ({**WEIGHTS, 'name': 'resnet'}, "'name' in its state_dict is of type str"),
])
def test_what_holds_no_weights(tmp_path, content, message):
    assert message in refused(tmp_path / 'a.pth', content)


@pytest.mark.parametrize('is_zip', [False, True])
def test_a_file_that_is_cut_short(tmp_path, is_zip):
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': {'a': torch.zeros(5000)}}, path,
               _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for n_bytes in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1):
        assert 'cut short' in refused(path, whole[:n_bytes]), n_bytes


def test_a_folder_and_a_missing_file(tmp_path):
    assert 'directory' in refused(tmp_path)
    assert 'no such checkpoint' in refused(tmp_path / 'gone.pth')
    assert 'no such checkpoint' in refused(tmp_path / 'gone' / 'a.pth')


@pytest.mark.parametrize('version', [checkpoint.FORMAT_VERSION + 1, 'new'])
def test_a_format_of_the_future(tmp_path, version):
    message = refused(tmp_path / 'a.pth', {'state_dict': WEIGHTS, 'format_version': version})
    assert f'is of format {version}, and this code reads formats up to 1; update' in message


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
