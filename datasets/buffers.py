"""How loader processes hand over batches: in shared memory that is used again and again.

    loader process: Lender ─ Loan ─ pickled ─ main process: Received, take ─ batch

New shared memory takes longer than what is written into it, since the system clears each page and
maps it in both processes. So a buffer is lent with a batch, and free again when that is copied.
"""

import ctypes
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch

from runtime.errors import InputError

# A buffer's first byte says whether it is lent; what is handed over begins where it is aligned.
FREE, LENT = 0, 1
OFFSET = 64
# Where Linux has the files of shared memory.
FOLDER = '/dev/shm'
MADV_REMOVE = 9  # of Linux


class Lender:
    """A collate function for loader processes: a Loan of what another one makes.

    collate: (samples, shape -> uint8 tensor) -> a named tuple whose first field was made of such a
             tensor, or anything else, which is passed on

    Where there is too little shared memory it returns the InputError.
    """

    def __init__(self, collate):
        self._collate, self._buffers, self._is_used = collate, [], False

    def __call__(self, samples):
        self._is_used = False
        try:
            batch = self._collate(samples, self._lend)
        except InputError as error:
            return error
        return Loan(batch) if self._is_used else batch

    def _lend(self, shape):
        """A uint8 tensor in a buffer that is large enough."""
        end = OFFSET + math.prod(shape)
        free = [buffer for buffer in self._buffers if buffer[0] == FREE]
        fitting = [buffer for buffer in free if len(buffer) >= end]
        if fitting:
            buffer = min(fitting, key=len)
        else:  # and those that are too small will not be used again
            self._buffers = [buffer for buffer in self._buffers if buffer[0] == LENT]
            buffer = _new_buffer(end)
            self._buffers.append(buffer)
        buffer[0] = LENT
        self._is_used = True
        return buffer[OFFSET:end].view(shape)


def _new_buffer(size):
    """Shared memory, uint8 (size,). Raises InputError where there is too little."""
    try:
        return torch.zeros(size, dtype=torch.uint8).share_memory_()
    except RuntimeError as error:
        file = re.search('torch_[0-9_]+', str(error))
        if not file:
            raise
        # torch leaves it, though it had no room for it.
        Path(FOLDER, file[0]).unlink(missing_ok=True)
        raise InputError(f'{FOLDER}: the shared memory is full; a batch takes {size / 1e6:.0f} MB '
                         'of it, and each loader process hands over up to three at once: give it '
                         'more (docker run --shm-size 8g), or a smaller --batch_size or '
                         '--n_threads') from None


class Loan:
    """A batch whose first field lies in a buffer. It is pickled as what makes a `Received`."""

    def __init__(self, batch):
        self._batch = batch

    def __reduce__(self):
        # Of tensors each would lie in shared memory of its own, which takes longer than a copy.
        lent, *others = self._batch
        others = [other.numpy() if isinstance(other, torch.Tensor) else other for other in others]
        return Received, (type(self._batch)(lent, *others),)


class Received:
    """A batch from another process, whose buffer goes back when `take` or `pin_memory` has copied
    what is in it, or when the batch is dropped.

    buffer: the whole buffer. Whoever holds on to it saves mapping it for the next batch.
    """

    _is_lent = False

    def __init__(self, batch):
        self._batch = _map(torch.from_numpy, batch, np.ndarray)
        self.buffer = torch.empty(0, dtype=torch.uint8).set_(batch[0].untyped_storage())
        self._is_lent = True

    def __del__(self):
        self._give_back()

    def _give_back(self):
        if self._is_lent:
            self.buffer[0] = FREE
        self._is_lent = False

    def pin_memory(self):
        """Copy the tensors to where a GPU reads them fast; returns self, as DataLoader wants it."""
        self._batch = _map(torch.Tensor.pin_memory, self._batch, torch.Tensor)
        self._give_back()
        return self

    def take(self):
        """The batch, in memory of its own."""
        if self._is_lent:
            lent, *others = self._batch
            # Not torch's copy: its threads would go on to spin where loader processes compute.
            lent = torch.from_numpy(lent.numpy().copy('K'))
            self._batch = type(self._batch)(lent, *others)
            self._give_back()
        return self._batch


def empty(buffer):
    """Give the memory of a free buffer back to the system; it stays a buffer, of zeros.

    Training need not hold that of validation too. Other systems than Linux keep it.
    """
    if sys.platform == 'linux':
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(buffer.data_ptr()), ctypes.c_size_t(len(buffer)), MADV_REMOVE)


def _map(function, batch, kind):
    """A named tuple with a function applied to those of its fields that are of a kind."""
    return type(batch)(*(function(field) if isinstance(field, kind) else field for field in batch))
