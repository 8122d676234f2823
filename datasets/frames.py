"""Frame readers, one class a storage, all with one contract.

    reader.suffix                    what follows a record's path: '' or '.hdf5'
    reader.first_frame               number of a video's first frame: 1 or 0
    reader.count(path)               frames of a video, 0 where it is missing
    reader.check(path, begin, end)   raises FrameError unless frames begin...end - 1 can be there
    reader.read(path, frames)        those frames: uint8 (T, C, H, W)

`path` is a video's folder or file; `frames` is a sequence of frame numbers.
"""

import os
from pathlib import Path

import h5py
import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from errors import InputError

# File systems take names of 255 bytes; longer ones were cut here when they were written.
MAX_NAME = 250


class FrameError(InputError):
    """A video's frames are missing, broken, or not those that the annotation names."""


def _decode(data, name, mode=ImageReadMode.UNCHANGED):
    """JPEG bytes -> uint8 (C, H, W), C as in the file unless `mode` says otherwise."""
    if len(data) == 0:
        raise FrameError(f'{name}: the frame is empty; extract the video again')
    if bytes(data[:2]) != b'\xff\xd8':
        raise FrameError(f'{name}: the frame is not a JPEG image; extract the video again')
    # A decoder fills what is missing of a truncated image with grey, without a word.
    if bytes(data[-1024:]).rfind(b'\xff\xd9') < 0:
        raise FrameError(f'{name}: the frame is truncated; extract the video again')
    try:
        return decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=mode)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise FrameError(f'{name}: the frame cannot be decoded ({reason}); '
                         'extract the video again') from None


def _stack(images, names):
    """Images of one size -> (T, C, H, W); grey ones become three equal channels if all are."""
    for image, name in zip(images, names):
        if image.shape[1:] != images[0].shape[1:]:
            raise FrameError(f'{name}: the frame is {_size(image)} and {names[0]} is '
                             f'{_size(images[0])}; extract the video again')
        if image.shape[0] != images[0].shape[0]:
            grey = name if image.shape[0] == 1 else names[0]
            raise FrameError(f'{grey}: the frame is grey among frames in colour; '
                             'extract the video again')
    return torch.stack(images)


def _size(image):
    return f'{image.shape[2]}x{image.shape[1]}'


def _as_rgb(clip):
    return clip.expand(-1, 3, -1, -1) if clip.shape[1] == 1 else clip


class JpgFrames:
    """A folder a video with image_00001.jpg, image_00002.jpg, ..."""

    suffix = ''
    first_frame = 1

    def count(self, path):
        try:
            return sum(_is_frame(entry.name) for entry in os.scandir(path))
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def check(self, path, begin, end):
        last = _frame_path(path, end - 1)
        if os.path.isfile(last) and os.path.isfile(_frame_path(path, begin)):
            return
        if not os.path.isdir(path):
            raise FrameError(f'{path}: no such folder of frames; extract the video, or check '
                             '--video_path')
        n_frames = self.count(path)
        if n_frames == 0:
            raise FrameError(f'{path}: the folder has no frames (image_00001.jpg ...); '
                             'extract the video again')
        raise FrameError(f'{path}: the annotation names frames {begin} to {end - 1} and the '
                         f'folder has {n_frames}; extract the video or make the annotation again')

    def read(self, path, frames):
        names = [_frame_path(path, frame) for frame in frames]
        return _as_rgb(_stack([_decode(self._load(name), name) for name in names], names))

    @staticmethod
    def _load(name):
        try:
            with open(name, 'rb', buffering=0) as file:
                return bytearray(file.read())
        except FileNotFoundError:
            raise FrameError(f'{name}: no such frame; extract the video or make the annotation '
                             'again') from None
        except OSError as error:
            raise FrameError(f'{name}: cannot be read: {error.strerror}') from None


def _frame_path(path, frame):
    return f'{path}/image_{frame:05d}.jpg'


def _is_frame(name):
    return name.startswith('image_') and name.endswith('.jpg')


class Hdf5Frames:
    """A file a video with dataset `video`: the bytes of a JPEG image a frame, from 0."""

    suffix = '.hdf5'
    first_frame = 0
    datasets = ('video',)
    mode = ImageReadMode.UNCHANGED

    def count(self, path):
        return min(map(len, self._open(path).values())) if os.path.isfile(path) else 0

    def check(self, path, begin, end):
        n_frames = min(map(len, self._open(path).values()))
        if end > n_frames:
            raise FrameError(f'{path}: the annotation names frames {begin} to {end - 1} and the '
                             f'file has {n_frames} (from 0); make the file or the annotation again')

    def read(self, path, frames):
        stored = self._open(path)
        names = [f'{path}: frame {frame}' for frame in frames]
        planes = [_stack([_decode(self._load(data, frame, name), name, self.mode)
                          for frame, name in zip(frames, names)], names)
                  for data in stored.values()]
        return torch.cat(planes, dim=1) if len(planes) > 1 else _as_rgb(planes[0])

    def _open(self, path):
        try:
            file = h5py.File(path, 'r')
            return {name: file[name] for name in self.datasets}
        except FileNotFoundError:
            raise FrameError(f'{path}: no such file; make it with '
                             'util_scripts.generate_video_hdf5, or check --video_path') from None
        except OSError:
            raise FrameError(f'{path}: not a readable HDF5 file; make it again') from None
        except KeyError:
            raise FrameError(f'{path}: has no dataset {" and ".join(self.datasets)}; '
                             'make the file again') from None

    @staticmethod
    def _load(data, frame, name):
        if frame >= len(data):
            raise FrameError(f'{name}: the file has {len(data)} frames (from 0); '
                             'make the file or the annotation again')
        return bytearray(np.asarray(data[frame], dtype=np.uint8))


class Hdf5Flow(Hdf5Frames):
    """A file a video with datasets `video_u` and `video_v`: grey JPEG bytes a frame, from 0.

    Channel 0 is horizontal flow, channel 1 vertical.
    """

    datasets = ('video_u', 'video_v')
    mode = ImageReadMode.GRAY


READERS = {('jpg', 'rgb'): JpgFrames, ('hdf5', 'rgb'): Hdf5Frames, ('hdf5', 'flow'): Hdf5Flow}


def video_path(root, path, suffix):
    """Where a record's frames are: its path below `root`, the name cut to what fits, and suffix.

    Names longer than MAX_NAME characters were cut there before `.hdf5`.
    """
    path = Path(root, path)
    return str(path.with_name(path.name[:MAX_NAME] + suffix) if suffix else path)
