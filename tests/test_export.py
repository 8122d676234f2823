"""Exported networks: every form gives what its checkpoint gives, says what it is, and is refused
where it is wrong."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoint
import weights
from model import load_model
from models import generate_model, x3d
from opts import parse_opts
from runtime.engines import Engine
from runtime.errors import InputError
from runtime.exporting import program_of, write_openvino
from runtime.hardware import in_precision
from tests.helpers import ROOT, files_of_at_most, run_script, write_video
from tests.processes import run_elsewhere
from tests.tiny_data import run_main
from util_scripts.export import ENDINGS
from util_scripts.helpers.exports import named_at_last
from util_scripts.helpers.model_card import card

EXTRAS = ('onnx', 'onnxruntime', 'onnxscript', 'openvino', 'nncf')
MISSING = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
needs_extras = pytest.mark.skipif(
    bool(MISSING), reason=f'{", ".join(MISSING)} not installed (requirements-export.txt)')
pytestmark = pytest.mark.slow
TINY = {'model_depth': 10, 'resnet_widen_factor': 0.125}
BOTH = '--dynamic_time --dynamic_size'
# (options of a network, flags, frames, size): small ones, each of a family whose layers differ.
# A plain ResNet is exported by most tests below. Those of DEEPER take long together, or have layers
# of the others, so that they are for --deep.
FAMILIES = {
    'nonlocal': ({'model': 'resnet', 'attention': 'nonlocal', **TINY}, BOTH, 8, 32),
    'se': ({'model': 'resnet', 'attention': 'se', 'resnet_shortcut': 'A', **TINY},
           '--dynamic_time', 8, 32),
    'i3d': ({'model': 'i3d'}, '--dynamic_time', 16, 32),
    'x3d': ({'model': 'x3d', 'model_size': 'xs'}, BOTH, 4, 32),
    'r3d_18': ({'model': 'r3d_18'}, BOTH, 4, 32),
    'resnet2p1d': ({'model': 'resnet2p1d', **TINY}, BOTH, 8, 32),
    'preresnet': ({'model': 'preresnet', **TINY}, BOTH, 8, 32),
    'resnext': ({'model': 'resnext', 'model_depth': 50}, BOTH, 8, 32),
    'densenet': ({'model': 'densenet', 'model_depth': 121}, BOTH, 16, 32),
    'csn': ({'model': 'csn', 'model_depth': 26}, BOTH, 8, 32),
    'mc3_18': ({'model': 'mc3_18'}, BOTH, 4, 32),
    'r2plus1d_34': ({'model': 'r2plus1d_34'}, BOTH, 4, 32),
    'swin3d_t': ({'model': 'swin3d_t'}, '', 4, 32),
}
DEEPER = FAMILIES.keys() - {'se', 'x3d'}


def write_checkpoint(path, n_frames=8, size=32, n_classes=3, multi_label=False, **options):
    """A checkpoint of a network with random weights and batch norms that have seen something."""
    flags = ['--video_path', 'v', '--annotation_path', 'a', '--result_path', 'r', '--n_classes',
             n_classes, '--sample_size', size, '--sample_duration', n_frames,
             '--sample_t_stride', 2, *(['--multi_label'] if multi_label else [])]
    torch.manual_seed(0)
    network = generate_model(**{**options, 'n_classes': n_classes})
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.bias.uniform_(-0.1, 0.1)
    names = [f'class {i}' for i in range(n_classes)]
    checkpoint.save(path, {**weights.describe(parse_opts(list(map(str, flags))), network, names),
                           'state_dict': network.state_dict()})
    return path


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('source') / 'save_1.pth', model='resnet',
                            **TINY)


@pytest.fixture(scope='module')
def exported(source):
    """{ending: file}, each with normalisation and softmax inside where it can be."""
    found = {}
    for ending in ENDINGS:
        found[ending] = source.with_name(f'net{ending}')
        inside = [] if ending == '.safetensors' else ['--preprocess']
        done = run_script('export', source, found[ending], *inside)
        assert done.returncode == 0, done.stderr
        assert not done.stderr and 'the largest difference is' in done.stdout
    return found


@pytest.fixture(scope='module')
def trained(tiny_data, tmp_path_factory):
    """A network that tells the classes of the tiny data apart."""
    folder = tmp_path_factory.mktemp('trained')
    assert run_main(tiny_data.argv(folder, '--n_epochs', 6, '--learning_rate', 0.003)) == 0
    return folder / 'save_6.pth'


@pytest.fixture
def video(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (20, 6, 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return write_video(tmp_path / 'video.mp4', frames.astype(np.uint8))


# ---------------------------------------------------------------- the same as the checkpoint

@needs_extras
@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_gives_what_its_checkpoint_gives(family, tmp_path, pytestconfig, monkeypatch):
    if not pytestconfig.getoption('deep'):
        if family in DEEPER:
            pytest.skip('takes long; add --deep')
        # Without blocks that repeat these, with an excitation and without.
        monkeypatch.setitem(x3d.SIZES, 'xs', (2, 2, 2, 2))
    options, flags, n_frames, size = FAMILIES[family]
    source = write_checkpoint(tmp_path / 'a.pth', n_frames, size, **options)
    done = run_script('export', source, tmp_path / 'a.onnx', *flags.split())
    assert done.returncode == 0, done.stderr
    network, info = load_model(source)
    shape = [2, 3, n_frames + 3 * ('time' in flags), size + 5 * ('size' in flags), size]
    clips = info.normalize(torch.randint(256, shape, dtype=torch.uint8))
    for backend in 'auto', 'openvino':
        if backend == 'openvino' and 'swin' in family:  # its masks have no place in ONNX for that
            with pytest.raises(InputError, match='drop --backend openvino, or export'):
                load_model(tmp_path / 'a.onnx', backend=backend)
            continue
        other, other_info = load_model(tmp_path / 'a.onnx', backend=backend)
        assert other_info.class_names == info.class_names
        with torch.inference_mode():
            expected = network(clips)
            torch.testing.assert_close(other(clips), expected, rtol=0,
                                       atol=1e-4 * float(expected.abs().max()))


@needs_extras
@pytest.mark.parametrize('ending', ENDINGS)
def test_predict_gives_the_scores_of_the_checkpoint(exported, source, video, tmp_path, ending):
    found = []
    for path in source, exported[ending]:
        done = run_script('predict', video, '--weights', path, '--json', tmp_path / 'a.json',
                          '--no_cuda', '--timeline')
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / 'a.json').read_text())['results'][str(video)])
    for one, other in zip(*found, strict=True):
        assert one['label'] == other['label']
        assert one['score'] == pytest.approx(other['score'], abs=1e-4)


@needs_extras
def test_main_evaluates_an_exported_file_as_the_checkpoint(tiny_data, trained, tmp_path):
    source = trained
    assert run_script('export', source, tmp_path / 'a.xml', '--preprocess').returncode == 0
    logs = []
    for name, *flags in (('own', source), ('file', tmp_path / 'a.xml'),
                         ('backend', source, '--backend', 'openvino')):
        argv = tiny_data.argv(tmp_path / name, '--no_train', '--inference', '--resume_path', *flags)
        assert run_main(argv) == 0
        results = json.loads((tmp_path / name / 'val.json').read_text())['results']
        logs.append({video: {entry['label']: entry['score'] for entry in entries}
                     for video, entries in results.items()})
        loss = float((tmp_path / name / 'val.log').read_text().splitlines()[1].split()[1])
        logs[-1]['loss'] = {'': loss}
    for other in logs[1:]:
        for video, expected in logs[0].items():
            assert other[video] == pytest.approx(expected, abs=2e-4)


@needs_extras
def test_a_program_goes_to_the_device_of_its_clips(exported):
    network, _ = load_model(exported['.pt2'])
    logits = network(torch.zeros(2, 3, 8, 32, 32, device='meta'))  # it stands for a GPU
    assert logits.device.type == 'meta' and logits.shape == (2, 3)


@pytest.mark.parametrize('tf32', [False, True])
def test_a_network_is_exported_after_a_gpu_was_set_up(tf32):
    """torch.export asks for settings of cudnn."""
    network = generate_model(model='resnet', n_classes=3, **TINY)
    try:
        in_precision(network, torch.device('cuda'), tf32=tf32)
        program_of(network, torch.zeros(2, 3, 4, 32, 32))
    finally:
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.fp32_precision = 'none'


@needs_extras
def test_half_stores_weights_in_16_bits(source, exported, tmp_path):
    for ending in '.onnx', '.xml', '.safetensors':
        path = tmp_path / f'half{ending}'
        done = run_script('export', source, path, '--half')
        assert done.returncode == 0, done.stderr
        beside = '.bin' if ending == '.xml' else ending
        ratio = (path.with_suffix(beside).stat().st_size
                 / exported[ending].with_suffix(beside).stat().st_size)
        assert ratio < 0.65


@needs_extras
def test_several_labels_get_sigmoids(tmp_path):
    source = write_checkpoint(tmp_path / 'a.pth', model='resnet', multi_label=True, **TINY)
    assert run_script('export', source, tmp_path / 'a.onnx', '--preprocess').returncode == 0
    network, info = load_model(source)
    other, _ = load_model(tmp_path / 'a.onnx')
    clips = info.normalize(torch.randint(256, (2, 3, 8, 32, 32), dtype=torch.uint8))
    with torch.inference_mode():
        torch.testing.assert_close(info.scores(other(clips)), info.scores(network(clips)),
                                   rtol=0, atol=1e-5)


@needs_extras
def test_a_check_that_would_see_nothing_fails(tmp_path):
    """The classifier's weights are 0, so that any clip gives the biases."""
    source = write_checkpoint(tmp_path / 'a.pth', model='resnet', **TINY)
    file = torch.load(source, weights_only=True)
    file['state_dict']['fc.weight'].zero_()
    torch.save(file, source)
    done = run_script('export', source, tmp_path / 'a.pt2')
    assert done.returncode == 2 and 'so that a check would see nothing' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


