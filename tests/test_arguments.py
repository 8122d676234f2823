"""Kinds of arguments, help with defaults, and what is said of a flag that does not exist."""

import argparse
import importlib
import re
import sys
from pathlib import Path

import pytest

from opts import build_parser, parse_opts
from runtime.arguments import (BELOW_ONE, COUNT, FLOAT, FRACTION, INTEGER, POSITIVE, POSITIVE_RATE,
                               RATE, Parser, at_least, between, command_line)
from runtime.errors import InputError
from runtime.names import meant_file
from runtime.output import be_quiet, is_quiet
from tests.helpers import run_script

NEEDED = ['--video_path', 'a', '--annotation_path', 'b', '--result_path', 'c']


def one_flag(**options):
    parser = Parser('python -m command', 'What it does.')
    parser.add_argument('--value', **options)
    return parser


@pytest.mark.parametrize('kind, right, wrong', [
    (POSITIVE, ['1', '12'], ['0', '-1', '1.5', 'x', '']), (COUNT, ['0'], ['-1']),
    (INTEGER, ['-3'], ['0.5', 'nan']), (FLOAT, ['-1e3'], ['nan', 'inf']),
    (RATE, ['0', '.5'], ['-1', 'inf', 'nan']), (POSITIVE_RATE, ['1e-9'], ['0', 'nan', 'inf']),
    (FRACTION, ['1'], ['0', '1.1']), (BELOW_ONE, ['0', '.9'], ['1', '-.1']),
    (at_least(3), ['3'], ['2']), (between(int, 1, 31), ['1', '31'], ['0', '32', '1.5']),
    (between(float, .5, 2, also=-1), ['-1', '.5'], ['0', 'nan', '3'])])
def test_kinds(kind, right, wrong):
    parser = one_flag(type=kind)
    for text in right:
        assert parser.parse_args([f'--value={text}']).value == float(text)
    for text in wrong:
        with pytest.raises(InputError, match=f"argument --value: '{text}' is not "):
            parser.parse_args([f'--value={text}'])


@pytest.mark.parametrize('options, told', [
    ({'default': 5}, '(default: 5)'), ({'default': [1, 'all']}, '(default: 1 all)'),
    ({'default': ['50 %']}, '(default: 50 %)'), ({}, None), ({'default': ''}, None),
    ({'action': 'store_true'}, None)])
def test_help_tells_defaults(options, told):
    shown = one_flag(help='what it is', **options).format_help()
    assert told in shown if told else '(default' not in shown
    assert one_flag(help='a (default: 7)', default=5).format_help().count('(default: ') == 1


def test_help_does_not_cut_words_that_are_copied():
    parser = one_flag(help='x ' * 23 + 'opencv-contrib-python-headless')
    assert 'opencv-contrib-python-headless' in parser.format_help()


@pytest.mark.parametrize('typed, meant', [
    ('--batch-size', '--batch_size'), ('--batchsize=4', '--batch_size'), ('-bs', '--batch_size'),
    ('--optim_', '--optimizer'), ('--max_epochs', '--n_epochs'), ('-lr', '--learning_rate'),
    ('--workers', '--n_threads'), ('-j', '--n_threads'), ('--output_dir', '--result_path'),
    ('--ckpt', '--resume_path'), ('--img-size', '--sample_size'), ('--amp', '--precision'),
    ('--pretrained', '--pretrain_path'), ('--num_classes', '--n_classes')])
def test_the_flag_that_is_meant(typed, meant):
    with pytest.raises(InputError) as refused:
        parse_opts([*NEEDED, typed, '4'])
    assert str(refused.value) == (f'unknown argument {typed.split("=")[0]}; did you mean {meant}?; '
                                  'python main.py --help lists all flags')


def test_nothing_is_proposed_for_what_is_like_no_flag():
    with pytest.raises(InputError, match=r'unknown argument --qqq; python main.py --help'):
        parse_opts([*NEEDED, '--qqq'])


def test_a_mistyped_flag_is_named_before_what_it_leaves_missing():
    parser = Parser('python -m command', 'What it does.')
    parser.add_argument('--weights', required=True)
    with pytest.raises(InputError, match='unknown argument --wieghts; did you mean --weights?'):
        parser.parse_args(['--wieghts', 'a.pth'])


