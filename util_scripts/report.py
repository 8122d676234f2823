"""A page on one run or several: what was run, how it went, what is confused, the worst mistakes.

    python -m util_scripts.report results other_results --output report.html

The page is one HTML file that needs no network: curves, accuracies with 95 % intervals, confusion
matrices, classes in a table that sorts, mistakes as moving thumbnails, and the commands to do it
again.
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import Parser, between
from runtime.errors import run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.report',
                    'Write a page (HTML, one file) on runs of main.py.')
    add = parser.add_argument
    add('folders', nargs='+', type=Path, metavar='RESULTS', help='the --result_path of runs')
    add('--output', type=Path, metavar='FILE.html',
        help='where the page goes (default: report.html in the first folder)')
    add('--annotation_path', type=Path, metavar='FILE.json',
        help='annotation file (default: that of each run)')
    add('--video_path', type=Path, metavar='DIR',
        help='folder of the frames or videos, for the thumbnails (default: that of each run)')
    add('--groups', type=Path, metavar='FILE.csv',
        help='table with columns path (or video_id) and group: intervals and thumbnails are by '
             'group (default: groups of names such as v_Biking_g05_c02)')
    add('--n_mistakes', type=between(int, 0, 100), default=12, metavar='N',
        help='thumbnails of each run, 0 to 100')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.report_page import write_report
    write_report(args)


if __name__ == '__main__':
    run(main)
