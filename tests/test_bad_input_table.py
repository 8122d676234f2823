"""Every command given every kind of bad file, path and stream, and every flag of every command
right and wrong.

The cases are made of the parsers and of a table of what each command takes. All of them run in this
process: `python -m pytest tests/test_bad_input_table.py`.
"""

import argparse
import importlib
import io
import json
import os
import re
import shutil
import signal
import socket
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import main
from runtime import errors
from runtime.arguments import Parser
from runtime.errors import InputError
from tests import test_annotation_files as published
from tests.helpers import grey_frames, write_video
from tests.processes import LIMIT_SEC
from tests.test_commands import COMMANDS
from tests.test_output import FAILURES, Broken
from tests.tiny_data import TinyData

MAIN = ('--video_path', '{videos}', '--annotation_path', '{annotation}', '--result_path', '{out}',
        '--dataset', 'ucf101', '--model_depth', '10', '--resnet_widen_factor', '0.125',
        '--sample_size', '32', '--sample_duration', '4', '--batch_size', '4', '--n_threads', '0',
        '--n_epochs', '1', '--no_val', '--no_cuda')
# What each command is given: names in brackets are files and folders, each of which is bad once.
CALLS = {
    'main': MAIN,
    'main to go on': (*MAIN, '--resume_path', '{weights}'),
    'main to fine-tune': (*MAIN, '--pretrain_path', '{weights}'),
    'check_data': ('--video_path', '{videos}', '--annotation_path', '{annotation}', '--dataset',
                   'ucf101', '--n_threads', '0'),
    'describe_checkpoint': ('{weights}',),
    'remove_dataparallel': ('{weights}', '--dst_file_path', '{out}'),
    'eval_accuracy': ('{annotation}', '{results}', '--subset', 'validation', '-k', '1'),
    'find_class_order': ('{results}', '{annotation}', '--output', '{out}'),
    'plot_results': ('{results}', '{annotation}', '--output', '{out}'),
    'gradcam': ('{video}', '--weights', '{weights}', '--no_cuda', '--output', '{out}'),
    'eval_events': ('{events}', '{in seconds}', '--subset', 'validation'),
    'report': ('{run}', '--output', '{page}', '--annotation_path', '{annotation}'),
    'show_augmentations': ('{video}',),
    'compare': (*MAIN, '--recipes', 'scratch', '--folds', '2', '--warmup_epochs',
                '0'),
    'motion_tasks': ('{videos}', '{out}', '--speeds', '1', '2', '--n_frames', '4'),
    'export': ('{weights}', '{exported}'),
    'plot_log': ('{run}', '--output', '{picture}'),
    'knn': ('{features}', '--groups', '{table}'), 'knn to test': (
        '{examples}', '--test', '{features}'),
    'predict': ('{video}', '--weights', '{weights}', '--no_cuda'),
    'folder_json': ('{list}', '{out}', '--video_path', '{videos}'),
    'ucf101_json': ('{ucf101 lists}', '{ucf101 frames}', '{out}'),
    'hmdb51_json': ('{hmdb51 lists}', '{hmdb51 frames}', '{out}'),
    'kinetics_json': ('{kinetics lists}', '700', '{kinetics frames}', 'jpg', '{out}'),
    'mit_json': ('{mit lists}', '{mit frames}', '{out}'),
    'add_fps_into_activitynet_json': ('{flat folder}', '{annotation}', '{out}'),
    'generate_video_jpgs': ('{video folder}', '{out}', 'kinetics', '--n_jobs', '1'),
    'generate_video_hdf5': ('{video folder}', '{out}', 'kinetics', '--n_jobs', '1'),
    'generate_flow_hdf5': ('{video folder}', '{out}', 'kinetics', '--n_jobs', '1'),
}


def _mkfifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as listening, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # the address of a socket is short
        listening.bind(path.name)


def _link(target):
    return lambda path: path.symlink_to(target)


