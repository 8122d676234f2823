"""Samples: the clips of one video; and how samples are collated into a batch."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.annotations import Records
from datasets.frames import FrameError, Reader, video_path
from datasets.sampling import NO_VIDEO, Key, sample_draw
from runtime.errors import InputError
from temporal_transforms import TemporalTransform, as_clips

RAISE, REPLACE, LEAVE_OUT = ('raised', 'replaced by others of the same class',
                             'left out, in whole or in part')


class Bad(NamedTuple):
    """A video, by its number in the records, of which frames could not be read, and why."""

    video: int
    reason: str


class Clip(NamedTuple):
    """pixels: uint8 (T, C, h, w), which may share memory with those of other clips; None stands for
    a black clip. segment: first frame and last frame + 1."""

    pixels: torch.Tensor | None
    segment: tuple[int, int]


class Sample(NamedTuple):
    """The clips of one video; its targets, (1,) or (1, n_classes), as `Records.targets` has them;
    its number in the records; what was bad, if anything."""

    clips: list[Clip]
    target: torch.Tensor
    video: int
    bad: Bad | None = None


class Batch(NamedTuple):
    """N clips and what they are of.

    clips:    uint8 (N, C, T, h, w), channels last in memory
    labels:   (N,) class numbers; multi-label (N, n_classes) float32, 1 for each label
    videos:   (N,) number of each clip's video in the records
    segments: (N, 2) first frame and last frame + 1 of each clip
    bad:      the `Bad` videos that were skipped

    Clips of NO_VIDEO are black, of any label. A batch is pickled, and so crosses from a loader
    process, with the clips in shared memory and the small columns by value: each tensor takes
    shared memory, and a file descriptor, of its own.
    """

    clips: torch.Tensor
    labels: torch.Tensor
    videos: torch.Tensor
    segments: torch.Tensor
    bad: list[Bad]

    def __reduce__(self) -> tuple[Any, ...]:
        columns = (column.numpy() for column in (self.labels, self.videos, self.segments))
        return _unpickled, (self.clips, *columns, self.bad)


def _unpickled(clips: torch.Tensor, labels: np.ndarray, videos: np.ndarray, segments: np.ndarray,
               bad: list[Bad]) -> Batch:
    return Batch(clips, torch.from_numpy(labels), torch.from_numpy(videos),
                 torch.from_numpy(segments), bad)


class VideoDataset(Dataset):
    """Records + reader + transforms -> samples, by `sampling.Key`.

    root:               folder that the records' paths are relative to
    temporal_transform: frame numbers -> a clip of frame numbers, or a list of clips
    spatial_transform:  uint8 (T, C, H, W) -> uint8 (T, C, h, w), or (S, T, C, h, w) where a clip
                        is to be S clips
    seed:               of the random draws; a sample's draw depends on seed, epoch and index alone
    on_bad_frame:       RAISE the error; REPLACE the sample by the next video of its class that can
                        be read; or LEAVE_OUT the clips that cannot be read

    A frame that several clips share is read once.
    """

    def __init__(self, records: Records, root: Any, reader: Reader,
                 temporal_transform: TemporalTransform,
                 spatial_transform: Callable[[torch.Tensor], torch.Tensor], seed: int = 0,
                 on_bad_frame: str = RAISE) -> None:
        self.records, self.root, self.reader = records, str(root), reader
        self.temporal_transform = temporal_transform
        self.spatial_transform = spatial_transform
        self.seed = seed
        self.on_bad_frame = on_bad_frame

    def __len__(self) -> int:
        return len(self.records)

    def path(self, index: int) -> str:
        """Folder or file of a sample's frames."""
        return video_path(self.root, self.records.paths[index], self.reader.suffix)

    def n_clips(self) -> torch.Tensor:
        """(n,) number of clips that the temporal transform makes of each sample."""
        lengths, places = self.records.n_frames().unique(return_inverse=True)
        counts = [self.temporal_transform.n_clips(n_frames) for n_frames in lengths.tolist()]
        return torch.tensor(counts)[places]

    def __getitem__(self, key: Key) -> Sample:
        """Sample of a Key. Raises FrameError where a frame is missing or broken."""
        if key.index == NO_VIDEO:
            assert key.end_clip is not None
            black = [Clip(None, (0, 0))] * (key.end_clip - key.begin_clip)
            return Sample(black, self.records.targets([0]), NO_VIDEO)
        try:
            return self._sample(key.index, self._read(key, key.index))
        except FrameError as error:
            if self.on_bad_frame == RAISE:
                raise
            bad = Bad(key.index, str(error))
            if self.on_bad_frame == LEAVE_OUT:
                return self._sample(key.index, self._good_clips(key), bad)
            return self._sample(*self._next_good(key, error), bad)

    def __getitems__(self, keys: list[Key]) -> list[Sample] | InputError:
        """Samples of a list of keys, or the InputError that one of them met.

        An exception that crosses from a loader process arrives with a traceback in its message;
        one that is handed over as a value keeps its sentence.
        """
        try:
            return [self[key] for key in keys]
        except InputError as error:
            return error

    def _sample(self, index: int, clips: list[Clip], bad: Bad | None = None) -> Sample:
        return Sample(clips, self.records.targets([index]), index, bad)

    def _read(self, key: Key, index: int) -> list[Clip]:
        """The clips of a key, of video `index`, which may stand for the key's own."""
        with sample_draw(self.seed, key.epoch, key.index, key.draw):
            clips = as_clips(self.temporal_transform(self.records.frames(index)))
            clips = clips[key.begin_clip:key.end_clip]
            numbers = sorted(set().union(*clips))
            n_frames = int(self.records.video_ends[index]) - self.reader.first_frame
            pixels = self.reader.read_transformed(self.path(index), numbers, n_frames,
                                                  self.spatial_transform)
        row = {number: i for i, number in enumerate(numbers)}
        crops = pixels if pixels.dim() == 5 else [pixels]
        return [Clip(_take(crop, [row[number] for number in clip]), (min(clip), max(clip) + 1))
                for clip, crop in itertools.product(clips, crops)]

    def _next_good(self, key: Key, error: FrameError) -> tuple[int, list[Clip]]:
        """The next video of the same class (multi-label: with a label in common), in the order of
        the records, and its clips."""
        same = self.records.is_alike(key.index).nonzero().flatten()
        n_before = int((same < key.index).sum())
        for index in torch.cat([same[n_before + 1:], same[:n_before]]).tolist():
            try:
                return index, self._read(key, index)
            except FrameError:
                continue
        names = [repr(self.records.class_names[i]) for i in self.records.labels[key.index]]
        raise FrameError(f'{error}; and no other video of class {" or ".join(names) or "none"} can '
                         'be read', error.kind)

    def _good_clips(self, key: Key) -> list[Clip]:
        """Those clips of a key that can be read, maybe none."""
        good = []
        n_clips = self.temporal_transform.n_clips(len(self.records.frames(key.index)))
        for clip in range(n_clips)[key.begin_clip:key.end_clip]:
            try:
                good += self._read(key._replace(begin_clip=clip, end_clip=clip + 1), key.index)
            except FrameError:
                continue
        return good


