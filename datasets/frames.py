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
import simplejpeg
import torch

from errors import InputError

# File systems take names of 255 bytes; longer ones were cut here when they were written.
MAX_NAME = 250


class FrameError(InputError):
    """A video's frames are missing, broken, or not those that the annotation names."""


def _decode(images, names, colorspace='RGB'):
    """JPEG images of one size (bytes) -> uint8 (T, C, H, W), channels last in memory.

    C is 3 for RGB and 1 for GRAY. Raises FrameError for one that is no image, truncated, of
    another size than the first, or grey among frames in colour.
    """
    shape, kind = _header(images[0], names[0])
    n_channels = 1 if colorspace == 'GRAY' else 3
    clip = np.empty((len(images), *shape, n_channels), np.uint8)
    for frame, data, name in zip(clip, images, names):
        own_shape, own_kind = _header(data, name)
        if own_shape != shape:
            raise FrameError(f'{name}: the frame is {_size(own_shape)} and {names[0]} is '
                             f'{_size(shape)}; extract the video again')
        if 'Gray' in (kind, own_kind) and kind != own_kind:
            raise FrameError(f'{name if own_kind == "Gray" else names[0]}: the frame is grey among '
                             'frames in colour; extract the video again')
        try:
            simplejpeg.decode_jpeg(data, colorspace, buffer=frame)
        except ValueError as error:
            is_cut = 'Premature end' in str(error)
            raise FrameError(f'{name}: the frame is {"truncated" if is_cut else "broken"} '
                             f'({error}); extract the video again') from None
    return torch.from_numpy(clip).permute(0, 3, 1, 2)


def _header(data, name):
    """((height, width), colour space) of a JPEG image."""
    if len(data) == 0:
        raise FrameError(f'{name}: the frame is empty; extract the video again')
    try:
        height, width, kind, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        raise FrameError(f'{name}: the frame is not a JPEG image; extract the video '
                         'again') from None
    return (height, width), kind


def _size(shape):
    return f'{shape[1]}x{shape[0]}'


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
        return _decode([self._load(name) for name in names], names)

    @staticmethod
    def _load(name):
        try:
            with open(name, 'rb', buffering=0) as file:
                return file.read()
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
    colorspace = 'RGB'

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
        return torch.cat([
            _decode([self._load(data, frame, name) for frame, name in zip(frames, names)], names,
                    self.colorspace) for data in stored.values()], dim=1)

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
        return np.asarray(data[frame], np.uint8).tobytes()


class Hdf5Flow(Hdf5Frames):
    """A file a video with datasets `video_u` and `video_v`: grey JPEG bytes a frame, from 0.

    Channel 0 is horizontal flow, channel 1 vertical.
    """

    datasets = ('video_u', 'video_v')
    colorspace = 'GRAY'


READERS = {('jpg', 'rgb'): JpgFrames, ('hdf5', 'rgb'): Hdf5Frames, ('hdf5', 'flow'): Hdf5Flow}


def video_path(root, path, suffix):
    """Where a record's frames are: its path below `root`, the name cut to what fits, and suffix.

    Names longer than MAX_NAME characters were cut there before `.hdf5`.
    """
    path = Path(root, path)
    return str(path.with_name(path.name[:MAX_NAME] + suffix) if suffix else path)
