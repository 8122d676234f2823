"""Weights files: read without running code from them, into one value with all that they say.

    weights = read('results/save_200.pth')
    weights.network['model'], weights.class_names
"""

import errno
import json
import mmap
import pickle
import platform
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
                  normalization, parsed_record)
from runtime.engines import Engine, is_exported, open_engine
from runtime.errors import InputError, first_line
from runtime.files import file_size, parse_json
from runtime.names import meant_file
from runtime.schema import (BOOL, NAME, NUMBER, OBJECT, REAL, TEXT, fields, list_of, mapping,
                            optional, shown, whole)

# A file of a later format is refused; one without the number was not written by this code.
FORMAT_VERSION = 1
OURS = 'this code'
# The key of a .safetensors file's metadata that has what our checkpoints record, as JSON.
RECORD = 'checkpoint'
MODULE_PREFIX = re.compile(r'(module\.)+')
# What wrappers of other projects put before names, in any nesting.
WRAPPERS = re.compile(r'((module|_orig_mod|model|backbone|network)\.)+')
# How deep values of a file may lie in each other, and how many there may be.
MAX_DEPTH, MAX_VALUES = 32, 10_000_000
# Bytes of all tensors together, for each byte of the file: some share theirs, such as tied weights.
MAX_SHARING = 8
# Of a clip and of a stem that a file describes: more than any network here has been trained with.
MAX_CLIP_BYTES, MAX_PLANES = 2 ** 31, 65_536
# What a zip archive begins with.
ZIP_MAGIC = b'PK\x03\x04'

# What the numbers of a file are. Floats of 8 bits would be others without their scales.
PLAIN_TYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.int8,
               torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32,
               torch.uint64}

# What the fields of a file are, if it has them: the state of a training, and what ours record.
COUNTS, NUMBERS = mapping(whole(0), whole(0)), list_of(whole(0))
SCHEDULE = fields({}, {
    'last_epoch': whole(-1), 'best': REAL, 'num_bad_epochs': whole(0), 'rates': list_of(NUMBER),
    'name': TEXT,
    'milestones': lambda value: (COUNTS if isinstance(value, Mapping) else NUMBERS)(value)})
TRAINING = fields(
    {'epoch': whole(0), 'scheduler': SCHEDULE,
     'optimizer': fields({'state': mapping(whole(0), OBJECT), 'param_groups': list_of(fields(
         {'params': list_of(whole(0)), 'lr': NUMBER}, {'initial_lr': NUMBER}))})},
    {'position': fields({'epoch': whole(1), 'batch': whole(0), 'sums': mapping(TEXT, REAL)},
                        {'lr': optional(NUMBER), 'batch_size': whole(1)}),
     'options': OBJECT, 'best_epoch': whole(0), 'n_worse': whole(0),
     'scaler': optional(OBJECT)})
