"""What a checkpoint says of itself, and a table of its network, as text."""

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model import (adopt_options, empty_network, preprocessing_flags, preprocessing_line,
                   read_weights, stages)
from models import options_of
from models.base import Classifier
from opts import NETWORK_FLAGS, Options, build_parser, clip_shape
from runtime.output import printable
from weights import Weights

# How many class names are printed.
LISTED = 8
# Stands for the space at which no line ends.
NO_BREAK = '\xa0'


class Row(NamedTuple):
    """A stage of a network: shape is that of what leaves it, without the batch."""

    name: str
    blocks: str
    shape: tuple
    n_parameters: int
    n_multiply_adds: int


# ---------------------------------------------------------------- what the file says

def given_options(args: argparse.Namespace) -> Options:
    """The options of main.py, with those flags that were given to this command."""
    defaults = vars(build_parser().parse_args([]))
    given = {name: value for name, value in vars(args).items() if value and name in defaults}
    # hdf5, since optical flow is in no other files; nothing is read here, and nothing trained.
    return Options(**{**defaults, **given, 'file_type': 'hdf5', 'no_train': True},
                   given=frozenset(given))


def facts(weights: Weights, opts: Options) -> dict[str, str]:
    """{title: text} of what the weights file tells; `opts` as adopted from it."""
    return {'written by': _writer(weights),
            'epoch': 'not recorded' if weights.epoch is None else str(weights.epoch),
            'arch': weights.arch or 'not recorded', 'network': _network(weights, opts),
            'weights': _tensors(weights), 'classes': _classes(weights, opts),
            'clip': _clip(weights, opts), 'preprocessing': _preprocessing(weights, opts),
            'training state': _training_state(weights)}


def _writer(weights: Weights) -> str:
    if weights.is_ours:
        libraries = ', '.join(f'{name} {version}'
                              for name, version in (weights.versions or {}).items())
        return f'{weights.origin}, format {weights.format_version} ({libraries})'
    if weights.clip:
        return f'{weights.origin}, by its names and its network'
    return f'{weights.origin} or another: it keeps no record of what it is'


def _network(weights: Weights, opts: Options) -> str:
    """The flags of main.py that build it."""
    understood = options_of(opts.model)
    first = [name for name in ('model', 'model_depth', 'input_type') if name in understood]
    others = [name for name in NETWORK_FLAGS
              if name in understood and name not in (*first, 'n_classes')]
    lines = [_flags(first, opts), *textwrap.wrap(_flags(others, opts), 80,
                                                 break_on_hyphens=False)]
    traceless = [name for name in others if name not in weights.network]
    if traceless:
        lines.append(f'({" and ".join(traceless)} leave no trace in weights: as given here)')
    return '\n'.join(lines).replace(NO_BREAK, ' ')


def _flags(names: Sequence[str], opts: Options) -> str:
    """As on a command line; NO_BREAK is between a flag and its value."""
    values = ((name, getattr(opts, name)) for name in names)
    return ' '.join(f'--{name}' if value is True else f'--{name}{NO_BREAK}{value}'
                    for name, value in values if value is not False)


def _tensors(weights: Weights) -> str:
    if weights.engine:
        how = weights.engine.record['exported']
        free = ', '.join(how.get('dynamic', []))
        return (f'exported in {how.get("weights")}; takes {how.get("input")}, gives '
                f'{how.get("output")}; of any size are: {free}')
    tensors = weights.state_dict.values()
    broken = ', nan or infinity in ' + ', '.join(weights.not_finite) if weights.not_finite else ''
    prefix = ', saved from DataParallel (module.)' if weights.behind_module else ''
    text = (f'{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors):,} numbers, '
            f'{" and ".join(weights.stored_types)}{prefix}{broken}')
    if not weights.is_average:
        return text
    options = (weights.training or {}).get('options')
    decay = options.get('ema_decay') if isinstance(options, Mapping) else None
    decay = f' with a decay of {decay}' if decay else ''
    return (f'{text}:\nthe moving average over the steps (EMA){decay}, which is what is used;\n'
            'those of the last step are beside it (--use_ema no)')


def _classes(weights: Weights, opts: Options) -> str:
    names = weights.class_names
    several = ', any number a video (multi-label)' if opts.multi_label else ''
    if names is None:
        return f'{opts.n_classes}{several}, without names'
    more = f', ... {names[-1]}' if len(names) > LISTED else ''
    return f'{len(names)}{several}: {", ".join(names[:LISTED])}{more}'


