"""Networks through torch.hub, from a clone."""

import subprocess
import sys

import pytest
import torch

import hubconf
from models import ARCHITECTURES, depths, generate_model
from runtime.errors import InputError
from tests.processes import ROOT, run_elsewhere
from tests.recorded import without_numbers


def hub(name, *args, **options):
    return torch.hub.load(str(ROOT), name, *args, source='local', **options)


def test_the_entries_are_the_families_and_load_model():
    entries = {name for name, value in vars(hubconf).items()  # as torch.hub.list counts them
               if callable(value) and not name.startswith('_')}
    assert entries == {*ARCHITECTURES, 'load_model'}
    assert 'family csn' in hubconf.csn.__doc__


@pytest.mark.slow
@pytest.mark.parametrize('model', ARCHITECTURES)
def test_every_family_is_made(model):
    with without_numbers():
        network = hub(model, *depths(model)[:1], n_classes=7)
    assert network.options['model'] == model
    assert network(torch.empty(2, 3, 16, 224, 224, device='meta')).shape == (2, 7)


def test_options_are_named_as_flags():
    torch.manual_seed(1)
    network = hub('resnet', model_depth=10, resnet_widen_factor=0.125, attention='se')
    torch.manual_seed(1)
    expected = generate_model('resnet', 10, resnet_widen_factor=0.125, attention='se')
    assert network.options == expected.options
    for name, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    with pytest.raises(InputError, match='resnet has no depth 11: choose one of 10, 18'):
        hub('resnet', 11)


def test_load_model_takes_a_file(tmp_path):
    network = generate_model('resnet', 10, n_classes=3, resnet_widen_factor=0.125)
    torch.save(network.state_dict(), tmp_path / 'weights.pth')
    loaded, info = hub('load_model', tmp_path / 'weights.pth', class_names=['a', 'b', 'c'])
    assert info.class_names == ('a', 'b', 'c')
    clips = torch.randn(1, 3, 8, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(clips), network.eval()(clips))


@pytest.mark.slow
def test_from_another_folder(tmp_path):
    status, said = run_elsewhere(f"""
import torch
network = torch.hub.load({str(ROOT)!r}, 'resnet', 10, n_classes=3, source='local')
print(tuple(network.eval()(torch.zeros(1, 3, 8, 32, 32)).shape))
""", tmp_path)
    assert (status, said) == (0, '(1, 3)\n')


def test_it_imports_without_torch(tmp_path):
    code = ('import sys; sys.path.insert(0, sys.argv[1]); import hubconf; '
            'sys.exit("torch" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code, str(ROOT)], cwd=tmp_path).returncode == 0
