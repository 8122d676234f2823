"""Frames of whatever is named to `predict`: video files, cameras and folders of frames."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.frames import JpgFrames
from datasets.video import SHORT_SIDE, Scaler, Video, Webcam
from runtime.errors import InputError, StopSignals
from util_scripts.helpers.videos import is_video


class Frame(NamedTuple):
    """A frame, its number from 1, and when it is shown; pixels: uint8 (C, H, W)."""

    number: int
    begin_sec: float
    pixels: torch.Tensor


# What `opened` gives: frames, frames per second, and a function that says what was wrong.
Opened = tuple[Iterator[Frame], float, Callable[[], str | None]]


class FileSource:
    """A video file, or a camera: its frames upright, with the short side that extraction gives."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _open(self) -> Video:
        return Video(self.path)

    @contextmanager
    def opened(self, short_side: int | None = SHORT_SIDE) -> Iterator[Opened]:
        """(frames, fps, damage): `Frame`s one by one, and a function that says what was wrong.

        short_side: in pixels, None for the video's own
        """
        with self._open() as video:
            yield self._frames(video, short_side), video.fps, lambda: video.damage

    @staticmethod
    def _frames(video: Video, short_side: int | None) -> Iterator[Frame]:
        scale: Scaler | None = None
        first_sec, begin_sec = None, 0.0
        for number, frame in enumerate(video.frames(), 1):
            if scale is None:
                own = round(min(frame.width * video.pixel_aspect, frame.height))
                scale = Scaler(short_side or own, video.pixel_aspect, 'rgb24')
            if frame.time is not None:
                first_sec = frame.time if first_sec is None else first_sec
                begin_sec = max(begin_sec, frame.time - first_sec)
            pixels = torch.from_numpy(scale(frame).to_ndarray()).permute(2, 0, 1)
            yield Frame(number, begin_sec, pixels)
            begin_sec += 1 / video.fps  # where the next has no time stamp


class CameraSource(FileSource):
    """A camera by its number; Ctrl-C is the end of its video."""

    def __init__(self, number: int) -> None:
        super().__init__(Path(f'camera {number}'))
        self.number = number

    def _open(self) -> Video:
        return Webcam(self.number)

    @staticmethod
    def _frames(video: Video, short_side: int | None) -> Iterator[Frame]:
        with StopSignals() as stop:
            for frame in FileSource._frames(video, short_side):
                yield frame
                if stop.signum:
                    return


class FolderSource:
    """A folder of frames, image_00001.jpg ..., shown at `fps` frames per second."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps

    @contextmanager
    def opened(self, short_side: int | None = SHORT_SIDE) -> Iterator[Opened]:
        """As FileSource has it, but frames are as they are stored."""
        n_frames = JpgFrames().count(str(self.path))
        yield self._frames(n_frames), self.fps, lambda: None

    def _frames(self, n_frames: int) -> Iterator[Frame]:
        reader = JpgFrames()
        for number in range(1, n_frames + 1):
            yield Frame(number, (number - 1) / self.fps, reader.read(str(self.path), [number])[0])


Source = FileSource | FolderSource


def find_sources(paths: Iterable[Path], fps: float) -> list[Source]:
    """A source for each video and folder of frames that is named or below a named folder.

    Raises InputError for a path that is not there, and for a folder with neither in it.
    """
    sources: dict[Path, Source] = {}
    for path in paths:
        if path.is_file():
            sources[path] = FileSource(path)
            continue
        if not path.exists():
            raise InputError(f'{path}: no such file; give videos, or folders of videos or frames')
        found = dict(_below(path, fps))
        if not found:
            raise InputError(f'{path}: no video and no frames (image_00001.jpg) in it or below; '
                             'give another folder')
        sources.update(found)
    return list(sources.values())


def _below(folder: Path, fps: float) -> Iterator[tuple[Path, Source]]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        if 'image_00001.jpg' in files:
            yield Path(parent), FolderSource(Path(parent), fps)
        for name in sorted(filter(is_video, files)):
            yield Path(parent, name), FileSource(Path(parent, name))
