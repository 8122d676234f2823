"""From options, or from a file of weights, to a network; what is frozen; what runs in parallel."""

import re
import sys

import torch
from torch import nn

import checkpoint
import models
from errors import InputError
from models.densenet import rename_2018_keys
from models.resnet import BASIC_LAYERS, BOTTLENECK_LAYERS
from opts import CLIP_FLAGS, NETWORK_FLAGS, n_input_channels, replace

# How many tensors an error about a file of weights lists.
LISTED = 4
NORMALIZATION_FLAGS = tuple(name for name in CLIP_FLAGS if not name.startswith('sample'))


class WeightsError(InputError):
    """A file of weights does not fit the network or the flags."""


# ---------------------------------------------------------------- building

def build_network(opts, stem_planes=64):
    """The network that the options name: (N, C, T, H, W) float -> (N, n_classes) logits."""
    torch.manual_seed(opts.manual_seed)
    return models.generate_model(
        opts.model, opts.model_depth, n_classes=opts.n_classes,
        n_input_channels=n_input_channels(opts), shortcut_type=opts.resnet_shortcut,
        widen_factor=opts.resnet_widen_factor, conv1_t_size=opts.conv1_t_size,
        conv1_t_stride=opts.conv1_t_stride, no_max_pool=opts.no_max_pool, k=opts.wide_resnet_k,
        cardinality=opts.resnext_cardinality, stem_planes=stem_planes)


def load_network(opts, state, path):
    """The network of a checkpoint, with its weights; `opts` as `adopt_options` returned them."""
    weights = rename_2018_keys(state['state_dict'])
    network = build_network(opts, _stem_planes(opts, weights))
    _load_weights(network, weights, path)
    return network


def load_pretrained(opts, state, path):
    """The network of a checkpoint with a new classifier of opts.n_classes."""
    weights = rename_2018_keys(state['state_dict'])
    network = build_network(opts, _stem_planes(opts, weights))
    own, name = network.state_dict(), network.classifier_name
    for part in (f'{name}.weight', f'{name}.bias'):
        weights[part] = own[part]
    _load_weights(network, weights, path)
    return network


def _stem_planes(opts, weights):
    """Channels of the stem before widening; only wide families' files differ in them."""
    stem = weights.get('conv1.weight')
    if opts.model not in ('wideresnet', 'resnext') or stem is None:
        return 64
    return round(len(stem) / opts.resnet_widen_factor)


def _load_weights(network, weights, path):
    """Raise WeightsError with the first few names and shapes unless all tensors match."""
    own = network.state_dict()
    missing = [f'{name} {_shape(own[name])}' for name in own if name not in weights]
    extra = [f'{name} {_shape(weights[name])}' for name in weights if name not in own]
    other = [f'{name} {_shape(weights[name])} instead of {_shape(own[name])}'
             for name in own if name in weights and own[name].shape != weights[name].shape]
    faults = [f'{len(names)} {kind} ({_first(names)})' for kind, names in
              (('missing', missing), ('too many', extra), ('of another shape', other)) if names]
    if faults:
        raise WeightsError(f'{path}: its tensors do not fit the network: {"; ".join(faults)}; '
                           'check the network flags')
    network.load_state_dict(weights)


def _shape(tensor):
    return 'x'.join(map(str, tensor.shape)) or 'scalar'


def _first(names):
    return ', '.join(names[:LISTED]) + (', ...' if len(names) > LISTED else '')


# ---------------------------------------------------------------- what a file says of itself

def adopt_options(opts, state, path, pretrained=False):
    """The options with what the file says of its network, where no flag was given for it.

    For a file that records them, also its clip and normalisation flags (of a pretrained one the
    normalisation only). Raises WeightsError where a flag that was given contradicts the weights.
    """
    found = weights_options(rename_2018_keys(state['state_dict']), path)
    found.update(state.get('network_options', {}))
    if pretrained:
        n_classes = found.pop('n_classes')
        if opts.n_pretrain_classes not in (0, n_classes):
            raise WeightsError(f'{path}: has {n_classes} classes, and --n_pretrain_classes says '
                               f'{opts.n_pretrain_classes}; drop the flag')
    for name, value in found.items():
        if name in opts.given and not _agrees(name, getattr(opts, name), value):
            raise WeightsError(f'{path}: holds {_network_name(found)} with {name} {value}, and '
                               f'--{name} {getattr(opts, name)} was given; drop the flag or give '
                               'another file')
    recorded = state.get('clip_options', {})
    names = NORMALIZATION_FLAGS if pretrained else CLIP_FLAGS
    found.update({name: recorded[name] for name in names
                  if name in recorded and name not in opts.given})
    changed = {name: value for name, value in found.items()
               if name not in opts.given and getattr(opts, name) != value}
    if changed:
        shown = ', '.join(f'{name} {_plain(value)}' for name, value in changed.items())
        print(f'{path}: taken from the file: {shown}', file=sys.stderr)
    return replace(opts, **changed)


def _agrees(name, given, found):
    if name == 'resnet_widen_factor':  # widths are rounded down, so a file tells it to 1 / 512
        return abs(given - found) < 1 / 512
    return given == found


def _network_name(options):
    return f'{options["model"]}-{options["model_depth"]}'


def _plain(value):
    return ' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value


