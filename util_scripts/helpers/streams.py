"""Streams that do not end and do not wait: addresses, pipes and cameras, as frames of now.

    with Stream(opener, name, transform, every=1, n_held=64) as stream:
        for item in stream.items():
            ...  # (number of the unbroken run, Frame), or None where nothing has come for a while

A thread reads and decodes, so that the sender is never kept waiting; what is not taken in time is
dropped and counted. Memory holds `n_held` frames at the most, for however long it goes on.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av

from datasets.video import Video, VideoError, reason
from temporal_transforms import FullWindows
from util_scripts.helpers.addresses import PIPE
from util_scripts.helpers.video_io import MAX_STILL_SEC
from util_scripts.helpers.video_sources import Frame, Transform, transformed

# So long an address may take to answer, and a stream to send anything.
ANSWER_SEC = 10.0
IDLE_SEC = 1.0  # after which `items` says that nothing has come
FIRST_WAIT_SEC, LONGEST_WAIT_SEC = 0.25, 5.0  # between two tries to connect again
# RTSP by TCP: pictures are whole, and it passes firewalls.
OPTIONS = {'rtsp': {'rtsp_transport': 'tcp'}}


class LiveVideo(Video):
    """What comes from an address or the pipe; its errors are counted and not kept."""

    def __init__(self, address: str) -> None:
        self.n_errors = 0
        super().__init__(address)

    @staticmethod
    def _open(path: Any, options: dict[str, str] | None, container: str | None) -> Any:
        if path == PIPE:
            return av.open('pipe:0')
        scheme = path.partition('://')[0].lower()
        try:
            return av.open(path, options=OPTIONS.get(scheme, {}), timeout=ANSWER_SEC)
        except (av.error.ExitError, av.error.TimeoutError):
            raise VideoError(f'no answer within {ANSWER_SEC:g} s') from None

    @property
    def is_recording(self) -> bool:
        """True if it says how long it is, as a file on a server does: then it can wait."""
        return self._container.duration is not None

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decoded frames, up to the end or to an error of the connection, which is raised."""
        try:
            for packet in self._container.demux(self._stream):
                yield from self._decoded(packet)
        except (av.error.FFmpegError, OSError) as error:
            yield from self._decoded(None)  # what the decoder still holds
            is_silence = isinstance(error, (av.error.ExitError, av.error.TimeoutError))
            raise VideoError(f'nothing came for {ANSWER_SEC:g} s' if is_silence
                             else reason(error)) from None

    def _decoded(self, packet: Any) -> list[av.VideoFrame]:
        try:
            return self._stream.decode(packet)
        except (av.error.InvalidDataError, av.error.EOFError):
            self.n_errors += 1  # a packet was lost or cut: the next key frame mends it
            return []


@dataclass
class Counts:
    """frames: that were decoded; dropped: of these, those that were not taken in time;
    connections: how often the stream was opened."""

    frames: int = 0
    dropped: int = 0
    connections: int = 0


