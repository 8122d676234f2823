"""Networks from files: what they say and flags, loading, inputs of 2018, fine-tuning."""

import json
from dataclasses import replace as with_fields
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import checkpoint
from model import (adopt_options, build_network, empty_network, freeze, load_network,
                   load_pretrained, match_class_names, read_weights, stages)
from models import depths, generate_model
from models.released import rename_2018_keys
from optim import Optimization
from opts import normalization, parse_opts, replace
from tests.recorded import recorded_value
from tests.test_identify import shapes
from tests.test_models import STEMMED, clips, on_meta
from tests.tiny_data import CLASSES, run_main
from weights import WeightsError, describe, interpret, load

FLAGS_OF_2018 = ['--value_scale', '255', '--mean', '114.7748', '107.7354', '99.4750',
                 '--no_std_norm']


def options(*flags):
    return parse_opts(['--video_path', 'v', '--annotation_path', 'a', '--result_path', 'r',
                       *map(str, flags)])


def state_of(network, prefix='', **more):
    """A checkpoint of released style, with the network's names and shapes."""
    return {'epoch': 200, **more,
            'state_dict': {prefix + name: value for name, value in network.state_dict().items()}}


def own_state(opts, network):
    """A checkpoint of ours."""
    return {'epoch': 1, 'state_dict': network.state_dict(), **describe(opts, network, CLASSES)}


def weights_of(state, opts=None):
    """The Weights of a file that holds `state`."""
    opts = opts or options()
    return interpret(state, Path('file.pth'), {name: getattr(opts, name) for name in opts.given})


def adopted_from(state, opts, pretrained=False, warn=lambda line: None):
    return adopt_options(opts, weights_of(state, opts), pretrained, warn)


# ---------------------------------------------------------------- what a file says, and flags

@pytest.mark.parametrize('model, built, flags, message', [
    ('resnet', {}, ['--model_depth', 34], 'holds resnet-10 with model_depth 10.*--model_depth 34'),
    ('resnet', {}, ['--model', 'preresnet'], 'model resnet, and --model preresnet'),
    ('resnet', {}, ['--n_classes', 3], 'n_classes 400, and --n_classes 3'),
    ('resnet', {}, ['--resnet_shortcut', 'A'], 'resnet_shortcut B, and --resnet_shortcut A'),
    ('resnet', {}, ['--conv1_t_size', 3], 'conv1_t_size 7, and --conv1_t_size 3'),
    ('resnet', {}, ['--resnet_widen_factor', 0.999], 'factor 1.0, and --resnet_widen_factor 0.999'),
    ('resnet', {}, ['--input_type', 'flow', '--file_type', 'hdf5'], 'input_type rgb.* flow'),
    ('resnet', {'input_type': 'flow'}, [], 'optical flow.*--file_type hdf5'),
    ('wideresnet', {}, ['--wide_resnet_k', 4], 'wide_resnet_k 2, and --wide_resnet_k 4'),
    ('resnext', {}, ['--resnext_cardinality', 8], 'cardinality 32, and --resnext_cardinality 8'),
])
def test_a_flag_that_contradicts_the_weights(model, built, flags, message):
    state = state_of(on_meta(model, depths(model)[0], **built))
    with pytest.raises(WeightsError, match=f'^file.pth: .*{message}'):
        adopted_from(state, options(*flags))


@pytest.mark.parametrize('model, built, flags', [
    ('resnet', {'resnet_widen_factor': 0.3}, {'resnet_widen_factor': 0.3}),
    ('wideresnet', {'wide_resnet_k': 2, 'resnet_widen_factor': 0.25, 'stem_planes': 128},
     {'wide_resnet_k': 2, 'resnet_widen_factor': 0.25}),
    ('wideresnet', {'wide_resnet_k': 4, 'resnet_widen_factor': 0.5, 'stem_planes': 256},
     {'wide_resnet_k': 4}),
    ('densenet', {}, {'resnet_shortcut': 'A', 'wide_resnet_k': 7}),  # flags of other families
])
def test_flags_that_make_the_same_network_stay(model, built, flags):
    state = state_of(on_meta(model, depths(model)[0], **built))
    given = [text for name, value in flags.items() for text in (f'--{name}', value)]
    weights = weights_of(state, options(*given))
    opts = adopt_options(options(*given), weights, warn=lambda line: None)
    assert {name: getattr(opts, name) for name in flags} == flags
    assert shapes(empty_network(opts, weights).state_dict()) == shapes(state['state_dict'])