OWN_FIELDS = fields({}, {
    'arch': NAME, 'epoch': whole(0), 'versions': mapping(TEXT, TEXT), 'multi_label': BOOL,
    'class_names': optional(list_of(NAME, is_unique=True)), 'behind_module': BOOL})


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
    stored_types:   types of floating-point numbers in the file, such as ('float16',): `state_dict`
                    has fp32 for those of half precision
    is_average:     True if `state_dict` is the moving average of the weights over the steps (EMA)
                    that the file holds beside those of the last step
    engine:         what runs an exported network, whose file has no state dict; None for others
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
    stored_types: tuple[str, ...] = ()
    is_average: bool = False
    engine: Engine | None = None

    @property
    def is_ours(self) -> bool:
        """True if this code wrote the file, which then says all of itself."""
        return self.origin == OURS

    @property
    def goes_on_finite(self) -> bool:
        """True if no number that an optimiser keeps of the steps so far is nan or infinity."""
        states = (self.training or {}).get('optimizer', {}).get('state', {})
        return all(_is_finite(value) for state in states.values() for value in state.values()
                   if isinstance(value, torch.Tensor) and value.is_floating_point())

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
    if not is_exported(path):
        loaded, types = _loaded(Path(path))
        weights = interpret(loaded, Path(path), hints, use_ema)
        return weights if weights.is_average else replace(weights, stored_types=types)
    engine = open_engine(path)
    _check_format(engine.record, Path(path))
    file = {**engine.record, 'state_dict': {}}
    return replace(interpret(file, Path(path), hints, use_ema), engine=engine)


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
    is_ours = 'format_version' in file
    has_training = 'optimizer' in file and 'scheduler' in file
    fault = (OWN_FIELDS(file) if is_ours else '') or (TRAINING(file) if has_training else '')
    if fault and is_ours:
        raise WeightsError(f'{path}: its {fault.removeprefix(".")}; give an unchanged file')
    has_training = has_training and not fault
    says = _our_record(file, path) if is_ours else _told(file, path, hints)
    training = {key: value for key, value in file.items() if key != 'state_dict'}
    arch, epoch = file.get('arch'), file.get('epoch')
    return Weights(path=path, training=training if has_training else None,
                   arch=None if NAME(arch) else arch,
                   epoch=epoch if isinstance(epoch, int) else None,
                   behind_module=bool(file.get('behind_module')), is_average=is_average,
                   stored_types=_float_types(says['state_dict']),
                   not_finite=tuple(name for name, tensor in says['state_dict'].items()
                                    if not (tensor.is_meta or _is_finite(tensor))), **says)


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
    return _loaded(Path(path))[0]


def _loaded(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What `load` returns, and the types of floating-point numbers that its weights have in the
    file. Raises CheckpointError."""
    file, n_bytes = _content(path)
    if not isinstance(file, dict):
        raise CheckpointError(f'{path}: not a checkpoint: it holds a {type(file).__name__}; give '
                              'a .pth file with a state_dict of weights')
    _check_format(file, path)
    _check_tensors(file, n_bytes, path)
    key = next((key for key in state_dict_keys() if isinstance(file.get(key), dict)), None)
    state_dict = file if key is None else file[key]
    _check_state_dict(state_dict, path)
    others = {} if key is None else {name: file[name] for name in file if name != key}
    if any(name.startswith('module.') for name in state_dict):
        others['behind_module'] = True
    return {**others, 'state_dict': {
        name: _in_fp32(value)
        for name, value in _unwrapped(state_dict, is_ours='format_version' in file).items()
    }}, _float_types(state_dict)


def _check_format(file: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError for a record of a later version of this code."""
    version = file.get('format_version', 0)
    if type(version) is not int or version > FORMAT_VERSION:
        said = version if isinstance(version, str) else shown(version)
        raise CheckpointError(f'{path}: is of format {said}, and this code reads formats up to '
                              f'{FORMAT_VERSION}; update the code')


def _float_types(state_dict: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    return tuple(sorted({str(tensor.dtype).removeprefix('torch.')
                         for tensor in state_dict.values() if tensor.is_floating_point()}))


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


def _is_finite(tensor: torch.Tensor) -> bool:
    """True if all numbers are: then their sum is, which takes a tenth of the time, unless it is too
    large."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def _in_fp32(value: torch.Tensor) -> torch.Tensor:
    """Weights of half precision as fp32, which networks here have."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _content(path: Path) -> tuple[Any, int]:
    """What is in a file, and its size in bytes. Raises CheckpointError."""
    try:
        n_bytes = file_size(path)
        return (_read_safetensors if path.suffix == '.safetensors' else _unpickled)(path), n_bytes
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such checkpoint; '
                              + (meant_file(path) or 'check the path')) from None
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read ({error_text(error)}); give a .pth '
                              'file') from None


