"""Writers of sets for training: WebDataset's tars and InsightFace's RecordIO."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from array import array
from dataclasses import dataclass
from pathlib import Path

from faceqan_toolkit.errors import NotPlaced
from faceqan_toolkit.photos.archives import told_extension
from faceqan_toolkit.photos.recordio import FIRST, HEADER, LAST, LENGTH_BITS, MAGIC, MIDDLE, WHOLE

PAIR = 2
"""Number of labels in a record without a photo."""


@dataclass(frozen=True)
class Sample:
    """A photo or crop of the set.

    Attributes:
        number: index among all photos of the set, from 0.
        label: number of its identity, from 0; None if unknown.
        folder: folder of the photo, as in results; "" for the top folder.
        data: the encoded photo.
        extension: file extension with its dot.
        metadata: content of WebDataset's `.json`.
    """

    number: int
    label: int | None
    folder: str
    data: bytes
    extension: str
    metadata: dict[str, str | float | None]


class TarWriter:
    """Writes one WebDataset shard; equal samples give equal bytes.

    The files of a sample stand together: `FOLDER/NUMBER.jpg` (or the photo's own extension),
    `.cls` with the label if it has one, and `.json`.

    Args:
        path: the tar file.
    """

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, sample: Sample) -> str:
        """Append a sample; return the photo's name in the shard."""
        # WebDataset ends a sample's key at the first dot behind the last slash
        key = f"{sample.folder}/{sample.number:09d}" if sample.folder else f"{sample.number:09d}"
        self._add_file(f"{key}{sample.extension}", sample.data)
        if sample.label is not None:
            self._add_file(f"{key}.cls", str(sample.label).encode())
        metadata = json.dumps(sample.metadata, ensure_ascii=False, sort_keys=True)
        self._add_file(f"{key}.json", metadata.encode())
        return f"{key}{sample.extension}"

    def finish(self) -> None:
        """Write the end of the tar and close it."""
        self._tar.close()

    def close(self) -> None:
        """Close the file, finished or not."""
        self._tar.close()

    def _add_file(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))


class RecordWriter:
    """Writes a set as `train.rec` and `train.idx`; the samples of an identity must be adjacent.

    Record 0 holds the range of the identities' records. Records 1 to N are the photos with their
    labels. The records after them hold, for each identity, the range of its photos. See
    `photos.recordio` for the format.

    Args:
        records: the `.rec` file.
        index: the `.idx` file.
    """

    def __init__(self, records: Path, index: Path) -> None:
        self._records = records.open("wb")
        self._index = index.open("w", encoding="ascii", newline="\n")
        self._key = 0
        self._firsts = array("q")
        self._label = -1
        self._append(_pair(0, 0, 0))  # placeholder, overwritten by `finish`

    def add(self, sample: Sample) -> str:
        """Append a sample; return the photo's name as `photos.recordio` reads it back.

        Raises:
            NotPlaced: the photo is too large for a record, or has no label.
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
        """Write the identities' records and record 0, and close the files."""
        end = self._key
        ends = [*self._firsts[1:], end]
        for first, last in zip(self._firsts, ends, strict=False):
            self._append(_pair(self._key, first, last))
        self._records.seek(0)
        self._records.write(_encoded(_pair(0, end, self._key)))
        self.close()

    def close(self) -> None:
        """Close the files, finished or not."""
        self._records.close()
        self._index.close()

    def _append(self, data: bytes) -> None:
        self._index.write(f"{self._key}\t{self._records.tell()}\n")
        self._records.write(_encoded(data))
        self._key += 1


def _pair(key: int, first: int, last: int) -> bytes:
    return HEADER.pack(PAIR, 0.0, key, 0) + struct.pack("<2f", first, last)


def _encoded(data: bytes) -> bytes:
    """Return a record; data that contain the magic number at a multiple of 4 are split there."""
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
