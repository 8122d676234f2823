"""Training: what steps the weights, and one epoch of it."""

from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

from metrics import Sums
from runtime import distributed
from runtime.errors import InputError


class Step(NamedTuple):
    """What one step gave: over all processes, and as tensors, so that reading them can wait.

    clips: this process's, uint8 (N, C, T, h, w)
    """

    clips: torch.Tensor
    n_clips: int
    loss: torch.Tensor
    acc: torch.Tensor


def train_epoch(loader, model, normalize, task, optimizer, scaler, *, device, sums=None,
                on_step=None, skip_nonfinite=False):
    """Pass over the loader from its position on; returns {'loss', 'acc'}, means over the clips.

    'acc' is top-1: how many clips have their label, or one of their labels, as the best class.

    model:     (N, C, T, H, W) float -> (N, n_classes) logits
    normalize: uint8 clips -> float, on the device
    task:      a tasks.Task
    scaler:    torch.amp.GradScaler, of `build_scaler`
    sums:      metrics.Sums of the epoch's earlier batches, added to
    on_step:   called with the Step after each

    With `skip_nonfinite` a step whose loss is not finite changes nothing and is counted in
    sums 'skipped'. The gradient is that of the mean loss over the batch of all processes.
    """
    model.train()
    sums = Sums() if sums is None else sums
    batches = loader.batch_sampler
    for i, batch in enumerate(loader, batches.begin_batch):
        n_total = batches.total(i)
        # A process without a sample of its own goes through the motions with another's.
        is_own = batches.rank < n_total
        clips = normalize(batch.clips.to(device, non_blocking=True))
        labels = batch.labels.to(device, non_blocking=True)
        buffers = [b.clone() for b in model.buffers()] if skip_nonfinite else ()

        logits = model(clips)
        loss_sum = task.criterion(logits, labels) * (len(labels) * is_own)
        hits, = task.hits(logits.detach(), labels, (1,))
        loss, acc = distributed.total(torch.stack([loss_sum.detach(), hits * is_own])) / n_total
        optimizer.zero_grad(set_to_none=True)
        # Parallel processes average their gradients; so each gives its share of the mean.
        scaler.scale(loss_sum * (batches.world_size / n_total)).backward()
        if skip_nonfinite and not loss.isfinite():
            for buffer, value in zip(model.buffers(), buffers):
                buffer.copy_(value)
            sums.add(skipped=1)
        else:
            scaler.step(optimizer)
            scaler.update()
            sums.add(clips=n_total, loss=loss * n_total, hits=acc * n_total)
        if on_step:
            on_step(Step(batch.clips, n_total, loss, acc))
    return {'loss': sums.mean('loss', 'clips'), 'acc': sums.mean('hits', 'clips')}


def build_optimizer(opts, network):
    """SGD, as the flags say, over the parameters that are not frozen."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = SGD(parameters, opts.learning_rate, momentum=opts.momentum,
                    dampening=0.0 if opts.nesterov else opts.dampening,
                    weight_decay=opts.weight_decay, nesterov=opts.nesterov, fused=True)
    if opts.precision == 'fp16' and opts.momentum:
        # Where a scaled loss overflows at the first step, torch would leave these unset.
        for parameter in parameters:
            optimizer.state[parameter]['momentum_buffer'] = torch.zeros_like(parameter)
    return optimizer


def build_scaler(opts, device):
    """Scales the loss of fp16, whose small gradients would be 0; passes others through."""
    return torch.amp.GradScaler(device.type, enabled=opts.precision == 'fp16')


def build_scheduler(opts, optimizer):
    """What divides the learning rate by 10: at epochs, or on a plateau of the validation loss."""
    if opts.lr_scheduler == 'multistep':
        return MultiStepLR(optimizer, opts.multistep_milestones, gamma=0.1)
    return ReduceLROnPlateau(optimizer, patience=opts.plateau_patience)


def step_scheduler(scheduler, val_loss=None):
    """End an epoch; a plateau is seen in the validation loss."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(val_loss)
    else:
        scheduler.step()


def restore(opts, weights, optimizer, scheduler, scaler):
    """Put what steps the weights where the checkpoint left it. Raises InputError."""
    state, path = weights.training, weights.path
    if state is None:
        raise InputError(f'{path}: holds weights but no state of a training; start a training '
                         'from them with --pretrain_path, or evaluate them with --no_train')
    is_multistep = isinstance(scheduler, MultiStepLR)
    if is_multistep != ('milestones' in state['scheduler']):
        raise InputError(f'{path}: was trained with another --lr_scheduler than '
                         f'{opts.lr_scheduler}; give the one it was trained with')
    try:
        optimizer.load_state_dict(state['optimizer'])
    except (ValueError, KeyError):
        raise InputError(f'{path}: its optimiser state is of other parameters than those trained '
                         'now; give the --ft_begin_module it was trained with') from None
    for group in optimizer.param_groups:
        group['fused'] = True  # files of other code have it otherwise
    scheduler.load_state_dict(state['scheduler'])
    if state.get('scaler') and scaler.is_enabled():
        scaler.load_state_dict(state['scaler'])
    if is_multistep and not weights.is_ours:
        scheduler.step()  # the 2020 code saved before this step
    if is_multistep and opts.overwrite_milestones:
        _set_milestones(scheduler, optimizer, opts.multistep_milestones)


def _set_milestones(scheduler, optimizer, milestones):
    """New milestones, and the learning rate they give for the present epoch."""
    scheduler.milestones = Counter(milestones)
    n_passed = bisect_right(sorted(milestones), scheduler.last_epoch)
    for group, base_lr in zip(optimizer.param_groups, scheduler.base_lrs):
        group['lr'] = base_lr * scheduler.gamma ** n_passed
    scheduler._last_lr = [group['lr'] for group in optimizer.param_groups]
