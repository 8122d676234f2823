"""Exponential moving average of a network's weights (EMA): kept, evaluated and saved."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """The average of a network's weights, and of its batch-norm statistics, over the steps.

    After step n it is average + (1 - d) (weights - average) with d = min(decay, n / (9 + n)), so
    that the weights of the start are soon forgotten (Polyak and Juditsky, 1992; the growing decay
    is that of TensorFlow's ExponentialMovingAverage). Counters of batches are copied.

    network: on its device; the average begins as its weights
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay, self._n_updates = network, decay, 0
        # While the network has the average, these are the weights.
        self._kept = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._is_applied = False

    @torch.no_grad()
    def update(self) -> None:
        """Called after each step."""
        self._n_updates += 1
        decay = min(self._decay, self._n_updates / (9 + self._n_updates))
        pairs = [(self._kept[name], value) for name, value in self._network.state_dict().items()]
        averages, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()))
        torch._foreach_lerp_(averages, values, 1 - decay)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the network has the average for its weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's weights and what is kept."""
        self._is_applied = not self._is_applied
        for name, value in self._network.state_dict().items():
            kept = self._kept[name].clone()
            self._kept[name].copy_(value)
            value.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """{'state_dict', 'ema_state_dict', 'ema_updates'}: weights of the last step, average, and
        how many steps it is of."""
        own, kept = self._network.state_dict(), self._kept
        weights, average = (kept, own) if self._is_applied else (own, kept)
        return {'state_dict': weights, 'ema_state_dict': average, 'ema_updates': self._n_updates}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the average in what `state_dict` gave.

        Raises KeyError, TypeError, AttributeError or ValueError for another network's, or none.
        """
        for name, kept in self._kept.items():
            average = state['ema_state_dict'][name]
            if average.shape != kept.shape:
                raise ValueError(f'{name} has the shape {tuple(average.shape)}')
            kept.copy_(average)
        self._n_updates = int(state['ema_updates'])
