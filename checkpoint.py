"""Training states on disk: written at once or not at all, read without running code from them."""

import errno
import hashlib
import pickle
import platform
import re
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from runtime.errors import InputError
from runtime.files import writing_whole

# A file of a later format is refused; one without the number is of the 2020 or 2018 code.
FORMAT_VERSION = 1
MODULE_PREFIX = re.compile(r'(module\.)+')
EPOCH_NAME = re.compile(r'save_\d+\.pth')


class CheckpointError(InputError):
    """A file is no checkpoint, does not fit, or cannot be written."""


def versions() -> dict[str, str]:
    """{name: version} of Python and of the libraries that results depend on."""
    return {'python': platform.python_version(), 'torch': str(torch.__version__),
            **{name: metadata.version(name) for name in ('torchvision', 'numpy')}}


# ---------------------------------------------------------------- writing

def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write `state` to `path`, whole or not at all, and flushed to the disk.

    Raises CheckpointError where it cannot be written.
    """
    path = Path(path)
    try:
        with writing_whole(path, durable=True) as temporary, open(temporary, 'wb') as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f'{path}: the checkpoint cannot be written ({_reason(error)}); free '
                              'space or mend the permissions') from None


def _reason(error):
    """Why a file cannot be read or written, as the system says it."""
    while error.__context__ and not isinstance(error, OSError):
        error = error.__context__  # torch fails once more while it closes a file on a full disk
    return getattr(error, 'strerror', None) or str(error).splitlines()[0]


# ---------------------------------------------------------------- reading

def load(path):
    """The checkpoint in a file: a dict with at least `state_dict`, names without `module.`.

    A bare state dict is taken for one. `behind_module` is True where the names had that prefix.
    Tensors are on the CPU. Nothing in the file is run (weights_only). Raises CheckpointError.
    """
    path = Path(path)
    state = _read(path)
    if not isinstance(state, dict):
        raise CheckpointError(f'{path}: not a checkpoint: it holds a {type(state).__name__}; give '
                              'a .pth file with a state_dict of weights')
    version = state.get('format_version', 0)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(f'{path}: is of format {version}, and this code reads formats up to '
                              f'{FORMAT_VERSION}; update the code')
    if 'state_dict' not in state:
        state = {'state_dict': state}
    weights = state['state_dict']
    _check_weights(weights, path)
    state = {**state, 'state_dict': strip_module(weights)}
    if state['state_dict'].keys() != weights.keys():
        state['behind_module'] = True
    return state


def _read(path):
    """What is in a file, or a CheckpointError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of forms that are refused below
            return torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such checkpoint; check the path and '
                              '--root_path') from None
    except Exception as error:  # bytes that are no checkpoint fail in any way there is
        # EINVAL comes from a jump to where the end of the file should be.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise CheckpointError(f'{path}: cannot be read ({_reason(error)}); give a .pth '
                                  'file') from None
        wanted = _code_in(error)
        if wanted:
            raise CheckpointError(f'{path}: refused, since loading it would run code from the file '
                                  f'({wanted}); give a file that holds only weights') from None
        raise CheckpointError(f'{path}: not a checkpoint, or one that is cut short; give another '
                              '.pth file') from None


def _code_in(error):
    """What a file asks torch to run, by the error that refuses it; None for any other error."""
    message = str(error)
    if isinstance(error, pickle.UnpicklingError):
        wanted = re.search(r'GLOBAL ([\w.]+)', message)  # the name of something to import and call
        return wanted and wanted[1]
    for form in ('TorchScript', '.tar'):
        if f'{form} ' in message and 'weights_only' in message:
            return f'it is of the {form} form'
    return None


def _check_weights(weights, path):
    """Raise CheckpointError unless these are tensors by name, at least one."""
    if not isinstance(weights, dict) or not any(
            isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(f'{path}: not a checkpoint: it holds no state_dict of weights; give '
                              'another .pth file')
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f'{path}: {name!r} in its state_dict is of type '
                                  f'{type(value).__name__}, not a tensor; give a file of weights '
                                  'alone')


def strip_module(state_dict):
    """The state dict with names as the network's own, without DataParallel's `module.`."""
    return {MODULE_PREFIX.sub('', name) if name.startswith('module.') else name: value
            for name, value in state_dict.items()}


def fingerprint(state_dict):
    """A hash, in hex digits, of the names, types, shapes and values of weights."""
    digest = hashlib.sha256()
    for name, value in state_dict.items():
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
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
                   is_best: bool) -> None:
        """Save after an epoch, as far as it is time for that."""
        if is_best:
            self._save('save_best.pth', make_state())
        if epoch % self._every_epochs == 0 or epoch == self._last_epoch:
            self._save(f'save_{epoch}.pth', make_state())
            if self._is_writer and not self.has_failed:
                prune(self._folder, self._keep)

    def _save(self, name: str, state: Mapping[str, Any]) -> None:
        self._saved_at = time.monotonic()
        self._before_save()
        if not self._is_writer:
            return
        try:
            save(self._folder / name, state)
            self.has_failed = False
        except CheckpointError as error:
            self.has_failed = True
            self._warn(f'warning: {error}; the run goes on')


def newest(folder: str | Path) -> Path | None:
    """Path of the newest checkpoint in a folder that loads, None where there is none."""
    for path in _newest_first(folder):
        try:
            load(path)
            return path
        except CheckpointError:
            continue
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
