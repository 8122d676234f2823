"""Properties that hold for whatever is drawn: transforms of frame numbers, readers, samplers."""

import argparse
import csv
import io
import json
import math
import os
import re
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings, strategies as st

import opts
import temporal_transforms as tt
from datasets.annotations import label_list_records, read_annotation
from datasets.frame_folders import pattern_of
from datasets.sampling import ClipBatches, ShuffledBatches
from runtime import arguments, schema
from runtime.errors import InputError, shortened
from runtime.files import parse_json
from runtime.output import printable
from util_scripts import hmdb51_json, kinetics_json, mit_json, ucf101_json
from util_scripts.helpers.neighbours import group_numbers
from util_scripts.helpers.prediction import read_labels
from util_scripts.helpers.run_logs import read_log
from util_scripts.helpers.splits import group_reader
from util_scripts.helpers.video_lists import read_list
from weights import load

# A busy machine fails no test; cases that failed are not kept in the repository.
settings.register_profile('here', deadline=None, database=None, max_examples=60,
                          suppress_health_check=list(HealthCheck))
settings.load_profile('here')

FRAMES = st.builds(lambda begin, n: list(range(begin, begin + n)), st.integers(0, 1000),
                   st.integers(1, 200))
SIZES = st.integers(1, 64)


# ---------------------------------------------------------------- frame numbers

TRANSFORMS = st.one_of(
    st.builds(tt.LoopPadding, SIZES), st.builds(tt.TemporalBeginCrop, SIZES),
    st.builds(tt.TemporalCenterCrop, SIZES), st.builds(tt.TemporalRandomCrop, SIZES),
    st.builds(tt.TemporalEvenCrop, SIZES, st.integers(1, 9)),
    st.builds(tt.SlidingWindow, SIZES, st.integers(0, 70)),
    st.builds(tt.EvenWindows, SIZES, st.integers(1, 9)),
    st.builds(tt.TemporalSubsampling, st.integers(1, 9)),
    st.builds(lambda stride, size: tt.Compose([tt.TemporalSubsampling(stride),
                                               tt.SlidingWindow(size)]),
              st.integers(1, 9), SIZES))


@given(FRAMES, TRANSFORMS)
def test_clips_are_of_the_frames_and_as_announced(frames, transform):
    clips = tt.as_clips(transform(frames))
    assert len(clips) == transform.n_clips(len(frames))
    assert {len(clip) for clip in clips} == {transform.clip_length(len(frames))}
    assert all(set(clip) <= set(frames) for clip in clips)


@given(FRAMES, SIZES)
def test_crops_are_whole_stretches_where_there_are_enough(frames, size):
    for transform in (tt.TemporalBeginCrop(size), tt.TemporalCenterCrop(size),
                      tt.TemporalRandomCrop(size), tt.EvenWindows(size, 3),
                      tt.TemporalEvenCrop(size, 3), tt.SlidingWindow(size)):
        for clip in tt.as_clips(transform(frames)):
            if len(frames) >= size:
                begin = frames.index(clip[0])
                stretch = frames[begin:begin + size]
                assert clip[:len(stretch)] == stretch
            else:  # the same frames from the start, again and again
                assert clip == [frames[i % len(frames)] for i in range(size)]


@given(FRAMES, SIZES)
def test_windows_leave_no_frame_out(frames, size):
    clips = tt.SlidingWindow(size)(frames)
    assert {frame for clip in clips for frame in clip} == set(frames)
    assert [clip[0] for clip in clips] == frames[::size]


@given(FRAMES, st.integers(1, 50))
def test_shuffled_blocks_are_the_same_frames(frames, size):
    shuffled = tt.Shuffle(size)(frames)
    assert sorted(shuffled) == frames


# ---------------------------------------------------------------- samplers

@given(st.integers(2, 200), st.integers(2, 20), st.integers(1, 9), st.integers(0, 99),
       st.integers(0, 5))
def test_batches_of_all_processes_are_a_partition(n, batch_size, world_size, seed, epoch):
    ranks = []
    for rank in range(world_size):
        batches = ShuffledBatches(n, batch_size, seed, rank, world_size)
        batches.set_position(epoch)
        ranks.append(list(batches))
        assert len(ranks[-1]) == len(batches)
    seen = set()
    for i, shares in enumerate(zip(*ranks, strict=True)):
        batch = [key for share in shares for key in share]
        # A process without a sample of its own reads one of another.
        assert set(batch) == set(batches.batch(epoch, i))
        assert len(batch) == len(set(batch)) or batches.total(i) < world_size
        assert not seen & set(batch)
        seen |= set(batch)
    assert sorted(key.index for key in seen) == list(range(n))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 16),
       st.booleans(), st.integers(1, 9))
