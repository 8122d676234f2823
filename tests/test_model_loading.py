"""A network to use from a file of weights alone."""

import pytest
import torch

import checkpoint
from model import build_network, load_model
from opts import Options, build_parser
from weights import WeightsError, describe

SMALL = ['--model_depth', '10', '--resnet_widen_factor', '0.125', '--n_classes', '3']


def options(*argv):
    return Options(**vars(build_parser().parse_args([*SMALL, *argv])), given=frozenset())


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint of options, with what our code records or without; (path, network)."""
    def write(opts, *, is_ours=True, **more):
        network = build_network(opts)
        state = {'state_dict': network.state_dict(), **more}
        if is_ours:
            state |= {'epoch': 1, **describe(opts, network, ('run', 'swim', 'walk'))}
        checkpoint.save(tmp_path / 'a.pth', state)
        return tmp_path / 'a.pth', network.eval()
    return write


def test_a_checkpoint_tells_all(save):
    path, network = save(options('--sample_size', '32', '--sample_duration', '8', '--mean', '.1',
                                 '.2', '.3', '--no_std_norm'))
    loaded, info = load_model(path)
    assert info.class_names == ('run', 'swim', 'walk') and info.has_names
    assert (info.opts.sample_size, info.opts.sample_duration) == (32, 8)
    assert not loaded.training
    clips = torch.randint(256, (2, 3, 8, 32, 32), dtype=torch.uint8)
    by_hand = clips / 255 - torch.tensor([.1, .2, .3]).view(3, 1, 1, 1)
    torch.testing.assert_close(info.normalize(clips), by_hand)
    assert torch.equal(loaded(by_hand), network(by_hand))


def test_names_for_weights_that_have_none(save):
    path, _ = save(options(), is_ours=False)
    assert load_model(path)[1].class_names == ('0', '1', '2')
    assert not load_model(path)[1].has_names
    assert load_model(path, class_names=['a', 'b', 'c'])[1].class_names == ('a', 'b', 'c')
    with pytest.raises(WeightsError, match='3 classes, and 2 names'):
        load_model(path, class_names=['a', 'b'])


def test_names_that_contradict_the_file(save):
    path, _ = save(options())
    assert load_model(path, class_names=['run', 'swim', 'walk'])[1].has_names
    with pytest.raises(WeightsError, match='run, swim, walk'):
        load_model(path, class_names=['swim', 'run', 'walk'])


def test_weights_of_2018_get_their_preprocessing(save):
    path, _ = save(options('--resnet_shortcut', 'A'), is_ours=False)
    _, info = load_model(path)
    grey = torch.full((1, 3, 1, 1, 1), 128, dtype=torch.uint8)
    expected = 128 - torch.tensor([114.7748, 107.7354, 99.475])
    torch.testing.assert_close(info.normalize(grey).flatten(), expected)


def test_a_network_of_optical_flow(save):
    path, _ = save(options('--input_type', 'flow', '--file_type', 'hdf5'))
    network, info = load_model(path)
    assert network(info.normalize(torch.zeros(1, 2, 8, 32, 32, dtype=torch.uint8))).shape == (1, 3)
