"""Faces of another detector, read from a CSV file."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.alignment import estimate_transform, footprint
from faceqan_toolkit.detection.base import accept_faces
from faceqan_toolkit.errors import NoLandmarks, SettingsError, Unalignable
from faceqan_toolkit.files import check_plain, open_text
from faceqan_toolkit.geometry import LARGEST, Mistake, find_mistake
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import reason_of, unguard
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Face, Photo, PhotoSource

FIRST_ROWS = 200
"""Rows at the beginning of a file that are checked for a shared mistake."""


class CommonMistake(NamedTuple):
    """A mistake in most rows of a file: how many rows have it, and how many were checked."""

    mistake: Mistake
    number: int
    rows: int

    def describe(self, file: Path) -> str:
        """Return one line that names the mistake and its remedy."""
        reason, remedy = self.mistake.reason, self.mistake.remedy
        return f"{file}: in {self.number:,} of {self.rows:,} rows {reason}; {remedy}"


class LandmarksFile:
    """A detector that takes faces from a CSV file; docs/landmarks.md describes its format.

    A face without a box gets the smallest upright box around its crop. Faces without a confidence
    pass `min_confidence`.

    Raises:
        SettingsError: the file cannot be read, has no rows, or has a malformed one; the message
            names its line.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings.detection
        try:
            check_plain(path)
            self._table = _Table(path, self._entries())
        except (OSError, ValueError, csv.Error) as error:
            raise SettingsError(f"{path}: {reason_of(error)}") from error

    def _entries(self) -> Iterator[tuple[str, Row]]:
        """Yield each face of the file with its photo's path."""
        with open_text(self.path, "surrogateescape") as lines:
            reader = csv.reader(lines)
            filled = (cells for cells in reader if any(map(str.strip, cells)))
            first = next(filled, [])
            layout = _Layout(first, self.path)
            cells: list[str] = []
            for cells in filled if layout.has_header or not first else chain([first], filled):
                try:
                    row = layout.row(cells)
                except ValueError as error:
                    raise SettingsError(f"{self.path}, line {reader.line_num}: {error}") from None
                if row is not None:  # our own faces.csv also lists photos without a face
                    yield layout.photo(cells), row
            if not cells:
                raise SettingsError(f"{self.path} is empty: it has no row of a face")

    def _rows(self, source: PhotoSource) -> list[Row]:
        return self._table.rows(source.path) or self._table.rows(source.place)

    def identify(self, source: PhotoSource) -> str:
        """Return a hash of the photo's rows, 16 hexadecimal digits; "" if it has none."""
        rows = [tuple(row) for row in self._rows(source)]
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16] if rows else ""

    def detect(self, photo: Photo) -> list[Face]:
        """Return the photo's faces, largest first; at least one.

        Rows with numbers that are not finite are skipped, unless the photo has no other row.

        Raises:
            NoLandmarks: the file has no row for the photo.
            NoFace, FaceTooSmall: its faces are below `min_confidence` or `min_face`.
            Unalignable: all of its rows have numbers that are not finite.
        """
        rows = self._rows(photo.source)
        if not rows:
            raise NoLandmarks(f"{self.path.name} has no landmarks for this photo")
        faces, failures = [], []
        for row in rows:
            try:
                faces.append(_face(row, photo.size))
            except Unalignable as error:
                failures.append(error)
        if not faces:
            raise failures[0]
        if all(find_mistake(face.landmarks, face.box, photo.size) for face in faces):
            # the mistake is the reason to report, whatever the faces' size is
            return sorted(faces, key=lambda face: -face.size)
        return accept_faces(faces, self.settings)

    def common_mistake(self) -> CommonMistake | None:
        """Return the mistake in most of the file's first `FIRST_ROWS` rows; None if there is none.

        Photos are not decoded, so landmarks outside their photos are not detected.
        """
        rows = [row for _, row in islice(self._entries(), FIRST_ROWS)]
        mistakes = Counter(find_mistake(*_arrays(row)) for row in rows)
        return most_common(mistakes, len(rows))