def test_each_clip_is_read_once_by_one_process(n_clips, batch_size, one_video, world_size):
    read = []
    for rank in range(world_size):
        batches = ClipBatches(n_clips, batch_size, one_video, rank, world_size)
        own = []
        for batch in batches:
            assert sum(key.end_clip - key.begin_clip for key in batch) <= batch_size
            assert not one_video or len({key.index for key in batch}) == 1
            own += [(key.index, clip) for key in batch
                    for clip in range(key.begin_clip, key.end_clip)]
        assert len(own) == batches.n_own_clips()
        read += own
    assert sorted(read) == [(video, clip) for video, n in enumerate(n_clips) for clip in range(n)]


# ---------------------------------------------------------------- readers

FIELDS = ['labels', 'database', 'taxonomy', 'subset', 'annotations', 'label', 'segment',
          'video_path', 'nodeName', 'nodeId', 'parentId']
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text(max_size=4) | st.sampled_from(FIELDS), inner, max_size=4), max_leaves=20)
NAMES = st.text(st.characters(exclude_categories=['C', 'Zl', 'Zp']), min_size=1, max_size=9)


@pytest.fixture(scope='module')
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def refused_or(folder, name, content, read):
    """What `read` makes of a file, or None where it is refused in a sentence that names it."""
    path = folder / name
    path.write_bytes(content)
    try:
        return read(path)
    except InputError as error:
        assert str(error).startswith(str(path)) and '\n' not in str(error)


@given(JSON)
def test_any_json_is_an_annotation_or_refused(folder, value):
    annotation = refused_or(folder, 'a.json', json.dumps(value).encode(), read_annotation)
    if annotation:
        assert all(isinstance(name, str) for name in annotation.class_names)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(
    errors='surrogatepass')))
