"""Words and names as they are printed."""

import difflib
from collections.abc import Collection

from runtime.output import printable

__all__ = ['n_of', 'nearest', 'printable']


def n_of(number: int, noun: str) -> str:
    """1 video, 2 videos, 2 processes."""
    plural = noun + ('es' if noun.endswith('s') else 's')
    return f'{number} {noun if number == 1 else plural}'


def nearest(name: str, names: Collection[str]) -> str:
    """The end of an error about a name that is none of `names`: those that are nearest, or all of
    a few."""
    lower = {known.lower(): known for known in names}
    near = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3)]
    if near:
        return f'; did you mean {" or ".join(near)}?'
    shown = list(names)[:8]
    return f'; there are {", ".join(shown)}{" ..." if len(names) > len(shown) else ""}'
