"""Exported networks: every form gives what its checkpoint gives, says what it is, and is refused
where it is wrong."""

import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import checkpoint
import weights
from model import load_model
from models import generate_model
from opts import parse_opts
from runtime.errors import InputError
from tests.helpers import ROOT, run_script, write_video
from tests.tiny_data import run_main
from util_scripts.export import ENDINGS

EXTRAS = ('onnx', 'onnxruntime', 'onnxscript', 'openvino', 'nncf')
MISSING = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
needs_extras = pytest.mark.skipif(
    bool(MISSING), reason=f'{", ".join(MISSING)} not installed (requirements-export.txt)')
pytestmark = pytest.mark.slow
TINY = {'model_depth': 10, 'resnet_widen_factor': 0.125}
# (options of a network, flags, frames, size): small ones, each of a family whose layers differ.
FAMILIES = {
    'resnet': ({'model': 'resnet', **TINY}, '--dynamic_time --dynamic_size', 8, 32),
    'nonlocal': ({'model': 'resnet', 'attention': 'nonlocal', **TINY},
                 '--dynamic_time --dynamic_size', 8, 32),
    'se': ({'model': 'resnet', 'attention': 'se', 'resnet_shortcut': 'A', **TINY},
           '--dynamic_time', 8, 32),
    'resnet2p1d': ({'model': 'resnet2p1d', **TINY}, '--dynamic_time', 8, 32),
    'preresnet': ({'model': 'preresnet', **TINY}, '--dynamic_size', 8, 32),
    'i3d': ({'model': 'i3d'}, '--dynamic_time', 16, 32),
    'x3d': ({'model': 'x3d', 'model_size': 'xs'}, '--dynamic_time --dynamic_size', 4, 32),
    'r3d_18': ({'model': 'r3d_18'}, '', 4, 32),
}


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


