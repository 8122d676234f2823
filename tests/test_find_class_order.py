"""The order of classes, found again from results: of a network, and of made-up scores."""

import json
import math
from itertools import permutations

import numpy as np
import pytest
import torch

from datasets.frames import make_reader
from tests.helpers import ROOT
from tests.tiny_data import CLASSES, TinyData, run_main
from util_scripts import (demo_videos, eval_accuracy, find_class_order, generate_video_jpgs,
                          ucf101_json)
from util_scripts.demo_videos import MOTIONS
from util_scripts.helpers.class_order import find_order, log_likelihoods, videos_needed
from weights import load


def write_files(folder, scores, labels, class_names, names_of_outputs=None):
    """(val.json, annotation.json) of videos v0, v1, ... with these scores and labels."""
    names = names_of_outputs or list(map(str, range(scores.shape[1])))
    results = {f'v{i}': [{'label': name, 'score': float(score)} for name, score in zip(names, row)]
               for i, row in enumerate(scores)}
    database = {f'v{i}': {'subset': 'validation', 'annotations': {'label': class_names[label]}}
                for i, label in enumerate(labels)}
    (folder / 'val.json').write_text(json.dumps({'results': results}))
    (folder / 'annotation.json').write_text(
        json.dumps({'labels': list(class_names), 'database': database}))
    return folder / 'val.json', folder / 'annotation.json'


@pytest.fixture
def command(tmp_path, capsys):
    """Run the command: (lines of labels.txt, stdout)."""
    def call(results, annotation, *more):
        path = tmp_path / 'labels.txt'
        find_class_order.main([*map(str, (results, annotation)), '--output', str(path), *more])
        return path.read_text().splitlines(), capsys.readouterr().out
    return call


def made_up(rng, n_classes, n_videos, outputs, *, n_outputs=None, right=4.0):
    """Scores of a network whose output `outputs[c]` is class c, of n_videos of each class."""
    labels = np.repeat(np.arange(n_classes), n_videos)
    logits = rng.standard_normal((len(labels), n_outputs or n_classes))
    logits[np.arange(len(labels)), outputs[labels]] += right
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True), labels


def test_a_trained_network_with_permuted_rows_gets_its_names_back(tmp_path, command):
    data = TinyData(tmp_path / 'data')
    assert run_main(data.argv('trained', '--n_epochs', 5)) == 0
    weights = torch.load(data.root / 'trained' / 'save_5.pth', weights_only=True)['state_dict']
    rows = torch.tensor([2, 0, 1])  # output i was class rows[i]
    permute(weights, 'fc', rows)
    torch.save(weights, data.root / 'lost.pth')
    argv = ('--resume_path', 'lost.pth', '--no_train', '--no_val', '--inference', '--output_topk',
            0, '--batch_size', 4)
    assert run_main(data.argv('inferred', *argv)) == 0
    names, said = command(data.root / 'inferred' / 'val.json', data.annotation_path)
    assert names == [CLASSES[row] for row in rows]
    assert '6 videos of 3 classes, 3 outputs' in said


def permute(weights, name, rows):
    """Let output i of a classifier be what output rows[i] was."""
    for kind in ('weight', 'bias'):
        weights[f'{name}.{kind}'] = weights[f'{name}.{kind}'][rows]


@pytest.mark.slow
def test_the_demos_network_gets_the_names_of_its_motions_back(tmp_path, command):
    """A small one, on the videos that it was trained on."""
    demo_videos.main([str(tmp_path), '--n_train', '4', '--n_val', '1'])
    for argv in ((generate_video_jpgs, tmp_path / 'videos', tmp_path / 'jpg', 'ucf101', '--size',
                  32, '--n_jobs', 1),
                 (ucf101_json, tmp_path / 'splits', tmp_path / 'jpg', tmp_path)):
        assert not argv[0].main(list(map(str, argv[1:])))
    argv = ['--root_path', tmp_path, '--video_path', 'jpg', '--annotation_path', 'ucf101_01.json',
            '--dataset', 'ucf101', '--model_depth', 10, '--resnet_widen_factor', 0.25,
            '--sample_size', 32, '--sample_duration', 16, '--n_threads', 0, '--no_cuda',
            '--no_val', '--result_path']
    n_epochs = 16
    assert run_main([*argv, 'trained', '--train_crop', 'center', '--train_t_crop', 'center',
                     '--no_hflip', '--batch_size', 8, '--learning_rate', 0.02, '--checkpoint',
                     n_epochs, '--n_epochs', n_epochs]) == 0
    weights = torch.load(tmp_path / f'trained/save_{n_epochs}.pth', weights_only=True)['state_dict']
    rows = torch.randperm(len(MOTIONS), generator=torch.Generator().manual_seed(3))
    permute(weights, 'fc', rows)
    torch.save(weights, tmp_path / 'lost.pth')
    assert run_main([*argv, 'inferred', '--resume_path', 'lost.pth', '--no_train', '--inference',
                     '--inference_subset', 'train', '--output_topk', 0]) == 0
    annotation = tmp_path / 'ucf101_01.json'
    names, _ = command(tmp_path / 'inferred/train.json', annotation, '--subset', 'train')
    labels = json.loads(annotation.read_text())['labels']
    assert names == [labels[row] for row in rows]


