"""main.py from the command line: what it writes, how it goes on, how it starts from weights."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

import weights
from tests.processes import LIMIT_SEC, same_state, start_main
from tests.tiny_data import run_main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def trained(tiny_data, tmp_path_factory):
    """Result folder of four epochs, with inference and TensorBoard."""
    folder = tmp_path_factory.mktemp('trained') / 'results'
    assert run_main(tiny_data.argv(folder, '--n_epochs', 4, '--inference', '--tensorboard')) == 0
    return folder


def _rows(path):
    header, *rows = [line.split('\t') for line in path.read_text().splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


# ---------------------------------------------------------------- what a run writes

@pytest.mark.slow
def test_logs(trained):
    rows = _rows(trained / 'train.log')
    assert list(rows[0])[:4] == ['epoch', 'loss', 'acc', 'lr']
    assert [int(row['epoch']) for row in rows] == [1, 2, 3, 4]
    batches = _rows(trained / 'train_batch.log')
    assert list(batches[0])[:6] == ['epoch', 'batch', 'iter', 'loss', 'acc', 'lr']
    assert [int(row['iter']) for row in batches] == list(range(1, 13))
    for epoch in range(1, 5):
        own = [float(row['loss']) for row in batches if int(row['epoch']) == epoch]
        assert float(rows[epoch - 1]['loss']) == pytest.approx(sum(own) / len(own), rel=1e-4)
    val = _rows(trained / 'val.log')
    assert list(val[0])[:3] == ['epoch', 'loss', 'acc'] and 'video_top1' in val[0]
    assert float(val[-1]['video_top1']) == float(val[-1]['video_mean_class']) == 1.0
    assert list(val[0])[-2:] == ['clip_mean_class', 'video_mean_class']


def test_options_are_kept(trained, tiny_data):
    opts = json.loads((trained / 'opts.json').read_text())
    assert opts['model_depth'] == 10 and opts['sample_size'] == 32 and opts['momentum'] == 0.9
    assert opts['video_path'] == str(tiny_data.root / 'jpg')


def test_checkpoint_has_the_keys_of_2020_and_says_what_it_is(trained):
    state = torch.load(trained / 'save_4.pth', weights_only=True)
    assert state['epoch'] == 4 and state['arch'] == 'resnet-10'
    assert {'state_dict', 'optimizer', 'scheduler'} <= state.keys()
    assert not any(name.startswith('module.') for name in state['state_dict'])
    assert state['class_names'] == ['red', 'green', 'blue']
    assert state['clip_options']['sample_size'] == 32


def test_every_nth_epoch_and_the_last_are_saved(tiny_data, tmp_path):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 5, '--checkpoint', 2)) == 0
    assert sorted(p.name for p in tmp_path.glob('save_[0-9]*.pth')) == [
        'save_2.pth', 'save_4.pth', 'save_5.pth']


def test_results(trained):
    results = json.loads((trained / 'val.json').read_text())['results']
    assert len(results) == 6
    for video_id, ranked in results.items():
        scores = [row['score'] for row in ranked]
        assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-5)
        assert ranked[0]['label'] == video_id.split('_')[0]


def test_tensorboard_has_scalars_and_pictures(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(trained))
    events.Reload()
    tags = events.Tags()
    assert {'train/loss', 'train/acc', 'train/lr', 'val/loss', 'val/video_top1',
            'train_batch/loss'} <= set(tags['scalars'])
    assert [round(event.value, 4) for event in events.Scalars('train/lr')] == [0.05] * 4
    assert {'train/clips', 'val/clip_confusion', 'val/video_confusion'} <= set(tags['images'])
    for tag in ('train/clips', 'val/video_confusion'):
        with Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string)) as picture:
            assert min(picture.size) > 300


def test_tensorboard_has_training_and_validation_in_one_chart(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
    events = EventAccumulator(str(trained))
    events.Reload()
    proto = events.Tensors('custom_scalars__config__')[0].tensor_proto
    category, = Layout.FromString(proto.string_val[0]).category
    tags = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert tags == {'loss': ['train/loss', 'val/loss'],
                    'clip accuracy': ['train/acc', 'val/clip_top1']}
    assert {tag for chart in tags.values() for tag in chart} <= set(events.Tags()['scalars'])


def test_scores_of_results_have_six_decimals(trained):
    results = json.loads((trained / 'val.json').read_text())['results']
    scores = [entry['score'] for entries in results.values() for entry in entries]
    assert scores == [round(score, 6) for score in scores]


def test_tensorboard_has_the_options(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2
    events = EventAccumulator(str(trained))
    events.Reload()
    contents = events.SummaryMetadata('_hparams_/session_start_info').plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(contents)
    assert data.session_start_info.hparams['model_depth'].number_value == 10


@pytest.mark.slow
def test_events_of_a_new_training_stay_beside_its_logs(tiny_data, tmp_path):
    for _ in range(2):
        assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 1, '--tensorboard')) == 0
    for folder in (tmp_path, tmp_path / 'earlier_1'):
        assert len(list(folder.glob('events.out.tfevents.*'))) == 1


@pytest.mark.slow
@pytest.mark.parametrize('n_steps', [2, 50])
def test_trace_of_steps(tiny_data, tmp_path, n_steps):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 3, '--profile', n_steps)) == 0
    with gzip.open(tmp_path / 'steps.pt.trace.json.gz') as file:
        events = json.load(file)['traceEvents']
    names = [event.get('name') for event in events]
    assert 'aten::convolution_backward' in names
    n_traced = len({name for name in names if str(name).startswith('ProfilerStep#')})
    assert n_traced >= min(n_steps, 9 - 4)


@pytest.mark.parametrize('n_epochs, batch_size', [(1, 4), (2, 6)])
def test_too_few_steps_for_a_trace_are_said(tiny_data, tmp_path, capsys, n_epochs, batch_size):
    """3 and 4 steps: the first 4 are left out."""
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', n_epochs, '--batch_size', batch_size,
                                   '--profile', 10)) == 0
    n_steps = n_epochs * 12 // batch_size
    assert (f'--profile leaves out the first 4 steps, and there were {n_steps}; train for at '
            'least 5') in capsys.readouterr().err
    assert not (tmp_path / 'steps.pt.trace.json.gz').exists()


def test_a_trace_that_cannot_be_written_is_said(tiny_data, tmp_path, capsys):
    (tmp_path / 'steps.pt.trace.json.gz').mkdir()
    assert run_main(tiny_data.argv(tmp_path, '--profile', 10)) == 0
    assert ('steps.pt.trace.json.gz: the trace cannot be written (Is a directory); the run goes '
            'on') in capsys.readouterr().err


def test_cpu_is_said_in_one_line(tiny_data, tmp_path, capsys):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 1)) == 0
    assert capsys.readouterr().out.count('running on the CPU') == 1


def test_windows_and_topk(tiny_data, trained, tmp_path):
    argv = tiny_data.argv(tmp_path, '--resume_path', trained / 'save_4.pth', '--no_train',
                          '--no_val', '--inference', '--inference_no_average', '--output_topk', 2,
                          '--inference_stride', 4)
    assert run_main(argv) == 0
    results = json.loads((tmp_path / 'val.json').read_text())['results']
    windows = results['red_4']
    assert [window['segment'][0] for window in windows] == [
        1 + 4 * i for i in range(len(windows))]
    assert all(len(window['result']) == 2 for window in windows)


def test_inference_on_unlabelled_test_videos(tiny_data, trained, tmp_path):
    argv = tiny_data.argv(tmp_path, '--resume_path', trained / 'save_4.pth', '--no_train',
                          '--no_val', '--inference', '--inference_subset', 'test',
                          '--inference_crop', 'nocrop')
    assert run_main(argv) == 0
    results = json.loads((tmp_path / 'test.json').read_text())['results']
    assert list(results) == ['red_6', 'green_6', 'blue_6']


def test_one_validation_clip_a_video(tiny_data, trained, tmp_path):
    argv = tiny_data.argv(tmp_path, '--resume_path', trained / 'save_4.pth', '--no_train',
                          '--n_val_samples', 1)
    assert run_main(argv) == 0
    row, = _rows(tmp_path / 'val.log')
    assert row['epoch'] == '4' and row['acc'] == row['video_top1'] == '1'


# ---------------------------------------------------------------- going on

@pytest.mark.slow
@pytest.mark.parametrize('flags', [(), ('--lr_scheduler', 'plateau', '--plateau_patience', '0'),
                                   ('--nesterov', '--multistep_milestones', '1', '3')])
def test_resumed_training_ends_like_one_that_was_not_stopped(tiny_data, tmp_path, flags):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert run_main(tiny_data.argv(whole, '--n_epochs', 4, *flags)) == 0
    assert run_main(tiny_data.argv(parts, '--n_epochs', 2, *flags)) == 0
    assert run_main(tiny_data.argv(parts, '--n_epochs', 4, '--resume_path', parts / 'save_2.pth',
                                   *flags)) == 0
    assert same_state(weights.load(whole / 'save_4.pth'), weights.load(parts / 'save_4.pth'))
    for name in ('train.log', 'train_batch.log', 'val.log'):
        assert (whole / name).read_text() == (parts / name).read_text()


def test_resuming_an_earlier_epoch_keeps_a_copy_of_the_log(tiny_data, tmp_path, trained):
    folder = tmp_path / 'results'
    shutil.copytree(trained, folder)
    assert run_main(tiny_data.argv(folder, '--n_epochs', 3, '--resume_path',
                                   folder / 'save_2.pth')) == 0
    assert [row['epoch'] for row in _rows(folder / 'train.log')] == ['1', '2', '3']
    assert (folder / 'train.1.log').read_text() == (trained / 'train.log').read_text()


def test_rows_cut_short_by_a_kill_are_replaced(tiny_data, tmp_path, trained):
    folder = tmp_path / 'results'
    shutil.copytree(trained, folder)
    with open(folder / 'train_batch.log', 'a') as file:
        file.write('5\t1\t13\t0.25\t0.5')
    assert run_main(tiny_data.argv(folder, '--n_epochs', 5, '--resume_path',
                                   folder / 'save_4.pth')) == 0
    assert [row['iter'] for row in _rows(folder / 'train_batch.log')] == [
        str(i) for i in range(1, 16)]


def test_new_training_sets_an_earlier_one_aside(tiny_data, tmp_path, capsys, trained):
    folder = tmp_path / 'results'
    shutil.copytree(trained, folder)
    assert run_main(tiny_data.argv(folder, '--n_epochs', 1)) == 0
    assert 'earlier_1' in capsys.readouterr().err
    assert (folder / 'earlier_1/save_4.pth').exists() and not (folder / 'save_4.pth').exists()
    assert len(_rows(folder / 'train.log')) == 1


def test_evaluation_leaves_the_logs_of_a_training(tiny_data, tmp_path, capsys, trained):
    folder = tmp_path / 'results'
    shutil.copytree(trained, folder)
    assert run_main(tiny_data.argv(folder, '--no_train', '--resume_path',
                                   folder / 'save_4.pth')) == 0
    assert (folder / 'val.log').read_text() == (trained / 'val.log').read_text()
    row, = _rows(folder / 'evaluation.log')
    assert row == _rows(folder / 'val.log')[-1]
    assert f'this row goes to {folder / "evaluation.log"}' in capsys.readouterr().out
    assert (folder / 'opts.1.json').read_text() == (trained / 'opts.json').read_text()


def test_finished_training_says_so(tiny_data, trained, tmp_path, capsys):
    assert run_main(tiny_data.argv(tmp_path, '--resume_path', trained / 'save_4.pth')) == 0
    error = capsys.readouterr().err
    assert 'nothing is trained' in error and '--n_epochs' in error


def test_finished_training_with_inference_goes_on_with_that(tiny_data, trained, tmp_path, capsys):
    assert run_main(tiny_data.argv(tmp_path, '--resume_path', trained / 'save_4.pth',
                                   '--inference')) == 0
    output, error = capsys.readouterr()
    assert 'the training is complete; the inference follows' in output
    assert 'nothing is trained' not in error and (tmp_path / 'val.json').exists()


@pytest.mark.slow
def test_new_milestones_on_resume(tiny_data, tmp_path):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 3)) == 0
    argv = tiny_data.argv(tmp_path, '--n_epochs', 4, '--resume_path', tmp_path / 'save_3.pth',
                          '--multistep_milestones', 2)
    assert run_main(argv) == 0
    assert float(_rows(tmp_path / 'train.log')[-1]['lr']) == pytest.approx(0.05)
    assert run_main([*argv, '--overwrite_milestones']) == 0
    assert float(_rows(tmp_path / 'train.log')[-1]['lr']) == pytest.approx(0.005)


def test_checkpoint_of_2020_goes_on_one_scheduler_step_later(tiny_data, trained, tmp_path):
    """It was saved before that step, and knows nothing but epoch, arch, weights and states."""
    state = torch.load(trained / 'save_2.pth', weights_only=True)
    old = {key: state[key] for key in ('epoch', 'arch', 'state_dict', 'optimizer', 'scheduler')}
    old['state_dict'] = {f'module.{name}': value for name, value in old['state_dict'].items()}
    old['scheduler'] = {'milestones': Counter([50, 100, 150]), 'gamma': 0.1, 'base_lrs': [0.05],
                        'last_epoch': 1, '_step_count': 2, 'verbose': False, '_last_lr': [0.05]}
    torch.save(old, tmp_path / 'save_2.pth')
    argv = tiny_data.argv(tmp_path / 'results', '--n_epochs', 4, '--resume_path',
                          tmp_path / 'save_2.pth')
    assert run_main(argv) == 0
    assert same_state(weights.load(tmp_path / 'results/save_3.pth'),
                      weights.load(trained / 'save_3.pth'))


def test_resume_of_another_architecture(tiny_data, trained, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path / 'results', '--resume_path', trained / 'save_4.pth')
    for flags, words in ((('--model_depth', '18'), ('resnet-10', '18')),
                         (('--resnet_shortcut', 'A'), ('resnet_shortcut B', 'A')),
                         (('--model', 'preresnet'), ('resnet-10', 'preresnet'))):
        assert run_main([*argv, *flags]) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in words) and error.count('\n') == 1


def test_resume_with_other_classes(own_data, trained, tmp_path, capsys):
    annotation = own_data.read()
    annotation['labels'] = ['green', 'blue', 'red']
    own_data.write(annotation)
    argv = own_data.argv(tmp_path / 'results', '--resume_path', trained / 'save_4.pth',
                         '--no_train')
    assert run_main(argv) == 0
    assert _rows(tmp_path / 'results/val.log')[0]['video_top1'] == '1'
    annotation['labels'] = ['green', 'blue', 'red', 'pink']
    own_data.write(annotation)
    capsys.readouterr()
    assert run_main(argv) == 2
    message = capsys.readouterr().err
    assert 'only the annotation has pink' in message and '--pretrain_path' in message
    assert run_main([*argv[:-1], '--n_classes', '4']) == 2
    assert '--pretrain_path' in capsys.readouterr().err


# ---------------------------------------------------------------- starting from weights

def test_evaluation_needs_no_network_flags(tiny_data, trained, tmp_path):
    argv = ['--video_path', tiny_data.root / 'jpg', '--annotation_path', tiny_data.annotation_path,
            '--dataset', 'ucf101', '--result_path', tmp_path, '--resume_path',
            trained / 'save_4.pth', '--no_train', '--n_threads', 0, '--no_cuda']
    assert run_main(argv) == 0
    assert _rows(tmp_path / 'val.log')[0]['video_top1'] == '1'


def test_fine_tuning_freezes_what_comes_before(tiny_data, trained, tmp_path):
    argv = tiny_data.argv(tmp_path, '--pretrain_path', trained / 'save_4.pth',
                          '--n_pretrain_classes', 3, '--ft_begin_module', 'layer4',
                          '--n_epochs', 1)
    assert run_main(argv) == 0
    before = weights.load(trained / 'save_4.pth')['state_dict']
    after = weights.load(tmp_path / 'save_1.pth')
    for name, value in after['state_dict'].items():
        is_trained = name.startswith(('layer4', 'fc'))
        assert torch.equal(value, before[name]) != is_trained, name
    n_trained = sum(value.numel() for name, value in before.items()
                    if name.startswith(('layer4', 'fc')) and 'running' not in name
                    and 'tracked' not in name)
    row, = _rows(tmp_path / 'train.log')
    assert int(row['n_trained']) == n_trained and int(row['n_frozen']) > 0
    assert sum(group['lr'] > 0 for group in after['optimizer']['param_groups']) == 1
    assert len(after['optimizer']['param_groups'][0]['params']) == len(
        [name for name in before if name.startswith(('layer4', 'fc'))
         and name.endswith(('weight', 'bias'))])


def test_pretrained_weights_with_another_count_than_said(tiny_data, trained, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path / 'results', '--pretrain_path', trained / 'save_4.pth',
                          '--n_pretrain_classes', 700)
    assert run_main(argv) == 2
    assert 'has 3 classes' in capsys.readouterr().err


def test_evaluating_pretrained_weights_warns(tiny_data, trained, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path, '--pretrain_path', trained / 'save_4.pth', '--no_train')
    assert run_main(argv) == 0
    assert 'give --resume_path' in capsys.readouterr().err


# ---------------------------------------------------------------- as a process

def _command(argv, **options):
    return subprocess.run([sys.executable, 'main.py', *map(str, argv)], cwd=ROOT, text=True,
                          capture_output=True, **options)


def test_help_shows_every_flag_and_its_default():
    done = _command(['--help'], env={**os.environ, 'COLUMNS': '100'})
    assert done.returncode == 0
    for text in ('--sample_duration', '(default: 16)', 'optimisation:', 'distributed:'):
        assert text in done.stdout


def test_a_mistyped_flag_is_one_line():
    done = _command(['--model_dpeth', '18'])
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1 and '--model_depth' in done.stderr


@pytest.mark.slow
def test_a_run_without_terminal_is_quiet(tiny_data, tmp_path):
    process = start_main(tiny_data.argv(tmp_path, '--n_threads', 2), tmp_path / 'output')
    process.join(LIMIT_SEC)
    said = (tmp_path / 'output').read_text()
    assert process.exitcode == 0, said
    begins = [re.split('[:;,]', line)[0] for line in said.splitlines() if line[0] != ' ']
    assert begins == ['running on the CPU (--no_cuda)', 'data', 'not given',
                      '12 clips per epoch in 3 steps', 'network', 'epoch 1/2', 'epoch 2/2',
                      'best epoch', 'logs', 'evaluate it', 'predict with it (any video',
                      'a page on it']
