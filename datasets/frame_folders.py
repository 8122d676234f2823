"""Folders of frames: which of the images in them are a video's frames, and in which order.

Frame n of a folder, counted from 1, is the n-th image by the number in its name: image_00001.jpg as
extraction makes them, frame-12.png, 000001.jpg; from any first number on, in any step.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')
# What extraction makes, and the 2020 code made.
USUAL_KIND = 'image_%d.jpg'
# A file that the 2020 code left beside the frames.
N_FRAMES_2020 = 'n_frames'
# The last number of a name before its extension is the frame's.
NUMBERED = re.compile(r'.*?([0-9]+)[^0-9]*\.[^.]*', re.DOTALL)
# So many folders' indices are kept: of a large data set none is met twice soon.
N_KEPT = 256
N_SHOWN = 3  # names in messages


class FolderError(Exception):
    """Which images of a folder are its frames cannot be told; the message is the reason."""


class FrameFolder(NamedTuple):
    """The frames of a folder.

    names:   of the frames, in order, with those that are missing between others
    missing: those that are missing
    strays:  names of what else is there
    """

    names: Sequence[str]
    missing: Sequence[str]
    strays: Sequence[str]

    @property
    def n(self) -> int:
        """How many frames there are."""
        return len(self.names) - len(self.missing)

    def __str__(self) -> str:
        """`20 frames, image_00000.jpg to image_00019.jpg`"""
        if not self.names:
            return 'no frames'
        ends = ' to '.join(dict.fromkeys((self.names[0], self.names[-1])))
        return f'{self.n} frame{"s" if self.n > 1 else ""}, {ends}'


def frame_names(path: str, numbers: Sequence[int], template: str | None = None) -> list[str]:
    """Names of these frames, counted from 1, in a folder. Raises FolderError and OSError.

    template: as `pattern_of` has it, None where the names tell
    """
    if template is None and _is_usual(path):
        return [usual_name(number) for number in numbers]
    folder = find_frames(path, template)
    beyond = [number for number in numbers if number > len(folder.names)]
    if beyond:
        raise FolderError(f'frame {beyond[0]} is wanted and the folder has {folder}')
    return [folder.names[number - 1] for number in numbers]


def usual_name(number: int) -> str:
    return f'image_{number:05d}.jpg'


def _is_usual(path: str) -> bool:
    """True if a folder has the names of the 2020 code, image_00001.jpg and so on, without having
    to be listed."""
    return (os.path.exists(f'{path}/image_00002.jpg') and os.path.exists(f'{path}/image_00001.jpg')
            and not os.path.exists(f'{path}/image_00000.jpg'))


def find_frames(path: str, template: str | None = None) -> FrameFolder:
    """The `FrameFolder` of a folder, which is listed once while it does not change.

    Raises FolderError where several kinds of images, or several for one number, are in it; OSError
    where it cannot be listed.
    """
    return _listed(path, template, os.stat(path).st_mtime_ns)


def holds_frames(path: str | os.PathLike[str], template: str | None = None) -> bool:
    """True for a folder with frames, though it may not be clear which they are."""
    try:
        return find_frames(os.fspath(path), template).n > 0
    except FolderError:
        return True
    except OSError:
        return False


@lru_cache(N_KEPT)
def _listed(path: str, template: str | None, _modified: int) -> FrameFolder:
    names = sorted(name for name in os.listdir(path)
                   if not name.startswith('.') and name != N_FRAMES_2020)
    if template is None and names == _usual_names(len(names)):
        return FrameFolder(names, (), ())
    return chosen(names, template)


@lru_cache(8)
def _usual_names(n: int) -> list[str]:
    return [usual_name(number) for number in range(1, n + 1)]


# Images whose names differ in the number alone: {number: names}.
Kind = dict[int, list[str]]


def chosen(names: Sequence[str], template: str | None = None) -> FrameFolder:
    """The `FrameFolder` of a folder with these names, sorted. Raises FolderError."""
    kinds: dict[str, Kind] = defaultdict(lambda: defaultdict(list))
    for name in names:
        match = _match(name, template)
        if match:
            kinds[_kind_of(match)][int(match[1])].append(name)
    kind = _pick(_joined(kinds), template)
    for number, same in kind.items():
        if len(same) > 1:
            raise FolderError(f'{" and ".join(same[:2])} are both frame {number}; remove one of '
                              'them, or say with --frame_template which is meant')
    own = {number: kind[number][0] for number in sorted(kind)}
    is_frame = set(own.values())
    whole = _with_missing(own, template)
    return FrameFolder(whole, tuple(name for name in whole if name not in is_frame),
                       tuple(name for name in names if name not in is_frame))


def _match(name: str, template: str | None) -> re.Match[str] | None:
    """Group 1 is the number in a frame's name; None for what is no frame."""
    if template is not None:
        return pattern_of(template).fullmatch(name)
    is_image = os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS
    return NUMBERED.fullmatch(name) if is_image else None


