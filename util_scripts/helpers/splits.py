"""Splits of videos: into training, validation and test, or into folds, by whole groups."""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.errors import InputError
from util_scripts.helpers.video_lists import Part, composed, meaning_of, read_rows
from util_scripts.helpers.videos import video_stem

# So many random splits are tried, fewer for large sets, and the one nearest to the wanted share in
# every class is taken.
MAX_TRIES, MAX_PLACED = 100, 500_000


class Own(NamedTuple):
    """A video: path below the root without suffix, class, and what must stay together with it.

    `label` may be a list of classes, of any length; None where it is not known. `subset` and `part`
    are what a list says of them.
    """

    path: str
    label: str | list[str] | None
    group: str
    subset: str | None = None
    part: Part | None = None

    @property
    def labels(self) -> list[str]:
        if self.label is None:
            return []
        return self.label if isinstance(self.label, list) else [self.label]


def split(listed: Sequence[Own], share: float, seed: int) -> set[str]:
    """Paths of the videos of one side: whole groups, near to a share of every class.

    A class with two groups or more has at least one video there. Depends on the seed alone.
    """
    groups = in_groups(listed)
    n_groups = Counter(label for _, counts in groups for label in counts)
    n_videos = count_labels(listed)
    wanted = {label: max(share * n, 1 if share and n_groups[label] > 1 else 0)
              for label, n in n_videos.items()}
    draw = random.Random(seed)
    tries = []
    for _ in range(n_tries(len(groups))):
        order = draw.sample(groups, len(groups))
        tries.append(place(order, wanted))
    _, chosen = min(tries, key=lambda one: one[0])
    return {video.path for videos in chosen for video in videos}


def count_labels(videos: Iterable[Own]) -> Counter[str | None]:
    """{label: videos that have it}; None counts those without one, as a class of their own."""
    counts: Counter[str | None] = Counter()
    for video in videos:
        counts.update(video.labels)
        counts[None] += not video.labels
    return +counts  # without what counts 0


def place(groups: Sequence[tuple[list[Own], Counter[str | None]]],
          wanted: Mapping[str | None, float]) -> tuple[float, list[list[Own]]]:
    """(how far it is from what is wanted, the groups taken): each is taken that brings it nearer.

    groups: [(videos, {label: number})]; wanted: {label: number}
    """
    missing = dict(wanted)
    chosen: list[list[Own]] = []
    for videos, counts in groups:
        gain = sum(abs(missing[label]) - abs(missing[label] - n) for label, n in counts.items())
        if gain > 0:
            chosen.append(videos)
            for label, n in counts.items():
                missing[label] -= n
    # Relative to the class, so that small classes count as much as large ones.
    return sum(abs(left) / max(wanted[label], 1) for label, left in missing.items()), chosen


def draw_subsets(listed: Sequence[Own], val_fraction: float, test_fraction: float,
                 n_folds: int | None, seed: int) -> list[dict[str, str]]:
    """One {path: training, validation or testing}, or of folds one for each, in which it is tested.

    The fractions are of all videos. Raises InputError where nothing is left to train on.
    """
    if n_folds and test_fraction:
        raise InputError('--folds and --test_fraction both say what is tested: drop one of them')
    test_share = 1 / n_folds if n_folds else test_fraction
    if val_fraction + test_share >= 1:
        raise InputError(f'--val_fraction {val_fraction:g} leaves nothing for training beside the '
                         f'{test_share:.2g} that is tested: give less')
    if n_folds:
        fold_of = folds(listed, n_folds, seed)
        tested = [{path for path, own in fold_of.items() if own == fold}
                  for fold in range(n_folds)]
    else:
        tested = [split(listed, test_fraction, seed) if test_fraction else set()]
    drawn = []
    for testing in tested:
        rest = [video for video in listed if video.path not in testing]
        if not rest:
            n_groups = len(in_groups(listed))
            raise InputError(f'all videos would be for testing, as they are of {n_groups} '
                             f'{"group" if n_groups == 1 else "groups"}: give smaller groups, or a '
                             'smaller --test_fraction')
        validation = split(rest, val_fraction / (1 - test_share), seed)
        drawn.append({video.path: 'testing' if video.path in testing else
                      'validation' if video.path in validation else 'training'
                      for video in listed})
    return drawn


