"""Hints on damaged crops, and each threshold from both sides."""

from __future__ import annotations

import re
from dataclasses import MISSING, asdict, fields
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.quality.hints import HINTS, describe, find_hints
from faceqan_toolkit.quality.measures import Measures, measure
from faceqan_toolkit.quality.norm import EmbeddingNorm
from faceqan_toolkit.types import Pixels, Record
from tests.conftest import DATA, photo_of, read_rgb

GOOD: dict[str, Any] = {
    "sharpness": 0.55, "noise": 1.0, "brightness": 0.25, "contrast": 0.12, "underexposed": 0.1,
    "overexposed": 0.0, "face_pattern": 0.5, "weakest_part": 0.2, "flattest_part": 0.7,
    "eye_distance": 45.0, "yaw": -10.0, "roll": 2.0, "cut_off": 0.0, "blockiness": 0.1,
    "embedding_norm": 12.0, "confidence": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def scorer() -> EmbeddingNorm:
    return EmbeddingNorm(device="cpu")


def hints_of(crop: Pixels) -> list[str]:
    return find_hints(asdict(measure(crop, photo_of(crop), None)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("astronaut", set()),
        ("astronaut_blur3", {"blurred"}),
        ("astronaut_dark", {"dark"}),
        ("astronaut_occluded", {"possibly covered"}),
        ("grey", {"may not be a face", "blurred", "low contrast"}),
    ],
)
def test_crops_of_the_tests(name: str, expected: set[str], scorer: EmbeddingNorm) -> None:
    crop = read_rgb(DATA / f"{name}.png")
    (score,) = scorer.score([crop])
    row = asdict(measure(crop, photo_of(crop), None)) | {"embedding_norm": score.embedding_norm}
    assert set(find_hints(row, "sface")) == expected


def test_damage_done_here(crop: Pixels) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(crop + rng.normal(0, 20, crop.shape), 0, 255).astype(np.uint8)
    assert "noisy" in hints_of(noisy)
    assert "overexposed" in hints_of(np.minimum(crop.astype(int) * 2, 255).astype(np.uint8))
    assert "low contrast" in hints_of((0.2 * crop + 100).astype(np.uint8))
    _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 8])
    assert "compressed" in hints_of(cv2.imdecode(data, cv2.IMREAD_COLOR))


@pytest.mark.parametrize(
    ("hint", "column", "within", "beyond"),
    [
        ("cut by the edge", "cut_off", 0.04, 0.06),
        ("possibly covered", "flattest_part", 0.39, 0.37),
        ("possibly covered", "weakest_part", -0.25, -0.27),
        ("small", "eye_distance", 24.5, 23.5),
        ("blurred", "sharpness", 0.43, 0.41),
        ("noisy", "noise", 2.2, 2.4),
        ("dark", "brightness", 0.071, 0.069),
        ("overexposed", "overexposed", 0.04, 0.06),
        ("low contrast", "contrast", 0.061, 0.059),
        ("compressed", "blockiness", 0.39, 0.41),
        ("turned", "yaw", 34.0, 36.0),
        ("turned", "yaw", -34.0, -36.0),
        ("tilted", "roll", 19.0, 21.0),
        ("tilted", "roll", -19.0, -90.0),
        ("may not be a face", "face_pattern", 0.11, 0.09),
    ],
)
def test_thresholds(hint: str, column: str, within: float, beyond: float) -> None:
    assert find_hints(GOOD | {column: within}) == []
    assert find_hints(GOOD | {column: beyond}) == [hint]


def test_the_embedding_speaks_only_for_models_that_are_known() -> None:
    short = GOOD | {"embedding_norm": 6.0, "face_pattern": 0.2}
    assert find_hints(short, "sface") == ["may not be a face"]
    assert find_hints(short, "another") == []
    # a long embedding outweighs an odd pattern
    assert find_hints(GOOD | {"face_pattern": 0.05}, "sface") == []


def test_a_short_embedding_that_nothing_explains() -> None:
    assert find_hints(GOOD | {"embedding_norm": 9.0}, "sface") == ["possibly covered"]
    assert find_hints(GOOD | {"embedding_norm": 9.0, "sharpness": 0.3}, "sface") == ["blurred"]


def test_an_unsure_detector_asks_for_more_of_a_face() -> None:
    assert find_hints(GOOD | {"face_pattern": 0.15}) == []
    assert find_hints(GOOD | {"face_pattern": 0.15, "confidence": 0.92}) == ["may not be a face"]


def test_what_lies_beyond_the_edge_is_not_called_covered() -> None:
    row = GOOD | {"cut_off": 0.3, "flattest_part": 0.0, "face_pattern": 0.0}
    assert find_hints(row, "sface") == ["cut by the edge"]


def test_nothing_known_nothing_said() -> None:
    assert find_hints({}) == []
    assert find_hints(dict.fromkeys(GOOD), "sface") == []


@given(
    st.fixed_dictionaries(
        {
            # what is measured of the crop is always known
            field.name: st.floats(-2, 2) | st.floats(-200, 200)
            if field.default is MISSING
            else st.none() | st.floats(-200, 200)
            for field in fields(Measures)
        }
        | {"embedding_norm": st.none() | st.floats(0, 20)}
    )
)
def test_every_hint_can_be_told(row: dict[str, float | None]) -> None:
    found = find_hints(row, "sface")
    assert found == [hint for hint in HINTS if hint in found]
    record = Record(path="a", root="/", face=0, status="ok", **row).to_dict()
    for hint in found:
        assert "{" not in describe(hint, record)
        assert not re.search(r"\bnan\b", describe(hint, record))
