"""Flags of optimisation, fine-tuning and distillation: what they do, resumed, and in processes."""

import json

import pytest
import torch
import torch.nn.functional as F

import weights
from distillation import DistillationLoss, Teacher
from model import build_network, load_model, set_dropout, stages
from models.base import Classifier
from opts import parse_opts, replace
from runtime.errors import InputError
from tests.processes import run_ranks, same_state
from tests.tiny_data import CLASSES, run_main, states_of
from training import trained_parameters


def log_rows(folder, name='train_batch.log'):
    lines = [line.split('\t') for line in (folder / name).read_text().splitlines()]
    return [dict(zip(lines[0], line)) for line in lines[1:]]


def state_of(folder, epoch):
    return weights.load(folder / f'save_{epoch}.pth')


@pytest.fixture(scope='module')
def pretrained(tiny_data, tmp_path_factory):
    """A checkpoint of one epoch of other clips than most tests use."""
    folder = tmp_path_factory.mktemp('pretrained')
    assert run_main(tiny_data.argv(folder, '--n_epochs', 1, '--no_val', '--sample_size', 48,
                                   '--no_mean_norm')) == 0
    return folder / 'save_1.pth'


# ---------------------------------------------------------------- resuming, and loader processes

def all_flags(pretrained):
    """Flags that between them use all that a checkpoint has to hold."""
    return {
        'sgd': ('--accumulate', 4, '--ema_decay', 0.4, '--clip_grad_norm', 0.5, '--dropout', 0.3,
                '--label_smoothing', 0.1, '--warmup_epochs', 1.5, '--lr_scheduler', 'cosine',
                '--layer_decay', 0.7, '--no_norm_decay'),
        'adamw': ('--optimizer', 'adamw', '--learning_rate', 0.001, '--accumulate', 2,
                  '--lr_scheduler', 'plateau', '--plateau_patience', 0, '--warmup_epochs', 0.5,
                  '--head_lr_factor', 3, '--pretrain_path', pretrained, '--teacher_path',
                  pretrained, '--ft_begin_module', 'layer3', '--unfreeze_epoch', 1),
        'frozen': ('--multistep_milestones', 1, '--learning_rate', 0.001, '--pretrain_path',
                   pretrained, '--freeze_bn', '--dropout', 0.5, '--ema_decay', 0.9,
                   '--early_stopping', 5)}


