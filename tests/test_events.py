"""Events: what makes one, how they are written, and mAP against an annotation reckoned by hand."""

import csv
import json
import re

import av
import numpy as np
import pytest

from tests.helpers import run_script
from tests.test_predict import coloured_video, trained  # noqa: F401  (a fixture)
from util_scripts import predict
from util_scripts.helpers.captions import draw_events
from util_scripts.helpers.event_evaluation import (OVERLAPS, Segment, average_precision,
                                                   mean_average_precisions)
from util_scripts.helpers.events import (Event, EventFinder, Rules, as_webvtt, event_lines,
                                         finished, in_order, none_of_them)


def events_of(series, rules=Rules(), width=1.0, step=1.0):
    """[(label, begin, end, score)] of {label: scores} of windows that are `step` seconds apart."""
    finder = EventFinder(list(series), rules)
    notes = []
    for number, scores in enumerate(zip(*series.values())):
        notes += finder.add(number * step, number * step + width, scores)
    notes += finder.finish()
    told = [event for kind, event in notes if kind == 'begin']
    assert [(event.label, event.begin_sec) for event in in_order(told)] == [
        (event.label, event.begin_sec) for event in in_order(finished(notes))]
    return [(event.label, event.begin_sec, event.end_sec, round(event.score, 3))
            for event in in_order(finished(notes))]


# ---------------------------------------------------------------- what an event is

def test_threshold_and_hysteresis():
    scores = [0.1, 0.45, 0.9, 0.45, 0.3, 0.45, 0.45, 0.1]
    rules = Rules(threshold=0.5, low_threshold=0.4, max_gap_sec=0)
    assert events_of({'a': scores}, rules) == [('a', 1, 4, 0.9)]
    assert events_of({'a': scores}, Rules(0.5, 0.5, max_gap_sec=0)) == [('a', 2, 3, 0.9)]
    assert events_of({'a': scores}, Rules(0.95, 0.4)) == []


def test_gaps_are_closed_up_to_their_length():
    scores = [0.9, 0.1, 0.8, 0.1, 0.1, 0.9]
    assert events_of({'a': scores}, Rules(max_gap_sec=1)) == [('a', 0, 3, 0.9), ('a', 5, 6, 0.9)]
    assert events_of({'a': scores}, Rules(max_gap_sec=2)) == [('a', 0, 6, 0.9)]
    assert len(events_of({'a': scores}, Rules(max_gap_sec=0))) == 3


def test_short_ones_are_none():
    scores = [0.9, 0, 0, 0.9, 0.9, 0]
    assert events_of({'a': scores}, Rules(min_sec=2)) == [('a', 3, 5, 0.9)]


def test_smoothing():
    scores = [0, 0.9, 0, 0, 0.9, 0.9, 0.9, 0, 0]
    assert [row[1:3] for row in events_of({'a': scores}, Rules(smooth=3))] == [(4, 7)]
    assert [row[1:3] for row in events_of({'a': scores})] == [(1, 2), (4, 7)]
    # A constant score stays what it is, at the ends too.
    assert events_of({'a': [0.7] * 4}, Rules(smooth=5)) == [('a', 0, 4, 0.7)]


def test_classes_are_apart_and_one_may_mean_nothing():
    series = {'a': [0.9, 0.9, 0.2, 0.2], 'none': [0.1, 0.6, 0.8, 0.8]}
    assert events_of(series) == [('a', 0, 2, 0.9), ('none', 1, 4, 0.8)]
    assert events_of(series, Rules(none_class='none')) == [('a', 0, 2, 0.9)]


def test_windows_that_overlap_or_leave_holes():
    """A window stands for the time up to the middle between it and its neighbours."""
    scores = [0.9, 0.9, 0, 0, 0.9]
    assert [row[1:3] for row in events_of({'a': scores}, width=2.0)] == [(0, 2.5), (4.5, 6)]
    assert [row[1:3] for row in events_of({'a': scores}, Rules(max_gap_sec=0), width=0.25)] == [
        (0, 0.25), (1, 1.25), (4, 4.25)]