def test_values_that_look_like_flags_are_values():
    parser = Parser('python -m command', 'What it does.')
    parser.add_argument('--mean', type=FLOAT, nargs=2)
    parser.add_argument('files', nargs='*')
    assert parser.parse_args(['--mean', '-1.5', '-2']).mean == [-1.5, -2]
    assert parser.parse_args(['--', '--file']).files == ['--file']


def test_flags_may_be_cut_short():
    assert parse_opts([*NEEDED, '--learn', '.2', '--model_d', '50']).model_depth == 50
    with pytest.raises(InputError, match='ambiguous option: --sample could match'):
        parse_opts([*NEEDED, '--sample', '4'])


@pytest.mark.parametrize('words, name, value', [
    ('--nesterov --no_nesterov', 'nesterov', False), ('--no_norm_decay', 'no_norm_decay', True),
    ('--no_norm_decay --norm_decay', 'no_norm_decay', False), ('--train', 'no_train', False),
    ('--no_tf32 --tf32', 'tf32', True), ('--colorjitter --no_colorjitter', 'colorjitter', False),
    ('--no_colorjitter --colorjitter 0.1 0.1 0.1 0.1', 'colorjitter', [0.1] * 4)])
def test_switches_are_turned_off_by_their_opposites(words, name, value):
    opts = parse_opts([*NEEDED, *words.split()])
    assert getattr(opts, name) == value and name in opts.given


def test_opposites_of_switches_stay_in_the_background():
    shown = build_parser().format_help()
    assert '--nesterov ' in shown and '--no_nesterov' not in shown
    # --no_val is not unclear now beside the opposite of a switch.
    assert parse_opts([*NEEDED, '--no_t', '--val', '--quiet', '--no_quiet']).no_train
    assert not is_quiet()
    for words, sentence in ((['--no_nesterof'], 'did you mean --no_nesterov?'),
                            (['--no_colorjitter', '0.1'], '--no_colorjitter takes no values')):
        with pytest.raises(InputError, match=re.escape(sentence)):
            parse_opts([*NEEDED, *words])


@pytest.mark.parametrize('words, value, on, off', [
    ('--no_cuda true', 'true', '--no_cuda', '--cuda'),
    ('--cuda False', 'False', '--cuda', '--no_cuda'),
    ('--nesterov=1', '1', '--nesterov', '--no_nesterov'), ('--no_hf 0', '0', '--no_hflip', '--hf'),
    ('--check_paths yes', 'yes', '--check_paths', '--no-check_paths'),
    ('--no_train maybe', 'maybe', '--no_train', '--train')])
def test_a_value_of_a_switch_is_named(words, value, on, off):
    with pytest.raises(InputError) as refused:
        parse_opts([*NEEDED, *words.split()])
    assert str(refused.value).startswith(f'{on} takes no value, and {value!r} is given; give {on} '
                                         f'alone, or {off}')


def test_a_value_of_a_switch_is_no_file_of_the_command(tmp_path, monkeypatch):
    parser = Parser('p', 'p')
    parser.add_argument('files', nargs='*')
    parser.add_argument('--npy', action='store_true')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--npy takes no value, and 'on' is given"):
        parser.parse_args(['--npy', 'on', 'a.mp4'])
    (tmp_path / 'on').touch()
    assert parser.parse_args(['--npy', 'on', 'a.mp4']).files == ['on', 'a.mp4']


@pytest.mark.parametrize('short, name', [
    ('--lr', 'learning_rate'), ('--wd', 'weight_decay'), ('--bs', 'batch_size'),
    ('--epochs', 'n_epochs'), ('--num_workers', 'n_threads'), ('--seed', 'manual_seed')])
def test_usual_short_names(short, name):
    opts = parse_opts([*NEEDED, short, '3'])
    assert getattr(opts, name) == 3 and name in opts.given


def test_a_wrong_number_of_values_is_one_sentence():
    with pytest.raises(InputError, match='--mean: expected 3 arguments; python main.py --help'):
        build_parser().parse_args(['--mean', '1', '2'])


def test_an_argument_without_a_flag_is_named():
    done = run_script('folder_json', 'videos', '--dst_path', 'own.json')
    assert done.returncode == 2
    assert 'dst_path is given without --dst_path: python -m util_scripts.folder_json videos dst_p' \
        in done.stderr


