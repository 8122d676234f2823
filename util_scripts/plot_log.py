"""Loss, accuracies and learning rate of one run or more, by epoch, in one picture.

    python -m util_scripts.plot_log results other_results --output runs.png
"""

import argparse
import os
from pathlib import Path

from runtime.errors import InputError, run
from util_scripts.helpers.plotting import draw_runs, read_log

LOGS = {'training': 'train.log', 'validation': 'val.log'}


def read_run(folder):
    """{'training': table, 'validation': table}, those that there are. Raises InputError."""
    if not folder.is_dir():
        raise InputError(f'{folder}: no such folder; give the --result_path of a run')
    paths = {log: folder / name for log, name in LOGS.items() if (folder / name).exists()}
    # A training that has just begun has logs with no row yet.
    tables = {log: read_log(path) for log, path in paths.items() if _has_rows(path)}
    if not tables:
        raise InputError(f'{folder}: no epoch in {" or ".join(LOGS.values())} yet; give the '
                         '--result_path of a run')
    return tables


def _has_rows(path):
    return len(path.read_text(errors='replace').splitlines()) > 1


def run_names(folders):
    """A name each: that of the folder, with as many of those above it as tell all apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for n in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(part[-n:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def build_parser():
    parser = argparse.ArgumentParser(
        description='Draw loss, accuracies and learning rate of runs of main.py.')
    parser.add_argument('results', nargs='+', type=Path, metavar='RESULTS',
                        help='--result_path of a run; several are drawn into the same picture')
    parser.add_argument('--output', type=Path, metavar='FILE',
                        help='picture to write, .png, .pdf or .svg (default: log.png in the first '
                             'folder)')
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    folders = list(dict.fromkeys(args.results))
    runs = dict(zip(run_names(folders), map(read_run, folders)))
    output = args.output or folders[0] / 'log.png'
    draw_runs(runs, output)
    print(output)


if __name__ == '__main__':
    run(main)
