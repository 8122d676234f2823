"""Distributed runs: rank and world size, collective operations, heartbeat and watchdog."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import urlparse

import torch
import torch.distributed as dist
from torch import nn

from runtime.errors import InputError, Stopped, StopSignals, first_line
from runtime.output import to_stderr
from runtime.schema import whole_number

# How often a process sends its heartbeat, and after what silence the others give up.
HEARTBEAT_SEC = 2.0
SILENCE_SEC = 30.0
# The same once a connection broke, which a dead process explains.
BROKEN_SILENCE_SEC = 8.0
# Of collective operations; the watchdog notices silence earlier.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)
# What errors say when the other end of a connection is gone.
LOST_CONNECTION = ('onnection', 'peer', 'gloo', 'NCCL', 'Broken pipe', 'store')
# The environment variable that names the launcher of processes that main.py starts itself.
LAUNCHER_VARIABLE = 'R3D_STARTED_BY'

Value = TypeVar('Value')


@dataclass(frozen=True)
class World:
    """This process among all: rank and world size, local rank and local size on its node.

    launcher: in words
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = 'one process'

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def n_nodes(self) -> int:
        return -(-self.size // self.local_size)

    def __str__(self) -> str:
        nodes = f' on {self.n_nodes} nodes' if self.n_nodes > 1 else ''
        return f'{self.size} processes{nodes}, started by {self.launcher}'


# The environment variables in which launchers say rank, world size, local rank and local size.
LAUNCHERS = {
    'torchrun': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE'),
    'SLURM': ('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS', 'SLURM_LOCALID',
              'SLURM_STEP_TASKS_PER_NODE'),
    'Open MPI': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK',
                 'OMPI_COMM_WORLD_LOCAL_SIZE'),
}


def find_world(environment: Mapping[str, str]) -> World:
    """World from the variables of torchrun, SLURM (srun) or Open MPI (mpirun); else one process.

    Raises InputError for variables that contradict each other.
    """
    for launcher, names in LAUNCHERS.items():
        if not all(name in environment for name in names[:3]):
            continue
        # SLURM writes tasks per node as 4(x2),3
        texts = [environment.get(name, '1').split('(')[0].split(',')[0] for name in names]
        try:
            rank, size, local_rank, local_size = map(int, texts)
            world = World(rank, size, local_rank, local_size,
                          environment.get(LAUNCHER_VARIABLE, launcher))
        except ValueError:
            raise InputError(f'{launcher} set {", ".join(names)} to {", ".join(texts)}: not all '
                             'are numbers; start main.py with torchrun') from None
        if not 0 <= world.rank < world.size or world.local_size < 1:
            raise InputError(f'{launcher} says rank {world.rank} of {world.size}: ranks go from 0 '
                             f'to {world.size - 1}; start main.py with torchrun')
        if world.size > 1:
            return world
    return World()


def rendezvous_address(world: World, environment: Mapping[str, str], dist_url: str) -> str:
    """tcp:// address of the rendezvous, on rank 0's node, that all processes agree on.

    MASTER_ADDR and MASTER_PORT come first, then SLURM's launch node, then --dist_url. Raises
    InputError for a --dist_url that is none.
    """
    host, port = _host_and_port(dist_url)
    if world.launcher == 'SLURM' and 'SLURM_LAUNCH_NODE_IPADDR' in environment:
        host = environment['SLURM_LAUNCH_NODE_IPADDR']
    host = environment.get('MASTER_ADDR', host)
    return f'tcp://{host}:{environment.get("MASTER_PORT", port)}'


def _host_and_port(dist_url: str) -> tuple[str, int]:
    """Those of tcp://HOST:PORT. Raises InputError."""
    try:
        url = urlparse(dist_url)
        if url.scheme == 'tcp' and url.hostname and url.port:
            return url.hostname, url.port
    except ValueError:  # of a port that is no number, or too large, or brackets in the name
        pass
    raise InputError(f'--dist_url {dist_url}: not tcp://HOST:PORT; give one, such as '
                     'tcp://127.0.0.1:23456')


@contextlib.contextmanager
def joined(world: World, device: torch.device, dist_url: str) -> Iterator[None]:
    """Within it the processes are a process group of torch: NCCL on GPUs, gloo on the CPU.

    A process that fails inside takes the others down, and one that loses another names it.
    Raises InputError where the rendezvous fails.
    """
    if world.size == 1:
        yield
        return
    heartbeat = Heartbeat(world, _rendezvous(world, device, dist_url))
    try:
        yield
        dist.barrier()
    except RuntimeError as error:
        if any(word in str(error) for word in LOST_CONNECTION):
            heartbeat.name_the_lost()
        heartbeat.stop('failed')
        raise
    except InputError as error:
        is_said = heartbeat.was_said(str(error))
        heartbeat.stop('failed')
        if is_said:
            sys.exit(2)
        raise
    except Stopped:
        heartbeat.stop('left')
        raise
    except BaseException:
        heartbeat.stop('failed')
        raise
    heartbeat.stop('left')
    dist.destroy_process_group()


