"""Events against an annotation: mean average precision at temporal overlaps (tIoU).

As ActivityNet defines it (Caba Heilbron et al., "ActivityNet: A Large-Scale Video Benchmark for
Human Activity Understanding", CVPR 2015, and its evaluation of temporal localisation): of each
class the events of all videos are gone through by their scores. An event is right if its overlap
with an instance of the class in its video, the one with the highest overlap that no surer event has
taken, reaches the threshold. Average precision is the area under the precision, made monotonic, by
recall; the mean is over the classes that have an instance.
"""

from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from datasets.annotations import SUBSETS, read_annotation, select_subset
from runtime.errors import InputError
from runtime.output import printable
from runtime.schema import is_number
from util_scripts.helpers.files import read_json, told_apart
from util_scripts.helpers.text import n_of

OVERLAPS = tuple(round(0.5 + 0.05 * number, 2) for number in range(10))
RESULT_FILE = 'events of util_scripts.predict --events --json'


class Segment(NamedTuple):
    """An event or an instance, in seconds; score 0 of an instance."""

    video_id: str
    label: str
    begin_sec: float
    end_sec: float
    score: float = 0.0


# ---------------------------------------------------------------- the metric

def overlaps(segment: Segment, others: Sequence[Segment]) -> np.ndarray:
    """(n,) intersection by union with each of the others."""
    begins, ends = (np.array([other[place] for other in others], dtype=float) for place in (2, 3))
    shared = np.minimum(ends, segment.end_sec) - np.maximum(begins, segment.begin_sec)
    shared = shared.clip(min=0)
    union = (ends - begins) + (segment.end_sec - segment.begin_sec) - shared
    return shared / np.maximum(union, 1e-12)


def average_precision(events: Sequence[Segment], instances: Sequence[Segment],
                      thresholds: Sequence[float]) -> np.ndarray:
    """(n_thresholds,) average precision of one class, which has an instance."""
    by_video: dict[str, list[int]] = {}
    for number, instance in enumerate(instances):
        by_video.setdefault(instance.video_id, []).append(number)
    order = sorted(events, key=lambda event: -event.score)  # stable: equal ones as in the file
    is_right = np.zeros((len(thresholds), len(order)), dtype=bool)
    is_taken = np.zeros((len(thresholds), len(instances)), dtype=bool)
    for place, event in enumerate(order):
        numbers = by_video.get(event.video_id, [])
        found = overlaps(event, [instances[number] for number in numbers])
        for i in np.argsort(-found, kind='stable').tolist():
            # One that is taken leaves the next one to be tried.
            wins = ((found[i] >= np.array(thresholds)) & ~is_taken[:, numbers[i]]
                    & ~is_right[:, place])
            is_right[:, place] |= wins
            is_taken[:, numbers[i]] |= wins
    # The area under the precision, made monotonic, by recall.
    precision = is_right.cumsum(axis=1) / np.arange(1, len(order) + 1)
    best_after = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (best_after * is_right).sum(axis=1) / len(instances)


def mean_average_precisions(events: Sequence[Segment], instances: Sequence[Segment],
                            thresholds: Sequence[float] = OVERLAPS) -> dict[str, np.ndarray]:
    """{label: (n_thresholds,) average precision} of the classes that have an instance."""
    return {label: average_precision([event for event in events if event.label == label],
                                     [own for own in instances if own.label == label], thresholds)
            for label in sorted({instance.label for instance in instances})}


# ---------------------------------------------------------------- files

