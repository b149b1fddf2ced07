"""Measures of a face besides its score (light, focus, pose, position), and hints from them.

No model is needed. Pixels are measured on the aligned crop, within `FACE_REGION`. Some measures are
components of ISO/IEC 29794-5:2025, "Face image data". They follow its open implementation OFIQ
(BSI-OFIQ/OFIQ-Project) as far as five landmarks and a crop of 112 pixels allow. None is a
conformant ISO measurement: the standard's face region comes from 98 landmarks and an occlusion
mask, on a crop of 616 pixels.

Each hint's threshold was chosen on half of the people of LFW so that about one clean face in a
hundred exceeds it; the one for noise was chosen on raw photos, which show more of the skin's
texture. benchmarks/hints.py measures them on the other half; docs/hints.md has the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.alignment import ARCFACE_SIZE, footprint
from faceqan_toolkit.types import AlignedCrop, Photo, Pixels

FloatImage = NDArray[np.float32]
Row = Mapping[str, Any]


def _ellipse(centre: tuple[float, float], half_axes: tuple[float, float]) -> NDArray[np.bool_]:
    y, x = np.mgrid[:ARCFACE_SIZE, :ARCFACE_SIZE]
    (cx, cy), (a, b) = centre, half_axes
    inside: NDArray[np.bool_] = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1
    return inside


FACE_REGION = _ellipse((55.5, 74.0), (33.0, 36.0))
"""Brows to chin in the crop: the convex hull of OFIQ's landmarks in a frontal face."""

WHOLE_FACE = _ellipse((55.5, 64.0), (42.0, 54.0))
"""Forehead to chin and ear to ear, for `cut_off`."""

UNDEREXPOSED, OVEREXPOSED = 25, 247
"""Highest luminance of an underexposed pixel, lowest of an overexposed one, of 255 (OFIQ)."""

REBLUR_TAPS = 9
"""Length of the mean filter of `sharpness`, pixels."""

NOISE_WINDOW = 8
"""Side of the windows over which noise is averaged, pixels of the crop."""

NOSE_DEPTH = 0.75
"""Height of the tip of the nose above the plane of eyes and mouth corners, relative to half the eye
distance: about 24 mm to 32 mm in a generic head."""

BLOCK = 8
"""Side of a JPEG block, pixels."""

BLOCKINESS_SIDE = 256
"""Largest side of the region around the face that `blockiness` is measured on, pixels."""

FEATURE_BLUR = 2.0
"""Sigma of the Gaussian blur before `pattern`, pixels."""

GREY_FLOOR = 2.0
"""Standard deviation below which a part of a face counts as plain, grey levels."""

NO_FACE = "may not be a face"

NORMS = {"sface": (7.2, 0.3, 9.6)}
"""By model: no face has both an embedding shorter than the first number and a `face_pattern` below
the second; one face in a hundred has an embedding shorter than the third."""


@dataclass(frozen=True)
class Measures:
    """Measures of one face; None if they need the face's position in a photo and it is unknown.

    See `sharpness`, `noise`, `light`, `pattern`, `pose`, `cut_off` and `blockiness`; blockiness is
    also None for a photo that was decoded at a reduced size, where JPEG blocks are invisible.
    """

    sharpness: float
    noise: float
    brightness: float
    contrast: float
    underexposed: float
    overexposed: float
    face_pattern: float
    weakest_part: float
    flattest_part: float
    eye_distance: float | None = None
    yaw: float | None = None
    roll: float | None = None
    cut_off: float | None = None
    blockiness: float | None = None


