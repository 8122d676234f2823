"""Worker processes: many jobs on all processors, and what becomes of one that dies."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

Job = TypeVar('Job')
Result = TypeVar('Result')


def end_on_sigterm() -> None:
    """SIGTERM ends this process as an exception does, so that it leaves nothing behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def n_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def run_jobs(function: Callable[[Job], Result], jobs: Iterable[Job], n_jobs: int,
             report: Callable[[Job, Result | None], None]) -> None:
    """Call report(job, function(job)) for each job, in `n_jobs` processes, as they finish.

    A job whose process dies, of a decoder's crash or for want of memory, is reported with None.
    Whatever is raised, Ctrl-C included, stops the processes at once and is passed on.
    """
    if n_jobs == 1:
        for job in jobs:
            report(job, function(job))
        return
    waiting = deque(jobs)
    while waiting:
        # All that a broken pool had under way is suspect: one process per job shows which it was.
        for suspect in _run_pool(function, waiting, n_jobs, report):
            for guilty in _run_pool(function, deque([suspect]), 1, report):
                report(guilty, None)


def _run_pool(function: Callable[[Job], Result], waiting: deque[Job], n_jobs: int,
              report: Callable[[Job, Result | None], None]) -> list[Job]:
    """Work off the deque `waiting`; return the jobs under way when a process died, or none."""
    earlier = {child.pid for child in multiprocessing.active_children()}
    # Spawned, since threads of the caller do not survive a fork.
    executor = ProcessPoolExecutor(min(n_jobs, len(waiting)), initializer=_prepare_worker,
                                   mp_context=multiprocessing.get_context('spawn'))
    running: dict[Future[Result], Job] = {}
    is_broken = False
    try:
        while (waiting or running) and not is_broken:
            with _processes_deaf_to_ctrl_c():
                while waiting and len(running) < 2 * n_jobs:
                    future = executor.submit(function, waiting[0])
                    running[future] = waiting.popleft()
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    is_broken = True
                else:
                    report(running.pop(future), future.result())
    except BrokenProcessPool:  # raised by submit
        pass
    except BaseException:
        for child in multiprocessing.active_children():
            if child.pid not in earlier:
                child.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    return list(running.values())


@contextmanager
def _processes_deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started within it are born with SIGINT blocked: it reaches the whole group
    of processes, and the parent alone answers it. Its own comes a moment later."""
    resource_tracker.ensure_running()  # where it has to be started, that unblocks the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)
    threading.Thread(target=end_with_parent, daemon=True).start()
