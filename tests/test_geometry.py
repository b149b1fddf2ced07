"""Impossible landmarks: simulated faces from all sides are none, and every mistake is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from faceqan_toolkit import geometry
from faceqan_toolkit.alignment import ARCFACE_TEMPLATE, estimate_transform
from faceqan_toolkit.geometry import Mistake, find_mistake, misfits

WIDTH, HEIGHT = 1200, 800

Points = NDArray[np.float64]

# millimetres: right, down, towards the viewer; rough figures of a grown-up's head
HEAD = np.array(
    [[-31.0, -38, 0], [31, -38, 0], [0, 0, 28], [-25, 33, 5], [25, 33, 5]], dtype=np.float64
)


@st.composite
def faces(draw: st.DrawFn, turned: float = 60, roll: float = 30) -> Points:
    """Return a head seen from somewhere, in a photo of 1200x800, with inexact landmarks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    yaw, pitch, tilt = np.radians(
        [draw(st.floats(-turned, turned)), draw(st.floats(-25, 25)), draw(st.floats(-roll, roll))]
    )
    sideways = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nodding = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    leaning = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    seen = (HEAD @ sideways.T @ nodding.T)[:, :2] + rng.normal(0, 1, (5, 2))
    size = draw(st.floats(0.3, 4))
    place = (draw(st.floats(100, WIDTH - 100)), draw(st.floats(100, HEIGHT - 100)))
    return size * seen @ leaning.T + place


