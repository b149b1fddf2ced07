"""Choice of a photo's faces: confident and large enough, then by a policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from faceqan_toolkit.errors import FaceTooSmall, NoFace
from faceqan_toolkit.geometry import find_mistake
from faceqan_toolkit.settings import DetectionSettings
from faceqan_toolkit.text import down_text, exact_text
from faceqan_toolkit.types import Face


def best_confidence(faces: Iterable[Face]) -> float:
    """Return the highest confidence among faces; 0 for none, 1 for a face that has no value."""
    return max(map(_confidence, faces), default=0.0)


def accept_faces(found: list[Face], settings: DetectionSettings) -> list[Face]:
    """Return the faces that are confident and large enough, largest first, equals by position.

    Raises:
        NoFace: none is confident enough, or there is none.
        FaceTooSmall: all confident ones are smaller than `min_face`.
    """
    confident = [face for face in found if _confidence(face) >= settings.min_confidence]
    if not confident:
        reason = "no face found"
        if found:
            reason += (
                " with enough confidence: the best candidate has "
                f"{down_text(best_confidence(found), 2)}, "
                f"--min-confidence is {exact_text(settings.min_confidence)}"
            )
        raise NoFace(reason)
    large = [face for face in confident if face.size >= settings.min_face]
    if not large:
        largest = max(face.size for face in confident)
        raise FaceTooSmall(
            f"the largest face has {down_text(largest, 0)} pixels, "
            f"--min-face is {settings.min_face}"
        )
    return sorted(large, key=lambda face: (-face.size, *face.box))


def select_faces(
    faces: list[Face],
    policy: str,
    size: tuple[int, int],
    *,
    doubtful: Callable[[Face], bool] = lambda _: False,
) -> list[tuple[int, Face]]:
    """Return the faces that a policy chooses, each with its index.

    Faces with impossible landmarks (`geometry.find_mistake`) come last. Policies other than "all"
    choose them only if the photo has no other face, and doubtful faces only if it has no better
    one.

    Args:
        faces: faces of one photo, largest first, at least one.
        policy: "largest", "all", "central" (box centre nearest to the photo's) or "confident";
            the larger of equal ones.
        size: width and height of the photo.
        doubtful: whether a detection may be a false positive; called only if there is a choice.
    """
    possible: list[Face] = []
    impossible: list[Face] = []
    for face in faces:
        mistake = find_mistake(face.landmarks, face.box, size)
        (impossible if mistake else possible).append(face)
    numbered = list(enumerate(possible + impossible))
    if policy == "all":
        return numbered
    centre_x, centre_y = ((side - 1) / 2 for side in size)

    def preference(item: tuple[int, Face]) -> float:
        face = item[1]
        if policy == "largest":
            return 0.0  # faces are sorted by size
        if policy == "confident":
            return -_confidence(face)
        x1, y1, x2, y2 = face.box
        return math.hypot((x1 + x2) / 2 - centre_x, (y1 + y2) / 2 - centre_y)

    best = sorted(numbered[: len(possible)] or numbered, key=preference)
    if len(best) == 1:
        return best
    return [next((item for item in best if not doubtful(item[1])), best[0])]


def _confidence(face: Face) -> float:
    return 1.0 if face.confidence is None else face.confidence