def test_what_is_taken_from_the_file_is_said_in_one_line(capsys):
    state = state_of(on_meta('preresnet', 34, n_classes=5), arch='preresnet-34')
    adopt_options(options(), weights_of(state))
    assert capsys.readouterr().err == (
        'file.pth: taken from the file: n_classes 5, model preresnet, model_depth 34\n')


def test_a_file_by_the_name_of_another_network_is_said(capsys):
    state = state_of(on_meta('resnext', 50), arch='resnet-50')
    opts = adopt_options(options(), weights_of(state))
    assert opts.model == 'resnext'
    assert 'is called resnet-50, and its weights are those of resnext-50' in capsys.readouterr().err


# ---------------------------------------------------------------- loading

@pytest.mark.parametrize('change, message', [
    (lambda weights: weights.pop('fc.bias'), r'1 missing \(fc.bias 400\)'),
    (lambda weights: [weights.pop(name) for name in list(weights) if 'layer4.0.bn' in name],
     r'10 missing \(layer4.0.bn1.weight 64, .*, \.\.\.\)'),
    (lambda weights: weights.update(head=torch.zeros(2, 3)), r'1 too many \(head 2x3\)'),
    (lambda weights: weights.update({'bn1.bias': torch.zeros(9)}),
     r'1 of another shape \(bn1.bias 9 instead of 8\)'),
])
def test_tensors_that_do_not_fit_are_listed_with_their_shapes(change, message):
    state_dict = generate_model('resnet', 10, resnet_widen_factor=0.125).state_dict()
    change(state_dict)
    weights = weights_of({'state_dict': state_dict})
    opts = adopt_options(options(), weights, warn=lambda line: None)
    for loaded in (load_network, load_pretrained, empty_network):
        if loaded is load_pretrained and ('fc.bias' in message or 'too many' in message):
            continue  # the classifier is a new one, and what is too many is left out
        with pytest.raises(WeightsError, match=f'^file.pth: .*{message}; check'):
            loaded(opts, weights)


def test_weights_from_before_batches_were_counted():
    network = generate_model('resnet', 10, resnet_widen_factor=0.125)
    state = state_of(network)
    for name in [name for name in state['state_dict'] if name.endswith('num_batches_tracked')]:
        del state['state_dict'][name]
    weights = weights_of(state)
    opts = adopt_options(options(), weights, warn=lambda line: None)
    assert shapes(load_network(opts, weights).state_dict()) == shapes(
        network.state_dict())


FAMILY_FLAGS = {
    'resnet': ['--model_depth', 10, '--resnet_widen_factor', 0.125, '--no_max_pool',
               '--conv1_t_stride', 2],
    'resnet2p1d': ['--model_depth', 18, '--resnet_widen_factor', 0.3],
    'preresnet': ['--model_depth', 50, '--resnet_widen_factor', 0.125, '--resnet_shortcut', 'A'],
    'wideresnet': ['--model_depth', 50, '--resnet_widen_factor', 0.125, '--wide_resnet_k', 3],
    'resnext': ['--model_depth', 50, '--resnet_widen_factor', 0.125, '--resnext_cardinality', 4,
                '--input_type', 'flow', '--file_type', 'hdf5'],
    'densenet': ['--model_depth', 121, '--conv1_t_size', 3],
}


def family_options(model, *more):
    return options('--model', model, '--n_classes', 3, '--sample_size', 32, '--sample_duration', 8,
                   *FAMILY_FLAGS[model], *more)


@pytest.mark.slow
@pytest.mark.parametrize('model', STEMMED)
def test_saved_and_loaded_networks_agree_to_the_bit(model, tmp_path):
    opts = family_options(model)
    network = build_network(opts)
    x = clips(n_channels=2 if opts.input_type == 'flow' else 3)
    network(x)  # gives the norms statistics
    path = tmp_path / 'save_1.pth'
    checkpoint.save(path, own_state(opts, network))
    flags = ['--file_type', 'hdf5'] if opts.input_type == 'flow' else []
    weights = read_weights(path, options(*flags))
    adopted = adopt_options(options(*flags), weights, warn=lambda line: None)
    again = load_network(adopted, weights)
    with torch.inference_mode():
        assert torch.equal(again.eval()(x), network.eval()(x))
    assert adopted == replace(opts, given=adopted.given)  # all that the options say is in the file


