"""What a comparison of recipes found: the table, its files, and the picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from runtime.files import write_json
from runtime.output import printable, wrote
from util_scripts.helpers.files import write_csv

MEASURED = ('video_accuracy', 'mean_class_accuracy', 'n_videos', 'minutes')  # of a run
TABLE, SUMMARY, PICTURE = 'comparison.csv', 'comparison.json', 'comparison.png'


class Found(NamedTuple):
    """What a run found. Accuracies are 0...1."""

    recipe: str
    fold: int
    seed: int
    video_accuracy: float
    mean_class_accuracy: float
    n_videos: int
    minutes: float


class Spread(NamedTuple):
    """Mean and sample standard deviation of some numbers; nan of one, which has no deviation."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Spread':
        return cls(fmean(values), stdev(values) if len(values) > 1 else math.nan)

    def percent(self) -> str:
        """71.2 ± 3.4; '' of no number."""
        if math.isnan(self.mean):
            return ''
        deviation = '' if math.isnan(self.deviation) else f' ± {100 * self.deviation:.1f}'
        return f'{100 * self.mean:.1f}{deviation}'


def summarise(found: Sequence[Found]) -> list[dict[str, Any]]:
    """One row per recipe, in the order of their runs.

    The deviations are over single runs, each of a fold and a seed; of `all_folds`, the accuracy
    over the videos of all folds together, over the seeds. Of `gain`, over the first recipe on the
    same folds with the same seeds, the mean and its standard error over the folds.
    """
    first = {(one.fold, one.seed): one for one in found if one.recipe == found[0].recipe}
    rows = []
    for recipe in dict.fromkeys(one.recipe for one in found):
        own = [one for one in found if one.recipe == recipe]
        gains = gains_by_fold(own, first) or [math.nan]
        rows.append({'recipe': recipe, 'n_runs': len(own),
                     'n_folds': len({one.fold for one in own}),
                     'n_seeds': len({one.seed for one in own}),
                     'video_accuracy': Spread.of([one.video_accuracy for one in own]),
                     'all_folds': Spread.of(accuracies_by_seed(own)),
                     'mean_class_accuracy': Spread.of([one.mean_class_accuracy for one in own]),
                     'gain': Spread(fmean(gains),
                                    Spread.of(gains).deviation / math.sqrt(len(gains))),
                     'minutes': fmean(one.minutes for one in own)})
    return rows


def gains_by_fold(own: Sequence[Found], first: Mapping[tuple[int, int], Found]) -> list[float]:
    """What a recipe gains over the first, in the mean over the seeds of each fold, which are tested
    on the same videos; of a single fold for each seed."""
    gains: dict[int, list[float]] = {}
    for one in own:
        if other := first.get((one.fold, one.seed)):
            gains.setdefault(one.fold, []).append(one.video_accuracy - other.video_accuracy)
    [*folds] = gains.values()
    return folds[0] if len(folds) == 1 else [fmean(fold) for fold in folds]


def accuracies_by_seed(own: Sequence[Found]) -> list[float]:
    """The accuracy over all videos of a recipe's folds, for each seed that has them all."""
    seeds: dict[int, list[Found]] = {}
    for one in own:
        seeds.setdefault(one.seed, []).append(one)
    n_folds = len({one.fold for one in own})
    complete = [runs for runs in seeds.values() if len(runs) == n_folds]
    return [sum(one.video_accuracy * one.n_videos for one in runs)
            / sum(one.n_videos for one in runs) for runs in complete] or [math.nan]


def table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The summary as a Markdown table."""
    lines = [f'| recipe | folds x seeds | video accuracy, % | of all folds, % '
             f'| mean-class accuracy, % | gain over {rows[0]["recipe"]} | minutes |',
             '| --- ' * 7 + '|']
    for row in rows:
        gain = '' if row is rows[0] else row['gain'].percent()
        grid = f'{row["n_folds"]} x {row["n_seeds"]}'
        if row['n_runs'] != row['n_folds'] * row['n_seeds']:
            grid += f' ({row["n_runs"]} runs)'
        lines.append(f'| {row["recipe"]} | {grid} | {row["video_accuracy"].percent()} | '
                     f'{row["all_folds"].percent()} | {row["mean_class_accuracy"].percent()} '
                     f'| {gain} | {row["minutes"]:.1f} |')
    return lines


def report(folder: Path, found: Sequence[Found]) -> None:
    """Print the table of what was found so far; write it, all runs, and a picture."""
    if not found:
        print('no run is finished')
        return
    rows = summarise(found)
    print()
    print(*map(printable, table_lines(rows)), sep='\n')
    print('± is the standard deviation of single runs; of all folds together, that over seeds; of '
          'gains, on the same folds and seeds, the standard error over the folds')
    write_csv(folder / TABLE, [Found._fields, *found])
    write_json(folder / SUMMARY, [
        {name: _plain(value) for name, value in row.items()} for row in rows])
    draw(rows, found, folder / PICTURE)
    wrote(folder / TABLE, folder / SUMMARY, folder / PICTURE)


def _plain(value: Any) -> Any:
    """As JSON has it, which knows no nan."""
    if isinstance(value, Spread):
        return {name: None if math.isnan(number) else number
                for name, number in value._asdict().items()}
    return value


def draw(rows: Sequence[dict[str, Any]], found: Sequence[Found], path: Path) -> None:
    """A line per recipe: its runs as dots, their mean and deviation."""
    from matplotlib.figure import Figure  # here, because it takes long

    from runtime.figures import FAINT, INK, drawable, save_figure
    from util_scripts.helpers.plotting import COLOURS
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(rows)), layout='constrained')
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        values = [100 * one.video_accuracy for one in found if one.recipe == row['recipe']]
        accuracy = row['video_accuracy']
        axes.plot(values, [place] * len(values), 'o', color=FAINT, markersize=4, alpha=0.6,
                  markeredgewidth=0)
        deviation = 0 if math.isnan(accuracy.deviation) else 100 * accuracy.deviation
        axes.errorbar(100 * accuracy.mean, place, xerr=deviation, fmt='D', markersize=6,
                      color=COLOURS['validation'], capsize=3, linewidth=1.6)
        axes.text(1.02, place, accuracy.percent(), transform=axes.get_yaxis_transform(),
                  va='center', fontsize=9, color=INK)
    axes.set_yticks(range(len(rows)), [drawable(row['recipe']) for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel('video accuracy of each run, their mean and standard deviation, %', fontsize=9)
    axes.grid(axis='x', color='#e4e4e4', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    save_figure(figure, path)
