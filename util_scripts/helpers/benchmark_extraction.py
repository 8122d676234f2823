"""How fast frames are extracted from videos: --parts extraction of util_scripts.benchmark."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from datasets.video import open_file, reason
from runtime.errors import InputError
from util_scripts.helpers.bench import Bench, moving_frames
from util_scripts.helpers.plain_extraction import check_commands, extract_plain
from util_scripts.helpers.text import n_of
from util_scripts.helpers.timing import Row, now_of_children, timed_row, times_ours
from util_scripts.helpers.video_io import QUALITY
from util_scripts.helpers.video_writing import write_avi
from util_scripts.helpers.videos import find_below

# Videos from this length on are long ones.
LONG_SEC = 60
# Synthetic videos to extract, two seconds each: how many, and how often each is repeated.
MADE_FRAMES, MADE_VIDEOS = 50, ((24, 1), (1, 60))
ROOT = Path(__file__).resolve().parents[2]


def check_extraction(bench: Bench) -> None:
    """Raise InputError where commands or videos are missing."""
    if bench.is_against_plain:
        check_commands()
    if bench.videos:
        by_length(find_below(bench.videos))


def extraction_rows(bench: Bench) -> Iterator[Row]:
    """From videos to folders of jpg frames; alternately ffprobe and ffmpeg for each video."""
    jobs: dict[str, Callable[[list[Path], Path], None]] = {'ours': _extract_ours}
    if bench.is_against_plain:
        jobs['plain'] = lambda links, dst_path: extract_plain(links, dst_path, QUALITY)
        # The 2020 code left the quality to ffmpeg, which makes much smaller files.
        jobs['plain, without -q:v'] = extract_plain
    with tempfile.TemporaryDirectory(prefix='benchmark_') as temporary:
        folder = Path(temporary)
        videos = find_below(bench.videos) if bench.videos else make_videos(folder)
        for path in videos:
            path.read_bytes()  # so that no later reader is the first
        for kind, some in by_length(videos).items():
            links = _link(some, folder / kind / 'class')
            title = n_of(len(links), f'{kind} video')
            yield from _extraction_rows(title, links, jobs, folder / 'frames', bench.seconds)


def _extraction_rows(title: str, links: list[Path],
                     jobs: dict[str, Callable[[list[Path], Path], None]], dst_path: Path,
                     seconds: float) -> list[Row]:
    times: dict[str, list[Any]] = {name: [] for name in jobs}
    sizes: dict[str, list[int]] = {}
    end = time.monotonic() + seconds
    while not sizes or time.monotonic() < end:
        for name, job in jobs.items():
            begin = now_of_children()
            job(links, dst_path)
            times[name].append(now_of_children() - begin)
            sizes[name] = [path.stat().st_size for path in dst_path.rglob('*.jpg')]
            shutil.rmtree(dst_path, ignore_errors=True)
    median = {name: np.median(rows, axis=0) for name, rows in times.items()}
    rows = []
    for name, passed in median.items():
        if not sizes[name]:
            raise InputError(f'{title}: no frame came out of them; give others')
        note = (f'{len(sizes[name])} frames of {np.mean(sizes[name]) / 1e3:.1f} kB, '
                f'{len(sizes[name]) / passed[0]:.0f} a second')
        if name != 'ours':
            note = f'{times_ours(passed, median["ours"])}; {note}'
        rows.append(timed_row('extraction', f'{title}: {name}', passed / len(links), 'video', note))
    return rows


def _extract_ours(links: Sequence[Path], dst_path: Path) -> None:
    done = subprocess.run([sys.executable, '-m', 'util_scripts.generate_video_jpgs',
                           str(links[0].parent.parent), str(dst_path), 'kinetics'],
                          cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: some video is damaged
        raise InputError(done.stderr.removeprefix('error: '))


def make_videos(folder: Path) -> list[Path]:
    """Paths of synthetic videos in the folder."""
    rng = np.random.default_rng(0)
    paths: list[Path] = []
    for n_videos, n_times in MADE_VIDEOS:
        for _ in range(n_videos):
            paths.append(folder / f'{len(paths)}.avi')
            write_avi(paths[-1], n_times * list(moving_frames(MADE_FRAMES, rng)))
    return paths


def by_length(videos: Sequence[Path]) -> dict[str, list[Path]]:
    """{'short' or 'long': paths} of videos. Raises InputError for one that cannot be opened."""
    kinds: dict[str, list[Path]] = {}
    for path in videos:
        try:
            with open_file(path) as container:
                is_long = (container.duration or 0) / av.time_base >= LONG_SEC
        except av.error.FFmpegError as error:
            raise InputError(f'{path}: cannot be opened: {reason(error)}; leave it out') from None
        kinds.setdefault('long' if is_long else 'short', []).append(path)
    return kinds


def _link(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Links to files, in a folder of their own: names may be the same in several folders."""
    folder.mkdir(parents=True)
    links = [folder / f'{i:05d}{path.suffix}' for i, path in enumerate(paths)]
    for link, path in zip(links, paths):
        link.symlink_to(path)
    return links
