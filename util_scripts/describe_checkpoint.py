"""Print what a checkpoint says of itself, and a table of its network.

    python -m util_scripts.describe_checkpoint FILE_PATH

Of weights without a record, as released for the 2018 and 2020 code, it prints what can be told, and
of an exported network how that was made.
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import POSITIVE, Parser
from runtime.errors import run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.describe_checkpoint',
                    'Print what a checkpoint says of itself and a table of its network. The flags '
                    'say what the file does not record, as it is with released weights.',
                    has_notes=False)
    parser.add_argument('file_path', type=Path,
                        help='checkpoint, bare weights (.pth), or an exported network')
    parser.add_argument('--sample_size', type=POSITIVE, metavar='PIXELS',
                        help='height and width of the clip that the table is for (default: as '
                             'recorded, or 112)')
    parser.add_argument('--sample_duration', type=POSITIVE, metavar='FRAMES',
                        help='frames of that clip (default: as recorded, or 16)')
    parser.add_argument('--conv1_t_stride', type=POSITIVE, metavar='FRAMES',
                        help='stride in time of the first convolution (default: as recorded, or 1)')
    parser.add_argument('--no_max_pool', action='store_true',
                        help='there is no max pooling after the first convolution')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.description import describe
    describe(args)


if __name__ == '__main__':
    run(main)
