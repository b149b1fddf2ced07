"""Common part of face detectors: working resolution, rotation, tiles, and choice of faces."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import FaceTooSmall, NoFace
from faceqan_toolkit.geometry import find_mistake
from faceqan_toolkit.photos.decode import decode_full
from faceqan_toolkit.settings import DetectionSettings, Settings
from faceqan_toolkit.text import down_text, exact_text
from faceqan_toolkit.types import Detections, Face, Photo, Pixels

SMALLEST_FACE = 20
"""Pixels at working resolution; a search for smaller faces is slow and has many false positives."""
HUGE_SIDE = 6400
"""Longer side of a photo, pixels, above which small faces are searched in tiles."""
TILE_SIDE = 1600
"""Least side of a tile, pixels at working resolution."""
OVERLAP = 0.7
"""Two faces are one if they share more than this part of the smaller box."""

Array = NDArray[np.float32]


class Detector(Protocol):
    """Interface of detectors."""

    def detect(self, photo: Photo) -> list[Face]:
        """Return the photo's faces, largest first; raise PhotoError if there is none to accept."""
        ...


class PhotoDetector(ABC):
    """Base class of detectors: working resolution, rotation, tiles, filtering of faces.

    Photos are reduced to `max_side` before detection. A huge photo is searched a second time, in
    tiles at the resolution where a face of `min_face` pixels has `SMALLEST_FACE`, unless only the
    largest face is wanted and one was found. Only `settings.detection` matters.
    """

    certain: float
    """Confidence above which an upright face is trusted and turned copies are not searched."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.detection

    @abstractmethod
    def search(self, pixels: Pixels, scale: float) -> Detections:
        """Return all faces in an image, in its pixels; pixel centres are whole numbers.

        Args:
            pixels: (H, W, 3) uint8, RGB, at working resolution.
            scale: working resolution over the photo's, at most 1.
        """

    def detect(self, photo: Photo) -> list[Face]:
        """Return the photo's faces, largest first; at least one.

        Raises:
            NoFace: no face was found, or none with enough confidence.
            FaceTooSmall: all faces, or the whole photo, are below `min_face`.
            PhotoError: a huge photo that was decoded smaller cannot be decoded in full.
        """
        settings = self.settings
        width, height = photo.size
        if min(height, width) < settings.min_face:
            raise FaceTooSmall(
                f"the photo has {width}x{height} pixels, faces need {settings.min_face}"
            )
        found = self._find(photo)
        if self._has_tiles(photo):
            with suppress(NoFace, FaceTooSmall):
                if settings.faces == "largest":
                    return accept_faces(found, settings)
            full = photo if photo.reduction == 1 else decode_full(photo)
            found += self._find(full, tiled=True)
            boxes = np.array([[*face.box, face.confidence] for face in found], np.float32)
            found = [found[index] for index in distinct(boxes.reshape(-1, 5))]
        try:
            return accept_faces(found, settings)
        except NoFace as error:
            raise NoFace("; ".join([error.reason, *self._advice(photo)])) from None

    def _has_tiles(self, photo: Photo) -> bool:
        """Tell whether a photo is also searched in tiles."""
        side = self.settings.max_side
        return bool(side) and max(photo.size) > max(HUGE_SIDE, side * self._reduction)

    @property
    def _reduction(self) -> float:
        """Largest reduction of a photo that keeps faces of `min_face` pixels."""
        return max(1.0, self.settings.min_face / SMALLEST_FACE)

    def _advice(self, photo: Photo) -> Iterator[str]:
        """Yield hints on why no face was found."""
        settings = self.settings
        reduction = max(photo.size) / settings.max_side if settings.max_side else 1
        if reduction > self._reduction and not self._has_tiles(photo):
            yield (
                f"photos are reduced to {settings.max_side} pixels, which hides faces below "
                f"{math.ceil(SMALLEST_FACE * reduction)}: --max-side 0 finds smaller ones"
            )
        if not settings.rotate:
            yield "if the photo lies on its side, try --rotate"

    def _find(self, photo: Photo, *, tiled: bool = False) -> list[Face]:
        """Return all faces found in a photo, in its pixels.

        With `rotate`, and if no upright face exceeds `certain`, they come from the rotation with
        the most confident face.
        """
        found = self._find_turned(photo, 0, tiled)
        if self.settings.rotate and _best_confidence(found) < self.certain:
            turned = [found, *(self._find_turned(photo, turns, tiled) for turns in (1, 2, 3))]
            found = max(turned, key=_best_confidence)  # of equals the first
        n = photo.reduction
        if n == 1:
            return found
        # pixel u of the reduced photo has its centre at n (u + 1/2) - 1/2
        return [
            replace(
                face, box=(face.box + 0.5) * n - 0.5, landmarks=(face.landmarks + 0.5) * n - 0.5
            )
            for face in found
        ]

    def _find_turned(self, photo: Photo, turns: int, tiled: bool) -> list[Face]:
        """Return all faces found in a photo turned by 90 degrees `turns` times, in its pixels."""
        pixels = np.ascontiguousarray(np.rot90(photo.pixels, turns))
        reduction = max(photo.size) / max(pixels.shape[:2])
        if tiled:
            faces = self._search_tiles(pixels, reduction)
        else:
            side = self.settings.max_side or max(pixels.shape[:2])
            faces = self._search(pixels, side, reduction)
        if not turns:
            return faces
        height, width = photo.pixels.shape[:2]
        return [unrotate(replace(face, rotation=90 * turns), width, height) for face in faces]

    def _search_tiles(self, pixels: Pixels, reduction: float) -> list[Face]:
        """Return the small faces in an image, searched in tiles that overlap; see `_search`.

        Faces that the search of the whole image misses are smaller than the overlap, so at least
        one tile shows each of them whole; faces that a tile's edge cuts are dropped.
        """
        height, width = pixels.shape[:2]
        fine = max(1.0, self._reduction / reduction)
        overlap = math.ceil(2 * SMALLEST_FACE * max(height, width) / self.settings.max_side)
        side = max(round(TILE_SIDE * fine), 3 * overlap)
        found = []
        for top, bottom in spans(height, side, overlap):
            for left, right in spans(width, side, overlap):
                tile = np.ascontiguousarray(pixels[top:bottom, left:right])
                corner = np.array([left, top])
                # beyond the photo's own edges a face may reach
                low = np.where(corner == 0, -np.inf, corner)
                high = np.where([right == width, bottom == height], np.inf, [right, bottom])
                for face in self._search(tile, round(max(tile.shape[:2]) / fine), reduction):
                    box, landmarks = face.box + np.tile(corner, 2), face.landmarks + corner
                    if (box[:2] > low).all() and (box[2:] < high).all():
                        found.append(replace(face, box=box, landmarks=landmarks))
        return found

    def _search(self, pixels: Pixels, side: int, reduction: float) -> list[Face]:
        """Return all faces in an image, in its pixels, searched at a longer side of `side`.

        `reduction` is the size of the photo over that of `pixels`.
        """
        working = reduced(pixels, side)
        found = self.search(working, max(working.shape[:2]) / (max(pixels.shape[:2]) * reduction))
        faces = zip(found.boxes, found.landmarks, found.confidences.tolist(), strict=True)
        move = partial(in_picture, copy=working, picture=pixels)
        return [Face(move(box).ravel(), move(points), sure) for box, points, sure in faces]


def spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Return the start and end of spans of at most `side` that cover a length and overlap.

    Examples:
        >>> spans(10, 4, 1), spans(3, 4, 1)
        ([(0, 4), (3, 7), (6, 10)], [(0, 3)])
    """
    count = max(1, math.ceil((length - overlap) / (side - overlap)))
    starts = np.linspace(0, max(0, length - side), count).round().astype(int).tolist()
    return [(start, min(length, start + side)) for start in starts]


