"""Data loaders: `build_loader` makes the batches of training, validation or inference."""

import bisect
import contextlib
import copy
import errno
import itertools
import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets import annotations, presets, sampling
from datasets.annotations import Annotation, Records
from datasets.frames import READERS, FrameError, Reader, video_path
from datasets.videodataset import (LEAVE_OUT, RAISE, REPLACE, Bad, Batch, Sample, VideoDataset,
                                   collate)
from opts import ClipPhase, Options, clip_phases, replace
from runtime.errors import InputError, StopSignals
from runtime.output import for_stderr, to_stderr

# Up to this many videos are looked for before a run starts.
CHECKED_VIDEOS = 10_000
# A training with fewer steps per epoch is warned of.
FEW_STEPS = 10
# Where Linux has the files of shared memory.
SHARED_MEMORY = '/dev/shm'

# What the splits are for, in words.
PURPOSES = {'train': 'training', 'val': 'validation', 'inference': 'inference'}
BatchSampler = sampling.ShuffledBatches | sampling.VideoBatches | sampling.ClipBatches


class ClipLoader(DataLoader):
    """A DataLoader of `Batch`es that raises an InputError met in a loader process as it was.

    A batch all of whose videos were left out is not yielded. How many videos were bad is said at
    the end of a pass, in a line on stderr.
    """

    dataset: VideoDataset
    batch_sampler: Any  # a BatchSampler: which one depends on the split
    _leaves_out = False

    def check_worker_number_rationality(self) -> None:
        """No warning of torch's: more processes than processors are asked for, or the default."""

    def end_processes(self) -> None:
        """Let its loader processes end, where there are any; the next pass would start others."""
        self._iterator = None

    def leave_out(self, videos: Sequence[int]) -> None:
        """Do not read these videos, by their numbers in the records: inference knows them."""
        self._leaves_out = len(videos) > 0
        self.batch_sampler.leave_out(videos)

    def _received(self) -> Iterator[Batch | InputError]:
        """Batches as loader processes made them."""
        try:
            with _naming_what_lacks():
                yield from super().__iter__()
        except (ConnectionError, EOFError):
            raise _lost_process('ended while it handed over a batch') from None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        bad: list[Bad] = []
        n_clips = 0
        for batch in self._received():
            if isinstance(batch, InputError):
                try:
                    raise batch
                finally:
                    # Whoever holds on to the error holds on to this frame, and with it to loader
                    # processes, which take long to end when the garbage collector does it.
                    del batch
                    self._iterator = None
            bad += batch.bad
            n_clips += len(batch.labels)
            if len(batch.labels):
                yield batch
        if bad and n_clips == 0 and not self._leaves_out:
            raise FrameError(f'no video can be read; the first: {bad[0].reason}')
        if bad:
            n_videos = len({video for video, _ in bad})
            said = for_stderr(f'bad frames: {n_videos} of {len(self.dataset)} videos were '
                              f'{self.dataset.on_bad_frame}; the first: {bad[0].reason}')
            tqdm.write(said, file=sys.stderr)


def build_loader(opts: Options, split: str, annotation: Annotation, *, rank: int = 0,
                 world_size: int = 1, pin_memory: bool = False,
                 start_method: str | None = None) -> ClipLoader:
    """Loader of one split: 'train', 'val', or 'inference' (of opts.inference_subset).

    `annotation` comes from annotations.read_annotation; `start_method` is multiprocessing's, the
    platform's by default. `loader.dataset.records` says which videos there are.

    Raises AnnotationError and FrameError.
    """
    reader = READERS[opts.file_type, opts.input_type](**presets.decode_options(opts, split))
    records = build_records(opts, split, annotation, reader,
                            _say_skipped if opts.bad_frames == 'skip' else None)
    _check_paths(opts, records, reader)
    # A video that stood for another one would be counted twice where each is to count once.
    skip = REPLACE if split == 'train' else LEAVE_OUT
    dataset = VideoDataset(records, opts.video_path, reader,
                           presets.temporal_transform(opts, split),
                           presets.spatial_transform(opts, split), opts.manual_seed,
                           skip if opts.bad_frames == 'skip' else RAISE)
    return _loader_of(dataset, opts, split, rank=rank, world_size=world_size,
                      pin_memory=pin_memory, start_method=start_method)