def test_a_new_classifier_has_the_classes_of_the_options():
    network = generate_model('resnext', 50, resnet_widen_factor=0.125, n_classes=7)
    state = state_of(network)
    opts = adopted_from(state, options('--n_classes', 3), pretrained=True)
    loaded = load_pretrained(opts, weights_of(state))
    assert loaded.fc.weight.shape == (3, 256)
    assert torch.equal(loaded.layer4[2].conv3.weight, network.layer4[2].conv3.weight)


def test_tensors_too_many_are_left_out_of_pretrained_weights_and_said():
    state = state_of(generate_model('resnet', 10, resnet_widen_factor=0.125))
    state['state_dict'] |= {'projection.weight': torch.zeros(2), 'queue': torch.zeros(3)}
    opts = adopted_from(state, options('--n_classes', 3), pretrained=True)
    said = []
    assert load_pretrained(opts, weights_of(state), said.append).fc.weight.shape[0] == 3
    assert said == ['file.pth: 2 tensors are not of the network and are left out '
                    '(projection.weight, queue)']


# ---------------------------------------------------------------- what our checkpoints record

def test_a_checkpoint_says_all_of_itself():
    opts = options('--mean_dataset', '0.5', '--value_scale', 255, '--sample_size', 32)
    record = describe(opts, on_meta('resnet', 18, n_classes=3), CLASSES)
    assert record['format_version'] == 1 and record['arch'] == 'resnet-18'
    assert record['preprocessing'] == {'value_scale': 255, 'mean': [127.5] * 3, 'std': [127.5] * 3,
                                       'size': 32}
    assert record['versions'].keys() == {'python', 'torch', 'torchvision', 'numpy'}
    assert record['versions']['torch'] == torch.__version__
    assert record['class_names'] == list(CLASSES)
    assert record['clip_options']['sample_duration'] == 16
    assert record['clip_options']['sample_t_stride'] == 1


def preprocessing_after(flags, trained_with, pretrained=False):
    """(normalisation, lines said) of a run with these flags on our checkpoint with those."""
    opts = options('--n_classes', 3, *trained_with)
    state = own_state(opts, on_meta('resnet', 18, n_classes=3))
    lines = []
    adopted = adopted_from(state, options(*flags), pretrained, lines.append)
    return (adopted.value_scale, *normalization(adopted)), [
        line for line in lines if 'taken' not in line]


@pytest.mark.parametrize('pretrained', [False, True])
def test_normalisation_is_that_of_the_training(pretrained):
    flags = ['--n_classes', 3]
    assert preprocessing_after(flags, FLAGS_OF_2018, pretrained) == (
        (255, (114.7748, 107.7354, 99.475), (1.0, 1.0, 1.0)), [])
    assert preprocessing_after([*flags, *FLAGS_OF_2018], FLAGS_OF_2018, pretrained)[1] == []


def test_another_normalisation_is_taken_as_a_whole_and_said():
    used, lines = preprocessing_after(['--mean_dataset', 'activitynet'], FLAGS_OF_2018)
    assert used == (1, (0.4477, 0.4209, 0.3906), (0.2767, 0.2695, 0.2714))
    assert lines == ['file.pth: was trained on images in 0...255, mean 114.7748 107.7354 99.475, '
                     'std 1 1 1; the flags given make them 0...1, mean 0.4477 0.4209 0.3906, '
                     'std 0.2767 0.2695 0.2714']


def test_clips_are_those_of_the_training_but_not_of_a_pretraining():
    opts = options('--sample_size', 64, '--sample_t_stride', 2)
    state = own_state(opts, on_meta('resnet', 18))
    taken = adopted_from(state, options('--sample_size', 80))
    assert (taken.sample_size, taken.sample_t_stride) == (80, 2)
    taken = adopted_from(state, options(), pretrained=True)
    assert (taken.sample_size, taken.sample_t_stride) == (112, 1)


