"""InsightFace's training sets: MXNet's RecordIO with an aligned face and its label in each record.

A `.rec` is a row of records: a magic number, three bits that say which part of a record this is
and 29 bits of length, the data, zeros up to a multiple of four. Where the data would hold the
magic number at such a place the record is cut in two there, and the number left out. In the data
stand a flag, a label, two ids, as many further labels as the flag says, then the encoded photo.
The `.idx` beside it has a line for each record: its key and where it starts.

Source: dmlc-core's recordio.h and MXNet's recordio.py, as documented; nothing of theirs is needed.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import MissingPhoto, UnreadablePhoto
from faceqan_toolkit.photos.base import Slice, Store
from faceqan_toolkit.photos.names import Names, label_folder, told_extension
from faceqan_toolkit.types import FileState

MAGIC = struct.pack("<I", 0xCED7230A)
HEADER = struct.Struct("<IfQQ")
"""Flag, label, two ids."""
LENGTH_BITS = 29
WHOLE, FIRST, MIDDLE, LAST = range(4)


@dataclass(frozen=True)
class Entry:
    """One record.

    Attributes:
        label: the first one.
        content: the encoded photo; empty where the record tells of the set itself.
        end: where the next record starts.
        extension: of such a photo.
    """

    label: float
    content: Slice
    end: int
    extension: str

    def name(self, key: int) -> str:
        """Return the member's name: the label is its folder."""
        label = int(self.label) if self.label.is_integer() else self.label
        return f"{label_folder(label)}{key:08d}{self.extension}"


@dataclass(frozen=True)
class RecordArchive:
    """The photos in a `.rec`, see `base.Archive`: `LABEL/KEY.jpg`.

    Keys are those of the `.idx`; without one, the records' places from 0. Records without a photo,
    as InsightFace's first one and those of the identities, are passed over.
    """

    store: Store

    def members(self) -> Iterator[tuple[str, Slice]]:
        """Yield names and contents in the order of the index, or of the file without one."""
        state, names = self.store.state(), Names()
        bad: list[str] = []
        with self.store.open() as file:
            for key, offset in self.places(file, state, bad):
                try:
                    entry = read_entry(self.store, file, offset, state)
                except UnreadablePhoto as error:
                    bad.append(f"record {key}: {error.reason}" if not bad else "")
                    continue
                if entry is not None and names.take(name := entry.name(key), key):
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
                    entry = read_entry(self.store, file, int(offsets[at]), state)
                if entry is not None and entry.name(int(parsed[1])) == name:
                    return entry.content
        raise MissingPhoto(f"not in {self.store.name}")

    def places(self, file: BinaryIO, state: FileState, bad: list[str]) -> Iterator[tuple[int, int]]:
        """Yield key and offset of each record.

        Args:
            file: the opened store.
            state: its.
            bad: gets what is wrong; after the first thing only that there is more.
        """
        index = self.store.sibling(".idx")
        try:
            lines = index.open()
        except MissingPhoto:
            yield from enumerate(_walk(file, state.size, bad))
            return
        with lines:
            for number, line in enumerate(lines):
                try:
                    key, offset = map(int, line.split())
                    if not (0 <= key < 10**18 and 0 <= offset <= state.size):
                        raise ValueError
                except ValueError:
                    bad.append(f"line {number + 1} of {index.name}" if not bad else "")
                    continue
                yield key, offset


def read_entry(store: Store, file: BinaryIO, offset: int, state: FileState) -> Entry | None:
    """Return the record at a place; None if it has labels and no photo.

    Raises:
        UnreadablePhoto: it is damaged.
    """
    parts, end = _parts(file, offset, state.size)
    size = sum(size for _, size in parts) + len(MAGIC) * (len(parts) - 1)
    if len(parts) == 1:
        file.seek(parts[0][0])
        start = file.read(min(parts[0][1], 64))
    else:
        pieces = []
        for place, length in parts:
            file.seek(place)
            pieces.append(file.read(length))
        start = MAGIC.join(pieces)
    if len(start) < HEADER.size:
        raise UnreadablePhoto("too short for a label")
    flag, label, _, _ = HEADER.unpack_from(start)
    skip = HEADER.size + 4 * flag
    if skip > size:
        raise UnreadablePhoto("more labels than it has bytes")
    if flag:
        if len(start) < HEADER.size + 4:
            file.seek(parts[0][0])
            start = file.read(HEADER.size + 4)
        (label,) = struct.unpack_from("<f", start, HEADER.size)
        if skip == size:
            return None
    mtime = state.mtime_ns
    if len(parts) == 1:
        content = Slice(store, ((parts[0][0] + skip, size - skip),), mtime)
    else:
        content = Slice(store, parts, mtime, MAGIC, skip)
    return Entry(label, content, end, told_extension(start[skip:]))


def _walk(file: BinaryIO, size: int, bad: list[str]) -> Iterator[int]:
    """Yield where each record starts, up to the first that is damaged."""
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
    """Return offset and size of a record's pieces, and where the next record starts."""
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


@lru_cache(2)
def _index(archive: RecordArchive, state: FileState) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return keys in order and the offsets of their records: 16 bytes a record."""
    keys, offsets = array("q"), array("q")
    with archive.store.open() as file:
        for key, offset in archive.places(file, state, []):
            keys.append(key)
            offsets.append(offset)
    found = np.array(keys, np.int64)
    order = np.argsort(found, kind="stable")
    return found[order], np.array(offsets, np.int64)[order]
