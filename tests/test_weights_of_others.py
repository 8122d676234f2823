"""What else is read: keys and prefixes of other projects, half precision, .safetensors."""

import pytest
import torch

from model import adopt_options
from models import generate_model
from models.class_names import kinetics_400
from opts import Options, build_parser
from runtime.errors import InputError
from tests.test_models import on_meta
from tests.test_weights import WEIGHTS, own, refused
from util_scripts import remove_dataparallel
from util_scripts.helpers.prediction import read_labels
from weights import interpret, load, write_safetensors


@pytest.mark.parametrize('key', [
    'model', 'model_state', 'model_state_dict', 'module', 'net', 'state_dict'])
@pytest.mark.parametrize('prefix', [
    '', 'module.', '_orig_mod.', 'model.', 'backbone.', 'network.', 'module._orig_mod.',
    'model.module.backbone.'])
def test_keys_and_prefixes(tmp_path, key, prefix):
    torch.save({key: {prefix + name: value for name, value in WEIGHTS.items()}, 'epoch': 4},
               tmp_path / 'a.pth')
    state = load(tmp_path / 'a.pth')
    assert state['state_dict'].keys() == WEIGHTS.keys() and state['epoch'] == 4
    assert state.get('behind_module', False) == prefix.startswith('module.')


def test_names_that_would_meet_keep_what_tells_them_apart(tmp_path):
    torch.save({'backbone.fc.weight': WEIGHTS['fc.weight'], **WEIGHTS}, tmp_path / 'a.pth')
    assert set(load(tmp_path / 'a.pth')['state_dict']) == {'backbone.fc.weight', *WEIGHTS}


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_fp32(tmp_path, dtype):
    torch.save({name: value.to(dtype) for name, value in WEIGHTS.items()}, tmp_path / 'a.pth')
    for name, value in load(tmp_path / 'a.pth')['state_dict'].items():
        assert value.dtype == torch.float32 and torch.equal(value, WEIGHTS[name])


def test_safetensors_keep_what_a_checkpoint_says(tmp_path, capsys):
    network = generate_model('resnet', 10, n_classes=2, resnet_widen_factor=0.125)
    torch.save(own(network, optimizer={'state': {0: torch.zeros(1)}}), tmp_path / 'a.pth')
    path = tmp_path / 'a.safetensors'
    remove_dataparallel.main([str(tmp_path / 'a.pth'), '--dst_file_path', str(path)])
    assert 'left out, as .safetensors hold weights: optimizer' in capsys.readouterr().out
    weights = interpret(load(path), path)
    assert weights.is_ours and weights.class_names == ('a', 'b') and weights.training is None
    assert weights.network == network.options
    assert all(torch.equal(value, network.state_dict()[name])
               for name, value in weights.state_dict.items())


def test_bare_safetensors_and_damaged_ones(tmp_path):
    path = tmp_path / 'a.safetensors'
    assert write_safetensors(path, {'state_dict': WEIGHTS}) == []
    assert load(path)['state_dict'].keys() == WEIGHTS.keys()
    assert 'cut short' in refused(path, path.read_bytes()[:50])
    assert 'no such checkpoint' in refused(tmp_path / 'gone.safetensors')


def test_files_of_2018_have_the_names_of_kinetics_400(tmp_path):
    for n_classes, names in ((400, kinetics_400()), (101, None)):
        state_dict = on_meta('resnext', 101, n_classes=n_classes).state_dict()
        weights = interpret({'state_dict': state_dict, 'behind_module': True}, tmp_path)
        assert weights.origin == 'the 2018 code' and weights.class_names == names


@pytest.mark.parametrize('text', [
    'label,youtube_id,time_start,time_end,split\nswim,b,0,10,train\nrun,a,0,10,train\n'
    'swim,c,0,10,train\n',
    'a/b.mp4,swim,3,1\nc.mp4,run,2,2\nd.mp4,swim,1,1\n'])
def test_labels_of_a_training_csv_are_in_the_order_of_appearance(tmp_path, text):
    (tmp_path / 'a.csv').write_text(text)
    assert read_labels(tmp_path / 'a.csv') == ('swim', 'run')


@pytest.mark.parametrize('text, said', [('', 'is empty'), ('a\nb\n', 'rows without a label')])
def test_a_csv_without_labels(tmp_path, text, said):
    (tmp_path / 'a.csv').write_text(text)
    with pytest.raises(InputError, match=said):
        read_labels(tmp_path / 'a.csv')


@pytest.mark.parametrize('model, depth', [
    ('resnet', 10), ('resnet', 50), ('preresnet', 18), ('resnext', 50), ('r3d_18', None)])
def test_weights_without_a_classifier_are_for_fine_tuning(tmp_path, model, depth):
    network = on_meta(model, depth, n_classes=5)
    state_dict = {name: value for name, value in network.state_dict().items()
                  if not name.startswith('fc.')}
    weights = interpret({'state_dict': state_dict}, tmp_path)
    assert weights.network == {**weights.network, 'model': model, 'n_classes': 0}
    opts = Options(**vars(build_parser().parse_args(['--n_classes', '3'])), given=frozenset())
    adopted = adopt_options(opts, weights, pretrained=True, warn=lambda line: None)
    assert adopted.model == model and adopted.n_classes == 3
    with pytest.raises(InputError, match='has no classifier; fine-tune it with --pretrain_path'):
        adopt_options(opts, weights, warn=lambda line: None)
