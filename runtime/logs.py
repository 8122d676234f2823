"""What a run tells people: its result folder, tables, TensorBoard, traces, and a progress bar."""

import json
import os
import platform
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from runtime.errors import InputError

FLUSH_SEC = 1.0
# The first steps allocate memory and choose algorithms, as no later ones do; in the last of these
# the profiler itself warms up.
TRACE_AFTER_STEPS = 4
KINETO_SILENT = 6
# tqdm's own, but the rate stays units a second where one takes longer than that.
BAR_FORMAT = ('{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, '
              '{rate_noinv_fmt}{postfix}]')


class Progress:
    """A tqdm bar where stderr is a terminal, else a plain line every `quiet_sec` seconds.

        with Progress(len(videos), 'extract', unit='video') as progress:
            progress.update(1)

    `describe` (optional) is a function that returns a dict of figures to show, e.g. a running loss;
    it is called only when the line is drawn, so that reading them costs nothing in between.
    """

    def __init__(self, total, title, *, unit, describe=None, is_shown=True, quiet_sec=10.0,
                 draw_sec=0.5):
        self._is_shown = is_shown
        self._describe = describe or dict
        self._title, self._total, self._unit = title, total, unit
        self._done = self._skipped = 0
        self._begin = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._wait_sec = draw_sec if self._terminal else quiet_sec
        self._bar = tqdm(total=total, desc=title, unit=unit, bar_format=BAR_FORMAT, leave=False,
                         dynamic_ncols=True, mininterval=draw_sec,
                         disable=not (self._terminal and is_shown))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def update(self, n):
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
            self._print_line(figures)

    def skip(self, n):
        """Count `n` units as done before."""
        self._done += n
        self._skipped += n
        self._bar.update(n)

    def rate(self):
        """Units a second so far."""
        return (self._done - self._skipped) / max(time.monotonic() - self._begin, 1e-9)

    def _print_line(self, figures):
        shown = ''.join(f', {name} {value}' for name, value in figures.items())
        print(f'{self._title}: {self._done}/{self._total} {self._unit}s, '
              f'{self.rate():.1f} {self._unit}s/s{shown}', file=sys.stderr, flush=True)


class Appended:
    """A file that pieces, such as rows, are appended to, each as a whole.

    Pieces wait in memory for `flush`; and on until a later one where they cannot be written, as on
    a full disk, of which `on_error(path, error)` is told each time.
    """

    def __init__(self, path, on_error):
        self._path, self._on_error = Path(path), on_error
        self._file, self._waiting = None, deque()

    def write(self, piece):
        """Add a piece, bytes."""
        self._waiting.append(piece)

    def flush(self):
        try:
            while self._waiting:
                self._append()
        except OSError as error:
            self._on_error(self._path, error)

    def close(self):
        """{name of the file: how many pieces it lacks for good}, {} where it lacks none."""
        self.flush()
        if self._file:
            with suppress(OSError):
                self._file.close()
        return {self._path.name: len(self._waiting)} if self._waiting else {}

    def _append(self):
        """Write the piece that has waited longest, or nothing of it."""
        if not self._file:
            # Without a buffer, which would hold on to what could not be written.
            self._file = open(self._path, 'ab', buffering=0)
        piece, n_written = self._waiting[0], 0
        try:
            while n_written < len(piece):
                n_written += self._file.write(piece[n_written:])
        except OSError:
            with suppress(OSError):
                self._file.truncate(os.fstat(self._file.fileno()).st_size - n_written)
                n_written = 0
            self._waiting[0] = piece[n_written:]
            raise
        self._waiting.popleft()


