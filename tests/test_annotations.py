"""Annotation files of both schemas, and the records made of them."""

import json

import pytest
import torch

from datasets.annotations import (AnnotationError, Strings, label_list_records, read_annotation,
                                  taxonomy_records)
from tests.tiny_data import write_large_annotation


def test_strings_hold_any_text():
    names = ['v_1', '', 'Grüße, 世界', 'a b']
    column = Strings(names)
    assert [column[i] for i in range(len(column))] == names


def test_records_follow_the_annotation(tiny_data):
    annotation = read_annotation(tiny_data.annotation_path)
    records, n_left_out = label_list_records(annotation, 'training')
    assert n_left_out == 0 and len(records) == 12
    assert records.class_names == ('red', 'green', 'blue')
    entry = tiny_data.read()['database']['green_1']['annotations']
    i = [records.video_ids[i] for i in range(12)].index('green_1')
    assert records.paths[i] == 'green/green_1'
    assert records.labels[i] == [1] and records.targets([i]).tolist() == [1]
    assert records.class_counts().tolist() == [4, 4, 4]
    assert records.is_alike(i).nonzero().flatten().tolist() == [4, 5, 6, 7]
    assert records.frames(i) == range(*entry['segment'])


def test_test_videos_have_no_label_and_lie_under_test(tiny_data):
    records, _ = label_list_records(read_annotation(tiny_data.annotation_path), 'testing')
    assert records.labels[0] == [] and records.targets(range(3)).tolist() == [-1, -1, -1]
    assert not records.class_counts().any() and records.is_alike(0).all()
    assert records.paths[0] == 'test/red_6'


def test_video_path_of_the_annotation_wins(own_data):
    annotation = own_data.read()
    annotation['database']['red_0']['video_path'] = 'elsewhere/red'
    own_data.write(annotation)
    records, _ = label_list_records(read_annotation(own_data.annotation_path), 'training')
    assert records.paths[0] == 'elsewhere/red'


def test_labels_that_are_json_numbers(tmp_path):
    """Numbers among the class names, of the videos, or both, are the same text; 0 is a label."""
    database = {'a': 0, 'b': '0', 'c': 1, 'd': [1, '2.5'], 'e': '1'}
    entries = {video_id: {'subset': 'training', 'annotations': {'label': label, 'segment': [1, 5]}}
               for video_id, label in database.items()}
    for labels in ([0, 1, 2.5], ['0', '1', '2.5']):
        (tmp_path / 'a.json').write_text(json.dumps({'labels': labels, 'database': entries}))
        annotation = read_annotation(tmp_path / 'a.json')
        records, _ = label_list_records(annotation, 'training', multi_label=True)
        assert annotation.class_names == ('0', '1', '2.5')
        assert [records.labels[i] for i in range(5)] == [[0], [0], [1], [1, 2], [1]]
        assert [records.paths[i] for i in range(5)] == ['0/a', '0/b', '1/c', 'd', '1/e']


def test_labels_of_a_taxonomy_that_are_json_numbers(tmp_path):
    data = {'taxonomy': [{'nodeName': 'all', 'nodeId': 0, 'parentId': None},
                         {'nodeName': '7', 'nodeId': 1, 'parentId': 0}],
            'database': {'a': {'subset': 'training', 'fps': 10, 'annotations': [
                {'segment': [0, 1], 'label': 7}]}}}
    (tmp_path / 'a.json').write_text(json.dumps(data))
    records, _ = taxonomy_records(read_annotation(tmp_path / 'a.json'), 'training', lambda path: 20)
    assert records.labels[0] == [0]


@pytest.mark.parametrize('change, match', [
    ({'video_path': 3}, '"video_path" 3'),
    ({'annotations': {'label': 'red', 'segment': [1, 2 ** 40]}}, 'segment'),
])
def test_entries_that_cannot_be(own_data, change, match):
    annotation = own_data.read()
    annotation['database']['red_0'].update(change)
    own_data.write(annotation)
    with pytest.raises(AnnotationError, match=f"'red_0'.*{match}"):
        label_list_records(read_annotation(own_data.annotation_path), 'training')


