"""How tests run commands in processes of their own: started fast, under any launcher, killed."""

import ctypes
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import weights

ROOT = Path(__file__).resolve().parent.parent
# No test fails because a machine is busy: waits end by an event, or after ten minutes by a failure.
LIMIT_SEC = 600


def wait_for(condition, process=None):
    """Wait until condition() is true; fails where it never is, or where the process ends before."""
    until = time.monotonic() + LIMIT_SEC
    while True:
        running = process is None or process.is_alive()
        if condition():
            return
        assert running and time.monotonic() < until, 'what was waited for has not come'
        time.sleep(0.01)


def _wait_for_pipes():
    """Let whoever reads a frame that is a pipe wait until that is filled, and have what is in it:
    a disk that does not answer. Without this, what is no file is refused."""
    opened = os.open

    def open_late(path, flags, *more, **options):
        if not (flags & os.O_NONBLOCK and Path(path).is_fifo()):
            return opened(path, flags, *more, **options)
        with tempfile.TemporaryFile() as file:
            file.write(Path(path).read_bytes())
            file.seek(0)
            return os.dup(file.fileno())
    os.open = open_late


def _write_to(output):
    """All that this process and its children say goes to a file from now on."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _run(argv, command, output, file_limit, variables, stdin, before):
    """The body of a process: a command with its output in a file."""
    import resource
    import signal
    _write_to(output)
    if before is not None:
        before()
    if stdin is not None:
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
    os.environ.update(variables, OMP_NUM_THREADS='1')
    tempfile.tempdir = None  # what the server of forks has found
    _wait_for_pipes()
    if file_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, highest = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, highest))
    import torch

    torch.set_num_threads(1)
    # Its loader processes are of the platform's kind, not forks of a server that has to start.
    multiprocessing.set_start_method(None, force=True)
    sys.argv[1:] = argv
    sys.modules.pop(command, None)  # or else runpy warns of it
    runpy.run_module(command, run_name='__main__', alter_sys=True)


def _run_elsewhere(code, folder, output):
    """The body of a process: code in another folder, for which ours is not there."""
    _write_to(output)
    os.chdir(folder)
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != ROOT]
    for name, module in [*sys.modules.items()]:
        file = getattr(module, '__file__', None)
        if file and ROOT in Path(file).parents and '.venv' not in Path(file).parts:
            del sys.modules[name]
    exec(code, {'__name__': '__main__'})


def _launch(argv, output):
    """The body of a process: torchrun with its output, and that of its processes, in a file."""
    _write_to(output)
    os.environ['OMP_NUM_THREADS'] = '1'
    from torch.distributed.run import main
    main(argv)


def _fork(body, *arguments):
    """Start a process forked from a server that has torch imported, so it begins at once."""
    process = multiprocessing.get_context('forkserver').Process(target=body, args=arguments)
    process.start()
    return process


def start_command(command, argv, output, file_limit=0, variables=None, stdin=None, before=None):
    """Start a command, `main` or such as `util_scripts.predict`, at once.

    file_limit: bytes that a file can have at most, 0 for any number: like a disk that is full
    variables:  of its environment, beside those there are
    stdin:      path of what it reads there, such as a FIFO; None for nothing
    before:     called first, with nothing
    """
    Path(output).touch()
    return _fork(_run, list(map(str, argv)), command, output, file_limit, variables or {}, stdin,
                 before)


def start_main(argv, output, **options):
    """`start_command` of main.py."""
    return start_command('main', argv, output, **options)


class ForkedCommand:
    """What subprocess.Popen is for `python main.py ...`, begun at once."""

    def __init__(self, words, *, stdin, stdout, stderr, env):
        assert Path(words[1]) == ROOT / 'main.py'
        self._process = start_main(words[2:], stdout.name, variables=env)

    def poll(self):
        return self._process.exitcode

    def send_signal(self, signum):
        os.kill(self._process.pid, signum)


def torchrun(n_processes, argv, output, *flags):
    """Start torchrun at once, which starts main.py in n new interpreters, as it always does."""
    flags = flags or ('--master_port', free_port())
    words = ['--nproc_per_node', n_processes, *flags, ROOT / 'main.py', *argv]
    return _fork(_launch, list(map(str, words)), output)


def run_elsewhere(code, folder):
    """Run Python code in another folder, in a process that cannot see ours but by its path: (exit
    status, all that it says)."""
    process = _fork(_run_elsewhere, code, folder, folder / 'output')
    process.join(LIMIT_SEC)
    return process.exitcode, (folder / 'output').read_text()


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def start_fresh(argv):
    """Start main.py in a new interpreter, which takes seconds; for what `start_main` is not."""
    return subprocess.Popen([sys.executable, 'main.py', *map(str, argv)], cwd=ROOT, text=True,
                            env={**os.environ, 'OMP_NUM_THREADS': '1'}, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


LAUNCHED = {
    'SLURM': {'SLURM_PROCID': 'rank', 'SLURM_LOCALID': 'rank', 'SLURM_STEP_NUM_TASKS': 'size',
              'SLURM_STEP_TASKS_PER_NODE': 'size'},
    'Open MPI': {'OMPI_COMM_WORLD_RANK': 'rank', 'OMPI_COMM_WORLD_LOCAL_RANK': 'rank',
                 'OMPI_COMM_WORLD_SIZE': 'size', 'OMPI_COMM_WORLD_LOCAL_SIZE': 'size'},
    'node': {'NODE_RANK': 'rank'},
}


def start_ranks(n_processes, argv, output, launcher='Open MPI'):
    """Start main.py n times by `start_main` as one run, with the variables that a launcher would
    set: a list of processes."""
    argv = [*argv, '--dist_url', f'tcp://127.0.0.1:{free_port()}']
    return [start_main(argv, output, variables={
        name: str({'rank': rank, 'size': n_processes}[what])
        for name, what in LAUNCHED[launcher].items()}) for rank in range(n_processes)]


def run_ranks(n_processes, argv, output, launcher='Open MPI'):
    """The same to their end: (a list of exit statuses, all that they say)."""
    processes = start_ranks(n_processes, argv, output, launcher)
    for process in processes:
        process.join(LIMIT_SEC)
    return [process.exitcode for process in processes], output.read_text()


def limit_open_files(n):
    """Have at most n files open in this process."""
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


def mount_shared_memory(options):
    """Give this process a /dev/shm of its own, mounted with these options; a user of any name may.
    """
    user, group, libc = os.getuid(), os.getgid(), ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x10020000) == 0, os.strerror(ctypes.get_errno())  # NEWUSER and NEWNS
    for name, text in (('setgroups', 'deny'), ('uid_map', f'0 {user} 1'),
                       ('gid_map', f'0 {group} 1')):
        Path('/proc/self', name).write_text(text)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', '/dev/shm'], check=True)


def finish(process, timeout_sec=LIMIT_SEC):
    """(exit status, stdout, stderr) of a process; killed where it does not end in time."""
    try:
        stdout, stderr = process.communicate(timeout=timeout_sec)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, stdout, stderr


def same_state(a, b):
    """Whether two training states are equal to the bit."""
    import torch
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_state, a, b))
    return a == b


def assert_same_training(folder, other, epoch):
    """Equal checkpoints of an epoch and equal logs in two result folders."""
    name = f'save_{epoch}.pth'
    assert same_state(weights.load(folder / name), weights.load(other / name))
    for name in ('train.log', 'train_batch.log', 'val.log'):
        assert (folder / name).read_text() == (other / name).read_text(), name
