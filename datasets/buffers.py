"""How loader processes hand over batches: in shared memory that is used again and again.

    loader process: Lender ─ Loan ─ pickled ─ main process: Received, take ─ Batch

New shared memory takes longer than what is written into it, since the system clears each page and
maps it in both processes. So a buffer is lent with a batch, and free again when that is copied.
"""

import math

import numpy as np
import torch

from datasets.videodataset import Batch, collate

# A buffer's first byte says whether it is lent; clips begin where they are aligned.
FREE, LENT = 0, 1
OFFSET = 64


class Lender:
    """A `collate` for loader processes, which makes a Loan of each batch that has clips."""

    def __init__(self):
        self._buffers = []

    def __call__(self, samples):
        batch = collate(samples, self._lend)
        return Loan(batch) if isinstance(batch, Batch) and len(batch.labels) else batch

    def _lend(self, shape):
        """A uint8 tensor in a buffer that is large enough."""
        end = OFFSET + math.prod(shape)
        free = [buffer for buffer in self._buffers if buffer[0] == FREE]
        fitting = [buffer for buffer in free if len(buffer) >= end]
        if fitting:
            buffer = min(fitting, key=len)
        else:  # and those that are too small will not be used again
            self._buffers = [buffer for buffer in self._buffers if buffer[0] == LENT]
            buffer = torch.zeros(end, dtype=torch.uint8).share_memory_()
            self._buffers.append(buffer)
        buffer[0] = LENT
        return buffer[OFFSET:end].view(shape)


class Loan:
    """A batch whose clips lie in a buffer. It is pickled as what makes a `Received` of it."""

    def __init__(self, batch):
        self._batch = batch

    def __reduce__(self):
        # Of tensors each would lie in shared memory of its own, which takes longer than a copy.
        columns = {name: column.numpy() for name, column in self._batch._asdict().items()
                   if name not in ('clips', 'bad')}
        return Received, (self._batch._replace(**columns),)


class Received:
    """A batch from another process, whose buffer goes back when `take` or `pin_memory` has copied
    the clips, or when it is dropped.

    buffer: the whole buffer. Whoever holds on to it saves mapping it for the next batch.
    """

    _is_lent = False

    def __init__(self, batch):
        self._batch = Batch(*(torch.from_numpy(column) if isinstance(column, np.ndarray) else column
                              for column in batch))
        self.buffer = torch.empty(0, dtype=torch.uint8).set_(batch.clips.untyped_storage())
        self._is_lent = True

    def __del__(self):
        self._give_back()

    def _give_back(self):
        if self._is_lent:
            self.buffer[0] = FREE
        self._is_lent = False

    def pin_memory(self):
        """Copy the tensors to where a GPU reads them fast; returns self, as DataLoader wants it."""
        self._batch = Batch(*(column.pin_memory() if isinstance(column, torch.Tensor) else column
                              for column in self._batch))
        self._give_back()
        return self

    def take(self):
        """The Batch, in memory of its own."""
        if self._is_lent:
            # Not torch's copy: its threads would go on to spin where loader processes compute.
            clips = torch.from_numpy(self._batch.clips.numpy().copy('K'))
            self._batch = self._batch._replace(clips=clips)
            self._give_back()
        return self._batch
