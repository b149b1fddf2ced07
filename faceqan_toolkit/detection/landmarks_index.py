"""Rows by path, for files too large to be held in memory by every process."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.files import replacing

LARGE_BYTES = 4_000_000
"""A file with more is read once, for all processes and later runs, into an index on the disk."""

KEPT_DAYS = 30
"""After that an index nobody has used is removed."""

VERSION = 2
"""Raised whenever the same file would give another index than before."""

Entries = Iterable[tuple[str, Sequence[Any]]]


class Index:
    """Rows by path, in SQLite; any number of threads and processes may look rows up.

    Args:
        connection: to a database; closed with the last use of the index.
        where: it is, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, where: str) -> None:
        self._connection, self._where = connection, where
        weakref.finalize(self, connection.close)
        self._lock = threading.Lock()

    def rows(self, path: str) -> list[list[Any]]:
        """Return a path's rows in the order they had, as JSON knows them: tuples are lists.

        Raises:
            SettingsError: the index is damaged.
        """
        query = "SELECT row FROM rows WHERE path = ? ORDER BY rowid"
        try:
            with self._lock:
                found = self._connection.execute(query, (_key(path),)).fetchall()
        except sqlite3.Error as error:
            raise SettingsError(f"{self._where}: {error}; delete it") from error
        return [json.loads(text) for (text,) in found]


def open_index(file: Path, read: Callable[[], Entries]) -> Index:
    """Return the index of a file: in memory for a small one, else on the disk, made at need.

    Args:
        file: its path, size and time tell whether an index on the disk is its own.
        read: yields its rows with their paths.

    Raises:
        OSError: the file is not there.
    """
    found = file.stat()
    if found.st_size > LARGE_BYTES:
        state = f"{VERSION} {file.resolve()} {found.st_size} {found.st_mtime_ns}"
        name = hashlib.sha256(state.encode(errors="surrogatepass")).hexdigest()[:32]
        with suppress(OSError, sqlite3.OperationalError):  # no place, or a full one
            return _on_disk(user_cache_path("faceqan-toolkit") / "landmarks" / name, read)
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    index = Index(connection, str(file))
    _fill(connection, read())
    return index


def _on_disk(target: Path, read: Callable[[], Entries]) -> Index:
    if target.is_file():
        os.utime(target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(target.parent)
        with replacing(target) as temporary, closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")  # it is written whole or not at all
            connection.execute("PRAGMA synchronous = OFF")
            _fill(connection, read())
    # nobody changes it, so nothing is locked
    address = f"{target.as_uri()}?mode=ro&immutable=1"
    return Index(sqlite3.connect(address, uri=True, check_same_thread=False), str(target))


def _fill(connection: sqlite3.Connection, entries: Entries) -> None:
    with connection:
        connection.execute("CREATE TABLE rows (path BLOB, row TEXT)")
        connection.executemany(
            "INSERT INTO rows VALUES (?, ?)",
            ((_key(path), json.dumps(row)) for path, row in entries),
        )
        connection.execute("CREATE INDEX rows_by_path ON rows (path)")


def _key(path: str) -> bytes:
    """Return any path as SQLite can hold it, one that is no text too."""
    return path.encode(errors="surrogatepass")


def _remove_old(folder: Path) -> None:
    for file in folder.iterdir():
        with suppress(OSError):
            if file.stat().st_mtime < time.time() - KEPT_DAYS * 86_400:
                file.unlink()