@pytest.mark.golden
@pytest.mark.parametrize('use', ['trimmed', 'untrimmed'])
def test_activitynet_samples(golden_dir, use):
    folder = golden_dir / 'json/activitynet'
    expected = json.loads((folder / 'expected.json').read_text())
    n_frames = json.loads((folder / 'frames.json').read_text())
    annotation = read_annotation(folder / 'input/activity_net.json')
    assert list(annotation.class_names) == expected['class_names']
    for subset, samples in expected[use].items():
        records, _ = taxonomy_records(annotation, subset, lambda path: n_frames.get(path, 0),
                                      trimmed=use == 'trimmed')
        found = [{'video_id': records.video_ids[i],
                  'segment': [records.frames(i).start, records.frames(i).stop],
                  **({'label': int(records.targets([i]))} if use == 'trimmed' else {})}
                 for i in range(len(records))]
        assert found == samples


def test_taxonomy_without_fps_names_the_cure(tmp_path):
    path = tmp_path / 'anet.json'
    path.write_text(json.dumps({
        'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None},
                     {'nodeName': 'Surfing', 'nodeId': 1, 'parentId': 0}],
        'database': {'x': {'subset': 'training',
                           'annotations': [{'segment': [1.0, 2.0], 'label': 'Surfing'}]}}}))
    with pytest.raises(AnnotationError, match='add_fps_into_activitynet_json'):
        taxonomy_records(read_annotation(path), 'training', lambda _: 100)


def test_short_segments_are_widened(tmp_path):
    path = tmp_path / 'anet.json'
    marks = [{'segment': [sec, sec + 0.05], 'label': 'Surfing'} for sec in (1.0, 9.9)]
    path.write_text(json.dumps({
        'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None},
                     {'nodeName': 'Surfing', 'nodeId': 1, 'parentId': 0}],
        'database': {'x': {'subset': 'training', 'fps': 10, 'annotations': marks}}}))
    records, _ = taxonomy_records(read_annotation(path), 'training', lambda _: 100)
    assert [records.frames(i) for i in range(2)] == [range(11, 19), range(93, 101)]


@pytest.mark.parametrize('marks', [3, ['x'], [{'label': 'Surfing', 'segment': [0, 1e400]}],
                                   [{'label': 'Surfing', 'segment': None}]])
def test_marks_of_a_taxonomy_that_cannot_be(tmp_path, marks):
    path = tmp_path / 'anet.json'
    path.write_text(json.dumps({
        'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None},
                     {'nodeName': 'Surfing', 'nodeId': 1, 'parentId': 0}],
        'database': {'x': {'subset': 'training', 'fps': 10, 'annotations': marks}}}))
    with pytest.raises(AnnotationError, match="'x'"):
        taxonomy_records(read_annotation(path), 'training', lambda _: 100)


def test_the_index_is_a_few_numbers_a_video(tmp_path):
    names = write_large_annotation(tmp_path / 'large.json', 5000)
    records, _ = label_list_records(read_annotation(tmp_path / 'large.json'), 'training')
    columns = [value for part in (records, records.labels) for value in vars(part).values()
               if torch.is_tensor(value)]
    strings = (records.video_ids, records.paths)
    n_bytes = sum(c.element_size() * c.numel() for c in columns) + sum(
        s._ends.element_size() * s._ends.numel() for s in strings)
    assert n_bytes / len(names) < 40
    assert sum(s._data.numel() for s in strings) == sum(2 * len(name) + 2 for name in names)
    assert records.video_ids[4999] == names[4999] and records.paths[1] == f'b/{names[1]}'


def records_of(tmp_path, database, subset='training', labels=('a', 'b'), **arguments):
    """(records, how many videos were left out) of a made-up annotation."""
    (tmp_path / 'a.json').write_text(json.dumps({'labels': labels, 'database': database}))
    return label_list_records(read_annotation(tmp_path / 'a.json'), subset, **arguments)


def entry(subset='training', label='b', **more):
    return {'subset': subset, 'annotations': {'label': label, 'segment': [1, 9]}, **more}


def test_subsets_that_are_not_there_are_told_from_those_that_are(tmp_path):
    with pytest.raises(AnnotationError, match=r'found training \(2\), x \(1\): call that of '
                       "some 'validation', or add --no_val, or name another --inf"):
        records_of(tmp_path, {'p': entry(), 'q': entry(), 'r': entry('x')}, 'validation')
    with pytest.raises(AnnotationError, match='found none at all: call'):
        records_of(tmp_path, {}, 'validation')


