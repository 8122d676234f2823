"""Make the table of networks: how large, how fast and how hungry each is.

    python -m util_scripts.networks_table --output docs/networks.md
    python -m util_scripts.networks_table --networks resnet-50 x3d

Speed is measured in CPU time as a ratio to resnet-18, which takes turns with each network, so that
a machine that others use too gives the same ratios.
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import POSITIVE, POSITIVE_RATE, Parser
from runtime.errors import run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.networks_table',
                    'Make the table of networks: parameters, operations, speed, memory, paper.')
    add = parser.add_argument
    add('--networks', nargs='+', metavar='NAME',
        help='family and depth, such as resnet-50; a family stands for all its depths (default: '
             'all families)')
    add('--sample_size', type=POSITIVE, default=112, metavar='PIXELS',
        help='height and width of a clip (default: 112)')
    add('--sample_duration', type=POSITIVE, default=16, metavar='FRAMES',
        help='frames of a clip (default: 16)')
    add('--seconds', type=POSITIVE_RATE, default=3.0, metavar='SEC',
        help='how long to measure each network, at least three rounds (default: 3)')
    add('--output', type=Path, metavar='FILE.md', help='also write the page there')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.networks import report
    report(args)


if __name__ == '__main__':
    run(main)
