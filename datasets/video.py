"""Frames of a video file as a player shows them: FFmpeg's work, by PyAV.

    with Video('a.mp4') as video:
        for frame in video.frames():
            ...
        print(video.damage)

Frame n of a file, counted from 1, is the n-th that comes out of a decoder that begins at the start
and goes on after errors. `read_rgb` gives the same frames without decoding all before them, where
the file lets it be sure.
"""

import math
import os
import struct
import sys
from bisect import bisect_right
from fractions import Fraction
from functools import lru_cache
from heapq import heappop, heappush
from itertools import chain, islice, pairwise
from typing import NamedTuple

import av
from av.sidedata.sidedata import Type as SideDataType

VIDEO_EXTENSIONS = ('.avi', '.mp4', '.mkv', '.mov', '.webm')
# File systems take names of 255 bytes; longer ones are cut here before `.hdf5`.
MAX_NAME = 250
# Frames are scaled to this short side, in pixels, unless something else is asked for.
SHORT_SIDE = 240
DEFAULT_FPS = 25  # where a file does not say

# A video that ends so much before the length it announces is cut short. Rates are rounded, and
# sound may be a little longer than the picture: hence the margins.
CUT_SHORT_RATIO, CUT_SHORT_SEC = 0.1, 0.5

# Encoders that round sizes write such pixel shapes; scaling by them would say more than they do.
SQUARE_PIXELS = Fraction(99, 100), Fraction(101, 100)

# (is the picture transposed, does column / row 0 of the result come from the low end): filters
UPRIGHT_FILTERS = {
    (False, True, True): (),
    (False, False, True): (('hflip', ''),),
    (False, True, False): (('vflip', ''),),
    (False, False, False): (('hflip', ''), ('vflip', '')),
    (True, True, True): (('transpose', 'cclock_flip'),),
    (True, False, True): (('transpose', 'clock'),),
    (True, True, False): (('transpose', 'cclock'),),
    (True, False, False): (('transpose', 'clock_flip'),),
}

# Containers (as FFmpeg names them) that say where each packet lies, and which of a packet's time
# stamps they seek by. In others (avi, raw streams) seeking is a guess.
SEEK_STAMPS = {'mov,mp4,m4a,3gp,3g2,mj2': 'dts', 'matroska,webm': 'pts'}
# Where cameras are: FFmpeg's name of the driver, and of a camera, by its number.
WEBCAMS = {'linux': ('v4l2', '/dev/video{}'), 'darwin': ('avfoundation', '{}')}

# FFmpeg's numbers of the colour spaces that are BT.601, or that are taken for it: not said.
BT601_SPACES = (2, 5, 6)

# Frames that are shown before a key frame follow it within so many packets.
LOOK_AHEAD = 16
# Frames that are not needed are jumped over where that saves decoding so many.
MIN_JUMP = 8


class VideoError(Exception):
    """A file gives no frame; the message is the reason, without the file's name."""


class EndError(VideoError):
    """A file has fewer frames than were asked for."""


class SeekError(Exception):
    """Frames cannot be told for sure without decoding all before them."""


def reason(error):
    """One phrase for an error of FFmpeg or of the operating system."""
    detail = getattr(error, 'log', None)
    text = getattr(error, 'strerror', None) or str(error)
    return f'{text} ({detail[2].strip()})' if detail else text


# ---------------------------------------------------------------- files

def cut_name(name):
    """The most of a file's name, in whole characters, to which `.hdf5` can be added."""
    while len(os.fsencode(name)) > MAX_NAME:
        name = name[:-1]
    return name


def find_video(path):
    """The file of a video whose extension `path` may lack, or None. Upper case will do."""
    candidates = [path] + [f'{path}{extension}' for extension in VIDEO_EXTENSIONS]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    folder, stem = os.path.split(path)
    try:
        with os.scandir(folder or '.') as entries:
            names = [entry.name for entry in entries if entry.name.startswith(f'{stem}.')]
    except OSError:
        return None
    names = [name for name in names if name[len(stem):].lower() in VIDEO_EXTENSIONS]
    return os.path.join(folder, min(names)) if names else None


# ---------------------------------------------------------------- decoding

class Packets(NamedTuple):
    """What a file says of a stream's packets, in the order of decoding.

    keys:    places of the key frames among the packets, from 0
    stamps:  what to seek to for each of them, in the stream's units
    places:  {byte in the file: place}, of all packets
    """

    keys: list
    stamps: list
    places: dict


