"""From options, or from a file of weights, to a network; what is frozen."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import checkpoint
import models
from models.densenet import rename_2018_keys
from models.identify import identify
from opts import (CLIP_FLAGS, NETWORK_FLAGS, Options, build_parser, n_input_channels, normalization,
                  replace)
from runtime.errors import InputError
from runtime.hardware import in_precision
from spatial_transforms import Normalize
from tasks import TASKS

# How many tensors an error about a file of weights lists.
LISTED = 4
# What models.generate_model calls a flag. --input_type is a number of channels there.
OPTION_OF_FLAG = {
    'n_classes': 'n_classes', 'conv1_t_size': 'conv1_t_size', 'conv1_t_stride': 'conv1_t_stride',
    'no_max_pool': 'no_max_pool', 'resnet_shortcut': 'shortcut_type',
    'resnet_widen_factor': 'widen_factor', 'wide_resnet_k': 'k',
    'resnext_cardinality': 'cardinality'}
INPUT_TYPES = {3: 'rgb', 2: 'flow'}
# Flags of networks whose weights do not show them.
TRACELESS_FLAGS = ('conv1_t_stride', 'no_max_pool')
# What one frame becomes. These go together: a file's are taken when none of them is given.
NORMALIZATION_FLAGS = tuple(name for name in CLIP_FLAGS if not name.startswith('sample'))
# What the 2018 weights were trained on.
FLAGS_OF_2018 = '--value_scale 255 --mean 114.7748 107.7354 99.475 --no_std_norm'


def _to_stderr(line):
    print(line, file=sys.stderr)


class WeightsError(InputError):
    """A file of weights does not fit the network or the flags."""


# ---------------------------------------------------------------- building

def build_network(opts, stem_planes=64):
    """The network that the options name: (N, C, T, H, W) float -> (N, n_classes) logits."""
    torch.manual_seed(opts.manual_seed)
    options = {option: getattr(opts, flag) for flag, option in OPTION_OF_FLAG.items()}
    return models.generate_model(opts.model, opts.model_depth, stem_planes=stem_planes,
                                 n_input_channels=n_input_channels(opts), **options)


def load_network(opts, state, path):
    """The network of a checkpoint, with its weights; `opts` as `adopt_options` returned them."""
    weights = rename_2018_keys(state['state_dict'])
    network = build_network(opts, stem_planes(opts, state))
    _load_weights(network, weights, path)
    return network


def load_pretrained(opts, state, path):
    """The network of a checkpoint with a new classifier of opts.n_classes."""
    weights = rename_2018_keys(state['state_dict'])
    network = build_network(opts, stem_planes(opts, state))
    own, name = network.state_dict(), network.classifier_name
    for part in (f'{name}.weight', f'{name}.bias'):
        weights[part] = own[part]
    _load_weights(network, weights, path)
    return network


def stem_planes(opts, state):
    """Channels of a checkpoint's stem before widening, as `build_network` takes them."""
    found = identify(rename_2018_keys(state['state_dict']), k=opts.wide_resnet_k,
                     widen_factor=opts.resnet_widen_factor)
    return found.get('stem_planes', 64)


def empty_network(opts, state, path):
    """The network of a checkpoint, on the meta device: it has shapes but takes no memory."""
    with torch.device('meta'):
        network = build_network(opts, stem_planes(opts, state))
    _fitting(network, rename_2018_keys(state['state_dict']), path)
    return network


def _load_weights(network, weights, path):
    network.load_state_dict(_fitting(network, weights, path))


def _fitting(network, weights, path):
    """The weights, complete; WeightsError with the first few names and shapes unless all match."""
    own = network.state_dict()
    weights = {**_counters_missing(own, weights), **weights}
    missing = [f'{name} {_shape(own[name])}' for name in own if name not in weights]
    extra = [f'{name} {_shape(weights[name])}' for name in weights if name not in own]
    other = [f'{name} {_shape(weights[name])} instead of {_shape(own[name])}'
             for name in own if name in weights and own[name].shape != weights[name].shape]
    faults = [f'{len(names)} {kind} ({_first(names)})' for kind, names in
              (('missing', missing), ('too many', extra), ('of another shape', other)) if names]
    if faults:
        raise WeightsError(f'{path}: its tensors do not fit the network: {"; ".join(faults)}; '
                           'check the network flags')
    return weights


def _counters_missing(own, weights):
    """The batch norms' counters of batches for a file that has none, as before torch 0.4.1."""
    counters = {name: own[name] for name in own if name.endswith('.num_batches_tracked')}
    return {} if counters.keys() & weights.keys() else counters


