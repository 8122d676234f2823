"""From options, or from a file of weights, to a network; what is frozen."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import models
from checkpoint import fingerprint
from models.attention import is_attention
from models.base import Classifier
from models.exported import ExportedNetwork
from opts import (NETWORK_FLAGS, NORMALIZATION_FLAGS, Options, build_parser, clip_shape,
                  normalization, replace)
from runtime.engines import ANY, Engine, contents_of
from runtime.errors import InputError
from runtime.exporting import compiled_network
from runtime.hardware import InPrecision, in_precision
from runtime.output import to_stderr
from spatial_transforms import Normalize
from tasks import TASKS
from weights import Weights, WeightsError, read

# The numbers of a network that a file describes are at most so many for each that it has, and a few
# more: those of --attention may be new.
MAX_NETWORK_RATIO, FEW_NUMBERS = 8, 10_000_000
# How many tensors or names an error about a file of weights lists.
LISTED = 4


# ---------------------------------------------------------------- building

def build_network(opts: Options, **more: Any) -> Classifier:
    """The network that the options name: (N, C, T, H, W) float -> (N, n_classes) logits.

    more: options of `models.generate_model` that are no flags

    Raises InputError where --attention asks for what the family has not.
    """
    if opts.attention != 'none' and 'attention' not in models.options_of(opts.model):
        raise InputError(f'--attention {opts.attention}: {opts.model} has none; drop the flag, or '
                         'give a --model that is a ResNet')
    torch.manual_seed(opts.manual_seed)
    return models.generate_model(**{flag: getattr(opts, flag) for flag in NETWORK_FLAGS}, **more)


def load_network(opts: Options, weights: Weights) -> Classifier:
    """The network of a weights file, with its weights; `opts` as `adopt_options` returned them.

    This and the next two raise WeightsError for weights that do not fit the network; this and the
    next for weights that are not finite.
    """
    if weights.engine:
        return _exported_network(opts, weights, weights.engine)
    network = _network_for(opts, weights)
    _check_finite(weights)
    network.load_state_dict(_fitting(network, weights.state_dict, weights.path))
    return network if opts.backend == 'auto' else on_openvino(opts, network)


def _exported_network(opts: Options, weights: Weights, engine: Engine) -> ExportedNetwork:
    n_classes = weights.network['n_classes']
    if engine.n_classes not in (ANY, n_classes):
        raise WeightsError(f'{weights.path}: gives {engine.n_classes} numbers for a clip, and says '
                           f'that its classes are {n_classes}; export the checkpoint again')
    engine.compile(opts.precision, opts.backend)
    prepared = None
    if engine.record['exported'].get('preprocess'):
        prepared = (*normalization(opts), float(opts.value_scale))
    return ExportedNetwork(engine, contents_of(weights.path), weights.network, prepared=prepared,
                           is_sigmoid=weights.multi_label)


def on_openvino(opts: Options, network: Classifier) -> ExportedNetwork:
    """The network as OpenVINO runs it on the CPU, for any number of clips of the options' sizes.

    What is made of it is kept in the user's cache, by its weights and sizes. Raises InputError
    where OpenVINO is not installed, or the network cannot be exported.
    """
    key = {'weights': fingerprint(network.state_dict()), 'network': network.options,
           'clip': clip_shape(opts), 'torch': str(torch.__version__)}
    run = compiled_network(network, clip_shape(opts), json.dumps(key, sort_keys=True),
                           opts.precision)
    return ExportedNetwork(run, json.dumps(key).encode(), network.options)


def load_pretrained(opts: Options, weights: Weights, warn: Callable[[str], None] = to_stderr,
                    class_names: Sequence[str] = ()) -> Classifier:
    """The network of a weights file with a new classifier of opts.n_classes, or with
    opts.keep_classifier with the file's, whose classes get the order of `class_names`.

    Attention that --attention adds starts as the identity. `warn` takes a line that names it, one
    that names tensors that the network has not, which are left out, and one for a file that has no
    classifier. Raises WeightsError also where a classifier to keep is of other classes.
    """
    network = _network_for(opts, weights)
    _check_finite(weights)
    state_dict = {**weights.state_dict, **_classifier(opts, network, weights, class_names, warn)}
    own = network.state_dict()
    added = {name: value for name, value in own.items()
             if is_attention(name) and name not in state_dict}
    if added and weights.network.get('attention', 'none') == 'none':
        warn(f'{weights.path}: has no attention: {len(added)} tensors are new ({_first([*added])})')
        state_dict.update(added)
    extra = [name for name in state_dict if name not in own]
    if extra:
        warn(f'{weights.path}: {len(extra)} tensors are not of the network and are left out '
             f'({_first(extra)})')
    state_dict = {name: value for name, value in state_dict.items() if name not in extra}
    network.load_state_dict(_fitting(network, state_dict, weights.path))
    return network


def _classifier(opts: Options, network: Classifier, weights: Weights, class_names: Sequence[str],
                warn: Callable[[str], None]) -> dict[str, torch.Tensor]:
    """The tensors of the classifier of `load_pretrained`, by name."""
    begin, path = f'{network.classifier_name}.', weights.path
    new = {name: value for name, value in network.state_dict().items() if name.startswith(begin)}
    kept = {name: value for name, value in weights.state_dict.items() if name.startswith(begin)}
    if not opts.keep_classifier:
        if not kept:
            warn(f'{path}: has no classifier: {len(new)} tensors are new ({_first([*new])})')
        return new
    if not kept or weights.class_names is None:
        lacks = 'class names to compare' if kept else 'classifier'
        raise WeightsError(f'{path}: has no {lacks}; drop --keep_classifier, and a new classifier '
                           'is trained')
    _check_same_classes(weights.class_names, class_names, path,
                        'give the annotation it was trained with, or drop --keep_classifier')
    rows = [weights.class_names.index(name) for name in class_names]
    warn(f'{path}: its classifier is kept, of {len(rows)} classes')
    return {name: value[rows] for name, value in kept.items()}


def empty_network(opts: Options, weights: Weights) -> Classifier:
    """The network of a weights file, on the meta device: it has shapes but takes no memory."""
    with torch.device('meta'):
        if weights.engine:  # whose file shows no tensors
            return build_network(opts, **_beyond_flags(weights))
        network = _network_for(opts, weights)
    _fitting(network, weights.state_dict, weights.path)
    return network


def _check_finite(weights: Weights) -> None:
    """Raise WeightsError that names the tensors of a file that are not finite."""
    if weights.not_finite:
        raise WeightsError(f'{weights.path}: holds nan or infinity in {_first(weights.not_finite)}'
                           '; give a checkpoint from before the training diverged')


def _network_for(opts: Options, weights: Weights) -> Classifier:
    """A new network as the options and, beyond flags, the file have it.

    Raises WeightsError where the file describes a much larger network than it has numbers for: a
    small file could take all memory.
    """
    more = _beyond_flags(weights)
    is_of_file = opts.n_classes == weights.network['n_classes']
    try:
        with torch.device('meta'):
            described = build_network(opts if is_of_file else replace(opts, n_classes=1), **more)
        n_described = sum(tensor.numel() for tensor in described.state_dict().values())
    except (RuntimeError, TypeError, ValueError, OverflowError):  # a size that no tensor can have
        n_described = sys.maxsize
    n_numbers = sum(tensor.numel() for tensor in weights.state_dict.values())
    if n_described > MAX_NETWORK_RATIO * n_numbers + FEW_NUMBERS:
        raise WeightsError(f'{weights.path}: describes a network of {n_described} numbers and has '
                           f'{n_numbers}; check the network flags, or give an unchanged file')
    return build_network(opts, **more)


def _beyond_flags(weights: Weights) -> dict[str, Any]:
    """Options of the network of a weights file that are no flags."""
    return {name: value for name, value in weights.network.items() if name not in NETWORK_FLAGS}


def _fitting(network: nn.Module, state_dict: Mapping[str, torch.Tensor],
             path: Path) -> dict[str, torch.Tensor]:
    """The weights, complete; WeightsError with the first few names and shapes unless all match."""
    own = network.state_dict()
    given = {**_counters_missing(own, state_dict), **state_dict}
    missing = [f'{name} {_shape(own[name])}' for name in own if name not in given]
    extra = [f'{name} {_shape(given[name])}' for name in given if name not in own]
    other = [f'{name} {_shape(given[name])} instead of {_shape(own[name])}'
             for name in own if name in given and own[name].shape != given[name].shape]
    # A file may hold integers, the batch norms' counters, as floats with all the rest.
    types = [f'{name} {_type(given[name])} instead of {_type(own[name])}' for name in own
             if name in given and own[name].is_floating_point() > given[name].is_floating_point()]
    faults = [f'{len(names)} {kind} ({_first(names)})' for kind, names in
              (('missing', missing), ('too many', extra), ('of another shape', other),
               ('of another type', types)) if names]
    if faults:
        raise WeightsError(f'{path}: its tensors do not fit the network: {"; ".join(faults)}; '
                           'check the network flags')
    return given


def _counters_missing(own: Mapping[str, torch.Tensor],
                      given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch norms' counters of batches for a file that has none, as before torch 0.4.1."""
    counters = {name: own[name] for name in own if name.endswith('.num_batches_tracked')}
    return {} if counters.keys() & given.keys() else counters


