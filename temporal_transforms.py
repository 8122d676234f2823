"""Temporal transforms: which frames of a video make a clip, as functions and thin classes.

A video is a sequence of frame numbers, in order (a `range` will do). A clip is a list of frame
numbers; a transform gives one clip of a video, or a list of clips. Nothing here changes what it is
given. Random draws come from torch's generator, like torchvision's.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, cast

import torch

Item = TypeVar('Item')
Clip = list[Item]
Frames = Sequence[int]  # frame numbers


def loop(frames: Sequence[Item], size: int) -> Clip[Item]:
    """The first `size` frames, starting over as often as needed: [1, 2, 3] -> [1, 2, 3, 1, 2]."""
    return [frames[i % len(frames)] for i in range(size)]


def center_crop(frames: Sequence[Item], size: int) -> Clip[Item]:
    """A clip of `size` frames around the middle."""
    begin = max(0, len(frames) // 2 - size // 2)
    return loop(frames[begin:begin + size], size)


def random_crop(frames: Sequence[Item], size: int) -> Clip[Item]:
    """A clip of `size` consecutive frames, all starts equally likely."""
    n_starts = max(1, len(frames) - size + 1)
    begin = int(torch.randint(n_starts, ()))
    return loop(frames[begin:begin + size], size)


def even_crop(frames: Sequence[Item], size: int, n_samples: int) -> list[Clip[Item]]:
    """Up to `n_samples` clips of `size` frames, evenly placed; one, centred, for n_samples = 1.

    The last clip is looped where the frames end before it does, and no other follows it.
    """
    if n_samples == 1:
        return [center_crop(frames, size)]
    return sliding_window(frames, size, _even_stride(len(frames), size, n_samples))[:n_samples]


def n_even_crops(n_frames: int, size: int, n_samples: int) -> int:
    """How many clips `even_crop` makes of `n_frames` frames."""
    if n_samples == 1:
        return 1
    return min(n_samples, n_windows(n_frames, size, _even_stride(n_frames, size, n_samples)))


def _even_stride(n_frames: int, size: int, n_samples: int) -> int:
    return max(1, math.ceil((n_frames - 1 - size) / (n_samples - 1)))


def sliding_window(frames: Sequence[Item], size: int, stride: int) -> list[Clip[Item]]:
    """Clips of `size` frames, one every `stride` frames; the first that is cut short is looped and
    is the last."""
    clips = []
    for begin in range(0, len(frames), stride):
        clips.append(loop(frames[begin:begin + size], size))
        if begin + size > len(frames):
            break
    return clips


def n_windows(n_frames: int, size: int, stride: int) -> int:
    """How many clips `sliding_window` makes of `n_frames` frames."""
    n_full = max(0, (n_frames - size) // stride + 1)
    return n_full + (n_full * stride < n_frames)


def stream_windows(frames: Iterable[Item], size: int, stride: int) -> Iterator[Clip[Item]]:
    """Yield the clips of `sliding_window`, of frames that come one by one; holds `size` of them."""
    windows = FullWindows[Item](size, stride)
    for frame in frames:
        if window := windows.add(frame):
            yield window
    if windows.held:
        yield loop(windows.held, size)


class FullWindows(Generic[Item]):
    """Gives the clips of `sliding_window` that are not cut short, of frames that come one by one.

    held: the frames of the clip that has begun
    """

    def __init__(self, size: int, stride: int) -> None:
        self._size, self._stride = size, stride
        self.held: list[Item] = []
        self._n_between = 0  # frames that no clip has before the next begins

    def add(self, frame: Item) -> Clip[Item] | None:
        """The clip that this frame ends, None where it ends none."""
        if self._n_between:
            self._n_between -= 1
            return None
        self.held.append(frame)
        if len(self.held) < self._size:
            return None
        window, self.held = self.held, self.held[self._stride:]
        self._n_between = max(0, self._stride - self._size)
        return window


def even_windows(frames: Sequence[Item], size: int, n: int) -> list[Clip[Item]]:
    """`n` clips of `size` frames from the first to the last, evenly placed, or one around the
    middle; fewer where they would begin at the same frame."""
    n = n_even_windows(len(frames), size, n)
    if n == 1:
        return [center_crop(frames, size)]
    begins = [i * (len(frames) - size) // (n - 1) for i in range(n)]
    return [loop(frames[begin:begin + size], size) for begin in begins]


def n_even_windows(n_frames: int, size: int, n: int) -> int:
    """How many clips `even_windows` makes of `n_frames` frames."""
    return min(n, max(1, n_frames - size + 1))


def subsample(frames: Sequence[Item], stride: int) -> Sequence[Item]:
    """Every `stride`-th frame."""
    return frames[::stride]


def spaced(frames: Sequence[Item], size: int, stride: float) -> Clip[Item]:
    """`size` frames, every `stride`-th, rounded down: of stride 1.5 frames 0, 1, 3, 4, 6, ..."""
    return [frames[int(i * stride)] for i in range(size)]


def shuffle_blocks(frames: Sequence[Item], block_size: int) -> Clip[Item]:
    """The frames cut into blocks of `block_size`, the blocks in random order."""
    blocks = [frames[i:i + block_size] for i in range(0, len(frames), block_size)]
    return [frame for i in torch.randperm(len(blocks)).tolist() for frame in blocks[i]]


class TemporalTransform:
    """Makes a clip, or a list of clips of one length, of the frames of a video."""

    def __call__(self, frames: Frames) -> Frames | list[list[int]]:
        raise NotImplementedError

    def n_clips(self, n_frames: int) -> int:
        """How many clips it makes of `n_frames` frames: one, unless a subclass makes more."""
        return 1

    def clip_length(self, n_frames: int) -> int:
        """How many frames each of these clips has."""
        return n_frames


def as_clips(made: Frames | list[list[int]]) -> list[list[int]]:
    """What a transform made, as a list of clips: of a single clip a list of one."""
    if isinstance(made[0], list):
        return cast(list[list[int]], made)
    return [list(cast(Frames, made))]


class SizedTransform(TemporalTransform):
    """Makes clips of `size` frames."""

    def __init__(self, size: int) -> None:
        self.size = size

    def clip_length(self, n_frames: int) -> int:
        return self.size


class LoopPadding(SizedTransform):
    """frames -> `size` frames: longer ones are cut, shorter ones start over."""

    def __call__(self, frames: Frames) -> list[int]:
        return loop(frames, self.size)


class TemporalBeginCrop(LoopPadding):
    """frames -> the first `size` frames, looped where there are fewer."""


class TemporalCenterCrop(LoopPadding):
    """frames -> `size` frames around the middle, looped where there are fewer."""

    def __call__(self, frames: Frames) -> list[int]:
        return center_crop(frames, self.size)


class TemporalRandomCrop(LoopPadding):
    """frames -> `size` consecutive frames from a random start, looped where there are fewer."""

    def __call__(self, frames: Frames) -> list[int]:
        return random_crop(frames, self.size)


class SpeedJitter(LoopPadding):
    """frames -> a clip of `size` frames, every x-th of what `crop` takes, x drawn evenly from
    `low`...`high`; below 1 frames repeat.

    crop: makes a crop of a size
    """

    def __init__(self, crop: Callable[[int], TemporalTransform], size: int, low: float, high: float
                 ) -> None:
        super().__init__(size)
        self.crop, self.low, self.high = crop, low, high

    def __call__(self, frames: Frames) -> list[int]:
        stride = self.low + (self.high - self.low) * float(torch.rand(()))
        span = int((self.size - 1) * stride) + 1
        return spaced(cast(Frames, self.crop(span)(frames)), self.size, stride)


class TemporalEvenCrop(SizedTransform):
    """frames -> a list of up to `n_samples` clips of `size` frames, evenly placed."""

    def __init__(self, size: int, n_samples: int = 1) -> None:
        super().__init__(size)
        self.n_samples = n_samples

    def __call__(self, frames: Frames) -> list[list[int]]:
        return even_crop(frames, self.size, self.n_samples)

    def n_clips(self, n_frames: int) -> int:
        return n_even_crops(n_frames, self.size, self.n_samples)


class SlidingWindow(SizedTransform):
    """frames -> a list of clips of `size` frames, one every `stride` frames (default: size)."""

    def __init__(self, size: int, stride: int = 0) -> None:
        super().__init__(size)
        self.stride = stride or size

    def __call__(self, frames: Frames) -> list[list[int]]:
        return sliding_window(frames, self.size, self.stride)

    def n_clips(self, n_frames: int) -> int:
        return n_windows(n_frames, self.size, self.stride)


class EvenWindows(SizedTransform):
    """frames -> a list of up to `n` clips of `size` frames, evenly placed from end to end."""

    def __init__(self, size: int, n: int) -> None:
        super().__init__(size)
        self.n = n

    def __call__(self, frames: Frames) -> list[list[int]]:
        return even_windows(frames, self.size, self.n)

    def n_clips(self, n_frames: int) -> int:
        return n_even_windows(n_frames, self.size, self.n)


class TemporalSubsampling(TemporalTransform):
    """frames -> every `stride`-th frame."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def __call__(self, frames: Frames) -> Frames:
        return subsample(frames, self.stride)

    def clip_length(self, n_frames: int) -> int:
        return len(range(0, n_frames, self.stride))


class Shuffle(TemporalTransform):
    """frames -> the same frames, blocks of `block_size` in random order."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def __call__(self, frames: Frames) -> list[int]:
        return shuffle_blocks(frames, self.block_size)


class Compose(TemporalTransform):
    """One transform after the other.

    After one that makes several clips, the next are applied to each of them.
    """

    def __init__(self, transforms: Iterable[TemporalTransform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, frames: Frames) -> Frames | list[list[int]]:
        made: Frames | list[list[int]] = frames
        for transform in self.transforms:
            if len(made) and isinstance(made[0], list):
                made = [clip for part in as_clips(made) for clip in as_clips(transform(part))]
            else:
                made = transform(cast(Frames, made))
        return made

    def n_clips(self, n_frames: int) -> int:
        n_clips = 1
        for transform in self.transforms:
            n_clips *= transform.n_clips(n_frames)
            n_frames = transform.clip_length(n_frames)
        return n_clips

    def clip_length(self, n_frames: int) -> int:
        for transform in self.transforms:
            n_frames = transform.clip_length(n_frames)
        return n_frames
