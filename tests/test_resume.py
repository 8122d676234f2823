"""Resuming a training: which options it goes on with, what is said, where it begins."""

import json
import warnings

import pytest
import torch

import weights
from opts import TRAINING_FLAGS, build_parser
from tests.processes import same_state
from tests.tiny_data import run_main

NOT_SAID = ('was trained with', 'taken from the file', 'goes on with', 'begins anew')


@pytest.fixture(scope='module')
def trained(tiny_data, tmp_path_factory):
    """Result folder of three epochs with a decay after the first."""
    folder = tmp_path_factory.mktemp('trained') / 'results'
    assert run_main(command(tiny_data, folder, 3)) == 0
    return folder


def command(data, folder, n_epochs, *more):
    return data.argv(folder, '--n_epochs', n_epochs, '--no_val', '--multistep_milestones', 1,
                     *more)


def group(path):
    return weights.load(path)['optimizer']['param_groups'][0]


def recorded_opts(folder):
    return json.loads((folder / 'opts.json').read_text())


def without_record(path, destination):
    """A checkpoint as it was before options were recorded."""
    state = torch.load(path, weights_only=True)
    del state['options']
    torch.save(state, destination)
    return destination


# ---------------------------------------------------------------- options

def test_all_flags_of_optimisation_are_recorded(trained):
    parser = build_parser()
    titles = {'optimisation', 'learning rate and epochs', 'regularisation and distillation'}
    flags = [flag for group in parser._action_groups if group.title in titles
             for flag in group._group_actions]
    assert len(flags) > 20
    assert {flag.dest for flag in flags} <= {*TRAINING_FLAGS, 'overwrite_milestones'}
    assert weights.load(trained / 'save_1.pth')['options'].keys() == set(TRAINING_FLAGS)


def test_the_same_command_goes_on_unchanged_after_a_decay(tiny_data, trained, tmp_path, capsys):
    argv = command(tiny_data, tmp_path, 3, '--resume_path', trained / 'save_1.pth')
    assert run_main(argv) == 0
    assert not any(words in capsys.readouterr().err for words in NOT_SAID)
    assert same_state(weights.load(tmp_path / 'save_3.pth'),
                      weights.load(trained / 'save_3.pth'))


def test_a_record_from_before_flags_of_optimisation_came(tiny_data, trained, tmp_path):
    """They have their defaults then, and the training ends the same."""
    state = torch.load(trained / 'save_1.pth', weights_only=True)
    for name in ('adam_betas', 'warmup_epochs', 'clip_grad_norm', 'accumulate', 'no_norm_decay',
                 'layer_decay', 'head_lr_factor', 'unfreeze_epoch', 'freeze_bn', 'dropout',
                 'label_smoothing', 'early_stopping', 'ema_decay', 'teacher_path',
                 'distill_temperature', 'distill_weight', 'clip_schedule'):
        del state['options'][name]
    torch.save(state, tmp_path / 'save_1.pth')
    assert run_main(command(tiny_data, tmp_path / 'results', 3, '--resume_path',
                            tmp_path / 'save_1.pth')) == 0
    assert same_state(weights.load(tmp_path / 'results' / 'save_3.pth'),
                      weights.load(trained / 'save_3.pth'))


@pytest.mark.parametrize('has_record', [True, False])
def test_flags_of_the_optimiser_that_differ_are_taken_and_said(tiny_data, trained, tmp_path,
                                                               capsys, has_record):
    path = trained / 'save_2.pth'
    if not has_record:
        path = without_record(path, tmp_path / 'save_2.pth')
    argv = command(tiny_data, tmp_path / 'results', 3, '--resume_path', path, '--learning_rate',
                   0.01, '--momentum', 0.3, '--weight_decay', 0, '--nesterov')
    assert run_main(argv) == 0
    lines = capsys.readouterr().err.splitlines()
    for name, old, new in (('learning_rate', 0.05, 0.01), ('momentum', 0.9, 0.3),
                           ('weight_decay', 0.001, 0.0), ('nesterov', False, True)):
        line, = (line for line in lines if f'{name} {old}' in line)
        assert line.startswith(f'{path}: ') and f'goes on with {new}' in line
        assert recorded_opts(tmp_path / 'results')[name] == new
    in_use = group(tmp_path / 'results/save_3.pth')
    assert in_use['lr'] == pytest.approx(0.001)  # decayed once, as the training was
    assert (in_use['momentum'], in_use['weight_decay'], in_use['nesterov']) == (0.3, 0.0, True)