def _loader_of(dataset: VideoDataset, opts: Options, split: str, *, rank: int, world_size: int,
               pin_memory: bool, start_method: str | None = None) -> ClipLoader:
    """The loader of a data set."""
    batches = _batch_sampler(opts, split, dataset, rank, world_size)
    workers: dict[str, Any] = {}
    if opts.n_threads > 0:
        context = multiprocessing.get_context(start_method)
        with _naming_what_lacks():
            begin = _IgnoreStops(context)
        workers = {'num_workers': opts.n_threads, 'worker_init_fn': begin,
                   'persistent_workers': split != 'inference', 'multiprocessing_context': context}
    return ClipLoader(dataset, batch_sampler=batches, pin_memory=pin_memory,
                      collate_fn=_collate_shared if workers else collate, **workers)


class ClipSchedule:
    """The training loaders of --clip_schedule, one for each of its phases, of the same videos.

    loader: that of the clips and batches of the last phase

    A batch has so many more clips than one of the last phase as these have fewer pixels, rounded
    down: the long cycle of Wu et al., "A Multigrid Method for Efficiently Training Video Models",
    CVPR 2020. Its seeds are those of its epoch, so that it does not matter what came before.
    """

    def __init__(self, loader: ClipLoader, opts: Options) -> None:
        self._phases, self._last = clip_phases(opts), loader
        self._loaders = [self._loader_of(phase, opts) for phase in self._phases[:-1]] + [loader]
        self._ends = list(itertools.accumulate(phase.n_epochs for phase in self._phases))

    def at(self, epoch: int) -> ClipLoader:
        """The loader of an epoch. Loader processes of phases that are over end."""
        number = self._number(epoch)
        for loader in self._loaders[:number]:
            loader.end_processes()
        return self._loaders[number]

    def batch_factor(self, epoch: int) -> float:
        """How many times as many clips as in the last phase a batch has; data may have fewer."""
        sizes = [loader.batch_sampler.total(0) for loader in (self._loaders[self._number(epoch)],
                                                              self._last)]
        return sizes[0] / sizes[1]

    def n_batches_before(self, epoch: int) -> int:
        """Number of batches of all epochs before."""
        begins = [0, *self._ends[:-1]]
        return sum(len(loader) * max(0, min(end, epoch - 1) - begin)
                   for loader, begin, end in zip(self._loaders, begins, self._ends))

    def lines(self) -> Iterator[str]:
        """What is said of it: a line per phase, none where there is a single one."""
        begin = 1
        for phase, end in zip(self._phases, self._ends):
            if len(self._phases) > 1:
                order = self.at(begin).batch_sampler
                yield (f'epochs {begin} to {end}: clips of {phase.n_frames} frames of '
                       f'{phase.size}x{phase.size}, {len(order)} batches of {order.total(0)}')
            begin = end + 1

    def _number(self, epoch: int) -> int:
        """Which phase an epoch is of; what comes after the last one is of that."""
        return min(bisect.bisect_left(self._ends, epoch), len(self._ends) - 1)

    def _loader_of(self, phase: ClipPhase, opts: Options) -> ClipLoader:
        last, order = self._phases[-1], self._last.batch_sampler
        n_pixels, n_last = (one.n_frames * one.size ** 2 for one in (phase, last))
        n_videos = order.batch_size * n_last // (n_pixels * opts.repeated_aug)
        opts = replace(opts, sample_duration=phase.n_frames, sample_size=phase.size,
                       batch_size=n_videos * opts.repeated_aug,
                       n_threads=self._last.num_workers)
        dataset = copy.copy(self._last.dataset)
        dataset.temporal_transform = presets.temporal_transform(opts, 'train')
        dataset.spatial_transform = presets.spatial_transform(opts, 'train')
        return _loader_of(dataset, opts, 'train', rank=order.rank, world_size=order.world_size,
                          pin_memory=self._last.pin_memory)


def _collate_shared(samples: list[Sample] | InputError) -> Batch | InputError:
    """What `collate` makes in a loader process, the clips in shared memory; or InputError where
    there is too little of it, which torch would only find where nobody hears of it."""
    batch = collate(samples)
    if isinstance(batch, InputError) or not len(batch.labels):
        return batch
    size = batch.clips.nbytes
    try:
        batch.clips.share_memory_()
    except RuntimeError as error:
        file = re.search('torch_[0-9_]+', str(error))
        if not file:
            raise
        # torch leaves it, though it had no room for it.
        Path(SHARED_MEMORY, file[0]).unlink(missing_ok=True)
        return InputError(f'{SHARED_MEMORY}: the shared memory is full; a batch takes '
                          f'{size / 1e6:.0f} MB of it, and each loader process hands over up to '
                          'three at once: give it more (docker run --shm-size 8g), or a smaller '
                          '--batch_size or --n_threads')
    return batch


