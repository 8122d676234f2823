"""Videos with lists of labels, from the annotation to the pictures of results."""

import csv
import json
import math

import h5py
import numpy as np
import pytest
import torch

import main
import weights
from datasets.annotations import AnnotationError, label_list_records, read_annotation
from datasets.loading import build_loader
from features import read_features
from model import load_model
from opts import parse_opts
from runtime.errors import InputError
from tests.helpers import write_video
from tests.processes import run_ranks
from tests.test_plotting import is_picture
from tests.tiny_data import CLASSES, MultiLabelData, run_main
from util_scripts import (check_data, describe_checkpoint, eval_accuracy, plot_log, plot_results,
                          predict)
from util_scripts.helpers import mistakes

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return MultiLabelData(tmp_path_factory.mktemp('multi'))


@pytest.fixture
def own(tmp_path):
    """The same, for one test alone."""
    return MultiLabelData(tmp_path / 'data')


@pytest.fixture(scope='module')
def trained(data):
    """Result folder of a training that has learned its colours, with all scores."""
    argv = data.argv('trained', '--n_epochs', 16, '--multistep_milestones', 12, '--checkpoint', 8,
                     '--inference', '--output_topk', 0)
    assert run_main(argv) == 0
    return data.root / 'trained'


@pytest.fixture
def clear(data, trained):
    """A command line that evaluates, without --multi_label, which the checkpoint answers for."""
    def argv(folder, *more):
        plain = [word for word in data.argv(folder, *more) if word != '--multi_label']
        return [*plain, '--resume_path', str(trained / 'save_16.pth'), '--no_train']
    return argv


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines(), delimiter='\t'))


def result_of(folder, name='val.json'):
    """{video id: {label: score}}"""
    results = json.loads((folder / name).read_text())['results']
    return {video_id: {entry['label']: entry['score'] for entry in entries}
            for video_id, entries in results.items()}


def labels_of(data, video_id):
    return data.read()['database'][video_id]['annotations']['label']


def edited(data, change):
    """Change the database of an annotation."""
    annotation = data.read()
    change(annotation['database'])
    data.write(annotation)


def loader_of(data, split, *flags):
    opts = parse_opts(list(map(str, data.argv('unused', *flags))))
    return build_loader(opts, split, read_annotation(opts.annotation_path))


# ---------------------------------------------------------------- annotations and batches

