"""What a run says of itself: the block at its start, and what follows from its end."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models
from datasets.video import VIDEO_EXTENSIONS, find_video
from opts import Options, build_parser, clip_phases, clip_shape
from runtime.arguments import python
from runtime.errors import InputError
from runtime.files import EVALUATION_NAME
from runtime.output import WIDTH, wrapped

# A training on more videos may have no room for their frames.
FEW_VIDEOS = 10_000
# Bytes of an extracted frame, about: 320x240 at the quality that is the default.
FRAME_SIZE = 7000
# Of an end beyond a century no day is said.
FAR_SEC = 100 * 365 * 86400
PURPOSES = {'train': 'training', 'val': 'validation', 'inference': 'inference'}
# The first GPUs with products in TF32, of the Ampere generation.
TF32_CAPABILITY = (8, 0)
# Flags that an evaluation does not find in a checkpoint.
EVALUATION_FLAGS = ('dataset', 'file_type', 'bad_frames', 'n_val_samples', 'batch_size',
                    'n_threads', 'fast_decode', 'precision', 'tf32', 'no_cuda')


# ---------------------------------------------------------------- the start


def data_line(loaders: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """How many videos and classes there are, and which class is the smallest."""
    sizes = [f'{len(loader.dataset.records)} videos for {PURPOSES[split]}'
             for split, loader in loaders.items()]
    line = f'data: {", ".join(sizes)}; {len(class_names)} classes'
    if 'train' not in loaders:
        return line
    counts = loaders['train'].dataset.records.class_counts()
    smallest = int(counts.argmin())
    return f'{line}, the smallest of the training is {class_names[smallest]} ' \
           f'({int(counts[smallest])} videos)'


def network_line(opts: Options, network: nn.Module) -> str:
    """Name and size of the network, and what it takes. Raises InputError for clips of the training,
    in any phase of it, or of the validation that it does not take."""
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    total = sum(p.numel() for p in network.parameters())
    frozen = '' if opts.no_train or trained == total else f', {trained:,} of them trained'
    channels, *last = clip_shape(opts)
    *earlier, _ = clip_phases(opts)
    for phase in () if opts.no_train else earlier:
        gflop(network, (channels, phase.n_frames, phase.size, phase.size))
    try:
        count = gflop(network, (channels, *last))
    except InputError:
        if not (opts.no_train and opts.no_val):
            raise
        count = 0.0  # those of an inference may be larger, and are seen there
    cost = f', {count:.3g} GFLOP a clip' if count else ''
    return (f'network: {models.network_name(vars(opts))}, {total:,} parameters{frozen}{cost}; '
            f'clips of {opts.sample_duration} frames of {opts.sample_size}x{opts.sample_size}')


def gpu_line(opts: Options, device: torch.device) -> str:
    """Which GPU a run is on, and what would make it faster there; '' on the CPU."""
    if device.type != 'cuda':
        return ''
    return f'running on {torch.cuda.get_device_name(device)}' + precision_note(
        opts.precision, opts.tf32, torch.cuda.get_device_capability(device))


def precision_note(precision: str, tf32: bool, capability: tuple[int, int]) -> str:
    """That products are exact where a GPU of this compute capability could round them, or ''."""
    if precision != 'fp32' or tf32 or capability < TF32_CAPABILITY:
        return ''
    return (', in exact fp32: with --tf32, which rounds as torch does by default, or with '
            '--precision bf16 a step takes about a third of the time')


def gflop(network: Any, shape: tuple[int, ...]) -> float:
    """10^9 operations of one clip (C, T, H, W), forward, where a multiplication and an addition are
    two; 0 where they cannot be counted. Raises InputError for a clip that the network refuses."""
    try:
        return _counted_gflop(tuple(network.options.items()), shape)
    except (TypeError, AttributeError, NotImplementedError):
        return 0.0


@lru_cache
def _counted_gflop(options: tuple[tuple[str, Any], ...], shape: tuple[int, ...]) -> float:
    """Of the network of these options. Kept, as it takes as long as some steps of a small one."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import
    with torch.device('meta'), torch.no_grad():
        network = models.generate_model(**dict(options)).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, *shape))
    return counter.get_total_flops() / 1e9


