"""Hints: words for what may be wrong with a face, from its measures. No numpy, no torch.

Each threshold was chosen on half of the people of LFW so that about one clean face in a hundred
exceeds it; the one for noise was chosen on raw photos, which show more of the skin's texture.
benchmarks/hints.py measures them on the other half; docs/hints.md has the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]

SMALL_EYES = 24.0
"""Pixels between the eyes in the photo; the crop has 35, so the face was enlarged 1.5 times."""

BLURRED = 0.42
NOISY = 2.3
DARK = 0.07
OVEREXPOSED = 0.05
LOW_CONTRAST = 0.24
"""Contrast over brightness; the ratio does not depend on the amount of light."""

COMPRESSED = 0.4
TURNED, TILTED = 35.0, 20.0
CUT_OFF = 0.05
FLAT_PART, WEAK_PART = 0.38, -0.26

FACE_PATTERN, FACE_PATTERN_IN_DOUBT = 0.1, 0.2
DOUBTFUL_CONFIDENCE = 0.97
"""Detector's confidence that nearly all clean faces exceed."""

NORMS = {"sface": (7.2, 0.3, 9.6)}
"""By model: no face has both an embedding shorter than the first number and a `face_pattern` below
the second; one face in a hundred has an embedding shorter than the third."""


NO_FACE = "may not be a face"


def find_hints(row: Row, model: str = "") -> list[str]:
    """Return the hints for a face, the most important first; empty if none applies.

    Args:
        row: columns of a record; missing ones and None are ignored.
        model: name of the model that `embedding_norm` comes from; it is ignored for a model that is
            not in `NORMS`.
    """
    found = [hint for hint, applies in _TESTS.items() if applies(row)]
    if _no_face(row, model):
        found.insert(0, NO_FACE)
    elif _covered(row, model, explained=bool(found)):
        found.insert(0, "possibly covered")
    return [hint for hint in HINTS if hint in found]


def describe(hint: str, row: Row) -> str:
    """Return a sentence about a hint with the measures behind it.

    Args:
        hint: one of `HINTS`.
        row: columns of the record that it was found for.
    """
    values = {name: math.nan if value is None else value for name, value in row.items()}
    return HINTS[hint].format_map(values)


HINTS: Mapping[str, str] = {
    NO_FACE: (
        "It looks little like a face: the face pattern is {face_pattern:.2f}, most faces have more "
        "than 0.3."
    ),
    "cut by the edge": "{cut_off:.0%} of the face is beyond the photo's edge.",
    "possibly covered": (
        "Part of the face looks unusual (weakest pattern {weakest_part:.2f}, least contrast "
        "{flattest_part:.2f} of the whole), or the embedding is short without another reason."
    ),
    "small": (
        "{eye_distance:.0f} pixels between the eyes; the crop has 35, so the face was enlarged."
    ),
    "blurred": (
        "Sharpness is {sharpness:.2f}, sharp faces have more than 0.42: out of focus, moved, "
        "or enlarged."
    ),
    "noisy": "The noise is {noise:.1f} grey levels; clean photos have less than 2.3.",
    "dark": "The mean luminance is {brightness:.1%} of white; most faces have more than 7 %.",
    "overexposed": "{overexposed:.0%} of the face is white or nearly white.",
    "low contrast": (
        "Luminance varies by {contrast:.4f} around a mean of {brightness:.4f}: 24 % or less."
    ),
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
    if contrast is None or brightness is None:
        return False
    return bool(contrast <= LOW_CONTRAST * brightness)


_TESTS: Mapping[str, Callable[[Row], bool]] = {
    "cut by the edge": _above("cut_off", CUT_OFF),
    "small": _below("eye_distance", SMALL_EYES),
    "blurred": _below("sharpness", BLURRED),
    "noisy": _above("noise", NOISY),
    "dark": _below("brightness", DARK),
    "overexposed": _above("overexposed", OVEREXPOSED),
    "low contrast": _low_contrast,
    "compressed": _above("blockiness", COMPRESSED),
    "turned": _above("yaw", TURNED),
    "tilted": _above("roll", TILTED),
}


def _no_face(row: Row, model: str) -> bool:
    pattern, norm = row.get("face_pattern"), row.get("embedding_norm")
    # a face that is cut off shows too little of its pattern
    if pattern is None or _TESTS["cut by the edge"](row):
        return False
    if model in NORMS and norm is not None:
        shortest, least_pattern, _ = NORMS[model]
        return bool(norm < shortest and pattern < least_pattern)
    doubtful = _below("confidence", DOUBTFUL_CONFIDENCE)(row)
    return bool(pattern < (FACE_PATTERN_IN_DOUBT if doubtful else FACE_PATTERN))


def _covered(row: Row, model: str, *, explained: bool) -> bool:
    """Return whether a part looks unusual, or the embedding is short without another reason."""
    # parts beyond the edge or overexposed have no contrast anyway
    if _TESTS["cut by the edge"](row) or _TESTS["overexposed"](row):
        return False
    if _below("flattest_part", FLAT_PART)(row) or _below("weakest_part", WEAK_PART)(row):
        return True
    return not explained and model in NORMS and _below("embedding_norm", NORMS[model][2])(row)
