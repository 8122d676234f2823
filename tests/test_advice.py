"""The cures that errors give: followed literally, a command gets further."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import models
from checkpoint import save
from features import Features
from model import build_network
from opts import parse_opts
from results import PartialResults
from runtime import errors
from tests.helpers import ROOT
from tests.tiny_data import run_main
from util_scripts import eval_accuracy
from util_scripts.helpers.neighbours import videos_of

# Flags that fail, words of the sentence, and the flags that it asks for.
FLAGS = {
    'nothing to do': ('--no_train --no_val', 'drop one', '--no_val'),
    'random weights of a training': ('--random_weights', 'add --no_train',
                                     '--random_weights --no_train'),
    'random weights and a file': ('--no_train --random_weights --resume_path a.pth',
                                  'drop one', '--no_train --random_weights'),
    'profile': ('--profile 3 --no_train', 'drop --no_train', '--profile 3'),
    'plateau': ('--lr_scheduler plateau --no_val', 'drop --no_val', '--lr_scheduler plateau'),
    'plateau, other cure': ('--lr_scheduler plateau --no_val', 'or use multistep',
                            '--lr_scheduler multistep --no_val'),
    'nesterov': ('--nesterov --momentum 0', 'above 0', '--nesterov --momentum 0.1'),
    'even kernel': ('--conv1_t_size 4', 'odd', '--conv1_t_size 5'),
    'no crop': ('--sample_resize 16', 'at least as many', '--sample_resize 32'),
    'flow': ('--input_type flow', 'add --file_type hdf5', '--input_type flow --file_type hdf5'),
    'fast decoding': ('--fast_decode --file_type video', 'drop one', '--file_type video'),
    'views': ('--inference --inference_views 10x3 --inference_crop nocrop', 'drop one',
              '--inference --inference_views 10x3'),
    'views and stride': ('--inference --inference_views 10x3 --inference_stride 8', 'drop one',
                         '--inference --inference_stride 8'),
    'form of views': ('--inference --inference_views 10', 'such as 10x3',
                      '--inference --inference_views 10x3'),
    'features': ('--output_features f.h5', 'add --inference', '--output_features f.h5 --inference'),
    'features in a folder': ('--output_features . --inference', 'is a folder; give a file in it',
                             '--output_features f.h5 --inference'),
    'features in a device': ('--output_features /dev/null --inference',
                             'is a pipe, socket or device; give a file',
                             '--output_features f.h5 --inference'),
    'features of another ending': ('--output_features f.npy --inference',
                                   'HDF5 file that is written; let its name end with .h5',
                                   '--output_features f.h5 --inference'),
    'module': ('--inference --feature_module layer4', 'add --output_features FILE.h5',
               '--inference --feature_module layer4 --output_features FILE.h5'),
    'epochs': ('--n_epochs 0', 'at least 1', '--n_epochs 1'),
    'batch': ('--batch_size 0', 'at least 1', '--batch_size 1'),
    'batch of a word': ('--batch_size many', 'at least 1', '--batch_size 1'),
    'validation clips': ('--n_val_samples 0', 'at least 1', '--n_val_samples 1'),
    'classes': ('--n_classes 0', 'at least 1', '--n_classes 1'),
    'size': ('--sample_size 0', 'at least 1', '--sample_size 1'),
    'duration': ('--sample_duration -1', 'at least 1', '--sample_duration 1'),
    'time stride': ('--sample_t_stride 0', 'at least 1', '--sample_t_stride 1'),
    'stride of windows': ('--inference_stride 0', 'at least 1', '--inference_stride 1'),
    'checkpoint': ('--checkpoint 0', 'at least 1', '--checkpoint 1'),
    'milestone': ('--multistep_milestones 0', 'at least 1', '--multistep_milestones 1'),
    'rate': ('--learning_rate 0', 'above 0', '--learning_rate 0.1'),
    'rate nan': ('--learning_rate nan', 'above 0', '--learning_rate 0.1'),
    'widening': ('--resnet_widen_factor 0', 'above 0', '--resnet_widen_factor 1'),
    'momentum': ('--momentum 1', 'below 1', '--momentum 0.9'),
    'deviation': ('--std 0 1 1', 'above 0', '--std 1 1 1'),
    'crop': ('--train_crop middle', 'center', '--train_crop center'),
    'time crop': ('--train_t_crop middle', 'center', '--train_t_crop center'),
    'model': ('--model resnet_50', 'did you mean resnet', '--model resnet'),
    'data set': ('--dataset ava', 'kinetics', '--dataset kinetics'),
    'storage': ('--file_type png', 'jpg', '--file_type jpg'),
    'input': ('--input_type depth', 'rgb', '--input_type rgb'),
    'precision': ('--precision half', 'fp16', '--precision fp16'),
    'memory': ('--memory_format nhwc', 'channels_last', '--memory_format channels_last'),
    'optimizer': ('--optimizer adam', 'sgd', '--optimizer sgd'),
    'schedule': ('--lr_scheduler linear', 'multistep', '--lr_scheduler multistep'),
    'scale': ('--value_scale 2', '255', '--value_scale 255'),
    'statistics': ('--mean_dataset imagenet', 'kinetics', '--mean_dataset kinetics'),
    'shortcut': ('--resnet_shortcut C', 'A', '--resnet_shortcut A'),
    'subset': ('--inference --inference_subset all', 'val', '--inference --inference_subset val'),
    'bad frames': ('--bad_frames ignore', 'skip', '--bad_frames skip'),
    'interaction': ('--csn_interaction none', 'reduced', '--csn_interaction reduced'),
    'size of x3d': ('--model_size xl', 'xs', '--model_size xs'),
    'two starts': ('--resume_path auto --no_train --random_weights', 'drop one',
                   '--no_train --random_weights'),
    'seed': ('--manual_seed -1', 'at least 0', '--manual_seed 0'),
    'threads': ('--n_threads -1', 'at least 0', '--n_threads 0'),
    'kept': ('--keep -1', 'at least 0', '--keep 0'),
    'patience': ('--plateau_patience -1', 'at least 0', '--plateau_patience 0'),
    'minutes': ('--checkpoint_minutes -1', 'at least 0', '--checkpoint_minutes 0'),
    'decay': ('--weight_decay -1', 'at least 0', '--weight_decay 0'),
    'average of a training': ('--use_ema yes --resume_path a.pth', 'those of its last step',
                              '--use_ema yes --resume_path a.pth --no_train'),
    'average of nothing': ('--use_ema no', 'give --resume_path or --pretrain_path',
                           '--use_ema no --pretrain_path a.pth'),
    'backend': ('--backend openvino', 'does not train them: add --no_train',
                '--backend openvino --no_train --random_weights'),
    'classifier': ('--keep_classifier', 'add --pretrain_path FILE, or drop it',
                   '--keep_classifier --pretrain_path a.pth'),
    'of sgd': ('--optimizer adamw --momentum 0.5', 'is for --optimizer sgd',
               '--optimizer adamw'),
    'of adamw': ('--adam_betas 0.9 0.99', 'is for --optimizer adamw: add that',
                 '--adam_betas 0.9 0.99 --optimizer adamw'),
    'milestones of cosine': ('--lr_scheduler cosine --multistep_milestones 1',
                             'and this is cosine: drop one', '--multistep_milestones 1'),
    'warm-up': ('--warmup_epochs 2', 'leaves none of --n_epochs', '--warmup_epochs 1'),
    'warm-up and milestones': ('--warmup_epochs 1.5 --multistep_milestones 1',
                               'or later milestones',
                               '--warmup_epochs 1.5 --multistep_milestones 2'),
    'form of a schedule': ('--clip_schedule 8x32', 'FRAMESxPIXELS@EPOCHS, such as 8x64@40',
                           '--n_epochs 40 --sample_size 64 --clip_schedule 8x64@40'),
    'epochs of a schedule': ('--clip_schedule 4x16@1 8x32@2', 'make them the same, or leave --n_ep',
                             '--clip_schedule 4x16@1 8x32@2 --n_epochs 3'),
    'end of a schedule': ('--clip_schedule 4x16@1 8x16@1', 'make them the same, or leave these',
                          '--clip_schedule 4x16@1 8x16@1 --sample_size 16'),
    'order of a schedule': ('--clip_schedule 16x64@1 8x32@1', 'put these last',
                            '--clip_schedule 8x32@1 16x64@1 --sample_duration 16 --sample_size 64'),
    'unfreezing': ('--unfreeze_epoch 1', 'add that, or drop it',
                   '--unfreeze_epoch 1 --ft_begin_module fc'),
    'late unfreezing': ('--unfreeze_epoch 2 --ft_begin_module fc', 'give an earlier one',
                        '--unfreeze_epoch 1 --ft_begin_module fc'),
    'frozen batch norms': ('--freeze_bn', 'none worth keeping: give --pretrain_path FILE',
                           '--freeze_bn --pretrain_path a.pth'),
    'smoothing': ('--label_smoothing 0.1 --multi_label', '--label_smoothing is for one label',
                  '--label_smoothing 0.1'),
    'teacher': ('--teacher_path a.pth --multi_label', '--teacher_path is for one label',
                '--teacher_path a.pth'),
    'no teacher': ('--distill_weight 0.5', 'is for distillation: add --teacher_path FILE',
                   '--distill_weight 0.5 --teacher_path a.pth'),
    'stopping': ('--early_stopping 2 --no_val', 'watches the validation: drop --no_val',
                 '--early_stopping 2'),
    'index': ('--file_type jpg --video_index i', '--video_index is for video files',
              '--file_type video --video_index i'),
    'template': ('--file_type hdf5 --frame_template %d.jpg', 'for folders of frames: add',
                 '--file_type jpg --frame_template %d.jpg'),
    'form of a template': ('--frame_template a.jpg', 'a file name with one %d',
                           '--frame_template frame_%05d.png'),
    'exact pixels': ('--exact_pixels', '--exact_pixels is for video files',
                     '--exact_pixels --file_type video'),
    'magnitude': ('--rand_augment 2 31', 'give a smaller M', '--rand_augment 2 30'),
    'images of flow': ('--input_type flow --file_type hdf5 --rand_augment 2 9',
                       'and optical flow is none: drop it', '--input_type flow --file_type hdf5'),
    'colours of flow': ('--input_type flow --file_type hdf5 --colorjitter',
                        'optical flow has none: drop it', '--input_type flow --file_type hdf5'),
    'jitter': ('--colorjitter 0.1', 'give the others too', '--colorjitter 0.1 0.1 0.1 0.1'),
    'hue': ('--colorjitter 0.1 0.1 0.1 0.6', 'give a smaller fourth number',
            '--colorjitter 0.1 0.1 0.1 0.5'),
    'operations': ('--rand_augment 101 9', 'leaves nothing of a clip: give an N',
                   '--rand_augment 100 9'),
    'no speed': ('--speed_jitter 1 101', 'is no change of speed: give 0.01 to 100',
                 '--speed_jitter 1 100'),
    'proportion': ('--mixup 0.0001', 'that is always the same: give 0.001 to 1000',
                   '--mixup 0.001'),
    'speed': ('--speed_jitter 2 1', 'has LOW above HIGH', '--speed_jitter 1 2'),
    'draws': ('--repeated_aug 3', 'is no multiple of --repeated_aug 3: give --batch_size 6',
              '--repeated_aug 3 --batch_size 6'),
    'mixed alone': ('--mixup 0.2 --batch_size 1', 'give a larger batch',
                    '--mixup 0.2 --batch_size 2'),
    'weighed mixtures': ('--cutmix 1 --class_weights balanced', 'weighs a clip by one: drop one',
                         '--cutmix 1 --balanced_sampling'),
    'balanced twice': ('--balanced_sampling --class_weights balanced', 'make up for rare classes',
                       '--balanced_sampling'),
    'start and going on': ('--resume_path a.pth --pretrain_path b.pth', 'keep one of them',
                           '--resume_path a.pth'),
    'misspelt flag': ('--n_epoch_s 3', 'did you mean --n_epochs?', '--n_epochs 3'),
    'a word too many': ('three', 'unknown argument three', ''),
}


def error_of(capsys):
    """The sentence of the command that has ended."""
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize('name', FLAGS)
def test_advice_on_flags(tiny_data, tmp_path, capsys, name):
    fails, words, follows = FLAGS[name]
    # What comes after the flags are checked is that the annotation, or weights, are not there.
    argv = tiny_data.argv(tmp_path / 'r', '--annotation_path', 'gone.json')
    assert run_main([*argv, *fails.split()]) == 2
    error = error_of(capsys)
    assert words in error and ': no such' not in error
    assert run_main([*argv, *follows.split()]) == 2
    assert ': no such' in error_of(capsys)


@pytest.mark.parametrize('flag', ['video_path', 'annotation_path', 'result_path'])
def test_advice_on_missing_paths(tiny_data, tmp_path, capsys, flag):
    argv = tiny_data.argv(tmp_path / 'r', '--annotation_path', 'gone.json')
    while f'--{flag}' in argv:
        place = argv.index(f'--{flag}')
        given = argv[place:place + 2]
        del argv[place:place + 2]
    assert run_main(argv) == 2
    assert f'--{flag} is missing: give the path' in error_of(capsys)
    assert run_main([*argv, *given]) == 2
    assert 'gone.json: no such annotation file; check' in error_of(capsys)


# ---------------------------------------------------------------- weights

def test_no_weights_are_no_evaluation(data, tmp_path, capsys):
    argv = data.argv(tmp_path / 'r', '--no_train', '--no_val', '--inference')
    assert run_main(argv) == 2
    assert '--random_weights' in error_of(capsys)
    assert not (tmp_path / 'r').exists()
    assert run_main([*argv, '--random_weights']) == 0
    assert (tmp_path / 'r/val.json').exists()


def test_a_checkpoint_of_another_task(data, tmp_path, capsys):
    two = data.read()
    two['labels'] = two['labels'][:2]
    two['database'] = {name: entry for name, entry in two['database'].items()
                       if not name.startswith('blue')}
    (data.root / 'two.json').write_text(json.dumps(two))
    argv = data.argv(tmp_path / 'r', '--annotation_path', 'two.json', '--n_epochs', 1, '--no_val')
    at = argv.index('--n_classes')
    for classes in ([], ['--n_classes', 2]):
        command = [*argv[:at], *argv[at + 2:], *classes]
        assert run_main([*command, '--resume_path', 'save_1.pth']) == 2
        assert '--pretrain_path' in error_of(capsys)
        assert run_main([*command, '--pretrain_path', 'save_1.pth']) == 0


def test_videos_where_frames_are_looked_for(data, tmp_path, capsys):
    folder = tmp_path / 'jpg'
    shutil.copytree(data.root / 'jpg', folder)
    shutil.rmtree(folder / 'red/red_0')
    (folder / 'red/red_0.mp4').write_bytes(b'no video')
    argv = data.argv(tmp_path / 'r', '--video_path', folder)
    assert run_main([*argv, '--file_type', 'jpg']) == 2
    assert 'red_0.mp4' in (error := error_of(capsys)) and '--file_type video' in error
    assert run_main([*argv, '--file_type', 'video']) == 2
    assert '--file_type' not in error_of(capsys)


# ---------------------------------------------------------------- what is not finite

@pytest.mark.slow
def test_scores_that_are_not_finite(data, tmp_path, capsys):
    file = torch.load(data.root / 'save_1.pth', weights_only=True)
    file['state_dict']['fc.weight'] *= 1e38
    torch.save(file, data.root / 'large.pth')
    argv = data.argv(tmp_path, '--resume_path', 'large.pth', '--no_train')
    (tmp_path / 'val.json').write_text('kept')
    for flags in (['--no_val', '--inference'], []):
        assert run_main([*argv, *flags, '--precision', 'fp16']) == 2
        error = error_of(capsys)
        assert error.split(':')[1].strip().split('_')[0] in ('red', 'green', 'blue')
        assert 'no finite scores' in error and 'bf16' in error
    assert (tmp_path / 'val.json').read_text() == 'kept'


def test_weights_that_are_not_finite(data, tmp_path, capsys):
    file = torch.load(data.root / 'save_1.pth', weights_only=True)
    file['state_dict']['conv1.weight'][0] = torch.nan
    torch.save(file, data.root / 'nan.pth')
    for flags in (['--resume_path', 'nan.pth', '--no_train'], ['--pretrain_path', 'nan.pth']):
        assert run_main(data.argv(tmp_path / 'r', *flags)) == 2
        assert 'nan or infinity in conv1.weight' in error_of(capsys)
    assert run_main(data.argv(tmp_path / 'r', '--pretrain_path', 'save_1.pth', '--n_epochs', 1,
                              '--no_val')) == 0


def test_results_that_are_not_finite(data, tmp_path, capsys):
    path = tmp_path / 'val.json'
    names = [f'{name}_{i}' for name in ('red', 'green', 'blue') for i in (4, 5)]
    results = {name: [{'label': 'red', 'score': float('nan')}] for name in names}
    path.write_text(json.dumps({'results': results}))
    command = [str(data.annotation_path), str(path), '--subset', 'val', '-k', '1']
    with pytest.raises(SystemExit) as ended:
        errors.run(eval_accuracy.main, command)
    assert ended.value.code == 2
    assert "video 'red_4' are not finite" in error_of(capsys)
    path.write_text(path.read_text().replace('NaN', '0.5'))
    with pytest.raises(SystemExit) as ended:
        errors.run(eval_accuracy.main, command)
    assert not ended.value.code


def test_features_that_are_not_finite():
    features = np.ones((2, 3), np.float32)
    features[1, 2] = np.inf
    content = Features(features, ['a', 'b'], np.zeros((2, 2), int), np.array([0, 1]), ['x', 'y'])
    with pytest.raises(errors.InputError, match="video 'b' are not finite.* bf16"):
        videos_of(content)
    features[1, 2] = 1
    assert videos_of(content)[2].tolist() == ['a', 'b']


# ---------------------------------------------------------------- files of flags

# Content of flags.txt, words of the error, and the content that follows the advice.
FLAG_FILES = {
    'value': ('--n_epochs 0', 'flags.txt, line 1: ', '--n_epochs 1'),
    'quotes': ('--n_epochs "1', 'mend the line', '--n_epochs 1'),
    'another file': ('@more.txt', '@more.txt is for the command line alone', '--n_epochs 1')}
RECORDS = {
    'no JSON': ('x', 'not JSON (', '{}'), 'a list': ('[]', 'holds no options by name; ', '{}'),
    'value': ('{"n_epochs": 0}', 'opts.json: argument --n_epochs', '{"n_epochs": 1}')}


@pytest.mark.parametrize('name', FLAG_FILES)
def test_advice_on_files_of_flags(tiny_data, tmp_path, monkeypatch, capsys, name):
    fails, words, follows = FLAG_FILES[name]
    monkeypatch.chdir(tmp_path)
    argv = tiny_data.argv(tmp_path / 'r', '--annotation_path', 'gone.json')
    (tmp_path / 'flags.txt').write_text(fails)
    assert run_main([*argv, '@flags.txt']) == 2
    assert words in error_of(capsys)
    (tmp_path / 'flags.txt').write_text(follows)
    assert run_main([*argv, '@flag.txt']) == 2
    meant = re.search(r'no file of flags can be read there \(.*\); did you mean (\S+)\?',
                      error_of(capsys))[1]
    assert run_main([*argv, f'@{meant}']) == 2
    assert 'gone.json: no such' in error_of(capsys)


@pytest.mark.parametrize('name', RECORDS)
def test_advice_on_options_of_a_run(tiny_data, tmp_path, capsys, name):
    fails, words, follows = RECORDS[name]
    path = tmp_path / 'opts.json'
    argv = tiny_data.argv(tmp_path / 'r', '--annotation_path', 'gone.json', '--opts', path)
    assert run_main(argv) == 2
    error = error_of(capsys)
    assert 'cannot be read (No such file or directory); give the opts.json in the result' in error
    path.write_text(fails)
    del argv[argv.index('--n_epochs'):][:2]
    at = argv.index('--n_epochs')
    assert run_main([*argv[:at], *argv[at + 2:]]) == 2
    assert words in error_of(capsys)
    path.write_text(follows)
    assert run_main([*argv[:at], *argv[at + 2:]]) == 2
    assert 'gone.json: no such' in error_of(capsys)


# ---------------------------------------------------------------- networks

# Options of a network and the size of a clip, words of the error, and others that it asks for.
NETWORKS = {
    'family': ('no model', {'model': 'vgg'}, {'model': 'resnet'}),
    'depth': ('has no depth 11: choose one of 10', {'model_depth': 11}, {'model_depth': 10}),
    'input': ('no input type', {'input_type': 'depth'}, {'input_type': 'rgb'}),
    'shortcut': ('choose A (zero padding) or B', {'resnet_shortcut': 'C'},
                 {'resnet_shortcut': 'A'}),
    'attention': ('no attention', {'attention': 'some'}, {'attention': 'none'}),
    'width': ('leaves no channels: give at least 0.015625', {'resnet_widen_factor': 0.01},
              {'resnet_widen_factor': 0.015625}),
    'interaction': ('no interaction',
                    {'model': 'csn', 'model_depth': 26, 'csn_interaction': 'none'},
                    {'model': 'csn', 'model_depth': 26, 'csn_interaction': 'reduced'}),
    'size of x3d': ('x3d has no size', {'model': 'x3d', 'model_size': 'xl'},
                    {'model': 'x3d', 'model_size': 'xs'}),
    'clip of i3d': ('i3d takes clips of at least 8 frames and 32 pixels',
                    {'model': 'i3d', 'clip': (4, 32)}, {'model': 'i3d', 'clip': (8, 32)}),
    'clip of s3d': ('takes clips of at least 14 frames and 224 pixels',
                    {'model': 's3d', 'clip': (4, 32)}, {'model': 's3d', 'clip': (14, 224)}),
    'clip of mvit': ('--sample_duration 16 --sample_size 224',
                     {'model': 'mvit_v2_s', 'clip': (8, 224)},
                     {'model': 'mvit_v2_s', 'clip': (16, 224)})}


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_advice_on_networks(name):
    def forward(clip=(8, 32), **options):
        with torch.device('meta'):
            network = models.generate_model(**{'model': 'resnet', 'model_depth': 10,
                                               'n_classes': 3, **options})
            network.eval()(torch.zeros(1, 3, clip[0], clip[1], clip[1]))
    words, fails, follows = NETWORKS[name]
    with pytest.raises(errors.InputError, match=re.escape(words)):
        forward(**fails)
    forward(**follows)


def test_attention_of_another_family(tiny_data):
    def build(*flags):
        with torch.device('meta'):
            build_network(parse_opts(tiny_data.argv('r', *flags)))
    with pytest.raises(errors.InputError, match='drop the flag, or give a --model that is a ResN'):
        build('--model', 'i3d', '--attention', 'se')
    build('--model', 'i3d')
    build('--model', 'preresnet', '--attention', 'se')


# ---------------------------------------------------------------- result folders, trainings

def test_folders_that_cannot_be_written(data, tmp_path, capsys):
    place = tmp_path / 'r'
    argv = data.argv(place, '--no_val', '--n_epochs', 1, '--result_path')
    assert run_main([*argv, '/dev/null/r']) == 2
    assert 'results cannot be written there (Not a directory); give another' in error_of(capsys)
    (place / '.lock').mkdir(parents=True)
    assert run_main([*argv, place]) == 2
    assert 'results cannot be written there (Is a directory); give another' in error_of(capsys)
    (place / '.lock').rmdir()
    (place / 'opts.json').mkdir()
    assert run_main([*argv, place]) == 2
    assert 'move it away, or give another --result_path' in error_of(capsys)
    (place / 'opts.json').rmdir()
    (place / 'environment.json').mkdir()
    assert run_main([*argv, place]) == 2
    assert 'mend the permissions or give another path' in error_of(capsys)
    assert run_main([*argv, tmp_path / 'other']) == 0


def test_another_training_in_the_folder(data, tmp_path, capsys):
    argv = data.argv(tmp_path / 'r', '--no_val', '--n_epochs', 1, '--result_path')
    with subprocess.Popen(
            [sys.executable, '-c', 'import pathlib, sys; from runtime.locks import result_folder\n'
             f'with result_folder(pathlib.Path({str(tmp_path / "r")!r}), is_training=True, '
             'is_new=True):\n    print("held", flush=True)\n    sys.stdin.read()'],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b'held\n'
        assert run_main([*argv, tmp_path / 'r']) == 2
        assert 'wait for its end or stop it, and go on with --resume_path' in error_of(capsys)
        assert run_main([*argv, tmp_path / 'other']) == 0
        other.stdin.close()
    assert run_main([*argv, tmp_path / 'r', '--resume_path', 'auto']) == 0


def test_a_checkpoint_that_cannot_be_written(tmp_path):
    (tmp_path / 'save_1.pth').mkdir()
    with pytest.raises(errors.InputError, match='free space or mend the permissions'):
        save(tmp_path / 'save_1.pth', {})
    (tmp_path / 'save_1.pth').rmdir()
    save(tmp_path / 'save_1.pth', {})


def test_partial_results(tmp_path):
    def partial():
        return PartialResults(tmp_path, 'val', {})
    with partial() as results:
        results.add('red_4', {'result': 3})
    path, = tmp_path.iterdir()
    with pytest.raises(errors.InputError, match='a row of it.*; move it away to begin afresh'):
        partial().read()
    path.unlink()
    path.mkdir()
    with pytest.raises(errors.InputError, match=r'cannot be read \(.*move it away to begin afr'):
        partial().read()
    path.rmdir()
    assert partial().read() == {}


def test_a_loss_that_is_not_finite(data, tmp_path, capsys):
    argv = data.argv(tmp_path / 'r', '--no_val', '--n_epochs', 1, '--batch_size', 4)
    assert run_main([*argv, '--learning_rate', '1e30']) == 2
    assert 'lower --learning_rate, or go on with --skip_nonfinite' in error_of(capsys)
    assert run_main([*argv, '--learning_rate', '1e30', '--skip_nonfinite']) == 0
    assert run_main(argv) == 0


def test_statistics_of_batches(data, tmp_path, capsys):
    argv = data.argv('/dev/null/r', '--no_val')
    assert run_main([*argv, '--batchnorm_sync']) == 2
    assert 'and this run is on the CPU: drop the flag' in error_of(capsys)
    small = ['--batch_size', 1, '--sample_size', 16]
    assert run_main([*argv, *small]) == 2
    assert 'too little for batch norm; give another --batch_size' in error_of(capsys)
    for follows in ((*small, '--batch_size', 2), (*small, '--sample_size', 64)):
        assert run_main([*argv, *follows]) == 2
        assert 'results cannot be written there' in error_of(capsys)
