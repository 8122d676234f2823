"""I3D, CSN and X3D as families: told by their weights, frozen in part, through main.py."""

import json

import pytest
import torch
import torch.nn.functional as F

from datasets.presets import spatial_transform
from features import FeatureTap
from model import freeze, load_model, stages
from models import generate_model
from models.class_names import kinetics_400
from opts import parse_opts
from runtime.errors import InputError
from spatial_transforms import CenterCrop, Resize
from tests.tiny_data import run_main
from weights import read

pytestmark = pytest.mark.slow

FAMILIES = {
    'i3d': {}, 'csn': {'model_depth': 26, 'csn_interaction': 'preserved'},
    'x3d': {'model_size': 'xs'}}
BEGINS = {'i3d': 'Mixed_5c', 'csn': 'blocks.4', 'x3d': 'blocks.4'}


def network_of(model, n_classes=5, **options):
    torch.manual_seed(1)
    return generate_model(model=model, n_classes=n_classes, **{**FAMILIES[model], **options})


def clips(n_frames=16, size=64):
    return torch.randn(2, 3, n_frames, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize('model, options', [
    *FAMILIES.items(), ('csn', {'model_depth': 50}), ('x3d', {'model_size': 'l'}),
    *((model, {'input_type': 'flow'}) for model in FAMILIES)])
def test_bare_weights_tell_their_network(model, options, tmp_path):
    network = network_of(model, **options)
    torch.save(network.state_dict(), tmp_path / 'bare.pth')
    weights = read(tmp_path / 'bare.pth', network.options)
    assert weights.network == network.options
    assert weights.class_names is None and not weights.is_ours


@pytest.mark.parametrize('model, options', [
    ('i3d', {}), ('s3d', {}), ('csn', {'model_depth': 26}), ('resnet', {'model_depth': 10})])
def test_a_new_classifier_of_few_classes_begins_unsure(model, options):
    torch.manual_seed(1)
    network = generate_model(model=model, n_classes=2, **options).eval()
    features = torch.rand(8, network.num_features, 2, 7, 7)
    loss = F.cross_entropy(network.forward_head(features), torch.tensor([0, 1] * 4))
    assert 0.5 < loss < 1.2  # log 2 is 0.69


@pytest.mark.parametrize('model, mean', [('i3d', 0.5), ('csn', 0.45), ('x3d', 0.45)])
def test_weights_of_other_projects_bring_class_names_and_preprocessing(model, mean, tmp_path):
    network = network_of(model, n_classes=400)
    key = 'state_dict' if model == 'i3d' else 'model_state'
    torch.save({key: network.state_dict()}, tmp_path / 'weights.pyth')
    loaded, info = load_model(tmp_path / 'weights.pyth')
    assert info.class_names == kinetics_400() and info.has_names
    assert info.opts.sample_size == 224
    grey = torch.full((1, 3, 1, 1, 1), 255, dtype=torch.uint8)
    spread = 0.5 if model == 'i3d' else 0.225
    torch.testing.assert_close(info.normalize(grey).flatten(),
                               torch.full((3,), (1 - mean) / spread))
    with torch.inference_mode():
        assert torch.equal(loaded(clips()), network.eval()(clips()))


@pytest.mark.parametrize('model', FAMILIES)
def test_weights_with_a_part_missing_are_one_sentence(model, tmp_path):
    weights = network_of(model).state_dict()
    first = {'i3d': 'logits.conv3d.weight', 'csn': 'blocks.0.conv.weight',
             'x3d': 'blocks.0.conv.conv_t.weight'}[model]
    del weights[first]
    torch.save(weights, tmp_path / 'bare.pth')
    with pytest.raises(InputError, match=f'{first} is missing'):
        read(tmp_path / 'bare.pth')


def test_stages_are_in_the_order_of_the_data():
    assert list(stages(network_of('i3d')))[0] == 'Conv3d_1a_7x7'
    assert list(stages(network_of('i3d')))[-1] == 'logits'
    assert list(stages(network_of('x3d'))) == [f'blocks.{number}' for number in range(6)]


@pytest.mark.parametrize('model', FAMILIES)
def test_what_comes_before_a_module_is_frozen(model):
    network = network_of(model)
    freeze(network, BEGINS[model])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    F.cross_entropy(network(clips()), torch.tensor([0, 3])).backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad
    for name, value in network.state_dict().items():
        is_trained = name.startswith((BEGINS[model], 'logits', 'blocks.5'))
        assert torch.equal(value, before[name]) != is_trained, name
    with pytest.raises(InputError, match='layer5: no such module; choose one of .*'
                                         f'{BEGINS[model]}, '):
        freeze(network, 'layer5')


@pytest.mark.parametrize('model', FAMILIES)
def test_features_of_a_module_and_of_the_classifier(model):
    network = network_of(model).eval()
    with torch.inference_mode():
        with FeatureTap(network) as tap:
            network(clips())
            pooled = tap.take()
        expected = network.forward_head(network.forward_features(clips()), pre_logits=True)
        torch.testing.assert_close(pooled, expected)
        with FeatureTap(network, BEGINS[model]) as tap:
            network(clips())
            assert tap.take().shape[0] == 2


@pytest.mark.parametrize('model', FAMILIES)
def test_trains_resumes_and_fine_tunes_through_main(model, tiny_data, tmp_path):
    flags = [f'--{name}={value}' for name, value in FAMILIES[model].items()]
    base = [*tiny_data.argv(tmp_path / 'run'), '--model', model, *flags, '--n_epochs', '1',
            '--batch_size', '12']
    assert run_main(base) == 0
    saved = tmp_path / 'run' / 'save_1.pth'
    weights = read(saved)
    assert weights.is_ours and weights.network['model'] == model
    assert FAMILIES[model].items() <= weights.network.items()
    more = ['--n_epochs', '2', '--resume_path', 'auto', '--grad_checkpointing']
    assert run_main([*base, *more]) == 0
    rows = (tmp_path / 'run' / 'val.log').read_text().splitlines()
    assert len(rows) == 3
    tuned = [*tiny_data.argv(tmp_path / 'tuned'), *flags, '--pretrain_path', saved,
             '--n_epochs', '1', '--ft_begin_module', BEGINS[model], '--inference']
    assert run_main(tuned) == 0
    assert len(json.loads((tmp_path / 'tuned' / 'val.json').read_text())['results']) == 6


def test_a_clip_that_is_too_small_is_one_sentence(tiny_data, tmp_path, capsys):
    argv = [*tiny_data.argv(tmp_path / 'run'), '--model', 'i3d', '--sample_size', '16']
    assert run_main(argv) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith('error: i3d takes clips of at least 8 frames and 32 pixels')


@pytest.mark.parametrize('flags, shape', [
    ([], (32, 32)), (['--inference_crop', 'nocrop'], (40, 53)),
    (['--inference_views', '2x3'], (32, 32))])
def test_frames_are_resized_to_sample_resize_before_the_crop(flags, shape):
    opts = parse_opts(['--video_path', 'a', '--annotation_path', 'b', '--result_path', 'c',
                       '--sample_size', '32', '--sample_resize', '40', *flags])
    frames = torch.rand(2, 3, 36, 48).mul(255).to(torch.uint8)
    assert spatial_transform(opts, 'inference')(frames).shape[-2:] == shape
    resized = Resize(40)(frames)
    assert torch.equal(spatial_transform(opts, 'val')(frames), CenterCrop(32)(resized))


def test_a_resize_below_the_crop_is_one_sentence():
    with pytest.raises(InputError, match='--sample_resize 100 leaves no crop of --sample_size 112'):
        parse_opts(['--video_path', 'a', '--annotation_path', 'b', '--result_path', 'c',
                    '--sample_resize', '100'])