def test_changed_flags_are_changed_once(tiny_data, trained, tmp_path, capsys):
    """The checkpoint records what was in use, so the second command is no change any more."""
    argv = command(tiny_data, tmp_path, 3, '--learning_rate', 0.01)
    assert run_main([*argv, '--resume_path', trained / 'save_2.pth']) == 0
    capsys.readouterr()
    assert run_main([*argv, '--n_epochs', 4, '--resume_path', tmp_path / 'save_3.pth']) == 0
    assert 'learning_rate' not in capsys.readouterr().err
    assert group(tmp_path / 'save_4.pth')['lr'] == group(tmp_path / 'save_3.pth')['lr']


def test_options_are_taken_from_the_file(tiny_data, tmp_path, capsys):
    """Resumed with paths alone, a training ends like one that was not stopped."""
    flags = ('--batch_size', 6, '--train_crop', 'corner', '--colorjitter', '--manual_seed', 7,
             '--momentum', 0.5, '--weight_decay', 0.01)
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert run_main(command(tiny_data, whole, 3, *flags)) == 0
    assert run_main(['--root_path', tiny_data.root, '--video_path', 'jpg', '--annotation_path',
                     'annotation.json', '--result_path', parts, '--n_threads', 0, '--no_cuda',
                     '--no_val', '--checkpoint', 1, '--resume_path', whole / 'save_1.pth']) == 0
    line, = (line for line in capsys.readouterr().err.splitlines() if 'batch_size' in line)
    assert 'taken from the file' in line and 'batch_size 6' in line and 'n_epochs 3' in line
    assert same_state(weights.load(parts / 'save_3.pth'), weights.load(whole / 'save_3.pth'))
    assert recorded_opts(parts)['learning_rate'] == 0.05
    assert recorded_opts(parts)['dataset'] == 'ucf101'


def test_other_clips_are_named(tiny_data, trained, tmp_path, capsys):
    argv = command(tiny_data, tmp_path, 3, '--resume_path', trained / 'save_3.pth')
    assert run_main([*argv, '--sample_duration', 9, '--sample_t_stride', 2]) == 0
    said = capsys.readouterr().err
    assert 'was trained with sample_duration 8, and goes on with 9, as given' in said
    assert 'was trained with sample_t_stride 1, and goes on with 2' in said
    assert 'sample_size' not in said


def test_milestones_given_without_overwriting_are_named(tiny_data, trained, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path, '--n_epochs', 3, '--no_val', '--resume_path',
                          trained / 'save_2.pth', '--multistep_milestones', 2)
    assert run_main(argv) == 0
    assert '--overwrite_milestones' in capsys.readouterr().err
    assert recorded_opts(tmp_path)['multistep_milestones'] == [1]


def test_another_schedule_is_an_error(tiny_data, trained, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path, '--n_epochs', 3, '--lr_scheduler', 'plateau',
                          '--resume_path', trained / 'save_2.pth')
    assert run_main(argv) == 2
    assert 'was trained with another --lr_scheduler than plateau' in capsys.readouterr().err


def test_flags_that_do_not_go_with_those_of_the_file(tiny_data, tmp_path, capsys):
    assert run_main(command(tiny_data, tmp_path, 1, '--momentum', 0)) == 0
    argv = command(tiny_data, tmp_path, 2, '--nesterov', '--resume_path', tmp_path / 'save_1.pth')
    assert run_main(argv) == 2
    assert '--nesterov needs a --momentum above 0' in capsys.readouterr().err


@pytest.mark.parametrize('options', [7, {'momentum': 'much'}, {'lr_scheduler': 'none'}])
def test_a_record_that_is_none(tiny_data, trained, tmp_path, capsys, options):
    state = torch.load(trained / 'save_2.pth', weights_only=True)
    torch.save({**state, 'options': options}, tmp_path / 'save_2.pth')
    argv = command(tiny_data, tmp_path / 'results', 3, '--resume_path', tmp_path / 'save_2.pth')
    assert run_main(argv) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'give an unchanged file' in error


