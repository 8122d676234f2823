"""Frames of a video file as a player shows them: FFmpeg's work, by PyAV.

    with Video('a.mp4') as video:
        for frame in video.frames():
            ...
        print(video.damage)

Frame n of a file, counted from 1, is the n-th that comes out of a decoder that begins at the start
and goes on after errors. `read_rgb` and `read_crops` give the same frames without decoding all
before them, where the file lets it be sure.
"""

import contextlib
import io
import os
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from heapq import heappop, heappush
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from zlib import crc32

import av

from datasets.scaling import DEFAULT_FPS, SHORT_SIDE, Copier, Cropper, Plan, Scaler, orientation
from runtime.files import file_size
from runtime.schema import (MAX_WHOLE, TEXT, fields, list_of, mapping, optional, plain, row_of,
                            whole, whole_number)

# Processes that extract frames start without NumPy, which is slow to import.
if TYPE_CHECKING:
    import numpy as np

    from datasets.video_index import VideoIndex

# In the order in which `find_video` looks for them; in upper case too.
VIDEO_EXTENSIONS = ('.avi', '.mp4', '.mkv', '.mov', '.webm', '.mpg', '.mpeg', '.m4v', '.wmv',
                    '.flv', '.ts', '.mts', '.m2ts', '.3gp', '.3g2', '.ogv', '.ogm', '.vob', '.asf',
                    '.mxf', '.divx', '.f4v', '.gif')
# File systems take names of 255 bytes; longer ones are cut here before `.hdf5`.
MAX_NAME = 250
# A video that ends so much before the length it announces is cut short. Rates are rounded, and
# sound may be a little longer than the picture: hence the margins.
CUT_SHORT_RATIO, CUT_SHORT_SEC = 0.1, 0.5

# Containers, by the first of FFmpeg's names, that can be sought in, and by what of a packet: a time
# stamp, or the place in the file.
SEEK_STAMPS = {'mov': 'dts', 'matroska': 'pts', 'avi': 'dts', 'm4v': 'pos', 'h264': 'pos',
               'hevc': 'pos', 'mpegvideo': 'pos'}
# Those whose packets do not say when they are shown. Packets are marked with their place in the
# file there, and the decoder hands the marks on to the frames.
UNSTAMPED = ('avi', 'm4v', 'h264', 'hevc', 'mpegvideo')
# Decoders that can pass over a frame that no other frame is made from.
SKIPPING_CODECS = ('h264', 'hevc', 'mpeg4', 'mpeg2video', 'mpeg1video')
# Decoders that show of a damaged frame what can be made out, in all files damaged at random that
# were tried. Others leave the rest as the memory was, that is an earlier frame's; of which one
# depends on when these were let go of: see `Video.kept`.
STEADY_CODECS = ('h264', 'mpeg4', 'vp9', 'av1', 'libdav1d', 'flv', 'h263', 'msmpeg4', 'msmpeg4v2',
                 'wmv2', 'gif')
# Those that do so without a word: what is shown depends on all that they have seen. In files of so
# many packets or more frames are sought all the same, and compared with checksums of those that
# come from the start.
FORGETFUL_CODECS, MIN_CHECKED = ('vp8',), 500
# FFmpeg decodes a part of a file for what its header does not say, and clips need little of that.
# Options for opening a file, each of which takes longer than the one before: nothing is decoded,
# as no decoder is on the list of those that may be; one frame; as much as FFmpeg thinks fit.
ONE_FRAME = {'probesize': '32768', 'analyzeduration': '1'}
OPENINGS: tuple[dict[str, str], ...] = ({**ONE_FRAME, 'codec_whitelist': 'none'}, ONE_FRAME, {})
# Files of at most so many packets are read by the places of these, in blocks of so many bytes.
MAX_PLACES, BLOCK_BYTES = 2000, 1 << 16
# FFmpeg wants so many bytes of zero behind what decoders read.
PADDING = 64
# What a decoder makes up for lost parts depends on all it has seen: after a jump errors end it, and
# so do bytes that a picture leaves over.
STRICT = {'err_detect': 'explode+buffer'}
# Where cameras are: FFmpeg's name of the driver, and of a camera, by its number.
WEBCAMS = {'linux': ('v4l2', '/dev/video{}'), 'darwin': ('avfoundation', '{}')}

# Frames that are shown before a key frame follow it within so many packets.
LOOK_AHEAD = 16
# Frames that are not needed are jumped over where that saves decoding so many.
MIN_JUMP = 8
# The size of an .avi chunk's header, by which its index and its packets differ in where a chunk is.
AVI_HEADER = 8
# Encoders that round sizes write such pixel shapes; scaling by them would say more than they do.
SQUARE_PIXELS = 0.99, 1.01


# Titles and the like need not be UTF-8. From version 19 on, PyAV reads them without being asked.
METADATA_ERRORS: dict[str, Any] = (
    {} if int(av.__version__.split('.')[0]) >= 19 else {'metadata_errors': 'replace'})


