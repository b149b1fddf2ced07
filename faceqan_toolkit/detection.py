"""Faces of a photo, found by MTCNN."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN
from numpy.typing import NDArray

from faceqan_toolkit.errors import FaceTooSmall
from faceqan_toolkit.faces import accept_faces, best_confidence
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
    """facenet-pytorch's MTCNN with its traps closed.

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
        self.networks = MTCNN(
            keep_all=True,
            post_process=False,
            device="cpu" if device.type == "mps" else device,
        )

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
        smallest = self._pyramid_start(settings.min_face * scale)
        if min(pixels.shape[:2]) <= smallest:
            return []  # MTCNN fails on pictures that cannot hold a face
        self.networks.min_face_size = smallest
        boxes, confidences, landmarks = self.networks.detect(pixels, landmarks=True)
        if boxes is None:
            return []
        # working pixels to the picture's, whose pixel centres are at whole numbers
        ratio = np.array([width / pixels.shape[1], height / pixels.shape[0]])
        offset = 0.0 if settings.one_based else 1.0

        def to_picture(points: NDArray[np.object_]) -> NDArray[np.float64]:
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
            for box, confidence, points in zip(boxes, confidences, landmarks, strict=True)
        ]

    def _pyramid_start(self, wanted: float) -> float:
        """Return the face size of the image pyramid's finest level.

        Args:
            wanted: smallest face that counts, pixels at working resolution.

        Levels too fine for any face that counts are left out; the others are the same whatever
        `min_face` is, so it filters faces and does not move them.
        """
        smallest = float(min(MTCNN_SMALLEST_FACE, self.settings.min_face))
        # one finer level than seems needed: the best candidate often comes from there
        while smallest / self.networks.factor**2 <= wanted:
            smallest /= self.networks.factor
        return smallest


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
