"""Files of flags, options of an earlier run, and the recipes of the repository."""

import json
import os

import pytest

from opts import NOT_REPEATED, as_words, build_parser, parse_opts, to_json
from runtime.errors import InputError
from tests.helpers import ROOT
from tests.tiny_data import run_main

NEEDED = ['--video_path', 'v', '--annotation_path', 'a.json', '--result_path', 'r']


@pytest.fixture
def write(tmp_path):
    """Writes a file of flags and returns the word that names it."""
    def write_file(text, name='flags.txt'):
        (tmp_path / name).write_text(text)
        return f'@{tmp_path / name}'
    return write_file


# ---------------------------------------------------------------- files of flags

def test_a_file_holds_comments_and_several_words_a_line(write):
    word = write('# what it is for\n\n--learning_rate 0.01 --nesterov  # why\n'
                 '--multistep_milestones 5 \'7\'\n')
    opts = parse_opts([*NEEDED, word])
    assert (opts.learning_rate, opts.nesterov, opts.multistep_milestones) == (0.01, True, [5, 7])
    assert opts.given >= {'learning_rate', 'nesterov', 'multistep_milestones'}


@pytest.mark.parametrize('text, path', [
    ('a/take#2', 'a/take#2'), ('a#b # why', 'a#b'), ('"a #b"  # it\'s', 'a #b'), ('a\t#b', 'a')])
def test_a_comment_begins_a_word(write, text, path):
    assert str(parse_opts([*NEEDED, write(f'--teacher_path {text}')]).teacher_path) == path


def test_the_command_line_wins_wherever_it_stands(write):
    word = write('--learning_rate 0.01 --multistep_milestones 5 7 --n_epochs 8')
    for argv in ([word, '--lr', '1', '--multistep_milestones', '2'],
                 ['--lr', '1', '--multistep_milestones', '2', word]):
        opts = parse_opts([*NEEDED, *argv])
        assert (opts.learning_rate, opts.multistep_milestones, opts.n_epochs) == (1, [2], 8)


def test_of_two_files_the_last_wins(write):
    first, last = write('--n_epochs 3 --momentum 0', 'a.txt'), write('--n_epochs 4', 'b.txt')
    opts = parse_opts([*NEEDED, first, last])
    assert (opts.n_epochs, opts.momentum) == (4, 0)


@pytest.mark.parametrize('held, typed, changed', [
    ('--momentum .5 --nesterov', '--optimizer adamw', {'momentum': 0.9, 'nesterov': False}),
    ('--optimizer adamw --adam_betas .8 .9', '--optimizer sgd', {'adam_betas': [0.9, 0.999]}),
    ('--optimizer adamw --adam_betas .8 .9', '--optimizer adamw', {'adam_betas': [0.8, 0.9]}),
    ('--multistep_milestones 5', '--lr_scheduler cosine', {'multistep_milestones': [50, 100, 150]}),
    ('--inference_views 3x3', '--inference_stride 16', {'inference_views': None}),
    ('--inference_views 3x3', '--inference_crop nocrop', {'inference_views': None}),
    ('--inference_stride 8', '--inference_views 3x3', {'inference_stride': 16}),
    ('--n_epochs 40 --sample_size 144', '--clip_schedule 8x64@3 16x112@2',
     {'n_epochs': 5, 'sample_size': 112}),
    ('--clip_schedule 8x64@3 16x112@2', '--clip_schedule 4x32@1 8x64@1',
     {'n_epochs': 2, 'sample_size': 64, 'sample_duration': 8})])
@pytest.mark.parametrize('is_run', [False, True], ids=['recipe', 'opts'])
def test_what_goes_with_a_flag_goes_with_it(tmp_path, write, held, typed, changed, is_run):
    """What the error said to drop was not on the command line."""
    word = write(held)
    words = [word]
    if is_run:
        (tmp_path / 'opts.json').write_text(to_json(parse_opts([*NEEDED, word])))
        words = ['--opts', tmp_path / 'opts.json']
    opts = parse_opts([*NEEDED, *typed.split(), *words])
    assert {name: getattr(opts, name) for name in changed} == changed
    with pytest.raises(InputError):  # what is typed goes together, or is refused
        parse_opts([*NEEDED, *words, '--optimizer', 'adamw', '--momentum', '.1'])


