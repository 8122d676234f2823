"""Training against a plain loop in PyTorch: same network, batches and flags, same weights."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import weights
from datasets.annotations import read_annotation
from datasets.loading import build_loader
from model import build_network, stages
from opts import normalization, parse_opts
from spatial_transforms import Normalize
from tests.tiny_data import run_main

pytestmark = pytest.mark.slow

N_EPOCHS = 3
# 3 batches of 4 clips an epoch, large enough that batch norm is no chaos.
BASE = ('--batch_size', 4, '--n_epochs', N_EPOCHS, '--no_val', '--learning_rate', 0.01,
        '--sample_size', 48, '--sample_duration', 4)
CASES = {
    'sgd': (),
    'nesterov, clipped': ('--nesterov', '--clip_grad_norm', 0.5),
    # The last step of an epoch is of one batch.
    'adamw, accumulated, clipped': ('--optimizer', 'adamw', '--learning_rate', 0.001,
                                    '--weight_decay', 0.1, '--accumulate', 2, '--clip_grad_norm',
                                    1),
    'average': ('--ema_decay', 0.3),
    'cosine after warm-up': ('--lr_scheduler', 'cosine', '--warmup_epochs', 0.5),
    'layer decay': ('--layer_decay', 0.5, '--head_lr_factor', 3, '--no_norm_decay',
                    '--weight_decay', 0.1),
    'mixup': ('--mixup', 0.4, '--accumulate', 2),
    'label smoothing': ('--label_smoothing', 0.2),
    'all': ('--optimizer', 'adamw', '--learning_rate', 0.002, '--accumulate', 2,
            '--clip_grad_norm', 1, '--ema_decay', 0.35, '--warmup_epochs', 1, '--layer_decay', 0.7,
            '--lr_scheduler', 'cosine', '--label_smoothing', 0.1, '--no_norm_decay'),
}
# Of a ResNet: how many stages are behind each.
DEPTHS = {'conv1': 5, 'bn1': 5, 'layer1': 4, 'layer2': 3, 'layer3': 2, 'layer4': 1, 'fc': 0}


@pytest.fixture(autouse=True)
def in_float64():
    """Rounding grows from step to step, above all where batch norm sees few clips."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def plain_optimizer(network, opts):
    groups = []
    for name, part in stages(network).items():
        rate = opts.learning_rate * opts.layer_decay ** DEPTHS.get(name, 0)
        rate *= opts.head_lr_factor if name == 'fc' else 1
        for parameter in part.parameters():
            spared = opts.no_norm_decay and parameter.dim() == 1
            groups.append({'params': [parameter], 'lr': rate, 'initial_lr': rate,
                           'weight_decay': 0.0 if spared else opts.weight_decay})
    if opts.optimizer == 'adamw':
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=opts.momentum, nesterov=opts.nesterov)


def rate_factor(opts, step, steps_per_epoch):
    if step < opts.warmup_epochs * steps_per_epoch:
        return min(1, (step + 1) / (opts.warmup_epochs * steps_per_epoch))
    if opts.lr_scheduler == 'cosine':
        epochs = step / steps_per_epoch - opts.warmup_epochs
        return (1 + math.cos(math.pi * epochs / (opts.n_epochs - opts.warmup_epochs))) / 2
    return 1


def mixed(order, i, clips, labels, opts):
    """Clips and targets of batch i, mixed by what a training draws for it."""
    targets = F.one_hot(labels, 3).to(torch.get_default_dtype())
    if not opts.mixup:
        return clips, targets
    with order.batch_draw(i):
        torch.multinomial(torch.tensor([1.0]), 1)  # mixup or cutmix
        alpha = torch.tensor([opts.mixup])
        share = float(torch.distributions.Beta(alpha, alpha).sample(()))
    return tuple(share * x + (1 - share) * x.roll(1, 0) for x in (clips, targets))


def plain_training(opts):
    """(network, its average) after a loop that a reader of PyTorch's tutorials would write."""
    loader = build_loader(opts, 'train', read_annotation(opts.annotation_path))
    network = build_network(opts).train()
    average = copy.deepcopy(network)
    normalize = Normalize(*normalization(opts), opts.value_scale)
    optimizer = plain_optimizer(network, opts)
    step = 0
    for epoch in range(1, opts.n_epochs + 1):
        loader.batch_sampler.set_position(epoch)
        batches = list(loader)
        groups = [batches[i:i + opts.accumulate] for i in range(0, len(batches), opts.accumulate)]
        for group in groups:
            for settings in optimizer.param_groups:
                settings['lr'] = settings['initial_lr'] * rate_factor(opts, step, len(groups))
            optimizer.zero_grad()
            n_clips = sum(len(batch.labels) for batch in group)
            for batch in group:
                number = next(i for i, other in enumerate(batches) if other is batch)
                clips, targets = mixed(loader.batch_sampler, number, batch.clips, batch.labels,
                                       opts)
                loss = F.cross_entropy(network(normalize(clips)), targets, reduction='sum',
                                       label_smoothing=opts.label_smoothing)
                (loss / n_clips).backward()
            if opts.clip_grad_norm:
                nn.utils.clip_grad_norm_(network.parameters(), opts.clip_grad_norm)
            optimizer.step()
            step += 1
            decay = min(opts.ema_decay, step / (9 + step))
            for kept, new in zip(average.state_dict().values(), network.state_dict().values()):
                kept.copy_(decay * kept + (1 - decay) * new if kept.is_floating_point() else new)
    assert step >= 5
    return network, average


def assert_close(state_dict, network, tolerance):
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state_dict[name], value, rtol=tolerance, atol=tolerance,
                                   msg=name)


@pytest.mark.parametrize('case', CASES)
def test_weights_are_those_of_a_plain_loop(tiny_data, tmp_path, case):
    argv = tiny_data.argv(tmp_path, *BASE, *CASES[case])
    assert run_main(argv) == 0
    file = weights.load(tmp_path / f'save_{N_EPOCHS}.pth')
    network, average = plain_training(parse_opts(argv))
    # Clips are mixed in float32.
    tolerance = 1e-5 if '--mixup' in CASES[case] else 1e-9
    assert_close(file['state_dict'], network, tolerance)
    if '--ema_decay' in CASES[case]:
        assert_close(file['ema_state_dict'], average, tolerance)
    assert ('ema_state_dict' in file) == ('--ema_decay' in CASES[case])
