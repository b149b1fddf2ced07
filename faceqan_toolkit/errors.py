"""Everything that can go wrong, by what the user can do about it.

A `PhotoError` concerns one photo or one face: the pipeline turns it into a record and goes on.
Every other error stops the run with one clear line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faceqan_toolkit.types import FileState


class FaceQANError(Exception):
    """Base of every error this package raises on purpose."""


class PhotoError(FaceQANError):
    """One photo or face cannot be scored.

    Attributes:
        status: status of its record; a subclass may give its own.
        reason: explanation for people.
        state: state of the file, if it could be read.
    """

    status = "unreadable"
    state: FileState | None = None

    def __init_subclass__(cls, *, status: str = "") -> None:
        cls.status = status or cls.status

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreadablePhoto(PhotoError):
    """The file is empty, damaged or not an image."""


class NotAFile(PhotoError, status="not_a_file"):
    """The path is a folder, a pipe or a device."""


class NoPermission(PhotoError, status="no_permission"):
    """The file may not be read by this user."""


class MissingPhoto(PhotoError, status="missing"):
    """The path does not exist, or no longer."""


class Unreachable(PhotoError, status="unreachable"):
    """A URL's server does not answer, or refuses."""


class MissingExtra(PhotoError, status="missing_extra"):
    """The photo's format needs an optional package."""


class TooLarge(PhotoError, status="too_large"):
    """The photo has more pixels than the run allows, or more bytes than any photo needs."""


class TimedOut(PhotoError, status="timed_out"):
    """Decoding and detection take longer than the run allows."""


class NoFace(PhotoError, status="no_face"):
    """The detector found no face in the photo."""


class FaceTooSmall(PhotoError, status="too_small"):
    """All faces are smaller than the run accepts."""


class NoLandmarks(PhotoError, status="no_landmarks"):
    """The landmarks file has no row for the photo."""


class Unalignable(PhotoError, status="unalignable"):
    """The landmarks are not those of a face in this photo, see `geometry.find_mistake`."""


class Unscorable(PhotoError, status="unscorable"):
    """The recognition model gives no usable embedding for the crop."""


class SettingsError(FaceQANError):
    """An option or argument has an invalid value."""


class NotPlaced(FaceQANError):
    """One file cannot be copied or moved; the manifest says so and the others go on."""


class RunError(FaceQANError):
    """The run folder cannot be used as asked."""


class EvaluationError(FaceQANError):
    """The comparisons or qualities given cannot be evaluated as asked."""


class CalibrationError(FaceQANError):
    """A calibration file cannot be used, or was made for other scores."""


class MissingDependency(FaceQANError):
    """An optional package is needed; the message names the extra to install."""


class WeightsError(FaceQANError):
    """A recognition model cannot be loaded."""


class UnknownModel(WeightsError):
    """There is no model of that name."""


class MissingWeights(WeightsError):
    """The model is known, but its weights file is missing."""


class ChecksumMismatch(WeightsError):
    """The weights file is not the expected one."""


class DamagedWeights(WeightsError):
    """The weights file is empty, cut off, not a checkpoint, or has NaN or infinite numbers."""


class UnsafeCheckpoint(WeightsError):
    """The weights file contains code that reading it would run."""


class WrongArchitecture(WeightsError):
    """The weights do not fit the network."""


class UnsupportedGraph(WeightsError):
    """An ONNX graph is not a face recogniser, or its gradient cannot be computed here."""


class DatasetError(FaceQANError):
    """The lists of a data set are missing, malformed or contradict themselves."""


class ScoresError(FaceQANError):
    """A file of scores or embeddings cannot be used."""


class RefusedPickle(FaceQANError):
    """A pickle is damaged, or has more than plain data; nothing in it was run."""
