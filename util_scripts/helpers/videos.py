"""Video files by their names: which there are in a folder."""

import os
from pathlib import Path

from datasets.video import VIDEO_EXTENSIONS
from runtime.errors import InputError
from util_scripts.helpers.files import existing_folder


def is_video(name: str) -> bool:
    """True for the extension of a video; hidden files, such as macOS's `._a.mp4`, are none."""
    return not name.startswith('.') and os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def video_stem(name: str) -> str:
    """`a.b.avi` -> `a.b`; a name without a video's extension is left as it is."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_EXTENSIONS else name


def find_videos(dir_path: Path, *, has_labels: bool) -> list[Path]:
    """Paths of the videos, sorted: those of dir_path/label/ or, without labels, of dir_path.

    Raises InputError where there are none.
    """
    dir_path = existing_folder(dir_path, 'the folder of the videos')
    try:
        folders = [dir_path]
        if has_labels:
            folders = sorted(path for path in dir_path.iterdir() if path.is_dir())
        videos = [path for folder in folders for path in sorted(folder.iterdir())
                  if is_video(path.name) and path.is_file()]
    except OSError as error:
        raise InputError(f'{error.filename}: cannot be listed: {error.strerror}; mend its '
                         'permissions') from None
    if not videos:
        where = 'in its label folders (dir_path/label/video)' if has_labels else 'in it'
        raise InputError(f'{dir_path}: no video {where}; looked for {", ".join(VIDEO_EXTENSIONS)}: '
                         'check dir_path and the name of the data set')
    return videos