@contextlib.contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Within it InputError stands for torch's error that a loader process was lost, which may come
    at any time."""
    try:
        yield
    except RuntimeError as error:
        lost = re.match(r'DataLoader worker \(pid(?:\(s\))? [\d, ]+\) ([^.]+)', str(error))
        if not lost:
            raise
        raise _lost_process(lost[1]) from None


@contextlib.contextmanager
def _naming_what_lacks() -> Iterator[None]:
    """Within it InputError stands for errors of a system that does not have, or does not give, what
    loader processes need."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        cures = {**dict.fromkeys((errno.ENOSPC, errno.EROFS, errno.ENOENT, errno.EACCES,
                                  errno.ENOSYS, errno.ENOMEM),
                                 f'semaphores in {SHARED_MEMORY}: give it memory that can be '
                                 'written (docker run --shm-size 8g)'),
                 errno.EMFILE: 'files of their own: raise ulimit -n',
                 errno.EAGAIN: 'processes of their own: raise ulimit -u'}
        if error.errno not in cures:
            raise
        for frame, _ in traceback.walk_tb(error.__traceback__):
            # torch's iterator is half made, and would fail again when it is deleted.
            iterator: Any = frame.f_locals.get('self')
            if hasattr(iterator, '_shutdown_workers'):
                iterator._shutdown = True
        raise InputError(f'loader processes cannot be started ({error.strerror}), which need '
                         f'{cures[error.errno]}, or give --n_threads 0') from None


def _lost_process(what: str) -> InputError:
    return InputError(f'a loader process {what}, as when memory runs out: give a smaller '
                      '--n_threads or --batch_size; --resume_path auto goes on from the last '
                      'checkpoint')


class _IgnoreStops:
    """Begins a loader process: requests to stop are for the main process alone, until that ends.

    When Python exits it terminates such processes with the same signal, and waits for them.
    """

    def __init__(self, context: BaseContext) -> None:
        self._main_ends = context.Event()
        # Before those processes are terminated, also in a main process that is a child itself.
        Finalize(None, self._main_ends.set, exitpriority=100)

    def __call__(self, _worker: int) -> None:
        # What was asked for before is known by the event alone, whose lock the handler takes too.
        signal.pthread_sigmask(signal.SIG_BLOCK, StopSignals.SIGNALS)
        for number in StopSignals.SIGNALS:
            signal.signal(number, self._on_signal)
        self._on_signal()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, StopSignals.SIGNALS)

    def _on_signal(self, *_: object) -> None:
        if self._main_ends.is_set():
            os._exit(0)


def _say_skipped(_path: object, error: object) -> None:
    to_stderr(f'--bad_frames skip: {error}')


def build_records(opts: Options, split: str, annotation: Annotation, reader: Reader,
                  on_error: Callable[[str, FrameError], None] | None = None) -> Records:
    """Records of the split's samples; how many videos are left out is said on stderr.

    on_error: called with path and FrameError of a video whose frames cannot be counted, which is
              left out then; None raises the error. Only frames of taxonomies have to be counted.
    """
    subset = annotations.SUBSETS[opts.inference_subset if split == 'inference' else split]
    if (opts.dataset == 'activitynet') != annotation.is_taxonomy:
        schema = 'a taxonomy (ActivityNet)' if annotation.is_taxonomy else 'a label list'
        raise annotations.AnnotationError(f'{annotation.path}: is {schema} annotation; '
                                          f'it does not go with --dataset {opts.dataset}: '
                                          'drop --dataset, which is found then')
    if annotation.is_taxonomy and opts.multi_label:
        raise annotations.AnnotationError(f'{annotation.path}: is a taxonomy (ActivityNet), which '
                                          'has one label a segment, and --multi_label is for '
                                          'lists of labels; drop the flag')
    if annotation.is_taxonomy:
        def count_frames(path: str) -> int:
            path = video_path(opts.video_path, path, reader.suffix)
            try:
                return reader.announced(path)
            except FrameError as error:
                if on_error is None:
                    raise
                on_error(path, error)
                return 0
        records, n_left_out = annotations.taxonomy_records(
            annotation, subset, count_frames, first_frame=reader.first_frame,
            trimmed=split != 'inference')
    else:
        records, n_left_out = annotations.label_list_records(
            annotation, subset, first_frame=reader.first_frame, multi_label=opts.multi_label)
    if n_left_out:
        to_stderr(f'{annotation.path}: {n_left_out} of {n_left_out + len(records)} videos of '
                  f'subset {subset!r} are left out: they have no frames')
    return records


