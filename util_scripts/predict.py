"""Say what is done in any video: no annotation, no extraction of frames.

    python -m util_scripts.predict clips/ a.mp4 --weights results/save_200.pth --timeline

Clips are cut and prepared as the inference of main.py does it, and scored as they are decoded: a
long video takes no more memory than a short one.
"""

import argparse
import csv
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import torch
from tqdm import tqdm

from datasets.frames import FrameError, JpgFrames
from datasets.presets import spatial_transform
from datasets.scaling import DEFAULT_FPS, SHORT_SIDE, Box, Cropper, Scaler
from datasets.video import Video, VideoError, Webcam, reason
from inference import ranked
from model import load_model, preprocessing_line
from runtime.errors import InputError, StopSignals, run
from runtime.files import replacing
from runtime.hardware import pick_device
from runtime.logs import Progress
from spatial_transforms import first_resize
from temporal_transforms import stream_windows
from util_scripts.helpers.captions import draw_scores, write_mp4
from util_scripts.helpers.utils import is_video, make_folder, n_of, printable, read_json, read_lines

DRAWN_LABELS = 3
CSV_COLUMNS = ('video', 'window', 'begin_sec', 'end_sec', 'rank', 'label', 'score')


# ---------------------------------------------------------------- frames of anything

class Frame(NamedTuple):
    """A frame, its number from 1, and when it is shown; pixels: uint8 (C, H, W)."""

    number: int
    begin_sec: float
    pixels: torch.Tensor


Transform = Callable[[torch.Tensor], torch.Tensor]
# Frames, their number in a second, and what says what was wrong with them.
Opened = tuple[Iterator[Frame], float, Callable[[], str | None]]


class FileSource:
    """A video file, or a camera: its frames, upright."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _open(self) -> Video:
        return Video(self.path)

    @contextmanager
    def opened(self, transform: Transform | None = None, every: int = 1) -> Iterator[Opened]:
        """(frames, fps, damage): `Frame`s one by one, and a function that says what was wrong.

        transform: what happens to the pixels, whose short side is that of extraction, of one frame;
                   resized only once, while decoding. None leaves frames in their own size
        every:     of so many frames, the first is given
        """
        with self._open() as video:
            numbered = self._numbered(video)
            yield _frames(numbered, video, transform, every), video.fps, lambda: video.damage

    def _numbered(self, video: Video) -> Iterator[tuple[int, av.VideoFrame]]:
        return enumerate(video.frames(), 1)


def _frames(numbered: Iterable[tuple[int, av.VideoFrame]], video: Video,
            transform: Transform | None, every: int) -> Iterator[Frame]:
    pixels, first_sec, begin_sec = None, None, 0.0
    for number, frame in numbered:
        if pixels is None:
            pixels = (_transformed(transform, video.pixel_aspect) if transform else
                      _whole(round(min(float(frame.width * video.pixel_aspect), frame.height)),
                             video.pixel_aspect))
        if frame.time is not None:
            first_sec = frame.time if first_sec is None else first_sec
            begin_sec = max(begin_sec, frame.time - first_sec)
        if number % every == 1 % every:
            yield Frame(number, begin_sec, pixels(frame))
        begin_sec += 1 / video.fps  # where the next has no time stamp


def _whole(short_side: int, pixel_aspect: Fraction) -> Callable[[av.VideoFrame], torch.Tensor]:
    scale = Scaler(short_side, pixel_aspect, 'rgb24')
    return lambda frame: torch.from_numpy(scale.pixels(frame)).permute(2, 0, 1)


def _transformed(transform: Transform,
                 pixel_aspect: Fraction) -> Callable[[av.VideoFrame], torch.Tensor]:
    """Pixels of a frame by a transform, whose first step, a resize, is a part of decoding."""
    rest = transform

    def plan(height: int, width: int) -> tuple[Box, tuple[int, int]]:
        nonlocal rest
        box, size, rest = first_resize(transform, height, width)
        return Box(*box), size
    crop = Cropper(plan, SHORT_SIDE, pixel_aspect)

    def pixels(frame: av.VideoFrame) -> torch.Tensor:
        planes = torch.from_numpy(crop.pixels(frame))
        return rest(planes)
    return pixels


class CameraSource(FileSource):
    """A camera by its number; Ctrl-C is the end of its video."""

    def __init__(self, number: int) -> None:
        super().__init__(Path(f'camera {number}'))
        self.number = number

    def _open(self) -> Video:
        return Webcam(self.number)

    def _numbered(self, video: Video) -> Iterator[tuple[int, av.VideoFrame]]:
        with StopSignals() as stop:
            for number, frame in enumerate(video.frames(), 1):
                yield number, frame
                if stop.signum:
                    return


class FolderSource:
    """A folder of frames, image_00001.jpg ..., of so many frames a second."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps

    @contextmanager
    def opened(self, transform: Transform | None = None, every: int = 1) -> Iterator[Opened]:
        """As FileSource has it, of frames as they are stored."""
        n_frames = JpgFrames().count(str(self.path))
        yield self._frames(n_frames, transform, every), self.fps, lambda: None

    def _frames(self, n_frames: int, transform: Transform | None, every: int) -> Iterator[Frame]:
        reader = JpgFrames()
        for number in range(1, n_frames + 1, every):
            pixels = reader.read(str(self.path), [number])[0]
            yield Frame(number, (number - 1) / self.fps, transform(pixels) if transform else pixels)


