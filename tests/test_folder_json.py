"""Annotation files of your own videos: what is found, and how it is split."""

import json
import shlex
import unicodedata
from collections import Counter

import pytest

from datasets.annotations import label_list_records, read_annotation
from datasets.frames import READERS, Hdf5Frames
from opts import STORAGES
from runtime.errors import InputError
from tests.helpers import ROOT, grey_frames, write_video
from tests.test_annotation_files import make_frames, make_hdf5
from util_scripts.folder_json import main
from util_scripts.generate_video_jpgs import main as main_jpgs
from util_scripts.helpers.own_videos import grouping
from util_scripts.helpers.splits import Own, split
from util_scripts.helpers.video_lists import read_list


def call(videos, dst, *flags):
    """The annotation that is written."""
    assert not main([str(videos), str(dst), *map(str, flags)])
    return json.loads(dst.read_text())


def write_csv(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')
    return path


def subsets(annotation):
    return {video_id: entry['subset'] for video_id, entry in annotation['database'].items()}


@pytest.fixture
def jpgs(tmp_path):
    """Folders of 3 frames: ten of class a, twenty of class b."""
    names = [f'a/x{i}' for i in range(10)] + [f'b/y{i}' for i in range(20)]
    return make_frames(tmp_path / 'jpg', dict.fromkeys(names, 3))


# ---------------------------------------------------------------- what is found

def test_jpg_folders(jpgs, tmp_path, capsys):
    made = call(jpgs, tmp_path / 'own.json')
    assert made['labels'] == ['a', 'b']
    assert made['database']['x3']['annotations'] == {'label': 'a', 'segment': [1, 4]}
    assert 'video_path' not in made['database']['x3']
    out = capsys.readouterr().out
    assert '30 videos' in out and '--n_classes 2' in out and '--file_type jpg' in out


def test_the_command_to_train_with_finds_its_script(jpgs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call(jpgs, tmp_path / 'own.json')
    script = shlex.split(capsys.readouterr().out.splitlines()[-1])[2]
    assert (tmp_path / script).samefile(ROOT / 'main.py')


def test_hdf5_files(tmp_path):
    made = call(make_hdf5(tmp_path / 'h5', {'a/x': 2, 'b/y': 5}), tmp_path / 'own.json')
    assert made['database']['y']['annotations'] == {'label': 'b', 'segment': [0, 5]}


class Copies(Hdf5Frames):
    """The same frames in files that are called otherwise."""

    suffix = '.copy'


def test_a_storage_is_a_reader_and_a_row_of_each_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(STORAGES, 'copies', ('copy', 'rgb'))
    monkeypatch.setitem(READERS, ('copy', 'rgb'), Copies)
    folder = make_hdf5(tmp_path / 'h5', {'a/x': 2, 'b/y': 5})
    for path in folder.rglob('*.hdf5'):
        path.rename(path.with_suffix('.copy'))
    made = call(folder, tmp_path / 'own.json')
    assert made['database']['y']['annotations'] == {'label': 'b', 'segment': [0, 5]}
    assert '--file_type copy' in capsys.readouterr().out
    assert call(folder, tmp_path / 'own.json', '--video_type', 'copies') == made


def test_video_files(tmp_path):
    write_video(tmp_path / 'v' / 'a' / 'x.1.mp4', grey_frames([50, 60, 70]))
    write_video(tmp_path / 'v' / 'b' / 'y.avi', grey_frames([50, 60]))
    (tmp_path / 'v' / 'b' / 'notes.txt').touch()
    (tmp_path / 'v' / 'b' / '.hidden.mp4').touch()
    (tmp_path / 'v' / 'groups.csv').touch()
    made = call(tmp_path / 'v', tmp_path / 'own.json')
    assert made['database']['x.1']['annotations'] == {'label': 'a', 'segment': [1, 4]}
    assert made['database'].keys() == {'x.1', 'y'}


def test_what_is_not_taken_is_counted(tmp_path, capsys):
    root = tmp_path / 'v'
    write_video(root / 'a' / 'x.mp4', grey_frames([50]))
    write_video(root / 'a' / 'deeper' / 'y.mp4', grey_frames([50]))
    (root / 'a' / 'circle').symlink_to(root)
    (root / 'b').symlink_to(root / 'a' / 'deeper')
    write_video(root / 'loose.mp4', grey_frames([50]))
    (root / 'a' / '.hidden.mp4').touch()
    (root / 'a' / 'link.mp4').symlink_to('nowhere.mp4')
    for name in ('a.txt', 'b.txt'):
        (root / 'a' / name).touch()
    made = call(root, tmp_path / 'own.json')
    assert made['database'].keys() == {'x', 'a/deeper/y', 'b/y'}
    found = capsys.readouterr().err
    main_jpgs([str(root), str(tmp_path / 'jpg'), 'ucf101', '--n_jobs', '1'])
    for err in (found, capsys.readouterr().err):
        lines = [line for line in err.splitlines() if 'not taken' in line]
        assert len(lines) == 1
        for part in ('2 with extension .txt (a.txt, ...)', '1 hidden (.hidden.mp4)',
                     '1 links in a circle (circle)', '1 dangling links (link.mp4)',
                     '1 videos in no folder of a class (loose.mp4)'):
            assert part in lines[0]


def test_a_folder_too_high(tmp_path, capsys):
    """What holds the frames, the videos and what a training wrote."""
    make_frames(tmp_path / 'd/jpg', {'a/x': 2, 'b/y': 2})
    write_video(tmp_path / 'd/results/best.mp4', grey_frames([50]))
    make_frames(tmp_path / 'd/results', {'evaluation/a': 1})
    (tmp_path / 'd/results/opts.json').touch()
    made = call(tmp_path / 'd', tmp_path / 'own.json')
    assert made['labels'] == ['jpg'] and made['database'].keys() == {'x', 'y'}
    err = capsys.readouterr().err
    assert "not taken: 1 folders of a training's results (results)" in err
    assert f'or give {tmp_path}/d/jpg where that is the folder of the classes' in err
    assert call(tmp_path / 'd/jpg', tmp_path / 'own.json')['labels'] == ['a', 'b']
    write_video(tmp_path / 'd/videos/a/x.mp4', grey_frames([50]))
    with pytest.raises(InputError, match='in a folder of its own; give .*/d/jpg or .*/d/'):
        call(tmp_path / 'd', tmp_path / 'own.json')


@pytest.mark.parametrize('kind', ['video', 'jpg', 'hdf5'])
def test_the_class_of_videos_that_lie_deeper(tmp_path, capsys, kind):
    names = ['sports/tennis/a', 'sports/golf/b', 'music/drum/c', 'music/d', 'music/rock/loud/e']
    root = tmp_path / 'v'
    if kind == 'video':
        for name in names:
            write_video(root / f'{name}.mp4', grey_frames([50, 60]))
        folder = root
    elif kind == 'jpg':
        folder = make_frames(root, dict.fromkeys(names, 2))
    else:
        folder = make_hdf5(root, dict.fromkeys(names, 2))
    made = call(folder, tmp_path / 'own.json')
    assert '4 videos lie deeper' in capsys.readouterr().err
    label_of = {name: entry['annotations']['label'] for name, entry in made['database'].items()}
    assert label_of == {'a': 'sports', 'b': 'sports', 'c': 'music', 'd': 'music', 'e': 'music'}
    made = call(folder, tmp_path / 'own.json', '--label_from', 'parent')
    assert 'deeper' not in capsys.readouterr().err
    label_of = {name: entry['annotations']['label'] for name, entry in made['database'].items()}
    assert label_of == {'a': 'tennis', 'b': 'golf', 'c': 'drum', 'd': 'music', 'e': 'loud'}
    records, _ = label_list_records(read_annotation(tmp_path / 'own.json'), 'training',
                                    first_frame=0 if kind == 'hdf5' else 1)
    assert {records.paths[i] for i in range(len(records))} <= set(names)


def test_folders_of_subsets_are_kept(tmp_path, capsys):
    names = ['Train/a/x', 'Train/b/y', 'valid/a/x', 'valid/b/deep/z', 'test/u', 'test/a/v']
    root = make_frames(tmp_path / 'jpg', dict.fromkeys(names, 2))
    made = call(root, tmp_path / 'own.json')
    assert 'those of the folders' in capsys.readouterr().out
    assert made['labels'] == ['a', 'b']
    assert {name: (entry['subset'], entry['annotations'].get('label'))
            for name, entry in made['database'].items()} == {
        'Train/a/x': ('training', 'a'), 'y': ('training', 'b'), 'valid/a/x': ('validation', 'a'),
        'z': ('validation', 'b'), 'u': ('testing', None), 'v': ('testing', 'a')}
    records, _ = label_list_records(read_annotation(tmp_path / 'own.json'), 'validation')
    assert {records.paths[i] for i in range(2)} == {'valid/a/x', 'valid/b/deep/z'}
    made = call(root, tmp_path / 'own.json', '--label_from', 'parent')
    assert made['database']['z']['annotations']['label'] == 'deep'
    for flag in (['--folds', '2'], ['--val_fraction', '0.5'], ['--test_fraction', '0.5']):
        with pytest.raises(InputError, match=f'{flag[0]} draws them: drop the flag, or give one'):
            call(root, tmp_path / 'own.json', *flag)


@pytest.mark.parametrize('names', [
    ['train/a/x', 'train/b/y'],             # no other subset
    ['train/a/x', 'val/y', 'test/z'],       # videos of no class
    ['train/a/x', 'bus/b/y', 'test/b/z']])  # vehicles
def test_folders_that_are_no_subsets(tmp_path, names):
    root = make_frames(tmp_path / 'jpg', dict.fromkeys(names, 2))
    made = call(root, tmp_path / 'own.json', '--val_fraction', 0)
    assert made['labels'] == sorted({name.partition('/')[0] for name in names})


def test_folders_that_systems_make_are_no_classes(tmp_path, capsys):
    root = make_frames(tmp_path / 'jpg', {'a/x': 3, 'b/y': 3, '__MACOSX/a/x': 0, '@eaDir/a': 1})
    make_frames(root, {'a/x/@eaDir': 1, 'c/z': 0, 'c/z/@eaDir': 1})
    (root / 'c/z/0.png').touch()
    made = call(root, tmp_path / 'own.json')
    assert parts(made) == {'x': [1, 4], 'y': [1, 4], 'z': [1, 2]}
    err = capsys.readouterr().err
    assert '2 folders of a system (@eaDir, ...)' in err and '2 folders among frames (@eaDir' in err


def test_frames_of_videos_that_lie_deeper_lie_as_deep(tmp_path):
    for name in ('sports/tennis/a', 'music/d'):
        write_video(tmp_path / 'v' / f'{name}.mp4', grey_frames([50, 60]))
    main_jpgs([str(tmp_path / 'v'), str(tmp_path / 'jpg'), 'ucf101', '--n_jobs', '1'])
    made = call(tmp_path / 'jpg', tmp_path / 'own.json', '--label_from', 'parent')
    assert {name: entry['annotations']['label'] for name, entry in made['database'].items()} == {
        'a': 'tennis', 'd': 'music'}


def test_a_list_says_the_labels_itself(tmp_path):
    (tmp_path / 'list.csv').write_text('path,label\na/x.mp4,a\n')
    with pytest.raises(InputError, match='--label_from parent is for folders'):
        main([str(tmp_path / 'list.csv'), str(tmp_path / 'own.json'), '--label_from', 'parent'])


def test_names_that_two_classes_share(tmp_path):
    root = make_frames(tmp_path / 'jpg', {'a/x': 2, 'b/x': 3, 'b/y': 1})
    made = call(root, tmp_path / 'own.json', '--val_fraction', 0)
    assert made['database'].keys() == {'a/x', 'b/x', 'y'}
    records, _ = label_list_records(read_annotation(tmp_path / 'own.json'), 'training')
    assert [records.paths[i] for i in range(3)] == ['a/x', 'b/x', 'b/y']
    assert records.ends.tolist() == [3, 4, 2]


def test_videos_without_frames_have_no_segment(tmp_path, capsys):
    write_video(tmp_path / 'v' / 'a' / 'good.mp4', grey_frames([50, 60]))
    (tmp_path / 'v' / 'b').mkdir()
    (tmp_path / 'v' / 'b' / 'broken.mp4').write_text('no video')
    made = call(tmp_path / 'v', tmp_path / 'own.json')
    assert 'segment' not in made['database']['broken']['annotations']
    out, err = capsys.readouterr()
    assert 'broken.mp4' in err and '1 of them without frames' in out


CSVS = {
    'as in groups.csv': ['path,label,group', 'a/x0.mp4,one,1', 'b/y0.mp4,two,2'],
    'without line 1': ['a/x0,one', 'b/y0.avi,two'],
    'other order, blanks': [' Label , PATH', '', '"one", a/x0.mp4 ', 'two,b/y0/'],
}


@pytest.mark.parametrize('lines', CSVS.values(), ids=CSVS)
def test_csv(jpgs, tmp_path, lines):
    path = write_csv(tmp_path / 'list.csv', *lines)
    made = call(path, tmp_path / 'own.json', '--video_path', jpgs)
    assert made['labels'] == ['one', 'two']
    assert made['database']['x0']['video_path'] == 'a/x0'
    assert made['database']['y0']['annotations'] == {'label': 'two', 'segment': [1, 4]}


def test_csv_paths_are_relative_to_its_folder(jpgs, tmp_path):
    made = call(write_csv(jpgs / 'list.csv', 'a/x0,a', 'b/y0,b'), tmp_path / 'own.json')
    assert made['database'].keys() == {'x0', 'y0'}
    assert 'video_path' not in made['database']['x0']


# ---------------------------------------------------------------- lists as people have them

LISTS = {
    'video_name and class': ('l.csv', 'video_name,class\na/x0.mp4,one\nb/y0.mp4,two\n'),
    'semicolons': ('l.csv', 'File;Label\na/x0.mp4;one\nb/y0.mp4;two\n'),
    'of Excel': ('l.csv', 'sep=;\r\npath;label\r\na/x0.mp4;one\r\nb/y0.mp4;two\r\n'),
    'semicolons without names': ('l.csv', 'a/x0.mp4;one\nb/y0.mp4;two\n'),
    'tabs': ('l.tsv', 'path\tlabel\na/x0\tone\nb/y0\ttwo\n'),
    'blanks': ('l.txt', 'a/x0.mp4 one\nb/y0.mp4 two\n'),
    'blanks and names': ('l.txt', 'path label\na/x0.mp4 one\nb/y0.mp4 two\n'),
    'label first': ('l.csv', 'one,a/x0.mp4\ntwo,b/y0.mp4\n'),
    'of Windows': ('l.csv', 'a\\x0.mp4,one\nb\\y0.mp4,two\n'),
    'a byte order mark': ('l.csv', '\ufeffpath,label\na/x0,one\nb/y0,two\n'),
    'a comment': ('l.csv', '# mine, of May\npath,label\na/x0,one\nb/y0,two\n'),
    'dots and slashes': ('l.csv', './a/x0.mp4,one\nb//../b/y0,two\n'),
    'spaces around quotes': ('l.csv', '"a/x0.mp4" , "one"\n"b/y0.mp4" , "two"\n'),
    'separators at the ends': ('l.csv', 'path;label;;\na/x0;one;;\nb/y0;two;;\n;;;\n'),
    'separators without names': ('l.csv', 'a/x0.mp4,one,,,\nb/y0.mp4,two,,,\n'),
    'names run together': ('l.csv', 'FileName,ClassName\na/x0,one\nb/y0,two\n'),
    'clips and actions': ('l.csv', 'Clip Name,Action\na/x0,one\nb/y0,two\n'),
    'line ends of old': ('l.csv', 'path,label\ra/x0,one\rb/y0,two\r'),
}


@pytest.mark.parametrize('name, text', LISTS.values(), ids=LISTS)
def test_dialects(jpgs, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    made = call(tmp_path / name, tmp_path / 'own.json', '--video_path', jpgs)
    assert {video_id: (entry['video_path'], entry['annotations'])
            for video_id, entry in made['database'].items()} == {
        'x0': ('a/x0', {'label': 'one', 'segment': [1, 4]}),
        'y0': ('b/y0', {'label': 'two', 'segment': [1, 4]})}


def test_accents_are_written_in_two_ways(tmp_path):
    """As letters of their own in what was copied from a Mac, and in one piece in lists."""
    apart, whole = (unicodedata.normalize(form, 'café') for form in ('NFD', 'NFC'))
    root = make_frames(tmp_path / 'jpg', {f'{apart}/{apart}': 3, f'{whole}/y': 3, 'b/x': 3})
    made = call(write_csv(root / 'l.csv', f'{whole}/{whole}.mp4,{whole}', f'{whole}/y.mp4,{apart}',
                          'b/x.mp4,b'), tmp_path / 'own.json', '--val_fraction', 0)
    assert made['labels'] == ['b', whole]
    assert parts(made) == {apart: [1, 4], 'y': [1, 4], 'x': [1, 4]}
    made = call(root, tmp_path / 'own.json', '--val_fraction', 0)
    assert made['labels'] == ['b', whole]
    records, _ = label_list_records(read_annotation(tmp_path / 'own.json'), 'training')
    assert {records.paths[i] for i in range(3)} == {f'{apart}/{apart}', f'{whole}/y', 'b/x'}


@pytest.mark.parametrize('labels, is_said', [
    (['Run', 'run'], True), (['ride bike', 'ride_bike'], True), (['a  b', 'a b'], True),
    (['run\u200b', 'run\u200b '], False), (['run', 'ran'], False)])
def test_classes_that_look_alike_are_said(jpgs, tmp_path, labels, is_said, capsys):
    lines = [f'a/x{i},"{label}"' for i, label in enumerate(labels)]
    call(write_csv(jpgs / 'l.csv', *lines, 'b/y0,b'), tmp_path / 'own.json')
    assert ('are two classes: if they are one' in capsys.readouterr().err) == is_said


@pytest.mark.parametrize('name', ['a\x1b[31m', 'a\nb', 'a\u2028b'])
def test_names_that_no_class_can_have(tmp_path, name):
    root = make_frames(tmp_path / 'jpg', {f'{name}/x': 2, 'b/y': 2})
    with pytest.raises(InputError, match='control characters in it; rename it') as error:
        call(root, tmp_path / 'own.json')
    assert repr(name) in str(error.value) and not (tmp_path / 'own.json').exists()
    if '\n' not in name:  # of any other character no line of a list ends
        with pytest.raises(InputError, match='in it; rename it|a line end or not; remove it'):
            call(write_csv(root / 'l.csv', 'path,label', f'b/y,{name}'), tmp_path / 'own.json')


def test_unicode_text_of_excel(jpgs, tmp_path):
    path = jpgs / 'l.txt'
    path.write_text('path\tlabel\r\na/x0\tcafé\r\nb/y0\ttwo\r\n', encoding='utf-16')
    assert call(path, tmp_path / 'own.json')['labels'] == ['café', 'two']


def test_blanks_before_a_label_and_a_subset(jpgs, tmp_path):
    path = write_csv(jpgs / 'l.txt', 'a/x0.mp4 a train', 'a/x1.mp4 a val', 'b/y 0.mp4 b test')
    make_frames(jpgs, {'b/y 0': 2})
    made = call(path, tmp_path / 'own.json')
    assert subsets(made) == {'x0': 'training', 'x1': 'validation', 'y 0': 'testing'}
    assert made['labels'] == ['a', 'b']


def test_groups_that_a_list_tears_apart_are_named(jpgs, tmp_path, capsys):
    path = write_csv(jpgs / 'l.csv', 'path,label,subset,group', 'a/x0,a,train,g', 'a/x1,a,val,g',
                     'b/y0,b,val,h')
    call(path, tmp_path / 'own.json')
    assert 'such as those of g in training and validation' in capsys.readouterr().err


@pytest.mark.parametrize('header', ['path,label,subset', 'video,class,split', None])
@pytest.mark.parametrize('words', [('train', 'val', 'test'), ('Training', 'valid', 'TESTING'),
                                   ('TRAIN', 'validation', 'Test')])
def test_the_subsets_of_a_list_are_kept(jpgs, tmp_path, header, words, capsys):
    lines = [f'a/x{i}.mp4,a,{word}' for i, word in enumerate(words)]
    path = write_csv(jpgs / 'l.csv', *([header] if header else []), *lines, 'b/y0.mp4,b,train')
    assert subsets(call(path, tmp_path / 'own.json')) == {
        'x0': 'training', 'x1': 'validation', 'x2': 'testing', 'y0': 'training'}
    assert 'those of the list' in capsys.readouterr().out


def test_test_videos_may_have_no_label(jpgs, tmp_path):
    path = write_csv(jpgs / 'l.csv', 'path,label,subset', 'a/x0,a,train', 'b/y0,,test')
    made = call(path, tmp_path / 'own.json')
    assert made['database']['y0']['annotations'] == {'segment': [1, 4]}
    records, _ = label_list_records(read_annotation(tmp_path / 'own.json'), 'testing')
    assert records.paths[0] == 'b/y0'


def parts(made):
    return {video_id: entry['annotations'].get('segment')
            for video_id, entry in made['database'].items()}


def test_parts_of_videos_in_frames(tmp_path, capsys):
    root = make_frames(tmp_path / 'jpg', {'a/x': 20, 'b/y': 5})
    path = write_csv(root / 'l.csv', 'path,label,start_frame,end_frame', 'a/x,a,1,10',
                     'a/x,b,11,20', 'a/x,b,25,30', 'b/y,b,2,9')
    made = call(path, tmp_path / 'own.json')
    assert parts(made) == {'x_000001_000010': [1, 11], 'x_000011_000020': [11, 21],
                           'x_000025_000030': None, 'y': [2, 6]}
    assert len({entry['subset'] for video_id, entry in made['database'].items()
                if video_id.startswith('x')}) == 1
    err = capsys.readouterr().err
    assert 'b/y: a part is frames 2 to 9, and the video has 5: it is cut there' in err
    assert 'frames 25 to 30' in err and 'left out' in err
    records, n_left_out = label_list_records(read_annotation(tmp_path / 'own.json'), 'training')
    assert n_left_out <= 1 and records.paths[0] in ('a/x', 'b/y')


def test_parts_of_videos_in_seconds(tmp_path):
    root = make_frames(tmp_path / 'jpg', {'a/x': 20, 'b/y': 9})
    path = write_csv(root / 'l.csv', 'path;label;Start (s);End (s);fps', 'a/x;a;0;1,5;10',
                     'a/x;a;1,5;2;10', 'b/y;b;0.1;0.5;10')
    assert parts(call(path, tmp_path / 'own.json')) == {
        'x_0.0_1.5': [1, 16], 'x_1.5_2.0': [16, 21], 'y': [2, 6]}


@pytest.mark.parametrize('begin, end', [('0:00', '0:01,5'), ('00:00:00', '00:00:01.5'),
                                        ('0,0', '1,5')])
def test_times_as_players_show_them(tmp_path, begin, end):
    root = make_frames(tmp_path / 'jpg', {'a/x': 20, 'b/y': 9})
    path = write_csv(root / 'l.csv', 'path;label;start_sec;end_sec;fps', f'a/x;a;{begin};{end};10',
                     'b/y;b;;;')
    made = call(path, tmp_path / 'own.json')
    assert parts(made) == {'x': [1, 16], 'y': [1, 10]}


def test_minutes_and_hours_are_added(tmp_path):
    write_csv(tmp_path / 'l.csv', 'path,label,start_sec,end_sec', 'x,a,1:02.5,1:00:03', 'y,a,9,10')
    part = read_list(tmp_path / 'l.csv', tmp_path)[0].part
    assert (part.begin, part.end) == (62.5, 3603)


def test_frames_as_pandas_writes_them_where_some_are_missing(tmp_path):
    root = make_frames(tmp_path / 'jpg', {'a/x': 20, 'b/y': 9})
    path = write_csv(root / 'l.csv', 'path,label,start_frame,end_frame', 'a/x,a,2.0,10.0',
                     'b/y,b,,')
    assert parts(call(path, tmp_path / 'own.json')) == {'x': [2, 11], 'y': [1, 10]}


def test_the_rate_of_a_video_file_counts(tmp_path, capsys):
    write_video(tmp_path / 'v' / 'x.mp4', grey_frames(range(20, 220, 10)), fps=10)
    path = write_csv(tmp_path / 'v' / 'l.csv', 'file,label,time_start,time_end,fps',
                     'x.mp4,a,0.5,1,25')
    assert parts(call(path, tmp_path / 'own.json')) == {'x': [6, 11]}
    assert 'the list says 25 frames per second, and the file has 10' in capsys.readouterr().err


@pytest.mark.parametrize('extension', ['mp4', 'mkv'])
def test_parts_of_videos_whose_rate_varies(tmp_path, extension):
    """Those frames belong to a part that a player shows in it; as of phones, whose rate varies."""
    times = [0, 1, 2, 3, 10, 20, 30, 40, 41, 42, 43, 44]  # in 1 / 25 s
    name = f'x.{extension}'
    write_video(tmp_path / 'v' / name, grey_frames(range(20, 140, 10)), times=times)

    def frames(begin, end):
        path = write_csv(tmp_path / 'v' / 'l.csv', 'file,label,time_start,time_end',
                         f'{name},a,{begin},{end}')
        return parts(call(path, tmp_path / 'own.json'))['x']
    assert frames(0, 0.4) == [1, 5] and frames(0.4, 1.6) == [5, 8]
    assert frames(0.5, 1.62) == [5, 9] and frames(1.6, 1.8) == [8, 13]
    assert frames(1.64, 9) == [9, 13] and frames(9, 10) is None


def test_many_parts_that_videos_do_not_have_are_said_in_few_lines(jpgs, tmp_path, capsys):
    lines = [f'a/x0,a,1,{end}' for end in range(4, 34)]
    call(write_csv(jpgs / 'l.csv', 'path,label,start_frame,end_frame', *lines),
         tmp_path / 'own.json')
    said = [line for line in capsys.readouterr().err.splitlines() if 'one class' not in line]
    assert len(said) == 11 and said[-1] == 'warning: ... and 20 more'


def test_the_rate_of_a_video_file_is_known(tmp_path):
    write_video(tmp_path / 'v' / 'x.mp4', grey_frames(range(20, 220, 10)), fps=10)
    path = write_csv(tmp_path / 'v' / 'l.csv', 'file,label,time_start,time_end', 'x.mp4,a,0.5,1')
    assert parts(call(path, tmp_path / 'own.json')) == {'x': [6, 11]}


WRONG_LISTS = {
    'unknown': (['path,label,subst', 'a/x0,a,train'], "'subst' is not known; did you mean subset"),
    'unknown over videos': (['thing,what', 'a/x0.mp4,a'], "'thing' is not known"),
    'no unit': (['path,label,start,end', 'a/x0,a,1,2'], 'start_sec or start_frame'),
    'no end': (['path,label,start_sec', 'a/x0,a,1'], 'no column end_sec'),
    'both units': (['path,label,start_sec,end_sec,start_frame', 'a/x0,a,1,2,3'], 'in seconds and'),
    'no label': (['path,subset', 'a/x0,train'], 'no column label'),
    'twice': (['path,file,label', 'a/x0,a/x0,a'], "'path' and 'file' are both the path"),
    'subset': (['path,label,subset', 'a/x0,a,some'], 'line 2.*train, val or test'),
    'ends first': (['path,label,start_sec,end_sec', 'a/x0,a,2,1'], 'line 2'),
    'no number': (['path,label,start_sec,end_sec', 'a/x0,a,2,x'], 'numbers for start'),
    'no rate': (['path,label,start_sec,end_sec', 'a/x0,a,0,.1'], 'need a column fps'),
    'frame 0': (['path,label,start_frame,end_frame', 'a/x0,a,0,2'], 'counted from 1'),
    'fps alone': (['path,label,fps', 'a/x0,a,10'], 'says nothing without'),
    'more fields': (['path,label', 'a/x0,a,train'], 'line 2.*2 columns'),
    'no names': (['a/x0.mp4,a,b,c'], '4 columns, and no line 1'),
    'drive': (['C:\\v\\x.mp4,a'], 'on a drive of Windows'),
    'empty': ([], 'the list is empty'),
    'groups': (['path,label,group,start_frame,end_frame', 'a/x0,a,1,1,1', 'a/x0,a,2,2,2'],
               'groups 1 and 2'),
    'part twice': (['path,label,start_frame,end_frame', 'a/x0,a,1,1', 'a/x0,b,1,1'], 'twice'),
    'open quote': (['path,label', 'a/x0,"a', 'a/x1,a', 'b/y0,b"'], 'line 2: .* not closed'),
    'twice by other names': (['a/x0.mp4,a', './a//x0,a'], 'lists a/x0 twice'),
    'unknown over names without extension': (['thing,what', 'a/x0,a', 'a/x1,a'],
                                             "column 'thing' is not known"),
    'numbers in a column without name': ([',path,label', '0,a/x0,a'], 'column 1 has no name; rem'),
    'of Kinetics': (['label,youtube_id,time_start,time_end', 'a,x,0,1'], 'kinetics_json'),
    'two labels in two lines': (['a/x0,b', 'a/x0,a'], 'or write a|b in one of them'),
    'a long text': ([f'a/x0,a,{"he/she " * 99},b,c'], '5 columns, and no line 1'),
    'more minutes than there are': (['path,label,start_sec,end_sec', f'a/x0,a,0,{"9" * 400}:00'],
                                    'numbers for start'),
    'half an hour': (['path,label,start_sec,end_sec', 'a/x0,a,0:30:,1:0:0:0'], 'numbers for start'),
    'half a frame': (['path,label,start_frame,end_frame', 'a/x0,a,1.5,2'], 'numbers for start'),
    'thousands of frames': (['path,label,start_frame,end_frame', 'a/x0,a,1,"2,000"'], 'numbers'),
    'numbers of lines': (['0,a/x0.mp4,a', '1,a/x1.mp4,a', '2,b/y0.mp4,b'], 'no line 1 names'),
    'more blanks': (['a/x0.mp4 a g1 train', 'b/y0.mp4 b g2 val'], 'line 1: .* blanks between'),
    'a long name': (['a/x0,a', f'a/{"x" * 300}.mp4,a'], 'line 2: .* at most 255 bytes'),
    'not there': (['c/x.mp4,a'], 'such as c/x; .*--video_path'),
}


def test_the_whole_path_is_one_below_the_folder(jpgs, tmp_path):
    path = write_csv(jpgs / 'l.csv', f'{jpgs}/a/x0,a', 'b/y0,b')
    assert call(path, tmp_path / 'own.json')['database'].keys() == {'x0', 'y0'}
    with pytest.raises(InputError, match='lists a/x0 twice'):
        call(write_csv(jpgs / 'l.csv', f'{jpgs}/a/x0,a', 'a/x0,a'), tmp_path / 'own.json')


@pytest.mark.parametrize('lines, match', WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_wrong_lists_are_one_sentence(jpgs, tmp_path, lines, match):
    with pytest.raises(InputError, match=match):
        call(write_csv(jpgs / 'l.csv', *lines), tmp_path / 'own.json')
    assert not (tmp_path / 'own.json').exists()


def test_a_list_of_json_is_told_apart(tmp_path):
    (tmp_path / 'v.json').write_text('[{"id": "x", "label": "a", "template": "A"}]')
    with pytest.raises(InputError, match='a JSON file, and lists are CSV files of path,label'):
        call(tmp_path / 'v.json', tmp_path / 'own.json')


def test_a_list_means_one_of_two_files_of_a_name(tmp_path):
    for name in ('v/x.avi', 'v/x.mp4', 'v/y.mp4'):
        write_video(tmp_path / name, grey_frames([50, 60]))
    with pytest.raises(InputError, match='x.mp4 is not the only video there .* remove the others'):
        call(write_csv(tmp_path / 'v' / 'l.csv', 'x.mp4,a', 'y.mp4,b'), tmp_path / 'own.json')
    (tmp_path / 'v' / 'x.avi').unlink()
    assert len(call(tmp_path / 'v' / 'l.csv', tmp_path / 'own.json')['database']) == 2


def test_videos_without_folders_of_classes(tmp_path):
    write_video(tmp_path / 'v' / 'x.mp4', grey_frames([50]))
    with pytest.raises(InputError, match='1 video in the folder itself: .* folder for each class'):
        call(tmp_path / 'v', tmp_path / 'own.json')


# ---------------------------------------------------------------- training and validation

def test_the_split_is_a_part_of_each_class_and_depends_on_the_seed(jpgs, tmp_path):
    made = call(jpgs, tmp_path / 'own.json')
    counts = Counter((entry['annotations']['label'], entry['subset'])
                     for entry in made['database'].values())
    assert counts['a', 'validation'] == 2 and counts['b', 'validation'] == 4
    assert call(jpgs, tmp_path / 'again.json') == made
    assert subsets(call(jpgs, tmp_path / 'other.json', '--seed', 2)) != subsets(made)


@pytest.mark.parametrize('fraction, n', [(0, 0), (0.01, 1), (0.5, 5), (0.9, 9)])
def test_val_fraction(jpgs, tmp_path, fraction, n, capsys):
    made = call(jpgs, tmp_path / 'own.json', '--val_fraction', fraction)
    assert [made['database'][f'x{i}']['subset'] for i in range(10)].count('validation') == n
    assert ('--no_val' in capsys.readouterr().out) == (n == 0)


def test_recordings_of_ucf_names_stay_together(tmp_path):
    names = {f'Run/v_Run_g{g:02d}_c{c:02d}': 1 for g in range(1, 11) for c in range(1, 5)}
    made = call(make_frames(tmp_path / 'jpg', names), tmp_path / 'own.json')
    by_group = Counter((video_id[:9], subset) for video_id, subset in subsets(made).items())
    assert set(by_group.values()) == {4}
    assert sum(subset == 'validation' for _, subset in by_group) == 2


def test_by_group(jpgs, tmp_path):
    made = call(jpgs, tmp_path / 'own.json', '--by_group', r'(\d)$', '--val_fraction', 0.3)
    subset_of = {}
    for video_id, subset in subsets(made).items():
        assert subset_of.setdefault(video_id[-1], subset) == subset
    assert Counter(subset_of.values())['validation'] == 3


def test_groups_of_uneven_size_are_shared_out_well():
    listed = [Own(f'{g}_{i}', 'ab'[(g + i) % 2], f'g{g}')
              for g in range(30) for i in range(1 + g * g // 20)]
    for seed in range(3):
        chosen = split(listed, 0.2, seed)
        for label in 'ab':
            own = [video.path for video in listed if video.label == label]
            assert 0.17 <= sum(path in chosen for path in own) / len(own) <= 0.23
        groups = {video.group for video in listed if video.path in chosen}
        assert sum(video.group in groups for video in listed) == len(chosen)


def test_a_class_of_one_recording_is_for_training():
    listed = [Own(f'x{i}', 'a', 'one') for i in range(5)] + [Own('y', 'b', 'two')]
    assert split(listed, 0.2, 1) == set()


def test_grouping():
    assert grouping(None)('Run/v_Run_g01_c02') == 'Run/v_Run_g01'
    assert grouping(None)('Run/other') == 'Run/other'
    assert grouping('cam.')('Run/cam1_x') == 'cam1'
    assert grouping('cam(.)')('Run/cam1_x') == '1'


@pytest.mark.videos
def test_real_groups_stay_together(videos_dir, tmp_path):
    root = videos_dir / 'fight_surv'
    lines = (root / 'groups.csv').read_text().splitlines()
    rows = dict(line.split(',')[::2] for line in lines[1:])
    names = {path.removesuffix('.mp4'): 1 for path in rows}
    made = call(root / 'groups.csv', tmp_path / 'own.json', '--video_path',
                make_frames(tmp_path / 'jpg', names))
    assert len(made['database']) == 163
    subset_of, counts = {}, Counter()
    for path, group in rows.items():
        entry = made['database'][path.split('/')[1].removesuffix('.mp4')]
        assert subset_of.setdefault(group, entry['subset']) == entry['subset']
        counts[entry['annotations']['label'], entry['subset']] += 1
    assert abs(counts['fight', 'validation'] - 16.6) < 3
    assert abs(counts['noFight', 'validation'] - 16) < 3


# ---------------------------------------------------------------- lists of labels

def test_several_labels_of_a_video(jpgs, tmp_path, capsys):
    lines = [f'a/x{i},run | jump' for i in range(6)] + [f'b/y{i},jump' for i in range(6)]
    path = write_csv(tmp_path / 'list.csv', *lines, 'b/y6,|', 'b/y7,run|run')
    made = call(path, tmp_path / 'own.json', '--video_path', jpgs, '--val_fraction', 0.5)
    assert made['labels'] == ['jump', 'run']
    labels = {video_id: entry['annotations']['label']
              for video_id, entry in made['database'].items()}
    assert labels['x0'] == ['run', 'jump'] and labels['y0'] == ['jump']
    assert labels['y6'] == [] and labels['y7'] == ['run']
    assert made['database']['x0']['video_path'] == 'a/x0'
    chosen = [label for video_id, entry in made['database'].items()
              if entry['subset'] == 'validation' for label in labels[video_id]]
    assert Counter(chosen)['jump'] == 6 and Counter(chosen)['run'] in (3, 4)
    out = capsys.readouterr().out
    assert '--n_classes 2' in out and '--multi_label' in out
    assert [line.split() for line in out.splitlines() if line.startswith('jump')] == [
        ['jump', '6', '6']]
    records, _ = label_list_records(read_annotation(tmp_path / 'own.json'), 'training',
                                    multi_label=True)
    assert all(records.paths[i].count('/') == 1 for i in range(len(records)))


def test_videos_that_lie_together_need_no_path(tmp_path):
    root = make_frames(tmp_path / 'jpg', {'x': 3, 'y': 3})
    made = call(write_csv(root / 'list.csv', 'x,run|jump', 'y,run'), tmp_path / 'own.json')
    assert not any('video_path' in entry for entry in made['database'].values())


def test_the_name_of_a_folder_is_one_label(tmp_path, capsys):
    root = make_frames(tmp_path / 'jpg', {'run|jump/x0': 3, 'run|jump/x1': 3, 'sit/y': 3})
    made = call(root, tmp_path / 'own.json', '--val_fraction', 0)
    assert made['labels'] == ['run|jump', 'sit']
    assert made['database']['x0']['annotations']['label'] == 'run|jump'
    out = capsys.readouterr().out
    assert '--n_classes 2' in out and '--multi_label' not in out
    records, _ = label_list_records(read_annotation(tmp_path / 'own.json'), 'training')
    assert [records.paths[i] for i in range(3)] == ['run|jump/x0', 'run|jump/x1', 'sit/y']


def test_no_video_has_a_label(jpgs, tmp_path):
    with pytest.raises(InputError, match='none of its videos has a label'):
        call(write_csv(jpgs / 'list.csv', 'a/x0,|'), tmp_path / 'own.json')