def open_file(path: object, **arguments: Any) -> Any:
    """PyAV's container of the file at this path; `arguments` are those of `av.open`.

    Raises FFmpegError or OSError, the latter for what is no file: a pipe would be waited for.
    """
    file_size(str(path))
    # `file:` keeps FFmpeg from taking `a:b.mp4` for a protocol.
    return av.open(f'file:{path}', **METADATA_ERRORS, **arguments)


class VideoError(Exception):
    """A file gives no frame; the message is the reason, without the file's name."""


class EndError(VideoError):
    """A file has fewer frames than were asked for."""


class SeekError(Exception):
    """Frames cannot be told for sure without decoding all before them."""


def reason(error: BaseException) -> str:
    """One phrase for an error of FFmpeg or of the operating system."""
    detail = getattr(error, 'log', None)
    text = getattr(error, 'strerror', None) or str(error)
    return f'{text} ({detail[2].strip()})' if detail else text


# ---------------------------------------------------------------- files

def cut_name(name: str) -> str:
    """The most of a file's name, in whole characters, to which `.hdf5` can be added."""
    while len(os.fsencode(name)) > MAX_NAME:
        name = name[:-1]
    return name


def find_video(path: str) -> str | None:
    """The file of a video whose extension `path` may lack, or None. Upper case will do."""
    candidates = [path] + [f'{path}{extension}' for extension in VIDEO_EXTENSIONS]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    folder, stem = os.path.split(path)
    try:
        with os.scandir(folder or '.') as entries:
            names = [entry.name for entry in entries if entry.name.startswith(f'{stem}.')]
    except (OSError, ValueError):  # a NUL, or half a character
        return None
    names = [name for name in names if name[len(stem):].lower() in VIDEO_EXTENSIONS]
    return os.path.join(folder, min(names)) if names else None


# ---------------------------------------------------------------- decoding

class Packets(NamedTuple):
    """What a file says of a stream's packets, in the order of decoding.

    n:      how many there are
    keys:   places of the key frames among the packets, from 0, ascending
    stamps: what to seek to for each of them
    offsets: {byte in the file: place} of the key frames
    """

    n: int
    keys: list[int]
    stamps: list[Any]
    offsets: dict[int, int]


# How clips of a file are read; each is slower than the one before and sure of more files.
#   PASS_OVER:  from a key frame on; frames that nothing needs are passed over undecoded
#   FROM_KEY:   from a key frame on
#   FROM_START: all frames up to the last one that is wanted
PASS_OVER, FROM_KEY, FROM_START = range(3)


class Shape(NamedTuple):
    """Size of a stream's frames, and width of a pixel by its height, as its file says."""

    width: int
    height: int
    aspect: int
    aspect_of: int

    @property
    def pixel_aspect(self) -> Fraction | int:
        """Width of a pixel by its height, as shown."""
        low, high = SQUARE_PIXELS
        is_square = self.aspect <= 0 or low < self.aspect / self.aspect_of < high
        return 1 if is_square else Fraction(self.aspect, self.aspect_of)


class Places(NamedTuple):
    """Where the packets of a file are, whose frames are shown in their order, and what its decoder
    has to know. Clips of such a file are read without FFmpeg opening it.

    codec, tag: FFmpeg's names of the decoder, and of what is encoded
    header:     of the stream, hexadecimal
    colours:    numbers of range and space, as the container has them
    offsets:    first byte in the file of each packet
    sizes:      of the packets, in bytes
    """

    codec: str
    tag: str
    header: str
    colours: tuple[int, int]
    offsets: Sequence[int]
    sizes: Sequence[int]


# Of a file's `Notes`, beside its packets and their places.
FACTS = ('container', 'opening', 'shape', 'way', 'checks', 'n_read')
# What they are in an index.
WHOLE, WORD, INTEGER = whole(0), whole(0, 2 ** 32 - 1), whole(-MAX_WHOLE)
PLACE = plain(lambda text: whole_number(text) is not None, 'a place in the file')
INDEXED = fields({
    'container': optional(TEXT), 'opening': whole(0, len(OPENINGS) - 1),
    'way': whole(0, FROM_START), 'n_read': whole(0, 2), 'checks': optional(list_of(WORD)),
    'shape': optional(row_of(whole(1), whole(1), INTEGER, INTEGER)),
    'packets': optional(row_of(WHOLE, list_of(WHOLE), list_of(optional(INTEGER)),
                               mapping(PLACE, WHOLE))),
    'places': optional(row_of(TEXT, TEXT, TEXT, row_of(INTEGER, INTEGER), list_of(WHOLE),
                              list_of(WORD)))})


