"""How fast clips are loaded: the loader in its parts, and as a whole in loader processes."""

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.videodataset import collate
from runtime.cpu import keep_freed_memory
from util_scripts.helpers.bench import Bench
from util_scripts.helpers.plain_loader import PlainClips, plain_collate
from util_scripts.helpers.text import n_of
from util_scripts.helpers.timing import Row, now, timed_row, times_ours

# How often loaders in processes take turns.
ROUNDS = 3


class Clock:
    """Times by name, of functions that were wrapped in `timed`."""

    def __init__(self) -> None:
        self.sec: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is added to that of `name`."""
        def run_timed(*args: Any, **options: Any) -> Any:
            begin = now()
            try:
                return function(*args, **options)
            finally:
                self.sec[name] += now() - begin
        return run_timed


def loader_rows(bench: Bench) -> Iterator[Row]:
    """Parts of the loader on one core, then what loader processes give."""
    for split in ('train', 'val'):
        yield from _parts_rows(bench, split)
    if bench.device.type == 'cpu':
        keep_freed_memory()  # as training does
    for n_threads in sorted({1, bench.opts.n_threads} - {0}):
        yield from _process_rows(bench, n_threads)


def _process_rows(bench: Bench, n_threads: int) -> list[Row]:
    """Seconds per clip from loader processes; alternately from those of the plain loader."""
    loaders = [bench.loader('train', n_threads=n_threads)]
    if bench.is_against_plain:
        same = bench.loader('train', n_threads=0)
        loaders.append(DataLoader(
            PlainClips(same.dataset, bench.opts, 'train'), collate_fn=plain_collate,
            batch_sampler=same.batch_sampler, num_workers=n_threads, persistent_workers=True,
            pin_memory=same.pin_memory))
    rounds = [[_per_clip(loader, bench.seconds / ROUNDS) for loader in loaders]
              for _ in range(ROUNDS)]
    ours, *plain = np.median(rounds, axis=0)
    title = n_of(n_threads, 'process')
    rows = [timed_row('loader', title, ours, 'clip')]
    rows += [timed_row('loader', f'{title}: plain', sec, 'clip',
                       f'{sec[0] / ours[0]:.2f} x ours') for sec in plain]
    return rows


def _parts_rows(bench: Bench, split: str) -> list[Row]:
    """Seconds per clip for reading, decoding, cropping, collating; alternately the plain loader."""
    dataset, batches = _timed_parts(bench, split, clock := Clock())
    timed_collate = clock.timed('collate', collate)
    jobs: dict[str, Callable[[Any], Any]] = {
        'ours': lambda keys: timed_collate(dataset.__getitems__(keys))}
    if bench.is_against_plain:
        plain = PlainClips(dataset, bench.opts, split)
        jobs['plain'] = lambda keys: plain_collate([plain[key] for key in keys])
    n_clips, totals = _take_turns(jobs, batches, clock, bench.seconds)
    median = {name: np.median(rows, axis=0) for name, rows in totals.items()}
    title = {'train': 'training clip', 'val': 'validation clip'}[split]
    rows = [timed_row('loader', f'{title}: {name}', clock.sec[name] / n_clips, 'clip')
            for name in ('read', 'decode', 'crop', 'collate') if name in clock.sec]
    rows.append(timed_row('loader', f'{title}: all', median['ours'], 'clip'))
    if bench.is_against_plain:
        rows.append(timed_row('loader', f'{title}: plain', median['plain'], 'clip',
                              times_ours(median['plain'], median['ours'])))
    return rows


def _take_turns(jobs: dict[str, Callable[[Any], Any]], batches: list[Any], clock: Clock,
                seconds: float) -> tuple[int, dict[str, list[np.ndarray]]]:
    """(clips that each job made on one core, {job: times per clip, one per batch})."""
    totals: dict[str, list[np.ndarray]] = {name: [] for name in jobs}
    n_threads, n_clips, i = torch.get_num_threads(), 0, 0
    torch.set_num_threads(1)
    for job in jobs.values():  # what happens only the first time
        job(batches[0])
    clock.sec.clear()
    end = time.monotonic() + seconds
    while not n_clips or time.monotonic() < end:
        for name, job in jobs.items():
            begin = now()
            n = len(job(batches[i % len(batches)])[1])
            totals[name].append((now() - begin) / n)
        n_clips, i = n_clips + n, i + 1
    torch.set_num_threads(n_threads)
    return n_clips, totals


def _timed_parts(bench: Bench, split: str, clock: Clock) -> tuple[Any, list[Any]]:
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


def _per_clip(loader: Any, seconds: float) -> np.ndarray:
    """Time per clip over epochs of a loader, from its second batch on, for at least one batch."""
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
