"""Optimisers and learning-rate schedules, and the object that steps the weights with them.

A new optimiser is a row of OPTIMIZERS, a new schedule a row of SCHEDULES; each is also a choice of
its flag in opts.py, beside the flags that it alone reads.
"""

import math
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

# Learning rates, one per parameter group.
Rates = list[float]
# What is trained: parameters, or groups of them as torch's optimisers take these.
Parameters = Iterable[nn.Parameter] | Sequence[dict[str, Any]]
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


# ---------------------------------------------------------------- optimisers

def _sgd(parameters: Parameters, opts: Namespace) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return SGD(parameters, opts.learning_rate, momentum=opts.momentum,
               dampening=0.0 if opts.nesterov else opts.dampening,
               weight_decay=opts.weight_decay, nesterov=opts.nesterov, fused=True)


def _adamw(parameters: Parameters, opts: Namespace) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""
    return AdamW(parameters, opts.learning_rate, betas=tuple(opts.adam_betas),
                 weight_decay=opts.weight_decay, fused=True)


# By --optimizer: (parameters, options) -> optimiser.
OPTIMIZERS: dict[str, Callable[[Parameters, Namespace], Optimizer]] = {
    'sgd': _sgd, 'adamw': _adamw}


def parameter_groups(parts: Sequence[nn.Module], opts: Namespace, n_late: int = 0,
                     classifier: nn.Module | None = None) -> Parameters:
    """What is to be trained of a network, in groups of one learning rate and weight decay each.

    parts:      its stages, from the input to the classifier
    n_late:     so many of them are trained later than the others, and so are no group with them:
                torch's SGD wants all parameters of a group to begin at the same step
    classifier: a part of the last stage; all of that without it

    With --layer_decay each stage has the rate of the one behind it times that; a norm that is a
    stage by itself belongs to the stage before. --head_lr_factor multiplies the classifier's rate.
    With --no_norm_decay vectors, which are norms and biases, have no weight decay.
    """
    own = set(map(id, (classifier or parts[-1]).parameters()))
    rows = [(parameter, factor * (opts.head_lr_factor if id(parameter) in own else 1),
             opts.no_norm_decay and parameter.ndim <= 1, number < n_late)
            for number, (part, factor) in enumerate(zip(parts, _rate_factors(parts, opts)))
            for parameter in part.parameters() if parameter.requires_grad]
    kinds = dict.fromkeys(row[1:] for row in rows)
    return [{'params': [row[0] for row in rows if row[1:] == kind],
             'lr': opts.learning_rate * kind[0],
             'weight_decay': 0.0 if kind[1] else opts.weight_decay} for kind in kinds]


def _rate_factors(parts: Sequence[nn.Module], opts: Namespace) -> Rates:
    """By what --layer_decay multiplies the learning rate of each stage."""
    depths: list[int] = []
    for part in parts:
        has_own = bool(list(part.parameters())) and not isinstance(part, NORMS)
        depths.append((depths[-1] if depths else 0) + has_own)
    return [opts.layer_decay ** (depths[-1] - depth) for depth in depths]


# ---------------------------------------------------------------- schedules

class Schedule:
    """How the learning rates move; a schedule keeps no rates, it is given those of now.

    last_epoch: how many epochs are complete, under the name that torch's schedules use

    Its attributes are its state. `base` are the rates that the training was started with.
    """

    name: ClassVar[str]
    watches_loss: ClassVar[bool] = False

    def __init__(self) -> None:
        self.last_epoch = 0

    def begin_epoch(self, rates: Rates, base: Rates, progress: float) -> Rates:
        """Returns the rates of an epoch's first step, or of the first one after a resume, which may
        be of other epochs or other steps than those that the rates of now are for."""
        return rates

    def end_step(self, rates: Rates, base: Rates, progress: float) -> Rates:
        """Returns the rates of the next step; `progress` counts epochs, the part of this one too.
        """
        return rates

    def end_epoch(self, rates: Rates, base: Rates, val_loss: float | None) -> Rates:
        """Returns the rates of the next epoch; `val_loss` is None without a validation."""
        self.last_epoch += 1
        return rates

    def state_dict(self) -> dict[str, Any]:
        return {'name': self.name, **vars(self)}

    def resume(self, state: Mapping[str, Any], rates: Rates, base: Rates) -> Rates:
        """Take over a saved state, also of torch's schedule of that kind; the rates of now."""
        self.last_epoch = state['last_epoch']
        return rates