@dataclass
class Notes:
    """What is known of a file while a process runs: FFmpeg's name of its container, which of
    OPENINGS does for it, its frames and packets, how its clips are read, the checksums of its
    frames where these are needed, how many clips were read, up to 2, and before the second one
    found, the places of its packets where these are enough."""

    container: str | None = None
    opening: int = 0
    shape: Shape | None = None
    packets: Packets | None = None
    way: int = PASS_OVER
    checks: Sequence[int] | None = None
    n_read: int = 0
    places: Places | None = None
    is_kept: bool = False  # in an index

    def open(self, path: str) -> 'Video | PlacedVideo':
        """The video, in less time unless that is known not to do. Raises VideoError."""
        if self.places and self.shape:
            return PlacedVideo(path, self.shape, self.places)
        return self.open_whole(path)

    def open_whole(self, path: str) -> 'Video':
        """The same by FFmpeg."""
        # The first opening finds the shape, of which a header need not tell.
        opening = self.opening if self.shape else max(self.opening, 1)
        known = self.shape if opening == 0 else None
        try:
            video = Video(path, OPENINGS[opening], self.container, known)
        except VideoError:
            if opening == len(OPENINGS) - 1:
                raise
            self.opening = opening + 1
            return self.open_whole(path)
        self.container, self.shape = video.container, video.shape
        return video

    def degrade(self) -> None:
        """Take the next way, after this one failed."""
        self.is_kept = False
        if self.places:
            self.places = None
        elif self.opening < len(OPENINGS) - 1:
            self.opening += 1
        else:
            self.way += 1

    def take(self, known: dict[str, Any]) -> None:
        """Know what `facts` gave in another run, unless that was of another version."""
        if INDEXED(known):
            return
        places, packets = known['places'], known['packets']
        if places and (not packets or not len(places[4]) == len(places[5]) == packets[0]):
            return
        for name in FACTS:
            setattr(self, name, known[name])
        if self.shape:
            self.shape = Shape(*self.shape)
        if self.checks:
            self.checks = array('I', self.checks)
        if known['packets']:
            n, keys, stamps, offsets = known['packets']
            self.packets = Packets(n, keys, stamps, {int(at): key for at, key in offsets.items()})
        if known['places']:
            codec, tag, header, colours, offsets, sizes = known['places']
            self.places = Places(codec, tag, header, tuple(colours), array('Q', offsets),
                                 array('I', sizes))
        self.is_kept = True

    def facts(self) -> dict[str, Any]:
        """All that is known, as JSON has it."""
        places = self.places and (*self.places[:4], *map(list, self.places[4:]))
        return {**{name: getattr(self, name) for name in FACTS}, 'packets': self.packets,
                'checks': self.checks and list(self.checks), 'places': places}


