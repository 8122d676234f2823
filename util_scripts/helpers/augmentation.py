"""A picture of what the augmentation of a training makes of clips."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.annotations import Annotation
from datasets.frames import READERS
from datasets.loading import ClipLoader, build_loader
from datasets.presets import batch_mix
from datasets.sampling import Key, sample_draw
from datasets.videodataset import Batch, VideoDataset, collate
from opts import AUGMENTATION_FLAGS, Options, replace
from runtime.errors import InputError
from runtime.figures import clips_figure, save_figure
from runtime.output import note, printable, wrote
from temporal_transforms import as_clips
from util_scripts.helpers.files import make_folder
from util_scripts.helpers.text import n_of

# Flags that change training clips; those that are given are named.
SHOWN_FLAGS = ('train_crop', 'train_crop_min_scale', 'train_crop_min_ratio', 'train_t_crop',
               'sample_t_stride', 'no_hflip', 'colorjitter', *AUGMENTATION_FLAGS)
FORMATS = ('.png', '.pdf', '.svg')


class Row(NamedTuple):
    """A clip uint8 (C, T, h, w), the numbers of its frames, and what it is."""

    clip: torch.Tensor
    frame_numbers: list[int]
    title: str


def draw_augmentations(opts: Options) -> None:
    """Draw opts.videos as validation sees them, and opts.n_draws draws of the training. Raises
    InputError."""
    if opts.output.suffix not in FORMATS:
        raise InputError(f'--output {opts.output}: a picture ends in {", ".join(FORMATS)}: give '
                         'another name')
    if opts.file_type == 'hdf5':
        raise InputError('--file_type hdf5 and optical flow are not drawn, only videos and folders '
                         'of jpg frames: drop --file_type and --input_type')
    videos = list(dict.fromkeys(opts.videos))
    before = [_loader(opts, 'val', path).dataset for path in videos]
    after = [_loader(opts, 'train', path) for path in videos]
    rows = [Row(_clips([dataset], [Key(0)])[0], _frame_numbers(dataset, Key(0)),
                f'before: {path.name}') for dataset, path in zip(before, videos)]
    for draw in range(1, opts.n_draws + 1):
        rows += _drawn(opts, after, videos, draw)
    make_folder(opts.output.parent)
    figure = clips_figure(torch.stack([row.clip for row in rows]).numpy(),
                          [printable(row.title) for row in rows],
                          frame_numbers=[row.frame_numbers for row in rows])
    save_figure(figure, opts.output)
    note(f'augmentation: {_flags(opts) or "the default crops and flips"}')
    wrote(opts.output, about=f'{n_of(len(videos), "clip")} before and '
                             f'{n_of(opts.n_draws, "draw")} after; --manual_seed draws others')


def _loader(opts: Options, split: str, path: Path) -> ClipLoader:
    """The loader of a split that has one video."""
    file_type = 'jpg' if path.is_dir() else 'video'
    opts = replace(opts, file_type=file_type, n_threads=0, n_val_samples=1, multi_label=False)
    n_frames = READERS[file_type, 'rgb']().count(str(path)) if path.exists() else 0
    if not n_frames:
        raise InputError(f'{path}: no such video, or a folder without frames (image_00001.jpg '
                         '...): check the path')
    entry = {'subset': {'train': 'training', 'val': 'validation'}[split],
             'video_path': str(path.absolute()),
             'annotations': {'label': 'video', 'segment': [1, n_frames + 1]}}
    return build_loader(opts, split, Annotation(path, ('video',), {path.name: entry}, False))


def _clips(datasets: Sequence[VideoDataset], keys: Sequence[Key]) -> torch.Tensor:
    """(N, C, T, h, w) uint8: a clip of each data set. Raises FrameError."""
    batch = collate([dataset[key] for dataset, key in zip(datasets, keys)])
    assert isinstance(batch, Batch)
    return batch.clips


def _frame_numbers(dataset: VideoDataset, key: Key) -> list[int]:
    """The frames of the clip of a key, by the draw that is the sample's."""
    with sample_draw(dataset.seed, key.epoch, key.index, key.draw):
        return as_clips(dataset.temporal_transform(dataset.records.frames(key.index)))[0]


def _drawn(opts: Options, loaders: Sequence[ClipLoader], videos: Sequence[Path], draw: int
           ) -> Iterator[Row]:
    """A row per video: its clip in epoch `draw`."""
    names = [path.name for path in videos]
    is_single = len(names) == 1
    if is_single:  # mixed with another clip of its own
        loaders, names = [*loaders, *loaders], [*names, 'another clip of it']
    keys = [Key(0, draw, draw=i) for i in range(len(names))]
    clips = _clips([loader.dataset for loader in loaders], keys)
    shares = torch.eye(len(names))
    mix = batch_mix(replace(opts, n_classes=len(names)))
    if mix:
        batches = loaders[0].batch_sampler
        batches.set_position(draw)
        with batches.batch_draw(0):
            mixed, shares = mix(clips, torch.arange(len(names)))
        clips = mixed.round().to(torch.uint8)
    for i in range(1 if is_single else len(names)):
        # What there is most of comes first.
        parts = sorted((i, i - 1), key=lambda part: -shares[i, part]) if mix else [i]
        named = ', '.join(f'{shares[i, part]:.0%} {names[part]}' if mix else names[part]
                          for part in parts)
        yield Row(clips[i], _frame_numbers(loaders[parts[0]].dataset, keys[parts[0]]),
                  f'after, draw {draw}: {named}')


def _flags(opts: Options) -> str:
    """The flags that were given of those that change training clips, as on the command line."""
    words = []
    for name in SHOWN_FLAGS:
        value = getattr(opts, name)
        if name in opts.given:
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f'--{name}', *(f'{v:g}' if isinstance(v, float) else str(v) for v in values)]
    return ' '.join(words)
