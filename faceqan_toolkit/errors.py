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
    """One photo or face cannot be scored; `status` is what its record will say.

    Attributes:
        reason: why, for people.
        state: of the file, if it could be read as far as its bytes.
    """

    status = "unreadable"
    state: FileState | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreadablePhoto(PhotoError):
    """The file is empty, damaged or no image at all."""


class NotAFile(PhotoError):
    """The path is a folder, a pipe or a device."""

    status = "not_a_file"


class NoPermission(PhotoError):
    """The file may not be read by this user."""

    status = "no_permission"


class MissingPhoto(PhotoError):
    """The path does not exist (any more)."""

    status = "missing"


class Unreachable(PhotoError):
    """The place behind a URL does not answer, or refuses."""

    status = "unreachable"


class MissingExtra(PhotoError):
    """The photo's format needs an optional package."""

    status = "missing_extra"


class TooLarge(PhotoError):
    """The photo has more pixels than the run allows, or more bytes than any photo needs."""

    status = "too_large"


class TimedOut(PhotoError):
    """Decoding it and looking for faces takes longer than the run allows."""

    status = "timed_out"


class NoFace(PhotoError):
    """The detector found no face in the photo."""

    status = "no_face"


class FaceTooSmall(PhotoError):
    """Faces were found, all of them smaller than the run accepts."""

    status = "too_small"


class NoLandmarks(PhotoError):
    """The landmarks file has no row for the photo."""

    status = "no_landmarks"


class Unalignable(PhotoError):
    """The landmarks are not those of a face in this photo, see `geometry.find_mistake`."""

    status = "unalignable"


class Unscorable(PhotoError):
    """The recognition model gives no usable embedding for the crop."""

    status = "unscorable"


class SettingsError(FaceQANError):
    """An option has a value that makes no sense."""


class NotPlaced(FaceQANError):
    """One file cannot be put where it belongs; a manifest tells, the others go on."""


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
    """No model goes by that name."""


class MissingWeights(WeightsError):
    """The model is known, its weights file is not there."""


class ChecksumMismatch(WeightsError):
    """The weights file is not the one that was expected."""


class DamagedWeights(WeightsError):
    """The weights file is empty, cut off, no checkpoint, or holds NaN or infinite numbers."""


class UnsafeCheckpoint(WeightsError):
    """The weights file is a program: reading it would run code that came with it."""


class WrongArchitecture(WeightsError):
    """The weights do not fit the network."""


class UnsupportedGraph(WeightsError):
    """An ONNX graph has no gradient that could be computed here, or is no face recogniser's."""


class DatasetError(FaceQANError):
    """The lists of a data set are missing, malformed or contradict themselves."""


class ScoresError(FaceQANError):
    """A file of scores or embeddings cannot be used."""


class RefusedPickle(FaceQANError):
    """A pickle is damaged, or holds more than plain data; nothing in it was run."""
