"""Measure what the speed of a run is, and what it is limited by.

    python -m util_scripts.benchmark [flags of main.py] [--json FILE]

Without --video_path it makes 320x240 frames of its own. The loader is measured in its parts and
as a whole, then the training step, then both together, then inference. Times are medians, or
means over what fits into --seconds, and are printed as they come. --parts extraction measures how
fast frames are extracted from videos, --parts clips how fast random clips are read from them.
"""

import argparse
import copy
import json
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from datasets.annotations import check_class_count, read_annotation
from datasets.loading import build_loader
from datasets.videodataset import collate
from inference import predict
from model import build_network, prepare_network
from opts import (Options, build_parser, clip_shape, n_input_channels, normalization, parse_opts,
                  replace)
from runtime.cpu import keep_freed_memory
from runtime.errors import InputError, run
from runtime.files import write_json
from runtime.hardware import AUTOCAST_TYPES, check_smallest_batch, pick_device
from spatial_transforms import Normalize
from tasks import TASKS
from training import build_optimizer, build_scaler, train_epoch
from util_scripts.helpers.benchmark_clips import DECODERS, check_clips, clip_rows
from util_scripts.helpers.benchmark_extraction import check_extraction, extraction_rows
from util_scripts.helpers.timing import (Row, heading, line, moving_frames, now, peak_rate,
                                         times_ours)
from util_scripts.helpers.utils import end_on_sigterm, n_of, n_processors

# Of the synthetic data: the least number of batches, a video of 40 frames taken as two clips.
N_BATCHES = {'training': 16, 'validation': 4}
# Of matrices and, in channels, of a 3x3x3 convolution that a device is measured with.
PRODUCT_SIZE = {'cpu': 2048, 'cuda': 8192}
CONVOLUTION_PLANES = {'cpu': 64, 'cuda': 256}
# How often loaders in processes take turns.
ROUNDS = 3


@dataclass(frozen=True)
class Bench:
    """What the measurements share: options, where to compute, and how long to measure."""

    opts: Options
    annotation: object
    device: torch.device
    seconds: float
    is_against_plain: bool
    videos: Path | None = None
    against: tuple[str, ...] = ()

    def loader(self, split, **changes):
        opts = replace(self.opts, **changes)
        return build_loader(opts, split, self.annotation, pin_memory=self.device.type == 'cuda')

    def normalize(self):
        mean, std = normalization(self.opts)
        return Normalize(mean, std, self.opts.value_scale).to(self.device)


def wait_for(device):
    """Until the device has done all it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


class Clock:
    """Times by name, of functions that were wrapped in `timed`."""

    def __init__(self):
        self.sec = defaultdict(lambda: np.zeros(2))

    def timed(self, name, function):
        def run_timed(*args, **options):
            begin = now()
            try:
                return function(*args, **options)
            finally:
                self.sec[name] += now() - begin
        return run_timed


# ---------------------------------------------------------------- data to measure on

def make_data(folder, n_videos=8, n_frames=40, batch_size=8):
    """Frames and an annotation in a folder; the flags of main.py that name them.

    Every class is one video, which as many entries of the annotation name as some batches need.
    """
    folder, rng = Path(folder), np.random.default_rng(0)
    labels, database = [f'class_{i}' for i in range(n_videos)], {}
    for label in labels:
        _write_video(folder / 'jpg' / label, n_frames, rng)
        for subset, n_batches in N_BATCHES.items():
            for i in range(math.ceil(n_batches * batch_size / n_videos)):
                marks = {'label': label, 'segment': [1, n_frames + 1]}
                database[f'{label}_{subset}_{i}'] = {'subset': subset, 'annotations': marks,
                                                     'video_path': label}
    (folder / 'annotation.json').write_text(json.dumps({'labels': labels, 'database': database}))
    return ['--video_path', str(folder / 'jpg'), '--annotation_path',
            str(folder / 'annotation.json'), '--n_classes', str(n_videos)]


def _write_video(folder, n_frames, rng):
    """`moving_frames` in files of about 10 kB a frame."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(moving_frames(n_frames, rng)):
        Image.fromarray(frame).save(folder / f'image_{i + 1:05d}.jpg', quality=75)


