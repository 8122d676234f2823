"""Batch samplers, and the random draw of each sample: functions of seed, epoch and index.

A batch sampler here yields lists of `Key`; a key carries the epoch, so that loader workers need
no state. The same keys come in the same order for any number of workers, and what several
processes read together is what one process would.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

# Inference cuts its videos into parts of so many batches; a process reads whole parts, so that its
# batches are those of a single process.
BATCHES_A_PART = 8
# Batch norm estimates its statistics badly from fewer clips: a last training batch that has fewer
# joins the one before.
SMALLEST_BATCH = 8
# The index of a key that stands for no video: its clips, `begin_clip`...`end_clip`, are blank and
# keep the places of clips that need not be read. A network rounds batches of other sizes otherwise.
NO_VIDEO = -1


class Key(NamedTuple):
    """One sample: the clips `begin_clip`...`end_clip` (None: all) of video `index`, in `epoch`.

    draw: counts the samples of a video in an epoch, which are drawn differently
    """

    index: int  # type: ignore[assignment]  # tuples have a method of that name
    epoch: int = 0
    begin_clip: int = 0
    end_clip: int | None = None
    draw: int = 0


def sample_draw(seed: int, epoch: int, index: int, draw: int = 0
                ) -> contextlib.AbstractContextManager[None]:
    """Within it, torch's CPU generator draws what belongs to that sample; restored afterwards."""
    return _drawing(seed, epoch, index, *([draw] if draw else []))


def _mixed(*numbers: int) -> int:
    """A seed made of several numbers, 64 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@contextlib.contextmanager
def _drawing(*numbers: int) -> Iterator[None]:
    """Within it, torch's CPU generator draws what belongs to these numbers."""
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(_mixed(*numbers))
        yield
    finally:
        torch.set_rng_state(state)


