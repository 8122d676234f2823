"""How well features tell classes apart with few examples and no training.

    python -m util_scripts.knn results/features.h5 --groups groups.csv

Each video is classified by examples of the other groups: by the class whose mean is nearest, and by
its nearest neighbours. Features are centred on the examples and compared by the cosine (Wang et
al., "SimpleShot", 2019).
"""

import argparse
import csv
from pathlib import Path, PurePosixPath

import numpy as np

from features import read_features
from runtime.errors import InputError, run
from util_scripts.helpers.utils import read_text

ALL = 'all'
# Without groups, a video is classified by examples of the other parts of so many.
N_PARTS = 10


# ---------------------------------------------------------------- what is compared

def videos_of(content):
    """(features (n, D), labels (n,), video ids) with a row a video that has a label.

    The windows of a video are averaged. Raises InputError where no video has one, or where videos
    have several.
    """
    row_labels = content.labels
    if row_labels.ndim > 1:  # --multi_label
        if (row_labels.sum(axis=1) != 1).any():
            raise InputError('some videos have several labels or none (--multi_label), and are '
                             'classified by one label here; write the features of videos with one')
        row_labels = row_labels.argmax(axis=1)
    ids, inverse = np.unique(content.video_ids, return_inverse=True)
    counts = np.bincount(inverse)
    sums = np.zeros((len(ids), content.features.shape[1]))
    np.add.at(sums, inverse, content.features)
    labels = np.empty(len(ids), int)
    labels[inverse] = row_labels
    has_label = labels >= 0
    if not has_label.any():
        raise InputError('none of the videos has a label; write the features of another '
                         '--inference_subset')
    return (sums / counts[:, None])[has_label], labels[has_label], ids[has_label]


def read_groups(path, video_ids):
    """(n,) group numbers of the videos, from a table with columns group and path (or video_id)."""
    rows = list(csv.DictReader(read_text(path, 'a table with columns path and group').splitlines()))
    name = next((name for name in ('video_id', 'path') if rows and name in rows[0]), None)
    if name is None or 'group' not in rows[0]:
        raise InputError(f'{path}: has no columns path (or video_id) and group; add a line with '
                         'their names')
    groups = {}
    for row in rows:
        groups[row[name]] = groups[PurePosixPath(row[name] or '').stem] = row['group']
    missing = [video_id for video_id in video_ids if video_id not in groups]
    if missing:
        raise InputError(f'{path}: has no group for {len(missing)} of {len(video_ids)} videos, '
                         f'such as {missing[0]}; add them')
    return np.unique([groups[video_id] for video_id in video_ids], return_inverse=True)[1]


# ---------------------------------------------------------------- classifying

def normalized(rows, centre):
    """Rows minus the centre, of length 1."""
    rows = rows - centre
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nearest_mean(queries, examples, labels, n_classes, k):
    """(Q,) class whose mean example is nearest to each query; `k` has no part in it."""
    means = np.full((n_classes, queries.shape[1]), np.nan)
    for label in np.unique(labels):
        means[label] = examples[labels == label].mean(axis=0)
    cosines = queries @ normalized(means, 0).T
    return np.where(np.isnan(cosines), -np.inf, cosines).argmax(axis=1)


def nearest_neighbours(queries, examples, labels, n_classes, k):
    """(Q,) class of most of the k nearest examples; of equal numbers the more similar wins."""
    cosines = queries @ examples.T
    k = min(k, len(examples))
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    votes = np.zeros((len(queries), n_classes))
    rows = np.arange(len(queries))[:, None]
    np.add.at(votes, (rows, labels[nearest]), 1 + 1e-3 * cosines[rows, nearest])
    return votes.argmax(axis=1)


METHODS = {'nearest class mean': nearest_mean, '{k} nearest': nearest_neighbours}


def draw_examples(labels, n, rng):
    """Numbers of `n` random examples a class, or of all that there are."""
    if n == ALL:
        return np.arange(len(labels))
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:n]
                           for label in np.unique(labels)])


def classify(queries, examples, labels, n_classes, k):
    """{method: (Q,) classes} of the queries, by labelled examples."""
    centre = examples.mean(axis=0)
    # A single example, centred on itself, would be nothing.
    centre = centre if len(examples) > 1 else 0
    queries, examples = normalized(queries, centre), normalized(examples, centre)
    return {name: method(queries, examples, labels, n_classes, k)
            for name, method in METHODS.items()}


