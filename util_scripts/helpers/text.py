"""Words and names as they are printed."""

from runtime.output import printable

__all__ = ['n_of', 'printable']


def n_of(number: int, noun: str) -> str:
    """1 video, 2 videos, 2 processes."""
    plural = noun + ('es' if noun.endswith('s') else 's')
    return f'{number} {noun if number == 1 else plural}'
