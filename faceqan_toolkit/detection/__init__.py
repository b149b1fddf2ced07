"""Faces: detected or read from a file, and chosen. This module registers the detectors.

base: what detectors have in common, and the choice of faces
mtcnn, mtcnn_networks: the detector MTCNN, and its three networks
yunet: the detector YuNet
landmarks_file: faces of another detector, read from a CSV file

torch and OpenCV are imported when a detector is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceqan_toolkit.registry import DETECTORS, register_detector
from faceqan_toolkit.settings import Settings

if TYPE_CHECKING:
    from faceqan_toolkit.detection.base import Detector


def make_detector(settings: Settings) -> Detector:
    """Return the detector that the settings name.

    Raises:
        SettingsError: this machine lacks the device.
        WeightsError: the weights are missing or changed.
    """
    made: Detector = DETECTORS.find(settings.detection.detector).make(settings)
    return made


@register_detector("mtcnn", min_confidence=0.9, max_side=1600, uses=("one_based",))
def make_mtcnn(settings: Settings) -> Detector:
    """MTCNN with facenet-pytorch's networks: three small networks over an image pyramid."""
    from faceqan_toolkit.detection.mtcnn import MTCNNDetector
    from faceqan_toolkit.hardware import resolve_device

    return MTCNNDetector(settings, resolve_device(settings.work.device))


@register_detector("yunet", min_confidence=0.7, max_side=960)
def make_yunet(settings: Settings) -> Detector:
    """YuNet: one tiny network on the CPU, several times as fast; landmarks are less exact."""
    from faceqan_toolkit.detection.yunet import YuNetDetector

    return YuNetDetector(settings)
