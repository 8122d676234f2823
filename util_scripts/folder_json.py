"""Make the annotation file of your own videos: a folder for each class, or a list in a CSV file.

    python -m util_scripts.folder_json VIDEOS OUT.json [--val_fraction .2] [--by_group REGEX]

VIDEOS/class/name.mp4, VIDEOS/class/name.hdf5, or a folder VIDEOS/class/name/ of frames; with more
folders between, the class is the first or, with --label_from parent, the last; where all are in
VIDEOS/train, val and test, these are the subsets, and the classes are in them. Or VIDEOS is a list:
a CSV file (with commas, semicolons or tabs) or a text file with blanks between the columns path,
label and, where they are known, group, subset, and the start and end of parts of videos, as line 1
names them. The videos of a group, such as clips cut from one recording, are all in training, all in
validation or all in testing, unless the list has a subset for each.
Where any label in a list is several, as in run|jump, each video gets a list of labels, for
--multi_label; the name of a folder is one label, whatever is in it.
"""

from collections.abc import Sequence
from pathlib import Path

from opts import STORAGES
from runtime.arguments import INTEGER, Parser, add_frame_template, at_least, between
from runtime.errors import run
from util_scripts.helpers.annotation_files import VIDEO_TYPES


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.folder_json',
                    'Make the annotation file of your own videos.',
                    epilog='Exit status: 0, 2 for a wrong argument.')
    parser.add_argument('videos', type=Path,
                        help='folder with a folder for each class, or a list: a CSV or text file '
                             'of path,label or path,label,group, where run|jump are two labels of '
                             'a video; or with the columns that line 1 names: path, label, group, '
                             'subset (train, val, test: then none is drawn), start_sec and end_sec '
                             '(with fps where frames are stored), or start_frame and end_frame')
    parser.add_argument('dst_path', type=Path, help='JSON file to write')
    parser.add_argument('--val_fraction', type=between(float, 0, 0.99), metavar='X',
                        help='part of each class for validation, where neither a list nor the '
                             'folders say the subset (default: 0.2)')
    parser.add_argument('--test_fraction', type=between(float, 0, 0.99), default=0.0, metavar='X',
                        help='part of each class for testing')
    parser.add_argument('--folds', type=at_least(2), metavar='K',
                        help='cross-validation: write K annotation files, OUT_1.json ... '
                             'OUT_K.json, in each of which another K-th of the videos is for '
                             'testing')
    parser.add_argument('--groups', type=Path, metavar='FILE.csv',
                        help='videos are kept together that have the same group there, beside '
                             'their path')
    parser.add_argument('--by_group', metavar='REGEX',
                        help='videos for which this regular expression, or what is in its '
                             'brackets, matches the same in class/name are kept together '
                             '(default: the recordings g01, g02 ... of names as in UCF-101)')
    parser.add_argument('--seed', type=INTEGER, default=1, metavar='N', help='seed of the split')
    parser.add_argument('--label_from', choices=('root', 'parent'), default='root',
                        help='which folder is the class of videos that lie deeper: the one below '
                             'VIDEOS, or the one that the video is in')
    parser.add_argument('--video_path', type=Path, metavar='DIR',
                        help='what the paths of a CSV file are relative to (default: its folder)')
    parser.add_argument('--video_type', choices=list(STORAGES),
                        help=f'{VIDEO_TYPES} (default: what is found)')
    add_frame_template(parser.add_argument)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.own_videos import annotate_videos
    annotate_videos(args)


if __name__ == '__main__':
    run(main)