def measure(crop: Pixels, photo: Photo, aligned: AlignedCrop | None) -> Measures:
    """Return all measures of a face.

    Args:
        crop: (S, S, 3) uint8, RGB, aligned; resized if S is not 112.
        photo: the photo it was cut from, or the crop's own file.
        aligned: the alignment; None if the file is a crop.
    """
    if crop.shape[:2] != (ARCFACE_SIZE, ARCFACE_SIZE):
        size = (ARCFACE_SIZE, ARCFACE_SIZE)
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    of_crop = (sharpness(grey), noise(grey), *light(crop), *pattern(grey))
    if aligned is None:
        return Measures(*of_crop, blockiness=blockiness(photo.pixels))
    around = None
    if photo.reduction == 1:
        around = blockiness(_around(photo.pixels, footprint(aligned.transform)))
    beyond = cut_off(aligned.transform, photo.size)
    return Measures(*of_crop, *pose(aligned.face.landmarks), beyond, around)


def luminance(pixels: Pixels) -> FloatImage:
    """Return (H, W) float32 luminance in 0..255, linear in light.

    Source: sRGB's transfer function and the weights of ITU-R BT.709, as in OFIQ.
    """
    values = np.arange(256) / 255
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    weighted = 255 * np.outer((0.2126, 0.7152, 0.0722), linear).astype(np.float32)
    red, green, blue = (weighted[n][pixels[..., n]] for n in range(3))
    return np.asarray(red + green + blue, np.float32)


def light(crop: Pixels) -> tuple[float, float, float, float]:
    """Return the light of a crop, (112, 112, 3) uint8, RGB.

    Returns:
        brightness: mean luminance in [0, 1], linear in light. ISO/IEC 29794-5 "luminance mean".
        contrast: standard deviation of luminance in [0, 0.5]; the square root of ISO/IEC
            29794-5 "luminance variance".
        underexposed: share of pixels, in [0, 1], with a luminance of at most 25 of 255. ISO/IEC
            29794-5 "under-exposure prevention"; no mask takes out hair or glasses here.
        overexposed: share of pixels with at least 247 of 255. ISO/IEC 29794-5 "over-exposure
            prevention", with the same difference.
    """
    # OFIQ rounds luminance to 8 bits
    values = np.rint(luminance(crop)[FACE_REGION])
    under, over = values <= UNDEREXPOSED, values >= OVEREXPOSED
    return (
        float(values.mean() / 255), float(values.std() / 255),
        float(under.mean()), float(over.mean()),
    )  # fmt: skip


def sharpness(grey: FloatImage) -> float:
    """Return the share of a grey crop's detail that another blur removes, in [0, 1].

    Detail is the sum of absolute differences between neighbours. A mean filter of 9 pixels is
    applied along rows, and along columns; the smaller share of the two counts, so that motion blur
    in one direction lowers it. Light and contrast do not matter. Noise counts as detail.

    Source: F. Crete, T. Dolmiere, P. Ladret, M. Nicolas, "The blur effect", SPIE 2007; this is
    1 - blur. ISO/IEC 29794-5 "sharpness" is a trained forest over filter responses instead.
    """
    shares = []
    for axis in (0, 1):
        size = (1, REBLUR_TAPS) if axis == 0 else (REBLUR_TAPS, 1)
        again = cv2.blur(grey, size, borderType=cv2.BORDER_REFLECT)
        before, after = (np.abs(np.diff(image, axis=axis)) for image in (grey, again))
        region = FACE_REGION[1:] if axis == 0 else FACE_REGION[:, 1:]
        before, after = before[region], after[region]
        total, lost = float(before.sum()), float(np.maximum(before - after, 0).sum())
        shares.append(lost / total if total > 0 else 0.0)
    return min(shares)


