"""How well features tell classes apart: nearest class mean and nearest neighbours.

Features are centred on the examples and compared by the cosine (Wang et al., "SimpleShot", 2019).
"""

import os
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from features import read_features
from metrics import confusion_of_pairs
from runtime.errors import InputError
from util_scripts.helpers.own_videos import grouping
from util_scripts.helpers.splits import read_groups
from util_scripts.helpers.video_lists import composed

Array = np.ndarray
ALL = 'all'
# Without groups, a video is classified by examples of the other parts of so many.
N_PARTS = 10


# ---------------------------------------------------------------- what is compared

def videos_of(content: Any) -> tuple[Array, Array, Array]:
    """(features (n, D), labels (n,), video ids) with one row per video that has a label.

    The windows of a video are averaged. Raises InputError where no video has one, where videos
    have several, or where a feature is not finite.
    """
    row_labels = content.labels
    if row_labels.ndim > 1:  # --multi_label
        if (row_labels.sum(axis=1) != 1).any():
            raise InputError('some videos have several labels or none (--multi_label), and are '
                             'classified by one label here; write the features of videos with one')
        row_labels = row_labels.argmax(axis=1)
    finite = np.isfinite(content.features).all(axis=1)
    if not finite.all():
        video_id = content.video_ids[int(finite.argmin())]
        raise InputError(f'the features of video {video_id!r} are not finite; write them again, '
                         'with --precision fp32 or bf16')
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


def group_numbers(path: Path | None, video_ids: Iterable[str]) -> Array:
    """(n,) group numbers of the videos, from a table with columns group and path (or video_id), or
    without one from names such as v_Biking_g05_c02."""
    if path is None:
        by_name = list(map(grouping(None), video_ids))
        return np.unique(by_name, return_inverse=True)[1]
    groups: dict[str, set[str]] = defaultdict(set)
    for video, group in read_groups(path).items():
        for name in {video, os.path.basename(video)}:
            groups[name].add(group)
    names = [composed(video_id) for video_id in video_ids]
    missing = [name for name in names if name not in groups]
    if missing:
        raise InputError(f'{path}: has no group for {len(missing)} of {len(names)} videos, '
                         f'such as {missing[0]}; add them')
    several = [name for name in names if len(groups[name]) > 1]
    if several:
        raise InputError(f'{path}: several videos are called {several[0]}, and are in different '
                         'groups; give the path of each, or its id, once')
    return np.unique([min(groups[name]) for name in names], return_inverse=True)[1]


# ---------------------------------------------------------------- classifying

def normalized(rows: Array, centre: Array | float) -> Array:
    """Rows minus the centre, of length 1."""
    rows = rows - centre
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nearest_mean(queries: Array, examples: Array, labels: Array, n_classes: int, k: int) -> Array:
    """(Q,) class whose mean example is nearest to each query; `k` has no part in it."""
    means = np.full((n_classes, queries.shape[1]), np.nan)
    for label in np.unique(labels):
        means[label] = examples[labels == label].mean(axis=0)
    cosines = queries @ normalized(means, 0).T
    return np.where(np.isnan(cosines), -np.inf, cosines).argmax(axis=1)


def nearest_neighbours(queries: Array, examples: Array, labels: Array, n_classes: int, k: int
                       ) -> Array:
    """(Q,) class of most of the k nearest examples; of equal numbers the more similar wins."""
    cosines = queries @ examples.T
    k = min(k, len(examples))
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    votes = np.zeros((len(queries), n_classes))
    rows = np.arange(len(queries))[:, None]
    np.add.at(votes, (rows, labels[nearest]), 1 + 1e-3 * cosines[rows, nearest])
    return votes.argmax(axis=1)


METHODS = {'nearest class mean': nearest_mean, '{k} nearest': nearest_neighbours}


def draw_examples(labels: Array, n: int | str, rng: np.random.Generator) -> Array:
    """Numbers of `n` random examples per class, or of all that there are."""
    if n == ALL:
        return np.arange(len(labels))
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:n]
                           for label in np.unique(labels)])