class TableLog:
    """A tab-separated file with a header, whose rows are `Appended`.

    keep: go on with the file that is there. Its rows stay whose first numbers are at most these
    (epoch, or epoch and batch), and others are cut, after a copy of the whole was put beside it if
    more than the rows of an unfinished epoch go. The header stays as it is, unless it has columns
    that are not among these: then a copy is put beside it, and a new table begun.
    """

    def __init__(self, path, columns, on_error, keep=None):
        self._path, self._rows = Path(path), []
        self._columns, kept = list(columns), []
        if keep and self._path.exists():
            header, rows, kept = self._read(keep)
            is_of_others = not set(header) <= set(columns)
            if is_of_others or len(kept) < len(rows) and len(keep) == 1:
                keep_copy(self._path)
            self._columns, kept = (self._columns, []) if is_of_others else (header, kept)
        write_text(self._path, '\t'.join(self._columns) + '\n' + ''.join(kept))
        self._file = Appended(self._path, on_error)
        self._last = time.monotonic()

    def write(self, **row):
        """Add a row; values may be tensors, which are read when the file is next flushed."""
        self._rows.append(row)
        if time.monotonic() - self._last > FLUSH_SEC:
            self.flush()

    def flush(self):
        for row in self._rows:
            values = (_as_text(row[column]) for column in self._columns)
            self._file.write(('\t'.join(values) + '\n').encode())
        self._rows = []
        self._file.flush()
        self._last = time.monotonic()

    def close(self):
        """As `Appended.close`."""
        self.flush()
        return self._file.close()

    def _read(self, keep):
        """(column names, all rows, those that stay) of the file that is there."""
        header, *rows = self._path.read_text().splitlines(keepends=True) or ['epoch\n']
        kept = [row for row in rows if row.endswith('\n') and _numbers(row, len(keep)) <= keep]
        return header.rstrip('\n').split('\t'), rows, kept


def _numbers(row, n):
    try:
        return tuple(int(value) for value in row.split('\t')[:n])
    except ValueError:
        return (sys.maxsize,) * n


def _as_text(value):
    if isinstance(value, (int, str)):
        return str(value)
    return f'{float(value):.8g}'


class RunLog:
    """All that a run records and says; with folder None (any process but the first) nothing."""

    COLUMNS = {
        'train.log': ('epoch', 'loss', 'acc', 'lr', 'n_trained', 'n_frozen'),
        'train_batch.log': ('epoch', 'batch', 'iter', 'loss', 'acc', 'lr'),
        'val.log': ('epoch', 'loss', 'acc', 'clip_top5', 'video_top1', 'video_top5'),
    }

    def __init__(self, folder, tensorboard=False):
        self.folder = folder
        self._columns = dict(self.COLUMNS)
        self._tables = {}
        self._board = Board(folder if tensorboard else None, self._cannot_write)
        self._is_failing = False

    @property
    def is_on(self):
        return self.folder is not None

    def add_measures(self, names):
        """Columns of val.log for what a validation of this run also measures."""
        self._columns['val.log'] += tuple(names)

    def say(self, text):
        """Print a line."""
        if self.is_on:
            print(text, flush=True)

    def warn(self, text):
        """Print a line on stderr."""
        if self.is_on:
            print(text, file=sys.stderr, flush=True)

    def progress(self, total, title, **options):
        return Progress(total, title, is_shown=self.is_on, **options)

    def open_tables(self, epoch, n_batches=0):
        """Begin the tables of a training, or go on after an epoch and so many batches of the
        next."""
        keep = {'train.log': (epoch,), 'train_batch.log': (epoch + 1, n_batches),
                'val.log': (epoch,)}
        is_resumed = epoch > 0 or n_batches > 0
        for name in keep:
            self._open(name, keep[name] if is_resumed else None)

    def _open(self, name, keep):
        if self.is_on:
            self._tables[name] = TableLog(self.folder / name, self._columns[name],
                                          self._cannot_write, keep)

    def _cannot_write(self, path, error):
        if not self._is_failing:
            self._is_failing = True
            self.warn(f'warning: {path}: cannot be written ({error.strerror}); what is logged '
                      'waits in memory until it can be; the run goes on')

    def _write(self, name, **row):
        if name in self._tables:
            self._tables[name].write(**row)

    def options(self, options):
        """The options of the run, {flag: value}."""
        measures = self._columns['val.log'][len(self.COLUMNS['val.log']):]
        self._board.options(options, [f'val/{name}' for name in
                                      ('loss', 'clip_top1', 'video_top1', *measures)])

    def clips(self, clips, epoch):
        self._board.clips('train/clips', clips, epoch)

    def step(self, **row):
        """A training step: the columns of train_batch.log."""
        self._write('train_batch.log', **row)
        self._board.scalars('train_batch', row['iter'],
                            **{name: row[name] for name in ('loss', 'acc', 'lr')})

    def epoch(self, **row):
        """A training epoch: the columns of train.log."""
        self._write('train.log', **row)
        self._board.scalars('train', row['epoch'],
                            **{name: row[name] for name in ('loss', 'acc', 'lr')})
        self.flush()

    def validation(self, epoch, metrics, confusion):
        """A validation: what validation.evaluate returns. Outside of a training it is added."""
        if 'val.log' not in self._tables:
            self._open('val.log', (sys.maxsize,))
        self._write('val.log', epoch=epoch, acc=metrics['clip_top1'], **metrics)
        self._board.scalars('val', epoch, **metrics)
        for kind, counts in confusion.items():
            self._board.confusion(f'val/{kind}_confusion', counts, epoch)
        self.flush()

    def flush(self):
        for table in self._tables.values():
            table.flush()
        self._board.flush()

    def close(self):
        """Write the rest, and say what cannot be written."""
        lost = self._board.close()
        for table in self._tables.values():
            lost |= table.close()
        if lost:
            self.warn(f'warning: {self.folder}: cannot be written: the last '
                      + ', '.join(f'{n} entries of {name}' for name, n in lost.items()))