class Video:
    """A video file to read once from its beginning; closes with the `with` block.

    fps:          average frames a second
    damage:       None, or after reading what was wrong with the file although frames came out
    is_cut_short: after reading, whether it ends much before the length it announces

    options:   of FFmpeg's, for opening the file
    container: FFmpeg's name of the file's kind, where that is known
    shape:     of its frames, where that is known

    Of several video streams it is the one that FFmpeg takes. Raises VideoError where there is
    nothing to decode.
    """

    def __init__(self, path: Any, options: dict[str, str] | None = None,
                 container: str | None = None, shape: Shape | None = None) -> None:
        try:
            self._container = self._open(path, options, container)
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
        self.shape = shape or self._find_shape()
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or DEFAULT_FPS)
        self._copied = Copier()
        self._complaints: list[str] = []
        self.is_cut_short = False

    @staticmethod
    def _open(path: Any, options: dict[str, str] | None, container: str | None) -> Any:
        return open_file(path, options=options or {}, format=container)

    def __enter__(self) -> 'Video':
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def damage(self) -> str | None:
        if not self._complaints:
            return None
        more = len(self._complaints) - 1
        return self._complaints[0] + (f', and {more} more errors' if more else '')

    def _find_shape(self) -> Shape:
        context = self._stream.codec_context
        aspect = Fraction(self._stream.sample_aspect_ratio or 1)
        return Shape(context.width, context.height, aspect.numerator, aspect.denominator)

    @property
    def pixel_aspect(self) -> Fraction | int:
        """Width of a pixel by its height, as shown."""
        return self.shape.pixel_aspect

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decoded av.VideoFrame, each once, in the order shown.

        Raises VideoError where no frame decodes at all.
        """
        n_frames, end_sec = 0, 0.0
        begin_sec: float | None = None
        for packet in self._packets():
            for frame in self._decode(packet):
                n_frames += 1
                if frame.is_corrupt:
                    self._complaints.append(f'frame {n_frames} is damaged')
                if frame.time is not None:
                    begin_sec = frame.time if begin_sec is None else min(begin_sec, frame.time)
                    end_sec = max(end_sec, frame.time)
                yield frame
        if n_frames == 0:
            raise VideoError(f'no frame decodes ({self.damage or "the stream is empty"})')
        shown_sec = max(end_sec - (begin_sec or 0), (n_frames - 1) / self.fps)
        self._check_length(shown_sec + 1 / self.fps)

    def kept(self, frame: av.VideoFrame) -> av.VideoFrame:
        """What stands for a frame that is held on to while others are decoded, as the first one is
        by a scaler, which asks it how it lies in memory, until garbage is collected.

        It is a copy, except of decoders that do not care what memory holds.
        """
        is_steady = self._stream.codec_context.name in STEADY_CODECS
        return frame if is_steady else self._copied(frame)

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except av.error.FFmpegError as error:
            self._complaints.append(reason(error))
            yield None  # a file that is read to its end has a last packet that empties the decoder

    def _decode(self, packet: Any) -> list[av.VideoFrame]:
        if packet is not None and packet.is_corrupt:
            self._complaints.append('a packet is incomplete')
        try:
            return self._stream.decode(packet)
        except av.error.FFmpegError as error:
            self._complaints.append(reason(error))
            return []

    def _check_length(self, seen_sec: float) -> None:
        if self._stream.duration:
            announced_sec = float(self._stream.duration * self._stream.time_base)
        else:
            announced_sec = (self._container.duration or 0) / av.time_base
        if announced_sec - seen_sec > max(CUT_SHORT_RATIO * announced_sec, CUT_SHORT_SEC):
            self.is_cut_short = True
            self._complaints.append(f'it ends after {seen_sec:.1f} of {announced_sec:.1f} seconds')

    @property
    def container(self) -> str:
        """FFmpeg's name of the file's kind."""
        return self._container.format.name.partition(',')[0]

    @property
    def tells_frames(self) -> bool:
        """True if the container says how many frames it holds without being decoded."""
        name = self.container
        return name in SEEK_STAMPS and name not in UNSTAMPED

    @property
    def is_seekable(self) -> bool:
        """True if clips may be read without decoding all before them."""
        return self.container in SEEK_STAMPS

    @property
    def is_forgetful(self) -> bool:
        """True if damaged frames are not told of, and vary with where decoding begins."""
        return self._stream.codec_context.name in FORGETFUL_CODECS

    def packets(self) -> Packets:
        """`Packets` of the file; only `seek` is of use afterwards. Nothing is decoded.

        An .mp4 and most .avi have a table of them; of a file without one all packets are read.
        Raises SeekError where the file does not say all.
        """
        name = self.container
        rows = self._table() or self._scan(SEEK_STAMPS[name])
        keys = [place for place, row in enumerate(rows) if row[1]]
        is_certain = len({row[0] for row in rows}) == len(rows) and keys[:1] == [0]
        if not is_certain or any(is_discarded for *_, is_discarded in rows):
            raise SeekError
        targets = keys
        if SEEK_STAMPS[name] == 'dts' and name not in UNSTAMPED:
            # A key frame is shown some frames after it is decoded, and sought by when it is shown.
            targets = [min(key + LOOK_AHEAD, next_key - 1)
                       for key, next_key in zip(keys, [*keys[1:], len(rows)])]
        return Packets(len(rows), keys, [rows[place][2] for place in targets],
                       {rows[key][0]: key for key in keys})

    def _table(self) -> list[tuple]:
        """(byte in the file, is it a key frame, stamp, is it discarded) of all packets, by the
        container's own table; empty where it has none, or not of all."""
        name = self.container
        # Each entry is read at once: the table moves in memory when packets are read. It is shown
        # since PyAV 17.
        header = AVI_HEADER if name == 'avi' else 0
        rows = [(entry.pos + header, entry.is_keyframe, entry.timestamp, entry.is_discard)
                for entry in getattr(self._stream, 'index_entries', ())]
        return rows if SEEK_STAMPS[name] == 'dts' and len(rows) == self._stream.frames else []

    def _scan(self, stamp_name: str) -> list[tuple]:
        """The same by reading all packets."""
        try:
            return [(packet.pos, packet.is_keyframe, getattr(packet, stamp_name),
                     packet.is_discard)
                    for packet in self._container.demux(self._stream) if packet.size]
        except av.error.FFmpegError:
            raise SeekError from None

    def uneven_times(self) -> list[float]:
        """`uneven_times` of the file; it cannot be read afterwards."""
        unit = float(self._stream.time_base or 0)
        try:
            stamps = sorted(packet.pts for packet in self._container.demux(self._stream)
                            if packet.size and not packet.is_discard)
        except (av.error.FFmpegError, TypeError):  # a packet without a stamp
            return []
        times = [(stamp - stamps[0]) * unit for stamp in stamps]
        is_even = all(abs(sec - number / self.fps) < 2 * unit for number, sec in enumerate(times))
        return [] if is_even or self.container in UNSTAMPED else times

    def seek(self, packets: Packets, key: int) -> tuple[int, 'Sought']:
        """Go to number `key` of packets.keys, or a key frame before it.

        Returns the number of the first frame shown from there on, and what reads on. Raises
        SeekError where that cannot be told.
        """
        context, name = self._stream.codec_context, self.container
        context.options = STRICT
        try:
            self._container.seek(packets.stamps[key], stream=self._stream,
                                 unsupported_byte_offset=SEEK_STAMPS[name] == 'pos')
            rest = self._container.demux(self._stream)
            head = list(islice(rest, LOOK_AHEAD))
        except (av.error.FFmpegError, TypeError):  # a stamp may be None
            raise SeekError from None
        place = packets.offsets.get(head[0].pos) if head else None
        if place is None or not head[0].is_keyframe:
            raise SeekError
        if name in UNSTAMPED:
            return place + 1, Sought(self, place + 1, place, _marked(chain(head, rest), place))
        begin = head[0].pts
        if begin is None:
            raise SeekError
        # A frame that is shown before the key frame, though it follows it in the file, is made
        # from frames before both.
        n_earlier = sum(packet.pts is not None and packet.pts < begin for packet in head)
        if place == 0 and n_earlier:
            raise SeekError
        first = place + n_earlier + 1
        return first, Sought(self, first, begin, chain(head, rest))

    def places(self, path: str, packets: Packets) -> Places:
        """`Places` of the file, all of whose packets are read; only `seek` is of use afterwards.

        Raises SeekError where more is needed to decode it.
        """
        context, is_stamped = self._stream.codec_context, self.container not in UNSTAMPED
        offsets, sizes = array('Q'), array('I')
        try:
            with open(path, 'rb') as file:
                for packet in self._container.demux(self._stream):
                    if not packet.size:
                        continue
                    if (packet.pos is None or is_stamped and packet.pts != packet.dts
                            or packet.is_corrupt or packet.has_sidedata('new_extradata')):
                        raise SeekError
                    file.seek(packet.pos)
                    if file.read(packet.size) != bytes(packet):
                        raise SeekError
                    offsets.append(packet.pos)
                    sizes.append(packet.size)
            return Places(context.name, context.codec_tag, (context.extradata or b'').hex(),
                          (context.color_range, context.colorspace), offsets, sizes)
        except (av.error.FFmpegError, OSError, UnicodeDecodeError):  # a tag may be any bytes
            raise SeekError from None