def _rendezvous(world: World, device: torch.device, dist_url: str) -> dist.Store:
    """Form the process group; the store that all processes share. Raises InputError."""
    has_environment = world.launcher in ('torchrun', '--distributed')
    address = 'env://' if has_environment else rendezvous_address(world, os.environ, dist_url)
    try:
        store, _, _ = next(dist.rendezvous(address, world.rank, world.size,
                                           timeout=RENDEZVOUS_TIMEOUT))
        # torchrun may keep its store when it starts all anew: what was said before is void.
        store = dist.PrefixStore(os.environ.get('TORCHELASTIC_RESTART_COUNT', '0'), store)
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo', store=store,
                                rank=world.rank, world_size=world.size, timeout=COLLECTIVE_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise InputError(f'rank {world.rank} cannot meet the others at {address} '
                         f'({first_line(error)}); check the address and that all '
                         f'{world.size} processes run') from None
    return store


class Heartbeat:
    """Sends this process's heartbeat through the store, and is the watchdog of the others.

    When one has failed or was silent for SILENCE_SEC, this process names it and ends with status
    1: a step that waits for a dead process would wait for ever. Both run in threads.
    """

    def __init__(self, world: World, store: dist.Store) -> None:
        self._world, self._store = world, store
        self._stopped = threading.Event()
        self._patience_sec = SILENCE_SEC
        now = time.monotonic()
        self._reached = now  # when the store last answered
        self._seen = {rank: now for rank in range(world.size) if rank != world.rank}
        # The store may never answer, and so needs to be watched from another thread.
        self._threads = [threading.Thread(target=target, daemon=True)
                         for target in (self._exchange, self._watch)]
        for thread in self._threads:
            thread.start()

    def stop(self, how: str) -> None:
        """Tell the others that this process has 'left' in good order, or 'failed'."""
        self._stopped.set()
        self._threads[0].join(2 * HEARTBEAT_SEC)
        if not self._threads[0].is_alive():
            with contextlib.suppress(Exception):
                self._store.set(self._key(self._world.rank), how)

    def was_said(self, text: str) -> bool:
        """True if another process said the same before: what all find wrong is said once."""
        key = 'said/' + hashlib.sha1(text.encode()).hexdigest()
        try:
            was_said = self._store.add(key, 1) > 1
            # The store may end with this process, and the others are to ask it first.
            until = time.monotonic() + 2 * HEARTBEAT_SEC * self._world.is_main
            while self._store.add(key, 0) < self._world.size and time.monotonic() < until:
                time.sleep(0.05)
            return was_said
        except RuntimeError:
            return False

    def name_the_lost(self) -> None:
        """Called when a connection broke: let the threads say soon who is gone, if one is."""
        self._patience_sec = BROKEN_SILENCE_SEC
        self._stopped.wait(2 * BROKEN_SILENCE_SEC)

    @staticmethod
    def _key(rank: int) -> str:
        return f'heartbeat/{rank}'

    def _exchange(self) -> None:
        """Send heartbeats, and read those of the others."""
        n_sent = 0
        last: dict[int, bytes | None] = {}
        while not self._stopped.wait(HEARTBEAT_SEC):
            n_sent += 1
            # Without the store there is no answer, which _watch sees.
            with contextlib.suppress(Exception):
                self._store.set(self._key(self._world.rank), str(n_sent))
                for rank in self._seen:
                    heartbeat = self._read(rank)
                    if heartbeat == b'failed':
                        self._give_up(f'rank {rank} failed')
                    if heartbeat != last.get(rank) or heartbeat == b'left':
                        last[rank], self._seen[rank] = heartbeat, time.monotonic()
                self._reached = time.monotonic()

    def _read(self, rank: int) -> bytes | None:
        key = self._key(rank)
        return self._store.get(key) if self._store.check([key]) else None

    def _watch(self) -> None:
        """The watchdog: end this process once the store or another process was silent too long."""
        while not self._stopped.wait(HEARTBEAT_SEC / 2):
            now = time.monotonic()
            # First the store, without which nobody is heard.
            if now - self._reached > self._patience_sec:
                self._give_up('the process at the meeting point (rank 0, or its torchrun) has not '
                              f'answered for {self._patience_sec:.0f} seconds')
            for rank, seen in self._seen.items():
                if now - seen > self._patience_sec + HEARTBEAT_SEC:
                    self._give_up(f'rank {rank} has not answered for {now - seen:.0f} seconds')

    def _give_up(self, why: str) -> None:
        if not self._stopped.is_set():
            to_stderr(f'error: rank {self._world.rank}: {why}; this process ends too')
            os._exit(1)