# ---------------------------------------------------------------- the result folder

TRACE_NAME = 'steps.pt.trace.json.gz'
RUN_FILES = ('save_*.pth', '*.log', '*.json', '*.partial.*.jsonl', TRACE_NAME,
             'events.out.tfevents.*')


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
        for leftover in folder.glob('.save_*'):  # of a process that was killed while it wrote
            leftover.unlink(missing_ok=True)
        if is_new_training and _holds_training(folder):
            _set_aside(folder)
    except OSError as error:
        raise InputError(f'{folder}: results cannot be written there ({error.strerror}); give '
                         'another --result_path') from None


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


@contextmanager
def replacing(path):
    """Gives a temporary path beside `path`, which takes its name if the block ends well.

    Missing folders are made. Raises InputError where nothing can be written.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name[:200]}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f'{path}: cannot be written: {error.strerror or error}; free space, mend '
                         'the permissions or give another path') from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Write a file at once: what had the name is replaced by the whole new text."""
    with replacing(path) as temporary:
        temporary.write_text(text)


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
    with replacing(copy) as temporary:
        temporary.write_bytes(path.read_bytes())


# ---------------------------------------------------------------- TensorBoard

class Board:
    """TensorBoard events in a folder, in a file of `Appended` records; with folder None every call
    does nothing.

    torch's SummaryWriter has a thread that dies on a full disk, in the midst of a record.
    """

    def __init__(self, folder, on_error):
        self._folder, self._on_error, self._file = folder, on_error, None
        self._waiting, self._last = [], time.monotonic()

    def scalars(self, group, step, **values):
        """One curve a value, named group/value; tensors are read later, together."""
        if self._folder:
            self._waiting += [(f'{group}/{name}', value, step, time.time())
                              for name, value in values.items()]
            if time.monotonic() - self._last > FLUSH_SEC:
                self.flush()

    def flush(self):
        if not self._folder:
            return
        from torch.utils.tensorboard.summary import scalar  # slow to import
        for tag, value, step, wall_time in self._waiting:
            self._add(scalar(tag, float(value)), step, wall_time)
        self._waiting, self._last = [], time.monotonic()
        if self._file:
            self._file.flush()

    def clips(self, tag, clips, step):
        """A picture of some clips, uint8 (N, C, T, h, w), as the network sees them."""
        if self._folder:
            self._add_picture(tag, clip_sheet(clips), step)

    def confusion(self, tag, counts, step):
        """A picture of a confusion matrix, (n, n) counts, rows true, columns predicted."""
        if self._folder:
            self._add_picture(tag, confusion_picture(counts), step)

    def options(self, options, metrics):
        """Hyper-parameters of the run, {name: value}, to compare by the scalars named `metrics`."""
        if not self._folder:
            return
        from torch.utils.tensorboard.summary import hparams
        plain = {name: value if isinstance(value, (bool, int, float, str)) else str(value)
                 for name, value in options.items()}
        for summary in hparams(plain, dict.fromkeys(metrics, 0.0)):
            self._add(summary, 0, time.time())

    def close(self):
        """As `Appended.close`."""
        self.flush()
        return self._file.close() if self._file else {}

    def _add_picture(self, tag, picture, step):
        from torch.utils.tensorboard.summary import image
        self._add(image(tag, picture, dataformats='CHW'), step, time.time())

    def _add(self, summary, step, wall_time):
        if not self._file:  # not before: a new training sets earlier events aside first
            self._open(wall_time)
        self._write_event(step=step, wall_time=wall_time, summary=summary)

    def _open(self, wall_time):
        self._file = Appended(Path(self._folder) / 'events.out.tfevents.'
                              f'{wall_time:.0f}.{platform.node()}.{os.getpid()}', self._on_error)
        self._write_event(wall_time=wall_time, file_version='brain.Event:2')

    def _write_event(self, **fields):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
        RecordWriter(self._file).write(Event(**fields).SerializeToString())


