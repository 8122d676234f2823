"""A run that is stopped, killed or out of disk, and goes on: it ends as if nothing had happened."""

import gzip
import json
import os
import random
import shlex
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import weights
from runtime.errors import StopSignals
from tests.processes import (LIMIT_SEC, assert_same_training, finish, same_state, start_fresh,
                             start_main, wait_for)
from tests.tiny_data import run_main

pytestmark = pytest.mark.slow

N_EPOCHS = 5


def argv(data, folder, *more):
    return data.argv(folder, '--n_epochs', N_EPOCHS, '--batch_size', 2, '--resume_path', 'auto',
                     *more)


@pytest.fixture(scope='module')
def whole(tiny_data, tmp_path_factory):
    """Result folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp('whole')
    process = start_main(argv(tiny_data, folder), folder / 'output')
    process.join()
    assert process.exitcode == 0, (folder / 'output').read_text()
    return folder


def _run_until(process, path):
    wait_for(path.exists, process)


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_stopped_run_ends_like_one_that_was_not(tiny_data, tmp_path, whole, signum):
    process = start_main(argv(tiny_data, tmp_path), tmp_path / 'output')
    _run_until(process, tmp_path / 'save_1.pth')
    os.kill(process.pid, signum)
    process.join(LIMIT_SEC)
    assert process.exitcode == 128 + signum
    assert f'stopped by {signum.name}; go on with --resume_path auto' in (
        tmp_path / 'output').read_text()
    position = weights.load(tmp_path / 'save_last.pth')['position']
    print('stopped at', position)
    begun, = (line for line in (tmp_path / 'output').read_text().splitlines()
              if line.startswith(f'{signum.name}: '))
    assert 'save_last.pth is written; a second one ends the run at once' in begun
    process = start_main(argv(tiny_data, tmp_path), tmp_path / 'output')
    process.join()
    assert process.exitcode == 0, (tmp_path / 'output').read_text()
    assert_same_training(tmp_path, whole, N_EPOCHS)


def _traced_steps(folder):
    """Numbers of the steps in a trace."""
    with gzip.open(folder / 'steps.pt.trace.json.gz') as file:
        names = [str(event.get('name')) for event in json.load(file)['traceEvents']]
    return sorted({int(name.split('#')[1]) for name in names if name.startswith('ProfilerStep#')})


def test_a_stopped_run_writes_its_trace(tiny_data, tmp_path):
    process = start_main(argv(tiny_data, tmp_path, '--n_epochs', 1000, '--profile', 10_000),
                         tmp_path / 'output')
    _run_until(process, tmp_path / 'save_2.pth')
    os.kill(process.pid, signal.SIGTERM)
    process.join(LIMIT_SEC)
    assert process.exitcode == 128 + signal.SIGTERM
    assert (tmp_path / 'output').read_text().splitlines()[-1].startswith('stopped by ')
    assert len(_traced_steps(tmp_path)) >= 8


def test_a_run_that_fails_writes_its_trace(own_data, tmp_path):
    """It meets the broken frame in its first validation; it ends as a process of its own does."""
    own_data.frame('red_4').write_bytes(b'')
    status, _, stderr = finish(start_fresh(argv(own_data, tmp_path, '--profile', 100)))
    assert status == 2 and stderr.splitlines()[-1].startswith('error: '), stderr
    assert len(_traced_steps(tmp_path)) >= 2


@pytest.mark.skipif(torch.cuda.is_available(), reason='what is said of GPUs stays')
def test_the_profiler_says_nothing_of_gpus_that_are_not_there(tiny_data, tmp_path):
    process = start_main(argv(tiny_data, tmp_path, '--n_epochs', 1, '--profile', 2),
                         tmp_path / 'output')
    process.join(LIMIT_SEC)
    assert process.exitcode == 0 and len(_traced_steps(tmp_path)) == 2
    output = (tmp_path / 'output').read_text()
    assert 'ERROR' not in output and 'USDT' not in output, output


def test_a_second_request_ends_at_once(own_data, tmp_path):
    """Before the first step is done, which a frame that is a pipe nobody fills prevents."""
    frame = own_data.frame()
    frame.unlink()
    os.mkfifo(frame)
    process = start_main(argv(own_data, tmp_path, '--no-check_paths', '--train_t_crop', 'center',
                              '--sample_duration', 40, '--batch_size', 12), tmp_path / 'output')
    _run_until(process, tmp_path / 'train.log')
    os.kill(process.pid, signal.SIGTERM)
    wait_for(lambda: 'SIGTERM: ' in (tmp_path / 'output').read_text(), process)
    time.sleep(StopSignals.ECHO_SEC + 0.5)  # one that comes sooner is taken for an echo
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(LIMIT_SEC)
    assert process.exitcode == 128 + signal.SIGTERM


def _descendants(pid):
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return children + [pid for child in children for pid in _descendants(child)]


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='reads /proc')
def test_a_loader_process_that_is_killed_is_named(tiny_data, tmp_path):
    process = start_main(argv(tiny_data, tmp_path, '--n_epochs', 1000, '--n_threads', 2),
                         tmp_path / 'output')
    _run_until(process, tmp_path / 'save_1.pth')
    loader_process = next(pid for pid in _descendants(process.pid)
                          if 'libtorch' in Path(f'/proc/{pid}/maps').read_text())
    os.kill(int(loader_process), signal.SIGKILL)
    process.join(LIMIT_SEC)
    line = (tmp_path / 'output').read_text().splitlines()[-1]
    assert process.exitcode == 2 and line.startswith('error: a loader process '), line
    assert '--n_threads' in line


def test_killed_at_random_moments(tiny_data, tmp_path, whole, pytestconfig):
    """Each time the newest good checkpoint loads, and no half-written file has a final name."""
    n_kills, seed = pytestconfig.getoption('kills'), time.time_ns() % 10_000
    rng = random.Random(seed)
    print(f'{n_kills} kills, seed {seed}')
    n_killed, n_rounds, saved, longest_sec = 0, 0, set(), 0.8
    while n_killed < n_kills or not saved:
        n_rounds += 1
        folder = tmp_path / str(n_rounds)
        folder.mkdir()
        command = argv(tiny_data, folder, '--checkpoint_minutes', 1e-6)
        process = None
        while process is None or process.exitcode:
            assert process is None or process.exitcode == -signal.SIGKILL
            process = start_main(command, tmp_path / 'output')
            process.join(None if n_killed >= n_kills and saved else rng.uniform(0.05, longest_sec))
            process.kill()
            process.join()
            n_killed += process.exitcode == -signal.SIGKILL
            states = [weights.load(path) for path in folder.glob('save_*.pth')]
            saved |= {(state['epoch'], state['position']['batch']) for state in states
                      if 'position' in state}
            if not saved:  # a busy machine takes longer to come so far
                longest_sec *= 1.2
        assert_same_training(folder, whole, N_EPOCHS)
    print(f'{n_killed} kills in {n_rounds} trainings; saved at {sorted(saved)}')


def test_ten_interruptions_leave_exact_rows(tiny_data, tmp_path, whole, seed):
    """Of any kind, at random moments, each followed by the same command; in as many trainings as
    that takes."""
    rng, moments = random.Random(seed), []
    while len(moments) < 10:
        folder, status = tmp_path / f'after_{len(moments)}', None
        folder.mkdir()
        command = argv(tiny_data, folder, '--checkpoint_minutes', 1e-6)
        while status != 0:
            process = start_main(command, tmp_path / 'output')
            signum = _interrupt(process, folder / 'train_batch.log', rng, len(moments) < 10)
            process.join(LIMIT_SEC)
            status = process.exitcode
            # The signal itself ends a process that has just begun; one may have come to its end.
            assert status in (-signum, 128 + signum, 0), (tmp_path / 'output').read_text()
            moments += [(signum, _n_rows(folder / 'train_batch.log'))] * (status != 0)
        assert_same_training(folder, whole, N_EPOCHS)
    print(moments)


def _interrupt(process, log, rng, is_wanted):
    """Send a signal at a random moment of a training, or none; its number."""
    if not is_wanted:
        return 0
    n_rows, n_more = _n_rows(log), rng.randint(0, 2)
    if n_more:
        wait_for(lambda: process.exitcode is not None or _n_rows(log) >= n_rows + n_more)
    time.sleep(rng.uniform(0, 0.05 if n_more else 0.5))
    signum = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    with suppress(ProcessLookupError):
        os.kill(process.pid, signum)
    return signum


def _n_rows(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_broken_newest_checkpoint_is_passed_over(tiny_data, tmp_path, whole):
    process = start_main(argv(tiny_data, tmp_path, '--n_epochs', 3), tmp_path / 'output')
    process.join()
    newest = tmp_path / 'save_3.pth'
    newest.write_bytes(newest.read_bytes()[:5000])
    process = start_main(argv(tiny_data, tmp_path), tmp_path / 'output')
    process.join()
    assert process.exitcode == 0
    assert_same_training(tmp_path, whole, N_EPOCHS)


def test_a_full_disk_while_saving(tiny_data, tmp_path):
    process = start_main(argv(tiny_data, tmp_path, '--n_epochs', 2), tmp_path / 'output',
                         file_limit=100_000)
    process.join()
    output = (tmp_path / 'output').read_text()
    assert process.exitcode == 1, output
    assert output.count('cannot be written') >= 2 and 'the run goes on' in output
    assert 'epoch 2/2' in output and 'Traceback' not in output
    assert not list(tmp_path.glob('*.pth')) and not list(tmp_path.glob('.save*'))
    process = start_main(argv(tiny_data, tmp_path, '--n_epochs', 2), tmp_path / 'output')
    process.join()
    assert process.exitcode == 0 and (tmp_path / 'save_2.pth').exists()


def test_a_disk_too_full_to_keep_a_copy(tiny_data, tmp_path):
    """That of an opts.json of other flags, before a training goes on with these."""
    for more, limit, status in (('--n_epochs', 1), 0, 0), (('--n_epochs', 2), 1000, 2):
        output = tmp_path / f'output_{status}'
        process = start_main(argv(tiny_data, tmp_path, *more), output, file_limit=limit)
        process.join(LIMIT_SEC)
        assert process.exitcode == status, output.read_text()
    assert output.read_text().splitlines()[-1].startswith(
        f'error: {tmp_path / "opts.1.json"}: cannot be written: File too large; ')
    assert not (tmp_path / 'opts.1.json').exists()


def test_loader_processes_change_nothing(tiny_data, tmp_path, whole):
    process = start_main(argv(tiny_data, tmp_path, '--n_threads', 3), tmp_path / 'output')
    process.join()
    assert process.exitcode == 0
    assert_same_training(tmp_path, whole, N_EPOCHS)


@pytest.mark.parametrize('epoch', range(1, N_EPOCHS))
def test_resumed_at_every_epoch(tiny_data, tmp_path, whole, epoch):
    """In one process each: the weights that were saved go on to the same end."""
    process = start_main([*argv(tiny_data, tmp_path), '--resume_path', whole / f'save_{epoch}.pth'],
                         tmp_path / 'output')
    process.join()
    assert process.exitcode == 0
    name = f'save_{N_EPOCHS}.pth'
    assert same_state(weights.load(tmp_path / name), weights.load(whole / name))


def test_the_advice_after_a_stop_is_the_whole_command(tiny_data, tmp_path):
    """Of a fine-tuning too: where there is a checkpoint, its weights count."""
    assert run_main(tiny_data.argv(tmp_path / 'first', '--n_epochs', 1, '--no_val')) == 0
    tuned = tmp_path / 'two words'
    process = start_main(
        tiny_data.argv(tuned, '--n_epochs', 1000, '--no_val', '--pretrain_path',
                       tmp_path / 'first/save_1.pth'), tmp_path / 'output')
    _run_until(process, tuned / 'save_1.pth')
    os.kill(process.pid, signal.SIGINT)
    process.join(LIMIT_SEC)
    advice = (tmp_path / 'output').read_text().splitlines()[-1]
    assert advice.startswith('stopped by SIGINT; go on with --resume_path auto: ')
    _, script, *command = shlex.split(advice.split('auto: ', 1)[1])
    assert Path(script).samefile('main.py')
    epoch = weights.load(tuned / 'save_last.pth')['position']['epoch']
    for n_epochs in (epoch, epoch + 1):
        assert run_main([*command, '--n_epochs', n_epochs]) == 0
    rows = (tuned / 'train.log').read_text().splitlines()[1:]
    assert [row.split('\t')[0] for row in rows] == [str(i) for i in range(1, epoch + 2)]


def test_auto_and_pretrained_weights(tiny_data, tmp_path, whole, capsys):
    """The same command begins from these and then goes on."""
    command = argv(tiny_data, tmp_path, '--no_val', '--pretrain_path', whole / 'save_1.pth',
                   '--ft_begin_module', 'fc')
    assert run_main([*command, '--n_epochs', 1]) == 0
    assert 'a new training begins' in capsys.readouterr().out
    before, after = (weights.load(path)['state_dict']['conv1.weight'] for path in
                     (whole / 'save_1.pth', tmp_path / 'save_1.pth'))
    assert torch.equal(before, after)
    assert run_main([*command, '--n_epochs', 2]) == 0
    assert str(tmp_path / 'save_1.pth') in capsys.readouterr().out
    assert (tmp_path / 'train.log').read_text().splitlines()[-1].startswith('2\t')


def test_auto_begins_where_there_is_nothing(tiny_data, tmp_path, capsys):
    assert run_main(argv(tiny_data, tmp_path, '--n_epochs', 1)) == 0
    assert 'no checkpoint yet' in capsys.readouterr().out


# ---------------------------------------------------------------- what is kept

def test_keep_the_newest(tiny_data, tmp_path):
    assert run_main(argv(tiny_data, tmp_path, '--keep', 2)) == 0
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == [
        'save_4.pth', 'save_5.pth', 'save_best.pth']


def test_best_by_video_top1(tiny_data, tmp_path):
    assert run_main(argv(tiny_data, tmp_path)) == 0
    rows = [line.split('\t') for line in (tmp_path / 'val.log').read_text().splitlines()]
    column = rows[0].index('video_top1')
    accuracies = [float(row[column]) for row in rows[1:]]
    best = weights.load(tmp_path / 'save_best.pth')
    assert best['epoch'] == accuracies.index(max(accuracies)) + 1


# ---------------------------------------------------------------- losses that are no numbers

def test_a_loss_that_is_not_finite_stops_the_run(tiny_data, tmp_path, capsys):
    command = argv(tiny_data, tmp_path, '--learning_rate', 1e30)
    assert run_main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'not finite at epoch 1, batch' in error
    assert any(f'{name}_{i}' in error for name in ('red', 'green', 'blue') for i in range(4))
    assert '--learning_rate' in error and '--skip_nonfinite' in error


def test_skipping_what_is_not_finite(tiny_data, tmp_path, capsys):
    command = argv(tiny_data, tmp_path, '--learning_rate', 1e30, '--skip_nonfinite', '--n_epochs',
                   1, '--no_val')
    assert run_main(command) == 0
    assert 'steps skipped' in capsys.readouterr().out
