"""Extract the frames of a data set's videos: an HDF5 file of JPEG images for each video.

    python -m util_scripts.generate_video_hdf5 DIR_PATH DST_PATH DATASET

The images are those of generate_video_jpgs, byte for byte; a few big files instead of many small
ones. A run that was stopped is taken up where it was: a file under a video's own name is complete.
"""

from datasets.video import cut_name
from runtime.errors import run
from util_scripts.generate_video_jpgs import extract_frames
from util_scripts.helpers.video_io import jpegs


class Hdf5File:
    """A file a video; dataset `video` holds the bytes of an image a frame, from 0."""

    datasets = ('video',)

    @staticmethod
    def encode(video, **settings):
        """An image a dataset for each frame."""
        return ((data,) for data in jpegs(video, **settings))

    @staticmethod
    def destination(folder, stem):
        """Path of a video's frames in its label's folder."""
        return folder / f'{cut_name(stem)}.hdf5'

    @staticmethod
    def is_done(destination):
        return destination.is_file()

    @classmethod
    def write(cls, path, rows):
        """Store rows of JPEG bytes, one a dataset, as the file `path`."""
        import h5py  # here, because only the processes that write need it
        import numpy as np
        with h5py.File(path, 'w') as file:
            stored = [file.create_dataset(name, (0,), h5py.vlen_dtype(np.uint8), maxshape=(None,))
                      for name in cls.datasets]
            for number, images in enumerate(rows):
                for dataset, data in zip(stored, images):
                    dataset.resize(number + 1, axis=0)
                    dataset[number] = np.frombuffer(data, np.uint8)


def main(argv=None):
    return extract_frames(argv, Hdf5File, 'Extract the frames of videos as HDF5 files of JPEG '
                                          'images.')


if __name__ == '__main__':
    run(main)
