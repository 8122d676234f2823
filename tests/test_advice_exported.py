"""The cures that errors about exported networks give: followed literally, they get further.

The file is made by hand, which takes no time: an average over all places gives the classes.
"""

import json
import sys
from argparse import Namespace

import pytest
import torch

from model import load_model
from opts import parse_opts
from runtime.exporting import compiled_network, program_of, write_program
from tests.helpers import grey_frames, run_script, write_video
from tests.test_advice_files import sentence
from tests.test_export import needs_extras, write_checkpoint
from tests.tiny_data import CLASSES, run_main
from util_scripts.export import parse
from util_scripts.helpers.exports import check, load, named_at_last
from util_scripts.helpers.int8 import FLOAT, INT8, Data, check_drop

NET = {'n_frames': 4, 'model': 'resnet', 'model_depth': 10, 'resnet_widen_factor': 0.125}


def exported(source, *flags):
    """What `export` makes of a checkpoint, before it is written."""
    return load(parse([str(source), str(source.with_name('o.onnx')), *flags])[0])


def write_network(path, record, opset=18, taken='clips', sizes=(4, 32, 32)):
    """An ONNX file of three classes, with a record, or with none."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    clips, scores = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
                     for name, shape in ((taken, ['N', 3, *sizes]), ('logits', ['N', 3])))
    nodes = [onnx.helper.make_node('Add', [taken, 'zeros'], ['sums']),
             onnx.helper.make_node('GlobalAveragePool', ['sums'], ['means']),
             onnx.helper.make_node('Flatten', ['means'], ['logits'])]
    zeros = onnx.helper.make_tensor('zeros', onnx.TensorProto.FLOAT, [32, 32], bytes(4096), True)
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, 'net', [clips], [scores], [zeros]),
                                   opset_imports=[onnx.helper.make_opsetid('', opset)],
                                   ir_version=10)
    if record is not None:
        onnx.helper.set_model_props(model, {'checkpoint': json.dumps(record)})
    onnx.save(model, path)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """(a checkpoint, the file that might be its export)"""
    source = write_checkpoint(tmp_path_factory.mktemp('exported') / 'net.pth', **NET)
    write_network(source.with_suffix('.onnx'), {**exported(source).record, 'class_names': CLASSES})
    return source, source.with_suffix('.onnx')


# Flags of main.py, words of the error, and the flags that it asks for.
FLAGS = {
    'trained': ('--resume_path FILE', 'is an exported network, which is not trained; give',
                '--resume_path FILE --no_train'),
    'start': ('--pretrain_path FILE --no_train', 'needs the layers of the checkpoint it was made',
              '--pretrain_path SOURCE --no_train'),
    'classes': ('--resume_path FILE --no_train --n_classes 2',
                'for those classes fine-tune the checkpoint it was made of with --pretrain_path',
                '--pretrain_path SOURCE --no_train'),
    'precision': ('--resume_path FILE --no_train --precision bf16',
                  'runs in the precision that it was exported in, and',
                  '--resume_path FILE --no_train'),
    'size': ('--resume_path FILE --no_train --sample_duration 8',
             '--dynamic_size, or give --sample_duration or --sample_size of the file',
             '--resume_path FILE --no_train --sample_duration 4')}


@needs_extras
@pytest.mark.parametrize('name', FLAGS)
def test_flags(tiny_data, files, tmp_path, capsys, name):
    fails, words, follows = FLAGS[name]
    argv = tiny_data.argv(tmp_path)
    at = argv.index('--sample_duration')
    for flags, status in ((fails, 2), (follows, 0)):
        flags = flags.replace('FILE', str(files[1])).replace('SOURCE', str(files[0]))
        assert run_main([*argv[:at], *argv[at + 2:], *flags.split()]) == status
        assert (words in capsys.readouterr().err) == (status == 2)


@needs_extras
def test_files(files, tmp_path):
    source, file = files
    record, path = exported(source).record, tmp_path / 'a.onnx'
    later = {**record, 'exported': {**record['exported'], 'version': 99}}
    for make, words in (
            (lambda: None, 'cannot be read (No such file or directory); check the path'),
            (lambda: path.write_bytes(b'cut'), 'not an exported network, or one that is cut short'),
            (lambda: write_network(path, None), 'does not say how its clips are prepared'),
            (lambda: write_network(path, later), 'update the code, or export the checkpoint again'),
            (lambda: write_network(path, {**record, 'format_version': 99}), 'is of format 99'),
            (lambda: write_network(path, {**record, 'class_names': ['a']}),
             'names 1 classes, and its network has 3; give an unchanged file'),
            (lambda: write_network(path, {**record, 'class_names': None, 'network_options': {
                **record['network_options'], 'n_classes': 2}}),
             'and says that its classes are 2; export the checkpoint again'),
            (lambda: write_network(path, record, opset=99), 'or too new for what runs it (ONNX R'),
            (lambda: write_network(path, record, taken='x'), '(takes x, not clips); export the'),
            (lambda: write_network(path, record), '')):
        make()
        assert words in (said := sentence(load_model, path)) and bool(words) == bool(said)


@needs_extras
@pytest.mark.parametrize('backend', ['auto', 'openvino'])
def test_clips_that_a_free_size_does_not_hold_for(files, tmp_path, backend):
    write_network(tmp_path / 'a.onnx', exported(files[0]).record, sizes=('T', 'H', 'W'))
    network, _ = load_model(tmp_path / 'a.onnx', backend=backend)
    assert 'give more frames or pixels, or export the checkpoint without' in sentence(
        network, torch.zeros(2, 3, 4, 16, 16))
    assert sentence(network, torch.zeros(2, 3, 4, 32, 32)) == ''


@needs_extras
def test_an_ir_without_its_weights(tmp_path):
    (tmp_path / 'a.xml').write_text('<net name="a">')
    assert 'lacks its .bin, which holds the weights; copy that' in sentence(
        load_model, tmp_path / 'a.xml')
    (tmp_path / 'a.bin').touch()
    assert 'or one that is cut short' in sentence(load_model, tmp_path / 'a.xml')


@needs_extras
@pytest.mark.slow
def test_what_an_exported_network_cannot(files, tmp_path):
    source, file = files
    video = write_video(tmp_path / 'a.mp4', grey_frames([40, 50, 60, 70]))
    argv = [video, '--output', tmp_path / 'o', '--no_cuda', '--weights']
    words = 'is an exported network, which has no derivatives; give the checkpoint'
    assert words in run_script('gradcam', *argv, file).stderr
    assert run_script('gradcam', *argv, source).returncode == 0
    clips = torch.zeros(1, 3, 4, 32, 32)
    assert 'gives no features; give the checkpoint that it was made of' in sentence(
        load_model(file)[0].forward_features, clips)
    assert sentence(load_model(source)[0].forward_features, clips) == ''


class Mean(torch.nn.Module):
    """A network of as many classes as channels, or one that no program can be made of."""

    def __init__(self, asks=False):
        super().__init__()
        self.asks = asks

    def forward(self, clips):
        means = clips.mean(dim=(2, 3, 4))
        return means if not self.asks or means.sum() > 0 else -means


@needs_extras
@pytest.mark.slow
def test_programs(files, tmp_path):
    clips = torch.zeros(2, 3, 4, 32, 32)
    assert '; write .safetensors, which hold weights alone' in sentence(
        program_of, Mean(asks=True), clips)
    assert 'network takes clips of one size alone: its program' in sentence(
        program_of, Mean(asks=True), clips, (2,))
    path = tmp_path / 'a.pt2'
    write_program(path, program_of(Mean(), clips, (2,)), exported(files[0]).record)
    assert 'OpenVINO does not read .pt2; export the checkpoint to .xml, or drop --ba' in sentence(
        lambda: load_model(path, backend='openvino'))
    assert sentence(load_model, path) == ''


# ---------------------------------------------------------------- what `export` finds

@pytest.mark.slow
def test_sizes(tmp_path):
    source = write_checkpoint(tmp_path / 'a.pth', 16, 32, model='i3d')
    assert 'one height and width when it is exported; drop --dynamic_size' in sentence(
        exported, source, '--dynamic_size')
    exported(source)


def test_checks(files, tmp_path):
    """A file that gives something else, weights that give the same for all, and no video."""
    what = exported(files[0])
    module = what.module
    assert 'more than --tolerance 0.0001; give a larger --tolerance, or write' in sentence(
        check, lambda clips: -module(clips), what)
    assert 'more than --tolerance' in sentence(check, lambda clips: module(clips) * 1.0002, what)
    what.args.tolerance = 3e-4
    assert sentence(check, lambda clips: module(clips) * 1.0002, what) == ''
    what.args.tolerance = 1e-4
    what.args.videos = [tmp_path / 'gone.mp4']
    assert 'no video can be read there (' in (said := sentence(check, module, what))
    assert said.endswith('; give others as --videos')
    what.args.videos = [write_video(tmp_path / 'a.mp4', grey_frames([40, 50, 60, 70]))]
    assert sentence(check, module, what) == ''
    blind = exported(files[0])
    torch.nn.init.zeros_(blind.network.fc.weight)
    assert 'so that a check would see nothing; give trained weights' in sentence(
        check, blind.module, blind)


def test_a_place_that_cannot_be_written(tmp_path):
    def write(target):
        with named_at_last(target) as path:
            path.write_text('a')
    (tmp_path / 'file').touch()
    assert 'free space, mend the permissions or give another path' in sentence(
        write, tmp_path / 'file/a.onnx')
    assert sentence(write, tmp_path / 'a.onnx') == ''
    for name in ('b.bin', 'b.xml.md'):
        (tmp_path / name).mkdir()
        assert sentence(write, tmp_path / 'b.xml').startswith(f'{tmp_path / name}: cannot be writt')
        (tmp_path / name).rmdir()
    assert sentence(write, tmp_path / 'b.xml') == ''
    assert {path.name for path in tmp_path.iterdir()} == {'file', 'a.onnx', 'b.xml'}


def test_a_place_that_is_the_checkpoint(files, tmp_path):
    path, link = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
    path.touch()
    link.symlink_to(path)
    assert 'is the checkpoint, which is kept; give another OUT' in sentence(
        parse, [str(path), str(link)])
    assert sentence(parse, [str(path), str(tmp_path / 'c.safetensors')]) == ''


@needs_extras
def test_a_place_for_what_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    (tmp_path / 'file').touch()

    def run():
        network = compiled_network(Mean(), (3, 4, 32, 32), 'key', 'fp32')
        assert torch.equal(network(torch.ones(2, 3, 4, 32, 32)), torch.ones(2, 3))
    assert 'in the variable XDG_CACHE_HOME' in sentence(run)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert sentence(run) == ''
    [made] = (tmp_path / '3d-resnets').glob('*.xml')
    whole = made.read_bytes()
    made.write_bytes(whole[:99])
    run()
    assert made.read_bytes() == whole and not list(made.parent.glob('.*'))


def test_int8(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nncf', None)  # as if it were not installed
    what = exported(write_checkpoint(tmp_path / 'a.pth', **NET, multi_label=True))
    what.args.accuracy_control = True
    opts = parse_opts(tiny_data.argv(tmp_path))
    assert '--accuracy_control is for one label a video; drop it' in sentence(Data, what, opts)
    what.args.accuracy_control = False
    assert '--int8 needs nncf, which is not installed: pip install -r' in sentence(Data, what, opts)
    rows = [Namespace(name=FLOAT, accuracy=0.9), Namespace(name=INT8, accuracy=0.5)]
    args = (Namespace(rows=rows, metric='accuracy'), what, {})
    what.args.max_drop = 0.1
    assert 'not written, as int8 lowers accuracy by 0.4000, more than' in (
        said := sentence(check_drop, *args))
    assert 'give --accuracy_control, which finds the layers' in said
    what.args.accuracy_control = True
    assert 'give a larger --max_drop, or more' in sentence(check_drop, *args)
    what.args.max_drop = 0.5
    assert sentence(check_drop, *args) == ''