def weights_options(weights, path):
    """Network flags as far as names and shapes of a state dict tell them.

    The stride of the first convolution and the pooling after it leave no trace. Raises
    WeightsError for weights of no family here.
    """
    try:
        if 'features.conv1.weight' in weights:
            return _densenet_options(weights)
        return _resnet_options(weights)
    except (KeyError, StopIteration):
        raise WeightsError(f'{path}: its weights are of no network here (first tensors: '
                           f'{_first(list(weights))}); give weights of a 3D ResNet or '
                           'DenseNet') from None


def _densenet_options(weights):
    blocks = tuple(_count(weights, rf'features\.denseblock{i}\.denselayer(\d+)\.')
                   for i in range(1, 5))
    stem = weights['features.conv1.weight']
    return {'model': 'densenet', 'model_depth': _depth(models.densenet.LAYERS, blocks),
            'n_classes': len(weights['classifier.weight']), 'input_type': _input_type(stem),
            'conv1_t_size': stem.shape[2]}


def _resnet_options(weights):
    is_2p1d = 'conv1_s.weight' in weights
    stem = weights['conv1_s.weight' if is_2p1d else 'conv1.weight']
    blocks = tuple(_count(weights, rf'layer{i}\.(\d+)\.') + 1 for i in range(1, 5))
    is_bottleneck = 'layer1.0.conv3.weight' in weights
    options = {
        'model_depth': _depth(BOTTLENECK_LAYERS if is_bottleneck else BASIC_LAYERS, blocks),
        'n_classes': len(weights['fc.weight']), 'input_type': _input_type(stem),
        'conv1_t_size': weights['conv1_t.weight' if is_2p1d else 'conv1.weight'].shape[2],
        'resnet_shortcut': 'B' if 'layer2.0.downsample.0.weight' in weights else 'A'}
    # The widest layer gives the factor that, rounded down, makes all narrower ones.
    features = weights['fc.weight'].shape[1]
    if is_2p1d:
        return {'model': 'resnet2p1d', **options,
                'resnet_widen_factor': features / (2048 if is_bottleneck else 512)}
    if len(weights['layer2.0.bn1.weight']) == weights['layer2.0.conv1.weight'].shape[1]:
        return {'model': 'preresnet', **options,
                'resnet_widen_factor': features / (2048 if is_bottleneck else 512)}
    return {**options, **_width_options(weights, features, is_bottleneck)}


def _width_options(weights, features, is_bottleneck):
    """Family and widths of a network whose blocks are those of a ResNet."""
    if not is_bottleneck:
        return {'model': 'resnet', 'resnet_widen_factor': features / 512}
    mid_planes, per_group = weights['layer1.0.conv2.weight'].shape[:2]
    if mid_planes != per_group:
        return {'model': 'resnext', 'resnet_widen_factor': features / 2048,
                'resnext_cardinality': mid_planes // per_group}
    if len(weights['layer1.0.conv3.weight']) == 4 * mid_planes:
        return {'model': 'resnet', 'resnet_widen_factor': features / 2048}
    # A wide stem (as wide as the bottlenecks) or one of 64 channels, widened.
    stem_planes = len(weights['conv1.weight'])
    factor = 1.0 if stem_planes == mid_planes else stem_planes / 64
    return {'model': 'wideresnet', 'resnet_widen_factor': factor,
            'wide_resnet_k': round(mid_planes / (64 * factor))}


def _count(weights, pattern):
    """Highest number in the names that match."""
    return max((int(match[1]) for match in (re.match(pattern, name) for name in weights) if match),
               default=-1)


def _depth(layers, blocks):
    return next(depth for depth, row in layers.items() if row == blocks)


def _input_type(stem):
    return {3: 'rgb', 2: 'flow'}[stem.shape[1]]


def match_class_names(class_names, state, path):
    """Class names in the order of the checkpoint's classes. Raises WeightsError for other names.

    `class_names` are the annotation's; a file without names is taken to have their order.
    """
    recorded = state.get('class_names')
    if recorded is None:
        print(f'{path}: holds no class names; its classes are taken to be in the order of the '
              'annotation\'s labels', file=sys.stderr)
        return class_names
    if set(recorded) != set(class_names):
        only_file = [name for name in recorded if name not in class_names]
        only_annotation = [name for name in class_names if name not in recorded]
        raise WeightsError(f'{path}: its classes are not the annotation\'s: only the file has '
                           f'{_first(only_file) or "none"}, only the annotation has '
                           f'{_first(only_annotation) or "none"}; give the annotation it was '
                           'trained with, or fine-tune it with --pretrain_path')
    return tuple(recorded)


def describe(opts, class_names):
    """What a checkpoint records beside the state: enough to use it with no other flag."""
    return {'format_version': checkpoint.FORMAT_VERSION,
            'network_options': {name: getattr(opts, name) for name in NETWORK_FLAGS},
            'clip_options': {name: getattr(opts, name) for name in CLIP_FLAGS},
            'class_names': list(class_names)}


# ---------------------------------------------------------------- fine-tuning, parallel

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


def make_parallel(network, device):
    """The network on the device; over all GPUs of the machine where there are several."""
    network = network.to(device)
    if device.type == 'cuda' and torch.cuda.device_count() > 1:
        print(f'using {torch.cuda.device_count()} GPUs in one process (DataParallel); '
              'torchrun main.py ... is faster')
        return nn.DataParallel(network)
    return network


def unwrap(model):
    """The network itself, without what makes it parallel."""
    return model.module if isinstance(model, nn.DataParallel) else model
