"""A long training in one process: do memory, open files and threads stay what they are?

    python -m tests.long_run --epochs 500

Prints the figures after every tenth of the epochs, as it validates, saves and logs in each; exit
status 1 where the last half of the run takes more of anything than a little.
"""

import argparse
import os
import sys
import tempfile
import threading
from contextlib import redirect_stdout
from pathlib import Path

import checkpoint
import main as command
from tests.tiny_data import TinyData

PAGE = os.sysconf('SC_PAGE_SIZE')
# What may be more at the end of the second half than at its begin: an allocator keeps a little.
SLACK_MB = 12


def figures():
    """(MB in memory, open files, threads) of this process."""
    return (int(Path('/proc/self/statm').read_text().split()[1]) * PAGE / 1e6,
            len(os.listdir('/proc/self/fd')), threading.active_count())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--epochs', type=int, default=500)
    args = parser.parse_args()
    rows = []
    save = checkpoint.save

    def watched(path, state):
        save(path, state)
        if path.name == f'save_{state["epoch"]}.pth' and (
                state['epoch'] % max(1, args.epochs // 10) == 0):
            rows.append(figures())
            print(f'epoch {state["epoch"]:5}: {rows[-1][0]:7.1f} MB, {rows[-1][1]} open files, '
                  f'{rows[-1][2]} threads', flush=True, file=sys.stderr)
    checkpoint.save = watched
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, 'w') as nowhere:
        data = TinyData(Path(folder) / 'data')
        argv = data.argv(Path(folder) / 'results', '--n_epochs', args.epochs, '--keep', 2,
                         '--sample_duration', 4, '--learning_rate', 0.01, '--tensorboard')
        with redirect_stdout(nowhere):
            status = command.main(argv)
        n_rows = len((Path(folder) / 'results' / 'train.log').read_text().splitlines()) - 1
    print(f'{n_rows} rows of train.log for {args.epochs} epochs, exit status {status}')
    middle, last = rows[len(rows) // 2], rows[-1]
    is_flat = last[0] - middle[0] < SLACK_MB and last[1:] == middle[1:]
    print('flat' if is_flat else f'not flat: {middle} in the middle, {last} at the end')
    return 0 if is_flat and status == 0 and n_rows == args.epochs else 1


if __name__ == '__main__':
    sys.exit(main())
