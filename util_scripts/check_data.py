"""Read all frames that a run of main.py would read, and say what is wrong with them.

    python -m util_scripts.check_data FLAGS_OF_MAIN.PY [--save FILE] [--page FILE.html]

takes the flags of a run as they are; those that are not about data have no effect. --n_threads is
the number of processes.
"""

from collections.abc import Sequence
from pathlib import Path

from opts import build_parser, parse_opts
from runtime.arguments import Parser
from runtime.errors import run


def build_check_parser() -> Parser:
    parser = build_parser('python -m util_scripts.check_data',
                          'Read all frames that a run of main.py with these flags would read, and '
                          'say what is wrong. Exit status 1 where anything is.')
    parser.add_argument('--save', type=Path, metavar='FILE',
                        help='write all problems there: kind, subset, path and reason, separated '
                             'by tabs')
    parser.add_argument('--page', type=Path, metavar='FILE.html',
                        help='also write a page: lengths, sizes and rates, the classes, clips as '
                             'the network sees them, and videos of the validation that are nearly '
                             'the same as one of the training')
    parser.set_defaults(result_path=Path())  # nothing is written there
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    opts = parse_opts(argv, build_check_parser())
    from util_scripts.helpers.examination import examine_data
    return examine_data(opts)


if __name__ == '__main__':
    run(main)
