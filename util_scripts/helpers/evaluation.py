"""Top-k accuracy of a result file against an annotation file: how many videos and clips are right.

    python -m util_scripts.eval_accuracy GROUND_TRUTH.json RESULTS/val.json -k 1 5 --subset val

Where videos have lists of labels, and with --multi_label, also the mean over the classes of average
precision (mAP).
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import torch

from datasets.annotations import SUBSETS, read_annotation, select_subset
from metrics import average_precisions, most_confused
from runtime.errors import InputError, run
from runtime.files import replacing
from util_scripts.helpers.utils import printable, read_json

RESULT_FILE = 'a result file of main.py --inference'


# ---------------------------------------------------------------- what is right

def read_truth(path, subset, multi_label=False):
    """(class names, {video id: set of its labels}, whether any has a list of labels) of a subset,
    of either annotation schema.

    ActivityNet's videos have a label a segment; with `multi_label` a single label stands for a
    list of one. Raises InputError.
    """
    annotation = read_annotation(path)
    entries = select_subset(annotation, subset)
    truth, has_lists = {}, multi_label
    for video_id, entry in entries.items():
        marks = entry.get('annotations') or ()
        marks = marks if annotation.is_taxonomy else [marks] if marks else []
        try:
            given = [mark['label'] for mark in marks if 'label' in mark]
            has_lists |= any(isinstance(labels, list) for labels in given)
            if given:
                truth[video_id] = {label for labels in given for label in
                                   (labels if isinstance(labels, list) else [labels])}
        except TypeError:
            raise InputError(f'{path}: the annotations of video {video_id!r} are not of the form '
                             'of the file\'s schema; make the file again') from None
    if not any(truth.values()):
        raise InputError(f'{path}: none of the {len(entries)} videos of subset {subset!r} has a '
                         'label; name a subset that is labelled with --subset')
    if has_lists:
        check_labels(path, truth, annotation.class_names)
    return annotation.class_names, truth, has_lists


def check_labels(path, truth, class_names):
    """Raises InputError for a label that is no class."""
    for video_id, labels in truth.items():
        for label in labels.difference(class_names):
            raise InputError(f'{path}: video {video_id!r}: label {label!r} is not in "labels"; add '
                             'it there or mend the video\'s label')


# ---------------------------------------------------------------- what was predicted

def read_results(path, video_ids, n_classes, k, all_classes=False):
    """({video id: {label: score}}, best first, {(video id, number): the same} of clips) of a result
    file, for the videos in `video_ids`.

    A video that has results window by window gets the mean of its windows' scores; without those
    there are no clips. Raises
    InputError where there are fewer than k, or with `all_classes` fewer than n_classes.
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
    except (TypeError, LookupError):
        raise InputError(f'{path}: its "results" are not lists of label and score a video; give '
                         f'{RESULT_FILE}') from None
    n_kept = min((len(window) for video_id in scores for window in windows_of(results[video_id])),
                 default=n_classes)
    if all_classes and n_kept < n_classes:
        raise InputError(f'{path}: average precision needs the scores of all {n_classes} classes, '
                         f'and there are {n_kept} a result; run the inference again with '
                         '--output_topk 0')
    shortest = min(map(len, scores.values()), default=k)
    if shortest < min(k, n_classes):
        raise InputError(f'{path}: top-{k} needs {k} labels a video and there are {shortest}; run '
                         f'the inference again with --output_topk {k} or more')
    if clips:
        print(f'{len(clips)} windows of --inference_no_average: their scores are averaged for each '
              'video, as far as --output_topk kept them')
    return scores, clips


def windows_of(entries):
    """[{label, score}] or [{segment, result: [{label, score}]}] -> the [{label, score}], a list."""
    return [entry['result'] for entry in entries] if 'result' in entries[0] else [entries]


def mean_scores(entries):
    """The mean over the `windows_of` a video, {label: score}, best first."""
    windows = windows_of(entries)
    scores = defaultdict(float)
    for window in windows:
        for entry in window:
            scores[entry['label']] += entry['score'] / len(windows)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def check_overlap(truth, rankings, class_names, args):
    """Raises InputError where the two files have no video or no label in common."""
    if not rankings:
        raise InputError(f'{args.result_path}: has no result for any of the {len(truth)} videos of '
                         f'subset {args.subset!r} of {args.ground_truth_path}; name the subset '
                         'that was inferred with --subset')
    if set(class_names).isdisjoint(label for labels in rankings.values() for label in labels):
        raise InputError(f'{args.result_path}: none of its labels is a class of '
                         f'{args.ground_truth_path}; give the annotation file that the inference '
                         'had')


