"""Training states on disk: written at once or not at all, found and pruned in their folder."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.files import writing_whole
from weights import CheckpointError, error_text, load

EPOCH_NAME = re.compile(r'save_\d+\.pth')


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
