"""A benchmark part by part: loader, step, both together, inference, extraction and clips."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from datasets.annotations import check_class_count, read_annotation
from datasets.presets import batch_mix
from defaults import resolved
from inference import predict
from model import adopt_options, build_network, load_network, prepare_network, read_weights
from models import network_name
from opts import Options, clip_shape, replace
from runtime.errors import InputError
from runtime.files import write_json
from runtime.hardware import check_smallest_batch, pick_device
from runtime.output import is_quiet, note, wrote
from tasks import TASKS
from training import train_epoch
from util_scripts.helpers.bench import Bench, wait_for
from util_scripts.helpers.benchmark_clips import check_clips, clip_rows
from util_scripts.helpers.benchmark_extraction import check_extraction, extraction_rows
from util_scripts.helpers.benchmark_loader import loader_rows
from util_scripts.helpers.benchmark_step import our_step, step_rows
from util_scripts.helpers.text import n_of
from util_scripts.helpers.timing import HEADING, Row, line, now, timed_row


class _Measured:
    """Passes of a loader, until they have taken so many seconds: how many clips came in those, and
    how long they were waited for.

    The first batch of a pass is left out, since loader processes start then.
    """

    def __init__(self, loader: Any, bench: Bench) -> None:
        self.loader, self.batch_sampler = loader, loader.batch_sampler
        self.seconds, self.device = bench.seconds, bench.device
        self.passed, self.waited_sec, self.n_clips = np.zeros(2), 0.0, 0

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        yield next(batches)
        begin = asked = now()
        while (self.passed + asked - begin)[0] < self.seconds:
            batch = next(batches, None)
            self.waited_sec += (now() - asked)[0]
            if batch is None:
                break
            self.n_clips += len(batch.labels)
            yield batch
            asked = now()
        wait_for(self.device)
        self.passed += now() - begin

    def is_over(self) -> bool:
        return self.passed[0] >= self.seconds


def end_to_end_rows(bench: Bench) -> list[Row]:
    """A training with its loader, and which of the two waits for the other."""
    step = our_step(bench)
    step.times()
    loader = _Measured(bench.loader('train'), bench)
    while not loader.is_over():
        train_epoch(loader, step.model, step.prepare, TASKS[bench.opts.multi_label],
                    step.optimization, device=bench.device, mix=batch_mix(bench.opts))
    share = loader.waited_sec / loader.passed[0]
    limit = 'loader' if share > 0.1 else 'step'
    return [timed_row('end to end', f'training, {_processes(bench)}',
                      loader.passed / loader.n_clips, 'clip',
                      f'{100 * share:.0f} % of it waiting for clips: the {limit} is the limit')]


def inference_rows(bench: Bench) -> list[Row]:
    """Videos per second, from files to scores."""
    opts, weights = bench.opts, bench.weights
    network = load_network(opts, weights) if weights else build_network(opts)
    model = prepare_network(opts, network.to(bench.device), bench.device)
    loader = _Measured(bench.loader('inference'), bench)
    while not loader.is_over():
        for _ in predict(loader, model, bench.normalize(), TASKS[opts.multi_label],
                         device=bench.device):
            pass
    n_windows = loader.batch_sampler.n_own_clips() / len(loader.loader.dataset)
    return [timed_row('inference', f'all of it, {_processes(bench)}',
                      loader.passed / loader.n_clips * n_windows, 'video',
                      f'of {n_windows:.1f} windows')]


def _processes(bench: Bench) -> str:
    return n_of(bench.opts.n_threads, 'process') if bench.opts.n_threads else 'no processes'


# ---------------------------------------------------------------- all of it

PARTS: dict[str, Callable[[Bench], Iterable[Row]]] = {
    'loader': loader_rows, 'step': step_rows, 'end_to_end': end_to_end_rows,
    'inference': inference_rows, 'extraction': extraction_rows, 'clips': clip_rows}
# These take videos, and no data to train on.
VIDEO_PARTS = 'extraction', 'clips'


def _check(bench: Bench, parts: Sequence[str], json_path: Path | None) -> None:
    """Raise InputError for what would come to light when other parts are measured already."""
    opts = bench.opts
    rules = [
        (bench.videos and not set(parts) & set(VIDEO_PARTS),
         '--videos is for extraction: add --parts extraction, or drop it'),
        (bench.weights and set(parts) - {'inference'},
         '--resume_path is for --parts inference: give that, or drop it'),
        (bench.against and 'clips' not in parts,
         '--against is of decoders of clips: add --parts clips, or drop it'),
        (json_path and not json_path.absolute().parent.is_dir(),
         f'--json {json_path}: no such folder; make it, or give another file'),
        (bench.is_against_plain and 'loader' in parts and (
            opts.file_type != 'jpg' or opts.train_crop != 'random' or opts.no_hflip),
         '--against_plain compares random crops of jpg frames: drop --file_type, --train_crop and '
         '--no_hflip, or drop it')]
    for broken, sentence in rules:
        if broken:
            raise InputError(sentence)
    if not bench.weights:
        check_class_count(bench.annotation, opts.n_classes)
    if set(parts) - {'loader', *VIDEO_PARTS}:
        check_smallest_batch(build_network(opts), clip_shape(opts), opts.batch_size)
    for split, part in (('train', 'end_to_end'), ('inference', 'inference')):
        if part in parts and len(bench.loader(split, n_threads=0).batch_sampler) < 2:
            raise InputError(f'--parts {part}: the data are a single batch, too few to measure; '
                             'give a smaller --batch_size, or other --parts')
    if 'extraction' in parts:
        check_extraction(bench)
    if 'clips' in parts:
        check_clips(bench)


def measure(argv: Sequence[str], own: Namespace, opts: Options) -> None:
    """Measure and print, and write, each part when it is done. Raises InputError.

    own: the flags of `benchmark` that main.py has not
    """
    device = pick_device(opts.no_cuda)
    annotation = read_annotation(opts.annotation_path)
    weights = read_weights(opts.resume_path, opts) if opts.resume_path else None
    opts, found = resolved(opts, annotation, has_classes=False, has_network=weights is not None)
    if found:
        note(found, sys.stderr)
    if weights:
        opts = adopt_options(replace(opts, n_classes=weights.network['n_classes']), weights)
    name = (torch.cuda.get_device_name() if device.type == 'cuda'
            else f'CPU, {n_of(torch.get_num_threads(), "thread")}')
    bench = Bench(opts, annotation, device, own.seconds, own.against_plain, own.videos,
                  tuple(own.against), weights)
    _check(bench, own.parts, own.json)
    print(f'{network_name(vars(opts))} on {name}, {os.cpu_count()} cores; '
          f'{opts.batch_size} clips of {opts.sample_duration}x{opts.sample_size}x'
          f'{opts.sample_size}, {opts.precision}\n{HEADING}', flush=True)
    rows = []
    with tqdm(own.parts, 'benchmark', unit='part', disable=is_quiet() or None) as progress:
        for part in progress:
            progress.set_description(part)
            for row in PARTS[part](bench):
                rows.append(row)
                tqdm.write(line(row), file=sys.stdout)
                sys.stdout.flush()
            if own.json:
                write_json(own.json, {'device': name, 'torch': str(torch.__version__),
                                      'flags': argv, 'rows': [row._asdict() for row in rows]})
    if own.json:
        wrote(own.json)