def end_line(sec_left: float, now: datetime) -> str:
    """When a training will end, at its pace so far."""
    if sec_left > FAR_SEC:  # calendars end, too
        return f'at this pace the training takes {duration(sec_left)} more'
    end = now + timedelta(seconds=sec_left)
    day = '' if end.date() == now.date() else f' on {end:%A, %d %B}'
    return (f'at this pace the training takes {duration(sec_left)} more, until about {end:%H:%M}'
            f'{day}')


def extraction_lines(opts: Options, loaders: Mapping[str, Any]) -> Iterator[str]:
    """What a training on few video files would gain from frames that are extracted once."""
    if opts.no_train or opts.file_type != 'video':
        return
    # Validation and inference may read the same videos, which are extracted once.
    records = list({own.fingerprint(): own for own in (
        loader.dataset.records for loader in loaders.values())}.values())
    n_videos = sum(map(len, records))
    if n_videos > FEW_VIDEOS:
        return
    size_mb = sum(int(own.n_frames().sum()) for own in records) * FRAME_SIZE / 1e6
    path = records[0].paths[0]
    target = f'{opts.video_path}_jpg'
    yield wrapped('--file_type video decodes every clip from its file, in each epoch anew; frames '
                  f'that are extracted once (about {max(1, round(size_mb))} MB for {n_videos} '
                  'videos) are read several times as fast:')
    yield in_lines([python(), '-m', 'util_scripts.generate_video_jpgs', str(opts.video_path),
                    target, 'kinetics' if '/' in path else 'activitynet'])
    remake = Path(path).suffix.lower() in VIDEO_EXTENSIONS
    yield wrapped(f'  and then --video_path {target} --file_type jpg'
                  + (', with an annotation made of that folder' if remake else ''))


# ---------------------------------------------------------------- the end

def duration(sec: float) -> str:
    """45 s, 12 min, 3 h 05 min."""
    if sec < 99.5:
        return f'{sec:.0f} s'
    minutes = round(sec / 60)
    return f'{minutes} min' if minutes < 100 else f'{minutes // 60} h {minutes % 60:02d} min'


def in_lines(words: Sequence[str]) -> str:
    """A command to paste, indented, that goes on in the next line where it is long."""
    parts: list[str] = []
    for word in map(shlex.quote, words):
        is_value = parts and parts[-1].startswith('--') and not word.startswith('--')
        parts[-1:] = [f'{parts[-1]} {word}'] if is_value else [*parts[-1:], word]
    lines = ['  ' + parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) > WIDTH - 3:
            lines.append('     ')
        lines[-1] += f' {part}'
    return ' \\\n'.join(lines)


def next_lines(opts: Options, path: Path, loaders: Mapping[str, Any]) -> Iterator[str]:
    """Where everything lies; the commands that evaluate the checkpoint at `path`, that predict with
    it, and that make a page of the run."""
    yield wrapped(f'logs, options and checkpoints are in {opts.result_path}')
    defaults = vars(build_parser().parse_args([]))
    flags = []
    for name in EVALUATION_FLAGS:
        value = getattr(opts, name)
        if value != defaults[name]:
            flags += [f'--{name}'] if value is True else [f'--{name}', str(value)]
    if 'val' in loaders:
        script = os.path.relpath(Path(__file__).with_name('main.py'))
        yield 'evaluate it:'
        yield in_lines([python(), script, '--video_path', str(opts.video_path),
                        '--annotation_path', str(opts.annotation_path), '--result_path',
                        str(opts.result_path / EVALUATION_NAME), '--resume_path', str(path),
                        '--no_train', '--inference', *flags])
    if opts.input_type == 'rgb':
        yield 'predict with it (any video, or folder of frames, will do):'
        yield in_lines([python(), '-m', 'util_scripts.predict', _a_video(opts, loaders),
                        '--weights', str(path), *(['--no_cuda'] if opts.no_cuda else [])])
    yield 'a page on it, with its curves, and its results once there are some:'
    yield in_lines([python(), '-m', 'util_scripts.report', str(opts.result_path)])


def _a_video(opts: Options, loaders: Mapping[str, Any]) -> str:
    """A video of the validation, or else of the training, that predict can read."""
    records = loaders['val' if 'val' in loaders else 'train'].dataset.records
    path = os.path.join(opts.video_path, records.paths[0])
    return path if os.path.isdir(path) else find_video(path) or 'VIDEO.mp4'
