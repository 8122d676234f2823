"""Compare recipes on your own videos: train each on the same folds with the same seeds.

    python -m util_scripts.compare FLAGS_OF_MAIN.PY --recipes scratch finetune-small --seeds 3 \\
        --folds 5 --groups groups.csv

FLAGS_OF_MAIN.PY say where the data are; whatever else they say holds for all recipes. Each run is a
result folder of main.py below --result_path. It is evaluated after its last epoch, on videos that
it never saw; no epoch is chosen there. Repeated, the command keeps what is finished and goes on
with what is not.
"""

from collections.abc import Sequence
from pathlib import Path

from opts import build_parser, parse_opts
from runtime.arguments import COUNT, POSITIVE, POSITIVE_RATE, Parser, at_least, between
from runtime.errors import run


def build_compare_parser() -> Parser:
    parser = build_parser('python -m util_scripts.compare',
                          'Train each of some recipes on the same folds with the same seeds, and '
                          'compare how many unseen videos they classify. Exit status 1 where a '
                          'run failed.')
    add = parser.add_argument_group('comparison').add_argument
    add('--recipes', nargs='+', required=True, metavar='RECIPE',
        help='names in recipes/, such as scratch, or files of flags. In such a file {fold} and '
             '{seed} stand for those of the run')
    add('--leave_out', nargs='+', default=[], metavar='FLAG',
        help='also compare the first of --recipes without the line of each of these flags')
    add('--seeds', type=POSITIVE, default=1, metavar='N',
        help='train with so many seeds, from --manual_seed on')
    add('--folds', type=at_least(2), metavar='K',
        help='test each K-th of all labelled videos of the annotation by a network that is trained '
             'on the others; without it, train on those for training and test on those for '
             'testing or, where these have no labels, for validation')
    add('--groups', type=Path, metavar='FILE.csv',
        help='no fold splits a group: those of this file with the columns path and group (default: '
             'the recordings of names as in UCF-101)')
    add('--val_fraction', type=between(float, 0, 0.99), default=0.0, metavar='X',
        help='with --folds: so much of the videos is held back from training for validation, for '
             'recipes that need one')
    add('--n_jobs', type=COUNT, default=0, metavar='N',
        help='so many trainings run side by side, each with its share of the processors; 0: one '
             'for each processor')
    add('--minutes', type=POSITIVE_RATE, metavar='M',
        help='stop after so many minutes, to go on later')
    # Runs are many: frames are loaded where they are trained on, and few checkpoints are kept.
    parser.set_defaults(n_threads=0, keep=1)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    opts = parse_opts(argv, build_compare_parser())
    from util_scripts.helpers.comparison import compare
    return compare(opts)


if __name__ == '__main__':
    run(main)
