"""Predictions on videos as they are: scores window by window, and the files and lines they make.

Clips are cut and prepared as the inference of main.py does it, and scored as they are decoded: a
long video takes no more memory than a short one.
"""

import csv
import itertools
import json
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import av
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from checkpoint import fingerprint
from datasets.frames import FrameError
from datasets.presets import spatial_transform
from datasets.video import VideoError, reason
from inference import ranked
from model import load_model, preprocessing_line
from models import network_name
from models.base import Classifier
from runtime.errors import InputError, Stopped, StopSignals
from runtime.files import replacing, write_text
from runtime.hardware import pick_device
from runtime.logs import Progress
from runtime.output import for_stderr, note, one_line, printable, wrote
from tasks import check_finite, finite_or_nan
from temporal_transforms import stream_windows
from util_scripts.helpers.captions import draw_events, draw_scores
from util_scripts.helpers.events import (LOW_SHARE, Event, EventFinder, Note, Rules, as_webvtt,
                                         event_lines, finished, in_order)
from util_scripts.helpers.files import make_folder, make_place, read_json, read_lines
from util_scripts.helpers.kept_windows import KeptWindows, Window
from util_scripts.helpers.text import n_of, nearest_or_all
from util_scripts.helpers.video_lists import plain_name, read_rows
from util_scripts.helpers.video_sources import (FileSource, Frame, Source, find_sources,
                                                paths_in_folder)
from util_scripts.helpers.video_writing import write_mp4

DRAWN_LABELS = 3
DEFAULT_TOPK = 5
CSV_COLUMNS = ('video', 'window', 'begin_sec', 'end_sec', 'rank', 'label', 'score')
EVENT_COLUMNS = ('video', 'label', 'begin_sec', 'end_sec', 'peak_sec', 'score')


# ---------------------------------------------------------------- scores

def classify(frames: Iterable[Frame], fps: float, network: nn.Module, info: Any, *,
             stride: int = 16, batch_size: int = 16, n_earlier: int = 0,
             is_stopped: Callable[[], object] = lambda: False) -> Iterator[Window]:
    """Yield a `Window` for each window of `frames`, as soon as a batch of them is complete.

    frames:     cropped already, and each --sample_t_stride'th alone
    n_earlier:  so many windows are passed over
    is_stopped: once it is true, no batch follows

    They are the windows of main.py's inference with --inference_stride `stride`.
    """
    windows = itertools.islice(
        stream_windows(_until(frames, is_stopped), info.opts.sample_duration, stride),
        n_earlier, None)
    return scored(windows, fps, network, info, batch_size=batch_size, is_stopped=is_stopped)


def scored(windows: Iterable[Sequence[Frame]], fps: float, network: nn.Module, info: Any, *,
           batch_size: int = 1, is_stopped: Callable[[], object] = lambda: False
           ) -> Iterator[Window]:
    """As `classify`, of windows that are cut already."""
    device = next(network.parameters()).device
    for batch, clips in batches(windows, batch_size):
        if is_stopped():
            return
        with torch.inference_mode():
            logits = network(info.normalize(clips.to(device)))
        found = finite_or_nan(info.scores(logits.float()), logits).cpu()
        for window, scores in zip(batch, found):
            first, last = window[0], max(window, key=lambda frame: frame.number)
            yield Window((first.number, last.number + 1), first.begin_sec,
                         last.begin_sec + 1 / fps, scores)


def batches(windows: Iterable[Sequence[Frame]], size: int
            ) -> Iterator[tuple[list[Sequence[Frame]], torch.Tensor]]:
    """(windows, their clips (N, C, T, H, W)), up to `size` of them at once."""
    windows = iter(windows)
    while batch := list(itertools.islice(windows, size)):
        yield batch, torch.stack([torch.stack([frame.pixels for frame in window], dim=1)
                                  for window in batch])


def _until(frames: Iterable[Frame], is_stopped: Callable[[], object]) -> Iterator[Frame]:
    """The frames up to a request to stop, which is seen before the windows of their end are."""
    for frame in frames:
        yield frame
        if is_stopped():
            return