def test_a_file_of_flags_goes_with_what_a_command_requires(tmp_path, write):
    parser = build_parser()
    parser.add_argument('videos', nargs='+')
    parser.add_argument('--recipes', required=True)
    opts = parse_opts(['a.mp4', write('--mixup .5'), '--recipes', 'x', *NEEDED], parser)
    assert (opts.mixup, opts.videos, opts.recipes) == (0.5, ['a.mp4'], 'x')
    (tmp_path / 'opts.json').write_text(to_json(parse_opts([*NEEDED, '--mixup', '.5'])))
    again = parse_opts(['b.mp4', '--opts', tmp_path / 'opts.json', '--recipes', 'x'], parser)
    assert (again.mixup, again.videos) == (0.5, ['b.mp4'])
    with pytest.raises(InputError, match='the following arguments are required: --recipes'):
        parse_opts(['a.mp4', write('--mixup .5'), *NEEDED], parser)


@pytest.mark.parametrize('text, sentence', [
    ('--n_epochs 4\n\n--lerning_rate 1\n',
     'line 3: unknown argument --lerning_rate; did you mean --learning_rate?;'),
    ('--n_epochs some', "line 1: argument --n_epochs/--epochs: 'some' is not a whole number"),
    ('--multistep_milestones\n4 5', 'line 1: argument --multistep_milestones: expected at least'),
    ('--n_epochs 4\n5', 'line 2: unknown argument 5'),
    ('--n_epochs "4', 'line 1: No closing quotation; mend the line'),
    ('--n_epochs 4\n@other.txt', 'line 2: @other.txt is for the command line alone'),
    ('--help', 'line 1: --help is for the command line alone')])
def test_a_mistake_is_named_with_its_line(write, text, sentence):
    word = write(text)
    with pytest.raises(InputError) as refused:
        parse_opts([*NEEDED, word])
    assert str(refused.value).startswith(f'{word[1:]}, {sentence}')


def test_a_file_that_is_not_there(write):
    word = write('--n_epochs 4', 'finetune.txt')
    with pytest.raises(InputError, match=r'fintune.txt: no file of flags can be read there \(No '
                                         r'such file or directory\); did you mean .*finetune.txt'):
        parse_opts([*NEEDED, word.replace('finetune', 'fintune')])


