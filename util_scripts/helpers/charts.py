"""Charts as SVG for pages: curves by epoch, and confusion matrices of any number of classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from util_scripts.helpers.html_page import scrolling, text

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, FOOT = 46, 10, 8, 24
N_COLOURS = 6
DASHES = ('', '7 4', '2 3', '9 3 2 3')
# Of more classes a matrix is drawn as a picture without numbers.
NUMBERED_CLASSES = 30


@dataclass(frozen=True)
class Curve:
    """(n,) epochs and values, of which nan is not drawn; `best` is the place of one to mark."""

    name: str
    epochs: np.ndarray
    values: np.ndarray
    look: int
    best: int | None = None


def _ticks(low: float, high: float, n: int = 4) -> list[float]:
    """Some 2 to 6 round numbers in low...high."""
    ticks, slack = MaxNLocator(n, steps=[1, 2, 5, 10]).tick_values(low, high), (high - low) / 1e9
    # 0.0 for -0.0, which would be written with its sign.
    return [float(tick) or 0.0 for tick in ticks if low - slack <= tick <= high + slack]


def _log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2, 5, 10 ... in low...high; of many, those of powers of ten alone."""
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        ticks = [power + float(np.log10(factor)) for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low - 1e-9 <= tick <= high + 1e-9]
        if len(ticks) <= 6:
            break
    return ticks


def line_chart(title: str, curves: Sequence[Curve], *, is_log: bool = False,
               is_share: bool = False) -> str:
    """A figure of curves by epoch; shares are drawn in 0...1."""
    def scaled(values: np.ndarray) -> np.ndarray:
        with np.errstate(divide='ignore', invalid='ignore'):
            return np.log10(values) if is_log else values
    values = np.concatenate([scaled(curve.values) for curve in curves])
    values = values[np.isfinite(values)]
    epochs = np.concatenate([curve.epochs for curve in curves])
    low, high = (0.0, 1.0) if is_share else (
        float(values.min(initial=0.0 if not is_log else np.inf)) if len(values) else 0.0,
        float(values.max(initial=-np.inf)) if len(values) else 1.0)
    high = high if high > low else low + 1
    first, last = float(epochs.min()), max(float(epochs.max()), float(epochs.min()) + 1)

    def place(epoch: float, value: float) -> tuple[float, float]:
        return (LEFT + (WIDTH - LEFT - RIGHT) * (epoch - first) / (last - first),
                HEIGHT - FOOT - (HEIGHT - FOOT - TOP) * (value - low) / (high - low))
    parts = []
    for tick in _log_ticks(low, high) if is_log else _ticks(low, high):
        y = place(first, tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" '
                     f'y2="{y:.1f}"/><text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                     f'{10 ** tick if is_log else tick:.3g}</text>')
    for tick in _ticks(first, last, 6):
        if tick == round(tick):
            x = place(tick, low)[0]
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{tick:.0f}'
                         '</text>')
    for curve in curves:
        points = [place(*point) if np.isfinite(point[1]) else None
                  for point in zip(curve.epochs.tolist(), scaled(curve.values).tolist())]
        parts.append(_line(curve, points))
    return (f'<figure><figcaption>{text(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'role="img" aria-label="{text(title)} by epoch">{"".join(parts)}</svg></figure>')


def _line(curve: Curve, points: Sequence[tuple[float, float] | None]) -> str:
    """The path of a curve, broken where a value is missing, and a ring around its best."""
    path, is_on = '', False
    for point in points:
        if point is not None:
            path += f'{"L" if is_on else "M"}{point[0]:.1f} {point[1]:.1f}'
        is_on = point is not None
    look = f'k{curve.look % N_COLOURS}'
    dash = DASHES[curve.look % len(DASHES)]
    parts = [f'<path class="line {look}" style="fill:none" d="{path}"'
             + (f' stroke-dasharray="{dash}"' if dash else '') + '/>']
    for i, point in enumerate(points):
        if point is not None and (len(points) <= 40 or i == curve.best):
            note = f'{curve.name}: epoch {curve.epochs[i]:.0f}, {curve.values[i]:.4g}'
            parts.append(f'<circle class="dot {look}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" '
                         f'r="3"><title>{text(note)}</title></circle>')
            if i == curve.best:
                parts.append(f'<circle class="best" cx="{point[0]:.1f}" cy="{point[1]:.1f}" '
                             'r="6"/>')
    return ''.join(parts)


def key(names: Sequence[tuple[str, int]]) -> str:
    """What the lines are: (name, look)."""
    items = []
    for name, look in names:
        dash = DASHES[look % len(DASHES)]
        items.append(f'<li><svg viewBox="0 0 40 12" aria-hidden="true"><line class="line '
                     f'k{look % N_COLOURS}" x1="0" x2="40" y1="6" y2="6"'
                     + (f' stroke-dasharray="{dash}"' if dash else '')
                     + f'/></svg>{text(name)}</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


# ---------------------------------------------------------------- confusion matrices

def confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """(n, n) counts, rows true, columns predicted: a table of numbers, or of many classes a picture
    whose cells say what they are when they are pointed at."""
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    if len(class_names) <= NUMBERED_CLASSES:
        return scrolling(_numbers(counts, shares, class_names), 'confusion matrix')
    n = len(class_names)
    cells = [f'<rect x="{column}" y="{row}" width="1" height="1" '
             f'opacity="{0.15 + 0.85 * shares[row, column]:.2f}"><title>'
             f'{text(class_names[row])} taken for {text(class_names[column])}: '
             f'{counts[row, column]} of {counts[row].sum()}</title></rect>'
             for row, column in zip(*np.nonzero(counts))]
    return (f'<svg class="cells" viewBox="0 0 {n} {n}" role="img" aria-label="confusion matrix of '
            f'{n} classes, rows true, columns predicted">{"".join(cells)}</svg>')


def _numbers(counts: np.ndarray, shares: np.ndarray, class_names: Sequence[str]) -> str:
    head = ''.join(f'<th scope="col">{text(name)}</th>' for name in class_names)
    rows = []
    for row, name in enumerate(class_names):
        cells = ''.join(
            f'<td{" class=dark" if share > 0.5 else ""} style="--v:{share:.3f}">{count or ""}</td>'
            for count, share in zip(counts[row], shares[row]))
        rows.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    return (f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead><tbody>'
            f'{"".join(rows)}</tbody></table>')
