"""A training step the plain way: fp32, contiguous, and all else as torch has it by default.

What the speed of the step is measured against: python -m util_scripts.benchmark --against_plain
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.optim import SGD

from model import build_network
from opts import Options, n_input_channels
from util_scripts.helpers.benchmark_step import Step

_steps: list[Step] = []  # that of the process


class PlainStep:
    """Steps in a process of its own, since ours changes settings of the whole process."""

    def __init__(self, opts: Options, device: torch.device) -> None:
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), _prepare,
                                            (opts, device))

    def times(self) -> np.ndarray:
        """Do a step: (3, 2), the time of forward, backward, optimiser."""
        return self._process.submit(_times).result()

    def close(self) -> None:
        self._process.shutdown()


def _prepare(opts: Options, device: torch.device) -> None:
    network = build_network(opts).to(device).train()
    optimizer = SGD(network.parameters(), opts.learning_rate, momentum=opts.momentum,
                    weight_decay=opts.weight_decay)

    def backward(loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
    clips = torch.randn(opts.batch_size, n_input_channels(opts), opts.sample_duration,
                        opts.sample_size, opts.sample_size, device=device)
    update = SimpleNamespace(backward=backward, update=optimizer.step)
    _steps.append(Step(network, nn.Identity(), update, clips, opts.n_classes))


def _times() -> np.ndarray:
    return _steps[0].times()
