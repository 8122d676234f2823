"""A copy of a video with lines of text on its frames, legible on small frames too."""

import os
from fractions import Fraction
from functools import lru_cache

import av
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.video import reason
from runtime.errors import InputError

# Frames with a shorter side are enlarged to this one, in pixels.
MIN_SHORT_SIDE = 360
TEXT_SHARE = 1 / 20  # height of the type, of the short side
BACKGROUND, BAR, INK = (12, 14, 18, 190), (42, 120, 214, 230), (255, 255, 255, 255)
CLOCK_HZ = 90_000  # units of the time stamps


@lru_cache
def _font(pixels):
    """The type that matplotlib brings along: it has Latin, Greek and Cyrillic letters."""
    path = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(path, pixels)


def draw_scores(picture, entries):
    """uint8 (H, W, 3) -> the same with a line and a bar for each {'label', 'score'} at the top.

    A picture whose short side is below MIN_SHORT_SIDE is enlarged.
    """
    image = Image.fromarray(picture)
    if min(image.size) < MIN_SHORT_SIDE:
        factor = MIN_SHORT_SIDE / min(image.size)
        image = image.resize([round(side * factor) for side in image.size])
    panel = Image.new('RGBA', image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    pixels = max(12, round(min(image.size) * TEXT_SHARE))
    font, pad, line = _font(pixels), pixels // 2, round(pixels * 1.5)
    room = image.width - 4 * pad
    texts = [_cut(f'{entry["score"]:.2f}  {entry["label"]}', font, room) for entry in entries]
    width = max((font.getlength(text) for text in texts), default=0)
    width = min(room, max(width, image.width * 0.4))
    draw.rectangle((pad, pad, 3 * pad + width, 2 * pad + line * len(texts)), fill=BACKGROUND)
    for i, (entry, text) in enumerate(zip(entries, texts)):
        top = round(1.5 * pad) + i * line
        draw.rectangle((2 * pad, top, 2 * pad + width * entry['score'], top + line * 0.9),
                       fill=BAR)
        draw.text((2 * pad + pixels // 4, top + line * 0.45), text, font=font, fill=INK,
                  anchor='lm')
    return np.asarray(Image.alpha_composite(image.convert('RGBA'), panel).convert('RGB'))


def _cut(text, font, room):
    """The text, or what fits of it."""
    room -= font.size // 4
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + '…') > room:
        text = text[:-1]
    return text + '…'


def write_mp4(path, pictures, fps):
    """Write (begin_sec, uint8 (H, W, 3)) as H.264, each picture at its time. Raises InputError.

    fps: average, for the encoder to plan by
    """
    try:
        with av.open(str(path), 'w', format='mp4') as container:
            stream = container.add_stream('libx264', rate=Fraction(fps).limit_denominator(1001),
                                          options={'crf': '20'})
            stream.pix_fmt = 'yuv420p'
            stream.codec_context.time_base = Fraction(1, CLOCK_HZ)
            last_pts = -1
            for begin_sec, picture in pictures:
                # 4:2:0 colours come a 2x2 block each.
                height, width = (side - side % 2 for side in picture.shape[:2])
                if last_pts < 0:
                    stream.height, stream.width = height, width
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(picture[:height, :width]), format='rgb24')
                last_pts = frame.pts = max(round(begin_sec * CLOCK_HZ), last_pts + 1)
                frame.time_base = Fraction(1, CLOCK_HZ)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f'{path}: cannot be written: {reason(error)}; give another '
                         'destination') from None