@needs_extras
def test_the_benchmark_runs_an_exported_file(tiny_data, exported, tmp_path):
    done = run_script('benchmark', *tiny_data.argv(tmp_path), '--no_train', '--parts', 'inference',
                      '--seconds', 0.01, '--resume_path', exported['.onnx'], '--json',
                      tmp_path / 'a.json')
    assert done.returncode == 0, done.stderr
    assert all(row['part'] == 'inference' and row['sec'] > 0
               for row in json.loads((tmp_path / 'a.json').read_text())['rows'])


@pytest.mark.parametrize('argv, said', [
    (['main', '--help'], 'main.py --video_path DIR'),
    (['predict', '--help'], 'util_scripts.predict'),
    (['--help'], 'usage: COMMAND FLAGS, where COMMAND is main, or one of add_fps'),
    ([], 'usage: COMMAND FLAGS, where COMMAND is main, or one of add_fps'),
    (['nothing'], 'error: no command nothing; give main, or one of')])
def test_the_entry_point_of_the_image_runs_commands(argv, said, tmp_path):
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'}
    done = subprocess.run(['sh', str(ROOT / 'docker-entrypoint.sh'), *argv], cwd=tmp_path,
                          env=environment, capture_output=True, text=True)
    assert done.returncode == (2 if argv == ['nothing'] else 0), done.stderr
    assert said in done.stdout + done.stderr


