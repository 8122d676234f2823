"""Whatever a user gives wrong: one sentence on stderr, exit 2, and nothing that existed is lost."""

import os

import pytest
import torch

from tests.tiny_data import run_main


def _edit(data, change):
    annotation = data.read()
    change(annotation)
    data.write(annotation)


def _marks(annotation, video_id='red_0'):
    return annotation['database'][video_id]['annotations']


def _drop_subset(annotation, subset='training'):
    for video_id in list(annotation['database']):
        if annotation['database'][video_id]['subset'] == subset:
            del annotation['database'][video_id]


def _empty_folder(data):
    for path in data.frame().parent.iterdir():
        path.unlink()


# What is done to the data, and what the sentence must say.
BROKEN_DATA = {
    'annotation not text': (lambda d: d.annotation_path.write_bytes(b'\xff\xfe\x00\x80'),
                            ['not JSON']),
    'annotation a list': (lambda d: d.write([]), ['"database"']),
    'empty labels': (lambda d: _edit(d, lambda a: a.update(labels=[])), ['"labels"']),
    'subset empty': (lambda d: _edit(d, _drop_subset),
                     ["'training'", 'validation (6)', 'testing (3)']),
    'segment outside': (lambda d: _edit(d, lambda a: _marks(a).update(segment=[1, 999])),
                        ['red_0', '998', 'the folder has']),
    'segment reversed': (lambda d: _edit(d, lambda a: _marks(a).update(segment=[5, 5])),
                         ['red_0', '[5, 5]']),
    'segment no pair': (lambda d: _edit(d, lambda a: _marks(a).update(segment='1-5')),
                        ['red_0', '1-5']),
    'video folder empty': (_empty_folder, ['red_0', 'no frames']),
    'frame truncated': (lambda d: d.frame().write_bytes(d.frame().read_bytes()[:-200]),
                        ['red_0', 'image_00001.jpg', 'truncated']),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', BROKEN_DATA)
def test_broken_data(own_data, tmp_path, capsys, name):
    break_it, words = BROKEN_DATA[name]
    break_it(own_data)
    # A clip from the first frame on, so that every frame in question is read.
    argv = own_data.argv(tmp_path / 'results', '--n_epochs', 1, '--train_t_crop', 'center',
                         '--sample_duration', 30)
    assert run_main(argv) == 2
    _one_sentence(capsys, words)


def _one_sentence(capsys, words):
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith('error: ')]
    assert errors == lines[-1:] and 'Traceback' not in ''.join(lines)
    for word in words:
        assert word in errors[0]


BAD_FLAGS = {
    'unknown depth': (['--model_depth', '19'], ['19', '18', '200']),
    'no checkpoint': (['--resume_path', 'gone.pth'], ['gone.pth', 'no such checkpoint']),
    'single clips': (['--batch_size', '1'], ['single clip', '--batch_size']),
    'unknown module': (['--ft_begin_module', 'layer9'], ['layer9', 'layer4', 'fc']),
    'a seed beyond 64 bits': (['--manual_seed', str(10 ** 20)], ['--manual_seed', '2 ** 63']),
    'a process for each video': (['--n_threads', '100000'], ['--n_threads', '1024']),
    'no nodes': (['--world_size', '0'], ['--world_size', "'0'"]),
    'no memory': (['--resnet_widen_factor', '1e9'], ['out of memory', 'networks']),
}


@pytest.mark.parametrize('name', BAD_FLAGS)
def test_bad_flags(tiny_data, tmp_path, capsys, name):
    flags, words = BAD_FLAGS[name]
    assert run_main(tiny_data.argv(tmp_path / 'results', *flags)) == 2
    _one_sentence(capsys, words)
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize('below', ['', 'results'])
def test_result_path_cannot_be_written(tiny_data, tmp_path, capsys, below):
    (tmp_path / 'file').write_text('mine')
    assert run_main(tiny_data.argv(tmp_path / 'file' / below)) == 2
    _one_sentence(capsys, ['file', 'cannot be written', '--result_path'])
    assert (tmp_path / 'file').read_text() == 'mine'


NO_CHECKPOINTS = {
    'text': b'hello world', 'empty': b'', 'an image': b'\x89PNG\r\n\x1a\n', 'a zip': b'PK\x03\x04',
    'a number': 3, 'an empty dict': {}, 'no weights': {'epoch': 3, 'state_dict': {'a': 'b'}},
    'another network': {'state_dict': {'encoder.weight': torch.zeros(2, 2)}},
}


@pytest.mark.parametrize('name', NO_CHECKPOINTS)
@pytest.mark.parametrize('flag', ['--resume_path', '--pretrain_path'])
def test_what_is_no_checkpoint(tiny_data, tmp_path, capsys, name, flag):
    path, content = tmp_path / 'file.pth', NO_CHECKPOINTS[name]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert run_main(tiny_data.argv(tmp_path / 'results', flag, path)) == 2
    _one_sentence(capsys, [str(path)])
    assert not (tmp_path / 'results').exists()


class _Evil:
    def __reduce__(self):
        return os.mkdir, ('evil-was-here',)


def test_a_file_that_would_run_code_is_refused(tiny_data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': _Evil()}, tmp_path / 'evil.pth')
    assert run_main(tiny_data.argv('results', '--resume_path', tmp_path / 'evil.pth')) == 2
    _one_sentence(capsys, ['evil.pth', 'run code'])
    assert not (tmp_path / 'evil-was-here').exists()
