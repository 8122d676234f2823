"""Weights files: read without running code from them, into one value with all that they say.

    weights = read('results/save_200.pth')
    weights.network['model'], weights.class_names
"""

import errno
import json
import pickle
import platform
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import models
from models.base import Classifier
from models.identify import unrecorded_stem_planes
from models.released import kind_of, state_dict_keys
from opts import (CLIP_FLAGS, NETWORK_FLAGS, NORMALIZATION_FLAGS, Options, build_parser,
                  normalization)
from runtime.errors import InputError

# A file of a later format is refused; one without the number was not written by this code.
FORMAT_VERSION = 1
OURS = 'this code'
# The key of a .safetensors file's metadata that has what our checkpoints record, as JSON.
RECORD = 'checkpoint'
MODULE_PREFIX = re.compile(r'(module\.)+')
# What wrappers of other projects put before names, in any nesting.
WRAPPERS = re.compile(r'((module|_orig_mod|model|backbone|network)\.)+')


class CheckpointError(InputError):
    """A file is no checkpoint, or cannot be read or written."""


class WeightsError(InputError):
    """A weights file does not fit the network or the flags."""


@dataclass(frozen=True, eq=False)
class Weights:
    """What a weights file says of itself.

    state_dict:     {name: tensor} on the CPU, by the names of our networks
    network:        the options of `models.generate_model` that build the network; of the files of
                    other projects those that weights show
    clip:           flags of clips and normalisation that it was trained with, {} where the file
                    does not say any
    class_names:    in the order of the logits; None where the file does not say them
    multi_label:    True if a video of its training had any number of labels
    training:       the state of a training, as it is in the file; None for weights alone
    origin:         whose file it is: 'this code', 'the 2018 code', ...
    asks_for:       what images the network expects, in words, where main.py only warns of others
    arch, epoch:    as the file says, None where it does not
    format_version: of our files, 0 for others
    versions:       {library: version} that wrote one of our files
    behind_module:  True if its names began with DataParallel's `module.`
    not_finite:     names of the tensors that hold nan or infinity
    is_average:     True if `state_dict` is the moving average of the weights over the steps (EMA)
                    that the file holds beside those of the last step
    """

    path: Path
    state_dict: Mapping[str, torch.Tensor]
    network: Mapping[str, Any]
    clip: Mapping[str, Any]
    class_names: tuple[str, ...] | None
    multi_label: bool
    training: Mapping[str, Any] | None
    origin: str
    asks_for: str = ''
    arch: str | None = None
    epoch: int | None = None
    format_version: int = 0
    versions: Mapping[str, str] | None = None
    behind_module: bool = False
    not_finite: tuple[str, ...] = ()
    is_average: bool = False

    @property
    def is_ours(self) -> bool:
        """True if this code wrote the file, which then says all of itself."""
        return self.origin == OURS

    @property
    def network_name(self) -> str:
        """Such as resnet-50."""
        return models.network_name(self.network)


def read(path: str | Path, hints: Mapping[str, Any] = {}, use_ema: bool | None = None) -> Weights:
    """What a weights file says of itself.

    One of our checkpoints is taken at its word; a file of another project is told by the rows of
    `models.released.KINDS`.

    hints: network flags that were given, for files of others: where several values of a flag make
           the same network, that which is given is taken
    use_ema: True for the moving average of the weights, False for those of the last step, None for
             the average where the file holds one

    Raises CheckpointError for what is no weights file, WeightsError for weights of no network here
    for a damaged record, and for one that is to hold an average and does not.
    """
    return interpret(load(path), Path(path), hints, use_ema)


def interpret(file: Mapping[str, Any], path: Path, hints: Mapping[str, Any] = {},
              use_ema: bool | None = None) -> Weights:
    """What a weights file says of itself, from all that is in it, as `load` returns that."""
    has_average = 'ema_state_dict' in file
    if use_ema and not has_average:
        raise WeightsError(f'{path}: holds no moving average of its weights, as a training with '
                           '--ema_decay saves it; give --use_ema auto, or another file')
    is_average = has_average and use_ema is not False
    if is_average:
        _check_state_dict(file['ema_state_dict'], path)
        file = {**file, 'state_dict': file['ema_state_dict']}
    says = _our_record(file, path) if 'format_version' in file else _told(file, path, hints)
    has_training = 'optimizer' in file and 'scheduler' in file
    training = {key: value for key, value in file.items() if key != 'state_dict'}
    arch, epoch = file.get('arch'), file.get('epoch')
    return Weights(path=path, training=training if has_training else None,
                   arch=arch if isinstance(arch, str) else None,
                   epoch=epoch if isinstance(epoch, int) else None,
                   behind_module=bool(file.get('behind_module')), is_average=is_average,
                   not_finite=tuple(name for name, tensor in says['state_dict'].items()
                                    if not (tensor.is_meta or tensor.isfinite().all())), **says)


