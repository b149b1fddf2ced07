"""The manifest of `filter`: a CSV file with each photo's decision, written before acting on it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

from faceqan_toolkit.choices import MODES
from faceqan_toolkit.errors import RunError
from faceqan_toolkit.files import lock
from faceqan_toolkit.results.copying import THERE
from faceqan_toolkit.text import guard, printable, reason_of, unguard


@dataclass(frozen=True)
class Entry:
    """One row; paths are absolute, as `text.path_text` writes them.

    Attributes:
        source: the photo or crop.
        destination: its new path; empty if it is not copied, moved or linked.
        quality: quality of the deciding face, rounded down to six decimals; empty without a score.
        decision: "list", one of `PLACED`, "drop" or "error".
        reason: why it was dropped, the error, or `THERE`.
        sha256: checksum of a moved file, hexadecimal; `undo` restores no other file.
    """

    source: str
    destination: str
    quality: str
    decision: str
    reason: str
    sha256: str

    def cells(self) -> list[str]:
        """Return the CSV cells, guarded against formulas and without line breaks."""
        return [guard(printable(getattr(self, name))) for name in COLUMNS]


PLACED = tuple(mode for mode in MODES if mode != "list")
"""Decisions that create a file in DIR."""

COLUMNS = tuple(item.name for item in fields(Entry))


class Manifest:
    """A manifest that rows are appended to; use it in a `with` statement.

    An incomplete last row, left by a killed process, is removed: its file was not touched.

    Args:
        path: the CSV file, created if missing.
        dry: open for reading only, without a lock.

    Raises:
        RunError: the file is not a manifest, is locked by another process, or cannot be opened.
    """

    def __init__(self, path: Path, *, dry: bool = False) -> None:
        self.path = path
        self._pairs: set[tuple[str, str]] | None = None
        with ExitStack() as stack:
            if not dry:
                stack.callback(lock(path.with_name(f".{path.name}.lock"), path).release)
            try:
                mode = "rb" if dry else "r+b" if path.exists() else "x+b"
                self._file: BinaryIO = path.open(mode)  # type: ignore[assignment]
                stack.callback(self._file.close)
                self._begin(dry=dry)
            except OSError as error:
                raise RunError(f"cannot write {path}: {reason_of(error)}") from error
            self._close = stack.pop_all().close

    def _begin(self, *, dry: bool) -> None:
        header = _lines([COLUMNS])
        first = self._file.readline()
        if not header.startswith(first) and first.rstrip(b"\r\n") != header.rstrip(b"\r\n"):
            raise RunError(f"{self.path} is not a manifest of this tool; choose another name")
        end = _end_of_last_line(self._file)
        if dry:
            self._before = end
            return
        self._file.truncate(end)
        self._file.seek(end)
        if end == 0:
            self._file.write(header)
        self._before = self._file.tell()

    def write(self, entries: Iterable[Entry]) -> None:
        """Append rows and flush them to the disk.

        Raises:
            RunError: they cannot be written.
        """
        try:
            self._file.write(_lines(entry.cells() for entry in entries))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {reason_of(error)}") from error

    def entries(self) -> Iterator[Entry]:
        """Yield the rows that the file had when it was opened.

        Raises:
            RunError: a row is malformed.
        """
        with self.path.open("rb") as file:
            whole = (line.decode("utf-8") for line in _until(file, self._before))
            rows = csv.reader(whole)
            next(rows, None)
            try:
                for row in rows:
                    yield Entry(*map(unguard, row))
            except (TypeError, UnicodeDecodeError, csv.Error):
                raise RunError(f"{self.path}, line {rows.line_num}: not a manifest's row") from None

    def has(self, source: str, destination: str) -> bool:
        """Tell whether an earlier command began to move or copy a source to a destination."""
        if self._pairs is None:  # needed only after an interruption
            self._pairs = {
                (entry.source, entry.destination)
                for entry in self.entries()
                # a file that was there already is not ours
                if entry.decision in ("move", "copy") and entry.reason != THERE
            }
        return (source, destination) in self._pairs

    def placed_before(self) -> set[str]:
        """Return the destinations of earlier copies, moves and links."""
        return {entry.destination for entry in self.entries() if entry.decision in PLACED}

    def copied_before(self) -> set[str]:
        """Return the destinations of earlier copies and links."""
        return {
            entry.destination
            for entry in self.entries()
            # a file that was there already is not ours
            if entry.decision in PLACED and entry.decision != "move" and entry.reason != THERE
        }

    def close(self) -> None:
        """Close the file and release the lock."""
        self._close()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")


def _until(file: Iterable[bytes], end: int) -> Iterator[bytes]:
    """Yield the lines that end at or before a byte position."""
    position = 0
    for line in file:
        position += len(line)
        if position > end:
            return
        yield line


def _end_of_last_line(file: BinaryIO) -> int:
    """Return the byte position after the last line break; 0 without one."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 4096)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
