"""Export a network to a file that runs without this code: ONNX, OpenVINO, torch.export, or weights.

    python -m util_scripts.export results/save_200.pth r3d.onnx --preprocess
    python -m util_scripts.export results/save_200.pth r3d.xml --int8 DATA_FLAGS_OF_MAIN.PY

The ending names the form. The result is run on clips beside the network that it was made of before
it gets its name, and a model card (Markdown) is written beside it.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from opts import Options, build_parser, parse_opts
from runtime.arguments import POSITIVE, POSITIVE_RATE, Parser, between
from runtime.errors import InputError, run
from util_scripts.helpers.jobs import end_on_sigterm

ENDINGS = ('.onnx', '.xml', '.pt2', '.safetensors')
OWN = 'export'


def build_export_parser() -> Parser:
    parser = build_parser('python -m util_scripts.export',
                          'Write a network as a file that runs without this code. The flags of '
                          'main.py are for --int8, and say which data it calibrates and '
                          'measures with.')
    parser.usage = '%(prog)s CHECKPOINT OUT{' + ','.join(ENDINGS) + '} ...'
    parser.add_argument('source', type=Path, metavar='CHECKPOINT',
                        help='checkpoint of main.py, or released weights')
    parser.add_argument('target', type=Path, metavar='OUT',
                        help='file to write: .onnx, .xml (OpenVINO, with a .bin beside it), .pt2 '
                             '(torch.export) or .safetensors (weights alone)')
    add = parser.add_argument_group(OWN).add_argument
    add('--dynamic_time', action='store_true', help='take clips of any number of frames')
    add('--dynamic_size', action='store_true', help='take clips of any height and width')
    add('--preprocess', action='store_true',
        help='take uint8 clips and give scores: normalisation and softmax (or sigmoid) are inside')
    add('--half', action='store_true',
        help='store weights in 16 bits (.onnx, .xml, .safetensors); what computes is fp32')
    add('--labels', type=Path, metavar='FILE',
        help='class names for weights that hold none, as for util_scripts.predict')
    add('--videos', type=Path, nargs='+', metavar='FILE',
        help='check the result on the first clips of these videos too, and not only on noise')
    add('--tolerance', type=POSITIVE_RATE, default=1e-4, metavar='X',
        help='largest difference from the checkpoint, relative to its largest output')
    _add_int8_flags(parser)
    return parser


def _add_int8_flags(parser: Parser) -> None:
    add = parser.add_argument_group('int8').add_argument
    add('--int8', action='store_true',
        help='quantise (.xml, .onnx) by clips of the training set that the flags of main.py name, '
             'and measure accuracy on its validation set, size and speed before and after')
    add('--calibration_clips', type=POSITIVE, default=300, metavar='N',
        help='clips that show the range of activations')
    add('--max_drop', type=between(float, 0, 1), default=0.01, metavar='X',
        help='write nothing where the accuracy by video, of 0 to 1, falls by more')
    add('--keep_float', nargs='+', default=(), metavar='NAME',
        help='layers that stay in floating point: their names, or parts of these')
    add('--compare_layers', action='store_true',
        help='also measure int8 with the first, the last, and both these layers in floating point')
    add('--accuracy_control', action='store_true',
        help='find and name the layers to keep in floating point, so that --max_drop holds '
             '(.xml); takes a validation per layer')
    add('--seconds', type=POSITIVE_RATE, default=10.0, metavar='SEC',
        help='how long to measure the speed')
    add('--json', type=Path, metavar='FILE', help='also write what was measured there')


def parse(argv: Sequence[str]) -> tuple[Namespace, Options | None]:
    """(own flags, options of main.py for --int8, else None). Raises InputError."""
    parser = build_export_parser()
    own = parser.parse_args(argv)
    names = {group.title: {action.dest for action in group._group_actions}
             for group in parser._action_groups}
    given = {name for name, value in vars(own).items() if value != parser.get_default(name)}
    others = sorted(given - names[OWN] - {'source', 'target', 'help', 'quiet', 'int8'})
    for_weights = own.preprocess or own.dynamic_time or own.dynamic_size
    rules = [
        (own.target.suffix not in ENDINGS,
         f'{own.target}: the ending names the form, and there is none of this; give one of '
         f'{", ".join(ENDINGS)}'),
        (own.source.suffix in ENDINGS[:3],
         f'{own.source}: is exported already; give the checkpoint that it was made of'),
        # Path.exists raises an error for a name that is too long.
        (os.path.exists(own.target) and os.path.exists(own.source)
         and own.target.samefile(own.source),
         f'{own.target}: is the checkpoint, which is kept; give another OUT'),
        (others and not own.int8, f'--{"".join(others[:1])} is for --int8: add that, or drop it'),
        (own.int8 and own.target.suffix not in ENDINGS[:2],
         f'{own.target}: --int8 is for .xml and .onnx; give one of these'),
        (own.int8 and own.half, '--int8 and --half are both given: drop one'),
        (own.half and own.target.suffix == '.pt2',
         f'{own.target}: --half is for .onnx, .xml and .safetensors; drop it, or write one of '
         'these'),
        (own.accuracy_control and own.target.suffix != '.xml',
         f'{own.target}: --accuracy_control is for .xml; give that, or drop it'),
        (own.target.suffix == '.safetensors' and for_weights,
         f'{own.target}: holds weights alone, so that --preprocess, --dynamic_time and '
         '--dynamic_size have no effect; drop them'),
    ]
    for broken, sentence in rules:
        if broken:
            raise InputError(sentence)
    if not own.int8:
        return own, None
    return own, parse_opts(['--result_path', str(own.target.parent), *argv], parser)


def main(argv: Sequence[str] | None = None) -> int:
    own, opts = parse(sys.argv[1:] if argv is None else list(map(str, argv)))
    from util_scripts.helpers.exports import export
    return export(own, opts)


if __name__ == '__main__':
    end_on_sigterm()
    run(main)
