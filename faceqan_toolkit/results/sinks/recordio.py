"""InsightFace's layout of MXNet's RecordIO: `train.rec` and `train.idx`.

Record 0 says where the identities' records begin and end, records 1 to N are the photos with their
labels, the rest says of each identity which photos are its own. See `photos.recordio`.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

from faceqan_toolkit.errors import NotPlaced
from faceqan_toolkit.photos.names import told_extension
from faceqan_toolkit.photos.recordio import FIRST, HEADER, LAST, LENGTH_BITS, MAGIC, MIDDLE, WHOLE
from faceqan_toolkit.results.sinks.samples import Sample

PAIR = 2
"""Labels of a record without a photo."""


class RecordWriter:
    """Writes one set; samples of an identity stand together.

    Args:
        records: the `.rec`.
        index: the `.idx`.
    """

    def __init__(self, records: Path, index: Path) -> None:
        self._records = records.open("wb")
        self._index = index.open("w", encoding="ascii", newline="\n")
        self._key = 0
        self._firsts = array("q")
        self._label = -1
        self._append(_pair(0, 0, 0))  # is written again at the end

    def add(self, sample: Sample) -> str:
        """Append a sample; return the photo's name as it is read back.

        Raises:
            NotPlaced: it is longer than a record can be, or has no label.
        """
        if sample.label is None:
            raise NotPlaced("its identity is not known, and a record needs a label")
        if len(sample.data) >= 1 << LENGTH_BITS - 1:
            raise NotPlaced("too large for a record")
        if sample.label != self._label:
            self._label = sample.label
            self._firsts.append(self._key)
        label, key = len(self._firsts) - 1, self._key
        self._append(HEADER.pack(0, float(label), key, 0) + sample.data)
        return f"{label:05d}/{key:08d}{told_extension(sample.data)}"

    def finish(self) -> None:
        """Write the records of the identities, and the first one."""
        end = self._key
        ends = [*self._firsts[1:], end]
        for first, last in zip(self._firsts, ends, strict=False):
            self._append(_pair(self._key, first, last))
        self._records.seek(0)
        self._records.write(_encoded(_pair(0, end, self._key)))
        self.close()

    def close(self) -> None:
        """Let go of the files, finished or not."""
        self._records.close()
        self._index.close()

    def _append(self, data: bytes) -> None:
        self._index.write(f"{self._key}\t{self._records.tell()}\n")
        self._records.write(_encoded(data))
        self._key += 1


def _pair(key: int, first: int, last: int) -> bytes:
    return HEADER.pack(PAIR, 0.0, key, 0) + struct.pack("<2f", first, last)


def _encoded(data: bytes) -> bytes:
    """Return a record; cut where the data look like the beginning of one."""
    cuts, at = [], data.find(MAGIC)
    while at >= 0:
        if at % 4 == 0:
            cuts.append(at)
            at = data.find(MAGIC, at + 4)
        else:
            at = data.find(MAGIC, at + 1)
    starts = [0, *(cut + len(MAGIC) for cut in cuts)]
    pieces = [data[start:end] for start, end in zip(starts, [*cuts, len(data)], strict=True)]
    encoded = b""
    for number, piece in enumerate(pieces):
        part = MIDDLE if 0 < number < len(pieces) - 1 else FIRST if number == 0 else LAST
        if len(pieces) == 1:
            part = WHOLE
        word = part << LENGTH_BITS | len(piece)
        encoded += MAGIC + struct.pack("<I", word) + piece + b"\0" * (-len(piece) % 4)
    return encoded