def _take(frames: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Some of the frames, uint8 (T, C, h, w); of rows that follow each other without a copy."""
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return frames[rows[0]:rows[-1] + 1]
    return frames[rows]


def _stack(clips: list[torch.Tensor]) -> torch.Tensor:
    """N clips (T, C, h, w) -> (N, C, T, h, w), channels last in memory.

    That is the order in which frames are decoded and networks run fastest, so that the only copy is
    this one.
    """
    duration, channels, height, width = clips[0].shape
    batch = clips[0].new_empty((len(clips), duration, height, width, channels))
    torch.cat(clips, out=batch.flatten(0, 1).permute(0, 3, 1, 2))
    return batch.permute(0, 4, 1, 2, 3)


def _pixels(clips: list[Clip]) -> list[torch.Tensor]:
    """Pixels of clips, black ones for None; one clip at least has some."""
    some = next(clip.pixels for clip in clips if clip.pixels is not None)
    return [torch.zeros_like(some) if clip.pixels is None else clip.pixels for clip in clips]


def collate(samples: list[Sample] | InputError) -> Batch | InputError:
    """Batch of all clips of some samples, which has none where all were left out; an InputError is
    passed on."""
    if isinstance(samples, InputError):
        return samples
    bad = [sample.bad for sample in samples if sample.bad]
    samples = [sample for sample in samples if sample.clips]
    if all(sample.video == NO_VIDEO for sample in samples):
        nothing = torch.empty(0)
        return Batch(nothing, nothing, nothing, nothing, bad)
    n_clips = torch.tensor([len(sample.clips) for sample in samples])
    clips = [clip for sample in samples for clip in sample.clips]
    return Batch(clips=_stack(_pixels(clips)),
                 labels=torch.cat([s.target for s in samples]).repeat_interleave(n_clips, dim=0),
                 videos=torch.tensor([s.video for s in samples]).repeat_interleave(n_clips),
                 segments=torch.tensor([clip.segment for clip in clips]), bad=bad)