class MultiStep(Schedule):
    """Multiplies the rates by `gamma` after the epochs that are milestones.

    A milestone that is named twice counts twice, as in torch's MultiStepLR.
    """

    name = 'multistep'

    def __init__(self, milestones: Sequence[int], gamma: float = 0.1) -> None:
        super().__init__()
        self.milestones, self.gamma = Counter(milestones), gamma

    def end_epoch(self, rates: Rates, base: Rates, val_loss: float | None) -> Rates:
        super().end_epoch(rates, base, val_loss)
        return self._decayed(rates, self.last_epoch)

    def resume(self, state: Mapping[str, Any], rates: Rates, base: Rates) -> Rates:
        """With other milestones than the state's, the rates are what these give from the start."""
        super().resume(state, rates, base)
        if Counter(state['milestones']) == self.milestones:
            return rates
        for milestone in sorted(self.milestones):
            if milestone <= self.last_epoch:
                base = self._decayed(base, milestone)
        return base

    def _decayed(self, rates: Rates, epoch: int) -> Rates:
        n_times = self.milestones.get(epoch, 0)
        return [rate * self.gamma ** n_times for rate in rates] if n_times else rates


class Plateau(Schedule):
    """Multiplies the rates by `factor` when the validation loss has stopped falling: for more than
    `patience` epochs it was not below (1 - threshold) of the best.

    A rate that would move by at most `eps` stays: the rule of torch's ReduceLROnPlateau.
    """

    name, watches_loss = 'plateau', True

    def __init__(self, patience: int, factor: float = 0.1, threshold: float = 1e-4,
                 eps: float = 1e-8) -> None:
        super().__init__()
        self.patience, self.factor, self.threshold, self.eps = patience, factor, threshold, eps
        self.best, self.num_bad_epochs = float('inf'), 0

    def end_epoch(self, rates: Rates, base: Rates, val_loss: float | None) -> Rates:
        super().end_epoch(rates, base, val_loss)
        assert val_loss is not None, 'a plateau is seen in the validation loss'
        if val_loss < self.best * (1 - self.threshold):
            self.best, self.num_bad_epochs = val_loss, 0
        else:
            self.num_bad_epochs += 1
        if self.num_bad_epochs <= self.patience:
            return rates
        self.num_bad_epochs = 0
        lower = [rate * self.factor for rate in rates]
        return [new if rate - new > self.eps else rate for rate, new in zip(rates, lower)]

    def resume(self, state: Mapping[str, Any], rates: Rates, base: Rates) -> Rates:
        self.best, self.num_bad_epochs = state['best'], state['num_bad_epochs']
        return super().resume(state, rates, base)


class Cosine(Schedule):
    """Lets the rates fall to 0 along half a cosine, step by step, after the warm-up (Loshchilov and
    Hutter, "SGDR", ICLR 2017, eq. 5, without restarts)."""

    name = 'cosine'

    def __init__(self, n_epochs: int, warmup_epochs: float = 0.0) -> None:
        super().__init__()
        self.n_epochs, self.warmup_epochs = n_epochs, warmup_epochs

    def end_step(self, rates: Rates, base: Rates, progress: float) -> Rates:
        done = (progress - self.warmup_epochs) / (self.n_epochs - self.warmup_epochs)
        return [rate * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2 for rate in base]

    begin_epoch = end_step