def _pickle(content):
    return lambda path: torch.save(content, path)


def _hdf5(path):
    with h5py.File(path, 'w') as file:
        file['features'] = np.zeros(3)


# Kinds of files that no command takes, whatever it reads.
BAD_FILES = {
    'empty': lambda path: path.write_bytes(b''),
    'noise': lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    'not text': lambda path: path.write_bytes(b'\xff\xfe\x00\x80' * 10),
    'a dangling link': _link('nowhere'), 'a loop': _link('file'),
    'nested': lambda path: path.write_text('[' * 100_000),
    'a list': lambda path: path.write_text('[1, 2]'),
    'no fields': lambda path: path.write_text('{}'),
    'odd fields': lambda path: path.write_text(json.dumps(
        {'labels': 5, 'database': [], 'results': 3, 'taxonomy': 'a'})),
    'odd entries': lambda path: path.write_text(json.dumps(
        {'labels': ['a'], 'database': {'v': 5}, 'results': {'v': 5}})),
    'a zip': lambda path: path.write_bytes(b'PK\x03\x04' + bytes(100)),
    'a pickle': _pickle({'state_dict': {'a': 'b'}}), 'a tensor': _pickle(torch.zeros(3)),
    'no network': _pickle({'state_dict': {'a.weight': torch.zeros(3)}}),
    'hdf5': _hdf5, 'cut hdf5': lambda path: path.write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(40)),
    'separators': lambda path: path.write_text(',,,\n,,,\n'),
    'escapes': lambda path: path.write_text('\33[2J\n\33]0;x\7,a\n'),
}
BAD_FOLDERS = {'empty': lambda path: path.mkdir(), 'a loop': _link('file')}
OUTPUTS = {'out', 'exported', 'picture', 'page'}
BAD_OUTPUTS = {'below a file': '/dev/null/a', 'too long': 'x' * 300, 'in proc': '/proc/nowhere/a'}
DATA_SETS = ('ucf101', 'hmdb51', 'kinetics', 'mit')
FOLDERS = {'videos', 'run', 'video folder', 'flat folder',
           *(f'{name} {what}' for name in DATA_SETS for what in ('lists', 'frames'))}
# What is right there: any tensors have names.
TAKEN = {('remove_dataparallel', 'weights', 'no network')}
# What each run says for itself, in a process of its own, as in test_compare.py.
BY_RUNS = {('compare', 'videos', kind) for kind in BAD_FOLDERS}


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """{name in CALLS: the path of a file that is right}"""
    root = tmp_path_factory.mktemp('good')
    data = TinyData(root / 'data')
    paths = {'videos': data.root / 'jpg', 'annotation': data.annotation_path,
             'results': root / 'val.json', 'run': root / 'run', 'features': root / 'f.h5',
             'examples': root / 'f.h5', 'table': root / 'groups.csv', 'list': root / 'list.csv',
             'video folder': root / 'clips', 'flat folder': root / 'clips' / 'a',
             'weights': root / 'run' / 'save_1.pth', 'in seconds': root / 'seconds.json',
             'events': root / 'events.json'}
    paths['video'] = write_video(root / 'clips/a/v_red_0.mp4', grey_frames(range(0, 90, 9)))
    main.main(data.argv(root / 'run', '--n_epochs', 1, '--sample_duration', 4, '--inference',
                        '--inference_subset', 'val', '--output_features', paths['features']))
    shutil.copy(root / 'run' / 'val.json', paths['results'])
    paths['table'].write_text('path,group\nred_0,a\n')
    paths['list'].write_text('red/red_0,red\ngreen/green_0,green\n')
    paths['in seconds'].write_text(json.dumps({'labels': ['red', 'green', 'blue'], 'database': {
        'red_4': {'subset': 'validation', 'annotations': [{'label': 'red', 'segment': [0, 1]}]}}}))
    paths['events'].write_text(json.dumps({'events': {'red_4': [
        {'label': 'red', 'score': 0.5, 'begin_sec': 0.0, 'end_sec': 1.0}]}}))
    for name in DATA_SETS:
        paths[f'{name} lists'] = published.write_files(root / name, published.LISTS[name])
        paths[f'{name} frames'] = published.make_frames(root / name / 'jpg',
                                                        published.CASES[name][0])
    return paths