# ---------------------------------------------------------------- the loader

def loader_rows(bench):
    """Parts of the loader on one core, then what loader processes give."""
    for split in ('train', 'val'):
        yield from _parts_rows(bench, split)
    if bench.device.type == 'cpu':
        keep_freed_memory()  # as training does
    for n_threads in sorted({1, bench.opts.n_threads} - {0}):
        yield from _process_rows(bench, n_threads)


def _process_rows(bench, n_threads):
    """Seconds a clip from loader processes; alternately from those of the plain loader."""
    loaders = {'ours': bench.loader('train', n_threads=n_threads)}
    if bench.is_against_plain:
        loaders['plain'] = _plain_loader(bench, n_threads)
    rounds = [[_per_clip(loader, bench.seconds / ROUNDS) for loader in loaders.values()]
              for _ in range(ROUNDS)]
    ours, *plain = np.median(rounds, axis=0)
    title = n_of(n_threads, 'process')
    rows = [Row('loader', title, *ours, 'clip')]
    rows += [Row('loader', f'{title}: plain', *sec, 'clip', f'{sec[0] / ours[0]:.2f} x ours')
             for sec in plain]
    return rows


def _parts_rows(bench, split):
    """Seconds a clip for reading, decoding, cropping, collating; alternately the plain loader."""
    dataset, batches = _timed_parts(bench, split, clock := Clock())
    timed_collate = clock.timed('collate', collate)
    jobs = {'ours': lambda keys: timed_collate(dataset.__getitems__(keys))}
    if bench.is_against_plain:
        jobs['plain'] = _plain_job(bench, dataset, split)
    n_threads, n_clips, totals = torch.get_num_threads(), 0, {name: [] for name in jobs}
    torch.set_num_threads(1)
    for job in jobs.values():  # what happens only the first time
        job(batches[0])
    clock.sec.clear()
    end, i = time.monotonic() + bench.seconds, 0
    while not n_clips or time.monotonic() < end:
        for name, job in jobs.items():
            begin = now()
            n = len(job(batches[i % len(batches)])[1])
            totals[name].append((now() - begin) / n)
        n_clips, i = n_clips + n, i + 1
    torch.set_num_threads(n_threads)
    median = {name: np.median(rows, axis=0) for name, rows in totals.items()}
    title = {'train': 'training clip', 'val': 'validation clip'}[split]
    rows = [Row('loader', f'{title}: {name}', *clock.sec[name] / n_clips, 'clip')
            for name in ('read', 'decode', 'crop', 'collate') if name in clock.sec]
    rows.append(Row('loader', f'{title}: all', *median['ours'], 'clip'))
    if bench.is_against_plain:
        rows.append(Row('loader', f'{title}: plain', *median['plain'], 'clip',
                        times_ours(median['plain'], median['ours'])))
    return rows


def _timed_parts(bench, split, clock):
    """The split's data set with a clock in its parts, on the CPU, and the keys of its batches."""
    loader = bench.loader(split, n_threads=0)
    dataset, reader = copy.copy(loader.dataset), copy.copy(loader.dataset.reader)
    if hasattr(reader, 'load'):
        reader.load = clock.timed('read', reader.load)
        reader.decode = clock.timed('decode', reader.decode)
        dataset.spatial_transform = clock.timed('crop', dataset.spatial_transform)
    else:  # of a video file, whose frames are cropped as they are decoded
        reader.read_transformed = clock.timed('decode', reader.read_transformed)
    dataset.reader = reader
    return dataset, list(loader.batch_sampler)


def _plain_clips(bench, dataset, split):
    """The plain loader's samples; it lives with the tests, whose reference it is."""
    from util_scripts.helpers.plain_loader import PlainClips
    return PlainClips(dataset, bench.opts, split)


