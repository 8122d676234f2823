"""What all networks share: convolutions, initialisation, activation checkpointing, the classifier.

A network takes float clips (N, C, T, H, W) and gives logits (N, n_classes).
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from runtime.errors import InputError

# Of a kernel or a stride: along all three axes, or (t, h, w).
Size = int | tuple[int, int, int]
# Modules that run one after the other, by the names that they get.
Steps = dict[str, nn.Module]
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


def triple(size: Size) -> tuple[int, int, int]:
    """A size as (t, h, w): 3 -> (3, 3, 3)."""
    return size if isinstance(size, tuple) else (size, size, size)


class Conv3d(nn.Conv3d):
    """A convolution without bias, padded by half its odd kernel; sizes are a number or (t, h, w).

    (N, in_planes, T, H, W) -> (N, planes, ceil(T / stride), ...).
    """

    def __init__(self, in_planes: int, planes: int, kernel_size: Size, stride: Size = 1,
                 groups: int = 1) -> None:
        t, h, w = triple(kernel_size)
        padding = (t // 2, h // 2, w // 2)
        super().__init__(in_planes, planes, kernel_size, stride, padding, groups=groups, bias=False)


def conv_bn(index: int, in_planes: int, planes: int, kernel_size: Size, stride: Size = 1,
            groups: int = 1) -> Steps:
    """The named steps of the `index`-th convolution of a block: a 3D convolution, normalised."""
    return {f'conv{index}': Conv3d(in_planes, planes, kernel_size, stride, groups),
            f'bn{index}': nn.BatchNorm3d(planes)}


def add_steps(owner: nn.Module, steps: Steps) -> tuple[str, ...]:
    """Make the named steps modules of `owner`; give their names, for `run_steps`."""
    for name, module in steps.items():
        owner.add_module(name, module)
    return tuple(steps)


def run_steps(owner: nn.Module, names: Iterable[str], x: torch.Tensor) -> torch.Tensor:
    """Apply the modules of `owner` that have these names, in this order."""
    for name in names:
        x = getattr(owner, name)(x)
    return x


def keyword_options(*builders: Callable[..., Any]) -> dict[str, Any]:
    """{name: default} of the keyword-only arguments of functions or classes, less those that all
    networks have.

    A family's OPTIONS are those of its `generate_model` and of the class it hands the rest on to.
    """
    return {name: parameter.default for builder in builders
            for name, parameter in inspect.signature(builder).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
            and name not in ('n_classes', 'n_input_channels')}


def init_weights(network: 'Classifier') -> None:
    """Kaiming-normal convolutions (fan out, ReLU) and batch norms that start as the identity.

    A classifier that is a convolution keeps torch's start: of few classes the fan-out is small, and
    logits in the tens would be confident mistakes.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d) and name != network.classifier_name:
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def layers_of(model: str, layers: Mapping[int, tuple[int, ...]],
              model_depth: int | None) -> tuple[int, ...]:
    """The row of a family's depth table; InputError names the depths there are."""
    if model_depth is None or model_depth not in layers:
        depths = ', '.join(map(str, layers))
        raise InputError(f'{model} has no depth {model_depth}: choose one of {depths}')
    return layers[model_depth]


@contextmanager
def kept_statistics(block: nn.Module) -> Iterator[None]:
    """Within it the batch norms of `block` leave their running statistics as they are."""
    kept = [(module, module.momentum, counter, counter.clone()) for module in block.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and (counter := module.num_batches_tracked) is not None]
    for norm, *_ in kept:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, counter, n_batches in kept:
            norm.momentum = momentum
            counter.copy_(n_batches)


def recomputable(forward: Forward) -> Forward:
    """A block's `forward(self, x)`, of which training keeps x alone where `self.is_recomputed`:
    the rest is computed again in the backward pass."""
    @wraps(forward)
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not (self.is_recomputed and torch.is_grad_enabled()):
            return forward(self, x)
        # The second pass must not count the same clips again in the statistics.
        return checkpoint(forward, self, x, use_reentrant=False, preserve_rng_state=False,
                          context_fn=lambda: (nullcontext(), kept_statistics(self)))
    return run


class Classifier(nn.Module):
    """What all networks share: features, their global average, one linear classifier.

    A network sets `num_features`, the channels F of its feature map, and has its linear layer under
    the name in `classifier_name`. `models.generate_model` sets `options`, what it was made of.
    """

    num_features: int
    options: Mapping[str, Any]

    classifier_name = 'fc'
    channel_axis = 1  # of what its modules give; -1 where channels come last, as in transformers
    # Of 'time' and 'size', those that are the example's in an exported network.
    fixed_axes: tuple[str, ...] = ()
    frozen: Sequence[nn.Module] = ()  # modules whose batch norms keep their statistics in training

    def train(self, mode: bool = True) -> 'Classifier':
        """As nn.Module's, but frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def recompute_blocks(self) -> None:
        """Keep less for the backward pass: only what enters each block."""
        for module in self.modules():
            if hasattr(module, 'is_recomputed'):
                setattr(module, 'is_recomputed', True)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> (N, F, t, h, w) feature map."""
        raise NotImplementedError

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(N, F, t, h, w) feature map -> (N, n_classes) logits, or (N, F) with `pre_logits`."""
        pooled = features.mean(dim=(2, 3, 4))
        return pooled if pre_logits else getattr(self, self.classifier_name)(pooled)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> (N, n_classes) logits."""
        return self.forward_head(self.forward_features(x))
