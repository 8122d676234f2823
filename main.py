"""Train, validate and run 3D ResNets on video: python main.py --help lists all flags."""

import math
import os
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace as with_fields

import torch
from torch import nn

import checkpoint
from datasets.annotations import check_class_count, read_annotation
from datasets.loading import build_loader, naming_lost_processes, notes_on_data
from features import FeatureTap, pack
from inference import feature_rows, predict, video_result
from metrics import Sums
from model import (adopt_options, build_network, freeze_before, load_network, load_pretrained,
                   match_class_names, prepare_network, read_weights)
from opts import Options, clip_shape, normalization, parse_opts, replace, to_json
from results import partial_results, take_over, write_all_features, write_results
from runtime import distributed, logs
from runtime.errors import InputError, Stopped, StopSignals, run
from runtime.files import open_result_folder, write_opts
from runtime.hardware import check_smallest_batch, make_parallel, pick_device_of_run
from runtime.profiler import StepTrace
from spatial_transforms import Normalize
from tasks import TASKS, Task
from training import (build_optimizer, build_scaler, build_scheduler, restore, step_scheduler,
                      train_epoch)
from validation import evaluate
from weights import Weights, describe

# On GPUs several processes look for requests to stop, and all for losses that are not finite,
# every so many steps: looking makes the GPU wait.
CHECKED_STEPS = 20


@dataclass(frozen=True)
class Run:
    """What all parts of a run share.

    weights:   the weights file it starts from, None for none
    loaders:   by split, those that the run needs
    network:   the network itself; `tuned` is it in its precision, and `model` what is trained,
               parallel or not
    tap:       catches the features that --output_features wants, None without
    normalize: makes the network's input, on the device
    task:      what the network is to say of a clip
    """

    opts: Options
    world: distributed.World
    device: torch.device
    log: logs.RunLog
    weights: Weights | None
    class_names: tuple
    loaders: dict
    network: nn.Module
    tuned: nn.Module
    model: nn.Module
    normalize: nn.Module
    task: Task
    tap: FeatureTap | None


def main(argv=None):
    """Do what the flags say; the exit status. Raises InputError."""
    opts = parse_opts(argv)
    world = distributed.find_world(os.environ)
    if opts.distributed and distributed.LAUNCHER_VARIABLE not in os.environ:
        arguments = sys.argv[1:] if argv is None else argv
        return distributed.start_processes(
            [sys.executable, __file__, *arguments], os.environ, world_size=opts.world_size,
            dist_url=opts.dist_url, no_cuda=opts.no_cuda)
    device = pick_device_of_run(world, no_cuda=opts.no_cuda, sync_batchnorm=opts.batchnorm_sync)
    with (distributed.joined(world, device, opts.dist_url), naming_lost_processes(),
          StopSignals() as stop):
        this_run = prepare(opts, world, device)
        status = 0
        if not opts.no_train:
            status = Training(this_run, stop).run()
        elif not opts.no_val:
            validate(this_run, stop, evaluated_epoch(this_run.weights))
        if opts.inference:
            infer(this_run, stop)
        this_run.log.close()
    return status


# ---------------------------------------------------------------- before the first batch

