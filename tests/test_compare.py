"""compare: runs on folds, repeatable and resumable, and what they are summarised to."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace

import pytest
from PIL import Image

from runtime.errors import InputError, StopSignals
from tests.helpers import run_script
from tests.processes import ForkedCommand
from tests.tiny_data import CLASSES, N_TRAIN, N_VAL, run_main
from util_scripts.helpers import side_by_side
from util_scripts.helpers.comparison import read_recipes
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

def repeated(run, folder):
    """The results of the same command in this process, in another folder."""
    words = json.loads((run / 'run.json').read_text())['words']
    words[words.index('--result_path') + 1] = str(folder)
    assert run_main(words) == 0
    return results_of(folder)


def results_of(folder):
    """The results of a run, of test or else of validation videos."""
    path = folder / 'test.json'
    return json.loads((path if path.exists() else folder / 'val.json').read_text())['results']


def stopped(path, *argv):
    """A comparison that is asked to stop once a file is there."""
    def ask():
        while not is_over.is_set() and not path.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
    is_over, asking = threading.Event(), threading.Thread(target=ask)
    with StopSignals():  # on a slow machine all may be over before it is asked to stop
        asking.start()
        done = run_script('compare', *argv)
        is_over.set()
        asking.join()
    return done


@pytest.mark.slow
def test_folds_of_a_comparison_that_is_stopped_and_goes_on(tiny_data, tmp_path, recipes, groups,
                                                           monkeypatch):
    # Runs in new interpreters are in the next test.
    monkeypatch.setattr(side_by_side, 'subprocess', Namespace(
        Popen=ForkedCommand, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT))
    folder = tmp_path / 'compared'

    def argv(*recipes):
        return flags(tiny_data, folder, recipes, '--folds', 2, '--groups', groups, '--n_epochs', 8,
                     '--n_jobs', 1)
    done = stopped(folder / 'slow' / 'fold_1_seed_1' / 'train.log', *argv(recipes[0]))
    assert done.returncode in (0, 128 + signal.SIGTERM), done.stdout + done.stderr
    assert '2 runs, 0 of them finished' in done.stdout
    done = run_script('compare', *argv(recipes[0]))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(folder)
    tested = []
    for fold in (1, 2):
        database = json.loads((folder / f'fold_{fold}.json').read_text())['database']
        assert len(database) == N_LABELLED
        assert {entry['subset'] for entry in database.values()} == {'training', 'testing'}
        tests = {name for name, entry in database.items() if entry['subset'] == 'testing'}
        recordings = {int(name[-1]) // 2 for name in tests}
        assert not recordings & {int(name[-1]) // 2 for name in database.keys() - tests}
        run = folder / 'slow' / f'fold_{fold}_seed_1'
        assert results_of(run).keys() == tests
        # No epoch can be chosen by what is tested: that is not even looked at in training.
        assert not (run / 'save_best.pth').exists()
        tested += tests
    assert len(tested) == len(set(tested)) == N_LABELLED
    stopped_run = folder / 'slow' / 'fold_1_seed_1'
    assert repeated(stopped_run, tmp_path / 'straight') == results_of(stopped_run)

    # What is finished is kept.
    times = {path: path.stat().st_mtime_ns for path in folder.rglob('*.pth')}
    done = run_script('compare', *argv(recipes[0]))
    assert done.returncode == 0 and '2 runs, 2 of them finished' in done.stdout
    assert all(path.stat().st_mtime_ns == old for path, old in times.items())
    assert rows_of(folder) == rows
    with Image.open(folder / 'comparison.png') as picture:
        assert min(picture.size) > 100
    summary, = json.loads((folder / 'comparison.json').read_text())
    assert (summary['recipe'], summary['n_runs'], summary['n_folds']) == ('slow', 2, 2)

    # Other flags are not taken for these.
    done = run_script('compare', *argv(*recipes), '--weight_decay', 0)
    assert done.returncode == 2 and 'holds a run with other words; give another' in done.stderr


@pytest.mark.slow
def test_a_run_that_reads_another_waits_for_it_and_a_failure_is_named(tiny_data, tmp_path):
    """Where it did not wait, it would fail as it finds no file."""
    folder = tmp_path / 'compared'
    texts = {'student': f'--pretrain_path {folder}/teacher/fold_{{fold}}_seed_{{seed}}/save_1.pth '
                        '--ft_begin_module layer9',
             # It is the run that is quiet, and not the comparison.
             'teacher': '--nesterov --quiet'}
    for name, text in texts.items():
        (tmp_path / f'{name}.txt').write_text(text)
    done = run_script('compare', *flags(tiny_data, folder,
                                        [tmp_path / f'{name}.txt' for name in texts]))
    assert done.returncode == 1
    first, last = (line for line in done.stdout.splitlines() if 'fold 1, seed 1: ' in line)
    assert first.startswith('teacher') and last.startswith(
        'student, fold 1, seed 1: ended with status 2: error: --ft_begin_module layer9'), last
    assert [row['recipe'] for row in rows_of(folder)] == ['teacher']
    # Without folds the annotation says itself what is tested: its test videos have no labels.
    assert len(results_of(folder / 'teacher' / 'fold_1_seed_1')) == len(CLASSES) * N_VAL


def test_a_recipe_without_some_of_its_lines(tmp_path):
    path = tmp_path / 'full.txt'
    path.write_text('--optimizer sgd --nesterov  # why\n--n_epochs 3\n')
    opts = Namespace(recipes=[str(path)], leave_out=['--nesterov', 'n_epochs'])
    assert read_recipes(opts) == {
        'full': ['--optimizer', 'sgd', '--nesterov', '--n_epochs', '3'],
        'full without nesterov': ['--n_epochs', '3'],
        'full without n_epochs': ['--optimizer', 'sgd', '--nesterov']}


def test_groups_that_cannot_be_compared(tiny_data, tmp_path, recipes):
    from util_scripts.compare import main
    videos = [f'{path.parent.name}/{path.name},x' for path in tiny_data.root.glob('jpg/*/*')]
    (tmp_path / 'g.csv').write_text('\n'.join(['path,group', *videos]))
    with pytest.raises(InputError, match='videos are all of one group.*: give smaller groups'):
        main(flags(tiny_data, tmp_path / 'c', recipes, '--folds', 2, '--groups',
                   tmp_path / 'g.csv'))


@pytest.mark.parametrize('text, more, sentence', [
    ('--lr_scheduler plateau', ['--folds', '2'],
     'recipe own: needs a validation, .*: add --val_fraction 0.2'),
    ('--lr_scheduler plateau', ['--folds', '2', '--no_val'], 'drop --no_val or use multistep'),
    ('--no_train', [], 'recipe own: --no_train is not for a comparison'),
    ('--multi_label', [], 'recipe own: --multi_label is not for a comparison'),
    ('--nesterov\n--tf32', ['--leave_out', 'nesterov'],
     'two with the folder own_without_nesterov')])
def test_recipes_that_cannot_be_compared(tiny_data, tmp_path, text, more, sentence):
    from util_scripts.compare import main
    own, other = tmp_path / 'own.txt', tmp_path / 'own_without_nesterov.txt'
    own.write_text(text)
    other.write_text('--tf32')
    with pytest.raises(InputError, match=sentence):
        main(flags(tiny_data, tmp_path / 'c', [own, other], *more))
    assert not list(tmp_path.glob('c/*/*'))


def test_a_recipe_that_is_not_there(tiny_data, tmp_path):
    from util_scripts.compare import main
    with pytest.raises(InputError, match='recipes/scrath.txt: no file of flags'):
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


@pytest.mark.slow
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
    assert '| b | 2 x 1 | 75.0 ± 7.1 | 75.0 | 65.0 ± 7.1 | 15.0 ± 5.0 | 2.0 |' in lines
    assert '| c | 1 x 1 | 10.0 | 10.0 | 10.0 | -60.0 | 2.0 |' in lines
    assert lines[-1] == 'written: ' + ', '.join(
        str(tmp_path / f'comparison.{suffix}') for suffix in ('csv', 'json', 'png'))
    assert json.loads((tmp_path / 'comparison.json').read_text())[2]['gain']['deviation'] is None
    assert len(rows_of(tmp_path)) == 5


def test_accuracy_of_all_folds_counts_videos_and_deviates_over_seeds():
    found = [Found('a', 1, 1, 0.5, 0.5, 30, 1.0), Found('a', 2, 1, 0.9, 0.9, 10, 1.0),
             Found('a', 1, 2, 0.7, 0.7, 30, 1.0), Found('a', 2, 2, 0.9, 0.9, 10, 1.0),
             Found('a', 1, 3, 0.1, 0.1, 30, 1.0)]  # the seed 3 is not done
    row, = summarise(found)
    assert row['all_folds'] == pytest.approx((0.675, 0.15 / math.sqrt(2)))


def test_gains_are_those_of_the_runs_that_both_have():
    found = [Found('a', 1, 1, 0.5, 0, 10, 1.0), Found('a', 2, 1, 0.5, 0, 10, 1.0),
             Found('b', 1, 1, 0.7, 0, 10, 1.0), Found('b', 2, 1, 0.6, 0, 10, 1.0),
             Found('b', 3, 1, 0.6, 0, 10, 1.0)]
    gain = summarise(found)[1]['gain']
    assert gain == pytest.approx((0.15, math.sqrt(0.005) / math.sqrt(2)))


def test_seeds_of_a_fold_are_no_more_folds():
    found = [Found(recipe, fold, seed, 0.5 + gain * (recipe == 'b'), 0, 10, 1.0)
             for recipe in 'ab' for fold, gain in ((1, 0.2), (2, 0.1)) for seed in (1, 2, 3)]
    assert summarise(found)[1]['gain'] == pytest.approx((0.15, math.sqrt(0.005) / math.sqrt(2)))
    gain = summarise([one for one in found if one.fold == 1])[1]['gain']
    assert gain == pytest.approx((0.2, 0))  # of one fold, over the seeds


def test_nothing_is_finished(tmp_path, capsys):
    report(tmp_path, [])
    assert capsys.readouterr().out == 'no run is finished\n' and not list(tmp_path.iterdir())
