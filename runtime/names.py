"""Names that are not known, and those that may have been meant."""

import difflib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

MAX_COMPARED = 10_000  # names in a folder, which takes a second


def nearest(name: str, names: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """At most `n` of the names, the likest first, upper or lower case aside; none that is less
    like than `cutoff`, of 0 to 1."""
    lower = {known.lower(): known for known in names}
    return [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n, cutoff)]


def did_you_mean(near: Collection[str]) -> str:
    """The question for an error, '' where no name is near."""
    return f'did you mean {" or ".join(near)}?' if near else ''


def meant_file(path: Path) -> str:
    """The question for an error about a file that is not there, '' where none in its folder has a
    name that is near."""
    try:
        names = os.listdir(path.parent)[:MAX_COMPARED]
    except (OSError, ValueError):  # what no path can be
        return ''
    near = nearest(path.name, names, n=1)
    return did_you_mean([str(path.with_name(name)) for name in near])
