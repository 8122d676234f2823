"""Training states on disk: written at once or not at all, found and pruned in their folder."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from runtime.errors import InputError
from runtime.files import make_result_folder, writing_whole
from weights import CheckpointError, error_text, read

EPOCH_NAME = re.compile(r'save_\d+\.pth')


# ---------------------------------------------------------------- writing

def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write `state` to `path`, whole or not at all, and flushed to the disk.

    Raises CheckpointError where it cannot be written.
    """
    with writing(Path(path)) as temporary, open(temporary, 'wb') as file:
        torch.save(state, file)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path`; CheckpointError where that fails."""
    try:
        with writing_whole(path, durable=True) as temporary:
            yield temporary
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f'{path}: the checkpoint cannot be written ({error_text(error)}); '
                              'free space or mend the permissions') from None


def fingerprint(state_dict: Mapping[str, torch.Tensor]) -> str:
    """A hash, in hex digits, of the names, types, shapes and values of weights."""
    digest = hashlib.sha256()
    for name, value in state_dict.items():
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---------------------------------------------------------------- the checkpoints of a folder

class CheckpointSaver:
    """When a training saves, and under which names in its folder.

    save_{epoch}.pth: every `every_epochs` epochs and after the last; of these the newest `keep`
                      stay, 0 for all
    save_best.pth:    after an epoch that is better than all before
    save_last.pth:    `every_minutes`, 0 for never, and where the run is stopped

    before_save: called first, in every process; `is_writer` is True in the one that writes
    warn:        told where a file cannot be written: the run goes on, the next save tries again,
                 and until one succeeds `has_failed` is True
    """

    def __init__(self, folder: Path, *, every_epochs: int, last_epoch: int, keep: int = 0,
                 every_minutes: float = 0.0, is_writer: bool = True,
                 before_save: Callable[[], object], warn: Callable[[str], object]) -> None:
        self._folder, self._every_epochs, self._last_epoch = folder, every_epochs, last_epoch
        self._keep, self._every_minutes, self._is_writer = keep, every_minutes, is_writer
        self._before_save, self._warn = before_save, warn
        self._saved_at, self.has_failed = time.monotonic(), False

    def is_due(self) -> bool:
        """Returns True if `every_minutes` have passed since the last save."""
        passed_sec = time.monotonic() - self._saved_at
        return bool(self._every_minutes) and passed_sec > 60 * self._every_minutes

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Save within an epoch."""
        self._save('save_last.pth', state)

    def save_epoch(self, epoch: int, make_state: Callable[[], Mapping[str, Any]],
                   is_best: bool, is_last: bool = False) -> None:
        """Save after an epoch, as far as it is time for that; `is_last`: the training stops here.
        """
        if is_best:
            self._save('save_best.pth', make_state())
        if epoch % self._every_epochs == 0 or epoch == self._last_epoch or is_last:
            self._save(f'save_{epoch}.pth', make_state())
            if self._is_writer and not self.has_failed:
                prune(self._folder, self._keep)

    def _save(self, name: str, state: Mapping[str, Any]) -> None:
        self._saved_at = time.monotonic()
        self._before_save()
        if not self._is_writer:
            return
        try:
            if not self._folder.exists():
                make_result_folder(self._folder)
                self._warn(f'warning: {self._folder}: was deleted during the run; it is made again')
            save(self._folder / name, state)
            self.has_failed = False
        except InputError as error:
            self.has_failed = True
            self._warn(f'warning: {error}; the run goes on')


def newest(folder: str | Path, warn: Callable[[str], object]) -> Path | None:
    """Path of the newest checkpoint in a folder that can be gone on with, None where there is none.

    warn: told of each newer one that is passed over, and why
    """
    for path in _newest_first(folder):
        try:
            weights = read(path)
        except InputError as error:
            warn(f'passed over: {error}')
            continue
        if weights.training is None or weights.not_finite or not weights.goes_on_finite:
            held = 'no state of a training' if weights.training is None else 'nan or infinity'
            warn(f'passed over: {path}: holds {held}')
            continue
        return path
    return None


def prune(folder: str | Path, keep: int) -> None:
    """Delete all but the newest `keep` of the save_{epoch}.pth; 0 keeps all."""
    by_epoch = [path for path in _newest_first(folder) if EPOCH_NAME.fullmatch(path.name)]
    for path in by_epoch[keep:] if keep else ():
        path.unlink(missing_ok=True)


def _newest_first(folder: str | Path) -> list[Path]:
    # By time, not by epoch: a training that went back to an earlier epoch has later numbers too.
    return sorted(Path(folder).glob('save_*.pth'), key=lambda path: path.stat().st_mtime_ns,
                  reverse=True)
