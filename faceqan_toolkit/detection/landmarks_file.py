"""Faces that another detector found, read from a CSV file."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.alignment import estimate_transform, footprint
from faceqan_toolkit.cells import unguard
from faceqan_toolkit.detection.choice import accept_faces
from faceqan_toolkit.detection.landmarks_index import open_index
from faceqan_toolkit.errors import NoLandmarks, SettingsError, Unalignable
from faceqan_toolkit.files import check_plain
from faceqan_toolkit.geometry import LARGEST, Mistake, find_mistake
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text_files import open_text
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Face, Photo, PhotoSource
from faceqan_toolkit.wording import reason_of

FIRST_ROWS = 200
"""Rows of a file that are looked at for a mistake they share."""


class Row(NamedTuple):
    """A face of the file."""

    landmarks: tuple[float, ...]
    confidence: float | None
    box: tuple[float, ...] | None
    rotation: int = 0


class CommonMistake(NamedTuple):
    """A mistake that most rows of a file share.

    Attributes:
        mistake: what it is.
        number: of rows that have it.
        rows: number of rows that were looked at.
    """

    mistake: Mistake
    number: int
    rows: int

    def describe(self, file: Path) -> str:
        """Return one line that says which mistake and what to do."""
        return (
            f"{file}: in {self.number:,} of {self.rows:,} rows {self.mistake.reason}; "
            f"{self.mistake.remedy}"
        )


class LandmarksFile:
    """A detector that looks faces up instead of finding them.

    The file has one row a face. With a header: `path`, the ten columns of `LANDMARK_COLUMNS`,
    and if you like `confidence`, the box (`BOX_COLUMNS`) and `rotation` (`Face.rotation`, which
    turns crops of boxes), in any order among others: our own `faces.csv` fits. Without: path, the
    ten numbers in that order, and perhaps the confidence.
    Paths are those of the results (relative to the folder given), or absolute. A face without a
    box gets the smallest upright one that holds its crop.

    Args:
        path: the CSV file.
        settings: `min_face` and `min_confidence` count; a face without a confidence passes.

    Raises:
        SettingsError: it cannot be read, has no row, or one that is not as described; the line is
            named.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings.detection
        try:
            check_plain(path)
            self._index = open_index(path, self._entries)
        except (OSError, ValueError, csv.Error) as error:
            raise SettingsError(f"{path}: {reason_of(error)}") from error

    def _entries(self) -> Iterator[tuple[str, Row]]:
        """Yield the file's faces with their photos' paths."""
        with open_text(self.path, "surrogateescape") as lines:
            reader = csv.reader(lines)
            columns: dict[str, int] | None = None
            empty = True
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if columns is None:
                    columns, is_header = _columns(cells, self.path)
                    if is_header:
                        continue
                empty = False
                yield from self._faces(cells, columns, reader.line_num)
            if empty:
                raise SettingsError(f"{self.path} is empty: it has no row of a face")

    def _faces(
        self, cells: list[str], columns: dict[str, int], line: int
    ) -> Iterator[tuple[str, Row]]:
        """Yield a line's face, if it has one, with its photo's path."""

        def number(column: str) -> float | None:
            index = columns.get(column)
            text = cells[index].strip() if index is not None and index < len(cells) else ""
            try:
                return float(unguard(text)) if text else None
            except ValueError:
                raise SettingsError(f"{where}: {column} is {text[:50]!r}, no number") from None

        where = f"{self.path}, line {line}"
        if len(cells) <= max(columns[column] for column in ("path", *LANDMARK_COLUMNS)):
            told = "; they are separated by commas, not semicolons" if ";" in "".join(cells) else ""
            raise SettingsError(
                f"{where}: {len(cells)} cells, too few for a path and landmarks{told}"
            )
        photo = unguard(cells[columns["path"]]).replace("\\", "/")
        points = [number(column) for column in LANDMARK_COLUMNS]
        box = [number(column) for column in BOX_COLUMNS]
        confidence = number("confidence")
        rotation = number("rotation") or 0
        landmarks = tuple(value for value in points if value is not None)
        if not landmarks:
            return  # a photo without a face, as our own faces.csv lists them
        if len(landmarks) != len(points):
            raise SettingsError(f"{where}: {len(landmarks)} of ten landmark coordinates")
        if confidence is not None and not 0 <= confidence <= 1:
            raise SettingsError(f"{where}: confidence {confidence:g} is not in 0..1")
        if rotation not in (0, 90, 180, 270):
            raise SettingsError(f"{where}: rotation {rotation:g} is none of 0, 90, 180, 270")
        known = tuple(value for value in box if value is not None)
        whole = known if len(known) == len(box) else None
        yield photo, Row(landmarks, confidence, whole, int(rotation))

    def _lookup(self, source: PhotoSource) -> list[Row]:
        found = self._index.rows(source.path) or self._index.rows(source.place)
        return [
            Row(tuple(landmarks), confidence, box and tuple(box), rotation)
            for landmarks, confidence, box, rotation in found
        ]

    def identify(self, source: PhotoSource) -> str:
        """Return a short text that changes when the photo's rows do; empty if it has none."""
        rows = self._lookup(source)
        known = [tuple(row) for row in rows]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16] if rows else ""

    def detect(self, photo: Photo) -> list[Face]:
        """Return the photo's faces, largest first; at least one.

        Rows without finite numbers are left out where the photo has others.

        Raises:
            NoLandmarks: the file has no row for the photo.
            NoFace, FaceTooSmall: its faces are not confident or large enough.
            Unalignable: none of its rows has finite numbers.
        """
        rows = self._lookup(photo.source)
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
            return sorted(faces, key=lambda face: -face.size)  # too small or not, they are wrong
        return accept_faces(faces, self.settings)

    def common_mistake(self) -> CommonMistake | None:
        """Return the mistake that most of the file's first rows share; None if there is none.

        Photos are not looked at, so landmarks outside their photos are not found.
        """
        rows = [row for _, row in islice(self._entries(), FIRST_ROWS)]
        mistakes = Counter(find_mistake(_points(row), _box(row)) for row in rows)
        return most_common(mistakes, len(rows))


