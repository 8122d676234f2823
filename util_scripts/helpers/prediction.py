"""Predictions on videos as they are: scores window by window, and the files and lines they make.

Clips are cut and prepared as the inference of main.py does it, and scored as they are decoded: a
long video takes no more memory than a short one.
"""

import csv
import itertools
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import av
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from datasets.frames import FrameError
from datasets.presets import spatial_transform
from datasets.video import VideoError, reason
from inference import ranked
from model import load_model, preprocessing_line
from models import network_name
from runtime.errors import InputError
from runtime.files import replacing
from runtime.hardware import pick_device
from runtime.logs import Progress
from temporal_transforms import stream_windows
from util_scripts.helpers.captions import draw_scores
from util_scripts.helpers.files import make_folder, read_json, read_lines, read_text
from util_scripts.helpers.text import n_of, printable
from util_scripts.helpers.video_sources import CameraSource, Frame, Source, find_sources
from util_scripts.helpers.video_writing import write_mp4

DRAWN_LABELS = 3
CSV_COLUMNS = ('video', 'window', 'begin_sec', 'end_sec', 'rank', 'label', 'score')


# ---------------------------------------------------------------- scores

class Window(NamedTuple):
    """segment: (first frame, last frame + 1); scores: (n_classes,) in 0...1."""

    segment: tuple[int, int]
    begin_sec: float
    end_sec: float
    scores: torch.Tensor


def classify(frames: Iterable[Frame], fps: float, network: nn.Module, info: Any, *,
             stride: int = 16, batch_size: int = 16) -> Iterator[Window]:
    """Yield a `Window` for each window of `frames`, as soon as a batch of them is complete.

    They are the windows of main.py's inference with --inference_stride `stride`.
    """
    device = next(network.parameters()).device
    crop = spatial_transform(info.opts, 'inference')
    chosen = (frame._replace(pixels=crop(frame.pixels))
              for frame in itertools.islice(frames, 0, None, info.opts.sample_t_stride))
    windows = stream_windows(chosen, info.opts.sample_duration, stride)
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
    result: list[dict[str, Any]] = field(default_factory=list)
    windows: list[dict[str, Any]] = field(default_factory=list)
    end_sec: float = 0.0
    damage: str | None = None


def predict_video(source: Source, network: nn.Module, info: Any, *, topk: int = 5,
                  stride: int = 16, batch_size: int = 16,
                  on_window: Callable[[dict[str, Any]], None] | None = None) -> Prediction:
    """The `Prediction` of a source; `on_window` is called with each entry of its windows.

    Raises VideoError or FrameError where no frame can be read.
    """
    prediction = Prediction(source.path)
    with source.opened() as (frames, fps, damage):
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

def as_lines(prediction: Prediction, timeline: bool) -> list[str]:
    """The table of one video."""
    lines = [f'{prediction.path}  ({prediction.end_sec:.2f} s, '
             f'{n_of(len(prediction.windows), "window")})']
    lines += [f'    {entry["score"]:.3f}  {entry["label"]}' for entry in prediction.result]
    if timeline:
        lines += [window_line(window) for window in prediction.windows]
    return lines


def window_line(window: dict[str, Any], n_labels: int = DRAWN_LABELS) -> str:
    """    0.00 -   0.64 s  0.912 run  0.050 walk"""
    named = '  '.join(f'{entry["score"]:.3f} {entry["label"]}'
                      for entry in window['result'][:n_labels])
    return f'    {window["begin_sec"]:7.2f} - {window["end_sec"]:7.2f} s  {named}'


def csv_rows(prediction: Prediction, timeline: bool) -> Iterator[tuple[Any, ...]]:
    """Rows of CSV_COLUMNS: the video's, without a window; with `timeline` those of windows."""
    parts: list[tuple[Any, ...]] = [('', 0.0, prediction.end_sec, prediction.result)]
    if timeline:
        parts += [(number, window['begin_sec'], window['end_sec'], window['result'])
                  for number, window in enumerate(prediction.windows, 1)]
    for number, begin_sec, end_sec, result in parts:
        for rank, entry in enumerate(result, 1):
            yield (prediction.path, number, begin_sec, end_sec, rank, entry['label'],
                   f'{entry["score"]:.6f}')


def write_csv(path: Path, predictions: Iterable[Prediction], timeline: bool) -> None:
    """One row per label; file names that are no UTF-8 are written with escapes."""
    with replacing(path) as temporary:
        with open(temporary, 'w', newline='', encoding='utf-8', errors='backslashreplace') as file:
            writer = csv.writer(file)
            writer.writerow(CSV_COLUMNS)
            for prediction in predictions:
                writer.writerows(csv_rows(prediction, timeline))


def write_json(path: Path, predictions: Sequence[Prediction], failures: dict[str, str],
               timeline: bool) -> None:
    """`results` as main.py's inference has them, `failed`, and with `timeline` the windows."""
    results = {str(prediction.path): prediction.result for prediction in predictions}
    data: dict[str, Any] = {'results': results, 'failed': failures}
    if timeline:
        data['timeline'] = {str(prediction.path): prediction.windows for prediction in predictions}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + '\n')


