"""Frame readers: one class per storage, all with the contract of `Reader`, and their table READERS.

`path` is a video's folder or file; `frames` is a sequence of frame numbers.
"""

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import simplejpeg
import torch
from PIL import Image, ImageOps

from datasets.frame_folders import (IMAGE_EXTENSIONS, N_SHOWN, FolderError, FrameFolder,
                                    find_frames, frame_names, usual_name)
from datasets.scaling import SHORT_SIDE, Box
from datasets.video import (VIDEO_EXTENSIONS, EndError, VideoError, count_frames, count_packets,
                            cut_name, find_video, read_crops, read_rgb)
from datasets.video_index import VideoIndex
from runtime.errors import InputError
from runtime.files import file_size, read_file
from spatial_transforms import first_resize

# What can be wrong with a video's frames.
MISSING, EMPTY, TRUNCATED, UNDECODABLE, MIXED, WRONG_COUNT = PROBLEMS = (
    'missing', 'empty', 'truncated', 'undecodable', 'sizes or colours that change',
    'wrong frame count')
# Of one frame: more than any video has, 8K included, and more than an image of it takes.
MAX_PIXELS, MAX_IMAGE_BYTES = 2 ** 26, 2 ** 26
# What a chunk of an HDF5 data set holds for each row of bytes, which lie elsewhere in the file.
HDF5_ROW = np.dtype([('length', '<u4'), ('address', '<u8'), ('index', '<u4')])


# What `Reader.left_out` calls a frame that is not there.
GAP = 'missing between other frames'
# How a JPEG file begins, and what stands near its beginning where it says how it is turned.
JPEG_BEGIN, EXIF, EXIF_WITHIN = b'\xff\xd8', b'Exif\0\0', 65_536
PILLOW_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')
OTHER_EXTENSIONS = tuple(name for name in IMAGE_EXTENSIONS if name not in ('.jpg', '.jpeg'))


class FrameError(InputError):
    """A video's frames are missing, broken, or not those that the annotation names.

    kind: one of PROBLEMS
    """

    def __init__(self, message: str, kind: str = MISSING) -> None:
        super().__init__(message, kind)
        self.kind = kind

    def __str__(self) -> str:
        return self.args[0]


Transform = Callable[[torch.Tensor], torch.Tensor]


class Reader(Protocol):
    """The contract of readers.

    suffix:      what follows a record's path: '' or '.hdf5'
    first_frame: number of a video's first frame: 1 or 0
    """

    suffix: str
    first_frame: int

    def __init__(self, **decode_options: Any) -> None: ...

    def count(self, path: str) -> int:
        """Number of frames of a video, 0 where it is missing. Raises FrameError."""

    def announced(self, path: str) -> int:
        """The same, as far as it is known without decoding."""

    def left_out(self, path: str) -> list[tuple[str, str]]:
        """(name, what it is) of what lies among a video's frames and is none of them."""

    def check(self, path: str, begin: int, end: int) -> None:
        """Raise FrameError where it is cheap to see that frames begin...end - 1 are not there."""

    def read(self, path: str, frames: Sequence[int], n_frames: int | None = None) -> torch.Tensor:
        """Those frames, uint8 (T, C, H, W). Raises FrameError.

        n_frames: how many the whole video has, where that is known
        """

    def read_transformed(self, path: str, frames: Sequence[int], n_frames: int | None,
                         transform: Transform) -> torch.Tensor:
        """transform(self.read(path, frames, n_frames)), with the same random draws."""


