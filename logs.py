"""What a run tells people: its result folder, tables, TensorBoard, and a progress bar."""

import json
import os
import sys
import time
from pathlib import Path

from torchvision.utils import make_grid
from tqdm import tqdm

from errors import InputError

FLUSH_SEC = 1.0


class Progress:
    """A tqdm bar where stderr is a terminal, else a plain line every `quiet_sec` seconds.

        with Progress(len(videos), 'extract', unit='video') as progress:
            progress.update(1)

    `describe` (optional) is a function that returns a dict of figures to show, e.g. a running loss;
    it is called only when the line is drawn, so that reading them costs nothing in between.
    """

    def __init__(self, total, title, *, unit, describe=None, quiet_sec=10.0, draw_sec=0.5):
        self._describe = describe or dict
        self._title, self._total, self._unit = title, total, unit
        self._done = 0
        self._begin = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._wait_sec = draw_sec if self._terminal else quiet_sec
        self._bar = tqdm(total=total, desc=title, unit=unit, leave=False, dynamic_ncols=True,
                         mininterval=draw_sec, disable=not self._terminal)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def update(self, n):
        """Count `n` more units as done."""
        self._done += n
        self._bar.update(n)
        now = time.monotonic()
        if now - self._last < self._wait_sec:
            return
        self._last = now
        figures = {name: f'{value:.4g}' for name, value in self._describe().items()}
        if self._terminal:
            self._bar.set_postfix(figures)
        else:
            self._print_line(figures)

    def rate(self):
        """Units a second so far."""
        return self._done / max(time.monotonic() - self._begin, 1e-9)

    def _print_line(self, figures):
        shown = ''.join(f', {name} {value}' for name, value in figures.items())
        print(f'{self._title}: {self._done}/{self._total} {self._unit}s, '
              f'{self.rate():.1f} {self._unit}s/s{shown}', file=sys.stderr, flush=True)


class TableLog:
    """A tab-separated file with a header; the first column is the epoch.

    keep_epoch: go on with the file that is there, up to and including this epoch; later rows are
    cut, after a copy of the whole file was put beside it. Its header stays as it is.
    """

    def __init__(self, path, columns, keep_epoch=0):
        self._path, self._rows = Path(path), []
        self._columns, kept = list(columns), []
        if keep_epoch and self._path.exists():
            self._columns, kept = self._cut(keep_epoch)
        write_text(self._path, '\t'.join(self._columns) + '\n' + ''.join(kept))
        self._file = open(self._path, 'a')
        self._last = time.monotonic()

    def write(self, **row):
        """Add a row; values may be tensors, which are read when the file is next flushed."""
        self._rows.append(row)
        if time.monotonic() - self._last > FLUSH_SEC:
            self.flush()

    def flush(self):
        for row in self._rows:
            values = (_as_text(row[column]) for column in self._columns)
            self._file.write('\t'.join(values) + '\n')
        self._rows = []
        self._file.flush()
        self._last = time.monotonic()

    def close(self):
        self.flush()
        self._file.close()

    def _cut(self, keep_epoch):
        header, *rows = self._path.read_text().splitlines(keepends=True) or ['epoch\n']
        kept = [row for row in rows if row.endswith('\n') and _epoch(row) <= keep_epoch]
        if len(kept) < len(rows):
            keep_copy(self._path)
        return header.rstrip('\n').split('\t'), kept


def _epoch(row):
    try:
        return int(row.split('\t')[0])
    except ValueError:
        return sys.maxsize


def _as_text(value):
    if isinstance(value, (int, str)):
        return str(value)
    return f'{float(value):.8g}'


# ---------------------------------------------------------------- the result folder

RUN_FILES = ('save_*.pth', '*.log', '*.json', 'events.out.tfevents.*')


def open_result_folder(folder, is_new_training):
    """Make the folder and see that it can be written. Raises InputError.

    What an earlier training left there goes to a folder earlier_N in it when a new one begins.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f'.probe.{os.getpid()}'
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f'{folder}: results cannot be written there ({error.strerror}); give '
                         'another --result_path') from None
    if is_new_training and _holds_training(folder):
        _set_aside(folder)


def _holds_training(folder):
    if any(folder.glob('save_*.pth')):
        return True
    log = folder / 'train.log'
    return log.exists() and len(log.read_text(errors='replace').splitlines()) > 1


def _set_aside(folder):
    number = 1
    while (earlier := folder / f'earlier_{number}').exists():
        number += 1
    earlier.mkdir()
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            path.rename(earlier / path.name)
    print(f'{folder}: what an earlier training left there is now in {earlier.name}',
          file=sys.stderr)


def write_text(path, text):
    """Write a file at once: what had the name is replaced by the whole new text."""
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f'{path}: cannot be written ({error.strerror}); free space or mend the '
                         'permissions') from None


def write_json(path, value):
    """`write_text` of a value as JSON, one line."""
    write_text(path, json.dumps(value) + '\n')


def write_opts(folder, text):
    """Write opts.json; one that says something else is kept as opts.1.json, opts.2.json, ..."""
    path = Path(folder) / 'opts.json'
    if path.exists() and path.read_text() != text:
        keep_copy(path)
    write_text(path, text)


def keep_copy(path):
    """Copy train.log to train.1.log, or the next number that is free."""
    path, number = Path(path), 1
    while (copy := path.with_name(f'{path.stem}.{number}{path.suffix}')).exists():
        number += 1
    copy.write_bytes(path.read_bytes())


# ---------------------------------------------------------------- TensorBoard

class Board:
    """TensorBoard events in a folder; with folder None every call does nothing."""

    def __init__(self, folder):
        self._writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import
            self._writer = SummaryWriter(str(folder))

    def scalars(self, group, step, **values):
        """One curve a value, named group/value."""
        for name, value in values.items():
            if self._writer:
                self._writer.add_scalar(f'{group}/{name}', float(value), step)

    def clips(self, tag, clips, step):
        """A picture of some clips, uint8 (N, C, T, h, w), as the network sees them."""
        if self._writer:
            self._writer.add_image(tag, clip_sheet(clips), step)

    def close(self):
        if self._writer:
            self._writer.close()


def clip_sheet(clips, n_clips=4, n_frames=8):
    """uint8 (N, C, T, h, w) -> one picture, uint8 (3, H, W): a row a clip, frames over time.

    Of optical flow, channels are horizontal (red) and vertical (green).
    """
    clips = clips[:n_clips].cpu()
    duration = clips.shape[2]
    step = max(1, duration // n_frames)
    frames = clips[:, :, ::step][:, :, :n_frames]
    if frames.shape[1] == 2:
        frames = frames[:, [0, 1, 1]].clone()
        frames[:, 2] = 128
    rows = frames.transpose(1, 2)
    return make_grid(rows.reshape(-1, *rows.shape[2:]), nrow=rows.shape[1], padding=1)
