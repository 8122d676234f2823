"""Say what is done in any video: no annotation, no extraction of frames.

    python -m util_scripts.predict clips/ a.mp4 --weights results/save_200.pth --timeline
    python -m util_scripts.predict a.mp4 --weights results/save_200.pth --events --vtt a.vtt
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from datasets.scaling import DEFAULT_FPS
from runtime.arguments import COUNT, FRACTION, POSITIVE, RATE, Parser, add_folders_of_frames, number
from runtime.errors import InputError, run
from util_scripts.helpers.addresses import is_address


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.predict',
                    'Say what is done in videos, by a trained network.',
                    epilog='With --json or --csv, what is found is kept as it comes: after Ctrl-C, '
                           'or killed, the same command goes on. Exit status: 0, 1 where a video '
                           'cannot be read or is damaged, 2 for a wrong argument.')
    add = parser.add_argument
    add('files', nargs='*', metavar='FILE',
        help='videos, folders of videos, folders of frames (image_00001.jpg ...); or one stream: '
             'rtsp://..., http://..., or - for what comes through a pipe')
    add('--webcam', type=COUNT, metavar='N', help='camera N, from 0, until Ctrl-C')
    add('--weights', type=Path, required=True, metavar='FILE',
        help='checkpoint of main.py, released weights, or a file of util_scripts.export; what it '
             'says of class names, clips and normalisation is taken')
    add('--labels', type=Path, metavar='FILE',
        help='class names for weights that hold none, in the order of their classes: a text file '
             'with a name per line, an annotation .json, or the .csv of the training videos, '
             'whose labels are taken in the order in which they appear')
    add('--topk', type=POSITIVE, metavar='K', help='labels per video (default: 5)')
    add('--stride', type=POSITIVE, default=16, metavar='FRAMES',
        help='a window begins every so many frames')
    add('--batch_size', '--bs', type=POSITIVE, default=16, metavar='CLIPS',
        help='windows that the network sees at once')
    add_output_flags(parser)
    add_event_flags(parser)
    add('--reconnect', type=RATE, default=60.0, metavar='SEC',
        help='so long a stream that was lost is tried again; 0: it is not')
    add('--keep_all', action='store_true',
        help='let the sender of a stream wait, where frames are dropped otherwise to keep up')
    add_folders_of_frames(add, DEFAULT_FPS)
    add('--backend', default='auto', choices=('auto', 'openvino'),
        help='what runs the network: torch, and for an exported file what its ending says (auto), '
             'or OpenVINO on the CPU, also for a checkpoint')
    add('--no_cuda', action='store_true', help='run on the CPU')
    return parser


def add_output_flags(parser: Parser) -> None:
    """What is said and written."""
    add = parser.add_argument
    add('--timeline', action='store_true', help='also what each window says, with its seconds')
    add('--json', type=Path, metavar='FILE', help='write the results there, as main.py does')
    add('--csv', type=Path, metavar='FILE',
        help='write them as a table, one row per label, with --events one row per event')
    add('--annotate', type=Path, metavar='OUT',
        help='write the video, with its sound, with the running top 3 and the time drawn on it: a '
             '.mp4, or a folder for several')


def add_event_flags(parser: Parser) -> None:
    """What scores make an event."""
    add = parser.add_argument
    add('--events', action='store_true',
        help='also say what happens from when to when: windows become events')
    add('--vtt', type=Path, metavar='OUT',
        help='write the events as subtitles (WebVTT): a .vtt, or a folder for several videos')
    add('--threshold', type=FRACTION, metavar='SCORE',
        help='an event has a window that scores at least so much (default: 0.5)')
    add('--low_threshold', type=FRACTION, metavar='SCORE',
        help='and lasts while scores are at least this (default: 0.8 of --threshold)')
    add('--smooth', type=number(int, lambda n: n > 0 and n % 2, 'an odd number above 0'),
        metavar='WINDOWS', help='average scores over so many windows first (default: 1)')
    add('--min_sec', type=RATE, metavar='SEC',
        help='events that are shorter are none (default: 0)')
    add('--max_gap_sec', type=RATE, metavar='SEC',
        help='lower scores for so long do not end an event (default: 0.5)')
    add('--none_class', metavar='NAME',
        help='a class that means that nothing happens, such as background')


EVENT_FLAGS = ('vtt', 'threshold', 'low_threshold', 'smooth', 'min_sec', 'max_gap_sec',
               'none_class')


def is_live(args: Namespace) -> bool:
    """True for a camera, an address or the pipe."""
    return args.webcam is not None or any(map(is_address, args.files))


def check(args: Namespace) -> None:
    """Raise InputError where arguments do not go together."""
    rules = [
        (not args.files and args.webcam is None, 'nothing to predict: name videos, or --webcam 0'),
        (args.files and args.webcam is not None, 'files and --webcam are both given: drop one'),
        (args.annotate and is_live(args),
         '--annotate reads a video twice, which a stream is not: drop it'),
        (is_live(args) and len(args.files) > 1,
         'a stream may have no end, and is given alone: drop the other files'),
        (args.keep_all and not is_live(args), '--keep_all is about streams: drop it'),
        *((not args.events and getattr(args, name) is not None,
           f'--{name} is about events: add --events') for name in EVENT_FLAGS),
        (args.low_threshold is not None and args.low_threshold > (args.threshold or 0.5),
         f'--low_threshold {args.low_threshold}: is above --threshold, which begins an event; give '
         'a lower one'),
        (not 0 < args.fps < 1e6, f'--fps {args.fps}: give a number of frames above 0'),
    ]
    for broken, sentence in rules:
        if broken:
            raise InputError(sentence)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check(args)
    if is_live(args):
        from util_scripts.helpers.live import predict_stream
        return predict_stream(args)
    from util_scripts.helpers.prediction import predict_files
    return predict_files(args)


if __name__ == '__main__':
    run(main)
