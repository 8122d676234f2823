"""Training states on disk: written at once or not at all, read without running code from them."""

import os
import pickle
import platform
from pathlib import Path

import torch

from errors import InputError

FORMAT_VERSION = 1


class CheckpointError(InputError):
    """A file is no checkpoint, does not fit, or cannot be written."""


def save(path, state):
    """Write `state` to `path`: first to a temporary name, flushed to the disk, then renamed.

    Whatever happens, `path` is either what it was or the whole new file. Raises CheckpointError
    where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{platform.node()}.{os.getpid()}')
    try:
        with open(temporary, 'wb') as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f'{path}: the checkpoint cannot be written ({_reason(error)}); free '
                              'space or mend the permissions') from None
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder):
    """The new name itself is only safe once the folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load(path):
    """The checkpoint in a file: a dict with at least `state_dict`, names without `module.`.

    A bare state dict is taken for one. Tensors are on the CPU. Nothing in the file is run
    (weights_only). Raises CheckpointError.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such checkpoint; check the path and '
                              '--root_path') from None
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read ({_reason(error)})') from None
    except pickle.UnpicklingError as error:
        if 'GLOBAL' not in str(error):  # the name of something to import and call
            raise CheckpointError(f'{path}: not a checkpoint; give a .pth file') from None
        raise CheckpointError(f'{path}: refused, since loading it would run code from the file; '
                              'give a file that holds only weights') from None
    except Exception as error:  # bytes that are no checkpoint fail in any way there is
        raise CheckpointError(f'{path}: not a checkpoint, or one that is cut short '
                              f'({type(error).__name__}); give another .pth file') from None
    if _is_state_dict(state):
        state = {'state_dict': state}
    if not isinstance(state, dict) or not _is_state_dict(state.get('state_dict')):
        raise CheckpointError(f'{path}: not a checkpoint: it holds no state_dict of weights')
    return {**state, 'state_dict': strip_module(state['state_dict'])}


def strip_module(state_dict):
    """The state dict with names as the network's own, without DataParallel's `module.`."""
    return {name.removeprefix('module.'): value for name, value in state_dict.items()}


def _is_state_dict(state):
    return isinstance(state, dict) and bool(state) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items())


def _reason(error):
    return getattr(error, 'strerror', None) or str(error).splitlines()[0]