def most_common(mistakes: Mapping[Mistake | None, int], rows: int) -> CommonMistake | None:
    """Return the mistake in more than half of the rows; None if there is none."""
    found = (CommonMistake(mistake, n, rows) for mistake, n in mistakes.items() if mistake)
    return next((common for common in found if common.number > rows / 2), None)


def _arrays(row: Row) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return a row's (5, 2) landmarks and its box; None without one or if it is not finite."""
    box = np.array(row.box) if row.box and np.isfinite(row.box).all() else None
    return np.array(row.landmarks).reshape(5, 2), box


def _face(row: Row, photo_size: tuple[int, int]) -> Face:
    """Return the face of a row; without a box it gets the box of its crop.

    Impossible landmarks have no crop; they get their own bounding box. Landmarks that are not
    finite, or beyond the size of any photo, are Unalignable.
    """
    landmarks, box = _arrays(row)
    mistake = find_mistake(landmarks, box, photo_size)
    if mistake and not (np.abs(landmarks) <= LARGEST).all():
        raise Unalignable(mistake.reason)
    if box is None and mistake:
        box = np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])
    elif box is None:
        box = footprint(estimate_transform(landmarks))
    return Face(box, landmarks, row.confidence, row.rotation)


class _Layout:
    """Column numbers of a landmarks file, from its first row: a header or a face."""

    def __init__(self, first: list[str], file: Path) -> None:
        names = [name.strip() for name in first]
        self.has_header = "path" in names
        if not self.has_header:
            names = ["path", *LANDMARK_COLUMNS, "confidence"]
        elif missing := [column for column in LANDMARK_COLUMNS if column not in names]:
            raise SettingsError(f"{file} lacks the columns {', '.join(missing)}")
        self._columns = {name: index for index, name in enumerate(names)}
        self._landmarks = [self._columns[name] for name in LANDMARK_COLUMNS]
        self._least = max(self._columns["path"], *self._landmarks) + 1
        self._has_box = all(name in self._columns for name in BOX_COLUMNS)

    def photo(self, cells: list[str]) -> str:
        return unguard(cells[self._columns["path"]]).replace("\\", "/")

    def row(self, cells: list[str]) -> Row | None:
        """Return a row's face; None without landmarks. Raise ValueError if the row is malformed."""
        if len(cells) < self._least:
            reason = f"{len(cells)} cells, too few for a path and landmarks"
            semicolons = ";" in "".join(cells)
            remedy = "; they are separated by commas, not semicolons" if semicolons else ""
            raise ValueError(reason + remedy)
        try:  # quick, for most rows
            landmarks = tuple([float(cells[index]) for index in self._landmarks])
        except ValueError:  # guarded, empty, or not a number
            landmarks = self._numbers(cells, LANDMARK_COLUMNS)
        box = self._numbers(cells, BOX_COLUMNS) if self._has_box else ()
        confidence = self._number(cells, "confidence")
        rotation = self._number(cells, "rotation") or 0
        if not landmarks:
            return None
        if len(landmarks) != len(LANDMARK_COLUMNS):
            raise ValueError(f"{len(landmarks)} of ten landmark coordinates")
        if confidence is not None and not 0 <= confidence <= 1:
            raise ValueError(f"confidence {confidence:g} is not in 0..1")
        if rotation not in (0, 90, 180, 270):
            raise ValueError(f"rotation {rotation:g} is not 0, 90, 180 or 270")
        return Row(landmarks, confidence, box if len(box) == 4 else None, int(rotation))

    def _numbers(self, cells: list[str], columns: tuple[str, ...]) -> tuple[float, ...]:
        """Return the numbers in some cells, without empty ones."""
        found = (self._number(cells, name) for name in columns)
        return tuple(value for value in found if value is not None)

    def _number(self, cells: list[str], column: str) -> float | None:
        """Return a cell's number; None if the cell or the column is missing."""
        index = self._columns.get(column)
        text = cells[index].strip() if index is not None and index < len(cells) else ""
        try:
            return float(unguard(text)) if text else None
        except ValueError:
            raise ValueError(f"{column} is {text[:50]!r}, not a number") from None