def _shape(tensor):
    return 'x'.join(map(str, tensor.shape)) or 'scalar'


def _first(names):
    return ', '.join(names[:LISTED]) + (', ...' if len(names) > LISTED else '')


# ---------------------------------------------------------------- networks to use

@dataclass(frozen=True)
class ModelInfo:
    """What goes with a network: what it is to be given, and what its outputs are called.

    class_names: in the order of the logits
    has_names:   whether these are names, or numbers since nobody said any
    normalize:   uint8 clips (N, C, T, H, W) -> the network's input, on its device
    scores:      logits -> (N, n_classes) in 0...1: softmax, or sigmoid if the network is
                 multi-label
    opts:        sample_size, sample_duration, sample_t_stride ... as main.py's flags of that name
    """

    class_names: tuple
    has_names: bool
    normalize: nn.Module
    scores: Callable
    opts: Options


def load_model(path, device='cpu', class_names=None):
    """(network, ModelInfo) of a checkpoint or of released weights, the network ready to be used.

        network, info = load_model('results/save_200.pth')
        logits = network(info.normalize(clips))  # uint8 (N, C, T, H, W) -> (N, n_classes)
        scores = info.scores(logits)

    Released weights get the preprocessing that they were trained with; their `class_names` are to
    be given, or are '0', '1', ... Raises WeightsError where these contradict the file, and
    CheckpointError where there is none.
    """
    state = checkpoint.load(path)
    # Flow comes from HDF5, which is the reader's concern.
    defaults = _default_options('--file_type', 'hdf5')
    opts = adopt_options(defaults, state, path, warn=lambda line: None)
    if is_of_2018(state, opts):
        opts = adopt_options(_default_options('--file_type', 'hdf5', *FLAGS_OF_2018.split()), state,
                             path, warn=lambda line: None)
    network = load_network(opts, state, path).to(device).eval()
    mean, std = normalization(opts)
    names = _names_of_classes(state, path, opts.n_classes, class_names)
    return network, ModelInfo(names or tuple(map(str, range(opts.n_classes))), names is not None,
                              Normalize(mean, std, opts.value_scale).to(device),
                              TASKS[opts.multi_label].scores, opts)


def _default_options(*argv):
    """The options of main.py without any path, as if these flags had been given."""
    given = {flag[2:] for flag in argv if flag.startswith('--')}
    return Options(**vars(build_parser().parse_args(argv)), given=frozenset(given))


def _names_of_classes(state, path, n_classes, class_names):
    """The names that a file records, or else those given; None for neither."""
    recorded = state.get('class_names')
    if recorded is not None:
        recorded = tuple(map(str, recorded))
        if class_names is not None and tuple(class_names) != recorded:
            raise WeightsError(f'{path}: records its own class names ({_first(recorded)}), and '
                               'others were given; leave those out')
        return recorded
    if class_names is not None and len(class_names) != n_classes:
        raise WeightsError(f'{path}: has {n_classes} classes, and {len(class_names)} names were '
                           'given; give the names of the data set it was trained on, in its order')
    return None if class_names is None else tuple(class_names)


# ---------------------------------------------------------------- what a file says of itself

def adopt_options(opts, state, path, pretrained=False, warn=_to_stderr):
    """The options with what the file says of its network, where no flag was given for it, and
    whether that is multi-label.

    For a file that records them, also its clip and normalisation flags (of a pretrained one the
    normalisation only). `warn` takes lines: what is taken, and where the inputs would not be those
    that the weights know. Raises WeightsError where a flag that was given contradicts the weights.
    """
    given = {name: getattr(opts, name) for name in opts.given}
    found = _network_flags(state, path, given)
    if pretrained:
        _check_class_count(opts, found.pop('n_classes'), path)
    for name, value in found.items():
        if name in given and given[name] != value:
            raise WeightsError(f'{path}: holds {_network_name(found)} with {name} {value}, and '
                               f'--{name} {given[name]} was given; drop the flag or give '
                               'another file')
    if found['input_type'] == 'flow' and opts.file_type != 'hdf5':
        raise WeightsError(f'{path}: takes optical flow, which is read from hdf5: add '
                           '--file_type hdf5')
    adopted = replace(opts, **found, **_clip_flags(given, state, path, pretrained),
                      multi_label=_is_multi_label(opts, state, path, pretrained))
    changed = {name: value for name, value in vars(adopted).items() if value != vars(opts)[name]}
    if changed:
        shown = ', '.join(f'{name} {_plain(value)}' for name, value in changed.items())
        warn(f'{path}: taken from the file: {shown}')
    if state.get('arch', _network_name(found)) != _network_name(found):
        warn(f'{path}: is called {state["arch"]}, and its weights are those of '
             f'{_network_name(found)}: taken for that')
    _warn_of_preprocessing(adopted, state, path, warn)
    return adopted


