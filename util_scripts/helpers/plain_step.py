"""A training step the plain way: fp32, contiguous, and all else as torch has it by default.

What the speed of the step is measured against: python -m util_scripts.benchmark --against_plain
"""

import multiprocessing

import torch
from torch import nn
from torch.optim import SGD

from model import build_network
from opts import n_input_channels
from util_scripts.benchmark import Step


class PlainStep:
    """Steps in a process of its own, since ours changes settings of the whole process."""

    def __init__(self, opts, device):
        context = multiprocessing.get_context('spawn')
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, opts, device), daemon=True)
        self._process.start()

    def times(self):
        """Do a step: (3, 2), the time of forward, backward, optimiser."""
        self._connection.send('step')
        return self._connection.recv()

    def close(self):
        self._connection.close()
        self._process.join()


def _serve(connection, opts, device):
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

    def __init__(self, optimizer):
        self._optimizer = optimizer

    def backward(self, loss):
        self._optimizer.zero_grad()
        loss.backward()

    def update(self):
        self._optimizer.step()