def noise(grey: FloatImage) -> float:
    """Return the standard deviation of the noise in a grey crop, in levels of 0..255, slightly low.

    Noise is everywhere, texture is not: the 5th percentile over all windows of 8 pixels is taken.

    Source: J. Immerkaer, "Fast noise variance estimation", CVIU 1996: a filter that suppresses
    smooth surfaces; the choice of windows is ours. ISO/IEC 29794-5 has no such measure.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    answers = np.abs(cv2.filter2D(grey, -1, kernel, borderType=cv2.BORDER_REFLECT))
    means = cv2.blur(answers, (NOISE_WINDOW, NOISE_WINDOW))[FACE_REGION]
    # the filter multiplies the noise's deviation by 6; the mean of |x| is sqrt(2 / pi) deviations
    return float(np.percentile(means, 5) / 6 * math.sqrt(math.pi / 2))


def _features() -> FloatImage:
    """Return a template of dark eyes, brows, nostrils and mouth and a bright nose.

    It is a sum of Gaussians: centre x y, widths x y, height.
    """
    right = (
        (73.5, 52.0, 7.0, 3.0, -1.0),  # eye
        (72.0, 44.0, 9.0, 3.5, -0.7),  # brow
        (65.0, 44.0, 4.0, 5.0, -0.4),  # hollow between eye and nose
        (92.0, 52.0, 5.0, 12.0, -0.6),  # temple
        (68.0, 74.0, 3.0, 4.0, -0.3),  # nostril's wing
        (78.0, 70.0, 7.0, 6.0, 0.4),  # cheek
        (69.0, 92.0, 4.0, 2.5, -0.7),  # corner of the mouth
    )
    middle = (
        (55.5, 58.0, 4.0, 12.0, 0.6),  # bridge of the nose
        (55.5, 69.0, 5.0, 4.0, 0.4),  # its tip
        (55.5, 76.0, 9.0, 3.0, -0.7),  # its lower edge
        (55.5, 89.0, 12.0, 2.5, -0.8),  # between the lips
        (55.5, 102.0, 9.0, 2.5, -0.3),  # below the lower lip
    )
    left = tuple((ARCFACE_SIZE - 1 - x, y, sx, sy, height) for x, y, sx, sy, height in right)
    y, x = np.mgrid[:ARCFACE_SIZE, :ARCFACE_SIZE].astype(np.float32)
    total: FloatImage = np.zeros_like(x)
    for cx, cy, sx, sy, height in (*left, *middle, *right):
        total += height * np.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2) / 2)
    return total


FACE_FEATURES = _features()

PARTS = {
    "left eye": (slice(36, 68), slice(20, 55)),
    "right eye": (slice(36, 68), slice(57, 92)),
    "nose": (slice(58, 88), slice(34, 78)),
    "mouth": (slice(78, 106), slice(32, 80)),
}
"""Rows and columns of each part of the face in the crop."""


def pattern(grey: FloatImage) -> tuple[float, float, float]:
    """Return the similarity of a grey crop, in 0..255, to a template of a face.

    Returns:
        face_pattern: mean over `PARTS` of the correlation between grey values and
            `FACE_FEATURES`, in [-1, 1]; about 0 for a part without contrast.
        weakest_part: the lowest of those correlations, in [-1, 1].
        flattest_part: the lowest standard deviation of a part's grey values, relative to that of
            `FACE_REGION`, 0 or more. Coverings are often plain.

    All three are rough, since they use no network. That a few coarse relations of dark and bright
    make a face is P. Sinha's idea (qualitative face templates, 1994); our template was drawn by
    hand. ISO/IEC 29794-5 "face occlusion prevention" uses a segmentation network instead.
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), FEATURE_BLUR)
    correlations, deviations = [], []
    for window in PARTS.values():
        seen, expected = (image[window].astype(np.float64) for image in (smooth, FACE_FEATURES))
        deviation = float(seen.std())
        covariance = float((seen * (expected - expected.mean())).mean())
        correlations.append(covariance / max(deviation, GREY_FLOOR) / float(expected.std()))
        deviations.append(deviation)
    whole = max(float(smooth[FACE_REGION].std()), GREY_FLOOR)
    return float(np.mean(correlations)), min(correlations), min(deviations) / whole


