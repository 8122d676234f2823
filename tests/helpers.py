"""Files that the tests of several scripts need: videos made on the spot, and how a command ends."""

import importlib
import io
import os
import resource
import subprocess
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from runtime import errors

ROOT = Path(__file__).resolve().parent.parent


def grey_frames(levels, height=48, width=64):
    """Levels of brightness -> frames (T, H, W, 3) uint8, a plain grey each: it names the frame."""
    frames = np.asarray(levels, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(frames, (len(frames), height, width, 3))


def write_video(path, frames, *, fps=25, times=None, pixel_aspect=None, rotation=None,
                codec='mpeg4', gop_size=12, options=None, title=None):
    """Write frames (T, H, W, 3) uint8 as a video, in the container that the extension names.

    times:        time stamps in units of 1 / fps, one a frame; None for 0, 1, 2, ...
    pixel_aspect: width of a pixel by its height
    rotation:     degrees counterclockwise that a player has to turn it
    options:      of the encoder, {name: text}
    title:        of the file
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        if title is not None:
            container.metadata['title'] = title
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = 'yuv420p', 4_000_000
        stream.gop_size = gop_size
        if codec == 'libvpx':
            # Its threads wait for each other by spinning: for minutes where processors are busy.
            stream.codec_context.thread_count = 1
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
            frame.pts = number if times is None else times[number]
            frame.time_base = 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path, sec=0.5, rate=8000):
    """A file with nothing but silence in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=rate)
        silence = np.zeros((1, int(sec * rate)), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format='fltp', layout='mono')
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_short(path, ratio):
    """Keep the first part of a file, as a download that broke off."""
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * ratio)])


def run_script(name, *argv):
    """`python -m util_scripts.NAME` in this process: CompletedProcess with text output."""
    command = importlib.import_module(f'util_scripts.{name}').main
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        errors.run(command, list(map(str, argv)))
    return subprocess.CompletedProcess(name, ended.value.code or 0, out.getvalue(), err.getvalue())


@contextmanager
def files_of_at_most(n_bytes):
    """Within it no file becomes larger, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# Jobs for worker processes: here, where importing them takes no time.

def die_of_b(job):
    """The job in capitals; the job `b` is the end of its process."""
    if job == 'b':
        os._exit(1)
    return job.upper()


def fail(job):
    raise RuntimeError(f'bug in {job}')
