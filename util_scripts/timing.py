"""What measurements of speed share: clocks, rows of a table, frames to measure on."""

import time
from typing import NamedTuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 240, 320


class Row(NamedTuple):
    """A line of the table: seconds for one `unit`, as they pass and those that the main process
    (for extraction, its child processes) spends on all cores."""

    part: str
    what: str
    sec: float
    cpu_sec: float
    unit: str
    note: str = ''


def now():
    """Seconds since whenever: as they pass, and those that this process spent on any core.

    The second are right on a machine that others use too.
    """
    return np.array([time.perf_counter(), time.process_time()])


def now_of_children():
    """As `now`, but of the processes that this one started and that have ended."""
    import resource  # here, because Windows has none
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([time.perf_counter(), usage.ru_utime + usage.ru_stime])


def times_ours(plain, ours):
    """How much slower the plain version is, of times as `now` has them."""
    passed, cpu = np.asarray(plain) / np.asarray(ours)
    return f'{passed:.2f} x ours, {cpu:.2f} x in CPU time'


def moving_frames(n_frames, rng):
    """A picture of coarse and fine structure that moves: uint8 (HEIGHT, WIDTH, 3), one a frame."""
    coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
    size = WIDTH + 2 * n_frames, HEIGHT + n_frames
    picture = np.asarray(Image.fromarray(coarse).resize(size, Image.BICUBIC), np.int16)
    picture = (picture + rng.normal(0, 3, (*picture.shape[:2], 1))).clip(0, 255).astype(np.uint8)
    for i in range(n_frames):
        yield picture[i:i + HEIGHT, 2 * i:2 * i + WIDTH]


def table(rows):
    """The rows as text."""
    lines = [('part', 'what', 'ms', 'CPU ms', '1/s', 'of')]
    lines += [(row.part, row.what, f'{1e3 * row.sec:.2f}', f'{1e3 * row.cpu_sec:.2f}',
               f'{1 / row.sec:.2f}', f'a {row.unit}' + (f'; {row.note}' if row.note else ''))
              for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join('  '.join([part.ljust(widths[0]), what.ljust(widths[1]),
                                *map(str.rjust, numbers, widths[2:]), of])
                     for part, what, *numbers, of in lines)
