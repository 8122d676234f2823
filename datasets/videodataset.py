"""Samples: the clips of one video, and how samples become a batch."""

import itertools
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from datasets.frames import FrameError, video_path
from datasets.sampling import NO_VIDEO, Key, draw_from, sample_draw
from runtime.errors import InputError

RAISE, REPLACE, LEAVE_OUT = ('raised', 'replaced by others of the same class',
                             'left out, in whole or in part')


class Bad(NamedTuple):
    """A video, by its number in the records, of which frames could not be read, and why."""

    video: int
    reason: str


class Frames(NamedTuple):
    """What the clips of a key are made of: frames of video `index`, which may stand for the key's
    own, as `VideoDataset.load` gives them; None of NO_VIDEO."""

    key: Key
    index: int
    frames: object


class Draw(NamedTuple):
    """What was drawn of a key's frames: clips, lists of frame numbers; the numbers of all of these,
    in order; and the generator's state, from which the pixels are drawn."""

    clips: list
    numbers: list
    state: torch.Tensor


class Sample(NamedTuple):
    """K clips of one video, a list of uint8 (T, C, h, w), which may share memory; its label, as
    `Records.targets` has it, a row; its number in the records; first frame and last frame + 1 of
    each clip, (K, 2); what was bad, if anything. Clips of NO_VIDEO are None."""

    clips: list
    label: torch.Tensor
    video: int
    segments: torch.Tensor
    bad: Bad | None = None


class Batch(NamedTuple):
    """N clips: uint8 (N, C, T, h, w); labels (N,), or multi-label (N, n_classes) float, 1 for each;
    number of each clip's video in the records (N,); first frame and last frame + 1 of each clip
    (N, 2); the `Bad` videos that were skipped. Clips of NO_VIDEO are black, of any label."""

    clips: torch.Tensor
    labels: torch.Tensor
    videos: torch.Tensor
    segments: torch.Tensor
    bad: list


class VideoDataset(Dataset):
    """Records + reader + transforms -> samples, by `sampling.Key`.

    root:               folder that the records' paths are relative to
    temporal_transform: frame numbers -> a clip of frame numbers, or a list of clips
    spatial_transform:  uint8 (T, C, H, W) -> uint8 (T, C, h, w), or (S, T, C, h, w) where a clip
                        is to be S clips
    seed:               of the draws; a sample's draw depends on seed, epoch and index alone
    on_bad_frame:       RAISE the error; REPLACE the sample by the next video of its class that can
                        be read; or LEAVE_OUT the clips that cannot be read

    A frame that several clips share is read once.
    """

    def __init__(self, records, root, reader, temporal_transform, spatial_transform, seed=0,
                 on_bad_frame=RAISE):
        self.records, self.root, self.reader = records, str(root), reader
        self.temporal_transform = temporal_transform
        self.spatial_transform = spatial_transform
        self.seed = seed
        self.on_bad_frame = on_bad_frame
        self._last_draw = None, None

    def __len__(self):
        return len(self.records)

    def path(self, index):
        """Folder or file of a sample's frames."""
        return video_path(self.root, self.records.paths[index], self.reader.suffix)

    def __getitem__(self, key):
        """Sample of a Key. Raises FrameError where a frame is missing or broken."""
        return self.sample(*self.read(key))

    def read(self, key):
        """A list of `Frames` for a Key, and the `Bad` video or None. Raises FrameError.

        It is one, unless clips are left out: then it is one a clip that is not, or none.
        """
        if key.index == NO_VIDEO:
            return [Frames(key, NO_VIDEO, None)], None
        try:
            return [self._read(key, key.index)], None
        except FrameError as error:
            if self.on_bad_frame == RAISE:
                raise
            skip = self._next_good if self.on_bad_frame == REPLACE else self._good_clips
            return skip(key, error), Bad(key.index, str(error))

    def load(self, index, frames):
        """Those frames of video `index`, uint8 (T, C, H, W)."""
        n_frames = int(self.records.video_ends[index]) - self.reader.first_frame
        return self.reader.read(self.path(index), frames, n_frames)

    def wanted(self, key, index):
        """Numbers of the frames of video `index` that the clips of a key need, in order."""
        return self._draw(key, index).numbers

    def _draw(self, key, index):
        """The `Draw` of a key, of video `index` in its place. The last is remembered, since it is
        wanted for reading and again for cropping."""
        if self._last_draw[0] != (key, index):
            with sample_draw(self.seed, key.epoch, key.index):
                clips = self.temporal_transform(self.records.frames(index))
                clips = clips if isinstance(clips[0], list) else [clips]
                clips = clips[key.begin_clip:key.end_clip]
                draw = Draw(clips, sorted(set().union(*clips)), torch.get_rng_state())
            self._last_draw = (key, index), draw
        return self._last_draw[1]

    def _read(self, key, index):
        return Frames(key, index, self.load(index, self.wanted(key, index)))

    def sample(self, parts, bad=None):
        """Sample of what `read` gave, its frames uint8 (T, C, H, W) now."""
        index = parts[0].index if parts else bad.video
        if index == NO_VIDEO:
            n_clips = parts[0].key.end_clip - parts[0].key.begin_clip
            return Sample([None] * n_clips, self.records.targets([0]), NO_VIDEO,
                          torch.zeros(n_clips, 2, dtype=torch.int64))
        cropped = [self._crop(*part) for part in parts]
        clips = [clip for own, _ in cropped for clip in own]
        segments = [segment for _, own in cropped for segment in own]
        return Sample(clips, self.records.targets([index]), index,
                      torch.tensor(segments, dtype=torch.int64).view(-1, 2), bad)

    def _crop(self, key, index, frames):
        """The clips of a key, a list of uint8 (T, C, h, w), and first frame and last frame + 1 of
        each."""
        draw = self._draw(key, index)
        with draw_from(draw.state):
            pixels = self.spatial_transform(frames)
        row = {number: i for i, number in enumerate(draw.numbers)}
        crops = pixels if pixels.dim() == 5 else [pixels]
        rows = [[row[number] for number in clip] for clip in draw.clips for _ in crops]
        segments = [[min(clip), max(clip) + 1] for clip in draw.clips for _ in crops]
        return [_take(crop, own) for crop, own in zip(itertools.cycle(crops), rows)], segments

    def _next_good(self, key, error):
        """Frames of the next video of the same class (multi-label: with a label in common), in the
        order of the records."""
        same = self.records.is_alike(key.index).nonzero().flatten()
        n_before = int((same < key.index).sum())
        for index in torch.cat([same[n_before + 1:], same[:n_before]]).tolist():
            try:
                return [self._read(key, index)]
            except FrameError:
                continue
        names = [repr(self.records.class_names[i]) for i in self.records.classes(key.index)]
        raise FrameError(f'{error}; and no other video of class {" or ".join(names) or "none"} can '
                         'be read', error.kind)

    def _good_clips(self, key, _error):
        """Frames of those clips of the video that can be read, maybe none."""
        good, begin, end = [], key.begin_clip, key.end_clip
        n_clips = len(self.temporal_transform(self.records.frames(key.index))[begin:end])
        for clip in range(begin, begin + n_clips):
            try:
                good.append(self._read(key._replace(begin_clip=clip, end_clip=clip + 1),
                                       key.index))
            except FrameError:
                continue
        return good

    def __getitems__(self, keys):
        """Samples of a list of keys, or the InputError that one of them met.

        An exception that crosses from a loader process arrives with a traceback in its message;
        one that is handed over as a value keeps its sentence.
        """
        try:
            return [self[key] for key in keys]
        except InputError as error:
            return error


