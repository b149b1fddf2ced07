"""Aligned crops: a face warped onto the template of its recognition model."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.transform import SimilarityTransform

from faceqan_toolkit.errors import Unalignable
from faceqan_toolkit.geometry import ARCFACE_TEMPLATE, find_degeneracy
from faceqan_toolkit.photos.decode import decode_full
from faceqan_toolkit.settings import check_crops
from faceqan_toolkit.types import AlignedCrop, Face, Photo, Pixels

ARCFACE_SIZE = 112
SHRINK_LIMIT = 2.0
"""Up to here bilinear sampling sees every pixel of the photo; beyond it, pixels are averaged."""
MAX_OVERSAMPLING = 32

ALIGNED_WITHIN = 0.25
"""Eye distances between a crop's landmarks, detected again, and the template; most crops have 0.08,
the largest of 23 had 0.13."""


@dataclass(frozen=True)
class Template:
    """Position of a face in its crop.

    Attributes:
        name: "arcface" (the five landmarks by a similarity transform; InsightFace's template) or
            "box" (the detector's box, cut at the photo's edges and stretched to a square, as
            facenet-pytorch cuts faces).
        size: S, side of the crop, pixels.

    Raises:
        SettingsError: another name, or a size out of range.
    """

    name: str = "arcface"
    size: int = ARCFACE_SIZE

    def __post_init__(self) -> None:
        check_crops(self.name, self.size)

    def transform(self, face: Face, photo_size: tuple[int, int]) -> NDArray[np.float64]:
        """Return the (2, 3) transform from photo to crop coordinates.

        `photo_size` is the width and height of the photo, pixels.

        Raises:
            Unalignable: see `estimate_transform`; or the box has no area inside the photo.
        """
        if self.name == "arcface":
            return estimate_transform(face.landmarks, self.size)
        width, height = photo_size
        left, top = np.maximum(face.box[:2], -0.5)
        right, bottom = np.minimum(face.box[2:], (width - 0.5, height - 0.5))
        if not (right - left >= 1 and bottom - top >= 1):
            raise Unalignable("the face's box has no area inside the photo")
        across, down = self.size / (right - left), self.size / (bottom - top)
        transform = np.array([[across, 0, -0.5 - left * across], [0, down, -0.5 - top * down]])
        for _ in range(face.rotation // 90):  # the face is upright in a photo turned so often
            x, y = transform
            transform = np.array([y, -x])
            transform[1, 2] += self.size - 1
        return transform


ARCFACE = Template()


def estimate_transform(
    landmarks: NDArray[np.float64], size: int = ARCFACE_SIZE
) -> NDArray[np.float64]:
    """Return the least-squares similarity transform (2, 3) from photo to crop, float64.

    It maps `landmarks`, (5, 2) x y in pixels, to the template of a crop of `size` pixels a side.

    Raises:
        Unalignable: landmarks that are not finite, coincide, or force a degenerate transform.

    Examples:
        >>> matrix = estimate_transform(2 * ARCFACE_TEMPLATE + (10, 0))
        >>> round(scale_of(matrix), 6)
        0.5

    Source: S. Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", IEEE TPAMI 1991, as scikit-image has it.
    """
    if mistake := find_degeneracy(landmarks):
        raise Unalignable(mistake.reason)
    template = ARCFACE_TEMPLATE * (size / ARCFACE_SIZE)
    try:
        params = _estimate(landmarks, template)
    except np.linalg.LinAlgError as error:
        raise Unalignable(f"the landmarks allow no similarity transform: {error}") from error
    if params is not None:
        matrix: NDArray[np.float64] = np.asarray(params[:2], dtype=np.float64)
        if np.isfinite(matrix).all() and scale_of(matrix) >= 1e-6:
            return matrix
    raise Unalignable("the landmarks allow no similarity transform")


def _estimate(source: NDArray[np.float64], target: NDArray[np.float64]) -> Any:
    """Return scikit-image's least-squares similarity (3, 3); None if there is none."""
    if hasattr(SimilarityTransform, "from_estimate"):
        found = SimilarityTransform.from_estimate(source, target)
        return found.params if found else None
    found = SimilarityTransform()  # type: ignore[no-untyped-call] # before scikit-image 0.26
    return found.params if found.estimate(source, target) else None


def scale_of(transform: NDArray[np.float64]) -> float:
    """Return crop pixels per photo pixel of a (2, 3) transform, where it shrinks most."""
    return float(np.hypot(transform[0, :2], transform[1, :2]).min())


def footprint(transform: NDArray[np.float64], size: int = ARCFACE_SIZE) -> NDArray[np.float64]:
    """Return the smallest upright box (x1, y1, x2, y2) in the photo that holds the whole crop."""
    edge = size - 0.5
    corners = np.array([[-0.5, -0.5], [edge, -0.5], [edge, edge], [-0.5, edge]])
    inverse = cv2.invertAffineTransform(transform)
    points = corners @ inverse[:, :2].T + inverse[:, 2]
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def detail_survives(transform: NDArray[np.float64], reduction: int) -> bool:
    """Tell whether a photo reduced this many times holds all detail that a face's crop can show."""
    return 1 / scale_of(transform) >= SHRINK_LIMIT * reduction


def is_aligned(face: Face, photo_size: tuple[int, int]) -> bool:
    """Tell whether a photo is an aligned crop: a square with the face where the template has it."""
    width, height = photo_size
    template = ARCFACE_TEMPLATE * (width / ARCFACE_SIZE)
    eyes = np.linalg.norm(template[1] - template[0])
    off = np.linalg.norm(face.landmarks - template, axis=1).mean()
    return width == height and bool(off < ALIGNED_WITHIN * eyes)


def align(
    pixels: Pixels, face: Face, *, antialias: bool, template: Template = ARCFACE,
    reduction: int = 1, photo_size: tuple[int, int] | None = None,
) -> AlignedCrop:  # fmt: skip
    """Return the face warped onto a template, bilinear, black beyond the photo.

    Args:
        pixels: (H, W, 3) uint8, the photo.
        face: its landmarks, or its box, decide.
        antialias: if the face is shrunk more than `SHRINK_LIMIT` times, sample the crop on a
            finer grid and average, so that no pixel of the photo is skipped.
        template: of the crop.
        reduction: how many times `pixels` are reduced from the photo.
        photo_size: width and height of the photo; None if `pixels` are not reduced.

    Raises:
        Unalignable: see `Template.transform`; or the crop would lie outside the photo.
    """
    height, width = pixels.shape[:2]
    transform = template.transform(face, photo_size or (width * reduction, height * reduction))
    # pixel u covers those of the photo about n (u + 1/2) - 1/2
    reduced = transform.copy()
    reduced[:, 2] += transform[:, :2].sum(axis=1) * (reduction - 1) / 2
    reduced[:, :2] *= reduction
    left, top, right, bottom = footprint(reduced, template.size)
    # one pixel more on every side for the interpolation
    x1, y1 = max(0, math.floor(left) - 1), max(0, math.floor(top) - 1)
    x2, y2 = min(width, math.ceil(right) + 2), min(height, math.ceil(bottom) + 2)
    if x1 >= x2 or y1 >= y2:
        raise Unalignable("the landmarks lie outside the photo")
    region = pixels[y1:y2, x1:x2]
    to_crop = reduced.copy()
    to_crop[:, 2] += reduced[:, :2] @ (x1, y1)

    shrink = 1 / scale_of(reduced)
    averaged = antialias and shrink > SHRINK_LIMIT
    oversampling = min(math.ceil(shrink), MAX_OVERSAMPLING) if averaged else 1
    return AlignedCrop(_warp(region, to_crop, template.size, oversampling), face, transform)


def resize_crop(pixels: Pixels, size: int) -> Pixels:
    """Return an (H, W, 3) uint8 crop of another origin at a model's size; itself if it has that."""
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    method = cv2.INTER_AREA if max(height, width) > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=method), dtype=np.uint8)