@pytest.mark.slow
@pytest.mark.parametrize('case', ['sgd', 'adamw', 'frozen'])
def test_a_resumed_training_ends_like_one_that_was_not_stopped(tiny_data, tmp_path, pretrained,
                                                               monkeypatch, case):
    flags = tiny_data.argv(tmp_path / 'whole', '--batch_size', 2, *all_flags(pretrained)[case])
    saved = states_of(flags, tmp_path, monkeypatch)
    positions = [weights.load(path)['position'] for path in saved]
    assert {position['epoch'] for position in positions} == {1, 2}
    begin = flags.index('--pretrain_path') if '--pretrain_path' in flags else len(flags)
    flags = flags[:begin] + flags[begin + 2:]
    # The last step of the first epoch, one within the second, and one of each before.
    for number in (0, len(saved) // 2 - 1, len(saved) // 2):
        folder = tmp_path / f'from_{number}'
        again = ['--result_path', folder, '--resume_path', saved[number]]
        assert run_main([*flags, *again]) == 0
        assert same_state(state_of(folder, 2), state_of(tmp_path / 'whole', 2)), positions[number]


@pytest.mark.slow
@pytest.mark.parametrize('case', ['sgd', 'adamw'])
def test_loader_processes_change_nothing(tiny_data, tmp_path, pretrained, case):
    folders = {n: tmp_path / str(n) for n in (0, 2)}
    for n, folder in folders.items():
        assert run_main(tiny_data.argv(folder, '--batch_size', 2, *all_flags(pretrained)[case],
                                       '--n_threads', n)) == 0
    assert same_state(*(state_of(folder, 2) for folder in folders.values()))


@pytest.mark.slow
@pytest.mark.parametrize('n_processes', [2, 3])
def test_several_processes_train_as_one(tiny_data, tmp_path, pretrained, pytestconfig, n_processes):
    """But for rounding, where batch norm is frozen and nothing is dropped. Of the last batch one of
    three processes has no clip."""
    if n_processes == 2 and not pytestconfig.getoption('deep'):
        pytest.skip('three share more unevenly; add --deep')
    flags = ('--pretrain_path', pretrained, '--freeze_bn', '--batch_size', 5, '--accumulate', 2,
             '--clip_grad_norm', 0.5, '--ema_decay', 0.5, '--teacher_path', pretrained,
             '--optimizer', 'adamw', '--learning_rate', 0.001, '--warmup_epochs', 1,
             '--layer_decay', 0.8, '--ft_begin_module', 'layer4', '--unfreeze_epoch', 1)
    assert run_main(tiny_data.argv(tmp_path / 'one', *flags)) == 0
    command = tiny_data.argv(tmp_path / 'all', *flags)
    status, said = run_ranks(n_processes, command, tmp_path / 'output')
    assert status == [0] * n_processes, said
    one, several = (state_of(tmp_path / name, 2) for name in ('one', 'all'))
    for key in ('state_dict', 'ema_state_dict'):
        for name, value in one[key].items():
            # Adam divides small gradients by as small ones.
            torch.testing.assert_close(several[key][name], value, rtol=1e-2, atol=2e-4)
    rows = [log_rows(tmp_path / name) for name in ('one', 'all')]
    assert len(rows[0]) == 2 and len(rows[1]) == 2
    for own, other in zip(*rows):
        assert float(own['loss']) == pytest.approx(float(other['loss']), rel=1e-3)


# ---------------------------------------------------------------- steps and rates

@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch(tiny_data, tmp_path, pretrained):
    flags = ('--pretrain_path', pretrained, '--freeze_bn', '--learning_rate', 0.005)
    large, small = tmp_path / 'large', tmp_path / 'small'
    assert run_main(tiny_data.argv(large, *flags, '--batch_size', 12)) == 0
    assert run_main(tiny_data.argv(small, *flags, '--batch_size', 4, '--accumulate', 3)) == 0
    for name, value in state_of(large, 2)['state_dict'].items():
        torch.testing.assert_close(state_of(small, 2)['state_dict'][name], value, rtol=1e-3,
                                   atol=1e-5)
    assert [row['batch'] for row in log_rows(small)] == ['3', '3']
    for own, other in zip(log_rows(small), log_rows(large), strict=True):
        assert float(own['loss']) == pytest.approx(float(other['loss']), rel=1e-4)
        assert own['acc'] == other['acc']


def test_a_step_of_several_batches_is_skipped_as_a_whole(tiny_data, tmp_path, capsys):
    """All after the first, which makes the weights too large."""
    assert run_main(tiny_data.argv(tmp_path, '--learning_rate', 1e30, '--accumulate', 2,
                                   '--skip_nonfinite', '--no_val')) == 0
    out = capsys.readouterr().out
    assert '1 steps skipped' in out and '2 steps skipped' in out
    # Batch norms keep what they counted before.
    assert same_state(*(state_of(tmp_path, epoch)['state_dict'] for epoch in (1, 2)))


def test_rates_in_the_log_are_those_of_the_flags(tiny_data, tmp_path):
    assert run_main(tiny_data.argv(
        tmp_path, '--no_val', '--lr_scheduler', 'cosine', '--warmup_epochs', 1, '--layer_decay',
        0.5, '--head_lr_factor', 4)) == 0
    rates = [float(row['lr']) for row in log_rows(tmp_path)]
    assert rates == pytest.approx([0.05 / 3, 0.1 / 3, 0.05, 0.05, 0.0375, 0.0125], rel=1e-3)
    groups = state_of(tmp_path, 1)['optimizer']['param_groups']
    assert [group['initial_lr'] for group in groups] == pytest.approx(
        [0.05 * factor for factor in (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 4)])


def test_an_early_stop(tiny_data, tmp_path, capsys):
    """A rate this small leaves all validations alike, so none is better than the first."""
    argv = tiny_data.argv(tmp_path, '--learning_rate', 1e-12, '--weight_decay', 0, '--n_epochs', 9,
                          '--early_stopping', 2, '--checkpoint', 9, '--momentum', 0)
    assert run_main(argv) == 0
    out = capsys.readouterr().out
    assert '--early_stopping 2: so many epochs were no better' in out
    n_done = len(log_rows(tmp_path, 'train.log'))
    assert n_done < 9 and (tmp_path / f'save_{n_done}.pth').exists()
    assert n_done - state_of(tmp_path, n_done)['best_epoch'] == 2
    assert run_main([*argv, '--resume_path', 'auto']) == 0
    assert 'raise --early_stopping' in capsys.readouterr().err
    assert len(log_rows(tmp_path, 'train.log')) == n_done
    assert run_main([*argv, '--resume_path', tmp_path / f'save_{n_done}.pth', '--early_stopping',
                     3]) == 0
    assert len(log_rows(tmp_path, 'train.log')) == n_done + 1


def test_epochs_without_a_validation_are_no_worse(tiny_data, tmp_path):
    """A training went no further, as its best was that of epoch 0."""
    argv = tiny_data.argv(tmp_path, '--sample_duration', 4)
    assert run_main([*argv, '--no_val']) == 0
    assert run_main([*argv, '--resume_path', 'auto', '--n_epochs', 3, '--early_stopping', 2]) == 0
    assert len(log_rows(tmp_path, 'val.log')) == 1 and state_of(tmp_path, 3)['best_epoch'] == 3


# ---------------------------------------------------------------- frozen, unfrozen, dropped

def test_frozen_norms_stay_as_they_are(tiny_data, tmp_path, pretrained):
    assert run_main(tiny_data.argv(tmp_path, '--pretrain_path', pretrained, '--freeze_bn',
                                   '--no_val')) == 0
    before, after = weights.load(pretrained)['state_dict'], state_of(tmp_path, 2)['state_dict']
    norms = {name for name in before if '.bn' in name or name.startswith('bn')
             or '.downsample.1' in name}
    assert norms and all(torch.equal(before[name], after[name]) for name in norms)
    assert not any(torch.equal(before[name], after[name]) for name in before.keys() - norms)


def test_frozen_norms_take_single_clips(tiny_data, tmp_path, pretrained):
    flags = ('--batch_size', 1, '--sample_duration', 1, '--pretrain_path', pretrained,
             '--accumulate', 4, '--no_val', '--n_epochs', 1, '--learning_rate', 0.001)
    assert run_main(tiny_data.argv(tmp_path, *flags, '--freeze_bn')) == 0
    assert len(log_rows(tmp_path)) == 3


def test_what_is_frozen_is_trained_later(tiny_data, tmp_path, pretrained):
    assert run_main(tiny_data.argv(
        tmp_path, '--pretrain_path', pretrained, '--ft_begin_module', 'layer4', '--unfreeze_epoch',
        1, '--no_val')) == 0
    states = [weights.load(pretrained), state_of(tmp_path, 1), state_of(tmp_path, 2)]
    before, frozen, trained = (state['state_dict'] for state in states)
    for name in ('conv1.weight', 'bn1.running_mean', 'layer3.0.conv1.weight'):
        assert torch.equal(before[name], frozen[name]) and not torch.equal(before[name],
                                                                           trained[name])
    assert not torch.equal(before['layer4.0.conv1.weight'], frozen['layer4.0.conv1.weight'])
    counts = [int(row['n_frozen']) for row in log_rows(tmp_path, 'train.log')]
    assert counts[0] > 0 and counts[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize('flags', [
    ('--model', 'resnet', '--model_depth', 10, '--resnet_widen_factor', 0.125),
    ('--model', 'densenet', '--model_depth', 121), ('--model', 'i3d'),
    ('--model', 'x3d', '--model_size', 'xs'), ('--model', 'r3d_18'),
    ('--model', 's3d'), ('--model', 'mvit_v1_b')],
    ids=lambda flags: flags[1])
def test_dropout_is_of_what_the_classifier_gets(flags):
    opts = parse_opts(['--video_path', 'v', '--annotation_path', 'a', '--result_path', 'r',
                       '--n_classes', '3', *map(str, flags)])
    networks = [build_network(opts) for _ in range(2)]
    seen = []
    for network, share in zip(networks, (0, 0.5)):
        set_dropout(network, share)
        network.get_submodule(network.classifier_name).register_forward_hook(
            lambda _module, inputs, _out: seen.append(inputs[0]))
        n_channels = 192 if opts.model == 'x3d' else network.num_features
        network.train().forward_head(torch.ones(8, n_channels, 2, 7, 7))
    whole, dropped = seen
    is_kept = dropped != 0
    torch.testing.assert_close(dropped[is_kept], 2 * whole[is_kept])
    assert float(is_kept.sum() / (whole != 0).sum()) == pytest.approx(0.5, abs=0.1)
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()


# ---------------------------------------------------------------- the average of the weights

@pytest.fixture(scope='module')
def averaged(tiny_data, tmp_path_factory):
    """Result folder of a training that kept an average far from its weights."""
    folder = tmp_path_factory.mktemp('averaged')
    assert run_main(tiny_data.argv(folder, '--ema_decay', 0.99, '--inference')) == 0
    return folder


@pytest.mark.slow
def test_the_average_is_evaluated_and_used(tiny_data, averaged, tmp_path):
    path = averaged / 'save_2.pth'
    file = weights.load(path)
    assert not torch.equal(file['state_dict']['fc.weight'], file['ema_state_dict']['fc.weight'])
    row = log_rows(averaged, 'val.log')[-1]
    results = {}
    for use in ('auto', 'yes', 'no'):
        assert run_main(tiny_data.argv(tmp_path / use, '--no_train', '--inference', '--use_ema',
                                       use, '--resume_path', path)) == 0
        results[use] = json.loads((tmp_path / use / 'val.json').read_text())['results']
        assert (log_rows(tmp_path / use, 'val.log')[-1]['loss'] == row['loss']) == (use != 'no')
    assert results['auto'] == results['yes'] != results['no']
    # So did the inference that followed the training.
    assert json.loads((averaged / 'val.json').read_text())['results'] == results['auto']
    for use_ema, key in ((None, 'ema_state_dict'), (True, 'ema_state_dict'),
                         (False, 'state_dict')):
        network, _ = load_model(path, use_ema=use_ema)
        assert torch.equal(network.fc.weight, file[key]['fc.weight'])


def test_fine_tuning_starts_from_the_average(tiny_data, averaged, tmp_path):
    path = averaged / 'save_2.pth'
    for use, key in (('auto', 'ema_state_dict'), ('no', 'state_dict')):
        assert run_main(tiny_data.argv(
            tmp_path / use, '--pretrain_path', path, '--use_ema', use, '--ft_begin_module', 'fc',
            '--n_epochs', 1, '--no_val')) == 0
        assert torch.equal(state_of(tmp_path / use, 1)['state_dict']['conv1.weight'],
                           weights.load(path)[key]['conv1.weight'])


def test_the_average_goes_into_safetensors(averaged, tmp_path, capsys):
    from util_scripts import describe_checkpoint, remove_dataparallel
    path = tmp_path / 'weights.safetensors'
    remove_dataparallel.main([str(averaged / 'save_2.pth'), '--dst_file_path', str(path)])
    assert torch.equal(weights.load(path)['state_dict']['fc.weight'],
                       weights.load(averaged / 'save_2.pth')['ema_state_dict']['fc.weight'])
    capsys.readouterr()
    describe_checkpoint.main([str(averaged / 'save_2.pth')])
    assert 'moving average' in capsys.readouterr().out


def test_an_average_may_begin_later(tiny_data, tmp_path, pretrained, capsys):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 1, '--no_val')) == 0
    assert run_main(tiny_data.argv(tmp_path, '--no_val', '--ema_decay', 0.9, '--resume_path',
                                   tmp_path / 'save_1.pth')) == 0
    assert 'was trained with ema_decay 0.0, and goes on with 0.9' in capsys.readouterr().err
    assert 'ema_state_dict' in state_of(tmp_path, 2)


