"""Make the annotation file of Moments in Time from its csv files.

    python -m util_scripts.mit_json DIR_PATH VIDEO_PATH DST_PATH
"""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from runtime.arguments import Parser
from runtime.errors import run
from runtime.schema import whole_number
from util_scripts.helpers.annotation_files import Listed, lists_parser, write_annotations
from util_scripts.helpers.files import existing_folder, malformed, read_lines
from util_scripts.helpers.video_lists import read_rows
from util_scripts.helpers.videos import video_stem

LISTS = {'trainingSet.csv': 'training', 'validationSet.csv': 'validation',
         'testingSet.csv': 'testing'}
FILES = ('the csv files of Moments in Time (moments_categories.txt, trainingSet.csv, '
         'validationSet.csv, testingSet.csv)')


def read_labels(path: Path) -> list[str]:
    """Class names in the order of their numbers: lines `clapping,0`."""
    labels: dict[int, str] = {}
    for line_number, line in read_lines(path, FILES):
        label, _, text = line.rpartition(',')
        number, label = whole_number(text.strip()), label.strip()
        if not label or number is None or number in labels or label in labels.values():
            raise malformed(path, line_number, line, 'CLASS,NUMBER with both of its own')
        labels[number] = label
    return [labels[number] for number in sorted(labels)]


def read_list(path: Path, subset: str, labels: Collection[str]) -> list[Listed]:
    """Listed videos: rows `clapping/yt-abc_1.mp4,clapping,4,1`; test rows need only the first."""
    listed = []
    for number, row in read_rows(path, path.parent, FILES):
        video_id = video_stem(PurePosixPath(row[0].replace('\\', '/')).name)
        label = row[1] if len(row) > 1 else None
        if not video_id or subset != 'testing' and label not in labels:
            raise malformed(path, number, ','.join(row),
                            'CLASS/VIDEO.mp4,CLASS,... with a class of moments_categories.txt')
        listed.append(Listed(video_id, subset, None if subset == 'testing' else label))
    return listed


def build_parser() -> Parser:
    return lists_parser(
        'mit_json', 'Make the annotation file of Moments in Time.',
        f'{FILES}; testingSet.csv may be missing',
        'video_path/label/..., test videos in video_path/test/...', 'dst_path',
        'JSON file to write')


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    existing_folder(args.dir_path, f'the folder of {FILES}')
    labels = read_labels(args.dir_path / 'moments_categories.txt')
    listed: list[Listed] = []
    for name, subset in LISTS.items():
        path = args.dir_path / name
        if subset != 'testing' or path.exists():
            listed += read_list(path, subset, set(labels))
    write_annotations({args.dst_path: listed}, labels, args.video_path, args.video_type,
                      args.frame_template)


if __name__ == '__main__':
    run(main)
