"""Results of inference: the result JSON and features, and partial results until these are complete.

Each process appends the result of each video to a file of its own in the result folder,
{subset}.partial.{key}.{rank}.jsonl. Its first line holds the settings that the results depend on,
and `key` is a hash of that line. One line per video follows:

    {"format": 1, "settings": {"model": "resnet", ...}}
    {"video": "VIDEO_ID", "result": [...]}

An inference with the same settings goes on with the lines of all such files, whatever number of
processes wrote them. Files of other settings stay as they are, for an inference with those.
"""

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import nn

import checkpoint
from features import Features, is_packed, unpack, write_features
from opts import CLIP_FLAGS, INFERENCE_FLAGS, NETWORK_FLAGS, Options
from runtime import distributed
from runtime.distributed import World
from runtime.errors import InputError
from runtime.files import file_size, parse_json, write_json, write_text
from runtime.logs import RunLog
from runtime.output import warn
from runtime.schema import OBJECT, TEXT, Check, fields, list_of, plain

# A file of another format is of other settings.
FORMAT = 1
# A line of a file of partial results.
ROW = fields({'video': TEXT, 'result': list_of(OBJECT)},
             {'features': plain(is_packed, 'features as they are written')})
# A sentence names both values of a setting unless they are longer, such as hashes.
SHOWN_LENGTH = 60

Value = TypeVar('Value')
VideoFeatures = tuple[torch.Tensor, torch.Tensor]  # as features.pack takes them


# ---------------------------------------------------------------- partial results

