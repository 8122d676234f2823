"""Traces of training steps by torch.profiler."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime.files import TRACE_NAME
from runtime.output import warn

# The first steps allocate memory and choose algorithms, as no later ones do.
TRACE_AFTER_STEPS = 4
KINETO_SILENT = 6


class StepTrace:
    """A torch.profiler trace of `n_steps` training steps, after the first few, in a folder, as
    Perfetto and TensorBoard's profiler plugin open it; with folder None or no steps nothing.

        with StepTrace(folder, n_steps) as trace:
            ...
            trace.step()

    However the block ends, the profiler is stopped, without which the process would end in a
    segmentation fault, and the steps there were are written. Where there were too few, or nothing
    can be written, that is said.
    """

    def __init__(self, folder: str | Path | None, n_steps: int) -> None:
        self._path = Path(folder) / TRACE_NAME if folder else None
        self._n_steps, self._n_done = n_steps, 0
        self._profiler: Any = None

    def __enter__(self) -> 'StepTrace':
        return self

    def step(self) -> None:
        """Say that a step has ended."""
        if not (self._path and self._n_steps):
            return
        self._n_done += 1
        if self._n_done == TRACE_AFTER_STEPS:
            self._start()
        elif self._n_done == TRACE_AFTER_STEPS + self._n_steps:
            self._stop()
        elif self._profiler:
            self._profiler.step()

    def __exit__(self, *_: object) -> None:
        if not (self._path and self._n_steps):
            return
        if self._profiler:
            self._stop()
        if self._n_done <= TRACE_AFTER_STEPS:
            warn(f'no trace was written: --profile leaves out the first {TRACE_AFTER_STEPS} steps, '
                 f'and there were {self._n_done}; train for at least {TRACE_AFTER_STEPS + 1}')

    def _start(self) -> None:
        # It is started where the traced steps begin, and the schedule only marks each step: on a
        # GPU, a schedule that is stopped while it warms up ends in a segmentation fault.
        from torch import cuda, profiler  # slow to import
        if not cuda.is_available():
            # Else kineto says that it found no GPU as an error, amid lines for its developers.
            os.environ.setdefault('KINETO_LOG_LEVEL', str(KINETO_SILENT))
        self._profiler = profiler.profile(schedule=lambda step: profiler.ProfilerAction.RECORD,
                                          acc_events=True)  # else torch 2.11 warns
        self._profiler.start()

    def _stop(self) -> None:
        finished, self._profiler = self._profiler, None
        finished.stop()
        if self._n_done > TRACE_AFTER_STEPS:
            self._write(finished)

    def _write(self, profile: Any) -> None:
        assert self._path is not None
        try:
            profile.export_chrome_trace(str(self._path))
        except OSError as error:
            warn(f'{self._path}: the trace cannot be written ({error.strerror}); the run goes on')
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
