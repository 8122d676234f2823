"""Features: what a module of the network gives for each video or window, and the files of them.

A file is HDF5 with one row per video, or one per window:

    features     (n, D) float32
    video_ids    (n,) names, as in the annotation
    segments     (n, 2) first frame, last frame + 1
    labels       (n,) class numbers, -1 for none; multi-label (n, n_classes), 1 for each label
    class_names  (n_classes,)
"""

import base64
import io
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from runtime.errors import InputError
from runtime.files import file_size, replacing
from runtime.names import nearest

if TYPE_CHECKING:
    import torch  # slow to import
    from torch import nn


def module_named(network: 'nn.Module', name: str, flag: str) -> 'nn.Module':
    """The module `name` of a network; InputError, which begins with `flag`, for one it has not."""
    modules = dict(network.named_modules())
    if name not in modules:
        known = nearest(name, modules) or [part for part, _ in network.named_children()]
        raise InputError(f'{flag} {name}: no such module; the network has {", ".join(known)} ...')
    return modules[name]


class FeatureTap:
    """Within it, catches what the module `name` of a network gives in each pass.

    Without a name, what its classifier is given: the pooled features. Raises InputError for a name
    that the network has not.
    """

    def __init__(self, network: 'nn.Module', name: str = '') -> None:
        module = module_named(network, name or str(network.classifier_name),
                              '--feature_module')
        self._module, self._is_input = module, not name
        # Convolutions have their channels first, also in transformers.
        self._channel_axis = 1 if type(module).__name__ == 'Conv3d' else network.channel_axis
        self._taken: Any = None

    def __enter__(self) -> 'FeatureTap':
        self._hook = self._module.register_forward_hook(
            lambda _, inputs, output: self._take(inputs[0] if self._is_input else output))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._hook.remove()
        self._taken = None

    def _take(self, output: Any) -> None:
        # (N, C, t, h, w): averaged over time and space, as before a classifier.
        tensor = output[0] if isinstance(output, tuple) else output
        channels = -1 if self._is_input and tensor.dim() == 2 else self._channel_axis
        places = [axis for axis in range(1, tensor.dim()) if axis != channels % tensor.dim()]
        self._taken = tensor.mean(dim=places) if places else tensor

    def take(self) -> 'torch.Tensor':
        """(N, D) float32, on the CPU: those of the last pass."""
        return self._taken.float().cpu()


class Features(NamedTuple):
    """A file's content, as numpy arrays and lists of names; see the module."""

    features: np.ndarray
    video_ids: list
    segments: np.ndarray
    labels: np.ndarray
    class_names: list


def write_features(path: str | Path, content: Features) -> None:
    """Write `Features` to a file, whole or not at all. Raises InputError."""
    with replacing(path) as temporary:
        # On a full disk HDF5 itself would end the process in a segmentation fault.
        image = io.BytesIO()
        with h5py.File(image, 'w') as file:
            for name, values in content._asdict().items():
                is_text = name in ('video_ids', 'class_names')
                # As Python has the bytes of file names that are no UTF-8.
                texts = [text.encode(errors='surrogatepass') for text in values] if is_text else []
                file.create_dataset(name, data=texts if is_text else values,
                                    dtype=h5py.string_dtype() if is_text else None)
        temporary.write_bytes(image.getbuffer())


def pack(features: 'torch.Tensor', segments: 'torch.Tensor') -> dict[str, Any]:
    """Tensors (n, D) float32 and (n, 2) whole numbers -> what JSON can hold, to the bit."""
    data = features.numpy().astype('<f4').tobytes()
    return {'segments': segments.tolist(), 'float32': base64.b64encode(data).decode()}


def unpack(packed: dict[str, Any]) -> 'tuple[torch.Tensor, torch.Tensor]':
    """What `pack` was given."""
    import torch  # slow to import
    segments = torch.tensor(packed['segments'])
    rows = np.frombuffer(base64.b64decode(packed['float32']), '<f4').astype(np.float32)
    return torch.from_numpy(rows.reshape(len(segments), -1)), segments


def is_packed(value: Any) -> bool:
    """True for what `pack` may have made."""
    try:
        rows, segments = unpack(value)
    except (LookupError, TypeError, ValueError, RuntimeError):
        return False
    return len(rows) > 0 and segments.shape == (len(rows), 2)


def read_features(path: str | Path) -> Features:
    """`Features` of a file. Raises InputError where it is none."""
    try:
        n_bytes = file_size(path)
        with h5py.File(path, 'r') as file:
            for name in Features._fields:
                # Rows that are not stored are made of a fill value: any number of them.
                if file[name].size * max(1, file[name].dtype.itemsize) > n_bytes:
                    raise ValueError(f'{name} claims more than the file has')
            video_ids, class_names = (list(file[name].asstr(errors='surrogatepass')[:])
                                      for name in ('video_ids', 'class_names'))
            content = Features(file['features'][:], video_ids, file['segments'][:],
                               file['labels'][:], class_names)
        _check_shapes(content)
        return content
    except FileNotFoundError:
        raise InputError(f'{path}: no such file; make it with main.py --inference '
                         '--output_features') from None
    except Exception as error:  # a damaged file fails in any way there is
        raise InputError(f'{path}: not a file of features ({error}); make it with main.py '
                         '--inference --output_features') from None


def _check_shapes(content: Features) -> None:
    """Raise ValueError unless there are as many rows of each, of numbers, as there should be."""
    n_rows = len(content.features)
    wanted = {'features': (2, 'f'), 'segments': (2, 'iu'), 'labels': (content.labels.ndim, 'iu')}
    for name, (n_dims, kinds) in wanted.items():
        values = getattr(content, name)
        if len(values) != n_rows or values.ndim != n_dims or values.dtype.kind not in kinds:
            raise ValueError(f'its {name} are no {n_rows} rows of numbers')
    n_classes = len(content.class_names)
    if (content.labels.shape[1] != n_classes if content.labels.ndim == 2 else
            ((content.labels < -1) | (content.labels >= n_classes)).any()):
        raise ValueError(f'its labels are no numbers of its {n_classes} classes')
    if len(content.video_ids) != n_rows:
        raise ValueError(f'it names {len(content.video_ids)} videos for {n_rows} rows')
