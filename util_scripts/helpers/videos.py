"""Video files by their names: which there are in a folder."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from datasets.video import VIDEO_EXTENSIONS
from runtime.errors import InputError
from runtime.output import to_stderr
from util_scripts.helpers.files import existing_folder


def is_video(name: str) -> bool:
    """True for the extension of a video; hidden files, such as macOS's `._a.mp4`, are none."""
    return not name.startswith('.') and os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def video_stem(name: str) -> str:
    """`a.b.avi` -> `a.b`; a name without a video's extension is left as it is."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_EXTENSIONS else name


# The folder in which the mirror of Kinetics has whole videos for some that are broken.
REPLACEMENT = 'replacement'

# Paths that a scan does not take, and why.
LeftOut = list[tuple[Path, str]]
# What no folder of videos has in it, and that of a training has.
OF_A_TRAINING = ('opts.json', 'train.log', '*.pth')
RESULTS = 'folders of a training\'s results'


# Folders that macOS, file servers and systems make beside what is a user's own.
OF_SYSTEMS = ('__MACOSX', '@eaDir', 'lost+found', '$RECYCLE.BIN', 'System Volume Information')


def is_shown(name: str) -> bool:
    """True unless a folder of this name is hidden, or one of a system."""
    return not name.startswith('.') and name not in OF_SYSTEMS


def is_shown_folder(path: Path) -> bool:
    return path.is_dir() and is_shown(path.name)


def holds_results(path: Path) -> bool:
    """True for the folder that a training wrote to, whose videos are none of the data."""
    return any(next(path.glob(pattern), None) for pattern in OF_A_TRAINING)


def below(folder: Path, is_wanted: Callable[[Path], bool], left_out: LeftOut,
          above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Paths that are wanted in a folder and in the folders in it: its own sorted, then theirs.

    Links are followed. What is not taken is added to `left_out`; what is wanted is not looked into.

    above: the folders above it, without links
    """
    above |= {folder.resolve()}
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        left_out.append((folder, 'folders that cannot be listed'))
        return
    wanted = [path for path in entries if is_wanted(path)]
    yield from wanted
    for path in sorted(set(entries) - set(wanted)):
        if not is_shown_folder(path):
            left_out.append((path, why_left_out(path)))
        elif path.resolve() in above:
            left_out.append((path, 'links in a circle'))
        elif holds_results(path):
            left_out.append((path, RESULTS))
        else:
            yield from below(path, is_wanted, left_out, above)


def why_left_out(path: Path) -> str:
    """Why a scan does not take something, as `report_left_out` counts it."""
    if path.is_symlink() and not path.exists():
        return 'dangling links'
    if path.name.startswith('.'):
        return 'hidden'
    if path.name in OF_SYSTEMS:
        return 'folders of a system'
    if path.is_dir():
        return 'folders inside of others'
    if not path.is_file():
        return 'that are no files'
    if is_video(path.name):
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
        to_stderr(f'{root}: not taken: {listed}')


def is_video_file(path: Path) -> bool:
    return is_video(path.name) and path.is_file()


def in_classes(root: Path, is_wanted: Callable[[Path], bool], left_out: LeftOut) -> Iterator[Path]:
    """As `below`, of the folders of classes in `root`. Raises InputError where it cannot be
    listed."""
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise InputError(f'{root}: cannot be listed: {error.strerror}; mend its permissions'
                         ) from None
    left_out += [(path, why_left_out(path)) for path in entries if not is_shown_folder(path)]
    for folder in filter(is_shown_folder, entries):
        if holds_results(folder):
            left_out.append((folder, RESULTS))
        else:
            yield from below(folder, is_wanted, left_out, frozenset({root.resolve()}))


def find_videos(dir_path: Path, *, has_labels: bool) -> list[Path]:
    """Paths of the videos, sorted: those of dir_path/label/, at any depth, or, without labels, of
    dir_path alone.

    Says in a line on stderr what else is there.
    Raises InputError where there are none.
    """
    dir_path = existing_folder(dir_path, 'the folder of the videos')
    left_out: LeftOut = []
    if has_labels:
        videos = list(in_classes(dir_path, is_video_file, left_out))
    else:
        videos = list(below(dir_path, lambda path: is_video_file(path) or is_shown_folder(path),
                            left_out))
        left_out += [(path, why_left_out(path)) for path in videos if path.is_dir()]
        videos = list(filter(is_video_file, videos))
    loose = sum(is_video_file(path) for path, _ in left_out)
    if not videos and loose:
        raise InputError(f'{dir_path}: no video in its label folders (dir_path/label/video), and '
                         f'{loose} in the folder itself: move them to a folder in it, one for each '
                         'label or one for all')
    if not videos:
        where = 'in its label folders (dir_path/label/video)' if has_labels else 'in it'
        raise InputError(f'{dir_path}: no video {where}; looked for {", ".join(VIDEO_EXTENSIONS)}: '
                         'check dir_path and the name of the data set')
    report_left_out(dir_path, left_out)
    return videos


def find_below(folder: Path) -> list[Path]:
    """Paths of the videos in a folder and those in it; says on stderr what else is there.

    Raises InputError where there are none.
    """
    folder = existing_folder(folder, 'a folder of videos').resolve()
    left_out: LeftOut = []
    videos = list(below(folder, is_video_file, left_out))
    if not videos:
        raise InputError(f'{folder}: no video in it or in its folders; check --videos')
    report_left_out(folder, left_out)
    return videos