def box_of(landmarks: Points) -> Points:
    """Return a box around landmarks as detectors draw it."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    margin = (high - low).max() * 0.5
    return np.concatenate([low - margin, high + margin])


@settings(deadline=None)
@given(faces(turned=75, roll=180))
def test_faces_from_all_sides_are_possible(landmarks: Points) -> None:
    assert find_mistake(landmarks) is None
    assert find_mistake(landmarks, box_of(landmarks), (WIDTH, HEIGHT)) is None


MISTAKES: dict[str, tuple[Mistake, Callable[[Points], Points]]] = {
    "sides": (geometry.SIDES_SWAPPED, lambda points: points[[1, 0, 2, 4, 3]]),
    "mirrored photo": (geometry.SIDES_SWAPPED, lambda points: (WIDTH - 1, 0) + points * (-1, 1)),
    "x and y": (geometry.AXES_SWAPPED, lambda points: points[:, ::-1]),
    "y from the bottom": (
        geometry.FROM_THE_BOTTOM,
        lambda points: (0, HEIGHT - 1) + points * (1, -1),
    ),
    "0..1": (geometry.FRACTIONS, lambda points: points / (WIDTH, HEIGHT)),
    "0..1, from the bottom": (geometry.FRACTIONS, lambda points: 1 - points / (WIDTH, HEIGHT)),
    "mouth first": (geometry.REORDERED, lambda points: points[[3, 4, 2, 0, 1]]),
    "nose first": (geometry.REORDERED, lambda points: points[[2, 0, 1, 3, 4]]),
    "nose last": (geometry.REORDERED, lambda points: points[[0, 1, 3, 4, 2]]),
    "mouth's corners": (geometry.REORDERED, lambda points: points[[0, 1, 2, 4, 3]]),
    "all x, then all y": (geometry.NOT_IN_TURN, lambda points: points.T.reshape(5, 2)),
    "x twice": (geometry.NOT_A_FACE, lambda points: points[:, [0, 0]]),
    "an eye missing": (geometry.NOT_A_FACE, lambda points: points * [[0], [1], [1], [1], [1]]),
    "one column too early": (
        geometry.NOT_A_FACE,
        lambda points: np.append(points.ravel()[1:], 0.98).reshape(5, 2),
    ),
    "mouth's centre twice": (
        geometry.NOT_A_FACE,
        lambda points: np.array([*points[:3], *2 * [points[3:].mean(axis=0)]]),
    ),
    "another photo's size": (geometry.TOO_LARGE, lambda points: 1000 * points),
    "elsewhere": (geometry.OUTSIDE, lambda points: np.add(points, (0, 2000))),
}

OFTEN_UNCLEAR = {"y from the bottom", "mouth first"}
"""Either turns a face upside down and mirrors it."""


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_found(name: str) -> None:
    """No face with a mistake is accepted, and nearly all get the right one."""
    mistake, spoil = MISTAKES[name]
    wrong: list[Mistake | None] = []

    @settings(deadline=None, max_examples=40, derandomize=True, database=None)
    @given(faces(turned=35))
    def spoilt(landmarks: Points) -> None:
        found = find_mistake(spoil(landmarks), None, (WIDTH, HEIGHT))
        assert found is not None
        if found is not mistake:
            wrong.append(found)

    spoilt()
    if name in OFTEN_UNCLEAR:
        assert set(wrong) <= {geometry.REORDERED, geometry.FROM_THE_BOTTOM}
    assert len(wrong) <= (20 if name in OFTEN_UNCLEAR else 2)


@pytest.mark.parametrize(
    ("points", "mistake"),
    [
        (np.full((5, 2), np.nan), geometry.NOT_FINITE),
        (ARCFACE_TEMPLATE * [[1], [1], [np.inf], [1], [1]], geometry.NOT_FINITE),
        (np.full((5, 2), 7.0), geometry.COINCIDENT),
        (ARCFACE_TEMPLATE * 1e300, geometry.OUTSIDE),
    ],
)
def test_points_that_are_none(points: Points, mistake: Mistake) -> None:
    assert find_mistake(points) is mistake


def test_a_correction_may_leave_one_point() -> None:
    """All x, then all y: a face whose five x are one number, and its five y another."""
    with np.errstate(all="raise"):
        find_mistake(np.array([[0.0, 0], [0, 0], [0, 9], [9, 9], [9, 9]]))


BOX = np.array([0.0, 0, 112, 130])


@pytest.mark.parametrize(
    ("box", "fits"),
    [
        (BOX, True),
        (BOX - (60, 60, -60, -60), True),
        (np.array([20.0, 30, 90, 110]), True),
        (np.array([-100.0, 0, 212, 900]), True),
        (BOX + 500, False),
        (BOX / 40, False),
        (BOX * 40, False),
        (np.array([500.0, 400, 112, 130]), False),
    ],
)
def test_boxes(box: Points, fits: bool) -> None:
    """A face's box may be cut in any way, but not lie elsewhere or be another scale's."""
    found = find_mistake(ARCFACE_TEMPLATE, box, (1000, 1000))
    assert found is (None if fits else geometry.WRONG_BOX)


@pytest.mark.parametrize("moved", [(0, 0), (-60, 0), (50, 0), (0, 40)])
def test_faces_cut_off_by_the_edge(moved: tuple[float, float]) -> None:
    """One landmark in the photo is enough."""
    assert find_mistake(ARCFACE_TEMPLATE + moved, None, (112, 112)) is None


@settings(deadline=None)
@given(faces(turned=90, roll=180))
def test_misfit_is_what_the_transform_leaves(landmarks: Points) -> None:
    matrix = estimate_transform(landmarks)
    left = landmarks @ matrix[:, :2].T + matrix[:, 2] - ARCFACE_TEMPLATE
    eyes = np.linalg.norm(ARCFACE_TEMPLATE[1] - ARCFACE_TEMPLATE[0])
    expected = np.sqrt((left**2).sum(axis=1).mean()) / eyes
    np.testing.assert_allclose(misfits(landmarks[None]), expected, atol=1e-9)


def test_every_mistake_is_listed_once() -> None:
    defined = [value for value in vars(geometry).values() if isinstance(value, Mistake)]
    assert sorted(map(repr, geometry.MISTAKES)) == sorted(map(repr, defined))
    reasons = {mistake.reason for mistake in geometry.MISTAKES}
    assert len(reasons) == len(geometry.MISTAKES)