def _unpickled(path: Path) -> Any:
    """What torch.save put into a file. Raises CheckpointError, and OSError as `open` does."""
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of forms that are refused below
            return torch.load(path, map_location='cpu', weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # bytes that are no checkpoint fail in any way there is
        # EINVAL comes from a jump to where the end of the file should be.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        wanted = _code_in(error)
        if wanted:
            raise CheckpointError(f'{path}: refused, since loading it would run code from the file '
                                  f'({wanted}); give a file that holds only weights') from None
        raise CheckpointError(f'{path}: not a checkpoint, or one that is cut short; give another '
                              '.pth file') from None


def _check_archive(path: Path) -> None:
    """Raise CheckpointError where a file does not hold what torch.save wrote, by its checksums, or
    asks for more memory than it has bytes. Whatever else is raised comes of a file that is none.

    torch.load sees neither.
    """
    with (open(path, 'rb') as file,
          mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content):
        if content[:len(ZIP_MAGIC)] != ZIP_MAGIC:
            _check_pickle(content, 0, len(content), path)
            return
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            n_unpacked = sum(entry.file_size for entry in entries)
            if n_unpacked > len(content) or any(entry.compress_type for entry in entries):
                raise CheckpointError(f'{path}: is packed, which torch.save never does, and '
                                      f'unpacks to {n_unpacked} bytes; give the file as torch.save '
                                      'wrote it')
            for entry in entries:
                if entry.filename.endswith('.pkl'):  # behind a header, whose size varies
                    _check_pickle(content, entry.header_offset, entry.file_size + 2 ** 17, path)
            # torch.save leaves all of them 0 where it is told to make none.
            broken = archive.testzip() if any(entry.CRC for entry in entries) else None
            if broken is not None:
                raise CheckpointError(f'{path}: is damaged: its part {broken} is not what was '
                                      'written, by its checksum; give another copy')


def _check_pickle(content: mmap.mmap, begin: int, n_bytes: int, path: Path) -> None:
    """Raise CheckpointError where a pickle asks for a bytearray, which torch.load would make."""
    if content.find(b'bytearray', begin, begin + n_bytes) >= 0:
        raise CheckpointError(f'{path}: refused, since it asks for a bytearray, which may be of '
                              'any size; give a file that holds only weights')


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Tensors, and all else that `write_safetensors` put beside them. Raises CheckpointError."""
    try:
        with safe_open(path, framework='pt') as file:
            record = parse_json((file.metadata() or {}).get(RECORD, '{}'))
            return {**record, 'state_dict': {name: file.get_tensor(name) for name in file.keys()}}
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f'{path}: not a .safetensors file, or one that is cut short '
                              f'({first_line(error)}); give another file') from None


def _tensors(file: Any, path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(where, tensor) of all that lie anywhere in a file. Raises CheckpointError for one with more
    than any training has."""
    waiting: list[tuple[str, Any, int]] = [('', file, 0)]
    seen, n_values = set(), 0
    while waiting:
        where, value, depth = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield where, value
        elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            n_values += len(value)
            if depth > MAX_DEPTH or n_values > MAX_VALUES:
                raise CheckpointError(f'{path}: holds more values, or values nested deeper, than '
                                      'any training; give a file of weights')
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f'{where}.{key}' if isinstance(key, (str, int)) else where, item,
                         depth + 1) for key, item in items]


def _check_tensors(file: Any, n_bytes: int, path: Path) -> None:
    """Raise CheckpointError unless the tensors of a file are plain ones that lie in its bytes."""
    n_claimed = 0
    for where, tensor in _tensors(file, path):
        name, own = where.removeprefix('.').removeprefix('state_dict.'), 0
        kind = _odd_kind(tensor)
        if not kind:
            own = tensor.numel() * tensor.element_size()
            if own > tensor.untyped_storage().nbytes():
                kind = 'expanded beyond the numbers that it has'
        if kind:
            raise CheckpointError(f'{path}: its tensor {name} is {kind}; give a file of plain '
                                  'weights')
        n_claimed += own
    if n_claimed > MAX_SHARING * n_bytes:
        raise CheckpointError(f'{path}: claims {n_claimed} bytes of tensors and has {n_bytes}; '
                              'give a file of plain weights')


