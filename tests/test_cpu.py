"""Work-arounds for the CPU: exact in training, and not there for anything else."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import checkpoint
from model import build_network, load_model
from models.base import Conv3d
from opts import Options, build_parser
from runtime.cpu import pool_in_own_precision, train_on_cpu
from runtime.hardware import in_precision
from weights import describe

pytestmark = pytest.mark.slow

CPU = torch.device('cpu')
SMALL = ('--model_depth', '10', '--resnet_widen_factor', '0.125', '--n_classes', '3',
         '--sample_size', '32', '--sample_duration', '8')


def _options(*argv):
    return Options(**vars(build_parser().parse_args([*SMALL, *argv])), given=frozenset())


def _clips(n_frames, n=1):
    return torch.randn(n, 3, n_frames, 32, 32, generator=torch.Generator().manual_seed(n_frames))


def _leave_nan_in_freed_memory():
    for size in (1_000, 30_000, 1_000_000):
        [torch.full((size,), float('nan')) for _ in range(6)]


@pytest.mark.parametrize('make', [Conv3d, lambda *args: nn.Conv3d(
    *args, padding=tuple(size // 2 for size in args[2]))], ids=['ours', 'with bias'])
@pytest.mark.parametrize('kernel_size, stride', [((3, 3, 3), 1), ((3, 3, 3), 2), ((3, 1, 1), 1),
                                                 ((7, 7, 7), (1, 2, 2)), ((1, 7, 7), (1, 2, 2))])
@pytest.mark.parametrize('n_frames, side', [(1, 1), (1, 4), (2, 1), (2, 4), (4, 4), (8, 8)])
def test_gradients_of_clips_shorter_than_the_kernel(make, kernel_size, stride, n_frames, side):
    torch.manual_seed(0)
    layer = make(16, 16, kernel_size, stride).to(memory_format=torch.channels_last_3d)
    train_on_cpu(layer)
    clips = torch.randn(2, 16, n_frames, side, side).to(memory_format=torch.channels_last_3d)
    clips.requires_grad_()
    exact = F.conv3d(clips, layer.weight, layer.bias, layer.stride, layer.padding)
    given = torch.linspace(-1, 1, exact.numel()).view(exact.shape)
    expected = exact, *torch.autograd.grad(exact, (clips, layer.weight), given)
    for precision in (torch.float32, torch.bfloat16, torch.bfloat16):
        _leave_nan_in_freed_memory()
        with torch.autocast('cpu', torch.bfloat16, enabled=precision is torch.bfloat16):
            output = layer(clips)
        assert output.dtype is precision
        found = torch.autograd.grad(output, (clips, layer.weight), given.to(precision))
        for ours, right in zip((output, *found), expected):
            assert (ours - right).norm() < 0.02 * right.norm()


class _DoubledConv3d(nn.Conv3d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize('layer', [
    nn.Conv3d(3, 4, 3), nn.Conv3d(3, 4, 2, padding=1), nn.Conv3d(3, 4, 3, padding='same'),
    nn.Conv3d(3, 4, 3, padding=2, dilation=2), _DoubledConv3d(3, 4, 3, padding=1),
    nn.Conv3d(3, 4, 3, padding=1, padding_mode='replicate')], ids=str)
def test_other_convolutions_are_left_alone(layer):
    clips, kind = torch.randn(1, 3, 3, 3, 3), type(layer)
    expected = layer(clips)
    train_on_cpu(layer)
    assert type(layer) is kind and torch.equal(layer(clips), expected)


def test_pooling_keeps_the_precision():
    clips = torch.randn(2, 4, 4, 8, 8).bfloat16()
    layer = nn.MaxPool3d(3, stride=2, padding=1)
    pool_in_own_precision(layer)
    with torch.autocast('cpu', torch.bfloat16):
        pooled = layer(clips)
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled.float(), F.max_pool3d(clips.float(), 3, stride=2, padding=1))


# ---------------------------------------------------------------- export

@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    """A network of load_model: in evaluation mode, its weights wanting gradients."""
    path, opts = tmp_path_factory.mktemp('weights') / 'a.pth', _options()
    network = build_network(opts)
    checkpoint.save(path, {'epoch': 1, 'state_dict': network.state_dict(),
                           **describe(opts, network, ('a', 'b', 'c'))})
    return load_model(path)[0]


def _trained(network):
    """A copy after a step of training in bf16, back in evaluation mode."""
    network = copy.deepcopy(network)
    model = in_precision(network, CPU, precision='bf16').train()
    model(_clips(8, n=2)).sum().backward()
    return network.eval()


@pytest.fixture(params=['loaded', 'trained'])
def network(request, loaded):
    return loaded if request.param == 'loaded' else _trained(loaded)


def _assert_same_logits(exported, network, lengths):
    for n_frames in lengths:
        clips = _clips(n_frames, n=2)
        torch.testing.assert_close(exported(clips), network(clips), rtol=1e-4, atol=1e-5)


def test_an_exported_network_takes_clips_of_any_length(network):
    # So long that the last stage has two times or more: torch.export takes one for a constant.
    time = torch.export.Dim('time', min=17, max=64)
    program = torch.export.export(network, (_clips(32, n=2),), dynamic_shapes=({2: time},))
    _assert_same_logits(program.module(), network, (17, 32, 64))


# Newer versions of torch warn that it will go; it has to be right as long as it is there.
@pytest.mark.filterwarnings('ignore:.torch.jit.trace')
def test_a_traced_network_takes_clips_of_any_length(network):
    _assert_same_logits(torch.jit.trace(network, _clips(16)), network, (4, 8, 16, 40))


def test_copies_of_a_trained_network_are_its_like(loaded):
    """Names, weights and logits, and those of the network that was never trained on the CPU."""
    trained = _trained(loaded)
    trained.load_state_dict(loaded.state_dict())
    file = io.BytesIO()
    torch.save(trained, file)
    file.seek(0)
    for other in (trained, copy.deepcopy(trained), torch.load(file, weights_only=False)):
        assert list(other.state_dict()) == list(loaded.state_dict())
        assert torch.equal(other(_clips(8)), loaded(_clips(8)))
        other.zero_grad()
        other.train()(_clips(8, n=2)).sum().backward()
        # It is trained itself, not what it is a copy of.
        assert all(parameter.grad is not None for parameter in other.parameters())
        other.eval().load_state_dict(loaded.state_dict())
