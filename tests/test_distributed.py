"""Several processes: the same numbers as one, whoever started them, and an end when one dies."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

import weights
from runtime.distributed import World, find_world, rendezvous_address
from runtime.errors import InputError
from tests.processes import LIMIT_SEC, free_port, run_ranks, start_ranks, torchrun, wait_for
from tests.tiny_data import run_main

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def trained(tiny_data, tmp_path_factory):
    """A checkpoint of one process, and what it evaluates to there."""
    folder = tmp_path_factory.mktemp('one')
    assert run_main(argv(tiny_data, folder, '--n_epochs', 1)) == 0
    assert run_main(argv(tiny_data, folder, *EVALUATION, folder / 'save_1.pth')) == 0
    return folder


# Two batches of validation and one part of inference: of three processes one or two have none.
EVALUATION = ('--no_train', '--inference', '--inference_stride', 4, '--batch_size', 12,
              '--resume_path')


def argv(data, folder, *more):
    # Clips large enough that a batch of one leaves batch norm several values.
    return data.argv(folder, '--sample_size', 48, *more)


# ---------------------------------------------------------------- who am I

@pytest.mark.parametrize('variables, world', [
    ({}, World()),
    ({'RANK': '3', 'WORLD_SIZE': '8', 'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '2'},
     World(3, 8, 1, 2, 'torchrun')),
    ({'SLURM_PROCID': '5', 'SLURM_STEP_NUM_TASKS': '6', 'SLURM_LOCALID': '1',
      'SLURM_STEP_TASKS_PER_NODE': '4(x1),2'}, World(5, 6, 1, 4, 'SLURM')),
    # A batch script, before srun: one process.
    ({'SLURM_PROCID': '0', 'SLURM_NTASKS': '8', 'SLURM_LOCALID': '0'}, World()),
    ({'OMPI_COMM_WORLD_RANK': '1', 'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_LOCAL_RANK': '1',
      'OMPI_COMM_WORLD_LOCAL_SIZE': '4'}, World(1, 4, 1, 4, 'Open MPI')),
])
def test_world_of_each_launcher(variables, world):
    assert find_world(variables) == world


@pytest.mark.parametrize('variables', [
    {'RANK': '2', 'WORLD_SIZE': '2', 'LOCAL_RANK': '0'},
    {'RANK': 'x', 'WORLD_SIZE': '2', 'LOCAL_RANK': '0'}])
def test_variables_that_cannot_be(variables):
    with pytest.raises(InputError, match='torchrun'):
        find_world(variables)


def test_rendezvous_address():
    world = World(0, 2, 0, 1, 'SLURM')
    assert rendezvous_address(world, {}, 'tcp://a:1') == 'tcp://a:1'
    node = {'SLURM_LAUNCH_NODE_IPADDR': '10.0.0.7'}
    assert rendezvous_address(world, node, 'tcp://a:1') == 'tcp://10.0.0.7:1'
    assert rendezvous_address(world, {**node, 'MASTER_ADDR': 'b', 'MASTER_PORT': '2'},
                              'tcp://a:1') == 'tcp://b:2'
    for wrong in ('localhost', 'tcp://[', 'tcp://a:x'):
        with pytest.raises(InputError, match='dist_url'):
            rendezvous_address(world, {}, wrong)


# ---------------------------------------------------------------- the same numbers

def test_evaluation_is_that_of_one_process(tiny_data, trained, tmp_path):
    command = argv(tiny_data, tmp_path, *EVALUATION, trained / 'save_1.pth')
    status, said = run_ranks(3, command, tmp_path / 'output')
    assert status == [0, 0, 0], said
    assert '3 processes, started by Open MPI; batches of about 4 clips a process, 12' in said
    assert said.count('results of 6 videos') == 1
    assert (tmp_path / 'val.json').read_text() == (trained / 'val.json').read_text()
    # Clips in other batches may be rounded otherwise in their last bit.
    rows = [[float(value) for value in (folder / 'val.log').read_text().splitlines()[-1].split()]
            for folder in (tmp_path, trained)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)


def test_training_steps_are_those_of_one_process(tiny_data, trained, tmp_path):
    """With batch norm frozen, which several processes do each for itself, the weights agree."""
    folders = {n: tmp_path / str(n) for n in (1, 3)}
    commands = {n: argv(tiny_data, folder, '--n_epochs', 2, '--pretrain_path',
                        trained / 'save_1.pth', '--ft_begin_module', 'fc', '--batch_size', 5)
                for n, folder in folders.items()}
    assert run_main(commands[1]) == 0
    status, said = run_ranks(3, commands[3], tmp_path / 'output')
    assert status == [0, 0, 0], said
    one, three = (weights.load(folders[n] / 'save_2.pth')['state_dict'] for n in (1, 3))
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, rtol=1e-4, atol=1e-6)
    rows = [(folders[n] / 'train_batch.log').read_text().splitlines() for n in (1, 3)]
    for one, three in zip(*rows, strict=True):
        assert one.split('\t')[:3] == three.split('\t')[:3]
        if one[0].isdigit():
            assert float(one.split('\t')[3]) == pytest.approx(float(three.split('\t')[3]), rel=1e-4)


# ---------------------------------------------------------------- who starts them

@pytest.mark.parametrize('launcher', ['SLURM', 'Open MPI'])
def test_other_launchers(tiny_data, trained, tmp_path, launcher):
    """--distributed, which starts processes itself, is tried in test_processes.py."""
    command = argv(tiny_data, tmp_path, *EVALUATION, trained / 'save_1.pth', '--no_val')
    status, said = run_ranks(2, command, tmp_path / 'output', launcher)
    assert status == [0, 0], said
    assert f'2 processes, started by {launcher}' in said
    assert (tmp_path / 'val.json').read_text() == (trained / 'val.json').read_text()


def test_two_nodes(tiny_data, trained, tmp_path):
    """Two agents of torchrun that meet on loopback, one process each."""
    command = argv(tiny_data, tmp_path, *EVALUATION, trained / 'save_1.pth', '--no_val')
    flags = ('--nnodes', 2, '--rdzv_backend', 'c10d', '--rdzv_id', 'test', '--rdzv_endpoint',
             f'127.0.0.1:{free_port()}')
    agents = [torchrun(1, command, tmp_path / 'output', *flags) for _ in range(2)]
    for agent in agents:
        agent.join(LIMIT_SEC)
    said = (tmp_path / 'output').read_text()
    assert [agent.exitcode for agent in agents] == [0, 0], said
    assert '2 processes on 2 nodes' in said
    assert (tmp_path / 'val.json').read_text() == (trained / 'val.json').read_text()


# ---------------------------------------------------------------- when one dies

def test_a_dead_rank_takes_the_run_down_and_is_named(tiny_data, tmp_path):
    command = argv(tiny_data, tmp_path, '--n_epochs', 10_000, '--checkpoint', 10_000)
    survivor, victim = start_ranks(2, command, tmp_path / 'output')
    _wait_for_rows(tmp_path / 'train.log', 2)
    victim.kill()
    survivor.join(LIMIT_SEC)
    assert survivor.exitcode == 1
    assert 'error: rank 0: rank 1 has not answered' in (tmp_path / 'output').read_text()


def _kill_a_child(pid):
    """Kill -9 the last process that a process started."""
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def _wait_for_rows(path, n):
    wait_for(lambda: path.exists() and len(path.read_text().splitlines()) >= n)


def test_torchrun_restarts_a_run_and_stops_it(tiny_data, tmp_path):
    """One process is killed: all begin again at the last checkpoint. SIGTERM to the agent, as SLURM
    sends it: all stop after the same step, one saves."""
    command = argv(tiny_data, tmp_path, '--n_epochs', 10_000, '--resume_path', 'auto')
    agent = torchrun(2, command, tmp_path / 'output', '--max_restarts', 1, '--master_port',
                     free_port())
    log = tmp_path / 'train.log'
    _wait_for_rows(log, 3)
    _kill_a_child(agent.pid)
    # One more at the most is that of the process that is left.
    _wait_for_rows(log, len(log.read_text().splitlines()) + 2)
    agent.terminate()
    agent.join(LIMIT_SEC)
    said = (tmp_path / 'output').read_text()
    assert '--resume_path auto: ' + str(tmp_path / 'save_') in said
    assert 'go on with --resume_path auto' in said
    position = weights.load(tmp_path / 'save_last.pth')['position']
    assert run_main([*command, '--n_epochs', position['epoch']]) == 0
    epochs = [line.split('\t')[0] for line in
              (tmp_path / 'train.log').read_text().splitlines()[1:]]
    assert epochs == [str(epoch) for epoch in range(1, position['epoch'] + 1)]


def test_both_stop_in_validation(own_data, tmp_path):
    """One is asked to before its last batch, which a frame that is a pipe keeps waiting, and the
    other while it waits for the counts of that."""
    frame = own_data.frame('red_5')
    image = frame.read_bytes()
    frame.unlink()
    os.mkfifo(frame)
    command = argv(own_data, tmp_path, '--no-check_paths', '--n_epochs', 1, '--n_threads', 0)
    ranks = start_ranks(2, command, tmp_path / 'output')
    with open(frame, 'wb') as pipe:  # once it is wanted
        time.sleep(1)  # the other is done by then
        frame.unlink()
        frame.write_bytes(image)  # for later clips
        for rank in ranks:
            os.kill(rank.pid, signal.SIGTERM)
        pipe.write(image)
    for rank in ranks:
        rank.join(LIMIT_SEC)
    said = (tmp_path / 'output').read_text()
    assert [rank.exitcode for rank in ranks] == [128 + signal.SIGTERM] * 2, said
    assert 'go on with --resume_path auto' in said and (tmp_path / 'save_last.pth').exists()


def test_error_of_one_rank_ends_all(own_data, tmp_path):
    own_data.frame('blue_3').write_bytes(b'')
    command = argv(own_data, tmp_path, '--train_t_crop', 'center', '--sample_duration', 40)
    status, said = run_ranks(2, command, tmp_path / 'output')
    assert sorted(status) in ([1, 2], [2, 2]), said
    assert 'blue_3/image_00001.jpg' in said


def test_what_all_find_wrong_is_said_once(tiny_data, tmp_path):
    """The others say it too where the first does not hear of them for seconds, as it may happen on
    a busy machine, but not each time."""
    command = argv(tiny_data, tmp_path, '--n_classes', 7)
    for attempt in range(5):
        status, said = run_ranks(2, command, tmp_path / f'output{attempt}')
        assert status == [2, 2], said
        if said.count('error:') == 1:
            return
    raise AssertionError(said)


def test_batchnorm_sync_needs_gpus(tiny_data, tmp_path, capsys):
    assert run_main(argv(tiny_data, tmp_path, '--batchnorm_sync')) == 2
    assert 'CPU' in capsys.readouterr().err