class PlacedVideo:
    """A file whose `Places` are known; closes with the `with` block.

    Raises VideoError where it cannot be opened.
    """

    def __init__(self, path: str, shape: Shape, places: Places) -> None:
        try:
            self._file = io.BufferedReader(io.FileIO(path), BLOCK_BYTES)
        except OSError as error:
            raise VideoError(reason(error)) from None
        self.shape, self._places = shape, places

    def __enter__(self) -> 'PlacedVideo':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def picked(self, key: int, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number, frame) of those that are wanted, ascending numbers, from the key frame at place
        `key` on. Raises SeekError where frames are not whole, or not one for each packet, EndError
        where the file ends before the last number.
        """
        if wanted[-1] > len(self._places.sizes):
            raise EndError('it ends')
        size, chosen, place = (self.shape.width, self.shape.height), set(wanted), key
        try:
            for frame in self._frames(key, wanted[-1]):
                is_right = frame.pts == place and (place > key or frame.key_frame)
                if not is_right or frame.is_corrupt or (frame.width, frame.height) != size:
                    raise SeekError
                place += 1
                if place in chosen:
                    yield place, frame
        except (av.error.FFmpegError, ValueError):  # the latter where there is no such decoder
            raise SeekError from None
        if place != wanted[-1]:
            raise SeekError

    def _frames(self, begin: int, end: int) -> Iterator[av.VideoFrame]:
        """Frames of packets begin...end - 1, whose time stamps are the places of their packets."""
        decoder = self._decoder()
        for place, offset, size in zip(range(begin, end), self._places.offsets[begin:end],
                                       self._places.sizes[begin:end]):
            packet = av.Packet(size)
            self._file.seek(offset)
            if self._file.readinto(cast(bytearray, packet)) != size:
                raise SeekError
            packet.pts = packet.dts = place
            yield from decoder.decode(packet)
        yield from decoder.decode(None)

    def _decoder(self) -> Any:
        places = self._places
        decoder: Any = av.CodecContext.create(places.codec, 'r')
        decoder.thread_count, decoder.options = 1, STRICT
        decoder.width, decoder.height = self.shape.width, self.shape.height
        decoder.codec_tag = places.tag
        decoder.color_range, decoder.colorspace = places.colours
        if places.header:
            # PyAV leaves what follows as the memory was, which is zero after the first of these.
            decoder.extradata = bytes.fromhex(places.header) + bytes(PADDING)
            decoder.extradata = bytes.fromhex(places.header)
        return decoder


def _marked(packets: Iterable[Any], place: int) -> Iterator[Any]:
    """Packets whose time stamps are their places, from `place` on."""
    for packet in packets:
        if packet.size:
            packet.pts = packet.dts = place
            place += 1
        yield packet


class Sought:
    """Frames of a Video from a key frame on.

    first:     number of the first frame shown from there on
    begin:     its time stamp
    packets:   the file's, from the key frame on
    """

    def __init__(self, video: Video, first: int, begin: int, packets: Iterable[Any]) -> None:
        self._stream, self._size = video._stream, (video.shape.width, video.shape.height)
        self._first, self._begin, self._packets = first, begin, packets
        # Time stamps are places in the file: frames are sure only in the order of these.
        self._is_marked = video.container in UNSTAMPED
        self._is_timed = not self._is_marked and SEEK_STAMPS[video.container] == 'dts'

    def frames(self) -> Iterator[av.VideoFrame]:
        """All frames in the order shown.

        Raises SeekError where a packet is not exactly one frame, where frames do not come in the
        order of their time stamps, and where the file is damaged.
        """
        due: list[int] = []  # time stamps of packets whose frame has not come yet
        for packet in self._packets_read():
            # The last packet, which empties the decoder, has no size.
            if packet.size and packet.pts >= self._begin:
                heappush(due, packet.pts)
            for frame in self._decode(packet):
                if not due or frame.pts != heappop(due):
                    raise SeekError
                yield frame

    def check_rest(self) -> None:
        """Raise SeekError where a frame is damaged that was decoded and is shown later: those that
        came before may be made from it."""
        try:
            frames = self._stream.decode(None)
        except av.error.EOFError:
            return  # the file has ended: all frames came
        except av.error.FFmpegError:
            raise SeekError from None
        if any(frame.is_corrupt for frame in frames):
            raise SeekError

    def picked(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number, frame) of those that are wanted, ascending numbers.

        Packets of other frames are passed over where the decoder can, and decoding ends with the
        last that is wanted: this is for files in which each packet is a frame. Raises SeekError
        where that turns out to be wrong, EndError where the file ends before the last number.
        """
        context = self._stream.codec_context
        # Where stamps are places in the file, only all frames together show their order.
        can_skip = context.name in SKIPPING_CODECS and not self._is_marked
        chosen, n_fed, newest, is_skipping = set(wanted), 0, self._begin - 1, False
        due: list[tuple[int, int]] = []  # (time stamp, number) of wanted frames that are to come
        for packet, number in self._numbered():
            if number in chosen:
                heappush(due, (packet.pts, number))
                n_fed += 1
            if can_skip and is_skipping != (number not in chosen and number > 0):
                is_skipping = not is_skipping
                context.skip_frame = 'NONREF' if is_skipping else 'DEFAULT'
            is_last = n_fed == len(chosen)
            frames = self._decode(packet)
            for frame in chain(frames, self._decode(None)) if is_last else frames:
                stamp = frame.pts
                is_late = stamp <= newest or due and stamp > due[0][0]
                if is_late or self._is_marked and stamp != newest + 1:
                    raise SeekError
                newest = stamp
                if due and stamp == due[0][0]:
                    if frame.interlaced_frame:  # its fields may be packets of their own
                        raise SeekError
                    yield heappop(due)[1], frame
            if is_last:
                if due:
                    raise SeekError
                return
        raise EndError('it ends')

    def _numbered(self) -> Iterator[tuple[Any, int]]:
        """(packet, number of its frame), number 0 for a frame shown before the first one."""
        if self._is_marked:
            yield from ((packet, packet.pts + 1) for packet in self._packets_read())
            return
        stamps: list[int] = []  # of packets that were read, ascending
        ahead: deque[Any] = deque()

        def number(packet: Any) -> int:
            is_early = packet.pts < self._begin
            return 0 if is_early else self._first + bisect_left(stamps, packet.pts)
        for packet in self._packets_read():
            if not packet.size:
                break
            ahead.append(packet)
            if packet.pts >= self._begin:
                place = bisect_left(stamps, packet.pts)
                is_twice = stamps[place:place + 1] == [packet.pts]
                if is_twice or len(stamps) - place > LOOK_AHEAD:
                    raise SeekError
                stamps.insert(place, packet.pts)
            # No later packet is shown before it is decoded.
            decoded = packet.dts if self._is_timed else None
            while ahead and (len(ahead) > LOOK_AHEAD
                             or decoded is not None and ahead[0].pts <= decoded):
                oldest = ahead.popleft()
                yield oldest, number(oldest)
        for packet in ahead:
            yield packet, number(packet)

    def _packets_read(self) -> Iterator[Any]:
        """The packets; raises SeekError for one that tells too little, or that comes too late."""
        try:
            for i, packet in enumerate(self._packets):
                if packet.size and (packet.is_corrupt or packet.pts is None
                                    or packet.pts < self._begin and i >= LOOK_AHEAD):
                    raise SeekError
                yield packet
        except av.error.FFmpegError:
            raise SeekError from None

    def _decode(self, packet: Any) -> list[Any]:
        """Frames of a packet, without those that are shown before the first one."""
        try:
            frames = self._stream.decode(packet)
        except av.error.FFmpegError:
            raise SeekError from None
        shown = []
        for frame in frames:
            if frame.pts is not None and frame.pts < self._begin:
                continue
            is_known = frame.pts is not None and (frame.width, frame.height) == self._size
            # Where an .avi file lacks its table, all packets are called key frames.
            is_wrong = frame.pts == self._begin and not frame.key_frame
            if frame.is_corrupt or not is_known or is_wrong:
                raise SeekError
            shown.append(frame)
        return shown


