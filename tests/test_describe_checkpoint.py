"""util_scripts.describe_checkpoint: what it prints of our files and of released ones."""

import math

import pytest
import torch
from torch import nn

import checkpoint
from model import build_network
from models import depths
from opts import parse_opts
from runtime.errors import InputError
from tests.test_advice_exported import NET, exported, write_network
from tests.test_export import needs_extras, write_checkpoint
from tests.test_models import STEMMED, on_meta
from util_scripts.describe_checkpoint import main
from util_scripts.helpers.description import network_rows, table_lines
from weights import describe, versions

CLIP = (3, 16, 112, 112)


def options(*flags):
    return parse_opts(['--video_path', 'v', '--annotation_path', 'a', '--result_path', 'r',
                       *map(str, flags)])


def facts_of(lines):
    """{title: text} of the lines before the table."""
    facts, title = {}, None
    for line in lines:
        if not line or line.startswith('stage'):
            continue
        start, _, rest = line.partition('  ')
        title = start or title
        facts[title] = f'{facts.get(title, "")} {rest.strip()}'.strip()
    return facts


def described(capsys, *argv):
    """(facts, rows of the table) that the command prints."""
    main(list(map(str, argv)))
    captured = capsys.readouterr()
    assert captured.err == ''
    lines = captured.out.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith('stage'))
    return facts_of(lines[1:begin]), [line.split('  ') for line in lines[begin:]]


@pytest.mark.slow
@pytest.mark.parametrize('model', STEMMED)
def test_rows_add_up_to_the_network(model):
    network = on_meta(model, depths(model)[0])
    rows = network_rows(network, CLIP)
    assert sum(row.n_parameters for row in rows) == sum(p.numel() for p in network.parameters())

    counted = []

    def count(module, _args, out):  # each number of the output takes one filter's multiplications
        counted.append(out[0].numel() * math.prod(module.weight.shape[1:]))
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            module.register_forward_hook(count)
    features = network.forward_features(torch.empty(1, *CLIP, device='meta'))
    network.forward_head(features)
    assert sum(row.n_multiply_adds for row in rows) == sum(counted)
    assert rows[0].name == 'stem' and rows[-1].name == network.classifier_name
    assert rows[-2].shape == features.shape[1:] and rows[-1].shape == (400,)


@pytest.mark.slow
def test_stages_of_a_resnet():
    rows = network_rows(on_meta('resnet', 50), CLIP)
    assert [(row.name, row.blocks, row.shape) for row in rows] == [
        ('stem', '', (64, 8, 28, 28)), ('layer1', '3 x Bottleneck', (256, 8, 28, 28)),
        ('layer2', '4 x Bottleneck', (512, 4, 14, 14)),
        ('layer3', '6 x Bottleneck', (1024, 2, 7, 7)),
        ('layer4', '3 x Bottleneck', (2048, 1, 4, 4)), ('fc', '', (400,))]
    assert rows[0].n_parameters == 64 * (3 * 7 * 7 * 7 + 2)
    assert rows[0].n_multiply_adds == 64 * 3 * 7 ** 3 * 16 * 56 * 56


@pytest.mark.slow
def test_stages_of_a_densenet():
    names = [row.name for row in network_rows(on_meta('densenet', 121), CLIP)]
    assert names == ['stem', 'denseblock1', 'transition1', 'denseblock2', 'transition2',
                     'denseblock3', 'transition3', 'denseblock4', 'norm5', 'classifier']


@pytest.mark.slow
@pytest.mark.parametrize('model', STEMMED)
def test_the_table_is_aligned(model):
    lines = table_lines(network_rows(on_meta(model, depths(model)[0]), CLIP))
    header, rule, *rows = lines
    assert {len(line) for line in lines} == {len(rule)} and len(rule) <= 100
    gaps = [i for i, mark in enumerate(rule) if mark == ' ']
    assert all(line[i] == ' ' for line in (header, *rows) for i in gaps)
    assert rows[-1].startswith('total ') and rows[-2] == rule


