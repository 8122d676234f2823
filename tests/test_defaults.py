"""Flags that are not given: found in the annotation, in the folder and in the family, and said."""

import json
import shutil

import pytest

import models
import weights
from datasets.annotations import read_annotation
from defaults import stored_as, without_effect
from opts import build_parser, parse_opts
from tests.helpers import grey_frames, write_video
from tests.tiny_data import CLASSES, run_main


def argv(data, folder, *more, without=('--dataset', '--n_classes', '--model_depth')):
    """A run of one epoch whose command line lacks these flags."""
    words = data.argv(folder, '--n_epochs', 1, *more)
    for flag in without:
        place = words.index(flag)
        del words[place:place + 2]
    return words


def recorded(folder):
    return json.loads((folder / 'opts.json').read_text())


def as_videos(data):
    """Put a video in the place of each folder of frames."""
    for folder in sorted((data.root / 'jpg').glob('*/*')):
        n_frames = len(list(folder.iterdir()))
        shutil.rmtree(folder)
        write_video(folder.with_suffix('.mp4'), grey_frames(range(n_frames)))


@pytest.fixture
def as_taxonomy(own_data):
    """The annotation in ActivityNet's schema, with the frames where that has them."""
    annotation = own_data.read()
    database = {}
    for name, entry in annotation['database'].items():
        label = entry['annotations'].get('label')
        (own_data.root / 'jpg' / (label or 'test') / name).rename(
            own_data.root / 'jpg' / f'v_{name}')
        marks = [{'label': label, 'segment': [0, 0.3]}] if label else []
        database[name] = {'subset': entry['subset'], 'annotations': marks, 'fps': 25}
    taxonomy = [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None}]
    taxonomy += [{'nodeName': name, 'nodeId': i + 1, 'parentId': 0}
                 for i, name in enumerate(CLASSES)]
    own_data.write({'taxonomy': taxonomy, 'database': database})
    return own_data


def test_what_is_found_is_said_and_recorded(tiny_data, tmp_path, capsys):
    assert run_main(argv(tiny_data, tmp_path)) == 0
    text = ' '.join(capsys.readouterr().out.split())
    assert ('not given: --file_type jpg (in jpg), --n_classes 3 (labels of annotation.json), '
            '--model_depth 18 (of resnet)') in text
    opts = recorded(tmp_path)
    assert (opts['n_classes'], opts['file_type'], opts['model_depth']) == (3, 'jpg', 18)
    state = weights.load(tmp_path / 'save_1.pth')
    assert state['network_options']['n_classes'] == 3 and state['options']['file_type'] == 'jpg'


def test_flags_that_are_given_win(tiny_data, tmp_path, capsys):
    assert run_main(argv(tiny_data, tmp_path, '--n_classes', 5)) == 2
    assert '3 labels' in capsys.readouterr().err
    assert run_main(argv(tiny_data, tmp_path, '--file_type', 'video')) == 2
    assert 'not given: --file_type' not in capsys.readouterr().out
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 1, '--file_type', 'jpg')) == 0
    assert 'not given' not in capsys.readouterr().out


def test_help_has_the_defaults_of_2020():
    shown = ' '.join(build_parser().format_help().split())
    for flag, default in (('n_classes', 400), ('file_type', 'jpg'), ('model_depth', 18),
                          ('dataset', 'kinetics')):
        entry = shown.split(f' --{flag} ')[1].split(' --')[0]
        assert f'(default: {default})' in entry, flag


def test_video_files_are_found_and_extraction_is_advised(own_data, tmp_path, capsys):
    as_videos(own_data)
    command = argv(own_data, tmp_path)
    assert run_main(command) == 0
    output = capsys.readouterr().out
    assert '--file_type video (in jpg)' in ' '.join(output.split())
    assert output.count('util_scripts.generate_video_jpgs') == 1
    assert recorded(tmp_path)['file_type'] == 'video'
    assert run_main([*command, '--resume_path', tmp_path / 'save_1.pth', '--no_train']) == 0
    assert 'generate_video_jpgs' not in capsys.readouterr().out


def test_what_goes_badly_with_what_is_found(own_data, tmp_path, capsys):
    as_videos(own_data)
    assert run_main(argv(own_data, tmp_path, '--fast_decode')) == 2
    assert '--file_type video' in capsys.readouterr().err