class Stream:
    """See the module.

    opener:        gives the Video, and raises VideoError
    transform:     what happens to the pixels of a frame
    every:         of so many frames, the first is given
    n_held:        frames that wait to be taken; when there are more, all of them are dropped
    keeps_all:     the sender waits instead
    reconnect_sec: so long a stream that was lost is tried again; 0: it is not
    say:           takes a line on what happens

    A stream that ends is lost: whether the sender is done cannot be told. A recording is neither
    dropped nor tried again.
    """

    def __init__(self, opener: Callable[[], Video], name: str, transform: Transform, *, every: int,
                 n_held: int, keeps_all: bool = False, reconnect_sec: float = 0.0,
                 say: Callable[[str], object] = lambda line: None) -> None:
        self._opener, self.name, self._transform, self._every = opener, name, transform, every
        self._n_held, self._keeps_all, self._say = n_held, keeps_all, say
        self._reconnect_sec = reconnect_sec
        self._held: deque[tuple[int, Frame]] = deque()
        self._changed = threading.Condition()
        self._is_over = self._is_stopped = False
        self._run = 0
        self._clock_sec = 0.0  # when the newest frame is shown, from the begin of the stream
        self._last_wall = 0.0
        self.begin_time = time.time()
        self.fps = 25.0
        self.counts = Counts()
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._read, name='stream', daemon=True)

    def __enter__(self) -> 'Stream':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        # It may wait for a pipe that says nothing, and ends with the process then.
        self._thread.join(timeout=1)

    def items(self) -> Iterator[tuple[int, Frame] | None]:
        """(number of the run, frame): frames of a run follow one another without a gap; None after
        each IDLE_SEC without one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._is_over, IDLE_SEC)
                item = self._held.popleft() if self._held else None
                self._changed.notify_all()
                if item is None and self._is_over:
                    return
            yield item

    # ---------------------------------------------------------------- the thread

    def _read(self) -> None:
        """Connect, read, and connect again."""
        lost_at, wait_sec = time.monotonic(), FIRST_WAIT_SEC
        while not self._is_stopped:
            n_before, is_recording = self.counts.frames, False
            try:
                with self._opener() as video:
                    is_recording = self._keeps_all or getattr(video, 'is_recording', False)
                    self.counts.connections += 1
                    self._take(video, is_recording)
                why = 'it ended'
            except (VideoError, av.error.FFmpegError, OSError) as error:
                why = reason(error)
            if self.counts.frames > n_before:
                lost_at, wait_sec = time.monotonic(), FIRST_WAIT_SEC
                if self._reconnect_sec and not is_recording and not self._is_stopped:
                    self._say(f'{self.name}: lost after {self._clock_sec:.1f} s ({why}); trying '
                              f'again for {self._reconnect_sec:g} s')
            self._run += 1
            is_given_up = time.monotonic() - lost_at >= self._reconnect_sec
            if is_recording or is_given_up or not self.counts.frames:
                self.failure = None if self.counts.frames else why
                if self._reconnect_sec and self.counts.frames and not is_recording:
                    self._say(f'{self.name}: not back after {self._reconnect_sec:g} s: taken for '
                              'ended')
                break
            time.sleep(wait_sec)
            wait_sec = min(2 * wait_sec, LONGEST_WAIT_SEC)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _take(self, video: Video, keeps_all: bool) -> None:
        """All frames of one connection."""
        kind: tuple[int, int] | None = None
        stamp: float | None = None
        self.fps = video.fps
        if self.counts.frames:
            self._say(f'{self.name}: back after {time.monotonic() - self._last_wall:.1f} s')
            self._clock_sec += time.monotonic() - self._last_wall
        for frame in video.frames():
            if self._is_stopped:
                return
            if kind != (frame.width, frame.height):  # in mid-stream, too
                kind = frame.width, frame.height
                pixels = transformed(self._transform, video.pixel_aspect)
            if stamp is not None:
                step = -1.0 if frame.time is None else frame.time - stamp
                self._clock_sec += step if 0 < step <= MAX_STILL_SEC else 1 / video.fps
            stamp = frame.time if frame.time is not None else stamp or 0.0
            self.counts.frames += 1
            self._last_wall = time.monotonic()
            if self.counts.frames % self._every == 1 % self._every:
                self._put(Frame(self.counts.frames, self._clock_sec, pixels(frame)), keeps_all)

    def _put(self, frame: Frame, keeps_all: bool) -> None:
        with self._changed:
            if keeps_all:
                self._changed.wait_for(lambda: len(self._held) < self._n_held or self._is_stopped)
            elif len(self._held) >= self._n_held:
                # All at once, so that a clip of frames that follow one another comes next.
                self.counts.dropped += self._every * len(self._held)
                self._held.clear()
                self._run += 1
            self._held.append((self._run, frame))
            self._changed.notify_all()


def unbroken_windows(items: Iterator[tuple[int, Frame] | None], size: int, stride: int
                     ) -> Iterator[Sequence[Frame] | None]:
    """Windows of `size` frames of one run, a new one each `stride` frames; None where `items` has
    None. What is left of a run is no window."""
    current, windows = None, FullWindows[Frame](size, stride)
    for item in items:
        if item is None:
            yield None
            continue
        run, frame = item
        if run != current:
            current, windows = run, FullWindows[Frame](size, stride)
        if window := windows.add(frame):
            yield window
