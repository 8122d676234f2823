"""Folders and files that a user names: found, made and read, or an InputError."""

import csv
import io
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import parse_json, read_file, refuse_what_is_no_file, write_text
from runtime.names import meant_file

MAX_SHOWN = 200  # characters of a line, in messages

# What ends a line for some programs and not for others, and so is in no list.
UNCLEAR_ENDS = re.compile('[\v\f\x1c-\x1e\x85\u2028\u2029]')


def existing_folder(path: Path | str, what: str) -> Path:
    """`path` as a Path; raises InputError where it is not a folder."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f'{path}: {"not a folder" if path.exists() else "no such folder"}; '
                         f'give {what}')
    return path


def make_folder(path: Path | str) -> None:
    """Make a folder, and those above it, where there is none. Raises InputError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'{path}: the folder cannot be made: {error.strerror}; give another '
                         'destination') from None


def make_place(path: Path) -> None:
    """Make the folder of a file that is written when all is done. Raises InputError, also where a
    folder, pipe, socket or device is in its place."""
    if path.is_dir():
        raise InputError(f'{path}: is a folder; give a file in it')
    make_folder(path.parent)
    try:
        refuse_what_is_no_file(path)
    except OSError as error:
        raise InputError(f'{path}: cannot be written: {error.strerror}; name another file'
                         ) from None


def read_text(path: Path | str, what: str) -> str:
    """A text file, UTF-8 with or without byte order mark, or UTF-16 with one, as Excel's Unicode
    text has. Raises InputError, also where a character is NUL, which no text has and no path."""
    try:
        data = read_file(path)
        encoding = 'utf-16' if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else 'utf-8-sig'
        text = io.TextIOWrapper(io.BytesIO(data), encoding=encoding).read()
    except FileNotFoundError:
        meant = meant_file(Path(path))
        raise InputError(f'{path}: no such file; {meant}{" " if meant else ""}{what} is needed '
                         'there') from None
    except UnicodeDecodeError:
        raise InputError(f'{path}: not a UTF-8 text file; {what} is needed there, saved as '
                         'UTF-8') from None
    except OSError as error:
        raise InputError(f'{path}: cannot be read: {error.strerror}; {what} is needed there'
                         ) from None
    if '\0' in text:
        raise InputError(f'{path}: not a text file, since it has NUL characters; {what} is needed '
                         'there, saved as UTF-8')
    return text


def whole_lines(path: Path | str, what: str) -> list[tuple[int, str]]:
    """[(number from 1, line)] of the lines of a text file that are not empty. Raises InputError,
    also for a character that ends a line for some programs alone, and a line that is none."""
    lines = [(number, line) for number, line in enumerate(read_text(path, what).split('\n'), 1)
             if line.strip()]
    for number, line in lines:
        if found := UNCLEAR_ENDS.search(line):
            raise InputError(f'{path}, line {number}: has the character {found[0]!r}, which may be '
                             'a line end or not; remove it')
        if len(line) > csv.field_size_limit():
            raise InputError(f'{path}, line {number}: has {len(line)} characters, more than any '
                             'list; save it as CSV again')
    return lines


def read_lines(path: Path | str, what: str) -> list[tuple[int, str]]:
    """The same without surrounding spaces."""
    return [(number, line.strip()) for number, line in whole_lines(path, what)]


def csv_fields(path: Path | str, number: int, line: str, delimiter: str = ',') -> list[str]:
    """The fields of a line of a CSV file, without surrounding spaces. The line stands by itself: a
    quotation mark that is not closed takes no others, but is an InputError."""
    if '"' not in line:
        return [field.strip() for field in line.split(delimiter)]
    rows = list(csv.reader([line, ''], delimiter=delimiter, skipinitialspace=True))
    if len(rows) == 1:
        raise InputError(f'{path}, line {number}: {line!r} has a quotation mark that is not '
                         'closed; close it or remove it')
    return [field.strip() for field in rows[0]]


def malformed(path: Path | str, number: int, line: str, form: str,
              is_published: bool = True) -> InputError:
    """The InputError for a line that is not of the form it should have.

    is_published: False for a list that the user wrote
    """
    cure = 'mend the line or take the published file' if is_published else 'mend the line'
    shown = line if len(line) <= MAX_SHOWN else f'{line[:MAX_SHOWN]}...'
    return InputError(f'{path}, line {number}: {shown!r} is not {form}; {cure}')


def read_json(path: Path | str, what: str) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError."""
    try:
        data = parse_json(read_text(path, what))
    except ValueError as error:
        raise InputError(f'{path}: not JSON ({error}); {what} is needed there') from None
    if not isinstance(data, dict):
        raise InputError(f'{path}: holds no JSON object; {what} is needed there')
    return data


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all. Raises InputError."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    write_text(path, text.getvalue())


@contextmanager
def told_apart(annotation: Path, results: Path) -> Iterator[None]:
    """Within it an InputError says that an annotation and a file of results are given one for the
    other, where they are."""
    try:
        yield
    except InputError:
        is_result = not _names(annotation).isdisjoint({'results', 'events'})
        if not is_result or 'database' not in _names(results):
            raise
        raise InputError(f'{annotation}: holds results, and {results} is the annotation file: give '
                         'them in the other order') from None


def _names(path: Path) -> set[str]:
    """The names of the object in a JSON file; none where there is no such file."""
    with suppress(InputError):
        return set(read_json(path, ''))
    return set()