BLOCK = 10_000
"""Rows in memory while the table is written."""
ROW = np.dtype([
    ("key", "u8", 2), ("landmarks", "f8", 10), ("confidence", "f8"),
    ("box", "f8", 4), ("has_box", "?"), ("rotation", "u2"),
])  # fmt: skip
"""One row on the disk; a missing confidence is NaN."""
ROWS, KEYS, ORDER = "rows", "keys.npy", "order.npy"
"""Files of a table: the rows as they came, the first halves of their keys sorted, and the row
number of each sorted key."""


class Row(NamedTuple):
    """One face of a landmarks file.

    Attributes:
        landmarks: ten coordinates, pixels.
        confidence: in [0, 1]; None if the file has none.
        box: x1 y1 x2 y2, pixels; None if the file has none.
        rotation: degrees, see `types.Face`.
    """

    landmarks: tuple[float, ...]
    confidence: float | None
    box: tuple[float, ...] | None
    rotation: int = 0


class _Table:
    """The rows of a file by path, read once; threads may look up at the same time.

    They are in a temporary directory, which is removed with this object, and mapped into memory: a
    process holds none of them. Child processes find the directory by an environment variable,
    which the file's path, size and time name, and do not read the file again. `rows` is consumed
    only if no parent process has a table of this file.
    """

    def __init__(self, file: Path, rows: Iterator[tuple[str, Row]]) -> None:
        state = file.stat()
        name = f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        variable = f"FACEQAN_TOOLKIT_LANDMARKS_{digest.upper()}"
        shared = os.environ.get(variable)
        if shared is None or not Path(shared).is_dir():
            shared = tempfile.mkdtemp(prefix="faceqan-landmarks-")
            weakref.finalize(self, _remove, shared, variable)
            _write(Path(shared), rows)
            os.environ[variable] = shared
        self._keys = np.load(Path(shared) / KEYS, mmap_mode="r")
        self._order = np.load(Path(shared) / ORDER, mmap_mode="r")
        table = Path(shared) / ROWS
        # an empty file cannot be mapped
        self._rows = np.memmap(table, ROW, "r") if table.stat().st_size else np.empty(0, ROW)

    def rows(self, path: str) -> list[Row]:
        """Return the rows of a path, in the order of the file."""
        first, second = _key(path)
        low, high = np.searchsorted(self._keys, np.array([first, first + 1], np.uint64))
        found = self._rows[self._order[low:high]]
        return [
            Row(
                tuple(row["landmarks"].tolist()),
                None if np.isnan(row["confidence"]) else float(row["confidence"]),
                tuple(row["box"].tolist()) if row["has_box"] else None,
                int(row["rotation"]),
            )
            for row in found
            if row["key"][1] == second
        ]


def _write(folder: Path, rows: Iterator[tuple[str, Row]]) -> None:
    """Write a table; memory grows by 24 bytes a row."""
    found = [np.empty(0, np.uint64)]
    missing = (np.nan,) * 4
    packed_rows = (
        (
            _key(path), row.landmarks, np.nan if row.confidence is None else row.confidence,
            row.box or missing, row.box is not None, row.rotation,
        )
        for path, row in rows
    )  # fmt: skip
    with (folder / ROWS).open("wb") as file:
        while block := list(islice(packed_rows, BLOCK)):
            packed = np.array(block, ROW)
            packed.tofile(file)
            found.append(packed["key"][:, 0].copy())
    keys = np.concatenate(found)
    order = np.argsort(keys, kind="stable")
    np.save(folder / KEYS, keys[order])
    np.save(folder / ORDER, order)


def _key(path: str) -> tuple[int, int]:
    """Return 128 bits of the path's hash as two numbers; the first is below 2**64 - 1."""
    digest = hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=16).digest()
    first, second = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
    return first >> 1, second


def _remove(folder: str, variable: str) -> None:
    if os.environ.get(variable) == folder:
        del os.environ[variable]
    shutil.rmtree(folder, ignore_errors=True)
