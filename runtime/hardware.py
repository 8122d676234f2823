"""Devices, precision, memory format and parallel wrapping: what a network runs on, and how."""

import copy
import os
import platform
import warnings
from importlib import metadata

import torch
from torch import nn

from runtime.cpu import keep_freed_memory, pool_in_own_precision, train_on_cpu
from runtime.distributed import World
from runtime.errors import InputError

# Of --precision; None: that of the weights.
AUTOCAST_TYPES = {'fp32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}
# Of --memory_format, beside 'auto'.
MEMORY_FORMATS = {'channels_last': torch.channels_last_3d, 'contiguous': torch.contiguous_format}


# ---------------------------------------------------------------- devices

def pick_device(no_cuda: bool = False, local_rank: int = 0) -> torch.device:
    """The GPU of this number, made the current one; the CPU with `no_cuda` or without a GPU."""
    if no_cuda or not torch.cuda.is_available():
        return torch.device('cpu')
    device = torch.device('cuda', local_rank)
    torch.cuda.set_device(device)
    return device


def pick_device_of_run(world: World, *, no_cuda: bool, sync_batchnorm: bool,
                       is_quiet: bool = False) -> torch.device:
    """The device of this process of a run; that it is the CPU is said in one line.

    The processes of a node share its CPU cores. Raises InputError for `sync_batchnorm` on the CPU.
    """
    device = pick_device(no_cuda, world.local_rank)
    if device.type != 'cpu':
        return device
    if world.is_main and not is_quiet:
        reason = '--no_cuda' if no_cuda else 'no CUDA device was found'
        print(f'running on the CPU ({reason})')
    if sync_batchnorm:
        raise InputError('--batchnorm_sync shares statistics between GPUs, and this run is on the '
                         'CPU: drop the flag')
    if world.size > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // world.local_size))
    return device


def environment(device: torch.device) -> dict[str, str]:
    """{what: which} of what a run is computed with: Python, libraries, the device, the machine."""
    libraries = {name: metadata.version(name) for name in ('torch', 'torchvision', 'numpy', 'av')}
    name = (torch.cuda.get_device_name(device) if device.type == 'cuda' else
            f'CPU, {os.cpu_count()} cores')
    cuda = {'CUDA': str(torch.version.cuda)} if device.type == 'cuda' else {}
    return {'Python': platform.python_version(), **libraries, **cuda, 'device': name,
            'system': platform.platform()}


# ---------------------------------------------------------------- precision and memory format

class InPrecision(nn.Module):
    """A network that computes in a precision and a memory format.

    (N, C, T, H, W) float clips -> (N, n_classes) logits of the same float type. Its weights keep
    theirs: autocast rounds where that is safe.
    """

    def __init__(self, network: nn.Module, precision: str,
                 memory_format: torch.memory_format) -> None:
        super().__init__()
        self.network, self.memory_format = network, memory_format
        self.autocast_type = AUTOCAST_TYPES[precision]

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        x = clips.contiguous(memory_format=self.memory_format)
        with torch.autocast(x.device.type, self.autocast_type,
                            enabled=self.autocast_type is not None):
            return self.network(x).to(clips.dtype)


def in_precision(network: nn.Module, device: torch.device, *, precision: str = 'fp32',
                 memory_format: str = 'auto', tf32: bool = False,
                 has_many_shapes: bool = False) -> InPrecision:
    """The network (on its device) in a precision and a memory format; on a GPU torch's settings
    follow.

    Weights change their order in memory, not their values.

    memory_format:   'channels_last', 'contiguous', or 'auto', of `find_memory_format`
    tf32:            let GPUs multiply fp32 numbers as tf32
    has_many_shapes: its inputs have, so that looking for the best algorithm for each does not pay
    """
    found_format = find_memory_format(memory_format, device, precision, tf32)
    if device.type == 'cpu':
        keep_freed_memory()
        train_on_cpu(network)
        if AUTOCAST_TYPES[precision] is not None:
            pool_in_own_precision(network)
    else:  # on the CPU kernels reorder weights by themselves, but not gradients back
        network.to(memory_format=found_format)
        torch.backends.cudnn.benchmark = not has_many_shapes
        _set_tf32(tf32)
    return InPrecision(network, precision, found_format)


def _set_tf32(is_on: bool) -> None:
    """Let GPUs multiply fp32 numbers as tf32, or not."""
    cudnn, products = torch.backends.cudnn, 'tf32' if is_on else 'ieee'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # some versions call the first of these deprecated
        # torch.export asks for it, and fails where the next two say otherwise.
        cudnn.allow_tf32 = is_on
    cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    cudnn.rnn.fp32_precision = products  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = products


def find_memory_format(name: str, device: torch.device, precision: str,
                       tf32: bool) -> torch.memory_format:
    """Of --memory_format; 'auto' is channels_last wherever kernels for it are the fast ones."""
    if name in MEMORY_FORMATS:
        return MEMORY_FORMATS[name]
    is_slow = device.type == 'cuda' and precision == 'fp32' and not tf32
    return MEMORY_FORMATS['contiguous' if is_slow else 'channels_last']


# ---------------------------------------------------------------- training

def check_smallest_batch(network: nn.Module, clip_shape: tuple[int, ...], n_clips: int) -> None:
    """Raise InputError where a batch of `n_clips`, one say, leaves batch norm a single value.

    clip_shape: (C, T, H, W)
    """
    if n_clips > 1:
        return
    trial = copy.deepcopy(network).to('meta').train()
    try:
        trial(torch.empty(1, *clip_shape, device='meta'))
    except ValueError:
        raise InputError('a batch would hold a single clip, of which the last layers see a single '
                         'place, too little for batch norm; give another --batch_size, or a '
                         'larger --sample_size or --sample_duration') from None


def make_parallel(network: nn.Module, device: torch.device, n_processes: int = 1,
                  sync_batchnorm: bool = False, has_unused: bool = False) -> nn.Module:
    """The network as it is trained: over several processes, or over all GPUs of this one.

    has_unused: some of its parameters get no gradients in some steps
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return network  # one that only runs, as exported ones do
    if n_processes > 1:
        if sync_batchnorm:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        devices = [device] if device.type == 'cuda' else None
        # A kernel of one place has several names for the same order of its numbers.
        warnings.filterwarnings('ignore', 'Grad strides do not match bucket view strides')
        return nn.parallel.DistributedDataParallel(network, devices,
                                                   find_unused_parameters=has_unused)
    if sync_batchnorm:
        raise InputError('--batchnorm_sync needs several processes: start main.py with torchrun '
                         '--nproc_per_node N, or drop the flag')
    if device.type == 'cuda' and torch.cuda.device_count() > 1:
        print(f'using {torch.cuda.device_count()} GPUs in one process (DataParallel); '
              'torchrun main.py ... is faster')
        return nn.DataParallel(network)
    return network
