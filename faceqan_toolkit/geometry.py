"""Landmarks that cannot be those of a face, and the mistake that explains them. numpy only.

A similarity transform keeps left and right apart: it fits a mirrored face as badly as no face at
all. So landmarks are judged by how well they fit ArcFace's template, as they are and corrected.
Thresholds were chosen on faces that MTCNN and YuNet find, turned and cut off ones among them;
benchmarks/impossible_landmarks.py measures them, docs/landmarks.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

ARCFACE_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Where the five landmarks come to lie in a 112x112 crop, pixels (InsightFace's template)."""

CLEARLY_BETTER = 0.2
"""Eye distances by which a correction must lower the misfit to be the mistake. It raises it by 0.06
and more for detected faces; of those below the detectors' least confidence some have 0.18."""

NO_FACE = 0.5
"""Misfit, eye distances. Detected faces have 0.34 at most; below the least confidence, where most
profiles are, 0.48."""

LIKE_A_FACE = 0.25
"""Misfit, eye distances, up to which landmarks in another order count as a face's."""

NOT_PARALLEL = 0.45
"""See `_eyes_and_mouth`. Detected faces have 0.22 at most, below the least confidence 0.35."""

FLAT = 0.05
"""Spread of landmarks across the line through them over that along it. Detected faces have 0.38 at
least, below the least confidence 0.21."""

LARGEST = 1e7
"""Pixels; no photo has more."""

SMALLEST = 1e-3
"""Pixels between landmarks that do not coincide."""

RELATIVE = 2.0
"""A face whose coordinates are all below is given as shares of the photo's sides."""

PHOTO_EXTENT = 1.5
"""Extent of landmarks over the photo's longer side; 0.9 at most for faces cut off on all sides."""

BOX_EXTENT = 0.05, 3.0
"""Extent of landmarks over the box's shorter side; detected faces have 0.14 to 1.4."""

BOX_OFFSET = 0.75
"""Distance from the box's centre to that of the landmarks, in sides of the box; detected faces have
0.49 at most."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Mistake:
    """What is wrong with landmarks.

    Attributes:
        reason: what is wrong, for the record of a face.
        remedy: what to do with a file that has many such rows, a clause in the imperative.
    """

    reason: str
    remedy: str


NOT_FINITE = Mistake(
    "the landmarks are not finite numbers",
    "leave the ten cells of a photo without a face empty",
)
COINCIDENT = Mistake(
    "the landmarks coincide",
    "give five different points, or leave the ten cells of a photo without a face empty",
)
FRACTIONS = Mistake(
    "the landmarks are fractions of the photo's sides, not pixels",
    "multiply x by the photo's width and y by its height",
)
SIDES_SWAPPED = Mistake(
    "the landmarks' left and right are swapped",
    "swap left_* and right_*, which are sides as seen in the image",
)
AXES_SWAPPED = Mistake(
    "the landmarks' x and y are swapped",
    "swap the two numbers of each landmark",
)
FROM_THE_BOTTOM = Mistake(
    "the landmarks' y is counted from the bottom of the photo",
    "replace y by the photo's height - 1 - y",
)
NOT_IN_TURN = Mistake(
    "the landmarks' five x come before the five y",
    "give x and y of each landmark in turn",
)
REORDERED = Mistake(
    "the landmarks are in another order",
    "give left eye, right eye, nose, left and right corner of the mouth, as seen in the image",
)
NOT_A_FACE = Mistake(
    "the landmarks do not have a face's shape",
    "check which number is in which column",
)
TOO_LARGE = Mistake(
    "the landmarks are larger than the photo",
    "give pixels of these photos, not of larger copies",
)
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
# eyes and mouth are nearly a square: turned by 90 degrees it fits about as well, and a sideways
# face is no mistake; transposed, it is x and y that are swapped
_ORDERS = np.array([p for p in permutations(range(5)) if p not in (*_TURNED, *_TRANSPOSED)])


def find_mistake(
    landmarks: Points,
    box: Points | None = None,
    photo_size: tuple[int, int] | None = None,
) -> Mistake | None:
    """Return what makes landmarks impossible; None if they may be a face's.

    Args:
        landmarks: (5, 2) x y in pixels, in the order of `types.LANDMARK_NAMES`.
        box: (4,) x1 y1 x2 y2 of the face, pixels; None if it is not known.
        photo_size: width and height of the photo, pixels; None if it is not known.

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
    """Return why no transform can be computed from landmarks (5, 2); None if one can be."""
    if not np.isfinite(landmarks).all():
        return NOT_FINITE
    # beyond, squares leave the range of float32
    if np.abs(landmarks).max() > LARGEST:
        return OUTSIDE
    return COINCIDENT if np.ptp(landmarks, axis=0).max() < SMALLEST else None