def _decode(images: list[bytes], names: list[str], colorspace: str = 'RGB', is_fast: bool = False,
            min_side: int = 0) -> torch.Tensor:
    """Images of one size (bytes) -> uint8 (T, C, H, W), channels last in memory.

    C is 3 for RGB and 1 for GRAY. Raises FrameError for one that is truncated, and as
    `_check_headers` does.

    is_fast:  colours and cosines of JPEG images are rounded more coarsely
    min_side: these may come at half, a quarter ... of their size, with sides of at least this
    """
    others = {i: _open_other(data, names[i]) for i, data in enumerate(images)
              if data and not _is_plain_jpeg(data)}
    _check_headers(images, names, others)
    options: dict[str, Any] = {'fastdct': is_fast, 'fastupsample': is_fast}
    if min_side:
        options |= {'min_height': min_side, 'min_width': min_side, 'min_factor': 2}
    clip = None
    for i, (data, name) in enumerate(zip(images, names)):
        if i in others:
            converted = others[i].convert('L' if colorspace == 'GRAY' else 'RGB')
            picture = np.atleast_3d(np.asarray(converted))
        else:
            picture = _decode_jpeg(data, name, colorspace=colorspace, **options,
                                   buffer=None if clip is None else clip[i])
        if clip is None:  # the size that it has now
            clip = np.empty((len(images), *picture.shape), np.uint8)
        if picture.shape != clip[i].shape:  # of a JPEG image that is made smaller, and another
            raise FrameError(f'{name}: the frame is stored in another way than {names[0]}; '
                             'extract the video again, or drop --fast_decode', MIXED)
        if not np.may_share_memory(picture, clip):
            clip[i] = picture
    return torch.from_numpy(clip).permute(0, 3, 1, 2)


def _decode_jpeg(data: bytes, name: str, **options: Any) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        kind = TRUNCATED if 'Premature end' in str(error) else UNDECODABLE
        raise _broken_frame(name, kind, error) from None


def _is_plain_jpeg(data: bytes) -> bool:
    """True for a JPEG image that lies in its file as it is shown."""
    return data[:2] == JPEG_BEGIN and data.find(EXIF, 0, EXIF_WITHIN) < 0


def _open_other(data: bytes, name: str) -> Image.Image:
    """Pillow's image of some bytes, decoded and upright. Raises FrameError."""
    with warnings.catch_warnings():  # of an EXIF header, or a size, that makes no sense
        warnings.simplefilter('ignore')
        try:
            image: Image.Image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            kind = 'an image' if name.lower().endswith(OTHER_EXTENSIONS) else 'a JPEG image'
            raise FrameError(f'{name}: the frame is not {kind}; delete the file and extract the '
                             'video again', UNDECODABLE) from None
        try:
            image = ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, ValueError) as error:
            kind = TRUNCATED if 'truncated' in str(error) else UNDECODABLE
            raise _broken_frame(name, kind, error) from None
    if image.mode == 'P' and 'transparency' in image.info:  # else Pillow advises to do so
        return image.convert('RGBA')
    if image.mode.startswith('I'):  # 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def _check_headers(images: list[bytes], names: list[str], others: dict[int, Image.Image]) -> None:
    """Raise FrameError where an image is none, of another size than the first, or grey among
    images in colour.

    others: those that are no plain JPEG images, by their places
    """
    shape, colours = _header(images[0], names[0], others.get(0))
    for i, (data, name) in enumerate(zip(images, names)):
        own_shape, own_colours = _header(data, name, others.get(i))
        if own_shape != shape:
            raise FrameError(f'{name}: the frame is {_size(own_shape)} and {names[0]} is '
                             f'{_size(shape)}; extract the video again', MIXED)
        if 'Gray' in (colours, own_colours) and colours != own_colours:
            raise FrameError(f'{name if own_colours == "Gray" else names[0]}: the frame is grey '
                             'among frames in colour; extract the video again', MIXED)


def _broken_frame(name: str, kind: str, reason: object) -> FrameError:
    return FrameError(f'{name}: the frame is {kind} ({reason}); delete the file and extract the '
                      'video again', kind)