def reduced(pixels: Pixels, side: int) -> Pixels:
    """Return a picture reduced to a longer side of `side` pixels, or itself if it is smaller."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    # a long strip keeps one pixel of its height
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # halving is several times as quick as other reductions, and bilinear sampling then sees all
    while min(pixels.shape[:2]) > 1 and max(pixels.shape[:2]) >= 2 * side:
        pixels = halved(pixels)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def in_picture(points: NDArray[np.float32], copy: Pixels, picture: Pixels) -> NDArray[np.float64]:
    """Return (N, 2) points of a picture's reduced copy in pixels of the picture."""
    # the centres of pixels are at whole numbers
    ratio = np.array(picture.shape[1::-1]) / copy.shape[1::-1]
    centres = np.asarray(points, dtype=np.float64).reshape(-1, 2) + 0.5
    return np.asarray(centres * ratio - 0.5, np.float64)


def unrotate(face: Face, width: int, height: int) -> Face:
    """Return a face of `numpy.rot90(photo, face.rotation // 90)` in pixels of the photo.

    The photo has `width` x `height` pixels.
    """

    def turn_back(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points.T
        right, below = width - 1, height - 1
        turned = {90: (right - y, x), 180: (right - x, below - y), 270: (y, below - x)}
        return np.stack(turned[face.rotation], axis=1)

    corners = turn_back(face.box.reshape(2, 2))
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    return replace(face, box=box, landmarks=turn_back(face.landmarks))


def halved(pixels: Pixels) -> Pixels:
    """Return a picture of at least 2x2 pixels at half its size; odd last rows are dropped."""
    height, width = (side // 2 for side in pixels.shape[:2])
    # of an even size halving is exact, and quick
    even = pixels[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def select(faces: Detections, which: NDArray[Any]) -> Detections:
    """Return some of the faces, by their indices or a mask."""
    return Detections(faces.boxes[which], faces.confidences[which], faces.landmarks[which])


def join(faces: Detections, more: Detections) -> Detections:
    """Return the faces of both."""
    names = ("boxes", "confidences", "landmarks")
    return Detections(*(np.concatenate([getattr(faces, n), getattr(more, n)]) for n in names))


def best(boxes: Array, scores: Array, overlap: float) -> NDArray[np.int64]:
    """Return the indices of the boxes that non-maximum suppression keeps, best first.

    Of (N, 4) boxes whose intersection over union is above `overlap` the one with the higher score
    is kept. Scores are above 0.
    """
    corners_and_sides = np.hstack([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]]).astype(np.float64)
    kept = cv2.dnn.NMSBoxes(corners_and_sides, scores, 0.0, overlap)  # type: ignore[arg-type]
    return np.asarray(kept, dtype=np.int64)


def distinct(boxes: Array) -> list[int]:
    """Return the indices of (N, 5) boxes with scores, best first, none `contained` in another."""
    waiting = np.argsort(-boxes[:, 4], kind="stable")
    kept = []
    while waiting.size:
        best, waiting = int(waiting[0]), waiting[1:]
        kept.append(best)
        waiting = waiting[~contained(boxes[waiting], boxes[best])]
    return kept


def contained(boxes: Array, box: Array) -> NDArray[np.bool_]:
    """Return (N,) whether boxes overlap a box by more than `OVERLAP` of the smaller of the two."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:4], boxes[:, 2:4])
    shared = (high - low + 1).clip(0).prod(axis=1)
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    return np.asarray(shared > OVERLAP * np.minimum(area, areas), np.bool_)


def _best_confidence(faces: Iterable[Face]) -> float:
    """Return the highest confidence among faces, 0 without faces."""
    return max(map(_confidence, faces), default=0.0)


def accept_faces(found: list[Face], settings: DetectionSettings) -> list[Face]:
    """Return the faces that are confident and large enough, largest first, equals by position.

    Raises:
        NoFace: none is confident enough, or there is none.
        FaceTooSmall: all confident ones are smaller than `min_face`.
    """
    confident = [face for face in found if _confidence(face) >= settings.min_confidence]
    if not found:
        raise NoFace("no face found")
    if not confident:
        raise NoFace(
            "no face found with enough confidence: the best candidate has "
            f"{down_text(_best_confidence(found), 2)}, "
            f"--min-confidence is {exact_text(settings.min_confidence)}"
        )
    large = [face for face in confident if face.size >= settings.min_face]
    if not large:
        largest = max(face.size for face in confident)
        raise FaceTooSmall(
            f"the largest face has {down_text(largest, 0)} pixels, "
            f"--min-face is {settings.min_face}"
        )
    return sorted(large, key=lambda face: (-face.size, *face.box))


def select_faces(
    faces: list[Face], policy: str, size: tuple[int, int], *,
    doubtful: Callable[[Face], bool] = lambda _: False,
) -> list[tuple[int, Face]]:  # fmt: skip
    """Return the faces that a policy chooses, each with its index.

    Faces with impossible landmarks (`geometry.find_mistake`) come last. Policies other than "all"
    choose them only if the photo has no other face, and doubtful faces only if it has no better.

    Args:
        faces: faces of one photo, largest first, at least one.
        policy: "largest", "all", "central" (box centre nearest to the photo's) or "confident";
            the larger of equal ones.
        size: width and height of the photo.
        doubtful: whether a detection may be a false positive; called only if there is a choice.
    """
    possible: list[Face] = []
    impossible: list[Face] = []
    for face in faces:
        mistake = find_mistake(face.landmarks, face.box, size)
        (impossible if mistake else possible).append(face)
    numbered = list(enumerate(possible + impossible))
    if policy == "all":
        return numbered
    best = numbered[: len(possible)] or numbered  # sorted by size
    if policy == "confident":
        best.sort(key=lambda item: -_confidence(item[1]))
    elif policy == "central":
        centre = (np.array(size) - 1) / 2
        best.sort(key=lambda item: math.dist(item[1].box.reshape(2, 2).mean(axis=0), centre))
    if len(best) == 1:
        return best
    return [next((item for item in best if not doubtful(item[1])), best[0])]


def _confidence(face: Face) -> float:
    return 1.0 if face.confidence is None else face.confidence