@dataclass
class Prediction:
    """What is said of one video.

    result:  [{'label', 'score'}, ...] of the scores averaged over the windows, best first
    windows: [{'segment', 'begin_sec', 'end_sec', 'result'}, ...]
    events:  in the order of time; None where none were looked for
    damage:  what was wrong with the file, None for nothing
    is_whole: False where a request to stop ended it
    """

    path: Path | str
    result: list[dict[str, Any]] = field(default_factory=list)
    windows: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] | None = None
    end_sec: float = 0.0
    damage: str | None = None
    is_whole: bool = True


class Collected:
    """What the windows of a video add up to, in a `Prediction`.

    finder:    finds the events, if there is one
    on_window: called with each entry of the windows
    on_note:   called with what the finder notes
    keeps_windows, keeps_events: False where a stream may go on for days, and nothing asks for them
    """

    def __init__(self, prediction: Prediction, info: Any, topk: int, finder: EventFinder | None, *,
                 on_window: Callable[[dict[str, Any]], object] | None = None,
                 on_note: Callable[[Note], object] | None = None, keeps_windows: bool = True,
                 keeps_events: bool = True) -> None:
        self._prediction, self._info, self._topk, self._finder = prediction, info, topk, finder
        self._on_window, self._on_note = on_window, on_note
        self._keeps_windows, self._keeps_events = keeps_windows, keeps_events
        self._total = torch.zeros(len(info.class_names), dtype=torch.float64)
        self._notes: list[Note] = []
        self.n_windows = 0

    def add(self, window: Window) -> None:
        self.n_windows += 1
        self._total += window.scores
        if self._finder:
            self._hear(self._finder.add(window.begin_sec, window.end_sec, window.scores))
        self._prediction.end_sec = round(window.end_sec, 3)
        entry = {'segment': list(window.segment), 'begin_sec': round(window.begin_sec, 3),
                 'end_sec': self._prediction.end_sec,
                 'result': ranked(window.scores, self._info.class_names, self._topk)}
        if self._keeps_windows:
            self._prediction.windows.append(entry)
        if self._on_window:
            self._on_window(entry)

    def end_events(self) -> None:
        """Nothing follows what was added so far, at least not soon."""
        if self._finder:
            self._hear(self._finder.finish())

    def finish(self) -> None:
        """Fill in the events, and the classes of the whole video."""
        self.end_events()
        if self._finder:
            self._prediction.events = in_order(finished(self._notes))
        if self.n_windows:
            self._prediction.result = ranked(self._total / self.n_windows, self._info.class_names,
                                             self._topk)

    def _hear(self, notes: Iterable[Note]) -> None:
        for event_note in notes:
            if self._keeps_events:
                self._notes.append(event_note)
            if self._on_note:
                self._on_note(event_note)


def predict_video(source: Source, network: nn.Module, info: Any, *, topk: int = 5,
                  stride: int = 16, batch_size: int = 16, kept: KeptWindows | None = None,
                  finder: EventFinder | None = None,
                  on_window: Callable[[dict[str, Any]], None] | None = None,
                  is_stopped: Callable[[], object] = lambda: False) -> Prediction:
    """The `Prediction` of a source; `finder` and `on_window` are those of `Collected`.

    kept:       the windows in it are taken over, and others are added
    is_stopped: once it is true, the windows so far are all

    Raises VideoError or FrameError where no frame can be read, InputError for scores that are not
    finite.
    """
    kept = kept or KeptWindows(None, {}, print)
    prediction = Prediction(source.path)
    collected = Collected(prediction, info, topk, finder, on_window=on_window)
    earlier, end = kept.of(source.path)
    for window in earlier:
        collected.add(window)
    if end:
        prediction.damage = end['damage']
    else:
        with source.opened(spatial_transform(info.opts, 'inference'),
                           info.opts.sample_t_stride) as (frames, fps, damage):
            for window in classify(frames, fps, network, info, stride=stride,
                                   batch_size=batch_size, n_earlier=len(earlier),
                                   is_stopped=is_stopped):
                check_finite(source.path, window.scores)
                kept.add(source.path, collected.n_windows + 1, window)
                collected.add(window)
            prediction.is_whole = not is_stopped()
            if prediction.is_whole:
                prediction.damage = damage()
                kept.end(source.path, prediction.damage)
    collected.finish()
    return prediction


