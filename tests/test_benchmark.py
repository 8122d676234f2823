"""The benchmark runs and writes what it says; no test asserts a time."""

import json

import pytest

import errors
from util_scripts import benchmark


def _benchmark(*argv):
    with pytest.raises(SystemExit) as ended:
        errors.run(benchmark.main, list(map(str, argv)))
    return ended.value.code or 0


def test_on_frames_of_its_own_against_the_plain_version(tmp_path, capsys):
    path = tmp_path / 'numbers.json'
    assert _benchmark('--seconds', 0.01, '--no_cuda', '--resnet_widen_factor', 0.125,
                      '--model_depth', 10, '--sample_size', 32, '--n_threads', 1, '--precision',
                      'bf16', '--against_plain', '--json', path) == 0
    output = capsys.readouterr().out
    rows = {(row['part'], row['what']): row for row in json.loads(path.read_text())['rows']}
    assert all(row['sec'] > 0 for row in rows.values())
    for part in ('read', 'decode', 'crop', 'collate', 'all', 'plain'):
        assert ('loader', f'training clip: {part}') in rows
        assert ('loader', f'validation clip: {part}') in rows
    assert {('step', name) for name in ('forward', 'backward', 'optimiser')} <= rows.keys()
    assert 'x ours' in rows['step', 'plain: fp32, contiguous']['note']
    for part, what in rows:
        assert part in output and what in output


def test_on_the_data_of_the_flags(tiny_data, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path, '--n_threads', 1)
    assert _benchmark(*argv, '--seconds', 0.01, '--parts', 'loader', 'end_to_end',
                      'inference') == 0
    assert 'waiting for clips' in capsys.readouterr().out
    assert not tmp_path.joinpath('opts.json').exists()


def test_plain_loader_of_other_crops_is_refused(tmp_path, capsys):
    assert _benchmark('--against_plain', '--train_crop', 'center', '--parts', 'loader') == 2
    assert '--train_crop' in capsys.readouterr().err
