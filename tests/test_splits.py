"""Folds and test sets: whole groups, balanced classes, the same for a seed."""

import json
import random
from collections import Counter

import pytest

from runtime.errors import InputError
from tests.test_annotation_files import make_frames
from util_scripts.folder_json import main
from util_scripts.helpers.splits import Own, draw_subsets, folds, group_reader


@pytest.fixture
def listed(seed):
    """Videos of three classes, in groups of one to eight, some of several classes."""
    draw, videos = random.Random(seed), []
    for group in range(40):
        label = draw.choice('abc')
        for number in range(draw.randint(1, 8)):
            other = label if draw.random() < 0.8 else draw.choice('abc')
            videos.append(Own(f'{other}/{group}_{number}', other, f'g{group}'))
    return videos


@pytest.mark.parametrize('n_folds', [2, 3, 5])
def test_folds_are_whole_groups_and_balanced(listed, n_folds):
    fold_of = folds(listed, n_folds, 1)
    assert fold_of.keys() == {video.path for video in listed}
    assert len({(video.group, fold_of[video.path]) for video in listed}) == 40
    of_class = Counter(video.label for video in listed)
    counts = Counter((video.label, fold_of[video.path]) for video in listed)
    for label, n_videos in of_class.items():
        for fold in range(n_folds):
            # A group has up to eight videos, so no exact balance can be had.
            assert abs(counts[label, fold] - n_videos / n_folds) <= 4
    assert folds(listed, n_folds, 1) == fold_of != folds(listed, n_folds, 2)


def test_each_video_is_tested_once_and_validation_is_of_the_rest(listed):
    drawn = draw_subsets(listed, 0.2, 0, 4, 1)
    group_of = {video.path: video.group for video in listed}
    assert all(Counter(one[path] for one in drawn)['testing'] == 1 for path in group_of)
    for subsets in drawn:
        assert len({(group_of[path], subset) for path, subset in subsets.items()}) == 40
        counts = Counter(subsets.values())
        assert counts['validation'] == pytest.approx(0.2 * len(listed), abs=5)
    assert all('validation' not in one.values() for one in draw_subsets(listed, 0, 0, 4, 1))


def test_a_test_set(listed):
    subsets, = draw_subsets(listed, 0.2, 0.3, None, 1)
    counts = Counter(subsets.values())
    assert counts['testing'] == pytest.approx(0.3 * len(listed), abs=5)
    assert counts['validation'] == pytest.approx(0.2 * len(listed), abs=5)


# ---------------------------------------------------------------- folder_json

@pytest.fixture
def jpgs(tmp_path):
    """Twelve videos of each of two classes, in groups of two."""
    return make_frames(tmp_path / 'jpg', {f'{label}/{label}{i}': 3 for label in 'xy'
                                          for i in range(12)})


@pytest.fixture
def groups(tmp_path):
    path = tmp_path / 'groups.csv'
    lines = [f'{label}/{label}{i}.mp4,{label},Group {i // 2}' for label in 'xy' for i in range(12)]
    path.write_text('\n'.join(['Path,probe,group', *lines]))
    return path


def test_an_annotation_for_each_fold(jpgs, groups, tmp_path, capsys):
    main([str(jpgs), str(tmp_path / 'own.json'), '--folds', '3', '--groups', str(groups),
          '--val_fraction', '0'])
    tested = []
    for number in (1, 2, 3):
        database = json.loads((tmp_path / f'own_{number}.json').read_text())['database']
        testing = {name for name, entry in database.items() if entry['subset'] == 'testing'}
        assert len(testing) == 8 and len(database) == 24
        assert {(name[0], f'{int(name[1:]) // 2}') for name in testing} == {
            (label, f'{int(name[1:]) // 2}') for label in 'xy' for name in testing}
        tested += testing
    assert len(set(tested)) == 24 and not (tmp_path / 'own.json').exists()
    assert 'own_3.json' in capsys.readouterr().out


def test_a_part_for_testing(jpgs, tmp_path):
    main([str(jpgs), str(tmp_path / 'own.json'), '--test_fraction', '0.25', '--val_fraction',
          '0.25'])
    database = json.loads((tmp_path / 'own.json').read_text())['database']
    assert Counter(entry['subset'] for entry in database.values()) == {
        'training': 12, 'validation': 6, 'testing': 6}


def test_a_list_has_its_own_subsets(jpgs, tmp_path):
    path = tmp_path / 'list.csv'
    path.write_text('path,label,subset\nx/x0,x,train\ny/y0,y,test\n')
    main([str(path), str(tmp_path / 'own.json'), '--video_path', str(jpgs)])
    database = json.loads((tmp_path / 'own.json').read_text())['database']
    assert {name: entry['subset'] for name, entry in database.items()} == {
        'x0': 'training', 'y0': 'testing'}


@pytest.mark.parametrize('flags, sentence', [
    (['--folds', '3', '--test_fraction', '.2'], '--folds and --test_fraction both say what'),
    (['--folds', '2', '--val_fraction', '.5'], '--val_fraction 0.5 leaves nothing for training'),
    (['--folds', '30'], '--folds 30: the videos are of 24 groups'),
    (['--groups', 'groups.csv', '--by_group', 'x'], '--groups and --by_group both say what')])
def test_what_contradicts_itself(jpgs, tmp_path, flags, sentence):
    with pytest.raises(InputError, match=sentence):
        main([str(jpgs), str(tmp_path / 'own.json'), *flags])
    assert not list(tmp_path.glob('*.json'))


def test_folds_of_a_list_with_subsets(jpgs, tmp_path):
    path = tmp_path / 'list.csv'
    path.write_text('path,label,subset\nx/x0,x,train\ny/y0,y,test\n')
    with pytest.raises(InputError, match='has a subset for each video, and --folds draws them'):
        main([str(path), str(tmp_path / 'own.json'), '--video_path', str(jpgs), '--folds', '2'])


def test_a_file_of_groups_that_lacks_something(tmp_path):
    path = tmp_path / 'groups.csv'
    path.write_text('path,group\na/x.mp4,1\na/y.mp4,\n')
    assert group_reader(path)('a/x') == '1'
    for video in ('a/y', 'b/z'):
        with pytest.raises(InputError, match=f'groups.csv: says no group of {video}; add a line'):
            group_reader(path)(video)
    path.write_text('sep=;\nVideo;Group\n./a\\x.mp4;1\na/x;1\n')
    assert group_reader(path)('a/x') == '1'
    path.write_text('path,group\na/x.mp4,1\na/x,2\n')
    with pytest.raises(InputError, match="line 3: a/x is in groups '1' and '2'; remove a line"):
        group_reader(path)
    path.write_text('path,recording\n')
    with pytest.raises(InputError, match='groups.csv: no column group in line 1; a CSV file'):
        group_reader(path)


def test_folds_of_classes_with_few_groups():
    """Each fold has a video, though the balance of classes alone would leave some empty."""
    videos = [Own(f'{label}/{label}', label, label) for label in 'abc']
    for n_folds in (2, 3):
        assert set(folds(videos, n_folds, 1).values()) == set(range(n_folds))