def test_lists_single_labels_and_none(own):
    edited(own, lambda database: database['training_3']['annotations'].update(label='blue'))
    annotation = read_annotation(own.annotation_path)
    records, _ = label_list_records(annotation, 'training', multi_label=True)
    assert records.targets(range(7)).tolist() == [
        [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert [records.paths[i] for i in (2, 3)] == ['training_2', 'blue/training_3']
    assert records.labels[5] == [1, 2] and records.class_counts().tolist() == [6, 6, 6]


def test_a_label_twice_counts_once_and_none_is_no_class(own):
    edited(own, lambda database: [database['training_0']['annotations'].update(label=[]),
                                  database['training_1']['annotations'].update(
                                      label=['red', 'red'])])
    records, _ = label_list_records(read_annotation(own.annotation_path), 'training',
                                    multi_label=True)
    assert records.targets([0, 1]).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert records.class_counts().tolist() == [6, 5, 6]


@pytest.mark.parametrize('label, said', [
    (['red', 'pink'], "'pink' is not in \"labels\""), (['red', 3], "'3' is not in"),
    ([['red']], r"\['red'\] is not in"), (None, 'None is not in')])
def test_labels_that_cannot_be(own, label, said):
    edited(own, lambda database: database['training_1']['annotations'].update(label=label))
    with pytest.raises(AnnotationError, match=f"annotation.json: video 'training_1': .*{said}"):
        label_list_records(read_annotation(own.annotation_path), 'training', multi_label=True)


def test_the_index_is_a_few_numbers_a_label(tmp_path):
    """At the size of Kinetics, a row of floats a video would be gigabytes."""
    names = [f'class {i}' for i in range(700)]
    (tmp_path / 'a.json').write_text(json.dumps({'labels': names, 'database': {
        f'video_{i}': {'subset': 'training', 'annotations': {
            'label': [names[i % 700], names[(i + 5) % 700]], 'segment': [1, 9]}}
        for i in range(3000)}}))
    records, _ = label_list_records(read_annotation(tmp_path / 'a.json'), 'training',
                                    multi_label=True)
    columns = [value for value in vars(records.labels).values() if torch.is_tensor(value)]
    assert sum(c.element_size() * c.numel() for c in columns) < 20 * 3000
    assert records.targets([2999]).nonzero()[:, 1].tolist() == [199, 204]


def test_batches_have_a_row_of_targets_a_clip(data):
    batch, = loader_of(data, 'val', '--batch_size', 21)
    assert batch.labels.dtype == torch.float32
    assert batch.labels[::3].tolist() == [[i >> bit & 1 for bit in range(3)]
                                          for i in (1, 2, 3, 4, 5, 6, 0)]
    assert torch.equal(batch.labels[0::3], batch.labels[2::3])


def test_a_bad_video_is_replaced_by_one_with_a_label_in_common(own):
    broken = own.root / 'jpg/training_1'  # green; so is 2, and 0 is not
    for path in broken.iterdir():
        path.write_bytes(b'')
    flags = '--bad_frames', 'skip', '--batch_size', 14, '--no_hflip'
    batch, = loader_of(own, 'train', *flags)
    videos = batch.videos.tolist()
    assert sorted(videos) == [0, 2, 2, *range(3, 14)] and len(batch.bad) == 1
    assert batch.labels[videos.index(2)].tolist() == [1, 1, 0]
    edited(own, lambda database: [database[f'training_{i}']['annotations'].update(label=['red'])
                                  for i in range(14) if i != 1])
    with pytest.raises(InputError, match="no other video of class 'green' can"):
        list(loader_of(own, 'train', *flags))


# ---------------------------------------------------------------- training and validation

def test_it_learns_what_each_video_has(data, trained):
    train, val = rows(trained / 'train.log'), rows(trained / 'val.log')
    assert list(train[0])[:4] == ['epoch', 'loss', 'acc', 'lr']
    assert list(val[0]) == ['epoch', 'loss', 'acc', 'clip_top5', 'video_top1', 'video_top5',
                            'clip_map', 'video_map']
    assert float(train[0]['loss']) == pytest.approx(math.log(2), abs=0.2)
    assert float(train[-1]['loss']) < 0.2
    assert float(val[-1]['video_map']) > 0.95 and float(val[-1]['clip_map']) > 0.95
    # One of the seven videos has no label, so that no class is right for it.
    assert float(val[-1]['acc']) == float(val[-1]['video_top5']) == pytest.approx(6 / 7)
    for video_id, scores in result_of(trained).items():
        assert sum(score > 0.5 for score in scores.values()) == len(labels_of(data, video_id))


def test_the_best_is_by_map(trained):
    values = [float(row['video_map']) for row in rows(trained / 'val.log')]
    state = weights.load(trained / 'save_best.pth')
    assert state['epoch'] == 1 + values.index(max(values))
    assert state['best_video_map'] == pytest.approx(max(values)) and 'best_video_top1' not in state


def test_no_video_for_validation_has_a_label(own, tmp_path, capsys):
    """That is said once; all but mAP and what depends on it is as ever."""
    edited(own, lambda database: [entry['annotations'].update(label=[])
                                  for entry in database.values()
                                  if entry['subset'] == 'validation'])
    said = (f'{own.annotation_path}: none of the 7 videos for validation has a label: their mAP is '
            'nan{}; add their labels, or give --no_val')
    argv = own.argv(tmp_path / 'r', '--lr_scheduler', 'plateau', '--tensorboard')
    assert run_main([*argv, '--inference']) == 0
    captured = capsys.readouterr()
    assert captured.err.count(said.format(', and no save_best.pth is written')) == 1
    assert 'video mAP nan' in captured.out
    assert [path.name for path in sorted((tmp_path / 'r').glob('save_*'))] == [
        'save_1.pth', 'save_2.pth']
    for row in rows(tmp_path / 'r/val.log'):
        assert row['clip_map'] == row['video_map'] == 'nan' and float(row['video_top1']) == 0
        assert 0 < float(row['loss']) < 2
    assert len(result_of(tmp_path / 'r')) == 7
    assert run_main([*argv, '--resume_path', 'auto', '--n_epochs', 3]) == 0
    assert (tmp_path / 'r/save_3.pth').exists()
    capsys.readouterr()
    assert run_main([*argv, '--no_train', '--resume_path', tmp_path / 'r/save_3.pth']) == 0
    assert said.format('') in capsys.readouterr().err
    assert run_main([*own.argv(tmp_path / 's'), '--no_val']) == 0
    assert 'has a label' not in capsys.readouterr().err


def test_tensorboard_has_map_and_no_confusion(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    assert run_main(data.argv(tmp_path, '--n_epochs', 1, '--tensorboard')) == 0
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {'val/clip_map', 'val/video_map', 'val/video_top1'} <= set(events.Tags()['scalars'])
    assert events.Tags()['images'] == ['train/clips']


def test_resumed_training_stays_multi_label(data, trained, clear, tmp_path):
    argv = clear(tmp_path, '--n_epochs', 9)[:-3]
    assert run_main([*argv, '--resume_path', trained / 'save_8.pth']) == 0
    assert json.loads((tmp_path / 'opts.json').read_text())['multi_label'] is True
    assert rows(tmp_path / 'val.log')[0] == rows(trained / 'val.log')[8]


def test_three_processes_do_what_one_does(data, trained, tmp_path):
    """A batch of 5 is shared unevenly, and of validation they have 4 videos, 3 and none. Batch
    norm, which each process has for itself, is frozen."""
    folders = tmp_path / 'one', tmp_path / 'three'
    commands = [data.argv(folder, '--sample_size', 48, '--batch_size', 9, '--n_epochs', 1,
                          '--n_val_samples', 2, '--inference', '--output_topk', 0,
                          '--pretrain_path', trained / 'save_8.pth', '--ft_begin_module', 'fc')
                for folder in folders]
    assert run_main(commands[0]) == 0
    status, said = run_ranks(3, commands[1], tmp_path / 'said')
    assert status == [0] * 3, said
    for name in ('train_batch.log', 'val.log'):
        one, three = ([list(map(float, row.values())) for row in rows(folder / name)]
                      for folder in folders)
        np.testing.assert_allclose(one, three, rtol=1e-4)
    one, three = (weights.load(folder / 'save_1.pth')['state_dict'] for folder in folders)
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, rtol=1e-4, atol=1e-6)
    one, three = map(result_of, folders)
    assert all(one[video_id] == pytest.approx(three[video_id], abs=1e-5) for video_id in one)


def test_fine_tuning_from_one_label_a_video(data, tiny_data, tmp_path):
    assert run_main(tiny_data.argv(tmp_path / 'single', '--n_epochs', 1)) == 0
    argv = data.argv(tmp_path / 'multi', '--n_epochs', 1, '--pretrain_path',
                     tmp_path / 'single/save_1.pth', '--ft_begin_module', 'fc')
    assert run_main(argv) == 0
    assert weights.load(tmp_path / 'multi/save_1.pth')['multi_label'] is True
    assert rows(tmp_path / 'multi/val.log')[0]['video_map'] != 'nan'


# ---------------------------------------------------------------- what the file says

def test_load_model_and_predict_give_sigmoids(data, trained, clear, tmp_path, capsys):
    network, info = load_model(trained / 'save_16.pth')
    assert info.opts.multi_label
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    torch.testing.assert_close(info.scores(logits), logits.sigmoid())
    assert run_main(clear(tmp_path, '--no_val', '--inference', '--output_topk', 0)) == 0
    folders = [data.root / 'jpg' / video_id for video_id in ('validation_6', 'validation_2')]
    assert predict.main([*map(str, folders), '--weights', str(trained / 'save_16.pth'), '--no_cuda',
                         '--json', str(tmp_path / 'p.json')]) == 0
    predicted = result_of(tmp_path, 'p.json')
    for folder in folders:
        expected = result_of(tmp_path)[folder.name]
        assert predicted[str(folder)] == pytest.approx(expected, abs=1e-5)
    assert sum(predicted[str(folders[0])].values()) < 0.5  # it has no label
    assert sum(predicted[str(folders[1])].values()) > 1.5  # it has two


def test_describe_checkpoint_says_it(trained, capsys):
    describe_checkpoint.main([str(trained / 'save_16.pth')])
    assert '3, any number a video (multi-label): red, green, blue' in capsys.readouterr().out


def test_flags_that_contradict(data, own, trained, tiny_data, tmp_path, capsys):
    assert run_main(tiny_data.argv(tmp_path / 'single', '--n_epochs', 1)) == 0
    single = tmp_path / 'single/save_1.pth'
    wrong = [
        ([*data.argv(tmp_path / 'r'), '--resume_path', single, '--no_train'],
         'was trained with one label a video, and --multi_label was given; drop the flag'),
        ([word for word in data.argv(tmp_path / 'r') if word != '--multi_label'],
         "video 'training_0': has a list of labels, ['red']; add --multi_label"),
    ]
    for argv, said in wrong:
        capsys.readouterr()
        assert run_main(argv) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert said in error and 'Traceback' not in error


def test_a_taxonomy_is_refused(own, tmp_path):
    own.write({'taxonomy': [{'nodeName': name, 'nodeId': i, 'parentId': -1}
                            for i, name in enumerate(CLASSES)], 'database': {
        'x': {'subset': 'training', 'fps': 5, 'annotations': []}}})
    with pytest.raises(AnnotationError, match='taxonomy.*--multi_label is for lists of labels'):
        main.main(own.argv(tmp_path, '--dataset', 'activitynet'))


def test_logs_of_the_other_kind_are_kept(data, trained, clear, tiny_data, tmp_path):
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 1)) == 0
    before = (tmp_path / 'val.log').read_text()
    assert run_main(clear(tmp_path)) == 0
    assert (tmp_path / 'val.log').read_text() == before
    row, = rows(tmp_path / 'evaluation.log')
    assert row['epoch'] == '16' and 'video_map' in row


