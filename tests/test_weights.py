"""Weights files: those that are none or hostile, what ours record, families that are new."""

import io
import json
import os
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import checkpoint
from model import load_model
from models import ARCHITECTURES, generate_model, released
from models.base import Classifier, add_steps, conv_bn, keyword_options
from models.resnet import BasicBlock, Bottleneck, ResNet
from opts import Options, build_parser
from tests.test_models import on_meta
from tests.tiny_data import run_main
from util_scripts import describe_checkpoint, predict
from weights import FORMAT_VERSION, CheckpointError, WeightsError, describe, interpret, load, read

WEIGHTS = {'fc.weight': torch.arange(6.).reshape(2, 3), 'fc.bias': torch.zeros(2)}


def refused(path, content=None):
    """The sentence with which a file is refused; content is what torch.save writes, or bytes."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f'{path}: ') and '\n' not in message and '; ' in message
    return message


# ---------------------------------------------------------------- what is written is read

@pytest.mark.parametrize('prefix', ['', 'module.', 'module.module.'])
@pytest.mark.parametrize('is_bare', [False, True])
@pytest.mark.parametrize('is_zip', [False, True])
def test_both_forms_and_formats_with_and_without_prefix(tmp_path, prefix, is_bare, is_zip):
    weights = {prefix + name: value for name, value in WEIGHTS.items()}
    torch.save(weights if is_bare else {'epoch': 3, 'state_dict': weights}, tmp_path / 'a.pth',
               _use_new_zipfile_serialization=is_zip)
    state = load(tmp_path / 'a.pth')
    assert state['state_dict'].keys() == WEIGHTS.keys()
    assert all(torch.equal(state['state_dict'][name], WEIGHTS[name]) for name in WEIGHTS)
    assert state.get('behind_module', False) == bool(prefix)
    assert state.get('epoch') == (None if is_bare else 3)


def test_that_names_were_behind_module_outlasts_another_save(tmp_path):
    torch.save({f'module.{name}': value for name, value in WEIGHTS.items()}, tmp_path / 'a.pth')
    checkpoint.save(tmp_path / 'b.pth', load(tmp_path / 'a.pth'))
    assert load(tmp_path / 'b.pth')['behind_module']


# ---------------------------------------------------------------- hostile files

class Evil:
    """Its pickle makes a folder when it is read by a careless program."""

    def __init__(self, call=os.mkdir, argument='evil-was-here'):
        self.call, self.argument = call, argument

    def __reduce__(self):
        return self.call, (self.argument,)


CODE = "__import__('os').mkdir('evil-was-here')"
HOSTILE = {
    'whole': Evil(), 'eval': Evil(eval, CODE), 'exec': Evil(exec, CODE),
    'system': Evil(os.system, 'mkdir evil-was-here'), 'weights': {'state_dict': Evil()},
    'one weight': {'state_dict': {**WEIGHTS, 'conv1.weight': Evil()}},
    'name of a weight': {'state_dict': {**WEIGHTS, (1, Evil()): WEIGHTS['fc.bias']}},
    'optimizer': {'state_dict': WEIGHTS, 'optimizer': Evil()},
    'nested': {'state_dict': WEIGHTS, 'scheduler': {'a': [({'b': Evil()},)]}},
    'a module': torch.nn.Linear(2, 2),
}
WRITERS = {
    'zip': torch.save,
    'legacy': lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    'pickle 0': lambda content, path: path.write_bytes(pickle.dumps(content, 0)),
    'pickle 2': lambda content, path: path.write_bytes(pickle.dumps(content, 2)),
    'pickle 5': lambda content, path: path.write_bytes(pickle.dumps(content, 5)),
}


@pytest.mark.parametrize('name', HOSTILE)
@pytest.mark.parametrize('form', WRITERS)
def test_a_hostile_pickle_does_nothing(tmp_path, monkeypatch, name, form):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'evil.pth'
    WRITERS[form](HOSTILE[name], path)
    message = refused(path)
    assert form not in ('zip', 'legacy') or 'run code from the file' in message
    assert os.listdir(tmp_path) == ['evil.pth']


def test_hostile_files_of_the_oldest_form_do_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open('evil.pth', 'w') as archive:
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            content = pickle.dumps(Evil())
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert '.tar form' in refused(tmp_path / 'evil.pth')
    assert os.listdir(tmp_path) == ['evil.pth']


def test_what_a_file_wants_to_run_is_named(tmp_path):
    message = refused(tmp_path / 'a.pth', {'state_dict': WEIGHTS, 'best': np.float64(0.5)})
    assert 'run code from the file (numpy.' in message
    torch.save({'state_dict': WEIGHTS}, tmp_path / 'b.pth')
    with zipfile.ZipFile(tmp_path / 'b.pth', 'a') as archive:
        archive.writestr('b/constants.pkl', b'')  # the mark of compiled programs
    assert 'TorchScript form' in refused(tmp_path / 'b.pth')


# ---------------------------------------------------------------- files that are no checkpoint

@pytest.mark.parametrize('content, message', [
    ('a text', 'holds a str'), ([1, 2], 'holds a list'), ({}, 'no state_dict of weights'),
    ({'epoch': 3}, 'no state_dict of weights'), ({'state_dict': {}}, 'no state_dict of weights'),
    ({'state_dict': [WEIGHTS['fc.bias']]}, 'no state_dict of weights'),
    ({'state_dict': {**WEIGHTS, 'epoch': 3}}, "'epoch' in its state_dict is of type int"),
    ({'state_dict': {**WEIGHTS, 7: WEIGHTS['fc.bias']}}, '7 in its state_dict'),
    ({**WEIGHTS, 'name': 'resnet'}, "'name' in its state_dict is of type str"),
])
def test_what_holds_no_weights(tmp_path, content, message):
    assert message in refused(tmp_path / 'a.pth', content)


@pytest.mark.parametrize('is_zip', [False, True])
def test_a_file_that_is_cut_short(tmp_path, is_zip):
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': {'a': torch.zeros(5000)}}, path,
               _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for n_bytes in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1):
        assert 'cut short' in refused(path, whole[:n_bytes]), n_bytes


def test_a_folder_and_a_missing_file(tmp_path):
    assert 'directory' in refused(tmp_path)
    assert 'no such checkpoint' in refused(tmp_path / 'gone.pth')
    assert 'no such checkpoint' in refused(tmp_path / 'gone' / 'a.pth')


@pytest.mark.parametrize('version', [FORMAT_VERSION + 1, 'new'])
def test_a_format_of_the_future(tmp_path, version):
    message = refused(tmp_path / 'a.pth', {'state_dict': WEIGHTS, 'format_version': version})
    assert f'is of format {version}, and this code reads formats up to 1; update' in message


# ---------------------------------------------------------------- what our checkpoints record

def own(network, **changes):
    """What is in one of our checkpoints of a network."""
    opts = Options(**vars(build_parser().parse_args([])), given=frozenset())
    return {'epoch': 3, 'state_dict': network.state_dict(), **describe(opts, network, ['a', 'b']),
            **changes}


def test_our_checkpoints_are_taken_at_their_word():
    network = on_meta('resnext', 50, n_classes=2, resnext_cardinality=4, no_max_pool=True)
    weights = interpret(own(network), Path('a.pth'))
    assert weights.is_ours and weights.origin == 'this code' and weights.training is None
    assert weights.network == network.options and weights.network_name == 'resnext-50'
    assert weights.class_names == ('a', 'b') and weights.epoch == 3
    assert 'wide_resnet_k' not in weights.network


def test_a_flag_that_a_record_lacks_has_its_default():
    file = own(on_meta('resnet', 18))
    del file['network_options']['resnet_shortcut']
    assert interpret(file, Path('a.pth')).network['resnet_shortcut'] == 'B'


def test_a_record_of_a_family_that_is_not_here():
    file = own(on_meta('resnet', 18))
    file['network_options']['model'] = 'alexnet'
    with pytest.raises(WeightsError, match="^a.pth: no model 'alexnet': choose one of resnet"):
        interpret(file, Path('a.pth'))


@pytest.mark.parametrize('model, options', [
    ('wideresnet', {'wide_resnet_k': 2, 'stem_planes': 128}), ('wideresnet', {}),
    ('resnext', {'stem_planes': 128}), ('resnext', {'resnet_widen_factor': 0.5}),
    ('resnext', {'resnet_widen_factor': 0.5, 'stem_planes': 128})])
def test_records_from_before_the_width_of_stems_was_one_of_their_entries(model, options):
    """They named all flags, also those of other families."""
    network = on_meta(model, 50, **options)
    file = own(network)
    del file['network_options']['stem_planes']
    file['network_options'] |= {'resnext_cardinality': 32, 'wide_resnet_k': 2}
    assert interpret(file, Path('a.pth')).network == network.options


# ---------------------------------------------------------------- a family that is new

class Pooled(Classifier):
    """A network like no other: one convolution, no depth, a classifier further in."""

    classifier_name = 'head.out'

    def __init__(self, *, n_classes, n_input_channels, conv1_t_size=7):
        super().__init__()
        self.steps = add_steps(self, conv_bn(1, n_input_channels, 4, (conv1_t_size, 3, 3), 4))
        self.num_features = 4
        self.head = torch.nn.ModuleDict({'out': torch.nn.Linear(4, n_classes)})

    def forward_features(self, x):
        return self.bn1(self.conv1(x))

    def forward_head(self, features, pre_logits=False):
        pooled = features.mean(dim=(2, 3, 4))
        return pooled if pre_logits else self.head['out'](pooled)


class Attending(BasicBlock):
    """A ResNet's block whose channels are weighted: its tensors are those of a ResNet, and more."""

    def __init__(self, in_planes, planes, stride, **options):
        super().__init__(in_planes, planes, stride, **options)
        self.attention = torch.nn.Linear(planes, planes)

    def forward(self, x):
        out = super().forward(x)
        return out * self.attention(out.mean((2, 3, 4))).sigmoid()[..., None, None, None]


