"""Events: from the scores of windows to what happens from when to when.

    finder = EventFinder(class_names, Rules())
    for window in windows:
        for kind, event in finder.add(window.begin_sec, window.end_sec, window.scores):
            ...  # 'begin' as soon as an event is one, 'end' when it is over
    rest = finder.finish()

Scores come window by window and are forgotten again, so that a stream may go on for days.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any, Literal

import numpy as np

# Times are rounded to milliseconds; what is nearer than that is at the same time.
SAME_SEC = 0.0015
LOW_SHARE = 0.8  # of the threshold, where no lower one is given


@dataclass(frozen=True)
class Rules:
    """When scores are an event.

    threshold:     it has a window that scores at least so much
    low_threshold: and lasts while scores are at least this (hysteresis)
    smooth:        scores are averaged over so many neighbouring windows, an odd number
    min_sec:       shorter ones are none
    max_gap_sec:   lower scores for so long do not end it
    none_class:    a class whose time is nothing's, such as "background"
    """

    threshold: float = 0.5
    low_threshold: float = 0.5 * LOW_SHARE
    smooth: int = 1
    min_sec: float = 0.0
    max_gap_sec: float = 0.5
    none_class: str | None = None


@dataclass(frozen=True)
class Event:
    """A class from begin to end; `score` is the highest that windows have, smoothed, and `peak_sec`
    the middle of the window that has it."""

    label: str
    begin_sec: float
    end_sec: float
    peak_sec: float
    score: float

    def as_json(self) -> dict[str, Any]:
        """{'label', 'begin_sec', 'end_sec', 'peak_sec', 'score'}, rounded."""
        return {name: value if name == 'label' else round(value, 6 if name == 'score' else 3)
                for name, value in asdict(self).items()}


Note = tuple[Literal['begin', 'end'], Event]


@dataclass
class _Run:
    """Scores of one class that are not below the low threshold, gaps included."""

    event: Event
    has_peak: bool = False
    is_told: bool = False


class EventFinder:
    """Events of all classes, window by window; see the module."""

    def __init__(self, class_names: Sequence[str], rules: Rules) -> None:
        self._rules, self._names = rules, class_names
        self._runs: dict[int, _Run] = {}
        # (begin, end, scores) of windows: those that wait for the ones after them, and as many
        # before as are smoothed with them.
        self._windows: deque[tuple[float, float, np.ndarray]] = deque()
        self._n_decided = 0  # of those
        self._reach = rules.smooth // 2
        self._left_edge: float | None = None

    def add(self, begin_sec: float, end_sec: float, scores: Any) -> list[Note]:
        """What a window says, which begins after those before it; scores: (n_classes,) in 0...1.

        It is decided upon when the window after it, and those that it is smoothed with, are there.
        """
        self._windows.append((begin_sec, end_sec, np.asarray(scores, dtype=np.float64)))
        notes: list[Note] = []
        while self._n_decided + max(1, self._reach) < len(self._windows):
            notes += self._decide()
        return notes

    def finish(self) -> list[Note]:
        """What is left: the stream has ended, or is interrupted."""
        notes: list[Note] = []
        while self._n_decided < len(self._windows):
            notes += self._decide()
        for number in list(self._runs):
            notes += self._close(number)
        self._windows.clear()
        self._n_decided, self._left_edge = 0, None
        return notes

    def _decide(self) -> Iterator[Note]:
        """The next window, by its own scores and its neighbours'."""
        place, rules = self._n_decided, self._rules
        begin_sec, end_sec, _ = self._windows[place]
        span = self._span(place)
        first, last = max(0, place - self._reach), min(len(self._windows), place + self._reach + 1)
        scores = np.mean([self._windows[i][2] for i in range(first, last)], axis=0)
        yield from self._close_before(span[0])
        for number in np.flatnonzero(scores >= rules.low_threshold).tolist():
            if self._names[number] != rules.none_class:
                yield from self._extend(number, span, (begin_sec + end_sec) / 2,
                                        float(scores[number]))
        yield from self._close_before(span[1])  # nothing begins sooner
        self._n_decided += 1
        while self._n_decided > self._reach:
            self._windows.popleft()
            self._n_decided -= 1

    def _span(self, place: int) -> tuple[float, float]:
        """The time that a window stands for: up to the middle between it and its neighbours', but
        its own where there is a hole between them."""
        begin_sec, end_sec, _ = self._windows[place]
        left = begin_sec if self._left_edge is None else self._left_edge
        right, self._left_edge = end_sec, None
        if place + 1 < len(self._windows):
            next_begin, next_end, _ = self._windows[place + 1]
            if next_begin - end_sec <= end_sec - begin_sec + SAME_SEC:
                right = self._left_edge = (begin_sec + end_sec + next_begin + next_end) / 4
        return left, right

    def _extend(self, number: int, span: tuple[float, float], middle_sec: float, score: float
                ) -> Iterator[Note]:
        run = self._runs.get(number)
        if run is None:
            run = self._runs[number] = _Run(Event(self._names[number], *span, middle_sec, score))
        run.event = replace(run.event, end_sec=span[1])
        if score > run.event.score:
            run.event = replace(run.event, peak_sec=middle_sec, score=score)
        run.has_peak |= score >= self._rules.threshold
        length_sec = span[1] - run.event.begin_sec + SAME_SEC
        if run.has_peak and not run.is_told and length_sec >= self._rules.min_sec:
            run.is_told = True
            yield 'begin', run.event

    def _close_before(self, sec: float) -> Iterator[Note]:
        """End what would have too long a gap if it went on then."""
        for number in list(self._runs):
            if sec - self._runs[number].event.end_sec > self._rules.max_gap_sec + SAME_SEC:
                yield from self._close(number)

    def _close(self, number: int) -> Iterator[Note]:
        run = self._runs.pop(number)
        if run.is_told:
            yield 'end', run.event