def test_a_plateau_without_the_rate_of_its_start(tiny_data, tmp_path, capsys):
    """torch's ReduceLROnPlateau does not keep it: the same command goes on unchanged."""
    argv = tiny_data.argv(tmp_path, '--lr_scheduler', 'plateau')
    assert run_main([*argv, '--n_epochs', 1]) == 0
    state = torch.load(tmp_path / 'save_1.pth', weights_only=True)
    old = {key: state[key] for key in ('epoch', 'arch', 'state_dict', 'optimizer')}
    own_group, = old['optimizer']['param_groups']
    own_group['lr'] = 0.005
    del own_group['initial_lr']
    old['scheduler'] = {'factor': 0.1, 'patience': 10, 'cooldown': 0, 'cooldown_counter': 0,
                        'mode': 'min', 'threshold': 1e-4, 'threshold_mode': 'rel', 'eps': 1e-8,
                        'best': 1.0, 'num_bad_epochs': 2, 'last_epoch': 1, 'min_lrs': [0]}
    torch.save(old, tmp_path / 'old.pth')
    for epoch, path in ((2, tmp_path / 'old.pth'), (3, tmp_path / 'save_2.pth')):
        capsys.readouterr()
        assert run_main([*argv, '--n_epochs', epoch, '--resume_path', path]) == 0
        assert ('does not say the learning rate' in capsys.readouterr().err) == (epoch == 2)
        assert group(tmp_path / f'save_{epoch}.pth')['lr'] == 0.005


# ---------------------------------------------------------------- the position in an epoch

@pytest.fixture
def stopped(own_data, tmp_path):
    """A checkpoint after the first of three batches of epoch 2."""
    folder = tmp_path / 'stopped'
    assert run_main(command(own_data, folder, 1)) == 0
    state = torch.load(folder / 'save_1.pth', weights_only=True)
    order = {'batch_size': 4, 'manual_seed': 1, 'records': records_of(own_data, tmp_path)}
    position = {'epoch': 2, 'batch': 1, 'sums': {'clips': 4.0, 'loss': 4.0, 'hits': 1.0},
                'lr': 0.05, **order}
    torch.save({**state, 'position': position}, folder / 'save_last.pth')
    return folder / 'save_last.pth'


def records_of(data, tmp_path):
    """The fingerprint of the training videos, as a checkpoint within an epoch holds it."""
    folder = tmp_path / 'probe'
    assert run_main(command(data, folder, 1, '--checkpoint_minutes', 1e-6)) == 0
    return weights.load(folder / 'save_last.pth')['position']['records']


def _batches(folder):
    return [line.split('\t')[:2] for line in
            (folder / 'train_batch.log').read_text().splitlines()[1:]]


def test_a_position_counts_in_the_same_batches(own_data, stopped, tmp_path, capsys):
    argv = command(own_data, tmp_path / 'results', 2, '--resume_path', stopped)
    assert run_main(argv) == 0
    assert 'begins anew' not in capsys.readouterr().err
    assert _batches(tmp_path / 'results') == [['2', '2'], ['2', '3']]


@pytest.mark.slow
@pytest.mark.parametrize('flags, words', [
    (('--batch_size', 6), 'batch_size 4, now 6'), (('--manual_seed', 2), 'manual_seed 1, now 2'),
    (('--repeated_aug', 2), 'repeated_aug 1, now 2'),
    (('--balanced_sampling',), 'balanced_sampling False, now True')])
def test_other_batches_begin_the_epoch_anew(own_data, stopped, tmp_path, capsys, flags, words):
    argv = command(own_data, tmp_path / 'results', 2, '--resume_path', stopped, *flags)
    assert run_main(argv) == 0
    line, = (line for line in capsys.readouterr().err.splitlines() if 'begins anew' in line)
    assert words in line and str(stopped) in line
    assert _batches(tmp_path / 'results')[0] == ['2', '1']


def test_other_videos_begin_the_epoch_anew(own_data, stopped, tmp_path, capsys):
    annotation = own_data.read()
    annotation['database']['red_0']['subset'] = 'testing'
    own_data.write(annotation)
    argv = command(own_data, tmp_path / 'results', 2, '--resume_path', stopped)
    assert run_main(argv) == 0
    assert 'other videos' in capsys.readouterr().err
    assert _batches(tmp_path / 'results')[0] == ['2', '1']


def test_going_on_after_a_stop_in_validation(own_data, stopped, tmp_path, capsys):
    """No step of the epoch is left: no speed of steps is said, and nothing warns."""
    state = torch.load(stopped, weights_only=True)
    state['position'].update(batch=3, sums={'clips': 12.0, 'loss': 12.0, 'hits': 3.0})
    torch.save(state, stopped)
    argv = command(own_data, tmp_path / 'results', 2, '--resume_path', stopped)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert run_main(argv) == 0
    line, = (line for line in capsys.readouterr().out.splitlines() if 'epoch 2/2' in line)
    assert 'clips/s' not in line and 'loss 1.0000' in line and 'lr 0.05' in line
