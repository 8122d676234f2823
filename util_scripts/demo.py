"""From videos to a trained, measured network in a few minutes, with the commands a user would run.

    python -m util_scripts.demo [--dst .demo] [--seed 1]

makes a small data set in which nothing but motion tells the classes apart (demo_videos.py),
extracts its frames, writes the annotation file, trains a small 3D ResNet-18, classifies the test
videos and measures the result. Each command is printed before it runs. At the end the folder
DST/results holds demo.json (accuracy, seconds per stage) and three pictures.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import POSITIVE, Parser, command_line
from runtime.errors import InputError, run
from runtime.files import write_text
from runtime.output import note, to_stderr, wrote
from util_scripts.demo_videos import HEIGHT, MOTIONS, add_data_flags
from util_scripts.helpers.jobs import end_on_sigterm

ROOT = Path(__file__).resolve().parent.parent
MARKER = 'made_by_demo.txt'
MARKER_TEXT = ('Whatever lies in videos, splits, jpg and results of this folder is made by '
               'python -m util_scripts.demo,\nand deleted by its next run.\n')
MADE_FOLDERS = ('videos', 'splits', 'jpg', 'results')
ANNOTATION = 'ucf101_01.json'

# Flips would turn MoveLeft into MoveRight: --no_hflip. All else is what suits small, short clips.
NETWORK_FLAGS = (f'--model resnet --model_depth 18 --resnet_widen_factor 0.25 '
                 f'--n_classes {len(MOTIONS)} --sample_size {HEIGHT} --sample_duration 16')
TRAIN_FLAGS = ('--train_crop center --no_hflip --n_val_samples 2 --learning_rate 0.02 --nesterov '
               '--multistep_milestones 10 13 --checkpoint 7')
# Threads that wait for each other spin by default. Where the loader's processes, or other people's,
# want the same processors, that made training seven times slower on two of them.
ENVIRONMENT = {'OMP_WAIT_POLICY': 'PASSIVE'}


# ---------------------------------------------------------------- the folder

def clear_folder(dst: Path) -> None:
    """Make `dst` ready for a run: what an earlier demo made there is deleted.

    Raises InputError where something is in it and no demo made it.
    """
    try:
        dst.mkdir(parents=True, exist_ok=True)
        if any(dst.iterdir()) and not (dst / MARKER).is_file():
            raise InputError(f'{dst}: is not empty and no demo made it; name another folder with '
                             '--dst')
        (dst / MARKER).write_text(MARKER_TEXT)
        for name in MADE_FOLDERS:
            if (dst / name).exists():
                shutil.rmtree(dst / name)
    except OSError as error:
        raise InputError(f'{dst}: cannot be used ({error.strerror}); name another folder with '
                         '--dst') from error


# ---------------------------------------------------------------- the commands

def commands(dst: Path, args: Namespace) -> dict[str, list[str]]:
    """{stage: arguments of Python} in the order in which they run, from the repository's root."""
    data_flags = ['--root_path', str(dst), '--video_path', 'jpg', '--annotation_path', ANNOTATION,
                  '--result_path', 'results', '--dataset', 'ucf101']
    main_py = ['main.py', *data_flags, *NETWORK_FLAGS.split(), '--batch_size', '16',
               '--n_threads', '2']
    counts = ['--seed', str(args.seed), '--n_train', str(args.n_train), '--n_val', str(args.n_val)]
    videos, splits, jpgs = (str(dst / name) for name in ('videos', 'splits', 'jpg'))
    annotation, result = str(dst / ANNOTATION), str(dst / 'results' / 'val.json')
    return {
        'make videos': ['-m', 'util_scripts.demo_videos', str(dst), *counts],
        'extract frames': ['-m', 'util_scripts.generate_video_jpgs', videos, jpgs, 'ucf101',
                           '--size', str(HEIGHT)],
        'write annotation': ['-m', 'util_scripts.ucf101_json', splits, jpgs, str(dst)],
        'train': [*main_py, *TRAIN_FLAGS.split(), '--n_epochs', str(args.n_epochs),
                  '--manual_seed', str(args.seed)],
        'infer': [*main_py, '--resume_path', f'results/save_{args.n_epochs}.pth', '--no_train',
                  '--no_val', '--inference', '--output_topk', str(len(MOTIONS))],
        'evaluate': ['-m', 'util_scripts.eval_accuracy', annotation, result, '-k', '1',
                     '--subset', 'val', '--ignore'],
    }


def run_stage(arguments: Sequence[str]) -> float:
    """Print a command and run it; its output goes where ours goes. Returns seconds.

    Raises CalledProcessError where it ends with an error, which it has told on stderr.
    """
    note('')
    note(f'$ python {shlex.join(arguments)}')
    begin = time.monotonic()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True,
                   env=ENVIRONMENT | {'PYTHONUNBUFFERED': '1'} | os.environ)
    return time.monotonic() - begin


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.demo',
                    'Make a small data set of videos, train on it and evaluate the result.')
    parser.add_argument('--dst', type=Path, default=ROOT / '.demo', metavar='DIR',
                        help='folder for everything that is made (default: .demo)')
    add_data_flags(parser)
    parser.add_argument('--n_epochs', type=POSITIVE, default=14, metavar='N',
                        help='epochs of training')
    return parser


def report_results(dst: Path, seconds: dict[str, float], seed: int, shown: Path) -> None:
    """Draw the pictures, write demo.json and print it."""
    from util_scripts.helpers import demo_results
    begin, results = time.monotonic(), dst / 'results'
    counts = demo_results.draw_pictures(dst / ANNOTATION, results, dst / 'jpg')
    seconds = {**seconds, 'draw pictures': time.monotonic() - begin}
    seconds['total'] = sum(seconds.values())
    accuracy, n_videos = float(counts.trace().double() / counts.sum()), int(counts.sum())
    report = {'accuracy': accuracy, 'n_videos': n_videos, 'chance': 1 / len(MOTIONS), 'seed': seed,
              'seconds': {stage: round(value, 1) for stage, value in seconds.items()}}
    write_text(results / 'demo.json', json.dumps(report, indent=1) + '\n')
    note('')
    note('seconds')
    for stage, value in seconds.items():
        note(f'  {stage:<16} {value:6.1f}')
    print(f'{accuracy:.1%} of {n_videos} unseen videos are classified right; by chance '
          f'{1 / len(MOTIONS):.1%} would be')
    names = 'curves.png', 'confusion.png', 'clips.png', 'demo.json'
    wrote(*(shown / name for name in names), then=command_line('report', shown))


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    dst = Path(os.path.realpath(args.dst))
    clear_folder(dst)
    shown = dst.relative_to(ROOT) if dst.is_relative_to(ROOT) else dst
    seconds = {}
    for name, value in ENVIRONMENT.items():
        note(f'$ export {name}={os.environ.get(name, value)}')
    try:
        for stage, arguments in commands(shown, args).items():
            seconds[stage] = run_stage([*arguments, *['--quiet'] * args.quiet])
    except subprocess.CalledProcessError as error:
        # A process that a signal ended has a negative status; shells count those from 128.
        status = error.returncode if error.returncode > 0 else 128 - error.returncode
        to_stderr(f'the demo stopped: stage "{stage}" ended with exit status {status}, for the '
                  'reason above')
        return status
    report_results(dst, seconds, args.seed, shown / 'results')
    return 0


if __name__ == '__main__':
    end_on_sigterm()  # left alone, it would leave the running command behind
    run(main)
