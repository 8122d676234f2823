"""Make the annotation files of HMDB-51 from its split files: hmdb51_1.json, hmdb51_2.json, ...

    python -m util_scripts.hmdb51_json DIR_PATH VIDEO_PATH DST_DIR_PATH
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import Parser
from runtime.errors import InputError, run
from util_scripts.helpers.annotation_files import Listed, lists_parser, write_annotations
from util_scripts.helpers.files import existing_folder, malformed, read_lines
from util_scripts.helpers.videos import video_stem

SPLITS = (1, 2, 3)
# Last word of a line -> subset; videos of None are not used in that split.
SUBSETS = {'0': None, '1': 'training', '2': 'validation'}
FILES = 'the split files of HMDB-51 (brush_hair_test_split1.txt ...)'


def read_list(path: Path, label: str) -> list[Listed]:
    """Listed videos of a class in a split: lines `VIDEO.avi 1`."""
    listed = []
    for line_number, line in read_lines(path, FILES):
        file_name, _, mark = line.replace('\t', ' ').rpartition(' ')
        if not file_name or mark not in SUBSETS:
            raise malformed(path, line_number, line, 'VIDEO.avi and 0, 1 or 2')
        subset = SUBSETS[mark]
        if subset:
            listed.append(Listed(video_stem(file_name.strip()), subset, label))
    return listed


def read_splits(dir_path: Path) -> tuple[dict[int, list[Listed]], list[str]]:
    """({number: Listed videos} for the splits that there are, class names in order)."""
    splits: dict[int, list[Listed]] = {}
    labels: set[str] = set()
    for number in SPLITS:
        suffix = f'_test_split{number}.txt'
        paths = {path.name.removesuffix(suffix): path for path in sorted(dir_path.iterdir())
                 if path.name.endswith(suffix) and not path.name.startswith('.')}
        if paths:
            splits[number] = [video for label, path in paths.items()
                              for video in read_list(path, label)]
            labels |= set(paths)
    if not splits:
        raise InputError(f'{dir_path}: no file *_test_split1.txt in it; give the folder of {FILES}')
    return splits, sorted(labels)


def build_parser() -> Parser:
    return lists_parser(
        'hmdb51_json',
        'Make the annotation files of HMDB-51: one for each of the splits that there are.', FILES,
        'video_path/class/...', 'dst_dir_path', 'folder to write hmdb51_1.json ... to')


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    splits, labels = read_splits(existing_folder(args.dir_path, f'the folder of {FILES}'))
    write_annotations({args.dst_dir_path / f'hmdb51_{number}.json': listed
                       for number, listed in splits.items()},
                      labels, args.video_path, args.video_type,
                      args.frame_template)


if __name__ == '__main__':
    run(main)
