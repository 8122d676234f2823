"""Random clips of video files beside other decoders: --parts clips of util_scripts.benchmark.

A clip is what training takes: 16 consecutive frames, a random resized crop of them, uint8. The
other decoders get one thread and a new decoder for each clip, and torchvision's crop after it.
Of each file ours has read a clip before, as after the first epoch of a training.
"""

import importlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from datasets.frames import VideoFrames
from datasets.video import VideoError, count_frames
from runtime.errors import InputError, first_line
from runtime.output import to_stderr
from spatial_transforms import RandomResizedCrop
from util_scripts.helpers.bench import Bench
from util_scripts.helpers.timing import Row, now, timed_row, times_ours
from util_scripts.helpers.videos import find_below

DURATION, SIZE = 16, 112
# path, first frame of the clip from 1, frames of the file -> uint8 (T, C, SIZE, SIZE)
ReadClip = Callable[[str, int, int], torch.Tensor]


def _ours(is_exact: bool) -> ReadClip:
    reader, crop = VideoFrames(is_exact=is_exact), RandomResizedCrop(SIZE)
    return lambda path, first, n_frames: reader.read_transformed(
        path, range(first, first + DURATION), n_frames, crop)


def _torchcodec(path: str, begin: int) -> torch.Tensor:
    from torchcodec.decoders import VideoDecoder
    decoder = VideoDecoder(path, seek_mode='exact', num_ffmpeg_threads=1)
    return decoder.get_frames_in_range(begin, begin + DURATION).data


def _decord(path: str, begin: int) -> torch.Tensor:
    from decord import VideoReader
    frames = VideoReader(path, num_threads=1).get_batch(list(range(begin, begin + DURATION)))
    return torch.from_numpy(frames.asnumpy()).permute(0, 3, 1, 2)


def _opencv(path: str, begin: int) -> torch.Tensor:
    import cv2
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    video.set(cv2.CAP_PROP_POS_FRAMES, begin)
    frames = []
    for _ in range(DURATION):
        is_read, frame = video.read()
        if not is_read:
            raise ValueError('a frame cannot be read')
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


# --against: (module that is imported, frames of a file from number `begin` on, which counts from 0)
DECODERS: dict[str, tuple[str, Callable[[str, int], torch.Tensor]]] = {
    'torchcodec': ('torchcodec.decoders', _torchcodec), 'decord': ('decord', _decord),
    'opencv': ('cv2', _opencv)}


def check_clips(bench: Bench) -> None:
    """Raise InputError where there are no videos to read clips of."""
    if not bench.videos:
        raise InputError('--parts clips reads random clips of videos: name a folder of them with '
                         '--videos')
    _by_kind(bench.videos)


def clip_rows(bench: Bench) -> Iterator[Row]:
    """Seconds per clip, one row for each decoder and kind of file; they take turns on the same
    clips, on one core. Decoders that are not there, or that fail in some file, are named."""
    jobs = {'ours': _ours(False), 'ours, --exact_pixels': _ours(True)} | _others(bench.against)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert bench.videos is not None
    for kind, lengths in _by_kind(bench.videos).items():
        times = _times(jobs, lengths, bench.seconds)
        ours = np.sum(times['ours'], axis=0)
        for name, rows in times.items():
            note = '' if name == 'ours' else times_ours(np.sum(rows, axis=0), ours)
            yield timed_row('clips', f'{kind}: {name}', np.mean(rows, axis=0), 'clip', note)
    torch.set_num_threads(n_threads)


def _others(names: tuple[str, ...]) -> dict[str, ReadClip]:
    crop = RandomResizedCrop(SIZE)
    jobs: dict[str, ReadClip] = {}
    for name in names:
        module, read = DECODERS[name]
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            to_stderr(f'{name} is left out: {first_line(error)}')
            continue
        jobs[name] = partial(_cropped, read, crop)
    return jobs


def _cropped(read: Callable[[str, int], torch.Tensor], crop: RandomResizedCrop, path: str,
             first: int, _: int) -> torch.Tensor:
    return crop(read(path, first - 1))


def _by_kind(folder: Path) -> dict[str, dict[str, int]]:
    """{first folder below `folder` and extension: {path: frames}} of the videos that hold a clip.

    Raises InputError where there are none.
    """
    kinds: dict[str, dict[str, int]] = defaultdict(dict)
    for path in find_below(folder):
        try:
            n_frames = count_frames(str(path))
        except VideoError:
            continue
        if n_frames >= DURATION:
            parts = path.relative_to(Path(folder).resolve()).parts
            kind = f'{parts[0]} {path.suffix}' if len(parts) > 1 else path.suffix
            kinds[kind][str(path)] = n_frames
    if not kinds:
        raise InputError(f'{folder}: no video of {DURATION} frames in it or below; give another '
                         'folder with --videos')
    return kinds


def _times(jobs: dict[str, ReadClip], lengths: dict[str, int],
           seconds: float) -> dict[str, list[np.ndarray]]:
    """Times, as `now` has them, of each decoder for the same random clips; those that fail in one
    are left out and named."""
    draw = random.Random(0)
    times: dict[str, list[np.ndarray]] = {name: [] for name in jobs}
    for path, n_frames in 2 * list(lengths.items()):  # all that is found out, before the third clip
        jobs['ours'](path, n_frames - DURATION + 1, n_frames)
    n_clips, end = 0, 0.0
    while n_clips < 2 or now()[0] < end:
        path = draw.choice(list(lengths))
        first = draw.randint(1, lengths[path] - DURATION + 1)
        for name in draw.sample(list(times), len(times)):
            begin = now()
            try:
                jobs[name](path, first, lengths[path])
            except Exception as error:  # whatever a library of others raises
                if name.startswith('ours'):
                    raise
                to_stderr(f'{name} is left out: {path}: {first_line(error)}')
                del times[name]
                continue
            if n_clips:  # the first pays for what happens only once
                times[name].append(now() - begin)
        if not n_clips:
            end = now()[0] + seconds
        n_clips += 1
    return times
