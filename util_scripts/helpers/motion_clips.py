"""Clips whose motion alone tells their class: their frames, their links, their annotation."""

import os
import random
import shutil
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from datasets.frames import video_path
from runtime.errors import InputError
from runtime.logs import Progress
from runtime.output import wrote
from util_scripts.helpers.annotation_files import count_frames, training, write_json
from util_scripts.helpers.files import existing_folder, make_folder, write_csv
from util_scripts.helpers.own_videos import find_listed, grouping
from util_scripts.helpers.splits import Own, group_reader, split

FRAME = 'image_{:05d}.jpg'


class MotionClip(NamedTuple):
    """A clip to make: its name, its label, the video, and which frames of that, from 1."""

    name: str
    label: str
    source: Own
    frames: Sequence[int]


def windows(n_frames: int, size: int, speeds: Sequence[int], draw: random.Random
            ) -> dict[int, list[int]]:
    """{speed: `size` frame numbers from 1}, all around the same frame; {} of too short a video.

    That frame is drawn from those around which the fastest fits. For an even size it is the last of
    the first half.
    """
    before, after = (size - 1) // 2, size // 2
    first, last = 1 + before * max(speeds), n_frames - after * max(speeds)
    if first > last:
        return {}
    middle = draw.randint(first, last)
    return {speed: [middle + speed * offset for offset in range(-before, after + 1)]
            for speed in speeds}


def draw_clips(listed: Sequence[Own], counts: Mapping[str, int], args: Namespace
               ) -> Iterator[MotionClip]:
    """The clips of the task, those of a video one after the other."""
    for video in listed:
        # A video's clips do not depend on which others there are.
        draw = random.Random(f'{args.seed} {video.path}'.encode(errors='surrogatepass'))
        for number in range(args.per_video):
            name = f'{video.path.replace("/", "_")}_{number + 1}'
            if args.task == 'speed':
                found = windows(counts[video.path], args.n_frames, sorted({*args.speeds}), draw)
                frames = {f'{speed}x': numbers for speed, numbers in found.items()}
            else:
                found = windows(counts[video.path], args.n_frames, [1], draw)
                frames = {label: numbers[::step] for numbers in found.values()
                          for label, step in (('forwards', 1), ('backwards', -1))}
            for label, own in frames.items():
                yield MotionClip(f'{name}_{label}', label, video, own)


def make_links(clip: MotionClip, videos: Path, dst: Path) -> str:
    """Make the folder of a clip; its path below `dst`. Raises InputError."""
    path = f'{clip.label}/{clip.name}'
    folder = dst / path
    make_folder(folder)
    try:
        for number, frame in enumerate(clip.frames, 1):
            source = Path(video_path(videos, clip.source.path, '')) / FRAME.format(frame)
            link = folder / FRAME.format(number)
            link.unlink(missing_ok=True)
            with suppress(OSError):
                os.link(source, link)
                continue
            shutil.copyfile(source, link)
    except OSError as error:
        raise InputError(f'{folder}: a frame of {clip.source.path} cannot be put there '
                         f'({error.strerror}); extract the frames again, or give another folder'
                         ) from None
    return path


def make_task(args: Namespace) -> None:
    """Do what the flags of `motion_tasks` say. Raises InputError."""
    existing_folder(args.videos, 'the folder of the frames')
    group_of = group_reader(args.groups) if args.groups else grouping(args.by_group)
    listed = find_listed(args.videos, 'jpg', group_of)
    counts = count_frames(args.videos, 'jpg', (video.path for video in listed))
    if not any(counts.values()):
        raise InputError(f'{args.videos}: no folder of frames in it; extract the videos with '
                         'util_scripts.generate_video_jpgs, and give the folder that they go to')
    clips = list(draw_clips(listed, counts, args))
    n_used = len({clip.source.path for clip in clips})
    if not n_used:
        raise InputError(f'{args.videos}: none of its {len(listed)} videos has enough frames; give '
                         'a smaller --n_frames, or slower --speeds')
    folder = args.dst_path / args.task
    made = []
    with Progress(len(clips), 'clips', unit='clip') as progress:
        for clip in clips:
            made.append(Own(make_links(clip, args.videos, folder), clip.label, clip.source.group))
            progress.update(1)
    validation = split(made, args.val_fraction, args.seed)
    labels = list(dict.fromkeys(clip.label for clip in clips))
    path = args.dst_path / f'{args.task}.json'
    write_json(path, {'labels': labels, 'database': {
        clip.name: {'subset': 'validation' if own.path in validation else 'training',
                    'annotations': {'label': clip.label, 'segment': [1, args.n_frames + 1]}}
        for clip, own in zip(clips, made)}})
    groups_path = args.dst_path / f'{args.task}_groups.csv'
    write_csv(groups_path, [('path', 'group'), *((own.path, own.group) for own in made)])
    wrote(folder, path, groups_path,
          about=f'{len(clips)} clips of {n_used} videos, {len(labels)} classes; '
                f'{len(listed) - n_used} videos are left out, which have too few frames',
          then=training(folder, path, 'jpg', None, '--sample_duration', args.n_frames)
          + f'; of compare also --folds 5 --groups {groups_path}')
