"""Pages of HTML that stand alone: one file, no network, everything that comes from data escaped.

Style and script are those of the folder page/, the same for all pages. Text reaches a page through
`text`, `table` and their like alone.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from runtime.output import shown_control

PARTS = Path(__file__).with_name('page')
JPEG_QUALITY = 72
LONG = 24  # characters of a sentence in a table


def text(value: object) -> str:
    """A value as HTML shows it; control characters, and bytes of file names that are no UTF-8, are
    shown with escapes."""
    return escape(shown_control(str(value)).encode('utf-8', 'backslashreplace').decode())


def page(title: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole file: contents, then each (heading, HTML, anchor). The browser is told to fetch
    nothing and to run nothing but our script."""
    items = ''.join(f'<li><a href="#{text(anchor)}">{text(heading)}</a></li>'
                    for heading, _, anchor in sections)
    body = f'<nav aria-label="Contents"><ul>{items}</ul></nav>' + '\n'.join(
        f'<section><h2 id="{text(anchor)}">{text(heading)}</h2>\n{html}\n</section>'
        for heading, html, anchor in sections)
    style = (PARTS / 'style.css').read_text()
    script = (PARTS / 'script.js').read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
              f"script-src 'sha256-{digest}'")
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n'
            f'<h1>{text(title)}</h1>\n{body}\n<script>{script}</script>\n</body>\n</html>\n')


# ---------------------------------------------------------------- parts

class Cell(NamedTuple):
    """A number in a table: what is shown, and what it is sorted by."""

    shown: str
    value: float


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], *, is_sortable: bool = False,
          is_stacked: bool = False) -> str:
    """A table; a `Cell` is a number, aligned at the right, anything else text.

    is_stacked: True for cells that tell without titles what they are: on a page as narrow as a
                phone they are put below each other, where the table would scroll sideways
    """
    rows = list(rows)
    kinds = [' class="n"' if rows and isinstance(cell, Cell) else ''
             for cell in (rows[0] if rows else titles)]
    heads = [f'<button type="button">{text(title)}</button>' if is_sortable else text(title)
             for title in titles]
    head = ''.join(f'<th scope="col"{kind}>{title}</th>' for title, kind in zip(heads, kinds))
    body = '\n'.join(f'<tr>{"".join(map(_cell, row))}</tr>' for row in rows)
    kind = ' class="stacked"' if is_stacked else ''
    return scrolling(f'<table{kind}><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>'
                     '</table>')


def without_empty(titles: Sequence[str], rows: Sequence[Sequence[object]]
                  ) -> tuple[list[str], list[list[object]]]:
    """Titles and rows without the columns in which no row has anything."""
    kept = [number for number in range(len(titles)) if any(row[number] != '' for row in rows)]
    return [titles[number] for number in kept], [[row[number] for number in kept] for row in rows]


def _cell(value: object) -> str:
    if isinstance(value, Cell):
        return f'<td class="n" data-v="{float(value.value):.9g}">{text(value.shown)}</td>'
    shown = str(value)
    # Else a narrow page would give a sentence the room of its longest word.
    is_sentence = len(shown) > LONG and ' ' in shown
    return f'<td{" class=long" if is_sentence else ""}>{text(shown)}</td>'


def scrolling(html: str, label: str = 'table') -> str:
    """Wide content, which scrolls by itself, also by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}">{html}</div>'


def folded(summary: str, html: str) -> str:
    """Content that a click unfolds."""
    return f'<details><summary>{text(summary)}</summary>{html}</details>'


# ---------------------------------------------------------------- pictures

def data_uri(picture: np.ndarray) -> str:
    """uint8 (H, W, 3) -> a JPEG as data: URI."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, 'JPEG', quality=JPEG_QUALITY)
    return 'data:image/jpeg;base64,' + base64.b64encode(data.getvalue()).decode()


def film(frames: np.ndarray, label: str, height: int = 120) -> str:
    """Frames (T, H, W, 3) uint8 as a moving thumbnail: side by side in one picture, of which one is
    shown at a time, so that it can be paused."""
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    small = [np.asarray(Image.fromarray(frame).resize((width, height))) for frame in frames]
    uri = data_uri(np.concatenate(small, axis=1))
    return (f'<div class="film" role="img" aria-label="{text(label)}" style="'
            f'width:{width}px;height:{height}px;--length:{width * len(small)}px;'
            f'animation-timing-function:steps({len(small)});background-image:url({uri})"></div>')


PAUSE_BUTTON = '<p><button class="plain" type="button" data-pause>Pause pictures</button></p>'