def test_a_file_and_help_need_no_data(write, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_opts([write('--n_epochs 4'), '--help'])
    assert ended.value.code == 0 and '--opts FILE' in capsys.readouterr().out


# ---------------------------------------------------------------- options of an earlier run

def test_the_options_of_an_earlier_run(tmp_path):
    first = parse_opts([
        *NEEDED, '--root_path', 'data', '--mean', '-1', '2', '.5', '--momentum', '0',
        '--no-check_paths', '--inference', '--inference_views', '10x3', '--colorjitter',
        '--pretrain_path', 'p.pth', '--output_topk', '-1'])
    path = tmp_path / 'opts.json'
    path.write_text(to_json(first))
    again = parse_opts(['--opts', str(path)])
    differing = {name for name, value in vars(first).items() if getattr(again, name) != value}
    assert differing <= {*NOT_REPEATED, 'given'}
    assert again.given == first.given - {'root_path'} | {'opts'}
    evaluated = parse_opts(['--opts', str(path), '--resume_path', 'r/save_best.pth',
                            '--momentum', '.5', '--root_path', '/other', '--result_path', 'e'])
    assert (evaluated.pretrain_path, evaluated.momentum) == (None, 0.5)
    assert str(evaluated.result_path) == '/other/e' and evaluated.video_path.is_absolute()
    assert 'other' not in str(evaluated.video_path)


def test_every_option_survives_its_words():
    parser = build_parser()
    defaults = vars(parser.parse_args([]))
    for name, value in defaults.items():
        words = as_words(name, value)
        assert vars(parser.parse_args(words)) == defaults, words


def test_switches_of_a_recipe_or_a_run_can_be_turned_off(tmp_path, write):
    word = write('--nesterov --no_norm_decay --tf32')
    first = parse_opts([*NEEDED, word, '--no_tf32'])
    assert (first.nesterov, first.no_norm_decay, first.tf32) == (True, True, False)
    path = tmp_path / 'opts.json'
    path.write_text(to_json(first))
    again = parse_opts(['--opts', str(path), '--no_nesterov', '--norm_decay'])
    assert (again.nesterov, again.no_norm_decay, again.tf32) == (False, False, False)


@pytest.mark.parametrize('record, sentence', [
    ({'lerning_rate': 1}, 'unknown argument --lerning_rate; did you mean --learning_rate?'),
    ({'n_epochs': 'x'}, "argument --n_epochs/--epochs: 'x' is not a whole number"),
    ({'tf32': '--no_cuda'}, 'argument --tf32: a str is no value of a flag'),
    ({'optimizer': ['sgd']}, "argument --optimizer: ['sgd'] is not a value of it"),
    ([], 'holds no options by name; give the opts.json in the result folder of a run')])
def test_a_record_that_is_none(tmp_path, record, sentence):
    (tmp_path / 'opts.json').write_text(json.dumps(record))
    with pytest.raises(InputError) as refused:
        parse_opts(['--opts', str(tmp_path / 'opts.json')])
    assert str(refused.value).startswith(f'--opts {tmp_path}/opts.json: {sentence}')


@pytest.mark.parametrize('given', ['--opts {}', '@{}'])
def test_a_pipe_is_no_file_of_options(tmp_path, given):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(InputError, match='it is a pipe, not a file'):
        parse_opts(given.format(tmp_path / 'pipe').split())


def test_what_is_said_of_files_of_flags_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bytes.txt').write_bytes(b'\xff\xfe')
    (tmp_path / 'h.txt').write_text('')
    for name, cure in (('bytes.txt', 'give a text file with flags'), ('.', 'give a text file'),
                       ('/dev/zero', 'give a text file'), ('scratch', 'recipes/scratch.txt?')):
        with pytest.raises(InputError) as refused:
            parse_opts([f'@{name}'])
        assert cure in str(refused.value) and 'mean h.txt' not in str(refused.value)


def test_a_record_that_is_nested_without_end(tmp_path):
    (tmp_path / 'opts.json').write_text('[' * 1_000_000)
    with pytest.raises(InputError, match='nested too deeply'):
        parse_opts(['--opts', str(tmp_path / 'opts.json')])


@pytest.mark.slow
def test_a_recipe_and_a_record_go_on_as_the_flags_do(tiny_data, tmp_path, write):
    word = write('--learning_rate 0.02 --nesterov')
    rows = []
    runs = {'flags': ['--nesterov', '--lr', '.02'], 'recipe': [word]}
    for name, flags in runs.items():
        # The command line of the tiny data gives a rate, which would win.
        argv = tiny_data.argv(tmp_path / name)
        place = argv.index('--learning_rate')
        del argv[place:place + 2]
        for n_epochs in (1, 2):
            assert run_main([*argv, *flags, '--n_epochs', n_epochs, '--resume_path', 'auto']) == 0
        rows.append((tmp_path / name / 'train.log').read_text())
    argv = ['--opts', tmp_path / 'recipe' / 'opts.json', '--result_path', tmp_path / 'record']
    assert run_main(argv) == 0
    rows.append((tmp_path / 'record' / 'train.log').read_text())
    assert rows[0] == rows[1] == rows[2]


# ---------------------------------------------------------------- the recipes of the repository

RECIPES = sorted((ROOT / 'recipes').glob('*.txt'))
each_recipe = pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)


def test_the_recipes_that_there_are():
    assert {path.stem for path in RECIPES} == {
        'scratch', 'finetune', 'finetune-small', 'linear-probe', 'kinetics-2020', 'modern',
        'distill'}


@each_recipe
def test_each_line_says_why(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith('# ') and all(len(line) <= 110 for line in lines)
    for line in filter(None, lines):
        assert '# ' in line and len(line.partition('# ')[2]) > 10, line


@each_recipe
def test_its_flags_go_together(path):
    needs = ['--teacher_path', 'teacher.pth'] if path.stem == 'distill' else []
    opts = parse_opts([*NEEDED, f'@{path}', *needs])
    assert opts.learning_rate > 0
    if path.stem == 'kinetics-2020':
        defaults = vars(build_parser().parse_args([]))
        differing = {name for name in opts.given if getattr(opts, name) != defaults.get(name)}
        # The network of most tables is deeper than the default.
        assert differing - {'video_path', 'annotation_path', 'result_path'} == {'model_depth'}


@pytest.mark.slow
@pytest.mark.parametrize('name', ['scratch', 'modern'])
def test_a_recipe_trains(tiny_data, tmp_path, name):
    argv = tiny_data.argv(tmp_path, '--sample_duration', 4, '--batch_size', 6, '--n_epochs', 1,
                          '--warmup_epochs', 0, '--inference')
    place = argv.index('--learning_rate')
    del argv[place:place + 2]
    assert run_main([f'@{ROOT}/recipes/{name}.txt', *argv]) == 0
    assert (tmp_path / 'val.json').exists()
