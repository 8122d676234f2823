"""Words and names as they are printed."""

from collections.abc import Collection

from runtime.names import did_you_mean, nearest


def n_of(number: int, noun: str) -> str:
    """1 video, 2 videos, 2 processes."""
    plural = noun + ('es' if noun.endswith('s') else 's')
    return f'{number} {noun if number == 1 else plural}'


def nearest_or_all(name: str, names: Collection[str]) -> str:
    """The end of an error about a name that is none of `names`: those that are nearest, or all of
    a few."""
    if near := nearest(name, names):
        return f'; {did_you_mean(near)}'
    shown = list(names)[:8]
    return f'; there are {", ".join(shown)}{" ..." if len(names) > len(shown) else ""}'
