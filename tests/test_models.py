"""The networks: what they take, give and learn from, and their numbers beside the recorded ones."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from models import ARCHITECTURES, depths, generate_model, options_of
from models.densenet import HalvingPool
from models.released import rename_2018_keys
from models.resnet import BasicBlock, PadShortcut, conv_bn
from models.resnet2p1d import conv_bn_2p1d
from runtime.cpu import train_on_cpu
from runtime.errors import InputError
from tests.recorded import assert_is_recorded, without_numbers

# The families of one stem; the others have tests of their own.
STEMMED = [model for model in ARCHITECTURES if 'conv1_t_size' in options_of(model)]
NETWORKS = [(model, depth) for model in STEMMED for depth in depths(model)]
# The shallowest of each kind of block; the deeper ones repeat its blocks.
SHALLOW = [(model, depth) for model, depth in NETWORKS if depth in (10, 18, 50, 121)]
NARROW = dict(n_classes=5, resnet_widen_factor=0.125, resnext_cardinality=8)

GOLDEN_CASES = """
    densenet-121 densenet-121-2018keys densenet-201 densenet-201-2018keys densenet-264
    preresnet-18 preresnet-34 preresnet-50 preresnet-152 preresnet-200
    resnet-10 resnet-18 resnet-18-2018 resnet-18-flow resnet-18-shortcutA resnet-18-stem
    resnet-18-widen resnet-34 resnet-34-shortcutA resnet-50 resnet-101 resnet-200
    resnet2p1d-18 resnet2p1d-34 resnet2p1d-50 resnet2p1d-152 resnet2p1d-200
    resnext-50 resnext-101 wideresnet-50 wideresnet-50-stem128 wideresnet-101-stem128
    wideresnet-152-stem128 wideresnet-200-stem128""".split()
# These repeat blocks of the others, as their names and shapes tell: --deep computes their logits.
# Wide ResNets have the blocks of ResNets, with more channels.
DEEPER_CASES = set("""
    densenet-121-2018keys densenet-201 densenet-201-2018keys densenet-264 preresnet-34
    preresnet-152 preresnet-200 resnet-34 resnet-34-shortcutA resnet-101 resnet-200 resnet2p1d-34
    resnet2p1d-152 resnet2p1d-200 resnext-101 wideresnet-50 wideresnet-50-stem128
    wideresnet-101-stem128 wideresnet-152-stem128 wideresnet-200-stem128""".split())


def on_meta(model, model_depth, **options):
    """A network that has shapes but no numbers: the deep ones cost nothing."""
    with without_numbers():
        return generate_model(model, model_depth, **options)


def narrow(model, depth=None, **options):
    """A network of few channels (DenseNet has its own), the shallowest of its family by default."""
    torch.manual_seed(1)
    return generate_model(model, depth or depths(model)[0], **{**NARROW, **options})


def clips(n_channels=3, size=32):
    """Two clips of 16 frames."""
    return torch.randn(2, n_channels, 16, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.slow
@pytest.mark.parametrize('model, depth', NETWORKS)
def test_depth_is_the_number_of_layers(model, depth):
    """Without the convolutions of shortcuts; a factored one counts once. DenseNet-264 has blocks of
    6, 12, 64 and 48 layers in its paper, which make one more than its name says."""
    network = on_meta(model, depth)
    layers = [name for name, module in network.named_modules()
              if isinstance(module, (torch.nn.Conv3d, torch.nn.Linear))
              and 'downsample' not in name and not name.endswith('_t')]
    assert len(layers) == depth + (depth == 264)


@pytest.mark.slow
@pytest.mark.parametrize('model, depth', SHALLOW)
def test_every_network_classifies_and_registers_each_parameter_once(model, depth):
    network = on_meta(model, depth, n_classes=7)
    features = network.forward_features(torch.empty(2, 3, 16, 112, 112, device='meta'))
    side = 3 if model == 'densenet' else 4
    assert features.shape == (2, network.num_features, 1, side, side)
    assert network.forward_head(features).shape == (2, 7)
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    assert getattr(network, network.classifier_name).in_features == network.num_features
    parameters = [id(p) for _, p in network.named_parameters(remove_duplicate=False)]
    assert len(parameters) == len(set(parameters))


@pytest.mark.slow
@pytest.mark.parametrize('model, depth', SHALLOW)
def test_every_parameter_gets_a_gradient(model, depth):
    network = narrow(model, depth)
    F.cross_entropy(network(clips(size=64)), torch.tensor([0, 3])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize('model', STEMMED)
def test_channels_last_gives_the_same_result(model):
    network = narrow(model).eval()
    x = clips(size=64)
    with torch.inference_mode():
        expected = network(x)
        network.to(memory_format=torch.channels_last_3d)
        logits = network(x.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('layer', [PadShortcut(4, 8, stride=2), HalvingPool()])
def test_layers_of_our_own_keep_channels_last(layer):
    x = torch.randn(2, 4, 8, 8, 8).to(memory_format=torch.channels_last_3d)
    assert layer(x).is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(layer(x), layer(x.contiguous()))


@pytest.mark.slow
@pytest.mark.parametrize('model', STEMMED)
def test_trains_in_channels_last_bfloat16(model):
    network = narrow(model).to(memory_format=torch.channels_last_3d)
    x = clips(size=64).to(memory_format=torch.channels_last_3d)
    train_on_cpu(network)
    with torch.autocast('cpu', torch.bfloat16):
        network(x).float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())

    network.eval()  # batch statistics of few places would magnify the rounding
    with torch.inference_mode():
        expected = network(x)
        with torch.autocast('cpu', torch.bfloat16):
            logits = network(x)
    assert logits.dtype == torch.bfloat16
    assert (logits - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize('model', STEMMED)
def test_takes_optical_flow(model):
    assert narrow(model, input_type='flow')(clips(n_channels=2, size=64)).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize('model', STEMMED)
@pytest.mark.parametrize('flags, sizes', [
    ({'conv1_t_size': 3}, (1, 4, 4)),
    ({'conv1_t_stride': 2}, (1, 4, 4)),
    ({'no_max_pool': True}, (2, 7, 7)),
    ({'conv1_t_size': 1, 'conv1_t_stride': 2, 'no_max_pool': True}, (1, 7, 7)),
])
def test_stem_flags(model, flags, sizes):
    if model == 'densenet' and sizes[1] == 4:
        sizes = (1, 3, 3)  # its transitions leave out the last of an odd number of places
    network = on_meta(model, depths(model)[0], **flags)
    features = network.forward_features(torch.empty(1, 3, 16, 112, 112, device='meta'))
    assert features.shape[2:] == sizes


@pytest.mark.parametrize('model', [model for model in STEMMED if model != 'densenet'])
def test_shortcut_a_has_no_parameters_and_trains(model):
    network = narrow(model, resnet_shortcut='A')
    assert not any('downsample' in name for name in network.state_dict())
    network(clips(size=64)).square().sum().backward()
    assert all(p.grad.any() for p in network.parameters())


def test_shortcut_a_subsamples_and_fills_with_zeros():
    x = clips()
    out = PadShortcut(3, 8, stride=2)(x)
    assert torch.equal(out[:, :3], F.avg_pool3d(x, kernel_size=1, stride=2))
    assert out.shape == (2, 8, 8, 16, 16) and not out[:, 3:].any()


def test_gradients_pass_through_shortcut_a():
    block = BasicBlock(3, 8, stride=2, resnet_shortcut='A').eval()
    torch.nn.init.zeros_(block.bn2.weight)  # closes the path of convolutions
    x = clips().abs().requires_grad_()
    block(x).sum().backward()
    assert x.grad[:, :, ::2, ::2, ::2].eq(1).all()
    assert x.grad.sum() == x[:, :, ::2, ::2, ::2].numel()


@pytest.mark.parametrize('in_planes, planes', [(64, 64), (64, 128), (3, 64)])
def test_factored_convolution_has_as_many_weights(in_planes, planes):
    def n_weights(steps):
        return sum(m.weight.numel() for m in steps.values() if isinstance(m, torch.nn.Conv3d))
    full = n_weights(conv_bn(1, in_planes, planes, 3))
    factored = n_weights(conv_bn_2p1d(1, in_planes, planes, 3))
    assert 0 <= full - factored < 9 * in_planes + 3 * planes  # less than one channel between


def test_preresnet_sums_are_not_rectified():
    assert narrow('preresnet').forward_features(clips(size=64)).min() < 0


@pytest.mark.parametrize('options, width', [
    ({}, 64), ({'wide_resnet_k': 4}, 64), ({'wide_resnet_k': 4, 'stem_planes': 256}, 256)])
def test_wideresnet_widens_the_inner_layers(options, width):
    network = on_meta('wideresnet', 50, **options)
    inner = 64 * options.get('wide_resnet_k', 2)
    assert network.conv1.out_channels == width
    assert network.layer1[0].conv2.out_channels == inner
    assert network.layer1[0].conv3.out_channels == 2 * inner


def test_resnext_cardinality_is_the_number_of_groups():
    conv = on_meta('resnext', 50, resnext_cardinality=8).layer2[1].conv2
    assert (conv.groups, conv.out_channels) == (8, 8 * 256 // 32)


@pytest.mark.slow
def test_densenet_takes_clips_shorter_than_its_transitions():
    network = on_meta('densenet', 121)
    assert network(torch.empty(2, 3, 4, 16, 16, device='meta')).shape == (2, 400)


def test_weights_at_the_start():
    network = generate_model('densenet', 121, n_classes=5)
    conv = network.features.denseblock1.denselayer1.conv2.weight
    assert conv.std().item() == pytest.approx(math.sqrt(2 / (32 * 27)), rel=0.02)  # fan out
    assert network.features.norm5.weight.eq(1).all() and network.features.norm5.bias.eq(0).all()
    assert network.classifier.bias.eq(0).all()


def test_2018_names_of_densenet():
    names = ['features.conv0.weight', 'features.norm0.bias',
             'features.denseblock1.denselayer1.norm.1.weight',
             'features.denseblock1.denselayer1.conv.2.weight',
             'features.transition1.norm.weight', 'features.norm5.weight', 'classifier.bias']
    ours = ['features.conv1.weight', 'features.norm1.bias',
            'features.denseblock1.denselayer1.norm1.weight',
            'features.denseblock1.denselayer1.conv2.weight', *names[4:]]
    renamed = rename_2018_keys({name: i for i, name in enumerate(names)})
    assert renamed == {name: i for i, name in enumerate(ours)}
    assert rename_2018_keys(renamed) == renamed


def test_an_option_of_another_family_is_left_out_and_a_misspelt_one_is_refused():
    options = dict(wide_resnet_k=2, resnext_cardinality=32, resnet_shortcut='B',
                   resnet_widen_factor=1.0, stem_planes=64)
    for model in STEMMED:
        on_meta(model, depths(model)[0], **options)
    with pytest.raises(TypeError, match='n_class'):
        generate_model('resnet', 18, n_class=400)


@pytest.mark.parametrize('model', STEMMED)
def test_a_network_says_what_it_was_made_of(model):
    network = narrow(model, input_type='flow', stem_planes=8)
    made_of = dict(network.options)
    assert made_of.keys() <= options_of(model)
    assert made_of['model'] == model and made_of['input_type'] == 'flow'
    again = on_meta(**made_of)
    assert again.options == made_of
    assert [value.shape for value in again.parameters()] == [
        value.shape for value in network.parameters()]


@pytest.mark.parametrize('model, depth, options, message', [
    ('alexnet', 8, {}, 'one of resnet, resnet2p1d, preresnet, wideresnet, resnext, densenet'),
    ('wideresnet', 18, {}, 'wideresnet has no depth 18: choose one of 50, 101, 152, 200'),
    ('densenet', 50, {}, 'densenet has no depth 50: choose one of 121, 169, 201, 264'),
    ('resnet', 18, {'resnet_shortcut': 'C'}, 'choose A .* or B'),
    ('resnet', 18, {'resnet_widen_factor': 0.01}, 'give at least 0.015625'),
    ('resnet', 18, {'input_type': 'sound'}, 'one of rgb, flow'),
])
def test_an_error_says_what_there_is(model, depth, options, message):
    with pytest.raises(InputError, match=message):
        generate_model(model, depth, **options)


def recorded_network(case_name, case):
    """The network of a case, on the meta device."""
    options = dict(case['options'])
    if case_name.endswith('-stem128'):
        options['stem_planes'] = 64 * options['wide_resnet_k']
    return on_meta(options.pop('model'), options.pop('model_depth'), **options)


@pytest.mark.golden
def test_no_recorded_network_is_forgotten(golden_dir):
    assert {path.stem for path in (golden_dir / 'models').glob('*.json')} == set(GOLDEN_CASES)


@pytest.mark.golden
@pytest.mark.parametrize('case_name', GOLDEN_CASES)
def test_names_shapes_and_logits_are_the_recorded_ones(case_name, golden_dir, pytestconfig):
    case = json.loads((golden_dir / 'models' / f'{case_name}.json').read_text())
    network = recorded_network(case_name, case)
    assert_is_recorded(network, case, rename_2018_keys,
                       has_logits=case_name not in DEEPER_CASES or pytestconfig.getoption('deep'))