@needs_extras
def test_no_library_tells_its_makers(tmp_path):
    """Of what it would send, and whose, ONNX Runtime keeps files in the user's cache."""
    from tests.test_advice_exported import write_network  # which takes fixtures from here
    write_network(tmp_path / 'a.onnx', None)
    home = tmp_path / 'home'
    home.mkdir()
    _, said = run_elsewhere(f"""
import os, sys
for name in 'XDG_CACHE_HOME', 'ORT_DISABLE_TELEMETRY':
    os.environ.pop(name, None)
os.environ['HOME'] = {str(home)!r}
sys.path.insert(0, {str(ROOT)!r})
from model import load_model
load_model({str(tmp_path / 'a.onnx')!r})""", tmp_path)
    assert 'does not say how its clips are prepared' in said
    assert not [path for path in home.rglob('*') if 'onnx' in path.name.lower()]


# ---------------------------------------------------------------- what it says

@needs_extras
@pytest.mark.parametrize('ending, inside', [('.onnx', True), ('.onnx', False), ('.xml', False),
                                            ('.pt2', True)])
def test_the_lines_of_the_card_run_it(exported, source, video, tmp_path, ending, inside):
    if inside:
        path = exported[ending]
    else:
        path = tmp_path / f'plain{ending}'
        assert run_script('export', source, path).returncode == 0
    text = path.with_name(f'{path.name}.md').read_text()
    assert 'resnet-10' in text and 'class 0, class 1, class 2' in text
    [code] = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert len(code.splitlines()) <= 14
    code = code.replace('video.mp4', str(video)).replace(path.name, str(path))
    status, said = run_elsewhere(code, tmp_path)
    assert status == 0, said
    done_here = run_script('predict', video, '--weights', source, '--no_cuda')
    assert said.splitlines()[-1].strip() in done_here.stdout.splitlines()[1]


