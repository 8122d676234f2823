"""Downloads of large files: resumed where they broke off, checked by their hash."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from tqdm import tqdm

from runtime.errors import InputError
from runtime.output import is_quiet
from util_scripts.helpers.package_index import FAULTS, Web, fault_of, without_password

BLOCK_BYTES = 1 << 20
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


def sha256_of(path: Path) -> str:
    """The hash of a file, in hex digits. Raises InputError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, 'rb') as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); give another file') from None
    return digest.hexdigest()


def check_hash(path: Path, sha256: str) -> None:
    """Raise InputError unless the hash of a file begins with the digits `sha256`."""
    found = sha256_of(path)
    if not found.startswith(sha256):
        raise InputError(f'{path}: is damaged, or another file than was released: its sha256 '
                         f'begins with {found[:8]} and not with {sha256[:8]}; download it again')


def download(url: str, path: Path, sha256: str, web: Web, by_hand: str) -> None:
    """Download a file to `path`, which is the whole and right file or is not there.

    What broke off stays in PATH.part, from which the next download goes on. Raises InputError;
    where the file cannot be had, its sentence ends with `by_hand`, which says how to have it
    otherwise.
    """
    part = path.with_name(f'{path.name}.part')
    try:
        _fetch(url, part, path, web)
    except FAULTS as error:
        raise InputError(f'{without_password(url)}: cannot be downloaded ({fault_of(error)}); '
                         f'{by_hand}') from None
    try:
        check_hash(part, sha256)
    except InputError:
        part.unlink()
        raise InputError(f'{without_password(url)}: what was downloaded is damaged, or another '
                         f'file than was released (its sha256 does not begin with {sha256[:8]}); '
                         f'{by_hand}') from None
    with _writable(path):
        os.replace(part, path)


def _fetch(url: str, part: Path, path: Path, web: Web) -> None:
    """Append to `part` what it lacks of what the URL holds."""
    n_had = part.stat().st_size if part.exists() else 0
    try:
        response = web.open(url, {'Range': f'bytes={n_had}-'} if n_had else {})
    except HTTPError as error:
        if n_had and error.code == RANGE_NOT_SATISFIABLE:  # nothing is missing
            return
        raise
    with response:
        if n_had and response.status != PARTIAL_CONTENT:
            n_had = 0
        length = response.headers.get('Content-Length')
        total = n_had + int(length) if length else None
        n_got = n_had + _append(response, part, path, n_had, total)
    if total is not None and n_got < total:
        raise OSError(f'it broke off after {n_got} of {total} bytes, and the same command goes on '
                      'from there')


def _append(response: Any, part: Path, path: Path, n_had: int, total: int | None) -> int:
    """Write what the response holds behind the first `n_had` bytes; the number of new ones."""
    with _writable(path):
        part.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, 'ab' if n_had else 'wb')
    n_new = 0
    with file, tqdm(total=total, initial=n_had, desc=path.name, unit='B', unit_scale=True,
                    leave=False, disable=is_quiet() or None) as bar:
        while block := response.read(BLOCK_BYTES):
            with _writable(path):
                file.write(block)
                file.flush()  # a full disk is noticed here and not when the file is closed
            bar.update(len(block))
            n_new += len(block)
    return n_new


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Within it, what a disk refuses is an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f'{path}: cannot be written ({error.strerror or error}); free space, '
                         'mend the permissions or give another --to') from None