class Webcam(Video):
    """A camera by its number, 0 for the first: a Video without end."""

    @staticmethod
    def _open(number: Any, options: dict[str, str] | None, container: str | None) -> Any:
        if sys.platform not in WEBCAMS:
            raise VideoError(f'cameras are not known on {sys.platform}')
        driver, name = WEBCAMS[sys.platform]
        return av.open(name.format(number), format=driver)


def count_frames(path: str) -> int:
    """How many frames a file gives, by decoding it. Raises VideoError where it gives none."""
    return _count_frames(path, *_version(path))


def _version(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(reason(error)) from None
    return status.st_size, status.st_mtime_ns


@lru_cache(4096)
def _count_frames(path: str, _size: int, _modified: int) -> int:
    with Video(path) as video:
        return sum(1 for _ in video.frames())


def count_packets(path: str) -> int:
    """How many frames a file says it has; where it does not, they are decoded.

    Raises VideoError where there is nothing to decode.
    """
    with Video(path) as video:
        try:
            if video.tells_frames:
                return video.packets().n
        except SeekError:
            pass
    return count_frames(path)


def uneven_times(path: str) -> tuple[float, list[float]]:
    """(frames per second on average, the second at which each frame is shown, from the first one
    on, as far as the file says so; none of a file whose rate does not vary).

    Nothing is decoded. Raises VideoError.
    """
    with Video(path) as video:
        return video.fps, video.uneven_times()


@lru_cache(4096)
def _notes(_path: str, _size: int, _modified: int) -> Notes:
    """The `Notes` of a file, the same ones until it changes."""
    return Notes()


# ---------------------------------------------------------------- clips

# What makes pictures of a video's frames, of pixels of this width by their height.
Pictures = Callable[[Fraction | int], Scaler | Cropper]


def read_rgb(path: str, numbers: Sequence[int], *, size: int = SHORT_SIDE,
             n_frames: int | None = None, index: 'VideoIndex | None' = None
             ) -> Iterator['tuple[int, np.ndarray]']:
    """Yield (number, uint8 (H, W, 3)) for ascending frame numbers, counted from 1.

    Frames are upright, their short side is `size`. A number may come twice: then the later picture
    is the one. `n_frames`: how many the file gives, where that is known; otherwise it is decoded
    once to see that each packet is a frame, unless the numbers come before its second key frame.
    `index`: keeps what is found out about the file.

    Raises EndError where the file ends before the last number, VideoError where nothing decodes or
    FFmpeg says that one of these frames is damaged.
    """
    return _read(path, numbers, n_frames,
                 lambda pixel_aspect: Scaler(size, pixel_aspect, 'rgb24'), index)


def read_crops(path: str, numbers: Sequence[int], plan: Plan, *, size: int = SHORT_SIDE,
               n_frames: int | None = None, index: 'VideoIndex | None' = None
               ) -> Iterator['tuple[int, np.ndarray]']:
    """As `read_rgb`, but uint8 (3, H, W) of the box of the frames that `plan` wants, scaled to the
    size that it wants.

    plan: is asked once
    """
    plan = lru_cache(1)(plan)
    return _read(path, numbers, n_frames,
                 lambda pixel_aspect: Cropper(plan, size, pixel_aspect), index)


def _read(path: str, numbers: Sequence[int], n_frames: int | None, pictures: Pictures,
          index: 'VideoIndex | None' = None) -> Iterator['tuple[int, np.ndarray]']:
    version = _version(path)
    notes = _notes(path, *version)
    if index and not notes.is_kept and (known := index.load(path, version)):
        notes.take(known)
    if notes.n_read < 2:
        # Files that are read but once gain nothing by it.
        if notes.n_read == 1:
            _find_places(notes, path)
        notes.n_read, notes.is_kept = notes.n_read + 1, False
    yield from _read_by(notes, path, numbers, n_frames, pictures)
    if index and not notes.is_kept:
        index.save(path, version, notes.facts())
        notes.is_kept = True


def _read_by(notes: Notes, path: str, numbers: Sequence[int], n_frames: int | None,
             pictures: Pictures) -> Iterator['tuple[int, np.ndarray]']:
    while notes.way < FROM_START:
        with notes.open(path) as video:
            if not _may_seek(video, path, notes):
                notes.way, notes.opening = FROM_START, len(OPENINGS) - 1
                break
            try:
                scale = pictures(video.shape.pixel_aspect)
                for number, frame in _by_jumps(video, path, notes, numbers, n_frames):
                    if notes.checks is not None and notes.checks[number - 1] != _checksum(frame):
                        raise SeekError
                    yield number, _pixels(scale, frame)
                return
            except EndError:
                break
            except (SeekError, VideoError):
                notes.degrade()
    with Video(path, container=notes.container) as video:
        yield from _from_start(video, numbers, pictures(video.pixel_aspect))


def _from_start(video: Video, numbers: Sequence[int],
                scale: Scaler | Cropper) -> Iterator['tuple[int, np.ndarray]']:
    def fitted() -> Iterator[tuple[int, av.VideoFrame]]:
        for number, frame in enumerate(video.frames(), 1):
            if number == 1:
                scale.fit(video.kept(frame))
            yield number, frame
    for number, frame in _pick(fitted(), numbers):
        if frame.is_corrupt:
            raise VideoError(f'frame {number} is damaged')
        picture = _pixels(scale, video.kept(frame) if number == numbers[0] else frame)
        del frame  # the next ones are decoded before another one takes its place
        yield number, picture


def _pixels(scale: Scaler | Cropper, frame: av.VideoFrame) -> 'np.ndarray':
    try:
        return scale.pixels(frame)
    except av.error.FFmpegError as error:
        raise VideoError(reason(error)) from None


def _find_places(notes: Notes, path: str) -> None:
    """Note `places`, if these and a decoder are enough to give the first frame as FFmpeg does."""
    packets, shape = notes.packets, notes.shape
    if (notes.way != PASS_OVER or notes.checks is not None or packets is None or shape is None
            or packets.n > MAX_PLACES):
        return
    with contextlib.suppress(SeekError, VideoError), notes.open_whole(path) as video:
        places = video.places(path, packets)
        is_same = (len(places.sizes) == packets.n
                   and packets.offsets == {places.offsets[key]: key for key in packets.keys})
        if video.is_forgetful or not is_same:
            return
        with PlacedVideo(path, shape, places) as placed:
            firsts = chain(islice(video.seek(packets, 0)[1].frames(), 1),
                           (frame for _, frame in placed.picked(0, [1])))
            looks = [_look(frame) for frame in firsts]
        if len(looks) == 2 and looks[0] == looks[1]:
            notes.places = places


def _look(frame: av.VideoFrame) -> tuple[Any, ...]:
    """All of a frame that its pictures depend on."""
    return (_checksum(frame), frame.format.name, frame.color_range, frame.colorspace,
            orientation(frame))


def _may_seek(video: 'Video | PlacedVideo', path: str, notes: Notes) -> bool:
    """Returns True if clips may be read without decoding all before them."""
    if isinstance(video, PlacedVideo):
        return True
    if not video.is_seekable or not video.is_forgetful or notes.checks is not None:
        return video.is_seekable
    try:
        notes.packets = notes.packets or video.packets()
    except SeekError:
        return False
    if notes.packets.n >= MIN_CHECKED:
        with Video(path) as whole:
            checks = array('I', map(_checksum, whole.frames()))
        if len(checks) == notes.packets.n:
            notes.checks = checks
    return notes.checks is not None


def _checksum(frame: av.VideoFrame) -> int:
    import numpy as np
    found = 0
    for plane in frame.planes:
        rows = np.frombuffer(cast(bytes, plane), np.uint8).reshape(-1, plane.line_size)
        found = crc32(rows[:plane.height, :plane.width].tobytes(), found)
    return found


def _by_jumps(video: 'Video | PlacedVideo', path: str, notes: Notes, numbers: Sequence[int],
              n_frames: int | None) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, av.VideoFrame) by seeking; raises SeekError where that is not sure to be right."""
    if notes.packets is None:
        assert isinstance(video, Video)
        notes.packets = video.packets()
    packets = notes.packets
    runs = _runs(packets.keys, numbers)
    # Were a packet somewhere before the key frame no frame, all numbers would be shifted.
    is_sure = packets.n == n_frames
    if runs[-1][0] > 0 and not is_sure:
        is_sure = packets.n == count_frames(path)
        if not is_sure:
            raise SeekError
    for key, wanted in runs:
        if isinstance(video, PlacedVideo):
            yield from video.picked(packets.keys[key], wanted)
            continue
        first, sought = video.seek(packets, key)
        while first > wanted[0] and key > 0:
            key -= 1
            first, sought = video.seek(packets, key)
        if first > wanted[0]:
            raise SeekError
        if is_sure and notes.way == PASS_OVER:
            yield from sought.picked(wanted)
        else:
            yield from _pick(enumerate(sought.frames(), first), wanted)
            sought.check_rest()


def _runs(keys: Sequence[int], numbers: Iterable[int]) -> list[tuple[int, list[int]]]:
    """Cut ascending frame numbers where a jump saves decoding: [(index of the key, numbers)]."""
    runs: list[tuple[int, list[int]]] = []
    for number in numbers:
        key = max(0, bisect_right(keys, number - 1) - 1)
        if runs and keys[key] - runs[-1][1][-1] < MIN_JUMP:
            runs[-1][1].append(number)
        else:
            runs.append((key, [number]))
    return runs


def _pick(numbered: Iterable[tuple[int, av.VideoFrame]],
          wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Those of the (number, frame) pairs that are wanted; EndError where they end too early."""
    chosen, number = set(wanted), 0
    for number, frame in numbered:
        if number in chosen:
            yield number, frame
        if number == wanted[-1]:
            return
    raise EndError(f'it ends after frame {number}')
