"""Lists of videos as people have them: CSV files, their dialects, and the meaning of their columns.

A list has a line for each video, or for each labelled part of a video. A header names the columns;
where there is none, the column of file names and the column of subsets are known by what is in
them, and the label and the group follow in this order.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.video import find_video
from runtime.errors import InputError
from runtime.names import did_you_mean, nearest
from util_scripts.helpers import files
from util_scripts.helpers.files import read_text
from util_scripts.helpers.videos import is_video

FORM = 'path,label or path,label,group'
# What a column may be called, in lower case and with _ between words.
COLUMNS = {
    'path': ('path', 'video', 'video_name', 'video_path', 'file', 'filename', 'file_name',
             'file_path'),
    'label': ('label', 'class', 'class_name', 'labels'),
    'group': ('group',),
    'subset': ('subset', 'split'),
    'fps': ('fps', 'frame_rate'),
    'start_sec': ('start_sec', 'start_s', 'start_secs', 'start_second', 'start_seconds',
                  'start_time', 'time_start', 'begin_sec'),
    'end_sec': ('end_sec', 'end_s', 'end_secs', 'end_second', 'end_seconds', 'end_time',
                'time_end'),
    'start_frame': ('start_frame', 'start_frames', 'frame_start', 'begin_frame', 'first_frame'),
    'end_frame': ('end_frame', 'end_frames', 'frame_end', 'last_frame'),
}
MEANINGS = {name: meaning for meaning, names in COLUMNS.items() for name in names}
# Columns that are known and do not say enough.
VAGUE = ('start', 'begin', 'end', 'stop')
SUBSETS = {
    'training': ('train', 'training', 'trn', 'trainset', 'train_set', 'training_set'),
    'validation': ('val', 'valid', 'validation', 'validate', 'dev', 'valset', 'val_set',
                   'validation_set'),
    'testing': ('test', 'testing', 'tst', 'testset', 'test_set', 'testing_set'),
}
SUBSET_WORDS = {word: subset for subset, words in SUBSETS.items() for word in words}
DELIMITERS = ('\t', ',', ';')
# So many lines tell which column is which.
N_LOOKED_AT = 50


class Part(NamedTuple):
    """Part of a video, in seconds or in frames from 1, the last of which belongs to it.

    fps: frames per second of what is stored, where the list says so
    """

    begin: float
    end: float
    is_sec: bool
    fps: float | None


class Line(NamedTuple):
    """A line of a list: its number, and what its columns say. '' and None: nothing."""

    number: int
    path: str
    label: str
    group: str
    subset: str | None
    part: Part | None


Row = tuple[int, list[str]]


def read_list(path: Path, root: Path) -> list[Line]:
    """The lines of a list of videos, which lie below the folder `root`. Raises InputError."""
    lines = [(number, line) for number, line in
             enumerate(read_text(path, f'a CSV file of {FORM}').splitlines(), 1)
             if line.strip() and not re.fullmatch('sep=.', line)]  # sep=; is Excel's
    if not lines:
        raise InputError(f'{path}: the list is empty; write a line for each video, as {FORM}')
    try:
        rows = _rows(lines, root)
    except csv.Error as error:
        raise InputError(f'{path}: not a CSV file ({error}); save it as CSV again') from None
    if _has_header(path, rows, root):
        header, body = _named_columns(path, rows[0][1]), rows[1:]
    else:
        header, body = _guessed_columns(path, rows, root), rows
    return [_line(path, row, header, root) for row in body]


# ---------------------------------------------------------------- how it is written

def _rows(lines: Sequence[tuple[int, str]], root: Path) -> list[Row]:
    """The fields of each line that has any: between tabs, commas, semicolons or else blanks."""
    def parse(delimiter: str) -> list[Row]:
        parsed = csv.reader((line for _, line in lines), delimiter=delimiter,
                            skipinitialspace=True)
        # A quoted line break would be one too many; such fields are no names or numbers.
        return [(number, [field.strip() for field in row])
                for (number, _), row in zip(lines, parsed) if any(map(str.strip, row))]
    choices = [rows for rows in map(parse, DELIMITERS) if rows and len(rows[0][1]) > 1]
    if choices:
        return max(choices, key=lambda rows: (
            sum(_plain(name) in MEANINGS for name in rows[0][1]),
            any(_names_video(field, root) for _, row in rows[:2] for field in row)))
    return _blank_rows(lines)


def _blank_rows(lines: Sequence[tuple[int, str]]) -> list[Row]:
    """The same of lines with blanks between fields, where a path may hold blanks too."""
    first = lines[0][1].split()
    is_header = any(_plain(name) in MEANINGS for name in first)
    n_fields = len(first) if is_header else 2
    return [(number, line.strip().rsplit(None, n_fields - 1)) for number, line in lines]


def _plain(name: str) -> str:
    """`Start (sec)` -> `start_sec`"""
    return '_'.join(re.findall(r'[^\W_]+', name.lower()))


def _names_video(field: str, root: Path) -> bool:
    """True for the name of a video or HDF5 file, or the path of something below `root`."""
    field = field.replace('\\', '/')
    return (is_video(field.rpartition('/')[2]) or field.endswith('.hdf5')
            or '/' in field and (root / field).exists())


# ---------------------------------------------------------------- what its columns are

def _has_header(path: Path, rows: Sequence[Row], root: Path) -> bool:
    first = rows[0][1]
    if any(_names_video(field, root) for field in first):
        return False
    names = [_plain(field) for field in first]
    if any('/' in field for field in first):
        return False
    if any(name in MEANINGS or name in VAGUE for name in names):
        return True
    # Names that are not known, over a column of videos: _named_columns says which.
    return len(rows) > 1 and any(_names_video(field, root) for field in rows[1][1])


def _named_columns(path: Path, names: Sequence[str]) -> dict[str, int]:
    """{meaning: place} of the columns that a header names. Raises InputError."""
    columns: dict[str, int] = {}
    for place, name in enumerate(names):
        plain = _plain(name)
        if not plain:
            raise InputError(f'{path}: column {place + 1} has no name; name it in line 1 or remove '
                             'it')
        if plain in VAGUE:
            raise InputError(f'{path}: column {name!r} does not say whether it is in seconds or '
                             f'frames; call it {plain}_sec or {plain}_frame')
        if plain not in MEANINGS:
            hint = did_you_mean(nearest(plain, MEANINGS, n=1))
            raise InputError(f'{path}: column {name!r} is not known; {hint}{" " if hint else ""}'
                             f'rename it to one of {", ".join(COLUMNS)}, or remove it')
        meaning = MEANINGS[plain]
        if meaning in columns:
            raise InputError(f'{path}: columns {names[columns[meaning]]!r} and {name!r} are both '
                             f'the {meaning}; remove one')
        columns[meaning] = place
    for meaning in ('path', 'label'):
        if meaning not in columns:
            raise InputError(f'{path}: no column {meaning}; name it in line 1, which is '
                             f'{",".join(names)}')
    _check_parts(path, columns)
    return columns


def _check_parts(path: Path, columns: dict[str, int]) -> None:
    """Raise InputError unless parts of videos have a start and an end, in one unit."""
    units = [unit for unit in ('sec', 'frame') if {f'start_{unit}', f'end_{unit}'} & {*columns}]
    if len(units) > 1:
        raise InputError(f'{path}: has columns in seconds and in frames; remove one of both')
    for unit in units:
        for name in (f'start_{unit}', f'end_{unit}'):
            if name not in columns:
                raise InputError(f'{path}: no column {name}, and parts of videos need start and '
                                 'end; add it')
    if 'fps' in columns and not units:
        raise InputError(f'{path}: column \'fps\' says nothing without start_sec and end_sec; '
                         'remove it or add them')


def _guessed_columns(path: Path, rows: Sequence[Row], root: Path) -> dict[str, int]:
    """{meaning: place} of the columns of a list without header. Raises InputError."""
    looked_at = [row for _, row in rows[:N_LOOKED_AT]]
    n_fields = max(map(len, looked_at))

    def share(place: int) -> int:
        return sum(_names_video(row[place], root) for row in looked_at if len(row) > place)

    # The first of those that hold as many names of videos as any.
    path_place = max(range(n_fields), key=share)
    left = [place for place in range(n_fields) if place != path_place]
    columns = {'path': path_place}
    if len(left) > 1:
        subset_places = [place for place in left
                         if all(len(row) <= place or row[place].lower() in SUBSET_WORDS
                                for row in looked_at)]
        if subset_places:
            columns['subset'] = subset_places[-1]
            left.remove(subset_places[-1])
    if len(left) > 2:
        raise InputError(f'{path}: {n_fields} columns, and no line 1 that names them; write one '
                         f'with the names, such as path,label,subset (known are '
                         f'{", ".join(COLUMNS)})')
    return columns | dict(zip(('label', 'group'), left))


# ---------------------------------------------------------------- what a line says

def malformed(path: Path, number: int, line: str, form: str) -> InputError:
    """That of `files`, of a list that the user wrote."""
    return files.malformed(path, number, line, form, is_published=False)


def _line(path: Path, row: Row, columns: dict[str, int], root: Path) -> Line:
    number, fields = row
    text = ','.join(fields)
    values = {name: fields[place] for name, place in columns.items() if place < len(fields)}
    if len(fields) > max(columns.values()) + 1 and any(fields[max(columns.values()) + 1:]):
        raise malformed(path, number, text, f'of the {len(columns)} columns that the list has')
    subset = None
    if 'subset' in columns:
        subset = SUBSET_WORDS.get(_plain(values.get('subset', '')))
        if subset is None:
            raise malformed(path, number, text, 'of subset train, val or test')
    # Test videos may have no label.
    if not values.get('path') or not values.get('label') and subset != 'testing':
        raise malformed(path, number, text, FORM if len(columns) < 4 else 'with path and label')
    return Line(number, _posix(path, number, values['path'], root), values.get('label', ''),
                values.get('group', ''), subset, _part(path, number, values))


def _posix(path: Path, number: int, name: str, root: Path) -> str:
    r"""`class\name.mp4` -> `class/name.mp4`, unless there is a file of that very name."""
    if re.match(r'[A-Za-z]:[\\/]', name):
        raise InputError(f'{path}, line {number}: {name!r} is a path on a drive of Windows; write '
                         'it relative to the folder of --video_path')
    if '\\' in name and not (root / name).exists() and find_video(str(root / name)) is None:
        name = name.replace('\\', '/')
    return name


def _part(path: Path, number: int, values: dict[str, str]) -> Part | None:
    """The part of a video that a line names; None where it names none."""
    is_sec = 'start_sec' in values
    unit = 'sec' if is_sec else 'frame'
    texts = [values.get(f'{name}_{unit}', '') for name in ('start', 'end')]
    if not any(texts):
        return None
    try:
        begin, end = (float(text.replace(',', '.')) if is_sec else int(text) for text in texts)
        fps = float(values['fps'].replace(',', '.')) if values.get('fps') else None
    except ValueError:
        raise malformed(path, number, ','.join(values.values()),
                        'with numbers for start, end and fps') from None
    is_right = 0 <= begin < end < 1e9 if is_sec else 1 <= begin <= end < 1e9
    if not is_right or fps is not None and not 0 < fps < 1e4:
        raise malformed(path, number, ','.join(values.values()),
                        'a part of a video, which starts before it ends and whose frames are '
                        'counted from 1')
    return Part(begin, end, is_sec, fps)