@pytest.mark.parametrize('key, record', [
    ('clip_options', 3), ('clip_options', {'sample_size': 'big'}), ('clip_options', {'mean': [1]}),
    ('network_options', {'no_max_pool': 1}), ('network_options', {'conv1_t_stride': 0}),
    ('network_options', None)])
def test_a_record_that_was_tampered_with(key, record):
    state = {**own_state(options(), on_meta('resnet', 18)), key: record}
    with pytest.raises(WeightsError, match=f'^file.pth: its {key}'):
        weights_of(state)


def test_class_names_of_another_set_or_order():
    weights = with_fields(weights_of(own_state(options(), on_meta('resnet', 18))),
                          class_names=('a', 'b', 'c'))
    assert match_class_names(('c', 'a', 'b'), weights) == ('a', 'b', 'c')
    with pytest.raises(WeightsError, match='only the file has c, only the annotation has d'):
        match_class_names(('a', 'b', 'd'), weights)


# ---------------------------------------------------------------- weights of 2018

def densenet_of_2018():
    network = on_meta('densenet', 121)
    names = {'features.conv1.': 'features.conv0.', 'features.norm1.': 'features.norm0.'}
    weights = {}
    for name, value in network.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = value
    return {'epoch': 200, 'state_dict': weights}


def behind_module(model, depth, **more):
    state = state_of(on_meta(model, depth, **more))
    return {**state, 'behind_module': True}


OF_2018 = {
    'resnet A': lambda: state_of(on_meta('resnet', 18, resnet_shortcut='A')),
    'resnet B of 50 layers': lambda: behind_module('resnet', 50),
    'preresnet': lambda: behind_module('preresnet', 200),
    'wideresnet': lambda: behind_module('wideresnet', 50),
    'resnext': lambda: behind_module('resnext', 101),
    'densenet': densenet_of_2018,
}
NOT_OF_2018 = {
    'plain resnet': lambda: state_of(on_meta('resnet', 50)),
    'resnet B of 18 layers': lambda: behind_module('resnet', 18),
    'resnet2p1d': lambda: behind_module('resnet2p1d', 50),
    'wideresnet with a stem of 2020': lambda: behind_module('wideresnet', 50, stem_planes=128),
    'densenet with names of 2020': lambda: behind_module('densenet', 121),
    'training state of 2020': lambda: {**behind_module('resnet', 50), 'scheduler': {}},
    'training state of 2020, A': lambda: {
        **state_of(on_meta('resnet', 18, resnet_shortcut='A')), 'scheduler': {}},
    'ours': lambda: own_state(options('--resnet_shortcut', 'A'),
                              on_meta('resnet', 18, resnet_shortcut='A')),
}


def alarms(state, *flags):
    lines = []
    adopted_from(state, options(*flags), warn=lines.append)
    return [line for line in lines if '2018' in line]


@pytest.mark.parametrize('name', OF_2018)
def test_weights_of_2018_ask_for_their_inputs(name):
    state = OF_2018[name]()
    line, = alarms(state)
    for text in ('file.pth', '0...255', '--value_scale 255', '--mean 114.7748 107.7354 99.475',
                 '--no_std_norm'):
        assert text in line
    assert alarms(state, '--value_scale', 255)  # still divided by a standard deviation
    assert not alarms(state, *FLAGS_OF_2018)


@pytest.mark.parametrize('name', NOT_OF_2018)
def test_no_alarm_for_other_weights(name):
    assert not alarms(NOT_OF_2018[name]())


# ---------------------------------------------------------------- fine-tuning

BEGIN_MODULES = {model: ('conv1', 'layer1', 'layer4', 'fc') for model in STEMMED}
BEGIN_MODULES['densenet'] = ('conv1', 'denseblock3', 'norm5', 'classifier')


@pytest.mark.slow
@pytest.mark.parametrize('model, begin', [
    (model, begin) for model, names in BEGIN_MODULES.items() for begin in names])
