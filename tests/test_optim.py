"""Optimisers and schedules: torch's own loop gives the same weights, and states of torch go on."""

import json

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

import optim
from optim import SCHEDULES, MultiStep, Optimization
from opts import build_parser
from tests.tiny_data import run_main

CPU = torch.device('cpu')
# Validation losses of epochs that fall, and then do not.
LOSSES = (3.0, 2.0, 2.0, 1.99999, 2.5, 1.0, 1.0, 1.0, 1.0)


def options(*flags):
    return build_parser().parse_args(['--learning_rate', '0.05', *map(str, flags)])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def losses(net, n_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_steps):
        rows = torch.randn(4, 6, generator=generator)
        yield nn.functional.cross_entropy(net(rows), torch.tensor([0, 1, 2, 0]))


def ours(net, *flags, steps_per_epoch=1):
    return Optimization(net.parameters(), options(*flags), CPU, steps_per_epoch)


def assert_same_weights(a, b):
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


@pytest.mark.parametrize('flags, settings', [
    ((), {}),
    (('--momentum', 0), {'momentum': 0}),
    (('--nesterov', '--dampening', 0.5), {'nesterov': True}),
    (('--dampening', 0.5, '--weight_decay', 0), {'dampening': 0.5, 'weight_decay': 0})])
def test_five_steps_are_those_of_a_plain_loop(flags, settings):
    net, plain = network(), network()
    optimization = ours(net, *flags)
    for loss in losses(net, 5):
        assert optimization.step(loss)
    optimizer = SGD(plain.parameters(), 0.05, **{'momentum': 0.9, 'weight_decay': 1e-3,
                                                 **settings})
    for loss in losses(plain, 5):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours_, theirs in zip(net.parameters(), plain.parameters()):
        torch.testing.assert_close(ours_, theirs, rtol=1e-6, atol=1e-6)


def test_five_steps_of_adam_are_those_of_torch_to_the_bit():
    net, plain = network(), network()
    optimization = ours(net, '--optimizer', 'adamw', '--adam_betas', 0.8, 0.99)
    optimizer = AdamW(plain.parameters(), 0.05, (0.8, 0.99), weight_decay=1e-3, fused=True)
    for own, loss in zip(losses(net, 5), losses(plain, 5)):
        optimization.step(own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_same_weights(net, plain)


SCHEDULED = [
    (('--multistep_milestones', 2, 5, 5, 7),
     lambda optimizer: MultiStepLR(optimizer, [2, 5, 5, 7])),
    (('--lr_scheduler', 'plateau', '--plateau_patience', 1),
     lambda optimizer: ReduceLROnPlateau(optimizer, patience=1)),
    (('--lr_scheduler', 'plateau', '--plateau_patience', 0),
     lambda optimizer: ReduceLROnPlateau(optimizer, patience=0))]


def torch_training(make_schedule, n_epochs):
    """(network, optimiser, schedule, rates after each epoch) of a loop in plain torch."""
    net = network()
    optimizer = SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-3, fused=True)
    schedule, rates = make_schedule(optimizer), []
    for epoch in range(n_epochs):
        for loss in losses(net, 2, seed=epoch):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step(*([LOSSES[epoch]] if isinstance(schedule, ReduceLROnPlateau) else []))
        rates.append(optimizer.param_groups[0]['lr'])
    return net, optimizer, schedule, rates


@pytest.mark.parametrize('flags, make_schedule', SCHEDULED)
def test_schedules_are_those_of_torch(flags, make_schedule):
    plain, _, _, expected = torch_training(make_schedule, len(LOSSES))
    net, rates = network(), []
    optimization = ours(net, *flags)
    for epoch, val_loss in enumerate(LOSSES):
        for loss in losses(net, 2, seed=epoch):
            optimization.step(loss)
        optimization.end_epoch(val_loss)
        rates.append(optimization.lr)
    assert rates == expected and len(set(rates)) > 2
    assert_same_weights(net, plain)


