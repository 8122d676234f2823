"""What a run says: a block at its start, the time that is left, and commands at its end."""

import re
import shlex
from datetime import datetime

import pytest
import torch

import training
import weights
from models import generate_model
from opts import parse_opts, replace
from overview import duration, end_line, extraction_lines, gflop, in_lines, precision_note
from runtime.errors import InputError
from tests.helpers import ROOT, run_script
from tests.tiny_data import loader_of, run_main


def commands(output):
    """The commands in an output, each as a list of words."""
    lines = output.replace('\\\n', ' ').splitlines()
    return [shlex.split(line) for line in lines
            if line.startswith('  ') and ('main.py' in line or '-m util_scripts' in line)]


@pytest.fixture
def output(tiny_data, tmp_path, capsys):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 3)) == 0
    return capsys.readouterr().out


def test_the_start(output):
    text = ' '.join(output.split())
    assert ('data: 12 videos for training, 6 videos for validation; 3 classes, the smallest of '
            'the training is red (4 videos)') in text
    assert re.search(r'network: resnet-10, [\d,]+ parameters, [\d.]+ GFLOP a clip; clips of 8 '
                     r'frames of 32x32', text)
    assert '12 clips per epoch in 3 steps' in text and 'running on the CPU' in text


def test_exact_products_of_a_gpu_are_said_where_it_could_round_them():
    assert '--tf32' in precision_note('fp32', False, (9, 0)) != ''
    for others in [('bf16', False, (9, 0)), ('fp32', True, (9, 0)), ('fp32', False, (7, 5))]:
        assert precision_note(*others) == ''


def test_videos_that_are_also_inferred_are_extracted_once(tiny_data, tmp_path):
    loaders = {split: loader_of(tiny_data, split) for split in ('train', 'val', 'inference')}
    opts = parse_opts(tiny_data.argv(tmp_path, '--inference', '--inference_subset', 'val'))
    text = ' '.join(extraction_lines(replace(opts, file_type='video'), loaders))
    assert 'MB for 18 videos)' in ' '.join(text.split())


def test_lines_are_short(output):
    """But for a path, with its flag and what continues the line, which cannot be broken."""
    for line in output.splitlines():
        assert len(line) <= 100 or re.fullmatch(r' *(--\w+ )?\S+( \\)?', line), line


def test_the_time_left_is_said_until_the_last_epoch(output):
    lines = [line for line in output.splitlines() if line.startswith('epoch ')]
    assert [bool(re.search(r', \d+ (s|min) left$', line)) for line in lines] == [True, True, False]


def test_top5_of_few_classes_is_not_said(output):
    assert 'video top-1' in output and 'top-5' not in output


def test_the_best_epoch_and_the_commands_at_the_end(output, tmp_path, capsys, monkeypatch):
    best = weights.load(tmp_path / 'save_best.pth')
    said = re.search(r'best epoch: (\d+) of 3, video top-1 ([\d.]+); ', ' '.join(output.split()))
    assert int(said[1]) == best['epoch'] == best['best_epoch']
    assert float(said[2]) == pytest.approx(best['best_video_top1'], abs=5e-4)
    assert f'logs, options and checkpoints are in {tmp_path}' in ' '.join(output.split())
    evaluate, predict, report = commands(output)
    monkeypatch.chdir(ROOT)
    assert evaluate[1] == 'main.py' and run_main(evaluate[2:]) == 0
    assert f'video top-1 {said[2]}' in capsys.readouterr().out
    assert (tmp_path / 'evaluation/val.json').exists()
    assert predict[1:3] == ['-m', 'util_scripts.predict']
    assert run_script('predict', *predict[3:]).returncode == 0
    assert run_script('report', *report[3:]).returncode == 0


def test_the_best_epoch_outlasts_a_stop(tiny_data, tmp_path, capsys):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 3)) == 0
    path = tmp_path / 'save_3.pth'
    state = torch.load(path, weights_only=True)
    torch.save({**state, 'best_epoch': 1, 'best_video_top1': 1.5}, path)
    capsys.readouterr()
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 4, '--resume_path', path)) == 0
    assert 'best epoch: 1 of 4, video top-1 1.5' in capsys.readouterr().out


def test_without_validation_the_last_checkpoint_is_named(tiny_data, tmp_path, capsys):
    assert run_main(tiny_data.argv(tmp_path, '--no_val')) == 0
    output = capsys.readouterr().out
    assert 'best epoch' not in output
    predict, _ = commands(output)
    assert str(tmp_path / 'save_2.pth') in predict


def test_words_of_a_command_come_back():
    words = ['python', 'main.py', *(f'--flag_{i}' for i in range(30)), '--a', "two words and a '",
             '--b', 'x' * 120]
    text = in_lines(words)
    assert shlex.split(text.replace('\\\n', ' ')) == words
    assert all(len(line) <= 100 or 'xxx' in line for line in text.splitlines())


@pytest.mark.parametrize('sec, words', [(0.2, '0 s'), (99, '99 s'), (120, '2 min'),
                                        (99.6, '2 min'), (11100, '3 h 05 min')])
def test_durations(sec, words):
    assert duration(sec) == words


def test_operations_of_a_clip():
    """Of the table in docs/networks.md; 0 where the network refuses such clips."""
    network = generate_model('resnet', 18, n_classes=400)
    assert gflop(network, (3, 16, 112, 112)) == pytest.approx(16.6, abs=0.05)
    with pytest.raises(InputError, match='i3d takes clips of at least 8 frames'):
        gflop(generate_model('i3d', n_classes=4), (3, 4, 16, 16))


def test_when_it_ends():
    now = datetime(2024, 5, 3, 22, 0)
    assert end_line(3600, now) == 'at this pace the training takes 60 min more, until about 23:00'
    assert end_line(3 * 3600, now).endswith('until about 01:00 on Saturday, 04 May')
    assert end_line(1e15, now).endswith(' more')  # beyond all calendars


def test_the_end_is_said_after_the_first_steps(tiny_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, 'PACE_STEPS', 2)
    monkeypatch.setattr(training, 'WORTH_SAYING_SEC', 0)
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 2)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith('at this pace the training takes ') for line in lines) == 1


def test_the_best_so_far(output):
    said = re.findall(r'validation loss .*?; (the best so far|best so far [\d.]+ \(epoch \d\))',
                      ' '.join(output.split()))
    assert len(said) == 3 and said[0] == 'the best so far'


def test_quiet(tiny_data, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path, '--n_epochs', 1, '--inference', '--quiet')
    assert run_main(argv) == 0
    assert capsys.readouterr() == ('', '')
    assert (tmp_path / 'save_1.pth').exists() and (tmp_path / 'val.json').exists()
