"""Windows of `predict` that are kept as they come, for a run that is stopped to go on with."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from features import is_packed, pack, unpack
from results import PartialResults
from runtime.schema import NUMBER, TEXT, fields, optional, row_of

WINDOW = fields({'video': TEXT, 'sec': row_of(NUMBER, NUMBER)})
END = fields({'video': TEXT, 'damage': optional(TEXT)})


def check_row(row: Any) -> str:
    """What is wrong with a row, which is a window, or says that there is no more of a video."""
    if is_packed(row):
        return WINDOW(row)
    return END(row)


class Window(NamedTuple):
    """segment: (first frame, last frame + 1); scores: (n_classes,) in 0...1."""

    segment: tuple[int, int]
    begin_sec: float
    end_sec: float
    scores: torch.Tensor


class KeptWindows:
    """All windows that are found, in {name of the output}.partial.*.jsonl, one line per window.

    output:   the file of results that it stands beside; None: nothing is kept
    settings: what scores depend on beside the videos, {name: value} as JSON has it
    """

    def __init__(self, output: Path | None, settings: dict[str, Any],
                 say: Callable[[str], object]) -> None:
        self._partial = (PartialResults(output.parent, output.name, settings, row=check_row)
                         if output is not None else None)
        self._rows = self._partial.read() if self._partial else {}
        if self._partial and self._rows:
            n_windows = sum('float32' in row for row in self._rows.values())
            say(f'{self._partial.pattern}: {n_windows} windows are taken over from a prediction '
                'that was not finished')
        elif self._partial and (others := self._partial.others()):
            say(others)

    def __enter__(self) -> 'KeptWindows':
        (self._partial or nullcontext()).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        (self._partial or nullcontext()).__exit__(*error)

    def of(self, path: Path) -> tuple[list[Window], dict[str, Any] | None]:
        """(the windows of a video that are kept, {'damage'} if they are all of it)."""
        windows: list[Window] = []
        while row := self._rows.get(f'{len(windows) + 1} {_stamped(path)}'):
            scores, segments = unpack(row)
            begin, end = segments[0].tolist()
            begin_sec, end_sec = row['sec']
            windows.append(Window((begin, end), begin_sec, end_sec, scores[0]))
        return windows, self._rows.get(f'end {_stamped(path)}')

    def add(self, path: Path, number: int, window: Window) -> None:
        """Keep window `number`, from 1, of a video."""
        if self._partial:
            row = pack(window.scores.float().unsqueeze(0), torch.tensor([window.segment]))
            self._partial.add(f'{number} {_stamped(path)}',
                              {'sec': [window.begin_sec, window.end_sec], **row})

    def end(self, path: Path, damage: str | None) -> None:
        """Keep that a video has no more windows."""
        if self._partial:
            self._partial.add(f'end {_stamped(path)}', {'damage': damage})

    def remove(self) -> None:
        """Delete what is kept: the output is complete."""
        if self._partial:
            self._partial.remove()


def _stamped(path: str | Path) -> str:
    """The path with size and time of the file, which is another when it changes."""
    try:
        stat = os.stat(path)
    except OSError:
        return str(path)
    return f'{stat.st_size} {stat.st_mtime_ns} {path}'