def _kind_of(match: re.Match[str]) -> str:
    stem, extension = os.path.splitext(_renumbered(match, '%d'))
    return stem + extension.lower()


def _renumbered(match: re.Match[str], number: str) -> str:
    """The name with another number."""
    begin, end = match.span(1)
    return match.string[:begin] + number + match.string[end:]


@lru_cache(8)
def pattern_of(template: str) -> re.Pattern[str]:
    """The regular expression of names such as frame_%05d.png, where %d or %0Nd stands for the
    number and * for anything; upper case will do."""
    head, tail = ('.*?'.join(map(re.escape, part.split('*')))
                  for part in re.split('%[0-9]*d', template))
    return re.compile(f'{head}(?<![0-9])([0-9]+)(?![0-9]){tail}', re.IGNORECASE)


def _joined(kinds: dict[str, Kind]) -> dict[str, Kind]:
    """The kinds, of which those are one that differ in the extension alone, as after some of the
    frames were converted, if no two have an image of one number."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in sorted(kinds, key=lambda kind: (kind != USUAL_KIND, -len(kinds[kind]))):
        by_stem[os.path.splitext(name)[0]].append(name)
    joined: dict[str, Kind] = {}
    for first, *others in by_stem.values():
        own = [kinds[name] for name in (first, *others)]
        whole = {number: same for kind in own for number, same in kind.items()}
        if len(whole) == sum(map(len, own)):
            joined[first] = whole
        else:
            joined |= {name: kinds[name] for name in (first, *others)}
    return joined


def _of_width(names: list[str], number: int, template: str) -> list[str]:
    """Of several names for one number, that in which it is written as %d or %05d writes it."""
    if len(names) == 1:
        return names
    width = re.search('%[0-9]*d', template)
    assert width is not None  # a template has one
    match = pattern_of(template).fullmatch
    exact = [name for name in names if (found := match(name)) and found[1] == width[0] % number]
    return exact or names


def _pick(kinds: dict[str, Kind], template: str | None) -> Kind:
    """The kind that is the frames: most images by far."""
    if template is not None:  # what * stands for may differ
        merged: Kind = defaultdict(list)
        for kind in kinds.values():
            for number, same in kind.items():
                merged[number] += same
        return {number: _of_width(same, number, template) for number, same in merged.items()}
    if USUAL_KIND in kinds or not kinds:
        return kinds.get(USUAL_KIND, {})
    first, *others = sorted(kinds, key=lambda kind: -len(kinds[kind]))
    if others and 2 * len(kinds[others[0]]) >= len(kinds[first]):
        shown = ', '.join(f'{kind} ({len(kinds[kind])})' for kind in [first, *others][:N_SHOWN])
        raise FolderError(f'several kinds of images are in it: {shown}; say which are the frames, '
                          f'as with --frame_template "{_template_of(kinds)}", where * stands for '
                          'anything')
    return kinds[first]


def _template_of(kinds: dict[str, Kind]) -> str:
    """The template of all images, where they differ in one number alone, or how one looks."""
    names = [name for kind in kinds.values() for same in kind.values() for name in same]
    head = os.path.commonprefix(names).rstrip('0123456789')
    tail = os.path.commonprefix([name[::-1] for name in names]).rstrip('0123456789')[::-1]
    is_one_number = all(name[len(head):len(name) - len(tail)].isdecimal() for name in names)
    return f'{head}%d{tail}' if is_one_number else 'NAME_%d.jpg'


def _with_missing(own: dict[int, str], template: str | None) -> list[str]:
    """Names in the order of their numbers, with those that are missing from numbers in an even
    step; where most steps differ, none is taken for missing."""
    numbers = list(own)
    steps = [after - before for before, after in pairwise(numbers)]
    step = min(steps, default=1)
    n_even = steps.count(step)
    is_even = 2 * n_even > len(steps) and all(wide % step == 0 for wide in steps)
    n_all = (numbers[-1] - numbers[0]) // step + 1 if numbers else 0
    if n_even == len(steps) or not is_even or n_all > 2 * len(own):
        return list(own.values())
    match = _match(own[numbers[0]], template)
    assert match is not None  # it is a frame
    width = len(match[1])
    return [own.get(number) or _renumbered(match, f'{number:0{width}d}')
            for number in range(numbers[0], numbers[-1] + 1, step)]