def confusion_picture(counts, side=480):
    """(n, n) counts -> uint8 (3, H, W), H and W about `side` or n: darker blue is a larger share
    of the row, its root, so that rare mistakes show too; a class that does not occur is grey."""
    import torch  # slow to import
    totals = counts.sum(dim=1, keepdim=True)
    shares = (counts / totals.clamp(min=1)).sqrt()
    white, blue = torch.tensor([[255., 255., 255.], [8., 48., 107.]]).view(2, 3, 1, 1)
    picture = torch.where(totals > 0, white + (blue - white) * shares, 225.).to(torch.uint8)
    cell = max(1, side // len(counts))
    return picture.repeat_interleave(cell, dim=1).repeat_interleave(cell, dim=2)


class StepTrace:
    """A torch.profiler trace of `n_steps` training steps, after the first few, in a folder, as
    Perfetto and TensorBoard's profiler plugin open it; with folder None or no steps nothing.

        with StepTrace(folder, n_steps) as trace:
            ...
            trace.step()

    However the block ends, the profiler is stopped, without which the process would end in a
    segmentation fault, and the steps there were are written. Where there were too few, or nothing
    can be written, that is said.
    """

    def __init__(self, folder, n_steps):
        self._path = folder and Path(folder) / TRACE_NAME
        self._n_steps, self._n_done, self._profiler = n_steps, 0, None

    def __enter__(self):
        if self._path and self._n_steps:
            from torch import cuda, profiler  # slow to import
            if not cuda.is_available():
                # Else kineto says that it found no GPU as an error, amid lines for its developers.
                os.environ.setdefault('KINETO_LOG_LEVEL', str(KINETO_SILENT))
            self._profiler = profiler.profile(
                schedule=profiler.schedule(wait=TRACE_AFTER_STEPS - 1, warmup=1,
                                           active=self._n_steps, repeat=1),
                on_trace_ready=self._write)
            self._profiler.start()
        return self

    def step(self):
        """Say that a step has ended."""
        if self._profiler:
            self._n_done += 1
            self._profiler.step()

    def __exit__(self, *_):
        if not self._profiler:
            return
        self._profiler.stop()
        self._profiler = None
        if self._n_done <= TRACE_AFTER_STEPS:
            print(f'warning: no trace was written: --profile leaves out the first '
                  f'{TRACE_AFTER_STEPS} steps, and there were {self._n_done}; train for at least '
                  f'{TRACE_AFTER_STEPS + 1}', file=sys.stderr)

    def _write(self, profile):
        if self._n_done <= TRACE_AFTER_STEPS:  # it holds what was between steps at most
            return
        try:
            profile.export_chrome_trace(str(self._path))
        except OSError as error:
            print(f'warning: {self._path}: the trace cannot be written ({error.strerror}); the '
                  'run goes on', file=sys.stderr)
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def clip_sheet(clips, n_clips=4, n_frames=8):
    """uint8 (N, C, T, h, w) -> one picture, uint8 (3, H, W): a row a clip, frames over time.

    Of optical flow, channels are horizontal (red) and vertical (green).
    """
    from torchvision.utils import make_grid  # slow to import
    clips = clips[:n_clips].cpu()
    duration = clips.shape[2]
    step = max(1, duration // n_frames)
    frames = clips[:, :, ::step][:, :, :n_frames]
    if frames.shape[1] == 2:
        frames = frames[:, [0, 1, 1]].clone()
        frames[:, 2] = 128
    rows = frames.transpose(1, 2)
    return make_grid(rows.reshape(-1, *rows.shape[2:]), nrow=rows.shape[1], padding=1)