def _header(data: bytes, name: str, other: Image.Image | None) -> tuple[tuple[int, int], str]:
    """((height, width), colour space) of an image as it is shown."""
    if len(data) == 0:
        raise FrameError(f'{name}: the frame is empty; extract the video again', EMPTY)
    if other is not None:
        return (other.height, other.width), 'Gray' if other.mode[0] in '1L' else 'RGB'
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        raise FrameError(f'{name}: the frame is not a JPEG image; delete the file and extract the '
                         'video again', UNDECODABLE) from None
    if height * width > MAX_PIXELS:
        raise FrameError(f'{name}: the frame claims {width}x{height} pixels, and at most '
                         f'{MAX_PIXELS} are read; extract the video again', UNDECODABLE)
    return (height, width), colours


def _size(shape: tuple[int, int]) -> str:
    return f'{shape[1]}x{shape[0]}'


class _JpegFrames:
    """What readers of JPEG frames share.

    decode_options: is_fast and min_side of `_decode`
    """

    mode = 'RGB'  # what images are decoded to: RGB or GRAY

    def __init__(self, **decode_options: Any) -> None:
        self.decode_options = decode_options

    def load(self, path: str, frames: Sequence[int]) -> tuple[list[list[bytes]], list[str]]:
        """The bytes of the frames' images, one list per HDF5 data set (optical flow has two), and
        the frames' names in errors. Raises FrameError."""
        raise NotImplementedError

    def left_out(self, path: str) -> list[tuple[str, str]]:
        return []

    def read(self, path: str, frames: Sequence[int], n_frames: int | None = None) -> torch.Tensor:
        return self.decode(*self.load(path, frames))

    def read_transformed(self, path: str, frames: Sequence[int], n_frames: int | None,
                         transform: Transform) -> torch.Tensor:
        return transform(self.read(path, frames, n_frames))

    def decode(self, stored: list[list[bytes]], names: list[str]) -> torch.Tensor:
        """What `load` gave -> uint8 (T, C, H, W). Raises FrameError."""
        clips = [_decode(images, names, self.mode, **self.decode_options) for images in stored]
        return clips[0] if len(clips) == 1 else torch.cat(clips, dim=1)


class JpgFrames(_JpegFrames):
    """One folder of images per video, in the order of the numbers in their names; see
    `frame_folders`.

    template: names of frames, such as frame_%05d.png; None where they tell by themselves
    """

    suffix = ''
    first_frame = 1

    def __init__(self, template: str | None = None, **decode_options: Any) -> None:
        super().__init__(**decode_options)
        self.template = template

    def count(self, path: str) -> int:
        try:
            return self._find(path).n
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            raise FrameError(f'{path}: cannot be read: {error.strerror}; mend its permissions, or '
                             'leave the video out') from None

    announced = count

    def left_out(self, path: str) -> list[tuple[str, str]]:
        try:
            folder = self._find(path)
        except (FrameError, OSError):
            return []  # that is said when its frames are counted
        return ([(name, GAP) for name in folder.missing]
                + [(name, 'folders among frames' if os.path.isdir(f'{path}/{name}') else
                    _kind_of_stray(name)) for name in folder.strays])

    def check(self, path: str, begin: int, end: int) -> None:
        try:
            if all(map(os.path.isfile, self.files(path, (begin, end - 1)))):
                return
        except FrameError:
            pass
        if not os.path.isdir(path):
            video = find_video(path)
            if video:
                raise FrameError(f'{video}: is a video, and frames were looked for; add '
                                 '--file_type video, or extract the videos')
            raise FrameError(f'{path}: no such folder of frames; extract the video, or check '
                             '--video_path')
        folder = self._find(path)
        if not folder.n:
            wanted = self.template or f'{usual_name(1)} ...'
            raise FrameError(f'{path}: the folder has no frames ({wanted}){_found(folder)}; '
                             'extract the video again, or say with --frame_template what they are '
                             'called', EMPTY)
        if end - 1 <= len(folder.names) and folder.missing:
            raise _gap(f'{path}/{folder.missing[0]}')
        raise FrameError(f'{path}: the annotation names frames {begin} to {end - 1} and the '
                         f'folder has {folder}; extract the video or make the annotation again',
                         WRONG_COUNT)

    def load(self, path: str, frames: Sequence[int]) -> tuple[list[list[bytes]], list[str]]:
        names = self.files(path, frames)
        try:
            return [[self._load(name) for name in names]], names
        except FileNotFoundError as error:
            missing = str(error.filename)
            if (os.path.basename(missing), GAP) in self.left_out(path):
                raise _gap(missing) from None
            raise FrameError(f'{missing}: no such frame; extract the video or make the annotation '
                             'again') from None

    def files(self, path: str, frames: Sequence[int]) -> list[str]:
        """Paths of the images of these frames. Raises FrameError."""
        try:
            return [f'{path}/{name}' for name in frame_names(path, frames, self.template)]
        except FolderError as error:
            raise FrameError(f'{path}: {error}; extract the video or make the annotation again',
                             WRONG_COUNT) from None
        except OSError:  # said of the first frame that cannot be read
            return [f'{path}/{usual_name(frame)}' for frame in frames]

    def _find(self, path: str) -> FrameFolder:
        try:
            return find_frames(path, self.template)
        except FolderError as error:
            raise FrameError(f'{path}: {error}', MIXED) from None

    @staticmethod
    def _load(name: str) -> bytes:
        try:
            return read_file(name)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise FrameError(f'{name}: cannot be read: {error.strerror}; extract the video again',
                             UNDECODABLE) from None


