"""Train, validate and run 3D ResNets on video: python main.py --help lists all flags."""

import os

from runtime.errors import StopSignals, answered, begin

if __name__ == '__main__':
    begin(os.environ)

from opts import Options, check, clip_shape, normalization, parse_opts, replace

if __name__ == '__main__':
    answered(parse_opts)  # --help and wrong flags: before torch is imported, which takes seconds

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace as with_fields
from typing import Any

import torch

import checkpoint
from datasets.annotations import check_class_count, read_annotation
from datasets.loading import build_loader, naming_lost_processes, notes_on_data
from defaults import resolved, without_effect
from features import FeatureTap
from inference import infer
from model import (adopt_options, begin_training, build_network, load_network, load_pretrained,
                   match_class_names, prepare_network, read_weights)
from models.base import Classifier
from overview import data_line, extraction_lines, gpu_line, network_line
from resume import resumed_options, resuming_command
from run import Run
from runtime import distributed, errors, logs
from runtime.hardware import check_smallest_batch, make_parallel, pick_device_of_run
from runtime.output import wrapped
from runtime.profiler import StepTrace
from spatial_transforms import Normalize
from tasks import TASKS
from training import Trainer
from validation import evaluated_epoch, val_line, validate, warn_of_no_labels
from weights import Weights, describe


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the flags say; the exit status. Raises InputError."""
    opts = parse_opts(argv)
    arguments = sys.argv[1:] if argv is None else argv
    world = distributed.find_world(os.environ)
    if opts.distributed and distributed.LAUNCHER_VARIABLE not in os.environ:
        return distributed.start_processes(
            [sys.executable, __file__, *arguments], os.environ, world_size=opts.world_size,
            dist_url=opts.dist_url, no_cuda=opts.no_cuda)
    device = pick_device_of_run(world, no_cuda=opts.no_cuda, sync_batchnorm=opts.batchnorm_sync,
                                is_quiet=opts.quiet)
    with (distributed.joined(world, device, opts.dist_url), naming_lost_processes(),
          ExitStack() as held, StopSignals(is_told=world.is_main) as stop):
        # Of a launcher, its own flags are not known.
        is_known = world.size == 1 or world.launcher == '--distributed'
        command = resuming_command(__file__, arguments, opts) if is_known else ''
        run = prepare(opts, world, device, stop, command)
        trainer = None if opts.no_train else Trainer(run, StepTrace(run.log.folder, opts.profile))
        run.take_folder(held)
        status = 0
        if trainer:
            status = trainer.train()
        elif not opts.no_val:
            metrics = validate(run, evaluated_epoch(run.weights))
            run.log.say(val_line(metrics, run))
        if opts.inference:
            infer(run)
        run.log.close()
    return status


def prepare(opts: Options, world: distributed.World, device: torch.device,
            stop: StopSignals, command: str) -> Run:
    """Check all that was given, then build all that the run needs."""
    log = logs.RunLog(opts.result_path if world.is_main else None, opts.tensorboard, opts.quiet)
    opts = find_resumed(opts, world, log)
    for line in without_effect(opts):
        log.warn(line)
    path = opts.resume_path or opts.pretrain_path
    if opts.no_train and not path and not opts.random_weights:
        raise errors.InputError('--no_train without weights evaluates a random network: give '
                                '--resume_path FILE, or --random_weights if that is meant')
    weights = read_weights(path, opts) if path else None
    opts, class_names, loaders = prepare_data(opts, weights, world, device, log)
    network = make_network(opts, weights, class_names, log).to(device)
    for line in filter(None, [network_line(opts, network), gpu_line(opts, device)]):
        log.say(wrapped(line))
    if not opts.no_train:
        check_smallest_batch(network, clip_shape(opts),
                             loaders['train'].batch_sampler.smallest_share())
    in_precision = prepare_network(opts, network, device)
    mean, std = normalization(opts)
    return Run(opts=opts, world=world, device=device, log=log, stop=stop, weights=weights,
               class_names=class_names, description=describe(opts, network, class_names),
               loaders=loaders, network=network, in_precision=in_precision,
               model=make_parallel(in_precision, device, world.size, opts.batchnorm_sync,
                                   has_unused=opts.unfreeze_epoch > 0),
               normalize=Normalize(mean, std, opts.value_scale).to(device),
               task=TASKS[opts.multi_label],
               tap=FeatureTap(network, opts.feature_module) if opts.output_features else None,
               command=command)


def find_resumed(opts: Options, world: distributed.World, log: logs.RunLog) -> Options:
    """The options with the checkpoint that `--resume_path auto` stands for, or with none.

    --pretrain_path counts only where there is none, so that one command begins and goes on.
    """
    if opts.resume_path is None or opts.resume_path.name != 'auto':
        return opts
    path = distributed.from_main(
        checkpoint.newest(opts.result_path, log.warn) if world.is_main else None, world)
    log.say(f'--resume_path auto: {path or "no checkpoint yet, a new training begins"}')
    opts = replace(opts, resume_path=path, pretrain_path=None if path else opts.pretrain_path)
    check(opts)
    return opts


def prepare_data(opts: Options, weights: Weights | None, world: distributed.World,
                 device: torch.device, log: logs.RunLog
                 ) -> tuple[Options, tuple[str, ...], dict[str, Any]]:
    """The options with what the checkpoint says, the names of the classes, the loaders by split."""
    is_pretrained = opts.pretrain_path is not None
    annotation = read_annotation(opts.annotation_path)
    opts, found = resolved(opts, annotation, has_classes=weights is not None and not is_pretrained,
                           has_network=weights is not None)
    if weights:
        opts = adopt_options(opts, weights, is_pretrained, log.warn)
    if weights and not is_pretrained and not opts.no_train:
        opts = resumed_options(opts, weights, log.warn)
    log.add_metrics(TASKS[opts.multi_label].metrics)
    if weights and not is_pretrained:
        annotation = with_fields(annotation, class_names=match_class_names(
            annotation.class_names, weights, log.warn))
    check_class_count(annotation, opts.n_classes)
    shared = share_batches(opts, world, log)
    loaders = {split: build_loader(shared, split, annotation, rank=world.rank,
                                   world_size=world.size, pin_memory=device.type == 'cuda')
               for split in wanted_splits(opts)}
    notes = [note for split, loader in loaders.items()
             for note in notes_on_data(opts, split, loader)]
    for line in filter(None, [data_line(loaders, annotation.class_names), found, *notes]):
        log.say(wrapped(line))
    for line in extraction_lines(opts, loaders):
        log.say(line)
    if not opts.no_val:
        warn_of_no_labels(opts, loaders['val'].dataset.records, log)
    return opts, annotation.class_names, loaders


def share_batches(opts: Options, world: distributed.World, log: logs.RunLog) -> Options:
    """The options with the batch of all nodes, and the loader processes of one process."""
    if world.size == 1:
        return opts
    batch_size = opts.batch_size * world.n_nodes
    log.say(f'{world}; batches of about {batch_size / world.size:g} clips a process, '
            f'{batch_size} in all')
    return replace(opts, batch_size=batch_size,
                   n_threads=math.ceil(opts.n_threads / world.local_size))


def wanted_splits(opts: Options) -> list[str]:
    """The splits that a run reads."""
    wanted = {'train': not opts.no_train, 'val': not opts.no_val, 'inference': opts.inference}
    return [split for split in wanted if wanted[split]]


def make_network(opts: Options, weights: Weights | None, class_names: Sequence[str],
                 log: logs.RunLog) -> Classifier:
    """A new network, that of a checkpoint, or that with a new classifier."""
    if weights is None:
        network = build_network(opts)
    elif opts.pretrain_path is None:
        network = load_network(opts, weights)
    else:
        network = load_pretrained(opts, weights, log.warn, class_names)
        if opts.no_train and not opts.keep_classifier:
            log.warn('--pretrain_path gives the network a new, untrained classifier; to evaluate '
                     'the file as it is give --resume_path')
    begin_training(opts, network)
    return network


if __name__ == '__main__':
    errors.run(main, outlives_stdout=True)
