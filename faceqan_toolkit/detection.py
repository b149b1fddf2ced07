"""Faces of a photo, found by MTCNN or YuNet."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from faceqan_toolkit.allocator import keep_freed_buffers
from faceqan_toolkit.device import resolve_device
from faceqan_toolkit.errors import FaceTooSmall
from faceqan_toolkit.faces import accept_faces, best_confidence
from faceqan_toolkit.mtcnn import FACTOR, MTCNN, best, halved
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Detections, Face, Photo, Pixels
from faceqan_toolkit.yunet import OVERLAP, YuNet

MTCNN_SMALLEST_FACE = 20
"""Pixels, at working resolution; below it MTCNN is slow and finds faces where there are none."""

YUNET_SMALL_SIDE, YUNET_LARGE_FACE = 320, 400
"""Pixels, at working resolution. YuNet misses large faces, so it looks at a small copy too; what
that shows of other faces is coarser and does not count."""


class Detector(Protocol):
    """Anything that finds the faces of a photo."""

    def detect(self, photo: Photo) -> list[Face]:
        """Return the photo's faces, largest first; at least one.

        Raises:
            PhotoError: there is none, or none that the settings accept.
        """
        ...


class PhotoDetector(ABC):
    """What detectors have in common: working resolution, turned photos, which faces count.

    Photos are reduced to `max_side` before detection.

    Args:
        settings: the detection fields count.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def search(self, pixels: Pixels, scale: float) -> Detections:
        """Return all faces in a picture, in that picture's pixels, their centres whole numbers.

        Args:
            pixels: (H, W, 3) uint8, RGB, at working resolution.
            scale: working resolution over the photo's, at most 1.
        """

    def detect(self, photo: Photo) -> list[Face]:
        """Return the photo's faces, largest first; at least one.

        Raises:
            NoFace: nothing found, or nothing confident enough.
            FaceTooSmall: all faces are below `min_face`, or the whole photo is.
        """
        settings = self.settings
        width, height = photo.size
        if min(height, width) < settings.min_face:
            raise FaceTooSmall(
                f"the photo has {width}x{height} pixels, faces need {settings.min_face}"
            )
        found = self._find(photo, turns=0)
        if settings.rotate and best_confidence(found) < settings.min_confidence:
            best = max((self._find(photo, turns) for turns in (1, 2, 3)), key=best_confidence)
            if best_confidence(best) >= settings.min_confidence:
                height, width = photo.pixels.shape[:2]
                found = [unrotate(face, width, height) for face in best]
        return accept_faces([enlarge(face, photo.reduction) for face in found], settings)

    def _find(self, photo: Photo, turns: int) -> list[Face]:
        """Return all faces found in a photo turned by 90 degrees so often, in its pixels then."""
        settings, rotation = self.settings, 90 * turns
        pixels = np.ascontiguousarray(np.rot90(photo.pixels, turns))
        working = _reduced(pixels, settings.max_side) if settings.max_side else pixels
        found = self.search(working, max(working.shape[:2]) / max(photo.size))
        return [
            Face(
                box=_in_picture(box, working, pixels).reshape(4),
                landmarks=_in_picture(points, working, pixels),
                confidence=float(confidence),
                rotation=rotation,
            )
            for box, confidence, points in zip(
                found.boxes, found.confidences, found.landmarks, strict=True
            )
        ]