# Real clips, and what Kinetics calls what is done in them.
CLIPS = {'ucf101/videos/ApplyEyeMakeup': 'filling eyebrows',
         'ucf101/videos/Basketball': 'shooting basketball',
         'ucf101/videos/Biking': 'riding mountain bike',
         'ucf101/videos/HorseRiding': 'riding or walking with horse',
         'ucf101/videos/IceDancing': 'ice skating', 'ucf101/videos/SkateBoarding': 'skateboarding',
         'hmdb51/videos/ride_horse': 'riding or walking with horse',
         'hmdb51/videos/swing_baseball': 'hitting baseball',
         'kinetics/videos/arm wrestling': 'arm wrestling',
         'kinetics/videos/flipping pancake': 'flipping pancake'}
WEIGHTS = ROOT / 'weights/i3d-kinetics-400.pth'


@pytest.mark.slow
@pytest.mark.videos
@pytest.mark.skipif(not WEIGHTS.exists(), reason=f'{WEIGHTS.name} is not in {WEIGHTS.parent.name}/:'
                    ' python -m util_scripts.get_weights i3d-kinetics-400')
def test_i3d_gets_the_names_of_what_real_clips_show_back(videos_dir, tmp_path, command):
    """Of 400 outputs, from one or two clips of a class."""
    file = load(WEIGHTS)
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(7))
    permute(file['state_dict'], 'logits.conv3d', rows)
    torch.save(file['state_dict'], tmp_path / 'lost.pth')
    paths = {path: label for folder, label in CLIPS.items()
             for path in sorted((videos_dir / folder).iterdir())}
    labels = file['class_names']
    database = {path.stem: {'subset': 'validation', 'video_path': str(path.with_suffix('')),
                            'annotations': {'label': label, 'segment': [
                                1, make_reader(('video', 'rgb')).count(str(path.with_suffix('')))
                                + 1]}}
                for path, label in paths.items()}
    (tmp_path / 'annotation.json').write_text(json.dumps({'labels': labels, 'database': database}))
    assert run_main([
        '--video_path', videos_dir, '--annotation_path', tmp_path / 'annotation.json',
        '--result_path', tmp_path / 'inferred', '--resume_path', tmp_path / 'lost.pth', '--model',
        'i3d', '--file_type', 'video', '--sample_size', 224, '--sample_resize', 256,
        '--sample_duration', 32, '--no_train', '--no_val', '--inference',
        '--inference_views', '2x1', '--output_topk', 0, '--n_threads', 0, '--no_cuda', '--mean',
        0.5, 0.5, 0.5, '--std', 0.5, 0.5, 0.5]) == 0
    names, said = command(tmp_path / 'inferred/val.json', tmp_path / 'annotation.json')
    print(said)
    shown = sorted(set(paths.values()))
    found = [label for label in shown
             if label in names and names.index(label) == rows.tolist().index(labels.index(label))]
    assert len(found) >= 0.7 * len(shown), set(shown) - set(found)


def test_numbers_and_names_of_the_annotation_say_the_same(tmp_path, command):
    rng = np.random.default_rng(1)
    names = ('a', 'b', 'c', 'd', 'e')
    outputs = np.array([3, 1, 4, 0, 2])
    scores, labels = made_up(rng, 5, 6, outputs)
    expected = [names[list(outputs).index(output)] for output in range(5)]
    found, said = command(*write_files(tmp_path, scores, labels, names))
    assert found == expected
    assert '30 videos of 5 classes, 5 outputs' in said
    assert '5 of 5 classes sure' in said
    assert command(*write_files(tmp_path, scores, labels, names, names))[0] == expected