def test_frames_come_before_videos(own_data, tmp_path):
    """A folder may hold both."""
    folder = own_data.frame().parent
    write_video(folder.with_suffix('.mp4'), grey_frames(range(9)))
    opts = parse_opts(own_data.argv(tmp_path))
    annotation = read_annotation(opts.annotation_path)
    assert stored_as(opts, annotation) == 'jpg'
    shutil.rmtree(own_data.root / 'jpg')
    assert stored_as(opts, annotation) is None
    (own_data.root / 'jpg/green').mkdir(parents=True)
    (own_data.root / 'jpg/green/green_0.hdf5').touch()
    assert stored_as(opts, annotation) == 'hdf5'


def test_a_taxonomy_is_activitynets(as_taxonomy, tmp_path, capsys):
    assert run_main(argv(as_taxonomy, tmp_path, '--model_depth', 10,
                         without=('--dataset', '--n_classes'))) == 0
    assert '--dataset activitynet (annotation.json has a taxonomy)' in ' '.join(
        capsys.readouterr().out.split())
    assert recorded(tmp_path)['dataset'] == 'activitynet'
    assert run_main(as_taxonomy.argv(tmp_path)) == 2  # which says ucf101
    assert 'taxonomy' in capsys.readouterr().err


@pytest.mark.parametrize('model, depth', [
    ('resnet', 18), ('resnet2p1d', 18), ('preresnet', 18), ('wideresnet', 50), ('resnext', 50),
    ('densenet', 121), ('csn', 101), ('i3d', None), ('x3d', None)])
def test_depth_of_a_family(model, depth):
    assert models.default_depth(model) == depth
    assert depth is None or depth in models.depths(model)


@pytest.mark.slow
def test_the_depth_of_a_family_is_taken(tiny_data, tmp_path):
    assert run_main(argv(tiny_data, tmp_path, '--model', 'densenet')) == 0
    assert recorded(tmp_path)['model_depth'] == 121


def test_a_checkpoint_says_depth_and_classes(tiny_data, tmp_path, capsys):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 1)) == 0
    capsys.readouterr()
    assert run_main(argv(tiny_data, tmp_path / 'evaluated', '--no_train', '--resume_path',
                         tmp_path / 'save_1.pth')) == 0
    assert '--model_depth' not in capsys.readouterr().out
    assert recorded(tmp_path / 'evaluated')['model_depth'] == 10


# ---------------------------------------------------------------- flags without effect

@pytest.mark.parametrize('flags, said', [
    ('--accimage', ['--accimage has no effect: that image library is no longer kept']),
    ('--no_train --resume_path x.pth --ema_decay .9 --mixup 1 --learning_rate 1',
     ['--ema_decay, --mixup have no effect with --no_train']),
    ('--no_train --random_weights --freeze_bn --dropout .5 --no_norm_decay --speed_jitter 1 2',
     ['--speed_jitter, --no_norm_decay, --freeze_bn, --dropout have no effect with --no_train']),
    ('--inference_crop nocrop --no_val --n_val_samples 2',
     ['--inference_crop has no effect without --inference',
      '--n_val_samples has no effect with --no_val']),
    ('--n_pretrain_classes 400 --overwrite_milestones',
     ['--n_pretrain_classes has no effect without --pretrain_path',
      '--overwrite_milestones has no effect without --resume_path']),
    ('--lr_scheduler plateau --multistep_milestones 5',
     ['--multistep_milestones has no effect with --lr_scheduler plateau']),
    ('--resume_path x.pth --plateau_patience 5', []),
    ('--train_crop center --train_crop_min_scale .5 --mean 0 0 0 --no_mean_norm',
     ['--train_crop_min_scale has no effect with --train_crop center',
      '--mean has no effect with --no_mean_norm']),
    ('--model i3d --model_depth 50', ['--model_depth has no effect: i3d has no such option']),
    ('--model_depth 50', []),
    # The family is that of the file.
    ('--pretrain_path a.pth --csn_interaction preserved', [])])
def test_flags_without_effect_are_said(tiny_data, flags, said):
    words = argv(tiny_data, 'r', *flags.split())
    place = words.index('--resnet_widen_factor')
    del words[place:place + 2]
    assert list(without_effect(parse_opts(words))) == said