def finished(notes: Iterable[Note]) -> list[Event]:
    """The events that are over."""
    return [event for kind, event in notes if kind == 'end']


def in_order(events: Iterable[Event]) -> list[Event]:
    """By their begin, of equal ones the surest first."""
    return sorted(events, key=lambda event: (event.begin_sec, -event.score))


def none_of_them(events: Iterable[Event], end_sec: float) -> list[tuple[float, float]]:
    """(begin, end) of the time from 0 to `end_sec` in which there is no event."""
    free, begin = [], 0.0
    for event in in_order(events):
        if event.begin_sec - begin > SAME_SEC:
            free.append((begin, event.begin_sec))
        begin = max(begin, event.end_sec)
    return free + ([(begin, end_sec)] if end_sec - begin > SAME_SEC else [])


# ---------------------------------------------------------------- how they are written

def event_lines(events: Sequence[Event], end_sec: float) -> list[str]:
    """   0.00 -    3.20 s  0.912 run  (peak at 1.28 s), in the order of time, and the time between.
    """
    rows = [(event.begin_sec, event.end_sec, f'{event.score:.3f} {event.label}  (peak at '
             f'{event.peak_sec:.2f} s)') for event in events]
    rows += [(*times, '      none of them') for times in none_of_them(events, end_sec)]
    return [f'    {begin:7.2f} - {end:7.2f} s  {said}' for begin, end, said in sorted(rows)]


def as_webvtt(events: Sequence[Event]) -> str:
    """Subtitles, as WebVTT has them (W3C, "WebVTT: The Web Video Text Tracks Format")."""
    # An empty line in a label would end its cue.
    cues = [f'{_vtt_time(event.begin_sec)} --> {_vtt_time(event.end_sec)}\n'
            f'{" ".join(escape(event.label, quote=False).split())} ({event.score:.2f})\n'
            for event in events]
    return '\n'.join(['WEBVTT\n', *cues])


def _vtt_time(sec: float) -> str:
    """3661.25 -> 01:01:01.250"""
    milliseconds = round(sec * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f'{hours:02}:{minutes:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}'
