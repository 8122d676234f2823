"""Training: one epoch of it, and the trainer that goes from epoch to epoch, records and saves."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from checkpoint import CheckpointSaver
from metrics import Sums
from optim import Optimization
from overview import duration, next_lines, wrapped
from resume import Position, batch_order, restore, saved_position, training_options, training_state
from run import Run
from runtime import distributed
from runtime.errors import InputError
from runtime.profiler import StepTrace
from tasks import Task
from validation import val_line, validate

# On GPUs several processes look for requests to stop, and all for losses that are not finite,
# every so many steps: looking makes the GPU wait.
CHECKED_STEPS = 20


class Step(NamedTuple):
    """What one step gave: over all processes, and as tensors, so that reading them can wait.

    clips:  this process's, uint8 (N, C, T, h, w)
    labels: theirs, as `Batch` has them
    lr:     the learning rate that it used
    """

    clips: torch.Tensor
    labels: torch.Tensor
    n_clips: int
    loss: torch.Tensor
    acc: torch.Tensor
    lr: float


def train_epoch(loader: Any, model: nn.Module, normalize: nn.Module, task: Task,
                optimization: Optimization, *, device: torch.device, sums: Sums | None = None,
                on_step: Callable[[Step], object] | None = None, skip_nonfinite: bool = False
                ) -> dict[str, float]:
    """Pass over the loader from its position on; returns {'loss', 'acc'}, means over the clips.

    'acc' is top-1: how many clips have their label, or one of their labels, as the best class.

    model:     (N, C, T, H, W) float -> (N, n_classes) logits
    normalize: uint8 clips -> float, on the device
    sums:      of the epoch's earlier batches, added to
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
        lr = optimization.lr
        # Parallel processes average their gradients; so each gives its share of the mean.
        if optimization.step(loss_sum * (batches.world_size / n_total),
                             only_if=loss.isfinite() if skip_nonfinite else None):
            sums.add(clips=n_total, loss=loss * n_total, hits=acc * n_total)
        else:
            for buffer, value in zip(model.buffers(), buffers):
                buffer.copy_(value)
            sums.add(skipped=1)
        if on_step:
            on_step(Step(batch.clips, batch.labels, n_total, loss, acc, lr))
    return {'loss': sums.mean('loss', 'clips'), 'acc': sums.mean('hits', 'clips')}


