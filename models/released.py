"""Weights files of other projects: how each kind is recognised, and how it becomes ours.

A new kind is a new row of `KINDS`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from models import torchvision_video
from models.class_names import kinetics_400
from models.identify import I3D_MARK, has_blocks, identify
from runtime.errors import InputError

StateDict = Mapping[str, torch.Tensor]
# Where other projects have their state dicts.
OTHER_KEYS = ('model_state_dict', 'model_state', 'model', 'module', 'net')
NAMES_BEGIN_2018 = 'features.conv0.weight'


@dataclass(frozen=True)
class Kind:
    """One kind of weights files.

    origin:        whose they are, such as 'the 2018 code'
    recognise:     (state dict as the file has it but without `module.`, all else in the file)
                   -> True if the file is of this kind. A file of any sort comes here, so this must
                   not raise; in the second, `behind_module` is True where names had that prefix
    rename:        the state dict, also with converted tensors, under the names of our networks
    options:       (that state dict, what options are thought to be) -> the options of
                   `models.generate_model`; those that leave no trace in weights may be missing.
                   Raises InputError for weights of no network here
    preprocessing: the flags of clips and normalisation that the weights were trained with, {} where
                   they are not known. main.py takes them, as it does those of our checkpoints
    asks_for:      where main.py is not to take them, but to warn where its flags are others: what
                   images these networks expect, in words
    class_names:   number of classes -> their names in the order of the logits; None where they are
                   not known
    key:           where the file has its state dict, if it is not bare
    """

    origin: str
    recognise: Callable[[StateDict, Mapping[str, Any]], bool]
    options: Callable[[StateDict, Mapping[str, Any]], dict[str, Any]] = identify
    rename: Callable[[StateDict], dict[str, torch.Tensor]] = dict
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    asks_for: str = ''
    class_names: Callable[[int], tuple[str, ...] | None] = lambda n_classes: None
    key: str = 'state_dict'


def rename_2018_keys(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with our names, from one of the 2018 weights (or from one that has them)."""
    def rename(key: str) -> str:
        key = re.sub(r'\bfeatures\.(conv|norm)0\.', r'features.\g<1>1.', key)
        return re.sub(r'\b(norm|conv)\.([12])\.', r'\1\2.', key)
    return {rename(key): value for key, value in state_dict.items()}


def is_of_2018(state_dict: StateDict, file: Mapping[str, Any]) -> bool:
    """True if weights are of the 2018 code, as far as that shows.

    Its marks are names of its own for densenet, shortcut A, and `module.` before the names of a
    kind that it released: resnet of 50 layers and more, preresnet, resnext, and wideresnet with a
    stem of 64 channels. The 2020 code saves without `module.`, and a scheduler's state beside.
    """
    if NAMES_BEGIN_2018 in state_dict:
        return True
    try:
        found = identify(state_dict)
    except InputError:
        return False
    if 'scheduler' in file or found['model'] in ('densenet', 'resnet2p1d'):
        return False
    if found['resnet_shortcut'] == 'A':
        return True
    is_released = {'resnet': found['model_depth'] >= 50,
                   'wideresnet': found.get('stem_planes') == 64}.get(found['model'], True)
    return file.get('behind_module', False) and is_released


def names_of_kinetics_400(n_classes: int) -> tuple[str, ...] | None:
    """Those of a file with 400 classes of a project that trained on nothing else with so many."""
    return kinetics_400() if n_classes == 400 else None


# The first kind that recognises a file is taken for it; the last recognises all.
KINDS = (
    # Trained on 64 frames of short side 256, cropped to 224, in -1...1.
    Kind('the PyTorch I3D', lambda state_dict, file: I3D_MARK in state_dict,
         class_names=names_of_kinetics_400,
         preprocessing={'sample_size': 224, 'sample_resize': 256, 'sample_duration': 64,
                        'mean_dataset': '0.5'}),
    Kind('PyTorchVideo', lambda state_dict, file: has_blocks(state_dict), key='model_state',
         class_names=names_of_kinetics_400,
         preprocessing={'sample_size': 224, 'mean': [0.45] * 3, 'std': [0.225] * 3}),
    *(Kind('torchvision', family.recognise, family.options, preprocessing=family.preprocessing,
           class_names=family.class_names) for family in torchvision_video.FAMILIES.values()),
    Kind('the 2018 code', is_of_2018, rename=rename_2018_keys,
         class_names=names_of_kinetics_400,
         preprocessing={'value_scale': 255, 'mean': [114.7748, 107.7354, 99.475],
                        'no_std_norm': True},
         asks_for='images in 0...255 that are divided by no standard deviation'),
    # Its images are in 0...1 and normalised as those of Kinetics, which is the default.
    Kind('the 2020 code', lambda state_dict, file: True, rename=rename_2018_keys),
)


def state_dict_keys() -> tuple[str, ...]:
    """The keys under which files of any kind, and ours, have their state dict."""
    return tuple(dict.fromkeys(['state_dict', *(kind.key for kind in KINDS), *OTHER_KEYS]))


def kind_of(state_dict: StateDict, file: Mapping[str, Any]) -> Kind:
    """The row of `KINDS` for a file; see `Kind.recognise` for the arguments."""
    return next(kind for kind in KINDS if kind.recognise(state_dict, file))
