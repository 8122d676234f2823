"""Clocks, rows of a table and peak rates of GPUs, for measurements of speed."""

import re
import resource
import time
from typing import NamedTuple

import numpy as np

# TFLOP/s of GPUs by the data sheets, dense: in 16 bits, TF32, fp32. The first whose words are all
# in the device's name holds.
PEAK_RATES: dict[str, tuple[float | None, ...]] = {
    'H100 PCIe': (756, 378, 51), 'H100 NVL': (835, 417, 60), 'H100': (989, 494, 67),
    'H200': (989, 494, 67), 'A100': (312, 156, 19.5), 'A10': (125, 62.5, 31.2),
    'L40S': (362, 183, 91.6), 'L4': (121, 60, 30.3), 'V100': (125, None, 15.7),
    'T4': (65, None, 8.1), 'RTX 3090': (71, 35.6, 35.6), 'RTX 4090': (165, 82.6, 82.6)}


class Row(NamedTuple):
    """A line of the table: seconds for one `unit`, as they pass and those that the main process
    (for extraction, its child processes) spends on all cores."""

    part: str
    what: str
    sec: float
    cpu_sec: float
    unit: str
    note: str = ''


def timed_row(part: str, what: str, times: np.ndarray, unit: str, note: str = '') -> Row:
    """A Row of times as `now` has them."""
    sec, cpu_sec = map(float, times)
    return Row(part, what, sec, cpu_sec, unit, note)


def now() -> np.ndarray:
    """Seconds since whenever: as they pass, and those that this process spent on any core.

    The second are right on a machine that others use too.
    """
    return np.array([time.perf_counter(), time.process_time()])


def now_of_children() -> np.ndarray:
    """As `now`, but of the processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([time.perf_counter(), usage.ru_utime + usage.ru_stime])


def times_ours(plain: np.ndarray, ours: np.ndarray) -> str:
    """How much slower the plain version is, of times as `now` has them."""
    passed, cpu = np.asarray(plain) / np.asarray(ours)
    return f'{passed:.2f} x ours, {cpu:.2f} x in CPU time'


def peak_rate(device_name: str, precision: str, tf32: bool) -> float | None:
    """TFLOP/s that a GPU of this name can do at most with --precision and --tf32; None where that
    is not known."""
    words = set(re.split('[ -]', device_name))
    unknown: tuple[float | None, ...] = (None, None, None)
    rates = next((rates for name, rates in PEAK_RATES.items()
                  if words.issuperset(name.split())), unknown)
    return rates[0 if precision != 'fp32' else 1 if tf32 else 2]


LINE = '{:10}  {:28}  {:>9}  {:>9}  {:>9}  {}'
HEADING = LINE.format('part', 'what', 'ms', 'CPU ms', '1/s', 'of')


def line(row: Row) -> str:
    """A Row as text, as below HEADING."""
    return LINE.format(row.part, row.what, f'{1e3 * row.sec:.2f}', f'{1e3 * row.cpu_sec:.2f}',
                       f'{1 / row.sec:.2f}', f'a {row.unit}' + (row.note and f'; {row.note}'))
