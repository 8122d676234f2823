"""Video files by their names: which there are in a folder."""

import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from datasets.video import VIDEO_EXTENSIONS
from runtime.errors import InputError
from util_scripts.helpers.files import existing_folder
from util_scripts.helpers.text import printable


def is_video(name: str) -> bool:
    """True for the extension of a video; hidden files, such as macOS's `._a.mp4`, are none."""
    return not name.startswith('.') and os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def video_stem(name: str) -> str:
    """`a.b.avi` -> `a.b`; a name without a video's extension is left as it is."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_EXTENSIONS else name


def why_left_out(path: Path, in_class: bool) -> str:
    """Why a scan does not take something, as `report_left_out` counts it.

    in_class: True for what lies in the folder of a class, False beside these folders
    """
    if path.is_symlink() and not path.exists():
        return 'dangling links'
    if path.name.startswith('.'):
        return 'hidden'
    if path.is_dir():
        return 'folders inside of others'
    if is_video(path.name) and not in_class:
        return 'videos in no folder of a class'
    return f'with extension {path.suffix}' if path.suffix else 'without extension'


def report_left_out(root: Path, left_out: Iterable[tuple[Path, str]]) -> None:
    """Say in one line on stderr what a scan of `root` has not taken: (path, why) pairs."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for path, why in left_out:
        counts[why] += 1
        examples.setdefault(why, path.name)
    if counts:
        listed = ', '.join(f'{n} {why} ({examples[why]}{", ..." if n > 1 else ""})'
                           for why, n in counts.most_common())
        print(printable(f'{root}: not taken: {listed}'), file=sys.stderr)


def find_videos(dir_path: Path, *, has_labels: bool) -> list[Path]:
    """Paths of the videos, sorted: those of dir_path/label/ or, without labels, of dir_path.

    Says in a line on stderr what else is there.
    Raises InputError where there are none.
    """
    dir_path = existing_folder(dir_path, 'the folder of the videos')
    left_out: list[tuple[Path, str]] = []
    videos: list[Path] = []
    try:
        folders = [dir_path]
        if has_labels:
            entries = sorted(dir_path.iterdir())
            folders = [path for path in entries if path.is_dir()]
            left_out += [(path, why_left_out(path, in_class=False)) for path in entries
                         if not path.is_dir()]
        for folder in folders:
            for path in sorted(folder.iterdir()):
                if is_video(path.name) and path.is_file():
                    videos.append(path)
                else:
                    left_out.append((path, why_left_out(path, in_class=True)))
    except OSError as error:
        raise InputError(f'{error.filename}: cannot be listed: {error.strerror}; mend its '
                         'permissions') from None
    if not videos:
        where = 'in its label folders (dir_path/label/video)' if has_labels else 'in it'
        raise InputError(f'{dir_path}: no video {where}; looked for {", ".join(VIDEO_EXTENSIONS)}: '
                         'check dir_path and the name of the data set')
    report_left_out(dir_path, left_out)
    return videos
