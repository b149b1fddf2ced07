"""Parquet files with encoded photos in a column, such as Hugging Face data sets."""

from __future__ import annotations

import math
import re
import threading
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, repeat
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from faceqan_toolkit.errors import MissingPhoto, PhotoError, UnreadablePhoto
from faceqan_toolkit.photos.archives import LABEL_NAMES, Names, label_folder, told_extension
from faceqan_toolkit.photos.stores import PHOTO_EXTENSIONS, Store, extension
from faceqan_toolkit.text import first_line
from faceqan_toolkit.types import FileState

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "photo")
KEY_COLUMNS = ("key", "__key__")
BATCH = 16
"""Number of rows read at once."""
KEPT_BATCHES, KEPT_BYTES = 64, 32 << 20
"""Limits of the cache of recent batches, as threads ask for rows slightly out of order. Two batches
are always kept."""
KEPT_GROUPS = 2
"""Row groups open at once: at the end of one, threads ask for rows of two."""


class _Columns(NamedTuple):
    """Columns of photos (or their field with the bytes), labels and names; "" for none."""

    photos: str
    label: str
    key: str


class _Batch(NamedTuple):
    """Encoded photos, or structs with them, of the rows from `first` to before `end`."""

    first: int
    end: int
    photos: pa.Array


@dataclass(frozen=True)
class ParquetArchive:
    """The photos in a parquet file, see `archives.Archive`: `[column=NAME/][LABEL/]ROW-OR-KEY.jpg`.

    `column` has the photos, binary or a struct with binary `bytes`; "" detects it.
    """

    store: Store
    column: str = ""

    def members(self) -> Iterator[tuple[str, Cell]]:
        """Yield names and contents in row order; only the first photo is read."""
        state, names = self.store.state(), Names()
        damage = ""
        try:
            reader = _reader(self, state)
            by_row, suffix = not reader.columns.key, reader.first_extension()
            prefix = f"column={self.column}/" if self.column else ""
            for row, (label, key) in enumerate(reader.labels_and_keys()):
                name = f"{row:08d}" if key is None else str(key)
                if extension(name) not in PHOTO_EXTENSIONS:
                    name += suffix
                name = f"{prefix}{label_folder(label)}{name}"
                if names.take(name, True if by_row else None):
                    yield name, Cell(self, row)
        except UnreadablePhoto as error:
            damage = error.reason
        names.finish(damage)

    def find(self, name: str) -> Cell:
        """Return a member."""
        chosen = re.match(r"column=([^/]+)/", name)
        archive = ParquetArchive(self.store, chosen[1]) if chosen and not self.column else self
        row = _rows_by_name(archive, self.store.state()).get(name)
        if row is None:
            raise MissingPhoto(f"not in {self.store.name}")
        return Cell(archive, row)

    def columns(self, schema: pa.Schema) -> _Columns:
        """Return the columns of photos and names; raise UnreadablePhoto if none or several fit."""
        found = {item.name: leaf for item in schema if (leaf := _leaf(item))}
        by_name = [name for name in (self.column, *IMAGE_COLUMNS) if name in found]
        if self.column and self.column not in found:
            has = ", ".join(found) or "none"
            raise UnreadablePhoto(f"no column {self.column!r} with photos; it has {has}")
        if not found:
            raise UnreadablePhoto("no column with encoded photos")
        if len(found) > 1 and not by_name:
            raise UnreadablePhoto(f"say which has the photos: --image-column {'|'.join(found)}")
        image = [*by_name, *found][0]
        tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
        plain = {item.name for item in schema if any(test(item.type) for test in tests)}
        label = next((name for name in LABEL_NAMES if name in plain), "")
        key = next((name for name in KEY_COLUMNS if name in plain), "")
        return _Columns(found[image], label, key)


@dataclass(frozen=True)
class Cell:
    """The photo in a row. Its state is that of the file: the size of a row is unknown unread."""

    archive: ParquetArchive
    row: int

    def state(self) -> FileState:
        """Return the file's state."""
        return self.archive.store.state()

    def read(self) -> tuple[bytes, FileState]:
        """Return the photo and the file's state."""
        state = self.archive.store.state()
        data = _reader(self.archive, state).cell(self.row)
        if data is None:
            raise UnreadablePhoto("its row has no photo")
        return data, state