def _clip(weights: Weights, opts: Options) -> str:
    stride = f' (one of {opts.sample_t_stride})' if opts.sample_t_stride > 1 else ''
    size = f'{opts.sample_size} x {opts.sample_size}'
    text = f'{opts.sample_duration} frames{stride} of {size} pixels'
    return text if 'sample_size' in weights.clip else f'not recorded; the table is for {text}'


def _preprocessing(weights: Weights, opts: Options) -> str:
    if weights.is_ours:
        return preprocessing_line(opts)
    asked = f'not recorded; weights of {weights.origin} ask for'
    if weights.clip:
        return f'{asked}\n{preprocessing_flags(weights) or preprocessing_line(opts)}'
    return f'{asked} the default:\n{preprocessing_line(opts)}'


def _training_state(weights: Weights) -> str:
    if weights.engine:
        return 'none: an exported network is run alone (--no_train)'
    if weights.training is None:
        return 'none: to evaluate (--no_train) or to start from (--pretrain_path)'
    position = weights.training.get('position')
    where = f', inside epoch {position["epoch"]}' if position else ''
    return f'optimizer and scheduler{where}: --resume_path goes on with it'


# ---------------------------------------------------------------- the network

def network_rows(network: Classifier, clip_shape: Sequence[int]) -> list[Row]:
    """A Row for the stem, each stage and the head, for one clip of `clip_shape` (C, T, H, W).

    network: on the meta device. Multiply-adds are those of convolutions and linear layers, half of
    what torch.utils.flop_counter counts.
    """
    groups: dict[str, list[nn.Module]] = {}
    for name, part in stages(network).items():
        in_stem = set(groups) <= {'stem'} and not isinstance(part, nn.Sequential)
        groups.setdefault('stem' if in_stem else name, []).append(part)
    left = []  # (shape, operations so far), as each group is left

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hooks = [parts[-1].register_forward_hook(
            lambda _part, _args, out: left.append((out.shape[1:], counter.get_total_flops())))
            for parts in groups.values()]
        network.eval()(torch.empty(1, *clip_shape, device='meta'))
    for hook in hooks:
        hook.remove()
    before = [0] + [n_flops for _, n_flops in left]
    return [Row(name, _blocks(parts[-1]), tuple(shape),
                sum(p.numel() for part in parts for p in part.parameters()),
                (n_flops - n_before) // 2)
            for (name, parts), (shape, n_flops), n_before in zip(groups.items(), left, before)]


def _blocks(stage: nn.Module) -> str:
    """3 x Bottleneck, for a stage of one kind of blocks."""
    kinds = [type(block).__name__ for block in stage.children()]
    return f'{len(kinds)} x {kinds[0]}' if len(set(kinds)) == 1 else ''


# ---------------------------------------------------------------- printing

def fact_lines(texts: Mapping[str, str]) -> list[str]:
    """Lines `title  text`, the texts below each other."""
    width = max(map(len, texts)) + 2
    return [f'{title if number == 0 else "":{width}}{line}' for title, text in texts.items()
            for number, line in enumerate(str(text).splitlines())]


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Lines of an aligned table of Rows, with their totals below."""
    cells = [('stage', 'blocks', 'output C x T x H x W', 'parameters', 'multiply-adds, M')]
    cells += [(row.name, row.blocks, ' x '.join(map(str, row.shape)), f'{row.n_parameters:,}',
               _millions(row.n_multiply_adds)) for row in rows]
    cells += [('total', '', '', f'{sum(row.n_parameters for row in rows):,}',
               _millions(sum(row.n_multiply_adds for row in rows)))]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ['  '.join(f'{cell:{align}{width}}' for cell, align, width
                       in zip(line, '<<<>>', widths)) for line in cells]
    rule = '  '.join('-' * width for width in widths)
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def _millions(count: int) -> str:
    return f'{count / 1e6:,.2f}'


def describe(args: argparse.Namespace) -> None:
    """Print what the checkpoint that the flags of `describe_checkpoint` name says of itself."""
    opts = given_options(args)
    weights = read_weights(args.file_path, opts)
    opts = adopt_options(opts, weights, warn=lambda line: None)
    network = empty_network(opts, weights)
    lines = [str(args.file_path), '', *fact_lines(facts(weights, opts)), '',
             *table_lines(network_rows(network, clip_shape(opts))), '',
             'for one clip; multiply-adds of convolutions and linear layers, counted by '
             'torch.utils.flop_counter']
    for line in lines:
        print(printable(line))