# ---------------------------------------------------------------- collective operations

def total(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes; of a single process, the tensor itself."""
    if not dist.is_initialized():
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor


def all_rows(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, by rank, in every process; each may have another number or none.

    rows: (n, ...) tensor
    """
    if not dist.is_initialized():
        return rows
    n_rows = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(n_rows) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, n_rows)
    # What is exchanged has one shape in all processes.
    padded = rows.new_zeros(int(max(counts)), *rows.shape[1:])
    padded[:len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:int(n)] for part, n in zip(parts, counts)])


def gather(value: Value, world: World) -> list[Value] | None:
    """On rank 0 the values of all processes, by rank; elsewhere None. Any picklable value."""
    if world.size == 1:
        return [value]
    values: list[Any] | None = [None] * world.size if world.is_main else None
    dist.gather_object(value, values)
    return values


def from_main(value: Value, world: World) -> Value:
    """Rank 0's value, in every process."""
    values = [value]
    if world.size > 1:
        dist.broadcast_object_list(values)
    return values[0]


def share_buffers(network: nn.Module) -> None:
    """Give every process rank 0's buffers, such as the statistics of batch norm."""
    for buffer in network.buffers():
        dist.broadcast(buffer, 0)


def wait_for_all() -> None:
    """Return when all processes are here."""
    if dist.is_initialized():
        dist.barrier()


# ---------------------------------------------------------------- starting processes

def start_processes(argv: Sequence[str], environment: Mapping[str, str], *, world_size: int,
                    dist_url: str, no_cuda: bool) -> int:
    """Run `argv` as processes, one per GPU of this node (one without any); the exit status.

    There are --world_size nodes, whose rendezvous is at --dist_url. Which node this is says
    OMPI_COMM_WORLD_RANK (mpirun, one process per node), SLURM_NODEID or NODE_RANK; 0 without. When
    one process fails, it is named and the others are stopped.
    """
    n_local = max(1, torch.cuda.device_count() if not no_cuda else 0)
    n_nodes = max(1, world_size)
    names = ('OMPI_COMM_WORLD_RANK', 'SLURM_NODEID', 'NODE_RANK')
    name, text = next(((name, environment[name]) for name in names if name in environment),
                      ('', '0'))
    host, port = _host_and_port(dist_url)
    node = whole_number(text)
    if node is None:
        raise InputError(f'{name} is {text}: give the number of this node, from 0 to '
                         f'{n_nodes - 1}')
    if not node < n_nodes:
        raise InputError(f'this is node {node} and --world_size is {world_size}; give the '
                         'number of nodes')
    children = []
    for local_rank in range(n_local):
        variables = {'RANK': node * n_local + local_rank, 'WORLD_SIZE': n_nodes * n_local,
                     'LOCAL_RANK': local_rank, 'LOCAL_WORLD_SIZE': n_local,
                     'MASTER_ADDR': host, 'MASTER_PORT': port,
                     LAUNCHER_VARIABLE: '--distributed'}
        children.append(subprocess.Popen(argv, env={
            **environment, **{name: str(value) for name, value in variables.items()}}))
    return _wait_for(children, node * n_local)


def _wait_for(children: list[subprocess.Popen[bytes]], first_rank: int) -> int:
    """The exit status of the first process that fails, else 0; the others are stopped then.

    Requests to stop are passed on, and all of them end by themselves.
    """
    asked: list[int] = []

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        asked.append(signum)
        for child in children:
            if child.poll() is None:
                child.send_signal(signum)
    before = {number: signal.signal(number, pass_on) for number in StopSignals.SIGNALS}
    try:
        while any(child.poll() is None for child in children):
            for rank, child in enumerate(children, first_rank):
                if child.poll() and not asked:
                    to_stderr(f'error: rank {rank} ended with status {child.returncode}; the '
                              'others are stopped')
                    return child.returncode
            time.sleep(0.2)
        return max(child.returncode for child in children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in children:
            if child.poll() is None:
                child.terminate()
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(SILENCE_SEC)
            child.kill()
