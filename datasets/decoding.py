"""Frames that loader processes only read, and the main process decodes and crops on a device.

    EncodedDataset ─ pack ─ `Encoded`, from the loader process ─ Decoder ─ Batch on the device

The samples, their order and their draws are those of a VideoDataset.
"""

from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from datasets.frames import UNDECODABLE, FrameError
from datasets.videodataset import VideoDataset, collate
from runtime.errors import InputError


class EncodedDataset(VideoDataset):
    """A VideoDataset of JPEG frames whose items are what `read` gives: frames are lists of bytes,
    checked as far as that is cheap."""

    def __getitem__(self, key):
        return self.read(key)

    def load(self, index, frames):
        """JPEG images of those frames of video `index`, bytes each."""
        return self.reader.encoded(self.path(index), frames)


class Encoded(NamedTuple):
    """A batch that is not decoded.

    data:    all JPEG images, one after the other, uint8 (n_bytes,)
    sizes:   bytes of each
    samples: what `VideoDataset.read` gave for each sample; the frames are a number of images
    """

    data: torch.Tensor
    sizes: list
    samples: list


def pack(samples, new_tensor=None):
    """`Encoded` of items of an EncodedDataset; an InputError is passed on.

    new_tensor: shape -> a uint8 tensor for the images; None makes one
    """
    if isinstance(samples, InputError):
        return samples
    images, counted = [], []
    for parts, bad in samples:
        own = [part._replace(frames=part.frames or []) for part in parts]  # NO_VIDEO has None
        images += [image for part in own for image in part.frames]
        counted.append(([part._replace(frames=len(part.frames)) for part in own], bad))
    joined = b''.join(images)
    shape = len(joined),
    data = new_tensor(shape) if new_tensor else torch.empty(shape, dtype=torch.uint8)
    data.numpy()[:] = np.frombuffer(joined, np.uint8)
    return Encoded(data, [len(image) for image in images], counted)


class Decoder:
    """Makes the `Batch` of an `Encoded`: all images are decoded in one call on the device, then
    cropped there a sample at a time. The draws are the CPU's, so crops are the same anywhere."""

    def __init__(self, dataset, device):
        self.dataset, self.device = dataset, device

    def __call__(self, encoded):
        """Batch of an `Encoded`; an InputError is passed on, and one met here returned."""
        if isinstance(encoded, InputError):
            return encoded
        try:
            pictures = iter(self._decode(encoded))
        except FrameError as error:
            return error
        samples = []
        for parts, bad in encoded.samples:
            parts = [part._replace(frames=self._clip(pictures, part)) for part in parts]
            samples.append(self.dataset.sample(parts, bad))
        return collate(samples)

    def _clip(self, pictures, part):
        """The next pictures as the frames of a part, uint8 (T, C, H, W); None of NO_VIDEO."""
        own = list(islice(pictures, part.frames))
        return self.dataset.reader.stack(own) if own else None

    def _decode(self, encoded):
        """A picture, uint8 (1 or 3, H, W), of each image. Raises FrameError."""
        if not encoded.sizes:
            return []
        images = list(encoded.data.split(encoded.sizes))
        try:
            return self._decode_images(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            self._name_broken(images, encoded.samples)
            raise

    def _decode_images(self, images):
        # Announced to be removed from torchvision: only who uses it is to need it.
        from torchvision.io import ImageReadMode, decode_jpeg
        return decode_jpeg(images, ImageReadMode[self.dataset.reader.mode], self.device)

    def _name_broken(self, images, samples):
        """Raise FrameError where one image cannot be decoded by itself: many at once do not say
        which of them it is."""
        for i, image in enumerate(images):
            try:
                self._decode_images([image])
            except RuntimeError as error:
                name, reason = self._names(samples)[i], str(error).splitlines()[0]
                raise FrameError(f'{name}: the frame cannot be decoded on {self.device} '
                                 f'({reason}); extract the video again, or drop '
                                 '--decode_device cuda', UNDECODABLE) from None

    def _names(self, samples):
        """What errors call the images of a batch, in order."""
        dataset, names = self.dataset, []
        for part in (part for parts, _ in samples for part in parts if part.frames):
            own = dataset.reader.names(dataset.path(part.index),
                                       dataset.wanted(part.key, part.index))
            names += own * (part.frames // len(own))  # once a data set
        return names