def _odd_kind(tensor: torch.Tensor) -> str:
    """What makes a tensor no plain one of real numbers, '' for nothing."""
    if tensor.is_nested:
        return 'nested'
    if tensor.layout != torch.strided:
        return 'sparse'
    if tensor.is_quantized:
        return 'quantised'
    if tensor.is_meta:
        return 'without values'
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f'a {type(tensor).__name__}'
    if tensor.is_complex():
        return 'of complex numbers'
    return '' if tensor.dtype in PLAIN_TYPES else f'of type {str(tensor.dtype)[6:]}'


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
    try:
        save_file(tensors, path, {'format': 'pt', RECORD: json.dumps(record)})
    except SafetensorError as error:
        raise OSError(errno.EIO, first_line(error)) from None
    return left_out


def error_text(error: BaseException) -> str:
    """Why a file cannot be read or written, as the system says it."""
    while error.__context__ and not isinstance(error, OSError):
        error = error.__context__  # torch fails once more while it closes a file on a full disk
    return getattr(error, 'strerror', None) or first_line(error)


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
    record = file.get('network_options')
    model = record.get('model') if isinstance(record, dict) else None
    try:
        options = models.options_of(model if isinstance(model, str) else defaults['model'])
    except InputError as error:
        raise WeightsError(f'{path}: {error}') from None
    # A flag that came after the file was written has its default.
    network = {**{name: defaults[name] for name in NETWORK_FLAGS},
               **_flags_of(file, 'network_options', NETWORK_FLAGS, path)}
    known = models.depths(network['model'])
    if known and network['model_depth'] not in known:
        raise WeightsError(f'{path}: its network_options say {network["model"]} of depth '
                           f'{network["model_depth"]}, which there is not; give an unchanged file')
    if 'stem_planes' in options:
        network['stem_planes'] = _stem_planes(file, network, path)
    names = file.get('class_names')
    clip = _flags_of(file, 'clip_options', CLIP_FLAGS, path)
    _check_clips(clip, path)
    return {'state_dict': file['state_dict'],
            'network': {name: value for name, value in network.items() if name in options},
            'clip': clip, 'class_names': None if names is None else tuple(names),
            'multi_label': bool(file.get('multi_label', False)), 'origin': OURS,
            'format_version': file['format_version'], 'versions': file.get('versions', {})}


def _stem_planes(file: Mapping[str, Any], network: Mapping[str, Any], path: Path) -> int:
    """The width of the stem, which has no flag."""
    planes = file['network_options'].get('stem_planes')
    if planes is None:
        return unrecorded_stem_planes(file['state_dict'], network)
    if fault := whole(1, MAX_PLANES)(planes):
        raise WeightsError(f'{path}: its network_options.stem_planes{fault}; give an unchanged '
                           'file')
    return planes


def _check_clips(clip: Mapping[str, Any], path: Path) -> None:
    """Raise WeightsError where clips of these flags would be of more memory than any have."""
    n_bytes = 3 * clip.get('sample_duration', 1) * max(
        clip.get('sample_size', 1), clip.get('sample_resize', 1)) ** 2
    if n_bytes > MAX_CLIP_BYTES:
        raise WeightsError(f'{path}: its clip_options ask for clips of {n_bytes} bytes, and at '
                           f'most {MAX_CLIP_BYTES} are read; give an unchanged file')


def _flags_of(file: Mapping[str, Any], key: str, names: Sequence[str],
              path: Path) -> dict[str, Any]:
    """{flag: value} of those flags that one of our checkpoints records under a key."""
    record = file.get(key)
    if not isinstance(record, dict):
        raise WeightsError(f'{path}: its {key} are no record of flags; give an unchanged file')
    record = {name: record[name] for name in names if name in record}
    try:
        return parsed_record(record)
    except InputError:
        raise WeightsError(f'{path}: its {key} say {_refused_entry(record)}; give an unchanged '
                           'file') from None


def _refused_entry(record: Mapping[str, Any]) -> str:
    """The first entry of a record that its flag does not take, and its value."""
    for name, value in record.items():
        try:
            parsed_record({name: value})
        except InputError:
            return f'{name} {shown(value)}'
    return 'values that do not go together'