@needs_extras
def test_a_full_disk_is_one_sentence(source, tmp_path):
    path = tmp_path / 'a.safetensors'
    with files_of_at_most(1000):
        done = run_script('export', source, path)
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {path}: cannot be written: ') and not path.exists()
    import openvino
    clips = openvino.opset13.parameter([1, 3])
    model = openvino.Model([openvino.opset13.relu(clips)], [clips])
    with files_of_at_most(10), pytest.raises(OSError, match='OpenVINO cannot write there'):
        write_openvino(tmp_path / 'a.xml', model, {})


def test_names_are_no_marks_in_the_card():
    images = {'value_scale': 1, 'mean': [0.5], 'std': [0.5]}
    record = {'arch': 'a', 'class_names': ['<img src=x>', '`*b*` [c](d)', 'e_f', 'g\33[2J\udcff'],
              'network_options': {'n_classes': 4}, 'multi_label': False, 'preprocessing': images,
              'clip_options': {'sample_duration': 4, 'sample_size': 32, 'sample_resize': None,
                               'sample_t_stride': 1},
              'exported': {'weights': 'fp32', 'preprocess': False, 'output': 'logits',
                           'input': 'float32', 'dynamic': ['batch']}}
    text = card(record, torch.nn.Linear(1, 1), Path('<b>.safetensors'), 10, [('noise', 0.0)])
    assert text.startswith('# \\<b\\>.safetensors\n')
    assert (r'4: \<img src=x\>, \`\*b\*\` \[c\](d), e_f, g\\x1b\[2J\\udcff' + '\n') in text


# ---------------------------------------------------------------- int8

@needs_extras
@pytest.mark.parametrize('ending', ['.xml', '.onnx'])
def test_int8_is_measured_beside_fp32(tiny_data, trained, tmp_path, ending):
    argv = [trained, tmp_path / f'a{ending}', '--preprocess']
    data = ['--int8', '--video_path', tiny_data.root / 'jpg', '--annotation_path',
            tiny_data.annotation_path, '--n_threads', 0, '--seconds', 0.1]
    more = ['--compare_layers'] if ending == '.xml' else []
    done = run_script('export', *argv, *data, '--json', tmp_path / 'a.json', '--max_drop', 1,
                      '--keep_float', 'conv1', 'layer4.0.conv2', *more)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'a.json').read_text())
    rows = {row['name']: row for row in found['rows']}
    assert {'fp32', 'int8', *['int8, last layer in fp32'] * len(more)} <= rows.keys()
    assert found['kept'] == ['conv1', 'layer4.0.conv2'] and found['n_videos'] == 6
    assert rows['int8']['n_bytes'] < 0.8 * rows['fp32']['n_bytes']
    assert '| int8 |' in (tmp_path / f'a{ending}.md').read_text()
    done = run_script('export', *argv, *data, '--keep_float', 'layer9')
    assert done.returncode == 2 and 'no layer is called so; they are conv1' in done.stderr