@pytest.mark.parametrize('flags, make_schedule', SCHEDULED)
@pytest.mark.parametrize('saved_after', range(1, len(LOSSES)))
def test_states_of_torch_go_on_to_the_bit(flags, make_schedule, saved_after):
    """As files of earlier code hold them, with milestones as a Counter."""
    expected, _, _, _ = torch_training(make_schedule, len(LOSSES))
    net, optimizer, schedule, rates = torch_training(make_schedule, saved_after)
    state = {'optimizer': optimizer.state_dict(), 'scheduler': schedule.state_dict()}
    optimization = ours(net, *flags)
    optimization.load_state_dict(state)
    for epoch in range(saved_after, len(LOSSES)):
        assert optimization.lr == rates[-1]
        for loss in losses(net, 2, seed=epoch):
            optimization.step(loss)
        optimization.end_epoch(LOSSES[epoch])
        rates.append(optimization.lr)
    assert_same_weights(net, expected)


@pytest.mark.parametrize('flags, make_schedule', SCHEDULED)
def test_torch_takes_our_states(flags, make_schedule):
    """Other people's tools read them as those of MultiStepLR and ReduceLROnPlateau."""
    net = network()
    optimization = ours(net, *flags)
    for epoch, val_loss in enumerate(LOSSES[:6]):
        for loss in losses(net, 2, seed=epoch):
            optimization.step(loss)
        optimization.end_epoch(val_loss)
    state = optimization.state_dict()
    expected, optimizer, schedule, rates = torch_training(make_schedule, 6)
    schedule.load_state_dict(state['scheduler'])
    optimizer.load_state_dict(state['optimizer'])
    assert schedule.last_epoch == 6
    for val_loss in LOSSES[6:]:
        optimizer.step()
        schedule.step(*([val_loss] if isinstance(schedule, ReduceLROnPlateau) else []))
        optimization.end_epoch(val_loss)
        assert optimizer.param_groups[0]['lr'] == optimization.lr


def test_another_learning_rate_scales_the_present_one():
    net = network()
    optimization = ours(net, '--multistep_milestones', 1)
    optimization.end_epoch()
    state = optimization.state_dict()
    same, lower = (Optimization(net.parameters(), options(
        '--multistep_milestones', 1, '--learning_rate', lr, '--momentum', 0.5), CPU)
        for lr in (0.05, 0.01))
    for other in (same, lower):
        other.load_state_dict(state)
        assert other.state_dict()['optimizer']['param_groups'][0]['momentum'] == 0.5
    assert same.lr == optimization.lr
    assert lower.lr == pytest.approx(0.001)


def test_a_loss_that_is_not_to_be_used_changes_nothing():
    net, before = network(), network()
    optimization = ours(net)
    loss, = losses(net, 1)
    assert not optimization.step(loss, only_if=lambda: False)
    assert_same_weights(net, before)


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_only_fp16_scales_the_loss(precision):
    scaler = ours(network(), '--precision', precision).state_dict()['scaler']
    assert bool(scaler) == (precision == 'fp16')


def test_momentum_of_fp16_is_there_before_the_first_step_that_counts():
    state = ours(network(), '--precision', 'fp16').state_dict()['optimizer']['state']
    assert len(state) == 4 and not any(values['momentum_buffer'].any() for values in state.values())


class EachStep(MultiStep):
    """A schedule that falls linearly with each step."""

    def end_step(self, rates, base, progress):
        return [rate * (1 - progress / 10) for rate in base]


def test_a_schedule_may_move_each_step_and_what_is_logged_was_used(tiny_data, tmp_path,
                                                                   monkeypatch):
    """A row is all that a new schedule is."""
    monkeypatch.setitem(SCHEDULES, 'multistep', lambda opts: EachStep(opts.multistep_milestones))
    used = []

    class Watched(SGD):
        def step(self, *args, **kwargs):
            used.append(self.param_groups[0]['lr'])
            return super().step(*args, **kwargs)

    monkeypatch.setitem(optim.OPTIMIZERS, 'sgd',
                        lambda parameters, opts: Watched(parameters, opts.learning_rate))
    assert run_main(tiny_data.argv(tmp_path)) == 0
    rows = [line.split('\t') for line in (tmp_path / 'train_batch.log').read_text().splitlines()]
    logged = [float(row[rows[0].index('lr')]) for row in rows[1:]]
    assert logged == pytest.approx([0.05 * (1 - step / 30) for step in range(6)])
    assert logged == pytest.approx(used)
    assert json.loads((tmp_path / 'opts.json').read_text())['learning_rate'] == 0.05


