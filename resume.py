"""Resuming a training: the options it goes on with, and its position within an epoch."""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from averaging import WeightAverage
from metrics import Sums
from optim import Optimization, schedule_name
from opts import NORMALIZATION_FLAGS, TRAINING_FLAGS, Options, check, parsed_record, replace
from runtime.arguments import python
from runtime.errors import InputError
from weights import Weights

# Flags of SGD, and what a parameter group of torch's calls them.
SGD_KEYS = {'learning_rate': 'initial_lr', 'momentum': 'momentum', 'dampening': 'dampening',
            'weight_decay': 'weight_decay', 'nesterov': 'nesterov'}
# Flags that decide which states there are, and so cannot change.
FIXED_FLAGS = ('optimizer', 'lr_scheduler')
# Flags that are not taken, since they need hardware that may not be there.
HARDWARE_FLAGS = ('batchnorm_sync',)
# The order of batches in checkpoints that do not say it.
FORMER_ORDER = {'accumulate': 1, 'repeated_aug': 1, 'balanced_sampling': False}


# ---------------------------------------------------------------- options

def training_options(opts: Options) -> dict[str, Any]:
    """What a checkpoint records as `options`: those that decide the training, by name."""
    values = {name: getattr(opts, name) for name in TRAINING_FLAGS}
    # A checkpoint holds no objects but tensors.
    return {name: str(value) if isinstance(value, Path) else value
            for name, value in values.items()}


def resumed_options(opts: Options, weights: Weights, warn: Callable[[str], None]) -> Options:
    """The options with those of the training in a checkpoint, where no flag was given for them.

    The record is what was in use when the file was saved, with the learning rate as the training
    was started, before any decay: so the same command goes on unchanged. A file without a record
    tells the options of its optimiser and schedule alone. `warn` takes lines: what is taken from
    the file, and one for each flag given that differs. Raises InputError for flags that cannot
    change.
    """
    state, path = weights.training, weights.path
    if state is None:
        return opts
    started = _recorded(state, path) if 'options' in state else _told(opts, state, path, warn)
    # Of images and their values `adopt_options` speaks.
    started.update({name: value for name, value in weights.clip.items()
                    if name in opts.given and name not in NORMALIZATION_FLAGS})
    taken, lines = {}, []
    for name, old in started.items():
        new = getattr(opts, name)
        if old == new:
            continue
        if name in HARDWARE_FLAGS:
            lines.append(f'was trained with {name} {_plain(old)}, and goes on with {_plain(new)}')
        elif name not in opts.given:
            taken[name] = old
        elif name in FIXED_FLAGS:
            raise InputError(f'{path}: was trained with another --{name} than {new}; give the one '
                             'it was trained with')
        elif name == 'multistep_milestones' and not opts.overwrite_milestones:
            opts = replace(opts, multistep_milestones=old)
            lines.append(f'goes on with its milestones {_plain(old)}, not with those given '
                         f'({_plain(new)}); to take these add --overwrite_milestones')
        else:
            lines.append(f'was trained with {name} {_plain(old)}, and goes on with '
                         f'{_plain(new)}, as given')
    if taken:
        shown = ', '.join(f'{name} {_plain(value)}' for name, value in taken.items())
        lines.insert(0, f'taken from the file: {shown}')
    for line in lines:
        warn(f'{path}: {line}')
    resumed = replace(opts, **taken)
    check(resumed)
    return resumed