# ---------------------------------------------------------------- distillation

def teacher_opts(data, *flags):
    return parse_opts(data.argv('unused', *flags))


def test_a_teacher_sees_its_own_clips_and_classes_go_by_name(tiny_data, pretrained):
    order = ('blue', 'red', 'green')
    teacher = Teacher(pretrained, teacher_opts(tiny_data), order, torch.device('cpu'), print)
    clips = torch.randint(256, (2, 3, 8, 32, 32), dtype=torch.uint8)
    network, info = load_model(pretrained)
    assert info.class_names == CLASSES and info.opts.no_mean_norm
    larger = F.interpolate(clips.float(), (8, 48, 48), mode='trilinear')
    with torch.no_grad():
        expected = network(info.normalize(larger))
    torch.testing.assert_close(teacher(clips), expected[:, [2, 0, 1]])


@pytest.mark.slow
def test_a_teacher_takes_the_clips_of_all_phases(tiny_data, tmp_path):
    """Those of a shorter phase were refused when their epoch came."""
    i3d = teacher_opts(tiny_data, '--model', 'i3d')
    network, path = build_network(i3d), tmp_path / 'i3d.pth'
    torch.save({**weights.describe(i3d, network, CLASSES), 'state_dict': network.state_dict()},
               path)
    opts = teacher_opts(tiny_data, '--clip_schedule', '4x32@1', '8x32@1')
    with pytest.raises(InputError, match='^--teacher_path .*: i3d takes clips of at least 8 fr'):
        Teacher(path, opts, CLASSES, torch.device('cpu'), print)