def folds(listed: Sequence[Own], n_folds: int, seed: int) -> dict[str, int]:
    """{path: number of its fold from 0}: whole groups, and near to 1 / n_folds of every class.

    Depends on the seed alone. Raises InputError where there are fewer groups than folds.
    """
    groups = in_groups(listed)
    if len(groups) < 2:
        raise InputError(f'--folds {n_folds}: the videos are all of one group, and a fold has at '
                         'least one: give smaller groups')
    if len(groups) < n_folds:
        raise InputError(f'--folds {n_folds}: the videos are of {len(groups)} groups, and a fold '
                         'has at least one; give fewer folds')
    draw = random.Random(seed)
    n_videos = count_labels(listed)
    wanted = {label: n / n_folds for label, n in n_videos.items()}
    best: tuple[float, list[int]] | None = None
    for _ in range(n_tries(len(groups))):
        order = draw.sample(range(len(groups)), len(groups))
        # Large groups first: small ones fill what these leave.
        order.sort(key=lambda number: -len(groups[number][0]))
        found = place_in_folds([groups[number][1] for number in order], wanted, n_folds)
        if best is None or found[0] < best[0]:
            best = found[0], [fold for _, fold in sorted(zip(order, found[1]))]
    assert best is not None
    return {video.path: fold for (videos, _), fold in zip(groups, best[1]) for video in videos}


def place_in_folds(groups: Sequence[Counter[str | None]], wanted: Mapping[str | None, float],
                   n_folds: int) -> tuple[float, list[int]]:
    """(how far it is from what is wanted of each class in each fold, the fold of each group): each
    goes where it brings that nearest."""
    missing = [dict(wanted) for _ in range(n_folds)]
    chosen = []
    for counts in groups:
        def gain(fold: int) -> float:
            # Squares, so that full folds get no more; relative to the class, so that small ones
            # count as much as large ones.
            return sum((missing[fold][label] ** 2 - (missing[fold][label] - n) ** 2)
                       / wanted[label] ** 2 for label, n in counts.items())
        fold = max(range(n_folds), key=gain)
        chosen.append(fold)
        for label, n in counts.items():
            missing[fold][label] -= n
    cost = sum((left / wanted[label]) ** 2 for fold in missing for label, left in fold.items())
    empty = sorted({*range(n_folds)} - {*chosen})
    for fold in empty:  # of classes with too few groups: from a fold that has most
        fullest = Counter(chosen).most_common(1)[0][0]
        chosen[len(chosen) - 1 - chosen[::-1].index(fullest)] = fold
    return cost + 1e9 * len(empty), chosen


def in_groups(listed: Iterable[Own]) -> list[tuple[list[Own], Counter[str | None]]]:
    """[(the videos of a group, {label: how many})]"""
    by_group: dict[str, list[Own]] = defaultdict(list)
    for video in listed:
        by_group[video.group].append(video)
    return [(videos, count_labels(videos)) for videos in by_group.values()]


def n_tries(n_groups: int) -> int:
    return max(1, min(MAX_TRIES, MAX_PLACED // n_groups))


def fold_path(path: Path, number: int, n_folds: int | None) -> Path:
    """own.json -> own_1.json, for the first of several folds."""
    return path.with_name(f'{path.stem}_{number}{path.suffix}') if n_folds else path


def read_groups(path: Path) -> dict[str, str]:
    """{path of a video, without suffix: its group} of a CSV file with the columns path and group
    among others. Raises InputError."""
    what = 'a CSV file with the columns path and group'
    rows = read_rows(path, path.parent, what)
    header = list(map(meaning_of, rows[0][1])) if rows else []
    for name in ('path', 'group'):
        if name not in header:
            raise InputError(f'{path}: no column {name} in line 1; {what} is needed there')
    places = header.index('path'), header.index('group')
    groups: dict[str, str] = {}
    for number, row in rows[1:]:
        name, group = (row[place] if place < len(row) else '' for place in places)
        if not group:  # said of the first video that needs it
            continue
        video = video_stem(os.path.normpath(composed(name).replace('\\', '/'))
                           .removesuffix('.hdf5'))
        if groups.setdefault(video, group) != group:
            raise InputError(f'{path}, line {number}: {video} is in groups {groups[video]!r} and '
                             f'{group!r}; remove a line')
    return groups


def group_reader(path: Path) -> Callable[[str], str]:
    """A function: path of a video, without suffix -> its group, by `read_groups`. Raises
    InputError, as that does for a video that is not listed."""
    groups = read_groups(path)

    def group_of(video: str) -> str:
        if composed(video) not in groups:
            raise InputError(f'{path}: says no group of {video}; add a line for it')
        return groups[composed(video)]
    return group_of
