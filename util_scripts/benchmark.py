"""Measure what the speed of a run is, and what it is limited by.

    python -m util_scripts.benchmark [flags of main.py] [--json FILE]

Without --video_path it makes 320x240 frames of its own. The loader is measured in its parts and
as a whole, then the training step, then both together, then inference. Times are medians, or
means over what fits into --seconds, and are printed as they come. --parts extraction measures how
fast frames are extracted from videos, --parts clips how fast random clips are read from them.
"""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from opts import Options, build_parser, parse_opts
from runtime.arguments import POSITIVE_RATE, Parser, words_of_files
from runtime.errors import InputError, run
from util_scripts.helpers.jobs import end_on_sigterm, n_processors

PARTS = ('loader', 'step', 'end_to_end', 'inference', 'extraction', 'clips')
# A run of main.py begins when frames are there already.
DEFAULT_PARTS = tuple(part for part in PARTS if part not in ('extraction', 'clips'))
# Of --against; how each reads a clip is in helpers/benchmark_clips.py.
DECODERS = ('torchcodec', 'decord', 'opencv')


def build_benchmark_parser() -> Parser:
    parser = build_parser('python -m util_scripts.benchmark',
                          'Measure what the speed of a run is, and what it is limited by.')
    group = parser.add_argument_group('benchmark')
    group.add_argument('--parts', nargs='+', choices=PARTS, default=DEFAULT_PARTS,
                       help='what to measure (default: all but extraction and clips, which need '
                            'videos)')
    group.add_argument('--videos', type=Path, metavar='DIR',
                       help='videos for --parts extraction and clips, in this folder and those in '
                            'it; without it some are made for extraction')
    group.add_argument('--against', nargs='+', choices=DECODERS, default=(),
                       help='decoders that read the clips of --parts clips in turns with ours, '
                            'those that are installed')
    group.add_argument('--seconds', type=POSITIVE_RATE, default=5.0, metavar='SEC',
                       help='how long to measure each')
    group.add_argument('--against_plain', action='store_true',
                       help='alternately measure a plain loader (Pillow, floats) and a plain step '
                            '(fp32, contiguous, in a process of its own); for extraction ffprobe '
                            'and ffmpeg')
    group.add_argument('--json', type=Path, metavar='FILE', help='also write the numbers there')
    return parser


def parse(argv: Sequence[str], folder: str) -> tuple[Namespace, Options]:
    """(own flags, options); without --video_path on frames made in the folder."""
    parser = build_benchmark_parser()
    own_defaults = ['--batch_size', '8', '--n_threads', str(n_processors())]
    given = parser.parse_args([*own_defaults, *argv])
    defaults = ['--result_path', folder]
    if given.video_path is None:
        for name in ('annotation_path', 'root_path'):
            if getattr(given, name) != parser.get_default(name):
                raise InputError(f'--{name} is of data to measure on: add --video_path, or drop it')
        from util_scripts.helpers.bench import make_data
        defaults += [*make_data(folder, batch_size=given.batch_size), '--dataset', 'ucf101',
                     *own_defaults]
    return given, parse_opts([*defaults, *argv], parser)


def main(argv: Sequence[str] | None = None) -> None:
    of_files, typed = words_of_files(list(map(str, sys.argv[1:] if argv is None else argv)),
                                     build_benchmark_parser())
    argv = [*of_files, *typed]
    with tempfile.TemporaryDirectory(prefix='benchmark_') as folder:
        own, opts = parse(argv, folder)
        from util_scripts.helpers.benchmark_parts import measure
        measure(argv, own, opts)


if __name__ == '__main__':
    end_on_sigterm()
    run(main)