def _take(frames, rows):
    """Some of the frames, uint8 (T, C, h, w); of rows that follow each other without a copy."""
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return frames[rows[0]:rows[-1] + 1]
    return frames[rows]


def _stack(clips, new_tensor):
    """N clips (T, C, h, w) -> (N, C, T, h, w), channels last in memory.

    That is the order in which frames are decoded and networks run fastest, so that the only copy is
    this one.
    """
    duration, channels, height, width = clips[0].shape
    shape = len(clips), duration, height, width, channels
    batch = new_tensor(shape) if new_tensor else clips[0].new_empty(shape)
    torch.cat(clips, out=batch.flatten(0, 1).permute(0, 3, 1, 2))
    return batch.permute(0, 4, 1, 2, 3)


def _filled(clips):
    """Clips with black ones for None; one at least is not None."""
    some = next(clip for clip in clips if clip is not None)
    return [torch.zeros_like(some) if clip is None else clip for clip in clips]


def collate(samples, new_tensor=None):
    """Batch of all clips of some samples, which has none where all were left out; an InputError is
    passed on.

    new_tensor: shape -> a uint8 tensor for the clips; None makes one on the clips' device
    """
    if isinstance(samples, InputError):
        return samples
    bad = [sample.bad for sample in samples if sample.bad]
    samples = [sample for sample in samples if sample.clips]
    if all(sample.video == NO_VIDEO for sample in samples):
        nothing = torch.empty(0)
        return Batch(nothing, nothing, nothing, nothing, bad)
    n_clips = torch.tensor([len(sample.clips) for sample in samples])
    clips = _filled([clip for sample in samples for clip in sample.clips])
    return Batch(clips=_stack(clips, new_tensor),
                 labels=torch.cat([s.label for s in samples]).repeat_interleave(n_clips, dim=0),
                 videos=torch.tensor([s.video for s in samples]).repeat_interleave(n_clips),
                 segments=torch.cat([sample.segments for sample in samples]), bad=bad)
