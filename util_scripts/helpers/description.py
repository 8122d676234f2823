"""Print what a checkpoint says of itself, and a table of its network.

    python -m util_scripts.describe_checkpoint FILE_PATH

Of weights without a record, as released for the 2018 and 2020 code, it prints what can be told.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import checkpoint
from model import (FLAGS_OF_2018, OPTION_OF_FLAG, TRACELESS_FLAGS, adopt_options, empty_network,
                   is_of_2018, is_ours, preprocessing_line, stages)
from models import ARCHITECTURES
from opts import Options, build_parser, n_input_channels
from runtime.errors import run
from util_scripts.helpers.utils import printable

# How many class names are printed.
LISTED = 8


class Row(NamedTuple):
    """A stage of a network: shape is that of what leaves it, without the batch."""

    name: str
    blocks: str
    shape: tuple
    n_parameters: int
    n_multiply_adds: int


# ---------------------------------------------------------------- what the file says

def options_of(args, state):
    """The options of the checkpoint's network and clips; flags of this command come first."""
    defaults = vars(build_parser().parse_args([]))
    given = {name: value for name, value in vars(args).items() if value and name in defaults}
    # hdf5, since optical flow is in no other files; no frames are read here.
    opts = Options(**{**defaults, **given, 'file_type': 'hdf5'}, given=frozenset(given))
    return adopt_options(opts, state, args.file_path, warn=lambda line: None)


def facts(state, opts):
    """{title: text} of what the checkpoint tells."""
    return {'written by': _writer(state, opts), 'epoch': state.get('epoch', 'not recorded'),
            'arch': state.get('arch', 'not recorded'), 'network': _network(state, opts),
            'weights': _weights(state), 'classes': _classes(state, opts),
            'clip': _clip(state, opts), 'preprocessing': _preprocessing(state, opts),
            'training state': _training_state(state)}


def _writer(state, opts):
    if is_ours(state):
        libraries = ', '.join(f'{name} {version}'
                              for name, version in state.get('versions', {}).items())
        return f'this code, format {state["format_version"]} ({libraries})'
    if is_of_2018(state, opts):
        return 'the 2018 code, by its names and its network'
    return 'the 2020 code or another: it keeps no record of what it is'


def _network(state, opts):
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


def _weights(state):
    tensors = state['state_dict'].values()
    dtypes = sorted({str(tensor.dtype).removeprefix('torch.') for tensor in tensors
                     if tensor.is_floating_point()})
    prefix = ', saved from DataParallel (module.)' if state.get('behind_module') else ''
    return (f'{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors):,} numbers, '
            f'{" and ".join(dtypes)}{prefix}')


def _classes(state, opts):
    names = state.get('class_names')
    several = ', any number a video (multi-label)' if opts.multi_label else ''
    if names is None:
        return f'{opts.n_classes}{several}, without names'
    more = f', ... {names[-1]}' if len(names) > LISTED else ''
    return f'{len(names)}{several}: {", ".join(names[:LISTED])}{more}'


def _clip(state, opts):
    stride = f' (one of {opts.sample_t_stride})' if opts.sample_t_stride > 1 else ''
    size = f'{opts.sample_size} x {opts.sample_size}'
    text = f'{opts.sample_duration} frames{stride} of {size} pixels'
    return text if is_ours(state) else f'not recorded; the table is for {text}'


def _preprocessing(state, opts):
    if is_ours(state):
        return preprocessing_line(opts)
    if is_of_2018(state, opts):
        return f'not recorded; weights of the 2018 code ask for\n{FLAGS_OF_2018}'
    return ('not recorded; weights of the 2020 code ask for the default:\n'
            f'{preprocessing_line(opts)}')


def _training_state(state):
    parts = [name for name in ('optimizer', 'scheduler') if name in state]
    if len(parts) < 2:
        return 'none: to evaluate (--no_train) or to start from (--pretrain_path)'
    position = state.get('position')
    where = f', inside epoch {position["epoch"]}' if position else ''
    return f'{" and ".join(parts)}{where}: --resume_path goes on with it'


# ---------------------------------------------------------------- the network

def network_rows(network, clip_shape):
    """A Row for the stem, each stage and the head, for one clip of `clip_shape` (C, T, H, W).

    network: on the meta device. Multiply-adds are those of convolutions and linear layers, half of
    what torch.utils.flop_counter counts.
    """
    groups = {}
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


def _blocks(stage):
    """3 x Bottleneck, for a stage of one kind of blocks."""
    kinds = {type(block).__name__ for block in stage.children()}
    return f'{len(stage)} x {kinds.pop()}' if len(kinds) == 1 else ''


# ---------------------------------------------------------------- printing

def fact_lines(texts):
    """Lines `title  text`, the texts below each other."""
    width = max(map(len, texts)) + 2
    return [f'{title if number == 0 else "":{width}}{line}' for title, text in texts.items()
            for number, line in enumerate(str(text).splitlines())]


def table_lines(rows):
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


def _millions(count):
    return f'{count / 1e6:,.2f}'


# ---------------------------------------------------------------- the command

def positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1')
    return int(text)


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description='Print what a checkpoint says of itself and a table of its network. The flags '
                    'say what the file does not record, as it is with released weights.')
    parser.add_argument('file_path', type=Path, help='checkpoint, or bare weights (.pth)')
    parser.add_argument('--sample_size', type=positive, metavar='PIXELS',
                        help='height and width of the clip that the table is for (default: as '
                             'recorded, or 112)')
    parser.add_argument('--sample_duration', type=positive, metavar='FRAMES',
                        help='frames of that clip (default: as recorded, or 16)')
    parser.add_argument('--conv1_t_stride', type=positive, metavar='FRAMES',
                        help='stride in time of the first convolution (default: as recorded, or 1)')
    parser.add_argument('--no_max_pool', action='store_true',
                        help='there is no max pooling after the first convolution')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    state = checkpoint.load(args.file_path)
    opts = options_of(args, state)
    network = empty_network(opts, state, args.file_path)
    clip_shape = (n_input_channels(opts), opts.sample_duration, opts.sample_size, opts.sample_size)
    lines = [str(args.file_path), '', *fact_lines(facts(state, opts)), '',
             *table_lines(network_rows(network, clip_shape)), '',
             'for one clip; multiply-adds of convolutions and linear layers, counted by '
             'torch.utils.flop_counter']
    for line in lines:
        print(printable(line))


if __name__ == '__main__':
    run(main)