# ---------------------------------------------------------------- by hand

def test_groups_of_a_network_by_hand():
    """Stages of depth 1 (a layer, its norm, what has no weights) and 2, the classifier."""
    first, norm, last = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 4)
    parts = [first, norm, nn.ReLU(), last]
    flags = ('--layer_decay', 0.5, '--head_lr_factor', 10, '--weight_decay', 0.01)
    groups = optim.parameter_groups(parts, options(*flags, '--no_norm_decay'))
    assert [([id(parameter) for parameter in group['params']], group['lr'], group['weight_decay'])
            for group in groups] == [
        ([id(first.weight)], 0.025, 0.01),
        ([id(first.bias), id(norm.weight), id(norm.bias)], 0.025, 0.0),
        ([id(last.weight)], 0.5, 0.01), ([id(last.bias)], 0.5, 0.0)]
    assert [len(group['params']) for group in optim.parameter_groups(parts, options(*flags))] == [
        4, 2]
    plain = options()
    assert [len(group['params']) for group in optim.parameter_groups(parts, plain)] == [6]
    assert [len(group['params'])
            for group in optim.parameter_groups(parts, plain, n_late=2)] == [4, 2]


def test_half_a_cosine_by_hand():
    schedule, base = optim.Cosine(10, 2), [1.0, 0.5]
    for progress, share in ((0, 1), (2, 1), (4, 0.8535534), (6, 0.5), (10, 0), (12, 0)):
        assert schedule.end_step(base, base, progress) == pytest.approx([share, share / 2])
    assert optim.Cosine(10).end_step(base, base, 5) == pytest.approx([0.5, 0.25])


def test_milestones_count_up_to_the_epoch_of_a_state():
    state = {'last_epoch': 4, 'milestones': {9: 1}}
    assert MultiStep([2, 4, 5]).resume(state, [0.3], [1.0]) == pytest.approx([0.01])
    assert MultiStep([9]).resume(state, [0.3], [1.0]) == [0.3]


@pytest.mark.parametrize('state, name', [
    ({'milestones': {}}, 'multistep'), ({'best': 1}, 'plateau'),
    ({'name': 'cosine', 'milestones': {}}, 'cosine')])
def test_a_schedule_is_known_by_its_state(state, name):
    assert optim.schedule_name(state) == name


def test_a_plateau_leaves_rates_that_would_hardly_move():
    schedule = optim.Plateau(patience=0)
    rates = [1.0, 1.05e-8]  # by less than 1e-8
    for val_loss in (1.0, 1.0):
        rates = schedule.end_epoch(rates, rates, val_loss)
    assert rates == [0.1, 1.05e-8]


def test_rates_of_steps_by_hand():
    def rates(n, *flags, **arguments):
        optimization = Optimization(network().parameters(), options(*flags), CPU, **arguments)
        optimization.begin_epoch(arguments.get('steps_per_epoch', 1))
        found = [optimization.lr]
        for _ in range(n):
            optimization.step(torch.zeros((), requires_grad=True))
            found.append(optimization.lr)
        return found
    cosine = '--lr_scheduler', 'cosine', '--n_epochs', 2
    assert rates(2, *cosine) == pytest.approx([0.05, 0.025, 0])
    optimization = Optimization(network().parameters(), options(*cosine), CPU)  # of one step
    optimization.step(torch.zeros((), requires_grad=True))
    assert optimization.lr == pytest.approx(0.025)
    assert rates(5, '--warmup_epochs', 1, steps_per_epoch=4) == pytest.approx(
        [0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05])


def test_a_plateau_counts_from_the_last_epoch_of_the_warm_up():
    optimization = ours(network(), '--lr_scheduler', 'plateau', '--plateau_patience', 0,
                        '--warmup_epochs', 2)
    for val_loss, rate in ((float('inf'), 0.05), (1.0, 0.05), (2.0, 0.005)):
        optimization.end_epoch(val_loss)
        assert optimization.state_dict()['scheduler'].get('rates', [rate]) == pytest.approx([rate])
    early = ours(network(), '--lr_scheduler', 'plateau', '--plateau_patience', 0,
                 '--warmup_epochs', 2)
    early.end_epoch(1.0)
    early.end_epoch(2.0)
    assert early.lr == pytest.approx(0.005)


