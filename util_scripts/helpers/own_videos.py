"""Your own videos: found in folders or a list, split by groups, and written as an annotation."""

import math
import os
import re
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from datasets.annotations import usual_path
from datasets.frame_folders import holds_frames, usual_name
from datasets.frames import READERS, FrameError, Hdf5Flow, JpgFrames
from datasets.video import Video, VideoError, find_video
from opts import STORAGES
from runtime.errors import InputError
from runtime.output import note, printable, to_stderr, warn, wrote
from util_scripts.helpers.annotation_files import (count_frames, first_frame, missing_note,
                                                   training, write_json)
from util_scripts.helpers.files import existing_folder
from util_scripts.helpers.splits import draw_subsets, fold_path, group_reader
from util_scripts.helpers.text import n_of
from util_scripts.helpers.video_lists import Own, Part, read_list
from util_scripts.helpers.videos import (LeftOut, in_classes, is_shown_folder, is_video_file,
                                         report_left_out, video_stem)

# Clips of UCF-101 are called v_Biking_g05_c02: clip 2 of the recording g05 of that class.
UCF_GROUP = r'^(.*_g\d+)_c\d+$'
# So many files tell how a data set is stored.
N_LOOKED_AT = 1000


def has_lists(listed: Iterable[Own]) -> bool:
    """True if any video has a list of labels."""
    return any(isinstance(video.label, list) for video in listed)


# ---------------------------------------------------------------- what there is

def find_listed(root: Path, video_type: str, group_of: Callable[[str], str],
                label_from: str = 'root') -> list[Own]:
    """Videos of a folder for each class, at any depth below it. Says in a line on stderr what else
    is there.

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
    listed = [Own(str(stem), stem.parent.name if label_from == 'parent' else stem.parts[0],
                  group_of(str(stem))) for stem in sorted(stems)]
    if label_from == 'root':
        tell_of_deep(root, sorted(stems))
    return listed


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
        return not any(entry.is_dir() and not entry.name.startswith('.') for entry in entries)


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
    """Videos, or parts of videos, of a list; see video_lists."""
    listed = []
    for video in read_list(path, root):
        stem = video_stem(video.path.removesuffix('.hdf5').rstrip('/'))
        listed.append(video._replace(path=stem, group=video.group or group_of(stem)))
    twice = [video.path for video, n in Counter(video._replace(label=None, group='', subset=None)
                                                for video in listed).items() if n > 1]
    if twice:
        raise InputError(f'{path}: lists {twice[0]} twice; remove a line')
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
    for video in listed:
        if video.part is None or not counts[video.path]:
            continue
        begin, end = frames_of_part(args, video.path, video.part)
        n_frames = counts[video.path]
        if end > n_frames:
            what = 'left out in use' if begin >= n_frames else 'cut there'
            warn(f'{video.path}: a part is frames {begin + 1} to {end}, and the video has '
                 f'{n_frames}: it is {what}')
        if begin < n_frames:
            segments[video.path, video.part] = begin, min(end, n_frames)
    return segments


def frames_of_part(args: Namespace, path: str, part: Part) -> tuple[int, int]:
    """(first frame from 0, last frame + 1): the frames that are shown between its ends."""
    if not part.is_sec:
        return int(part.begin) - 1, int(part.end)
    fps = part.fps or read_fps(args, path)
    # Ends of parts are rounded to some digits; a frame is not taken for a millionth of it.
    begin = math.floor(part.begin * fps + 1e-6)
    return begin, max(begin + 1, math.ceil(part.end * fps - 1e-6))


def read_fps(args: Namespace, path: str) -> float:
    """Frames per second of a video file. Raises InputError where frames are stored instead."""
    file = find_video(str(args.video_path / path)) if args.video_type == 'video' else None
    if file is None:
        raise InputError(f'{args.videos}: parts in seconds need a column fps where the frames of '
                         f'{path} are stored: add the frames per second that were extracted')
    try:
        with Video(file) as video:
            return float(video.fps)
    except VideoError as error:
        raise InputError(f'{file}: cannot be decoded ({error}); get the video again or take it out '
                         'of the list') from None


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
        note('training, validation and testing are those of the list')
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
        drawn = draw_subsets(listed, args.val_fraction, args.test_fraction, args.folds, args.seed)
        return {fold_path(args.dst_path, number, args.folds): subsets
                for number, subsets in enumerate(drawn, 1)}
    if args.folds or args.test_fraction:
        flag = '--folds' if args.folds else '--test_fraction'
        raise InputError(f'{args.videos}: has a subset for each video, and {flag} draws them: drop '
                         'the flag, or remove the column')
    return {args.dst_path: {}}
