"""The logs of runs, read: tables of numbers by epoch."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.files import read_file
from util_scripts.helpers.files import existing_folder

LOGS = {'training': 'train.log', 'validation': 'val.log'}
Table = dict[str, np.ndarray]  # a column (rows,) by its name


def read_log(path: Path) -> Table:
    """A tab-separated log with a header -> {column: (rows,) float array}.

    Raises InputError where there is no such file, or no row in it, or what is no number.
    """
    try:
        header, *rows = [line.split('\t') for line in read_file(path).decode().splitlines()]
        table = np.array([[float(value) for value in row] for row in rows]).reshape(-1, len(header))
        # Each epoch is a place on an axis.
        if 'epoch' not in header or not (np.abs(table[:, header.index('epoch')]) < 2 ** 31).all():
            raise ValueError('no column epoch of numbers')
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: not a log of a run ({error}); '
                         'name a file that main.py wrote') from error
    if not len(table):
        raise InputError(f'{path}: there is no epoch in it yet; wait for the first')
    return dict(zip(header, table.T))


def read_run(folder: Path) -> dict[str, Table]:
    """{'training': table, 'validation': table}, those that there are. Raises InputError."""
    existing_folder(folder, 'the --result_path of a run')
    paths = {log: folder / name for log, name in LOGS.items() if (folder / name).exists()}
    # A training that has just begun has logs with no row yet.
    tables = {log: read_log(path) for log, path in paths.items()
              if not path.is_file() or len(path.read_text(errors='replace').splitlines()) > 1}
    if not tables:
        raise InputError(f'{folder}: no epoch in {" or ".join(LOGS.values())} yet; give the '
                         '--result_path of a run that has ended its first')
    return tables


def run_names(folders: Sequence[Path]) -> list[str]:
    """One name per folder: that of the folder, with as many of those above it as tell all apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for n in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(part[-n:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names