def test_a_checkpoint_of_ours(tmp_path, capsys):
    opts = options('--model', 'resnext', '--model_depth', 50, '--resnet_widen_factor', 0.125,
                   '--resnext_cardinality', 8, '--n_classes', 3, '--no_max_pool', '--sample_size',
                   64, '--sample_duration', 8, '--sample_t_stride', 2, '--value_scale', 255)
    network = build_network(opts)
    state = {'epoch': 7, 'arch': 'resnext-50', 'state_dict': network.state_dict(),
             'optimizer': {'state': {}, 'param_groups': []}, 'scheduler': {},
             'position': {'epoch': 8, 'batch': 2, 'sums': {}},
             **describe(opts, network, ['röd', 'grön', 'blå'])}
    checkpoint.save(tmp_path / 'save_7.pth', state)
    facts, rows = described(capsys, tmp_path / 'save_7.pth')
    for library, version in versions().items():
        assert f'{library} {version}' in facts['written by']
    assert 'this code, format 1' in facts['written by']
    assert facts['epoch'] == '7' and facts['arch'] == 'resnext-50'
    assert facts['network'] == (
        '--model resnext --model_depth 50 --input_type rgb --conv1_t_size 7 --conv1_t_stride 1 '
        '--no_max_pool --resnet_shortcut B --resnet_widen_factor 0.125 --attention none '
        '--resnext_cardinality 8')
    assert facts['classes'] == '3: röd, grön, blå'
    assert facts['clip'] == '8 frames (one of 2) of 64 x 64 pixels'
    assert facts['preprocessing'].startswith('0...255, mean 110.7975 103.3005 96.2625, std 70.584')
    assert 'inside epoch 8' in facts['training state']
    stem, = [row for row in rows if row[0].strip() == 'stem']
    assert '8 x 8 x 32 x 32' in [cell.strip() for cell in stem]


def test_weights_of_2018(tmp_path, capsys):
    network = build_network(options('--model', 'preresnet', '--resnet_widen_factor', 0.125))
    torch.save({'epoch': 200, 'arch': 'preresnet-18', 'state_dict': {
        f'module.{name}': value.half() for name, value in network.state_dict().items()}},
        tmp_path / 'a.pth')
    facts, _ = described(capsys, tmp_path / 'a.pth', '--sample_size', 80)
    assert facts['written by'] == 'the 2018 code, by its names and its network'
    assert 'conv1_t_stride and no_max_pool leave no trace' in facts['network']
    assert '--value_scale 255 --mean 114.7748 107.7354 99.475 --no_std_norm' in facts[
        'preprocessing']
    assert facts['classes'].startswith('400: abseiling, air drumming')
    assert 'float16, saved from DataParallel' in facts['weights']
    assert 'not recorded' in facts['clip'] and '80 x 80' in facts['clip']


@pytest.mark.slow
def test_bare_weights_and_flags_for_what_they_do_not_show(tmp_path, capsys):
    network = build_network(options('--model', 'densenet', '--model_depth', 121, '--input_type',
                                    'flow', '--file_type', 'hdf5'))
    torch.save(network.state_dict(), tmp_path / 'a.pth')
    flags = ['--no_max_pool', '--conv1_t_stride', 2, '--sample_size', 64, '--sample_duration', 32]
    facts, rows = described(capsys, tmp_path / 'a.pth', *flags)
    assert facts['epoch'] == facts['arch'] == 'not recorded'
    assert 'the 2020 code or another' in facts['written by']
    assert '--input_type flow' in facts['network'] and '--no_max_pool' in facts['network']
    assert any('64 x 16 x 32 x 32' in cell for cell in rows[2])


def test_many_classes_are_cut(tmp_path, capsys):
    opts = options('--resnet_widen_factor', 0.125, '--n_classes', 101)
    names = [f'class {i}' for i in range(101)]
    network = build_network(opts)
    checkpoint.save(tmp_path / 'a.pth', {'state_dict': network.state_dict(),
                                         **describe(opts, network, names)})
    facts, _ = described(capsys, tmp_path / 'a.pth')
    assert facts['classes'].startswith('101: class 0, ') and facts['classes'].endswith(
        'class 7, ... class 100')


def test_tensors_that_do_not_fit(tmp_path):
    weights = build_network(options('--resnet_widen_factor', 0.125)).state_dict()
    del weights['layer3.0.conv1.weight']
    torch.save(weights, tmp_path / 'a.pth')
    with pytest.raises(InputError, match=r'1 missing \(layer3.0.conv1.weight 32x16x3x3x3\)'):
        main([str(tmp_path / 'a.pth')])


@needs_extras
def test_an_exported_network(tmp_path, capsys):
    source = write_checkpoint(tmp_path / 'a.pth', **NET)
    write_network(tmp_path / 'a.onnx', exported(source).record)
    (facts, rows), (_, others) = (described(capsys, path) for path in (tmp_path / 'a.onnx', source))
    assert facts['weights'].startswith('exported in fp32; takes float32, normalised, gives logits')
    assert facts['classes'].startswith('3: class 0') and 'run alone' in facts['training state']
    assert rows == others
