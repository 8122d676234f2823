"""An index of video files that is kept across runs: where their packets and key frames are.

It is an SQLite file with a row per video, which loader processes read and add to. A row counts
while size and time of its video are as they were.
"""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import parse_json

TABLE = ('CREATE TABLE IF NOT EXISTS videos '
         '(path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, notes TEXT)')
# Other processes may be writing for so long.
WAIT_SEC = 60


class VideoIndex:
    """The index in a file, which is made where it is missing.

    Raises InputError where that is not possible, or the file is none.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._pid = path, 0
        self._run(TABLE)
        self._close()  # a process that is forked needs a connection of its own

    def __getstate__(self) -> dict[str, Any]:
        return {'_path': self._path, '_pid': 0}

    def load(self, video: str, version: tuple[int, int]) -> dict[str, Any] | None:
        """What `save` was given for a video of this (size, time); None for nothing."""
        rows = self._run('SELECT notes FROM videos WHERE path = ? AND size = ? AND modified = ?',
                         (_key(video), *version))
        try:
            return parse_json(rows[0][0]) if rows else None
        except (TypeError, ValueError) as error:
            raise self._broken(error) from None

    def save(self, video: str, version: tuple[int, int], notes: dict[str, Any]) -> None:
        """Keep what is known of a video, JSON, in the place of what was."""
        self._run('REPLACE INTO videos VALUES (?, ?, ?, ?)',
                  (_key(video), *version, json.dumps(notes)))

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            if self._pid != os.getpid():
                self._connection = sqlite3.connect(self._path, WAIT_SEC, isolation_level=None)
                # An index can be made again: no row needs to wait for the disk.
                self._connection.execute('PRAGMA synchronous = OFF')
                self._pid = os.getpid()
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _close(self) -> None:
        self._connection.close()
        self._pid = 0

    def _broken(self, error: Exception) -> InputError:
        return InputError(f'{self._path}: cannot be used as an index of videos ({error}); delete '
                          'it, or give another --video_index')


def _key(video: str) -> bytes:
    return os.fsencode(os.path.abspath(video))