class Video:
    """A video file to read once from its beginning; closes with the `with` block.

    fps:          average frames a second
    damage:       None, or after reading what was wrong with the file although frames came out
    is_cut_short: after reading, whether it ends much before the length it announces

    Of several video streams it is the one that FFmpeg takes. Raises VideoError where there is
    nothing to decode.
    """

    def __init__(self, path):
        try:
            self._container = self._open(path)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(reason(error)) from None
        self._stream = self._container.streams.best('video')
        if self._stream is None or self._stream.codec_context is None:
            self._container.close()
            raise VideoError('no video stream in it' if self._stream is None else
                             'no decoder for its video stream')
        # Videos are shared out among processes; and what comes out of a damaged file varies with
        # the number of threads.
        self._stream.codec_context.thread_count = 1
        self._size = self._stream.codec_context.width, self._stream.codec_context.height
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or DEFAULT_FPS)
        self._complaints = []
        self.is_cut_short = False

    @staticmethod
    def _open(path):
        # `file:` keeps FFmpeg from taking `a:b.mp4` for a protocol.
        return av.open(f'file:{path}', metadata_errors='replace')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    @property
    def damage(self):
        if not self._complaints:
            return None
        more = len(self._complaints) - 1
        return self._complaints[0] + (f', and {more} more errors' if more else '')

    @property
    def pixel_aspect(self):
        """Width of a pixel by its height, as shown."""
        aspect = self._stream.sample_aspect_ratio or 1
        low, high = SQUARE_PIXELS
        return Fraction(1) if aspect <= 0 or low < aspect < high else Fraction(aspect)

    def frames(self):
        """Decoded av.VideoFrame, each once, in the order shown.

        Raises VideoError where no frame decodes at all.
        """
        n_frames, begin_sec, end_sec = 0, None, 0
        for packet in self._packets():
            for frame in self._decode(packet):
                n_frames += 1
                if frame.time is not None:
                    begin_sec = frame.time if begin_sec is None else min(begin_sec, frame.time)
                    end_sec = max(end_sec, frame.time)
                yield frame
        if n_frames == 0:
            raise VideoError(f'no frame decodes ({self.damage or "the stream is empty"})')
        shown_sec = max(end_sec - (begin_sec or 0), (n_frames - 1) / self.fps)
        self._check_length(shown_sec + 1 / self.fps)

    def _packets(self):
        try:
            yield from self._container.demux(self._stream)
        except av.error.FFmpegError as error:
            self._complaints.append(reason(error))
            yield None  # a file that is read to its end has a last packet that empties the decoder

    def _decode(self, packet):
        if packet is not None and packet.is_corrupt:
            self._complaints.append('a packet is incomplete')
        try:
            return self._stream.decode(packet)
        except av.error.FFmpegError as error:
            self._complaints.append(reason(error))
            return []

    def _check_length(self, seen_sec):
        if self._stream.duration:
            announced_sec = float(self._stream.duration * self._stream.time_base)
        else:
            announced_sec = (self._container.duration or 0) / av.time_base
        if announced_sec - seen_sec > max(CUT_SHORT_RATIO * announced_sec, CUT_SHORT_SEC):
            self.is_cut_short = True
            self._complaints.append(f'it ends after {seen_sec:.1f} of {announced_sec:.1f} seconds')

    @property
    def tells_packets(self):
        """Whether the container is of a kind that says where its packets lie."""
        return self._container.format.name in SEEK_STAMPS

    def packets(self):
        """`Packets` of the file; only `seek` is of use afterwards. Nothing is decoded.

        An .mp4 has a table of them; of a file without one all packets are read. Raises SeekError
        where the file does not say all.
        """
        stamp_name = SEEK_STAMPS[self._container.format.name]
        # Each entry is read at once: the table moves in memory when packets are read. It is shown
        # since PyAV 17.
        rows = [(entry.pos, entry.is_keyframe, entry.timestamp, entry.is_discard)
                for entry in getattr(self._stream, 'index_entries', ())]
        if stamp_name != 'dts' or not rows or len(rows) != self._stream.frames:
            try:
                rows = [(packet.pos, packet.is_keyframe, getattr(packet, stamp_name),
                         packet.is_discard)
                        for packet in self._container.demux(self._stream) if packet.size]
            except av.error.FFmpegError:
                raise SeekError from None
        places = {row[0]: place for place, row in enumerate(rows)}
        keys = [place for place, row in enumerate(rows) if row[1]]
        is_certain = len(places) == len(rows) and keys[:1] == [0]
        if not is_certain or any(is_discarded for *_, is_discarded in rows):
            raise SeekError
        targets = keys
        if stamp_name == 'dts':
            # A key frame is shown some frames after it is decoded, and sought by when it is shown.
            targets = [min(key + LOOK_AHEAD, next_key - 1)
                       for key, next_key in zip(keys, [*keys[1:], len(rows)])]
        return Packets(keys, [rows[place][2] for place in targets], places)

    def seek(self, packets, key):
        """Go to number `key` of packets.keys, or a key frame before it.

        Returns (number, frames): the number of the first frame shown from there on, and an
        iterator over the frames from that one on. It raises SeekError where a packet is not
        exactly one frame, where frames do not come in the order of their time stamps, and where
        the file is damaged.
        """
        # What a decoder makes up for lost parts depends on all it has seen: here errors end it.
        self._stream.codec_context.options = {'err_detect': 'explode'}
        try:
            self._container.seek(packets.stamps[key], stream=self._stream)
            rest = self._container.demux(self._stream)
            head = list(islice(rest, LOOK_AHEAD))
        except (av.error.FFmpegError, TypeError):  # a stamp may be None
            raise SeekError from None
        place = packets.places.get(head[0].pos) if head else None
        if place is None or head[0].pts is None or not head[0].is_keyframe:
            raise SeekError
        begin = head[0].pts
        # A frame that is shown before the key frame, though it follows it in the file, is made
        # from frames before both.
        n_earlier = sum(packet.pts is not None and packet.pts < begin for packet in head)
        if place == 0 and n_earlier:
            raise SeekError
        return place + n_earlier + 1, self._shown_from(begin, head, rest)

    def _shown_from(self, begin, head, rest):
        due = []  # time stamps of packets whose frame has not come yet
        try:
            for i, packet in enumerate(chain(head, rest)):
                if packet.size:  # the last one, which empties the decoder, has none
                    is_early = packet.pts is None or packet.pts < begin
                    if packet.is_corrupt or packet.pts is None or is_early and i >= LOOK_AHEAD:
                        raise SeekError
                    if not is_early:
                        heappush(due, packet.pts)
                for frame in self._stream.decode(packet):
                    if frame.pts is not None and frame.pts < begin:
                        continue
                    if (frame.is_corrupt or not due or frame.pts != heappop(due)
                            or (frame.width, frame.height) != self._size):
                        raise SeekError
                    yield frame
        except av.error.FFmpegError:
            raise SeekError from None