@pytest.mark.parametrize('saved, loaded', [('fp32', 'fp16'), ('fp16', 'fp32'), ('fp16', 'fp16')])
def test_states_of_any_precision_go_on_in_any(saved, loaded):
    state = ours(network(), '--precision', saved).state_dict()
    optimization = ours(network(), '--precision', loaded)
    optimization.load_state_dict(state)
    assert bool(optimization.state_dict()['scaler']) == (loaded == 'fp16')


def test_a_plateau_alone_watches_the_loss():
    assert [ours(network(), '--lr_scheduler', name).watches_loss
            for name in ('plateau', 'multistep', 'cosine')] == [True, False, False]


@pytest.mark.parametrize('name, factor', [('sgd', 4), ('adamw', 2)])
def test_larger_batches_have_a_higher_rate_until_they_are_not(name, factor):
    optimization = ours(network(), '--optimizer', name)
    optimization.begin_epoch(1, 4.0)
    assert optimization.lr == pytest.approx(0.05 * factor)
    optimization.begin_epoch(1)
    assert optimization.lr == 0.05


def test_a_state_of_before_the_end_of_an_epoch_has_it_yet():
    """Those of the 2020 code were saved before the schedule's move."""
    for flags, rates in ((('--multistep_milestones', 1), (0.005, 0.05)),
                         (('--lr_scheduler', 'plateau'), (0.05, 0.05))):
        state = ours(network(), *flags).state_dict()
        for is_behind, rate in zip((True, False), rates):
            optimization = ours(network(), *flags)
            optimization.load_state_dict(state, is_one_epoch_behind=is_behind)
            assert optimization.lr == pytest.approx(rate)
    optimization = ours(network(), '--multistep_milestones', 1)
    optimization.load_state_dict(ours(network(), '--multistep_milestones', 1).state_dict())
    assert optimization.lr == 0.05


def test_a_state_in_mid_epoch_goes_on_along_the_cosine():
    flags = '--lr_scheduler', 'cosine', '--n_epochs', 2
    first = ours(network(), *flags, steps_per_epoch=4)
    for _ in range(3):
        first.step(torch.zeros((), requires_grad=True))
    second = ours(network(), *flags, steps_per_epoch=4)
    second.load_state_dict(first.state_dict(), n_steps=3)
    for optimization in (first, second):
        optimization.step(torch.zeros((), requires_grad=True))
    assert second.lr == first.lr == pytest.approx(0.025)


@pytest.mark.parametrize('n_done, n_epochs, n_steps, rate', [
    (8, 4, 0, 0.025),    # it was complete, and goes on for as many epochs again
    (6, 2, 0, 0.025),    # the second epoch begins anew, as with other batches
    (6, 4, 2, 0.0345671)])
def test_the_first_step_after_a_resume_is_on_the_cosine_of_now(n_done, n_epochs, n_steps, rate):
    """Its rate was the one in the file."""
    cosine = '--lr_scheduler', 'cosine', '--n_epochs'
    first = ours(network(), *cosine, 2, steps_per_epoch=4)
    for step in range(1, n_done + 1):
        first.step(torch.zeros((), requires_grad=True))
        if step % 4 == 0:
            first.end_epoch()
    second = ours(network(), *cosine, n_epochs)
    second.load_state_dict(first.state_dict(), n_steps)
    second.begin_epoch(4)
    assert second.lr == pytest.approx(rate)


def test_rates_of_stages_that_are_nothing():
    """The first of 200 stages learns nothing; the rate that is logged is that of the flag."""
    groups = optim.parameter_groups([nn.Linear(1, 1) for _ in range(200)],
                                    options('--layer_decay', 0.001))
    optimization = Optimization(groups, options('--layer_decay', 0.001), CPU)
    assert groups[0]['lr'] == 0 and optimization.lr == pytest.approx(0.05)


