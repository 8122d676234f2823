"""Which network a state dict is of, by the names and shapes of its tensors alone.

Released weights come without the flags they were trained with. The stride of the first convolution
and the pooling after it leave no trace in them; everything else does.
"""

import math
import re
from collections.abc import Container, Mapping
from typing import Any

import torch

from models import INPUT_CHANNELS, csn, densenet, x3d
from models.attention import is_attention
from models.resnet import BASIC_LAYERS, BOTTLENECK_LAYERS
from runtime.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]
INPUT_TYPES = {channels: name for name, channels in INPUT_CHANNELS.items()}
# Names that no other family has.
I3D_MARK = 'Conv3d_1a_7x7.conv3d.weight'
CSN_MARK, X3D_MARK = 'blocks.0.conv.weight', 'blocks.0.conv.conv_t.weight'
# Of both families, and of X3D, at the end, where the beginning is not there.
BLOCKS_MARK, X3D_HEAD_MARK = 'blocks.5.proj.weight', 'blocks.5.pool.pre_conv.weight'
# By the ratio of channels that leave a bottleneck and those of its 3x3x3 convolution in one group.
FAMILY_OF_EXPANSION: Mapping[float, str] = {4: 'resnet', 2: 'wideresnet'}


def identify(state_dict: Mapping[str, torch.Tensor],
             hints: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The options of `models.generate_model` for the network that a state dict is of.

    state_dict: {name: tensor}, named as our networks are (see `released.rename_2018_keys`)
    hints:      what options are thought to be; where several values of `wide_resnet_k`,
                `resnet_widen_factor` and `model_size` make the same shapes, these are returned if
                they are among them

    Where there is no classifier, n_classes is 0. Raises InputError for weights of no network
    here.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    try:
        if 'features.conv1.weight' in shapes:
            return _densenet_options(shapes)
        if I3D_MARK in shapes:
            return _i3d_options(shapes)
        if has_blocks(shapes):
            return _block_options(shapes, hints)
        return _resnet_options(shapes, hints)
    except KeyError as error:
        raise InputError(f'its weights are of no network here: {error.args[0]} is missing, they '
                         f'begin with {", ".join(list(shapes)[:3])}; give weights of a 3D ResNet '
                         'or DenseNet') from None


def has_blocks(names: Container[str]) -> bool:
    """True for the names of tensors of CSN or X3D."""
    return any(name in names for name in (CSN_MARK, X3D_MARK, BLOCKS_MARK))


def _i3d_options(shapes: Shapes) -> dict[str, Any]:
    return {'model': 'i3d', 'n_classes': _n_classes(shapes, 'logits.conv3d', 5),
            'input_type': _input_type(shapes, I3D_MARK)}


def _block_options(shapes: Shapes, hints: Mapping[str, Any]) -> dict[str, Any]:
    """Of CSN or X3D, whose modules are blocks.0 ... blocks.5."""
    layers = [last + 1 for last in _count_blocks(shapes, r'blocks\.{}\.res_blocks\.(\d{{1,4}})\.')]
    options: dict[str, Any] = {'n_classes': _n_classes(shapes, 'blocks.5.proj')}
    if X3D_MARK in shapes or X3D_HEAD_MARK in shapes:
        sizes = [size for size, row in x3d.SIZES.items() if row == tuple(layers)]
        if not sizes:
            raise _no_stages('X3D', layers)
        thought = hints.get('model_size')
        # XS, S and M are one network.
        return {**options, 'model': 'x3d', 'model_size': thought if thought in sizes else sizes[-1],
                'input_type': _input_type(shapes, X3D_MARK)}
    is_preserved = 'blocks.1.res_blocks.0.branch2.conv_b.0.weight' in shapes
    return {**options, 'model': 'csn', 'model_depth': _depth(csn.LAYERS, layers, 'CSN'),
            'csn_interaction': 'preserved' if is_preserved else 'reduced',
            'input_type': _input_type(shapes, CSN_MARK)}


def _densenet_options(shapes: Shapes) -> dict[str, Any]:
    layers = _count_blocks(shapes, r'features\.denseblock{}\.denselayer(\d{{1,4}})\.')
    return {'model': 'densenet', 'model_depth': _depth(densenet.LAYERS, layers, 'DenseNet'),
            **_stem_options(shapes, 'features.conv1.weight', 'features.conv1.weight'),
            'n_classes': _n_classes(shapes, 'classifier')}


def _resnet_options(shapes: Shapes, hints: Mapping[str, Any]) -> dict[str, Any]:
    is_2p1d = 'conv1_s.weight' in shapes
    is_bottleneck = 'layer1.0.conv3.weight' in shapes
    stem = ('conv1_s.weight', 'conv1_t.weight') if is_2p1d else ('conv1.weight', 'conv1.weight')
    blocks = [last + 1 for last in _count_blocks(shapes, r'layer{}\.(\d{{1,4}})\.')]
    depths = BOTTLENECK_LAYERS if is_bottleneck else BASIC_LAYERS
    widen_factor = hints.get('resnet_widen_factor')
    options = {
        **_stem_options(shapes, *stem), 'model_depth': _depth(depths, blocks, 'ResNet'),
        'resnet_shortcut': 'B' if 'layer2.0.downsample.0.weight' in shapes else 'A',
        'attention': _attention(shapes)}
    options['n_classes'], features = (_shape(shapes, 'fc.weight', 2) if 'fc.weight' in shapes
                                      else (0, _last_planes(shapes, is_2p1d, is_bottleneck)))
    model = 'resnet2p1d' if is_2p1d else _family(shapes, is_bottleneck)
    stem_width = _shape(shapes, stem[1], 5)[0]
    if model == 'wideresnet':
        widths = _wide_options(stem_width, features // 2, hints.get('wide_resnet_k'), widen_factor)
    elif model == 'resnext':
        factor = _factor(features // 2, 1024, widen_factor)
        widths = {'resnet_widen_factor': factor,
                  'resnext_cardinality': _n_groups(shapes, 'layer1.0'),
                  'stem_planes': _stem_planes(stem_width, factor, 128)}
    else:
        width = features // 4 if is_bottleneck else features
        widths = {'resnet_widen_factor': _factor(width, 512, widen_factor)}
    return {'model': model, **options, **widths}


def _last_planes(shapes: Shapes, is_2p1d: bool, is_bottleneck: bool) -> int:
    """Channels of the feature map of a ResNet whose classifier is not there."""
    last = 'conv3' if is_bottleneck else 'conv2_t' if is_2p1d else 'conv2'
    return _shape(shapes, f'layer4.0.{last}.weight', 5)[0]


# ---------------------------------------------------------------- what single traces tell

def _shape(shapes: Shapes, name: str, n_axes: int) -> tuple[int, ...]:
    """The shape of a tensor that must have so many axes and be of some size along each."""
    shape = shapes[name]
    if len(shape) != n_axes or 0 in shape:
        cause = ', as in a network for images' if (len(shape), n_axes) == (4, 5) else ''
        raise InputError(f'its weights are of no network here: {name} has the shape {list(shape)}'
                         f'{cause}, not one of {n_axes} axes; give weights of a 3D ResNet or '
                         'DenseNet')
    return shape


def _n_classes(shapes: Shapes, classifier: str, n_axes: int = 2) -> int:
    """Outputs of the classifier of this name, 0 where neither its weight nor its bias is there."""
    names = (f'{classifier}.weight', f'{classifier}.bias')
    return _shape(shapes, names[0], n_axes)[0] if any(name in shapes for name in names) else 0


def _stem_options(shapes: Shapes, first: str, temporal: str) -> dict[str, Any]:
    """Kind of input and size in time, from the first convolution and that which spans frames."""
    return {'input_type': _input_type(shapes, first),
            'conv1_t_size': _shape(shapes, temporal, 5)[2]}


def _input_type(shapes: Shapes, first: str) -> str:
    """rgb or flow, from the first convolution."""
    channels = _shape(shapes, first, 5)[1]
    if channels not in INPUT_TYPES:
        raise InputError(f'its weights take {channels} input channels; give weights for 3 (rgb) '
                         'or 2 (flow)')
    return INPUT_TYPES[channels]


def _count_blocks(shapes: Shapes, pattern: str) -> list[int]:
    """The highest number that `pattern` finds in the names of each of the four stages."""
    def highest(stage: int) -> int:
        found = (re.match(pattern.format(stage), name) for name in shapes)
        return max((int(match[1]) for match in found if match), default=-1)
    return [highest(stage) for stage in range(1, 5)]


def _depth(depths: Mapping[int, tuple[int, ...]], blocks: list[int], kind: str) -> int:
    """The depth whose stages have so many blocks."""
    for depth, row in depths.items():
        if row == tuple(blocks):
            return depth
    raise _no_stages(kind, blocks)


def _no_stages(kind: str, blocks: list[int]) -> InputError:
    return InputError(f'its weights are of no network here: no {kind} has stages of '
                      f'{", ".join(map(str, blocks))} blocks; the depths are those of --help')


def _attention(shapes: Shapes) -> str:
    """none, se or nonlocal."""
    names = next((name.split('.') for name in shapes if is_attention(name)), [])
    return next((kind for kind in ('se', 'nonlocal') if kind in names), 'none')


def _family(shapes: Shapes, is_bottleneck: bool) -> str:
    """The family of a ResNet whose convolutions are not split in space and time."""
    index, block = (3, 'layer1.0') if is_bottleneck else (1, 'layer2.0')
    planes = _shape(shapes, f'{block}.conv{index}.weight', 5)[0]
    if _shape(shapes, f'{block}.bn{index}.weight', 1)[0] != planes:
        return 'preresnet'  # its norms are as wide as what goes into the convolutions
    if not is_bottleneck:
        return 'resnet'
    if _n_groups(shapes, 'layer1.0') > 1:
        return 'resnext'
    # In the widest stage no rounding of widths blurs the ratio.
    expansion = (_shape(shapes, 'layer4.0.conv3.weight', 5)[0]
                 / _shape(shapes, 'layer4.0.conv2.weight', 5)[0])
    return FAMILY_OF_EXPANSION.get(expansion, 'resnext')


def _n_groups(shapes: Shapes, block: str) -> int:
    planes, planes_of_group = _shape(shapes, f'{block}.conv2.weight', 5)[:2]
    return planes // planes_of_group


# ---------------------------------------------------------------- widths

def _factor(width: int, base: int, wanted: float | None = None) -> float:
    """A widen factor with int(base * factor) == width: `wanted` if it is one.

    It suits the other stages too: their bases are `base`, halved again and again.
    """
    if wanted is not None and int(base * wanted) == width:
        return wanted
    factor = width / base
    return factor if int(base * factor) == width else math.nextafter(factor, math.inf)


def _stem_planes(stem_width: int, factor: float, planes: int) -> int:
    """Channels of the stem before widening: 64, or `planes`, as many as the first stage has."""
    return planes if stem_width == int(planes * factor) != int(64 * factor) else 64


def _wide_options(stem_width: int, width: int, k: int | None,
                  widen_factor: float | None) -> dict[str, Any]:
    """k, widen factor and stem of a WideResNet whose last stage is `width` wide.

    Only their products show. The first guess that explains the stem's width is taken: k as it is
    thought to be, the factor so, or 1; last the k that a stem of 64 channels asks for.
    """
    guesses = (k, round(width / 512 / (widen_factor or 1)), width // (8 * stem_width), 1)
    for guess in filter(None, guesses):
        factor = _factor(width, 512 * guess, widen_factor)
        if stem_width in (int(64 * factor), int(64 * guess * factor)):
            break
    return {'wide_resnet_k': guess, 'resnet_widen_factor': factor,
            'stem_planes': _stem_planes(stem_width, factor, 64 * guess)}


def unrecorded_stem_planes(state_dict: Mapping[str, torch.Tensor],
                           options: Mapping[str, Any]) -> int:
    """Channels of the stem before widening, for one of our checkpoints that does not record them.

    options: those that it does record, of a ResNet
    """
    first_stage = {'wideresnet': 64 * options.get('wide_resnet_k', 1), 'resnext': 128}
    stem = state_dict.get('conv1.weight')
    if options['model'] not in first_stage or stem is None or not stem.dim():
        return 64
    return _stem_planes(stem.shape[0], options['resnet_widen_factor'],
                        first_stage[options['model']])
