"""Find out which output of a network is which class, from its results of labelled videos.

    python -m util_scripts.find_class_order RESULTS/val.json ANNOTATION.json --output labels.txt
    python -m util_scripts.predict any.mp4 --weights FILE.pth --labels labels.txt

For weights whose class names, or their order, are lost.
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import Parser, add_subset
from runtime.errors import run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.find_class_order',
                    'Find out which output of a network is which class, from results of labelled '
                    'videos.')
    add = parser.add_argument
    add('results', type=Path, metavar='VAL.json',
        help='results of main.py --inference --output_topk 0, whose labels are numbers, or names '
             'in the annotation\'s order')
    add('annotation', type=Path, metavar='ANNOTATION.json', help='the labels of these videos')
    add('--output', type=Path, required=True, metavar='FILE',
        help='where the class names go, one a line in the order of the outputs, for --labels')
    add_subset(add)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.class_order import report
    report(args)


if __name__ == '__main__':
    run(main)
