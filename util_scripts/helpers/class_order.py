"""The order of a network's classes, from its scores of labelled videos.

A network that scores output i of a video x with p(i | x) says that output i is the class of some
videos with a likelihood of the product of p(i | x) over them. The order is the assignment of
outputs to classes whose likelihood is the greatest, and how sure it is of a class is told by the
likelihood of the best order that has the class elsewhere.
"""

import math
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from datasets.annotations import SUBSETS
from runtime.arguments import command_line
from runtime.errors import InputError
from runtime.files import write_text
from runtime.output import printable, wrote
from runtime.schema import whole_number
from util_scripts.helpers.evaluation import check_labels, read_results, read_truth
from util_scripts.helpers.files import told_apart
from util_scripts.helpers.text import n_of

# Scores below it are taken for it: that a network is wrong for once is not worth more than this,
# and results that hold the best few classes alone leave the others out.
SMALLEST_SCORE = 1e-4
# A class is sure where any other order is so many times less likely.
SURE_ODDS = 99.0
# Of a network, more than any here has: the cost of an order grows with their cube.
MAX_OUTPUTS = 2000


class Order(NamedTuple):
    """Which output each class is, and how sure that is.

    outputs: (n_classes,) output of each class
    margins: (n_classes,) logarithm of how many times less likely any order is that has the class
             elsewhere; 0 for one that nothing tells apart
    """

    outputs: np.ndarray
    margins: np.ndarray


def log_likelihoods(scores: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(n_videos, n_outputs) scores in 0...1 and (n_videos,) labels -> (n_classes, n_outputs): that
    the videos of a class are of an output; a class without videos has zeros."""
    total = np.zeros((n_classes, scores.shape[1]))
    np.add.at(total, labels, np.log(np.maximum(scores, SMALLEST_SCORE)))
    return total


def find_order(likelihoods: np.ndarray) -> Order:
    """The most likely order of classes, of (n_classes, n_outputs) log-likelihoods.

    There are at least as many outputs as classes.
    """
    n_classes, n_outputs = likelihoods.shape
    square = np.zeros((n_outputs, n_outputs))  # outputs of no class here are those of no videos
    square[:n_classes] = likelihoods
    outputs = linear_sum_assignment(square, maximize=True)[1]
    # Another order is cycles of classes that each take the output of the next; the cheapest through
    # each class is found by the algorithm of Floyd and Warshall.
    own = square[np.arange(n_outputs), outputs]
    costs = own[:, None] - square[:, outputs]
    np.fill_diagonal(costs, np.inf)
    for middle in range(n_outputs):
        np.minimum(costs, costs[:, middle, None] + costs[middle], out=costs)
    return Order(outputs[:n_classes], np.maximum(costs.diagonal()[:n_classes], 0))


def videos_needed(n_videos: int, margin: float) -> int | None:
    """How many videos of a class make it sure, at the rate of those there are; None: unknown."""
    return math.ceil(n_videos * math.log(SURE_ODDS) / margin) if margin > 1e-9 else None


# ---------------------------------------------------------------- what is read

def output_numbers(names: set[str], class_names: tuple[str, ...], path: Path) -> dict[str, int]:
    """{label of the results: number of the output}. Raises InputError.

    Labels are numbers, or else names of the annotation, which main.py gives to outputs in its
    order.
    """
    if all(name.isdecimal() for name in names) and not names <= set(class_names):
        numbers = {name: whole_number(name) for name in names}
        for name, number in numbers.items():
            if number is None or number >= MAX_OUTPUTS:
                raise InputError(f'{path}: its label {name!r} is no number of an output, of which '
                                 f'there may be {MAX_OUTPUTS}; give results of a network')
        return {name: number for name, number in numbers.items() if number is not None}
    own = {name: number for number, name in enumerate(class_names)}
    unknown = sorted(names - own.keys())
    if unknown:
        raise InputError(f'{path}: its label {unknown[0]!r} is neither a number nor a class of the '
                         'annotation; give results of the network without class names, or with '
                         'those of this annotation')
    return own


def read_scores(results: Path, annotation: Path,
                subset: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """((n_videos, n_outputs) scores, (n_videos,) labels, class names). Raises InputError."""
    with told_apart(annotation, results):
        class_names, truth, has_lists = read_truth(annotation, subset)
    if has_lists or any(len(labels) > 1 for labels in truth.values()):
        raise InputError(f'{annotation}: its videos have several labels, and one of each is needed '
                         'here; give an annotation with one')
    check_labels(annotation, truth, class_names)
    found, _ = read_results(results, truth, len(class_names), 1)
    if not found:
        raise InputError(f'{results}: has no result of any of the {len(truth)} labelled videos of '
                         f'subset {subset!r}; name the subset that was inferred with --subset')
    numbers = output_numbers({name for scores in found.values() for name in scores}, class_names,
                             results)
    n_outputs = max(len(class_names), max(numbers.values()) + 1)
    scores = np.zeros((len(found), n_outputs), np.float32)
    for row, of_video in zip(scores, found.values()):
        row[[numbers[name] for name in of_video]] = list(of_video.values())
    number_of = {name: number for number, name in enumerate(class_names)}
    labels = np.array([number_of[next(iter(truth[video_id]))] for video_id in found])
    return scores, labels, tuple(class_names)


# ---------------------------------------------------------------- what is said

def lines_about(order: Order, scores: np.ndarray, labels: np.ndarray,
                class_names: tuple[str, ...]) -> list[str]:
    """Lines: a table of the classes that are not sure, and what the order does to the accuracy."""
    n_videos = np.bincount(labels, minlength=len(class_names))
    best = scores.argmax(axis=1)
    sure = order.margins >= math.log(SURE_ODDS)
    lines = [f'{n_of(len(labels), "video")} of {n_of(int((n_videos > 0).sum()), "class")}, '
             f'{n_of(scores.shape[1], "output")}',
             f'top-1: {(best == order.outputs[labels]).mean():.4f} in this order, '
             f'{(best == labels).mean():.4f} in that of the annotation',
             f'{sure.sum()} of {n_of(len(class_names), "class")} sure']
    if not sure.all():
        lines += ['', 'not sure:', '  sure  output  videos  needed  class']
    for number in np.argsort(order.margins, kind='stable'):
        if not sure[number]:
            needed = videos_needed(n_videos[number], order.margins[number])
            lines.append(f'{chance(order.margins[number]):6.3f}  {order.outputs[number]:6}  '
                         f'{n_videos[number]:6}  {needed or "-":>6}  {class_names[number]}')
    return lines


def chance(margin: float) -> float:
    """How sure a class is, 0.5 ... 1, against the best other order."""
    return 1 / (1 + math.exp(-margin))


def report(args: Namespace) -> None:
    """What find_class_order does with its arguments. Raises InputError."""
    scores, labels, class_names = read_scores(args.results, args.annotation,
                                              SUBSETS.get(args.subset, args.subset))
    order = find_order(log_likelihoods(scores, labels, len(class_names)))
    names = list(map(str, range(scores.shape[1])))  # of outputs for which no class is left
    for name, output in zip(class_names, order.outputs):
        names[output] = name
    write_text(args.output, '\n'.join(names) + '\n')
    print(*map(printable, lines_about(order, scores, labels, class_names)), sep='\n')
    wrote(args.output, then=command_line('predict', 'VIDEO', '--weights', 'FILE', '--labels',
                                         args.output))
