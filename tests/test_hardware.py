"""The hardware flags: what they may change, and what they must not."""

import pytest
import torch

import models
import weights
from opts import build_parser
from runtime.hardware import InPrecision, find_memory_format
from tests.tiny_data import run_main

pytestmark = pytest.mark.slow

SMALL = {'resnet': 10, 'resnet2p1d': 10, 'preresnet': 10, 'resnext': 50, 'densenet': 121}


def _network(model, depth):
    torch.manual_seed(0)
    narrow = {} if model == 'densenet' else {'resnet_widen_factor': 0.5}
    return models.generate_model(model, depth, n_classes=5, **narrow)


def _gradients(network, clips):
    network.train()
    network(clips).square().sum().backward()
    return [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize('model', SMALL)
def test_recomputed_blocks_change_neither_gradients_nor_statistics(model):
    clips = torch.randn(2, 3, 4, 32, 32)
    plain, recomputed = (_network(model, SMALL[model]) for _ in range(2))
    recomputed.recompute_blocks()
    for ours, other in zip(_gradients(recomputed, clips), _gradients(plain, clips), strict=True):
        assert torch.equal(ours, other)
    for name, value in plain.named_buffers():
        assert torch.equal(recomputed.get_buffer(name), value), name


def test_recomputing_keeps_less():
    def kept(network):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
                lambda x: sizes.append(x.numel()) or x, lambda x: x):
            network(torch.randn(2, 3, 8, 32, 32))
        return sum(sizes)
    network = _network('resnet', 18)
    before = kept(network)
    network.recompute_blocks()
    assert kept(network) < before / 2


@pytest.mark.parametrize('precision, tolerance', [('fp32', 1e-4), ('bf16', 0.1)])
def test_precision_and_order_change_logits_by_rounding_alone(precision, tolerance):
    clips, network = torch.randn(2, 3, 8, 32, 32), _network('resnet', 18).eval()
    expected = network(clips)
    network.to(memory_format=torch.channels_last_3d)
    logits = InPrecision(network, precision, torch.channels_last_3d)(clips)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize('flags, device, expected', [
    ([], 'cpu', torch.channels_last_3d),
    ([], 'cuda', torch.contiguous_format),
    (['--tf32'], 'cuda', torch.channels_last_3d),
    (['--precision', 'bf16'], 'cuda', torch.channels_last_3d),
    (['--precision', 'bf16', '--memory_format', 'contiguous'], 'cuda', torch.contiguous_format)])
def test_memory_format(flags, device, expected):
    opts = build_parser().parse_args(flags)
    assert find_memory_format(opts.memory_format, torch.device(device), opts.precision,
                              opts.tf32) == expected


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_training_in_less_precision_learns_and_resumes(tiny_data, tmp_path, precision):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    flags = ['--precision', precision, '--grad_checkpointing', '--no_val', '--sample_duration', 4]
    assert run_main(tiny_data.argv(whole, '--n_epochs', 3, *flags)) == 0
    assert run_main(tiny_data.argv(parts, '--n_epochs', 3, *flags, '--resume_path',
                                   whole / 'save_2.pth')) == 0
    ours, other = (weights.load(folder / 'save_3.pth') for folder in (whole, parts))
    assert bool(ours['scaler']) == (precision == 'fp16') and ours['scaler'] == other['scaler']
    assert all(value.dtype != getattr(torch, {'bf16': 'bfloat16', 'fp16': 'float16'}[precision])
               for value in ours['state_dict'].values())
    losses = [float(line.split('\t')[1])
              for line in (whole / 'train.log').read_text().splitlines()[1:]]
    assert min(losses[1:]) < losses[0]
    for name, value in ours['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name]), name


def test_optimizer_state_of_other_code_is_stepped_like_ours(tiny_data, tmp_path):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 1)) == 0
    state = torch.load(tmp_path / 'save_1.pth', weights_only=True)
    del state['optimizer']['param_groups'][0]['fused'], state['scaler']
    torch.save(state, tmp_path / 'old.pth')
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 2, '--resume_path',
                                   tmp_path / 'old.pth')) == 0
    state = torch.load(tmp_path / 'save_2.pth', weights_only=True)
    assert state['optimizer']['param_groups'][0]['fused'] is True
