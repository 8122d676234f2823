"""Accuracy of result files: which videos count, and what is said where none does."""

import json

import pytest

from runtime.errors import InputError
from tests.helpers import run_script
from util_scripts.eval_accuracy import main
from util_scripts.helpers.evaluation import read_results

LABELS = ['jump', 'run', 'swim', 'walk']


def entry(subset, label=None):
    return {'subset': subset, 'annotations': {'label': label, 'segment': [1, 17]} if label else {}}


TRUTH = {'labels': LABELS, 'database': {
    'a': entry('validation', 'jump'), 'b': entry('validation', 'run'),
    'c': entry('validation', 'swim'), 'd': entry('validation', 'walk'),
    't': entry('training', 'walk'), 'x': entry('testing')}}
ACTIVITYNET = {
    'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None}] + [
        {'nodeName': name, 'nodeId': number, 'parentId': 0}
        for number, name in enumerate(LABELS, 1)],
    'database': {
        'a': {'subset': 'validation', 'annotations': [{'segment': [0, 1], 'label': 'jump'},
                                                      {'segment': [2, 3], 'label': 'walk'}]},
        'b': {'subset': 'validation', 'annotations': [{'segment': [0, 1], 'label': 'run'}]},
        'x': {'subset': 'testing', 'annotations': []}}}


def ranked(*labels):
    return [{'label': label, 'score': 0.5 / (1 + i)} for i, label in enumerate(labels)]


