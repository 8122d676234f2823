"""Where and when a network sees what it says: Grad-CAM heat over the frames of videos.

    python -m util_scripts.gradcam a.mp4 clips/ --weights results/save_200.pth

writes for each video a strip of frames (.png) and a video (.mp4) with the heat over the frames and
the score of the class over time below them. See Selvaraju et al., "Grad-CAM: Visual Explanations
from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

from collections.abc import Sequence
from pathlib import Path

from datasets.scaling import DEFAULT_FPS
from runtime.arguments import POSITIVE, Parser, add_folders_of_frames
from runtime.errors import run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.gradcam',
                    'Show where in its frames, and when, a network sees a class (Grad-CAM).')
    add = parser.add_argument
    add('files', nargs='+', type=Path, metavar='VIDEO',
        help='videos, folders of videos, folders of frames (image_00001.jpg ...)')
    add('--weights', type=Path, required=True, metavar='FILE',
        help='checkpoint of main.py, or released weights, as util_scripts.predict takes them')
    add('--labels', type=Path, metavar='FILE',
        help='class names for weights that hold none, as util_scripts.predict takes them')
    add('--class', dest='class_name', metavar='NAME',
        help='the class whose heat is shown (default: of each video, the one that is predicted)')
    add('--module', metavar='NAME',
        help='the module whose output is weighed, such as layer4 (default: the last stage of the '
             'network whose output has at least 4x4 places)')
    add('--stride', type=POSITIVE, metavar='FRAMES',
        help='a window begins every so many frames (default: the length of a clip); where windows '
             'overlap, their heat is averaged')
    add('--output', type=Path, default=Path('gradcam'), metavar='FOLDER',
        help='folder for the pictures')
    add('--npy', action='store_true',
        help='also write the heat, (frames, height, width) in 0...1, as .npy')
    add_folders_of_frames(add, DEFAULT_FPS)
    add('--no_cuda', action='store_true', help='run on the CPU')
    parser.set_defaults(backend='auto')  # derivatives are torch's alone
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.heat_pictures import show_heat
    return show_heat(args)


if __name__ == '__main__':
    run(main)
