"""I3D: the recorded numbers, the clips it takes, how its head pools, how it trains."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from models.i3d import I3D, pad_same
from runtime.errors import InputError
from tests.recorded import assert_is_recorded, without_numbers


def on_meta(**options):
    with without_numbers():
        return I3D(**options)


def clips(n_frames=8, size=32, n_channels=3):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, n_channels, n_frames, size, size, generator=generator)


@pytest.mark.golden
def test_names_shapes_and_logits_are_the_recorded_ones(golden_dir):
    assert_is_recorded(on_meta(), json.loads(
        (golden_dir / 'other' / 'i3d.json').read_text()))


def test_takes_the_weights_of_flow():
    weights = on_meta(n_input_channels=2).state_dict()
    assert weights['Conv3d_1a_7x7.conv3d.weight'].shape == (64, 2, 7, 7, 7)


@pytest.mark.slow
@pytest.mark.parametrize('n_frames, height, width', [
    (8, 32, 32), (9, 33, 47), (16, 112, 112), (16, 224, 224), (17, 256, 341), (64, 224, 224)])
def test_a_feature_map_has_the_size_of_the_clip_by_8_and_32_rounded_up(n_frames, height, width):
    network = on_meta(n_classes=5)
    features = network.forward_features(
        torch.empty(2, 3, n_frames, height, width, device='meta'))
    assert features.shape == (2, 1024, -(-n_frames // 8), -(-height // 32), -(-width // 32))
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    assert network.forward_head(features).shape == (2, 5)


@pytest.mark.parametrize('n_frames, size', [(7, 32), (8, 31), (1, 224)])
def test_a_smaller_clip_is_one_sentence(n_frames, size):
    with pytest.raises(InputError, match=f'at least 8 frames and 32 pixels.* of {n_frames} frames '
                                         f'and {size} pixels; give a larger --sample_duration'):
        on_meta()(torch.empty(1, 3, n_frames, size, size, device='meta'))


def test_the_head_averages_windows_of_two_frames_and_7x7_of_a_large_map_alone():
    network = on_meta()
    features = torch.randn(2, 1024, 3, 7, 7)
    by_frame = features.mean(dim=(3, 4))
    windows = (by_frame[:, :, 0] + 2 * by_frame[:, :, 1] + by_frame[:, :, 2]) / 4
    torch.testing.assert_close(network.forward_head(features, pre_logits=True), windows)
    torch.testing.assert_close(network.forward_head(features[:, :, :1], pre_logits=True),
                               by_frame[:, :, 0])
    small = features[..., :6]
    torch.testing.assert_close(network.forward_head(small, pre_logits=True),
                               small.mean(dim=(2, 3, 4)))


@pytest.mark.parametrize('size, kernel, stride, padding', [
    (224, 7, 2, (2, 3)), (223, 7, 2, (3, 3)), (8, 3, 2, (0, 1)), (7, 3, 2, (1, 1)),
    (8, 2, 2, (0, 0)), (7, 2, 2, (0, 1)), (5, 3, 1, (1, 1)), (5, 1, 2, (0, 0))])
def test_padding_is_same(size, kernel, stride, padding):
    padded = pad_same(torch.ones(1, 1, 1, 1, size), (1, 1, kernel), (1, 1, stride)).flatten()
    assert padded.tolist() == [0.0] * padding[0] + [1.0] * size + [0.0] * padding[1]


@pytest.mark.slow
def test_every_parameter_gets_a_gradient_with_and_without_activation_checkpointing():
    torch.manual_seed(1)
    network = I3D(n_classes=5)
    recomputed = copy.deepcopy(network)
    recomputed.recompute_blocks()
    for part in (network, recomputed):
        F.cross_entropy(part(clips(16, 64)), torch.tensor([0, 3])).backward()
    for (name, parameter), again in zip(network.named_parameters(), recomputed.parameters()):
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
        torch.testing.assert_close(again.grad, parameter.grad, msg=name)
    for (name, buffer), again in zip(network.named_buffers(), recomputed.buffers()):
        torch.testing.assert_close(again, buffer, msg=name)