def pose(landmarks: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the pose of a face from its landmarks, (5, 2) x y in pixels of the photo.

    Returns:
        eye_distance: distance between the eyes in pixels of the photo, divided by the cosine of
            yaw (up to 60 degrees) to compensate for turning. ISO/IEC 29794-5 "inter-eye distance",
            with detected eye centres instead of midpoints of eye corners.
        yaw: degrees in (-90, 90); 0 is frontal, positive when the nose points to the right of the
            image. Computed from the distance of the nose to the line between the midpoints of eyes
            and mouth; rough, since the head's shape is unknown. ISO/IEC 29794-5 "head pose" fits a
            model of the head instead.
        roll: degrees in (-180, 180]; 0 when the eyes are level, positive when the face is turned
            clockwise. ISO/IEC 29794-5 "head pose", roll.
    """
    left_eye, right_eye, nose, left_mouth, right_mouth = landmarks
    between = right_eye - left_eye
    seen = math.hypot(*between)
    down = (left_mouth + right_mouth) / 2 - (left_eye + right_eye) / 2
    length = math.hypot(*down)
    roll = math.degrees(math.atan2(between[1], between[0]))
    if seen == 0 or length == 0:
        return seen, 0.0, roll
    across = np.array([down[1], -down[0]]) / length
    half = abs(float(between @ across)) / 2
    beside = float((nose - (left_eye + right_eye) / 2) @ across)
    # on turning, half the eye distance shrinks with the cosine, the nose moves with the sine
    yaw = math.degrees(math.atan2(beside, half * NOSE_DEPTH))
    return seen / max(math.cos(math.radians(yaw)), 0.5), yaw, roll


def cut_off(transform: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Return the share of `WHOLE_FACE`, in [0, 1], that is beyond the photo's edges.

    `transform`, (2, 3), maps the photo to the crop; `size` is the photo's width and height, pixels.
    ISO/IEC 29794-5 "crop of the face image" gives the distances to the four edges instead.
    """
    y, x = np.nonzero(WHOLE_FACE)
    inverse = cv2.invertAffineTransform(transform)
    points = np.stack([x, y], axis=1) @ inverse[:, :2].T + inverse[:, 2]
    inside = ((points >= -0.5) & (points <= np.array(size) - 0.5)).all(axis=1)
    return float(1 - inside.mean())


def blockiness(pixels: Pixels) -> float | None:
    """Return the excess strength of edges between JPEG blocks over all edges.

    The mean absolute difference of neighbours across a grid of 8 pixels, divided by the mean over
    all neighbours, minus one. The strongest of the eight positions of the grid counts, and the
    weaker of rows and columns.

    Args:
        pixels: (H, W, 3) uint8, as decoded; resizing would hide the grid.

    Returns:
        0 or more; None below 32 pixels a side, where the grid cannot be told from chance.

    Source: the idea is that of Z. Wang, H. Sheikh, A. Bovik, "No-reference perceptual quality
    assessment of JPEG compressed images", ICIP 2002. ISO/IEC 29794-5 "compression artifacts" is a
    trained network instead.
    """
    if min(pixels.shape[:2]) < 4 * BLOCK:
        return None
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    found = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
        mean = float(steps.mean())
        if mean == 0:
            return 0.0
        found.append(max(float(steps[start::BLOCK].mean()) for start in range(BLOCK)) / mean - 1)
    return min(found)


def _around(pixels: Pixels, box: NDArray[np.float64]) -> Pixels:
    """Return a photo's pixels within a box, at most `BLOCKINESS_SIDE` around its centre."""
    sides = []
    for low, high, side in ((box[1], box[3], len(pixels)), (box[0], box[2], pixels.shape[1])):
        middle, half = (low + high) / 2, min((high - low) / 2, BLOCKINESS_SIDE / 2)
        sides.append(slice(max(0, math.floor(middle - half)), min(side, math.ceil(middle + half))))
    return pixels[sides[0], sides[1]]


# hints


def find_hints(row: Row, model: str = "") -> list[str]:
    """Return the hints for a face, the most important first; empty if none applies.

    Args:
        row: columns of a record; missing ones and None are ignored.
        model: name of the model that `embedding_norm` comes from, which is ignored for a model that
            is not in `NORMS`.
    """
    found = [hint for hint, applies in _TESTS.items() if applies(row)]
    if _no_face(row, model):
        found.insert(0, NO_FACE)
    elif _covered(row, model, explained=bool(found)):
        found.insert(0, "possibly covered")
    return [hint for hint in HINTS if hint in found]


def describe(hint: str, row: Row) -> str:
    """Return a sentence about one of `HINTS`, with a record's measures behind it."""
    values = {name: math.nan if value is None else value for name, value in row.items()}
    return HINTS[hint].format_map(values)


HINTS: Mapping[str, str] = {
    NO_FACE: "It looks little like a face: the face pattern is {face_pattern:.2f}, most faces have "
    "more than 0.3.",
    "cut by the edge": "{cut_off:.0%} of the face is beyond the photo's edge.",
    "possibly covered": "Part of the face looks unusual (weakest pattern {weakest_part:.2f}, least "
    "contrast {flattest_part:.2f} of the whole), or the embedding is short without another reason.",
    "small": "{eye_distance:.0f} pixels between the eyes; the crop has 35, so the face was "
    "enlarged.",
    "blurred": "Sharpness is {sharpness:.2f}, sharp faces have more than 0.42: out of focus, "
    "moved, or enlarged.",
    "noisy": "The noise is {noise:.1f} grey levels; clean photos have less than 2.3.",
    "dark": "The mean luminance is {brightness:.1%} of white; most faces have more than 7 %.",
    "overexposed": "{overexposed:.0%} of the face is white or nearly white.",
    "low contrast": "Luminance varies by {contrast:.4f} around a mean of {brightness:.4f}: 24 % or "
    "less.",
    "compressed": "Edges between JPEG blocks are {blockiness:.0%} stronger than other edges.",
    "turned": "The head is turned by about {yaw:.0f} degrees (above 0: to the image's right).",
    "tilted": "The head is tilted by {roll:.0f} degrees (above 0: clockwise).",
}
"""All hints, the most important first, with their sentences."""


def _below(column: str, limit: float) -> Callable[[Row], bool]:
    return lambda row: row.get(column) is not None and row[column] < limit


def _above(column: str, limit: float) -> Callable[[Row], bool]:
    return lambda row: row.get(column) is not None and abs(row[column]) > limit


def _low_contrast(row: Row) -> bool:
    contrast, brightness = row.get("contrast"), row.get("brightness")
    # their ratio does not depend on the amount of light
    return contrast is not None and brightness is not None and contrast <= 0.24 * brightness


_TESTS: Mapping[str, Callable[[Row], bool]] = {
    "cut by the edge": _above("cut_off", 0.05),
    "small": _below("eye_distance", 24),  # the crop has 35: the face was enlarged 1.5 times
    "blurred": _below("sharpness", 0.42),
    "noisy": _above("noise", 2.3),
    "dark": _below("brightness", 0.07),
    "overexposed": _above("overexposed", 0.05),
    "low contrast": _low_contrast,
    "compressed": _above("blockiness", 0.4),
    "turned": _above("yaw", 35),
    "tilted": _above("roll", 20),
}


def _no_face(row: Row, model: str) -> bool:
    pattern, norm = row.get("face_pattern"), row.get("embedding_norm")
    # a face that is cut off shows too little of its pattern
    if pattern is None or _TESTS["cut by the edge"](row):
        return False
    if model in NORMS and norm is not None:
        shortest, least_pattern, _ = NORMS[model]
        return bool(norm < shortest and pattern < least_pattern)
    # nearly all clean faces exceed this confidence of the detector
    return bool(pattern < (0.2 if _below("confidence", 0.97)(row) else 0.1))


def _covered(row: Row, model: str, *, explained: bool) -> bool:
    """Return whether a part looks unusual, or the embedding is short without another reason."""
    # parts beyond the edge or overexposed have no contrast anyway
    if _TESTS["cut by the edge"](row) or _TESTS["overexposed"](row):
        return False
    if _below("flattest_part", 0.38)(row) or _below("weakest_part", -0.26)(row):
        return True
    return not explained and model in NORMS and _below("embedding_norm", NORMS[model][2])(row)
