"""The table of networks: its figures, its page."""

import pytest
import torch
from torch import nn

from models import ARCHITECTURES, generate_model
from util_scripts import networks_table
from util_scripts.helpers.networks import (count_operations, count_training_bytes, networks_of,
                                           paper, taken_clip)

CLIP = (3, 8, 32, 32)


@pytest.mark.slow
def test_the_page(tmp_path, capsys):
    page = tmp_path / 'networks.md'
    networks_table.main(['--networks', 'resnet-10', 'x3d', '--sample_size', '32',
                         '--sample_duration', '8', '--seconds', '0.01', '--output', str(page)])
    lines = page.read_text().splitlines()
    rows = [line.strip('| ').split(' | ') for line in lines if line.startswith('|')]
    assert 'clips of 8 frames of 32x32 pixels' in ' '.join(lines)
    assert [row[0] for row in rows] == ['network', '---', 'resnet-10', 'x3d']
    assert all(len(row) == 7 for row in rows)
    assert all(float(cell) > 0 for cell in rows[2][1:5])
    assert rows[3][-1].startswith('Feichtenhofer, "X3D')
    assert capsys.readouterr().out.splitlines() == [
        *(line for line in lines if line.startswith('|')), f'written: {page}']


@pytest.mark.slow
@pytest.mark.parametrize('model, size, taken', [
    ('s3d', 112, (3, 16, 224, 224)), ('mvit_v2_s', 112, (3, 16, 224, 224)),
    ('i3d', 112, (3, 16, 112, 112)), ('i3d', 16, (3, 16, 224, 224))])
def test_networks_that_take_no_small_clips_have_large_ones(model, size, taken):
    with torch.device('meta'):
        network = generate_model(model)
    clip, said = taken_clip(network, (3, 16, size, size))
    assert clip == taken and said == (' (16x224x224)' if taken[2] != size else '')
    assert count_operations(network, clip) > 0


@pytest.mark.parametrize('names, found', [
    (['csn-50', 'i3d'], [('csn', 50), ('i3d', None)]),
    (['wideresnet'], [('wideresnet', depth) for depth in (50, 101, 152, 200)])])
def test_names_stand_for_networks(names, found):
    assert [tuple(options.values()) for options in networks_of(names)] == found
    assert {options['model'] for options in networks_of(None)} == set(ARCHITECTURES)


def test_operations_and_bytes_are_counted():
    with torch.device('meta'):
        conv = nn.Conv3d(3, 5, 3, padding=1, bias=False)
        network = nn.Sequential(conv, nn.ReLU())
    places = 8 * 32 * 32
    assert count_operations(network, CLIP) == 2 * 3 * 27 * 5 * places
    # The clips, which the convolution keeps, and the output of the ReLU.
    assert count_training_bytes(network, CLIP, 2) == 4 * (3 * 5 * 3 * 27 + 2 * (3 + 5) * places)


def test_activation_checkpointing_is_seen_in_bytes():
    with torch.device('meta'):
        networks = [generate_model('resnet', 18) for _ in range(2)]
    networks[1].recompute_blocks()
    whole, recomputed = (count_training_bytes(network, CLIP, 8) for network in networks)
    assert recomputed < whole


@pytest.mark.parametrize('model', ARCHITECTURES)
def test_every_family_names_its_paper(model):
    assert paper(model)[-4:].isdigit() and '"' in paper(model)
