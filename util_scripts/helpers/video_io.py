"""From the frames of a video to JPEG images, at the video's own rate or another.

    with Video('a.mp4') as video:
        for data in jpegs(video, size=240, quality=6):
            ...
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from heapq import heappop, heappush
from itertools import chain, islice
from typing import Any

import av

from datasets.scaling import DEFAULT_FPS, Scaler
from datasets.video import Video

# Some AVI files mark frames in the order of decoding: time stamps are sorted over so many frames.
REORDERED_FRAMES = 4
# A frame that begins so little later, as a part of the time between two frames, is taken already:
# time stamps are rounded, and at half the rate that must still make every second frame.
SOON = 0.4
# A longer wait for the next frame is a broken clock and no still picture.
MAX_STILL_SEC = 60
# Of JPEG images, as FFmpeg's -q:v: 1 (best) to 31.
QUALITY = 6
# Frames that a thread gets at once: handing them over one by one would take a tenth of the time.
CHUNK = 4


# ---------------------------------------------------------------- frame rates

def frames_at(video: Video, fps: float | None = None,
              are_held: bool = False) -> Iterator[av.VideoFrame]:
    """Frames of a Video: each once, or resampled to `fps` a second.

    are_held: whether they are held on to while others are decoded

    Resampling repeats frames or leaves some out, by their time stamps. Raises VideoError where no
    frame decodes at all.
    """
    frames = video.frames()
    if fps is None and not are_held:
        return chain(map(video.kept, islice(frames, 1)), frames)
    kept = map(video.kept, frames)
    if fps is None:
        return kept
    stamped = ((frame.time, frame) for frame in kept)
    return resample(steady_times(stamped, 1 / video.fps), fps, 1 / video.fps)


def steady_times(stamped: Iterable[tuple[float | None, Any]],
                 frame_sec: float) -> Iterator[tuple[float, Any]]:
    """(seconds or None, frame) pairs -> pairs whose seconds begin at 0 and always increase.

    Frames come in the order shown, whatever their time stamps say, so they take the stamps in
    ascending order. One that is missing, does not increase or jumps counts as `frame_sec` later.
    """
    def pairs() -> Iterator[tuple[float, Any]]:
        stamps: list[float] = []
        frames: deque[Any] = deque()
        newest = -frame_sec
        for stamp, frame in stamped:
            newest = newest + frame_sec if stamp is None else stamp
            heappush(stamps, newest)
            frames.append(frame)
            if len(frames) > REORDERED_FRAMES:
                yield heappop(stamps), frames.popleft()
        while frames:
            yield heappop(stamps), frames.popleft()

    sec, last_stamp = 0.0, None
    for stamp, frame in pairs():
        if last_stamp is not None:
            step = stamp - last_stamp
            sec += step if 0 < step <= MAX_STILL_SEC else frame_sec
        last_stamp = stamp
        yield sec, frame


def resample(timed: Iterable[tuple[float, Any]], fps: float,
             frame_sec: float) -> Iterator[Any]:
    """(seconds, frame) pairs, `frame_sec` apart as a rule -> frames, `fps` a second.

    Frame k of the result is what is on the screen at k / fps, or will be very soon.
    """
    shown, shown_sec, n_shown = None, 0.0, 0
    soon_sec = SOON * min(frame_sec, 1 / fps)
    for sec, frame in timed:
        while shown is not None and n_shown / fps + soon_sec < sec:
            yield shown
            n_shown += 1
        shown, shown_sec = frame, sec
    if shown is None:
        return
    for _ in range(n_shown, max(1, round((shown_sec + frame_sec) * fps))):
        yield shown


# ---------------------------------------------------------------- images

class JpegEncoder:
    """Frames of one size, full-range 4:2:0 -> JPEG bytes, quality 1 (best) to 31 throughout."""

    def __init__(self, quality: int) -> None:
        self._quality, self._n_frames = quality, 0
        self._codec: Any = None

    def __call__(self, frame: Any) -> bytes:
        if self._codec is None:
            self._codec = self._build(frame)
        frame.pts, frame.time_base, frame.pict_type = self._n_frames, self._codec.time_base, 0
        self._n_frames += 1
        return b''.join(bytes(packet) for packet in self._codec.encode(frame))

    def _build(self, frame: av.VideoFrame) -> Any:
        codec: Any = av.CodecContext.create('mjpeg', 'w')
        codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, 'yuvj420p'
        codec.time_base = Fraction(1, DEFAULT_FPS)
        codec.thread_count = 1  # more would hold frames back
        # Without qscale the encoder looks first at how hard a picture is, and then may not choose.
        codec.options = {'flags': '+qscale', 'qmin': str(self._quality),
                         'qmax': str(self._quality)}
        return codec


def jpegs(video: Video, *, size: int, quality: int, fps: float | None = None,
          n_threads: int = 1) -> Iterator[bytes]:
    """JPEG bytes of each frame of a Video: short side `size` pixels, resampled where `fps` is set.

    With several threads these scale and encode beside the one that decodes; the bytes are the
    same. Raises VideoError where no frame decodes.
    """
    frames = frames_at(video, fps, are_held=n_threads > 1)
    if n_threads > 1:
        return _jpegs_by_threads(frames, video.pixel_aspect, size, quality, n_threads)
    return _jpegs(frames, Scaler(size, video.pixel_aspect), JpegEncoder(quality))


def _jpegs(frames: Iterable[av.VideoFrame], scale: Scaler,
           encode: JpegEncoder) -> Iterator[bytes]:
    last, data = None, b''
    for frame in frames:
        if frame is not last:  # resampling repeats frames
            last, data = frame, encode(scale(frame))
        yield data


def _jpegs_by_threads(frames: Iterator[av.VideoFrame], pixel_aspect: Fraction | int, size: int,
                      quality: int, n_threads: int) -> Iterator[bytes]:
    """`_jpegs` in order; each thread has a scaler and an encoder while it does some frames."""
    free = [(Scaler(size, pixel_aspect), JpegEncoder(quality)) for _ in range(n_threads)]

    def images(some: list[av.VideoFrame]) -> list[bytes]:
        tools = free.pop()
        try:
            return list(_jpegs(some, *tools))
        finally:
            free.append(tools)

    running: deque[Future[list[bytes]]] = deque()
    with ThreadPoolExecutor(n_threads) as threads:
        for number, some in enumerate(iter(lambda: list(islice(frames, CHUNK)), [])):
            if number == 0:
                for scale, _ in free:  # all images have the size of the first
                    scale.fit(some[0])
            running.append(threads.submit(images, some))
            if len(running) > 2 * n_threads:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