def test_what_comes_before_a_module_is_frozen(model, begin):
    opts = family_options(model, '--weight_decay', 0.1)
    network = build_network(opts)
    freeze(network, begin)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parts = stages(network)
    names = list(parts)
    frozen = names[:names.index(begin + '_s' if begin + '_s' in names else begin)]
    made = {}
    for name, part in parts.items():
        part.register_forward_hook(
            lambda _part, _args, out, name=name: made.update({name: out.requires_grad}))

    trained = [p for p in network.parameters() if p.requires_grad]
    optimization = Optimization(trained, opts, torch.device('cpu'))
    network.train()
    x = clips(n_channels=2 if opts.input_type == 'flow' else 3)
    optimization.step(F.cross_entropy(network(x), torch.tensor([0, 2])))

    # No graph is kept of what is frozen: memory is for the rest.
    assert made == {name: name not in frozen for name in names}
    inside = {f'{prefix}{name}.' for name in frozen for prefix in ('', 'features.')}
    for name, value in network.state_dict().items():
        is_frozen = name.startswith(tuple(inside))
        assert torch.equal(value, before[name]) == is_frozen, name
    assert len(optimization.state_dict()['optimizer']['state']) == len(trained)
    assert all(p.grad is not None for p in trained)
    assert all(p.grad is None for p in network.parameters() if not p.requires_grad)


@pytest.mark.parametrize('model, listed', [
    ('resnet', 'conv1, bn1, layer1, layer2, layer3, layer4, fc'),
    ('resnet2p1d', 'conv1_s, bn1_s, conv1_t, bn1_t, layer1, layer2, layer3, layer4, fc'),
    ('densenet', 'conv1, norm1, denseblock1, transition1, .*, norm5, classifier')])
def test_an_unknown_module_lists_those_there_are(model, listed):
    with pytest.raises(WeightsError, match=f'layer5: no such module; choose one of {listed}$'):
        freeze(on_meta(model, depths(model)[0]), 'layer5')


# ---------------------------------------------------------------- through the command line

def argv(data, result_path, *more):
    """A command line of main.py without a flag of the network."""
    return ['--root_path', data.root, '--video_path', 'jpg', '--annotation_path', 'annotation.json',
            '--result_path', result_path, '--dataset', 'ucf101', '--n_threads', 0, '--no_cuda',
            '--batch_size', 6, *more]


def tuning(path, *more):
    return ['--pretrain_path', path, '--n_classes', 3, '--n_epochs', 1, '--no_val',
            '--sample_size', 32, '--sample_duration', 8, '--learning_rate', 0.001, *more]


def inference(path, *more):
    return ['--resume_path', path, '--no_train', '--no_val', '--inference', '--inference_subset',
            'test', *more]


def released(path, names_and_shapes, prefix=''):
    """Write a file as they are released: values by the rule of the golden folder, in float32."""
    weights = {}
    for name, shape in names_and_shapes:
        value = recorded_value(name, shape)
        weights[prefix + name] = value.float() if value.is_floating_point() else value
    torch.save({'epoch': 200, 'state_dict': weights}, path)
    return path


# model, depth, options, prefix: small ones of each generation.
RELEASED = [
    ('resnet', 18, {'resnet_widen_factor': 0.125}, ''),
    ('resnet2p1d', 10, {'resnet_widen_factor': 0.25}, ''),
    ('resnet', 18, {'resnet_widen_factor': 0.125, 'resnet_shortcut': 'A'}, 'module.'),
    ('preresnet', 50, {'resnet_widen_factor': 0.125}, 'module.'),
    ('wideresnet', 50, {'resnet_widen_factor': 0.125}, 'module.'),
    ('resnext', 50, {'resnet_widen_factor': 0.125, 'resnext_cardinality': 8}, 'module.'),
]


def check_goes_in(path, data, tmp_path, capsys, is_2018):
    """Fine-tune the file, and use it as it is."""
    before = rename_2018_keys(load(path)['state_dict'])
    flags = FLAGS_OF_2018 if is_2018 else []
    tuned = tmp_path / 'tuned'
    head = 'fc' if 'fc.bias' in before else 'classifier'
    assert run_main(argv(data, tuned, *tuning(path, '--ft_begin_module', head), *flags)) == 0
    assert 'is of the 2018 code' not in capsys.readouterr().err
    after = load(tuned / 'save_1.pth')
    assert after['state_dict'].keys() == before.keys()
    for name, value in after['state_dict'].items():
        assert name.startswith(f'{head}.') or torch.equal(value, before[name]), name

    used = tmp_path / 'used'
    clip = ['--sample_size', 32, '--sample_duration', 8]
    assert run_main(argv(data, used, *inference(path, *clip))) == 0
    said = capsys.readouterr().err
    assert ('is of the 2018 code' in said) == is_2018
    assert 'holds no class names' in said
    results = json.loads((used / 'test.json').read_text())['results']
    assert len(results) == 3
    for ranked in results.values():
        assert sum(row['score'] for row in ranked) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('model, depth, built, prefix', RELEASED)