def _check_class_count(opts, n_classes, path):
    """Raise WeightsError where --n_pretrain_classes is given and wrong."""
    if opts.n_pretrain_classes not in (0, n_classes):
        raise WeightsError(f'{path}: has {n_classes} classes, and --n_pretrain_classes says '
                           f'{opts.n_pretrain_classes}; drop the flag')


def _network_name(flags):
    return f'{flags["model"]}-{flags["model_depth"]}'


def _plain(value):
    return ' '.join(f'{x:.7g}' for x in value) if isinstance(value, (list, tuple)) else value


def _network_flags(state, path, given):
    """{flag: value} of the network flags that a checkpoint tells.

    Its weights tell most; where several values make the same network, what it records is taken,
    or else what is given. Raises WeightsError for weights of no network here.
    """
    recorded = _recorded(state, 'network_options', NETWORK_FLAGS, path)
    hints = {**given, **recorded}
    try:
        found = identify(rename_2018_keys(state['state_dict']), k=hints.get('wide_resnet_k'),
                         widen_factor=hints.get('resnet_widen_factor'))
    except InputError as error:
        raise WeightsError(f'{path}: {error}') from None
    flags = {'model': found['model'], 'model_depth': found['model_depth'],
             'input_type': INPUT_TYPES[found['n_input_channels']]}
    flags.update({flag: found[option] for flag, option in OPTION_OF_FLAG.items()
                  if option in found})
    flags.update({flag: recorded[flag] for flag in TRACELESS_FLAGS if flag in recorded})
    return flags


def _clip_flags(given, state, path, pretrained):
    """The flags of clips and normalisation to take from a file that records them."""
    recorded = _recorded(state, 'clip_options', CLIP_FLAGS, path)
    takes_normalization = given.keys().isdisjoint(NORMALIZATION_FLAGS)

    def is_taken(name):
        if name in NORMALIZATION_FLAGS:
            return takes_normalization
        return not pretrained and name not in given

    return {name: value for name, value in recorded.items() if is_taken(name)}


def _is_multi_label(opts, state, path, pretrained):
    """What the file says, or the flag of one that does not, or that gets a new classifier."""
    if pretrained or not is_ours(state):
        return opts.multi_label
    recorded = state.get('multi_label', False)
    if opts.multi_label and not recorded:
        raise WeightsError(f'{path}: was trained with one label a video, and --multi_label was '
                           'given; drop the flag, or fine-tune the file with --pretrain_path')
    return bool(recorded)


def _recorded(state, key, names, path):
    """The flags that one of our checkpoints records under a key; {} for any other file."""
    record = state.get(key, {}) if is_ours(state) else {}
    if not isinstance(record, dict):
        raise WeightsError(f'{path}: its {key} are no record of flags; give an unchanged file')
    defaults = vars(build_parser().parse_args([]))
    record = {name: record[name] for name in names if name in record}
    for name, value in record.items():
        if not _is_like(value, defaults[name]):
            raise WeightsError(f'{path}: its {key} say {name} {value!r}; give an unchanged file')
    return record


def _is_like(value, default):
    """Whether a value is of the kind of a flag's default; None stands for three numbers."""
    if default is None:
        return value is None or (isinstance(value, (list, tuple)) and len(value) == 3
                                 and all(isinstance(number, (int, float)) for number in value))
    if isinstance(default, (bool, str)):
        return isinstance(value, type(default))
    return isinstance(value, (int, float)) and value > 0


def is_ours(state):
    """Whether a checkpoint was written by this code, and so says all of itself."""
    return 'format_version' in state


