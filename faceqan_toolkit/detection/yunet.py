"""YuNet, a small one-pass face detector, through OpenCV.

Source: Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence
Research, 2023; weights of OpenCV Zoo, see weights/README.md.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np

from faceqan_toolkit.detection.base import PhotoDetector, best, in_picture, join, reduced, select
from faceqan_toolkit.errors import MissingDependency
from faceqan_toolkit.models.weights import read_weights
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.threads import quiet_opencv
from faceqan_toolkit.types import Detections, Pixels

WEIGHTS = "yunet.onnx"
SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"

LOWEST_CONFIDENCE, OVERLAP = 0.3, 0.3
SMALLEST_SIDE = 64
"""Least side of the input, pixels; smaller images get a black border. OpenCV 4 finds false faces in
tiny images."""
SMALL_COPY_SIDE, LARGE_FACE = 320, 400
"""Pixels at working resolution. YuNet misses large faces, so a small copy is searched as well, and
only faces above `LARGE_FACE` are taken from it, as their coordinates are coarser."""


class YuNetDetector(PhotoDetector):
    """YuNet: a tiny network, always on the CPU, that looks at a photo in two sizes.

    Raises WeightsError if its weights are missing or changed, MissingDependency if OpenCV is old.
    """

    certain = 0.92

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._content = np.frombuffer(read_weights(WEIGHTS, SHA256), np.uint8)
        self._own = threading.local()  # OpenCV's network keeps the image size
        self._own.network = self._load()

    def _load(self) -> cv2.FaceDetectorYN:
        empty = np.empty(0, np.uint8)
        try:
            with quiet_opencv:
                return cv2.FaceDetectorYN.create(
                    "onnx", self._content, empty, (320, 320), LOWEST_CONFIDENCE, OVERLAP
                )
        except (cv2.error, TypeError) as error:  # another OpenCV package shadows the required one
            raise MissingDependency(
                f"yunet needs OpenCV 4.12 or newer, this is {cv2.__version__}: "
                "pip install -U opencv-python-headless"
            ) from error

    def search(self, pixels: Pixels, scale: float) -> Detections:
        """Return YuNet's faces."""
        found = self._detect(pixels)
        small = reduced(pixels, SMALL_COPY_SIDE)
        if small is pixels:
            return found
        second = self._detect(small)
        boxes = in_picture(second.boxes, small, pixels).astype(np.float32).reshape(-1, 4)
        points = in_picture(second.landmarks, small, pixels).astype(np.float32).reshape(-1, 5, 2)
        large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) > LARGE_FACE
        both = join(found, select(Detections(boxes, second.confidences, points), large))
        return select(both, best(both.boxes, both.confidences, OVERLAP))

    def _detect(self, pixels: Pixels) -> Detections:
        """Return the faces of an image; faces much larger than 300 pixels are missed."""
        missing = [max(0, SMALLEST_SIDE - side) for side in pixels.shape[:2]]
        if any(missing):
            pixels = np.pad(pixels, [(0, missing[0]), (0, missing[1]), (0, 0)])
        if not hasattr(self._own, "network"):
            self._own.network = self._load()
        network = self._own.network
        network.setInputSize(pixels.shape[1::-1])
        # a row: x y width height, ten coordinates, confidence
        _, found = network.detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        rows = np.empty((0, 15), np.float32) if found is None else np.asarray(found, np.float32)
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return Detections(corners, rows[:, 14].clip(0, 1), rows[:, 4:14].reshape(-1, 5, 2))
