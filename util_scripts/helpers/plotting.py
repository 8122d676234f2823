"""Pictures of a run: what it learned, what it confuses, and what the clips look like."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from runtime.figures import (FAINT, INK, RUN_COLOURS, confusion_figure, drawable, film_strip,
                             label_frames, save_figure, strips_figure)
from util_scripts.helpers.run_logs import Table

COLOURS = {'training': '#eb6834', 'validation': '#2a78d6'}
RIGHT, WRONG = '#1d6b34', '#c0232c'
# Of more classes than these together, so many of the worst and of the best are drawn.
SHOWN_CLASSES = 40, 20

# Title of a panel -> the log and the column of each line in it.
PANELS = {
    'loss': [('training', 'loss'), ('validation', 'loss')],
    'clip accuracy': [('training', 'acc'), ('validation', 'acc')],
    'video top-1 accuracy (validation)': [('validation', 'video_top1')],
    'clip mAP (validation)': [('validation', 'clip_map')],
    'video mAP (validation)': [('validation', 'video_map')],
    'learning rate': [('training', 'lr')],
}
# What decides which epoch is the best: the first of these that a validation has.
BEST_BY = 'video_map', 'video_top1', 'acc'


@dataclass(frozen=True)
class Clip:
    """A strip of a video: `frames` (T, H, W, 3) uint8 with their numbers, and what was said of it.

    `score` (0…1) is that of `predicted`.
    """

    frames: np.ndarray
    frame_numbers: list[int]
    truth: str
    predicted: str
    score: float
    name: str = ''


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc='left', fontsize=11, color=INK)
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis='y', color='#e4e4e4', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel('epoch', fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_runs(runs: Mapping[str, Mapping[str, Table]], path: Path) -> None:
    """Draw each figure of merit of one run or more by epoch, {name: {'training': table,
    'validation': table}}; either may be left out, and so may columns: a panel without a line is not
    drawn.

    Of several runs, each has a colour, and its training is dashed. The best epoch of a validation,
    whose weights are in save_best.pth, has a ring.
    """
    panels = {title: [(run, *line) for run, logs in runs.items() for line in lines
                      if line[1] in logs.get(line[0], {})] for title, lines in PANELS.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    n_rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9.6, 3.1 * n_rows), layout='constrained')
    for place, (title, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(n_rows, 2, place)
        _style(axes, title)
        for run, log, column in lines:
            epochs, values = runs[run][log]['epoch'], runs[run][log][column]
            is_dotted = len(epochs) <= 40 and len(runs) == 1 or len(epochs) == 1
            axes.plot(epochs, values, linewidth=1.8, marker='o', markersize=4 if is_dotted else 0,
                      **_line_look(log, list(runs).index(run), len(runs)))
        if title == 'learning rate':
            axes.set_yscale('log')
        else:
            # The margin of a chart that begins at 0 is narrower than a dot.
            axes.set_ylim(0, 1.03 * (axes.get_ylim()[1] if title == 'loss' else 1))
        for run, log, column in lines:
            _mark_best(axes, runs[run], log, column)
        if len(PANELS[title]) > 1 and len(runs) == 1:
            axes.legend(frameon=False, fontsize=9)
    if len(runs) > 1:
        _add_legend_of_runs(figure, runs)
    save_figure(figure, path)


def best_row(logs: Mapping[str, Table]) -> int | None:
    """The row of the best epoch in the table of the validation, the first of equals; None without
    one."""
    table = logs.get('validation', {})
    values = next((table[name] for name in BEST_BY if name in table), np.array([np.nan]))
    return None if np.isnan(values).all() else int(np.nanargmax(values))


def _mark_best(axes: Axes, logs: Mapping[str, Table], log: str, column: str) -> None:
    """A ring around the best epoch on a line of the validation, with its value."""
    best = best_row(logs)
    if log != 'validation' or best is None or not np.isfinite(logs[log][column][best]):
        return
    epoch, value = logs[log]['epoch'][best], logs[log][column][best]
    axes.plot([epoch], [value], marker='o', markersize=10, markerfacecolor='none',
              markeredgecolor=INK, markeredgewidth=1.3, linestyle='none', zorder=5)
    (begin, end), is_low = axes.dataLim.intervalx, value < 0.2 * axes.get_ylim()[1]
    place = (epoch - begin) / max(end - begin, 1)
    axes.annotate(f'epoch {epoch:.0f}: {value:.3g}', (epoch, value), fontsize=8, color=INK,
                  # Below it would lie on the numbers of the axis.
                  xytext=(0, 11 if is_low else -11), va='bottom' if is_low else 'top',
                  ha='left' if place < 0.15 else 'right' if place > 0.85 else 'center',
                  textcoords='offset points', zorder=6,
                  bbox={'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.8, 'pad': 1})


def _line_look(log: str, run: int, n_runs: int) -> dict[str, Any]:
    """Colour and style of a line: of one run the log has the colour, of several the run."""
    if n_runs == 1:
        return {'color': COLOURS[log], 'label': log}
    return {'color': RUN_COLOURS[run % len(RUN_COLOURS)],
            'linestyle': '--' if log == 'training' else '-'}


def _add_legend_of_runs(figure: Figure, runs: Iterable[str]) -> None:
    handles = [Line2D([], [], linewidth=1.8, color=RUN_COLOURS[run % len(RUN_COLOURS)],
                      label=drawable(name))
               for run, name in enumerate(runs)]
    handles += [Line2D([], [], linewidth=1.8, color=FAINT, label=log,
                       linestyle='--' if log == 'training' else '-') for log in COLOURS]
    figure.legend(handles=handles, loc='outside lower left', ncols=min(5, len(handles)),
                  frameon=False, fontsize=9)


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix as `confusion_figure` does."""
    save_figure(confusion_figure(np.asarray(counts), class_names), path)