def test_any_bytes_are_refused_or_read(folder, content):
    refused_or(folder, 'a.json', content, read_annotation)
    refused_or(folder, 'a.pth', content, load)
    refused_or(folder, 'a.safetensors', content, load)
    refused_or(folder, 'a.csv', content, lambda path: read_list(path, folder))


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True), st.data())
def test_an_annotation_is_read_as_it_was_written(folder, labels, data):
    videos = data.draw(st.dictionaries(NAMES, st.tuples(
        st.sampled_from(labels), st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=9))
    content = {'labels': labels, 'database': {
        name: {'subset': 'training', 'annotations': {'label': label, 'segment': [begin, begin + n]}}
        for name, (label, begin, n) in videos.items()}}
    (folder / 'a.json').write_text(json.dumps(content))
    records, n_left_out = label_list_records(read_annotation(folder / 'a.json'), 'training')
    assert n_left_out == 0 and list(records.class_names) == labels
    for i, (name, (label, begin, n)) in enumerate(videos.items()):
        assert records.video_ids[i] == name and records.paths[i] == f'{label}/{name}'
        assert records.frames(i) == range(begin, begin + n)
        assert labels[int(records.targets([i])[0])] == label


# What a field may hold: quotation marks, separators, accents in two forms, but no line end.
CELLS = st.text(st.characters(exclude_categories=('Cs', 'Cc', 'Zl', 'Zp')), min_size=1,
                max_size=6).map(str.strip).filter(bool)
HEADERS = (('path', 'label', 'group', 'subset', 'start_frame', 'end_frame'),
           ('Video Name', 'CLASS', 'Group', 'Split', 'First Frame', 'last-frame'),
           ('clipPath', 'className', 'group', 'Subset', 'frameStart', 'frameEnd'))


@settings(max_examples=30)
@given(st.data())
def test_a_list_is_read_as_it_was_written(folder, data):
    """By whichever program: what separates, quotes and ends its fields and lines, in any order."""
    rows = data.draw(st.lists(st.tuples(
        st.from_regex('[A-Za-z0-9_]{1,6}(/[A-Za-z0-9_ -]{0,6}[a-z]){0,2}[.]mp4', fullmatch=True),
        CELLS, CELLS, st.sampled_from(['train', 'Valid', 'TEST_SET']), st.integers(1, 99),
        st.integers(99, 999)), min_size=1, max_size=5))
    order = data.draw(st.permutations(range(6)))
    n_empty = data.draw(st.integers(0, 2))  # columns of a sheet that were emptied
    text = io.StringIO()
    writer = csv.writer(text, delimiter=data.draw(st.sampled_from(',;\t')),
                        quoting=data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])),
                        lineterminator=data.draw(st.sampled_from(['\n', '\r\n', '\r'])))
    for row in (data.draw(st.sampled_from(HEADERS)), *rows):
        writer.writerow([row[place] for place in order] + [''] * n_empty)
    encoding = data.draw(st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']))
    (folder / 'l.csv').write_bytes(text.getvalue().encode(encoding))
    subsets = {'train': 'training', 'Valid': 'validation', 'TEST_SET': 'testing'}
    assert [(line.path, line.label, line.group, line.subset, line.part.begin, line.part.end)
            for line in read_list(folder / 'l.csv', folder / 'videos')] == [
        (path, unicodedata.normalize('NFC', label), unicodedata.normalize('NFC', group),
         subsets[word], *part) for path, label, group, word, *part in rows]


PIECES = st.sampled_from([
    'label,youtube_id,time_start,time_end,split\n', 'a,b,1,2,train\n', 'path,group\n',
    'a/x.mp4,g\n', 'Run/a.avi 1\n', '1 Run\n', 'x.avi 1 \n', 'clap,0\n', 'clap/a.mp4,clap,1,2\n',
    'path', 'label', 'start_sec', 'end_sec', 'fps', 'subset', 'val', ',', ';', '\t', ' ', '"',
    '\n', '\r', '\\', '/', '..', 'a', 'x.avi', '|', '# ', 'sep=;', '\ufeff', '\x0b', '\x85',
    '\u2028', 'e\u0301', '1', '-1', '1.0', '1:2', 'nan', 'inf', '1e400', '9' * 5000, '\u0663',
    '\xa0', '\x1b[0m'])


@settings(max_examples=25)
@given(st.lists(PIECES, max_size=30).map(''.join))
def test_any_list_is_refused_or_read(folder, text):
    for read in (lambda path: read_list(path, folder), group_reader, ucf101_json.read_labels,
                 lambda path: ucf101_json.read_list(path, 'training', {'Run': 1}),
                 lambda path: hmdb51_json.read_list(path, 'a'), mit_json.read_labels,
                 lambda path: mit_json.read_list(path, 'testing', {'clap'}),
                 lambda path: kinetics_json.read_list(path, 'training')):
        refused_or(folder, 'l.csv', text.encode(), read)


@given(st.dictionaries(NAMES, st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1,
                       max_size=5), st.booleans())
def test_weights_are_read_as_they_were_written(folder, shapes, is_zip):
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    torch.save({'state_dict': weights}, folder / 'a.pth', _use_new_zipfile_serialization=is_zip)
    found = load(folder / 'a.pth')['state_dict']
    assert len(found) == len(weights)
    assert all(torch.equal(a, b) for a, b in zip(found.values(), weights.values()))


@given(JSON)
def test_json_is_what_python_has(value):
    def plain(value):
        return repr(value)
    assert plain(parse_json(json.dumps(value))) == plain(json.loads(json.dumps(value)))


# Readers of lists and logs, and pieces of such files.
LISTS = {
    'ucf101 classes': ucf101_json.read_labels, 'mit classes': mit_json.read_labels,
    'ucf101': lambda path: ucf101_json.read_list(path, 'training', {'a'}),
    'hmdb51': lambda path: hmdb51_json.read_list(path, 'a'),
    'kinetics': lambda path: kinetics_json.read_list(path, 'training'),
    'mit': lambda path: mit_json.read_list(path, 'training', {'a'}),
    'groups': lambda path: group_numbers(path, np.array(['a', 'b'])),
    'own groups': lambda path: group_reader(path), 'class names': read_labels, 'log': read_log,
    'own': lambda path: read_list(path, path.parent)}
PIECES = (
    'path,group\n', 'label,youtube_id,time_start,time_end\n', 'epoch\tloss\n', 'a/b.avi', 'a', ',',
    ' ', '\t', ';', '\n', '\r', '"', '#', '|', '1', '2', '0', '9' * 5000, '1e400', 'nan', '\u00b2',
    '\u0661', '\x85', '\u2028', '\f', '\0', '..', '/', '%', '\ufeff', 'x' * 300, 'x' * 140_000)


def refused_at_most(folder, name, text):
    refused_or(folder, 'l.csv', text.encode(), LISTS[name])


@given(st.sampled_from(sorted(LISTS)), st.lists(st.sampled_from(PIECES) | st.text(max_size=3),
                                                max_size=12).map(''.join))
@settings(max_examples=200)
def test_any_text_is_a_list_or_refused(folder, name, text):
    refused_at_most(folder, name, text)


@pytest.mark.parametrize('name, text', [
    ('kinetics', 'label,youtube_id,time_start,time_end\na,b,1e400,2\n'),
    ('kinetics', 'label,youtube_id,time_start,time_end\na,b,1,2,' + 'x' * 140_000),
    ('mit', 'a/b.mp4,a,' + 'x' * 140_000), ('class names', 'a/b.mp4,a,' + 'x' * 140_000),
    ('ucf101 classes', '9' * 5000 + ' a'), ('mit classes', 'a,' + '9' * 5000),
    ('groups', 'path,group\na,1\nb\n'), ('groups', 'path,group\na,1\nb,' + 'x' * 140_000)])
def test_lists_that_were_not_foreseen(folder, name, text):
    refused_at_most(folder, name, text)


@given(st.text() | st.sampled_from([
    '9' * 5000, '9' * 20, '8x64@' + '9' * 5000, 'nan', '1e400', '%99999999999d', '*' * 40 + '%d',
    '\u0663x\u0663', '1_0', '-0']))
def test_any_text_is_a_value_or_refused(text):
    for kind in (arguments.POSITIVE, arguments.COUNT, arguments.SEED, arguments.FLOAT,
                 arguments.RATE, arguments.frame_template, opts._views, opts._clip_phase):
        try:
            value = kind(text)
        except argparse.ArgumentTypeError:
            continue
        if kind is arguments.frame_template:
            assert len(re.search('%[0-9]*d', value)[0] % 1) < 1000
            pattern_of(value).fullmatch('1' * 200)
        elif kind is opts._clip_phase:
            opts.clip_phases(argparse.Namespace(clip_schedule=[value]))


RECORDED = ('sample_size', 'mean', 'inference_views', 'result_path', 'frame_template', 'no_train',
            'clip_schedule')
VALUES = JSON | st.sampled_from(['a\0', '\ud800', 10 ** 400, [10 ** 400]])


@given(st.dictionaries(st.sampled_from(RECORDED), VALUES, max_size=2))
@settings(max_examples=30)
@example({'inference_views': 5})
@example({'result_path': 'a\0'})
@example({'result_path': 5})
def test_any_record_is_one_of_options_or_refused(folder, record):
    (folder / 'o.json').write_text(json.dumps(record))
    for read in (lambda: opts.parsed_record(record), lambda: opts.parse_opts(
            ['--opts', str(folder / 'o.json'), '--root_path', str(folder)])):
        try:
            read()
        except InputError as error:
            assert '\n' not in printable(error)


def test_a_record_of_a_number_that_is_not_written():
    for value in (10 ** 5000, [10 ** 5000]):
        with pytest.raises(InputError):
            opts.parsed_record({'sample_size': value})


# ---------------------------------------------------------------- schemas, printing

@given(JSON)
def test_a_schema_says_nothing_or_what_is_wrong(value):
    checks = (schema.TEXT, schema.NAME, schema.BOOL, schema.NUMBER, schema.REAL, schema.OBJECT,
              schema.whole(0), schema.whole(1, 5), schema.optional(schema.TEXT),
              schema.list_of(schema.whole(0), is_unique=True),
              schema.mapping(schema.TEXT, schema.NUMBER),
              schema.fields({'a': schema.TEXT}, {'b': schema.NUMBER}))
    for check in checks:
        fault = check(value)
        assert isinstance(fault, str) and '\n' not in printable(fault)
    assert (schema.NUMBER(value) == '') == schema.is_number(value)
    assert schema.is_number(value) == (type(value) is int and abs(value) < 2 ** 1000 or
                                       type(value) is float and math.isfinite(value))
    assert (schema.whole(0, 3)(value) == '') == (type(value) is int and 0 <= value <= 3)


@given(st.lists(st.text(max_size=9) | st.sampled_from(['x' * 600, ' a' * 3000])).map(''.join))
@settings(max_examples=20)
def test_sentences_are_no_longer_than_a_screen(text):
    short = shortened(text)
    assert len(short) < 3100 and (short == text or len(text) >= 500)


@given(st.text())
def test_what_is_printed_is_one_line(text):
    line = printable(text)
    assert len(line.splitlines()) <= 1 or set(line) & set('\u2028\u2029')
    assert printable(line) == line and os.linesep not in line
