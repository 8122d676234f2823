"""Locks: the kernel's, which are gone with the process that holds them, however it ends.

    with lock(folder / '.lock') as is_held:
        ...
"""

import errno
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from runtime.errors import InputError
from runtime.files import clear_result_folder, make_result_folder, read_file, unwritable
from runtime.output import warn

LOCK_NAME = '.lock'
# What a file system says that has no locks, such as NFS without its lock service.
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def lock(path: Path, *, waits: bool = False) -> Iterator[bool]:
    """Within it a file, which is made for that, is locked by this process; yields False at once if
    another one has it, or with `waits` comes when that is done.

    The lock is POSIX's, which NFS has too: processes that are forked do not hold it. Where a file
    system has none, that is said, and True is yielded. Raises OSError where no file can be made.
    """
    descriptor = _locked(path, waits)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            with suppress(OSError):
                os.unlink(path)  # first: another process may wait for it
            os.close(descriptor)


@contextmanager
def result_folder(folder: Path, *, is_training: bool, is_new: bool) -> Iterator[None]:
    """Make the folder of a run, which no other training writes into while this one does.

    is_new: what an earlier training left there is set aside

    Raises InputError where another one has it, or it cannot be written.
    """
    make_result_folder(folder)
    with (sole_writer(folder, 'training', 'go on with --resume_path auto') if is_training
          else nullcontext()):
        clear_result_folder(folder, is_training and is_new)
        yield


@contextmanager
def sole_writer(folder: Path, kind: str, way_on: str) -> Iterator[None]:
    """Within it no other run of a kind writes into the folder; InputError that names one that does.

    way_on: how to go on when that has ended
    """
    path = folder / LOCK_NAME
    try:
        with lock(path) as is_held:
            if not is_held:
                raise InputError(f'{folder}: another {kind}{_holder(path)} writes its results '
                                 f'there; wait for its end or stop it, and {way_on}, or give '
                                 'another --result_path')
            yield
    except OSError as error:
        if error.filename != str(path):
            raise
        raise unwritable(folder, error) from None


def _locked(path: Path, waits: bool) -> int | None:
    """The descriptor of a file that is locked, None where another process has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
            os.close(descriptor)  # the one that had it has deleted it
        except OSError as error:
            if error.errno in NO_LOCKS:
                warn(f'{path.parent}: its file system has no locks ({error.strerror}): see that no '
                     'other run writes there')
                break
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
    since = time.strftime('%Y-%m-%d %H:%M:%S')
    with suppress(OSError):  # on a full disk it holds as well, and does not say whose it is
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f'process {os.getpid()} on {platform.node()} since {since}'.encode())
    return descriptor


def _holder(path: Path) -> str:
    """In brackets, who has a lock."""
    try:
        return f' ({read_file(path).decode()})'
    except (OSError, ValueError):
        return ''
