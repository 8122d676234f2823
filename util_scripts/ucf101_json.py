"""Make the annotation files of UCF-101 from its split files: ucf101_01.json, ucf101_02.json, ...

    python -m util_scripts.ucf101_json DIR_PATH VIDEO_PATH DST_PATH
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.arguments import Parser
from runtime.errors import InputError, run
from runtime.output import warn
from runtime.schema import whole_number
from util_scripts.helpers.annotation_files import Listed, lists_parser, write_annotations
from util_scripts.helpers.files import existing_folder, malformed, read_lines
from util_scripts.helpers.videos import video_stem

SPLITS = ('01', '02', '03')
LISTS = {'trainlist': 'training', 'testlist': 'validation'}
FILES = 'the split files of UCF-101 (classInd.txt, trainlist01.txt, testlist01.txt ...)'


def read_labels(path: Path) -> dict[str, int]:
    """{class name: number}, by numbers, from `classInd.txt`: lines `1 ApplyEyeMakeup`."""
    labels: dict[str, int] = {}
    for line_number, line in read_lines(path, FILES):
        text, _, label = line.replace('\t', ' ').partition(' ')
        number, label = whole_number(text), label.strip()
        if number is None or not label or number in labels.values() or label in labels:
            raise malformed(path, line_number, line, 'NUMBER CLASS with both of its own')
        labels[label] = number
    if not labels:
        raise InputError(f'{path}: names no class; take the published file')
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def read_list(path: Path, subset: str, labels: Mapping[str, int]) -> list[Listed]:
    """Listed videos of a list: lines `Class/v_Class_g01_c01.avi`, with a class number or without.

    The folder says which class it is.
    """
    listed, others = [], []
    for line_number, line in read_lines(path, FILES):
        name, *marks = line.rsplit(None, 1)
        class_number = whole_number(marks[0]) if marks else None
        if class_number is None:
            name = line
        label, _, file_name = name.replace('\\', '/').removeprefix('./').partition('/')
        if label not in labels or not file_name:
            raise malformed(path, line_number, line, 'CLASS/VIDEO.avi with a class of classInd.txt')
        if class_number not in (None, labels[label]):
            others.append(line_number)
        listed.append(Listed(video_stem(file_name), subset, label))
    if others:
        warn(f'{path}: {len(others)} lines, such as line {others[0]}, have another class number '
             'than classInd.txt has for their folder, which counts')
    return listed


def read_splits(dir_path: Path, labels: Mapping[str, int]) -> dict[str, list[Listed]]:
    """{number: Listed videos of both lists} for the splits that there are."""
    splits = {}
    for number in SPLITS:
        paths = {dir_path / f'{name}{number}.txt': subset for name, subset in LISTS.items()}
        if any(path.exists() for path in paths):
            splits[number] = [video for path, subset in paths.items()
                              for video in read_list(path, subset, labels)]
    if not splits:
        raise InputError(f'{dir_path}: no trainlist01.txt and testlist01.txt in it; give the '
                         f'folder of {FILES}')
    return splits


def build_parser() -> Parser:
    return lists_parser(
        'ucf101_json',
        'Make the annotation files of UCF-101: one for each of the splits that there are.', FILES,
        'video_path/Class/...', 'dst_path', 'folder to write ucf101_01.json ... to')


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    existing_folder(args.dir_path, f'the folder of {FILES}')
    labels = read_labels(args.dir_path / 'classInd.txt')
    splits = {args.dst_path / f'ucf101_{number}.json': listed
              for number, listed in read_splits(args.dir_path, labels).items()}
    write_annotations(splits, list(labels), args.video_path, args.video_type,
                      args.frame_template)


if __name__ == '__main__':
    run(main)