class Webcam(Video):
    """A camera by its number, 0 for the first: a Video without end."""

    @staticmethod
    def _open(number):
        if sys.platform not in WEBCAMS:
            raise VideoError(f'cameras are not known on {sys.platform}')
        driver, name = WEBCAMS[sys.platform]
        return av.open(name.format(number), format=driver)


def count_frames(path):
    """How many frames a file gives, by decoding it. Raises VideoError where it gives none."""
    return _count_frames(path, *_version(path))


def _version(path):
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(reason(error)) from None
    return status.st_size, status.st_mtime_ns


@lru_cache(4096)
def _count_frames(path, _size, _modified):
    with Video(path) as video:
        return sum(1 for _ in video.frames())


def count_packets(path):
    """How many frames a file says it has; where it does not, they are decoded.

    Raises VideoError where there is nothing to decode.
    """
    with Video(path) as video:
        try:
            if video.tells_packets:
                return len(video.packets().places)
        except SeekError:
            pass
    return count_frames(path)


def read_rgb(path, numbers, *, size=SHORT_SIDE, n_frames=None):
    """Yield (number, uint8 (H, W, 3)) for ascending frame numbers, counted from 1.

    Frames are upright, their short side is `size`. A number may come twice: then the later picture
    is the one. `n_frames`: how many the file gives, where that is known; otherwise it is decoded
    once to see that each packet is a frame, unless the numbers come before its second key frame.

    Raises EndError where the file ends before the last number, VideoError where nothing decodes.
    """
    with Video(path) as video:
        if not video.tells_packets:
            yield from _from_start(video, numbers, size)
            return
        try:
            scale = Scaler(size, video.pixel_aspect, 'rgb24')
            for number, frame in _by_jumps(video, path, numbers, n_frames):
                yield number, _to_rgb(scale, frame)
            return
        except (SeekError, VideoError):
            pass
    with Video(path) as video:
        yield from _from_start(video, numbers, size)


def _from_start(video, numbers, size):
    scale = Scaler(size, video.pixel_aspect, 'rgb24')

    def fitted():
        for number, frame in enumerate(video.frames(), 1):
            if number == 1:
                scale.fit(frame)
            yield number, frame
    for number, frame in _pick(fitted(), numbers):
        yield number, _to_rgb(scale, frame)


def _to_rgb(scale, frame):
    try:
        return scale(frame).to_ndarray()
    except av.error.FFmpegError as error:
        raise VideoError(reason(error)) from None


def _by_jumps(video, path, numbers, n_frames):
    """(number, av.VideoFrame) by seeking; raises SeekError where that is not sure to be right."""
    packets = video.packets()
    runs = _runs(packets.keys, numbers)
    n_packets = len(packets.places)
    # Were a packet somewhere before the key frame no frame, all numbers would be shifted.
    if runs[-1][0] > 0 and n_packets != n_frames and n_packets != count_frames(path):
        raise SeekError
    for key, wanted in runs:
        first, frames = video.seek(packets, key)
        while first > wanted[0] and key > 0:
            key -= 1
            first, frames = video.seek(packets, key)
        if first > wanted[0]:
            raise SeekError
        yield from _pick(enumerate(frames, first), wanted)