def called(name, argv, out=None, err=None):
    """(status, stdout, stderr) of a command in this process, whose streams may be others."""
    name = name.split()[0]
    command = main if name == 'main' else importlib.import_module(f'util_scripts.{name}')
    out, err = out or io.StringIO(), err or io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        errors.run(command.main, list(argv), outlives_stdout=name == 'main')
    return ended.value.code or 0, out.getvalue(), err.getvalue()


def _words(call, good, folder, **bad):
    """The words of a call, with paths for what is in brackets."""
    paths = {**good, 'out': folder / 'out' / 'o.json', 'exported': folder / 'o.pt2',
             'picture': folder / 'o.png', 'page': folder / 'o.html', **bad}
    return [str(paths[word[1:-1]]) if word.startswith('{') else word for word in call]


def _cases():
    for name, call in CALLS.items():
        for place in dict.fromkeys(word[1:-1] for word in call if word.startswith('{')):
            kinds = BAD_OUTPUTS if place in OUTPUTS else (
                BAD_FOLDERS if place in FOLDERS else BAD_FILES)
            yield from ((name, place, kind) for kind in kinds
                        if (name, place, kind) not in TAKEN | BY_RUNS)


CASES = list(_cases())


def test_the_table_covers_all_commands():
    # These make what they need themselves, or read nothing of a user's.
    alone = {'demo', 'demo_videos', 'benchmark', 'networks_table', 'get_weights'}
    assert {*COMMANDS, 'main'} <= {name.split()[0] for name in CALLS} | alone
    assert len(CASES) > 200


@pytest.mark.slow
@pytest.mark.parametrize('name, place, kind', CASES, ids=['-'.join(case) for case in CASES])
def test_bad_files(good, tmp_path, monkeypatch, name, place, kind):
    """Exit status 2 and one sentence, or 1 where each of many files is judged by itself."""
    monkeypatch.chdir(tmp_path)
    suffix = {'weights': '.pth', 'list': '.csv', 'video': '.mp4'}.get(place, '')
    bad = tmp_path / f'file{suffix}'
    if place in OUTPUTS:
        bad = BAD_OUTPUTS[kind]
    else:
        (BAD_FOLDERS if place in FOLDERS else BAD_FILES)[kind](bad)
    argv = _words(CALLS[name], good, tmp_path, **{place: bad})
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        status, out, err = called(name, argv)
    assert 'Traceback' not in err and '\33' not in out + err
    lines = [line for line in err.splitlines() if line.startswith('error: ')]
    assert status == 2 and len(lines) == 1 or status == 1 and err.strip(), (status, out, err)


# ---------------------------------------------------------------- every flag of every command

class Captured(BaseException):
    def __init__(self, parser):
        super().__init__()
        self.parser = parser


@pytest.fixture(scope='module')
def parsers():
    """{command: its parser}, caught when it is first used."""
    def catch(self, *args, **options):
        raise Captured(self)
    parse, Parser.parse_args = Parser.parse_args, catch
    found = {}
    try:
        for name in ['main', *COMMANDS]:
            command = main if name == 'main' else importlib.import_module(f'util_scripts.{name}')
            with pytest.raises(Captured) as caught:
                command.main([])
            found[name] = caught.value.parser
    finally:
        Parser.parse_args = parse
    return found


RIGHT_TEXTS = ('1', 'f_%05d.png', '3', '0.5', '31', '10x3', '25', '0.9', '224', '101', '8x64@40',
               'a')