def _shape(tensor: torch.Tensor) -> str:
    return 'x'.join(map(str, tensor.shape)) or 'scalar'


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix('torch.')


def _first(names: Sequence[str]) -> str:
    return ', '.join(names[:LISTED]) + (', ...' if len(names) > LISTED else '')


# ---------------------------------------------------------------- networks to use

@dataclass(frozen=True)
class ModelInfo:
    """What goes with a network: what it is to be given, and what its outputs are called.

    class_names: in the order of the logits
    has_names:   True if these are names, False if they are numbers since nobody said any
    names_are_known: True if the file holds none, and all of its kind have these
    normalize:   uint8 clips (N, C, T, H, W) -> the network's input, on its device
    scores:      logits -> (N, n_classes) in 0...1: softmax, or sigmoid if the network is
                 multi-label
    opts:        sample_size, sample_duration, sample_t_stride ... as main.py's flags of that name
    """

    class_names: tuple[str, ...]
    has_names: bool
    normalize: nn.Module
    scores: Callable[[torch.Tensor], torch.Tensor]
    opts: Options
    names_are_known: bool = False


def load_model(path: str | Path, device: torch.device | str = 'cpu',
               class_names: Sequence[str] | None = None, use_ema: bool | None = None, *,
               backend: str = 'auto', precision: str = 'fp32') -> tuple[Classifier, ModelInfo]:
    """(network, ModelInfo) of a checkpoint, of released weights or of an exported file, the network
    ready to be used.

        network, info = load_model('results/save_200.pth')
        logits = network(info.normalize(clips))  # uint8 (N, C, T, H, W) -> (N, n_classes)
        scores = info.scores(logits)

    Released weights get the preprocessing that they were trained with; their `class_names` are to
    be given, or are '0', '1', ... Of a file with a moving average of its weights (EMA) that is
    taken, or with `use_ema` False the weights of the last step. `backend` and `precision` are as
    main.py's flags; the second is for exported files and OpenVINO. Raises WeightsError where these
    contradict the file, or it has no average and `use_ema` is True, and CheckpointError where there
    is none.
    """
    weights = read(path, use_ema=use_ema)
    # Flow comes from HDF5, which is the reader's concern.
    defaults = Options(**{**vars(build_parser().parse_args([])), 'file_type': 'hdf5'},
                       given=frozenset())
    opts = adopt_options(defaults, weights, warn=lambda line: None)
    opts = replace(opts, **weights.clip, backend=backend, precision=precision)
    network = load_network(opts, weights).to(device).eval()
    mean, std = normalization(opts)
    names = _names_of_classes(weights, opts.n_classes, class_names)
    return network, ModelInfo(names or tuple(map(str, range(opts.n_classes))), names is not None,
                              Normalize(mean, std, opts.value_scale).to(device),
                              TASKS[opts.multi_label].scores, opts,
                              weights.class_names is not None and not weights.is_ours)