def _warp(region: Pixels, to_crop: NDArray[np.float64], size: int, oversampling: int) -> Pixels:
    """Warp onto a grid `oversampling` times as fine and average it down to the crop."""
    fine = to_crop * oversampling
    fine[:, 2] += (oversampling - 1) / 2  # pixel centres: u becomes n (u + 1/2) - 1/2
    fine_size = size * oversampling
    warped = cv2.warpAffine(
        region, fine, (fine_size, fine_size), flags=cv2.INTER_LINEAR, borderValue=0
    )
    if oversampling > 1:
        warped = cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(warped, dtype=np.uint8)


@dataclass
class Cutter:
    """Cuts the faces of one photo; decodes it in full, once, if a face needs that.

    Attributes:
        photo: may be decoded at a reduced size.
        template: of the crops.
        antialias: see `align`.
        timed: takes the name of a stage, "decode" or "align"; measures what runs inside.
    """

    photo: Photo
    template: Template
    antialias: bool
    timed: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
    _full: Photo | None = None

    def cut(self, face: Face, template: Template | None = None) -> AlignedCrop:
        """Return a face's crop; with another `template` it is cut from the same pixels.

        For errors, see `Template.transform` and `decode_full`.
        """
        photo = self.source(face)
        with self.timed("align"):
            return align(
                photo.pixels, face, antialias=self.antialias, template=template or self.template,
                reduction=photo.reduction, photo_size=photo.size,
            )  # fmt: skip

    def source(self, face: Face) -> Photo:
        """Return the photo that a face is cut from: full size where reduction would cost detail."""
        photo = self.photo
        if photo.reduction == 1 or detail_survives(
            self.template.transform(face, photo.size), photo.reduction
        ):
            return photo
        if self._full is None:
            with self.timed("decode"):
                self._full = decode_full(photo)
        return self._full