# ---------------------------------------------------------------- counting

def count_right(truth, rankings, k):
    """How many videos have one of their labels among the k best."""
    return sum(not labels.isdisjoint(rankings.get(video_id, ())[:k])
               for video_id, labels in truth.items())


def count_by_class(truth, rankings, k):
    """{label: (right, videos)}; a video of several labels counts for each, right or wrong."""
    right, n_videos = Counter(), Counter()
    for video_id, labels in truth.items():
        n_videos.update(labels)
        right.update(labels.intersection(rankings.get(video_id, ())[:k]))
    return {label: (right[label], n) for label, n in n_videos.items()}


def count_confusions(truth, rankings, class_names):
    """(n_classes, n_classes) counts, rows true, columns best: of videos that have a result.

    A video of several labels is right by one of them, and otherwise a mistake for each.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    counts = torch.zeros(len(class_names), len(class_names), dtype=torch.int64)
    for video_id, labels in truth.items():
        best = rankings.get(video_id, (None,))[0]
        if best in numbers:
            for label in {best} if best in labels else labels & numbers.keys():
                counts[numbers[label], numbers[best]] += 1
    return counts


def precisions(truth, scores, class_names):
    """((n_classes,) average precision, nan for a class of no video; (n_classes,) its videos).

    A video without a result comes last for every class.
    """
    values = torch.tensor([[scores.get(video_id, {}).get(name, float('-inf'))
                            for name in class_names] for video_id in truth], dtype=torch.float64)
    targets = torch.tensor([[name in labels for name in class_names] for labels in truth.values()])
    return average_precisions(values, targets), targets.sum(dim=0)


def confused_lines(counts, class_names, n=10):
    """The `n` most frequent mistakes, a line each, under a heading; [] where there is none."""
    pairs = [(f'{class_names[true]} taken for {class_names[predicted]}',
              f'({times} of {int(counts[true].sum())} videos)')
             for true, predicted, times in most_confused(counts, n)]
    width = max((len(pair) for pair, _ in pairs), default=0)
    heading = ['most confused:'] if pairs else []
    return heading + [f'  {pair:{width}} {times}' for pair, times in pairs]


def mean_class(counts):
    """Mean accuracy of classes, of what `count_by_class` gives."""
    return sum(right / n for right, n in counts.values()) / len(counts)


def print_by_class(counts, k):
    """Mean-class accuracy, then the classes, worst first."""
    print(f'top-{k} mean-class accuracy: {mean_class(counts):.4f} ({len(counts)} classes, '
          'worst first)')
    width = max(map(len, counts))
    for label, (right, n) in sorted(counts.items(),
                                    key=lambda item: (item[1][0] / item[1][1], item[0])):
        print(printable(f'  {label:{width}} {right / n:.4f} ({right} of {n} videos)'))


def report_clips(truth, clips, class_names, args, has_lists):
    """Print the measures of single clips, where the results have them: {(video id, number):
    {label: score}}."""
    clips = {clip: scores for clip, scores in clips.items() if clip[0] in truth}
    clip_truth = {clip: truth[clip[0]] for clip in clips}
    rankings = {clip: list(scores) for clip, scores in clips.items()}
    n_kept = min(map(len, rankings.values()), default=0)
    for k in args.k:
        if k > n_kept:
            continue  # --output_topk left out what decides it
        n_right = count_right(clip_truth, rankings, k)
        print(f'clip top-{k} accuracy: {n_right / len(clips):.4f} ({n_right} of {len(clips)} '
              'clips)')
        if not has_lists:
            counts = count_by_class(clip_truth, rankings, k)
            print(f'clip top-{k} mean-class accuracy: {mean_class(counts):.4f}')
    if has_lists and clips:
        found, _ = precisions(clip_truth, clips, class_names)
        print(f'clip mAP: {float(found.nanmean()):.4f}')


def report_precisions(truth, scores, class_names, args):
    """Print mAP, and with --per_class the classes, worst first; --save writes map.txt."""
    found, n_videos = precisions(truth, scores, class_names)
    n_occur = int((n_videos > 0).sum())
    mean = float(found.nanmean())
    print(f'mAP: {mean:.4f} ({n_occur} classes{", worst first" if args.per_class else ""})')
    if args.per_class:
        width = max(map(len, class_names))
        for number in found.argsort(stable=True)[:n_occur].tolist():  # nan comes last
            print(printable(f'  {class_names[number]:{width}} {found[number]:.4f} '
                            f'({n_videos[number]} of {len(truth)} videos)'))
    if args.save:
        save(args, 'map.txt', mean)


def save(args, name, value):
    """Write a number to a file beside the results."""
    with replacing(args.result_path.with_name(name)) as temporary:
        temporary.write_text(f'{value}\n')


# ---------------------------------------------------------------- the command

def positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1')
    return int(text)


def build_parser():
    parser = argparse.ArgumentParser(description='Top-k accuracy of results, counted by videos.')
    parser.add_argument('ground_truth_path', type=Path, help='annotation file (JSON)')
    parser.add_argument('result_path', type=Path, help=RESULT_FILE + ', such as val.json')
    parser.add_argument('-k', type=positive, nargs='+', default=[1],
                        help='a video is right if its label, or one of its labels, is among the k '
                             'best; several k may be given, after the two paths (default: 1)')
    parser.add_argument('--subset', default='validation',
                        help='training, validation or testing, or train, val, test for short '
                             '(default: validation)')
    parser.add_argument('--save', action='store_true',
                        help='also write each accuracy, 0 to 1, to top{k}.txt beside result_path, '
                             'and mAP to map.txt')
    parser.add_argument('--ignore', action='store_true',
                        help='leave out videos without a result; they count as wrong otherwise')
    parser.add_argument('--per_class', action='store_true',
                        help='also print mean-class accuracy, a table of the classes and the pairs '
                             'that are most confused; of lists of labels, the average precision '
                             'of each class')
    parser.add_argument('--multi_label', action='store_true',
                        help='measure mAP, as main.py --multi_label does, where each video has one '
                             'label as well; where any has a list, that is done without the flag')
    return parser


def leave_out_missing(truth, rankings, ignore):
    """`truth`, without the videos that have no result if `ignore`; says how many those are, and
    how many have no label."""
    n_missing = len(truth) - len(rankings)
    if n_missing:
        done = 'are left out' if ignore else 'count as wrong (--ignore leaves them out)'
        print(f'{n_missing} of {len(truth)} videos without a result: they {done}')
    truth = {video_id: truth[video_id] for video_id in rankings} if ignore else truth
    n_empty = sum(not labels for labels in truth.values())
    if n_empty:
        print(f'{n_empty} of {len(truth)} videos have an empty list of labels: top-k counts them '
              'as wrong')
    return truth


def main(argv=None):
    args = build_parser().parse_args(argv)
    subset = SUBSETS.get(args.subset, args.subset)
    class_names, truth, has_lists = read_truth(args.ground_truth_path, subset, args.multi_label)
    scores, clips = read_results(args.result_path, truth, len(class_names), max(args.k), has_lists)
    rankings = {video_id: list(labels) for video_id, labels in scores.items()}
    check_overlap(truth, rankings, class_names, args)
    truth = leave_out_missing(truth, rankings, args.ignore)
    for k in args.k:
        n_right = count_right(truth, rankings, k)
        accuracy = n_right / len(truth)
        print(f'top-{k} accuracy: {accuracy:.4f} ({n_right} of {len(truth)} videos)')
        if args.per_class and not has_lists:
            print_by_class(count_by_class(truth, rankings, k), k)
        if args.save:
            save(args, f'top{k}.txt', accuracy)
    if has_lists:
        report_precisions(truth, scores, class_names, args)
    elif args.per_class:
        counts = count_confusions(truth, rankings, class_names)
        print(*map(printable, confused_lines(counts, class_names)), sep='\n')
    report_clips(truth, clips, class_names, args, has_lists)


if __name__ == '__main__':
    run(main)
