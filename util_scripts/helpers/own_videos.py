"""Your own videos: found in folders or a list, split by groups, and written as an annotation."""

import math
import os
import re
from argparse import Namespace
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from datasets.annotations import usual_path
from datasets.frame_folders import holds_frames, usual_name
from datasets.frames import READERS, FrameError, Hdf5Flow, JpgFrames
from datasets.video import VideoError, find_video, uneven_times
from opts import STORAGES
from runtime.errors import InputError
from runtime.output import note, printable, to_stderr, warn, wrote
from util_scripts.helpers.annotation_files import (check_labels, count_frames, first_frame,
                                                   missing_note, training, warn_of_some, write_json)
from util_scripts.helpers.files import existing_folder
from util_scripts.helpers.splits import Own, draw_subsets, fold_path, group_reader
from util_scripts.helpers.text import n_of
from util_scripts.helpers.video_lists import Line, Part, composed, read_list, subset_named
from util_scripts.helpers.videos import (LeftOut, in_classes, is_shown, is_shown_folder,
                                         is_video_file, report_left_out, video_stem)

# Clips of UCF-101 are called v_Biking_g05_c02: clip 2 of the recording g05 of that class.
UCF_GROUP = r'^(.*_g\d+)_c\d+$'
# So many files tell how a data set is stored.
N_LOOKED_AT = 1000
VAL_FRACTION = 0.2  # for validation, where neither the data nor a flag say otherwise
# Frames per second that a list says of a video file may be so far from its own, as rounded ones.
RATE_MARGIN = 0.01


def has_lists(listed: Iterable[Own]) -> bool:
    """True if any video has a list of labels."""
    return any(isinstance(video.label, list) for video in listed)


# ---------------------------------------------------------------- what there is

def find_listed(root: Path, video_type: str, group_of: Callable[[str], str],
                label_from: str = 'root') -> list[Own]:
    """Videos of a folder for each class, at any depth below it, or below a folder for each subset.
    Says in a line on stderr what else is there.

    label_from: 'root' takes the folder below the root for the class, 'parent' the video's own
    """
    left_out: LeftOut = []
    stems = Counter(stem_of(path.relative_to(root), video_type)
                    for path in in_classes(root, telling(video_type), left_out))
    twice = [stem for stem, n in stems.items() if n > 1]
    if twice:
        raise InputError(f'{root / twice[0].parent}: several files are called {twice[0].name}, but '
                         'for the extension; remove all but one')
    report_left_out(root, left_out)
    has_subsets = are_below_subsets(stems)
    listed = []
    for stem in sorted(stems):
        top, *folders = stem.parent.parts
        subset = subset_named(top) if has_subsets else None
        if subset is None:
            folders.insert(0, top)
        label = composed(folders[-1 if label_from == 'parent' else 0]) if folders else None
        listed.append(Own(str(stem), label, group_of(str(stem)), subset))
    if label_from == 'root' and not has_subsets:
        tell_of_deep(root, sorted(stems))
    return listed


def are_below_subsets(stems: Iterable[Path]) -> bool:
    """True where the folders below the root are subsets, as train and val, and folders of classes
    lie in these; only what is for testing may lie in none."""
    found = {(subset_named(stem.parts[0]), len(stem.parts) > 2) for stem in stems}
    is_deep = all(subset and (is_deep or subset == 'testing') for subset, is_deep in found)
    return is_deep and len({subset for subset, _ in found}) > 1


def tell_of_deep(root: Path, stems: Sequence[Path]) -> None:
    """Say in a line on stderr what the class is of videos that lie deeper than root/class/video,
    and, where all do, that the folder of the classes may lie there too."""
    deep = [stem for stem in stems if len(stem.parts) > 2]
    if not deep:
        return
    top, own = deep[0].parts[0], deep[0].parent.name
    cure = f'for {own} add --label_from parent'
    if len(deep) == len(stems):
        cure += f', or give {root / top} where that is the folder of the classes'
    to_stderr(f'{root}: {n_of(len(deep), "video")} lie deeper, such as {deep[0]}: their class is '
              f'{top}; {cure}')


def is_frames_folder(path: Path) -> bool:
    """True for a folder that holds a video's frames, rather than folders of more videos."""
    if not is_shown_folder(path):
        return False
    if (path / usual_name(1)).is_file():
        return True
    with os.scandir(path) as entries:
        return not any(entry.is_dir() and is_shown(entry.name) for entry in entries)