# ---------------------------------------------------------------- what comes out

def as_lines(prediction: Prediction, timeline: bool) -> list[str]:
    """The table of one video."""
    lines = [f'{prediction.path}  ({prediction.end_sec:.2f} s, '
             f'{n_of(len(prediction.windows), "window")})']
    lines += [f'    {entry["score"]:.3f}  {entry["label"]}' for entry in prediction.result]
    if timeline:
        lines += [window_line(window) for window in prediction.windows]
    if prediction.events is not None:
        lines += ['  events:', *event_lines(prediction.events, prediction.end_sec)]
    return lines


def window_line(window: dict[str, Any]) -> str:
    """    0.00 -   0.64 s  0.912 run  0.050 walk"""
    named = '  '.join(f'{entry["score"]:.3f} {entry["label"]}'
                      for entry in window['result'][:DRAWN_LABELS])
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


def write_csv(path: Path, predictions: Iterable[Prediction], timeline: bool,
              has_events: bool = False) -> None:
    """One row per label, or with `has_events` per event; control characters of names, and bytes
    that are no UTF-8, are written as escapes."""
    with replacing(path) as temporary:
        with open(temporary, 'w', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            writer.writerow(EVENT_COLUMNS if has_events else CSV_COLUMNS)
            for prediction in predictions:
                rows = ((prediction.path, *event.as_json().values()) for event in
                        prediction.events or ()) if has_events else csv_rows(prediction, timeline)
                writer.writerows(map(one_line, row) for row in rows)


def write_json(path: Path, predictions: Sequence[Prediction], failures: dict[str, str],
               timeline: bool) -> None:
    """`results` as main.py's inference has them, `failed`, with `timeline` the windows, and the
    events that were looked for."""
    results = {str(prediction.path): prediction.result for prediction in predictions}
    data: dict[str, Any] = {'results': results, 'failed': failures}
    if timeline:
        data['timeline'] = {str(prediction.path): prediction.windows for prediction in predictions}
    events = {str(prediction.path): [event.as_json() for event in prediction.events]
              for prediction in predictions if prediction.events is not None}
    if events:
        data['events'] = events
    write_text(path, json.dumps(data, indent=1) + '\n')


def annotate(source: Source, prediction: Prediction, path: Path,
             is_stopped: Callable[[], object] = lambda: False) -> str | None:
    """Write the video with the time and the best labels of the nearest window on each frame, as
    H.264, and with its sound; why sound is missing or ends early, None where it does not.

    Raises Stopped where `is_stopped` is true before it is complete: then there is no file.
    """
    bars = [(event.label, event.begin_sec, event.end_sec) for event in prediction.events or ()]
    middles = [sum(window['segment']) / 2 for window in prediction.windows]

    def pictures(frames: Iterable[Frame]) -> Iterator[tuple[float, np.ndarray]]:
        at = 0
        for frame in frames:
            if is_stopped():
                raise Stopped(0, '')
            while at + 1 < len(middles) and sum(middles[at:at + 2]) / 2 < frame.number:
                at += 1
            entries = prediction.windows[at]['result'][:DRAWN_LABELS]
            picture = draw_scores(frame.pixels.permute(1, 2, 0).numpy(), entries, frame.begin_sec)
            if prediction.events is not None:
                picture = draw_events(picture, bars, frame.begin_sec, prediction.end_sec)
            yield frame.begin_sec, picture
    sound_path = source.path if isinstance(source, FileSource) else None
    with replacing(path) as temporary, source.opened() as (frames, fps, _):
        return write_mp4(temporary, pictures(frames), fps, sound_path)


def output_paths(sources: Sequence[Source], path: Path, suffix: str, flag: str
                 ) -> dict[Source, Path]:
    """{source: file}: `path` itself if it has the suffix, of one video, else one file per video in
    the folder `path`.

    Raises InputError for one file of several videos, and where a video would replace itself.
    """
    if path.suffix.lower() == suffix:
        if len(sources) > 1:
            raise InputError(f'{flag} {path}: is one file, and there are {len(sources)} '
                             'videos; give a folder')
        paths = {sources[0]: path}
    else:
        paths = paths_in_folder(sources, path, suffix)
    originals = {os.path.realpath(source.path) for source in sources}
    for target in paths.values():
        if os.path.realpath(target) in originals:
            raise InputError(f'{flag} {path}: would replace {target}, which is one of the '
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
    rows = [row for _, row in read_rows(path, path.parent, 'a training csv')]
    if not rows:
        raise InputError(f'{path}: is empty; give the csv of the videos of training')
    names = list(map(plain_name, rows[0]))
    has_title = 'label' in names
    column = names.index('label') if has_title else 1
    if any(len(row) <= column for row in rows):
        raise InputError(f'{path}: has rows without a label; give the csv of the videos of '
                         'training')
    return tuple(dict.fromkeys(row[column] for row in rows[has_title:]))


class Predicting:
    """The work of one `predict`: its sources one after the other, up to a request to stop.

    predictions, failures: of what was read, and {path: why it failed}
    written:               the annotated videos
    """

    def __init__(self, sources: Sequence[Source], network: nn.Module, info: Any, args: Namespace,
                 kept: KeptWindows, is_stopped: Callable[[], object]) -> None:
        self._sources, self._network, self._info, self._args = sources, network, info, args
        self._kept, self._is_stopped = kept, is_stopped
        self._targets = (output_paths(sources, args.annotate, '.mp4', '--annotate')
                         if args.annotate else {})
        self._subtitles = output_paths(sources, args.vtt, '.vtt', '--vtt') if args.vtt else {}
        self._rules = rules_of(args, info) if args.events else None
        self.predictions: list[Prediction] = []
        self.failures: dict[str, str] = {}
        self.written: list[Path] = []
        self._n_clips = 0
        self._begin = time.monotonic()

    def run(self) -> None:
        """Predict; each video's table is printed when it is done. The bar counts seconds of
        videos."""
        lengths = [source.length_sec() for source in self._sources]
        with Progress(round(sum(lengths)), 'predict', unit='second',
                      describe=lambda: {'clips/s': self._rate()}) as self._progress:
            for number, source in enumerate(self._sources, 1):
                self._begin_sec = self._shown_sec = round(sum(lengths[:number - 1]))
                self._predict(source)
                if self._is_stopped():
                    break
                self._show(round(sum(lengths[:number])))
        n_damaged = sum(bool(prediction.damage) for prediction in self.predictions)
        note(f'{n_of(len(self.predictions), "video")}, {n_of(self._n_clips, "clip")}, '
             f'{self._rate():.1f} clips/s; {n_damaged} damaged, {len(self.failures)} failed')

    def _predict(self, source: Source) -> None:
        args = self._args
        finder = EventFinder(self._info.class_names, self._rules) if self._rules else None
        try:
            prediction = predict_video(
                source, self._network, self._info, topk=args.topk, stride=args.stride,
                batch_size=args.batch_size, kept=self._kept, finder=finder,
                on_window=self._on_window, is_stopped=self._is_stopped)
        except (VideoError, FrameError, av.error.FFmpegError) as error:
            self.failures[str(source.path)] = reason(error)
            return
        if not prediction.windows:  # stopped before there was one
            return
        self.predictions.append(prediction)
        for line in as_lines(prediction, args.timeline):
            say(line)
        if source in self._subtitles:
            write_text(self._subtitles[source], as_webvtt(prediction.events or ()))
            self.written.append(self._subtitles[source])
        target = self._targets.get(source)
        if target is None or not prediction.is_whole:
            return
        with suppress(Stopped):
            trouble = annotate(source, prediction, target, self._is_stopped)
            self.written.append(target)
            if trouble:
                say(f'warning: {target}: sound is missing or ends early ({trouble})', sys.stderr)

    def _on_window(self, window: dict[str, Any]) -> None:
        self._n_clips += 1
        self._show(round(self._begin_sec + window['end_sec']))

    def _show(self, sec: int) -> None:
        """Move the bar to this second of all videos."""
        self._progress.update(max(0, sec - self._shown_sec))
        self._shown_sec = max(sec, self._shown_sec)

    def _rate(self) -> float:
        return self._n_clips / (time.monotonic() - self._begin)


def rules_of(args: Namespace, info: Any) -> Rules:
    """What the flags say of events. Raises InputError for a class that is not there."""
    if args.none_class is not None and args.none_class not in info.class_names:
        raise InputError(f'--none_class {args.none_class}: no such class'
                         + nearest_or_all(args.none_class, info.class_names))
    given = {name: getattr(args, name) for name in ('threshold', 'smooth', 'min_sec',
                                                    'max_gap_sec', 'none_class')
             if getattr(args, name) is not None}
    rules = Rules(**given)
    low = args.low_threshold
    return replace(rules, low_threshold=LOW_SHARE * rules.threshold if low is None else low)


def load_network(args: Namespace) -> tuple[Classifier, Any]:
    """(network, its info) of --weights; what it is, is said. Raises InputError."""
    network, info = load_model(args.weights, pick_device(args.no_cuda),
                               read_labels(args.labels) if args.labels else None,
                               backend=args.backend)
    if info.opts.input_type == 'flow':
        raise InputError(f'{args.weights}: takes optical flow, which videos do not hold; give '
                         'weights of an rgb network')
    note(f'{args.weights}: {network_name(network.options)}, {len(info.class_names)} '
         f'classes, {info.opts.sample_duration} frames of {info.opts.sample_size} pixels in '
         f'{preprocessing_line(info.opts)}', sys.stderr)
    if not info.has_names:
        say(f'{args.weights}: holds no class names, and their order is not known, so numbers are '
            'shown; give --labels with the csv that it was trained on, the annotation .json made '
            'of it, or a list', sys.stderr)
    elif info.names_are_known:
        say(f'{args.weights}: holds no class names; those of Kinetics-400 are taken, as all such '
            'weights are known to have them', sys.stderr)
    return network, info


def prepare_outputs(args: Namespace, info: Any) -> None:
    """Make the folders of outputs, and --topk a number. Raises InputError."""
    if args.topk is not None and args.topk > len(info.class_names):
        say(f'--topk {args.topk}: there are {len(info.class_names)} classes, and all are given',
            sys.stderr)
    args.topk = args.topk or DEFAULT_TOPK
    for path in filter(None, (args.json, args.csv)):
        make_place(path)


def predict_files(args: Namespace) -> int:
    """Predict what the flags of `predict` name; the exit status. Raises InputError and Stopped."""
    sources = find_sources(map(Path, args.files), args.fps, args.frame_template)
    network, info = load_network(args)
    prepare_outputs(args, info)
    outputs = list(filter(None, (args.json, args.csv)))
    settings = {'stride': args.stride, 'fps': args.fps, 'class_names': list(info.class_names),
                'weights': fingerprint(network.state_dict())} if outputs else {}
    kept = KeptWindows(outputs[0] if outputs else None, settings,
                       lambda line: say(line, sys.stderr))
    with StopSignals() as stop, kept:
        work = Predicting(sources, network, info, args, kept, lambda: stop.signum)
        work.run()
    if args.json:
        write_json(args.json, work.predictions, work.failures, args.timeline)
    if args.csv:
        write_csv(args.csv, work.predictions, args.timeline, args.events)
    if work.written or outputs:
        wrote(*work.written, *outputs)
    if stop.signum:
        kept_where = (f'what was found so far is in {", ".join(map(str, outputs))}, and the same '
                      'command goes on' if outputs else 'nothing is kept without --json or --csv')
        raise Stopped(stop.signum, f'stopped by {signal.Signals(stop.signum).name}; {kept_where}')
    kept.remove()
    return _report(work)


def _report(work: Predicting) -> int:
    """Say on stderr what was damaged and what failed; the exit status."""
    damaged = [prediction for prediction in work.predictions if prediction.damage]
    for prediction in damaged:
        say(f'damaged: {prediction.path}: {prediction.damage}, the frames that decode are used',
            sys.stderr)
    for name, why in work.failures.items():
        say(f'failed: {name}: {why}', sys.stderr)
    return 1 if work.failures or damaged else 0


def say(line: object, file: TextIO | None = None) -> None:
    """Print a line, above the progress bar."""
    tqdm.write(for_stderr(line) if file is sys.stderr else printable(line), file=file or sys.stdout)