def _plain_job(bench, dataset, split):
    """The plain loader's batch of some keys."""
    from util_scripts.helpers.plain_loader import plain_collate
    plain = _plain_clips(bench, dataset, split)
    return lambda keys: plain_collate([plain[key] for key in keys])


def _plain_loader(bench, n_threads):
    """The plain loader in so many processes."""
    from util_scripts.helpers.plain_loader import plain_collate
    ours = bench.loader('train', n_threads=0)
    return DataLoader(_plain_clips(bench, ours.dataset, 'train'), collate_fn=plain_collate,
                      batch_sampler=ours.batch_sampler, num_workers=n_threads,
                      persistent_workers=True, pin_memory=ours.pin_memory)


def _per_clip(loader, seconds):
    """Time of a clip over epochs of a loader, from its second batch on, for at least one batch."""
    n_clips, begin, epoch = 0, None, 0
    while True:
        epoch += 1
        loader.batch_sampler.set_position(epoch)
        for _, labels, *_ in loader:
            if begin is None:
                begin = now()
                continue
            n_clips += len(labels)
            passed = now() - begin
            if passed[0] > seconds:
                return passed / n_clips


# ---------------------------------------------------------------- the training step

def step_rows(bench):
    """Forward, backward and optimiser of one step; alternately a plain one."""
    steps, plain_step = {'ours': our_step(bench)}, None
    if bench.is_against_plain:
        from util_scripts.helpers.plain_step import PlainStep
        steps['plain'] = plain_step = PlainStep(bench.opts, bench.device)
    times = {name: [] for name in steps}
    for step in steps.values():
        step.times()  # the first is slow
    end = time.monotonic() + bench.seconds * len(steps)
    while len(times['ours']) < 3 or time.monotonic() < end:
        for name, step in steps.items():
            times[name].append(step.times())
    if plain_step:
        plain_step.close()
    n_clips = bench.opts.batch_size
    median = {name: np.median(times[name], axis=0) / n_clips for name in steps}
    ours = median['ours'].sum(axis=0)
    rows = [Row('step', what, *sec, 'clip')
            for what, sec in zip(('forward', 'backward', 'optimiser'), median['ours'])]
    rows.append(Row('step', f'all, {bench.opts.precision}', *ours, 'clip',
                    _rate_note(bench, ours[0])))
    if plain_step:
        plain = median['plain'].sum(axis=0)
        rows.append(Row('step', 'plain: fp32, contiguous', *plain, 'clip',
                        times_ours(plain, ours)))
    return rows


class Step:
    """A training step on a batch of clips that lies on the device, with random labels.

    prepare: makes the model's input of the clips
    """

    def __init__(self, model, prepare, optimizer, scaler, clips, n_classes):
        self.model, self.prepare, self.optimizer, self.scaler = model, prepare, optimizer, scaler
        self.clips = clips
        self.labels = torch.randint(n_classes, clips.shape[:1], device=clips.device)

    def times(self):
        """Do a step: (3, 2), the time of forward, backward, optimiser."""
        marks = [self._mark()]
        loss = nn.functional.cross_entropy(self.model(self.prepare(self.clips)), self.labels)
        marks.append(self._mark())
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        marks.append(self._mark())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        marks.append(self._mark())
        return np.diff(marks, axis=0)

    def _mark(self):
        wait_for(self.clips.device)
        return now()


def our_step(bench):
    """The `Step` that main.py would do, on random clips."""
    opts, device = bench.opts, bench.device
    network = build_network(opts).to(device)
    model = prepare_network(opts, network, device).train()
    shape = (opts.batch_size, opts.sample_duration, opts.sample_size, opts.sample_size,
             n_input_channels(opts))
    clips = torch.randint(256, shape, dtype=torch.uint8, device=device).permute(0, 4, 1, 2, 3)
    return Step(model, bench.normalize(), build_optimizer(opts, network),
                build_scaler(opts, device), clips, opts.n_classes)