class MTCNNDetector(PhotoDetector):
    """MTCNN with facenet-pytorch's networks, its traps closed.

    facenet-pytorch counts pixels from one and cuts halves off, so its coordinates are about one
    pixel too large: one pixel of the working resolution is subtracted, unless `one_based` asks
    for them as they are.

    Args:
        settings: the detection fields count.
        device: where the three networks run; detection on "mps" runs on the CPU, as torch lacks
            an operator there.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        super().__init__(settings)
        self.networks = MTCNN("cpu" if device.type == "mps" else device)
        self._own = threading.local()
        if self.networks.device.type == "cpu":
            keep_freed_buffers()

    def search(self, pixels: Pixels, scale: float) -> Detections:
        """Return what MTCNN finds."""
        # the pyramid is the same whatever `min_face` is: that filters faces and moves none
        finest = float(min(MTCNN_SMALLEST_FACE, self.settings.min_face))
        skipped = self._levels_to_skip(finest, self.settings.min_face * scale)
        with self._own_stream():
            found = self.networks.detect(
                pixels, finest, skip_levels=skipped, clip_windows=self.settings.one_based
            )
        offset = np.float32(0 if self.settings.one_based else 1)
        return Detections(found.boxes - offset, found.confidences, found.landmarks - offset)

    def _own_stream(self) -> AbstractContextManager[object]:
        """Have a GPU not queue this thread's work behind that of the thread that scores."""
        device = self.networks.device
        if device.type != "cuda":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)

    def _levels_to_skip(self, finest: float, wanted: float) -> int:
        """Return how many of the image pyramid's finest levels hold no face that counts.

        Args:
            finest: face size of the finest level, pixels at working resolution.
            wanted: smallest face that counts, pixels at working resolution.
        """
        skipped = 0
        # one finer level than seems needed: the best candidate often comes from there
        while finest / FACTOR ** (skipped + 2) <= wanted:
            skipped += 1
        return skipped


class YuNetDetector(PhotoDetector):
    """YuNet: a tiny network, always on the CPU, that looks at a photo in two sizes.

    Args:
        settings: the detection fields count.

    Raises:
        WeightsError: its weights are missing or changed.
        MissingDependency: OpenCV is too old.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.network = YuNet()

    def search(self, pixels: Pixels, scale: float) -> Detections:
        """Return what YuNet finds."""
        found = self.network.detect(pixels)
        small = _reduced(pixels, YUNET_SMALL_SIDE)
        if small is pixels:
            return found
        second = self.network.detect(small)
        boxes = _in_picture(second.boxes, small, pixels).astype(np.float32).reshape(-1, 4)
        points = _in_picture(second.landmarks, small, pixels).astype(np.float32).reshape(-1, 5, 2)
        large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) > YUNET_LARGE_FACE
        boxes = np.concatenate([found.boxes, boxes[large]])
        confidences = np.concatenate([found.confidences, second.confidences[large]])
        kept = best(boxes, confidences, OVERLAP)
        landmarks = np.concatenate([found.landmarks, points[large]])
        return Detections(boxes[kept], confidences[kept], landmarks[kept])


def make_detector(settings: Settings) -> Detector:
    """Return the detector the settings name.

    Raises:
        SettingsError: a device this machine does not have.
        WeightsError: its weights are missing or changed.
    """
    if settings.detector == "yunet":
        return YuNetDetector(settings)
    return MTCNNDetector(settings, resolve_device(settings.device))


def _reduced(pixels: Pixels, side: int) -> Pixels:
    """Return a picture with that longer side, or itself if it has no more."""
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


def _in_picture(
    points: NDArray[np.float32], reduced: Pixels, picture: Pixels
) -> NDArray[np.float64]:
    """Return (N, 2) points of a reduced picture, in pixels of the picture itself."""
    # the centres of pixels are at whole numbers
    ratio = np.array(picture.shape[1::-1]) / reduced.shape[1::-1]
    moved: NDArray[np.float64] = (
        np.asarray(points, dtype=np.float64).reshape(-1, 2) + 0.5
    ) * ratio - 0.5
    return moved


def enlarge(face: Face, reduction: int) -> Face:
    """Return a face in the photo's pixels that was found in the photo reduced so many times."""
    if reduction == 1:
        return face
    return replace(
        face,
        box=(face.box + 0.5) * reduction - 0.5,
        landmarks=(face.landmarks + 0.5) * reduction - 0.5,
    )


def unrotate(face: Face, width: int, height: int) -> Face:
    """Return a face in the photo's pixels that was found in the photo turned by `face.rotation`.

    Args:
        face: in pixels of `numpy.rot90(photo, face.rotation // 90)`.
        width: of the upright photo, pixels.
        height: of the upright photo, pixels.
    """

    def turn_back(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        turned = {
            90: (width - 1 - y, x),
            180: (width - 1 - x, height - 1 - y),
            270: (y, height - 1 - x),
        }[face.rotation]
        return np.stack(turned, axis=1)

    corners = turn_back(face.box.reshape(2, 2))
    return Face(
        box=np.concatenate([corners.min(axis=0), corners.max(axis=0)]),
        landmarks=turn_back(face.landmarks),
        confidence=face.confidence,
        rotation=face.rotation,
    )
