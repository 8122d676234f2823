"""Class names of released weights whose order is known for sure."""

from pathlib import Path


def kinetics_400() -> tuple[str, ...]:
    """The classes of Kinetics-400 in the order of the alphabet, which is that of the weights."""
    lines = Path(__file__).with_name('kinetics_400.txt').read_text(encoding='utf-8')
    return tuple(lines.splitlines())
