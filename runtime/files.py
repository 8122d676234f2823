"""Files that are looked at before they are read, files that are written whole or not at all, and
the folder that the results of a run go to."""

import errno
import io
import json
import os
import platform
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.output import to_stderr

TRACE_NAME = 'steps.pt.trace.json.gz'
# In the result folder of a training, that of the evaluation which its end names.
EVALUATION_NAME = 'evaluation'
# What a run leaves in its result folder.
RUN_FILES = ('save_*.pth', '*.log', '*.json', '*.partial.*.jsonl', TRACE_NAME,
             'events.out.tfevents.*')
# Bytes of a name that its temporary name begins with: a file system takes 255 of the whole.
NAME_LENGTH = 150


KINDS_OF_FILES = ((stat.S_ISFIFO, 'a pipe'), (stat.S_ISSOCK, 'a socket'),
                  (stat.S_ISCHR, 'a device'), (stat.S_ISBLK, 'a device'))


# ---------------------------------------------------------------- looked at, then read

def file_size(file: str | Path | int) -> int:
    """The bytes of a file, given by its path or descriptor, which is not opened for that.

    Raises OSError where there is none, and where it is a folder, pipe, socket or device: reading
    such a one might never end. A path that no file can have is one of none.
    """
    try:
        status = os.stat(file)
    except ValueError:  # a NUL in it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file) from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in KINDS_OF_FILES if is_kind(status.st_mode)),
                    'no file')
        raise OSError(errno.ENOTSUP, f'it is {kind}, not a file')
    return status.st_size


def is_path(text: str) -> bool:
    """True for a text that can be the path of a file: no NUL in it, and only characters that file
    systems can have."""
    try:
        return b'\0' not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def is_special(path: Path | None) -> bool:
    """True for the path of a pipe, socket or device."""
    return path is not None and path.exists() and not (path.is_file() or path.is_dir())


def read_file(path: str | Path) -> bytes:
    """The bytes of a file. Raises OSError as `file_size` does."""
    try:
        # One that is no file does not keep this waiting, and `file_size` says so.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except ValueError:  # a NUL in it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, which cannot be opened
            file_size(path)
        raise
    try:
        data = os.read(descriptor, file_size(descriptor) + 1)
        parts = [data]
        while data:  # it has grown, or is longer than one call reads
            data = os.read(descriptor, 2 ** 20)
            parts.append(data)
        return parts[0] if len(parts) == 2 else b''.join(parts)
    finally:
        os.close(descriptor)


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text; ValueError where it is none, where an object has a name twice, and
    where it is nested too deeply for Python."""
    try:
        return json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError:
        raise ValueError('nested too deeply') from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of names and values; ValueError where two have one name."""
    value = dict(pairs)
    if len(value) < len(pairs):
        (twice, _), = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f'{twice!r} is there twice')
    return value


# ---------------------------------------------------------------- whole or not at all

def refuse_what_is_no_file(path: Path) -> None:
    """Raise OSError where a file would take the place of a folder, pipe, socket or device."""
    with suppress(FileNotFoundError):
        file_size(path)


@contextmanager
def writing_whole(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`, which takes its name if the block ends well.

    Whatever happens, `path` is either what it was or the whole new file. With `durable` it is on
    the disk itself when the block ends, so that it outlasts a power cut. Raises OSError, also for a
    folder, pipe, socket or device, which a file would take the place of.
    """
    path = Path(path)
    refuse_what_is_no_file(path)
    name = os.fsdecode(os.fsencode(path.name)[:NAME_LENGTH])
    # Nodes that share a folder may have processes of the same number.
    temporary = path.with_name(f'.{name}.{platform.node()}.{os.getpid()}')
    try:
        yield temporary
        if durable:
            _flush_to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            _flush_to_disk(path.parent)  # the new name itself is only safe once the folder is
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """`writing_whole`, of which missing folders are made; InputError where it cannot be written."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(path) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(f'{path}: cannot be written: {error.strerror or error}; free space, mend '
                         'the permissions or give another path') from None


def write_text(path: str | Path, text: str) -> None:
    """Replace what is at `path` by the whole of a new text, UTF-8 with escapes for what that has
    not: bytes of file names may be no UTF-8. Raises InputError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: str | Path, value: Any) -> None:
    """`write_text` of a value as JSON, in one line."""
    write_text(path, json.dumps(value) + '\n')


def keep_copy(path: str | Path) -> None:
    """Copy train.log to train.1.log, or the next number that is free. Raises InputError."""
    path, number = Path(path), 1
    while (copy := path.with_name(f'{path.stem}.{number}{path.suffix}')).exists():
        number += 1
    with replacing(copy) as temporary:
        temporary.write_bytes(path.read_bytes())


def _flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------- HDF5

class _Unfailing(io.FileIO):
    """A file that keeps the first error of writing, and drops what is written after it."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while len(rest) and self.error is None:
            try:
                rest = rest[super().write(rest):]
            except OSError as error:
                self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise the error, if there was one."""
        if self.error is not None:
            raise self.error


@contextmanager
def writing_hdf5(path: str | Path, *, is_new: bool = True
                 ) -> Iterator[tuple[Any, Callable[[], None]]]:
    """(h5py.File to write into, what raises OSError where that has failed), to be called after each
    part. Raises OSError at the end too.

    On a full disk HDF5 itself would end the process in a segmentation fault: it is told of no
    error.
    """
    import h5py  # here, because few processes write such files
    with _Unfailing(path, 'w+' if is_new else 'r+') as raw:
        try:
            with h5py.File(raw, 'w' if is_new else 'r+') as file:
                yield file, raw.check
        finally:
            raw.check()  # HDF5 may have missed what was dropped


# ---------------------------------------------------------------- the result folder

def make_result_folder(folder: Path) -> None:
    """Make the folder and see that it can be written. Raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f'.probe.{os.getpid()}'
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(folder, error) from None


def unwritable(folder: Path, error: OSError) -> InputError:
    """The InputError for a folder of results in which no file can be made or deleted."""
    return InputError(f'{folder}: results cannot be written there ({error.strerror}); give '
                      'another --result_path')


def clear_result_folder(folder: Path, is_new_training: bool) -> None:
    """Delete what a killed process left in the folder of a run. Raises InputError.

    What an earlier training left there goes to a folder earlier_N in it when a new one begins.
    """
    try:
        for leftover in folder.glob('.save_*'):  # of a process that was killed while it wrote
            leftover.unlink(missing_ok=True)
        log = folder / 'train.log'
        if is_new_training and (any(folder.glob('save_*.pth')) or log.exists() and len(
                log.read_text(errors='replace').splitlines()) > 1):
            _set_aside(folder)
    except OSError as error:
        raise unwritable(folder, error) from None


def write_opts(folder: str | Path, text: str) -> None:
    """Write opts.json; one that says something else is kept as opts.1.json, opts.2.json, ..."""
    path = Path(folder) / 'opts.json'
    try:
        is_other = path.exists() and read_file(path) != text.encode()
    except OSError as error:
        raise InputError(f'{path}: cannot be read: {error.strerror}; move it away, or give another '
                         '--result_path') from None
    if is_other:
        keep_copy(path)
    write_text(path, text)


def _set_aside(folder: Path) -> None:
    number = 1
    while (earlier := folder / f'earlier_{number}').exists():
        number += 1
    earlier.mkdir()
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            path.rename(earlier / path.name)
    to_stderr(f'{folder}: what an earlier training left there is now in {earlier.name}')