def telling(video_type: str) -> Callable[[Path], bool]:
    """What tells by its path if something is a video that is stored so."""
    told = {'jpg': is_frames_folder, 'video': is_video_file}
    suffix = READERS[STORAGES[video_type]].suffix
    return told.get(video_type) or (lambda path: path.suffix == suffix and path.is_file())


def stem_of(path: Path, video_type: str) -> Path:
    """What a video is called in annotations, by its path below the root."""
    if video_type == 'jpg':
        return path
    return path.with_name(video_stem(path.name) if video_type == 'video' else path.stem)


def read_listed(path: Path, root: Path, group_of: Callable[[str], str]) -> list[Own]:
    """Videos, or parts of videos, of a list; see video_lists. A label with | in it is a list."""
    listed = [from_line(line, group_of) for line in read_list(path, root)]
    labels: dict[Own, Own] = {}
    for video in listed:
        first = labels.setdefault(video._replace(label=None, group='', subset=None), video)
        if first is not video:
            several = sorted({*first.labels, *video.labels})
            more = '' if len(several) < 2 else f', or write {"|".join(several)} in one of them'
            raise InputError(f'{path}: lists {video.path} twice; remove a line{more}')
    if not listed:
        raise InputError(f'{path}: no videos in the list; write a line for each of them')
    group_of_path: dict[str, str] = {}
    for video in listed:
        if group_of_path.setdefault(video.path, video.group) != video.group:
            raise InputError(f'{path}: parts of {video.path} are in groups '
                             f'{group_of_path[video.path]} and {video.group}; give them one group')
    tell_of_torn_groups(path, listed)
    return listed


def tell_of_torn_groups(path: Path, listed: Sequence[Own]) -> None:
    """Warn of groups, such as the parts of a video, that the subsets of a list tear apart."""
    subsets: dict[str, set[str]] = defaultdict(set)
    for video in listed:
        if video.subset:
            subsets[video.group].add(video.subset)
    torn = [group for group, found in subsets.items() if len(found) > 1]
    if torn:
        warn(f'{path}: videos of one group are in several subsets, such as those of {torn[0]} in '
             f'{" and ".join(sorted(subsets[torn[0]]))}: a network is judged on what it has seen')


def from_line(line: Line, group_of: Callable[[str], str]) -> Own:
    stem = video_stem(line.path.removesuffix('.hdf5').rstrip('/'))
    label: str | list[str] | None = (split_labels(line.label) if '|' in line.label
                                     else line.label or None)
    return Own(stem, label, line.group or group_of(stem), line.subset, line.part)


def split_labels(text: str) -> list[str]:
    """'run | jump' -> ['run', 'jump'], each once; '|' -> []"""
    return list(dict.fromkeys(filter(None, map(str.strip, text.split('|')))))


def grouping(regex: str | None) -> Callable[[str], str]:
    """A function: path of a video -> its group; a video that does not match is one by itself.

    The group is what the regular expression's brackets match, or all of it.
    """
    try:
        pattern = re.compile(UCF_GROUP if regex is None else regex)
    except re.error as error:
        raise InputError(f'--by_group {regex}: not a regular expression ({error}); mend it, with '
                         '\\ before signs that are meant as they are') from None

    def group_of(path: str) -> str:
        match = pattern.search(path)
        return (match[1 if pattern.groups else 0] if match else None) or path
    return group_of


def detect_type(root: Path, paths: Sequence[str] | None = None, template: str | None = None
                ) -> str:
    """How the videos are stored: those of `paths` below `root`, or of the folders of classes."""
    entries: Iterable[Path]
    if paths is None:
        entries = in_classes(root, lambda path: type_of(path, template) is not None, [])
    else:
        entries = (Path(entry) for path in paths
                   for entry in (root / path, root / f'{path}.hdf5', find_video(str(root / path)))
                   if entry is not None)
    looked_at = [(kind, entry) for entry in islice(entries, N_LOOKED_AT)
                 if (kind := type_of(entry, template))]
    found = Counter(kind for kind, _ in looked_at)
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise nothing_found(root, paths, template)
    counts = ', '.join(f'{n} {kind}' for kind, n in found.most_common())
    if paths is None and (apart := kinds_apart(root, looked_at)):
        raise InputError(f'{root}: {counts} in it, each kind in a folder of its own; give '
                         f'{" or ".join(apart)}')
    raise InputError(f'{root}: {counts} in it; check the path, or say with --video_type which is '
                     'meant')