def _runs(keys, numbers):
    """Cut ascending frame numbers where a jump saves decoding: [(index of the key, numbers)]."""
    runs = []
    for number in numbers:
        key = max(0, bisect_right(keys, number - 1) - 1)
        if runs and keys[key] - runs[-1][1][-1] < MIN_JUMP:
            runs[-1][1].append(number)
        else:
            runs.append((key, [number]))
    return runs


def _pick(numbered, wanted):
    """Those of the (number, frame) pairs that are wanted; EndError where they end too early."""
    chosen, number = set(wanted), 0
    for number, frame in numbered:
        if number in chosen:
            yield number, frame
        if number == wanted[-1]:
            return
    raise EndError(f'it ends after frame {number}')


# ---------------------------------------------------------------- pictures

def upright_filters(frame):
    """FFmpeg filters, (name, arguments) each, that turn a frame as its display matrix says."""
    side_data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if side_data is None:
        return ()
    # x' = a x + c y, y' = b x + d y, in 16.16 fixed point; phones turn by quarters.
    a, b, _, c, d = struct.unpack('=9i', bytes(side_data))[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return UPRIGHT_FILTERS[False, a >= 0, d >= 0]
    return UPRIGHT_FILTERS[True, c >= 0, b >= 0]


def scaled_size(width, height, size):
    """(width, height) with the short side made `size`, the other rounded; aspect kept."""
    if width < height:
        return size, max(1, math.floor(height * size / width + 0.5))
    return max(1, math.floor(width * size / height + 0.5)), size


class Scaler:
    """Frames as decoded -> upright, short side `size`.

    pix_fmt: 'yuvj420p', full-range BT.601 4:2:0 as JPEG has it, or 'rgb24', the colours that a
             JPEG image of the former would show

    All results have the size that the first frame gets (or the one given to `fit`), even where a
    stream changes its own.
    """

    # The scaler's colours are one or two levels off without accurate_rnd, and chroma that is
    # not interpolated is off where colours meet.
    STEPS = {'yuvj420p': (('scale', 'w={width}:h={height}:flags=bicubic{rounding}'
                                    ':out_range=full:out_color_matrix=bt601:threads=1'),
                          ('format', 'pix_fmts=yuvj420p'))}
    STEPS['rgb24'] = STEPS['yuvj420p'] + (
        ('scale', 'flags=bicubic+accurate_rnd+full_chroma_int:in_range=full:in_color_matrix=bt601'
                  ':threads=1'),
        ('format', 'pix_fmts=rgb24'))

    def __init__(self, size, pixel_aspect=1, pix_fmt='yuvj420p'):
        self._size, self._pixel_aspect, self._steps = size, pixel_aspect, self.STEPS[pix_fmt]
        self._shown_size = self._kind = None

    def __call__(self, frame):
        filters = upright_filters(frame)
        kind = (frame.width, frame.height, frame.format.name, frame.color_range, frame.colorspace,
                filters)
        if kind != self._kind:
            self._source, self._sink = self._build(frame, filters)
            self._kind = kind
        self._source.push(frame)
        return self._sink.pull()

    def fit(self, frame):
        """Let results have the size that this frame would get."""
        width, height = scaled_size(frame.width * self._pixel_aspect, frame.height, self._size)
        self._shown_size = (height, width) if _turns(upright_filters(frame)) else (width, height)

    def _build(self, frame, filters):
        if self._shown_size is None:
            self.fit(frame)
        width, height = reversed(self._shown_size) if _turns(filters) else self._shown_size
        # Where the range of the levels is all that changes, the pixels are the same without, and
        # are there in half the time.
        is_range_alone = (frame.format.name == 'yuv420p' and frame.colorspace in BT601_SPACES
                          and (frame.width, frame.height) == (width, height))
        values = {'width': width, 'height': height,
                  'rounding': '' if is_range_alone else '+accurate_rnd'}
        graph = self._graph = av.filter.Graph()
        nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format,
                                  time_base=frame.time_base or Fraction(1, DEFAULT_FPS))]
        # Turned after it was made small, which is less work.
        for name, arguments in (*self._steps, *filters):
            nodes.append(graph.add(name, arguments.format(**values)))
        nodes.append(graph.add('buffersink'))
        for node, next_node in pairwise(nodes):
            node.link_to(next_node)
        graph.configure()
        return nodes[0], nodes[-1]


def _turns(filters):
    return any(name == 'transpose' for name, _ in filters)