def accuracy_over_groups(features, labels, groups, n, k, rng):
    """{method: accuracy}: each group classified by `n` examples a class of the other groups."""
    n_classes, n_right = labels.max() + 1, dict.fromkeys(METHODS, 0)
    for group in np.unique(groups):
        own = groups == group
        others = np.flatnonzero(~own)
        chosen = others[draw_examples(labels[others], n, rng)]
        for name, said in classify(features[own], features[chosen], labels[chosen], n_classes,
                                   k).items():
            n_right[name] += (said == labels[own]).sum()
    return {name: right / len(labels) for name, right in n_right.items()}


def measure(features, labels, groups, test, args):
    """Yield (examples a class, {method: accuracies by seed})."""
    for n in args.examples:
        by_seed = []
        for seed in range(args.seeds):
            rng = np.random.default_rng(seed)
            if test is not None:
                chosen = draw_examples(labels, n, rng)
                n_classes = max(labels.max(), test[1].max()) + 1
                said = classify(test[0], features[chosen], labels[chosen], n_classes, args.k)
                by_seed.append({name: (own == test[1]).mean() for name, own in said.items()})
            else:
                parts = rng.permutation(len(labels)) % N_PARTS if groups is None else groups
                by_seed.append(accuracy_over_groups(features, labels, parts, n, args.k, rng))
        yield n, {name: [row[name] for row in by_seed] for name in METHODS}


# ---------------------------------------------------------------- the command

def count_or_all(text):
    if text == ALL:
        return text
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1, nor {ALL}')
    return int(text)


def positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1')
    return int(text)


def build_parser():
    parser = argparse.ArgumentParser(
        description='Accuracy of nearest class mean and nearest neighbours, with few examples.')
    parser.add_argument('features', type=Path, metavar='FILE.h5',
                        help='features of main.py --inference --output_features')
    parser.add_argument('--test', type=Path, metavar='FILE.h5',
                        help='classify the videos of this file by those of the first')
    parser.add_argument('--groups', type=Path, metavar='FILE.csv',
                        help='table with columns path (or video_id) and group: no video is '
                             'classified by examples of its own group; without, ten random parts '
                             'take the place of groups')
    parser.add_argument('--examples', type=count_or_all, nargs='+', default=[1, 5, 10, ALL],
                        metavar='N', help='examples a class, or all (default: 1 5 10 all)')
    parser.add_argument('-k', type=positive, default=5, metavar='K',
                        help='nearest neighbours that vote (default: 5)')
    parser.add_argument('--seeds', type=positive, default=10, metavar='N',
                        help='how often examples are drawn (default: 10)')
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.test and args.groups:
        raise InputError('--test and --groups are both given: drop one')
    content = read_features(args.features)
    features, labels, video_ids = videos_of(content)
    groups = read_groups(args.groups, video_ids) if args.groups else None
    test = None
    if args.test:
        other = read_features(args.test)
        if other.class_names != content.class_names or (
                other.features.shape[1] != content.features.shape[1]):
            raise InputError(f'{args.test}: is of other classes or another module than '
                             f'{args.features}; write both with the same network')
        test = videos_of(other)
    elif groups is not None and len(np.unique(groups)) < 2:
        raise InputError(f'{args.groups}: all videos are of one group; without --groups, random '
                         'parts take their place')
    largest = np.bincount(labels if test is None else test[1])
    grouped = f' in {len(np.unique(groups))} groups' if groups is not None else ''
    print(f'{largest.sum()} videos of {(largest > 0).sum()} classes{grouped}; '
          f'the largest class has {largest.max() / largest.sum():.3f} of them')
    names = [name.format(k=args.k) for name in METHODS]
    print('examples a class  ' + '  '.join(f'{name:18}' for name in names).rstrip())
    for n, accuracies in measure(features, labels, groups, test, args):
        cells = (f'{np.mean(values):.3f} +- {np.std(values):.3f}' for values in accuracies.values())
        print(f'{n:>16}  ' + '  '.join(f'{cell:18}' for cell in cells).rstrip())


if __name__ == '__main__':
    run(main)