def test_distillation_is_that_of_the_paper(tiny_data, pretrained):
    teacher = Teacher(pretrained, teacher_opts(tiny_data), CLASSES, torch.device('cpu'), print)
    clips = torch.randint(256, (4, 3, 8, 32, 32), dtype=torch.uint8)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    loss = DistillationLoss(lambda logits, labels, _clips: F.cross_entropy(logits, labels),
                            teacher, temperature=3, weight=0.25)(logits, labels, clips)
    wanted, own = (torch.softmax(values / 3, dim=1) for values in (teacher(clips), logits))
    soft = (wanted * (wanted.log() - own.log())).sum(dim=1).mean()
    expected = 0.75 * F.cross_entropy(logits, labels) + 0.25 * 9 * soft
    torch.testing.assert_close(loss, expected)


def test_a_teacher_alone_is_followed(tiny_data, pretrained, tmp_path):
    """With all weight on its loss, labels do not matter."""
    flags = ('--teacher_path', pretrained, '--distill_weight', 1, '--no_val', '--n_epochs', 1)
    assert run_main(tiny_data.argv(tmp_path / 'a', *flags)) == 0
    assert run_main(tiny_data.argv(tmp_path / 'b', *flags, '--label_smoothing', 0.9)) == 0
    assert same_state(*(state_of(tmp_path / name, 1)['state_dict'] for name in 'ab'))


