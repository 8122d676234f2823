"""Frames written as video files."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from datasets.scaling import DEFAULT_FPS
from datasets.video import reason
from runtime.errors import InputError

CLOCK_HZ = 90_000  # units of the time stamps


def write_avi(path: Path, frames: Sequence[np.ndarray], fps: int = DEFAULT_FPS) -> None:
    """Write T frames, (H, W, 3) uint8 each, as MPEG-4 in an AVI; the same ones make the same
    bytes."""
    with av.open(str(path), 'w', options={'fflags': '+bitexact'}) as container:
        # The finest quantiser everywhere: blocks that blur with motion would be a hint in a frame.
        stream: Any = container.add_stream('mpeg4', rate=Fraction(fps),
                                           options={'qmin': '1', 'qmax': '2', 'flags': '+bitexact'})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = 'yuv420p', 10_000_000
        stream.thread_count = 1  # threads cut a frame into slices, and other machines into others
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())


def write_mp4(path: Path, pictures: Iterable[tuple[float, np.ndarray]], fps: float) -> None:
    """Write (begin_sec, uint8 (H, W, 3)) as H.264, each picture at its time. Raises InputError.

    fps: average, for the encoder to plan by
    """
    try:
        with av.open(str(path), 'w', format='mp4') as container:
            stream: Any = container.add_stream(
                'libx264', rate=Fraction(fps).limit_denominator(1001), options={'crf': '20'})
            stream.pix_fmt = 'yuv420p'
            stream.codec_context.time_base = Fraction(1, CLOCK_HZ)
            last_pts = -1
            for begin_sec, picture in pictures:
                # 4:2:0 colours come a 2x2 block each.
                height, width = (side - side % 2 for side in picture.shape[:2])
                if last_pts < 0:
                    stream.height, stream.width = height, width
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(picture[:height, :width]), format='rgb24')
                last_pts = frame.pts = max(round(begin_sec * CLOCK_HZ), last_pts + 1)
                frame.time_base = Fraction(1, CLOCK_HZ)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f'{path}: cannot be written: {reason(error)}; give another '
                         'destination') from None
