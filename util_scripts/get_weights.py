"""Get released weights, ready to be used.

    python -m util_scripts.get_weights i3d-kinetics-400
    python -m util_scripts.predict any.mp4 --weights weights/i3d-kinetics-400.pth
    python -m util_scripts.get_weights --list

Files are checked by their hash; of those that no command can download it is said where they lie.
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import Parser
from runtime.errors import InputError, run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.get_weights',
                    'Get released weights, ready for --weights, --resume_path, --pretrain_path.')
    add = parser.add_argument
    add('name', nargs='?', metavar='NAME', help='weights of --list, such as i3d-kinetics-400')
    add('--to', type=Path, default=Path('weights'), metavar='FOLDER', help='where they go')
    add('--file', type=Path, metavar='FILE',
        help='the released file, where it is there already: nothing is downloaded')
    add('--list', action='store_true',
        help='all weights, with what each was trained on, its accuracy, its licence')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.name is None and not args.list:
        raise InputError('which weights? give a name, such as i3d-kinetics-400, or --list for all')
    from util_scripts.helpers.getting_weights import report
    report(args)


if __name__ == '__main__':
    run(main)