# ---------------------------------------------------------------- what does not go together

@pytest.mark.parametrize('flags, words', [
    (('--optimizer', 'adamw', '--nesterov'), '--nesterov is for --optimizer sgd'),
    (('--adam_betas', 0.9, 1), "'1' is not a number of at least 0 and below 1"),
    (('--ema_decay', 1), "'1' is not"), (('--layer_decay', 0), "'0' is not"),
    (('--label_smoothing', 1), "'1' is not"), (('--dropout', 1), "'1' is not"),
    (('--accumulate', 0), "'0' is not"), (('--distill_weight', 2), "'2' is not"),
    (('--head_lr_factor', 0), "'0' is not"), (('--clip_grad_norm', -1), "'-1' is not"),
    (('--teacher_path', 'missing.pth'), 'missing.pth: no such checkpoint'),
    (('--batch_size', 1, '--sample_duration', 1), 'a batch would hold a single clip')])
def test_flags_that_do_not_go_together(tiny_data, tmp_path, capsys, flags, words):
    assert run_main(tiny_data.argv(tmp_path, *flags)) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and words in error


def test_files_that_do_not_go_with_flags(tiny_data, own_data, pretrained, tmp_path, capsys):
    annotation = own_data.read()
    annotation['labels'] = ['red', 'green', 'violet']
    for entry in annotation['database'].values():
        if entry['annotations'].get('label') == 'blue':
            entry['annotations']['label'] = 'violet'
    own_data.write(annotation)
    (own_data.root / 'jpg' / 'blue').rename(own_data.root / 'jpg' / 'violet')
    cases = [
        (own_data, ('--teacher_path', pretrained), 'the teacher has 3 classes without violet'),
        (tiny_data, ('--no_train', '--resume_path', pretrained, '--use_ema', 'yes'),
         'holds no moving average'),
        (tiny_data, ('--resume_path', pretrained, '--use_ema', 'no'), 'drop it, or add --no_train'),
        (tiny_data, ('--resume_path', pretrained, '--layer_decay', 0.5), '--layer_decay'),
        (tiny_data, ('--resume_path', pretrained, '--optimizer', 'adamw'), 'another --optimizer')]
    for data, flags, words in cases:
        assert run_main(data.argv(tmp_path / 'results', *flags)) == 2, words
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith('error: ') and words in line


