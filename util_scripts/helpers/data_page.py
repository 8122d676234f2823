"""The page of `check_data --page`: what the network is going to see, class by class, and videos
that are on both sides of the split."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.annotations import SUBSETS
from datasets.frames import READERS, FrameError, make_reader
from datasets.presets import decode_options, spatial_transform, temporal_transform
from datasets.sampling import Key
from datasets.video import Video, VideoError, find_video
from datasets.videodataset import VideoDataset
from opts import Options
from runtime.figures import evenly, film_strip
from runtime.files import write_text
from runtime.logs import Progress
from util_scripts.helpers.html_page import (Cell, data_uri, page, scrolling, table, text,
                                            without_empty)
from util_scripts.helpers.jobs import run_jobs
from util_scripts.helpers.near_duplicates import FRAMES, Near, hashes, near_duplicates
from util_scripts.helpers.text import n_of

CLIPS_A_CLASS = 4
SHOWN_CLASSES = 60  # of more classes a page would be too large
SHOWN_PAIRS = 100
FRAMES_A_STRIP = 4
STRIP_HEIGHT = 90  # pixels


class Look(NamedTuple):
    """What a sample looks like: height and width, frames a second (0: not known), hashes of some
    frames; None of one that cannot be read."""

    size: tuple[int, int]
    fps: float
    hashes: np.ndarray


def look(job: Any) -> Look | None:
    """An `examination.Job` -> its Look, from a few frames."""
    reader = make_reader(job.storage, job.template)
    numbers = evenly(job.begin, job.end - 1, FRAMES)
    size, fps = None, 0.0
    try:
        frames = reader.read(job.path, numbers)
        if job.storage[0] == 'video':
            with Video(find_video(job.path) or job.path) as video:
                first = next(video.frames())
                size, fps = (first.height, first.width), video.fps
    except (FrameError, VideoError):
        return None
    pictures = frames.permute(0, 2, 3, 1).numpy()
    if pictures.shape[-1] == 2:  # flow: horizontal and vertical, as two colours
        pictures = np.concatenate([pictures, pictures[..., :1]], axis=-1)
    return Look(size or pictures.shape[1:3], fps, hashes(list(pictures)))


def looks_of(jobs: Sequence[Any], n_jobs: int) -> dict[Any, Look]:
    """{Job: Look} of those that can be read, with a progress bar."""
    looks: dict[Any, Look] = {}
    with Progress(len(jobs), 'look', unit='video') as progress:
        def report(job: Any, found: Look | None) -> None:
            if found is not None:
                looks[job] = found
            progress.update(1)
        run_jobs(look, jobs, n_jobs, report)
    return looks


# ---------------------------------------------------------------- across the split

def pairs_across(looks: Mapping[Any, Look]) -> list[tuple[Any, Any, Near]]:
    """(Job of the validation, Job of the training, how near): videos that are nearly the same."""
    sides = [[job for job in looks if job.subset == SUBSETS[split]] for split in ('val', 'train')]
    found = near_duplicates(*([looks[job].hashes for job in side] for side in sides))
    return [(sides[0][near.one], sides[1][near.other], near) for near in found]


def _strip(job: Any) -> np.ndarray:
    """Some frames of a sample, side by side, of one height."""
    numbers = evenly(job.begin, job.end - 1, FRAMES_A_STRIP)
    reader = make_reader(job.storage, job.template)
    return small_strip(reader.read(job.path, numbers).permute(0, 2, 3, 1).numpy())


def small_strip(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) -> (STRIP_HEIGHT, ..., 3)"""
    from PIL import Image
    width = max(1, round(frames.shape[2] * STRIP_HEIGHT / frames.shape[1]))
    if frames.shape[-1] == 2:
        frames = np.concatenate([frames, frames[..., :1]], axis=-1)
    return film_strip(np.stack([np.asarray(Image.fromarray(frame).resize((width, STRIP_HEIGHT)))
                                for frame in frames]))


def pairs_html(pairs: Sequence[tuple[Any, Any, Near]]) -> str:
    """Each pair with its frames."""
    if not pairs:
        return ('<p>None was found: of no video of the validation are the frames nearly those of '
                'a video of the training.</p>')
    parts = [f'<p class="wrong">{n_of(len(pairs), "video")} of the validation '
             f'{"are" if len(pairs) > 1 else "is"} nearly the same as one of the training: what '
             'is measured on them is what was learned by heart. Keep both on one side, as with '
             'groups.</p>']
    for one, other, near in pairs[:SHOWN_PAIRS]:
        how = f'{near.bits:.0f} of 256 bits differ' + (', mirrored' if near.is_mirrored else '')
        strips = ''.join(f'<figure class="sheet">{_image(_strip(job), job.path)}<figcaption>'
                         f'{text(job.subset)}</figcaption><p class="note">{text(job.path)}</p>'
                         '</figure>' for job in (one, other))
        parts.append(f'<h3>{text(how)}</h3>{strips}')
    if len(pairs) > SHOWN_PAIRS:
        parts.append(f'<p class="note">… and {len(pairs) - SHOWN_PAIRS} more; --save lists all.'
                     '</p>')
    return ''.join(parts)


def _image(picture: np.ndarray, label: str) -> str:
    return scrolling(f'<img src="{data_uri(picture)}" alt="{text(label)}" width="'
                     f'{picture.shape[1]}" height="{picture.shape[0]}">', label)