def find_sources(paths, fps):
    """A source for each video and folder of frames that is named or below a named folder.

    Raises InputError for a path that is not there, and for a folder with neither in it.
    """
    sources = {}
    for path in paths:
        if path.is_file():
            sources[path] = FileSource(path)
            continue
        if not path.exists():
            raise InputError(f'{path}: no such file; give videos, or folders of videos or frames')
        found = dict(_below(path, fps))
        if not found:
            raise InputError(f'{path}: no video and no frames (image_00001.jpg) in it or below; '
                             'give another folder')
        sources.update(found)
    return list(sources.values())


def _below(folder, fps):
    for parent, folders, files in os.walk(folder):
        folders.sort()
        if 'image_00001.jpg' in files:
            yield Path(parent), FolderSource(Path(parent), fps)
        for name in sorted(filter(is_video, files)):
            yield Path(parent, name), FileSource(Path(parent, name))


# ---------------------------------------------------------------- scores

class Window(NamedTuple):
    """segment: (first frame, last frame + 1); scores: (n_classes,) in 0...1."""

    segment: tuple
    begin_sec: float
    end_sec: float
    scores: torch.Tensor


def classify(frames, fps, network, info, *, stride=16, batch_size=16):
    """Yield a `Window` for each window of `frames`, as soon as a batch of them is complete.

    frames: cropped already, and each --sample_t_stride'th alone

    They are the windows of main.py's inference with --inference_stride `stride`.
    """
    device = next(network.parameters()).device
    windows = stream_windows(frames, info.opts.sample_duration, stride)
    while batch := list(itertools.islice(windows, batch_size)):
        clips = torch.stack([torch.stack([frame.pixels for frame in window], dim=1)
                             for window in batch])
        with torch.inference_mode():
            logits = network(info.normalize(clips.to(device)))
        for window, scores in zip(batch, info.scores(logits.float()).cpu()):
            first, last = window[0], max(window, key=lambda frame: frame.number)
            yield Window((first.number, last.number + 1), first.begin_sec,
                         last.begin_sec + 1 / fps, scores)


@dataclass
class Prediction:
    """What is said of one video.

    result:  [{'label', 'score'}, ...] of the scores averaged over the windows, best first
    windows: [{'segment', 'begin_sec', 'end_sec', 'result'}, ...]
    damage:  what was wrong with the file, None for nothing
    """

    path: Path
    result: list = field(default_factory=list)
    windows: list = field(default_factory=list)
    end_sec: float = 0.0
    damage: str | None = None


def predict_video(source, network, info, *, topk=5, stride=16, batch_size=16, on_window=None):
    """The `Prediction` of a source; `on_window` is called with each entry of its windows.

    Raises VideoError or FrameError where no frame can be read.
    """
    prediction = Prediction(source.path)
    with source.opened(spatial_transform(info.opts, 'inference'),
                       info.opts.sample_t_stride) as (frames, fps, damage):
        total = torch.zeros(len(info.class_names), dtype=torch.float64)
        for window in classify(frames, fps, network, info, stride=stride, batch_size=batch_size):
            total += window.scores
            entry = {'segment': list(window.segment), 'begin_sec': round(window.begin_sec, 3),
                     'end_sec': round(window.end_sec, 3),
                     'result': ranked(window.scores, info.class_names, topk)}
            prediction.windows.append(entry)
            prediction.end_sec = entry['end_sec']
            if on_window:
                on_window(entry)
        prediction.damage = damage()
    mean = total / max(1, len(prediction.windows))
    prediction.result = ranked(mean, info.class_names, topk)
    return prediction


# ---------------------------------------------------------------- what comes out

def as_lines(prediction, timeline):
    """The table of one video."""
    lines = [f'{prediction.path}  ({prediction.end_sec:.2f} s, '
             f'{n_of(len(prediction.windows), "window")})']
    lines += [f'    {entry["score"]:.3f}  {entry["label"]}' for entry in prediction.result]
    if timeline:
        lines += [window_line(window) for window in prediction.windows]
    return lines


