"""Annotation files: both JSON schemas are read into `Records`, columns with one entry per sample.

The columns are torch tensors and packed strings, not one object per video: a million videos cost
tens of megabytes, which loader processes share.
"""

import hashlib
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runtime.errors import InputError
from runtime.files import is_path, parse_json, read_file
from runtime.names import meant_file
from runtime.schema import NAME, TEXT, fields, is_number, list_of, plain, shown

# Names of the subsets on the command line and in the files.
SUBSETS = {'train': 'training', 'val': 'validation', 'test': 'testing'}
# What a command does without the videos of a subset.
WITHOUT = {'training': 'add --no_train, or ', 'validation': 'add --no_val, or '}
# ActivityNet marks segments in seconds; one shorter than this many frames is widened.
MIN_SEGMENT_FRAMES = 8
MAX_FRAME = 2 ** 31 - 1  # what fits into a column of the records
MAX_PATH = 4096  # bytes of a path, with the one that ends it
# A node of a taxonomy, which has a number or a text; the topmost one has no parent.
ID = plain(lambda value: value is None or isinstance(value, (int, str)), 'a number or a text')
NO_LABEL = -1  # the class number of a sample without label
TAXONOMY = list_of(fields({'nodeName': TEXT, 'nodeId': ID, 'parentId': ID}))

Indices = Sequence[int]  # of samples in the records


class AnnotationError(InputError):
    """An annotation file is not what it should be."""