def test_fp16_goes_with_any_optimiser(monkeypatch):
    """What SGD's momentum needs made others fail."""
    monkeypatch.setitem(optim.OPTIMIZERS, 'sgd', lambda parameters, opts: torch.optim.RMSprop(
        parameters, opts.learning_rate, momentum=0.9))
    net = network()
    optimization = ours(net, '--precision', 'fp16')
    assert optimization.step(next(losses(net, 1)))


def test_states_of_other_shapes_are_refused():
    net = network()
    optimization = ours(net)
    optimization.step(next(losses(net, 1)))
    state = optimization.state_dict()
    ours(network()).load_state_dict(state)
    state['optimizer']['state'][0]['momentum_buffer'] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match='momentum_buffer is of another shape'):
        ours(network()).load_state_dict(state)


def test_a_clipped_step_is_as_long_as_the_gradient_may_be():
    net, before = network(), network()
    ours(net, '--momentum', 0, '--weight_decay', 0, '--clip_grad_norm', 0.01).step(
        next(losses(net, 1)))
    moved = torch.cat([(a - b).flatten() for a, b in zip(net.parameters(), before.parameters())])
    assert moved.norm().item() == pytest.approx(0.05 * 0.01, rel=1e-3)


def test_weights_that_a_loss_does_not_reach_stay():
    """Also where an earlier one did, without momentum; those of decay are of each step."""
    first, second = nn.Linear(2, 1), nn.Linear(2, 1)
    optimization = Optimization([*first.parameters(), *second.parameters()],
                                options('--momentum', 0), CPU)
    optimization.step((first(torch.ones(2)) + second(torch.ones(2))).sum())
    before = second.weight.clone()
    optimization.step(first(torch.ones(2)).sum())
    assert torch.equal(second.weight, before)


def test_a_plateau_is_where_a_loss_falls_by_a_ten_thousandth_at_most():
    for losses_, rate in (((1.0, 0.9998), 1.0), ((1.0, 0.99995), 0.1), ((1.0, 0.95, 0.949), 1.0)):
        schedule, rates = optim.Plateau(patience=0), [1.0]
        for val_loss in losses_:
            rates = schedule.end_epoch(rates, [1.0], val_loss)
        assert rates == [rate], losses_
    schedule = optim.Plateau(patience=0, threshold=0.5)
    assert [schedule.end_epoch([1.0], [1.0], val_loss) for val_loss in (1.0, 0.5, 0.49)] == [
        [1.0], [0.1], [1.0]]


def test_a_state_of_a_schedule_tells_all_of_it():
    state = optim.Plateau(patience=3).state_dict()
    assert state == {'name': 'plateau', 'last_epoch': 0, 'patience': 3, 'factor': 0.1, 'eps': 1e-8,
                     'threshold': 1e-4, 'best': float('inf'), 'num_bad_epochs': 0}
    assert MultiStep([3, 3]).state_dict() == {'name': 'multistep', 'last_epoch': 0, 'gamma': 0.1,
                                              'milestones': {3: 2}}


def test_a_rate_that_would_move_by_the_least_amount_stays():
    for eps, rate in ((0.5, 1.0), (0.49, 0.5)):
        schedule = optim.Plateau(patience=0, factor=0.5, eps=eps)
        schedule.end_epoch([1.0], [1.0], 1.0)
        assert schedule.end_epoch([1.0], [1.0], 1.0) == [rate]


def test_a_warm_up_of_two_epochs_and_a_state_in_it():
    """Scheduled rates are kept where those of the warm-up are others, and only there."""
    flags = '--warmup_epochs', 2, '--multistep_milestones', 1
    first = ours(network(), *flags, steps_per_epoch=2)
    rates = [first.lr]
    for _ in range(2):
        first.step(torch.zeros((), requires_grad=True))
        rates.append(first.lr)
    assert rates == pytest.approx([0.0125, 0.025, 0.0375])
    state = first.state_dict()
    assert state['scheduler']['rates'] == [0.05]
    second = ours(network(), *flags, steps_per_epoch=2)
    second.load_state_dict(state, n_steps=2)
    assert second.lr == first.lr
    assert 'rates' not in ours(network()).state_dict()['scheduler']
