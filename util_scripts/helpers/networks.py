"""Figures of networks: parameters, operations, speed beside a reference, memory, paper."""

import re
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from models import ARCHITECTURES, depths, family_of, generate_model, network_name
from runtime.errors import InputError
from runtime.files import write_text
from runtime.hardware import in_precision
from runtime.output import is_quiet, wrote
from util_scripts.helpers.timing import now

REFERENCE = {'model': 'resnet', 'model_depth': 18}
PRECISIONS = ('fp32', 'bf16')
N_CLIPS = 1      # in a batch that is timed
BATCH_SIZE = 8   # of the training step whose memory is told
LARGE_CLIP = (3, 16, 224, 224)  # of networks that take no smaller one
PAPER = re.compile(r'[^"]+, "[^"]+", [^"]+? \d{4}')
HEADER = ('network', 'million parameters', 'GFLOP', *(f'speed, {name}' for name in PRECISIONS),
          'GB of training', 'paper')
PREFACE = """\
# Networks

This page is written by `python -m util_scripts.networks_table --output docs/networks.md`. All
figures are of clips of {frames} frames of {size}x{size} pixels, 400 classes and the default options
of each network. `--networks` chooses which are in the table, `--seconds` how long each is timed.

- S3D and MViT take no such clips: theirs are of {large} pixels, which their rows say, and so
  are those of resnet-18 beside them.
- GFLOP: 10⁹ operations of one clip, forward; a multiplication and an addition are two.
- Speed: clips per second of inference on the CPU, as a ratio to resnet-18 in fp32. It is measured
  in CPU time in one run (threads: {threads}), where resnet-18 takes turns with each network, so
  that other work on the machine changes all alike. bf16 is fast where the processor has
  instructions for it.
- GB of training: what a step of {batch} clips in fp32 holds, counted and not measured: weights,
  gradients, momentum, and what the backward pass needs. The working memory of single layers comes
  on top, and `--grad_checkpointing` needs less.

"""


def report(args: Namespace) -> None:
    """Print the table, and write the page.

    Raises InputError for an unknown network, and where the page cannot be written.
    """
    clip = (3, args.sample_duration, args.sample_size, args.sample_size)
    preface = PREFACE.format(frames=clip[1], size=clip[2], large=_size(LARGE_CLIP),
                             batch=BATCH_SIZE, threads=torch.get_num_threads())
    lines = [_line(HEADER), _line(['---'] * len(HEADER))]
    print('\n'.join(lines), flush=True)
    with tqdm(networks_of(args.networks), 'networks', unit='network',
              disable=is_quiet() or None) as progress:
        for options in progress:
            lines.append(_line(row(options, clip, args.seconds)))
            tqdm.write(lines[-1], file=sys.stdout)
            sys.stdout.flush()
            if args.output:
                write_text(args.output, preface + '\n'.join(lines) + '\n')
    if args.output:
        wrote(args.output)


def networks_of(names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Options of the networks that are named, of all without names. Raises InputError."""
    found = []
    for name in names or ARCHITECTURES:
        model, _, depth = name.partition('-')
        there = depths(model)
        if depth and depth not in map(str, there):
            known = ', '.join(f'{model}-{number}' for number in there) or model
            raise InputError(f'no network {name!r}: choose one of {known}')
        wanted: Sequence[int | None] = [int(depth)] if depth else there or [None]
        found += [{'model': model, 'model_depth': number} for number in wanted]
    return found


def row(options: dict[str, Any], clip: tuple[int, ...], seconds: float) -> list[str]:
    """The cells of a network, as in `HEADER`; of one that takes no such clips, on a `LARGE_CLIP`.

    clip: (C, T, H, W)
    """
    with torch.device('meta'):
        network = generate_model(**options)
    n_parameters = sum(p.numel() for p in network.parameters())
    clip, size = taken_clip(network, clip)
    n_bytes = count_training_bytes(network, clip, BATCH_SIZE)
    return [network_name(options) + size, f'{n_parameters / 1e6:.1f}',
            f'{count_operations(network, clip) / 1e9:.1f}',
            *(f'{ratio:.2f}' for ratio in speeds(options, clip, seconds)),
            f'{n_bytes / 1e9:.1f}', paper(options['model'])]


def taken_clip(network: nn.Module, clip: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """(the clip or else a `LARGE_CLIP`, what a row says of that) that a network on the meta device
    takes."""
    try:
        network.eval()(torch.empty(1, *clip, device='meta'))
    except InputError:
        return LARGE_CLIP, f' ({_size(LARGE_CLIP)})'
    return clip, ''


def count_operations(network: nn.Module, clip: tuple[int, ...]) -> int:
    """Floating-point operations of one clip in evaluation, of a network on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, *clip, device='meta'))
    return counter.get_total_flops()


def count_training_bytes(network: nn.Module, clip: tuple[int, ...], n_clips: int) -> int:
    """Bytes that a step of SGD holds: weights, gradients, momentum, and what backward needs.

    network: on the meta device
    """
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()  # of which several tensors may be views
        kept[storage._cdata] = storage
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        network.train()(torch.empty(n_clips, *clip, device='meta')).sum()
    return (3 * sum(p.numel() * p.element_size() for p in network.parameters())
            + sum(storage.nbytes() for key, storage in kept.items() if key not in own))


def speeds(options: dict[str, Any], clip: tuple[int, ...], seconds: float) -> list[float]:
    """Clips per second in each of `PRECISIONS`, as a ratio to the reference in fp32.

    Times are CPU times, medians of rounds in which all take turns.
    """
    device = torch.device('cpu')
    models = [in_precision(generate_model(**wanted).eval(), device, precision=precision)
              for wanted, precision in [(REFERENCE, 'fp32'), *((options, p) for p in PRECISIONS)]]
    clips = torch.randn(N_CLIPS, *clip)
    times: list[np.ndarray] = []
    with torch.inference_mode():
        for model in models:
            model(clips)  # the first is slow
        end = time.monotonic() + seconds
        while len(times) < 3 or time.monotonic() < end:
            marks = [now()]
            for model in models:
                model(clips)
                marks.append(now())
            times.append(np.diff(marks, axis=0)[:, 1])
    reference, *others = np.median(times, axis=0)
    return [reference / other for other in others]


def paper(model: str) -> str:
    """What a family says its paper is, or what the second paragraph of its module begins with; ''
    without one."""
    family = family_of(model)
    if said := getattr(family, 'paper', ''):
        return str(said)
    paragraphs = (family.__doc__ or '').split('\n\n')
    found = PAPER.match(' '.join(paragraphs[1].split())) if len(paragraphs) > 1 else None
    return found[0] if found else ''


def _size(clip: tuple[int, ...]) -> str:
    """16x224x224: frames, height and width of a clip."""
    return 'x'.join(map(str, clip[1:]))


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'