def test_videos_without_a_segment_are_counted(tmp_path):
    without = {'subset': 'training', 'annotations': {'label': 'a'}}
    records, n_left_out = records_of(tmp_path, {'p': entry(), 'q': without, 'r': without})
    assert (len(records), n_left_out) == (1, 2)


def test_labels_of_test_videos_are_kept_and_others_must_have_some(tmp_path):
    database = {'p': entry('testing'), 'q': entry('testing', None)}
    records, _ = records_of(tmp_path, database, 'testing')
    assert records.targets([0, 1]).tolist() == [1, -1]
    with pytest.raises(AnnotationError, match="'p'"):
        records_of(tmp_path, {'p': entry(label=None)})
    with pytest.raises(AnnotationError, match="'p'.*--multi_label"):
        records_of(tmp_path, {'p': entry(label=['a', 'b'])})


def test_the_length_of_a_video_is_what_its_entry_says(tmp_path):
    for first_frame, segment in ((1, [1, 9]), (0, [0, 8])):
        marked = {'subset': 'training', 'annotations': {'label': 'a', 'segment': segment}}
        for n_frames, end in ((8, first_frame + 8), (20, first_frame + 20)):
            records, _ = records_of(tmp_path, {'p': {**marked, 'n_frames': n_frames}},
                                    first_frame=first_frame)
            assert records.video_ends[0] == end
        records, _ = records_of(tmp_path, {'p': marked}, first_frame=first_frame)
        assert records.video_ends[0] == first_frame + 8
    for wrong in (7, 8.5, 'x', 2 ** 40):
        with pytest.raises(AnnotationError, match=f'"n_frames" {wrong!r} is not .* frame 8 in it'):
            records_of(tmp_path, {'p': entry(n_frames=wrong)})


def test_targets_are_1_for_each_label(tmp_path):
    database = {'p': entry(label=['b', 'a']), 'q': entry(label=['b'])}
    records, _ = records_of(tmp_path, database, multi_label=True)
    assert records.targets([0, 1]).tolist() == [[1, 1], [0, 1]]


def test_the_last_frame_that_a_column_holds(tmp_path):
    marked = {'subset': 'training', 'annotations': {'label': 'a', 'segment': [1, 2 ** 31 - 1]}}
    records, _ = records_of(tmp_path, {'p': marked})
    assert records.frames(0) == range(1, 2 ** 31 - 1)
    marked['annotations']['segment'][1] += 1
    with pytest.raises(AnnotationError, match="'p': segment"):
        records_of(tmp_path, {'p': marked})


def timed(tmp_path, *segments, label='Surfing', fps=10, n_frames=(100,), **arguments):
    """The same of a taxonomy, of segments in seconds; one video for each number of frames."""
    marks = [{'segment': segment, 'label': label} for segment in segments]
    (tmp_path / 'anet.json').write_text(json.dumps({
        'taxonomy': [{'nodeName': 'Root', 'nodeId': 0, 'parentId': None},
                     {'nodeName': 'Surfing', 'nodeId': 1, 'parentId': 0}],
        'database': {f'x{i}': {'subset': 'training', 'fps': fps, 'annotations': marks}
                     for i in range(len(n_frames))}}))
    counts = iter(n_frames)
    return taxonomy_records(read_annotation(tmp_path / 'anet.json'), 'training',
                            lambda _: next(counts), **arguments)


def test_seconds_become_frames(tmp_path):
    segments = [[0, 2], [1.25, 3.19], [-1, 1], [9, 30]]
    for first_frame in (0, 1):
        records, _ = timed(tmp_path, *segments, first_frame=first_frame)
        found = [(records.frames(i).start, records.frames(i).stop) for i in range(4)]
        # The last frame + 1, counted from 1, is that of the end.
        assert found == [(begin + first_frame, end + first_frame)
                         for begin, end in ((0, 20), (12, 31), (0, 10), (90, 99))]
        assert records.video_ends.tolist() == [100 + first_frame] * 4
    # So many frames as a segment has at least, and one less, which is widened at its end.
    records, _ = timed(tmp_path, [1, 1.8], [1, 1.7], [9.6, 9.8])
    assert [records.frames(i) for i in range(3)] == [range(11, 19), range(11, 19), range(93, 101)]