def describe(opts: Options, network: Classifier,
             class_names: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint records beside the state: enough to use it with no other flag.

    network: as `models.generate_model` returned it
    """
    mean, std = normalization(opts)
    options = dict(network.options)
    return {'format_version': FORMAT_VERSION, 'versions': versions(),
            'arch': models.network_name(options), 'network_options': options,
            'clip_options': {name: getattr(opts, name) for name in CLIP_FLAGS},
            'preprocessing': {'value_scale': opts.value_scale, 'mean': list(mean),
                              'std': list(std), 'size': opts.sample_size},
            'class_names': list(class_names), 'multi_label': opts.multi_label}


def versions() -> dict[str, str]:
    """{name: version} of Python and of the libraries that results depend on."""
    return {'python': platform.python_version(), 'torch': str(torch.__version__),
            **{name: metadata.version(name) for name in ('torchvision', 'numpy')}}


# ---------------------------------------------------------------- what is in a file

def load(path: str | Path) -> dict[str, Any]:
    """All that is in a weights file: a dict with at least `state_dict`, names without `module.`.

    A bare state dict is taken for one. `behind_module` is True where the names had that prefix.
    Tensors are on the CPU. Nothing in the file is run (weights_only). Raises CheckpointError.
    """
    path = Path(path)
    file = _unpickled(path)
    if not isinstance(file, dict):
        raise CheckpointError(f'{path}: not a checkpoint: it holds a {type(file).__name__}; give '
                              'a .pth file with a state_dict of weights')
    version = file.get('format_version', 0)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(f'{path}: is of format {version}, and this code reads formats up to '
                              f'{FORMAT_VERSION}; update the code')
    key = next((key for key in state_dict_keys() if isinstance(file.get(key), dict)), None)
    state_dict = file if key is None else file[key]
    _check_state_dict(state_dict, path)
    others = {} if key is None else {name: file[name] for name in file if name != key}
    if any(name.startswith('module.') for name in state_dict):
        others['behind_module'] = True
    return {**others, 'state_dict': {
        name: _in_fp32(value)
        for name, value in _unwrapped(state_dict, is_ours='format_version' in file).items()}}


def _unwrapped(state_dict: Mapping[str, torch.Tensor], is_ours: bool) -> dict[str, torch.Tensor]:
    """The tensors under names without what wrappers put before them; in our files `module.`.

    Where two would get one name, that of DataParallel alone is taken off.
    """
    bare: dict[str, torch.Tensor] = {}
    for prefix in (MODULE_PREFIX,) if is_ours else (WRAPPERS, MODULE_PREFIX):
        bare = {name[found.end():] if (found := prefix.match(name)) else name: value
                for name, value in state_dict.items()}
        if len(bare) == len(state_dict):
            break
    return bare


def _in_fp32(value: torch.Tensor) -> torch.Tensor:
    """Weights of half precision as fp32, which networks here have."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _unpickled(path: Path) -> Any:
    """What is in a file, or a CheckpointError."""
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
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
            raise CheckpointError(f'{path}: cannot be read ({error_text(error)}); give a .pth '
                                  'file') from None
        wanted = _code_in(error)
        if wanted:
            raise CheckpointError(f'{path}: refused, since loading it would run code from the file '
                                  f'({wanted}); give a file that holds only weights') from None
        raise CheckpointError(f'{path}: not a checkpoint, or one that is cut short; give another '
                              '.pth file') from None


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Tensors, and all else that `write_safetensors` put beside them, or a CheckpointError."""
    try:
        with safe_open(path, framework='pt') as file:
            record = json.loads((file.metadata() or {}).get(RECORD, '{}'))
            return {**record, 'state_dict': {name: file.get_tensor(name) for name in file.keys()}}
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such checkpoint; check the path and '
                              '--root_path') from None
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f'{path}: not a .safetensors file, or one that is cut short '
                              f'({str(error).splitlines()[0]}); give another file') from None


def write_safetensors(path: str | Path, state: Mapping[str, Any]) -> list[str]:
    """Write weights and what a checkpoint says of them; the keys that are left out.

    Left out is what is no JSON, such as the state of an optimiser, and of weights and their moving
    average the weights. Raises OSError.
    """
    chosen = 'ema_state_dict' if 'ema_state_dict' in state else 'state_dict'
    record, left_out = {}, []
    for key, value in state.items():
        if key == chosen:
            continue
        try:
            json.dumps(value)
            record[key] = value
        except (TypeError, ValueError):
            left_out.append(key)
    tensors = {name: value.detach().cpu().contiguous().clone()
               for name, value in state[chosen].items()}
    save_file(tensors, path, {'format': 'pt', RECORD: json.dumps(record)})
    return left_out


def error_text(error: BaseException) -> str:
    """Why a file cannot be read or written, as the system says it."""
    while error.__context__ and not isinstance(error, OSError):
        error = error.__context__  # torch fails once more while it closes a file on a full disk
    return getattr(error, 'strerror', None) or str(error).splitlines()[0]


def _code_in(error: Exception) -> str | None:
    """What a file asks torch to run, by the error that refuses it; None for any other error."""
    message = str(error)
    if isinstance(error, pickle.UnpicklingError):
        wanted = re.search(r'GLOBAL ([\w.]+)', message)  # the name of something to import and call
        return wanted and wanted[1]
    for form in ('TorchScript', '.tar'):
        if f'{form} ' in message and 'weights_only' in message:
            return f'it is of the {form} form'
    return None


def _check_state_dict(state_dict: Any, path: Path) -> None:
    """Raise CheckpointError unless these are tensors by name, at least one."""
    if not isinstance(state_dict, dict) or not any(
            isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise CheckpointError(f'{path}: not a checkpoint: it holds no state_dict of weights; give '
                              'another .pth file')
    for name, value in state_dict.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f'{path}: {name!r} in its state_dict is of type '
                                  f'{type(value).__name__}, not a tensor; give a file of weights '
                                  'alone')


# ---------------------------------------------------------------- what it says

def _told(file: Mapping[str, Any], path: Path, hints: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Weights` for a file of another project."""
    others = {key: value for key, value in file.items() if key != 'state_dict'}
    kind = kind_of(file['state_dict'], others)
    try:
        state_dict = kind.rename(file['state_dict'])
        network = kind.options(state_dict, hints)
    except InputError as error:
        raise WeightsError(f'{path}: {error}') from None
    clip = {}
    if kind.preprocessing:  # of the normalisation all flags are said
        defaults = vars(build_parser().parse_args([]))
        clip = {**kind.preprocessing, **{name: defaults[name] for name in NORMALIZATION_FLAGS
                                         if name not in kind.preprocessing}}
    return {'state_dict': state_dict, 'network': network, 'clip': clip, 'origin': kind.origin,
            'class_names': kind.class_names(network['n_classes']), 'multi_label': False,
            'asks_for': kind.asks_for}


def _our_record(file: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of `Weights` for one of our checkpoints."""
    defaults = vars(build_parser().parse_args([]))
    # A flag that came after the file was written has its default.
    network = {**{name: defaults[name] for name in NETWORK_FLAGS},
               **_flags_of(file, 'network_options', [*NETWORK_FLAGS, 'stem_planes'],
                           {**defaults, 'stem_planes': 64}, path)}
    try:
        options = models.options_of(network['model'])
    except InputError as error:
        raise WeightsError(f'{path}: {error}') from None
    if 'stem_planes' in options and 'stem_planes' not in network:
        network['stem_planes'] = unrecorded_stem_planes(file['state_dict'], network)
    names = file.get('class_names')
    return {'state_dict': file['state_dict'],
            'network': {name: value for name, value in network.items() if name in options},
            'clip': _flags_of(file, 'clip_options', CLIP_FLAGS, defaults, path),
            'class_names': None if names is None else tuple(map(str, names)),
            'multi_label': bool(file.get('multi_label', False)), 'origin': OURS,
            'format_version': file['format_version'], 'versions': file.get('versions', {})}


def _flags_of(file: Mapping[str, Any], key: str, names: Sequence[str],
              defaults: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """{flag: value} of those flags that one of our checkpoints records under a key."""
    record = file.get(key)
    if not isinstance(record, dict):
        raise WeightsError(f'{path}: its {key} are no record of flags; give an unchanged file')
    record = {name: record[name] for name in names if name in record}
    for name, value in record.items():
        if not _is_like(value, defaults[name]):
            raise WeightsError(f'{path}: its {key} say {name} {value!r}; give an unchanged file')
    return record


def _is_like(value: Any, default: Any) -> bool:
    """True if a value is of the kind of a flag's default; None stands for three numbers."""
    if default is None:
        return value is None or (isinstance(value, (list, tuple)) and len(value) == 3
                                 and all(isinstance(number, (int, float)) for number in value))
    if isinstance(default, (bool, str)):
        return isinstance(value, type(default))
    return isinstance(value, (int, float)) and (value > 0 or value == default)