def separated(in_planes, planes, stride, **options):
    """A block that sees each channel by itself: its tensors are those of a ResNeXt."""
    return Bottleneck(in_planes, planes, stride, groups=planes, **options)


FAMILIES = {
    'pooled': SimpleNamespace(generate_model=Pooled, OPTIONS=keyword_options(Pooled)),
    'attending': SimpleNamespace(
        generate_model=lambda depth, **options: ResNet(Attending, (1, 1, 1, 1), **options),
        OPTIONS=keyword_options(ResNet), LAYERS={10: (1, 1, 1, 1)}),
    'separated': SimpleNamespace(
        generate_model=lambda depth, **options: ResNet(separated, (3, 4, 6, 3), **options),
        OPTIONS=keyword_options(ResNet), LAYERS={50: (3, 4, 6, 3)}),
}


@pytest.mark.slow
@pytest.mark.parametrize('model', FAMILIES)
def test_a_new_family_is_its_module_and_one_row(model, tiny_data, tmp_path, monkeypatch, capsys):
    """It is trained, resumed, evaluated, fine-tuned, described and predicted with."""
    monkeypatch.setitem(ARCHITECTURES, model, f'models.{model}')
    monkeypatch.setitem(sys.modules, f'models.{model}', FAMILIES[model])
    depth = '50' if model == 'separated' else '10'
    flags = ['--model', model, '--model_depth', depth, '--n_epochs']
    assert run_main(tiny_data.argv(tmp_path, *flags, 1)) == 0
    assert run_main(tiny_data.argv(tmp_path, *flags, 2, '--resume_path', 'auto')) == 0
    path = tmp_path / 'save_2.pth'
    assert load(path)['epoch'] == 2

    weights = read(path)
    assert weights.network['model'] == model and weights.is_ours
    assert weights.arch == weights.network_name == {
        'pooled': 'pooled', 'attending': 'attending-10', 'separated': 'separated-50'}[model]
    capsys.readouterr()
    assert run_main(argv_of_data(tiny_data, tmp_path / 'evaluated', '--resume_path', path,
                                 '--no_train')) == 0
    assert 'is called' not in capsys.readouterr().err
    before, after = (list(map(float, (folder / 'val.log').read_text().split('\n')[-2].split()))
                     for folder in (tmp_path, tmp_path / 'evaluated'))
    assert before == pytest.approx(after)
    assert run_main(argv_of_data(tiny_data, tmp_path / 'tuned', '--pretrain_path', path,
                                 '--n_epochs', 1, '--no_val', '--n_classes', 3)) == 0

    describe_checkpoint.main([str(path)])
    assert f'--model {model}' in capsys.readouterr().out
    folder = tiny_data.root / 'jpg' / 'red' / 'red_4'
    assert predict.main([str(folder), '--weights', str(path), '--no_cuda', '--json',
                         str(tmp_path / 'predicted.json')]) == 0
    predicted = json.loads((tmp_path / 'predicted.json').read_text())
    assert not predicted['failed'] and list(predicted['results']) == [str(folder)]


