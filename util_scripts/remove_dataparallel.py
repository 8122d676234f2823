"""Take the `module.` that DataParallel puts before names out of a checkpoint.

    python -m util_scripts.remove_dataparallel FILE_PATH [--dst_file_path FILE]
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import Parser, command_line
from runtime.errors import run
from runtime.output import wrote
from util_scripts.helpers.files import make_folder


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.remove_dataparallel',
                    'Write a copy of a checkpoint whose weights are named without `module.`. '
                    'This code needs none: it reads both forms. Bare weights become a checkpoint '
                    'with nothing else in it.')
    parser.add_argument('file_path', type=Path, help='checkpoint, or bare weights (.pth)')
    parser.add_argument('--dst_file_path', type=Path,
                        help='file to write, .pth or .safetensors (default: beside '
                             'file_path, named STEM_without_dataparallel.pth)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    import checkpoint
    import weights
    file_path = args.file_path
    dst_path = args.dst_file_path or file_path.with_name(
        f'{file_path.stem}_without_dataparallel.pth')
    state = weights.load(file_path)
    make_folder(dst_path.parent)
    if dst_path.suffix == '.safetensors':
        with checkpoint.writing(dst_path) as temporary:
            left_out = weights.write_safetensors(temporary, state)
        if left_out:
            print(f'{dst_path}: left out, as .safetensors hold weights: {", ".join(left_out)}')
    else:
        checkpoint.save(dst_path, state)
    wrote(dst_path, about=f'{len(state["state_dict"])} weights, named without module.',
          then=command_line('describe_checkpoint', dst_path))


if __name__ == '__main__':
    run(main)
