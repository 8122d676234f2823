"""How well features tell classes apart with few examples and no training.

    python -m util_scripts.knn results/features.h5 --groups groups.csv

Each video is classified by examples of the other groups: by the class whose mean is nearest, and by
its nearest neighbours. Features are centred on the examples and compared by the cosine (Wang et
al., "SimpleShot", 2019).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import POSITIVE, Parser
from runtime.errors import InputError, run

ALL = 'all'


def count_or_all(text: str) -> int | str:
    if text == ALL:
        return text
    try:
        return POSITIVE(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f'{error}, nor {ALL}') from None


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.knn',
                    'Accuracy of nearest class mean and nearest neighbours, with few examples.',
                    has_notes=False)
    parser.add_argument('features', type=Path, metavar='FILE.h5',
                        help='features of main.py --inference --output_features')
    parser.add_argument('--test', type=Path, metavar='FILE.h5',
                        help='classify the videos of this file by those of the first')
    parser.add_argument('--groups', type=Path, metavar='FILE.csv',
                        help='table with columns path (or video_id) and group: no video is '
                             'classified by examples of its own group; without, ten random parts '
                             'take the place of groups')
    parser.add_argument('--examples', type=count_or_all, nargs='+', default=[1, 5, 10, ALL],
                        metavar='N', help='examples per class, or all')
    parser.add_argument('-k', type=POSITIVE, default=5, metavar='K',
                        help='nearest neighbours that vote')
    parser.add_argument('--seeds', type=POSITIVE, default=10, metavar='N',
                        help='how often examples are drawn')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.test and args.groups:
        raise InputError('--test and --groups are both given: drop one')
    from util_scripts.helpers.neighbours import report
    report(args)


if __name__ == '__main__':
    run(main)
