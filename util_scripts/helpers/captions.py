"""Scores drawn on the frames of a video, legible on small frames too."""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Frames with a shorter side are enlarged to this one, in pixels.
MIN_SHORT_SIDE = 360
TEXT_SHARE = 1 / 20  # height of the type, of the short side
BACKGROUND, BAR, INK = (12, 14, 18, 190), (42, 120, 214, 230), (255, 255, 255, 255)
# Of Okabe and Ito, which all people tell apart; events have their names too.
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66),
           (213, 94, 0))
MAX_LANES = 6
GROUND, LINE, NOW = (12, 14, 18), (86, 160, 240), (255, 196, 64)


@lru_cache
def _type(short_side: int) -> tuple[ImageFont.FreeTypeFont, int, int, int]:
    """(type, its height, space around it, height of a line) in pixels, for pictures of a size.

    The type that matplotlib brings along has Latin, Greek and Cyrillic letters.
    """
    pixels = max(12, round(short_side * TEXT_SHARE))
    path = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(path, pixels), pixels, pixels // 2, round(pixels * 1.5)


def enlarged(image: Image.Image) -> Image.Image:
    """The picture, enlarged where its short side is below MIN_SHORT_SIDE."""
    factor = MIN_SHORT_SIDE / min(image.size)
    return image if factor <= 1 else image.resize((round(image.width * factor),
                                                   round(image.height * factor)))


def draw_scores(picture: np.ndarray, entries: Sequence[dict[str, Any]],
                begin_sec: float | None = None) -> np.ndarray:
    """uint8 (H, W, 3) -> the same with a line and a bar for each {'label', 'score'} at the top,
    and the time `begin_sec` at the bottom.

    A picture whose short side is below MIN_SHORT_SIDE is enlarged.
    """
    image = enlarged(Image.fromarray(picture))
    panel = Image.new('RGBA', image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    font, pixels, pad, line = _type(min(image.size))
    room = image.width - 4 * pad
    texts = [_cut(f'{entry["score"]:.2f}  {entry["label"]}', font, room) for entry in entries]
    longest = max((font.getlength(text) for text in texts), default=0)
    width = min(room, max(longest, image.width * 0.4))
    draw.rectangle((pad, pad, 3 * pad + width, 2 * pad + line * len(texts)), fill=BACKGROUND)
    for i, (entry, text) in enumerate(zip(entries, texts)):
        top = round(1.5 * pad) + i * line
        draw.rectangle((2 * pad, top, 2 * pad + width * entry['score'], top + line * 0.9),
                       fill=BAR)
        draw.text((2 * pad + pixels // 4, top + line * 0.45), text, font=font, fill=INK,
                  anchor='lm')
    if begin_sec is not None:
        text, foot = clock(begin_sec), image.height - pad
        draw.rectangle((pad, foot - line, 2 * pad + font.getlength(text), foot), fill=BACKGROUND)
        draw.text((1.5 * pad, foot - line / 2), text, font=font, fill=INK, anchor='lm')
    return np.asarray(Image.alpha_composite(image.convert('RGBA'), panel).convert('RGB'))


def draw_curve(picture: np.ndarray, label: str, scores: Sequence[tuple[float, float]],
               begin_sec: float, end_sec: float) -> np.ndarray:
    """uint8 (H, W, 3) -> the same, enlarged if it is small, with a panel below: the curve of
    (second, score in 0...1) of a class up to `end_sec`, and where in it `begin_sec` is."""
    image = enlarged(Image.fromarray(picture))
    font, pixels, pad, line = _type(min(image.size))
    whole = Image.new('RGB', (image.width, image.height + 4 * line), GROUND)
    whole.paste(image, (0, 0))
    draw = ImageDraw.Draw(whole)
    left, right, top, foot = pad, image.width - pad, image.height + line, whole.height - pad

    def place(sec: float, score: float = 0.0) -> tuple[float, float]:
        return (left + (right - left) * min(1, sec / end_sec), foot - (foot - top) * score)
    draw.line([(left, foot), (right, foot)], fill=(90, 94, 102))
    points = [place(0, scores[0][1]), *(place(*point) for point in scores),
              place(end_sec, scores[-1][1])]
    draw.line(points, fill=LINE, width=max(2, pixels // 8))
    x = place(begin_sec)[0]
    draw.line([(x, top), (x, foot)], fill=NOW, width=max(2, pixels // 8))
    score = float(np.interp(begin_sec, [sec for sec, _ in scores], [own for _, own in scores]))
    text, time = f'{score:.2f}  {label}', clock(begin_sec)
    middle = image.height + line / 2
    draw.text((left, middle), _cut(text, font, right - left - font.getlength(time) - pad),
              font=font, fill=INK, anchor='lm')
    draw.text((right, middle), time, font=font, fill=INK, anchor='rm')
    return np.asarray(whole)


def draw_events(picture: np.ndarray, events: Sequence[tuple[str, float, float]], sec: float,
                end_sec: float) -> np.ndarray:
    """uint8 (H, W, 3) -> the same with a bar below: (label, begin, end) of events on the time from
    0 to `end_sec`, a lane for each label, and where in it `sec` is.

    Labels after the first MAX_LANES share the last lane.
    """
    labels = list(dict.fromkeys(label for label, _, _ in events))
    lanes = {label: min(number, MAX_LANES - 1) for number, label in enumerate(labels)}
    font, pixels, pad, line = _type(min(picture.shape[:2]))
    n_lanes = max(1, min(len(labels), MAX_LANES))
    height, width = picture.shape[:2]
    whole = Image.new('RGB', (width, height + n_lanes * line + pad), GROUND)
    whole.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(whole)

    def place(at_sec: float) -> float:
        return pad + (width - 2 * pad) * min(1, at_sec / max(end_sec, 1e-6))
    for lane in range(n_lanes):
        foot = height + (lane + 1) * line
        draw.line([(pad, foot - 2), (width - pad, foot - 2)], fill=(90, 94, 102))
    for label, begin, end in events:
        lane = lanes[label]
        top, left, right = height + lane * line, place(begin), max(place(end), place(begin) + 2)
        draw.rectangle((left, top + 3, right, top + line - 3), fill=COLOURS[lane])
        if right - left > pixels:
            draw.text((left + 3, top + line / 2), _cut(label, font, right - left), font=font,
                      fill=GROUND, anchor='lm')
    x = place(sec)
    draw.line([(x, height), (x, whole.height)], fill=(255, 255, 255), width=max(2, pixels // 8))
    return np.asarray(whole)


def clock(sec: float) -> str:
    """3661.25 -> '1:01:01.2', 61.25 -> '1:01.2'"""
    tenths = int(sec * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    begin = f'{hours}:{minutes:02}' if hours else f'{minutes}'
    return f'{begin}:{tenths // 10:02}.{tenths % 10}'


def _cut(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, or what fits of it."""
    room -= font.size // 4
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + '…') > room:
        text = text[:-1]
    return text + '…'
