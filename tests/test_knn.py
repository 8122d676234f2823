"""Few-shot accuracy of features: clear cases, what groups keep apart, wrong files."""

import numpy as np
import pytest

from features import Features, read_features, write_features
from tests.helpers import run_script
from util_scripts import knn
from util_scripts.helpers.neighbours import group_numbers


def table(argv, capsys):
    """{examples a class: [accuracies]} as the command prints them."""
    knn.main(list(map(str, argv)))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    return {row[0]: [float(row[1]), float(row[4])] for row in rows}


def write(path, features, labels, ids=None, class_names=('a', 'b')):
    features = np.asarray(features, np.float32)
    ids = ids or [f'v{i}' for i in range(len(features))]
    write_features(path, Features(features, ids, np.zeros((len(ids), 2), int),
                                  np.asarray(labels), list(class_names)))
    return path


@pytest.fixture
def apart(tmp_path):
    """40 videos of two classes that features tell apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = rng.normal(0, 0.1, (40, 8))
    features[np.arange(40), labels] += 1
    return write(tmp_path / 'f.h5', features + 5, labels)


def test_classes_that_are_apart(apart, capsys):
    assert table([apart], capsys) == dict.fromkeys(['1', '5', '10', 'all'], [1.0, 1.0])


def test_noise_is_chance(tmp_path, capsys):
    rng = np.random.default_rng(0)
    path = write(tmp_path / 'f.h5', rng.normal(size=(200, 4)), np.arange(200) % 2)
    for accuracies in table([path, '--seeds', 3], capsys).values():
        assert all(0.3 < accuracy < 0.65 for accuracy in accuracies)


def test_no_example_is_of_the_own_group(tmp_path, capsys):
    """Two videos a group, alike but for the label of the group: others know nothing of it."""
    rng = np.random.default_rng(0)
    scenes = rng.normal(size=(30, 16))
    path = write(tmp_path / 'f.h5', scenes.repeat(2, axis=0), np.repeat(np.arange(30) % 2, 2))
    (tmp_path / 'g.csv').write_text('path,label,group\n' + ''.join(
        f'x/v{i}.mp4,a,scene{i // 2}\n' for i in range(60)))
    argv = [path, '-k', 1, '--examples', 'all']
    assert table(argv, capsys)['all'][1] > 0.85
    assert table([*argv, '--groups', tmp_path / 'g.csv'], capsys)['all'][1] < 0.7


def test_windows_of_a_video_are_averaged(tmp_path, capsys):
    features = [[2, 0.1], [0, 0.1], [0.1, 1], [0.1, 1], [1.1, 0], [0, 1.2]]
    path = write(tmp_path / 'f.h5', features, [0, 0, 1, 1, 0, 1], ids=list('aabbcd'))
    knn.main([str(path), '--examples', 'all', '--test', str(path)])
    assert capsys.readouterr().out.startswith('4 videos of 2 classes; the largest class has 0.500')


def test_a_second_file_is_classified_by_the_first(apart, tmp_path, capsys):
    other = write(tmp_path / 'g.h5', [[6, 5, 5, 5, 5, 5, 5, 5], [5, 6, 5, 5, 5, 5, 5, 5]], [0, 0])
    assert table([apart, '--test', other, '--examples', 5], capsys) == {'5': [0.5, 0.5]}


def test_groups_are_read_as_other_lists_are(tmp_path):
    (tmp_path / 'g.csv').write_text(
        'File Name;Group\na\\x.mp4;1\nb\\x.mp4;2\nb\\cafe\u0301.mp4;1\n')
    ids = np.array(['a/x', 'b/x', 'caf\xe9'])  # of videos of one name the path is the id
    assert group_numbers(tmp_path / 'g.csv', ids).tolist() == [0, 1, 0]


def test_files_that_do_not_go_together(apart, tmp_path):
    other = write(tmp_path / 'g.h5', [[1, 2]], [0], class_names=('x', 'y'))
    done = run_script('knn', apart, '--test', other)
    assert done.returncode == 2 and 'other classes or another module' in done.stderr


def test_rows_of_one_label_each_are_labels(apart, tmp_path, capsys):
    """As a network trained with --multi_label gives them."""
    content = read_features(apart)
    rows = np.eye(2, dtype=np.int32)[content.labels]
    write_features(tmp_path / 'rows.h5', content._replace(labels=rows))
    assert table([tmp_path / 'rows.h5'], capsys) == table([apart], capsys)
