"""Channel-separated networks and X3D: the recorded numbers, sizes, options, how they train."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from models import csn, x3d
from runtime.errors import InputError
from tests.recorded import assert_is_recorded, without_numbers

pytestmark = pytest.mark.slow

MAKERS = {
    **{f'csn-{depth}-{kind}': lambda depth=depth, kind=kind, **more: csn.generate_model(
        depth, csn_interaction=kind, **more)
       for depth in csn.LAYERS for kind in csn.CONVOLUTIONS},
    **{f'x3d-{size}': lambda size=size, **more: x3d.generate_model(model_size=size, **more)
       for size in x3d.SIZES}}
SHALLOW = ('csn-26-reduced', 'csn-26-preserved', 'x3d-xs')


def on_meta(name, **options):
    with without_numbers():
        return MAKERS[name](**options)


def clips(n_frames=16, size=64):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, n_frames, size, size, generator=generator)


@pytest.mark.golden
@pytest.mark.parametrize('name, case', [
    ('csn-101-reduced', 'csn_r101'), ('x3d-xs', 'x3d_xs'), ('x3d-s', 'x3d_s'), ('x3d-m', 'x3d_m')])
def test_names_shapes_and_logits_are_the_recorded_ones(name, case, golden_dir):
    assert_is_recorded(on_meta(name), json.loads(
        (golden_dir / 'other' / f'{case}.json').read_text()))


@pytest.mark.parametrize('name, millions', [
    # As the papers have it, which count batch norms more or less.
    ('csn-50-reduced', 13.1), ('csn-101-reduced', 22.1), ('csn-152-reduced', 29.6),
    ('csn-50-preserved', 14.3), ('csn-101-preserved', 24.5), ('csn-152-preserved', 32.8),
    ('x3d-xs', 3.76), ('x3d-m', 3.76), ('x3d-l', 6.08)])
def test_networks_are_as_large_as_published(name, millions):
    n_parameters = sum(p.numel() for p in on_meta(name).parameters())
    assert n_parameters / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize('name, n_frames, height, width', [
    *((name, 32, 224, 256) for name in MAKERS),
    *((name, *size) for name in SHALLOW for size in ((1, 1, 1), (4, 33, 47)))])
def test_every_size_is_taken(name, n_frames, height, width):
    network = on_meta(name, n_classes=5)
    features = network.forward_features(torch.empty(2, 3, n_frames, height, width, device='meta'))
    planes, t = (192, n_frames) if name.startswith('x3d') else (2048, -(-n_frames // 8))
    assert features.shape == (2, planes, t, -(-height // 32), -(-width // 32))
    assert network.forward_head(features).shape == (2, 5)
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    assert network.get_submodule(network.classifier_name).in_features == network.num_features


@pytest.mark.parametrize('name', SHALLOW)
def test_takes_optical_flow(name):
    flow = torch.empty(1, 2, 8, 64, 64, device='meta')
    assert on_meta(name, n_input_channels=2, n_classes=5)(flow).shape == (1, 5)


@pytest.mark.parametrize('name', SHALLOW)
def test_every_parameter_gets_a_gradient_with_and_without_activation_checkpointing(name):
    torch.manual_seed(1)
    network = MAKERS[name](n_classes=5).double()
    recomputed = copy.deepcopy(network)
    recomputed.recompute_blocks()
    for part in (network, recomputed):
        F.cross_entropy(part(clips(4).double()), torch.tensor([0, 3])).backward()
    for (name, parameter), again in zip(network.named_parameters(), recomputed.parameters()):
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
        torch.testing.assert_close(again.grad, parameter.grad, msg=name)
    for (name, buffer), again in zip(network.named_buffers(), recomputed.buffers()):
        torch.testing.assert_close(again, buffer, msg=name)


@pytest.mark.parametrize('name', SHALLOW)
def test_channels_last_gives_the_same_result(name):
    torch.manual_seed(1)
    network = MAKERS[name](n_classes=5).eval()
    with torch.inference_mode():
        expected = network(clips())
        network.to(memory_format=torch.channels_last_3d)
        logits = network(clips().to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('make, sentence', [
    (lambda: csn.generate_model(18), 'csn has no depth 18: choose one of 26, 50, 101, 152'),
    (lambda: csn.generate_model(26, csn_interaction='none'),
     "no interaction 'none': choose one of reduced, preserved"),
    (lambda: x3d.generate_model(model_size='xl'),
     "x3d has no size 'xl': choose one of xs, s, m, l")])
def test_an_unknown_option_is_one_sentence(make, sentence):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == sentence