class ShuffledBatches:
    """Batches of all samples in random order, a new order each epoch, from any batch on.

    A batch has `batch_size` samples. What is left at the end of an epoch is a smaller batch or, of
    fewer than SMALLEST_BATCH samples, joins the batch before.

    n_draws: samples of each video in a batch, one after the other the whole batch through, so that
             neighbours are of different videos (Hoffer et al., "Augment Your Batch", CVPR 2020); it
             divides `batch_size`, and an epoch has n_videos * n_draws samples

    Of each batch process `rank` of `world_size` takes every world_size-th sample. One for which
    none is left takes the first, so that all processes step together; `total(i)` tells that batch i
    has fewer samples than processes.
    """

    is_balanced = False

    def __init__(self, n_videos: int, batch_size: int, seed: int, rank: int = 0,
                 world_size: int = 1, n_draws: int = 1) -> None:
        if batch_size % n_draws:
            raise ValueError(f'batches of {batch_size} samples, {n_draws} of each video')
        self.n_videos, self.batch_size, self.seed = n_videos, batch_size, seed
        self.rank, self.world_size, self.n_draws = rank, world_size, n_draws
        self.n_samples = n_videos * n_draws
        self.epoch = self.begin_batch = 0

    def set_position(self, epoch: int, begin_batch: int = 0) -> None:
        """Where the next pass begins."""
        self.epoch, self.begin_batch = epoch, begin_batch

    def __len__(self) -> int:
        """Number of batches of a whole epoch."""
        n_full, rest = divmod(self.n_samples, self.batch_size)
        return max(1, n_full + (rest >= SMALLEST_BATCH))

    def __iter__(self) -> Iterator[list[Key]]:
        for i in range(self.begin_batch, len(self)):
            batch = self.batch(self.epoch, i)
            yield batch[self.rank::self.world_size] or batch[:1]

    def batch(self, epoch: int, i: int) -> list[Key]:
        """Samples of batch i of an epoch, over all processes."""
        begin, n = i * self.batch_size // self.n_draws, self.total(i) // self.n_draws
        videos, earlier = (column[begin:begin + n].tolist() for column in self._order(epoch))
        return [Key(video, epoch, draw=n_before * self.n_draws + draw)
                for draw in range(self.n_draws) for video, n_before in zip(videos, earlier)]

    def draw_seed(self, i: int) -> int:
        """The seed of what this process draws for batch i as a whole, as dropout does."""
        return _mixed(self.seed, self.epoch, i, self.rank)

    def total(self, i: int) -> int:
        """Number of samples in batch i, over all processes."""
        is_last = i == len(self) - 1
        return self.n_samples - i * self.batch_size if is_last else self.batch_size

    def smallest_share(self) -> int:
        """Samples that a process has of a batch, where it has fewest."""
        return max(1, min(self.total(0), self.total(len(self) - 1)) // self.world_size)

    def batch_draw(self, i: int) -> contextlib.AbstractContextManager[None]:
        """Within it, torch's CPU generator draws what belongs to batch i of this epoch, the same in
        all processes."""
        # Of five numbers, which no sample has.
        return _drawing(self.seed, self.epoch, i, 0, 1)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(videos of an epoch in order, how often each of them came before in the epoch)."""
        if getattr(self, '_ordered_epoch', None) != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            order = self._drawn_order(rng)
            self._ordered_epoch, self._ordered = epoch, (order, _n_earlier(order))
        return self._ordered

    def _drawn_order(self, rng: np.random.Generator) -> np.ndarray:
        """(n_videos,) numbers of videos."""
        return rng.permutation(self.n_videos)


class BalancedBatches(ShuffledBatches):
    """As `ShuffledBatches`, with all classes alike often: videos of rare classes come several
    times in an epoch, and of others a random part comes.

    groups: the videos of each class; one that has none does not count

    An epoch has as many videos as there are: each class gets an equal share of them, or one more.
    No video of a class comes again before all others of it came.
    """

    is_balanced = True

    def __init__(self, groups: Sequence[Sequence[int] | torch.Tensor], n_videos: int, *args: Any,
                 **kwargs: Any) -> None:
        super().__init__(n_videos, *args, **kwargs)
        self.groups = [np.asarray(group) for group in groups if len(group)]

    def _drawn_order(self, rng: np.random.Generator) -> np.ndarray:
        share, n_larger = divmod(self.n_videos, len(self.groups))
        shares = share + (rng.permutation(len(self.groups)) < n_larger)
        drawn = [_cycled(group, n, rng) for group, n in zip(self.groups, shares.tolist())]
        return rng.permutation(np.concatenate(drawn))


def _cycled(values: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` of the values: all of them in random order, as often as needed, each time anew."""
    n_rounds = -(-n // len(values))
    rounds = [rng.permutation(values) for _ in range(n_rounds)]
    return np.concatenate([values[:0], *rounds])[:n]


def _n_earlier(values: np.ndarray) -> np.ndarray:
    """For each value, how many equal ones come before it: [5, 3, 5, 5] -> [0, 0, 1, 2]."""
    places = np.argsort(values, kind='stable')
    ordered = values[places]
    begins = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    counts = np.empty(len(values), dtype=np.int64)
    counts[places] = np.arange(len(values)) - np.repeat(
        begins, np.diff(begins, append=len(values)))
    return counts


class VideoBatches:
    """Batches of `batch_size` whole videos, in order; each process takes every world_size-th
    batch, so shares may differ or be empty and none is padded."""

    def __init__(self, n_samples: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.n_samples, self.batch_size = n_samples, batch_size
        self.begins = range(rank * batch_size, n_samples, world_size * batch_size)

    def n_own_videos(self) -> int:
        """Videos that this process reads."""
        return sum(min(self.batch_size, self.n_samples - begin) for begin in self.begins)

    def __len__(self) -> int:
        return len(self.begins)

    def __iter__(self) -> Iterator[list[Key]]:
        for begin in self.begins:
            end = min(begin + self.batch_size, self.n_samples)
            yield [Key(index) for index in range(begin, end)]


class ClipBatches:
    """Batches of `batch_size` clips, in order of videos: long videos are cut, short ones share.

    `n_clips`: clips of each video. With `one_video` no batch holds clips of two videos. Each
    process takes every world_size-th part, of about BATCHES_A_PART batches and whole videos.
    `n_crops`: of each clip, which are clips of a batch too.

    A video that is cut is read in parts, and frames that clips of two batches share in both.
    """

    def __init__(self, n_clips: Sequence[int] | torch.Tensor, batch_size: int,
                 one_video: bool = False, rank: int = 0, world_size: int = 1,
                 n_crops: int = 1) -> None:
        self.n_clips = np.asarray(n_clips, dtype=np.int64)
        batch_size = max(1, batch_size // n_crops)
        self.batch_size, self.one_video, self.n_crops = batch_size, one_video, n_crops
        before = np.cumsum(self.n_clips) - self.n_clips
        self.parts = before // (batch_size * BATCHES_A_PART)
        self.videos = np.flatnonzero(self.parts % world_size == rank)
        self.is_left_out = np.zeros(len(self.n_clips), dtype=bool)

    def leave_out(self, videos: Sequence[int]) -> None:
        """Do not read these videos. The others stay where they are in their batches."""
        self.is_left_out[videos] = True

    def n_windows(self, video: int) -> int:
        """Clips of a video, each crop counted."""
        return int(self.n_clips[video]) * self.n_crops

    def n_own_clips(self) -> int:
        """Clips that this process reads, each crop counted."""
        read = self.videos[~self.is_left_out[self.videos]]
        return int(self.n_clips[read].sum()) * self.n_crops

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self._all_batches():
            if not all(self.is_left_out[key.index] for key in batch):
                yield [self._blank(key) if self.is_left_out[key.index] else key for key in batch]

    def _blank(self, key: Key) -> Key:
        assert key.end_clip is not None
        return Key(NO_VIDEO, end_clip=(key.end_clip - key.begin_clip) * self.n_crops)

    def _all_batches(self) -> Iterator[list[Key]]:
        batch: list[Key] = []
        room, part = self.batch_size, None
        for index in self.videos.tolist():
            if batch and (self.one_video or self.parts[index] != part):
                yield batch
                batch, room = [], self.batch_size
            part = self.parts[index]
            done, total = 0, int(self.n_clips[index])
            while done < total:
                end = min(total, done + room)
                batch.append(Key(index, 0, done, end))
                room -= end - done
                done = end
                if room == 0:
                    yield batch
                    batch, room = [], self.batch_size
        if batch:
            yield batch
