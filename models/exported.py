"""An exported network in the place of one of our own, for inference alone."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from models.base import Classifier
from runtime.errors import InputError

# Of scores that round to 0 or 1, what logits are made of.
LEAST_SCORE, LEAST_BELOW_ONE = torch.finfo(torch.float32).tiny, 6e-8


def logits_of(scores: torch.Tensor, is_sigmoid: bool) -> torch.Tensor:
    """Logits of which softmax, or a sigmoid, makes these scores."""
    scores = scores.clamp(LEAST_SCORE, 1 - LEAST_BELOW_ONE * is_sigmoid)
    return scores.logit() if is_sigmoid else scores.log()


class ExportedNetwork(Classifier):
    """(N, C, T, H, W) float clips -> (N, n_classes) logits, as the network that was exported.

    run:       what takes clips as the file wants them and gives what the file gives
    contents:  bytes that are another file's or network's never; they stand for its weights
    options:   those of the network that was exported
    prepared:  for a file that takes uint8 clips and gives scores: (mean, std, value_scale) that
               clips come with, and which its pixels are made of again
    is_sigmoid: the scores are those of several labels
    """

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], contents: bytes,
                 options: Mapping[str, Any], *,
                 prepared: tuple[Sequence[float], Sequence[float], float] | None = None,
                 is_sigmoid: bool = False) -> None:
        super().__init__()
        self.run, self.options, self.prepared = run, dict(options), prepared
        self.is_sigmoid = is_sigmoid
        # Tells the device, and networks apart, as weights do.
        digest = torch.frombuffer(bytearray(hashlib.sha256(contents).digest()), dtype=torch.uint8)
        self.digest = nn.Parameter(digest, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.prepared is None:
            return self.run(x.float())
        mean, std, scale = (torch.as_tensor(value, device=x.device) for value in self.prepared)
        axes = (-1, 1, 1, 1)
        pixels = (x * std.view(axes) + mean.view(axes)) * (255 / scale)
        scores = self.run(pixels.round().clamp(0, 255).to(torch.uint8))
        return logits_of(scores, self.is_sigmoid)

    def requires_grad_(self, requires_grad: bool = True) -> 'ExportedNetwork':
        """Nothing here is trained, whatever is asked for."""
        return self

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        raise InputError('an exported network gives no features; give the checkpoint that it was '
                         'made of')