class PartialResults:
    """The files of one inference; within it, `add` appends to that of process `rank`.

    settings: what results depend on, {name: value} as JSON has it
    row:      what each row is to be
    pattern:  what the files of all processes are called

    Where nothing can be written, that is said, and the inference goes on without.
    """

    def __init__(self, folder: str | Path, subset: str, settings: dict[str, Any],
                 rank: int = 0, row: Check = ROW) -> None:
        self._folder, self._subset, self._row = Path(folder), subset, row
        self._file: FileIO | None = None
        header = json.dumps({'format': FORMAT, 'settings': settings}, sort_keys=True)
        self._header = header.encode() + b'\n'
        self._settings = json.loads(header)['settings']
        key = hashlib.sha256(self._header).hexdigest()[:8]
        self.pattern = self._folder / f'{subset}.partial.{key}.*.jsonl'
        self._path = self._folder / f'{subset}.partial.{key}.{rank}.jsonl'

    def read(self) -> dict[str, Any]:
        """{video id: its row} of what all processes have added. Raises InputError."""
        rows: dict[str, Any] = {}
        for path in self._files():
            try:
                file_size(path)
                rows |= {row['video']: row for row in self._rows(path)}
            except OSError as error:
                mend = 'mend its permissions, or ' if isinstance(error, PermissionError) else ''
                raise InputError(f'{path}: cannot be read ({error.strerror}); {mend}move it away '
                                 'to begin afresh') from None
        return rows

    def others(self) -> str:
        """A sentence about files of other settings, '' where there are none."""
        pattern = f'{glob.escape(self._subset)}.partial.*.jsonl'
        paths = sorted({*self._folder.glob(pattern)} - {*self._files()})
        if not paths:
            return ''
        more = f' (and {len(paths) - 1} more)' if len(paths) > 1 else ''
        return (f'{paths[0]}{more}: of an inference with other settings'
                f'{_differences(paths[0], self._settings)}; it stays as it is, and this inference '
                'begins afresh')

    def __enter__(self) -> 'PartialResults':
        try:
            self._file = self._opened()
        except (InputError, OSError) as error:
            self._give_up(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._close()

    def add(self, video_id: str, row: dict[str, Any]) -> None:
        """Append the row of a video, {name: value} as JSON has it."""
        if not self._file:
            return
        line = json.dumps({'video': video_id, **row}).encode() + b'\n'
        try:
            while line:
                line = line[self._file.write(line):]
        except OSError as error:
            self._give_up(error)

    def remove(self) -> None:
        """Delete the files of all processes."""
        for path in self._files():
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _files(self) -> Iterable[Path]:
        rest = self.pattern.name.removeprefix(self._subset)
        return self._folder.glob(glob.escape(self._subset) + rest)

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        with open(path, 'rb') as file:
            if file.readline() != self._header:
                return
            for line in file:
                # One that was cut short when its process was killed is no JSON.
                try:
                    row = parse_json(line)
                except ValueError:
                    continue
                if fault := self._row(row):
                    raise InputError(f'{path}: a row of it{fault}; move it away to begin afresh')
                yield row

    def _opened(self) -> FileIO:
        """The file of this process, to append to: as it is, or a new one."""
        if not self._path.exists() or _first_line(self._path) != self._header:
            write_text(self._path, self._header.decode())
        # Without a buffer: what was added is there whatever becomes of the process.
        file = open(self._path, 'ab+', buffering=0)
        file.seek(-1, os.SEEK_END)
        if file.read() != b'\n':
            file.write(b'\n')
        return file

    def _give_up(self, error: InputError | OSError) -> None:
        warn(f'{self._path}: unfinished results are not kept from now on '
             f'({getattr(error, "strerror", None) or error}); the run goes on')
        self._close()

    def _close(self) -> None:
        """End adding; what is added from now on is not kept."""
        if self._file:
            self._file.close()
        self._file = None


def partial_results(opts: Options, world: World, records: Any,
                    network: nn.Module) -> PartialResults:
    """The PartialResults of this process, by what results depend on beyond rounding. All processes
    call it."""
    settings = {}
    if world.is_main:
        names = (*NETWORK_FLAGS, *CLIP_FLAGS, *INFERENCE_FLAGS)
        settings = {**{name: getattr(opts, name) for name in names},
                    'video_path': str(opts.video_path.resolve()),
                    'output_features': opts.output_features is not None,
                    'class_names': records.class_names,
                    'videos': records.fingerprint(),
                    'weights': checkpoint.fingerprint(network.state_dict())}
    return PartialResults(opts.result_path, opts.inference_subset,
                          distributed.from_main(settings, world), world.rank)


def take_over(partial: PartialResults, loader: Any, world: World,
              log: RunLog) -> tuple[dict[int, Any], dict[int, VideoFeatures]]:
    """Results and features of an inference that was not finished, {video: value} each by its
    number in the records, on rank 0; the loader of no process reads those videos again.

    log: says how many there are. All processes call it. Raises InputError.
    """
    kept = partial.read() if world.is_main else {}
    rows: dict[int, Any] = {}
    if kept:
        video_ids = loader.dataset.records.video_ids
        rows = {video: kept[video_ids[video]] for video in range(len(video_ids))
                if video_ids[video] in kept}
        log.say(f'{partial.pattern}: {len(rows)} of {len(video_ids)} videos are taken over from an '
                'inference that was not finished')
    elif world.is_main and (others := partial.others()):
        log.say(others)
    loader.leave_out(distributed.from_main(list(rows), world))
    return ({video: row['result'] for video, row in rows.items()},
            {video: unpack(row['features']) for video, row in rows.items() if 'features' in row})


def _first_line(path: Path) -> bytes:
    with open(path, 'rb') as file:
        return file.readline()


def _differences(path: Path, settings: dict[str, Any]) -> str:
    """In brackets, what is not the same in the file at `path`; '' where it does not say."""
    try:
        others = dict(parse_json(_first_line(path))['settings'])
    except (OSError, ValueError, LookupError, TypeError):
        return ''
    words = []
    for name, value in settings.items():
        if others.get(name) != value:
            text = f'{name} {others.get(name)}, here {value}'
            words.append(text if len(text) <= SHOWN_LENGTH else f'other {name}')
    return f' ({"; ".join(words)})' if words else ''


# ---------------------------------------------------------------- complete results

def write_results(path: Path, results: dict[int, Any], records: Any, world: World,
                  log: RunLog) -> None:
    """Write what all processes found, {video: its entry} each by its number in the records, as one
    result JSON, from rank 0. All processes call it. Raises InputError."""
    results = _merged_shares(results, world)
    if world.is_main:
        write_json(path, {'results': {records.video_ids[video]: result
                                      for video, result in results.items()}})
        log.say(f'{path}: results of {len(results)} videos')


def write_all_features(path: Path, features: dict[int, VideoFeatures], records: Any, world: World,
                       log: RunLog) -> None:
    """The same of features, {video: (features, segments)}, as one features.Features file, which
    has their rows."""
    features = _merged_shares(features, world)
    if world.is_main:
        videos = [video for video, (rows, _) in features.items() for _ in rows]
        write_features(path, Features(
            torch.cat([rows for rows, _ in features.values()]).numpy(),
            [records.video_ids[video] for video in videos],
            torch.cat([segments for _, segments in features.values()]).numpy(),
            records.targets(videos).int().numpy(), list(records.class_names)))
        log.say(f'{path}: {len(videos)} rows of features of {len(features)} videos')


def _merged_shares(by_video: dict[int, Value], world: World) -> dict[int, Value]:
    """What all processes have, {video: value} in the order of the records; {} but on rank 0."""
    shares = distributed.gather(by_video, world) or ()
    merged = {video: value for share in shares for video, value in share.items()}
    return dict(sorted(merged.items()))
