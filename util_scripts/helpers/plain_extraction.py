"""Frames of videos the plain way, as the 2020 code had them: ffprobe, then ffmpeg, for each video.

What the speed of extraction is measured against:

    python -m util_scripts.benchmark --parts extraction --against_plain
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtime.errors import InputError
from util_scripts.helpers.jobs import n_processors


def check_commands() -> None:
    """Raise InputError where a command is not on the PATH."""
    missing = [name for name in ('ffprobe', 'ffmpeg') if shutil.which(name) is None]
    if missing:
        raise InputError(f'--against_plain needs {" and ".join(missing)} on the PATH for '
                         'extraction: install FFmpeg, or drop the flag')


def extract_plain(videos: Iterable[Path], dst_path: Path, quality: int | None = None) -> None:
    """Write dst_path/{name of the video}/image_%05d.jpg, short side 240, on all processors.

    quality: ffmpeg's -q:v; None for what it does by itself. A video that fails is left out.
    """
    # Threads that wait for processes, as joblib's did.
    with ThreadPoolExecutor(n_processors()) as threads:
        for _ in threads.map(lambda video: _extract(video, dst_path / video.name, quality),
                             videos):
            pass


def _extract(video: Path, folder: Path, quality: int | None) -> None:
    found = _run('ffprobe', '-v', 'error', '-select_streams', 'v:0', '-of',
                 'default=noprint_wrappers=1:nokey=1', '-show_entries',
                 'stream=width,height,avg_frame_rate,duration', video).split()
    if len(found) < 4:
        return
    width, height = int(found[0]), int(found[1])
    os.makedirs(folder)
    options = [] if quality is None else ['-q:v', str(quality)]
    _run('ffmpeg', '-i', video, '-vf', 'scale=-1:240' if width > height else 'scale=240:-1',
         '-threads', '1', *options, folder / 'image_%05d.jpg')


def _run(*command: str | Path) -> str:
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True).stdout
