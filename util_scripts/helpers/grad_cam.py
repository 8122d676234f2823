"""Grad-CAM in space and time: which places of a clip speak for a class.

    cam = GradCam(network, class_number)
    heat = cam(inputs)  # (N, C, T, H, W) -> (N, t, h, w)

The heat of a class is ReLU(sum over c of a_c A_c), where A_c is a channel of a feature map and a_c
the mean over all places of the derivative of the class's logit by that channel: equations 1 and 2
of Selvaraju et al., "Grad-CAM", ICCV 2017, with time as a third axis of places.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from features import module_named
from model import stages
from models.base import Classifier
from runtime.errors import InputError

# A default map has at least so many places along each side of a frame: as many as the last stage
# of a ResNet has of 112 pixels.
MIN_PLACES = 4


class GradCam:
    """Heat of one class, from the output of one module.

    module_name: '' stands for the last stage of the network whose map has at least MIN_PLACES
                 places a side, or else for the one with the most; it is found with the first clips

    Raises InputError for a module that the network has not, or that gives no map of places.
    """

    def __init__(self, network: Classifier, class_number: int, module_name: str = '') -> None:
        self._network, self._class = network, class_number
        self.device = next(network.parameters()).device
        self.module_name = module_name
        if module_name:
            self._module = _module(network, module_name)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) network inputs -> (N, t, h, w) heat, not below 0, on their device."""
        if not self.module_name:
            self.module_name = default_module(self._network, inputs[:1], self._class)
            self._module = _module(self._network, self.module_name)
        outputs, gradients = _gradients(self._network, {self.module_name: self._module}, inputs,
                                        self._class)
        axis = _channel_axis(self._network, self._module)
        maps = _as_map(outputs[self.module_name], axis)
        if maps is None or gradients[self.module_name] is None:
            known = ', '.join(_stages_with_maps(self._network, inputs[:1], self._class))
            raise InputError(f'--module {self.module_name}: gives no map of places that the class '
                             f'depends on; choose one of {known}')
        weights = _as_map(gradients[self.module_name], axis)
        assert weights is not None
        alphas = weights.mean(dim=(2, 3, 4), keepdim=True)
        return (alphas * maps).sum(dim=1).clamp(min=0).detach()


def default_module(network: Classifier, inputs: torch.Tensor, class_number: int) -> str:
    """The name of the stage that GradCam takes by default, for inputs (1, C, T, H, W)."""
    sizes = _stages_with_maps(network, inputs, class_number)
    wide = [name for name, size in sizes.items() if min(size) >= MIN_PLACES]
    return wide[-1] if wide else max(sizes, key=lambda name: math.prod(sizes[name]))


def _module(network: Classifier, name: str) -> nn.Module:
    parts = stages(network)
    return parts[name] if name in parts else module_named(network, name, '--module')


def _channel_axis(network: Classifier, module: nn.Module) -> int:
    # Convolutions have their channels first, also in transformers.
    return 1 if isinstance(module, nn.Conv3d) else network.channel_axis


def _stages_with_maps(network: Classifier, inputs: torch.Tensor, class_number: int
                      ) -> dict[str, tuple[int, int]]:
    """{stage: (h, w) of its map}, of those whose map counts for the class in several places."""
    parts = stages(network)
    outputs, gradients = _gradients(network, parts, inputs, class_number)
    sizes = {}
    for name, output in outputs.items():
        axis = _channel_axis(network, parts[name])
        gradient = gradients[name]
        by_place = None if gradient is None else _as_map(gradient, axis)
        # After the last block of MViT only the class token counts, which has no place.
        if by_place is not None and int(by_place.abs().amax(dim=(0, 1)).count_nonzero()) > 1:
            sizes[name] = (by_place.shape[3], by_place.shape[4])
    if not sizes:
        raise InputError('no stage of the network gives a map of several places; name one with '
                         '--module, or give larger clips')
    return sizes


def _gradients(network: nn.Module, modules: Mapping[str, nn.Module], inputs: torch.Tensor,
               class_number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """({name: output}, {name: derivative of the summed logits of a class by it}) of the modules
    that one pass goes through; outputs that the class does not depend on have None."""
    outputs: dict[str, Any] = {}
    hooks = [module.register_forward_hook(
        lambda _module, _inputs, output, name=name: outputs.update({name: output}))
        for name, module in modules.items()]
    try:
        with torch.enable_grad():
            # So that all outputs have a graph, whatever is frozen.
            logits = network(inputs.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    tensors = [_tensor(output) for output in outputs.values()]
    found = torch.autograd.grad(logits[:, class_number].sum(), tensors, allow_unused=True)
    # With the sizes that go with tokens.
    return outputs, {
        name: (gradient, *output[1:]) if isinstance(output, tuple) and gradient is not None
        else gradient for (name, output), gradient in zip(outputs.items(), found)}


def _tensor(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _as_map(output: Any, channel_axis: int) -> torch.Tensor | None:
    """A module's output as (N, C, t, h, w), or None for one without places.

    Blocks of MViT give tokens (N, 1 + t h w, C), a class token first, and (t, h, w).
    """
    tensor = _tensor(output)
    if tensor.dim() == 5:
        return tensor.movedim(channel_axis, 1)
    if isinstance(output, tuple) and tensor.dim() == 3:
        sizes: Sequence[int] = output[1]
        return tensor[:, -math.prod(sizes):].transpose(1, 2).unflatten(2, tuple(sizes))
    return None