class Trainer:
    """The training of a run, from its checkpoint or from the start.

    trace: profiles the steps
    """

    def __init__(self, run: Run, trace: StepTrace) -> None:
        self._run, self._trace, self._loader = run, trace, run.loaders['train']
        opts, weights = run.opts, run.weights
        self._optimization = Optimization(
            [p for p in run.network.parameters() if p.requires_grad], opts, run.device,
            steps_per_epoch=len(self._loader.batch_sampler))
        self._order = batch_order(self._loader)
        self._position, self._best, self._best_epoch = Position(), -1.0, 0
        self._n_steps, self._begin = 0, time.monotonic()
        if weights is not None and opts.resume_path is not None:
            state = training_state(weights)
            self._position = saved_position(state, self._order, weights.path, run.log.warn)
            restore(self._optimization, weights, self._position.n_batches)
            self._best = state.get(f'best_{run.task.best_by}', -1.0)
            self._best_epoch = state.get('best_epoch', 0)
        self._saver = CheckpointSaver(
            opts.result_path, every_epochs=opts.checkpoint, last_epoch=opts.n_epochs,
            keep=opts.keep, every_minutes=opts.checkpoint_minutes, is_writer=run.world.is_main,
            # So that no checkpoint is ahead of logs that can be written.
            before_save=run.log.flush, warn=run.log.warn)

    def train(self) -> int:
        """Train up to --n_epochs; the exit status, 1 where the last checkpoint is not saved."""
        opts, log, position = self._run.opts, self._run.log, self._position
        path = self._run.weights and self._run.weights.path
        if position.epoch > opts.n_epochs and opts.inference:
            log.say(f'{path}: the training is complete; the inference follows')
            return 0
        if position.epoch > opts.n_epochs:
            log.warn(f'{path}: is of epoch {position.epoch - 1} and --n_epochs is '
                     f'{opts.n_epochs}: nothing is trained; raise --n_epochs to go on, or '
                     'evaluate it with --no_train')
            return 0
        log.open_tables(position.epoch - 1, position.n_batches)
        self._begin = time.monotonic()
        with self._trace:
            while position.epoch <= opts.n_epochs:
                self._run_epoch()
        self._say_what_is_next()
        return int(self._saver.has_failed)

    def _say_what_is_next(self) -> None:
        """Which checkpoint is the best, and what to do with it, as far as it could be saved."""
        run = self._run
        opts, task = run.opts, run.task
        path = opts.result_path / f'save_{opts.n_epochs}.pth'
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
            metrics = validate(run, epoch, self._save_last)
            shown = f'\n  {val_line(metrics, run)}'
            val_loss, best = metrics['loss'], metrics[run.task.best_by]
            is_best = best > self._best
            if is_best:
                self._best, self._best_epoch = best, epoch
        self._optimization.end_epoch(val_loss)
        run.log.say(line + self._time_left() + shown)
        self._position.next_epoch()
        self._saver.save_epoch(epoch, self._state, is_best)

    def _train_epoch(self) -> str:
        """Train what is left of the epoch and log it; the line that says how it went."""
        run, opts, position = self._run, self._run.opts, self._position
        n_before = position.n_batches
        self._loader.batch_sampler.set_position(position.epoch, n_before)
        run.stop.finishing = 'the step is finished, then save_last.pth is written'
        with run.log.progress(len(self._loader.dataset), f'train {position.epoch}/{opts.n_epochs}',
                              unit='clip', describe=self._figures) as self._progress:
            self._progress.skip(n_before * self._loader.batch_sampler.batch_size)
            means = train_epoch(self._loader, run.model, run.normalize, run.task,
                                self._optimization, device=run.device, sums=position.sums,
                                on_step=self._on_step, skip_nonfinite=opts.skip_nonfinite)
            rate = self._progress.rate()
        self._check_finite()
        lr = self._optimization.lr if position.lr is None else position.lr
        run.log.epoch(epoch=position.epoch, lr=lr, **means, **_parameter_counts(run.network))
        skipped = position.sums.total('skipped')
        return (f'epoch {position.epoch}/{opts.n_epochs}: lr {lr:.3g}, '
                # After a stop in validation no step is left.
                + (f'{rate:.1f} clips/s, ' if position.n_batches > n_before else '')
                + (f'{skipped:.0f} steps skipped, ' if skipped else '')
                + f'loss {means["loss"]:.4f}, clip top-1 {means["acc"]:.3f}')

    def _time_left(self) -> str:
        """, 3 min left: at the pace so far, validations included."""
        n_left = (self._run.opts.n_epochs - self._position.epoch) * len(self._loader)
        if not n_left or not self._n_steps:
            return ''
        sec = (time.monotonic() - self._begin) / self._n_steps * n_left
        return f', {duration(sec)} left'

    def _on_step(self, step: Step) -> None:
        """After each step: record it, see whether to stop or to save."""
        run, position = self._run, self._position
        position.n_batches += 1
        self._n_steps += 1
        position.lr = step.lr
        if position.n_batches == 1:
            run.log.clips(step.clips, label_texts(step.labels, run.class_names), position.epoch)
        iteration = (position.epoch - 1) * len(self._loader) + position.n_batches
        run.log.step(epoch=position.epoch, batch=position.n_batches, iter=iteration,
                     loss=step.loss, acc=step.acc, lr=step.lr)
        self._progress.update(step.n_clips)
        self._trace.step()
        is_checked = run.device.type == 'cpu' or position.n_batches % CHECKED_STEPS == 0
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
        indices = self._loader.batch_sampler.batch(position.epoch, position.n_batches - 1)
        video_ids = self._loader.dataset.records.video_ids
        names = ', '.join(video_ids[index] for index in indices)
        raise InputError(f'the loss is not finite at epoch {position.epoch}, batch '
                         f'{position.n_batches} or shortly before (videos of that batch: {names}); '
                         'lower --learning_rate, or go on with --skip_nonfinite; checkpoints '
                         'saved so far are untouched')

    def _state(self) -> dict[str, Any]:
        """The training state after the epochs that are complete."""
        run = self._run
        return {'epoch': self._position.epoch - 1,
                'state_dict': run.network.state_dict(), **self._optimization.state_dict(),
                f'best_{run.task.best_by}': self._best, 'best_epoch': self._best_epoch,
                'options': training_options(run.opts), **run.description}

    def _save_last(self) -> None:
        """Save with the position in the epoch."""
        self._saver.save_last({**self._state(), 'position': self._position.state_dict(self._order)})


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
