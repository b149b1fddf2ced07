"""Which faces count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.alignment import ARCFACE_TEMPLATE
from faceqan_toolkit.detection.choice import accept_faces, select_faces
from faceqan_toolkit.errors import FaceTooSmall, NoFace
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Face

PHOTO = (300, 200)


def face(x: float, y: float, size: float, confidence: float | None = 0.99) -> Face:
    box = np.array([x, y, x + size, y + 1.3 * size])
    landmarks = (x, y) + ARCFACE_TEMPLATE * (size / 112)
    return Face(box=box, landmarks=landmarks, confidence=confidence)


LARGE, MIDDLE, SURE = face(0, 0, 90, 0.95), face(125, 70, 50, 0.97), face(250, 10, 30, 0.999)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("largest", [0]), ("all", [0, 1, 2]), ("central", [1]), ("confident", [2])],
)
def test_policies(policy: str, expected: list[int]) -> None:
    chosen = select_faces([LARGE, MIDDLE, SURE], policy, PHOTO)
    assert [index for index, _ in chosen] == expected
    assert [found for _, found in chosen] == [[LARGE, MIDDLE, SURE][index] for index in expected]


@pytest.mark.parametrize("policy", ["central", "confident"])
def test_of_equals_the_first(policy: str) -> None:
    same = [face(10, 10, 40), face(10, 10, 40)]
    assert select_faces(same, policy, PHOTO)[0][0] == 0


faces = st.lists(
    st.builds(face, st.integers(0, 9), st.integers(0, 9), st.integers(1, 60), st.floats(0, 1)),
    max_size=8,
)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("largest", [0]), ("all", [0, 1, 2]), ("central", [0]), ("confident", [1])],
)
def test_impossible_faces_are_the_last(policy: str, expected: list[int]) -> None:
    """The largest, most confident and central face has left and right swapped."""
    huge = face(60, 10, 150, 1.0)
    mirrored = dataclasses.replace(huge, landmarks=huge.landmarks[[1, 0, 2, 4, 3]])
    chosen = select_faces([mirrored, MIDDLE, SURE], policy, PHOTO)
    assert [index for index, _ in chosen] == expected
    order = [MIDDLE, SURE, mirrored]
    assert all(found is order[index] for index, found in chosen)
    assert select_faces([mirrored], policy, PHOTO) == [(0, mirrored)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("largest", [1]), ("all", [0, 1, 2]), ("central", [1]), ("confident", [2])],
)
def test_doubtful_faces_are_chosen_only_without_another(policy: str, expected: list[int]) -> None:
    found = [LARGE, MIDDLE, SURE]
    chosen = select_faces(found, policy, PHOTO, doubtful=lambda one: one is LARGE)
    assert [index for index, _ in chosen] == expected
    doubted = select_faces(found, policy, PHOTO, doubtful=lambda _: True)
    assert doubted == select_faces(found, policy, PHOTO)


@given(faces, st.randoms())
def test_acceptance_does_not_depend_on_order(found: list[Face], random) -> None:
    def accepted(candidates: list[Face]) -> list[list[float]] | str:
        try:
            result = accept_faces(candidates, Settings())
        except (NoFace, FaceTooSmall) as error:
            return str(error)
        assert all(one.confidence >= 0.9 and one.size >= 20 for one in result)
        assert [one.size for one in result] == sorted((one.size for one in result), reverse=True)
        return [one.box.tolist() for one in result]

    shuffled = found.copy()
    random.shuffle(shuffled)
    assert accepted(found) == accepted(shuffled)


def test_reasons() -> None:
    with pytest.raises(NoFace, match=r"^no face found$"):
        accept_faces([], Settings())
    with pytest.raises(NoFace, match=r"has 0\.80"):
        accept_faces([face(0, 0, 50, 0.8)], Settings())
    with pytest.raises(FaceTooSmall, match="has 12 pixels"):
        accept_faces([face(0, 0, 12), face(0, 0, 90, 0.1)], Settings())


def test_a_face_without_confidence_passes() -> None:
    assert accept_faces([face(0, 0, 50, None)], Settings(min_confidence=1.0))