@pytest.mark.parametrize('flags, words', [
    (('--teacher_path', 'missing.pth'), 'missing.pth: no such checkpoint'),
    # That of epoch 2 was refused there.
    (('--model', 'i3d', '--n_epochs', 3, '--clip_schedule', '8x32@1', '4x32@1', '8x32@1'),
     'i3d takes clips of at least 8 frames and 32 pixels')])
def test_what_is_refused_leaves_the_folder_alone(tiny_data, tmp_path, capsys, flags, words):
    """It set aside what was there first."""
    earlier = tmp_path / 'save_1.pth'
    earlier.touch()
    argv = tiny_data.argv(tmp_path)
    if 'i3d' in flags:
        place = argv.index('--model_depth')
        del argv[place:place + 4]
    assert run_main([*argv, *map(str, flags)]) == 2
    assert words in capsys.readouterr().err and list(tmp_path.iterdir()) == [earlier]


@pytest.mark.parametrize('damage', [
    lambda state: state['ema_state_dict'].pop('fc.weight'),
    lambda state: state['ema_state_dict'].update({'fc.bias': torch.zeros(1)}),
    lambda state: state.update(ema_state_dict=7),
    lambda state: state.update(ema_updates='many')], ids=['missing', 'shape', 'none', 'count'])
def test_a_damaged_average_is_named(tiny_data, averaged, tmp_path, capsys, damage):
    state = torch.load(averaged / 'save_1.pth', weights_only=True)
    damage(state)
    torch.save(state, tmp_path / 'save_1.pth')
    assert run_main(tiny_data.argv(tmp_path, '--resume_path', tmp_path / 'save_1.pth',
                                   '--ema_decay', 0.99)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f'error: {tmp_path / "save_1.pth"}: its moving average')


@pytest.mark.slow
def test_stages_hold_all_parameters():
    """So that groups of learning rates leave none out; the classifier has its own alone. That of
    X3D is part of a stage, of which other weights had its rate."""
    for model in ('resnet', 'i3d', 'x3d', 'r2plus1d_18', 'densenet', 'mvit_v1_b', 'swin3d_t'):
        opts = parse_opts(['--video_path', 'v', '--annotation_path', 'a', '--result_path', 'r',
                           '--model', model, '--model_depth', 121 if model == 'densenet' else 18])
        with torch.device('meta'):
            network = build_network(opts)
        assert isinstance(network, Classifier)
        parts = [id(p) for part in stages(network).values() for p in part.parameters()]
        assert sorted(parts) == sorted(id(p) for p in network.parameters())
        *_, last = trained_parameters(network, replace(opts, head_lr_factor=10.0))
        classifier = network.get_submodule(network.classifier_name)
        assert last['lr'] == 1 and {*map(id, last['params'])} == {*map(id, classifier.parameters())}
