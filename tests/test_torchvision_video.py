"""torchvision's video networks: logits, how files are recognised, what they take, training."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import get_model, get_model_weights

from features import FeatureTap
from model import freeze, load_model, stages
from models import TORCHVISION, generate_model
from models.torchvision_video import FAMILIES, IG65M, make_r2plus1d_34
from runtime.errors import InputError
from tests.recorded import without_numbers
from tests.tiny_data import run_main
from weights import interpret, load, read

pytestmark = pytest.mark.slow

ALL = [*TORCHVISION, IG65M]
# Clips that differ from those of training where a network allows that.
SHAPES = {'s3d': (14, 224, 224), 'mvit_v1_b': (16, 224, 224), 'mvit_v2_s': (16, 224, 224)}
SMALL = (5, 45, 40)


def original(name, n_classes=5):
    """As another project builds it."""
    torch.manual_seed(0)
    make = make_r2plus1d_34 if name == IG65M else lambda n_classes: get_model(
        name, num_classes=n_classes)
    return make(n_classes).eval()


def on_meta(name, **options):
    with without_numbers():
        return generate_model(name, **options)


def meta_clips(name, n_channels=3):
    return torch.empty(2, n_channels, *SHAPES.get(name, SMALL), device='meta')


@pytest.mark.parametrize('name', ALL)
def test_logits_are_those_of_torchvision(name, pytestconfig):
    if name in ('mvit_v1_b', 'swin3d_s', 'swin3d_b', IG65M) and not pytestconfig.getoption('deep'):
        pytest.skip('large, and goes the same way here as the others; add --deep')
    theirs = original(name)
    ours = on_meta(name, n_classes=5).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    if name.startswith('mvit'):
        for network in (theirs, ours):
            del network.blocks[4:-3]  # which are alike
    clips = torch.randn(1, 3, *SHAPES.get(name, SMALL))
    with torch.inference_mode():
        torch.testing.assert_close(ours(clips), theirs(clips), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('n_classes', [400, 5])
def test_a_state_dict_is_recognised_by_itself(name, n_classes):
    with without_numbers():
        state_dict = original(name, n_classes).state_dict()
    weights = interpret({'state_dict': state_dict}, Path('a.pth'))
    assert weights.network == {'model': name, 'n_classes': n_classes, 'input_type': 'rgb'}
    assert weights.origin == 'torchvision' and weights.network_name == name
    if name == IG65M:
        assert weights.class_names is None
        return
    published = get_model_weights(name).DEFAULT
    assert weights.class_names == (tuple(published.meta['categories']) if n_classes == 400
                                   else None)
    transforms = published.transforms()
    assert weights.clip['mean'] == list(transforms.mean)
    assert weights.clip['std'] == list(transforms.std)
    assert [weights.clip['sample_size']] * 2 == list(transforms.crop_size)
    assert weights.clip['sample_resize'] == min(transforms.resize_size)
    said = published.meta['_docs']
    assert f'clip_len={weights.clip["sample_duration"]}`' in said
    assert f'frame_rate={30 / weights.clip["sample_t_stride"]:g}`' in said


@pytest.mark.parametrize('name', ALL)
def test_features_and_flow(name):
    network = on_meta(name, n_classes=5, input_type='flow')
    features = network.forward_features(meta_clips(name, 2))
    assert features.dim() == 5 and features.shape[:2] == (2, network.num_features)
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    assert network.forward_head(features).shape == (2, 5)
    weights = interpret({'state_dict': network.state_dict()}, Path('a.pth'))
    assert weights.network == network.options
    with FeatureTap(network) as tap:
        network(meta_clips(name, 2))
        assert tap._taken.shape == (2, network.num_features)


@pytest.mark.parametrize('name, module, n_features', [
    ('r3d_18', 'layer3', 256), ('s3d', 'features.6', 480), ('mvit_v2_s', 'blocks.2', 192),
    ('mvit_v2_s', 'conv_proj', 96), ('swin3d_t', 'features.2', 192),
    ('swin3d_t', 'patch_embed.proj', 96)])
def test_features_of_a_module_are_its_channels(name, module, n_features):
    network = on_meta(name)
    with FeatureTap(network, module) as tap:
        network(meta_clips(name))
        assert tap._taken.shape == (2, n_features)


@pytest.mark.parametrize('name, begin', [
    ('r3d_18', 'layer4'), ('s3d', 'features.14'), ('mvit_v1_b', 'blocks.15'),
    ('swin3d_t', 'features.6'), *((name, None) for name in TORCHVISION)])
def test_freezing(name, begin):
    network = on_meta(name)
    begin = begin or list(stages(network))[-1]
    freeze(network, begin)
    trained = {part for part, module in stages(network).items()
               if any(parameter.requires_grad for parameter in module.parameters())}
    names = list(stages(network))
    assert begin in trained and trained <= set(names[names.index(begin):])
    assert network.classifier_name.startswith(names[-1])


@pytest.mark.parametrize('name, shape, said', [
    ('s3d', (13, 224, 224), 'at least 14 frames and 224 pixels, and these are of 13 frames'),
    ('s3d', (16, 112, 112), 'these are of 16 frames and 112 pixels; give a larger'),
    ('mvit_v1_b', (32, 224, 224), '16 frames of 224x224 pixels alone, and these are of 32 frames'),
    ('mvit_v2_s', (16, 112, 112), 'these are of 16 frames of 112x112; give --sample_duration 16')])
def test_sizes_that_a_network_cannot_take(name, shape, said):
    with pytest.raises(InputError, match=said):
        on_meta(name)(torch.empty(1, 3, *shape, device='meta'))


@pytest.mark.parametrize('name', ['r3d_18', 'swin3d_t'])
def test_activation_checkpointing_changes_no_gradient(name):
    torch.manual_seed(1)
    network = generate_model(name, n_classes=5)
    recomputed = copy.deepcopy(network)
    recomputed.recompute_blocks()
    clips = torch.randn(2, 3, 4, 32, 32)
    for part in (network, recomputed):
        torch.manual_seed(2)  # of stochastic depth
        F.cross_entropy(part(clips), torch.tensor([0, 3])).backward()
    for (key, parameter), again in zip(network.named_parameters(), recomputed.parameters()):
        torch.testing.assert_close(again.grad, parameter.grad, msg=key)
    for (key, buffer), again in zip(network.named_buffers(), recomputed.buffers()):
        torch.testing.assert_close(again, buffer, msg=key)


def test_every_family_is_in_the_table_of_networks():
    assert set(FAMILIES) == set(ALL)


def test_fine_tuned_resumed_and_used(tiny_data, tmp_path):
    """Swin, since ResNets are trained in many tests."""
    torch.save(original('swin3d_t', 400).state_dict(), tmp_path / 'theirs.pth')
    flags = ['--model', 'swin3d_t', '--batch_size', 3, '--no_val', '--n_epochs']
    assert run_main(tiny_data.argv(tmp_path / 'out', *flags, 1, '--pretrain_path',
                                   tmp_path / 'theirs.pth', '--ft_begin_module',
                                   'features.6')) == 0
    assert run_main(tiny_data.argv(tmp_path / 'out', *flags, 2, '--resume_path', 'auto')) == 0
    weights = read(tmp_path / 'out' / 'save_2.pth')
    assert weights.is_ours and weights.network['model'] == 'swin3d_t' and weights.epoch == 2
    first = f'{FAMILIES["swin3d_t"].kind.first}.weight'
    trained, given = (load(path)['state_dict'] for path in (
        tmp_path / 'out' / 'save_1.pth', tmp_path / 'theirs.pth'))
    assert torch.equal(trained[first], given[first])
    network, info = load_model(tmp_path / 'theirs.pth')
    assert info.has_names and info.class_names[0] == 'abseiling'
    assert network(info.normalize(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8))).shape == (
        1, 400)
