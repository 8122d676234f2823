"""Train, validate and run 3D ResNets on video: python main.py --help lists all flags."""

import sys
from dataclasses import dataclass, replace as with_fields

import torch
from torch import nn

import checkpoint
import logs
from datasets import build_loader
from datasets.annotations import AnnotationError, read_annotation
from errors import run
from inference import predict, video_result
from model import (adopt_options, build_network, describe, freeze_before, load_network,
                   load_pretrained, make_parallel, match_class_names, unwrap)
from opts import Options, normalization, parse_opts, to_json
from spatial_transforms import Normalize
from training import build_optimizer, build_scheduler, restore, step_scheduler, train_epoch
from validation import evaluate

TRAIN_COLUMNS = ('epoch', 'loss', 'acc', 'lr', 'n_trained', 'n_frozen')
BATCH_COLUMNS = ('epoch', 'batch', 'iter', 'loss', 'acc', 'lr')
VAL_COLUMNS = ('epoch', 'loss', 'acc', 'clip_top5', 'video_top1', 'video_top5')
EVERY_EPOCH = sys.maxsize


@dataclass(frozen=True)
class Run:
    """What all parts of a run share.

    state, weights_path: the checkpoint it starts from, None for none
    loaders:             by split, those that the run needs
    model:               the network, as it is called; `normalize` makes its input on the device
    """

    opts: Options
    device: torch.device
    state: dict | None
    weights_path: object
    class_names: tuple
    loaders: dict
    model: nn.Module
    normalize: nn.Module
    criterion: nn.Module
    board: logs.Board

    @property
    def path(self):
        return self.opts.result_path

    @property
    def is_resumed(self):
        return self.opts.resume_path is not None


def main(argv=None):
    """Do what the flags say; the exit status. Raises InputError."""
    opts = parse_opts(argv)
    if opts.accimage:
        print('--accimage has no effect: that image library is no longer kept', file=sys.stderr)
    device = pick_device(opts)
    this_run = prepare(opts, device)
    if not opts.no_train:
        train(this_run)
    elif not opts.no_val:
        validate_once(this_run)
    if opts.inference:
        infer(this_run)
    this_run.board.close()
    return 0


# ---------------------------------------------------------------- before the first batch

def pick_device(opts):
    """The first GPU, or the CPU, which is said in one line."""
    if torch.cuda.is_available() and not opts.no_cuda:
        return torch.device('cuda')
    reason = '--no_cuda' if opts.no_cuda else 'no CUDA device was found'
    print(f'running on the CPU ({reason})')
    return torch.device('cpu')


def prepare(opts, device):
    """Check all that was given, then build all that the run needs."""
    path = opts.resume_path or opts.pretrain_path
    state = checkpoint.load(path) if path else None
    is_pretrained = opts.pretrain_path is not None
    if state:
        opts = adopt_options(opts, state, path, is_pretrained)
    annotation = read_annotation(opts.annotation_path)
    check_class_count(opts, annotation)
    if state and not is_pretrained:
        annotation = with_fields(annotation, class_names=match_class_names(
            annotation.class_names, state, path))
    loaders = {split: build_loader(opts, split, annotation, pin_memory=device.type == 'cuda')
               for split in wanted_splits(opts)}
    network = make_network(opts, state, path)
    logs.open_result_folder(opts.result_path, not opts.no_train and opts.resume_path is None)
    logs.write_opts(opts.result_path, to_json(opts))
    mean, std = normalization(opts)
    return Run(opts=opts, device=device, state=state, weights_path=path, loaders=loaders,
               class_names=annotation.class_names, model=make_parallel(network, device),
               normalize=Normalize(mean, std, opts.value_scale).to(device),
               criterion=nn.CrossEntropyLoss().to(device),
               board=logs.Board(opts.result_path if opts.tensorboard else None))


def check_class_count(opts, annotation):
    """Raise AnnotationError unless --n_classes is the number of labels."""
    n_labels = len(annotation.class_names)
    if n_labels != opts.n_classes:
        raise AnnotationError(f'{annotation.path}: has {n_labels} labels, and --n_classes is '
                              f'{opts.n_classes}; give --n_classes {n_labels}, or another '
                              'annotation')


def wanted_splits(opts):
    """The splits that a run reads."""
    wanted = {'train': not opts.no_train, 'val': not opts.no_val, 'inference': opts.inference}
    return [split for split in wanted if wanted[split]]


def make_network(opts, state, path):
    """A new network, that of a checkpoint, or that with a new classifier."""
    if state is None:
        network = build_network(opts)
    elif opts.pretrain_path is None:
        network = load_network(opts, state, path)
    else:
        network = load_pretrained(opts, state, path)
        if opts.no_train:
            print('--pretrain_path gives the network a new, untrained classifier; to evaluate '
                  'the file as it is give --resume_path', file=sys.stderr)
    freeze_before(network, opts.ft_begin_module)
    return network


# ---------------------------------------------------------------- training

