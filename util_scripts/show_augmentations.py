"""Draw clips of videos before and after the augmentation of a training.

    python -m util_scripts.show_augmentations a.mp4 b.mp4 FLAGS_OF_MAIN.PY [--output FILE]

takes the flags of a run as they are; those that do not change clips have no effect. --manual_seed
draws others.
"""

from collections.abc import Sequence
from pathlib import Path

from opts import build_parser, parse_opts
from runtime.arguments import Parser, between
from runtime.errors import run


def build_show_parser() -> Parser:
    parser = build_parser('python -m util_scripts.show_augmentations',
                          'Draw clips of videos before and after the augmentation of a training of '
                          'main.py with these flags: a row each. Below the frames are their '
                          'numbers, of mixed clips those of the video that is named first.')
    parser.usage = '%(prog)s VIDEO ... FLAGS_OF_MAIN.PY'
    add = parser.add_argument
    add('videos', nargs='+', type=Path, metavar='VIDEO',
        help='video, or folder of frames (image_00001.jpg ...); with --mixup and --cutmix each is '
             'mixed with the one before, and a single one with another clip of its own')
    add('--n_draws', type=between(int, 1, 100), default=3, metavar='N',
        help='rows after augmentation, each drawn anew')
    add('--output', type=Path, default=Path('augmentations.png'), metavar='FILE',
        help='picture to write, .png, .pdf or .svg')
    # None of them is read.
    parser.set_defaults(video_path=Path(), annotation_path=Path(), result_path=Path())
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    opts = parse_opts(argv, build_show_parser())
    from util_scripts.helpers.augmentation import draw_augmentations
    draw_augmentations(opts)


if __name__ == '__main__':
    run(main)
