"""Networks that are told by the names and shapes of their weights alone."""

import json

import pytest
import torch

from models import depths
from models.identify import identify
from models.released import rename_2018_keys
from runtime.errors import InputError
from tests.test_models import GOLDEN_CASES, NETWORKS, STEMMED, on_meta


def shapes(state_dict):
    return [(name, tuple(tensor.shape)) for name, tensor in state_dict.items()]


def check_identified(network, **expected):
    """That names and shapes tell what builds the same, and `expected` by one who knows its widths.

    Of several k and widen factors that make the same shapes, only one can be guessed.
    """
    known = {name: expected[name] for name in ('wide_resnet_k', 'resnet_widen_factor')
             if name in expected}
    for reminder in ({}, known) if known else ({},):
        told = identify(network.state_dict(), reminder)
        assert shapes(on_meta(**told).state_dict()) == shapes(network.state_dict())
    assert {name: told[name] for name in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize('model, depth', NETWORKS)
def test_every_network_is_told_by_names_and_shapes(model, depth):
    check_identified(on_meta(model, depth, n_classes=7), model=model, model_depth=depth,
                     n_classes=7, input_type='rgb', conv1_t_size=7)


@pytest.mark.parametrize('model', STEMMED)
def test_stem_and_shortcut_are_told(model):
    flags = {'input_type': 'flow', 'conv1_t_size': 3}
    if model != 'densenet':
        flags['resnet_shortcut'] = 'A'
    check_identified(on_meta(model, depths(model)[0], **flags), model=model, **flags)


@pytest.mark.slow
@pytest.mark.parametrize('factor', [0.3, 2.0, 0.05])
@pytest.mark.parametrize('model, depth, widths', [
    ('resnet', 10, {}), ('resnet', 50, {}), ('resnet2p1d', 10, {}), ('resnet2p1d', 50, {}),
    ('preresnet', 10, {}), ('preresnet', 50, {}),
    *(('wideresnet', 50, {'wide_resnet_k': k}) for k in (1, 2, 3, 4)),
    ('wideresnet', 50, {'wide_resnet_k': 4, 'stem_planes': 256}),
    *(('resnext', 50, {'resnext_cardinality': n}) for n in (1, 8, 64)),
    ('resnext', 50, {'resnext_cardinality': 32, 'stem_planes': 128}),
])
def test_widths_are_told(model, depth, widths, factor):
    network = on_meta(model, depth, resnet_widen_factor=factor, **widths)
    told = {name: value for name, value in widths.items() if name != 'stem_planes'}
    check_identified(network, model=model, resnet_widen_factor=factor, **told)


def test_a_wide_stem_is_taken_for_that_of_a_network_that_is_not_widened():
    network = on_meta('wideresnet', 50, wide_resnet_k=2, stem_planes=128)
    told = identify(network.state_dict())
    assert [told[name] for name in ('wide_resnet_k', 'resnet_widen_factor', 'stem_planes')] == [
        2, 1.0, 128]


@pytest.mark.golden
@pytest.mark.parametrize('case_name', GOLDEN_CASES)
def test_recorded_networks_are_told(case_name, golden_dir):
    case = json.loads((golden_dir / 'models' / f'{case_name}.json').read_text())
    weights = rename_2018_keys({name: torch.empty(shape, device='meta')
                                for name, shape in case['state_dict']})
    told = identify(weights)
    for flag, value in case['options'].items():
        if flag not in ('conv1_t_stride', 'no_max_pool'):  # they leave no trace
            assert told[flag] == value, flag
    assert shapes(on_meta(**told).state_dict()) == shapes(weights)


IMAGES_2D = {'conv1.weight': torch.zeros(64, 3, 7, 7), 'fc.weight': torch.zeros(5, 512)}
NO_NETWORKS = {
    'of another kind': ({'encoder.weight': torch.zeros(2)}, 'conv1.weight is missing.*encoder'),
    'for images': (IMAGES_2D, 'conv1.weight.*as in a network for images'),
    'without classifier': ({'conv1.weight': torch.zeros(8, 3, 7, 7, 7)}, '0, 0, 0, 0 blocks'),
    'of one channel': ({'conv1.weight': torch.zeros(8, 1, 7, 7, 7)}, '1 input channels'),
    'a number': ({'conv1.weight': torch.zeros(())}, r'conv1.weight has the shape \[\]'),
    'empty': ({'conv1.weight': torch.zeros(0, 3, 7, 7, 7)}, 'conv1.weight has the shape'),
}


@pytest.mark.parametrize('name', NO_NETWORKS)
def test_weights_of_no_network_here(name):
    weights, message = NO_NETWORKS[name]
    with pytest.raises(InputError, match=f'{message}.*; ?'):
        identify(weights)


def test_blocks_that_no_depth_has():
    weights = on_meta('resnet', 18).state_dict()
    weights = {name: value for name, value in weights.items() if 'layer3.1' not in name}
    with pytest.raises(InputError, match='stages of 2, 2, 1, 2 blocks'):
        identify(weights)
