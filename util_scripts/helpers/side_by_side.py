"""Commands run side by side, each as a process with its share of the processors."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from runtime.errors import Stopped, StopSignals
from runtime.logs import Progress
from runtime.output import note
from util_scripts.helpers.files import make_folder
from util_scripts.helpers.jobs import n_processors

# How often it is looked whether a command has ended.
POLL_SEC = 0.05
# Exit statuses of commands that were asked to stop, and did.
STOPPED = tuple(128 + number for number in StopSignals.SIGNALS)


class Job(NamedTuple):
    """A command: its name, its words, the file that its output is added to, and the names of those
    that must have ended well before it begins."""

    name: str
    command: tuple[str, ...]
    output: Path
    needs: frozenset[str] = frozenset()


class Running:
    """A job that has begun."""

    def __init__(self, job: Job, environment: dict[str, str]) -> None:
        make_folder(job.output.parent)
        with open(job.output, 'ab') as output:
            self.process = subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=output,
                                            stderr=subprocess.STDOUT, env=environment)
        self.job, self._begin, self._is_asked = job, time.monotonic(), False

    def minutes(self) -> float:
        return (time.monotonic() - self._begin) / 60

    def ask_to_stop(self) -> None:
        """Once: main.py takes a second request for one to end without saving."""
        if not self._is_asked:
            self.process.send_signal(signal.SIGTERM)
        self._is_asked = True

    def status(self) -> int | None:
        """As a shell has it; None while it runs."""
        status = self.process.poll()
        return status if status is None or status >= 0 else 128 - status


def run_side_by_side(jobs: Iterable[Job], n_jobs: int, on_begin: Callable[[Job], None],
                     on_end: Callable[[Job, int, float], str], max_minutes: float) -> bool:
    """Run the commands in their order, `n_jobs` at a time (0: one for each processor); returns True
    if some did not begin, or were stopped, for want of time.

    on_begin: called with the job before it begins
    on_end:   called with the job, its exit status and its minutes; the line that it returns is
              shown

    After `max_minutes` those that run are asked to stop; so they are at a request to stop, which
    then raises Stopped.
    """
    waiting, running, ended, is_cut = list(jobs), list[Running](), set[str](), False
    n_jobs = min(n_jobs or n_processors(), max(1, len(waiting)))
    environment = {'OMP_NUM_THREADS': str(max(1, n_processors() // n_jobs)),
                   'OMP_WAIT_POLICY': 'PASSIVE', **os.environ}
    end = time.monotonic() + 60 * max_minutes
    with Progress(len(waiting), 'runs', unit='run') as progress, StopSignals() as stop:
        while waiting or running:
            if stop.signum or time.monotonic() > end:
                is_cut = True
                for one in running:
                    one.ask_to_stop()
            while not is_cut and len(running) < n_jobs and (job := _next(waiting, ended)):
                waiting.remove(job)
                on_begin(job)
                running.append(Running(job, environment))
            if not running:
                break  # nothing more is to begin, or what is left needs what failed
            time.sleep(POLL_SEC)
            for one in list(running):
                if (status := one.status()) is None:
                    continue
                running.remove(one)
                if status == 0:
                    ended.add(one.job.name)
                note(on_end(one.job, status, one.minutes()))
                progress.update(1)
    if stop.signum:
        raise Stopped(stop.signum, 'stopped: the same command goes on')
    return is_cut or bool(waiting)


def _next(waiting: Iterable[Job], ended: set[str]) -> Job | None:
    """The first that needs nothing which has not ended well."""
    return next((job for job in waiting if not job.needs - ended), None)
