"""Scaling of decoded frames: upright, of the wanted size and colours, by FFmpeg's scaler.

`Scaler` makes whole frames, as extraction stores them; `Cropper` cuts a box out of each frame and
scales it in one pass, so that pixels outside of the box are never converted.
"""

import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import av
from av.filter.context import FilterContext
from av.sidedata.sidedata import Type as SideDataType

# Processes that extract frames start without NumPy, which is slow to import.
if TYPE_CHECKING:
    import numpy as np

# Frames are scaled to this short side, in pixels, unless something else is asked for.
SHORT_SIDE = 240
DEFAULT_FPS = 25  # where a file does not say

# (is the picture transposed, does column / row 0 of the result come from the low end of the axis
# that it is taken from): filters that turn the picture upright, (name, arguments) each
Orientation = tuple[bool, bool, bool]
FILTERS: dict[Orientation, tuple[tuple[str, str], ...]] = {
    (False, True, True): (),
    (False, False, True): (('hflip', ''),),
    (False, True, False): (('vflip', ''),),
    (False, False, False): (('hflip', ''), ('vflip', '')),
    (True, True, True): (('transpose', 'cclock_flip'),),
    (True, False, True): (('transpose', 'clock'),),
    (True, True, False): (('transpose', 'cclock'),),
    (True, False, False): (('transpose', 'clock_flip'),),
}

# FFmpeg's numbers of the colour spaces that are BT.601, or that are taken for it: not said.
BT601_SPACES = (2, 5, 6)
# FFmpeg's number of the range of levels 0 ... 255, and formats without chroma or of that range
# whatever is said.
FULL_RANGE, FULL_RANGE_FORMATS = 2, ('gray', 'yuvj')
# Where FFmpeg places chroma samples unless a stream says something else: in the middle of two
# samples of luma, in 1/256 of their distance.
CHROMA_PLACE, CHROMA_STEP = 128, 256
# Of `find_span`: so many pixels more may be taken on each side, each for so much less of a pixel
# that an edge is off.
MOST_MORE, COST = 40, 0.0005
# What is scaled twice by the exact path, bicubic and then bilinear, is nearest to that in one pass
# by a bicubic filter of these (B, C), in the terms of Mitchell and Netravali, "Reconstruction
# Filters in Computer Graphics" (1988).
ONCE, TWICE = 'flags=bilinear', 'param0=0.4:param1=0.2:flags=bicubic'


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


# (height, width) of a picture as it is shown -> a box in it, and the (height, width) that the box
# is scaled to
Plan = Callable[[int, int], tuple[Box, tuple[int, int]]]


