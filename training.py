"""Training: one epoch of it, and the trainer that goes from epoch to epoch, records and saves."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import cached_property
from itertools import groupby
from typing import Any, ContextManager, NamedTuple

import torch
from torch import nn

from averaging import WeightAverage
from checkpoint import CheckpointSaver
from datasets.loading import ClipSchedule
from datasets.presets import batch_mix
from datasets.videodataset import Batch
from distillation import DistillationLoss, Teacher
from metrics import Sums, topk_any_hits
from model import freeze, parts_before, stages
from models.base import Classifier
from optim import Optimization, Parameters, parameter_groups
from opts import Options
from overview import duration, end_line, next_lines
from resume import (Position, batch_order, restore, restore_average, saved_epoch, saved_position,
                    training_options, training_state)
from run import Run
from runtime import distributed
from runtime.errors import InputError
from runtime.output import wrapped
from runtime.profiler import StepTrace
from spatial_transforms import BatchMix
from tasks import Task, training_criterion
from validation import val_line, validate

# On GPUs several processes look for requests to stop, and all for losses that are not finite,
# every so many steps: looking makes the GPU wait.
CHECKED_STEPS = 20
# After so many steps it is said when the training will end, if it takes longer than this.
PACE_STEPS, WORTH_SAYING_SEC = 20, 60.0
# (logits (N, n_classes), labels as `Batch` has them, uint8 clips) -> mean loss over the clips.
Criterion = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Step(NamedTuple):
    """What one step gave: over all processes, and as tensors, so that reading them can wait.

    clips:     those of this process in the last of its batches, uint8 (N, C, T, h, w)
    labels:    theirs, as `Batch` has them
    n_batches: more than one where gradients are accumulated
    lr:        the learning rate that it used
    """

    clips: torch.Tensor
    labels: torch.Tensor
    n_batches: int
    n_clips: int
    loss: torch.Tensor
    acc: torch.Tensor
    lr: float


class StepLosses:
    """The losses of one step: iterating does a forward pass of each of its batches.

    Each loss is this process's share of the mean over the clips of all batches and processes, so
    that their gradients add up to that of one large batch.

    numbered: the batches, each with its number in the epoch
    n_clips:  of all of them, over all processes
    mix:      mixes the clips of a batch and their labels, None for nothing
    """

    def __init__(self, numbered: Iterable[tuple[int, Batch]], n_clips: int, order: Any,
                 model: nn.Module, normalize: nn.Module, task: Task, criterion: Criterion,
                 device: torch.device, mix: BatchMix | None = None) -> None:
        self._numbered, self._order, self._device = numbered, order, device
        self._model, self._normalize, self._task = model, normalize, task
        self._criterion, self.n_clips, self._mix = criterion, n_clips, mix
        self._sums: list[torch.Tensor] = []
        self.last: Batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        n_left = self.n_clips
        for i, self.last in self._numbered:
            n_total = self._order.total(i)
            n_left -= n_total
            # What dropout draws is the same after a resume.
            torch.manual_seed(self._order.draw_seed(i))
            with self._summed_later() if n_left else nullcontext():
                # Parallel processes average their gradients; so each gives its share of the mean.
                share = self._order.world_size / self.n_clips
                yield self._loss_sum(self.last, i, n_total) * share

    @property
    def n_batches(self) -> int:
        return len(self._sums)

    @cached_property
    def means(self) -> torch.Tensor:
        """(2,) loss and accuracy, over the clips of all batches and processes."""
        return distributed.total(sum(self._sums, torch.zeros_like(self._sums[0]))) / self.n_clips

    def is_finite(self) -> bool:
        """True if the loss is, over all batches and processes."""
        return bool(self.means[0].isfinite())

    def _loss_sum(self, batch: Batch, i: int, n_total: int) -> torch.Tensor:
        # A process without a sample of its own goes through the motions with another's.
        is_own = self._order.rank < n_total
        pixels = batch.clips.to(self._device, non_blocking=True)
        labels = batch.labels.to(self._device, non_blocking=True)
        if self._mix:
            with self._order.batch_draw(i):
                pixels, labels = self._mix(pixels, labels)
        logits = self._model(self._normalize(pixels))
        loss_sum = self._criterion(logits, labels, pixels) * (len(labels) * is_own)
        hits, = (topk_any_hits if self._mix else self._task.hits)(logits.detach(), labels, (1,))
        self._sums.append(torch.stack([loss_sum.detach(), hits * is_own]))
        return loss_sum

    def _summed_later(self) -> ContextManager[None]:
        """Within it gradients stay in their process, to be added up with those that follow."""
        is_parallel = isinstance(self._model, nn.parallel.DistributedDataParallel)
        return self._model.no_sync() if is_parallel else nullcontext()  # type: ignore[operator]


def train_epoch(loader: Any, model: nn.Module, normalize: nn.Module, task: Task,
                optimization: Optimization, *, device: torch.device,
                criterion: Criterion | None = None, accumulate: int = 1,
                average: WeightAverage | None = None, sums: Sums | None = None,
                on_step: Callable[[Step], object] | None = None, skip_nonfinite: bool = False,
                mix: BatchMix | None = None) -> dict[str, float]:
    """Pass over the loader from its position on; returns {'loss', 'acc'}, means over the clips.

    'acc' is top-1: how many clips have their label, or one of their labels, as the best class.

    model:      (N, C, T, H, W) float -> (N, n_classes) logits
    normalize:  uint8 clips -> float, on the device
    criterion:  the mean loss of a batch; that of the task by default
    accumulate: batches of one step
    average:    of the weights, updated after each step
    sums:       of the epoch's earlier batches, added to
    on_step:    called with the Step after each
    mix:        mixes the clips of a batch and their labels, None for nothing; in 'acc' a mixed clip
                counts if its best class is one of its labels

    With `skip_nonfinite` a step whose loss is not finite changes nothing and is counted in
    sums 'skipped'. The gradient is that of the mean loss over the batches of all processes.
    """
    model.train()
    sums = Sums() if sums is None else sums
    criterion = criterion or (lambda logits, labels, _pixels: task.criterion(logits, labels))
    for n_clips, batches in steps(loader, accumulate):
        losses = StepLosses(batches, n_clips, loader.batch_sampler, model, normalize, task,
                            criterion, device, mix)
        lr = optimization.lr
        is_updated = take_step(losses, model, optimization, skip_nonfinite)
        loss, acc = losses.means
        if is_updated and average:
            average.update()
        sums.add(**({'clips': n_clips, 'loss': loss * n_clips, 'hits': acc * n_clips}
                    if is_updated else {'skipped': 1}))
        if on_step:
            last = losses.last
            on_step(Step(last.clips, last.labels, losses.n_batches, n_clips, loss, acc, lr))
    return {'loss': sums.mean('loss', 'clips'), 'acc': sums.mean('hits', 'clips')}


def take_step(losses: StepLosses, model: nn.Module, optimization: Optimization,
              skip_nonfinite: bool) -> bool:
    """Step down these losses; returns False if that was to be skipped, where nothing changes."""
    if not skip_nonfinite:
        return optimization.step(losses)
    buffers = [buffer.clone() for buffer in model.buffers()]
    if optimization.step(losses, only_if=losses.is_finite):
        return True
    for buffer, value in zip(model.buffers(), buffers):
        buffer.copy_(value)
    return False


def steps(loader: Any, accumulate: int) -> Iterator[tuple[int, Iterator[tuple[int, Batch]]]]:
    """The number of clips of each step, over all processes, and its batches with their numbers."""
    order = loader.batch_sampler
    numbered = enumerate(loader, order.begin_batch)
    for number, batches in groupby(numbered, lambda pair: pair[0] // accumulate):
        begin = max(number * accumulate, order.begin_batch)
        end = min((number + 1) * accumulate, len(order))
        yield sum(order.total(i) for i in range(begin, end)), batches


class Trainer:
    """The training of a run, from its checkpoint or from the start.

    trace: profiles the steps
    """

    def __init__(self, run: Run, trace: StepTrace) -> None:
        self._run, self._trace = run, trace
        opts, weights = run.opts, run.weights
        self._schedule = ClipSchedule(run.loaders['train'], opts)
        self._optimization = Optimization(
            trained_parameters(run.network, opts), opts, run.device)
        self._criterion = make_criterion(run)
        self._average = WeightAverage(run.network, opts.ema_decay) if opts.ema_decay else None
        self._open_loader(1)
        self._position, self._best, self._best_epoch = Position(), -1.0, 0
        self._n_worse = 0  # validations since the best
        self._n_steps, self._begin = 0, time.monotonic()
        if weights is not None and opts.resume_path is not None:
            state = training_state(weights)
            self._open_loader(saved_epoch(state))
            self._position = saved_position(state, self._order, weights.path, run.log.warn)
            restore(self._optimization, weights, -(-self._position.n_batches // opts.accumulate))
            if self._average and 'ema_state_dict' in state:
                restore_average(self._average, weights)
            self._best = state.get(f'best_{run.task.best_by}', -1.0)
            self._best_epoch = state.get('best_epoch', 0)
            since_best = state['epoch'] - self._best_epoch if self._best_epoch else 0
            self._n_worse = state.get('n_worse', since_best)
        self._saver = CheckpointSaver(
            opts.result_path, every_epochs=opts.checkpoint, last_epoch=opts.n_epochs,
            keep=opts.keep, every_minutes=opts.checkpoint_minutes, is_writer=run.world.is_main,
            # So that no checkpoint is ahead of logs that can be written.
            before_save=run.log.flush, warn=run.log.warn)

    def _open_loader(self, epoch: int) -> None:
        """Take the loader of an epoch."""
        self._loader = self._schedule.at(epoch)
        self._order = batch_order(self._loader, self._run.opts.accumulate)

    def train(self) -> int:
        """Train up to --n_epochs; the exit status, 1 where the last checkpoint is not saved.

        The network then has the weights to be used: with --ema_decay their average.
        """
        if self._is_complete():
            self._say_it_was_complete()
        else:
            self._run_epochs()
        if self._average:
            self._average.swap()
        return int(self._saver.has_failed)

    def _run_epochs(self) -> None:
        """Train as many as are left, and say what is next."""
        opts, log, position = self._run.opts, self._run.log, self._position
        for line in self._schedule.lines():
            log.say(line)
        log.open_tables(position.epoch - 1, position.n_batches)
        self._begin = time.monotonic()
        with self._trace:
            while not self._is_complete():
                self._run_epoch()
        if position.epoch <= opts.n_epochs:
            log.say(f'--early_stopping {opts.early_stopping}: so many epochs were no better, and '
                    'the training ends')
        self._say_what_is_next()

    def _is_complete(self) -> bool:
        """True after the last epoch, or after --early_stopping epochs that were no better."""
        n_done, opts = self._position.epoch - 1, self._run.opts
        is_stale = 0 < opts.early_stopping <= self._n_worse
        return n_done >= opts.n_epochs or is_stale and not self._position.n_batches

    def _say_it_was_complete(self) -> None:
        run, n_done = self._run, self._position.epoch - 1
        opts, path = run.opts, run.weights and run.weights.path
        if opts.inference:
            run.log.say(f'{path}: the training is complete; the inference follows')
        elif n_done < opts.n_epochs:
            run.log.warn(f'{path}: its training ended at epoch {n_done}, as the best is of epoch '
                         f'{self._best_epoch}: nothing is trained; raise --early_stopping to go '
                         'on, or evaluate it with --no_train')
        else:
            run.log.warn(f'{path}: is of epoch {n_done} and --n_epochs is {opts.n_epochs}: nothing '
                         'is trained; raise --n_epochs to go on, or evaluate it with --no_train')

    def _say_what_is_next(self) -> None:
        """Which checkpoint is the best, and what to do with it, as far as it could be saved."""
        run = self._run
        opts, task = run.opts, run.task
        path = opts.result_path / f'save_{self._position.epoch - 1}.pth'
        best = opts.result_path / 'save_best.pth'
        if run.world.is_main and self._best_epoch and best.exists():
            path = best
            run.log.say(wrapped(f'best epoch: {self._best_epoch} of {opts.n_epochs}, '
                                f'{task.shown[task.best_by]} {self._best:.3f}; {best}'))
        if run.world.is_main and path.exists():
            for line in next_lines(opts, path, run.loaders):
                run.log.say(line)

    def _run_epoch(self) -> None:
        """Train what is left of the epoch, validate, say how it went, and save."""
        run, epoch = self._run, self._position.epoch
        line, shown, val_loss, is_best = self._train_epoch(), '', None, False
        if not run.opts.no_val:
            with self._average.applied() if self._average else nullcontext():
                metrics = validate(run, epoch, self._save_last)
            val_loss, best = metrics['loss'], metrics[run.task.best_by]
            is_best = best > self._best
            self._n_worse = 0 if is_best else self._n_worse + 1
            if is_best:
                self._best, self._best_epoch = best, epoch
            shown = '\n' + wrapped(f'  {val_line(metrics, run)}; {self._best_so_far(epoch)}')
        self._optimization.end_epoch(val_loss)
        run.log.say(line + self._time_left() + shown)
        self._position.next_epoch()
        self._saver.save_epoch(epoch, self._state, is_best, self._is_complete())

    def _train_epoch(self) -> str:
        """Train what is left of the epoch and log it; the line that says how it went."""
        run, opts, position = self._run, self._run.opts, self._position
        n_before = position.n_batches
        if self._loader is not self._schedule.at(position.epoch):
            self._open_loader(position.epoch)
        self._optimization.begin_epoch(-(-len(self._loader) // opts.accumulate),
                                       self._schedule.batch_factor(position.epoch))
        if opts.unfreeze_epoch:
            is_frozen = position.epoch <= opts.unfreeze_epoch
            freeze(run.network, opts.ft_begin_module if is_frozen else '', opts.freeze_bn)
        self._loader.batch_sampler.set_position(position.epoch, n_before)
        run.stop.finishing = 'the step is finished, then save_last.pth is written'
        with run.log.progress(self._loader.batch_sampler.n_samples,
                              f'train {position.epoch}/{opts.n_epochs}', unit='clip',
                              describe=self._figures) as self._progress:
            self._progress.skip(n_before * self._loader.batch_sampler.batch_size)
            means = train_epoch(self._loader, run.model, run.normalize, run.task,
                                self._optimization, device=run.device, sums=position.sums,
                                criterion=self._criterion, accumulate=opts.accumulate,
                                average=self._average, on_step=self._on_step,
                                skip_nonfinite=opts.skip_nonfinite, mix=batch_mix(opts))
            rate = self._progress.rate()
        # It refers back here, and loader processes take long to end when garbage is collected.
        del self._progress
        self._check_finite()
        lr = self._optimization.lr if position.lr is None else position.lr
        run.log.epoch(epoch=position.epoch, lr=lr, **means, **_parameter_counts(run.network))
        skipped = position.sums.total('skipped')
        return (f'epoch {position.epoch}/{opts.n_epochs}: lr {lr:.3g}, '
                # After a stop in validation no step is left.
                + (f'{rate:.1f} clips/s, ' if position.n_batches > n_before else '')
                + (f'{skipped:.0f} steps skipped, ' if skipped else '')
                + f'loss {means["loss"]:.4f}, clip top-1 {means["acc"]:.3f}')

    def _best_so_far(self, epoch: int) -> str:
        """best so far 0.912 (epoch 7), or that it is this one, or that there is none."""
        if not self._best_epoch:
            return 'none is the best yet'
        return ('the best so far' if epoch == self._best_epoch else
                f'best so far {self._best:.3f} (epoch {self._best_epoch})')

    def _sec_left(self, n_done: int) -> float:
        """Of the training, once `n_done` batches are, at the pace so far."""
        n_left = self._schedule.n_batches_before(self._run.opts.n_epochs + 1) - n_done
        n_left /= self._run.opts.accumulate
        return (time.monotonic() - self._begin) / max(1, self._n_steps) * n_left

    def _time_left(self) -> str:
        """, 3 min left: at the pace so far, validations included."""
        sec = self._sec_left(self._schedule.n_batches_before(self._position.epoch + 1))
        return f', {duration(sec)} left' if sec and self._n_steps else ''

    def _say_when_it_ends(self) -> None:
        """Once, after the first steps of a training that takes a while."""
        if self._n_steps != PACE_STEPS:
            return
        position = self._position
        sec = self._sec_left(self._schedule.n_batches_before(position.epoch) + position.n_batches)
        if sec >= WORTH_SAYING_SEC:
            self._run.log.say(f'{end_line(sec, datetime.now())}, validations not counted')

    def _on_step(self, step: Step) -> None:
        """After each step: record it, see whether to stop or to save."""
        run, position = self._run, self._position
        is_first = position.n_batches == 0
        position.n_batches += step.n_batches
        self._n_steps += 1
        position.lr = step.lr
        if is_first:
            run.log.clips(step.clips, label_texts(step.labels, run.class_names), position.epoch)
        iteration = self._schedule.n_batches_before(position.epoch) + position.n_batches
        run.log.step(epoch=position.epoch, batch=position.n_batches, iter=iteration,
                     loss=step.loss, acc=step.acc, lr=step.lr)
        self._progress.update(step.n_clips)
        self._say_when_it_ends()
        self._trace.step()
        is_checked = run.device.type == 'cpu' or self._n_steps % CHECKED_STEPS == 0
        if is_checked:
            self._check_finite()
        # Several processes stop after the same step.
        if run.stop.signum if run.world.size == 1 else is_checked and run.stop_asked():
            self._save_last()
            distributed.wait_for_all()
            raise run.stopped()
        if self._saver.is_due():
            self._save_last()

    def _figures(self) -> dict[str, float]:
        """What the progress bar shows: means over the clips of the epoch so far."""
        sums = self._position.sums
        return {'loss': sums.mean('loss', 'clips'), 'acc': sums.mean('hits', 'clips')}

    def _check_finite(self) -> None:
        """Raise InputError that names epoch, batch and videos where a loss was not finite."""
        position = self._position
        if self._run.opts.skip_nonfinite or math.isfinite(position.sums.total('loss')):
            return
        keys = self._loader.batch_sampler.batch(position.epoch, position.n_batches - 1)
        video_ids = self._loader.dataset.records.video_ids
        names = ', '.join(dict.fromkeys(video_ids[key.index] for key in keys))
        raise InputError(f'the loss is not finite at epoch {position.epoch}, batch '
                         f'{position.n_batches} or shortly before (videos of that batch: {names}); '
                         'lower --learning_rate, or go on with --skip_nonfinite; checkpoints '
                         'saved so far are untouched')

    def _state(self) -> dict[str, Any]:
        """The training state after the epochs that are complete."""
        run = self._run
        return {'epoch': self._position.epoch - 1,
                'state_dict': run.network.state_dict(),
                **(self._average.state_dict() if self._average else {}),
                **self._optimization.state_dict(),
                f'best_{run.task.best_by}': self._best, 'best_epoch': self._best_epoch,
                'n_worse': self._n_worse,
                'options': training_options(run.opts), **run.description}

    def _save_last(self) -> None:
        """Save with the position in the epoch."""
        self._saver.save_last({**self._state(), 'position': self._position.state_dict(self._order)})


def trained_parameters(network: Classifier, opts: Options) -> Parameters:
    """The parameters that are not frozen, in groups where flags want several."""
    n_late = len(parts_before(network, opts.ft_begin_module)) if opts.unfreeze_epoch else 0
    if opts.layer_decay == opts.head_lr_factor == 1 and not (opts.no_norm_decay or n_late):
        return [parameter for parameter in network.parameters() if parameter.requires_grad]
    return parameter_groups(list(stages(network).values()), opts, n_late,
                            network.get_submodule(network.classifier_name))


def make_criterion(run: Run) -> Criterion:
    """What the training of a run lowers."""
    opts, dataset = run.opts, run.loaders['train'].dataset
    counts = dataset.records.class_counts() if opts.class_weights == 'balanced' else None
    of_labels = training_criterion(opts.multi_label, label_smoothing=opts.label_smoothing,
                                   class_counts=counts, n_videos=len(dataset)).to(run.device)

    def criterion(logits: torch.Tensor, labels: torch.Tensor, _clips: torch.Tensor
                  ) -> torch.Tensor:
        return of_labels(logits, labels)

    if opts.teacher_path is None:
        return criterion
    teacher = Teacher(opts.teacher_path, opts, run.class_names, run.device, run.log.warn)
    return DistillationLoss(criterion, teacher, temperature=opts.distill_temperature,
                            weight=opts.distill_weight)


def label_texts(labels: torch.Tensor, class_names: Sequence[str]) -> list[str]:
    """The names of the labels, (N,) of one each or (N, n_classes) of 0 and 1, for each clip."""
    if labels.ndim == 1:
        return [class_names[label] for label in labels.tolist()]
    return [', '.join(name for name, has in zip(class_names, row) if has) or 'no label'
            for row in labels.tolist()]


def _parameter_counts(network: nn.Module) -> dict[str, int]:
    """{'n_trained', 'n_frozen'}: how many numbers."""
    counts = {'n_trained': 0, 'n_frozen': 0}
    for parameter in network.parameters():
        counts['n_trained' if parameter.requires_grad else 'n_frozen'] += parameter.numel()
    return counts
