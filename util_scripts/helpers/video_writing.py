"""Frames written as video files."""

import errno
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from datasets.scaling import DEFAULT_FPS
from datasets.video import open_file, reason

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


def write_mp4(path: Path, pictures: Iterable[tuple[float, np.ndarray]], fps: float,
              sound_path: Path | None = None) -> str | None:
    """Write (begin_sec, uint8 (H, W, 3)) as H.264, each picture at its time. Raises OSError.

    fps:        average, for the encoder to plan by
    sound_path: a video whose sound is taken, if it has some

    Returns why sound is missing or ends early, None where all is there.
    """
    try:
        with (av.open(str(path), 'w', format='mp4') as container,
              Sound(sound_path, container) as sound):
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
                sound.mux_until(begin_sec)
            container.mux(stream.encode())
            sound.mux_until(float('inf'))
    except (av.error.FFmpegError, OSError) as error:
        raise OSError(errno.EIO, reason(error)) from None
    return sound.trouble


class Sound:
    """The first sound of a video file, from the video's first picture on, as part of another file:
    its packets as they are, or as AAC where MP4 has no such sound.

    trouble: why it is missing or ends early, None for nothing
    """

    COPIED = {'aac', 'mp3', 'ac3', 'eac3', 'opus', 'flac', 'alac'}

    def __init__(self, path: Path | None, container: Any) -> None:
        self._container = container
        self._packets: Iterator[tuple[float, Any]] = iter(())
        self._next: tuple[float, Any] | None = None
        self._input: Any = None
        self.trouble: str | None = None
        if path is None:
            return
        self._input = open_file(path)
        if self._input.streams.audio:
            audio, video = self._input.streams.audio[0], self._input.streams.video[0]
            begin_sec = float((video.start_time or 0) * video.time_base)
            is_copied = audio.codec_context.name in self.COPIED
            stream = (container.add_stream_from_template(audio) if is_copied else
                      container.add_stream('aac', rate=audio.rate,
                                           layout='mono' if audio.channels == 1 else 'stereo'))
            make = self._copied if is_copied else self._encoded
            self._packets = make(audio, stream, begin_sec)

    def __enter__(self) -> 'Sound':
        return self

    def __exit__(self, *_: object) -> None:
        if self._input is not None:
            self._input.close()

    def mux_until(self, sec: float) -> None:
        """Put what begins up to then into the file, which interleaves it with the pictures."""
        while True:
            if self._next is None:
                try:
                    self._next = next(self._packets, None)
                except av.error.FFmpegError as error:
                    self.trouble, self._packets = reason(error), iter(())
            if self._next is None or self._next[0] > sec:
                return
            self._container.mux(self._next[1])
            self._next = None

    @staticmethod
    def _copied(audio: Any, stream: Any, begin_sec: float) -> Iterator[tuple[float, Any]]:
        shift = round(begin_sec / audio.time_base)
        for packet in audio.container.demux(audio):
            if packet.dts is None or packet.pts is None or packet.pts < shift:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            begin = float(packet.pts * audio.time_base)
            packet.stream = stream
            yield begin, packet

    @staticmethod
    def _encoded(audio: Any, stream: Any, begin_sec: float) -> Iterator[tuple[float, Any]]:
        shift = round(begin_sec / audio.time_base)
        resampler = av.AudioResampler('fltp', stream.layout, stream.rate)
        begin = 0.0
        for frame in audio.container.decode(audio):
            if frame.pts is None or frame.pts < shift:
                continue
            frame.pts -= shift
            begin = frame.time
            for part in resampler.resample(frame):
                for packet in stream.encode(part):
                    yield begin, packet
        for packet in stream.encode():
            yield begin, packet
