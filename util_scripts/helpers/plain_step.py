"""A training step the plain way: fp32, contiguous, and all else as torch has it by default.

What the speed of the step is measured against: python -m util_scripts.benchmark --against_plain
"""

import multiprocessing
from multiprocessing.connection import Connection
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.optim import SGD

from model import build_network
from opts import Options, n_input_channels
from util_scripts.helpers.benchmark_step import Step


class PlainStep:
    """Steps in a process of its own, since ours changes settings of the whole process."""

    def __init__(self, opts: Options, device: torch.device) -> None:
        context = multiprocessing.get_context('spawn')
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, opts, device), daemon=True)
        self._process.start()

    def times(self) -> np.ndarray:
        """Do a step: (3, 2), the time of forward, backward, optimiser."""
        self._connection.send('step')
        return cast(np.ndarray, self._connection.recv())

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, opts: Options, device: torch.device) -> None:
    network = build_network(opts).to(device).train()
    optimizer = SGD(network.parameters(), opts.learning_rate, momentum=opts.momentum,
                    weight_decay=opts.weight_decay)
    clips = torch.randn(opts.batch_size, n_input_channels(opts), opts.sample_duration,
                        opts.sample_size, opts.sample_size, device=device)
    step = Step(network, nn.Identity(), _PlainUpdate(optimizer), clips, opts.n_classes)
    try:
        while connection.recv():
            connection.send(step.times())
    except EOFError:
        pass


class _PlainUpdate:
    """The two halves of a step."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def backward(self, loss: torch.Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()

    def update(self) -> None:
        self._optimizer.step()
