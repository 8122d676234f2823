"""Top-k accuracy of a result file against an annotation file: how many videos and clips are right.

    python -m util_scripts.eval_accuracy GROUND_TRUTH.json RESULTS/val.json -k 1 5 --subset val

Where videos have lists of labels, and with --multi_label, also the mean over the classes of average
precision (mAP).
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import POSITIVE, Parser, add_subset
from runtime.errors import run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.eval_accuracy',
                    'Top-k accuracy of results, counted by videos.')
    parser.add_argument('ground_truth_path', type=Path, help='annotation file (JSON)')
    parser.add_argument('result_path', type=Path,
                        help='a result file of main.py --inference, such as val.json')
    parser.add_argument('-k', type=POSITIVE, nargs='+', default=[1],
                        help='a video is right if its label, or one of its labels, is among the k '
                             'best; several k may be given, after the two paths')
    add_subset(parser.add_argument)
    parser.add_argument('--save', action='store_true',
                        help='also write each accuracy, 0 to 1, to top{k}.txt beside result_path, '
                             'and mAP to map.txt')
    parser.add_argument('--ignore', action='store_true',
                        help='leave out videos without a result; they count as wrong otherwise')
    parser.add_argument('--per_class', action='store_true',
                        help='also print mean-class accuracy, a table of the classes and the pairs '
                             'that are most confused; of lists of labels, the average precision '
                             'of each class')
    parser.add_argument('--multi_label', action='store_true',
                        help='report mAP, as main.py --multi_label does, where each video has one '
                             'label as well; where any has a list, that is done without the flag')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.evaluation import report
    report(args)


if __name__ == '__main__':
    run(main)
