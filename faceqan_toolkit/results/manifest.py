"""The manifest: a CSV file that says of every photo what was decided, before it is done."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from faceqan_toolkit.cells import guard, unguard
from faceqan_toolkit.choices import MODES
from faceqan_toolkit.errors import RunError
from faceqan_toolkit.paths import printable
from faceqan_toolkit.results.copying import THERE
from faceqan_toolkit.wording import reason_of


@dataclass(frozen=True)
class Entry:
    """One row; paths are absolute texts (`paths.path_text`).

    Attributes:
        source: the photo or crop.
        destination: where it belongs; empty if it is not placed.
        quality: of the face that counts, rounded down to six decimals; empty without a score.
        decision: "list", one of `PLACED`, "drop" or "error".
        reason: why it is dropped, what went wrong, or that it was there already.
        sha256: of a file that is moved, hexadecimal: what may be put back.
    """

    source: str
    destination: str
    quality: str
    decision: str
    reason: str
    sha256: str

    def cells(self) -> list[str]:
        """Return its cells, harmless to spreadsheets and without line breaks."""
        return [guard(printable(getattr(self, name))) for name in COLUMNS]


PLACED = tuple(mode for mode in MODES if mode != "list")
"""Decisions that put a file into DIR."""

COLUMNS = tuple(item.name for item in fields(Entry))


class Manifest:
    """A manifest that grows; use it in a `with` statement. What was written stays.

    A row that a killed process left incomplete is removed: nothing was done about it.

    Args:
        path: made if it is not there.
        dry: only to be read; nothing is made, changed or locked.

    Raises:
        RunError: another file by that name, another process at work, or no permission.
    """

    def __init__(self, path: Path, *, dry: bool = False) -> None:
        self.path = path
        self._pairs: set[tuple[str, str]] | None = None
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            if not dry:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"another process is at work with {path}") from None
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason_of(error)}") from error
        try:
            mode = "rb" if dry else "r+b" if path.exists() else "x+b"
            self._file: BinaryIO = path.open(mode)  # type: ignore[assignment]
            self._begin(dry=dry)
        except OSError as error:
            self._lock.release()
            raise RunError(f"cannot write {path}: {reason_of(error)}") from error
        except BaseException:
            self._file.close()
            self._lock.release()
            raise

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
        """Add rows; they are on the disk when it returns.

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
        """Yield the rows that were there when it was opened.

        Raises:
            RunError: a row is not as this tool writes it.
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
        """Tell whether an earlier process set out to move or copy a file to a place."""
        if self._pairs is None:  # rarely asked: after an interruption
            self._pairs = {
                (entry.source, entry.destination)
                for entry in self.entries()
                # what was there already was not put there by us
                if entry.decision in ("move", "copy") and entry.reason != THERE
            }
        return (source, destination) in self._pairs

    def placed_before(self) -> set[str]:
        """Return the destinations of what earlier calls copied, moved or linked."""
        return {entry.destination for entry in self.entries() if entry.decision in PLACED}

    def copied_before(self) -> set[str]:
        """Return the destinations of what earlier calls copied or linked, not moved."""
        return {
            entry.destination
            for entry in self.entries()
            # what was there already was not put there by this tool
            if entry.decision in PLACED and entry.decision != "move" and entry.reason != THERE
        }

    def close(self) -> None:
        """Let others in."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")


def _until(file: Iterable[bytes], end: int) -> Iterator[bytes]:
    """Yield lines up to a position."""
    position = 0
    for line in file:
        position += len(line)
        if position > end:
            return
        yield line


def _end_of_last_line(file: BinaryIO) -> int:
    """Return the position behind the last line break, 0 if there is none."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 4096)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