@pytest.fixture
def video(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (20, 6, 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return write_video(tmp_path / 'video.mp4', frames.astype(np.uint8))


# ---------------------------------------------------------------- the same as the checkpoint

@needs_extras
@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_gives_what_its_checkpoint_gives(family, tmp_path):
    options, flags, n_frames, size = FAMILIES[family]
    source = write_checkpoint(tmp_path / 'a.pth', n_frames, size, **options)
    done = run_script('export', source, tmp_path / 'a.onnx', *flags.split())
    assert done.returncode == 0, done.stderr
    network, info = load_model(source)
    shape = [2, 3, n_frames + 3 * ('time' in flags), size + 5 * ('size' in flags), size]
    clips = info.normalize(torch.randint(256, shape, dtype=torch.uint8))
    for backend in 'auto', 'openvino':
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
def test_main_evaluates_an_exported_file_as_the_checkpoint(tiny_data, tmp_path):
    assert run_main(tiny_data.argv(tmp_path / 'trained', '--n_epochs', 1,
                                   '--learning_rate', 0.002)) == 0
    source = tmp_path / 'trained' / 'save_1.pth'
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


# ---------------------------------------------------------------- what it says

@needs_extras
@pytest.mark.parametrize('ending', ['.onnx', '.xml', '.pt2'])
@pytest.mark.parametrize('inside', [True, False])
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
    # In a process that cannot see this code.
    done = subprocess.run([sys.executable, '-W', 'ignore', '-'], input=code, cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done_here = run_script('predict', video, '--weights', source, '--no_cuda')
    assert done.stdout.strip() in done_here.stdout.splitlines()[1]


# ---------------------------------------------------------------- int8

@needs_extras
@pytest.mark.parametrize('ending', ['.xml', '.onnx'])
def test_int8_is_measured_beside_fp32(tiny_data, tmp_path, ending):
    assert run_main(tiny_data.argv(tmp_path / 'trained', '--n_epochs', 2)) == 0
    argv = [tmp_path / 'trained' / 'save_2.pth', tmp_path / f'a{ending}', '--preprocess']
    data = ['--int8', '--video_path', tiny_data.root / 'jpg', '--annotation_path',
            tiny_data.annotation_path, '--n_threads', 0, '--seconds', 0.1]
    done = run_script('export', *argv, *data, '--json', tmp_path / 'a.json', '--max_drop', 1,
                      '--compare_layers', '--keep_float', 'layer4.0.conv2')
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'a.json').read_text())
    rows = {row['name']: row for row in found['rows']}
    assert {'fp32', 'int8', 'int8, last layer in fp32'} <= rows.keys()
    assert found['kept'] == ['layer4.0.conv2'] and found['n_videos'] == 6
    assert rows['int8']['n_bytes'] < 0.8 * rows['fp32']['n_bytes']
    assert '| int8 |' in (tmp_path / f'a{ending}.md').read_text()
    done = run_script('export', *argv, *data, '--keep_float', 'layer9')
    assert done.returncode == 2 and 'no layer is called so; they are conv1' in done.stderr


@needs_extras
def test_int8_that_costs_too_much_is_not_written(tiny_data, tmp_path):
    """Weights of one channel that are far larger than the others leave these no levels."""
    assert run_main(tiny_data.argv(tmp_path / 'trained', '--n_epochs', 2)) == 0
    argv = [tmp_path / 'trained' / 'save_2.pth', tmp_path / 'a.xml', '--int8', '--video_path',
            tiny_data.root / 'jpg', '--annotation_path', tiny_data.annotation_path, '--n_threads',
            0, '--seconds', 0.1]
    # More than fp32 has over int8 is a drop of less than nothing.
    done = run_script('export', *argv, '--max_drop', 0, '--accuracy_control')
    assert done.returncode in (0, 2)
    assert done.returncode == 0 or 'not written, as int8 lowers video top-1' in done.stderr


# ---------------------------------------------------------------- what is refused

@pytest.mark.parametrize('target, flags, sentence', [
    ('a.tflite', '', 'the ending names the form'),
    ('a.pt2', '--half', '--half is for .onnx'),
    ('a.pt2', '--int8', '--int8 is for .xml'),
    ('a.onnx', '--max_drop 0.1', '--max_drop is for --int8'),
    ('a.onnx', '--video_path jpg', '--video_path is for --int8'),
    ('a.safetensors', '--preprocess', 'holds weights alone'),
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
    for name, sentence in {'cut.onnx': 'cut short', 'cut.pt2': 'cut short',
                           'alone.xml': 'lacks its .bin', 'none.onnx': 'cannot be read',
                           'later.onnx': 'export version 99', 'other.onnx': 'does not say'}.items():
        done = run_script('predict', video, '--weights', tmp_path / name, '--no_cuda')
        assert done.returncode == 2 and sentence in done.stderr, name
        assert len(done.stderr.splitlines()) == 1


@needs_extras
def test_an_exported_network_is_not_trained(exported, tiny_data, tmp_path, capsys):
    for flags, sentence in {('--resume_path',): 'add --no_train',
                            ('--pretrain_path',): 'give the checkpoint it was made of'}.items():
        assert run_main(tiny_data.argv(tmp_path / 'r', *flags, exported['.onnx'])) == 2
        assert sentence in capsys.readouterr().err


@needs_extras
def test_clips_of_another_size_are_one_sentence(exported):
    for ending in '.onnx', '.xml', '.pt2':
        network, _ = load_model(exported[ending])
        with pytest.raises(InputError, match='takes clips of 3x8x32x32'):
            network(torch.zeros(1, 3, 5, 32, 32))


@pytest.mark.parametrize('name', EXTRAS[:-1])
def test_a_library_that_is_missing_is_one_sentence(source, tmp_path, name):
    """The library is hidden from a process of its own."""
    ending = '.xml' if name == 'openvino' else '.onnx'
    code = (f'import sys; sys.modules[{name!r}] = None\n'
            'from runtime import errors; from util_scripts import export; '
            f'errors.run(export.main, [{str(source)!r}, {str(tmp_path / ("a" + ending))!r}])')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f'needs {name}, which is not installed: pip install -r' in done.stderr