class Strings:
    """An immutable column of strings, stored as UTF-8 bytes and their end offsets."""

    def __init__(self, strings: Sequence[str]) -> None:
        # Names of files may hold bytes that are no UTF-8, which Python writes as surrogates.
        encoded = [string.encode(errors='surrogatepass') for string in strings]
        ends = torch.tensor([0] + [len(data) for data in encoded]).cumsum(0)
        self._data = torch.frombuffer(bytearray(b''.join(encoded) or b'\0'), dtype=torch.uint8)
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str:
        begin, end = self._ends[i:i + 2].tolist()
        return self._data[begin:end].numpy().tobytes().decode(errors='surrogatepass')

    def columns(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tensors that hold the strings."""
        return self._data, self._ends


class LabelLists:
    """An immutable column of lists of class numbers: the numbers, and where each list ends."""

    def __init__(self, numbers: torch.Tensor, ends: torch.Tensor, n_classes: int) -> None:
        self._numbers, self._ends, self._n_classes = numbers, ends, n_classes

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> list[int]:
        begin, end = self._ends[i:i + 2].tolist()
        return self._numbers[begin:end].tolist()

    def first(self, indices: Indices) -> torch.Tensor:
        """(n,) int64: the first class number of each of these samples, NO_LABEL for none."""
        return torch.tensor([next(iter(self[i]), NO_LABEL) for i in indices], dtype=torch.int64)

    def multi_hot(self, indices: Indices) -> torch.Tensor:
        """(n, n_classes) float32 of these samples, 1 for each of their classes."""
        rows = torch.zeros(len(indices), self._n_classes)
        for row, i in zip(rows, indices):
            row[self[i]] = 1
        return rows

    def counts(self) -> torch.Tensor:
        """(n_classes,) number of samples that have each class."""
        return self._numbers.bincount(minlength=self._n_classes)

    def samples_by_class(self) -> list[torch.Tensor]:
        """The samples that have each class, in order, and then those that have none."""
        n_labels = self._ends.diff()
        owners = torch.arange(len(self)).repeat_interleave(n_labels)
        by_class = owners[self._numbers.argsort(stable=True)]
        return [*by_class.split(self.counts().tolist()), (n_labels == 0).nonzero().flatten()]

    def in_common(self, numbers: list[int]) -> torch.Tensor:
        """(n,) True for samples with one of these classes, or without any where these are none."""
        if not numbers:
            return self._ends[1:] == self._ends[:-1]
        places = torch.isin(self._numbers, torch.tensor(numbers)).nonzero().flatten().int()
        found = torch.zeros(len(self), dtype=torch.bool)
        found[torch.searchsorted(self._ends, places, right=True) - 1] = True
        return found


@dataclass(frozen=True)
class Records:
    """Samples of one subset, one column per property.

    video_ids:      name of each sample's video, as in results
    paths:          frames of each sample's video, relative to the video folder and without suffix
    labels:         class numbers of each sample; single-label classification has lists of one, or
                    empty ones where there is no label
    is_multi_label: True where the labels of a sample are any number of classes
    begins:         (n,) first frame
    ends:           (n,) last frame + 1
    video_ends:     (n,) last frame + 1 of the whole video, as far as the annotation tells
    """

    class_names: tuple[str, ...]
    video_ids: Strings
    paths: Strings
    labels: LabelLists
    is_multi_label: bool
    begins: torch.Tensor
    ends: torch.Tensor
    video_ends: torch.Tensor

    def __len__(self) -> int:
        return len(self.video_ids)

    def frames(self, i: int) -> range:
        """Frame numbers of sample i."""
        return range(int(self.begins[i]), int(self.ends[i]))

    def n_frames(self) -> torch.Tensor:
        """(n,) number of frames of each sample."""
        return self.ends - self.begins

    def fingerprint(self) -> str:
        """A hash, in hex digits, of which frames of which videos these are, in their order."""
        digest = hashlib.sha256()
        for column in (*self.video_ids.columns(), *self.paths.columns(), self.begins, self.ends):
            digest.update(column.numpy().tobytes())
        return digest.hexdigest()

    def targets(self, indices: Indices) -> torch.Tensor:
        """Targets of the loss for these samples: (n,) int64 class numbers, NO_LABEL for none;
        multi-label (n, n_classes) float32, 1 for each label."""
        if self.is_multi_label:
            return self.labels.multi_hot(indices)
        return self.labels.first(indices)

    def class_counts(self) -> torch.Tensor:
        """(n_classes,) number of samples of each class."""
        return self.labels.counts()

    def is_alike(self, i: int) -> torch.Tensor:
        """(n,) True for samples that have a class in common with sample i; where that has none,
        for those without."""
        return self.labels.in_common(self.labels[i])


class _Rows:
    """Records while they are made: numbers lie in arrays, which are smaller than tuples."""

    def __init__(self) -> None:
        self.video_ids: list[str] = []
        self.paths: list[str] = []
        self.labels, self.label_ends = array('i'), array('i', [0])
        self.frames = array('i')

    def add(self, video_id: str, path: str, labels: list[int], begin: int, end: int,
            video_end: int) -> None:
        self.video_ids.append(video_id)
        self.paths.append(path)
        self.labels.extend(labels)
        self.label_ends.append(len(self.labels))
        self.frames.extend((begin, end, video_end))

    def to_records(self, annotation: 'Annotation', subset: str, n_left_out: int,
                   is_multi_label: bool) -> Records:
        if not self.paths:
            raise AnnotationError(f'{annotation.path}: none of the {n_left_out} videos of subset '
                                  f'{subset!r} has frames (no "segment"); extract the frames '
                                  'first, then make the annotation again')
        labels = LabelLists(_column(self.labels), _column(self.label_ends),
                            len(annotation.class_names))
        columns = _column(self.frames).view(-1, 3).t().contiguous()
        return Records(annotation.class_names, Strings(self.video_ids), Strings(self.paths),
                       labels, is_multi_label, *columns)


def _column(numbers: array) -> torch.Tensor:
    """An array of C ints as an int32 tensor, without a copy."""
    if not numbers:
        return torch.zeros(0, dtype=torch.int32)
    return torch.frombuffer(numbers, dtype=torch.int32)


@dataclass(frozen=True)
class Annotation:
    """An annotation file as parsed: its path, class names in order, and `database` by video id."""

    path: Path
    class_names: tuple[str, ...]
    database: dict[str, Any]
    is_taxonomy: bool


def read_annotation(path: str | Path) -> Annotation:
    """Annotation from a JSON file of either schema. Raises AnnotationError."""
    path = Path(path)
    try:
        data = parse_json(read_file(path))
    except FileNotFoundError:
        cure = ('check --annotation_path and --root_path, or make it with one of util_scripts\' '
                '*_json')
        raise AnnotationError(f'{path}: no such annotation file; '
                              + (meant_file(path) or cure)) from None
    except OSError as error:
        raise AnnotationError(f'{path}: cannot be read: {error.strerror}; '
                              'give an annotation JSON file') from None
    except ValueError as error:
        raise AnnotationError(f'{path}: not JSON ({error}); make the file again') from None
    if not isinstance(data, dict) or not isinstance(data.get('database'), dict):
        raise AnnotationError(f'{path}: has no "database" of videos; give an annotation made by '
                              'one of util_scripts\' *_json')
    is_taxonomy = 'taxonomy' in data
    class_names = _leaves(data, path) if is_taxonomy else _labels(data, path)
    _name_labels(data['database'])
    return Annotation(path, class_names, data['database'], is_taxonomy)


def check_class_count(annotation: Annotation, n_classes: int) -> None:
    """Raise AnnotationError unless `n_classes` is the number of labels."""
    n_labels = len(annotation.class_names)
    if n_labels != n_classes:
        raise AnnotationError(f'{annotation.path}: has {n_labels} labels, and --n_classes is '
                              f'{n_classes}; give --n_classes {n_labels}, or another annotation')


def _labels(data: dict[str, Any], path: Path) -> tuple[str, ...]:
    labels = data.get('labels')
    if not isinstance(labels, list) or not labels:
        raise AnnotationError(f'{path}: has no "labels", the list of class names; '
                              'make the file again')
    twice = [name for name, n in Counter(map(str, labels)).items() if n > 1]
    if twice:
        raise AnnotationError(f'{path}: label {twice[0]!r} is listed twice in "labels"; '
                              'class names must differ')
    return _printable(map(str, labels), path)


def label_name(label: Any) -> Any:
    """A label as class names are written: JSON numbers as text, and anything else as it is."""
    return str(label) if is_number(label) else label


def _name_labels(database: dict[str, Any]) -> None:
    """Make the labels of videos that are JSON numbers, or lists of these, the text that they are
    among the class names."""
    for entry in database.values():
        marks = entry.get('annotations') if isinstance(entry, dict) else None
        for mark in marks if isinstance(marks, list) else [marks]:
            if isinstance(mark, dict) and 'label' in mark:
                label = mark['label']
                mark['label'] = (list(map(label_name, label)) if isinstance(label, list)
                                 else label_name(label))


def _printable(names: Iterable[str], path: Path) -> tuple[str, ...]:
    """Class names, which are printed and written to tables. Raises AnnotationError."""
    names = tuple(names)
    for name in names:
        if NAME(name):
            raise AnnotationError(f'{path}: label {name!r} has line ends or control characters; '
                                  'give it another name')
    return names


def _leaves(data: dict[str, Any], path: Path) -> tuple[str, ...]:
    if TAXONOMY(data['taxonomy']):
        raise AnnotationError(f'{path}: its "taxonomy" is not a list of nodes with nodeName, '
                              'nodeId and parentId; take the published file')
    parents = {node['parentId'] for node in data['taxonomy']}
    return _printable((node['nodeName'] for node in data['taxonomy']
                       if node['nodeId'] not in parents), path)


def select_subset(annotation: Annotation, subset: str) -> dict[str, Any]:
    """{video id: entry} of a subset (training, validation, testing). Raises where it is empty."""
    for video_id, entry in annotation.database.items():
        if not isinstance(entry, dict) or 'subset' not in entry:
            raise AnnotationError(f'{annotation.path}: video {video_id!r} has no "subset"; '
                                  'add one of training, validation, testing')
        if '\0' in video_id:  # which no file of features takes
            raise AnnotationError(f'{annotation.path}: video {video_id!r} has a NUL in its name; '
                                  'give it another')
    chosen = {video_id: entry for video_id, entry in annotation.database.items()
              if entry['subset'] == subset}
    if not chosen:
        counts = Counter(str(entry['subset']) for entry in annotation.database.values())
        found = ', '.join(f'{name} ({n})' for name, n in sorted(counts.items())) or 'none at all'
        raise AnnotationError(f'{annotation.path}: no video has subset {subset!r}; found {found}: '
                              f'call that of some {subset!r}, or {WITHOUT.get(subset, "")}name '
                              'another --inference_subset')
    return chosen


# ---------------------------------------------------------------- label lists

def label_list_records(annotation: Annotation, subset: str, *, first_frame: int = 1,
                       multi_label: bool = False) -> tuple[Records, int]:
    """Records of a label-list annotation, one per video, and how many videos had no segment.

    first_frame: number of a stored video's first frame, 1 for jpg and 0 for hdf5
    multi_label: a video's label may be a list of labels

    Raises AnnotationError for a label that is not listed and a segment that cannot be.
    """
    numbers = {name: i for i, name in enumerate(annotation.class_names)}
    rows, n_left_out = _Rows(), 0
    for video_id, entry in select_subset(annotation, subset).items():
        where = f'{annotation.path}: video {video_id!r}'
        marks = entry.get('annotations') or {}
        if not isinstance(marks, dict):
            raise AnnotationError(f'{where}: "annotations" is not an object with label and '
                                  'segment; for the ActivityNet schema the file needs "taxonomy"')
        labels = _class_numbers(marks.get('label'), numbers, where, subset, multi_label)
        if 'segment' not in marks:
            n_left_out += 1
            continue
        begin, end = _frame_segment(marks['segment'], first_frame, where)
        path = _path(entry, usual_path(video_id, marks.get('label')), where)
        rows.add(video_id, path, labels, begin, end, _video_end(entry, first_frame, end, where))
    return rows.to_records(annotation, subset, n_left_out, multi_label), n_left_out


def usual_path(video_id: str, label: Any) -> str:
    """Where a video's frames are, below the video folder, if its entry does not say: in the folder
    of its label, or of `test` without one (None); a video with a list of labels is in none."""
    return video_id if isinstance(label, list) else f'{label or "test"}/{video_id}'


def _path(entry: dict[str, Any], usual: str, where: str) -> str:
    path = entry.get('video_path', usual)
    if not isinstance(path, str):
        raise AnnotationError(f'{where}: "video_path" {path!r} is not the path of its frames; '
                              'mend it')
    if is_path(path) and len(os.fsencode(path)) < MAX_PATH:
        return path
    raise AnnotationError(f'{where}: no file can have the path {shown(path)}; mend it')


def _class_numbers(label: Any, numbers: dict[str, int], where: str, subset: str,
                   multi_label: bool = False) -> list[int]:
    """Class numbers of a label or of a list of labels, sorted and without repetition."""
    if label is None and subset == 'testing':
        return []
    if isinstance(label, list) and not multi_label:
        raise AnnotationError(f'{where}: has a list of labels, {label!r}; add --multi_label, or '
                              'give each video one label')
    labels = label if isinstance(label, list) else [label]
    return sorted({_listed(name, numbers, where) for name in labels})


def _listed(label: Any, numbers: dict[str, int], where: str) -> int:
    if not isinstance(label, str) or label not in numbers:
        raise AnnotationError(f'{where}: label {label!r} is not in "labels"; '
                              'add it there or mend the video\'s label')
    return numbers[label]


def _frame_segment(segment: Any, first_frame: int, where: str) -> list[int]:
    is_pair = isinstance(segment, list) and len(segment) == 2 and all(
        type(frame) is int for frame in segment)  # true and false are ints too
    if not is_pair or not first_frame <= segment[0] < segment[1] <= MAX_FRAME:
        raise AnnotationError(f'{where}: segment {segment!r} is not [first frame, last frame + 1] '
                              f'with frames counted from {first_frame}; mend it')
    return segment


def _video_end(entry: dict[str, Any], first_frame: int, end: int, where: str) -> int:
    """Last frame + 1 of the video that a segment is of: `end`, unless the entry says "n_frames"."""
    n_frames = entry.get('n_frames', end - first_frame)
    if not isinstance(n_frames, int) or not end <= first_frame + n_frames <= MAX_FRAME:
        raise AnnotationError(f'{where}: "n_frames" {n_frames!r} is not the number of frames of a '
                              f'video with frame {end - 1} in it; mend it')
    return first_frame + n_frames


# ---------------------------------------------------------------- taxonomies (ActivityNet)

def taxonomy_records(annotation: Annotation, subset: str, count_frames: Callable[[str], int], *,
                     first_frame: int = 1, trimmed: bool = True) -> tuple[Records, int]:
    """Records of a taxonomy annotation, and how many videos had no frames.

    Trimmed: one record per labelled segment. Untrimmed: one per video, without label.
    `count_frames(path)` gives the number of frames of a video, 0 where there are none.
    """
    numbers = {name: i for i, name in enumerate(annotation.class_names)}
    rows, n_left_out = _Rows(), 0
    for video_id, entry in select_subset(annotation, subset).items():
        where = f'{annotation.path}: video {video_id!r}'
        path = _path(entry, f'v_{video_id}', where)
        n_frames = count_frames(path)
        if n_frames == 0:
            n_left_out += 1
            continue
        video_end = first_frame + n_frames
        if not trimmed:
            rows.add(video_id, path, [], first_frame, video_end, video_end)
            continue
        for mark in _marks(entry, where):
            labels = _class_numbers(mark.get('label'), numbers, where, subset)
            begin, end = _timed_segment(mark.get('segment'), entry.get('fps'), where)
            begin, end = _fit(begin, end, n_frames)
            rows.add(video_id, path, labels, begin - 1 + first_frame, end - 1 + first_frame,
                     video_end)
    return rows.to_records(annotation, subset, n_left_out, is_multi_label=False), n_left_out


def _marks(entry: dict[str, Any], where: str) -> list[dict[str, Any]]:
    marks = entry.get('annotations') or []
    if not isinstance(marks, list) or not all(isinstance(mark, dict) for mark in marks):
        raise AnnotationError(f'{where}: "annotations" is not a list of segments with labels; '
                              'take the published file')
    return marks


def _timed_segment(segment_sec: Any, fps: Any, where: str) -> tuple[int, int]:
    """[begin, end] in seconds -> first frame and last frame + 1, counted from 1."""
    if not is_number(fps) or fps <= 0:
        raise AnnotationError(f'{where} has no "fps"; add it with '
                              'util_scripts.add_fps_into_activitynet_json')
    if not isinstance(segment_sec, list) or len(segment_sec) != 2 or not all(
            is_number(sec) and sec * fps < MAX_FRAME for sec in segment_sec):
        raise AnnotationError(f'{where}: segment {segment_sec!r} is not [begin, end] in seconds; '
                              'mend it')
    begin, end = (math.floor(sec * fps) + 1 for sec in segment_sec)
    return max(1, begin), end


def _fit(begin: int, end: int, n_frames: int) -> tuple[int, int]:
    """At most the frames there are, at least MIN_SEGMENT_FRAMES (as far as there are so many)."""
    end = min(end, n_frames)
    if end - begin < MIN_SEGMENT_FRAMES:
        end = min(begin + MIN_SEGMENT_FRAMES, n_frames + 1)
        begin = max(1, end - MIN_SEGMENT_FRAMES)
    return begin, end
