"""MXNet's RecordIO, the format of InsightFace's training sets: one labelled face per record.

A `.rec` file is a sequence of records. A record is a magic number, a word (3 bits: which part of a
record this is, 29 bits: length), the data, and zeros up to a multiple of four. Data that contain
the magic number at a multiple of four are split there into several parts, without the number. The
data are a flag, a label, two ids, as many more labels as the flag says, and the encoded photo. The
`.idx` file beside it has a line for each record: key and offset.

Source: the documentation of dmlc-core's recordio.h and MXNet's recordio.py.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import MissingPhoto, PhotoError, UnreadablePhoto
from faceqan_toolkit.photos.archives import Names, Slice, label_folder, told_extension
from faceqan_toolkit.photos.stores import Store
from faceqan_toolkit.types import FileState

MAGIC = struct.pack("<I", 0xCED7230A)
HEADER = struct.Struct("<IfQQ")
"""Flag, label and two ids of a record's data."""
LENGTH_BITS = 29
WHOLE, FIRST, MIDDLE, LAST = range(4)


class _Entry(NamedTuple):
    """The first label of a record, its encoded photo, and the extension for the photo's format."""

    label: float
    content: Slice
    extension: str

    def name(self, key: int) -> str:
        label = int(self.label) if self.label.is_integer() else self.label
        return f"{label_folder(label)}{key:08d}{self.extension}"


@dataclass(frozen=True)
class RecordArchive:
    """The photos in a `.rec`, see `archives.Archive`: `LABEL/KEY.jpg`.

    Keys come from the `.idx`; without one, records are numbered from 0. Records without a photo,
    such as InsightFace's first one and those of the identities, are skipped.
    """

    store: Store

    def members(self) -> Iterator[tuple[str, Slice]]:
        """Yield names and contents in the order of the `.idx`, or of the file without one."""
        state, names = self.store.state(), Names()
        bad: list[str] = []
        with self.store.open() as file:
            repeated, seen = _repeated_keys(self, state), set[int]()
            for key, offset in self._places(file, state, bad):
                try:
                    entry = _read_entry(self.store, file, offset, state)
                except UnreadablePhoto as error:
                    bad.append(f"record {key}: {error.reason}" if not bad else "")
                    continue
                if entry is None:
                    continue
                is_new = key not in seen
                if key in repeated:
                    seen.add(key)
                if names.take(name := entry.name(key), is_new):
                    yield name, entry.content
        names.finish(f"{len(bad):,} records damaged, the first is {bad[0]}" if bad else "")

    def find(self, name: str) -> Slice:
        """Return a member."""
        state = self.store.state()
        parsed = re.fullmatch(r"[^/]+/(\d{1,18})\.\w+", name)
        if parsed:
            keys, offsets = _index(self, state)
            at = int(np.searchsorted(keys, int(parsed[1])))
            if at < len(keys) and keys[at] == int(parsed[1]):
                with self.store.open() as file:
                    entry = _read_entry(self.store, file, int(offsets[at]), state)
                if entry is not None and entry.name(int(parsed[1])) == name:
                    return entry.content
        raise MissingPhoto(f"not in {self.store.name}")

    def _places(
        self, file: BinaryIO, state: FileState, bad: list[str]
    ) -> Iterator[tuple[int, int]]:
        """Yield key and offset of each record.

        `bad` receives a description of the first error and "" for each further one.
        """
        index = self.store.sibling(".idx")
        try:
            lines = index.open()
        except MissingPhoto:
            yield from enumerate(_walk(file, state.size, bad))
            return
        with lines:
            for number, line in enumerate(lines, 1):
                with suppress(ValueError):
                    key, offset = map(int, line.split())
                    if 0 <= key < 10**18 and 0 <= offset <= state.size:
                        yield key, offset
                        continue
                bad.append(f"line {number} of {index.name}" if not bad else "")


def _read_entry(store: Store, file: BinaryIO, offset: int, state: FileState) -> _Entry | None:
    """Return the record at an offset, None if it has only labels; raise UnreadablePhoto."""
    parts, _ = _parts(file, offset, state.size)
    size = sum(size for _, size in parts) + len(MAGIC) * (len(parts) - 1)
    pieces = []
    for place, length in parts:
        file.seek(place)
        # of an unsplit record its labels and the beginning of the photo
        pieces.append(file.read(length if len(parts) > 1 else min(length, 64)))
    start = MAGIC.join(pieces)
    if len(start) < HEADER.size:
        raise UnreadablePhoto("too short for a label")
    flag, label, _, _ = HEADER.unpack_from(start)
    skip = HEADER.size + 4 * flag
    if skip > size:
        raise UnreadablePhoto("more labels than it has bytes")
    if flag:
        (label,) = struct.unpack_from("<f", start, HEADER.size)
        if skip == size:
            return None
    if len(parts) == 1:
        content = Slice(store, ((parts[0][0] + skip, size - skip),), state.mtime_ns)
    else:
        content = Slice(store, parts, state.mtime_ns, MAGIC, skip)
    return _Entry(label, content, told_extension(start[skip:]))


def _walk(file: BinaryIO, size: int, bad: list[str]) -> Iterator[int]:
    """Yield the offset of each record, up to the first damaged one."""
    offset = 0
    while offset < size:
        try:
            _, end = _parts(file, offset, size)
        except UnreadablePhoto as error:
            bad.append(f"at byte {offset:,}: {error.reason}")
            return
        yield offset
        offset = end


def _parts(file: BinaryIO, offset: int, size: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """Return offset and size of each part of a record, and the offset of the next record."""
    parts: list[tuple[int, int]] = []
    while True:
        file.seek(offset)
        start = file.read(8)
        if len(start) < 8:
            raise UnreadablePhoto("cut off")
        if start[:4] != MAGIC:
            raise UnreadablePhoto("no record starts there")
        (word,) = struct.unpack("<I", start[4:])
        part, length = word >> LENGTH_BITS, word & ((1 << LENGTH_BITS) - 1)
        if part not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
            raise UnreadablePhoto("its parts do not follow each other")
        if offset + 8 + length > size:
            raise UnreadablePhoto("cut off")
        parts.append((offset + 8, length))
        offset += 8 + length + -length % 4
        if part in (WHOLE, LAST):
            return tuple(parts), offset


def _repeated_keys(archive: RecordArchive, state: FileState) -> frozenset[int]:
    """Return the keys of several records in the `.idx`; none without one. 8 bytes a record."""
    try:
        archive.store.sibling(".idx").state()
    except PhotoError:
        return frozenset()
    with archive.store.open() as file:
        keys = np.fromiter((key for key, _ in archive._places(file, state, [])), np.int64)
    keys.sort()
    return frozenset(keys[1:][keys[1:] == keys[:-1]].tolist())


@lru_cache(2)
def _index(archive: RecordArchive, state: FileState) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted keys and the offsets of their records, 16 bytes a record."""
    with archive.store.open() as file:
        places = np.fromiter(archive._places(file, state, []), np.dtype((np.int64, 2)))
    keys, offsets = places[np.argsort(places[:, 0], kind="stable")].T.copy()
    return keys, offsets
