"""Squeeze-and-excitation and non-local blocks: equal at the start, recorded, added to weights."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F

from models import ARCHITECTURES, depths, generate_model, options_of
from models.attention import NonLocal, SqueezeExcitation, is_attention
from models.identify import identify
from opts import build_parser
from runtime.errors import InputError
from tests.tiny_data import run_main
from weights import load, read

FAMILIES = [model for model in ARCHITECTURES if 'attention' in options_of(model)]
KINDS = ('se', 'nonlocal')
every_network = pytest.mark.parametrize(
    'model, attention', [(model, kind) for model in FAMILIES for kind in KINDS])


def narrow(model, attention='none'):
    torch.manual_seed(1)
    return generate_model(model, depths(model)[0], n_classes=3, resnet_widen_factor=0.125,
                          attention=attention)


def clips(size=32):
    return torch.randn(2, 3, 16, size, size, generator=torch.Generator().manual_seed(2))


def test_every_family_of_resnets_has_attention():
    assert FAMILIES == ['resnet', 'resnet2p1d', 'preresnet', 'wideresnet', 'resnext']
    choices = next(action.choices for action in build_parser()._actions
                   if action.dest == 'attention')
    for kind in choices:
        narrow('resnet', kind)
    with pytest.raises(InputError, match="no attention 'both': choose one of none, se, nonlocal"):
        narrow('resnet', 'both')


@pytest.mark.slow
@every_network
@pytest.mark.parametrize('is_training', [False, True])
def test_logits_are_those_without_it_before_training(model, attention, is_training):
    plain = narrow(model).train(is_training)
    network = narrow(model, attention).train(is_training)
    found = network.load_state_dict(plain.state_dict(), strict=False)
    assert found.missing_keys and all(map(is_attention, found.missing_keys))
    assert not found.unexpected_keys
    with torch.no_grad():
        assert torch.equal(network(clips()), plain(clips()))


@pytest.mark.slow
@every_network
def test_attention_learns_with_and_without_activation_checkpointing(model, attention):
    network = narrow(model, attention).double()
    recomputed = copy.deepcopy(network)
    recomputed.recompute_blocks()
    for part in (network, recomputed):
        steps = torch.optim.SGD(part.parameters(), 1e-4)
        for _ in range(2):  # behind a zero there is no gradient in the first
            steps.zero_grad()
            F.cross_entropy(part(clips().double()), torch.tensor([0, 2])).backward()
            steps.step()
    for (name, parameter), again in zip(network.named_parameters(), recomputed.parameters()):
        assert parameter.grad.isfinite().all(), name
        # Of the few channels in the middle of a small layer, all may be off.
        assert parameter.grad.any() or name.endswith(('fc1.weight', 'fc1.bias', 'fc2.weight')), name
        torch.testing.assert_close(again, parameter, msg=name)


@pytest.mark.parametrize('model', FAMILIES)
def test_activation_checkpointing_keeps_less(model):
    kept = []
    for is_recomputed in (False, True):
        network, sizes = narrow(model), []
        if is_recomputed:
            network.recompute_blocks()
        with torch.autograd.graph.saved_tensors_hooks(
                lambda x: sizes.append(x.numel()) or x, lambda x: x):
            network(clips()).sum()
        kept.append(sum(sizes))
    assert kept[1] < kept[0]


@every_network
def test_names_tell_the_kind(model, attention):
    assert identify(narrow(model, attention).state_dict())['attention'] == attention


@pytest.mark.parametrize('depth, blocks', [
    (10, ['layer3.0', 'layer4.0']), (18, ['layer3.1', 'layer4.1']),
    (50, ['layer3.1', 'layer3.3', 'layer3.5', 'layer4.0', 'layer4.2'])])
def test_non_local_blocks_follow_every_other_block_of_the_last_stages(depth, blocks):
    with torch.device('meta'):
        network = generate_model('resnet', depth, attention='nonlocal')
    assert [name for name, module in network.named_modules() if isinstance(module, NonLocal)] == [
        f'{block}.nonlocal' for block in blocks]


def test_squeeze_and_excitation_is_in_every_block():
    with torch.device('meta'):
        network = generate_model('resnet', 50, attention='se')
    assert sum(isinstance(module, SqueezeExcitation) for module in network.modules()) == 16
    assert network.layer1[0].se.fc1.weight.shape == (16, 256)


def test_a_non_local_block_is_the_formula_of_the_paper():
    torch.manual_seed(1)
    block = NonLocal(6).double().eval()
    x = torch.randn(2, 6, 2, 3, 4, dtype=torch.float64)
    query, key, value = (torch.einsum('oc,ncp->nop', part.weight.flatten(1), x.flatten(2))
                         for part in (block.query, block.key, block.value))
    alike = torch.einsum('nci,ncj->nij', query, key).div(3 ** 0.5).softmax(dim=2)
    mean = torch.einsum('nij,ncj->nci', alike, value).reshape(2, 3, 2, 3, 4)
    torch.testing.assert_close(block(x), x + block.norm(block.out(mean)))


@pytest.mark.parametrize('attention', KINDS)
def test_channels_last_and_bfloat16(attention):
    network = narrow('resnet', attention).eval()
    for name, parameter in network.named_parameters():
        if is_attention(name):
            torch.nn.init.normal_(parameter, std=0.1)
    x = clips()
    with torch.inference_mode():
        expected = network(x)
        network.to(memory_format=torch.channels_last_3d)
        logits = network(x.to(memory_format=torch.channels_last_3d))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = network(x)
    assert (rounded - expected).norm() < 0.1 * expected.norm()


# ---------------------------------------------------------------- through main.py

@pytest.mark.slow
@pytest.mark.parametrize('attention', KINDS)
def test_a_checkpoint_with_attention_describes_itself(attention, tiny_data, tmp_path):
    base = [*tiny_data.argv(tmp_path / 'run'), '--n_epochs', '1']
    assert run_main([*base, '--attention', attention]) == 0
    weights = read(tmp_path / 'run' / 'save_1.pth')
    assert weights.network['attention'] == attention
    assert any(map(is_attention, weights.state_dict))
    resumed = ['--n_epochs', '2', '--resume_path', 'auto']
    assert run_main([*base, *resumed]) == 0
    assert read(tmp_path / 'run' / 'save_2.pth').network['attention'] == attention
    tuned = [*tiny_data.argv(tmp_path / 'tuned'), '--n_epochs', '1', '--pretrain_path',
             tmp_path / 'run' / 'save_2.pth', '--ft_begin_module', 'fc']
    assert run_main(tuned) == 0
    before, after = (load(tmp_path / path)['state_dict']
                     for path in ('run/save_2.pth', 'tuned/save_1.pth'))
    assert all(torch.equal(after[name], before[name]) for name in filter(is_attention, before))


@pytest.mark.parametrize('attention, n_new', [('se', 16), ('nonlocal', 18)])
def test_attention_is_added_to_weights_without_it(attention, n_new, tiny_data, tmp_path, capsys):
    torch.manual_seed(1)
    released = generate_model('resnet', 10, resnet_widen_factor=0.125)
    torch.save({'state_dict': released.state_dict()}, tmp_path / 'released.pth')
    argv = [*tiny_data.argv(tmp_path / 'run'), '--n_epochs', '1', '--attention', attention,
            '--pretrain_path', tmp_path / 'released.pth']
    assert run_main(argv) == 0
    said = capsys.readouterr().err
    assert re.search(rf'has no attention: {n_new} tensors are new \(layer\d\.0\.{attention}\.',
                     said)
    assert read(tmp_path / 'run' / 'save_1.pth').network['attention'] == attention


@pytest.mark.parametrize('flags, sentence', [
    (['--attention', 'se', '--model', 'densenet', '--model_depth', '121'],
     'error: --attention se: densenet has none; drop the flag, or give a --model that is a ResNet'),
    (['--attention', 'se', '--resume_path'],
     'holds resnet-10 with attention none, and --attention se was given'),
    (['--attention', 'none', '--pretrain_path'],
     'holds resnet-10 with attention se, and --attention none was given')])
def test_attention_that_cannot_be_is_one_sentence(flags, sentence, tiny_data, tmp_path, capsys):
    kind = 'se' if 'none' in flags else 'none'
    torch.save(narrow('resnet', kind).state_dict(), tmp_path / 'weights.pth')
    argv = [*tiny_data.argv(tmp_path / 'run'), *flags]
    if flags[-1].endswith('_path'):
        argv += [tmp_path / 'weights.pth', '--no_train']
    assert run_main(argv) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
