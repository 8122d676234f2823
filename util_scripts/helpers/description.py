"""What a checkpoint says of itself, and a table of its network, as text."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import checkpoint
from model import (FLAGS_OF_2018, OPTION_OF_FLAG, TRACELESS_FLAGS, adopt_options, empty_network,
                   is_of_2018, is_ours, preprocessing_line, stages)
from models import ARCHITECTURES
from opts import Options, build_parser, clip_shape
from util_scripts.helpers.text import printable

State = dict[str, Any]  # a checkpoint, as checkpoint.load gives it
# How many class names are printed.
LISTED = 8


class Row(NamedTuple):
    """A stage of a network: shape is that of what leaves it, without the batch."""

    name: str
    blocks: str
    shape: tuple[int, ...]
    n_parameters: int
    n_multiply_adds: int


# ---------------------------------------------------------------- what the file says

def options_of(args: Namespace, state: State) -> Options:
    """The options of the checkpoint's network and clips; flags of this command come first."""
    defaults = vars(build_parser().parse_args([]))
    given = {name: value for name, value in vars(args).items() if value and name in defaults}
    # hdf5, since optical flow is in no other files; no frames are read here.
    opts = Options(**{**defaults, **given, 'file_type': 'hdf5'}, given=frozenset(given))
    return adopt_options(opts, state, args.file_path, warn=lambda line: None)


def facts(state: State, opts: Options) -> dict[str, Any]:
    """{title: text} of what the checkpoint tells."""
    return {'written by': _writer(state, opts), 'epoch': state.get('epoch', 'not recorded'),
            'arch': state.get('arch', 'not recorded'), 'network': _network(state, opts),
            'weights': _weights(state), 'classes': _classes(state, opts),
            'clip': _clip(state, opts), 'preprocessing': _preprocessing(state, opts),
            'training state': _training_state(state)}


def _writer(state: State, opts: Options) -> str:
    if is_ours(state):
        libraries = ', '.join(f'{name} {version}'
                              for name, version in state.get('versions', {}).items())
        return f'this code, format {state["format_version"]} ({libraries})'
    if is_of_2018(state, opts):
        return 'the 2018 code, by its names and its network'
    return 'the 2020 code or another: it keeps no record of what it is'


def _network(state: State, opts: Options) -> str:
    """The flags of main.py that build it."""
    understood = ARCHITECTURES[opts.model].options
    lines = [f'--model {opts.model} --model_depth {opts.model_depth} --input_type '
             f'{opts.input_type}']
    for flags in (('conv1_t_size', *TRACELESS_FLAGS),
                  ('resnet_shortcut', 'resnet_widen_factor', 'wide_resnet_k',
                   'resnext_cardinality')):
        values = [(flag, getattr(opts, flag)) for flag in flags
                  if OPTION_OF_FLAG[flag] in understood]
        lines.append(' '.join(f'--{flag}' if value is True else f'--{flag} {value}'
                              for flag, value in values if value is not False))
    if not is_ours(state):
        lines.append(f'({" and ".join(TRACELESS_FLAGS)} leave no trace in weights: as given here)')
    return '\n'.join(filter(None, lines))


def _weights(state: State) -> str:
    tensors = state['state_dict'].values()
    dtypes = sorted({str(tensor.dtype).removeprefix('torch.') for tensor in tensors
                     if tensor.is_floating_point()})
    prefix = ', saved from DataParallel (module.)' if state.get('behind_module') else ''
    return (f'{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors):,} numbers, '
            f'{" and ".join(dtypes)}{prefix}')


def _classes(state: State, opts: Options) -> str:
    names = state.get('class_names')
    several = ', any number a video (multi-label)' if opts.multi_label else ''
    if names is None:
        return f'{opts.n_classes}{several}, without names'
    more = f', ... {names[-1]}' if len(names) > LISTED else ''
    return f'{len(names)}{several}: {", ".join(names[:LISTED])}{more}'


def _clip(state: State, opts: Options) -> str:
    stride = f' (one of {opts.sample_t_stride})' if opts.sample_t_stride > 1 else ''
    size = f'{opts.sample_size} x {opts.sample_size}'
    text = f'{opts.sample_duration} frames{stride} of {size} pixels'
    return text if is_ours(state) else f'not recorded; the table is for {text}'


def _preprocessing(state: State, opts: Options) -> str:
    if is_ours(state):
        return preprocessing_line(opts)
    if is_of_2018(state, opts):
        return f'not recorded; weights of the 2018 code ask for\n{FLAGS_OF_2018}'
    return ('not recorded; weights of the 2020 code ask for the default:\n'
            f'{preprocessing_line(opts)}')


def _training_state(state: State) -> str:
    parts = [name for name in ('optimizer', 'scheduler') if name in state]
    if len(parts) < 2:
        return 'none: to evaluate (--no_train) or to start from (--pretrain_path)'
    position = state.get('position')
    where = f', inside epoch {position["epoch"]}' if position else ''
    return f'{" and ".join(parts)}{where}: --resume_path goes on with it'


# ---------------------------------------------------------------- the network

def network_rows(network: nn.Module, shape: Sequence[int]) -> list[Row]:
    """One Row for the stem, each stage and the head, for one clip of `shape` (C, T, H, W).

    network: on the meta device. Multiply-adds are those of convolutions and linear layers, half of
    what torch.utils.flop_counter counts.
    """
    groups: dict[str, list[Any]] = {}
    for name, part in stages(network).items():
        in_stem = set(groups) <= {'stem'} and not isinstance(part, nn.Sequential)
        groups.setdefault('stem' if in_stem else name, []).append(part)
    left: list[tuple[torch.Size, int]] = []  # (shape, operations so far), as each group is left

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hooks = [parts[-1].register_forward_hook(
            lambda _part, _args, out: left.append((out.shape[1:], counter.get_total_flops())))
            for parts in groups.values()]
        network.eval()(torch.empty(1, *shape, device='meta'))
    for hook in hooks:
        hook.remove()
    before = [0] + [n_flops for _, n_flops in left]
    return [Row(name, _blocks(parts[-1]), tuple(shape),
                sum(p.numel() for part in parts for p in part.parameters()),
                (n_flops - n_before) // 2)
            for (name, parts), (shape, n_flops), n_before in zip(groups.items(), left, before)]


def _blocks(stage: Any) -> str:
    """3 x Bottleneck, for a stage of one kind of blocks."""
    kinds = {type(block).__name__ for block in stage.children()}
    return f'{len(stage)} x {kinds.pop()}' if len(kinds) == 1 else ''


# ---------------------------------------------------------------- printing

def fact_lines(texts: dict[str, Any]) -> list[str]:
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


def describe(args: Namespace) -> None:
    """Print what the checkpoint that the flags of `describe_checkpoint` name says of itself."""
    state = checkpoint.load(args.file_path)
    opts = options_of(args, state)
    network = empty_network(opts, state, args.file_path)
    lines = [str(args.file_path), '', *fact_lines(facts(state, opts)), '',
             *table_lines(network_rows(network, clip_shape(opts))), '',
             'for one clip; multiply-adds of convolutions and linear layers, counted by '
             'torch.utils.flop_counter']
    for line in lines:
        print(printable(line))
