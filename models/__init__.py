"""The table of architectures, and the one builder that goes through it."""

from typing import NamedTuple

from models import densenet, pre_act_resnet, resnet, resnet2p1d, resnext, wide_resnet
from runtime.errors import InputError

STEM_OPTIONS = {'n_classes', 'n_input_channels', 'conv1_t_size', 'conv1_t_stride', 'no_max_pool'}
RESNET_OPTIONS = STEM_OPTIONS | {'shortcut_type', 'widen_factor'}


class Family(NamedTuple):
    """A module with `generate_model` and `LAYERS`, and the names of the options it understands."""

    module: object
    options: set


ARCHITECTURES = {
    'resnet': Family(resnet, RESNET_OPTIONS),
    'resnet2p1d': Family(resnet2p1d, RESNET_OPTIONS),
    'preresnet': Family(pre_act_resnet, RESNET_OPTIONS),
    'wideresnet': Family(wide_resnet, RESNET_OPTIONS | {'k', 'stem_planes'}),
    'resnext': Family(resnext, RESNET_OPTIONS | {'cardinality', 'stem_planes'}),
    'densenet': Family(densenet, STEM_OPTIONS),
}


def family_of(model):
    """The row of `ARCHITECTURES`; InputError names those there are."""
    if model not in ARCHITECTURES:
        raise InputError(f'no model {model!r}: choose one of {", ".join(ARCHITECTURES)}')
    return ARCHITECTURES[model]


def depths(model):
    """The depths of a family, shallowest first."""
    return tuple(family_of(model).module.LAYERS)


def generate_model(model, model_depth, **network_options):
    """The network `model` of `model_depth`: (N, C, T, H, W) float -> (N, n_classes) logits.

    An option that belongs to other families only is left out, so that the flags of all of them can
    be given at once. TypeError for one that no family has; InputError for an unknown model or depth
    and for what a network refuses.
    """
    family = family_of(model)
    unknown = set(network_options).difference(*(row.options for row in ARCHITECTURES.values()))
    if unknown:
        raise TypeError(f'no network has the options {sorted(unknown)}')
    understood = {name: value for name, value in network_options.items() if name in family.options}
    return family.module.generate_model(model_depth, **understood)