def _right(action):
    """Words that an action takes, by its choices, default or type."""
    count = action.nargs if isinstance(action.nargs, int) else 1
    if action.choices:
        return [str(next(iter(action.choices)))] * count
    for text in RIGHT_TEXTS:
        try:
            (action.type or str)(text)
            return [text] * count
        except (argparse.ArgumentTypeError, ValueError, TypeError):
            continue
    raise AssertionError(f'no right value for {action.option_strings}')


def _needed(parser, but=None):
    """Words for all arguments that have to be given."""
    words = []
    for action in parser._actions:
        if action is but or not (action.required or not action.option_strings
                                 and action.nargs not in ('?', '*')):
            continue
        words += [*action.option_strings[-1:], *_right(action)]
    return words


def test_every_flag_right(parsers):
    n_flags = 0
    for name, parser in parsers.items():
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            flags = action.option_strings or [None]
            for flag in flags:
                is_bare = action.nargs == 0 or flag in getattr(action, 'opposites', ())
                words = [] if is_bare else _right(action)
                if flag:
                    argv = [*_needed(parser, action), flag, *words]
                else:  # in its place, which it has anyway where it is needed
                    argv = [*(words if action.nargs in ('?', '*') else ()), *_needed(parser)]
                try:
                    parser.parse_args(argv)
                except InputError as error:
                    raise AssertionError(f'{name} {argv}: {error}') from None
                n_flags += 1
    print(f'{n_flags} flags')


def _takes_all(action):
    """True for a type that takes any text, such as a path."""
    return action.nargs != 0 and not action.choices and action.type in (None, str, Path)


def test_every_flag_wrong(parsers):
    """A value that it does not take, one too many, none at all: named in one sentence."""
    n_wrong = 0
    for name, parser in parsers.items():
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction) or not action.option_strings:
                continue
            flag = action.option_strings[-1]
            wrong = [[f'{flag}=odd']] if action.nargs == 0 else [
                [flag]] if _takes_all(action) and action.nargs != '*' else [[flag, 'odd value']]
            for words in wrong:
                with pytest.raises(InputError) as raised:
                    parser.parse_args(_needed(parser, action) + words)
                text = str(raised.value)
                assert flag in text and '\n' not in text, (name, words, text)
                n_wrong += 1
    assert n_wrong > 200
    print(f'{n_wrong} flags')


# ---------------------------------------------------------------- every path of every command

# What no command reads or replaces: nothing, what is no file, one of folder and file, and no path.
NO_FILES = {'missing': lambda path: None, 'a pipe': _mkfifo, 'a device': _link('/dev/zero'),
            'a socket': _socket, 'a folder': lambda path: path.mkdir(),
            'a file': lambda path: path.write_text('a'), 'a name too long': lambda path: None}
# A name that would clear a terminal, forge a line, and change a title.
ODD_NAME = 'odd\33[2J\nerror: forged\33]0;b\7'
# Commands that make what they are about, and calls in which other paths count.
OWN_CALLS = {
    'benchmark': (*MAIN, '--parts', 'loader', '--seconds', '0.01'), 'demo': (),
    'demo_videos': ('{out}', '--n_train', '1', '--n_val', '1'),
    'get_weights': ('i3d-kinetics-400', '--to', '{out}'), 'knn': ('{features}',),
    'networks_table': ('--networks', 'resnet-10', '--sample_size', '32', '--sample_duration', '4',
                       '--seconds', '0.01')}
# What a flag needs to have an effect.
WITH = {('main', 'output_features'): ('--inference',), ('predict', 'vtt'): ('--events',),
        ('benchmark', 'videos'): ('--parts', 'extraction'),
        ('main', 'video_index'): ('--file_type', 'video'),
        ('plot_results', 'groups'): ('--video_path', '{videos}')}
# Put in front of other paths; a page without pictures is a page, which says why; needs nncf.
ELSEWHERE = {('main', 'root_path'), ('report', 'video_path'), ('export', 'json')}