def prepare(opts, world, device):
    """Check all that was given, then build all that the run needs."""
    log = logs.RunLog(opts.result_path if world.is_main else None, opts.tensorboard)
    if opts.accimage:
        log.warn('--accimage has no effect: that image library is no longer kept')
    opts = find_resumed(opts, world, log)
    path = opts.resume_path or opts.pretrain_path
    weights = read_weights(path, opts) if path else None
    is_pretrained = opts.pretrain_path is not None
    if weights:
        opts = adopt_options(opts, weights, is_pretrained, log.warn)
    task = TASKS[opts.multi_label]
    log.add_measures(task.measures)
    annotation = read_annotation(opts.annotation_path)
    check_class_count(annotation, opts.n_classes)
    if weights and not is_pretrained:
        annotation = with_fields(annotation, class_names=match_class_names(
            annotation.class_names, weights, log.warn))
    shared = share_batches(opts, world, log)
    loaders = {split: build_loader(shared, split, annotation, rank=world.rank,
                                   world_size=world.size, pin_memory=device.type == 'cuda')
               for split in wanted_splits(opts)}
    for split, loader in loaders.items():
        for note in notes_on_data(opts, split, loader):
            log.say(note)
    if not opts.no_val:
        warn_of_no_labels(opts, loaders['val'].dataset.records, log)
    network = make_network(opts, weights, log).to(device)
    if not opts.no_train:
        check_smallest_batch(network, clip_shape(opts),
                             loaders['train'].batch_sampler.smallest_share())
    if world.is_main:
        open_result_folder(opts.result_path, not opts.no_train and opts.resume_path is None)
        write_opts(opts.result_path, to_json(opts))
        log.options({name: value for name, value in vars(opts).items() if name != 'given'})
    tuned = prepare_network(opts, network, device)
    mean, std = normalization(opts)
    return Run(opts=opts, world=world, device=device, log=log, weights=weights,
               class_names=annotation.class_names, loaders=loaders, network=network,
               tuned=tuned, model=make_parallel(tuned, device, world.size, opts.batchnorm_sync),
               normalize=Normalize(mean, std, opts.value_scale).to(device),
               task=task,
               tap=FeatureTap(network, opts.feature_module) if opts.output_features else None)


def find_resumed(opts, world, log):
    """The options with the checkpoint that `--resume_path auto` stands for, or with none."""
    if opts.resume_path is None or opts.resume_path.name != 'auto':
        return opts
    path = distributed.from_main(
        checkpoint.newest(opts.result_path) if world.is_main else None, world)
    log.say(f'--resume_path auto: {path or "no checkpoint yet, a new training begins"}')
    return replace(opts, resume_path=path)


def warn_of_no_labels(opts, records, log):
    """Say where a validation cannot measure how well the classes are found."""
    if not records.class_counts().any():
        follows = 'their mAP is nan' + (
            '' if opts.no_train else ', and no save_best.pth is written')
        log.warn(f'{opts.annotation_path}: none of the {len(records)} videos for validation has a '
                 f'label: {follows}; add their labels, or give --no_val')


def share_batches(opts, world, log):
    """The options with the batch of all nodes, and the loader processes of one process."""
    if world.size == 1:
        return opts
    batch_size = opts.batch_size * world.n_nodes
    log.say(f'{world}; batches of about {batch_size / world.size:g} clips a process, '
            f'{batch_size} in all')
    return replace(opts, batch_size=batch_size,
                   n_threads=math.ceil(opts.n_threads / world.local_size))


def wanted_splits(opts):
    """The splits that a run reads."""
    wanted = {'train': not opts.no_train, 'val': not opts.no_val, 'inference': opts.inference}
    return [split for split in wanted if wanted[split]]


def make_network(opts, weights, log):
    """A new network, that of a checkpoint, or that with a new classifier."""
    if weights is None:
        network = build_network(opts)
    elif opts.pretrain_path is None:
        network = load_network(opts, weights)
    else:
        network = load_pretrained(opts, weights)
        if opts.no_train:
            log.warn('--pretrain_path gives the network a new, untrained classifier; to evaluate '
                     'the file as it is give --resume_path')
    freeze_before(network, opts.ft_begin_module)
    return network


# ---------------------------------------------------------------- training

