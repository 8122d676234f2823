"""Errors whose cause is what a user gave, requests to stop, and how a command ends on either."""

import errno
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from runtime.output import BROKEN_PIPE_STATUS, OutputLost, reason, safe_streams, to_stderr

Answer = TypeVar('Answer')
# Environment variables of launchers that are the parent of the processes that they start.
WATCHED_LAUNCHERS = ('TORCHELASTIC_RUN_ID', 'R3D_STARTED_BY')
PARENT_SEC = 0.5  # how often it is looked for


# What Python's, numpy's and torch's errors say where there is not memory enough: torch has a class
# for GPUs alone, and passes on the errors of loader processes as texts.
LACK_OF_MEMORY = re.compile('(?:CUDA out of memory|[Uu]nable to allocate|tried to allocate)[^.]*'
                            '|MemoryError|OutOfMemoryError')


# Why a path cannot even be looked at: Path.exists() and others raise these.
OF_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM)
# Of what a sentence quotes: the rest of it is to be found.
SHOWN_LENGTH, LONG_SENTENCE = 300, 3000
LONG_WORD = re.compile(r'\S{500,}')


class InputError(Exception):
    """A flag, file or folder is wrong: the message says what, where and the cure, in one sentence.

    Every error of this codebase that a user can mend is one of these; a programming error is not.
    """


class Stopped(BaseException):
    """A signal asked the process to stop, and it did; the message says how to go on."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def first_line(error: BaseException) -> str:
    """What an error of a library says first; its kind where it says nothing."""
    return str(error).strip().split('\n', 1)[0] or type(error).__name__


def shortened(text: str) -> str:
    """A sentence in which a LONG_WORD is cut, such as a path that no file can have; of many words
    the middle is left out."""
    text = LONG_WORD.sub(lambda word: f'{word[0][:SHOWN_LENGTH]}... ({len(word[0])} characters)',
                         text)
    half = LONG_SENTENCE // 2
    return text if len(text) <= LONG_SENTENCE else f'{text[:half]} ... {text[-half:]}'


class StopSignals:
    """Within it SIGINT, SIGTERM and SIGUSR1 only set `signum`; a second one ends the process.

        with StopSignals() as stop:
            ...
            if stop.signum: ...

    is_told: at once, the first one prints a line on stderr that says what is finished before the
             process ends, which is `finishing`
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    # A terminal and a launcher may both pass the same request on.
    ECHO_SEC = 1.0

    def __init__(self, is_told: bool = False) -> None:
        self.signum = 0
        self.finishing = 'the preparation and a first batch are finished'
        self._is_told, self._pid = is_told, os.getpid()

    def __enter__(self) -> 'StopSignals':
        self._old = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if not self.signum:
            self.signum, self._since = signum, time.monotonic()
            if self._is_told and os.getpid() == self._pid:
                name, begin = signal.Signals(signum).name, '\n' if sys.stderr.isatty() else ''
                # Not print, which the signal may have interrupted.
                with suppress(OSError):  # its terminal may be gone
                    os.write(2, f'{begin}{name}: {self.finishing}; a second one ends the run at '
                                'once\n'.encode())
        elif time.monotonic() - self._since > self.ECHO_SEC:
            os._exit(128 + signum)


def begin(environment: Mapping[str, str]) -> None:
    """For a process that has just started and whose imports take seconds: one of StopSignals' ends
    it with a line, and so does the end of the launcher that started it."""
    for number in StopSignals.SIGNALS:
        signal.signal(number, _stop_early)
    if any(name in environment for name in WATCHED_LAUNCHERS):
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _stop_early(signum: int, _frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f'stopped by {signal.Signals(signum).name} before the run began or after it '
                    'ended\n'.encode())
    os._exit(128 + signum)


def _end_with_parent(parent: int) -> None:
    """End this process once its parent has: what it shares with the others is lost."""
    while os.getppid() == parent:
        time.sleep(PARENT_SEC)
    with suppress(OSError):
        os.write(2, b'error: the launcher of this process has ended; it ends too\n')
    os._exit(1)


def run(command: Callable[[Any], int | None], argv: list[str] | None = None, *,
        outlives_stdout: bool = False) -> NoReturn:
    """Call `command(argv)` as a process: exit 2 with one line on stderr after an InputError.

    Stopped exits 128 + the signal's number, Ctrl-C 130. Where stdout cannot be written, a broken
    pipe exits 141 and says nothing, and whatever else 1; with `outlives_stdout` the command goes
    on instead. Whatever else is raised is a bug and keeps its traceback. `command` returns the exit
    status, None for 0.
    """
    sys.exit(answered(command, argv, outlives_stdout=outlives_stdout))


def answered(command: Callable[[Any], Answer], argv: list[str] | None = None, *,
             outlives_stdout: bool = False) -> Answer:
    """What `command(argv)` returns; where it raises, the process ends as with `run`."""
    # Where a user has no home that can be written, it would say so in many words.
    logging.getLogger('matplotlib').setLevel(logging.ERROR)
    try:
        with safe_streams(outlives_stdout):
            return _answered(command, argv)
    except OutputLost as lost:
        if isinstance(lost.error, BrokenPipeError):
            sys.exit(BROKEN_PIPE_STATUS)
        with safe_streams(True):
            to_stderr(f'error: stdout cannot be written: {reason(lost.error)}; free space, or give '
                      'another place for it')
            sys.exit(1)


def _answered(command: Callable[[Any], Answer], argv: list[str] | None) -> Answer:
    try:
        return command(argv)
    except InputError as error:
        to_stderr('error: ' + shortened(' '.join(str(error).split())))
        sys.exit(2)
    except Stopped as stopped:
        if str(stopped):  # as it is: it may end with a command to paste
            print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        to_stderr('interrupted')
        sys.exit(130)
    except OSError as error:
        if error.errno not in OF_PATHS or not isinstance(error.filename, (str, bytes, Path)):
            raise
        to_stderr(f'error: {shortened(os.fsdecode(error.filename))}: {error.strerror}; check the '
                  'path and its permissions')
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        lacking = LACK_OF_MEMORY.search(f'{type(error).__name__}: {error}')
        if not lacking:
            raise
        to_stderr(f'error: out of memory ({" ".join(lacking[0].split())}); give smaller clips, '
                  'batches or networks, or fewer processes')
        sys.exit(2)