# a and b right at once, c second, d not among the first two.
RESULTS = {'a': ranked('jump', 'run', 'swim', 'walk'), 'b': ranked('run', 'jump', 'walk', 'swim'),
           'c': ranked('walk', 'swim', 'run', 'jump'), 'd': ranked('jump', 'run', 'swim', 'walk')}


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Call main on a truth and results (objects, or text of broken files); returns what it says."""
    def call(truth, results, *flags):
        paths = tmp_path / 'truth.json', tmp_path / 'val.json'
        for path, data in zip(paths, (truth, results)):
            path.write_text(data if isinstance(data, str) else json.dumps(data))
        capsys.readouterr()
        assert not main([*map(str, paths), *map(str, flags)])
        return capsys.readouterr().out
    return call


def without(results, *video_ids):
    return {'results': {video_id: ranking for video_id, ranking in results.items()
                        if video_id not in video_ids}}


def test_top_1_by_default(evaluate):
    assert evaluate(TRUTH, without(RESULTS)) == 'top-1 accuracy: 0.5000 (2 of 4 videos)\n'


@pytest.mark.parametrize('subset', ['val', 'validation'])
def test_several_k_and_both_names_of_the_subset(evaluate, subset):
    lines = evaluate(TRUTH, without(RESULTS), '-k', 1, 2, 4, '--subset', subset).splitlines()
    assert lines == ['top-1 accuracy: 0.5000 (2 of 4 videos)',
                     'top-2 accuracy: 0.7500 (3 of 4 videos)',
                     'top-4 accuracy: left out, since there are 4 classes']


def test_training_results(evaluate):
    results = {'results': {'t': ranked(*reversed(LABELS))}}
    for name in ('train', 'training'):
        assert '(1 of 1 videos)' in evaluate(TRUTH, results, '--subset', name)


def test_videos_without_a_result(evaluate):
    wrong = evaluate(TRUTH, without(RESULTS, 'b'))
    assert '1 of 4 videos without a result: they count as wrong (--ignore' in wrong
    assert 'top-1 accuracy: 0.2500 (1 of 4 videos)' in wrong
    ignored = evaluate(TRUTH, without(RESULTS, 'b'), '--ignore')
    assert '1 of 4 videos without a result: they are left out' in ignored
    assert 'top-1 accuracy: 0.3333 (1 of 3 videos)' in ignored


def test_save(evaluate, tmp_path):
    evaluate(TRUTH, without(RESULTS, 'b'), '-k', 1, 2, '--save', '--ignore')
    assert float((tmp_path / 'top1.txt').read_text()) == 1 / 3
    assert float((tmp_path / 'top2.txt').read_text()) == 2 / 3


def test_scores_decide_not_the_order(evaluate):
    shuffled = {'results': {video_id: ranking[::-1] for video_id, ranking in RESULTS.items()}}
    assert evaluate(TRUTH, shuffled) == evaluate(TRUTH, without(RESULTS))


def test_windows_are_averaged(evaluate):
    """Two windows for walk, one that is surer of jump than both together."""
    windows = [{'segment': [1, 17], 'result': [{'label': 'walk', 'score': 0.4},
                                               {'label': 'jump', 'score': 0.1}]},
               {'segment': [17, 33], 'result': [{'label': 'walk', 'score': 0.4},
                                                {'label': 'run', 'score': 0.1}]},
               {'segment': [33, 49], 'result': [{'label': 'jump', 'score': 0.9},
                                                {'label': 'run', 'score': 0.05}]}]
    said = evaluate(TRUTH, {'results': {'a': windows, 'd': windows}}, '-k', 1, 2, '--ignore')
    assert '6 windows' in said
    assert 'top-1 accuracy: 0.5000' in said and 'top-2 accuracy: 1.0000' in said
    assert 'clip top-1 accuracy: 0.5000 (3 of 6 clips)' in said  # a by the last, d by two
    assert 'clip top-2 accuracy: 0.6667 (4 of 6 clips)' in said
    assert 'clip top-1 mean-class accuracy: 0.5000' in said


def test_map_of_windows_by_hand(evaluate):
    """Red of the five windows, best first: a b c a b, right 1 0 1 1 0. Green: a b b a c, 0 1 1 0 1.
    Red of the videos: a c b, right 1 1 0. Green: b a c, right 1 0 1."""
    truth = {'labels': ['red', 'green'], 'database': {
        'a': entry('validation', ['red']), 'b': entry('validation', ['green']),
        'c': entry('validation', ['red', 'green'])}}
    scores = {'a': [(.9, .2), (.3, .8)], 'b': [(.6, .7), (.1, .4)], 'c': [(.5, .1)]}
    results = {'results': {video_id: [
        {'segment': [16 * i + 1, 16 * i + 17],
         'result': [{'label': 'red', 'score': red}, {'label': 'green', 'score': green}]}
        for i, (red, green) in enumerate(windows)] for video_id, windows in scores.items()}}
    of_clips = ((1 / 1 + 2 / 3 + 3 / 4) / 3 + (1 / 2 + 2 / 3 + 3 / 5) / 3) / 2
    of_videos = ((1 / 1 + 2 / 2) / 2 + (1 / 1 + 2 / 3) / 2) / 2
    assert evaluate(truth, results).splitlines()[1:] == [
        'top-1 accuracy: 1.0000 (3 of 3 videos)', f'mAP: {of_videos:.4f} (2 classes)',
        'clip top-1 accuracy: 0.8000 (4 of 5 clips)', f'clip mAP: {of_clips:.4f}']


def test_activitynet_any_label_of_the_video(evaluate):
    results = {'results': {'a': ranked('walk', 'swim'), 'b': ranked('walk', 'run')}}
    said = evaluate(ACTIVITYNET, results, '-k', 1, 2)
    assert 'top-1 accuracy: 0.5000 (1 of 2 videos)' in said
    assert 'top-2 accuracy: 1.0000 (2 of 2 videos)' in said


def test_per_class(evaluate):
    lines = evaluate(TRUTH, without(RESULTS), '--per_class').splitlines()
    assert lines[1] == 'top-1 mean-class accuracy: 0.5000 (4 classes, worst first)'
    assert [line.split() for line in lines[2:4]] == [
        ['swim', '0.0000', '(0', 'of', '1', 'videos)'],
        ['walk', '0.0000', '(0', 'of', '1', 'videos)']]
    assert [line.split()[0] for line in lines[4:6]] == ['jump', 'run']
    assert lines[6:] == ['most confused:', '  swim taken for walk (1 of 1 videos)',
                         '  walk taken for jump (1 of 1 videos)']


def test_mean_class_accuracy_is_not_that_of_videos(evaluate):
    truth = {'labels': ['run', 'walk'], 'database': {
        name: entry('validation', 'walk' if name == 'd' else 'run') for name in 'abcd'}}
    results = {'results': {name: ranked('run', 'walk') for name in 'abcd'}}
    said = evaluate(truth, results, '--per_class')
    assert 'top-1 accuracy: 0.7500' in said and 'mean-class accuracy: 0.5000' in said


def test_map_where_each_video_has_one_label(evaluate, tmp_path):
    """Jump: a is beside d at the best score. Walk: d is the last, beside a."""
    values = {'walk': 1 / 4, 'jump': 1 / 2, 'run': 1, 'swim': 1}
    mean = sum(values.values()) / 4
    lines = evaluate(TRUTH, without(RESULTS), '--multi_label', '--per_class',
                     '--save').splitlines()
    assert lines[:2] == ['top-1 accuracy: 0.5000 (2 of 4 videos)',
                         f'mAP: {mean:.4f} (4 classes, worst first)']
    assert [line.split()[:2] for line in lines[2:-1]] == [
        [name, f'{value:.4f}'] for name, value in values.items()]
    assert lines[-1] == f'written: {tmp_path / "top1.txt"}, {tmp_path / "map.txt"}'
    assert float((tmp_path / 'map.txt').read_text()) == mean
    assert 'mAP' not in evaluate(TRUTH, without(RESULTS))
    truth = {**TRUTH, 'labels': LABELS[:3]}
    with pytest.raises(InputError, match="'walk' is not in"):
        evaluate(truth, without(RESULTS), '--multi_label')


def test_k_of_all_classes_says_nothing(evaluate, tmp_path):
    lines = evaluate(TRUTH, without(RESULTS), '-k', 5, 3, '--save').splitlines()
    assert 'left out' in lines[0] and lines[1] == 'top-3 accuracy: 0.7500 (3 of 4 videos)'
    assert {path.name for path in tmp_path.glob('top*')} == {'top3.txt'}


WRONG = [
    ({'labels': LABELS, 'database': {'t': entry('training', 'run')}}, without(RESULTS), [],
     r"'validation'; found training \(1\)"),
    (TRUTH, without(RESULTS), ['--subset', 'dev'], r'found testing \(1\), training \(1\)'),
    (TRUTH, without(RESULTS), ['--subset', 'train'], 'no result for any of the 1 videos'),
    (TRUTH, {'results': {'a': [1]}}, [], 'val.json: its "results"'),
    (TRUTH, {'results': {'a': []}}, [], 'val.json: its "results"'),
]


@pytest.mark.parametrize('truth, results, flags, match', WRONG)
def test_wrong_files_are_one_sentence(evaluate, truth, results, flags, match):
    with pytest.raises(InputError, match=match):
        evaluate(truth, results, *flags)


def test_files_in_the_wrong_order_are_told(tmp_path):
    """Of each command that takes both; two that are alike are as wrong as one."""
    truth, results = tmp_path / 'truth.json', tmp_path / 'val.json'
    truth.write_text(json.dumps(TRUTH))
    for content in ({'results': RESULTS}, {'events': {}}):
        results.write_text(json.dumps(content))
        for name, *argv in (('eval_accuracy', results, truth), ('eval_events', truth, results),
                            ('plot_results', truth, results),
                            ('find_class_order', truth, results, '--output', tmp_path / 'l.txt')):
            done = run_script(name, *argv)
            assert done.returncode == 2 and done.stderr == (
                f'error: {results}: holds results, and {truth} is the annotation file: give them '
                'in the other order\n')
    with pytest.raises(InputError, match='has no "database" of videos'):
        main([str(results), str(results)])


def test_labels_that_are_json_numbers(evaluate):
    """They are the text of the number in both files, whichever has it as what."""
    truth = {'labels': [0, 1, 2.5], 'database': {
        'a': entry('validation', '0'), 'b': entry('validation', 1), 'c': entry('validation', 2.5)}}
    truth['database']['a']['annotations']['label'] = 0
    for results in ({'a': ranked('0', '1', '2.5'), 'b': ranked('1', '0', '2.5'),
                     'c': ranked('0', '2.5', '1')},
                    {'a': ranked(0, 1, 2.5), 'b': ranked(1, 0, 2.5), 'c': ranked(0, 2.5, 1)}):
        assert '(2 of 3 videos)' in evaluate(truth, {'results': results})


@pytest.mark.parametrize('entries', [[{'label': 'red', 'score': True}],
                                     [{'label': 'red', 'score': 0.5}] * 2])
def test_scores_are_numbers_and_one_per_label(tmp_path, entries):
    path = tmp_path / 'val.json'
    path.write_text(json.dumps({'results': {'a': entries}}))
    with pytest.raises(InputError, match='not lists of label and score'):
        read_results(path, {'a'}, 3, 1)
