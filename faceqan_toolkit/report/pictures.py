"""Pictures of a report: sheets of thumbnails, and reduced photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.results.crops import RunCrops
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.types import Pixels

THUMBNAIL = 112
"""Side of a thumbnail, pixels."""
SHEET_SIDE = 8
"""Thumbnails along each side of a sheet; a sheet is one JPEG of 64 consecutive faces."""
SHEET = SHEET_SIDE**2

PHOTO_SIDE = 640
"""Longer side of a reduced photo, pixels."""

Row = Mapping[str, Any]


class SmallPhoto(NamedTuple):
    """A reduced photo as JPEG; width and height are those of the upright original, pixels."""

    jpeg: bytes
    width: int
    height: int


class Pictures:
    """Thumbnails and reduced photos of a run; the arguments are those of `RunCrops`."""

    def __init__(self, run: RunInfo, *, cut: bool, fetch: bool = False) -> None:
        self.crops = RunCrops(run, cut=cut, fetch=fetch)

    def thumbnail(self, row: Row) -> Pixels | None:
        """Return a face's crop as (112, 112, 3) uint8 RGB; None if it is missing."""
        try:
            pixels = self.crops.crop(row)
        except PhotoError:
            return None
        if pixels.shape[:2] == (THUMBNAIL, THUMBNAIL):
            return pixels
        resized = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, dtype=np.uint8)

    def photo(self, row: Row) -> SmallPhoto | None:
        """Return a row's photo; None if it is missing, unreadable or changed."""
        try:
            photo = self.crops.photo(row, PHOTO_SIDE)
        except PhotoError:
            return None
        height, width = photo.pixels.shape[:2]
        scale = min(1.0, PHOTO_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
        return SmallPhoto(jpeg(np.asarray(small, dtype=np.uint8), 75), *photo.size)


def sheet(thumbnails: Sequence[Pixels | None]) -> bytes:
    """Return up to 64 thumbnails as one JPEG, 8 in a row; a missing one is grey."""
    lines = -(-len(thumbnails) // SHEET_SIDE)
    pixels = np.full((lines * THUMBNAIL, SHEET_SIDE * THUMBNAIL, 3), 127, np.uint8)
    for place, thumbnail in enumerate(thumbnails):
        if thumbnail is not None:
            top, left = (side * THUMBNAIL for side in divmod(place, SHEET_SIDE))
            pixels[top : top + THUMBNAIL, left : left + THUMBNAIL] = thumbnail
    # without chroma subsampling, so that no JPEG block covers two thumbnails
    return jpeg(pixels, 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def jpeg(
    pixels: Pixels, quality: int, sampling: int = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
) -> bytes:
    """Return (H, W, 3) uint8 RGB as JPEG; quality is 0..100, sampling an OpenCV constant."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, encoded = cv2.imencode(".jpg", bgr, options)
    return bytes(encoded.tobytes())