def train(this_run):
    """Train up to --n_epochs, from the first or the resumed epoch on."""
    opts = this_run.opts
    network = unwrap(this_run.model)
    optimizer = build_optimizer(opts, network)
    scheduler = build_scheduler(opts, optimizer)
    begin_epoch = 1
    if this_run.is_resumed:
        restore(opts, this_run.state, this_run.weights_path, optimizer, scheduler)
        begin_epoch = this_run.state['epoch'] + 1
    if begin_epoch > opts.n_epochs:
        print(f'{this_run.weights_path}: is of epoch {begin_epoch - 1} and --n_epochs is '
              f'{opts.n_epochs}: nothing is trained; raise --n_epochs to go on, or evaluate it '
              'with --no_train', file=sys.stderr)
        return
    tables = {name: logs.TableLog(this_run.path / name, columns, begin_epoch - 1)
              for name, columns in (('train.log', TRAIN_COLUMNS),
                                    ('train_batch.log', BATCH_COLUMNS),
                                    ('val.log', VAL_COLUMNS))}
    for epoch in range(begin_epoch, opts.n_epochs + 1):
        line = train_one(this_run, epoch, optimizer, tables)
        val_loss = None
        if not opts.no_val:
            metrics = validate(this_run, epoch, tables['val.log'])
            val_loss = metrics['loss']
            line += f'; {val_line(metrics)}'
        step_scheduler(scheduler, val_loss)
        print(line, flush=True)
        if epoch % opts.checkpoint == 0 or epoch == opts.n_epochs:
            save(this_run, epoch, optimizer, scheduler)
    for table in tables.values():
        table.close()


def train_one(this_run, epoch, optimizer, tables):
    """Train one epoch and log it; the line that says how it went."""
    opts, loader = this_run.opts, this_run.loaders['train']
    lr = optimizer.param_groups[0]['lr']
    steps = StepLog(this_run, epoch, lr, tables['train_batch.log'])
    loader.set_epoch(epoch)
    with logs.Progress(len(loader.dataset), f'train {epoch}/{opts.n_epochs}', unit='clip',
                       describe=steps.figures) as steps.progress:
        metrics = train_epoch(loader, this_run.model, this_run.normalize, this_run.criterion,
                              optimizer, device=this_run.device, on_step=steps)
        rate = steps.progress.rate()
    counts = {'n_trained': 0, 'n_frozen': 0}
    for parameter in this_run.model.parameters():
        counts['n_trained' if parameter.requires_grad else 'n_frozen'] += parameter.numel()
    tables['train_batch.log'].flush()
    tables['train.log'].write(epoch=epoch, lr=lr, **metrics, **counts)
    tables['train.log'].flush()
    this_run.board.scalars('train', epoch, lr=lr, **metrics)
    return (f'epoch {epoch}/{opts.n_epochs}: lr {lr:.3g}, {rate:.1f} clips/s, '
            f'loss {metrics["loss"]:.4f}, clip top-1 {metrics["acc"]:.3f}')


class StepLog:
    """Called after each training step: table, TensorBoard, progress bar."""

    def __init__(self, this_run, epoch, lr, table):
        self.board, self.epoch, self.lr, self.table = this_run.board, epoch, lr, table
        self.n_batches = len(this_run.loaders['train'])
        self.batch, self.last, self.progress = 0, None, None

    def __call__(self, step):
        self.batch += 1
        self.last = step
        if self.batch == 1:
            self.board.clips('train/clips', step.batch.clips, self.epoch)
        iteration = (self.epoch - 1) * self.n_batches + self.batch
        self.table.write(epoch=self.epoch, batch=self.batch, iter=iteration, loss=step.loss,
                         acc=step.acc, lr=self.lr)
        self.board.scalars('train_batch', iteration, loss=step.loss, acc=step.acc, lr=self.lr)
        self.progress.update(step.n_clips)

    def figures(self):
        """What the bar shows."""
        return {'loss': self.last.loss, 'acc': self.last.acc}


def save(this_run, epoch, optimizer, scheduler):
    """Write save_{epoch}.pth."""
    opts = this_run.opts
    checkpoint.save(this_run.path / f'save_{epoch}.pth', {
        'epoch': epoch, 'arch': f'{opts.model}-{opts.model_depth}',
        'state_dict': unwrap(this_run.model).state_dict(), 'optimizer': optimizer.state_dict(),
        'scheduler': scheduler.state_dict(), **describe(opts, this_run.class_names)})


# ---------------------------------------------------------------- validation and inference

def validate(this_run, epoch, table):
    """Validate once, log it, return the metrics."""
    loader = this_run.loaders['val']
    title = f'validate {epoch}' if epoch else 'validate'
    with logs.Progress(len(loader.dataset), title, unit='video') as progress:
        metrics = evaluate(loader, this_run.model, this_run.normalize, this_run.criterion,
                           device=this_run.device, on_step=progress.update)
    table.write(epoch=epoch, acc=metrics['clip_top1'], **metrics)
    table.flush()
    this_run.board.scalars('val', epoch, **metrics)
    return metrics


def val_line(metrics):
    """Metrics of a validation in words."""
    return (f'validation loss {metrics["loss"]:.4f}, clip top-1 {metrics["clip_top1"]:.3f}, '
            f'video top-1 {metrics["video_top1"]:.3f}, top-5 {metrics["video_top5"]:.3f}')


def validate_once(this_run):
    """Validate without training. The epoch is that of our checkpoint, 1 for any other file."""
    state = this_run.state or {}
    epoch = state['epoch'] if 'format_version' in state else 1
    table = logs.TableLog(this_run.path / 'val.log', VAL_COLUMNS, EVERY_EPOCH)
    print(val_line(validate(this_run, epoch, table)))
    table.close()


def infer(this_run):
    """Classify the videos of --inference_subset and write {inference_subset}.json."""
    opts, loader = this_run.opts, this_run.loaders['inference']
    records = loader.dataset.records
    results = {}
    with logs.Progress(sum(loader.batch_sampler.n_clips), 'inference', unit='clip') as progress:
        for video, scores, segments in predict(loader, this_run.model, this_run.normalize,
                                               device=this_run.device, on_step=progress.update):
            results[records.video_ids[video]] = video_result(
                scores, segments, this_run.class_names, opts.output_topk,
                not opts.inference_no_average)
    path = this_run.path / f'{opts.inference_subset}.json'
    logs.write_json(path, {'results': results})
    print(f'{path}: results of {len(results)} videos')


if __name__ == '__main__':
    run(main)