def test_accuracy_with_the_found_order_is_the_one_that_is_said(tmp_path, command, capsys):
    rng = np.random.default_rng(2)
    names = tuple('abcdefgh')
    outputs = rng.permutation(8)
    scores, labels = made_up(rng, 8, 5, outputs, right=2.0)
    found, said = command(*write_files(tmp_path, scores, labels, names))
    paths = write_files(tmp_path, scores, labels, names, found)
    eval_accuracy.main([str(paths[1]), str(paths[0])])
    accuracy = capsys.readouterr().out.split('accuracy: ')[1].split()[0]
    assert f'top-1: {accuracy} in this order' in said


def test_outputs_of_other_data_sets_stay_numbers(tmp_path, command):
    rng = np.random.default_rng(3)
    outputs = np.array([6, 0, 3])  # of seven
    scores, labels = made_up(rng, 3, 4, outputs, n_outputs=7, right=5.0)
    found, _ = command(*write_files(tmp_path, scores, labels, ('a', 'b', 'c')))
    assert found == ['b', '1', '2', 'c', '4', '5', 'a']


def test_classes_that_nothing_tells_apart_are_not_sure(tmp_path, command):
    scores = np.array([[0.8, 0.1, 0.05, 0.05], [0.7, 0.1, 0.1, 0.1]])
    names, said = command(*write_files(tmp_path, scores, [1, 1], ('a', 'b', 'c', 'd')))
    assert names[0] == 'b'
    table = said.split('not sure:')[1].splitlines()[2:]
    cells = {row.split()[-1]: row.split() for row in table}
    assert cells['c'][0] == '0.500' and cells['c'][3] == '-'
    # log(8 * 7) = 4.03 of two videos, where log(99) = 4.60 are needed
    assert cells['b'][:4] == ['0.982', '0', '2', '3']


def test_margins_are_those_of_trying_every_order():
    rng = np.random.default_rng(4)
    likelihoods = rng.standard_normal((5, 5))
    order = find_order(likelihoods)
    total = {p: sum(likelihoods[c, o] for c, o in enumerate(p)) for p in permutations(range(5))}
    best = max(total, key=total.get)
    assert tuple(order.outputs) == best
    for c in range(5):
        other = max(value for p, value in total.items() if p[c] != best[c])
        assert order.margins[c] == pytest.approx(total[best] - other)


def test_the_videos_needed_are_those_at_the_same_rate():
    assert videos_needed(4, math.log(99)) == 4
    assert videos_needed(4, 2 * math.log(99)) == 2
    assert videos_needed(1, math.log(99) / 10) == 10
    assert videos_needed(0, 0.0) is None


def recover(rng, n_videos, n_classes=700, n_features=48):
    """(top-1, share of classes that are found, that of the sure ones that are right) of a made-up
    network for classes of which some are alike and some are hard, as in real data sets."""
    alike = rng.standard_normal((n_classes // 5, n_features))[np.arange(n_classes) % 140]
    classes = rng.standard_normal((n_classes, n_features)) + 0.9 * alike
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    noise = 0.247 * np.exp(0.35 * rng.standard_normal(n_classes))
    labels = np.repeat(np.arange(n_classes), n_videos)
    features = classes[labels] + noise[labels, None] * rng.standard_normal(
        (len(labels), n_features))
    scores = np.exp(14 * features @ classes.T)
    scores /= scores.sum(axis=1, keepdims=True)
    outputs = rng.permutation(n_classes)  # of each class
    shuffled = np.empty_like(scores)
    shuffled[:, outputs] = scores
    order = find_order(log_likelihoods(shuffled, labels, n_classes))
    is_right, is_sure = order.outputs == outputs, order.margins >= math.log(99)
    return (scores.argmax(axis=1) == labels).mean(), is_right.mean(), is_right[is_sure].mean()


@pytest.mark.slow
@pytest.mark.parametrize('n_videos, found', [(2, 0.85), (5, 0.96), (10, 0.99)])
def test_ten_videos_a_class_give_the_order_of_700_at_67_percent(n_videos, found):
    seed = 5
    print(f'seed {seed}')
    top1, is_right, sure_is_right = recover(np.random.default_rng(seed), n_videos)
    assert 0.62 < top1 < 0.72
    assert is_right >= found
    assert sure_is_right >= 0.98
