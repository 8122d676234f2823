"""Loss, accuracies and learning rate of one run or more, by epoch, in one picture.

    python -m util_scripts.plot_log results other_results --output runs.png
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import Parser
from runtime.errors import run
from runtime.output import wrote


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.plot_log',
                    'Draw loss, accuracies and learning rate of runs of main.py.')
    parser.add_argument('results', nargs='+', type=Path, metavar='RESULTS',
                        help='--result_path of a run; several are drawn into the same picture')
    parser.add_argument('--output', type=Path, metavar='FILE',
                        help='picture to write, .png, .pdf or .svg (default: curves.png in the '
                             'first folder)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.plotting import draw_runs
    from util_scripts.helpers.run_logs import read_run, run_names
    folders = list(dict.fromkeys(args.results))
    runs = dict(zip(run_names(folders), map(read_run, folders)))
    output = args.output or folders[0] / 'curves.png'
    draw_runs(runs, output)
    wrote(output)


if __name__ == '__main__':
    run(main)
