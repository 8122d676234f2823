"""Schemas: which kinds of values the fields of a file may have, checked before anything uses them.

    POSITION = fields({'epoch': whole(1), 'batch': whole(0)}, optional={'lr': NUMBER})
    POSITION(value)  # '' or what is wrong: '.batch is -1, not a whole number of at least 0'
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# A value -> '' where it is right, or else a path within it, and what is there and should be.
Check = Callable[[Any], str]
# A sentence shows no more of a value.
SHOWN_LENGTH = 60
# What a whole number of a file may be: columns and counters take no more.
MAX_WHOLE = 2 ** 63 - 1
UNPRINTABLE = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]')


def shown(value: Any) -> str:
    """A value in a sentence, its type where it is long or no plain one."""
    if value is None or type(value) in (bool, int, float, str):
        try:
            text = repr(value)
        except ValueError:  # an int of thousands of digits
            return 'a very large number'
        return text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + '...'
    return f'a value of type {type(value).__name__}'


def plain(accepts: Callable[[Any], bool], wanted: str) -> Check:
    """A value that `accepts` takes; `wanted` says in words what that is."""
    return lambda value: '' if accepts(value) else f' is {shown(value)}, not {wanted}'


def whole(low: int, high: int = MAX_WHOLE) -> Check:
    """An int of low...high, and no bool."""
    return plain(lambda value: type(value) is int and low <= value <= high,
                 f'a whole number of at least {low}' if high == MAX_WHOLE else
                 f'a whole number of {low} to {high}')


def whole_number(text: str) -> int | None:
    """The number of a text of plain digits, below 10 ** 18; None for any other text."""
    # int() takes other digits, blanks and _ too, and refuses thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) < len(str(MAX_WHOLE))):
        return None
    return int(text)


def is_number(value: Any) -> bool:
    """True for a finite float, or an int that is one, and no bool."""
    if type(value) is int:
        return abs(value) < 2 ** 1000
    return type(value) is float and math.isfinite(value)


TEXT = plain(lambda value: isinstance(value, str), 'a text')
# What is printed, and written as one line of tables: without line ends and control characters.
NAME = plain(lambda value: isinstance(value, str) and not UNPRINTABLE.search(value),
             'a text without line ends and control characters')
BOOL = plain(lambda value: isinstance(value, bool), 'true or false')
NUMBER = plain(is_number, 'a finite number')
REAL = plain(lambda value: type(value) in (int, float), 'a number')
OBJECT = plain(lambda value: isinstance(value, Mapping), 'a table of names and values')


def optional(check: Check) -> Check:
    """None, or what `check` takes."""
    return lambda value: '' if value is None else check(value)


def list_of(check: Check, *, is_unique: bool = False) -> Check:
    """A list or tuple of values that `check` takes each."""
    def check_list(value: Any) -> str:
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            return f' is {shown(value)}, not a list'
        for i, item in enumerate(value):
            if fault := check(item):
                return f'[{i}]{fault}'
        if is_unique and len(set(value)) < len(value):
            (twice, _), = Counter(value).most_common(1)
            return f' has {shown(twice)} twice'
        return ''
    return check_list


def row_of(*checks: Check) -> Check:
    """A list of as many values as there are checks, each as its check takes it."""
    def check_row(value: Any) -> str:
        if not isinstance(value, list) or len(value) != len(checks):
            return f' is {shown(value)}, not a list of {len(checks)}'
        return next((f'[{i}]{fault}' for i, (check, item) in enumerate(zip(checks, value))
                     if (fault := check(item))), '')
    return check_row


def mapping(keys: Check, values: Check) -> Check:
    """A dict whose keys and values these checks take."""
    def check_mapping(value: Any) -> str:
        if fault := OBJECT(value):
            return fault
        for key, item in value.items():
            if fault := keys(key):
                return f'{fault} (a name in it)'
            if fault := values(item):
                is_short = isinstance(key, str) and len(key) <= SHOWN_LENGTH
                return f'.{key if is_short else shown(key)}{fault}'
        return ''
    return check_mapping


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] = {}) -> Check:
    """A dict that has the required fields, and each of all these as its check takes it; fields of
    other names may be anything."""
    def check_fields(value: Any) -> str:
        if fault := OBJECT(value):
            return fault
        for name in required:
            if name not in value:
                return f'.{name} is missing'
        for name, check in {**required, **optional}.items():
            if name in value and (fault := check(value[name])):
                return f'.{name}{fault}'
        return ''
    return check_fields