class Training:
    """The training of a run: what steps the weights, where it stands, and what it saves.

    It stands after `n_batches` batches of `epoch`; `sums` are those of the epoch so far.
    """

    def __init__(self, this_run, stop):
        self.this_run, self.stop = this_run, stop
        opts, weights = this_run.opts, this_run.weights
        self.optimizer = build_optimizer(opts, this_run.network)
        self.scheduler = build_scheduler(opts, self.optimizer)
        self.scaler = build_scaler(opts, this_run.device)
        self.epoch, self.n_batches, self.sums, self.best = 1, 0, Sums(), -1.0
        if opts.resume_path is not None:
            restore(opts, weights, self.optimizer, self.scheduler, self.scaler)
            state = weights.training
            position = state.get('position', {'epoch': state['epoch'] + 1, 'batch': 0, 'sums': {}})
            self.epoch, self.n_batches = position['epoch'], position['batch']
            self.sums = Sums(position['sums'])
            self.best = state.get(f'best_{this_run.task.best_by}', -1.0)
        self.saved_at, self.save_failed = time.monotonic(), False
        self.trace = StepTrace(this_run.log.folder, opts.profile)

    def run(self):
        """Train up to --n_epochs; the exit status, 1 where the last checkpoint is not saved."""
        opts, log = self.this_run.opts, self.this_run.log
        if self.epoch > opts.n_epochs and opts.inference:
            log.say(f'{opts.resume_path}: the training is complete; the inference '
                    'follows')
            return 0
        if self.epoch > opts.n_epochs:
            log.warn(f'{opts.resume_path}: is of epoch {self.epoch - 1} and --n_epochs '
                     f'is {opts.n_epochs}: nothing is trained; raise --n_epochs to go on, or '
                     'evaluate it with --no_train')
            return 0
        log.open_tables(self.epoch - 1, self.n_batches)
        with self.trace:
            for self.epoch in range(self.epoch, opts.n_epochs + 1):
                self.run_epoch()
        return int(self.save_failed)

    def run_epoch(self):
        """Train what is left of the epoch, validate, save, and say how it went."""
        this_run, metrics = self.this_run, None
        line = self.train_one()
        if not this_run.opts.no_val:
            metrics = validate(this_run, self.stop, self.epoch, self.save_last)
            line += f'; {val_line(metrics, this_run.task)}'
        step_scheduler(self.scheduler, metrics and metrics['loss'])
        this_run.log.say(line)
        self.n_batches, self.sums = 0, Sums()
        self.save_epoch(metrics)

    def train_one(self):
        """Train what is left of the epoch and log it; the line that says how it went."""
        this_run, opts, epoch = self.this_run, self.this_run.opts, self.epoch
        loader = this_run.loaders['train']
        loader.batch_sampler.set_position(epoch, self.n_batches)
        self.lr, self.last_step = self.optimizer.param_groups[0]['lr'], None
        with this_run.log.progress(len(loader.dataset), f'train {epoch}/{opts.n_epochs}',
                                   unit='clip', describe=self.figures) as self.progress:
            self.progress.skip(self.n_batches * opts.batch_size)
            metrics = train_epoch(loader, this_run.model, this_run.normalize, this_run.task,
                                  self.optimizer, self.scaler, device=this_run.device,
                                  sums=self.sums,
                                  on_step=self.on_step, skip_nonfinite=opts.skip_nonfinite)
            rate = self.progress.rate()
        self.check_finite()
        counts = {'n_trained': 0, 'n_frozen': 0}
        for parameter in this_run.network.parameters():
            counts['n_trained' if parameter.requires_grad else 'n_frozen'] += parameter.numel()
        this_run.log.epoch(epoch=epoch, lr=self.lr, **metrics, **counts)
        skipped = self.sums.total('skipped')
        return (f'epoch {epoch}/{opts.n_epochs}: lr {self.lr:.3g}, {rate:.1f} clips/s, '
                + (f'{skipped:.0f} steps skipped, ' if skipped else '')
                + f'loss {metrics["loss"]:.4f}, clip top-1 {metrics["acc"]:.3f}')

    def on_step(self, step):
        """After each step: record it, see whether to stop or to save."""
        this_run = self.this_run
        self.n_batches += 1
        self.last_step = step
        if self.n_batches == 1:
            this_run.log.clips(step.clips, self.epoch)
        iteration = (self.epoch - 1) * len(this_run.loaders['train']) + self.n_batches
        this_run.log.step(epoch=self.epoch, batch=self.n_batches, iter=iteration, loss=step.loss,
                          acc=step.acc, lr=self.lr)
        self.progress.update(step.n_clips)
        self.trace.step()
        is_checked = this_run.device.type == 'cpu' or self.n_batches % CHECKED_STEPS == 0
        if is_checked:
            self.check_finite()
        if self.stop_asked(is_checked):
            self.save_last()
            distributed.wait_for_all()
            raise stopped(this_run, self.stop.signum)
        minutes = this_run.opts.checkpoint_minutes
        if minutes and time.monotonic() - self.saved_at > 60 * minutes:
            self.save_last()

    def figures(self):
        """What the bar shows."""
        return {'loss': self.last_step.loss, 'acc': self.last_step.acc}

    def stop_asked(self, is_checked):
        """Whether any process was asked to stop; the same answer in all of them."""
        if self.this_run.world.size == 1 or not is_checked:
            return self.this_run.world.size == 1 and self.stop.signum
        asked = torch.tensor([self.stop.signum], device=self.this_run.device)
        self.stop.signum = self.stop.signum or int(distributed.total(asked)) and signal.SIGTERM
        return self.stop.signum

    def check_finite(self):
        """Raise InputError that names epoch, batch and videos where a loss was not finite."""
        if self.this_run.opts.skip_nonfinite or math.isfinite(self.sums.total('loss')):
            return
        loader, batch = self.this_run.loaders['train'], self.n_batches
        indices = loader.batch_sampler.batch(self.epoch, batch - 1)
        names = ', '.join(loader.dataset.records.video_ids[index] for index in indices)
        raise InputError(f'the loss is not finite at epoch {self.epoch}, batch {batch} or shortly '
                         f'before (videos of that batch: {names}); lower --learning_rate, or go '
                         'on with --skip_nonfinite; checkpoints saved so far are untouched')

    # ------------------------------------------------------------ what it saves

    def state(self, epoch):
        """The training state; `epoch` is the last that is complete."""
        this_run = self.this_run
        return {'epoch': epoch, 'state_dict': this_run.network.state_dict(),
                'optimizer': self.optimizer.state_dict(),
                'scheduler': self.scheduler.state_dict(),
                'scaler': self.scaler.state_dict(),
                f'best_{this_run.task.best_by}': self.best,
                **describe(this_run.opts, this_run.network, this_run.class_names)}

    def save_last(self):
        """Write save_last.pth, with the position in the epoch."""
        position = {'epoch': self.epoch, 'batch': self.n_batches, 'sums': self.sums.totals()}
        self.write('save_last.pth', {**self.state(self.epoch - 1), 'position': position})

    def save_epoch(self, metrics):
        """Write save_{epoch}.pth every --checkpoint epochs, and save_best.pth when it is."""
        opts, folder = self.this_run.opts, self.this_run.opts.result_path
        measure = self.this_run.task.best_by
        is_best = metrics is not None and metrics[measure] > self.best
        if is_best:
            self.best = metrics[measure]
            self.write('save_best.pth', self.state(self.epoch))
        if self.epoch % opts.checkpoint == 0 or self.epoch == opts.n_epochs:
            self.write(f'save_{self.epoch}.pth', self.state(self.epoch))
            if self.this_run.world.is_main and not self.save_failed:
                checkpoint.prune(folder, opts.keep)

    def write(self, name, state):
        """Save, from rank 0; where that fails the run goes on and the next save tries again."""
        self.saved_at = time.monotonic()
        self.this_run.log.flush()  # no checkpoint is ahead of logs that can be written
        if not self.this_run.world.is_main:
            return
        try:
            checkpoint.save(self.this_run.opts.result_path / name, state)
            self.save_failed = False
        except checkpoint.CheckpointError as error:
            self.save_failed = True
            self.this_run.log.warn(f'warning: {error}; the run goes on')