def classify(queries: Array, examples: Array, labels: Array, n_classes: int, k: int
             ) -> dict[str, Array]:
    """{method: (Q,) classes} of the queries, by labelled examples."""
    # A single example, centred on itself, would be nothing.
    centre = examples.mean(axis=0) if len(examples) > 1 else 0.0
    queries, examples = normalized(queries, centre), normalized(examples, centre)
    return {name: method(queries, examples, labels, n_classes, k)
            for name, method in METHODS.items()}


def confusion(labels: Array, said: Array, n_classes: int) -> torch.Tensor:
    """(n_classes, n_classes) counts, rows true, columns what was said."""
    return confusion_of_pairs(torch.as_tensor(labels), torch.as_tensor(said), n_classes)


def confusions_over_groups(features: Array, labels: Array, groups: Array, n: int | str, k: int,
                           rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """{method: counts}: each group classified by `n` examples per class of the other groups."""
    n_classes = int(labels.max()) + 1
    counts = {name: torch.zeros(n_classes, n_classes, dtype=torch.int64) for name in METHODS}
    for group in np.unique(groups):
        own = groups == group
        others = np.flatnonzero(~own)
        chosen = others[draw_examples(labels[others], n, rng)]
        for name, said in classify(features[own], features[chosen], labels[chosen], n_classes,
                                   k).items():
            counts[name] += confusion(labels[own], said, n_classes)
    return counts


def accuracies(features: Array, labels: Array, groups: Array | None,
               test: tuple[Array, Array] | None, args: Namespace
               ) -> Iterator[tuple[int | str, dict[str, list[float]]]]:
    """Yield (examples per class, {method: accuracies by seed})."""
    for n in args.examples:
        by_seed = []
        for seed in range(args.seeds):
            rng = np.random.default_rng(seed)
            if test is not None:
                chosen = draw_examples(labels, n, rng)
                n_classes = int(max(labels.max(), test[1].max())) + 1
                said = classify(test[0], features[chosen], labels[chosen], n_classes, args.k)
                counts = {name: confusion(test[1], own, n_classes) for name, own in said.items()}
            else:
                parts = rng.permutation(len(labels)) % N_PARTS if groups is None else groups
                counts = confusions_over_groups(features, labels, parts, n, args.k, rng)
            by_seed.append({name: float(own.trace().double() / own.sum())
                            for name, own in counts.items()})
        yield n, {name: [row[name] for row in by_seed] for name in METHODS}


def report(args: Namespace) -> None:
    """Print the accuracies that the flags of `knn` ask for."""
    content = read_features(args.features)
    features, labels, video_ids = videos_of(content)
    groups = group_numbers(args.groups, video_ids) if args.groups else None
    test = None
    if args.test:
        other = read_features(args.test)
        if other.class_names != content.class_names or (
                other.features.shape[1] != content.features.shape[1]):
            raise InputError(f'{args.test}: is of other classes or another module than '
                             f'{args.features}; write both with the same network')
        test = videos_of(other)[:2]
    elif len(labels) < 2:
        raise InputError(f'{args.features}: has one video with a label, and others are needed to '
                         'compare it with; write the features of more')
    elif groups is not None and len(np.unique(groups)) < 2:
        raise InputError(f'{args.groups}: all videos are of one group; without --groups, random '
                         'parts take their place')
    largest = np.bincount(labels if test is None else test[1])
    grouped = f' in {len(np.unique(groups))} groups' if groups is not None else ''
    print(f'{largest.sum()} videos of {(largest > 0).sum()} classes{grouped}; '
          f'the largest class has {largest.max() / largest.sum():.3f} of them')
    names = [name.format(k=args.k) for name in METHODS]
    print('examples a class  ' + '  '.join(f'{name:18}' for name in names).rstrip())
    for n, by_method in accuracies(features, labels, groups, test, args):
        cells = (f'{np.mean(values):.3f} +- {np.std(values):.3f}' for values in by_method.values())
        print(f'{n:>16}  ' + '  '.join(f'{cell:18}' for cell in cells).rstrip())
