"""What else is read: keys and prefixes of other projects, half precision, .safetensors."""

import json

import pytest
import torch

from model import adopt_options
from models import ARCHITECTURES, depths, generate_model
from models.class_names import kinetics_400
from opts import Options, build_parser
from runtime.errors import InputError
from tests.test_models import on_meta
from tests.test_weights import WEIGHTS, own, refused
from tests.tiny_data import run_main
from util_scripts import describe_checkpoint, remove_dataparallel
from util_scripts.helpers.prediction import read_labels
from weights import interpret, load, read, write_safetensors


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


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_the_type_that_a_file_has_is_said(tmp_path, capsys, dtype):
    network = generate_model('resnet', 10, n_classes=2, resnet_widen_factor=0.125)
    torch.save({name: value.to(dtype) if value.is_floating_point() else value
                for name, value in network.state_dict().items()}, tmp_path / 'a.pth')
    name = str(dtype).removeprefix('torch.')
    weights = read(tmp_path / 'a.pth')
    assert weights.stored_types == (name,)
    assert weights.state_dict['fc.weight'].dtype == torch.float32
    describe_checkpoint.main([str(tmp_path / 'a.pth')])
    assert f'numbers, {name}\n' in capsys.readouterr().out


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
    'Label;YouTube_ID\n"swim";b\nrun ;a\nswim;c\n',
    'a/b.mp4,swim,3,1\nc.mp4,run,2,2\nd.mp4,swim,1,1\n'])
def test_labels_of_a_training_csv_are_in_the_order_of_appearance(tmp_path, text):
    (tmp_path / 'a.csv').write_text(text)
    assert read_labels(tmp_path / 'a.csv') == ('swim', 'run')


@pytest.mark.parametrize('text, said', [('', 'is empty'), ('a\nb\n', 'rows without a label')])
def test_a_csv_without_labels(tmp_path, text, said):
    (tmp_path / 'a.csv').write_text(text)
    with pytest.raises(InputError, match=said):
        read_labels(tmp_path / 'a.csv')


@pytest.mark.slow
@pytest.mark.parametrize('model', ARCHITECTURES)
def test_weights_without_a_classifier_are_for_fine_tuning(tmp_path, model):
    network = on_meta(model, max(depths(model)[:2], default=None), n_classes=5)
    state_dict = {name: value for name, value in network.state_dict().items()
                  if not name.startswith(f'{network.classifier_name}.')}
    weights = interpret({'state_dict': state_dict}, tmp_path)
    assert weights.network == {**weights.network, 'model': model, 'n_classes': 0}
    opts = Options(**vars(build_parser().parse_args(['--n_classes', '3'])), given=frozenset())
    adopted = adopt_options(opts, weights, pretrained=True, warn=lambda line: None)
    assert adopted.model == model and adopted.n_classes == 3
    with pytest.raises(InputError, match='has no classifier; fine-tune it with --pretrain_path'):
        adopt_options(opts, weights, warn=lambda line: None)


# ---------------------------------------------------------------- --keep_classifier

def permuted(data, labels):
    """The annotation of the data with its labels in another order, or others."""
    annotation = {**data.read(), 'labels': labels}
    (data.root / 'other.json').write_text(json.dumps(annotation))
    return ['--annotation_path', 'other.json']


def test_a_kept_classifier_has_its_rows_in_the_order_of_the_annotation(data, tmp_path, capsys):
    order = ['green', 'blue', 'red']
    command = data.argv(tmp_path, *permuted(data, order), '--no_val', '--n_epochs', 1,
                        '--learning_rate', 1e-30, '--weight_decay', 0, '--keep_classifier')
    assert run_main([*command, '--pretrain_path', 'save_1.pth']) == 0
    assert 'its classifier is kept, of 3 classes' in capsys.readouterr().err
    old = torch.load(data.root / 'save_1.pth', weights_only=True)
    new = torch.load(tmp_path / 'save_1.pth', weights_only=True)
    assert old['class_names'] == ['red', 'green', 'blue'] and new['class_names'] == order
    for name in ('fc.weight', 'fc.bias'):
        assert torch.equal(new['state_dict'][name], old['state_dict'][name][[1, 2, 0]])
    # The same command goes on: the classifier is then the checkpoint's in any case.
    assert run_main([*command, '--pretrain_path', 'save_1.pth', '--resume_path', 'auto']) == 0


@pytest.mark.parametrize('labels, said', [
    (['red', 'green', 'black'], 'only the file has blue, only the annotation has black'),
    (['red', 'green', 'blue', 'black'], 'only the file has none, only the annotation has black')])
def test_a_classifier_of_other_classes_is_not_kept(data, tmp_path, capsys, labels, said):
    annotation = data.read()
    for name, entry in annotation['database'].items():
        if 'black' in labels and name.startswith('blue') and 'blue' not in labels:
            entry['annotations']['label'] = 'black'
            entry['video_path'] = f'blue/{name}'
    (data.root / 'other.json').write_text(json.dumps({**annotation, 'labels': labels}))
    command = data.argv(tmp_path / 'r', '--annotation_path', 'other.json', '--n_epochs', 1,
                        '--no_val', '--n_classes', len(labels), '--pretrain_path', 'save_1.pth')
    assert run_main([*command, '--keep_classifier']) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and 'or drop --keep_classifier' in error
    assert not (tmp_path / 'r').exists()
    assert run_main(command) == 0


@pytest.mark.parametrize('gone, said', [
    ('fc.weight', 'has no classifier; drop --keep_classifier'),
    ('class_names', 'has no class names to compare; drop --keep_classifier')])
def test_no_classifier_to_keep(data, tmp_path, capsys, gone, said):
    file = torch.load(data.root / 'save_1.pth', weights_only=True)
    state_dict = {name: value for name, value in file['state_dict'].items()
                  if gone != 'fc.weight' or not name.startswith('fc.')}
    torch.save(state_dict, data.root / 'bare.pth')
    command = data.argv(tmp_path / 'r', '--n_epochs', 1, '--no_val', '--pretrain_path', 'bare.pth')
    assert run_main([*command, '--keep_classifier']) == 2
    assert said in capsys.readouterr().err
    assert run_main(command) == 0
    assert ('has no classifier: 2 tensors are new (fc.weight, fc.bias)'
            in capsys.readouterr().err) == (gone == 'fc.weight')
