"""Pictures of a report: sheets of thumbnails, photos made smaller."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.paths import path_from_text
from faceqan_toolkit.photos import decode, decode_full
from faceqan_toolkit.runs import RunInfo
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Face, Photo, PhotoSource, Pixels

THUMBNAIL = 112
"""Side of a thumbnail, pixels."""
SHEET_SIDE = 8
"""Thumbnails along a side of a sheet: one file for 64 faces that stand beside each other."""
SHEET = SHEET_SIDE**2

PHOTO_SIDE = 640
"""Longer side a photo is reduced to, pixels."""
CROP_PIXELS = 4096**2
"""A crop with more pixels is none."""

T = TypeVar("T")
R = TypeVar("R")
Row = Mapping[str, Any]


class SmallPhoto(NamedTuple):
    """A photo made smaller.

    Attributes:
        jpeg: encoded.
        width: of the photo itself, upright, pixels.
        height: likewise.
    """

    jpeg: bytes
    width: int
    height: int


class Pictures:
    """Finds and reduces the pictures of a run.

    Args:
        run: whose folder has the crops.
        cut: make up for crops that were not kept by cutting them from the photos again.
    """

    def __init__(self, run: RunInfo, *, cut: bool) -> None:
        self.folder = run.folder
        self.settings: Mapping[str, Any] = run.content["settings"]
        self.model: Mapping[str, Any] = run.content.get("model") or {}
        self.max_pixels = int(self.settings.get("max_pixels", 200_000_000))
        self.crops_are_photos = run.task == "score"
        self.cut = cut

    def thumbnail(self, row: Row) -> Pixels | None:
        """Return a face's crop as (112, 112, 3) uint8 RGB, or None if there is none any more."""
        try:
            pixels = self._crop(row)
        except PhotoError:
            return None
        if pixels is None or pixels.shape[:2] == (THUMBNAIL, THUMBNAIL):
            return pixels
        resized = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, dtype=np.uint8)

    def photo(self, row: Row) -> SmallPhoto | None:
        """Return a row's photo; None if it is gone, cannot be read or has changed since."""
        try:
            photo = self._photo(row, PHOTO_SIDE)
        except PhotoError:
            return None
        height, width = photo.pixels.shape[:2]
        scale = min(1.0, PHOTO_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
        return SmallPhoto(jpeg(np.asarray(small, dtype=np.uint8), 75), *photo.size)

    def _crop(self, row: Row) -> Pixels | None:
        if row["face"] is None:
            return None
        if self.crops_are_photos:
            return self._photo(row, 0).pixels
        name = row.get("crop") or ""
        if name and ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute():
            source = PhotoSource("", name, self.folder / name)
            try:
                return decode(source, max_pixels=CROP_PIXELS).pixels
            except PhotoError:
                pass  # deleted since
        if not self.cut or any(row.get(column) is None for column in LANDMARK_COLUMNS):
            return None
        return self._cut(row)

    def _cut(self, row: Row) -> Pixels:
        """Cut a crop from its photo as the run did."""
        from faceqan_toolkit.alignment import Template, align, detail_survives

        landmarks = np.array([row[column] for column in LANDMARK_COLUMNS]).reshape(5, 2)
        box = np.array([row[column] for column in BOX_COLUMNS], float)
        face = Face(box, landmarks, rotation=row.get("rotation") or 0)
        template = Template(
            self.model.get("template") or self.settings.get("template") or "arcface",
            int(self.model.get("input_size") or self.settings.get("crop_size") or 112),
        )
        photo = self._photo(row, int(self.settings.get("max_side") or 0))
        if photo.reduction > 1 and not detail_survives(
            template.transform(face, photo.size), photo.reduction
        ):
            photo = decode_full(photo)
        return align(
            photo.pixels,
            face,
            antialias=bool(self.settings.get("antialias", True)),
            template=template,
            reduction=photo.reduction,
            photo_size=photo.size,
        ).pixels

    def _photo(self, row: Row, at_least: int) -> Photo:
        """Decode a row's photo.

        Raises:
            PhotoError: it is gone, cannot be read, or is not the one the row tells of.
        """
        file = Path(path_from_text(row["root"])) / path_from_text(row["path"])
        source = PhotoSource(row["root"], row["path"], file)
        photo = decode(source, max_pixels=self.max_pixels, at_least=at_least)
        if row["sha256"] and row["sha256"] != photo.state.sha256:
            raise PhotoError("changed since")
        return photo


def sheet(thumbnails: Sequence[Pixels | None]) -> bytes:
    """Return up to 64 thumbnails as one JPEG, 8 to a line; grey where there is none."""
    lines = -(-len(thumbnails) // SHEET_SIDE)
    pixels = np.full((lines * THUMBNAIL, SHEET_SIDE * THUMBNAIL, 3), 127, np.uint8)
    for place, thumbnail in enumerate(thumbnails):
        if thumbnail is not None:
            top, left = (side * THUMBNAIL for side in divmod(place, SHEET_SIDE))
            pixels[top : top + THUMBNAIL, left : left + THUMBNAIL] = thumbnail
    # with colours in full, no block of pixels has a share in two thumbnails
    return jpeg(pixels, 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def jpeg(
    pixels: Pixels, quality: int, sampling: int = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
) -> bytes:
    """Return (H, W, 3) uint8 RGB encoded; quality is 0..100, sampling one of OpenCV's."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, encoded = cv2.imencode(".jpg", bgr, options)
    return bytes(encoded.tobytes())


def in_threads(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Yield the function's results in order, of which at most `ahead` wait in memory."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