def kinds_apart(root: Path, found: Sequence[tuple[str, Path]]) -> list[str]:
    """The folder of each kind, where all of them are folders of classes; else [].

    found: (how it is stored, path) of videos below the root
    """
    places = {(kind, path.relative_to(root).parts[0]) for kind, path in found}
    tops = {top for _, top in places}
    is_apart = len(places) == len(tops) == len({kind for kind, _ in places})
    has_classes = all(len(path.relative_to(root).parts) > 2 for _, path in found)
    return [str(root / top) for top in sorted(tops)] if is_apart and has_classes else []


def nothing_found(root: Path, paths: Sequence[str] | None, template: str | None) -> InputError:
    """The error for folders, or the paths of a list, that hold nothing that is known."""
    kinds = 'no videos, hdf5 files or folders of frames'
    if template is not None:
        folders = (in_classes(root, lambda path: type_of(path) == 'jpg', []) if paths is None else
                   (root / path for path in paths[:N_LOOKED_AT] if type_of(root / path) == 'jpg'))
        for folder in folders:  # of frames that are called otherwise, as the reader says
            JpgFrames(template).check(str(folder), 1, 2)
    if paths is not None:
        return InputError(f'{root}: {kinds} at the paths of the list, such as {paths[0]}; mend '
                          'the list, or give with --video_path the folder that its paths are '
                          'relative to')
    loose = Counter(kind for entry in islice(root.iterdir(), N_LOOKED_AT)
                    if (kind := type_of(entry)))
    if loose:
        lying = ', '.join(f'{n} {kind}' for kind, n in loose.most_common())
        return InputError(f'{root}: {kinds} in folders of classes; {lying} in the folder itself: '
                          'move them to a folder for each class, or give a list of path,label')
    return InputError(f'{root}: {kinds} in it; check the path, which is that of a folder with a '
                      'folder for each class')


def type_of(path: Path, template: str | None = None) -> str | None:
    """How the video is stored that a path holds, or None."""
    if is_video_file(path):
        return 'video'
    for video_type in STORAGES:
        if video_type not in ('jpg', 'video') and telling(video_type)(path):
            return 'flow' if is_flow(path) else video_type
    return 'jpg' if is_frames_folder(path) and holds_frames(path, template) else None


def is_flow(path: Path) -> bool:
    try:
        return Hdf5Flow().count(str(path)) > 0
    except FrameError:
        return False


# ---------------------------------------------------------------- parts of videos

Key = tuple[str, Part]


def part_segments(args: Namespace, listed: Iterable[Own], counts: Mapping[str, int]
                  ) -> dict[Key, tuple[int, int]]:
    """{(path, part): (first frame from 0, last frame + 1)} of the parts that there are.

    A part that begins after its video ends has none, and one that ends after it is cut: both are
    named on stderr. Raises InputError where seconds cannot be told in frames.
    """
    segments: dict[Key, tuple[int, int]] = {}
    said: list[str] = []
    clock_of = clock_reader(args, counts, said)
    for video in listed:
        path, part, n_frames = video.path, video.part, counts[video.path]
        if part is None or not n_frames:
            continue
        begin, end = int(part.begin) - 1, int(part.end)
        if part.is_sec:
            begin, end = clock_of(path, part.fps).frames(part.begin, part.end)
        if end > n_frames:
            what = 'left out in use' if begin >= n_frames else 'cut there'
            said.append(f'{path}: a part is frames {begin + 1} to {end}, and the video has '
                        f'{n_frames}: it is {what}')
        if begin < n_frames:
            segments[path, part] = begin, min(end, n_frames)
    warn_of_some(said)
    return segments


class Clock(NamedTuple):
    """When the frames of a video are shown: `fps` a second, or at these times in seconds."""

    fps: float
    times: Sequence[float]

    def frames(self, begin_sec: float, end_sec: float) -> tuple[int, int]:
        """(first frame from 0, last frame + 1): those that are shown between two times."""
        # Ends of parts are rounded to some digits; a frame is not taken for a millionth of it.
        begin = math.floor(begin_sec * self.fps + 1e-6)
        end = math.ceil(end_sec * self.fps - 1e-6)
        if self.times:
            after = self.times[-1] + 1 / self.fps  # where the last one ends
            slack = min(1e-3, 0.1 / self.fps)  # stamps of .mkv files are in thousandths
            n_beyond = [max(0, math.ceil((sec - after) * self.fps)) for sec in (begin_sec, end_sec)]
            begin = bisect_right(self.times, begin_sec + slack) - 1 + n_beyond[0]
            end = bisect_left(self.times, end_sec - slack) + n_beyond[1]
        return begin, max(begin + 1, end)