def _names_of_classes(weights: Weights, n_classes: int,
                      class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names that a file records, or else those given; None for neither."""
    recorded = weights.class_names
    if recorded is not None:
        if len(recorded) != n_classes:
            raise WeightsError(f'{weights.path}: names {len(recorded)} classes, and its network '
                               f'has {n_classes}; give an unchanged file')
        if class_names is not None and tuple(class_names) != recorded:
            raise WeightsError(f'{weights.path}: records its own class names ({_first(recorded)}), '
                               'and others were given; leave those out')
        return recorded
    if class_names is not None and len(class_names) != n_classes:
        raise WeightsError(f'{weights.path}: has {n_classes} classes, and {len(class_names)} names '
                           'were given; give the names of the data set it was trained on, in its '
                           'order')
    return None if class_names is None else tuple(class_names)


# ---------------------------------------------------------------- options and what a file says

def read_weights(path: Path, opts: Options) -> Weights:
    """What a weights file says of itself, for a run with these options. See `weights.read`.

    A training goes on with the weights of its last step; all else takes what --use_ema says.
    Raises WeightsError for an exported network where it would be trained or give features.
    """
    goes_on = opts.resume_path is not None and not opts.no_train
    use_ema = False if goes_on else {'auto': None, 'yes': True, 'no': False}[opts.use_ema]
    weights = read(path, {name: getattr(opts, name) for name in opts.given}, use_ema)
    if weights.engine and not opts.no_train:
        raise WeightsError(f'{path}: is an exported network, which is not trained; give the '
                           'checkpoint it was made of, or add --no_train')
    if weights.engine and (opts.pretrain_path or opts.output_features):
        flag = '--pretrain_path' if opts.pretrain_path else '--output_features'
        raise WeightsError(f'{path}: is an exported network, and {flag} needs the layers of the '
                           'checkpoint it was made of; give that')
    return weights


def adopt_options(opts: Options, weights: Weights, pretrained: bool = False,
                  warn: Callable[[str], None] = to_stderr) -> Options:
    """The options with what the file says of its network, where no flag was given for it, and
    of whether that is multi-label.

    For a file that says them, also its clip and normalisation flags (of a pretrained one the
    normalisation only). `warn` takes lines: what is taken, and where the inputs would not be those
    that the weights know. Raises WeightsError where a flag that was given contradicts the file.
    """
    path = weights.path
    found = {name: value for name, value in weights.network.items() if name in NETWORK_FLAGS}
    if not (pretrained or found['n_classes']):
        raise WeightsError(f'{path}: has no classifier; fine-tune it with --pretrain_path, which '
                           'makes one')
    if pretrained:
        _check_class_count(opts, found.pop('n_classes'), path)
        if found.get('attention') == 'none':  # one that starts as the identity can be added
            del found['attention']
    for name, value in found.items():
        if name in opts.given and getattr(opts, name) != value:
            cure = ('drop the flag or give another file' if pretrained or name != 'n_classes' else
                    f'for those classes {_tuning(weights)}')
            raise WeightsError(f'{path}: holds {weights.network_name} with {name} {value}, and '
                               f'--{name} {getattr(opts, name)} was given; {cure}')
    if found['input_type'] == 'flow' and opts.file_type != 'hdf5':
        raise WeightsError(f'{path}: takes optical flow, which is read from hdf5: add '
                           '--file_type hdf5')
    adopted = replace(opts, **found, **_clip_flags(opts, weights, pretrained),
                      multi_label=_is_multi_label(opts, weights, pretrained))
    changed = {name: value for name, value in vars(adopted).items() if value != vars(opts)[name]}
    if changed:
        shown = ', '.join(f'{name} {_plain(value)}' for name, value in changed.items())
        warn(f'{path}: taken from the file: {shown}')
    if weights.arch not in (None, weights.network_name):
        warn(f'{path}: is called {weights.arch}, and its weights are those of '
             f'{weights.network_name}: taken for that')
    _warn_of_preprocessing(adopted, weights, warn)
    return adopted


def _check_class_count(opts: Options, n_classes: int, path: Path) -> None:
    """Raise WeightsError where --n_pretrain_classes is given and wrong."""
    if opts.n_pretrain_classes not in (0, n_classes):
        raise WeightsError(f'{path}: has {n_classes} classes, and --n_pretrain_classes says '
                           f'{opts.n_pretrain_classes}; drop the flag')


def _plain(value: Any) -> Any:
    return ' '.join(f'{x:.7g}' for x in value) if isinstance(value, (list, tuple)) else value


def _clip_flags(opts: Options, weights: Weights, pretrained: bool) -> dict[str, Any]:
    """The flags of clips and normalisation to take from a file that says them."""
    takes_normalization = opts.given.isdisjoint(NORMALIZATION_FLAGS)

    def is_taken(name: str) -> bool:
        if weights.asks_for:
            return False
        if name in NORMALIZATION_FLAGS:
            return takes_normalization
        return not pretrained and name not in opts.given

    return {name: value for name, value in weights.clip.items() if is_taken(name)}


def _is_multi_label(opts: Options, weights: Weights, pretrained: bool) -> bool:
    """What the file says, or the flag of one that does not, or that gets a new classifier."""
    if pretrained or not weights.is_ours:
        return opts.multi_label
    if opts.multi_label and not weights.multi_label:
        raise WeightsError(f'{weights.path}: was trained with one label a video, and --multi_label '
                           'was given; drop the flag, or fine-tune the file with --pretrain_path')
    return weights.multi_label


def _warn_of_preprocessing(opts: Options, weights: Weights, warn: Callable[[str], None]) -> None:
    """Warn where inputs would not be those that the weights were trained on."""
    trained = replace(opts, **{name: value for name, value in weights.clip.items()
                               if name in NORMALIZATION_FLAGS})
    if weights.asks_for:
        if (opts.value_scale, normalization(opts)[1]) != (
                trained.value_scale, normalization(trained)[1]):
            warn(f'{weights.path}: is of {weights.origin}, whose networks expect '
                 f'{weights.asks_for}; give {preprocessing_flags(weights)}')
    elif preprocessing_line(trained) != preprocessing_line(opts):
        warn(f'{weights.path}: was trained on images in {preprocessing_line(trained)}; the flags '
             f'given make them {preprocessing_line(opts)}')


def preprocessing_line(opts: Options) -> str:
    """0...1, mean 0.4345 0.4051 0.3775, std 0.2768 0.2713 0.2737: what one pixel becomes."""
    mean, std = normalization(opts)
    return f'0...{opts.value_scale}, mean {_plain(mean)}, std {_plain(std)}'


def preprocessing_flags(weights: Weights) -> str:
    """--value_scale 255 --no_std_norm ...: the clip flags of a file, where they are no default."""
    defaults = vars(build_parser().parse_args([]))
    return ' '.join(f'--{name}' if value is True else f'--{name} {_plain(value)}'
                    for name, value in weights.clip.items() if value != defaults[name])


def match_class_names(class_names: Sequence[str], weights: Weights,
                      warn: Callable[[str], None] = to_stderr) -> tuple[str, ...]:
    """Class names in the order of the checkpoint's classes. Raises WeightsError for other names.

    `class_names` are the annotation's; a file without names is taken to have their order.
    """
    recorded = weights.class_names
    n_classes = weights.network['n_classes']
    if recorded is None and len(class_names) != n_classes:
        raise WeightsError(f'{weights.path}: has {n_classes} classes and the annotation '
                           f'{len(class_names)}; give the annotation of the data set it was '
                           f'trained on, or {_tuning(weights)}')
    if recorded is None:
        warn(f'{weights.path}: holds no class names; its classes are taken to be in the order of '
             'the annotation\'s labels')
        return tuple(class_names)
    _check_same_classes(recorded, class_names, weights.path, 'give the annotation it was trained '
                        f'with, or {_tuning(weights)}')
    return recorded


def _tuning(weights: Weights) -> str:
    """What is done to have a file's network for other classes."""
    return f'fine-tune {"the checkpoint it was made of" if weights.engine else "it"} with ' \
           '--pretrain_path'


def _check_same_classes(recorded: Sequence[str], class_names: Sequence[str], path: Path,
                        cure: str) -> None:
    """Raise WeightsError unless the classes of a file are those of the annotation."""
    if sorted(recorded) != sorted(class_names):
        only_file = [name for name in recorded if name not in class_names]
        only_annotation = [name for name in class_names if name not in recorded]
        raise WeightsError(f'{path}: its classes are not the annotation\'s: only the file has '
                           f'{_first(only_file) or "none"}, only the annotation has '
                           f'{_first(only_annotation) or "none"}; {cure}')


# ---------------------------------------------------------------- fine-tuning, hardware

def stages(network: Classifier) -> dict[str, nn.Module]:
    """{name: module} in order, as --ft_begin_module names them: conv1 ... fc, blocks.0 ... ."""
    parts: dict[str, nn.Module] = {}
    for name, module in network.named_children():
        if name in ('features', 'blocks'):
            parts.update({f'{name}.{child}' if child.isdecimal() else child: part
                          for child, part in module.named_children()})
        else:
            parts[name] = module
    # The classifier of I3D is registered first.
    classifier = next((name for name in parts if network.classifier_name.startswith(name)), None)
    if classifier is not None:
        parts[classifier] = parts.pop(classifier)
    return parts


def begin_training(opts: Options, network: Classifier) -> None:
    """Freeze what is never trained, and set dropout, as the flags of fine-tuning want it."""
    freeze(network, '' if opts.unfreeze_epoch else opts.ft_begin_module, opts.freeze_bn)
    if opts.dropout is not None:
        set_dropout(network, opts.dropout)


def freeze(network: Classifier, begin_module: str, norms: bool = False) -> None:
    """Freeze what comes before a module, and with `norms` all batch norms, and nothing else: no
    gradients, and batch norm keeps its statistics.

    Empty: nothing. An unknown name is a WeightsError that lists the modules.
    """
    network.requires_grad_(True)
    network.frozen = [*parts_before(network, begin_module),
                      *(module for module in network.modules()
                        if norms and isinstance(module, nn.modules.batchnorm._BatchNorm))]
    for module in network.frozen:
        module.requires_grad_(False)


def parts_before(network: Classifier, begin_module: str) -> list[nn.Module]:
    """The stages before the one of this name; none where it is empty. Raises WeightsError."""
    if not begin_module:
        return []
    parts = stages(network)
    names = list(parts)
    if f'{begin_module}_s' in names:  # the first convolution of R(2+1)D is two
        begin_module += '_s'
    if begin_module not in names:
        with_weights = [name for name in names if any(True for _ in parts[name].parameters())]
        raise WeightsError(f'--ft_begin_module {begin_module}: no such module; choose one of '
                           f'{", ".join(with_weights)}')
    return [parts[name] for name in names[:names.index(begin_module)]]


def set_dropout(network: Classifier, share: float) -> None:
    """Let training replace this share of the classifier's inputs by 0, and scale up the others
    (Srivastava et al., JMLR 2014); a family's own dropout there takes this share."""
    owner = network.get_submodule(network.classifier_name.rpartition('.')[0])
    own = [module for module in owner.children() if isinstance(module, nn.Dropout)]
    for module in own:
        module.p = share
    if not own:
        network.get_submodule(network.classifier_name).register_forward_pre_hook(
            lambda module, inputs: F.dropout(inputs[0], share, module.training))


def prepare_network(opts: Options, network: Classifier, device: torch.device) -> InPrecision:
    """The network (on its device) as the hardware flags want it: a hardware.InPrecision."""
    if opts.grad_checkpointing:
        network.recompute_blocks()
    if opts.compile:
        network.compile()
    return in_precision(network, device, precision=opts.precision,
                        memory_format=opts.memory_format, tf32=opts.tf32,
                        has_many_shapes=opts.inference and opts.inference_crop == 'nocrop')
