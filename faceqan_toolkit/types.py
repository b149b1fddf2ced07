"""The values that travel from photo to record: frozen; each step returns a new one."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.text import path_from_text

Pixels = NDArray[np.uint8]

LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""The five landmarks in every array's order; left and right as seen in the image."""


@dataclass(frozen=True)
class FileState:
    """Identity of one version of a file.

    Attributes:
        size: bytes.
        mtime_ns: modification time, nanoseconds since the epoch.
        sha256: of the content, hexadecimal; empty if it was never read.
    """

    size: int
    mtime_ns: int
    sha256: str = ""


class Content(Protocol):
    """Source of a photo's bytes: a small value that can be pickled, with nothing open in it."""

    def state(self) -> FileState:
        """Return the state without reading, so without sha256; raise PhotoError if inaccessible."""
        ...

    def read(self) -> tuple[bytes, FileState]:
        """Return the encoded photo and its state when read; raise PhotoError if that fails."""
        ...


@dataclass(frozen=True)
class PhotoSource:
    """A photo that was asked for and has not been opened yet.

    Attributes:
        root: absolute folder its path is relative to, or a URL, as `path_text`.
        path: identifies it in results: relative to `root`, as `path_text`.
        content: its bytes; `photos.find.locate` finds them again by root and path.
        attempt: number of earlier attempts in this run, for its records.
    """

    root: str
    path: str
    content: Content
    attempt: int = 0

    @property
    def place(self) -> str:
        """Absolute location with forward slashes, not percent-encoded."""
        root, path = path_from_text(self.root), path_from_text(self.path)
        return f"{root.rstrip('/')}/{path}" if root else path


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright as its EXIF orientation says.

    Attributes:
        source: where it came from.
        pixels: (H, W, 3) uint8, sRGB.
        state: the file as it was when read.
        reduction: how many pixels of the photo, along a side, went into one of `pixels`: 1, or
            2, 4, 8 for a JPEG that was decoded smaller.
        full_size: width and height of the photo, if `pixels` are reduced.
        encoded: the file's content, if `pixels` are reduced.
        note: remark on the decoding for the record.
    """

    source: PhotoSource
    pixels: Pixels
    state: FileState
    reduction: int = 1
    full_size: tuple[int, int] | None = None
    encoded: bytes = b""
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photo, pixels."""
        height, width = self.pixels.shape[:2]
        return self.full_size or (width, height)


@dataclass(frozen=True)
class Face:
    """One face, in pixels of its photo; the centre of the top left pixel is (0, 0).

    Attributes:
        box: (4,) float64, x1 y1 x2 y2; may reach beyond the photo.
        landmarks: (5, 2) float64, x y, in the order of `LANDMARK_NAMES`.
        confidence: of the detector, in [0, 1]; None if it gave none.
        rotation: degrees the photo was turned counter-clockwise before the face was found.
    """

    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    confidence: float | None = None
    rotation: int = 0

    @property
    def size(self) -> float:
        """The box's shorter side, pixels."""
        return float(min(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@dataclass(frozen=True)
class Detections:
    """Faces that a detector's networks find in an image, in pixels of that image.

    Attributes:
        boxes: (N, 4) float32, x1 y1 x2 y2; may reach beyond the image.
        confidences: (N,) float32 in [0, 1].
        landmarks: (N, 5, 2) float32, x y, in the order of `LANDMARK_NAMES`.
    """

    boxes: NDArray[np.float32]
    confidences: NDArray[np.float32]
    landmarks: NDArray[np.float32]


@dataclass(frozen=True)
class AlignedCrop:
    """A face warped onto the recognition model's template.

    Attributes:
        pixels: (S, S, 3) uint8, RGB, S the model's input size.
        transform: (2, 3) float64, photo coordinates to crop coordinates.
    """

    pixels: Pixels
    face: Face
    transform: NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A quality score with the parts that explain it.

    Attributes:
        quality: higher is better. FaceQAN's is F of the paper, at most 1, negative only if
            symmetry is; other methods have other ranges.
        embedding_norm: Euclidean length of the crop's embedding, in the model's own units.
        similarity_mean: mean of all l x k cosine similarities to the crop's own embedding.
        similarity_std: their population standard deviation.
        symmetry: cosine between the embeddings of the crop and of its mirror image.
        similarities: (l, k) float32; row t is measured before step t is applied.
        quality_error: expected distance of a predicted score from the measured one.

    A measured score has all parts and no error; a predicted one has the error and no parts;
    another method's has neither.
    """

    quality: float
    embedding_norm: float
    similarity_mean: float | None = None
    similarity_std: float | None = None
    symmetry: float | None = None
    similarities: NDArray[np.float32] | None = None
    quality_error: float | None = None


@dataclass(frozen=True)
class Record:
    """One row: a face, or a photo without one. Plain values, no pixels.

    Pixels are those of the upright photo and None means unknown, unless said otherwise. Attributes
    are the columns of every result file; docs/results.md explains each.
    """

    path: str
    root: str
    face: int | None
    status: str
    reason: str = ""
    quality: float | None = None
    # follows from quality, and is not stored
    quality_100: int | None = field(default=None, compare=False, metadata={"derived": True})
    quality_error: float | None = None
    similarity_mean: float | None = None
    similarity_std: float | None = None
    symmetry: float | None = None
    embedding_norm: float | None = None
    confidence: float | None = None
    box_x1: float | None = None
    box_y1: float | None = None
    box_x2: float | None = None
    box_y2: float | None = None
    left_eye_x: float | None = None
    left_eye_y: float | None = None
    right_eye_x: float | None = None
    right_eye_y: float | None = None
    nose_x: float | None = None
    nose_y: float | None = None
    left_mouth_x: float | None = None
    left_mouth_y: float | None = None
    right_mouth_x: float | None = None
    right_mouth_y: float | None = None
    face_px: float | None = None
    rotation: int | None = None
    crop: str = ""
    model: str = ""
    method: str = ""
    preset: str = ""
    sharpness: float | None = None
    noise: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    underexposed: float | None = None
    overexposed: float | None = None
    face_pattern: float | None = None
    weakest_part: float | None = None
    flattest_part: float | None = None
    eye_distance: float | None = None
    yaw: float | None = None
    roll: float | None = None
    cut_off: float | None = None
    blockiness: float | None = None
    hints: str | None = None
    file_size: int | None = None
    mtime_ns: int | None = None
    sha256: str = ""
    landmarks_id: str = ""
    attempt: int = 0
    node: str = field(default="", compare=False)  # who computed it changes no result

    def to_dict(self) -> dict[str, Any]:
        """Return its columns in order, as plain values: one row of a data frame."""
        return {column.name: getattr(self, column.name) for column in fields(self)}


LANDMARK_COLUMNS = tuple(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy")
MEASURE_COLUMNS = (
    "sharpness", "noise", "brightness", "contrast", "underexposed", "overexposed", "face_pattern",
    "weakest_part", "flattest_part", "eye_distance", "yaw", "roll", "cut_off", "blockiness",
)  # fmt: skip
"""What `measures.Measures` holds; none of it is known if a run was not asked for hints."""
BOX_COLUMNS = ("box_x1", "box_y1", "box_x2", "box_y2")