def misfits(faces: Points) -> NDArray[np.float64]:
    """Return how far landmarks are from ArcFace's template after the best similarity transform.

    Args:
        faces: (N, 5, 2) x y.

    Returns:
        (N,) root mean square distance in the template's eye distances: 0 for its shape, 0.66 at
        most, whatever the points are.
    """
    correlations = np.abs(_correlations(faces))
    energy = float(np.vdot(_TEMPLATE, _TEMPLATE).real)
    left = np.sqrt((1 - correlations**2).clip(0) * energy / 5)
    return np.asarray(left / abs(_TEMPLATE[1] - _TEMPLATE[0]))


def _correlations(faces: Points) -> NDArray[np.complex128]:
    """Return the complex correlation of landmarks (N, 5, 2) and template; its angle turns one onto
    the other.
    """
    points = _centred(faces)
    lengths = np.linalg.norm(points, axis=1).clip(SMALLEST) * np.linalg.norm(_TEMPLATE)
    found: NDArray[np.complex128] = points.conj() @ _TEMPLATE / lengths
    return found


def _centred(faces: Points) -> NDArray[np.complex128]:
    """Return landmarks (..., 5, 2) as complex numbers x + iy around their mean, (..., 5)."""
    points = faces[..., 0] + 1j * faces[..., 1]
    centred: NDArray[np.complex128] = points - points.mean(axis=-1, keepdims=True)
    return centred


_TEMPLATE = _centred(ARCFACE_TEMPLATE)
MOUTH_TO_EYES = float(abs((_TEMPLATE[4] - _TEMPLATE[3]) / (_TEMPLATE[1] - _TEMPLATE[0])))


def _wrong_shape(landmarks: Points) -> Mistake | None:
    """Return why landmarks, wherever they lie, are not those of a face; None if they may be."""
    (misfit,) = misfits(landmarks[None])
    if misfit > CLEARLY_BETTER and (mistake := _correctable(landmarks, misfit)):
        return mistake
    across, along = np.linalg.svd(landmarks - landmarks.mean(axis=0), compute_uv=False)[::-1]
    odd = misfit > NO_FACE or across < FLAT * along or _eyes_and_mouth(landmarks) > NOT_PARALLEL
    return NOT_A_FACE if odd else None


def _correctable(landmarks: Points, misfit: float) -> Mistake | None:
    """Return the mistake whose correction makes a clearly better face; None if none does.

    Left and right swapped, x and y swapped and y from the bottom all mirror a face: the one whose
    correction leaves it upright is taken, so that of a sideways face may be called by another
    name.
    """
    corrections = _corrections(landmarks)
    corrected = np.stack(list(corrections.values()))
    found = misfits(corrected)
    better = found < misfit - CLEARLY_BETTER
    if not better.any():
        return None
    # any five points come near a face in one of that many orders
    fits = better & (found <= np.array([1, 1, 1, LIKE_A_FACE, LIKE_A_FACE]))
    upright = np.abs(np.angle(_correlations(corrected))) <= np.pi / 4
    likely = fits & upright if (fits & upright).any() else fits
    if not likely.any():
        return NOT_A_FACE
    return list(corrections)[int(np.where(likely, found, np.inf).argmin())]


def _corrections(landmarks: Points) -> dict[Mistake, Points]:
    """Return what landmarks would be if a mistake were undone, by mistake."""
    reordered = landmarks[_ORDERS]
    return {
        SIDES_SWAPPED: landmarks[list(_SIDES)],
        AXES_SWAPPED: landmarks[:, ::-1],
        FROM_THE_BOTTOM: landmarks * (1, -1),
        NOT_IN_TURN: landmarks.reshape(2, 5).T,
        REORDERED: reordered[misfits(reordered).argmin()],
    }


def _eyes_and_mouth(landmarks: Points) -> float:
    """Return how far the line between the mouth's corners is from that between the eyes.

    They are parallel, and their lengths have one ratio, however a head is turned.

    Returns:
        length of the difference, the eyes' line at the template's ratio, over the landmarks' root
        sum of squares about their mean.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = _centred(landmarks)
    difference = right_mouth - left_mouth - MOUTH_TO_EYES * (right_eye - left_eye)
    return float(abs(difference) / np.linalg.norm(_centred(landmarks)))


def _wrong_place(
    landmarks: Points, box: Points | None, photo_size: tuple[int, int] | None
) -> Mistake | None:
    """Return why landmarks of a face's shape are not where the photo and the box allow them."""
    if photo_size is not None:
        if np.ptp(landmarks, axis=0).max() > PHOTO_EXTENT * max(photo_size):
            return TOO_LARGE
        inside = (landmarks >= -0.5) & (landmarks <= np.array(photo_size) - 0.5)
        if not inside.all(axis=1).any():
            return OUTSIDE
    return WRONG_BOX if box is not None and not _fits_box(landmarks, box) else None


def _fits_box(landmarks: Points, box: Points) -> bool:
    """Tell whether landmarks may be those of the face in a box, which may be cut in any way."""
    sides = box[2:] - box[:2]
    least, most = (share * sides.min() for share in BOX_EXTENT)
    offset = np.abs(landmarks.mean(axis=0) - (box[:2] + box[2:]) / 2)
    extent = np.ptp(landmarks, axis=0).max()
    return bool(least <= extent <= most and (offset <= BOX_OFFSET * sides).all())