def window_line(window, n_labels=DRAWN_LABELS):
    """    0.00 -   0.64 s  0.912 run  0.050 walk"""
    named = '  '.join(f'{entry["score"]:.3f} {entry["label"]}'
                      for entry in window['result'][:n_labels])
    return f'    {window["begin_sec"]:7.2f} - {window["end_sec"]:7.2f} s  {named}'


def csv_rows(prediction, timeline):
    """Rows of CSV_COLUMNS: the video's, without a window; with `timeline` those of windows."""
    parts = [('', 0.0, prediction.end_sec, prediction.result)]
    if timeline:
        parts += [(number, window['begin_sec'], window['end_sec'], window['result'])
                  for number, window in enumerate(prediction.windows, 1)]
    for number, begin_sec, end_sec, result in parts:
        for rank, entry in enumerate(result, 1):
            yield (prediction.path, number, begin_sec, end_sec, rank, entry['label'],
                   f'{entry["score"]:.6f}')


def write_csv(path, predictions, timeline):
    """A row a label; file names that are no UTF-8 are written with escapes."""
    with replacing(path) as temporary:
        with open(temporary, 'w', newline='', encoding='utf-8', errors='backslashreplace') as file:
            writer = csv.writer(file)
            writer.writerow(CSV_COLUMNS)
            for prediction in predictions:
                writer.writerows(csv_rows(prediction, timeline))


def write_json(path, predictions, failures, timeline):
    """`results` as main.py's inference has them, `failed`, and with `timeline` the windows."""
    data = {'results': {str(prediction.path): prediction.result for prediction in predictions},
            'failed': failures}
    if timeline:
        data['timeline'] = {str(prediction.path): prediction.windows for prediction in predictions}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + '\n')


def annotate(source, prediction, path):
    """Write the video with the best labels of the nearest window on each frame, as H.264."""
    middles = [sum(window['segment']) / 2 for window in prediction.windows]

    def pictures(frames):
        nearest = 0
        for frame in frames:
            while (nearest + 1 < len(middles)
                   and sum(middles[nearest:nearest + 2]) / 2 < frame.number):
                nearest += 1
            entries = prediction.windows[nearest]['result'][:DRAWN_LABELS]
            yield frame.begin_sec, draw_scores(frame.pixels.permute(1, 2, 0).numpy(), entries)
    with replacing(path) as temporary, source.opened() as (frames, fps, _):
        write_mp4(temporary, pictures(frames), fps)


def annotated_paths(sources, path):
    """{source: file}: `path` itself for one video, else a file a video in the folder `path`.

    Raises InputError for one file of several videos, and where a video would replace itself.
    """
    if path.suffix.lower() == '.mp4':
        if len(sources) > 1:
            raise InputError(f'--annotate {path}: is one file, and there are {len(sources)} '
                             'videos; give a folder')
        paths = {sources[0]: path}
    else:
        paths = {}
        for source in sources:
            target = path / f'{source.path.name.removesuffix(source.path.suffix)}.mp4'
            number = 1
            while target in paths.values():
                number += 1
                target = target.with_stem(f'{source.path.stem}_{number}')
            paths[source] = target
    originals = {source.path.resolve() for source in sources}
    for target in paths.values():
        if target.resolve() in originals:
            raise InputError(f'--annotate {path}: would replace {target}, which is one of the '
                             'videos; give another place')
        make_folder(target.parent)
    return paths


# ---------------------------------------------------------------- the command

def read_labels(path):
    """Class names of a text file, one a line, or of a JSON file: a list, or `labels` in it."""
    if path.suffix != '.json':
        return tuple(line for _, line in read_lines(path, 'a class name a line'))
    names = read_json(path, 'an object with "labels"').get('labels')
    if not isinstance(names, list):
        raise InputError(f'{path}: has no "labels", the list of class names; give another file')
    return tuple(map(str, names))


def predict_all(sources, network, info, args):
    """(predictions, {path: why it failed}); each video's table is printed when it is done."""
    targets = annotated_paths(sources, args.annotate) if args.annotate else {}
    predictions, failures, n_clips, begin = [], {}, 0, time.monotonic()

    def on_window(window):
        nonlocal n_clips
        n_clips += 1
        progress.update(0)
        if args.webcam is not None:
            say(window_line(window))
    with Progress(len(sources), 'predict', unit='video', describe=lambda: {
            'clips/s': n_clips / (time.monotonic() - begin)}) as progress:
        for source in sources:
            try:
                prediction = predict_video(
                    source, network, info, topk=args.topk, stride=args.stride,
                    batch_size=1 if args.webcam is not None else args.batch_size,
                    on_window=on_window)
            except (VideoError, FrameError, av.error.FFmpegError) as error:
                failures[str(source.path)] = reason(error)
            else:
                predictions.append(prediction)
                for line in as_lines(prediction, args.timeline and args.webcam is None):
                    say(line)
                if source in targets:
                    annotate(source, prediction, targets[source])
            progress.update(1)
        rate = n_clips / (time.monotonic() - begin)
    n_damaged = sum(bool(prediction.damage) for prediction in predictions)
    say(f'{n_of(len(predictions), "video")}, {n_of(n_clips, "clip")}, {rate:.1f} clips/s; '
        f'{n_damaged} damaged, {len(failures)} failed')
    return predictions, failures


