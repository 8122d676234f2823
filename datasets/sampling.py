"""Which samples make which batch, and the random draw of each: functions of seed, epoch, index.

A batch sampler here yields lists of `Key`; a key carries the epoch, so that loader workers need
no state. The same keys come in the same order for any number of workers.
"""

import contextlib
from typing import NamedTuple

import numpy as np
import torch


class Key(NamedTuple):
    """One sample: the clips `begin_clip`...`end_clip` (None: all) of video `index`, in `epoch`."""

    index: int
    epoch: int = 0
    begin_clip: int = 0
    end_clip: int | None = None


@contextlib.contextmanager
def sample_draw(seed, epoch, index):
    """Within it, torch's CPU generator draws what belongs to that sample; restored afterwards."""
    state = torch.get_rng_state()
    mixed = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)
    torch.default_generator.manual_seed(int(mixed[0]))
    try:
        yield
    finally:
        torch.set_rng_state(state)


class ShuffledBatches:
    """Batches of all samples in random order, a new order each epoch (`set_epoch`).

    Of each batch of `batch_size` samples, process `rank` of `world_size` takes every
    world_size-th, so the union over processes is the batch of one process.
    """

    def __init__(self, n_samples, batch_size, seed, rank=0, world_size=1):
        self.n_samples, self.batch_size, self.seed = n_samples, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return -(-self.n_samples // self.batch_size)

    def __iter__(self):
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n_samples)
        for begin in range(0, self.n_samples, self.batch_size):
            batch = order[begin:begin + self.batch_size]
            yield [Key(int(index), self.epoch) for index in batch[self.rank::self.world_size]]


class VideoBatches:
    """Batches of `batch_size` whole videos, in order; each process takes every world_size-th
    video, so shares may differ by one and none is padded."""

    def __init__(self, n_samples, batch_size, rank=0, world_size=1):
        self.indices = range(rank, n_samples, world_size)
        self.batch_size = batch_size

    def __len__(self):
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self):
        for begin in range(0, len(self.indices), self.batch_size):
            yield [Key(index) for index in self.indices[begin:begin + self.batch_size]]


class ClipBatches:
    """Batches of `batch_size` clips, in order of videos: long videos are cut, short ones share.

    `n_clips`: clips of each video. With `one_video` no batch holds clips of two videos.
    """

    def __init__(self, n_clips, batch_size, one_video=False, rank=0, world_size=1):
        self.n_clips, self.batch_size, self.one_video = n_clips, batch_size, one_video
        self.rank, self.world_size = rank, world_size

    def __len__(self):
        counts = np.asarray(self.n_clips[self.rank::self.world_size], dtype=np.int64)
        if self.one_video:
            return int((-(-counts // self.batch_size)).sum())
        return int(-(-counts.sum() // self.batch_size))

    def __iter__(self):
        batch, room = [], self.batch_size
        for index in range(self.rank, len(self.n_clips), self.world_size):
            done, total = 0, int(self.n_clips[index])
            while done < total:
                end = min(total, done + room)
                batch.append(Key(index, 0, done, end))
                room -= end - done
                done = end
                if room == 0:
                    yield batch
                    batch, room = [], self.batch_size
            if self.one_video and batch:
                yield batch
                batch, room = [], self.batch_size
        if batch:
            yield batch