def _check_paths(opts: Options, records: Records, reader: Reader) -> None:
    """Raise FrameError where videos are missing, if they are to be looked for.

    Where bad frames are skipped it is said, as long as there is any video.
    """
    if not opts.video_path.is_dir():
        raise FrameError(f'{opts.video_path}: no such folder; check --video_path and --root_path')
    looked_for = len(records) <= CHECKED_VIDEOS if opts.check_paths is None else opts.check_paths
    if not looked_for:
        return
    errors = []
    for i in range(len(records)):
        frames = records.frames(i)
        try:
            reader.check(video_path(opts.video_path, records.paths[i], reader.suffix),
                         frames.start, frames.stop)
        except FrameError as error:
            errors.append(str(error))
    if not errors:
        return
    more = f' (and {len(errors) - 1} more of {len(records)} videos)' if len(errors) > 1 else ''
    if opts.bad_frames == 'error' or len(errors) == len(records):
        raise FrameError(errors[0] + more)
    _say_skipped(opts.video_path, errors[0] + more)


def notes_on_data(opts: Options, split: str, loader: ClipLoader) -> Iterator[str]:
    """What a user should know of a split before its first batch: sentences, one per subject."""
    records, n_clips = loader.dataset.records, loader.dataset.n_clips()
    if split == 'train':
        yield _steps_note(opts, loader.batch_sampler)
    if split == 'train' and not opts.multi_label and int((records.class_counts() > 0).sum()) == 1:
        yield ('all videos for training are of one class: there is nothing to learn, and any '
               'network is right; check the labels of the annotation')
    if split == 'train' and opts.balanced_sampling:
        yield _balance_note(loader.batch_sampler)
    n_frames = (records.n_frames() - 1) // opts.sample_t_stride + 1
    n_needed, flag = opts.sample_duration, f'--sample_duration {opts.sample_duration}'
    if split == 'train' and opts.speed_jitter:
        n_needed = int((n_needed - 1) * opts.speed_jitter[1]) + 1
        flag += f' takes at --speed_jitter {opts.speed_jitter[1]:g}, {n_needed}'
    n_short = int((n_frames < n_needed).sum())
    if n_short:
        yield (f'{n_short} of {len(records)} videos for {PURPOSES[split]} have fewer frames than '
               f'{flag} (the shortest has '
               f'{int(n_frames.min())}): their clips repeat them')
    n_fewer = int((n_clips < opts.n_val_samples).sum())
    if split == 'val' and 'n_val_samples' in opts.given and n_fewer:
        yield (f'{n_fewer} of {len(records)} videos for validation are too short for '
               f'--n_val_samples {opts.n_val_samples} clips at different places: they have '
               f'{int(n_clips.min())} or more')


def _balance_note(batches: sampling.BalancedBatches) -> str:
    share = batches.n_videos // len(batches.groups)
    rarest = min(map(len, batches.groups))
    note = f'--balanced_sampling: about {share} videos of each class per epoch'
    if share <= rarest:
        return note
    return f'{note}; the rarest has {rarest}, each of which comes up to {-(-share // rarest)} times'


def _steps_note(opts: Options, batches: sampling.ShuffledBatches) -> str:
    n_steps, n_clips = len(batches), batches.n_samples
    note = f'{n_clips} clips per epoch in {n_steps} step{"s" if n_steps > 1 else ""}'
    if batches.batch_size > n_clips:
        note = f'--batch_size {opts.batch_size} is more than the data: {note}'
    if n_steps >= FEW_STEPS:
        return note
    note += f'; with fewer than {FEW_STEPS} a network learns slowly'
    # The flag is for the processes of one node, of which there may be several.
    n_nodes = batches.batch_size // opts.batch_size
    enough = max(sampling.SMALLEST_BATCH, n_clips // FEW_STEPS) // n_nodes
    enough = max(1, enough // opts.repeated_aug) * opts.repeated_aug
    return note + (f', give --batch_size {enough}' if enough < opts.batch_size else '')


def _batch_sampler(opts: Options, split: str, dataset: VideoDataset, rank: int,
                   world_size: int) -> BatchSampler:
    shares = {'rank': rank, 'world_size': world_size}
    if split == 'train':
        batches: Callable[..., sampling.ShuffledBatches] = sampling.ShuffledBatches
        if opts.balanced_sampling:
            batches = partial(sampling.BalancedBatches, dataset.records.labels.samples_by_class())
        return batches(len(dataset), opts.batch_size, opts.manual_seed,
                       n_draws=opts.repeated_aug, **shares)
    if split == 'val':
        n_videos = max(1, opts.batch_size // opts.n_val_samples)
        return sampling.VideoBatches(len(dataset), n_videos, **shares)
    return sampling.ClipBatches(dataset.n_clips(), opts.inference_batch_size or opts.batch_size,
                                opts.inference_crop == 'nocrop',
                                n_crops=presets.n_crops(opts, split), **shares)