def _gap(name: str) -> FrameError:
    """The error for a frame that is missing between others: an annotation made again does not help.
    """
    return FrameError(f'{name}: no such frame, and there are later ones; extract the video again, '
                      'or rename the frames to numbers without gaps')


def _kind_of_stray(name: str) -> str:
    extension = os.path.splitext(name)[1].lower()
    if extension in IMAGE_EXTENSIONS:
        return 'images that are no frames'
    return f'with extension {extension}' if extension else 'without extension'


def _found(folder: FrameFolder) -> str:
    """What lies there instead of frames, in words."""
    shown = ', '.join(folder.strays[:N_SHOWN]) + (', ...' if len(folder.strays) > N_SHOWN else '')
    return f', but {shown}' if shown else ''


class Hdf5Frames(_JpegFrames):
    """One HDF5 file per video whose data set `video` holds the JPEG bytes of each frame, from 0."""

    suffix = '.hdf5'
    first_frame = 0
    datasets: tuple[str, ...] = ('video',)

    def count(self, path: str) -> int:
        return min(map(len, self._open(path).values())) if os.path.isfile(path) else 0

    announced = count

    def check(self, path: str, begin: int, end: int) -> None:
        n_frames = min(map(len, self._open(path).values()))
        if end > n_frames:
            raise FrameError(f'{path}: the annotation names frames {begin} to {end - 1} and the '
                             f'file has {n_frames} (from 0); make the file or the annotation again',
                             WRONG_COUNT)

    def load(self, path: str, frames: Sequence[int]) -> tuple[list[list[bytes]], list[str]]:
        stored = [[image for run in _runs(frames) for image in self._load(data, run, path)]
                  for data in self._open(path).values()]
        return stored, [f'{path}: frame {frame}' for frame in frames]

    def _open(self, path: str) -> dict[str, h5py.Dataset]:
        try:
            file_size(path)
            file = h5py.File(path, 'r')
            stored = {name: file[name] for name in self.datasets}
            is_right = all(map(_is_column_of_bytes, stored.values()))
        except FileNotFoundError:
            raise FrameError(f'{path}: no such file; make it with '
                             'util_scripts.generate_video_hdf5, or check --video_path') from None
        except KeyError:
            raise FrameError(f'{path}: has no dataset {" and ".join(self.datasets)}; '
                             'make the file again', EMPTY) from None
        except Exception as error:  # a damaged file fails in any way there is
            kind = TRUNCATED if 'truncated' in str(error) else UNDECODABLE
            raise FrameError(f'{path}: not a readable HDF5 file; make it again', kind) from None
        if not is_right:
            raise FrameError(f'{path}: its {" and ".join(self.datasets)} are no frames, a row of '
                             'bytes each; make the file again', UNDECODABLE)
        return stored

    @staticmethod
    def _load(data: h5py.Dataset, run: range, path: str) -> list[bytes]:
        """JPEG bytes of the frames of a range, read at once."""
        if run.stop > len(data):
            raise FrameError(f'{path}: frame {max(run.start, len(data))}: the file has {len(data)} '
                             'frames (from 0); make the file or the annotation again', WRONG_COUNT)
        try:
            _check_row_sizes(data, run)
            return [np.asarray(image, np.uint8).tobytes() for image in data[run.start:run.stop]]
        except Exception:  # as in `_open`
            frames = f'frame {run.start}' + (f' to {run.stop - 1}' if len(run) > 1 else '')
            raise FrameError(f'{path}: {frames}: cannot be read from the file; make it again',
                             UNDECODABLE) from None