def _rate_note(bench, sec):
    """Operations a second of a step, and their share of the best that the device can do."""
    opts = bench.opts
    clip = torch.empty(2, *clip_shape(opts), device='meta')
    with FlopCounterMode(display=False) as counter:
        build_network(opts).to('meta').train()(clip).sum().backward()
    rate = counter.get_total_flops() / 2 / sec / 1e12
    bests = {'the best of a large product and a convolution': _best_rate(bench)}
    if bench.device.type == 'cuda':
        name = torch.cuda.get_device_name(bench.device)
        bests['the peak by its data sheet'] = peak_rate(name, opts.precision, opts.tf32)
    shares = [f'{100 * rate / best:.0f} % of {name} ({best:.2f})'
              for name, best in bests.items() if best]
    return f'{rate:.2f} TFLOP/s, {", ".join(shares)}'


@torch.no_grad()
def _best_rate(bench):
    """TFLOP/s that the device does of what it is best at, in the precision of the run."""
    kind, dtype = bench.device.type, AUTOCAST_TYPES[bench.opts.precision] or torch.float32
    size, planes = PRODUCT_SIZE[kind], CONVOLUTION_PLANES[kind]
    matrix = torch.ones(size, size, device=bench.device, dtype=dtype)
    x = torch.ones(8, planes, 8, 28, 28, device=bench.device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    convolution = nn.Conv3d(planes, planes, 3, padding=1, bias=False).to(x)
    return max(2 * size ** 3 / _least_sec(bench, lambda: matrix @ matrix),
               54 * planes * x.numel() / _least_sec(bench, lambda: convolution(x))) / 1e12


def _least_sec(bench, function):
    times = []
    for _ in range(10):
        wait_for(bench.device)
        begin = time.perf_counter()
        function()
        wait_for(bench.device)
        times.append(time.perf_counter() - begin)
    return min(times)


# ---------------------------------------------------------------- both together, inference

class _Measured:
    """Passes of a loader, until they have taken so many seconds: how many clips came in those, and
    how long they were waited for.

    The first batch of a pass is left out, since loader processes start then.
    """

    def __init__(self, loader, bench):
        self.loader, self.batch_sampler = loader, loader.batch_sampler
        self.seconds, self.device = bench.seconds, bench.device
        self.passed, self.waited_sec, self.n_clips = np.zeros(2), 0, 0

    def __iter__(self):
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

    def is_over(self):
        return self.passed[0] >= self.seconds


def end_to_end_rows(bench):
    """A training with its loader, and which of the two waits for the other."""
    step = our_step(bench)
    step.times()
    loader = _Measured(bench.loader('train'), bench)
    while not loader.is_over():
        train_epoch(loader, step.model, step.prepare, TASKS[bench.opts.multi_label],
                    step.optimizer, step.scaler, device=bench.device)
    share = loader.waited_sec / loader.passed[0]
    limit = 'loader' if share > 0.1 else 'step'
    return [Row('end to end', f'training, {_processes(bench)}', *loader.passed / loader.n_clips,
                'clip', f'{100 * share:.0f} % of it waiting for clips: the {limit} is the limit')]


def inference_rows(bench):
    """Videos a second, from files to scores."""
    step = our_step(bench)
    loader = _Measured(bench.loader('inference'), bench)
    while not loader.is_over():
        for _ in predict(loader, step.model, step.prepare, TASKS[bench.opts.multi_label],
                         device=bench.device):
            pass
    n_windows = loader.batch_sampler.n_own_clips() / len(loader.loader.dataset)
    return [Row('inference', f'all of it, {_processes(bench)}',
                *loader.passed / loader.n_clips * n_windows, 'video',
                f'of {n_windows:.1f} windows')]


def _processes(bench):
    return n_of(bench.opts.n_threads, 'process') if bench.opts.n_threads else 'no processes'


# ---------------------------------------------------------------- the command

PARTS = {'loader': loader_rows, 'step': step_rows, 'end_to_end': end_to_end_rows,
         'inference': inference_rows, 'extraction': extraction_rows, 'clips': clip_rows}
# A run of main.py begins when frames are there already.
VIDEO_PARTS = 'extraction', 'clips'
DEFAULT_PARTS = tuple(part for part in PARTS if part not in VIDEO_PARTS)


def _parser():
    parser = build_parser('-m util_scripts.benchmark', __doc__.splitlines()[0])
    group = parser.add_argument_group('benchmark')
    group.add_argument('--parts', nargs='+', choices=tuple(PARTS), default=DEFAULT_PARTS,
                       help='what to measure (default: all but extraction and clips, which need '
                            'videos)')
    group.add_argument('--videos', type=Path, metavar='DIR',
                       help='videos for --parts extraction and clips, in this folder and those in '
                            'it; without it some are made for extraction')
    group.add_argument('--against', nargs='+', choices=tuple(DECODERS), default=(),
                       help='decoders that read the clips of --parts clips in turns with ours, '
                            'those that are installed')
    group.add_argument('--seconds', type=_seconds, default=5.0, metavar='SEC',
                       help='how long to measure each')
    group.add_argument('--against_plain', action='store_true',
                       help='alternately measure a plain loader (Pillow, floats) and a plain step '
                            '(fp32, contiguous, in a process of its own); for extraction ffprobe '
                            'and ffmpeg')
    group.add_argument('--json', type=Path, metavar='FILE', help='also write the numbers there')
    return parser


def _seconds(text):
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is no time above 0')
    return seconds


def _parse(argv, folder):
    """(own flags, options); without --video_path on frames made in the folder."""
    parser = _parser()
    own_defaults = ['--batch_size', '8', '--n_threads', str(n_processors())]
    given = parser.parse_known_args([*own_defaults, *argv])[0]
    defaults = ['--result_path', str(folder)]
    if given.video_path is None:
        for name in ('annotation_path', 'root_path'):
            if getattr(given, name) != parser.get_default(name):
                raise InputError(f'--{name} is of data to measure on: add --video_path, or drop it')
        defaults += [*make_data(folder, batch_size=given.batch_size), '--dataset', 'ucf101',
                     *own_defaults]
    return given, parse_opts([*defaults, *argv], parser)


def _check(bench, parts, json_path):
    """Raise InputError for what would come to light when other parts are measured already."""
    opts = bench.opts
    rules = [
        (bench.videos and not set(parts) & set(VIDEO_PARTS),
         '--videos is for extraction: add --parts extraction, or drop it'),
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


def main(argv=None):
    """Measure and print, and write, each part when it is done. Raises InputError."""
    argv = sys.argv[1:] if argv is None else list(map(str, argv))
    with tempfile.TemporaryDirectory(prefix='benchmark_') as folder:
        own, opts = _parse(argv, folder)
        device = pick_device(opts.no_cuda)
        name = (torch.cuda.get_device_name() if device.type == 'cuda'
                else f'CPU, {n_of(torch.get_num_threads(), "thread")}')
        bench = Bench(opts, read_annotation(opts.annotation_path), device, own.seconds,
                      own.against_plain, own.videos, tuple(own.against))
        _check(bench, own.parts, own.json)
        print(f'{opts.model}-{opts.model_depth} on {name}, {os.cpu_count()} cores; '
              f'{opts.batch_size} clips of {opts.sample_duration}x{opts.sample_size}x'
              f'{opts.sample_size}, {opts.precision}\n{heading()}', flush=True)
        rows = []
        with tqdm(own.parts, 'benchmark', unit='part', disable=None) as progress:
            for part in progress:
                progress.set_description(part)
                for row in PARTS[part](bench):
                    rows.append(row)
                    tqdm.write(line(row), file=sys.stdout)
                    sys.stdout.flush()
                if own.json:
                    write_json(own.json, {'device': name, 'torch': str(torch.__version__),
                                          'flags': argv, 'rows': [row._asdict() for row in rows]})


if __name__ == '__main__':
    end_on_sigterm()
    run(main)