def _is_written(action):
    return bool(re.search(r'\b(writes?|goe?s?|is made|made where|keep there)\b|^folder for',
                          action.help))


def _wrong_kinds(action):
    """The NO_FILES that an argument does not take, by what its help says that it is."""
    yield 'a name too long'
    if _is_written(action):
        yield 'a pipe'
    else:
        yield from ('missing', 'a pipe', 'a device', 'a socket')
    is_folder = action.metavar in ('DIR', 'FOLDER', 'RESULTS') or action.help.startswith('folder')
    if is_folder:
        yield 'a file'
    elif not re.search(r'^videos|or a folder|or folder', action.help):
        yield 'a folder'


def _paths(name, parsers):
    """The arguments of a command that are paths, without those of main.py that it takes too."""
    of_main = {action.help for action in parsers['main']._actions if name != 'main'}
    return [action for action in parsers[name]._actions
            if (action.type is Path or action.dest in ('files', 'recipes'))
            and action.help not in of_main and (name, action.dest) not in ELSEWHERE]


def _with_path(parser, action, words, path):
    """The words of a call with a path for an argument."""
    if action.option_strings:
        return [*words, action.option_strings[0], path]
    place = [other for other in parser._actions if not other.option_strings].index(action)
    return [*words[:place], path, *words[place + 1:]]


def _hangs(signum, frame):
    raise AssertionError('it hangs')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['main', *COMMANDS])
def test_paths_that_are_no_files(good, parsers, tmp_path, monkeypatch, name):
    """Each path of each command is nothing, a pipe, a device, a socket, a folder for a file or a
    file for a folder, and too long, under a name that would drive a terminal: it is named in one
    sentence."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, _hangs)
    for action in _paths(name, parsers):
        call = {**CALLS, **OWN_CALLS}[name] + WITH.get((name, action.dest), ())
        suffix = next(iter(re.findall(r'\.[a-z]\w+', f'{action.metavar} {action.help}')), '')
        for kind in _wrong_kinds(action):
            name_of_file = ODD_NAME + 'x' * 300 * (kind == 'a name too long') + suffix
            path = tmp_path / action.dest / kind / name_of_file
            path.parent.mkdir(parents=True)
            NO_FILES[kind](path)
            words = _words(call, good, tmp_path)
            signal.alarm(LIMIT_SEC)
            status, out, err = called(name, _with_path(parsers[name], action, words, str(path)))
            signal.alarm(0)
            case = name, action.dest, kind, status, out, err
            lines = [line for line in err.splitlines() if line.startswith('error: ')]
            assert status == 2 and len(lines) == 1 or status == 1 and not lines, case
            assert 'odd\\x1b[2J' in err and '\33' not in out + err, case
            assert 'Traceback' not in err, case
    signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------- streams that fail

@pytest.mark.slow
@pytest.mark.usefixtures('forked')
@pytest.mark.parametrize('name', ['main', *COMMANDS])
def test_streams_that_fail(good, tmp_path, monkeypatch, name):
    """A pipe that nobody reads ends a command quietly, a full disk or a closed stream in one
    sentence, a training not at all; what cannot be said on stderr is not said."""
    monkeypatch.chdir(tmp_path)
    # Nothing is downloaded here.
    call = {**CALLS, **OWN_CALLS, 'get_weights': ('--list',)}[name]
    for error, status in FAILURES[:1] if name == 'main' else FAILURES:
        words = _words(call, good, tmp_path / str(error))
        ended, _, err = called(name, words, Broken(error))
        lines = [line for line in err.splitlines() if line.startswith('error: ')]
        assert ended == (0 if name == 'main' else status), (error, ended, err)
        assert len(lines) == (ended == 1) and 'Traceback' not in err, (error, err)
    assert called(name, ['--wrong'], err=Broken(OSError(5, 'Input/output error')))[0] == 2
