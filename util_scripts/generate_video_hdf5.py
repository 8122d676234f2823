"""Extract the frames of a data set's videos: an HDF5 file of JPEG images for each video.

    python -m util_scripts.generate_video_hdf5 DIR_PATH DST_PATH DATASET

The images are those of generate_video_jpgs, byte for byte; a few big files instead of many small
ones. A run that was stopped is taken up where it was: a file under a video's own name is complete.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.video import Video, cut_name
from runtime.arguments import Parser
from runtime.errors import run
from runtime.files import writing_hdf5
from util_scripts.generate_video_jpgs import build_frames_parser, extract_videos, parse_record
from util_scripts.helpers.video_io import jpegs

# The attribute of a file that says what it was made of.
RECORD = 'extracted'
READ_AT_ONCE = 100  # images


class Hdf5File:
    """One file per video; dataset `video` holds the bytes of one image per frame, from 0."""

    kind = 'hdf5'
    datasets: tuple[str, ...] = ('video',)

    @staticmethod
    def encode(video: Video, **settings: Any) -> Iterator[Sequence[bytes]]:
        """One image per dataset for each frame."""
        return ((data,) for data in jpegs(video, **settings))

    @staticmethod
    def destination(folder: Path, stem: str) -> Path:
        """Path of a video's frames in its label's folder."""
        return folder / f'{cut_name(stem)}.hdf5'

    @staticmethod
    def holds_frames(destination: Path) -> bool:
        """True where there is something that frames made again may take the place of."""
        return destination.is_file()

    @classmethod
    def contents(cls, destination: Path) -> dict[str, int]:
        """What there is: the number of frames that are not empty (`n_frames`), 0 without the data
        sets, and a sum of their checksums. Raises OSError."""
        import h5py
        n_frames, checksum = dict.fromkeys(cls.datasets, 0), 0
        try:
            with h5py.File(destination, 'r') as file:
                for name in set(cls.datasets) & set(file):
                    for begin in range(0, len(file[name]), READ_AT_ONCE):
                        for image in file[name][begin:begin + READ_AT_ONCE]:
                            n_frames[name] += len(image) > 0
                            checksum += zlib.crc32(image)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise OSError(str(error)) from None
        return {'n_frames': min(n_frames.values()), 'checksum': checksum}

    @classmethod
    def first_image(cls, destination: Path) -> bytes:
        """Bytes of the first frame. Raises OSError."""
        import h5py
        with h5py.File(destination, 'r') as file:
            return bytes(file[cls.datasets[0]][0])

    @staticmethod
    def read_record(destination: Path) -> dict[str, Any] | None:
        """What `write_record` left there, or None. Raises OSError."""
        import h5py
        with h5py.File(destination, 'r') as file:
            return parse_record(file.attrs.get(RECORD))

    @staticmethod
    def write_record(path: Path, record: Mapping[str, Any]) -> None:
        with writing_hdf5(path, is_new=False) as (file, _):
            file.attrs[RECORD] = json.dumps(record)

    @classmethod
    def put(cls, temporary: Path, destination: Path) -> None:
        """Give a complete file its own name, in the place of one with the same data sets or of one
        that cannot be read. Raises OSError for another one."""
        if destination.is_file() and cls._is_other(destination):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.rename(temporary, destination)

    @classmethod
    def _is_other(cls, destination: Path) -> bool:
        import h5py
        try:
            with h5py.File(destination, 'r') as file:
                return not all(name in file for name in cls.datasets)
        except OSError:
            return False

    @classmethod
    def write(cls, path: Path, rows: Iterable[Sequence[bytes]]) -> None:
        """Store rows of JPEG bytes, one per dataset, as the file `path`."""
        import h5py  # here, because only the processes that write need it
        import numpy as np
        with writing_hdf5(path) as (file, check):
            stored = [file.create_dataset(name, (0,), h5py.vlen_dtype(np.uint8), maxshape=(None,))
                      for name in cls.datasets]
            for number, images in enumerate(rows):
                for dataset, data in zip(stored, images):
                    dataset.resize(number + 1, axis=0)
                    dataset[number] = np.frombuffer(data, np.uint8)
                    check()


def build_parser() -> Parser:
    return build_frames_parser('generate_video_hdf5',
                               'Extract the frames of videos as HDF5 files of JPEG images.')


def main(argv: Sequence[str] | None = None) -> int:
    return extract_videos(build_parser().parse_args(argv), Hdf5File)


if __name__ == '__main__':
    run(main)
