"""Which frames of a video make a clip: functions of frame numbers, and thin classes around them.

A video is a sequence of frame numbers, in order (a `range` will do). A clip is a list of frame
numbers, or a list of such lists where a transform makes several clips of a video. Nothing here
changes what it is given. Draws come from torch's random generator, like torchvision's.
"""

import math

import torch


def loop(frames, size):
    """The first `size` frames, starting over as often as needed: [1, 2, 3] -> [1, 2, 3, 1, 2]."""
    return [frames[i % len(frames)] for i in range(size)]


def begin_crop(frames, size):
    """A clip of `size` frames from the first on."""
    return loop(frames, size)


def center_crop(frames, size):
    """A clip of `size` frames around the middle."""
    begin = max(0, len(frames) // 2 - size // 2)
    return loop(frames[begin:begin + size], size)


def random_crop(frames, size):
    """A clip of `size` consecutive frames, all starts equally likely."""
    n_starts = max(1, len(frames) - size + 1)
    begin = int(torch.randint(n_starts, ()))
    return loop(frames[begin:begin + size], size)


def even_crop(frames, size, n_samples):
    """Up to `n_samples` clips of `size` frames, evenly placed; one, centred, for n_samples = 1.

    The last is looped where the frames end before it does, and no other follows it.
    """
    if n_samples == 1:
        return [center_crop(frames, size)]
    stride = max(1, math.ceil((len(frames) - 1 - size) / (n_samples - 1)))
    return sliding_window(frames, size, stride)[:n_samples]


def sliding_window(frames, size, stride):
    """Clips of `size` frames, one every `stride` frames; the first that is cut short is looped and
    is the last."""
    clips = []
    for begin in range(0, len(frames), stride):
        clips.append(loop(frames[begin:begin + size], size))
        if begin + size > len(frames):
            break
    return clips


def even_windows(frames, size, n):
    """`n` clips of `size` frames from the first to the last, evenly placed, or one around the
    middle; fewer where they would begin at the same frame."""
    n = n_even_windows(len(frames), size, n)
    if n == 1:
        return [center_crop(frames, size)]
    begins = [i * (len(frames) - size) // (n - 1) for i in range(n)]
    return [loop(frames[begin:begin + size], size) for begin in begins]


def n_even_windows(n_frames, size, n):
    """How many clips `even_windows` makes of `n_frames` frames."""
    return min(n, max(1, n_frames - size + 1))


def stream_windows(frames, size, stride):
    """Yield the clips of `sliding_window`, of frames that come one by one; holds `size` of them."""
    held, n_between = [], 0
    for frame in frames:
        if n_between:
            n_between -= 1
            continue
        held.append(frame)
        if len(held) == size:
            yield held
            held, n_between = held[stride:], max(0, stride - size)
    if held:
        yield loop(held, size)


def n_windows(n_frames, size, stride):
    """How many clips `sliding_window` makes of `n_frames` frames."""
    n_full = max(0, (n_frames - size) // stride + 1)
    return n_full + (n_full * stride < n_frames)


def subsample(frames, stride):
    """Every `stride`-th frame."""
    return frames[::stride]


def shuffle_blocks(frames, block_size):
    """The frames cut into blocks of `block_size`, the blocks in random order."""
    blocks = [frames[i:i + block_size] for i in range(0, len(frames), block_size)]
    return [frame for i in torch.randperm(len(blocks)).tolist() for frame in blocks[i]]


class LoopPadding:
    """frames -> `size` frames: longer ones are cut, shorter ones start over."""

    def __init__(self, size):
        self.size = size

    def __call__(self, frames):
        return loop(frames, self.size)


class TemporalBeginCrop(LoopPadding):
    """frames -> the first `size` frames, looped where there are fewer."""


class TemporalCenterCrop(LoopPadding):
    """frames -> `size` frames around the middle, looped where there are fewer."""

    def __call__(self, frames):
        return center_crop(frames, self.size)


class TemporalRandomCrop(LoopPadding):
    """frames -> `size` consecutive frames from a random start, looped where there are fewer."""

    def __call__(self, frames):
        return random_crop(frames, self.size)


class TemporalEvenCrop:
    """frames -> a list of up to `n_samples` clips of `size` frames, evenly placed."""

    def __init__(self, size, n_samples=1):
        self.size, self.n_samples = size, n_samples

    def __call__(self, frames):
        return even_crop(frames, self.size, self.n_samples)


class SlidingWindow:
    """frames -> a list of clips of `size` frames, one every `stride` frames (default: size)."""

    def __init__(self, size, stride=0):
        self.size, self.stride = size, stride or size

    def __call__(self, frames):
        return sliding_window(frames, self.size, self.stride)


class EvenWindows:
    """frames -> a list of up to `n` clips of `size` frames, evenly placed from end to end."""

    def __init__(self, size, n):
        self.size, self.n = size, n

    def __call__(self, frames):
        return even_windows(frames, self.size, self.n)


class TemporalSubsampling:
    """frames -> every `stride`-th frame."""

    def __init__(self, stride):
        self.stride = stride

    def __call__(self, frames):
        return subsample(frames, self.stride)


class Shuffle:
    """frames -> the same frames, blocks of `block_size` in random order."""

    def __init__(self, block_size):
        self.block_size = block_size

    def __call__(self, frames):
        return shuffle_blocks(frames, self.block_size)


class Compose:
    """One transform after the other.

    After one that makes several clips, the next are applied to each of them.
    """

    def __init__(self, transforms):
        self.transforms = list(transforms)

    def __call__(self, frames):
        for transform in self.transforms:
            if len(frames) and isinstance(frames[0], (list, range)):
                frames = [clip for part in frames for clip in _as_clips(transform(part))]
            else:
                frames = transform(frames)
        return frames


def _as_clips(frames):
    return frames if isinstance(frames[0], list) else [frames]