# By --lr_scheduler: options -> schedule.
SCHEDULES: dict[str, Callable[[Namespace], Schedule]] = {
    MultiStep.name: lambda opts: MultiStep(opts.multistep_milestones),
    Plateau.name: lambda opts: Plateau(opts.plateau_patience),
    Cosine.name: lambda opts: Cosine(opts.n_epochs, opts.warmup_epochs)}


def schedule_name(state: Mapping[str, Any]) -> str:
    """Which schedule a saved state is of; those of torch's own schedules do not say it."""
    return state.get('name', MultiStep.name if 'milestones' in state else Plateau.name)


# ---------------------------------------------------------------- both, and the scaler of losses

class Optimization:
    """Steps the weights: optimiser, learning-rate schedule and loss scaler (GradScaler) in one.

        optimization = Optimization(parameters, opts, device, steps_per_epoch=len(loader))
        optimization.step(loss)
        optimization.end_epoch(val_loss)

    parameters: those to train, or groups of them as `parameter_groups` gives them
    opts:       the options that OPTIMIZERS and SCHEDULES read, `warmup_epochs`, `clip_grad_norm`,
                and `precision`: the loss of fp16 is scaled, since small gradients would be 0

    The rate of a step is that of the schedule, times what `begin_epoch` says, times a factor that
    grows linearly to 1 with the steps of the warm-up (Goyal et al., 2017, section 2.2).
    """

    def __init__(self, parameters: Parameters, opts: Namespace, device: torch.device,
                 steps_per_epoch: int = 1) -> None:
        self._optimizer = OPTIMIZERS[opts.optimizer](parameters, opts)
        self._schedule = SCHEDULES[opts.lr_scheduler](opts)
        self._scaler = torch.amp.GradScaler(device.type, enabled=opts.precision == 'fp16')
        self._steps_per_epoch, self._n_steps, self._factor = steps_per_epoch, 0, 1.0
        self._warmup_epochs, self._max_norm = opts.warmup_epochs, opts.clip_grad_norm
        for group in self._groups:
            group['initial_lr'] = group['lr']
        self._factor_of_last = self._base[-1] / opts.learning_rate
        self._scheduled = self._base
        self._complete_state()
        self._set_rates()

    @property
    def lr(self) -> float:
        """The learning rate that the next step uses, before the factors of parameter groups."""
        # The classifier's: those of early stages may be too small to move, or nothing at all.
        return self._groups[-1]['lr'] / self._factor_of_last

    @property
    def watches_loss(self) -> bool:
        """True if `end_epoch` needs the validation loss."""
        return self._schedule.watches_loss

    def begin_epoch(self, steps_per_epoch: int, batch_factor: float = 1.0) -> None:
        """Called before the first step of an epoch, or the first after a resume.

        batch_factor: how many times larger than usual its batches are. By that the rate of SGD is
                      multiplied (Goyal et al., 2017), and by its root that of Adam (Malladi et al.,
                      NeurIPS 2022).
        """
        is_sgd = isinstance(self._optimizer, SGD)
        self._steps_per_epoch = steps_per_epoch
        self._factor = batch_factor if is_sgd else math.sqrt(batch_factor)
        self._scheduled = self._schedule.begin_epoch(self._scheduled, self._base, self._progress)
        self._set_rates()

    def step(self, losses: torch.Tensor | Iterable[torch.Tensor],
             only_if: Callable[[], bool] | None = None) -> bool:
        """Backward pass of a scalar loss and update of the weights; returns True if updated.

        losses:  one, or several whose gradients add up; each is asked for after the backward pass
                 of the one before
        only_if: called after the backward passes; where it returns False the weights stay
        """
        self.backward(losses)
        is_updated = only_if is None or only_if()
        if is_updated:
            self.update()
        self._n_steps += 1
        self._scheduled = self._schedule.end_step(self._scheduled, self._base, self._progress)
        self._set_rates()
        return is_updated

    def backward(self, losses: torch.Tensor | Iterable[torch.Tensor]) -> None:
        """The first half of a step: new gradients."""
        self._optimizer.zero_grad(set_to_none=True)
        for loss in [losses] if isinstance(losses, torch.Tensor) else losses:
            self._scaler.scale(loss).backward()

    def update(self) -> None:
        """The second half: new weights."""
        if self._max_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_([parameter for group in self._groups
                                      for parameter in group['params']], self._max_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def end_epoch(self, val_loss: float | None = None) -> None:
        """Move the schedule on to the next epoch; a plateau is seen in `val_loss`."""
        self._n_steps = 0
        self._scheduled = self._schedule.end_epoch(self._scheduled, self._base, val_loss)
        if self._schedule.last_epoch < self._warmup_epochs:
            self._scheduled = self._base  # a plateau is none yet
        self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """{'optimizer', 'scheduler', 'scaler'}, each a state dict."""
        schedule = self._schedule.state_dict()
        if self._scheduled != [group['lr'] for group in self._groups]:
            schedule['rates'] = list(self._scheduled)
        return {'optimizer': self._optimizer.state_dict(), 'scheduler': schedule,
                'scaler': self._scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], n_steps: int = 0,
                        is_one_epoch_behind: bool = False) -> None:
        """Go on from what `state_dict` gave, or from states of torch's SGD and schedules.

        n_steps:             done since the last complete epoch
        is_one_epoch_behind: saved before the schedule's move at the end of the epoch

        The options of the constructor hold: where its learning rate is another than the one that
        the state began with, the present rate is scaled by their ratio. Raises ValueError or
        KeyError for a state of other parameters.
        """
        own = [{key: value for key, value in group.items() if key != 'params'}
               for group in self._groups]
        self._optimizer.load_state_dict(dict(state['optimizer']))
        for parameter, values in self._optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor) and value.dim() and (
                        value.shape != parameter.shape):
                    raise ValueError(f'{name} is of another shape than its parameter')
        rates = state['scheduler'].get('rates', [group['lr'] for group in self._groups])
        self._scheduled = [
            _rescaled(rate, group.get('initial_lr'), settings['initial_lr'])
            for rate, group, settings in zip(rates, self._groups, own)]
        for group, settings in zip(self._groups, own):
            group.update(settings)
        self._complete_state()
        self._scheduled = self._schedule.resume(state['scheduler'], self._scheduled, self._base)
        if is_one_epoch_behind and not self.watches_loss:
            self.end_epoch()
        if state.get('scaler') and self._scaler.is_enabled():
            self._scaler.load_state_dict(state['scaler'])
        self._n_steps = n_steps
        self._set_rates()

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    @property
    def _base(self) -> Rates:
        return [group['initial_lr'] for group in self._groups]

    @property
    def _progress(self) -> float:
        """Epochs that are done, the part of this one too."""
        return self._schedule.last_epoch + self._n_steps / self._steps_per_epoch

    def _set_rates(self) -> None:
        """The rates of the next step."""
        factor = self._factor
        if self._warmup_epochs:
            with_next = self._progress + 1 / self._steps_per_epoch
            factor *= min(1.0, with_next / self._warmup_epochs)
        for group, rate in zip(self._groups, self._scheduled):
            group['lr'] = rate * factor

    def _complete_state(self) -> None:
        """Where a scaled loss overflows at the first step, torch's SGD would leave momentum unset.
        """
        if not (self._scaler.is_enabled() and isinstance(self._optimizer, SGD)):
            return
        for group in self._groups:
            for parameter in group['params'] if group.get('momentum') else ():
                state = self._optimizer.state[parameter]
                if state.get('momentum_buffer') is None:
                    state['momentum_buffer'] = torch.zeros_like(parameter)


def _rescaled(rate: float, old_base: float | None, new_base: float) -> float:
    """The rate of now of a training that had begun with another one; None: that is not known."""
    if old_base in (None, new_base):
        return rate
    return new_base if rate == old_base else rate * (new_base / old_base)