def orientation(frame: av.VideoFrame) -> Orientation:
    """How a frame lies in memory, by its display matrix."""
    side_data: Any = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-overload]
    if side_data is None:
        return False, True, True
    # x' = a x + c y, y' = b x + d y, in 16.16 fixed point; phones turn by quarters.
    a, b, _, c, d = struct.unpack('=9i', bytes(side_data))[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a >= 0, d >= 0
    return True, c >= 0, b >= 0


def scaled_size(width: Fraction | int, height: int, size: int) -> tuple[int, int]:
    """(width, height) with the short side made `size`, the other rounded; aspect kept."""
    if width < height:
        return size, max(1, math.floor(height * size / width + 0.5))
    return max(1, math.floor(width * size / height + 0.5)), size


class _FilterGraph:
    """FFmpeg filters in a row, for frames of one kind.

    steps: (name, arguments) of each
    """

    def __init__(self, frame: av.VideoFrame, steps: Sequence[tuple[str, str]]) -> None:
        self._graph = graph = av.filter.Graph()  # nodes do not keep it alive
        graph.threads = 1
        nodes: list[FilterContext] = [graph.add('buffer', (
            f'video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}'
            f':time_base={frame.time_base or Fraction(1, DEFAULT_FPS)}:pixel_aspect=1/1'))]
        for name, arguments in steps:
            nodes.append(graph.add(name, arguments))
        nodes.append(graph.add('buffersink'))
        for node, next_node in pairwise(nodes):
            node.link_to(next_node)
        graph.configure()
        self._source, self._sink = nodes[0], nodes[-1]

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        self._source.push(frame)
        return cast(av.VideoFrame, self._sink.pull())


class Copier:
    """Frames of a stream -> the same ones in memory of their own."""

    def __init__(self) -> None:
        self._kind: tuple | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        kind = frame.width, frame.height, frame.format.name, frame.color_range, frame.colorspace
        if kind != self._kind:
            self._graph, self._kind = _FilterGraph(frame, [('copy', '')]), kind
        return self._graph(frame)


class _Pictures:
    """Frames of a stream -> upright frames of one size, even where the stream changes its own.

    size:         short side of the picture as it is shown, in pixels
    pixel_aspect: width of a pixel by its height, as shown

    A subclass has `_steps(frame, turned)`: the filters for frames of this kind.
    """

    def __init__(self, size: int, pixel_aspect: Fraction | int = 1) -> None:
        self._size, self._pixel_aspect = size, pixel_aspect
        self._shown_size: tuple[int, int] | None = None
        self._kind: tuple | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        # The display matrix itself is looked at once: a frame that was asked for it is part of a
        # cycle, so that its memory is not free again before the garbage is collected.
        kind = (frame.width, frame.height, frame.format.name, frame.color_range, frame.colorspace,
                frame.rotation)
        if kind != self._kind:
            turned = orientation(frame)
            if self._shown_size is None:
                self._fit(frame, turned)
            self._graph = _FilterGraph(frame, self._steps(frame, turned))
            self._kind = kind
        return self._graph(frame)

    def fit(self, frame: av.VideoFrame) -> None:
        """Let results have the size that this frame would get."""
        self._fit(frame, orientation(frame))

    def _fit(self, frame: av.VideoFrame, turned: Orientation) -> None:
        width, height = scaled_size(frame.width * self._pixel_aspect, frame.height, self._size)
        self._shown_size = (height, width) if turned[0] else (width, height)

    def _steps(self, frame: av.VideoFrame, turned: Orientation) -> list[tuple[str, str]]:
        raise NotImplementedError


class Scaler(_Pictures):
    """Frames as decoded -> upright, short side `size`, as extraction makes them.

    pix_fmt: 'yuvj420p', full-range BT.601 4:2:0 as JPEG has it, or 'rgb24', the colours that a
             JPEG image of the former would show
    """

    # The scaler's colours are one or two levels off without accurate_rnd, and chroma that is
    # not interpolated is off where colours meet.
    STEPS: dict[str, tuple[tuple[str, str], ...]] = {
        'yuvj420p': (('scale', 'w={width}:h={height}:flags=bicubic{rounding}'
                               ':out_range=full:out_color_matrix=bt601:threads=1'),
                     ('format', 'pix_fmts=yuvj420p'))}
    STEPS['rgb24'] = STEPS['yuvj420p'] + (
        ('scale', 'flags=bicubic+accurate_rnd+full_chroma_int:in_range=full:in_color_matrix=bt601'
                  ':threads=1'),
        ('format', 'pix_fmts=rgb24'))

    def __init__(self, size: int, pixel_aspect: Fraction | int = 1,
                 pix_fmt: str = 'yuvj420p') -> None:
        super().__init__(size, pixel_aspect)
        self._templates = self.STEPS[pix_fmt]

    def _steps(self, frame: av.VideoFrame, turned: Orientation) -> list[tuple[str, str]]:
        assert self._shown_size is not None
        width, height = self._shown_size[::-1] if turned[0] else self._shown_size
        # Where the range of the levels is all that changes, the pixels are the same without, and
        # are there in half the time.
        is_range_alone = (frame.format.name == 'yuv420p' and frame.colorspace in BT601_SPACES
                          and (frame.width, frame.height) == (width, height))
        rounding = '' if is_range_alone else '+accurate_rnd'
        steps = [(name, arguments.format(width=width, height=height, rounding=rounding))
                 for name, arguments in self._templates]
        # Turned after it was made small, which is less work.
        return steps + list(FILTERS[turned])

    def pixels(self, frame: av.VideoFrame) -> 'np.ndarray':
        """uint8 (H, W, 3), where results are RGB."""
        return self(frame).to_ndarray()


def _chroma_place(axis: str, begin: int, n: int, n_chroma: int) -> str:
    """Where the chroma of a box lies, for FFmpeg's scaler, which knows of the box alone.

    A box that begins at an odd pixel begins half a sample of chroma before it; one of odd length
    has half a sample too many, so that the error is least if they are placed in its middle.

    n_chroma: samples of chroma for two pixels; nothing is to be said but for one
    """
    if n_chroma != 1 or begin % 2 == n % 2 == 0:
        return ''
    place = CHROMA_PLACE - CHROMA_STEP * (begin % 2) + CHROMA_PLACE * (n % 2)
    return f':in_{axis}_chr_pos={place}'


class Span(NamedTuple):
    """One axis of a picture in the pixels of its file: from `begin` on `n` pixels are scaled to
    `scaled`, of which the first `skipped` and some at the end are cut off."""

    begin: int
    n: int
    scaled: int
    skipped: int


def find_span(begin: float, end: float, stored: int, n_out: int) -> Span:
    """The `Span` of begin...end, in pixels of the file, of which there are `stored`, as `n_out`.

    The scaler takes whole pixels. More of them than are wanted, which are cut off again when
    they are scaled, let both ends come out nearer to where they should be.
    """
    if begin == int(begin) and end == int(end):
        return Span(int(begin), int(end - begin), n_out, 0)
    import numpy as np

    # One pixel less may be taken, too, where an edge is rounded inwards.
    first, last = math.floor(begin), min(stored, math.ceil(end) + MOST_MORE)
    firsts = np.arange(max(0, first - MOST_MORE), min(stored, first + 2))
    n = np.arange(max(1, math.ceil(end) - first - 2), last - firsts[0] + 1)
    firsts = firsts[:, None]
    scaled = np.maximum(np.rint(n * (n_out / (end - begin))), n_out)
    scaled[:3] = n_out  # the box with its edges rounded is among these
    step = n / scaled  # pixels of the file for one of the result
    skipped = np.minimum(np.maximum(np.rint((begin - firsts) / step), 0), scaled - n_out)
    starts = skipped * step + (firsts - begin)
    off = np.maximum(np.abs(starts), np.abs(starts + (n_out * step - (end - begin))))
    off += COST * n
    off[firsts + n > last] = math.inf
    row, column = divmod(int(off.argmin()), len(n))
    return Span(int(firsts[row, 0]), int(n[column]), int(scaled[column]),
                int(skipped[row, column]))


class Cropper(_Pictures):
    """Frames as decoded -> what a plan wants of them, upright, in one pass; planes of green, blue,
    red, which FFmpeg makes in half the time of pixels with all three.

    size: short side, in pixels, of the picture that the plan's box is in; that picture is not made

    Scaling is bilinear with antialias, as spatial_transforms has it, or nearest to that after the
    scaling to `size`. The edges of the box are those of `find_span`.
    """

    def __init__(self, plan: Plan, size: int = SHORT_SIDE,
                 pixel_aspect: Fraction | int = 1) -> None:
        super().__init__(size, pixel_aspect)
        self._plan = plan

    def _fit(self, frame: av.VideoFrame, turned: Orientation) -> None:
        super()._fit(frame, turned)
        assert self._shown_size is not None
        self._box, self._out = self._plan(self._shown_size[1], self._shown_size[0])

    def _steps(self, frame: av.VideoFrame, turned: Orientation) -> list[tuple[str, str]]:
        # Where the range of levels changes, extraction rounds chroma down, by half a level: that is
        # 0.7 of red, -0.5 of green and 0.9 of blue.
        self._is_rounded_down = not (frame.color_range == FULL_RANGE
                                     or frame.format.name.startswith(FULL_RANGE_FORMATS))
        across, down = self._spans(frame, turned)
        height, width = self._out[::-1] if turned[0] else self._out
        sides = (frame.height, frame.width) if turned[0] else (frame.width, frame.height)
        kernel = ONCE if sides == self._shown_size else TWICE
        places = (_chroma_place('h', across.begin, across.n, frame.format.chroma_width(2))
                  + _chroma_place('v', down.begin, down.n, frame.format.chroma_height(2)))
        steps = [('scale', f'w={across.scaled}:h={down.scaled}:{kernel}+accurate_rnd'
                           f'+full_chroma_int:threads=1{places}'), ('format', 'pix_fmts=gbrp')]
        if (down.n, across.n) != (frame.height, frame.width):
            steps.insert(0, ('crop', f'w={across.n}:h={down.n}:x={across.begin}:y={down.begin}'
                                     ':exact=1'))
        if (down.scaled, across.scaled) != (height, width):
            steps.append(('crop', f'w={width}:h={height}:x={across.skipped}:y={down.skipped}'))
        return steps + list(FILTERS[turned])

    def pixels(self, frame: av.VideoFrame) -> 'np.ndarray':
        """uint8 (3, H, W): red, green, blue."""
        import numpy as np
        result = self(frame)
        pixels = np.empty((3, result.height, result.width), np.uint8)
        for channel, plane in zip((1, 2, 0), result.planes):
            rows = np.frombuffer(cast(bytes, plane), np.uint8).reshape(-1, plane.line_size)
            pixels[channel] = rows[:result.height, :result.width]
        if self._is_rounded_down:
            red_and_blue, green = pixels[::2], pixels[1]
            red_and_blue -= (red_and_blue > 0).view(np.uint8)
            green += (green < 255).view(np.uint8)
        return pixels

    def _spans(self, frame: av.VideoFrame, turned: Orientation) -> list[Span]:
        """The plan's box in the pixels of a frame as it lies in memory: across and down."""
        assert self._shown_size is not None
        is_transposed, *are_low = turned
        sides = (frame.height, frame.width) if is_transposed else (frame.width, frame.height)
        spans = []
        for begin, n, shown, stored, is_low, n_out in zip(
                (self._box.left, self._box.top), (self._box.width, self._box.height),
                self._shown_size, sides, are_low, self._out[::-1]):
            low, high = (edge * stored / shown for edge in (begin, begin + n))
            if not is_low:
                low, high = stored - high, stored - low
            spans.append(find_span(low, high, stored, n_out))
        return spans[::-1] if is_transposed else spans