def _is_column_of_bytes(data: object) -> bool:
    """True for the data set of an HDF5 file whose rows are bytes, and lie in the file itself."""
    return (isinstance(data, h5py.Dataset) and data.ndim == 1 and not data.is_virtual
            and not data.external and h5py.check_vlen_dtype(data.dtype) == np.uint8)


def _check_row_sizes(data: h5py.Dataset, run: range) -> None:
    """Raise ValueError where a row of a data set in chunks claims more bytes than a frame has.

    The library would take the memory first.
    """
    if data.chunks is None or data.compression or data.id.get_num_chunks() == 0:
        return
    size = data.chunks[0]
    for begin in range(run.start // size * size, run.stop, size):
        _, chunk = data.id.read_direct_chunk((begin,))
        lengths = np.frombuffer(chunk, HDF5_ROW)['length'][max(0, run.start - begin):
                                                           run.stop - begin]
        if len(lengths) and lengths.max() > MAX_IMAGE_BYTES:
            raise ValueError(f'a row claims {lengths.max()} bytes')


def _runs(frames: Sequence[int]) -> Iterator[range]:
    """Frame numbers as ranges of those that follow each other: 3, 4, 5, 9 -> 3...5, 9...9."""
    begin = 0
    for i in range(1, len(frames) + 1):
        if i == len(frames) or frames[i] != frames[i - 1] + 1:
            yield range(frames[begin], frames[i - 1] + 1)
            begin = i


class Hdf5Flow(Hdf5Frames):
    """One HDF5 file per video whose data sets `video_u` and `video_v` hold the grey JPEG bytes of
    each frame, from 0.

    Channel 0 is horizontal flow, channel 1 vertical.
    """

    datasets = ('video_u', 'video_v')
    mode = 'GRAY'


# A file and ascending frame numbers -> (number, uint8 picture) of each.
Pictures = Callable[[str, list[int]], Iterator[tuple[int, np.ndarray]]]


class VideoFrames:
    """The video's own file, `path` with one of VIDEO_EXTENSIONS; frame n is image n of the folder
    that util_scripts.generate_video_jpgs makes of it, without the loss of JPEG.

    short_side: what frames are scaled to, in pixels, as they are extracted
    is_exact:   clips are cropped from whole frames as extraction makes them; else in one pass,
                straight from the file's own frames
    index:      the file of a VideoIndex, None for none; raises InputError where it is not one
    """

    suffix = ''
    first_frame = 1

    def __init__(self, short_side: int = SHORT_SIDE, is_exact: bool = False,
                 index: Path | None = None) -> None:
        self.short_side, self.is_exact = short_side, is_exact
        self.index = None if index is None else VideoIndex(index)

    def count(self, path: str) -> int:
        return self._counted(path, count_frames)

    def left_out(self, path: str) -> list[tuple[str, str]]:
        return []

    def announced(self, path: str) -> int:
        return self._counted(path, count_packets)

    @staticmethod
    def _counted(path: str, counter: Callable[[str], int]) -> int:
        file = find_video(path)
        if file is None:
            return 0
        try:
            return counter(file)
        except VideoError as error:
            raise _broken_video(file, error) from None

    def check(self, path: str, begin: int, end: int) -> None:
        file = self._find(path)
        if os.path.getsize(file) == 0:
            raise FrameError(f'{file}: the file is empty; get the video again', EMPTY)

    def read(self, path: str, frames: Sequence[int], n_frames: int | None = None) -> torch.Tensor:
        return self._read(path, frames, lambda file, numbers: read_rgb(
            file, numbers, size=self.short_side, n_frames=n_frames,
            index=self.index)).permute(0, 3, 1, 2)

    def read_transformed(self, path: str, frames: Sequence[int], n_frames: int | None,
                         transform: Transform) -> torch.Tensor:
        """transform(self.read(path, frames, n_frames)), with the same random draws.

        Unless `is_exact`, only the pixels that the transform keeps are made, and are resized once:
        they are not quite the same.
        """
        if self.is_exact:
            return transform(self.read(path, frames, n_frames))
        rest = transform

        def plan(height: int, width: int) -> tuple[Box, tuple[int, int]]:
            nonlocal rest
            box, size, rest = first_resize(transform, height, width)
            return Box(*box), size
        clip = self._read(path, frames, lambda file, numbers: read_crops(
            file, numbers, plan, size=self.short_side, n_frames=n_frames, index=self.index))
        return rest(clip)

    def _read(self, path: str, frames: Sequence[int], pictures: Pictures) -> torch.Tensor:
        """uint8 (T, ...) of what pictures(file, numbers) yields for each frame number."""
        file = self._find(path)
        numbers = sorted(set(frames))
        row = {number: i for i, number in enumerate(numbers)}
        try:
            for number, picture in pictures(file, numbers):
                if number == numbers[0]:
                    clip = np.empty((len(numbers), *picture.shape), np.uint8)
                clip[row[number]] = picture
        except EndError as error:
            raise FrameError(f'{file}: frame {numbers[-1]} is wanted and {error}; make the '
                             'annotation again', WRONG_COUNT) from None
        except VideoError as error:
            raise _broken_video(file, error) from None
        if list(frames) != numbers:
            clip = clip[[row[frame] for frame in frames]]
        return torch.from_numpy(clip)

    @staticmethod
    def _find(path: str) -> str:
        file = find_video(path)
        if file is None:
            raise FrameError(f'{path}: no such video ({", ".join(VIDEO_EXTENSIONS)}); check '
                             '--video_path')
        return file


def _broken_video(file: str, error: VideoError) -> FrameError:
    return FrameError(f'{file}: cannot be decoded ({error}); get the video again or leave it out',
                      EMPTY if os.path.getsize(file) == 0 else UNDECODABLE)


# By --file_type and --input_type; opts.STORAGES names them.
READERS: dict[tuple[str, str], type[Reader]] = {
    ('jpg', 'rgb'): JpgFrames, ('hdf5', 'rgb'): Hdf5Frames, ('hdf5', 'flow'): Hdf5Flow,
    ('video', 'rgb'): VideoFrames}


def make_reader(storage: tuple[str, str], template: str | None = None) -> Reader:
    """The reader of --file_type and --input_type, of frames that are called as --frame_template
    says. Raises InputError for a template of what is stored otherwise."""
    if template is None:
        return READERS[storage]()
    if READERS[storage] is not JpgFrames:
        raise InputError(f'--frame_template is for folders of frames, and {storage[0]} files are '
                         'read: drop it')
    return JpgFrames(template)


def video_path(root: str | Path, path: str, suffix: str) -> str:
    """Where a record's frames are: its path below `root`, and the suffix after what fits."""
    whole = Path(root, path)
    return str(whole.with_name(cut_name(whole.name) + suffix) if suffix else whole)
