"""The table of network families, and the builder that goes through it.

This module does without torch: a family's module is imported when it is first asked for.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runtime.errors import InputError

if TYPE_CHECKING:
    from models.base import Classifier

# torchvision's networks for video.
TORCHVISION = ('r3d_18', 'mc3_18', 'r2plus1d_18', 's3d', 'mvit_v1_b', 'mvit_v2_s', 'swin3d_t',
               'swin3d_s', 'swin3d_b')
# By --model, the module of a family. It has
#   generate_model(model_depth, *, n_classes, n_input_channels, ...)   the network
#   LAYERS    the depths there are; a module without it has one network, which takes no model_depth
#   DEFAULT_DEPTH  where that is not the first of them, the depth that is taken if none is given
#   OPTIONS   {name: default} of the other arguments that generate_model takes (see
#             base.keyword_options): flags of main.py, and what only weights files say, such as
#             stem_planes
# or, where it is of several families, FAMILIES: by --model an object that has these.
ARCHITECTURES = {
    'resnet': 'models.resnet',
    'resnet2p1d': 'models.resnet2p1d',
    'preresnet': 'models.pre_act_resnet',
    'wideresnet': 'models.wide_resnet',
    'resnext': 'models.resnext',
    'densenet': 'models.densenet',
    'i3d': 'models.i3d',
    'csn': 'models.csn',
    'x3d': 'models.x3d',
    **dict.fromkeys((*TORCHVISION, 'r2plus1d_34'), 'models.torchvision_video'),
}
# Channels of a frame by --input_type; those of flow are horizontal and vertical.
INPUT_CHANNELS = {'rgb': 3, 'flow': 2}


def family_of(model: str) -> Any:
    """The module (or object) of a family; InputError names the families there are."""
    if model not in ARCHITECTURES:
        raise InputError(f'no model {model!r}: choose one of {", ".join(ARCHITECTURES)}')
    module = importlib.import_module(ARCHITECTURES[model])
    return module.FAMILIES[model] if hasattr(module, 'FAMILIES') else module


def depths(model: str) -> tuple[int, ...]:
    """The depths of a family, shallowest first; none where it has a single network."""
    return tuple(getattr(family_of(model), 'LAYERS', ()))


def default_depth(model: str) -> int | None:
    """The depth of a family where none is given; None where it has a single network."""
    shallowest = next(iter(depths(model)), None)
    return getattr(family_of(model), 'DEFAULT_DEPTH', shallowest)


def options_of(model: str) -> frozenset[str]:
    """Names of all that `generate_model` takes for a family."""
    options = {'model', 'n_classes', 'input_type', *family_of(model).OPTIONS}
    return frozenset(options | {'model_depth'} if depths(model) else options)


def network_name(options: Mapping[str, Any]) -> str:
    """resnet-50: family and depth of the network that `generate_model` makes of these options."""
    name = options['model']
    return f'{name}-{options["model_depth"]}' if depths(name) else name


def generate_model(model: str, model_depth: int | None = None, *, n_classes: int = 400,
                   input_type: str = 'rgb', **options: Any) -> 'Classifier':
    """The network of a family and a depth: (N, C, T, H, W) float -> (N, n_classes) logits.

    Options are named as the flags of main.py. One that belongs to other families only is left out,
    so that the flags of all of them can be given at once. What the network was made of stays with
    it, as `network.options`.

    TypeError for an option that no family has; InputError for an unknown model or depth and for
    what a network refuses.
    """
    family = family_of(model)
    unknown = set(options).difference(*map(options_of, ARCHITECTURES))
    if unknown:
        raise TypeError(f'no network has the options {sorted(unknown)}')
    if input_type not in INPUT_CHANNELS:
        raise InputError(f'no input type {input_type!r}: choose one of {", ".join(INPUT_CHANNELS)}')
    options = {name: options.get(name, default) for name, default in family.OPTIONS.items()}
    depth = {'model_depth': model_depth} if depths(model) else {}
    network = family.generate_model(*depth.values(), n_classes=n_classes,
                                    n_input_channels=INPUT_CHANNELS[input_type], **options)
    network.options = {'model': model, **depth, 'n_classes': n_classes, 'input_type': input_type,
                       **options}
    return network
