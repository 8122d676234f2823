"""Lists of videos as people have them: CSV files, their dialects, and the meaning of their columns.

A list has a line for each video, or for each labelled part of a video. A header names the columns;
where there is none, the column of file names and the column of subsets are known by what is in
them, and the label and the group follow in this order.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

from datasets.video import find_video
from runtime.errors import InputError
from runtime.names import did_you_mean, nearest
from util_scripts.helpers import files
from util_scripts.helpers.files import csv_fields, whole_lines
from util_scripts.helpers.videos import is_video, video_stem

FORM = 'path,label or path,label,group'
# What a column may be called, in lower case and with _ between words; without any, too.
COLUMNS = {
    'path': ('path', 'video', 'video_name', 'video_path', 'video_file', 'video_id', 'file',
             'file_name', 'file_path', 'clip', 'clip_name', 'clip_path'),
    'label': ('label', 'class', 'class_name', 'class_label', 'labels', 'category', 'action'),
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
MEANINGS = {name.replace('_', ''): meaning
            for meaning, names in COLUMNS.items() for name in names}
# Columns that are known and do not say enough.
VAGUE = ('start', 'begin', 'end', 'stop')
SUBSETS = {
    'training': ('train', 'training', 'trn', 'trainset', 'train_set', 'training_set'),
    'validation': ('val', 'valid', 'validation', 'validate', 'dev', 'valset', 'val_set',
                   'validation_set'),
    'testing': ('test', 'testing', 'tst', 'testset', 'test_set', 'testing_set'),
}
SUBSET_WORDS = {word: subset for subset, words in SUBSETS.items() for word in words}
MAX_NAME = 255  # bytes that file systems take
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
    if path.suffix.lower() in ('.json', '.jsonl'):
        raise InputError(f'{path}: a JSON file, and lists are CSV files of {FORM}; write one, or '
                         'give an annotation that is made already to main.py by --annotation_path')
    rows = read_rows(path, root, f'a CSV file of {FORM}')
    if not rows:
        raise InputError(f'{path}: the list is empty; write a line for each video, as {FORM}')
    if _has_header(rows, root):
        header, body = _named_columns(path, rows[0][1]), rows[1:]
    else:
        header, body = _guessed_columns(path, rows, root), rows
    return [_line(path, row, header, root) for row in body]


# ---------------------------------------------------------------- how it is written

def read_rows(path: Path, root: Path, what: str) -> list[Row]:
    """The fields of each line of a CSV file that has any: between tabs, commas, semicolons or else
    blanks; # begins a comment. Raises InputError.

    root: what paths in it are relative to
    what: what the file is to be
    """
    # sep=; is Excel's
    lines = [(number, line) for number, line in whole_lines(path, what)
             if not re.fullmatch('sep=.|#[# ].*', line)]
    first = {delimiter: [_fields(path, number, line, delimiter) for number, line in lines[:2]]
             for delimiter in DELIMITERS}
    choices = [delimiter for delimiter, rows in first.items() if rows and len(rows[0]) > 1]
    if not choices:
        return _blank_rows(path, lines)
    chosen = max(choices, key=lambda delimiter: (
        sum(meaning_of(name) is not None for name in first[delimiter][0]),
        any(_names_video(field, root) for row in first[delimiter] for field in row)))
    rows = [(number, csv_fields(path, number, line, chosen)) for number, line in lines]
    # Excel ends each line with separators where a column of the sheet has been emptied.
    width = max((place for _, row in rows for place, field in enumerate(row, 1) if field),
                default=0)
    return [(number, row[:width]) for number, row in rows if any(row)]


def _fields(path: Path, number: int, line: str, delimiter: str) -> list[str]:
    """The fields of a line, if that is what is between its fields; [] for a line that is none."""
    with suppress(InputError):
        return csv_fields(path, number, line, delimiter)
    return []


def _blank_rows(path: Path, lines: Sequence[tuple[int, str]]) -> list[Row]:
    """The same of lines with blanks between fields, where a path may hold blanks too.

    Without a header, what follows the name of a video is its label, and a subset if that is one.
    """
    first = lines[0][1].split() if lines else []
    if any(map(meaning_of, first)):
        return [(number, line.strip().rsplit(None, len(first) - 1)) for number, line in lines]
    return [(number, _blank_fields(path, number, line.strip())) for number, line in lines]


def _blank_fields(path: Path, number: int, line: str) -> list[str]:
    words = re.split(r'(\s+)', line)
    ends = [place for place, word in enumerate(words) if is_video(word.rpartition('/')[2])]
    if not ends:
        return line.rsplit(None, 1)
    rest = words[ends[-1] + 2::2]
    if len(rest) > 1 + (bool(rest) and rest[-1].lower() in SUBSET_WORDS):
        raise malformed(path, number, line, 'a path, a label and perhaps a subset (train, val, '
                        'test) with blanks between; with commas, and a line 1 that names the '
                        'columns, there may be more')
    return [''.join(words[:ends[-1] + 1]), *rest]


def plain_name(name: str) -> str:
    """`Start (sec)` -> `start_sec`"""
    return '_'.join(re.findall(r'[^\W_]+', name.lower()))


def composed(text: str) -> str:
    """One text for what looks the same: accents are written in two ways."""
    return unicodedata.normalize('NFC', text)


def meaning_of(name: str) -> str | None:
    """What a column of this name says, in whichever spelling: `File Name`, `fileName`; or None."""
    return MEANINGS.get(plain_name(name).replace('_', ''))


def subset_named(word: str) -> str | None:
    """The subset that this is a word for, in any usual spelling, or None."""
    return SUBSET_WORDS.get(plain_name(word))


def _names_video(field: str, root: Path) -> bool:
    """True for the name of a video or HDF5 file, or the path of something below `root`."""
    field = field.replace('\\', '/')
    return (is_video(field.rpartition('/')[2]) or field.endswith('.hdf5')
            or '/' in field and os.path.exists(root / field))  # a long text is no path


# ---------------------------------------------------------------- what its columns are

def _has_header(rows: Sequence[Row], root: Path) -> bool:
    first = rows[0][1]
    if any(_names_video(field, root) for field in first):
        return False
    if any('/' in field for field in first):
        return False
    if any(meaning_of(field) or plain_name(field) in VAGUE for field in first):
        return True
    # Names that are not known, over a column of videos: _named_columns says which.
    body = [row for _, row in rows[1:N_LOOKED_AT]]
    if body and any(_names_video(field, root) for field in body[0]):
        return True
    is_repeated = any(row[place:place + 1] == [field] for row in body
                      for place, field in enumerate(first))
    return not is_repeated and not any(_is_there(field, root) for field in first) and any(
        all(len(row) > place and _is_there(row[place], root) for row in body)
        for place in range(len(first)) if body)


def _is_there(field: str, root: Path) -> bool:
    """True where something of this name is stored below `root`, whatever its extension."""
    field = field.replace('\\', '/')
    return bool(field) and (os.path.exists(root / field) or os.path.exists(root / f'{field}.hdf5')
                            or find_video(str(root / field)) is not None)


def _named_columns(path: Path, names: Sequence[str]) -> dict[str, int]:
    """{meaning: place} of the columns that a header names. Raises InputError."""
    columns: dict[str, int] = {}
    for place, name in enumerate(names):
        plain, meaning = plain_name(name), meaning_of(name)
        if not plain:
            raise InputError(f'{path}: column {place + 1} has no name; remove it, or name it in '
                             f'line 1 as one of {", ".join(COLUMNS)}')
        if plain in VAGUE:
            raise InputError(f'{path}: column {name!r} does not say whether it is in seconds or '
                             f'frames; call it {plain}_sec or {plain}_frame')
        if plain == 'youtube_id':
            raise InputError(f'{path}: has column {name!r}, as the lists of Kinetics have; give '
                             'their folder to util_scripts.kinetics_json, or rename it to path')
        if meaning is None:
            hint = did_you_mean(nearest(plain, chain.from_iterable(COLUMNS.values()), n=1,
                                        cutoff=0.7))
            raise InputError(f'{path}: column {name!r} is not known; {hint}{" " if hint else ""}'
                             f'rename it to one of {", ".join(COLUMNS)}, or remove it')
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
                         f'{", ".join(COLUMNS)}), and remove other columns')
    columns |= dict(zip(('label', 'group'), left))
    if len(left) > 1 and len(looked_at) > 2:
        labels, groups = ({row[place] for row in looked_at if len(row) > place} for place in left)
        if len(labels) == len(looked_at) > len(groups):
            raise InputError(f'{path}: no line 1 names its columns, and column {left[0] + 1}, '
                             'which would be the label, is another in each line; write a line 1, '
                             'such as path,label,group')
    return columns


# ---------------------------------------------------------------- what a line says

def malformed(path: Path, number: int, line: str, form: str) -> InputError:
    """That of `files`, of a list that the user wrote."""
    return files.malformed(path, number, line, form, is_published=False)


def _line(path: Path, row: Row, columns: dict[str, int], root: Path) -> Line:
    number, fields = row
    text = ','.join(fields)
    values = {name: fields[place] if name == 'path' else composed(fields[place])
              for name, place in columns.items() if place < len(fields)}
    if len(fields) > max(columns.values()) + 1 and any(fields[max(columns.values()) + 1:]):
        raise malformed(path, number, text, f'of the {len(columns)} columns that the list has')
    subset = None
    if 'subset' in columns:
        subset = subset_named(values.get('subset', ''))
        if subset is None:
            raise malformed(path, number, text, 'of subset train, val or test')
    # Test videos may have no label.
    if not values.get('path') or not values.get('label') and subset != 'testing':
        raise malformed(path, number, text, FORM if len(columns) < 4 else 'with path and label')
    return Line(number, _posix(path, number, values['path'], root), values.get('label', ''),
                values.get('group', ''), subset, _part(path, number, values))


def _posix(path: Path, number: int, name: str, root: Path) -> str:
    r"""`class\name.mp4` -> `class/name.mp4`, unless there is a file of that very name; and one name
    for what has several: `./a/x.mp4`, `a//x.mp4`, the whole path below `root`."""
    if re.match(r'[A-Za-z]:[\\/]', name):
        raise InputError(f'{path}, line {number}: {name!r} is a path on a drive of Windows; write '
                         'it relative to the folder of --video_path')
    if max(len(os.fsencode(part)) for part in re.split(r'[\\/]', name)) > MAX_NAME:
        raise malformed(path, number, f'{name[:MAX_NAME // 4]}...', 'the path of a file, whose '
                        f'names have at most {MAX_NAME} bytes')
    if '\\' in name and not os.path.exists(root / name) and find_video(str(root / name)) is None:
        name = name.replace('\\', '/')
    name = _as_stored(os.path.normpath(name), root)
    if is_video(os.path.basename(name)) and os.path.isfile(root / name):
        stem = os.path.splitext(name)[0]
        if find_video(str(root / stem)) != str(root / name):
            raise InputError(f'{path}, line {number}: {root / name} is not the only video there '
                             f'that is called {os.path.basename(stem)}, but for the extension; '
                             'remove the others')
    below = os.path.join(os.path.abspath(root), '')
    return name.removeprefix(below) if os.path.isabs(name) else name


def _as_stored(name: str, root: Path) -> str:
    """The name with accents as the file has them: as letters of their own after a copy of macOS."""
    if name.isascii():
        return name
    forms = product(*((composed(part), unicodedata.normalize('NFD', part))
                      for part in os.path.split(name)))
    names = (name, *(os.path.join(*form) for form in forms))
    return next((form for form in names if _is_there(video_stem(form), root)), name)


def _part(path: Path, number: int, values: dict[str, str]) -> Part | None:
    """The part of a video that a line names; None where it names none."""
    is_sec = 'start_sec' in values
    unit = 'sec' if is_sec else 'frame'
    texts = [values.get(f'{name}_{unit}', '') for name in ('start', 'end')]
    if not any(texts):
        return None
    try:
        begin, end = map(_seconds if is_sec else _whole, texts)
        fps = float(values['fps'].replace(',', '.')) if values.get('fps') else None
    except (ValueError, OverflowError):
        raise malformed(path, number, ','.join(values.values()),
                        'with numbers for start, end and fps') from None
    is_right = 0 <= begin < end < 1e9 if is_sec else 1 <= begin <= end < 1e9
    if not is_right or fps is not None and not 0 < fps < 1e4:
        raise malformed(path, number, ','.join(values.values()),
                        'a part of a video, which starts before it ends and whose frames are '
                        'counted from 1')
    return Part(begin, end, is_sec, fps)


def _seconds(text: str) -> float:
    """`75.5`, `75,5`, `1:15.5`, `0:01:15.5` -> 75.5. Raises ValueError."""
    *larger, sec = text.replace(',', '.').split(':')
    if len(larger) > 2 or not all(map(str.isdecimal, larger)) or larger and '-' in sec:
        raise ValueError(text)
    minutes = 0
    for unit in larger:
        minutes = 60 * minutes + int(unit)
    return 60 * minutes + float(sec)


def _whole(text: str) -> int:
    """`12`, or `12.0` as pandas writes it where other lines have none. Raises ValueError."""
    return int(re.sub('[.,]0$', '', text))
