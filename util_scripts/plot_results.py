"""What a network confuses: three pictures and a list, from a result file and the annotation.

    python -m util_scripts.plot_results results/val.json annotation.json --video_path jpg

Written beside the result file: confusion.png, classes.png and, with --video_path, mistakes.png.
Where videos have lists of labels there is no confusion.png, classes.png is of average precision,
and a mistake is a class that a video does not have, scored above 0.5 or above one that it has.
"""

from collections.abc import Sequence
from pathlib import Path

from opts import FILE_TYPES
from runtime.arguments import Parser, add_frame_template, add_subset, between
from runtime.errors import run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.plot_results',
                    'Draw the confusion matrix, the accuracy of each class and the worst mistakes.')
    parser.add_argument('result_path', type=Path, metavar='VAL.json',
                        help='a result file of main.py --inference')
    parser.add_argument('ground_truth_path', type=Path, metavar='ANNOTATION.json',
                        help='annotation file')
    add_subset(parser.add_argument)
    parser.add_argument('--video_path', type=Path, metavar='DIR',
                        help='folder of the frames, for the picture of the worst mistakes')
    parser.add_argument('--file_type', default='jpg', choices=FILE_TYPES,
                        help='how the frames are stored')
    add_frame_template(parser.add_argument)
    parser.add_argument('--n_mistakes', type=between(int, 1, 100), default=12, metavar='N',
                        help='mistakes in that picture, 1 to 100')
    parser.add_argument('--groups', type=Path, metavar='FILE.csv',
                        help='table with columns path (or video_id) and group: the mistakes that '
                             'are drawn are of as many groups as there are (default: groups of '
                             'names such as v_Biking_g05_c02)')
    parser.add_argument('--output', type=Path, metavar='DIR',
                        help='folder for the pictures (default: that of the result file)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.mistakes import draw_results
    draw_results(args)


if __name__ == '__main__':
    run(main)