def test_a_log_of_the_other_kind_is_kept_once(data, trained, clear, tiny_data, tmp_path):
    """Where its rows would have been cut, too."""
    assert run_main(tiny_data.argv(tmp_path, '--n_epochs', 10)) == 0
    before = (tmp_path / 'val.log').read_text()
    argv = clear(tmp_path, '--n_epochs', 9)[:-3]
    assert run_main([*argv, '--resume_path', trained / 'save_8.pth']) == 0
    assert sorted(path.name for path in tmp_path.glob('val*.log')) == ['val.1.log', 'val.log']
    assert (tmp_path / 'val.1.log').read_text() == before
    row, = rows(tmp_path / 'val.log')
    assert row['epoch'] == '9' and 'video_map' in row


# ---------------------------------------------------------------- results

@pytest.fixture
def evaluate(data, tmp_path, capsys):
    """eval_accuracy of {video id: {label: score}} by the validation videos; the lines it prints."""
    def call(results, *flags, truth=data):
        entries = {video_id: [{'label': label, 'score': score} for label, score in scores.items()]
                   for video_id, scores in results.items()}
        (tmp_path / 'val.json').write_text(json.dumps({'results': entries}))
        assert not eval_accuracy.main([str(truth.annotation_path), str(tmp_path / 'val.json'),
                                       *map(str, flags)])
        return capsys.readouterr().out.splitlines()
    return call


