"""Make a data set whose labels are free and that no single frame solves, from frames of any videos.

    python -m util_scripts.motion_tasks JPG DST --task speed [--groups groups.csv]

JPG/class/video/image_00001.jpg ... are frames as extracted. The task is to tell how many times as
fast a clip is played (1, 2, 4 or 8), or whether it is played forwards or backwards. DST gets the
frames of the clips (as hard links, which take no space), the annotation TASK.json and
TASK_groups.csv. Clips of one video have the same frame in the middle, and all clips have as many
frames, so nothing but motion tells them apart.
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import INTEGER, POSITIVE, Parser, at_least, between
from runtime.errors import run

TASKS = ('speed', 'direction')


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.motion_tasks',
                    'Make a data set whose labels are free and that no single frame solves, from '
                    'frames of any videos.', epilog='Exit status: 0, 2 for a wrong argument.')
    parser.add_argument('videos', type=Path,
                        help='folder of the frames: videos/class/video/image_00001.jpg ...')
    parser.add_argument('dst_path', type=Path,
                        help='folder to write to; where it is on another disk, frames are copied')
    parser.add_argument('--task', choices=TASKS, default='speed',
                        help='speed: how many times as fast; direction: forwards or backwards')
    parser.add_argument('--speeds', type=POSITIVE, nargs='+', default=[1, 2, 4, 8], metavar='X',
                        help='classes of the task speed')
    parser.add_argument('--n_frames', type=at_least(2), default=8, metavar='N',
                        help='frames of a clip; videos are left out that have too few for the '
                             'fastest')
    parser.add_argument('--per_video', type=POSITIVE, default=1, metavar='K',
                        help='so many clips of each class from a video')
    parser.add_argument('--val_fraction', type=between(float, 0, 0.99), default=0.2, metavar='X',
                        help='part of the videos for validation')
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--groups', type=Path, metavar='FILE.csv',
                       help='videos of a group, such as those of a recording, are on one side of '
                            'the split: a file with the columns path and group')
    group.add_argument('--by_group', metavar='REGEX',
                       help='the same by what this regular expression, or its brackets, matches '
                            'in class/video')
    parser.add_argument('--seed', type=INTEGER, default=1, metavar='N',
                        help='seed of the clips and of the split')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.motion_clips import make_task
    make_task(args)


if __name__ == '__main__':
    run(main)