@needs_extras
def test_int8_that_costs_too_much_is_not_written(tiny_data, trained, tmp_path):
    """Weights of one channel that are far larger than the others leave these no levels."""
    source = spoil_last_layer(trained, tmp_path / 'spoilt.pth')
    argv = [source, tmp_path / 'a.xml', '--int8', '--video_path', tiny_data.root / 'jpg',
            '--annotation_path', tiny_data.annotation_path, '--n_threads', 0, '--seconds', 0.1]
    done = run_script('export', *argv, '--compare_layers')
    assert done.returncode == 2 and not list(tmp_path.glob('a.*')), done.stdout
    assert 'not written, as int8 lowers video top-1 by' in done.stderr
    # That this cure helps is tested below.
    assert re.search(r'last layer in fp32 is enough: give --keep_float fc\n', done.stderr)


@needs_extras
def test_accuracy_control_keeps_the_layers_that_int8_spoils_and_names_them(
        tiny_data, trained, tmp_path):
    source = spoil_last_layer(trained, tmp_path / 'spoilt.pth')
    argv = [source, tmp_path / 'a.xml', '--int8', '--video_path', tiny_data.root / 'jpg',
            '--annotation_path', tiny_data.annotation_path, '--n_threads', 0, '--seconds', 0.1]
    done = run_script('export', *argv, '--accuracy_control', '--json', tmp_path / 'a.json')
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'a.json').read_text())
    rows = {row['name']: row for row in found['rows']}
    assert rows['int8']['accuracy'] >= rows['fp32']['accuracy'] - 0.01
    assert found['kept'] == ['fc'] and '| int8 |' in (tmp_path / 'a.xml.md').read_text()
    [cure] = re.findall(r'keeps fc in floating point; the same without a search: (.*)\n',
                        done.stdout)
    other = run_script('export', *argv, *cure.split(), '--json', tmp_path / 'b.json')
    assert other.returncode == 0, other.stderr
    assert 'Layers in floating point: fc.' in other.stdout
    assert json.loads((tmp_path / 'b.json').read_text())['kept'] == found['kept']


def spoil_last_layer(path, target):
    """Give the classifier weights that are large and of no effect: their feature is always 0."""
    file = torch.load(path, weights_only=True)
    state = file['state_dict']
    for norm in 'layer4.0.bn2', 'layer4.0.downsample.1':
        for name in 'weight', 'bias':
            state[f'{norm}.{name}'][0] = 0
    state['fc.weight'][:, 0] = 1e4
    torch.save(file, target)
    return target


# ---------------------------------------------------------------- what is refused

@pytest.mark.parametrize('target, flags, sentence', [
    ('a.onnx', '--video_path jpg', '--video_path is for --int8'),
    ('a.onnx', '--int8', '--video_path is missing'),
])
def test_wrong_flags_are_one_sentence(source, tmp_path, target, flags, sentence):
    done = run_script('export', source, tmp_path / target, *flags.split())
    assert done.returncode == 2 and sentence in done.stderr
    assert not list(tmp_path.iterdir())


@needs_extras
def test_a_folder_that_cannot_be_written_is_one_sentence(source, tmp_path):
    (tmp_path / 'file').touch()
    done = run_script('export', source, tmp_path / 'file' / 'a.pt2')
    assert done.returncode == 2 and 'cannot be written' in done.stderr


@needs_extras
@pytest.mark.parametrize('name', ['none.mp4', 'text.mp4', ''])
def test_videos_that_cannot_be_read_are_one_sentence(source, tmp_path, name):
    (tmp_path / 'text.mp4').write_text('no video')
    done = run_script('export', source, tmp_path / 'out' / 'a.pt2', '--videos', tmp_path / name)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert 'no video can be read there' in done.stderr and not list((tmp_path / 'out').iterdir())


@needs_extras
def test_int8_names_data_that_are_wrong_before_it_exports(source, tmp_path):
    done = run_script('export', source, tmp_path / 'a.xml', '--int8', '--video_path', tmp_path,
                      '--annotation_path', tmp_path / 'none.json')
    assert done.returncode == 2 and 'no such annotation file' in done.stderr
    assert 'runs as the checkpoint does' not in done.stdout