def draw_classes(counts: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draw the accuracy of each class as a bar, worst first, with the number of its videos.

    `counts` as of `draw_confusion`; otherwise as `draw_bars`.
    """
    counts = np.asarray(counts)
    totals = counts.sum(axis=1)
    notes = [f'{right} of {total}' for right, total in zip(counts.diagonal(), totals)]
    draw_bars(counts.diagonal() / np.maximum(totals, 1), totals, notes, class_names,
              'accuracy by class, of videos', path)


def draw_bars(shares: np.ndarray, totals: np.ndarray, notes: Sequence[str],
              class_names: Sequence[str], title: str, path: Path) -> None:
    """Draw one bar per class, worst first, with its share and a note beside it, and a line at
    their mean.

    shares: (n,) 0...1, of `totals` (n,) videos; classes without a video are left out. Of more
    classes than can be read, the worst and the best are drawn.
    """
    order = sorted(np.flatnonzero(totals).tolist(),
                   key=lambda number: (shares[number], -totals[number]))
    mean = shares[order].mean()
    n_left_out = len(order) - sum(SHOWN_CLASSES)
    rows: list[int | None] = [*order]
    if n_left_out > 0:
        rows = [*order[:SHOWN_CLASSES[0]], None, *order[-SHOWN_CLASSES[1]:]]
    figure = Figure(figsize=(8, 1.1 + 0.22 * len(rows)), layout='constrained')
    axes = figure.add_subplot()
    places = [place for place, number in enumerate(rows) if number is not None]
    drawn = [number for number in rows if number is not None]
    axes.barh(places, shares[drawn], height=0.72, color=COLOURS['validation'])
    for place, number in zip(places, drawn):
        # In a column of their own: no bar, and no line, runs into them.
        axes.text(1.02, place, f'{shares[number]:4.0%}  {notes[number]}', va='center', fontsize=8,
                  color=INK)
    axes.axvline(mean, color=COLOURS['training'], linewidth=1.2)
    names = [f'… {n_left_out} more …' if number is None else drawable(class_names[number])
             for number in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8, color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_title(f'{title}; mean {mean:.1%} (line)', loc='left', fontsize=11, color=INK)
    save_figure(figure, path)


def draw_clips(clips: Sequence[Clip], path: Path) -> None:
    """Draw a strip of frames for each Clip, in the order given, under what was said of it."""
    strips = [film_strip(clip.frames) for clip in clips]
    figure, all_axes = strips_figure(strips)
    for axes, clip, strip in zip(all_axes, clips, strips):
        _caption(axes, clip)
        label_frames(axes, clip.frame_numbers, clip.frames.shape[2], strip.shape[1])
    save_figure(figure, path)


def _caption(axes: Axes, clip: Clip) -> None:
    right = clip.truth == clip.predicted
    verdict = 'right' if right else f'WRONG, said {clip.predicted}'
    axes.set_title(drawable(f'{clip.truth}: {verdict} ({clip.score:.2f})'), loc='left',
                   fontsize=10, pad=3, color=RIGHT if right else WRONG,
                   fontweight='normal' if right else 'bold')
    axes.set_title(drawable(clip.name), loc='right', fontsize=8, pad=3, color=FAINT)
