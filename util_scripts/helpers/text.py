"""Words and names as they are printed."""

import sys


def n_of(number: int, noun: str) -> str:
    """1 video, 2 videos, 2 processes."""
    plural = noun + ('es' if noun.endswith('s') else 's')
    return f'{number} {noun if number == 1 else plural}'


def printable(text: object) -> str:
    """`text` as any terminal takes it: file names may hold bytes that are no UTF-8."""
    encoding = sys.stdout.encoding or 'utf-8'
    return str(text).encode(encoding, 'backslashreplace').decode(encoding)