def clock_reader(args: Namespace, counts: Mapping[str, int], said: list[str]
                 ) -> Callable[[str, float | None], Clock]:
    """A function: (path of a video, frames per second in the list or None) -> its Clock.

    That is a video file's own: where the list says otherwise, a line is added to `said`. Raises
    InputError where frames are stored and the list does not say.
    """
    file_clocks: dict[str, Clock] = {}

    def clock_of(path: str, fps: float | None) -> Clock:
        if args.video_type != 'video':
            if fps is None:
                raise InputError(f'{args.videos}: parts in seconds need a column fps where the '
                                 f'frames of {path} are stored: add the frames per second that '
                                 'were extracted')
            return Clock(fps, [])
        if path not in file_clocks:
            clock = file_clocks[path] = file_clock(args.video_path / path, counts[path])
            if fps and abs(fps / clock.fps - 1) > RATE_MARGIN:
                said.append(f'{path}: the list says {fps:g} frames per second, and the file has '
                            f'{clock.fps:.4g}: the parts are taken by those of the file')
        return file_clocks[path]
    return clock_of


def file_clock(path: Path, n_frames: int) -> Clock:
    """That of a video file with so many frames. Raises InputError."""
    file = find_video(str(path)) or str(path)
    try:
        fps, times = uneven_times(file)
    except VideoError as error:
        raise InputError(f'{file}: cannot be decoded ({error}); get the video again or take it out '
                         'of the list') from None
    return Clock(fps, times if len(times) == n_frames else [])


def part_name(part: Part | None) -> str:
    """What is added to the name of a video: `_000001_000010` in frames, `_1.5_3.0` in seconds."""
    if part is None:
        return ''
    if part.is_sec:
        return f'_{part.begin}_{part.end}'
    return f'_{int(part.begin):06d}_{int(part.end):06d}'


# ---------------------------------------------------------------- the annotation file

def make_database(listed: Sequence[Own], subsets: Mapping[str, str], counts: Mapping[str, int],
                  first: int, segments: Mapping[Key, tuple[int, int]]
                  ) -> dict[str, dict[str, Any]]:
    """Annotation entries by video id, which is the file's name where no other video has it, and
    where they begin and end after it for several parts of a video.

    subsets:  {path: subset} where a video does not say its own
    segments: those of `part_segments`; parts without one are left out in use
    """
    n_parts = Counter(video.path for video in listed)
    n_named = Counter(path.rpartition('/')[2] for path in n_parts)
    is_multi = has_lists(listed)
    database: dict[str, dict[str, Any]] = {}
    for video in listed:
        path, label = video.path, video.labels if is_multi else video.label
        name = path.rpartition('/')[2]
        video_id = name if n_named[name] == 1 else path
        if n_parts[path] > 1:
            video_id += part_name(video.part)
        segment = segments.get((path, video.part)) if video.part else (0, counts[path])
        subset = video.subset or subsets[path]
        entry: dict[str, Any] = {'subset': subset,
                                 'annotations': {} if label is None else {'label': label}}
        if segment and counts[path]:
            entry['annotations']['segment'] = [first + frame for frame in segment]
            if video.part:
                entry['n_frames'] = counts[path]
        if path != usual_path(video_id, label):
            entry['video_path'] = path
        database[video_id] = entry
    return database


def print_summary(args: Namespace, dst_path: Path, listed: Sequence[Own], labels: Sequence[str],
                  database: Mapping[str, dict[str, Any]]) -> str:
    """Say what was made, class by class; the command that trains with it."""
    n_groups = len({video.group for video in listed})
    n_missing = sum('segment' not in entry['annotations'] for entry in database.values())
    note(f'{dst_path}: {n_of(len(database), "video")} in {n_of(n_groups, "group")}'
         + missing_note(n_missing))
    if listed[0].subset:
        note('training, validation and testing are those of the '
             + ('list' if args.videos.is_file() else 'folders'))
    is_multi = has_lists(listed)
    counts: Counter[tuple[str, str]] = Counter()
    for entry in database.values():
        if 'segment' in entry['annotations']:
            own = entry['annotations'].get('label')
            counts.update((label, entry['subset'])
                          for label in (own if is_multi else [own] if own else []))
    print_classes(labels, counts)
    if len(labels) == 1:
        warn(f'{args.videos}: there is one class, {labels[0]}, and a network has nothing to tell '
             'apart; check which of the folders, or which column, has the classes')
    is_validated = any(counts[label, 'validation'] for label in labels)
    more = ['--multi_label'] * is_multi + ['--no_val'] * (not is_validated)
    return training(args.video_path, dst_path, args.video_type, args.frame_template,
                    '--n_classes', len(labels), *more)


