"""Frames of what is named to `predict`: video files and folders of frames."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import torch

from datasets.frame_folders import holds_frames, usual_name
from datasets.frames import FrameError, JpgFrames
from datasets.scaling import SHORT_SIDE, Box, Cropper, Scaler
from datasets.video import Video, open_file
from runtime.errors import InputError
from runtime.names import meant_file
from spatial_transforms import first_resize
from util_scripts.helpers.videos import (LeftOut, below, is_shown_folder, is_video, is_video_file,
                                         report_left_out)


class Frame(NamedTuple):
    """A frame, its number from 1, and when it is shown; pixels: uint8 (C, H, W)."""

    number: int
    begin_sec: float
    pixels: torch.Tensor


Transform = Callable[[torch.Tensor], torch.Tensor]
# What `opened` gives: frames, frames per second, and a function that says what was wrong.
Opened = tuple[Iterator[Frame], float, Callable[[], str | None]]


class FileSource:
    """A video file: its frames, upright."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def length_sec(self) -> float:
        """What the file says of its length in seconds, 0 where it says nothing."""
        try:
            with open_file(self.path) as container:
                return max(0, (container.duration or 0) / av.time_base)
        except (av.error.FFmpegError, OSError):
            return 0.0

    @contextmanager
    def opened(self, transform: Transform | None = None, every: int = 1) -> Iterator[Opened]:
        """(frames, fps, damage): `Frame`s one by one, and a function that says what was wrong.

        transform: what happens to the pixels, whose short side is that of extraction, of one frame;
                   resized only once, while decoding. None leaves frames in their own size
        every:     of so many frames, the first is given
        """
        with Video(self.path) as video:
            yield _frames(video, transform, every), video.fps, lambda: video.damage


def _frames(video: Video, transform: Transform | None, every: int) -> Iterator[Frame]:
    pixels, first_sec, begin_sec = None, None, 0.0
    for number, frame in enumerate(video.frames(), 1):
        if pixels is None:
            pixels = (transformed(transform, video.pixel_aspect) if transform else
                      _whole(round(min(float(frame.width * video.pixel_aspect), frame.height)),
                             video.pixel_aspect))
        if frame.time is not None:
            first_sec = frame.time if first_sec is None else first_sec
            begin_sec = max(begin_sec, frame.time - first_sec)
        if number % every == 1 % every:
            yield Frame(number, begin_sec, pixels(video.kept(frame)))
        begin_sec += 1 / video.fps  # where the next has no time stamp


def _whole(short_side: int,
           pixel_aspect: Fraction | int) -> Callable[[av.VideoFrame], torch.Tensor]:
    scale = Scaler(short_side, pixel_aspect, 'rgb24')
    return lambda frame: torch.from_numpy(scale.pixels(frame)).permute(2, 0, 1)


def transformed(transform: Transform,
                pixel_aspect: Fraction | int) -> Callable[[av.VideoFrame], torch.Tensor]:
    """Pixels of a frame by a transform, whose first step, a resize, is a part of decoding."""
    rest = transform

    def plan(height: int, width: int) -> tuple[Box, tuple[int, int]]:
        nonlocal rest
        box, size, rest = first_resize(transform, height, width)
        return Box(*box), size
    crop = Cropper(plan, SHORT_SIDE, pixel_aspect)

    def pixels(frame: av.VideoFrame) -> torch.Tensor:
        planes = torch.from_numpy(crop.pixels(frame))
        return rest(planes)
    return pixels


class FolderSource:
    """A folder of frames of so many a second.

    template: what they are called; None where their names tell
    """

    def __init__(self, path: Path, fps: float, template: str | None = None) -> None:
        self.path, self.fps, self._reader = path, fps, JpgFrames(template)

    def length_sec(self) -> float:
        """By the number of frames, 0 where they cannot be counted."""
        try:
            return self._reader.count(str(self.path)) / self.fps
        except FrameError:
            return 0.0

    @contextmanager
    def opened(self, transform: Transform | None = None, every: int = 1) -> Iterator[Opened]:
        """As FileSource has it, of frames as they are stored."""
        n_frames = self._reader.count(str(self.path))
        yield self._frames(n_frames, transform, every), self.fps, lambda: None

    def _frames(self, n_frames: int, transform: Transform | None, every: int) -> Iterator[Frame]:
        for number in range(1, n_frames + 1, every):
            pixels = self._reader.read(str(self.path), [number])[0]
            yield Frame(number, (number - 1) / self.fps, transform(pixels) if transform else pixels)


Source = FileSource | FolderSource


def find_sources(paths: Iterable[Path], fps: float, template: str | None = None) -> list[Source]:
    """A source for each video and folder of frames that is named or below a named folder.

    Raises InputError for a path that is not there, for a folder with neither in it, and for a file
    that is a picture or text.
    """
    sources: dict[Path, Source] = {}
    for path in paths:
        if path.is_file():
            _check_is_video(path)
            sources[path] = FileSource(path)
            continue
        if not path.exists():
            raise InputError(f'{path}: no such file; '
                             + (meant_file(path) or 'give videos, or folders of videos or frames'))
        found = dict(_below(path, fps, template))
        if not found:
            raise InputError(f'{path}: no video and no frames ({template or "image_00001.jpg"}) in '
                             'it or below; give another folder')
        sources.update(found)
    return list(sources.values())


def _check_is_video(path: Path) -> None:
    """Raise InputError for what FFmpeg would show as a video and is none."""
    if is_video(path.name):
        return
    try:
        with open_file(path) as container:
            kind = container.format.name
    except (av.error.FFmpegError, OSError):
        return  # said when it is read
    what = ('a text file' if kind == 'tty' else
            'a picture' if kind == 'image2' or kind.endswith('_pipe') else '')
    if what:
        raise InputError(f'{path}: is {what}, not a video; name videos, or folders of videos or '
                         'frames (image_00001.jpg ...)')


def _below(folder: Path, fps: float, template: str | None) -> Iterator[tuple[Path, Source]]:
    """Sources in a folder and those in it. Says on stderr what else is there."""
    left_out: LeftOut = []
    has_frames = _are_frames(folder, template)
    if has_frames:
        yield folder, FolderSource(folder, fps, template)
    for path in below(folder, lambda path: is_video_file(path) or _are_frames(path, template),
                      left_out):
        yield path, FileSource(path) if path.is_file() else FolderSource(path, fps, template)
    # Its frames are taken, and what lies among them is no video.
    report_left_out(folder, [(path, why) for path, why in left_out
                             if not has_frames or path.parent != folder])


def _are_frames(folder: Path, template: str | None) -> bool:
    """True where images are frames, rather than a picture or two beside videos or folders."""
    if not is_shown_folder(folder):
        return False
    if template is None and (folder / usual_name(1)).is_file():
        return True
    if template is None and any(is_video_file(path) or is_shown_folder(path)
                                for path in folder.iterdir()):
        return False
    return holds_frames(folder, template)


def paths_in_folder(sources: Iterable[Source], folder: Path, suffix: str) -> dict[Source, Path]:
    """{source: a file of its own in the folder}, named as its video."""
    paths: dict[Source, Path] = {}
    for source in sources:
        target = folder / f'{source.path.name.removesuffix(source.path.suffix)}{suffix}'
        number = 1
        while target in paths.values():
            number += 1
            target = target.with_stem(f'{source.path.stem}_{number}')
        paths[source] = target
    return paths