def test_as_the_definition_says(seed):
    """Random scores: runs above the low threshold, merged over gaps, of which one is above the
    high one."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        scores = rng.random(int(rng.integers(1, 40)))
        low, high = sorted(rng.random(2))
        gap, least = int(rng.integers(0, 3)), int(rng.integers(0, 4))
        rules = Rules(high, low, min_sec=least, max_gap_sec=gap)
        runs = []
        for place in np.flatnonzero(scores >= low).tolist():
            if runs and place - runs[-1][1] <= gap:
                runs[-1][1] = place + 1
            else:
                runs.append([place, place + 1])
        expected = [(begin, end) for begin, end in runs
                    if scores[begin:end].max() >= high and end - begin >= least]
        assert [row[1:3] for row in events_of({'a': scores.tolist()}, rules)] == expected


def test_a_stream_without_end_takes_no_more_memory():
    finder = EventFinder(['a', 'b'], Rules(smooth=5))
    n_events = 0
    for number in range(20_000):
        notes = finder.add(number, number + 1, [0.9 * (number % 50 < 5), 0.2])
        n_events += len(finished(notes))
        assert len(finder._windows) <= 6 and len(finder._runs) <= 1
    assert n_events == 400


def test_an_event_is_told_when_it_is_one():
    finder = EventFinder(['a'], Rules(min_sec=2))
    kinds = [[kind for kind, _ in finder.add(number, number + 1, [score])]
             for number, score in enumerate([0, 0.9, 0.9, 0.9, 0, 0])]
    # Each window waits for the one after it.
    assert kinds == [[], [], [], ['begin'], [], ['end']] and finder.finish() == []


# ---------------------------------------------------------------- how it is written

EVENTS = [Event('run', 0.5, 2.0, 1.0, 0.9), Event('a <b> & --> c', 1.5, 3661.25, 3.0, 0.8)]


def test_the_time_between_is_none_of_them():
    assert none_of_them(EVENTS, 4000) == [(0.0, 0.5), (3661.25, 4000)]
    assert none_of_them([], 3) == [(0.0, 3)] and none_of_them(EVENTS[:1], 2.0) == [(0.0, 0.5)]
    lines = event_lines(EVENTS[:1], 3.0)
    assert [line.split('s  ')[1].strip() for line in lines] == [
        'none of them', '0.900 run  (peak at 1.00 s)', 'none of them']


def test_subtitles():
    assert as_webvtt(EVENTS) == (
        'WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nrun (0.90)\n\n'
        '00:00:01.500 --> 01:01:01.250\na &lt;b&gt; &amp; --&gt; c (0.80)\n')
    assert as_webvtt([]) == 'WEBVTT\n'


def test_the_bar_under_the_picture():
    frame = np.full((360, 480, 3), 200, np.uint8)
    many = [(f'class {number}', number, number + 2) for number in range(9)]
    drawn = draw_events(frame, many, 1.0, 12.0)
    assert (drawn[:360] == 200).all() and drawn.shape[0] > 360 + 6 * 20
    assert draw_events(frame, [], 1.0, 12.0).shape[0] > 360


# ---------------------------------------------------------------- the command

@pytest.fixture
def command(trained, tmp_path, capsys):  # noqa: F811
    def call(*argv):
        status = predict.main([*map(str, argv), '--weights', str(trained), '--no_cuda', '--json',
                               str(tmp_path / 'out.json')])
        return status, json.loads((tmp_path / 'out.json').read_text()), *capsys.readouterr()
    return call


@pytest.mark.slow
def test_events_of_a_video(tmp_path, command):
    video = coloured_video(tmp_path / 'a.mp4', n_frames=100)
    status, data, out, _ = command(
        video, '--events', '--threshold', 0.01, '--stride', 4, '--csv', tmp_path / 'a.csv', '--vtt',
        tmp_path / 'a.vtt', '--annotate', tmp_path / 'b.mp4')
    events = data['events'][str(video)]
    assert status == 0 and len(events) == 3 and '  events:' in out
    assert {event['label'] for event in events} == {'red', 'green', 'blue'}
    assert all(event['begin_sec'] == 0 and 3.8 < event['end_sec'] < 4.01 for event in events)
    with open(tmp_path / 'a.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [{**row, 'video': None} for row in rows] == [
        {'video': None, **{name: str(value) for name, value in event.items()}} for event in events]
    assert len(re.findall('-->', (tmp_path / 'a.vtt').read_text())) == 3
    with av.open(str(tmp_path / 'b.mp4')) as container:
        assert container.streams.video[0].height > 360
    assert command(video, '--events', '--threshold', 1)[1]['events'] == {str(video): []}
    assert 'events' not in command(video)[1]


# ---------------------------------------------------------------- mAP

def test_average_precision_reckoned_by_hand():
    """Two instances in v, one in w. By score: a hit (0.8 of overlap), a second event on the same
    instance, a miss elsewhere, a hit of 0.6, an event in w that overlaps by a third."""
    instances = [Segment('v', 'a', 0, 10), Segment('v', 'a', 20, 30), Segment('w', 'a', 0, 6)]
    events = [Segment('v', 'a', 0, 8, 0.9), Segment('v', 'a', 1, 10, 0.8),
              Segment('x', 'a', 0, 6, 0.7), Segment('v', 'a', 20, 26, 0.6),
              Segment('w', 'a', 4, 8, 0.5)]
    # At 0.5: right, wrong, wrong, right, wrong: precision 1 at recall 1/3, 2/4 at recall 2/3.
    assert average_precision(events, instances, [0.5])[0] == pytest.approx((1 + 0.5) / 3)
    # At 0.7 the fourth, of overlap 0.6, is wrong.
    assert average_precision(events, instances, [0.7])[0] == pytest.approx(1 / 3)
    # At 0.85 the first is wrong, and the second, of overlap 0.9, is right: precision 1/2 at 1/3.
    assert average_precision(events, instances, [0.85])[0] == pytest.approx(0.5 / 3)
    # At 0.25 the last one, of 2 shared seconds of 8, is right too: 1, 2/4, 3/5, and the precision
    # is made monotonic: 1, 3/5, 3/5.
    assert average_precision(events, instances, [0.25])[0] == pytest.approx((1 + 0.6 + 0.6) / 3)


def test_the_instance_that_is_taken_leaves_the_next():
    instances = [Segment('v', 'a', 0, 10), Segment('v', 'a', 1, 10)]
    events = [Segment('v', 'a', 0, 10, 0.9), Segment('v', 'a', 0, 10, 0.8)]
    assert average_precision(events, instances, [0.5, 0.95]).tolist() == [1.0, 0.5]


def test_classes_without_events_count():
    instances = [Segment('v', 'a', 0, 1), Segment('v', 'b', 0, 1)]
    by_class = mean_average_precisions([Segment('v', 'a', 0, 1, 0.5),
                                        Segment('v', 'c', 0, 1, 0.5)], instances)
    assert {label: value.mean() for label, value in by_class.items()} == {'a': 1.0, 'b': 0.0}
    assert OVERLAPS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@pytest.fixture
def annotation(tmp_path):
    marks = [{'label': 'run', 'segment': [0, 10]}, {'label': 'run', 'segment': [20, 30]}]
    path = tmp_path / 'annotation.json'
    path.write_text(json.dumps({'labels': ['run', 'swim'], 'database': {
        'abc': {'subset': 'validation', 'annotations': marks},
        'def': {'subset': 'validation', 'annotations': []},
        'bare': {'subset': 'training', 'annotations': {'label': 'run', 'segment': [1, 30]}}}}))
    return path


@pytest.mark.parametrize('name', ['abc', 'videos/v_abc.mp4', 'abc.avi'])
def test_the_evaluation_as_a_command(annotation, tmp_path, name):
    event = {'label': 'run', 'begin_sec': 0, 'end_sec': 8, 'peak_sec': 1, 'score': 0.9}
    (tmp_path / 'r.json').write_text(json.dumps({'events': {name: [event]}}))
    done = run_script('eval_events', tmp_path / 'r.json', annotation, '--per_class')
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and 'mAP at tIoU 0.5: 0.5000' in lines
    assert 'mAP at tIoU 0.85: 0.0000' in lines and '1 of 2 videos without a result' in lines[0]
    assert lines[-1] == 'average mAP: 0.3500 (1 class, 1 event, 2 instances)'
    (tmp_path / 'r.json').write_text(json.dumps({'version': '1', 'results': {
        'abc': [{'label': 'run', 'score': 0.9, 'segment': [0, 8]}]}}))
    again = run_script('eval_events', tmp_path / 'r.json', annotation, '--tiou', 0.5, 0.8)
    assert again.stdout.splitlines()[-1].startswith('average mAP: 0.5000')


def test_an_event_without_end(annotation, tmp_path):
    (tmp_path / 'r.json').write_text(json.dumps({'events': {
        'abc': [{'label': 'run', 'score': 1, 'begin_sec': 0, 'end_sec': 10 ** 400}]}}))
    done = run_script('eval_events', tmp_path / 'r.json', annotation)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "the entries of 'abc' are not events" in done.stderr