@needs_extras
def test_sizes_that_a_network_has_not_are_one_sentence(tmp_path):
    source = write_checkpoint(tmp_path / 'a.pth', 16, 32, model='i3d')
    done = run_script('export', source, tmp_path / 'a.onnx', '--dynamic_size')
    assert done.returncode == 2 and 'drop --dynamic_size' in done.stderr


@needs_extras
def test_files_that_are_none_of_ours_are_one_sentence(exported, source, video, tmp_path):
    onnx = importlib.import_module('onnx')
    (tmp_path / 'cut.onnx').write_bytes(exported['.onnx'].read_bytes()[:5000])
    (tmp_path / 'cut.pt2').write_bytes(exported['.pt2'].read_bytes()[:5000])
    (tmp_path / 'alone.xml').write_bytes(exported['.xml'].read_bytes())
    model = onnx.load(exported['.onnx'])
    record = json.loads({entry.key: entry.value for entry in model.metadata_props}['checkpoint'])
    record['exported']['version'] = 99
    onnx.helper.set_model_props(model, {'checkpoint': json.dumps(record)})
    onnx.save(model, tmp_path / 'later.onnx')
    onnx.helper.set_model_props(model, {})
    onnx.save(model, tmp_path / 'other.onnx')
    onnx.helper.set_model_props(model, {'checkpoint': '[3]'})
    onnx.save(model, tmp_path / 'list.onnx')
    os.mkfifo(tmp_path / 'pipe.onnx')
    for name, sentence in {'cut.onnx': 'cut short', 'cut.pt2': 'cut short',
                           'alone.xml': 'lacks its .bin', 'none.onnx': 'cannot be read',
                           'later.onnx': 'export version 99', 'other.onnx': 'does not say',
                           'list.onnx': 'does not say',
                           'pipe.onnx': 'it is a pipe, not a file'}.items():
        done = run_script('predict', video, '--weights', tmp_path / name, '--no_cuda')
        assert done.returncode == 2 and sentence in done.stderr, name
        assert len(done.stderr.splitlines()) == 1


@needs_extras
def test_an_exported_network_is_not_trained(exported, tiny_data, tmp_path, capsys):
    for flags, sentence in {('--resume_path',): 'add --no_train',
                            ('--pretrain_path',): 'give the checkpoint it was made of'}.items():
        assert run_main(tiny_data.argv(tmp_path / 'r', *flags, exported['.onnx'])) == 2
        assert sentence in capsys.readouterr().err


def test_memory_that_is_short_is_no_matter_of_a_clips_size():
    class Short(Engine):
        def compile(self, precision='fp32', backend='auto'):
            def run(clips):
                raise MemoryError
            self._run = run
    with pytest.raises(MemoryError):
        Short(Path('a.pt2'), {}, (1, 3, 4, 8, 8), (1, 2))(torch.zeros(1, 3, 4, 8, 8))


@needs_extras
def test_clips_of_another_size_are_one_sentence(exported):
    for ending in '.onnx', '.xml', '.pt2':
        network, _ = load_model(exported[ending])
        with pytest.raises(InputError, match='takes clips of 3x8x32x32'):
            network(torch.zeros(1, 3, 5, 32, 32))


@pytest.mark.parametrize('name', EXTRAS)
def test_a_library_that_is_missing_is_one_sentence(source, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # hides it
    ending = '.xml' if name == 'openvino' else '.onnx'
    int8 = ['--int8', '--video_path', 'v', '--annotation_path', 'a'] if name == 'nncf' else []
    done = run_script('export', source, tmp_path / f'a{ending}', *int8)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f'needs {name}, which is not installed: pip install -r' in done.stderr


def test_files_of_an_export_are_moved_to_their_names_together(tmp_path, monkeypatch):
    """Of two exports to one name all files are of the same."""
    replace, locked = os.replace, []

    def watched(source, target):
        locked.append(bool(list(tmp_path.glob('.*.lock'))))
        replace(source, target)
    monkeypatch.setattr(os, 'replace', watched)
    with named_at_last(tmp_path / 'a.xml') as path:
        for name in ('a.xml', 'a.bin', 'a.xml.md'):
            path.with_name(name).touch()
    assert locked == [True] * 3 and sorted(os.listdir(tmp_path)) == ['a.bin', 'a.xml', 'a.xml.md']
