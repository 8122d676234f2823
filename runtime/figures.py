"""Figures that several commands draw: confusion matrices, strips of frames, heat over frames.

Nothing here touches pyplot: a figure is an object, drawn by Agg and gone when it is saved, so that
these functions work without a screen and inside any other program.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from runtime.errors import InputError
from runtime.files import replacing
from runtime.output import one_line

INK, FAINT = '#222222', '#666666'  # both legible in print
# Of Okabe and Ito, which all people tell apart.
RUN_COLOURS = '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000'
DPI = 120
# Of heat: dark to bright, in print too, whatever colours a reader sees.
HEAT_COLOURS = 'inferno'
HEAT_SHARE = 0.75  # of the colour where heat is 1
# Cells of fewer inches have no number, and below the second limit no share.
NUMBERED_INCH, SHARED_INCH = 0.28, 0.5
NAME_LENGTH = 40  # characters: a longer name leaves no room for what it names
STRIP_INCH = 10.0  # width of a strip
TITLE_INCH = FOOT_INCH = 0.24  # above and below a strip


def save_figure(figure: Figure, path: Path) -> None:
    """Write the picture in the format that its suffix names, at once or not at all."""
    if path.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise InputError(f'{path}: no picture has that name; give one that ends in .png, .svg or '
                         '.pdf')
    with replacing(path) as temporary, _any_letters():
        figure.savefig(temporary, format=path.suffix[1:], dpi=DPI, bbox_inches='tight')


def as_pixels(figure: Figure, dpi: int = 80) -> np.ndarray:
    """The figure as uint8 (H, W, 3)."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with _any_letters():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def drawable(name: object) -> str:
    """A name of a class, video or run as figures have it: the begin of one line, in which $ is no
    formula."""
    line = one_line(name)
    return (line if len(line) <= NAME_LENGTH else line[:NAME_LENGTH - 1] + '…').replace('$', r'\$')


