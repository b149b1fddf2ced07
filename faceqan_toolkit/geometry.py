"""Detection of impossible landmarks and of the mistake behind them. numpy only.

The test is the misfit of landmarks to ArcFace's template under the best similarity transform, as
given and after undoing each mistake; a similarity transform never mirrors. Thresholds were chosen
on faces found by MTCNN and YuNet, including rotated and cut-off ones; docs/landmarks.md has the
figures of benchmarks/impossible_landmarks.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

ARCFACE_TEMPLATE = np.array([
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
    (70.7299, 92.2041),
])  # fmt: skip
"""Positions of the five landmarks in a 112x112 crop, pixels (InsightFace's template)."""
CLEARLY_BETTER = 0.2
"""Least reduction of the misfit, eye distances, for a correction to count. For detected faces every
correction raises it by 0.06 or more; below the detectors' least confidence it lowers it by up to
0.18."""
NO_FACE = 0.5
"""Least misfit, eye distances, of landmarks that are not a face. Detected faces have 0.34 at most;
below the least confidence, where most profiles are, 0.48."""
LIKE_A_FACE = 0.25
"""Largest misfit, eye distances, of reordered landmarks that count as a face."""
NOT_PARALLEL = 0.45
"""Limit of `_eyes_and_mouth`. Detected faces have 0.22 at most, below the least confidence 0.35."""
FLAT = 0.05
"""Least ratio of the landmarks' spread across to that along their main axis. Detected faces have
0.38 or more, below the least confidence 0.21."""
LARGEST = 1e7
"""Largest coordinate, pixels; no photo is larger."""
SMALLEST = 1e-3
"""Least extent of landmarks that do not coincide, pixels."""
RELATIVE = 2.0
"""Coordinates that are all at most this are fractions of the photo's sides."""
PHOTO_EXTENT = 1.5
"""Largest extent of landmarks over the photo's longer side; faces cut off on all sides have 0.9."""
BOX_EXTENT = 0.05, 3.0
"""Least and largest extent of landmarks over the box's shorter side; detected faces have 0.14 to
1.4."""
BOX_OFFSET = 0.75
"""Largest distance between the centres of box and landmarks, in sides of the box; detected faces
have 0.49 at most."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Mistake:
    """A mistake in landmarks: the reason for a face's record, and the remedy for a whole file."""

    reason: str
    remedy: str


NOT_FINITE = Mistake("the landmarks are not finite numbers",
                     "leave the ten cells of a photo without a face empty")  # fmt: skip
COINCIDENT = Mistake(
    "the landmarks coincide",
    "give five different points, or leave the ten cells of a photo without a face empty",
)
FRACTIONS = Mistake("the landmarks are fractions of the photo's sides, not pixels",
                    "multiply x by the photo's width and y by its height")  # fmt: skip
SIDES_SWAPPED = Mistake(
    "the landmarks' left and right are swapped",
    "swap left_* and right_*, which are sides as seen in the image",
)
AXES_SWAPPED = Mistake("the landmarks' x and y are swapped",
                       "swap the two numbers of each landmark")  # fmt: skip
FROM_THE_BOTTOM = Mistake("the landmarks' y is counted from the bottom of the photo",
                          "replace y by the photo's height - 1 - y")  # fmt: skip
NOT_IN_TURN = Mistake("the landmarks' five x come before the five y",
                      "give x and y of each landmark in turn")  # fmt: skip
REORDERED = Mistake(
    "the landmarks are in another order",
    "give left eye, right eye, nose, left and right corner of the mouth, as seen in the image",
)
NOT_A_FACE = Mistake("the landmarks do not have a face's shape",
                     "check which number is in which column")  # fmt: skip
TOO_LARGE = Mistake("the landmarks are larger than the photo",
                    "give pixels of these photos, not of larger copies")  # fmt: skip
OUTSIDE = Mistake(
    "the landmarks lie outside the photo",
    "give pixels of the upright photo (EXIF orientation applied), not of a larger copy or a part",
)
WRONG_BOX = Mistake(
    "the landmarks do not fit the face's box",
    "give both in pixels of the same photo, the box as its left top (x1, y1) and right bottom "
    "(x2, y2) corners",
)

MISTAKES = (
    NOT_FINITE, COINCIDENT, FRACTIONS, SIDES_SWAPPED, AXES_SWAPPED, FROM_THE_BOTTOM, NOT_IN_TURN,
    REORDERED, NOT_A_FACE, TOO_LARGE, OUTSIDE, WRONG_BOX,
)  # fmt: skip

_SIDES = (1, 0, 2, 4, 3)
_TURNED = ((0, 1, 2, 3, 4), (1, 4, 2, 0, 3), (4, 3, 2, 1, 0), (3, 0, 2, 4, 1))
_TRANSPOSED = ((0, 3, 2, 1, 4), (4, 1, 2, 3, 0))
# without rotations (eyes and mouth are nearly a square, and a sideways face is valid) and
# transpositions (x and y swapped)
_ORDERS = np.array([p for p in permutations(range(5)) if p not in (*_TURNED, *_TRANSPOSED)])


def find_mistake(
    landmarks: Points, box: Points | None = None, photo_size: tuple[int, int] | None = None
) -> Mistake | None:
    """Return the mistake in landmarks; None if they can be those of a face.

    Args:
        landmarks: (5, 2) x y in pixels, in the order of `types.LANDMARK_NAMES`.
        box: (4,) x1 y1 x2 y2 of the face, pixels; None if unknown.
        photo_size: width and height of the photo, pixels; None if unknown.

    Examples:
        >>> find_mistake(3 * ARCFACE_TEMPLATE, photo_size=(400, 400)) is None
        True
        >>> find_mistake(3 * ARCFACE_TEMPLATE[:, ::-1]).reason
        "the landmarks' x and y are swapped"
    """
    if mistake := find_degeneracy(landmarks):
        return mistake
    if np.abs(landmarks).max() <= RELATIVE:
        return FRACTIONS
    return _wrong_shape(landmarks) or _wrong_place(landmarks, box, photo_size)


def find_degeneracy(landmarks: Points) -> Mistake | None:
    """Return why landmarks (5, 2) have no similarity transform; None if they have one."""
    if not np.isfinite(landmarks).all():
        return NOT_FINITE
    # squares of larger values exceed float32
    if np.abs(landmarks).max() > LARGEST:
        return OUTSIDE
    return COINCIDENT if np.ptp(landmarks, axis=0).max() < SMALLEST else None


def misfits(faces: Points) -> NDArray[np.float64]:
    """Return the (N,) misfits of (N, 5, 2) landmarks to ArcFace's template, in its eye distances.

    A misfit is the root mean square distance after the best similarity transform, from 0 for the
    template's shape to 0.66.
    """
    correlations = np.abs(_correlations(faces))
    energy = float(np.vdot(_TEMPLATE, _TEMPLATE).real)
    left = np.sqrt((1 - correlations**2).clip(0) * energy / 5)
    return np.asarray(left / abs(_TEMPLATE[1] - _TEMPLATE[0]))


def _correlations(faces: Points) -> NDArray[np.complex128]:
    """Return the complex correlation (N,) of landmarks and template; its angle is the rotation."""
    points = _centred(faces)
    lengths = np.linalg.norm(points, axis=1).clip(SMALLEST) * np.linalg.norm(_TEMPLATE)
    return np.asarray(points.conj() @ _TEMPLATE / lengths)


def _centred(faces: Points) -> NDArray[np.complex128]:
    """Return landmarks (..., 5, 2) as complex numbers x + iy around their mean, (..., 5)."""
    points = faces[..., 0] + 1j * faces[..., 1]
    return np.asarray(points - points.mean(axis=-1, keepdims=True))


_TEMPLATE = _centred(ARCFACE_TEMPLATE)
MOUTH_TO_EYES = float(abs((_TEMPLATE[4] - _TEMPLATE[3]) / (_TEMPLATE[1] - _TEMPLATE[0])))


def _wrong_shape(landmarks: Points) -> Mistake | None:
    """Return the mistake in the landmarks' shape, regardless of position; None without one."""
    (misfit,) = misfits(landmarks[None])
    if misfit > CLEARLY_BETTER and (mistake := _correctable(landmarks, misfit)):
        return mistake
    across, along = np.linalg.svd(landmarks - landmarks.mean(axis=0), compute_uv=False)[::-1]
    odd = misfit > NO_FACE or across < FLAT * along or _eyes_and_mouth(landmarks) > NOT_PARALLEL
    return NOT_A_FACE if odd else None


def _correctable(landmarks: Points, misfit: float) -> Mistake | None:
    """Return the mistake whose correction lowers the misfit most; None if none does clearly.

    Swapped sides, swapped axes and y from the bottom all mirror a face. The correction that leaves
    it upright is chosen, so a sideways face can get one of the other names.
    """
    corrections = _corrections(landmarks)
    corrected = np.stack(list(corrections.values()))
    found = misfits(corrected)
    better = found < misfit - CLEARLY_BETTER
    if not better.any():
        return None
    # with so many orders, any five points resemble a face in one of them
    fits = better & (found <= np.array([1, 1, 1, LIKE_A_FACE, LIKE_A_FACE]))
    upright = np.abs(np.angle(_correlations(corrected))) <= np.pi / 4
    likely = fits & upright if (fits & upright).any() else fits
    if not likely.any():
        return NOT_A_FACE
    return list(corrections)[int(np.where(likely, found, np.inf).argmin())]


def _corrections(landmarks: Points) -> dict[Mistake, Points]:
    reordered = landmarks[_ORDERS]
    return {
        SIDES_SWAPPED: landmarks[list(_SIDES)],
        AXES_SWAPPED: landmarks[:, ::-1],
        FROM_THE_BOTTOM: landmarks * (1, -1),
        NOT_IN_TURN: landmarks.reshape(2, 5).T,
        REORDERED: reordered[misfits(reordered).argmin()],
    }


def _eyes_and_mouth(landmarks: Points) -> float:
    """Return how much the line of the mouth's corners deviates from the line of the eyes.

    For any head pose the lines are parallel and their lengths have about the same ratio. The
    deviation is relative to the root of the landmarks' sum of squares about their mean.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = _centred(landmarks)
    difference = right_mouth - left_mouth - MOUTH_TO_EYES * (right_eye - left_eye)
    return float(abs(difference) / np.linalg.norm(_centred(landmarks)))


def _wrong_place(
    landmarks: Points, box: Points | None, photo_size: tuple[int, int] | None
) -> Mistake | None:
    """Return the mistake in the landmarks' position in photo and box; None without one."""
    if photo_size is not None:
        if np.ptp(landmarks, axis=0).max() > PHOTO_EXTENT * max(photo_size):
            return TOO_LARGE
        inside = (landmarks >= -0.5) & (landmarks <= np.array(photo_size) - 0.5)
        if not inside.all(axis=1).any():
            return OUTSIDE
    return WRONG_BOX if box is not None and not _fits_box(landmarks, box) else None


def _fits_box(landmarks: Points, box: Points) -> bool:
    """Tell whether landmarks can belong to the face in a box; the box may be cut off."""
    sides = box[2:] - box[:2]
    least, most = (share * sides.min() for share in BOX_EXTENT)
    offset = np.abs(landmarks.mean(axis=0) - (box[:2] + box[2:]) / 2)
    extent = np.ptp(landmarks, axis=0).max()
    return bool(least <= extent <= most and (offset <= BOX_OFFSET * sides).all())