def test_segments_in_seconds_that_no_column_holds(tmp_path):
    with pytest.raises(AnnotationError, match='is not .begin, end. in seconds'):
        timed(tmp_path, [0, 1e6], fps=10_000)
    with pytest.raises(AnnotationError, match='is not .begin, end. in seconds'):
        timed(tmp_path, [0, 2 ** 31 - 1], fps=1)


def test_segments_of_short_videos_begin_with_the_first_frame(tmp_path):
    records, _ = timed(tmp_path, [0.1, 0.3], n_frames=(5,))
    assert records.frames(0) == range(1, 6)


def test_segments_have_one_label_each(tmp_path):
    with pytest.raises(AnnotationError, match='has a list of labels'):
        timed(tmp_path, [0, 2], label=['Surfing'])


def test_videos_of_a_taxonomy_without_frames_are_counted(tmp_path):
    for trimmed in (True, False):
        records, n_left_out = timed(tmp_path, [0, 2], n_frames=(0, 50, 0), trimmed=trimmed)
        assert (len(records), n_left_out) == (1, 2)
    records, n_left_out = timed(tmp_path, [0, 2], n_frames=(50,))
    assert (len(records), n_left_out) == (1, 0)


@pytest.mark.parametrize('segment', [[1], [1, 5, 9], 'ab', [True, 9], [1.0, 9], [1, '9'], None, {},
                                     3, [5, 5], [9, 5], [0, 5], [-1, 5]])
def test_segments_that_are_none(tmp_path, segment):
    marked = {'subset': 'training', 'annotations': {'label': 'a', 'segment': segment}}
    with pytest.raises(AnnotationError, match="'p': segment .* counted from 1; mend it"):
        records_of(tmp_path, {'p': marked})


@pytest.mark.parametrize('fps', [0, -1, None, True, '25', float('inf')])
def test_rates_that_are_none(tmp_path, fps):
    with pytest.raises(AnnotationError, match='has no "fps"'):
        timed(tmp_path, [0, 2], fps=fps)
    assert len(timed(tmp_path, [0, 2], fps=0.5)[0]) == 1


@pytest.mark.parametrize('segment', [[1], [1, 5, 9], 'ab', [True, 9], [1, '9'], {}, 3])
def test_segments_in_seconds_that_are_none(tmp_path, segment):
    with pytest.raises(AnnotationError, match='is not .begin, end. in seconds'):
        timed(tmp_path, segment)


def test_of_an_annotation_that_is_not_there_the_nearest_is_said(tmp_path):
    (tmp_path / 'own.json').write_text('{}')
    with pytest.raises(AnnotationError, match='no such annotation file; did you mean .*own.json'):
        read_annotation(tmp_path / 'onw.json')
    with pytest.raises(AnnotationError, match='no such annotation file; check --annotation_path'):
        read_annotation(tmp_path / 'gone' / 'own.json')


def test_classes_of_a_taxonomy_are_its_leaves(tmp_path):
    nodes = [('all', 0, None), ('sport', 1, 0), ('run', 2, 1), ('swim', 'x', 1), ('cook', 4, 0)]
    (tmp_path / 'a.json').write_text(json.dumps({'database': {}, 'taxonomy': [
        {'nodeName': name, 'nodeId': own, 'parentId': parent} for name, own, parent in nodes]}))
    annotation = read_annotation(tmp_path / 'a.json')
    assert annotation.class_names == ('run', 'swim', 'cook') and annotation.is_taxonomy


def test_the_fingerprint_is_of_videos_and_frames(tmp_path):
    def fingerprint(*videos):
        database = {name: entry(**more) for name, more in videos}
        return records_of(tmp_path, database)[0].fingerprint()
    videos = ('p', {}), ('q', {})
    assert fingerprint(*videos) == fingerprint(*videos)
    marked = {'annotations': {'label': 'b', 'segment': [1, 8]}}
    others = [(videos[0], ('r', {})), (videos[0],), videos[::-1], (videos[0], ('q', marked)),
              (('p', {'video_path': 'elsewhere'}), videos[1])]
    assert len({fingerprint(*videos), *(fingerprint(*other) for other in others)}) == 6


@pytest.mark.parametrize('labels, name', [('abbcc', 'b'), ([2, 'x', '2'], '2')])
def test_the_first_label_that_is_listed_twice_is_named(tmp_path, labels, name):
    with pytest.raises(AnnotationError, match=f"label '{name}' is listed twice"):
        records_of(tmp_path, {}, labels=list(labels))
