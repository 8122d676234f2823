"""Annotation files: made from the videos that a data set lists and the frames that are stored."""

import json
import os
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from opts import STORAGES
from runtime.arguments import Parser, add_frame_template, python
from runtime.errors import InputError
from runtime.files import replacing
from runtime.output import note, warn, wrote
from runtime.schema import NAME, shown
from util_scripts.helpers.files import existing_folder
from util_scripts.helpers.jobs import n_processors
from util_scripts.helpers.text import n_of
from util_scripts.helpers.videos import report_left_out

VIDEO_TYPES = ('how the frames are stored: jpg folders, hdf5 files, hdf5 files with optical flow, '
               'or the video files themselves, which are decoded to count their frames')
N_SHOWN = 10  # warnings of one kind


class Listed(NamedTuple):
    """A video as a split file lists it.

    label: None where it is not known
    path:  of its frames below their folder, None where that is the usual one
    """

    video_id: str
    subset: str
    label: str | None
    path: str | None = None


def add_video_type(parser: Parser) -> None:
    """The flags of how frames are stored, for the scripts that had none in the 2020 code."""
    parser.add_argument('--video_type', choices=list(STORAGES), default='jpg',
                        help=VIDEO_TYPES)
    add_frame_template(parser.add_argument)


def lists_parser(command: str, description: str, files: str, frames: str, dst: str, dst_help: str
                 ) -> Parser:
    """The arguments of a script that makes annotation files from lists as published.

    files, frames: which lists there are, and how the frames are laid out
    dst, dst_help: name of the argument of what is written, and what that is
    """
    parser = Parser(f'python -m util_scripts.{command}', description)
    parser.add_argument('dir_path', type=Path, help=f'folder of {files}')
    parser.add_argument('video_path', type=Path, help=f'folder of the frames: {frames}')
    parser.add_argument(dst, type=Path, help=dst_help)
    add_video_type(parser)
    return parser


def check_labels(path: Path, labels: Sequence[str]) -> None:
    """Raise InputError for names that no class can have, which `path` says; warn of those that a
    reader may take for one."""
    alike: dict[str, str] = {}
    for label in labels:
        if not label or NAME(label):
            raise InputError(f'{path}: class {shown(label)} has no name, or line ends or control '
                             'characters in it; rename it')
        look = ' '.join(unicodedata.normalize('NFKC', label).casefold().replace('_', ' ').split())
        other = alike.setdefault(look, label)
        if other is not label:
            warn(f'{path}: {other!r} and {label!r} are two classes: if they are one, give them one '
                 'name')


def warn_of_some(lines: Sequence[str]) -> None:
    """Warnings of one kind, of which so many may come that the first must do."""
    for line in lines[:N_SHOWN]:
        warn(line)
    if len(lines) > N_SHOWN:
        warn(f'... and {len(lines) - N_SHOWN} more')


def first_frame(video_type: str) -> int:
    """Number of a stored video's first frame, by one of opts.STORAGES."""
    from datasets.frames import READERS  # here, because it takes seconds
    reader: Any = READERS[STORAGES[video_type]]
    return int(reader.first_frame)


def count_frames(root: Path, video_type: str, paths: Iterable[str], template: str | None = None
                 ) -> dict[str, int]:
    """{path below `root`, without suffix: number of frames stored}, with a progress bar.

    A file that cannot be read counts as 0 and is named on stderr. So is, in a line, what lies among
    frames and is none, and which videos are not there or have no frames. Raises InputError where
    that is why none has any.
    """
    # Here, because it takes seconds: workers that extract frames import this module too.
    from datasets.frames import make_reader, video_path
    from runtime.logs import Progress
    reader = make_reader(STORAGES[video_type], template)
    left_out: list[tuple[Path, str]] = []
    failures: list[str] = []

    def count(path: str) -> int:
        whole = video_path(root, path, reader.suffix)
        try:
            left_out.extend((Path(whole, name), why) for name, why in reader.left_out(whole))
            n_frames = reader.count(whole)
            if not n_frames:
                why = 'videos without frames' if os.path.exists(whole) else 'videos not there'
                left_out.append((Path(path), why))
            return n_frames
        except InputError as error:
            failures.append(str(error))
            return 0
    distinct, counts = list(dict.fromkeys(paths)), {}
    threads = ThreadPoolExecutor(n_processors())
    try:
        with Progress(len(distinct), 'count frames', unit='video') as progress:
            for path, n_frames in zip(distinct, threads.map(count, distinct)):
                counts[path] = n_frames
                progress.update(1)
    finally:
        threads.shutdown(cancel_futures=True)
    report_left_out(root, sorted(left_out))
    failures.sort()
    if failures and not any(counts.values()):
        raise InputError(f'{failures[0]}; the frames of none of '
                         f'{n_of(len(counts), "video")} can be counted')
    warn_of_some(failures)
    return counts


