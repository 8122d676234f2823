"""Work-arounds for networks on the CPU: freed memory, convolutions in training, max pooling."""

import ctypes

import torch
import torch.nn.functional as F
from torch import nn

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
_CPU_HAS = torch.cpu.get_capabilities()
ERRS_IN_BF16 = _CPU_HAS.get('avx512_f', False) and not _CPU_HAS.get('amx_bf16', False)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of tensors that are freed.

    glibc gives large ones back to the system, which clears each page again when the next step wants
    it. Other libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)


def train_on_cpu(network: nn.Module) -> None:
    """Let the plain convolutions of a network, its own modules, be `CpuTrainedConv3d`.

    Only how they compute in training changes: neither the names and values of the state dict, nor
    anything in evaluation mode. Convolutions qualify that are padded by half an odd kernel.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and _qualifies(module):
            # Not an attribute of the instance, which would be that of the original in copies.
            module.__class__ = CpuTrainedConv3d


def _qualifies(conv: nn.Conv3d) -> bool:
    """True if a convolution computes as nn.Conv3d does, padded with zeros by half an odd kernel."""
    return (type(conv).forward is nn.Conv3d.forward and conv.padding_mode == 'zeros'
            and conv.dilation == (1, 1, 1) and all(size % 2 for size in conv.kernel_size)
            and conv.padding == tuple(size // 2 for size in conv.kernel_size))


class CpuTrainedConv3d(nn.Conv3d):
    """nn.Conv3d that, in training on the CPU, leaves out what is too much or goes wrong there.

    (N, in_planes, T, H, W) -> (N, planes, ceil(T / stride), ...).

    The ends of a kernel that would see nothing but padding are left out, as those in time in the
    last stage of a ResNet on 16 frames, and their gradients. Shapes decide this, so it must not be
    traced: a network that is exported is in evaluation mode, where this is nn.Conv3d.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled() and x.device.type == 'cpu':
            is_short = any(size <= kernel_size // 2
                           for size, kernel_size in zip(x.shape[2:], self.kernel_size))
            if is_short or ERRS_IN_BF16 and _is_bf16(x):
                return self._forward_in_training(x)
        return super().forward(x)

    def _forward_in_training(self, x: torch.Tensor) -> torch.Tensor:
        """The same output from shorter kernels, and without what oneDNN gets wrong.

        Its version 3.12 and those before, on x86 with AVX-512 but without AMX, take the bf16
        gradient of the weights in part from memory that they never wrote, and write where they
        must not, if an axis is padded and shorter than the kernel. It is padded beforehand.
        """
        weight, padding = self.weight, []
        zeros: list[int] = []  # as F.pad has them: before and after, the last axis first
        for axis, (size, kernel_size) in enumerate(zip(x.shape[2:], self.kernel_size), start=2):
            full_pad = kernel_size // 2
            pad = min(full_pad, size - 1)
            if pad < full_pad:
                weight = weight.narrow(axis, full_pad - pad, 2 * pad + 1)
            is_beforehand = size < 2 * pad + 1 and ERRS_IN_BF16 and _is_bf16(x)
            zeros = [pad * is_beforehand] * 2 + zeros
            padding.append(pad * (not is_beforehand))
        if any(zeros):
            x = F.pad(x, zeros)
        return F.conv3d(x, weight, self.bias, self.stride, padding, groups=self.groups)


def _is_bf16(x: torch.Tensor) -> bool:
    """True if a convolution of x on the CPU computes in bf16."""
    if torch.is_autocast_enabled('cpu'):
        return torch.get_autocast_dtype('cpu') is torch.bfloat16
    return x.dtype is torch.bfloat16


def pool_in_own_precision(network: nn.Module) -> None:
    """Let the max pooling of a network be `OwnPrecisionMaxPool3d`."""
    for module in network.modules():
        if type(module) is nn.MaxPool3d:
            module.__class__ = OwnPrecisionMaxPool3d


class OwnPrecisionMaxPool3d(nn.MaxPool3d):
    """nn.MaxPool3d that keeps the precision of its input, of which autocast on the CPU makes fp32,
    and so of the whole first stage."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast('cpu', enabled=False):
            return super().forward(x)