def scores_of(*values):
    return dict(zip(CLASSES, values))


def test_eval_accuracy_says_what_validation_does(data, clear, tmp_path, capsys):
    """One centred clip a video in both, of 9 to 19 frames looped or cut to 20."""
    clip = '--sample_duration', 20, '--no_hflip'
    assert run_main(clear(tmp_path, *clip, '--inference', '--n_val_samples', 1, '--output_topk',
                          0)) == 0
    row, = rows(tmp_path / 'val.log')
    capsys.readouterr()
    assert not eval_accuracy.main([str(data.annotation_path), str(tmp_path / 'val.json')])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('1 of 7 videos have an empty list of labels')
    assert lines[1].startswith(f'top-1 accuracy: {float(row["video_top1"]):.4f}')
    assert lines[2] == f'mAP: {float(row["video_map"]):.4f} (3 classes)'


def test_map_by_hand(data, evaluate, tmp_path):
    # Truth: 0 red, 1 green, 2 red green, 3 blue, 4 red blue, 5 green blue, 6 none.
    results = {f'validation_{i}': scores for i, scores in enumerate([
        scores_of(.9, .1, .1), scores_of(.8, .7, .1), scores_of(.7, .6, .1), scores_of(.1, .2, .1),
        scores_of(.6, .1, .1), scores_of(.1, .5, .1), scores_of(.1, .9, .1)])}
    red = (1 + 2 / 3 + 3 / 4) / 3
    green = (1 / 2 + 2 / 3 + 3 / 4) / 3
    blue = 3 / 7  # all scores are equal
    lines = evaluate(results, '-k', 1, 3, '--per_class', '--save')
    mean = (red + green + blue) / 3
    assert lines[1:] == [
        'top-1 accuracy: 0.5714 (4 of 7 videos)',
        'top-3 accuracy: left out, since there are 3 classes',
        f'mAP: {mean:.4f} (3 classes, worst first)', f'  blue  {blue:.4f} (3 of 7 videos)',
        f'  green {green:.4f} (3 of 7 videos)', f'  red   {red:.4f} (3 of 7 videos)',
        f'written: {tmp_path / "top1.txt"}, {tmp_path / "map.txt"}']
    assert float((tmp_path / 'map.txt').read_text()) == pytest.approx(mean)
    assert float((tmp_path / 'top1.txt').read_text()) == 4 / 7