class _Reader:
    """Reads one file roughly in order; going far back reads a row group again from its start."""

    def __init__(self, archive: ParquetArchive) -> None:
        self._lock = threading.Lock()
        self._opened = archive.store.open()
        weakref.finalize(self, self._opened.close)
        with _damage_told():
            self._file = pq.ParquetFile(self._opened, buffer_size=1 << 20)
            self.columns = archive.columns(self._file.schema_arrow)
            about = self._file.metadata
            sizes = (about.row_group(index).num_rows for index in range(about.num_row_groups))
            self._starts = list(accumulate(sizes, initial=0))
        # by row group that is being read: the number of its next row, and the batches from there on
        self._groups: dict[int, tuple[int, Iterator[_Batch]]] = {}
        self._latest: deque[_Batch] = deque(maxlen=KEPT_BATCHES)

    def labels_and_keys(self) -> Iterator[tuple[Any, Any]]:
        """Yield each row's label and key; None without such a column."""
        names = self.columns.label, self.columns.key
        if not any(names):
            yield from repeat((None, None), self._starts[-1])
            return
        with _damage_told():
            for batch in self._file.iter_batches(columns=list(filter(None, names))):
                empty = [None] * batch.num_rows
                values = (batch.column(name).to_pylist() if name else empty for name in names)
                yield from zip(*values, strict=True)

    def first_extension(self) -> str:
        """Return the extension for the first photo's format."""
        start = b""
        with suppress(PhotoError):
            start = self.cell(0) or b""
        return ".webp" if start.startswith(b"RIFF") else told_extension(start)

    def cell(self, row: int) -> bytes | None:
        if not 0 <= row < self._starts[-1]:
            raise MissingPhoto("no such row")
        with self._lock, _damage_told():
            kept = (batch for batch in reversed(self._latest) if batch.first <= row < batch.end)
            batch = next(kept, None) or self._read_on(row)
        value = batch.photos[row - batch.first].as_py()
        found: bytes | None = value.get("bytes") if isinstance(value, dict) else value
        return found

    def _read_on(self, row: int) -> _Batch:
        """Read on to a row; start its group again if the row is behind."""
        index = bisect_right(self._starts, row) - 1
        at, batches = self._groups.pop(index, (math.inf, iter(())))
        if row < at:
            batches = self._batches(index)
        for batch in batches:
            self._latest.append(batch)
            size = sum(kept.photos.nbytes for kept in self._latest)
            while size > KEPT_BYTES and len(self._latest) > 2:
                size -= self._latest.popleft().photos.nbytes
            if row < batch.end:
                break
        else:
            raise UnreadablePhoto("the file ends before its row")
        if batch.end < self._starts[index + 1]:  # a finished group would only take memory
            self._groups[index] = batch.end, batches
            if len(self._groups) > KEPT_GROUPS:
                del self._groups[next(iter(self._groups))]  # least recently used
        return batch

    def _batches(self, group: int) -> Iterator[_Batch]:
        """Yield the batches of a row group."""
        first = self._starts[group]
        wanted = [self.columns.photos]
        for batch in self._file.iter_batches(BATCH, row_groups=[group], columns=wanted):
            yield _Batch(first, first + batch.num_rows, batch.column(0))
            first += batch.num_rows


@contextmanager
def _damage_told() -> Iterator[None]:
    """Convert pyarrow's errors on damaged files to UnreadablePhoto."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        told = first_line(error)
        raise UnreadablePhoto(f"not a parquet file, or damaged: {told}") from error


@lru_cache(4)
def _reader(archive: ParquetArchive, _state: FileState) -> _Reader:
    return _Reader(archive)


@lru_cache(2)
def _rows_by_name(archive: ParquetArchive, _state: FileState) -> dict[str, int]:
    found = {}
    with suppress(PhotoError):
        for name, cell in archive.members():
            found[name] = cell.row
    return found


def _leaf(item: pa.Field) -> str:
    """Return the field with the bytes of a column of photos; "" for any other column."""
    kind = item.type
    if _is_binary(kind):
        return str(item.name)
    has_bytes = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return f"{item.name}.bytes" if has_bytes and _is_binary(kind.field("bytes").type) else ""


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
