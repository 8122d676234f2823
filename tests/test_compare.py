"""compare: runs on folds, repeatable and resumable, and what they are summarised to."""

import csv
import json
import math
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from runtime.errors import InputError
from tests.helpers import ROOT, run_script
from tests.tiny_data import CLASSES, N_TRAIN, N_VAL
from util_scripts.helpers.comparison_tables import Found, report, summarise
from util_scripts.helpers.side_by_side import Job, run_side_by_side

N_LABELLED = len(CLASSES) * (N_TRAIN + N_VAL)


@pytest.fixture
def recipes(tmp_path):
    """Two files of flags."""
    for name, line in (('slow', '--learning_rate 0.001'), ('fast', '--learning_rate 0.05')):
        (tmp_path / f'{name}.txt').write_text(f'{line}  # why\n--nesterov\n')
    return [str(tmp_path / 'slow.txt'), str(tmp_path / 'fast.txt')]


@pytest.fixture
def groups(tmp_path):
    path = tmp_path / 'groups.csv'
    path.write_text('\n'.join(['path,group', *(
        f'{name}/{name}_{i}.avi,recording {i // 2}' for name in CLASSES for i in range(9))]))
    return path


def flags(data, result_path, recipes, *more):
    argv = data.argv(result_path, '--n_epochs', 1)
    place = argv.index('--learning_rate')
    del argv[place:place + 2]
    place = argv.index('--n_classes')
    del argv[place:place + 2]
    return [*argv, '--n_jobs', '2', '--recipes', *recipes, *map(str, more)]


def rows_of(folder):
    with open(folder / 'comparison.csv', newline='') as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- the runs