def most_common(mistakes: Mapping[Mistake | None, int], rows: int) -> CommonMistake | None:
    """Return the mistake that more than half of some rows share; None if there is none.

    Args:
        mistakes: number of rows by mistake; None counts rows without one.
        rows: number of rows.
    """
    for mistake, number in mistakes.items():
        if mistake is not None and number > rows / 2:
            return CommonMistake(mistake, number, rows)
    return None


def _points(row: Row) -> NDArray[np.float64]:
    return np.array(row.landmarks).reshape(5, 2)


def _box(row: Row) -> NDArray[np.float64] | None:
    """Return a row's box, None if it has none of finite numbers."""
    return np.array(row.box) if row.box and np.isfinite(row.box).all() else None


def _face(row: Row, photo_size: tuple[int, int]) -> Face:
    """Return the face of a row. Without a box it gets that of its crop; impossible landmarks have
    no crop and get the smallest box around them.

    Raises:
        Unalignable: its landmarks are no finite numbers, or larger than any photo.
    """
    landmarks, box = _points(row), _box(row)
    mistake = find_mistake(landmarks, box, photo_size)
    if mistake and not (np.abs(landmarks) <= LARGEST).all():
        raise Unalignable(mistake.reason)
    if box is None and mistake:
        box = np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])
    elif box is None:
        box = footprint(estimate_transform(landmarks))
    return Face(box, landmarks, row.confidence, row.rotation)


def _columns(first: list[str], file: Path) -> tuple[dict[str, int], bool]:
    """Return where each column stands, and whether the first row was a header.

    Raises:
        SettingsError: neither a header with all columns nor a row of numbers.
    """
    names = {name.strip(): index for index, name in enumerate(first)}
    if "path" in names:
        missing = [column for column in LANDMARK_COLUMNS if column not in names]
        if missing:
            raise SettingsError(f"{file} lacks the columns {', '.join(missing)}")
        return names, True
    order = ("path", *LANDMARK_COLUMNS, "confidence")
    return {name: index for index, name in enumerate(order)}, False
