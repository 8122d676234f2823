"""The benchmark runs and writes what it says; no test asserts a time."""

import json
import shutil
import signal

import pytest

from runtime import errors
from tests.helpers import grey_frames, write_video
from tests.processes import LIMIT_SEC, start_command, wait_for
from util_scripts import benchmark
from util_scripts.helpers import benchmark_extraction
from util_scripts.helpers.timing import peak_rate

pytestmark = pytest.mark.slow


def _benchmark(*argv):
    with pytest.raises(SystemExit) as ended:
        errors.run(benchmark.main, list(map(str, argv)))
    return ended.value.code or 0


@pytest.mark.usefixtures('forked')
def test_on_frames_of_its_own_against_the_plain_version(tmp_path, capsys):
    path = tmp_path / 'numbers.json'
    assert _benchmark('--seconds', 0.01, '--no_cuda', '--resnet_widen_factor', 0.125,
                      '--model_depth', 10, '--sample_size', 32, '--sample_duration', 4,
                      '--batch_size', 4, '--n_threads', 1, '--precision', 'bf16',
                      '--against_plain', '--json', path) == 0
    output = capsys.readouterr().out
    rows = {(row['part'], row['what']): row for row in json.loads(path.read_text())['rows']}
    assert all(row['sec'] > 0 for row in rows.values())
    for part in ('read', 'decode', 'crop', 'collate', 'all', 'plain'):
        assert ('loader', f'training clip: {part}') in rows
        assert ('loader', f'validation clip: {part}') in rows
    assert {('step', name) for name in ('forward', 'backward', 'optimiser')} <= rows.keys()
    assert 'x ours' in rows['step', 'plain: fp32, contiguous']['note']
    assert 'x ours' in rows['loader', '1 process: plain']['note']
    for part, what in rows:
        assert part in output and what in output


@pytest.mark.parametrize('name, precision, tf32, rate', [
    ('NVIDIA H100 80GB HBM3', 'bf16', False, 989), ('NVIDIA H100 PCIe', 'fp16', False, 756),
    ('NVIDIA A100-SXM4-80GB', 'fp32', True, 156), ('NVIDIA A10', 'fp32', False, 31.2),
    ('Tesla V100-SXM2-16GB', 'fp32', True, None), ('NVIDIA GeForce RTX 4090', 'bf16', True, 165),
    ('NVIDIA L40S', 'bf16', False, 362), ('NVIDIA A1000', 'bf16', False, None)])
def test_peaks_that_are_known(name, precision, tf32, rate):
    assert peak_rate(name, precision, tf32) == rate


def test_on_the_data_of_the_flags(tiny_data, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path, '--n_threads', 1)
    assert _benchmark(*argv, '--seconds', 0.01, '--parts', 'loader', 'end_to_end',
                      'inference') == 0
    assert 'waiting for clips' in capsys.readouterr().out
    assert not tmp_path.joinpath('opts.json').exists()


@pytest.mark.parametrize('flags, cure', [
    (('--n_classes', 2), 'give --n_classes 3'), (('--batch_size', 1), 'another --batch_size'),
    (('--batch_size', 100, '--parts', 'step', 'inference'), 'a smaller --batch_size'),
    (('--batch_size', 12), 'a smaller --batch_size')])
def test_what_cannot_be_measured_is_said_before_anything_is(tiny_data, tmp_path, capsys, flags,
                                                            cure):
    assert _benchmark(*tiny_data.argv(tmp_path, *flags)) == 2
    output = capsys.readouterr()
    assert cure in output.err.splitlines()[-1] and not output.out


def test_what_was_measured_stays(tmp_path):
    """Rows come as they are measured, to the file too; the end leaves no frames behind."""
    path, temporary = tmp_path / 'numbers.json', tmp_path / 'temporary'
    temporary.mkdir()
    process = start_command('util_scripts.benchmark', [
        '--seconds', 0.2, '--no_cuda', '--parts', 'inference', 'loader', '--model_depth', 10,
        '--resnet_widen_factor', 0.125, '--sample_size', 32, '--n_threads', 0, '--json', path],
        tmp_path / 'output', variables={'TMPDIR': str(temporary)})
    wait_for(lambda: 'training clip: read' in (tmp_path / 'output').read_text(), process)
    process.terminate()
    process.join(LIMIT_SEC)
    assert process.exitcode == 128 + signal.SIGTERM
    assert [row['part'] for row in json.loads(path.read_text())['rows']][0] == 'inference'
    assert not list(temporary.iterdir())


def test_without_loader_processes_and_with_large_batches(tmp_path, capsys):
    assert _benchmark('--seconds', 0.01, '--no_cuda', '--resnet_widen_factor', 0.125,
                      '--model_depth', 10, '--sample_size', 32, '--sample_duration', 2,
                      '--n_threads', 0, '--batch_size', 60, '--against_plain', '--parts', 'loader',
                      'end_to_end', 'inference') == 0
    assert 'of 3.0 windows' in capsys.readouterr().out


def _extraction(folder, *flags):
    """{what: row} of the part extraction."""
    path = folder / 'numbers.json'
    assert _benchmark('--parts', 'extraction', '--seconds', 0.01, '--json', path, *flags) == 0
    return {row['what']: row for row in json.loads(path.read_text())['rows']}


@pytest.mark.skipif(not (shutil.which('ffprobe') and shutil.which('ffmpeg')),
                    reason='the plain side needs ffprobe and ffmpeg on the PATH')
def test_extraction_against_the_plain_version(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_extraction, 'LONG_SEC', 1)
    for name, n_frames in (('Run/a.avi', 5), ('Walk/a.avi', 5), ('b.mp4', 50)):
        write_video(tmp_path / 'videos' / name, grey_frames(range(n_frames)))
    rows = _extraction(tmp_path, '--videos', tmp_path / 'videos', '--against_plain')
    assert len(rows) == 6 and all(row['sec'] > 0 < row['cpu_sec'] for row in rows.values())
    for title, n_frames in (('2 short videos', 10), ('1 long video', 50)):
        for name in ('ours', 'plain', 'plain, without -q:v'):
            row = rows[f'{title}: {name}']
            assert f'{n_frames} frames of ' in row['note']
            assert ('x ours' in row['note']) == (name != 'ours')


def test_extraction_of_videos_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_extraction, 'MADE_VIDEOS', ((2, 1), (1, 2)))
    monkeypatch.setattr(benchmark_extraction, 'MADE_FRAMES', 6)
    rows = _extraction(tmp_path)
    assert rows.keys() == {'3 short videos: ours'}
    assert '24 frames of ' in rows['3 short videos: ours']['note']


# ---------------------------------------------------------------- clips of video files

def test_clips_are_read_by_all_decoders_that_are_there(tmp_path, capsys):
    write_video(tmp_path / 'videos' / 'a' / 'long.avi', grey_frames(range(0, 80, 4)))
    write_video(tmp_path / 'videos' / 'a' / 'short.avi', grey_frames([1, 2]))
    benchmark.main(['--parts', 'clips', '--videos', tmp_path / 'videos', '--seconds', 0.01,
                    '--against', 'opencv', 'decord', '--no_cuda', '--json', tmp_path / 'out.json'])
    rows = json.loads((tmp_path / 'out.json').read_text())['rows']
    said, warned = capsys.readouterr()
    assert [row['what'] for row in rows[:2]] == ['a .avi: ours', 'a .avi: ours, --exact_pixels']
    assert all(row['sec'] > 0 for row in rows)
    for name in ('opencv', 'decord'):
        assert (f'a .avi: {name}' in said) != (f'{name} is left out: ' in warned)
