"""What is printed: how commands end, and streams that may fail and that nothing drives.

Control characters are shown instead of sent: file names, class names and whatever else comes out of
files could drive a terminal. A full disk, a closed terminal or `| head -1` never ends a training;
other commands end.
"""

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

# All but tab, newline and carriage return: C0, DEL, C1, and what turns the direction of text.
CONTROL = re.compile('[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]')
# Lines are at most this long, as far as their words are.
WIDTH = 100
BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE, as of commands that it ends
MAX_NAMED = 8  # files that a command names one by one as written


class OutputLost(BaseException):
    """stdout cannot be written, and the command is to end; `error` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def shown_control(text: str) -> str:
    """A text whose control characters, but for tab and line ends, are shown: \\x1b."""
    return CONTROL.sub(_escaped, text)


def one_line(text: object, encoding: str = 'utf-8') -> str:
    """`text` in one line, as files and pictures take it: file names may hold line ends, and bytes
    that are no UTF-8."""
    line = shown_control(str(text)).replace('\r', '\\r').replace('\n', '\\n')
    return line.encode(encoding, 'backslashreplace').decode(encoding)


def printable(text: object) -> str:
    """`text` in one line, as the terminal takes it."""
    return one_line(text, getattr(sys.stdout, 'encoding', None) or 'utf-8')


def wrapped(line: str) -> str:
    """A line as several where it is longer than WIDTH."""
    return textwrap.fill(line, WIDTH, subsequent_indent='  ', break_long_words=False,
                         break_on_hyphens=False)


def for_stderr(line: object) -> str:
    """A line as stderr gets it: as several on a terminal; other programs are left to find it whole.
    """
    shown = printable(line)
    return wrapped(shown) if sys.stderr.isatty() else shown


def to_stderr(line: object) -> None:
    """Print a line on stderr, whatever --quiet says."""
    print(for_stderr(line), file=sys.stderr, flush=True)


def warn(line: object) -> None:
    """Print a warning on stderr."""
    to_stderr(f'warning: {line}')


# ---------------------------------------------------------------- notes, and --quiet

_is_quiet = False


def be_quiet(is_on: bool = True) -> None:
    """From now on, and until the command ends, show no progress and print no notes."""
    global _is_quiet
    _is_quiet = is_on


def is_quiet() -> bool:
    """True for a command that was given --quiet."""
    return _is_quiet


def note(line: object, file: TextIO | None = None) -> None:
    """Print a line that is neither a result nor a warning, on stdout where no `file` is given."""
    if _is_quiet:
        return
    if file is sys.stderr:
        to_stderr(line)
    else:
        print(printable(line), file=file or sys.stdout, flush=True)


def wrote(*paths: Path | str, about: str = '', then: str = '', file: TextIO | None = None) -> None:
    """End a command: say what it wrote, and what comes next.

    about: more about these files, in brackets
    then:  a command to paste, or what to do with the files
    """
    named = ', '.join(map(str, paths))
    if len(paths) > MAX_NAMED:
        named = f'{len(paths)} files in {os.path.commonpath([Path(p).parent for p in paths])}'
    note(f'written: {named}' + (f' ({about})' if about else ''), file)
    if then:
        note(f'next: {then}', file)


# ---------------------------------------------------------------- streams

def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f'\\x{code:02x}' if code < 256 else f'\\u{code:04x}'


class SafeStream:
    """A text stream through which nothing drives a terminal, and whose failure is foreseen.

    goes_on: True where what cannot be written is dropped, after a word on stderr; else OutputLost
             is raised
    """

    def __init__(self, stream: TextIO, goes_on: bool) -> None:
        self._stream, self._goes_on, self._has_failed = stream, goes_on, False
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors='backslashreplace')  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; a carriage return counts at its ends alone, where progress bars have it."""
        if '\r' in text.strip('\r'):
            bare = text.strip('\r')
            text = text.replace(bare, bare.replace('\r\n', '\n').replace('\r', '\\r'))
        self._try('write', shown_control(text))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try('flush')

    def _try(self, action: str, *arguments: str) -> None:
        if self._has_failed:
            return
        try:
            getattr(self._stream, action)(*arguments)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self._has_failed = True
            self._discard()
            if not self._goes_on:
                raise OutputLost(error) from None
            if sys.stderr is not self:
                warn(f'stdout cannot be written ({reason(error)}); the run goes on')

    def _discard(self) -> None:
        """Let what is buffered go nowhere, now and when Python flushes it at its end."""
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def reason(error: Exception) -> str:
    """Why a stream cannot be written, as the system says it."""
    return getattr(error, 'strerror', None) or str(error)


@contextmanager
def safe_streams(goes_on: bool) -> Iterator[None]:
    """Within it sys.stdout and sys.stderr are SafeStreams; what stderr cannot take is dropped.

    goes_on: True where the command outlives its stdout
    """
    global _is_quiet
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, SafeStream):  # one command calls another
        yield
        return
    _is_quiet = False
    sys.stdout = SafeStream(_open(sys.stdout), goes_on)  # type: ignore[assignment]
    sys.stderr = SafeStream(_open(sys.stderr), True)  # type: ignore[assignment]
    try:
        yield
    finally:
        _is_quiet = False
        stdout, stderr = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        stderr.flush()
        stdout.flush()


def _open(stream: TextIO | None) -> TextIO:
    """A stream; one that goes nowhere for None, which Python has for one that was closed."""
    return open(os.devnull, 'w') if stream is None else stream


def _open_standard_descriptors() -> None:
    """Open 0, 1 and 2 where they were closed: else the next file would be taken for them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