def annotate(source: Source, prediction: Prediction, path: Path) -> None:
    """Write the video with the best labels of the nearest window on each frame, as H.264."""
    middles = [sum(window['segment']) / 2 for window in prediction.windows]

    def pictures(frames: Iterable[Frame]) -> Iterator[tuple[float, np.ndarray]]:
        nearest = 0
        for frame in frames:
            while (nearest + 1 < len(middles)
                   and sum(middles[nearest:nearest + 2]) / 2 < frame.number):
                nearest += 1
            entries = prediction.windows[nearest]['result'][:DRAWN_LABELS]
            yield frame.begin_sec, draw_scores(frame.pixels.permute(1, 2, 0).numpy(), entries)
    with replacing(path) as temporary, source.opened(short_side=None) as (frames, fps, _):
        write_mp4(temporary, pictures(frames), fps)


def annotated_paths(sources: Sequence[Source], path: Path) -> dict[Source, Path]:
    """{source: file}: `path` itself for one video, else one file per video in the folder `path`.

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


# ---------------------------------------------------------------- the command's work

def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in the order of a network's outputs.

    Of a text file, one per line; of the training .csv of Kinetics or Moments in Time, in the order
    in which its labels first appear; of an annotation .json, its `labels`. Raises InputError.
    """
    if path.suffix == '.csv':
        return _labels_by_appearance(path)
    if path.suffix != '.json':
        return tuple(line for _, line in read_lines(path, 'a class name a line'))
    names = read_json(path, 'an object with "labels"').get('labels')
    if not isinstance(names, list):
        raise InputError(f'{path}: has no "labels", the list of class names; give another file')
    return tuple(map(str, names))


def _labels_by_appearance(path: Path) -> tuple[str, ...]:
    """Of a table with a column `label`, or of one without a title: file name, label, ..."""
    rows = [row for row in csv.reader(read_text(path, 'a training csv').splitlines()) if row]
    if not rows:
        raise InputError(f'{path}: is empty; give the csv of the videos of training')
    has_title = 'label' in rows[0]
    column = rows[0].index('label') if has_title else 1
    if any(len(row) <= column for row in rows):
        raise InputError(f'{path}: has rows without a label; give the csv of the videos of '
                         'training')
    return tuple(dict.fromkeys(row[column] for row in rows[has_title:]))


def predict_all(sources: Sequence[Source], network: nn.Module, info: Any, args: Namespace
                ) -> tuple[list[Prediction], dict[str, str]]:
    """(predictions, {path: why it failed}); each video's table is printed when it is done."""
    targets = annotated_paths(sources, args.annotate) if args.annotate else {}
    predictions: list[Prediction] = []
    failures: dict[str, str] = {}
    is_camera, n_clips, begin = args.webcam is not None, 0, time.monotonic()

    def on_window(window: dict[str, Any]) -> None:
        nonlocal n_clips
        n_clips += 1
        progress.update(0)
        if is_camera:
            say(window_line(window))
    with Progress(len(sources), 'predict', unit='video', describe=lambda: {
            'clips/s': n_clips / (time.monotonic() - begin)}) as progress:
        for source in sources:
            try:
                prediction = predict_video(
                    source, network, info, topk=args.topk, stride=args.stride,
                    batch_size=1 if is_camera else args.batch_size, on_window=on_window)
            except (VideoError, FrameError, av.error.FFmpegError) as error:
                failures[str(source.path)] = reason(error)
            else:
                predictions.append(prediction)
                for line in as_lines(prediction, args.timeline and not is_camera):
                    say(line)
                if source in targets:
                    annotate(source, prediction, targets[source])
            progress.update(1)
        rate = n_clips / (time.monotonic() - begin)
    n_damaged = sum(bool(prediction.damage) for prediction in predictions)
    say(f'{n_of(len(predictions), "video")}, {n_of(n_clips, "clip")}, {rate:.1f} clips/s; '
        f'{n_damaged} damaged, {len(failures)} failed')
    return predictions, failures


def predict_files(args: Namespace) -> int:
    """Predict what the flags of `predict` name; the exit status. Raises InputError."""
    sources: list[Source] = ([CameraSource(args.webcam)] if args.webcam is not None
                             else find_sources(args.files, args.fps))
    network, info = load_model(args.weights, pick_device(args.no_cuda),
                               read_labels(args.labels) if args.labels else None)
    if info.opts.input_type == 'flow':
        raise InputError(f'{args.weights}: takes optical flow, which videos do not hold; give '
                         'weights of an rgb network')
    say(f'{args.weights}: {network_name(network.options)}, {len(info.class_names)} '
        f'classes, {info.opts.sample_duration} frames of {info.opts.sample_size} pixels in '
        f'{preprocessing_line(info.opts)}', sys.stderr)
    if not info.has_names:
        say(f'{args.weights}: holds no class names, and their order is not known, so numbers are '
            'shown; give --labels with the csv that it was trained on, the annotation .json made '
            'of it, or a list', sys.stderr)
    elif info.names_are_known:
        say(f'{args.weights}: holds no class names; those of Kinetics-400 are taken, as all such '
            'weights are known to have them', sys.stderr)
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
    for name, why in failures.items():
        say(f'failed: {name}: {why}', sys.stderr)
    return 1 if failures or damaged else 0


def say(line: object, file: TextIO | None = None) -> None:
    """Print a line, above the progress bar."""
    tqdm.write(printable(line), file=file or sys.stdout)
