"""Results against an annotation: how many videos and clips are right, and what is confused.

A video's scores are {label: score}, best first; a clip's key is (video id, number of the window).
"""

import math
from argparse import Namespace
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from datasets.annotations import SUBSETS, label_name, read_annotation, select_subset
from metrics import (average_precisions, confusion_of_pairs, mean_of_classes, most_confused,
                     topk_any_hits, topk_hits_by_class)
from runtime.errors import InputError
from runtime.files import write_text
from runtime.output import printable, wrote
from util_scripts.helpers.files import read_json, told_apart

Key = TypeVar('Key')
RESULT_FILE = 'a result file of main.py --inference'
Truth = dict[str, set[str]]  # labels by video id
Scores = dict[str, dict[str, float]]  # scores by video id and label, best first
Clips = dict[tuple[str, int], dict[str, float]]


# ---------------------------------------------------------------- what is right

def read_truth(path: Path, subset: str, multi_label: bool = False
               ) -> tuple[tuple[str, ...], Truth, bool]:
    """(class names, {video id: set of its labels}, True if any has a list of labels) of a subset,
    of either annotation schema.

    ActivityNet's videos have one label per segment; with `multi_label` a single label stands for a
    list of one. Raises InputError.
    """
    annotation = read_annotation(path)
    entries = select_subset(annotation, subset)
    truth: Truth = {}
    has_lists = multi_label
    for video_id, entry in entries.items():
        marks = entry.get('annotations') or ()
        marks = marks if annotation.is_taxonomy else [marks] if marks else []
        try:
            given = [mark['label'] for mark in marks if 'label' in mark]
            has_lists |= any(isinstance(labels, list) for labels in given)
            if given:
                truth[video_id] = {label for labels in given for label in
                                   (labels if isinstance(labels, list) else [labels])}
                if not all(isinstance(label, str) for label in truth[video_id]):
                    raise TypeError
        except TypeError:
            raise InputError(f'{path}: the annotations of video {video_id!r} are not of the form '
                             'of the file\'s schema; make the file again') from None
    if not any(truth.values()):
        raise InputError(f'{path}: none of the {len(entries)} videos of subset {subset!r} has a '
                         'label; name a subset that is labelled with --subset')
    if has_lists:
        check_labels(path, truth, annotation.class_names)
    return annotation.class_names, truth, has_lists


def check_labels(path: Path, truth: Truth, class_names: Sequence[str]) -> None:
    """Raise InputError for a label that is no class."""
    for video_id, labels in truth.items():
        for label in labels.difference(class_names):
            raise InputError(f'{path}: video {video_id!r}: label {label!r} is not in "labels"; add '
                             'it there or mend the video\'s label')


# ---------------------------------------------------------------- what was predicted

def read_results(path: Path, video_ids: Collection[str], n_classes: int, k: int,
                 all_classes: bool = False) -> tuple[Scores, Clips]:
    """({video id: {label: score}}, best first, {(video id, number): the same} of clips) of a result
    file, for the videos in `video_ids`.

    A video that has results window by window gets the mean of its windows' scores; without those
    there are no clips. Raises InputError where there are fewer than k, or with `all_classes` fewer
    than n_classes.
    """
    results = read_json(path, RESULT_FILE).get('results')
    if not isinstance(results, dict):
        raise InputError(f'{path}: has no "results" of videos; give {RESULT_FILE}')
    try:
        scores = {video_id: mean_scores(entries) for video_id, entries in results.items()
                  if video_id in video_ids}
        clips = {(video_id, number): mean_scores(window) for video_id in scores
                 if 'result' in results[video_id][0]
                 for number, window in enumerate(windows_of(results[video_id]))}
    except (TypeError, LookupError, ArithmeticError):  # an int may be too large for a score
        raise InputError(f'{path}: its "results" are not lists of label and score a video; give '
                         f'{RESULT_FILE}') from None
    check_scores_finite(path, scores)
    n_kept = min((len(window) for video_id in scores for window in windows_of(results[video_id])),
                 default=n_classes)
    if all_classes and n_kept < n_classes:
        raise InputError(f'{path}: average precision needs the scores of all {n_classes} classes, '
                         f'and there are {n_kept} a result; run the inference again with '
                         '--output_topk 0')
    check_length(path, scores, k, n_classes)
    if clips:
        print(f'{len(clips)} windows of --inference_no_average: their scores are averaged for each '
              'video, as far as --output_topk kept them')
    return scores, clips


