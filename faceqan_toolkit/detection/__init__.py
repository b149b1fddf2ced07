"""The built-in face detectors. torch and OpenCV are imported when a detector is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceqan_toolkit.registry import DETECTORS, register_detector
from faceqan_toolkit.settings import Settings

if TYPE_CHECKING:
    from faceqan_toolkit.detection.base import Detector


def make_detector(settings: Settings) -> Detector:
    """Return the detector that the settings name.

    Raises:
        SettingsError: a device this machine does not have.
        WeightsError: its weights are missing or changed.
    """
    made: Detector = DETECTORS.find(settings.detection.detector).make(settings)
    return made


@register_detector("mtcnn", min_confidence=0.9, max_side=1600, uses=("one_based",))
def mtcnn(settings: Settings) -> Detector:
    """MTCNN with facenet-pytorch's networks: three small networks over an image pyramid."""
    from faceqan_toolkit.detection.mtcnn import MTCNNDetector
    from faceqan_toolkit.hardware import resolve_device

    return MTCNNDetector(settings, resolve_device(settings.work.device))


@register_detector("yunet", min_confidence=0.7, max_side=960)
def yunet(settings: Settings) -> Detector:
    """YuNet: one tiny network on the CPU, several times as fast; landmarks are less exact."""
    from faceqan_toolkit.detection.yunet import YuNetDetector

    return YuNetDetector(settings)
