"""Experiment logs: tables, TensorBoard and progress bars."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from runtime.files import keep_copy, write_text
from runtime.output import is_quiet, to_stderr, warn

if TYPE_CHECKING:
    import torch  # slow to import

FLUSH_SEC = 1.0
SHOWN_CLIPS = 4  # in the picture of clips
# tqdm's own, but the rate stays units a second where one takes longer than that.
BAR_FORMAT = ('{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, '
              '{rate_noinv_fmt}{postfix}]')
# Told of a file that cannot be written, and why.
OnError = Callable[[Path, BaseException], None]


# ---------------------------------------------------------------- progress bars

class Progress:
    """A tqdm bar where stderr is a terminal, else a plain line every `quiet_sec` seconds.

        with Progress(len(videos), 'extract', unit='video') as progress:
            progress.update(1)

    `describe` (optional) is a function that returns a dict of figures to show, e.g. a running loss;
    it is called only when the line is drawn, so that reading them costs nothing in between.
    """

    def __init__(self, total: int, title: str, *, unit: str,
                 describe: Callable[[], Mapping[str, Any]] | None = None, is_shown: bool = True,
                 quiet_sec: float = 10.0, draw_sec: float = 0.5) -> None:
        self._is_shown = is_shown = is_shown and not is_quiet()
        self._describe: Callable[[], Mapping[str, Any]] = describe or dict
        self._title, self._total, self._unit = title, total, unit
        self._done = self._skipped = 0
        self._begin = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._wait_sec = draw_sec if self._terminal else quiet_sec
        self._bar = tqdm(total=total, desc=title, unit=unit, bar_format=BAR_FORMAT, leave=False,
                         dynamic_ncols=True, mininterval=draw_sec,
                         disable=not (self._terminal and is_shown))

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, n: int) -> None:
        """Count `n` more units as done."""
        self._done += n
        self._bar.update(n)
        now = time.monotonic()
        if not self._is_shown or now - self._last < self._wait_sec:
            return
        self._last = now
        figures = {name: f'{value:.4g}' for name, value in self._describe().items()}
        if self._terminal:
            self._bar.set_postfix(figures)
        else:
            shown = ''.join(f', {name} {value}' for name, value in figures.items())
            print(f'{self._title}: {self._done}/{self._total} {self._unit}s, '
                  f'{self.rate():.1f} {self._unit}s/s{shown}', file=sys.stderr, flush=True)

    def skip(self, n: int) -> None:
        """Count `n` units as done before."""
        self._done += n
        self._skipped += n
        self._bar.update(n)

    def rate(self) -> float:
        """Units a second so far."""
        return (self._done - self._skipped) / max(time.monotonic() - self._begin, 1e-9)


# ---------------------------------------------------------------- tables

class TableLog:
    """A tab-separated file with a header, to which rows are appended.

    keep: go on with the file that is there. Its rows stay whose first numbers are at most these
    (epoch, or epoch and batch), and others are cut, after a copy of the whole was put beside it if
    more than the rows of an unfinished epoch go. The header stays as it is, unless it has columns
    that are not among these: then a copy is put beside it, and a new table begun.

    Rows that cannot be written, as on a full disk, are lost and counted in `n_lost`, and
    `on_error(path, error)` is told each time; the file ends with a whole row. Raises InputError
    where the file cannot even be begun.
    """

    def __init__(self, path: str | Path, columns: Iterable[str], on_error: OnError,
                 keep: tuple[int, ...] | None = None) -> None:
        self._path, self._on_error = Path(path), on_error
        self._rows: list[dict[str, Any]] = []
        self._columns = list(columns)
        kept: list[str] = []
        if keep and self._path.exists():
            header, rows, kept = self._read(keep)
            is_of_others = not set(header) <= set(self._columns)
            if is_of_others or len(kept) < len(rows) and len(keep) == 1:
                keep_copy(self._path)
            self._columns, kept = (self._columns, []) if is_of_others else (header, kept)
        write_text(self._path, '\t'.join(self._columns) + '\n' + ''.join(kept))
        self._last = time.monotonic()
        self.n_lost = 0

    @property
    def name(self) -> str:
        """The name of the file."""
        return self._path.name

    def write(self, **row: Any) -> None:
        """Add a row; values may be tensors, which are read when the file is next flushed."""
        self._rows.append(row)
        if time.monotonic() - self._last > FLUSH_SEC:
            self.flush()

    def flush(self) -> None:
        """Append the rows that wait, all of them or none."""
        rows, self._rows, self._last = self._rows, [], time.monotonic()
        if not rows:
            return
        text = ''.join('\t'.join(_as_text(row[column]) for column in self._columns) + '\n'
                       for row in rows)
        size = None
        try:
            self._begin_again_if_deleted()
            size = self._path.stat().st_size
            with open(self._path, 'a') as file:
                file.write(text)
        except OSError as error:
            if size is not None:
                with suppress(OSError):
                    os.truncate(self._path, size)
            self.n_lost += len(rows)
            self._on_error(self._path, error)

    def _begin_again_if_deleted(self) -> None:
        """Make the file anew, and its folder, where somebody has deleted them in the meantime."""
        if self._path.exists():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, 'x') as file:
            file.write('\t'.join(self._columns) + '\n')
        warn(f'{self._path}: was deleted while it was written; it begins again')

    def _read(self, keep: tuple[int, ...]) -> tuple[list[str], list[str], list[str]]:
        """(column names, all rows, those that stay) of the file that is there."""
        header, *rows = self._path.read_text().splitlines(keepends=True) or ['epoch\n']
        kept = [row for row in rows if row.endswith('\n') and _numbers(row, len(keep)) <= keep]
        return header.rstrip('\n').split('\t'), rows, kept


def _numbers(row: str, n: int) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in row.split('\t')[:n])
    except ValueError:
        return (sys.maxsize,) * n


def _as_text(value: Any) -> str:
    if isinstance(value, (int, str)):
        return str(value)
    return f'{float(value):.8g}'


# ---------------------------------------------------------------- TensorBoard

class Board:
    """TensorBoard's SummaryWriter in a folder; with folder None every call does nothing.

    Once events cannot be written, as on a full disk, none is written any more (`is_broken`), and
    `on_error(folder, error)` is told: the writer has a thread of its own, which does not outlive
    that.
    """

    def __init__(self, folder: Path | None, on_error: OnError) -> None:
        self._folder, self._on_error = folder, on_error
        self._writer: Any = None
        self._waiting: list[tuple[str, Any, int, float]] = []
        self._last = time.monotonic()
        self.is_broken = False

    @property
    def _is_on(self) -> bool:
        return self._folder is not None and not self.is_broken

    def scalars(self, group: str, step: int, **values: Any) -> None:
        """One curve per value, named group/value; tensors are read later, together."""
        if self._is_on:
            self._waiting += [(f'{group}/{name}', value, step, time.time())
                              for name, value in values.items()]
            if time.monotonic() - self._last > FLUSH_SEC:
                self._add_scalars()

    def clips(self, tag: str, clips: 'torch.Tensor', titles: Sequence[str], step: int) -> None:
        """A picture of clips, uint8 (N, C, T, h, w), as the network sees them, with a title each.
        """
        if self._is_on:
            from runtime.figures import clips_figure  # slow to import
            self._add_figure(tag, clips_figure(clips.cpu().numpy(), titles), step)

    def confusion(self, tag: str, counts: 'torch.Tensor', class_names: Sequence[str], step: int
                  ) -> None:
        """A picture of a confusion matrix, (n, n) counts, rows true, columns predicted."""
        if self._is_on:
            from runtime.figures import confusion_figure  # slow to import
            self._add_figure(tag, confusion_figure(counts.cpu().long().numpy(), class_names), step)

    def layout(self, title: str, charts: Mapping[str, Sequence[str]]) -> None:
        """Charts of several curves each, {title: names of the curves}, as "Custom Scalars"."""
        if self._is_on:
            lines = {name: ['Multiline', list(tags)] for name, tags in charts.items()}
            self._try(lambda writer: writer.add_custom_scalars({title: lines}))

    def options(self, options: Mapping[str, Any], metrics: Iterable[str]) -> None:
        """Hyper-parameters of the run, {name: value}, to compare by the scalars named `metrics`."""
        if not self._is_on:
            return
        from torch.utils.tensorboard.summary import hparams  # slow to import
        plain = {name: value if isinstance(value, (bool, int, float, str)) else str(value)
                 for name, value in options.items()}
        summaries = hparams(plain, dict.fromkeys(metrics, 0.0))
        # SummaryWriter.add_hparams would begin a run of its own in a folder below.
        self._try(lambda writer: [writer.file_writer.add_summary(summary, 0)
                                  for summary in summaries])

    def flush(self) -> None:
        """See that all events are in the file."""
        if self._is_on:
            self._add_scalars()
        if self._writer:
            self._try(lambda writer: writer.flush())

    def close(self) -> None:
        """Write what waits, and end the writer's thread."""
        self.flush()
        if self._writer:
            self._try(lambda writer: writer.close())
        self._writer = None

    def _add_scalars(self) -> None:
        waiting, self._waiting, self._last = self._waiting, [], time.monotonic()
        values = [(tag, float(value), step, wall_time) for tag, value, step, wall_time in waiting]
        if values:
            self._try(lambda writer: [writer.add_scalar(*value) for value in values])

    def _add_figure(self, tag: str, figure: Any, step: int) -> None:
        from runtime.figures import as_pixels  # slow to import
        pixels = as_pixels(figure)
        self._try(lambda writer: writer.add_image(tag, pixels, step, dataformats='HWC'))

    def _try(self, action: Callable[[Any], Any]) -> None:
        """Call `action` with the writer, which is opened first; after an error there is none."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import
        try:
            if not self._writer:  # not before: a new training sets earlier events aside first
                _ignore_writer_threads()
                self._writer = SummaryWriter(str(self._folder))
            action(self._writer)
        except Exception as error:  # OSError, or what storages that TensorFlow knows raise
            # A thread that still lives ends with the process.
            self.is_broken, self._waiting, self._writer = True, [], None
            self._on_error(Path(str(self._folder)), error)


@cache
def _ignore_writer_threads() -> None:
    """From now on say nothing when a thread of TensorBoard ends by an error: the next call of its
    writer raises the same."""
    earlier = threading.excepthook

    def hear(args: threading.ExceptHookArgs) -> None:
        if not type(args.thread).__module__.startswith('tensorboard.'):
            earlier(args)
    threading.excepthook = hear


# ---------------------------------------------------------------- all of a run

class RunLog:
    """All that a run records and says; with folder None (any process but the first) nothing.

    Where logs cannot be written, as on a full disk, that is said once and the run goes on; `close`
    says what was lost.

    is_quiet: only warnings are said, and no progress is shown
    """

    COLUMNS = {
        'train.log': ('epoch', 'loss', 'acc', 'lr', 'n_trained', 'n_frozen'),
        'train_batch.log': ('epoch', 'batch', 'iter', 'loss', 'acc', 'lr'),
        'val.log': ('epoch', 'loss', 'acc', 'clip_top5', 'video_top1', 'video_top5'),
    }

    def __init__(self, folder: Path | None, tensorboard: bool = False, is_quiet: bool = False
                 ) -> None:
        self.folder, self._is_quiet = folder, is_quiet
        self._columns: dict[str, tuple[str, ...]] = dict(self.COLUMNS)
        self._tables: dict[str, TableLog] = {}
        self._board = Board(folder if tensorboard else None, self._cannot_write)
        self._is_failing = False

    @property
    def is_on(self) -> bool:
        """True in the process that records and says."""
        return self.folder is not None

    def add_metrics(self, names: Iterable[str]) -> None:
        """Columns of val.log for more metrics of a validation of this run."""
        self._columns['val.log'] += tuple(names)

    def say(self, text: str) -> None:
        """Print a line."""
        if self.is_on and not self._is_quiet:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Print a line on stderr."""
        if self.is_on:
            to_stderr(text)

    def progress(self, total: int, title: str, **options: Any) -> Progress:
        """A `Progress`, shown by the process that says things."""
        return Progress(total, title, is_shown=self.is_on and not self._is_quiet, **options)

    def open_tables(self, epoch: int, n_batches: int = 0) -> None:
        """Begin the tables of a training, or go on after an epoch and so many batches of the
        next."""
        keep: dict[str, tuple[int, ...]] = {
            'train.log': (epoch,), 'train_batch.log': (epoch + 1, n_batches), 'val.log': (epoch,)}
        is_resumed = epoch > 0 or n_batches > 0
        for name in keep:
            self._open(name, keep[name] if is_resumed else None)

    def _open(self, name: str, keep: tuple[int, ...] | None) -> None:
        if self.folder is not None:
            columns = self._columns['val.log' if name == 'evaluation.log' else name]
            self._tables[name] = TableLog(self.folder / name, columns, self._cannot_write, keep)

    def _cannot_write(self, path: Path, error: BaseException) -> None:
        if not self._is_failing:
            self._is_failing = True
            reason = getattr(error, 'strerror', None) or error
            self.warn(f'warning: {path}: cannot be written ({reason}); what cannot be logged is '
                      'lost; the run goes on')

    def _write(self, name: str, **row: Any) -> None:
        if name in self._tables:
            self._tables[name].write(**row)

    def options(self, options: Mapping[str, Any]) -> None:
        """The options of the run, {flag: value}."""
        metrics = self._columns['val.log'][len(self.COLUMNS['val.log']):]
        self._board.options(options, [f'val/{name}' for name in
                                      ('loss', 'clip_top1', 'video_top1', *metrics)])
        self._board.layout('training and validation', {
            'loss': ['train/loss', 'val/loss'], 'clip accuracy': ['train/acc', 'val/clip_top1']})

    def clips(self, clips: 'torch.Tensor', titles: Sequence[str], epoch: int) -> None:
        """Clips of a training step, uint8 (N, C, T, h, w), with a title each: of some is drawn a
        picture."""
        self._board.clips('train/clips', clips[:SHOWN_CLIPS], titles, epoch)

    def step(self, **row: Any) -> None:
        """A training step: the columns of train_batch.log."""
        self._write('train_batch.log', **row)
        self._board.scalars('train_batch', row['iter'],
                            **{name: row[name] for name in ('loss', 'acc', 'lr')})

    def epoch(self, **row: Any) -> None:
        """A training epoch: the columns of train.log."""
        self._write('train.log', **row)
        self._board.scalars('train', row['epoch'],
                            **{name: row[name] for name in ('loss', 'acc', 'lr')})
        self.flush()

    def validation(self, epoch: int, metrics: Mapping[str, Any],
                   confusion: 'Mapping[str, torch.Tensor]', class_names: Sequence[str]) -> None:
        """A validation: what validation.evaluate returns. Outside of a training it is added to
        val.log, or, where that is the table of a training, to evaluation.log."""
        name = 'val.log'
        if name not in self._tables:
            if self.folder is not None and (self.folder / 'train.log').exists():
                name = 'evaluation.log'
                self.say(f'val.log is of the training there: this row goes to '
                         f'{self.folder / name}')
            self._open(name, (sys.maxsize,))
        self._write(name, epoch=epoch, acc=metrics['clip_top1'], **metrics)
        self._board.scalars(name.removesuffix('.log'), epoch, **metrics)
        for kind, counts in confusion.items():
            self._board.confusion(f'val/{kind}_confusion', counts, class_names, epoch)
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        for table in self._tables.values():
            table.flush()
        self._board.flush()

    def close(self) -> None:
        """Write the rest, and say what was lost."""
        self.flush()
        self._board.close()
        lost = [f'{table.n_lost} rows of {table.name}' for table in self._tables.values()
                if table.n_lost]
        if self._board.is_broken:
            lost.append('events of TensorBoard')
        if lost:
            self.warn(f'warning: {self.folder}: could not be written and are lost: '
                      + ', '.join(lost))