def _recorded(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """{flag: value} of the record in one of our checkpoints. Raises InputError."""
    error = InputError(f'{path}: its options are no record of flags; give an unchanged file')
    if not isinstance(state['options'], Mapping):
        raise error
    record = {name: value for name, value in state['options'].items() if name in TRAINING_FLAGS}
    try:
        return parsed_record(record)
    except InputError:
        raise error from None


def _told(opts: Options, state: Mapping[str, Any], path: Path,
          warn: Callable[[str], None]) -> dict[str, Any]:
    """{flag: value} that the states of SGD and of a schedule tell.

    ReduceLROnPlateau keeps no learning rate of the start: a given one is taken for that.
    """
    group, schedule = state['optimizer']['param_groups'][0], state['scheduler']
    told = {flag: group[key] for flag, key in SGD_KEYS.items() if key in group}
    told.update(optimizer='sgd', lr_scheduler=schedule_name(schedule))
    if told['lr_scheduler'] == 'plateau':
        told['plateau_patience'] = schedule['patience']
    elif not opts.overwrite_milestones:
        told['multistep_milestones'] = sorted(Counter(schedule['milestones']).elements())
    if 'learning_rate' not in told:
        if 'learning_rate' not in opts.given:
            told['learning_rate'] = group['lr']
        elif opts.learning_rate != group['lr']:
            warn(f'{path}: does not say the learning rate of its start, for which '
                 f'--learning_rate {opts.learning_rate:g} is taken; it goes on with '
                 f'{group["lr"]:g}')
    return told


def _plain(value: Any) -> str:
    return ' '.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def resuming_command(script: str, argv: Sequence[str], opts: Options) -> str:
    """The command line, ready to paste, that goes on with the training that `script` does with
    `argv`; `opts` as parsed from that."""
    words = list(argv)
    if opts.resume_path != Path('auto'):
        if '--resume_path' in words:
            place = words.index('--resume_path')
            del words[place:place + 2]
        words += ['--resume_path', 'auto']
    return shlex.join([python(), os.path.relpath(script), *words])


# ---------------------------------------------------------------- states and position

def training_state(weights: Weights) -> Mapping[str, Any]:
    """The state of a training in a weights file. Raises InputError where it holds none."""
    if weights.training is None:
        raise InputError(f'{weights.path}: holds weights but no state of a training; start a '
                         'training from them with --pretrain_path, or evaluate them with '
                         '--no_train')
    return weights.training


def restore(optimization: Optimization, weights: Weights, n_steps: int) -> None:
    """Load what steps the weights, `n_steps` into an epoch. Raises InputError."""
    if not weights.goes_on_finite:
        raise InputError(f'{weights.path}: its optimiser state holds nan or infinity; give a '
                         'checkpoint from before the training diverged, or start a new training '
                         'from it with --pretrain_path')
    try:
        optimization.load_state_dict(training_state(weights), n_steps,
                                     # The 2020 code saved before the schedule's step.
                                     is_one_epoch_behind=not weights.is_ours)
    # torch's optimisers fail in any of these ways on the state of another one.
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError):
        raise InputError(f'{weights.path}: its optimiser state is of other parameters than those '
                         'trained now; give the --ft_begin_module, --freeze_bn, --layer_decay, '
                         '--head_lr_factor and --no_norm_decay it was trained with') from None


def restore_average(average: WeightAverage, weights: Weights) -> None:
    """Load the moving average of the weights. Raises InputError."""
    try:
        average.load_state_dict(training_state(weights))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f'{weights.path}: its moving average of the weights is not of its '
                         'network; give an unchanged file') from None


@dataclass
class Position:
    """Where a training stands: after `n_batches` batches of `epoch`.

    sums: of the batches of this epoch
    lr:   the learning rate of the last step, None before the first
    """

    epoch: int = 1
    n_batches: int = 0
    sums: Sums = field(default_factory=Sums)
    lr: float | None = None

    def next_epoch(self) -> None:
        self.epoch, self.n_batches, self.sums = self.epoch + 1, 0, Sums()

    def state_dict(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds as `position`; `order` is what `batch_order` gives."""
        return {'epoch': self.epoch, 'batch': self.n_batches, 'sums': self.sums.totals(),
                'lr': self.lr, **order}


def batch_order(loader: Any, accumulate: int = 1) -> dict[str, Any]:
    """What decides which clips the batches of an epoch hold, of a training loader, and which
    batches the steps."""
    batches = loader.batch_sampler
    return {'batch_size': batches.batch_size, 'accumulate': accumulate,
            'manual_seed': batches.seed, 'repeated_aug': batches.n_draws,
            'balanced_sampling': batches.is_balanced,
            'records': loader.dataset.records.fingerprint()}


def saved_epoch(state: Mapping[str, Any]) -> int:
    """The epoch that a training goes on in, or begins."""
    return state['position']['epoch'] if 'position' in state else state['epoch'] + 1


def saved_position(state: Mapping[str, Any], order: Mapping[str, Any], path: Path,
                   warn: Callable[[str], None]) -> Position:
    """The position in a checkpoint; the begin of its epoch, which `warn` is told, where its batches
    are not those of `order`."""
    saved = state.get('position')
    if saved is None:
        return Position(saved_epoch(state))
    saved = {**FORMER_ORDER, **saved}
    differences = [f'{name} {saved[name]}, now {value}' if name != 'records' else 'other videos'
                   for name, value in order.items() if saved.get(name, value) != value]
    if saved['batch'] and differences:
        warn(f'{path}: was saved after batch {saved["batch"]} of epoch {saved["epoch"]}, whose '
             f'batches were others ({"; ".join(differences)}): the epoch begins anew')
        return Position(saved['epoch'])
    return Position(saved['epoch'], saved['batch'], Sums(saved['sums']), saved.get('lr'))