@pytest.mark.slow
def test_folds_seeds_and_recipes(tiny_data, tmp_path, recipes, groups):
    folder = tmp_path / 'compared'
    argv = flags(tiny_data, folder, recipes, '--folds', 2, '--groups', groups)
    done = run_script('compare', *argv)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '4 runs, 0 of them finished' in done.stdout
    rows = rows_of(folder)
    assert {(row['recipe'], row['fold'], row['seed']) for row in rows} == {
        (recipe, fold, '1') for recipe in ('slow', 'fast') for fold in '12'}
    tested = []
    for fold in (1, 2):
        database = json.loads((folder / f'fold_{fold}.json').read_text())['database']
        assert len(database) == N_LABELLED
        assert {entry['subset'] for entry in database.values()} == {'training', 'testing'}
        tests = {name for name, entry in database.items() if entry['subset'] == 'testing'}
        recordings = {int(name[-1]) // 2 for name in tests}
        assert not recordings & {int(name[-1]) // 2 for name in database.keys() - tests}
        run = folder / 'fast' / f'fold_{fold}_seed_1'
        assert json.loads((run / 'test.json').read_text())['results'].keys() == tests
        assert not (run / 'val.log').exists() or len((run / 'val.log').read_text().split('\n')) < 3
        tested += tests
    assert len(tested) == len(set(tested)) == N_LABELLED
    with Image.open(folder / 'comparison.png') as picture:
        assert min(picture.size) > 100
    summary = json.loads((folder / 'comparison.json').read_text())
    assert [row['recipe'] for row in summary] == ['slow', 'fast']

    # Repeated, nothing is done again; another seed adds runs.
    times = {path: path.stat().st_mtime_ns for path in folder.rglob('*.pth')}
    done = run_script('compare', *argv, '--seeds', 2)
    assert done.returncode == 0 and '8 runs, 4 of them finished' in done.stdout
    assert all(path.stat().st_mtime_ns == old for path, old in times.items())
    assert [row for row in rows_of(folder) if row['seed'] == '1'] == rows

    # The same anew gives the same.
    again = tmp_path / 'again'
    assert run_script('compare', *flags(tiny_data, again, recipes, '--folds', 2, '--groups',
                                        groups)).returncode == 0
    for name in ('slow', 'fast'):
        for fold in (1, 2):
            results = [json.loads((one / name / f'fold_{fold}_seed_1/test.json').read_text())
                       for one in (folder, again)]
            assert results[0] == results[1]

    # Other flags are not taken for these.
    done = run_script('compare', *argv, '--weight_decay', 0)
    assert done.returncode == 2 and 'holds a run with other words; give another' in done.stderr


@pytest.mark.slow
def test_a_run_that_reads_another_waits_for_it_and_fails_with_it(tiny_data, tmp_path):
    teacher, student = tmp_path / 'teacher.txt', tmp_path / 'student.txt'
    teacher.write_text('--nesterov')
    folder = tmp_path / 'compared'
    student.write_text(f'--pretrain_path {folder}/teacher/fold_{{fold}}_seed_{{seed}}/save_1.pth')
    argv = flags(tiny_data, folder, [student, teacher])
    done = run_script('compare', *argv, '--leave_out', 'pretrain_path')
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if 'fold 1, seed 1: ' in line]
    assert lines.index(next(line for line in lines if line.startswith('teacher'))) \
        < lines.index(next(line for line in lines if line.startswith('student, ')))
    assert any(line.startswith('student without pretrain_path') for line in lines)
    # Without folds the annotation says itself what is tested: its test videos have no labels.
    run = folder / 'teacher' / 'fold_1_seed_1'
    assert len(json.loads((run / 'val.json').read_text())['results']) == len(CLASSES) * N_VAL


@pytest.mark.slow
def test_a_run_that_fails_is_named(tiny_data, tmp_path, recipes):
    (tmp_path / 'wrong.txt').write_text('--pretrain_path nowhere.pth')
    done = run_script('compare', *flags(tiny_data, tmp_path / 'c', [tmp_path / 'wrong.txt',
                                                                    recipes[0]]))
    assert done.returncode == 1
    assert 'wrong, fold 1, seed 1: ended with status 2: error: ' in done.stdout
    assert [row['recipe'] for row in rows_of(tmp_path / 'c')] == ['slow']


@pytest.mark.slow
@pytest.mark.parametrize('how', ['signal', 'minutes'])
def test_a_comparison_that_is_stopped_goes_on(tiny_data, tmp_path, recipes, how):
    straight, stopped = tmp_path / 'straight', tmp_path / 'stopped'
    epochs = ['--n_epochs', 12, '--checkpoint', 12]
    assert run_script('compare', *flags(tiny_data, straight, recipes, *epochs)).returncode == 0
    argv = list(map(str, flags(tiny_data, stopped, recipes, *epochs)))
    process = subprocess.Popen([sys.executable, '-m', 'util_scripts.compare', *argv,
                                *(['--minutes', '0.2'] if how == 'minutes' else [])], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = stopped / 'slow' / 'fold_1_seed_1' / 'train_batch.log'
    while how == 'signal' and process.poll() is None and not (
            log.exists() and len(log.read_text().splitlines()) > 1):
        time.sleep(0.01)
    if how == 'signal':
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    # On a slow machine all may be over before it is asked to stop.
    assert process.returncode in (0, 128 + signal.SIGTERM), out + err
    done = run_script('compare', *argv)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ('slow', 'fast'):
        results = [json.loads((folder / name / 'fold_1_seed_1/val.json').read_text())
                   for folder in (straight, stopped)]
        assert results[0] == results[1]


@pytest.mark.parametrize('more, sentence', [
    (['--groups', 'g.csv'], '--groups is about --folds: add that, or drop it'),
    (['--folds', '99'], '--folds 99: the videos are of 18 groups'),
    (['--resume_path', 'x.pth'], '--resume_path is not for a comparison'),
    (['--multi_label'], '--multi_label is not for a comparison'),
    (['--leave_out', 'momentum'], '--leave_out --momentum: .*slow.txt has no line with it'),
    (['--momentum', '0'], 'recipe slow: --nesterov needs a --momentum above 0')])
def test_what_cannot_be_compared(tiny_data, tmp_path, recipes, more, sentence):
    from util_scripts.compare import main
    with pytest.raises(InputError, match=sentence):
        main(flags(tiny_data, tmp_path / 'c', recipes, *more))
    assert not list(tmp_path.glob('c/*/*'))


def test_recipes_of_one_name_and_of_none(tiny_data, tmp_path, recipes):
    from util_scripts.compare import main
    with pytest.raises(InputError, match='two that are called slow'):
        main(flags(tiny_data, tmp_path / 'c', [recipes[0], recipes[0]]))
    with pytest.raises(InputError, match='recipes/scrath.txt: no file of flags .* did you mean '
                                         '.*recipes/scratch.txt'):
        main(flags(tiny_data, tmp_path / 'c', ['scrath']))


# ---------------------------------------------------------------- processes

def test_commands_side_by_side(tmp_path):
    def job(name, code, *needs):
        return Job(name, (sys.executable, '-c', code), tmp_path / name / 'output.txt',
                   frozenset(needs))
    jobs = [job('after', 'print(2)', 'first'), job('first', 'print(1)'),
            job('bad', 'raise SystemExit(3)'), job('never', 'print(4)', 'bad')]
    began, ended = [], {}
    is_left = run_side_by_side(jobs, 2, lambda job: began.append(job.name),
                               lambda job, status, _: ended.update({job.name: status}) or job.name,
                               math.inf)
    assert is_left and began == ['first', 'bad', 'after'] and ended == {'first': 0, 'bad': 3,
                                                                        'after': 0}
    assert (tmp_path / 'after' / 'output.txt').read_text() == '2\n'


def test_commands_are_asked_to_stop_once(tmp_path):
    code = ('import signal, sys, time\nasked = []\n'
            'signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\nprint("on", flush=True)\n'
            'while not asked: time.sleep(.01)\ntime.sleep(.4); sys.exit(40 + len(asked))')
    job = Job('one', (sys.executable, '-c', code), tmp_path / 'output.txt')
    ended = []

    assert run_side_by_side([job], 1, lambda _: None,
                            lambda _, status, __: ended.append(status) or '', 0.02)
    assert ended in ([41], [128 + signal.SIGTERM])  # the second where Python began too slowly


# ---------------------------------------------------------------- the table

def test_means_deviations_and_gains(tmp_path, capsys):
    found = [Found('a', 1, 1, 0.5, 0.4, 10, 1.0), Found('b', 1, 1, 0.7, 0.6, 10, 2.0),
             Found('a', 2, 1, 0.7, 0.6, 10, 1.0), Found('b', 2, 1, 0.8, 0.7, 10, 2.0),
             Found('c', 2, 1, 0.1, 0.1, 10, 2.0)]
    a, b, c = summarise(found)
    assert a['video_accuracy'] == pytest.approx((0.6, math.sqrt(0.02)))
    # Gains of 0.2 and 0.1: their deviation by the square root of two.
    assert b['gain'] == pytest.approx((0.15, math.sqrt(0.005) / math.sqrt(2)))
    assert (c['n_runs'], c['n_folds'], c['n_seeds']) == (1, 1, 1)
    report(tmp_path, found)
    lines = capsys.readouterr().out.splitlines()
    assert '| b | 2 x 1 | 75.0 ± 7.1 | 65.0 ± 7.1 | 15.0 ± 5.0 | 2.0 |' in lines
    assert '| c | 1 x 1 | 10.0 | 10.0 | -60.0 | 2.0 |' in lines
    assert json.loads((tmp_path / 'comparison.json').read_text())[2]['gain']['deviation'] is None
    assert len(rows_of(tmp_path)) == 5


def test_nothing_is_finished(tmp_path, capsys):
    report(tmp_path, [])
    assert capsys.readouterr().out == 'no run is finished\n' and not list(tmp_path.iterdir())
