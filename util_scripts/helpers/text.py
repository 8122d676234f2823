"""Words and names as they are printed."""

import difflib
import sys
from collections.abc import Collection


def n_of(number: int, noun: str) -> str:
    """1 video, 2 videos, 2 processes."""
    plural = noun + ('es' if noun.endswith('s') else 's')
    return f'{number} {noun if number == 1 else plural}'


def printable(text: object) -> str:
    """`text` as any terminal takes it: file names may hold bytes that are no UTF-8."""
    encoding = sys.stdout.encoding or 'utf-8'
    return str(text).encode(encoding, 'backslashreplace').decode(encoding)


def nearest(name: str, names: Collection[str]) -> str:
    """The end of an error about a name that is none of `names`: those that are nearest, or all of
    a few."""
    lower = {known.lower(): known for known in names}
    near = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3)]
    if near:
        return f'; did you mean {" or ".join(near)}?'
    shown = list(names)[:8]
    return f'; there are {", ".join(shown)}{" ..." if len(names) > len(shown) else ""}'
