"""Layers of all networks: torch's, where its CPU kernels err or do too much."""

import torch
import torch.nn.functional as F
from torch import nn

_CPU_HAS = torch.cpu.get_capabilities()
ERRS_IN_BF16 = _CPU_HAS.get('avx512_f', False) and not _CPU_HAS.get('amx_bf16', False)


def triple(size):
    """A size as (t, h, w): 3 -> (3, 3, 3)."""
    return size if isinstance(size, tuple) else (size,) * 3


class Conv3d(nn.Conv3d):
    """A convolution without bias, padded by half its odd kernel; sizes are a number or (t, h, w).

    (N, in_planes, T, H, W) -> (N, planes, ceil(T / stride), ...).

    Training on the CPU leaves out the ends of a kernel that would see nothing but padding, as those
    in time in the last stage of a ResNet on 16 frames, and their gradients.
    """

    def __init__(self, in_planes, planes, kernel_size, stride=1, groups=1):
        padding = tuple(size // 2 for size in triple(kernel_size))
        super().__init__(in_planes, planes, kernel_size, stride, padding, groups=groups, bias=False)

    def forward(self, x):
        is_short = any(size <= pad for size, pad in zip(x.shape[2:], self.padding))
        if x.device.type == 'cpu' and torch.is_grad_enabled():
            if is_short or ERRS_IN_BF16 and _is_bf16(x):
                return self._trained_on_cpu(x)
        return super().forward(x)

    def _trained_on_cpu(self, x):
        """The same without what is too much, and without what oneDNN gets wrong.

        Its version 3.12 and those before, on x86 with AVX-512 but without AMX, take the bf16
        gradient of the weights in part from memory that they never wrote, and write where they
        must not, if an axis is padded and shorter than the kernel. It is padded beforehand.
        """
        weight, zeros, padding = self.weight, [], []
        for axis, (size, full_pad) in enumerate(zip(x.shape[2:], self.padding), start=2):
            pad = min(full_pad, size - 1)
            if pad < full_pad:
                weight = weight.narrow(axis, full_pad - pad, 2 * pad + 1)
            is_beforehand = size < 2 * pad + 1 and ERRS_IN_BF16 and _is_bf16(x)
            zeros = [pad * is_beforehand] * 2 + zeros
            padding.append(pad * (not is_beforehand))
        if any(zeros):
            x = F.pad(x, zeros)
        return F.conv3d(x, weight, None, self.stride, padding, groups=self.groups)


def _is_bf16(x):
    """Whether a convolution of x on the CPU computes in bf16."""
    if torch.is_autocast_enabled('cpu'):
        return torch.get_autocast_dtype('cpu') is torch.bfloat16
    return x.dtype is torch.bfloat16


class MaxPool3d(nn.MaxPool3d):
    """nn.MaxPool3d that keeps the precision of its input, of which autocast on the CPU makes fp32,
    and so of the whole first stage."""

    def forward(self, x):
        with torch.autocast('cpu', enabled=False):
            return super().forward(x)
