"""Pictures of a run: what it learned, what it confuses, and what the clips look like.

Nothing here touches pyplot: a figure is an object, drawn by Agg and gone when it is saved, so that
these functions work without a screen and inside any other program.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from runtime.files import replacing
from util_scripts.helpers.run_logs import Table

INK, FAINT = '#222222', '#8a8a8a'
COLOURS = {'training': '#eb6834', 'validation': '#2a78d6'}
RIGHT, WRONG = '#1d6b34', '#c0232c'
DPI = 120
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


def save(figure: Figure, path: Path) -> None:
    """Write the picture in the format that its suffix names, at once or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=DPI, bbox_inches='tight')


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc='left', fontsize=11, color=INK)
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis='y', color='#e4e4e4', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel('epoch', fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_curves(logs: Mapping[str, Table], path: Path) -> None:
    """Draw each figure of merit of a run by epoch.

    `logs` is {'training': table, 'validation': table} of `read_log`; either may be left out, and
    so may columns: a panel without a line is not drawn.
    """
    draw_runs({'': logs}, path)


def draw_runs(runs: Mapping[str, Mapping[str, Table]], path: Path) -> None:
    """Draw each figure of merit of one run or more, {name: logs as of `draw_curves`}, by epoch.

    Of several runs, each has a colour, and its training is dashed.
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
            axes.set_ylim(0, None if title == 'loss' else 1.03)
        if len(PANELS[title]) > 1 and len(runs) == 1:
            axes.legend(frameon=False, fontsize=9)
    if len(runs) > 1:
        _add_legend_of_runs(figure, runs)
    save(figure, path)


def _line_look(log: str, run: int, n_runs: int) -> dict[str, Any]:
    """Colour and style of a line: of one run the log has the colour, of several the run."""
    if n_runs == 1:
        return {'color': COLOURS[log], 'label': log}
    return {'color': f'C{run % 10}', 'linestyle': '--' if log == 'training' else '-'}


def _add_legend_of_runs(figure: Figure, runs: Iterable[str]) -> None:
    handles = [Line2D([], [], linewidth=1.8, color=f'C{run % 10}', label=name)
               for run, name in enumerate(runs)]
    handles += [Line2D([], [], linewidth=1.8, color=FAINT, label=log,
                       linestyle='--' if log == 'training' else '-') for log in COLOURS]
    figure.legend(handles=handles, loc='outside lower left', ncols=min(5, len(handles)),
                  frameon=False, fontsize=9)


def _label_classes(axes: Axes, class_names: Sequence[str], side_inch: float) -> None:
    """Name the rows and columns; of more classes than lines of text fit, only each n-th."""
    n_classes = len(class_names)
    line_inch = 0.115  # a line of the smallest type that is legible, 7 points, with some air
    step = int(np.ceil(n_classes * line_inch / side_inch))
    size = float(np.clip(72 * side_inch * step / n_classes * 0.6, 7, 10))
    shown = range(0, n_classes, step)
    names = [class_names[index] for index in shown]
    slant = {'rotation': 90} if n_classes > 12 else {'rotation': 40, 'ha': 'right',
                                                     'rotation_mode': 'anchor'}
    axes.set_xticks(shown, names, fontsize=size, **slant)
    axes.set_yticks(shown, names, fontsize=size)
    axes.tick_params(length=2 if step > 1 else 0, colors=INK)


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix: colour is the share of a row, numbers are videos.

    `counts` (n, n) whole numbers, rows true, columns predicted; from 2 to some 700 classes. Cells
    that are too small for a number have none; then small shares are drawn stronger.
    """
    counts = np.asarray(counts)
    n_classes = len(class_names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_inch = float(np.clip(0.62 * n_classes, 3.6, 12))
    cell_inch = side_inch / n_classes
    numbered = cell_inch >= 0.28
    figure = Figure(figsize=(side_inch + 2.6, side_inch + 2), layout='constrained')
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap='Blues', norm=PowerNorm(1 if numbered else 0.4, 0, 1))
    if numbered:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                axes.text(column, row, str(count), ha='center', va='center',
                          fontsize=min(11, 72 * cell_inch * 0.3),
                          color='white' if shares[row, column] > 0.55 else INK)
    _label_classes(axes, class_names, side_inch)
    axes.set_xlabel('predicted', fontsize=11, color=INK)
    axes.set_ylabel('true', fontsize=11, color=INK)
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set_title(f'{right} of {total} right: {right / max(total, 1):.1%}', loc='left',
                   fontsize=12, color=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label('share of the true class', fontsize=10, color=INK)
    bar.outline.set_visible(False)
    save(figure, path)


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
    """Draw one bar per class, worst first, with a note at its end and a line at their mean.

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
        axes.text(shares[number] + 0.008, place, notes[number], va='center', fontsize=8, color=INK,
                  bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 1})
    axes.axvline(mean, color=COLOURS['training'], linewidth=1.2)
    names = [f'… {n_left_out} more …' if number is None else class_names[number]
             for number in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8, color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.13)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_title(f'{title}; mean {mean:.1%} (line)', loc='left', fontsize=11, color=INK)
    save(figure, path)


def _film_strip(frames: np.ndarray, gap: int) -> np.ndarray:
    """(T, H, W, 3) -> (H, T * W + gaps, 3), white between the frames."""
    n_frames, height, width, _ = frames.shape
    strip = np.full((height, n_frames * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for place, frame in enumerate(frames):
        begin = place * (width + gap)
        strip[:, begin:begin + width] = frame
    return strip


def draw_clips(clips: Sequence[Clip], path: Path) -> None:
    """Draw a strip of frames for each Clip, in the order given, under what was said of it."""
    gap_share = 0.05
    width_inch, title_inch, foot_inch = 10.0, 0.24, 0.24
    strips = [_film_strip(clip.frames, max(1, round(gap_share * clip.frames.shape[2])))
              for clip in clips]
    heights = [width_inch * len(strip) / strip.shape[1] + title_inch + foot_inch
               for strip in strips]
    figure = Figure(figsize=(width_inch, sum(heights)))
    top = sum(heights)
    for clip, strip, height in zip(clips, strips, heights):
        axes = figure.add_axes((0, (top - height + foot_inch) / sum(heights), 1,
                                (height - title_inch - foot_inch) / sum(heights)))
        top -= height
        axes.imshow(strip)
        _caption(axes, clip, strip.shape[1])
    save(figure, path)


def _caption(axes: Axes, clip: Clip, strip_width: int) -> None:
    right = clip.truth == clip.predicted
    verdict = 'right' if right else f'WRONG, said {clip.predicted}'
    axes.set_title(f'{clip.truth}: {verdict} ({clip.score:.2f})', loc='left', fontsize=10, pad=3,
                   color=RIGHT if right else WRONG, fontweight='normal' if right else 'bold')
    axes.set_title(clip.name, loc='right', fontsize=8, pad=3, color=FAINT)
    n_frames, _, width, _ = clip.frames.shape
    step = (strip_width - width) / max(n_frames - 1, 1)
    axes.set_xticks([place * step + width / 2 for place in range(n_frames)],
                    list(map(str, clip.frame_numbers)), fontsize=7, color=FAINT)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