def test_released_weights_go_in(model, depth, built, prefix, tiny_data, tmp_path, capsys):
    network = on_meta(model, depth, n_classes=3, **built)
    path = released(tmp_path / 'weights.pth', shapes(network.state_dict()), prefix)
    check_goes_in(path, tiny_data, tmp_path, capsys, bool(prefix))


@pytest.mark.golden
@pytest.mark.parametrize('case_name', ['resnet-18-2018', 'densenet-121-2018keys'])
def test_recorded_weights_of_2018_go_in(case_name, golden_dir, tiny_data, tmp_path, capsys,
                                        pytestconfig):
    if case_name.startswith('densenet') and not pytestconfig.getoption('deep'):
        pytest.skip('takes long, and its names are tested by themselves; add --deep')
    case = json.loads((golden_dir / 'models' / f'{case_name}.json').read_text())
    of_three = {'fc.weight': (3, 512), 'fc.bias': (3,), 'classifier.weight': (3, 1024),
                'classifier.bias': (3,)}
    path = released(tmp_path / 'weights.pth', [(name, of_three.get(name, shape))
                                               for name, shape in case['state_dict']], 'module.')
    check_goes_in(path, tiny_data, tmp_path, capsys, True)


@pytest.fixture(scope='module')
def flow_data(tiny_data):
    """The folder of optical flow beside the frames of tiny_data: the red and the green of these."""
    from PIL import Image
    root = tiny_data.root / 'flow'
    for folder in (tiny_data.root / 'jpg' / 'test').iterdir():
        (root / 'test').mkdir(parents=True, exist_ok=True)
        with h5py.File(root / 'test' / f'{folder.name}.hdf5', 'w') as file:
            for channel, name in enumerate(('video_u', 'video_v')):
                frames = file.create_dataset(name, (8,), h5py.vlen_dtype(np.uint8))
                for i in range(8):
                    with Image.open(folder / f'image_{i + 1:05d}.jpg') as image:
                        path = root / 'frame.jpg'
                        image.getchannel(channel).save(path)
                    frames[i] = np.frombuffer(path.read_bytes(), np.uint8)
    annotation = tiny_data.read()
    for entry in annotation['database'].values():
        entry['annotations']['segment'] = [0, 8]
    (root / 'annotation.json').write_text(json.dumps(annotation))
    return ['--video_path', 'flow', '--annotation_path', 'flow/annotation.json', '--file_type',
            'hdf5']


@pytest.mark.slow
@pytest.mark.parametrize('model', STEMMED)
def test_our_checkpoint_needs_no_flag_but_the_data(model, tiny_data, flow_data, tmp_path, capsys):
    """The same results as from the bare weights and all the flags."""
    normalized = ['--value_scale', 255, '--mean_dataset', '0.5', '--sample_t_stride', 2]
    opts = family_options(model, *normalized)
    data = flow_data if opts.input_type == 'flow' else []
    network = build_network(opts)
    checkpoint.save(tmp_path / 'ours.pth', own_state(opts, network))
    torch.save(network.state_dict(), tmp_path / 'bare.pth')
    flags = ['--model', model, *FAMILY_FLAGS[model], '--sample_size', 32, '--sample_duration', 8,
             *normalized]
    for name, more in (('ours', []), ('bare', flags)):
        assert run_main(argv(tiny_data, tmp_path / name,
                             *inference(tmp_path / f'{name}.pth', *more), *data)) == 0
    ours, bare = (json.loads((tmp_path / name / 'test.json').read_text())
                  for name in ('ours', 'bare'))
    assert ours == bare and len(ours['results']) == 3