def read_instances(args: Namespace) -> tuple[list[Segment], set[str]]:
    """(instances, ids of all videos) of the annotation's subset. Raises InputError."""
    path, subset = args.ground_truth_path, SUBSETS.get(args.subset, args.subset)
    entries = select_subset(read_annotation(path), subset)
    instances = []
    for video_id, entry in entries.items():
        marks = entry.get('annotations') or []
        for mark in marks if isinstance(marks, list) else []:
            try:
                begin, end = map(_seconds, mark['segment'])
                instances.append(Segment(video_id, str(mark['label']), begin, end))
            except (LookupError, TypeError, ValueError):
                raise InputError(f'{path}: an annotation of video {video_id!r} has no "label" and '
                                 '"segment" of two seconds; mend it') from None
    if not instances:
        raise InputError(f'{path}: none of the {n_of(len(entries), "video")} of subset {subset!r} '
                         'has a list of segments in seconds; give an annotation as ActivityNet has '
                         'it, of a subset that is labelled')
    return instances, set(entries)


def read_events(args: Namespace, video_ids: Collection[str]) -> tuple[list[Segment], int]:
    """(events of these videos, number of videos that the file has events of or none).

    A video is known by its id, or by the name of its file, with v_ before the id as ActivityNet
    has it. Raises InputError.
    """
    data = read_json(args.result_path, RESULT_FILE)
    by_video = data.get('events', data.get('results'))
    if not isinstance(by_video, dict):
        raise InputError(f'{args.result_path}: has no "events" by video; give {RESULT_FILE}')
    events, n_known = [], 0
    for name, entries in by_video.items():
        stem = PurePosixPath(name).stem
        names = name, PurePosixPath(name).name, stem, stem.removeprefix('v_')
        video_id = next((candidate for candidate in names if candidate in video_ids), None)
        if video_id is None:
            continue
        n_known += 1
        try:
            events += [_event(video_id, entry) for entry in entries]
        except (LookupError, TypeError, ValueError):
            raise InputError(f'{args.result_path}: the entries of {name!r} are not events with '
                             f'label, score, begin_sec and end_sec; give {RESULT_FILE}') from None
    if not n_known:
        raise InputError(f'{args.result_path}: none of its {n_of(len(by_video), "video")} is in '
                         f'subset {args.subset!r} of {args.ground_truth_path}; name files as the '
                         'ids there, or give --subset')
    return events, n_known


def _event(video_id: str, entry: Mapping[str, Any]) -> Segment:
    begin, end = (entry['segment'] if 'segment' in entry else
                  (entry['begin_sec'], entry['end_sec']))
    return Segment(video_id, str(entry['label']), _seconds(begin), _seconds(end),
                   _seconds(entry['score']))


def _seconds(value: Any) -> float:
    """A finite number of a file as a float; ValueError for whatever else."""
    if not is_number(value):
        raise ValueError
    return float(value)


# ---------------------------------------------------------------- what is printed

def report_events(args: Namespace) -> None:
    """Print mAP at each overlap, and their mean. Raises InputError."""
    with told_apart(args.ground_truth_path, args.result_path):
        instances, video_ids = read_instances(args)
    events, n_known = read_events(args, video_ids)
    thresholds = args.tiou or OVERLAPS
    if n_known < len(video_ids):
        print(f'{len(video_ids) - n_known} of {len(video_ids)} videos without a result: their '
              'instances count as missed')
    labels = {instance.label for instance in instances}
    others = sum(event.label not in labels for event in events)
    if others:
        print(f'{n_of(others, "event")} of classes that no instance has: left out')
    by_class = mean_average_precisions(events, instances, thresholds)
    values = np.stack(list(by_class.values()))
    for threshold, value in zip(thresholds, values.mean(axis=0)):
        print(f'mAP at tIoU {threshold:g}: {value:.4f}')
    if args.per_class:
        width = max(map(len, by_class))
        for value, label in sorted((float(row.mean()), label) for label, row in by_class.items()):
            n = sum(instance.label == label for instance in instances)
            print(printable(f'  {label:{width}} {value:.4f} ({n_of(n, "instance")})'))
    print(f'average mAP: {values.mean():.4f} ({n_of(len(by_class), "class")}, '
          f'{n_of(len(events), "event")}, {n_of(len(instances), "instance")})')