@contextmanager
def _any_letters() -> Iterator[None]:
    """Within it a letter that the font lacks is drawn as a box, and names that leave no room for
    what they name are drawn, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing from|constrained_layout not applied')
        yield


# ---------------------------------------------------------------- confusion matrices

def confusion_figure(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """A confusion matrix: colour is the share of a row, numbers are counts, with their shares
    below.

    `counts` (n, n) whole numbers, rows true, columns predicted; from 2 to some 700 classes. Cells
    that are too small for a number have none; then small shares are drawn stronger.
    """
    n_classes = len(class_names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_inch = float(np.clip(0.62 * n_classes, 3.6, 12))
    cell_inch = side_inch / n_classes
    is_numbered = cell_inch >= NUMBERED_INCH
    figure = Figure(figsize=(side_inch + 2.6, side_inch + 2), layout='constrained')
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap='Blues', norm=PowerNorm(1 if is_numbered else 0.4, 0, 1))
    if is_numbered:
        _number_cells(axes, counts, shares, cell_inch)
    _label_classes(axes, class_names, side_inch)
    axes.set_xlabel('predicted', fontsize=11, color=INK)
    axes.set_ylabel('true', fontsize=11, color=INK)
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set_title(f'{right} of {total} right: {right / max(total, 1):.1%}', loc='left',
                   fontsize=12, color=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label('share of the true class', fontsize=10, color=INK)
    bar.outline.set_visible(False)
    return figure


def _number_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell_inch: float) -> None:
    has_shares = cell_inch >= SHARED_INCH
    size = min(11, 72 * cell_inch * (0.24 if has_shares else 0.3))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            text = f'{count}\n{shares[row, column]:.0%}' if has_shares else str(count)
            axes.text(column, row, text, ha='center', va='center', fontsize=size,
                      color='white' if shares[row, column] > 0.55 else INK)


def _label_classes(axes: Axes, class_names: Sequence[str], side_inch: float) -> None:
    """Name the rows and columns; of more classes than lines of text fit, only each n-th."""
    n_classes = len(class_names)
    line_inch = 0.115  # a line of the smallest type that is legible, 7 points, with some air
    step = int(np.ceil(n_classes * line_inch / side_inch))
    size = float(np.clip(72 * side_inch * step / n_classes * 0.6, 7, 10))
    shown = range(0, n_classes, step)
    names = [drawable(class_names[index]) for index in shown]
    slant = {'rotation': 90} if n_classes > 12 else {'rotation': 40, 'ha': 'right',
                                                     'rotation_mode': 'anchor'}
    axes.set_xticks(shown, names, fontsize=size, **slant)
    axes.set_yticks(shown, names, fontsize=size)
    axes.tick_params(length=2 if step > 1 else 0, colors=INK)


# ---------------------------------------------------------------- strips of frames

def evenly(first: int, last: int, n: int) -> list[int]:
    """At most `n` different numbers, evenly placed from first to last; none where that is less."""
    return np.unique(np.linspace(first, last, min(n, last - first + 1)).round().astype(int)
                     ).tolist()


def film_strip(frames: np.ndarray, gap_share: float = 0.05) -> np.ndarray:
    """(T, H, W, 3) -> (H, T * W + gaps, 3), white between the frames."""
    n_frames, height, width, _ = frames.shape
    gap = max(1, round(gap_share * width))
    strip = np.full((height, n_frames * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for place, frame in enumerate(frames):
        begin = place * (width + gap)
        strip[:, begin:begin + width] = frame
    return strip


def strips_figure(strips: Sequence[np.ndarray]) -> tuple[Figure, list[Axes]]:
    """Strips of `film_strip` one below the other, and the axes of each, for titles and ticks."""
    heights = [STRIP_INCH * len(strip) / strip.shape[1] + TITLE_INCH + FOOT_INCH
               for strip in strips]
    figure = Figure(figsize=(STRIP_INCH, sum(heights)))
    top, all_axes = sum(heights), []
    for strip, height in zip(strips, heights):
        axes = figure.add_axes((0, (top - height + FOOT_INCH) / sum(heights), 1,
                                (height - TITLE_INCH - FOOT_INCH) / sum(heights)))
        top -= height
        axes.imshow(strip)
        axes.set_yticks([])
        axes.tick_params(length=0, pad=2)
        axes.spines[:].set_visible(False)
        all_axes.append(axes)
    return figure, all_axes


def label_frames(axes: Axes, frame_numbers: Sequence[int], width: int, strip_width: int) -> None:
    """Write the number of each frame, `width` pixels wide, below it."""
    step = (strip_width - width) / max(len(frame_numbers) - 1, 1)
    axes.set_xticks([place * step + width / 2 for place in range(len(frame_numbers))],
                    list(map(str, frame_numbers)), fontsize=7, color=FAINT)


def titled(axes: Axes, title: str, note: str = '') -> None:
    """A title above a strip, and a note at its right end."""
    axes.set_title(drawable(title), loc='left', fontsize=10, pad=3, color=INK)
    axes.set_title(drawable(note), loc='right', fontsize=8, pad=3, color=FAINT)


def heat_over(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) and (H, W) in 0...1 -> the frame in grey, with the heat in colour over it."""
    grey = frame.mean(axis=2, keepdims=True) * np.ones(3)
    colours = matplotlib.colormaps[HEAT_COLOURS](heat)[..., :3] * 255
    share = HEAT_SHARE * np.clip(heat, 0, 1)[..., None]
    return (grey * (1 - share) + colours * share).round().astype(np.uint8)


def clips_figure(clips: np.ndarray, titles: Sequence[str], n_frames: int = 8,
                 frame_numbers: Sequence[Sequence[int]] | None = None) -> Figure:
    """uint8 (N, C, T, h, w) -> one strip per clip under its title, frames over time.

    frame_numbers: what is written below the frames of each clip; by default they count from 1

    Of optical flow, channels are horizontal (red) and vertical (green).
    """
    if clips.shape[1] == 2:
        clips = np.concatenate([clips, np.full_like(clips[:, :1], 128)], axis=1)
    numbers = list(range(0, clips.shape[2], max(1, clips.shape[2] // n_frames)))[:n_frames]
    strips = [film_strip(clip[:, numbers].transpose(1, 2, 3, 0)) for clip in clips]
    figure, all_axes = strips_figure(strips)
    own_numbers = frame_numbers or [range(1, clips.shape[2] + 1)] * len(clips)
    for axes, strip, title, own in zip(all_axes, strips, titles, own_numbers):
        titled(axes, title)
        label_frames(axes, [own[number] for number in numbers], clips.shape[-1], strip.shape[1])
    return figure