def frames_path(listed: Listed) -> str:
    """Path of a Listed video's frames; usually those of videos without label lie under `test`."""
    return listed.path or f'{"test" if listed.label is None else listed.label}/{listed.video_id}'


def make_database(listed: Iterable[Listed], counts: Mapping[str, int], first: int
                  ) -> dict[str, dict[str, Any]]:
    """Annotation entries by video id, from Listed videos; later ones replace earlier ones.

    counts: {path of frames: number of frames}, the first of which has number `first`; where it is 0
    there is no segment.
    """
    database = {}
    for video in listed:
        annotations: dict[str, Any] = {} if video.label is None else {'label': video.label}
        n_frames = counts[frames_path(video)]
        if n_frames:
            annotations['segment'] = [first, first + n_frames]
        entry: dict[str, Any] = {'subset': video.subset, 'annotations': annotations}
        if video.path and video.path != frames_path(video._replace(path=None)):
            entry['video_path'] = video.path
        database[video.video_id] = entry
    return database


def write_annotations(splits: Mapping[Path, Sequence[Listed]], labels: Sequence[str],
                      video_path: Path, video_type: str, template: str | None = None) -> None:
    """Count frames and write one annotation file per split, {path: [Listed]}, each told in a line.

    Raises InputError where no video of any split has frames below `video_path`: none is written.
    """
    for path, listed in splits.items():
        if not listed:
            raise InputError(f'{path}: would be empty, as the lists name no video for it; take '
                             'the published ones')
    check_labels(next(iter(splits)), labels)
    existing_folder(video_path, 'the folder of the frames')
    counts = count_frames(video_path, video_type, (frames_path(video) for listed in splits.values()
                                                   for video in listed), template)
    databases = {path: make_database(listed, counts, first_frame(video_type))
                 for path, listed in splits.items()}
    n_listed = sum(map(len, databases.values()))
    n_missing = {path: sum('segment' not in entry['annotations'] for entry in database.values())
                 for path, database in databases.items()}
    if sum(n_missing.values()) == n_listed:
        raise InputError(f'{video_path}: no frames of any of the {n_listed} listed videos in it; '
                         f'give the folder that the {video_type} frames were extracted to')
    for path, database in databases.items():
        write_json(path, {'labels': labels, 'database': database})
        n_twice = len(splits[path]) - len(database)
        twice = f', {n_twice} listed more than once (the last counts)' if n_twice else ''
        note(f'{path}: {len(database)} videos{missing_note(n_missing[path])}{twice}')
    wrote(*databases, then=training(video_path, next(iter(databases)), video_type, template))


def training(video_path: Path, annotation_path: Path, video_type: str, template: str | None = None,
             *more: object) -> str:
    """The command that trains with an annotation, to paste; `more` are flags of this one."""
    file_type, input_type = STORAGES[video_type]
    words = ['--video_path', video_path, '--annotation_path', annotation_path,
             '--result_path', 'results', '--file_type', file_type, *more]
    if input_type == 'flow':
        words += ['--input_type', input_type]
    if template:
        words += ['--frame_template', template]
    script = os.path.relpath(Path(__file__).parents[2] / 'main.py')
    return shlex.join([python(), script, *map(str, words)])


def missing_note(n_missing: int) -> str:
    """What is said, after how many videos there are, of those without frames."""
    return f', {n_missing} of them without frames and left out in use' if n_missing else ''


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an annotation file, whole or not at all: one line per video, for people to read."""
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        separator = '{'
        for name, value in data.items():
            file.write(f'{separator}\n{json.dumps(name)}: ')
            if name == 'database':
                rows = (f'{json.dumps(key)}: {json.dumps(entry)}' for key, entry in value.items())
                file.write('{\n' + ',\n'.join(rows) + '\n}')
            else:
                json.dump(value, file)
            separator = ','
        file.write('\n}\n')