@pytest.mark.parametrize('name, near', [('resnet50', '; did you mean resnet?'), ('q', '')])
def test_of_many_names_the_nearest_is_said(name, near):
    with pytest.raises(InputError) as refused:
        parse_opts([*NEEDED, '--model', name])
    assert str(refused.value) == (f'argument --model: {name!r} is no family of networks{near}; '
                                  'python main.py --help lists all flags')


def test_of_files_that_are_not_there_the_nearest_is_said(tmp_path):
    (tmp_path / 'save_best.pth').touch()
    for name in ('save_bset.pth', 'save_best.pt'):
        assert meant_file(tmp_path / name) == f'did you mean {tmp_path}/save_best.pth?'
    for path in (tmp_path / 'own.json', tmp_path / 'gone' / 'save_best.pth', Path('a\0b')):
        assert meant_file(path) == ''


def test_the_first_of_unknown_words_is_named(monkeypatch):
    parser = Parser('p', 'p')
    monkeypatch.setattr(sys, 'argv', ['p', 'a', 'b'])
    with pytest.raises(InputError, match='unknown argument a;'):
        parser.parse_args()


def test_a_file_of_flags_of_nearly_that_name_is_proposed(tmp_path):
    (tmp_path / 'scratch.cfg').touch()
    with pytest.raises(InputError, match='did you mean .*/scratch.cfg'):
        parse_opts([*NEEDED, f'@{tmp_path}/scrach.cfg'])


def test_a_command_sees_that_it_is_to_be_quiet():
    parser = Parser('p', 'p')
    try:
        assert [parser.parse_args(argv).quiet for argv in ([], ['--quiet'])] == [False, True]
        assert is_quiet()
    finally:
        be_quiet(False)


def test_usage_fits_a_terminal():
    for name in ('benchmark', 'check_data', 'compare', 'export', 'show_augmentations'):
        assert len(run_script(name, '--help').stdout.splitlines()[0]) <= 100


def test_descriptions_keep_words_with_hyphens_whole():
    shown = Parser('p', 'x ' * 35 + 'opencv-contrib-python-headless').format_help()
    assert 'opencv-contrib-python-headless' in shown


def test_short_flags_may_hold_their_value():
    parser = Parser('p', 'p')
    parser.add_argument('-k', type=POSITIVE)
    assert parser.parse_args(['-k5']).k == 5
    with pytest.raises(InputError, match='unknown argument -q5'):
        parser.parse_args(['-q5'])


def test_a_recipe_of_nearly_that_name_is_proposed_from_wherever_the_command_runs(
        tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r'did you mean \.\./.*/recipes/scratch\.txt'):
        parse_opts([*NEEDED, '@scrach'])


def test_commands_to_paste_call_the_python_that_runs(tmp_path, monkeypatch):
    ours = Path(sys.executable).parent
    (tmp_path / 'python').touch(mode=0o755)
    for path, name in ((tmp_path, sys.executable), (ours, 'python'),
                       (tmp_path / 'gone', sys.executable)):
        monkeypatch.setenv('PATH', str(path))
        assert command_line('knn', 'a b') == f"{name} -m util_scripts.knn 'a b'"


def test_what_a_number_should_be_is_said():
    for kind, said in ((between(float, 0.5, 2), 'a number of 0.5 to 2'),
                       (between(int, 1, 31, also=-1), 'a number of 1 to 31 or -1'),
                       (at_least(3), 'a whole number of at least 3')):
        with pytest.raises(argparse.ArgumentTypeError) as refused:
            kind('100.5x')
        assert str(refused.value) == f"'100.5x' is not {said}"


@pytest.mark.parametrize('name, words, ending', [
    ('predict', ['a.mp4', '--weights', 'w.pth', '--json', 'p.csv'], '.json'),
    ('predict', ['a.mp4', '--weights', 'w.pth', '--csv', 'p.json'], '.csv'),
    ('report', ['r', '--output', 'r.PDF'], '.html')])
def test_the_ending_of_another_format_is_refused(name, words, ending):
    parser = importlib.import_module(f'util_scripts.{name}').build_parser()
    with pytest.raises(InputError, match=f'let its name end with {ending}'):
        parser.parse_args(words)
    parser.parse_args([*words[:-1], 'p'])