def say(line, file=None):
    """Print a line, above the progress bar."""
    tqdm.write(printable(line), file=file or sys.stdout)


def build_parser():
    def at_least(low):
        def parse(text):
            if not text.isdecimal() or int(text) < low:
                raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from {low}')
            return int(text)
        return parse

    parser = argparse.ArgumentParser(
        description='Say what is done in videos, by a trained network.',
        epilog='Exit status: 0, 1 where a video cannot be read or is damaged, 2 for a wrong '
               'argument.')
    add = parser.add_argument
    add('files', nargs='*', type=Path, metavar='FILE',
        help='videos, folders of videos, folders of frames (image_00001.jpg ...)')
    add('--webcam', type=at_least(0), metavar='N', help='camera N, from 0, until Ctrl-C')
    add('--weights', type=Path, required=True, metavar='FILE',
        help='checkpoint of main.py, or released weights; what it says of class names, clips and '
             'normalisation is taken')
    add('--labels', type=Path, metavar='FILE',
        help='class names for weights that hold none, in the order of their classes: a text file '
             'with a name a line, or an annotation .json')
    add('--topk', type=at_least(1), default=5, metavar='K', help='labels a video (default: 5)')
    add('--stride', type=at_least(1), default=16, metavar='FRAMES',
        help='a window begins every so many frames (default: 16)')
    add('--batch_size', type=at_least(1), default=16, metavar='CLIPS',
        help='windows that the network sees at once (default: 16)')
    add('--timeline', action='store_true', help='also what each window says, with its seconds')
    add('--json', type=Path, metavar='FILE', help='write the results there, as main.py does')
    add('--csv', type=Path, metavar='FILE', help='write them as a table, a row a label')
    add('--annotate', type=Path, metavar='OUT',
        help=f'write the video with the running top {DRAWN_LABELS} drawn on it: a .mp4, or a '
             'folder for several')
    add('--fps', type=float, default=DEFAULT_FPS, metavar='RATE',
        help='frames a second of folders of frames, for time stamps (default: %(default)s)')
    add('--no_cuda', action='store_true', help='run on the CPU')
    return parser


def check(args):
    """Raise InputError where arguments do not go together."""
    rules = [
        (not args.files and args.webcam is None, 'nothing to predict: name videos, or --webcam 0'),
        (args.files and args.webcam is not None, 'files and --webcam are both given: drop one'),
        (args.annotate and args.webcam is not None,
         '--annotate reads a video twice, which a camera is not: drop it'),
        (not 0 < args.fps < 1e6, f'--fps {args.fps}: give a number of frames above 0'),
    ]
    for broken, sentence in rules:
        if broken:
            raise InputError(sentence)


def main(argv=None):
    args = build_parser().parse_args(argv)
    check(args)
    sources = ([CameraSource(args.webcam)] if args.webcam is not None
               else find_sources(args.files, args.fps))
    network, info = load_model(args.weights, pick_device(args.no_cuda),
                               read_labels(args.labels) if args.labels else None)
    if info.opts.input_type == 'flow':
        raise InputError(f'{args.weights}: takes optical flow, which videos do not hold; give '
                         'weights of an rgb network')
    say(f'{args.weights}: {info.opts.model}-{info.opts.model_depth}, {len(info.class_names)} '
        f'classes, {info.opts.sample_duration} frames of {info.opts.sample_size} pixels in '
        f'{preprocessing_line(info.opts)}', sys.stderr)
    if not info.has_names:
        say(f'{args.weights}: holds no class names, so numbers are shown; give --labels',
            sys.stderr)
    for path in filter(None, (args.json, args.csv)):
        make_folder(path.parent)  # not found out when all is done
    predictions, failures = predict_all(sources, network, info, args)
    if args.json:
        write_json(args.json, predictions, failures, args.timeline)
    if args.csv:
        write_csv(args.csv, predictions, args.timeline)
    damaged = [prediction for prediction in predictions if prediction.damage]
    for prediction in damaged:
        say(f'damaged: {prediction.path}: {prediction.damage}, the frames that decode are used',
            sys.stderr)
    for path, why in failures.items():
        say(f'failed: {path}: {why}', sys.stderr)
    return 1 if failures or damaged else 0


if __name__ == '__main__':
    run(main)
