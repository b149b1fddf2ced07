"""Faces of a photo, found by MTCNN."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from faceqan_toolkit.errors import FaceTooSmall
from faceqan_toolkit.faces import accept_faces, best_confidence
from faceqan_toolkit.mtcnn import FACTOR, MTCNN
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Face, Photo, Pixels

MTCNN_SMALLEST_FACE = 20
"""Pixels, at working resolution; below it MTCNN is slow and finds faces where there are none."""


class Detector(Protocol):
    """Anything that finds the faces of a photo."""

    def detect(self, photo: Photo) -> list[Face]:
        """Return the photo's faces, largest first; at least one.

        Raises:
            PhotoError: there is none, or none that the settings accept.
        """
        ...


class MTCNNDetector:
    """MTCNN with facenet-pytorch's networks, its traps closed.

    Photos are reduced to `max_side` before detection. facenet-pytorch counts pixels from one and
    cuts halves off, so its coordinates are about one pixel too large: one pixel of the working
    resolution is subtracted, unless `one_based` asks for them as they are.

    Args:
        settings: the detection fields count.
        device: where the three networks run; detection on "mps" runs on the CPU, as torch lacks
            an operator there.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self.settings = settings
        self.networks = MTCNN("cpu" if device.type == "mps" else device)

    def detect(self, photo: Photo) -> list[Face]:
        """Return the photo's faces, largest first; at least one.

        Raises:
            NoFace: nothing found, or nothing confident enough.
            FaceTooSmall: all faces are below `min_face`, or the whole photo is.
        """
        settings = self.settings
        height, width = photo.pixels.shape[:2]
        if min(height, width) < settings.min_face:
            raise FaceTooSmall(
                f"the photo has {width}x{height} pixels, faces need {settings.min_face}"
            )
        found = self._find(photo.pixels, rotation=0)
        if settings.rotate and best_confidence(found) < settings.min_confidence:
            turned = (
                self._find(np.ascontiguousarray(np.rot90(photo.pixels, turns)), rotation=90 * turns)
                for turns in (1, 2, 3)
            )
            best = max(turned, key=best_confidence)
            if best_confidence(best) >= settings.min_confidence:
                found = [unrotate(face, width, height) for face in best]
        return accept_faces(found, settings)

    def _find(self, pixels: Pixels, *, rotation: int) -> list[Face]:
        """Return all MTCNN finds in an RGB picture, in that picture's pixels."""
        settings = self.settings
        height, width = pixels.shape[:2]
        scale = 1.0
        if settings.max_side and max(height, width) > settings.max_side:
            scale = settings.max_side / max(height, width)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        # the pyramid is the same whatever `min_face` is: that filters faces and moves none
        finest = float(min(MTCNN_SMALLEST_FACE, settings.min_face))
        skipped = self._levels_to_skip(finest, settings.min_face * scale)
        found = self.networks.detect(pixels, finest, skip_levels=skipped)
        # working pixels to the picture's, whose pixel centres are at whole numbers
        ratio = np.array([width / pixels.shape[1], height / pixels.shape[0]])
        offset = 0.0 if settings.one_based else 1.0

        def to_picture(points: NDArray[np.float32]) -> NDArray[np.float64]:
            working = np.asarray(points, dtype=np.float64).reshape(-1, 2) - offset
            picture: NDArray[np.float64] = (working + 0.5) * ratio - 0.5
            return picture

        return [
            Face(
                box=to_picture(box).reshape(4),
                landmarks=to_picture(points),
                confidence=float(confidence),
                rotation=rotation,
            )
            for box, confidence, points in zip(
                found.boxes, found.confidences, found.landmarks, strict=True
            )
        ]

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
