"""How fast a training step is, in its parts, and how much of what the device can do at best."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model import build_network, prepare_network
from optim import Optimization
from opts import clip_shape, n_input_channels
from runtime.hardware import AUTOCAST_TYPES
from util_scripts.helpers.bench import Bench, wait_for
from util_scripts.helpers.timing import Row, now, peak_rate, timed_row, times_ours

# Of matrices and, in channels, of a 3x3x3 convolution that a device is measured with.
PRODUCT_SIZE = {'cpu': 2048, 'cuda': 8192}
CONVOLUTION_PLANES = {'cpu': 64, 'cuda': 256}


def step_rows(bench: Bench) -> list[Row]:
    """Forward, backward and optimiser of one step; alternately a plain one."""
    steps: dict[str, Any] = {'ours': our_step(bench)}
    plain_step = None
    if bench.is_against_plain:
        from util_scripts.helpers.plain_step import PlainStep  # it takes `Step` of here
        steps['plain'] = plain_step = PlainStep(bench.opts, bench.device)
    times: dict[str, list[np.ndarray]] = {name: [] for name in steps}
    for step in steps.values():
        step.times()  # the first is slow
    end = time.monotonic() + bench.seconds * len(steps)
    while len(times['ours']) < 3 or time.monotonic() < end:
        for name, step in steps.items():
            times[name].append(step.times())
    if plain_step:
        plain_step.close()
    n_clips = bench.opts.batch_size
    median = {name: np.median(times[name], axis=0) / n_clips for name in steps}
    ours = median['ours'].sum(axis=0)
    rows = [timed_row('step', what, sec, 'clip')
            for what, sec in zip(('forward', 'backward', 'optimiser'), median['ours'])]
    rows.append(timed_row('step', f'all, {bench.opts.precision}', ours, 'clip',
                          _rate_note(bench, ours[0])))
    if plain_step:
        plain = median['plain'].sum(axis=0)
        rows.append(timed_row('step', 'plain: fp32, contiguous', plain, 'clip',
                              times_ours(plain, ours)))
    return rows


class Step:
    """A training step on a batch of clips that lies on the device, with random labels.

    prepare:      makes the model's input of the clips
    optimization: has `backward(loss)` and `update()`
    """

    def __init__(self, model: nn.Module, prepare: nn.Module, optimization: Any,
                 clips: torch.Tensor, n_classes: int) -> None:
        self.model, self.prepare, self.optimization = model, prepare, optimization
        self.clips = clips
        self.labels = torch.randint(n_classes, clips.shape[:1], device=clips.device)

    def times(self) -> np.ndarray:
        """Do a step: (3, 2), the time of forward, backward, optimiser."""
        marks = [self._mark()]
        loss = nn.functional.cross_entropy(self.model(self.prepare(self.clips)), self.labels)
        marks.append(self._mark())
        self.optimization.backward(loss)
        marks.append(self._mark())
        self.optimization.update()
        marks.append(self._mark())
        return np.diff(marks, axis=0)

    def _mark(self) -> np.ndarray:
        wait_for(self.clips.device)
        return now()


def our_step(bench: Bench) -> Step:
    """The `Step` that main.py would do, on random clips."""
    opts, device = bench.opts, bench.device
    network = build_network(opts).to(device)
    model = prepare_network(opts, network, device).train()
    shape = (opts.batch_size, opts.sample_duration, opts.sample_size, opts.sample_size,
             n_input_channels(opts))
    clips = torch.randint(256, shape, dtype=torch.uint8, device=device).permute(0, 4, 1, 2, 3)
    return Step(model, bench.normalize(), Optimization(network.parameters(), opts, device), clips,
                opts.n_classes)


def _rate_note(bench: Bench, sec: float) -> str:
    """Operations per second of a step, and their share of the best that the device can do."""
    opts = bench.opts
    clip = torch.empty(2, *clip_shape(opts), device='meta')
    with FlopCounterMode(display=False) as counter:
        build_network(opts).to('meta').train()(clip).sum().backward()
    rate = counter.get_total_flops() / 2 / sec / 1e12
    bests: dict[str, float | None] = {
        'the best of a large product and a convolution': _best_rate(bench)}
    if bench.device.type == 'cuda':
        name = torch.cuda.get_device_name(bench.device)
        bests['the peak by its data sheet'] = peak_rate(name, opts.precision, opts.tf32)
    shares = [f'{100 * rate / best:.0f} % of {name} ({best:.2f})'
              for name, best in bests.items() if best]
    return f'{rate:.2f} TFLOP/s, {", ".join(shares)}'


@torch.no_grad()
def _best_rate(bench: Bench) -> float:
    """TFLOP/s that the device does of what it is best at, in the precision of the run."""
    kind, dtype = bench.device.type, AUTOCAST_TYPES[bench.opts.precision] or torch.float32
    size, planes = PRODUCT_SIZE[kind], CONVOLUTION_PLANES[kind]
    matrix = torch.ones(size, size, device=bench.device, dtype=dtype)
    x = torch.ones(8, planes, 8, 28, 28, device=bench.device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    convolution = nn.Conv3d(planes, planes, 3, padding=1, bias=False).to(x)
    return max(2 * size ** 3 / _least_sec(bench, lambda: matrix @ matrix),
               54 * planes * x.numel() / _least_sec(bench, lambda: convolution(x))) / 1e12


def _least_sec(bench: Bench, function: Callable[[], Any]) -> float:
    times = []
    for _ in range(10):
        wait_for(bench.device)
        begin = time.perf_counter()
        function()
        wait_for(bench.device)
        times.append(time.perf_counter() - begin)
    return min(times)