# ---------------------------------------------------------------- what there is

def splits_html(records_by_split: Mapping[str, Any], looks: Mapping[Any, Look]) -> str:
    """One row per split: videos, lengths, sizes, rates."""
    rows = []
    for split, records in records_by_split.items():
        own = [found for job, found in looks.items() if job.subset == SUBSETS.get(split, split)]
        lengths = records.n_frames().numpy()
        rows.append((split, Cell(str(len(records)), len(records)), _range(lengths),
                     _common([f'{w}x{h}' for h, w in (found.size for found in own)]),
                     _common([f'{found.fps:.3g}' for found in own if found.fps])))
    return table(*without_empty(['split', 'videos', 'frames: least, median, most', 'sizes',
                                 'frames a second'], rows))


def _range(values: np.ndarray) -> str:
    return f'{values.min()}, {int(np.median(values))}, {values.max()}' if len(values) else ''


def _common(values: Sequence[str], n_shown: int = 4) -> str:
    """320x240 (12), 640x480 (3) and 2 others"""
    counts = Counter(values).most_common()
    shown = ', '.join(f'{value} ({n})' for value, n in counts[:n_shown])
    return shown + (f' and {len(counts) - n_shown} others' if len(counts) > n_shown else '')


def classes_html(records_by_split: Mapping[str, Any]) -> str:
    """One row per class: how many videos each split has, and how long they are."""
    names = next(iter(records_by_split.values())).class_names
    lengths: dict[tuple[str, int], list[int]] = defaultdict(list)
    for split, records in records_by_split.items():
        for i, n in enumerate(records.n_frames().tolist()):
            for label in _labels(records, i):
                lengths[split, label].append(n)
    rows = []
    for number, name in enumerate(names):
        every = np.array([n for split in records_by_split for n in lengths[split, number]])
        counts = [len(lengths[split, number]) for split in records_by_split]
        rows.append([name, *(Cell(str(n), n) for n in counts),
                     Cell(str(int(np.median(every))) if len(every) else '',
                          float(np.median(every)) if len(every) else -1.0),
                     _range(every)])
    return table(['class', *records_by_split, 'median frames', 'frames: least, median, most'],
                 rows, is_sortable=True)


def _labels(records: Any, i: int) -> list[int]:
    target = records.targets([i])[0]
    labels = [int(target)] if target.ndim == 0 else target.nonzero().flatten().tolist()
    return [label for label in labels if label >= 0]


# ---------------------------------------------------------------- what the network sees

def sheet_html(opts: Options, records_by_split: Mapping[str, Any]) -> str:
    """For each class some clips of the first split as they go into the network."""
    split, records = next(iter(records_by_split.items()))
    reader = READERS[opts.file_type, opts.input_type](**decode_options(opts, split))
    dataset = VideoDataset(records, opts.video_path, reader, temporal_transform(opts, split),
                           spatial_transform(opts, split), opts.manual_seed)
    by_class: dict[int, list[int]] = defaultdict(list)
    order = list(range(len(records)))
    random.Random(opts.manual_seed).shuffle(order)
    for i in order:
        for label in _labels(records, i):
            by_class[label].append(i)
    parts = [f'<p class="note">Clips of {opts.sample_duration} frames of {opts.sample_size}x'
             f'{opts.sample_size} pixels as the {text(split)} split draws them, augmented as it '
             f'is; of each {n_of(FRAMES_A_STRIP, "frame")}.</p>']
    shown = sorted(by_class)[:SHOWN_CLASSES]
    for label in shown:
        strips = [_image(strip, records.video_ids[i]) for i in by_class[label][:CLIPS_A_CLASS]
                  if (strip := _clip_strip(dataset, i)) is not None]
        parts.append(f'<h3>{text(records.class_names[label])}</h3><div class="clips sheet">'
                     f'{"".join(strips)}</div>')
    if len(by_class) > len(shown):
        parts.append(f'<p class="note">… and {len(by_class) - len(shown)} more classes.</p>')
    return ''.join(parts)


def _clip_strip(dataset: Any, i: int) -> np.ndarray | None:
    try:
        pixels = dataset[Key(i, 1)].clips[0].pixels
    except FrameError:
        return None
    places = evenly(0, len(pixels) - 1, FRAMES_A_STRIP)
    return small_strip(pixels[places].permute(0, 2, 3, 1).numpy())


# ---------------------------------------------------------------- the page

def write_page(path: Path, opts: Options, records_by_split: Mapping[str, Any],
               looks: Mapping[Any, Look], pairs: Sequence[tuple[Any, Any, Near]],
               problems: Sequence[Any]) -> None:
    """Write the page; `problems` are `examination.Problem`s. Raises InputError."""
    rows = [(problem.kind, problem.subset, problem.path, problem.why)
            for problem in problems[:SHOWN_PAIRS]]
    sections = [
        ('What there is', splits_html(records_by_split, looks), 'data'),
        ('Problems', table(['kind', 'subset', 'path', 'reason'], rows, is_stacked=True)
         if rows else '<p>None was found.</p>', 'problems'),
        ('On both sides of the split', pairs_html(pairs), 'pairs'),
        ('Classes', classes_html(records_by_split), 'classes'),
        ('What the network sees', sheet_html(opts, records_by_split), 'clips')]
    write_text(path, page(f'Data of {opts.annotation_path.name}', sections))