def check_scores_finite(path: Path, scores: Scores) -> None:
    """Raise InputError that names the first video with a score that is nan or infinity."""
    for video_id, found in scores.items():
        if not all(map(math.isfinite, found.values())):
            raise InputError(f'{path}: the scores of video {video_id!r} are not finite; run the '
                             'inference again, with --precision fp32 or bf16')


def check_length(path: Path, scores: Scores, k: int, n_classes: int) -> None:
    """Raise InputError where some video has fewer than k labels."""
    shortest = min(map(len, scores.values()), default=k)
    if shortest < min(k, n_classes):
        raise InputError(f'{path}: top-{k} needs {k} labels a video and there are {shortest}; run '
                         f'the inference again with --output_topk {k} or more')


def windows_of(entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """[{label, score}] or [{segment, result: [{label, score}]}] -> the [{label, score}], a list."""
    return [entry['result'] for entry in entries] if 'result' in entries[0] else [entries]


def mean_scores(entries: list[dict[str, Any]]) -> dict[str, float]:
    """The mean over the `windows_of` a video, {label: score}, best first. Raises TypeError where a
    score is no number, and LookupError where a window has a label twice."""
    windows = windows_of(entries)
    scores: dict[str, float] = defaultdict(float)
    for window in windows:
        labels = [label_name(entry['label']) for entry in window]
        if len({*labels}) < len(labels):
            raise LookupError
        for label, entry in zip(labels, window):
            if isinstance(entry['score'], bool) or not isinstance(label, str):
                raise TypeError
            scores[label] += entry['score'] / len(windows)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def read_both(annotation: Path, results: Path, subset: str, *, k: int = 1,
              multi_label: bool = False
              ) -> tuple[tuple[str, ...], Truth, bool, Scores, Clips]:
    """What `read_truth` and `read_results` give of two files. Raises InputError, also where they
    have no video or no label in common."""
    with told_apart(annotation, results):
        class_names, truth, has_lists = read_truth(annotation, SUBSETS.get(subset, subset),
                                                   multi_label)
    scores, clips = read_results(results, truth, len(class_names), k, has_lists)
    if not scores:
        raise InputError(f'{results}: has no result for any of the {len(truth)} videos of subset '
                         f'{subset!r} of {annotation}; name the subset that was inferred with '
                         '--subset')
    if set(class_names).isdisjoint(label for labels in scores.values() for label in labels):
        raise InputError(f'{results}: none of its labels is a class of {annotation}; give the '
                         'annotation file that the inference had')
    return class_names, truth, has_lists, scores, clips


def leave_out_missing(truth: Truth, scores: Scores, ignore: bool) -> Truth:
    """`truth`, without the videos that have no result if `ignore`; says how many those are, and
    how many have no label."""
    n_missing = len(truth) - len(scores)
    if n_missing:
        done = 'are left out' if ignore else 'count as wrong (--ignore leaves them out)'
        print(f'{n_missing} of {len(truth)} videos without a result: they {done}')
    truth = {video_id: truth[video_id] for video_id in scores} if ignore else truth
    n_empty = sum(not labels for labels in truth.values())
    if n_empty:
        print(f'{n_empty} of {len(truth)} videos have an empty list of labels: top-k counts them '
              'as wrong')
    return truth


# ---------------------------------------------------------------- counting

class Ranked(NamedTuple):
    """What metrics.py counts: (N, n_names) scores, higher is better, and targets, 1 for each label.

    names: the classes, then whatever other label there is
    """

    scores: torch.Tensor
    targets: torch.Tensor
    found: torch.Tensor
    names: list[str]


def rank(truth: Mapping[Key, set[str]], scores: Mapping[Key, Mapping[str, float]],
         class_names: Sequence[str]) -> Ranked:
    """One row per video or clip. Scores are ranks, so that equal ones keep the order of the file.

    found: targets that a result names; the others, as of videos without a result, are never hits
    """
    names = list(dict.fromkeys([*class_names, *sorted(set().union(*truth.values())),
                                *(label for labels in scores.values() for label in labels)]))
    numbers = {name: number for number, name in enumerate(names)}
    ranks = torch.full((len(truth), len(names)), -float(len(names)))
    targets = torch.zeros(len(truth), len(names), dtype=torch.int64)
    for row, (key, labels) in enumerate(truth.items()):
        targets[row, [numbers[label] for label in labels]] = 1
        own = [numbers[label] for label in scores.get(key, ())]
        ranks[row, own] = -torch.arange(len(own), dtype=ranks.dtype)
    return Ranked(ranks, targets, targets * (ranks > -len(names)), names)


def count_right(ranked: Ranked, k: int) -> int:
    """How many videos have one of their labels among the k best."""
    return int(topk_any_hits(ranked.scores, ranked.found, [k])[0])


def count_by_class(ranked: Ranked, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """((n_names,) right, (n_names,) videos); a video of several labels counts for each of them."""
    return topk_hits_by_class(ranked.scores, ranked.found, k), ranked.targets.sum(dim=0)


def mean_class(ranked: Ranked, k: int) -> float:
    """Mean over the classes that occur of their top-k accuracy."""
    right, n_videos = count_by_class(ranked, k)
    return mean_of_classes(right.double(), n_videos)


def count_confusions(truth: Truth, scores: Scores, class_names: Sequence[str]) -> torch.Tensor:
    """(n_classes, n_classes) counts, rows true, columns best: of videos that have a result.

    A video of several labels is right by one of them, and otherwise a mistake for each.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    pairs = []
    for video_id, labels in truth.items():
        best = next(iter(scores.get(video_id, ())), None)
        if best in numbers:
            pairs += [(numbers[label], numbers[best])
                      for label in ({best} if best in labels else labels & numbers.keys())]
    true, predicted = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(dim=1)
    return confusion_of_pairs(true, predicted, len(class_names))


def precisions(truth: Mapping[Key, set[str]], scores: Mapping[Key, Mapping[str, float]],
               class_names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """((n_classes,) average precision, nan for a class of no video; (n_classes,) its videos).

    A video without a result comes last for every class.
    """
    values = torch.tensor([[scores.get(video_id, {}).get(name, float('-inf'))
                            for name in class_names] for video_id in truth], dtype=torch.float64)
    targets = torch.tensor([[name in labels for name in class_names] for labels in truth.values()])
    return average_precisions(values, targets), targets.sum(dim=0)


# ---------------------------------------------------------------- what is printed

def confused_lines(counts: torch.Tensor, class_names: Sequence[str], n: int = 10) -> list[str]:
    """The `n` most frequent mistakes, one line each, under a heading; [] where there is none."""
    pairs = [(f'{class_names[true]} taken for {class_names[predicted]}',
              f'({times} of {int(counts[true].sum())} videos)')
             for true, predicted, times in most_confused(counts, n)]
    width = max((len(pair) for pair, _ in pairs), default=0)
    heading = ['most confused:'] if pairs else []
    return heading + [f'  {pair:{width}} {times}' for pair, times in pairs]


def print_by_class(ranked: Ranked, k: int) -> None:
    """Mean-class accuracy, then the classes, worst first."""
    right, n_videos = count_by_class(ranked, k)
    rows = [(n_right / n, name, n_right, n) for n_right, n, name
            in zip(right.tolist(), n_videos.tolist(), ranked.names) if n]
    print(f'top-{k} mean-class accuracy: {mean_class(ranked, k):.4f} ({len(rows)} classes, '
          'worst first)')
    width = max(len(name) for _, name, _, _ in rows)
    for share, name, n_right, n in sorted(rows):
        print(printable(f'  {name:{width}} {share:.4f} ({n_right} of {n} videos)'))


def report_clips(truth: Truth, clips: Clips, class_names: Sequence[str], args: Namespace,
                 has_lists: bool) -> None:
    """Print the metrics of single clips, where the results have them."""
    clips = {clip: scores for clip, scores in clips.items() if clip[0] in truth}
    if not clips:
        return
    clip_truth = {clip: truth[clip[0]] for clip in clips}
    ranked = rank(clip_truth, clips, class_names)
    n_kept = min(map(len, clips.values()))
    for k in args.k:
        if k > n_kept or k >= len(class_names):
            continue  # --output_topk left out what decides it, or all are right
        n_right = count_right(ranked, k)
        print(f'clip top-{k} accuracy: {n_right / len(clips):.4f} ({n_right} of {len(clips)} '
              'clips)')
        if not has_lists:
            print(f'clip top-{k} mean-class accuracy: {mean_class(ranked, k):.4f}')
    if has_lists:
        found, _ = precisions(clip_truth, clips, class_names)
        print(f'clip mAP: {float(found.nanmean()):.4f}')


def report_precisions(truth: Truth, scores: Scores, class_names: Sequence[str], args: Namespace
                      ) -> list[Path]:
    """Print mAP, and with --per_class the classes, worst first; what --save wrote."""
    found, n_videos = precisions(truth, scores, class_names)
    n_occur = int((n_videos > 0).sum())
    mean = float(found.nanmean())
    print(f'mAP: {mean:.4f} ({n_occur} classes{", worst first" if args.per_class else ""})')
    if args.per_class:
        width = max(map(len, class_names))
        for number in found.argsort(stable=True)[:n_occur].tolist():  # nan comes last
            print(printable(f'  {class_names[number]:{width}} {found[number]:.4f} '
                            f'({n_videos[number]} of {len(truth)} videos)'))
    return save(args, 'map.txt', mean)


def save(args: Namespace, name: str, value: float) -> list[Path]:
    """With --save write a number to a file beside the results; that file."""
    if not args.save:
        return []
    path = args.result_path.with_name(name)
    write_text(path, f'{value}\n')
    return [path]


def report_topk(ranked: Ranked, n_classes: int, args: Namespace, has_lists: bool) -> list[Path]:
    """Print top-k accuracy of videos for each -k, and with --per_class the classes; what --save
    wrote."""
    n_videos = len(ranked.scores)
    saved: list[Path] = []
    for k in args.k:
        if k >= n_classes:
            print(f'top-{k} accuracy: left out, since there are {n_classes} classes')
            continue
        n_right = count_right(ranked, k)
        print(f'top-{k} accuracy: {n_right / n_videos:.4f} ({n_right} of {n_videos} videos)')
        if args.per_class and not has_lists:
            print_by_class(ranked, k)
        saved += save(args, f'top{k}.txt', n_right / n_videos)
    return saved


def report(args: Namespace) -> None:
    """Print, and with --save write, the metrics that the flags of `eval_accuracy` ask for."""
    class_names, truth, has_lists, scores, clips = read_both(
        args.ground_truth_path, args.result_path, args.subset, k=max(args.k),
        multi_label=args.multi_label)
    truth = leave_out_missing(truth, scores, args.ignore)
    saved = report_topk(rank(truth, scores, class_names), len(class_names), args, has_lists)
    if has_lists:
        saved += report_precisions(truth, scores, class_names, args)
    elif args.per_class:
        counts = count_confusions(truth, scores, class_names)
        print(*map(printable, confused_lines(counts, class_names)), sep='\n')
    report_clips(truth, clips, class_names, args, has_lists)
    if saved:
        wrote(*saved)