def stopped(this_run, signum, cure='go on with --resume_path auto'):
    """The Stopped to raise: only rank 0 says how to go on."""
    name = signal.Signals(signum).name
    return Stopped(signum, f'stopped by {name}; {cure}' if this_run.world.is_main else '')


# ---------------------------------------------------------------- validation and inference

def evaluated_epoch(weights):
    """The epoch that a validation without training is of: our checkpoint's, 1 for other files."""
    return weights.epoch if weights and weights.is_ours else 1


def evaluated_model(this_run):
    """What evaluation calls: processes have different numbers of batches, so none waits in it."""
    if this_run.world.size == 1:
        return this_run.model
    distributed.share_buffers(this_run.network)
    return this_run.tuned


def validate(this_run, stop, epoch, save=None):
    """Validate once, log it, return the metrics; a request to stop calls `save` first."""
    loader = this_run.loaders['val']

    def on_step(n_videos):
        progress.update(n_videos)
        if stop.signum:
            if save:
                save()
            raise stopped(this_run, stop.signum)

    with this_run.log.progress(loader.batch_sampler.n_own_videos(), f'validate {epoch}',
                               unit='video') as progress:
        metrics, confusion = evaluate(loader, evaluated_model(this_run), this_run.normalize,
                                      this_run.task, device=this_run.device,
                                      n_classes=len(this_run.class_names), on_step=on_step)
    this_run.log.validation(epoch, metrics, confusion)
    if this_run.opts.no_train:
        this_run.log.say(val_line(metrics, this_run.task))
    return metrics