def print_classes(labels: Sequence[str], counts: Mapping[tuple[str, str], int]) -> None:
    """A row per class; videos for testing only where there are any."""
    subsets = ['training', 'validation']
    if any(subset == 'testing' for _, subset in counts):
        subsets.append('testing')
    width = max(map(len, map(printable, labels)))
    note(f'{"class":{width}}  ' + '  '.join(subsets))
    for label in labels:
        note(f'{printable(label):{width}}  '
             + '  '.join(f'{counts[label, subset]:{len(subset)}}' for subset in subsets))


def find_videos(args: Namespace) -> list[Own]:
    """The videos that the flags of `folder_json` name; fills in --video_path and --video_type."""
    if args.groups is not None and args.by_group is not None:
        raise InputError('--groups and --by_group both say what is kept together: drop one of them')
    group_of = group_reader(args.groups) if args.groups else grouping(args.by_group)
    is_csv = args.videos.is_file()
    listed: list[Own] = []
    if is_csv and args.label_from != 'root':
        raise InputError(f'--label_from {args.label_from} is for folders, and {args.videos} is a '
                         'list, which says the labels: drop it')
    if is_csv:
        args.video_path = existing_folder(args.video_path or args.videos.parent,
                                          'the folder that the paths are relative to')
        listed = read_listed(args.videos, args.video_path, group_of)
    else:
        args.video_path = existing_folder(args.videos, 'the folder of the videos, or a CSV file')
    args.video_type = args.video_type or detect_type(
        args.video_path, [video.path for video in listed] if is_csv else None,
        args.frame_template)
    if not is_csv:
        listed = find_listed(args.video_path, args.video_type, group_of, args.label_from)
    if not listed:
        raise InputError(f'{args.videos}: no videos in it of --video_type {args.video_type}; they '
                         'are looked for as class/video: drop the flag, or give another folder')
    return listed


def annotate_videos(args: Namespace) -> None:
    """Write the annotation file of the videos that the flags of `folder_json` name."""
    listed = find_videos(args)
    counts = count_frames(args.video_path, args.video_type, (video.path for video in listed),
                          args.frame_template)
    if not any(counts.values()):
        raise InputError(f'{args.video_path}: no frames of any of the {len(listed)} videos in it; '
                         'check the path, or get the videos again')
    labels = sorted({label for video in listed for label in video.labels})
    if not labels:
        raise InputError(f'{args.videos}: none of its videos has a label; add them')
    check_labels(args.videos, labels)
    segments = part_segments(args, listed, counts)
    commands = {}
    for path, subsets in drawn_subsets(args, listed).items():
        database = make_database(listed, subsets, counts, first_frame(args.video_type), segments)
        write_json(path, {'labels': labels, 'database': database})
        commands[path] = print_summary(args, path, listed, labels, database)
    wrote(*commands, then=next(iter(commands.values())))


def drawn_subsets(args: Namespace, listed: Sequence[Own]) -> dict[Path, dict[str, str]]:
    """{annotation file: {path of a video: its subset}}: one file, or with --folds one for each.

    Raises InputError where a split is asked for and the list has its own.
    """
    if listed[0].subset is None:
        share = VAL_FRACTION if args.val_fraction is None else args.val_fraction
        drawn = draw_subsets(listed, share, args.test_fraction, args.folds, args.seed)
        return {fold_path(args.dst_path, number, args.folds): subsets
                for number, subsets in enumerate(drawn, 1)}
    for flag in ('folds', 'test_fraction', 'val_fraction'):
        if getattr(args, flag):
            cure = 'remove the column' if args.videos.is_file() else 'give one of its folders'
            raise InputError(f'{args.videos}: has a subset for each video, and --{flag} draws '
                             f'them: drop the flag, or {cure}')
    return {args.dst_path: {}}