def test_videos_without_a_result_come_last_or_are_left_out(evaluate):
    results = {f'validation_{i}': scores_of(.9, .1, .1) for i in (0, 1)}
    lines = evaluate(results)
    assert lines[0].startswith('5 of 7 videos without a result: they count as wrong')
    # Red: 1 of 2 at the threshold .9, then 3 of 7. Green as much. Blue: all come last.
    assert lines[-1] == f'mAP: {(2 * (1 / 3 * 1 / 2 + 2 / 3 * 3 / 7) + 3 / 7) / 3:.4f} (3 classes)'
    assert evaluate(results, '--ignore')[-1] == 'mAP: 0.5000 (2 classes)'
    assert 'of 14 videos without' in evaluate(
        {'training_0': scores_of(.9, .1, .1)}, '--subset', 'train')[0]


def test_windows_that_lack_classes(data, tmp_path):
    windows = [{'segment': [1, 9], 'result': [{'label': label, 'score': .5}]} for label in CLASSES]
    (tmp_path / 'val.json').write_text(json.dumps({'results': {'validation_0': windows}}))
    for command in (eval_accuracy, plot_results):
        argv = [str(tmp_path / 'val.json'), str(data.annotation_path)]
        with pytest.raises(InputError, match='there are 1 a result; .*topk 0'):
            command.main(argv if command is plot_results else argv[::-1])


def test_pictures(data, trained, tmp_path, capsys):
    results = json.loads((trained / 'val.json').read_text())
    results['results']['validation_0'] = [{'label': label, 'score': score} for label, score in
                                          (('red', .9), ('green', .8), ('blue', .1))]
    (tmp_path / 'val.json').write_text(json.dumps(results))
    assert not plot_results.main([str(tmp_path / 'val.json'), str(data.annotation_path),
                                  '--video_path', str(data.root / 'jpg')])
    assert capsys.readouterr().out.splitlines() == [
        'no confusion matrix: videos have lists of labels',
        f'written: {tmp_path / "classes.png"}, {tmp_path / "mistakes.png"}']
    assert is_picture(tmp_path / 'classes.png') and is_picture(tmp_path / 'mistakes.png')
    plot_log.main([str(trained), '--output', str(tmp_path / 'curves.png')])
    assert is_picture(tmp_path / 'curves.png')


def test_the_worst_mistake_is_the_surest_wrong_class():
    truth = {'a': {'red'}, 'b': {'red', 'green'}, 'c': set(), 'd': set(CLASSES), 'e': {'blue'},
             'f': set()}
    scores = {'a': {'red': .9, 'blue': .6}, 'b': {'green': .5, 'blue': .4, 'red': .3},
              'c': {'red': .7, 'green': .1}, 'd': {'red': .9, 'green': .9, 'blue': .9},
              'e': {'blue': .6, 'red': .4}, 'f': {'red': .2}}
    assert mistakes.surest_wrong(truth, scores) == [
        ('c', 'red', .7), ('a', 'blue', .6), ('b', 'blue', .4)]


# ---------------------------------------------------------------- the other scripts

def test_check_data_counts_every_label(own, tmp_path, capsys):
    def check():
        return check_data.main([*map(str, own.argv('unused')), '--save', str(tmp_path / 'f.txt')])
    assert check() == 0
    edited(own, lambda database: [
        entry['annotations'].update(label=['red']) for entry in database.values()
        if entry['subset'] == 'training'])
    assert check() == 1
    assert [line.split('\t')[2] for line in (tmp_path / 'f.txt').read_text().splitlines()[1:]] == [
        'blue', 'green']


def test_features_have_a_row_of_labels(clear, tmp_path):
    assert run_main(clear(tmp_path, '--no_val', '--inference', '--output_features',
                          tmp_path / 'f.h5')) == 0
    labels = read_features(tmp_path / 'f.h5').labels
    assert labels.tolist() == [[i >> bit & 1 for bit in range(3)] for i in (1, 2, 3, 4, 5, 6, 0)]
    with h5py.File(tmp_path / 'f.h5') as file:
        assert file['labels'].dtype == np.int32


def test_timeline_and_drawing_of_predictions(trained, tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 120, (20, 48, 64, 3)).astype(np.uint8)
    frames[..., :2] += 100
    write_video(tmp_path / 'a.mp4', frames)
    assert predict.main([str(tmp_path / 'a.mp4'), '--weights', str(trained / 'save_16.pth'),
                         '--no_cuda', '--timeline', '--annotate', str(tmp_path / 'b.mp4')]) == 0
    assert 'red' in capsys.readouterr().out and (tmp_path / 'b.mp4').stat().st_size > 1000