def val_line(metrics, task):
    """Metrics of a validation in words."""
    shown = [f'{words} {metrics[name]:.3f}' for name, words in task.shown.items()]
    return ', '.join([f'validation loss {metrics["loss"]:.4f}', *shown])


def infer(this_run, stop):
    """Classify the videos of --inference_subset; write {inference_subset}.json, and features."""
    opts, loader = this_run.opts, this_run.loaders['inference']
    average = not opts.inference_no_average
    model = evaluated_model(this_run)
    if this_run.tap:  # it is on the network itself, not on copies of it on several GPUs
        model = this_run.tuned
    records, n_windows = loader.dataset.records, loader.batch_sampler.n_windows
    partial = partial_results(opts, this_run.world, records, this_run.network)
    results, features = take_over(partial, loader, this_run.world, this_run.log)

    with (this_run.log.progress(loader.batch_sampler.n_own_clips(), 'inference',
                                unit='clip') as progress,
          this_run.tap or nullcontext() as tap, partial):
        for found in predict(until_stopped(loader, stop), model, this_run.normalize,
                             this_run.task, device=this_run.device, on_step=progress.update,
                             tap=tap, n_windows=n_windows):
            result = video_result(found.scores, found.segments, this_run.class_names,
                                  opts.output_topk, average)
            results[found.video], row = result, {'result': result}
            if this_run.tap:
                features[found.video] = feature_rows(found, average)
                row['features'] = pack(*features[found.video])
            # A video with bad frames is read again, so that they are counted again.
            if len(found.scores) == n_windows(found.video):
                partial.add(records.video_ids[found.video], row)
    end_if_stopped(this_run, stop)
    write_results(opts.result_path / f'{opts.inference_subset}.json', results, records,
                  this_run.world, this_run.log)
    if this_run.tap:
        write_all_features(opts.output_features, features, records, this_run.world, this_run.log)
    distributed.wait_for_all()
    partial.remove()


def until_stopped(loader, stop):
    """The batches of a loader, up to a request to stop."""
    for batch in loader:
        yield batch
        if stop.signum:
            return


def end_if_stopped(this_run, stop):
    """Raise Stopped in all processes where any was asked to stop."""
    asked = torch.tensor([stop.signum], device=this_run.device)
    if int(distributed.total(asked)):
        raise stopped(this_run, stop.signum or signal.SIGTERM,
                      'the same command goes on' if this_run.opts.no_train
                      else 'go on with --resume_path auto')


if __name__ == '__main__':
    run(main)