def is_of_2018(state, opts):
    """Whether weights are of the 2018 code, as far as that shows; `opts` as adopted from them.

    Its marks are names of its own for densenet, shortcut A, and `module.` before the names of a
    kind that it released: resnet of 50 layers and more, preresnet, resnext, and wideresnet with a
    stem of 64 channels. The 2020 code saves without `module.`, and a scheduler's state beside.
    """
    weights = state['state_dict']
    if is_ours(state):
        return False
    if opts.model == 'densenet':
        return 'features.conv0.weight' in weights
    if 'scheduler' in state or opts.model == 'resnet2p1d':
        return False
    if opts.resnet_shortcut == 'A':
        return True
    is_released_kind = {'resnet': opts.model_depth >= 50,
                        'wideresnet': stem_planes(opts, state) == 64}.get(opts.model, True)
    return state.get('behind_module', False) and is_released_kind


def _warn_of_preprocessing(opts, state, path, warn):
    """Warn where inputs would not be those that the weights were trained on."""
    if is_of_2018(state, opts):
        if opts.value_scale == 1 or any(std != 1 for std in normalization(opts)[1]):
            warn(f'{path}: is of the 2018 code, whose networks expect images in 0...255 that are '
                 f'divided by no standard deviation; give {FLAGS_OF_2018}')
        return
    recorded = _recorded(state, 'clip_options', NORMALIZATION_FLAGS, path)
    trained, used = preprocessing_line(replace(opts, **recorded)), preprocessing_line(opts)
    if trained != used:
        warn(f'{path}: was trained on images in {trained}; the flags given make them {used}')


def preprocessing_line(opts):
    """0...1, mean 0.4345 0.4051 0.3775, std 0.2768 0.2713 0.2737: what one pixel becomes."""
    mean, std = normalization(opts)
    return f'0...{opts.value_scale}, mean {_plain(mean)}, std {_plain(std)}'


def match_class_names(class_names, state, path, warn=_to_stderr):
    """Class names in the order of the checkpoint's classes. Raises WeightsError for other names.

    `class_names` are the annotation's; a file without names is taken to have their order.
    """
    recorded = state.get('class_names')
    if recorded is None:
        warn(f'{path}: holds no class names; its classes are taken to be in the order of the '
             'annotation\'s labels')
        return class_names
    if sorted(map(str, recorded)) != sorted(class_names):
        only_file = [str(name) for name in recorded if name not in class_names]
        only_annotation = [name for name in class_names if name not in recorded]
        raise WeightsError(f'{path}: its classes are not the annotation\'s: only the file has '
                           f'{_first(only_file) or "none"}, only the annotation has '
                           f'{_first(only_annotation) or "none"}; give the annotation it was '
                           'trained with, or fine-tune it with --pretrain_path')
    return tuple(recorded)


def describe(opts, class_names):
    """What a checkpoint records beside the state: enough to use it with no other flag."""
    mean, std = normalization(opts)
    return {'format_version': checkpoint.FORMAT_VERSION, 'versions': checkpoint.versions(),
            'network_options': {name: getattr(opts, name) for name in NETWORK_FLAGS},
            'clip_options': {name: getattr(opts, name) for name in CLIP_FLAGS},
            'preprocessing': {'value_scale': opts.value_scale, 'mean': list(mean),
                              'std': list(std), 'size': opts.sample_size},
            'class_names': list(class_names), 'multi_label': opts.multi_label}


# ---------------------------------------------------------------- fine-tuning, hardware

def stages(network):
    """{name: module} in order, as --ft_begin_module names them: conv1 ... fc."""
    parts = {}
    for name, module in network.named_children():
        parts.update(module.named_children() if name == 'features' else {name: module})
    return parts


def freeze_before(network, begin_module):
    """Freeze what comes before a module: no gradients, and batch norm keeps its statistics.

    Empty: nothing. An unknown name is a WeightsError that lists the modules.
    """
    if not begin_module:
        return
    parts = stages(network)
    names = list(parts)
    if f'{begin_module}_s' in names:  # the first convolution of R(2+1)D is two
        begin_module += '_s'
    if begin_module not in names:
        with_weights = [name for name in names if any(True for _ in parts[name].parameters())]
        raise WeightsError(f'--ft_begin_module {begin_module}: no such module; choose one of '
                           f'{", ".join(with_weights)}')
    network.frozen = [parts[name] for name in names[:names.index(begin_module)]]
    for module in network.frozen:
        module.requires_grad_(False)


def prepare_network(opts, network, device):
    """The network (on its device) as the hardware flags want it: a hardware.InPrecision."""
    if opts.grad_checkpointing:
        network.recompute_blocks()
    if opts.compile:
        network.compile()
    return in_precision(network, device, precision=opts.precision,
                        memory_format=opts.memory_format, tf32=opts.tf32,
                        has_many_shapes=opts.inference and opts.inference_crop == 'nocrop')