# ---------------------------------------------------------------- a project that is new

def test_weights_of_a_new_project_are_one_row(tiny_data, tmp_path, monkeypatch, capsys):
    """Its names, its preprocessing and its class names are taken by main.py and by load_model."""
    monkeypatch.setattr(released, 'KINDS', (released.Kind(
        'a lab', lambda state_dict, file: 'body.conv1.weight' in state_dict,
        rename=lambda state_dict: {name.removeprefix('body.'): value
                                   for name, value in state_dict.items()},
        preprocessing={'mean': [.5] * 3, 'std': [.25] * 3, 'sample_size': 32,
                       'sample_duration': 8},
        class_names=lambda n_classes: ('blue', 'green', 'red'), key='model_state'),
        *released.KINDS))
    network = generate_model('resnet', 10, n_classes=3, resnet_widen_factor=0.125)
    path = tmp_path / 'lab.pyth'
    torch.save({'epoch': 7, 'model_state': {f'module.body.{name}': value for name, value
                                            in network.state_dict().items()}}, path)
    assert run_main(argv_of_data(tiny_data, tmp_path / 'used', '--resume_path', path, '--no_train',
                                 '--no_val', '--inference')) == 0
    said = capsys.readouterr().err
    assert 'sample_size 32' in said and 'mean 0.5 0.5 0.5' in said
    assert 'holds no class names' not in said
    loaded, info = load_model(path)
    assert info.class_names == ('blue', 'green', 'red') and info.opts.sample_duration == 8
    assert info.normalize(torch.zeros(1, 3, 1, 1, 1, dtype=torch.uint8)).unique() == -2
    assert torch.equal(loaded.fc.weight, network.fc.weight)
    describe_checkpoint.main([str(path)])
    shown = capsys.readouterr().out
    assert 'a lab, by its names and its network' in shown
    assert '8 frames of 32 x 32 pixels' in shown and '--mean 0.5 0.5 0.5' in shown
    assert read(path).behind_module


def argv_of_data(data, result_path, *more):
    """A command line of main.py without a flag of the network."""
    return ['--root_path', data.root, '--video_path', 'jpg', '--annotation_path', 'annotation.json',
            '--result_path', result_path, '--dataset', 'ucf101', '--n_threads', 0, '--no_cuda',
            '--batch_size', 6, *more]
