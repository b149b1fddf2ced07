"""Measures against arithmetic done by hand, and hints on damaged crops."""

from __future__ import annotations

import re
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.color
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from faceqan_toolkit.alignment import ARCFACE_TEMPLATE, align, estimate_transform
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.quality.measures import (
    FACE_FEATURES,
    FACE_REGION,
    HINTS,
    NOSE_DEPTH,
    PARTS,
    WHOLE_FACE,
    Measures,
    blockiness,
    cut_off,
    describe,
    find_hints,
    light,
    luminance,
    measure,
    noise,
    pattern,
    pose,
    sharpness,
)
from faceqan_toolkit.quality.norm import EmbeddingNorm
from faceqan_toolkit.types import (
    MEASURE_COLUMNS,
    Face,
    FileState,
    Photo,
    PhotoSource,
    Pixels,
    Record,
)
from tests.conftest import DATA, photo_of, read_rgb

CROPS = [read_rgb(DATA / f"{name}.png") for name in ("astronaut", "astronaut_dark")]
strengths = st.lists(st.floats(0.5, 6), min_size=2, max_size=2, unique=True).map(sorted)


def grey(crop: Pixels) -> NDArray[np.float32]:
    return cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)


def plain(level: int) -> Pixels:
    return np.full((112, 112, 3), level, np.uint8)


def test_columns_are_the_measures() -> None:
    assert tuple(field.name for field in fields(Measures)) == MEASURE_COLUMNS


class TestLight:
    def test_luminance_is_the_y_of_cie_xyz(self, crop: Pixels) -> None:
        expected = 255 * skimage.color.rgb2xyz(crop)[..., 1]
        np.testing.assert_allclose(luminance(crop), expected, atol=0.02)

    def test_plain_grey_by_hand(self) -> None:
        # ((188/255 + 0.055) / 1.055) ** 2.4 = 0.5029, 128 of 255
        assert light(plain(188)) == pytest.approx((128 / 255, 0, 0, 0))
        assert light(plain(0)) == (0, 0, 1, 0)
        assert light(plain(255)) == (1, 0, 0, 1)

    def test_limits_are_within(self) -> None:
        # 88 is the last value whose luminance is at most 25 of 255, 252 the first with 247
        shares = [light(plain(level))[2:] for level in (89, 90, 251, 252)]
        assert shares == [(1, 0), (0, 0), (0, 0), (0, 1)]

    def test_half_black_half_white(self) -> None:
        crop = plain(0)
        crop[:, 56:] = 255
        share = FACE_REGION[:, 56:].sum() / FACE_REGION.sum()
        mean, deviation, dark, bright = light(crop)
        assert (mean, dark, bright) == pytest.approx((share, 1 - share, share))
        assert deviation == pytest.approx(np.sqrt(share * (1 - share)))

    @given(st.lists(st.floats(0.05, 1), min_size=2, max_size=2, unique=True).map(sorted))
    def test_less_light_is_darker(self, gains: list[float]) -> None:
        less, more = (light(np.uint8(CROPS[0] * gain))[0] for gain in gains)
        assert less <= more


class TestSharpness:
    def test_checkerboard_by_hand(self) -> None:
        board = (np.indices((112, 112)).sum(axis=0) % 2 * 255).astype(np.float32)
        # nine pixels hold four or five white ones: differences shrink to a ninth
        assert sharpness(board) == pytest.approx(8 / 9, abs=1e-5)

    def test_detail_in_one_direction_is_motion(self) -> None:
        stripes = (np.indices((112, 112))[1] % 2 * 255).astype(np.float32)
        assert sharpness(stripes) == 0

    def test_nothing_is_not_sharp(self) -> None:
        assert sharpness(grey(plain(128))) == 0

    @settings(deadline=None, max_examples=20)
    @given(strengths, st.sampled_from(CROPS))
    def test_blur_lowers_it(self, sigmas: list[float], crop: Pixels) -> None:
        less, more = (cv2.GaussianBlur(grey(crop), (0, 0), sigma) for sigma in sigmas)
        assert sharpness(less) >= sharpness(more)

    def test_orders_as_scikit_image(self, crop: Pixels) -> None:
        blurred = [cv2.GaussianBlur(grey(crop), (0, 0), sigma) for sigma in (0.5, 1, 2, 4)]
        assert np.all(np.diff([sharpness(image) for image in blurred]) < 0)
        assert np.all(np.diff([skimage.measure.blur_effect(image) for image in blurred]) > 0)

    @given(st.floats(0.1, 1), st.floats(0, 100))
    def test_light_and_contrast_do_not_matter(self, gain: float, offset: float) -> None:
        changed = np.float32(gain) * grey(CROPS[0]) + np.float32(offset)
        assert sharpness(changed) == pytest.approx(sharpness(grey(CROPS[0])), abs=1e-3)


class TestNoise:
    def test_a_slope_has_none(self) -> None:
        y, x = np.mgrid[:112, :112].astype(np.float32)
        assert noise(x + 0.5 * y) == pytest.approx(0, abs=1e-4)

    @given(st.floats(1, 40), st.integers(0, 1000))
    def test_finds_nearly_the_deviation(self, deviation: float, seed: int) -> None:
        values = np.random.default_rng(seed).normal(128, deviation, (112, 112))
        assert 0.65 < noise(values.astype(np.float32)) / deviation < 1

    @settings(deadline=None)
    @given(st.lists(st.floats(4, 40), min_size=2, max_size=2).map(sorted))
    def test_grows_on_faces(self, deviations: list[float]) -> None:
        values = np.random.default_rng(0).normal(0, 1, (112, 112)).astype(np.float32)
        less, more = (noise(grey(CROPS[0]) + np.float32(d) * values) for d in deviations)
        assert less <= more + 1e-4
        assert less > noise(grey(CROPS[0]))


class TestPattern:
    def test_the_features_themselves(self) -> None:
        drawn = 128 + 60 * FACE_FEATURES
        assert pattern(drawn)[0] > 0.9
        assert pattern(-drawn)[0] < -0.9

    def test_by_numpy(self, crop: Pixels) -> None:
        smooth = cv2.GaussianBlur(grey(crop), (0, 0), 2)
        found = [
            np.corrcoef(smooth[window].ravel(), FACE_FEATURES[window].ravel())[0, 1]
            for window in PARTS.values()
        ]
        flattest = min(smooth[window].std() for window in PARTS.values())
        expected = (np.mean(found), min(found), flattest / smooth[FACE_REGION].std())
        assert pattern(grey(crop)) == pytest.approx(expected, abs=1e-5)

    def test_plain_grey_has_none(self) -> None:
        assert pattern(grey(plain(128))) == pytest.approx((0, 0, 0), abs=1e-6)

    @pytest.mark.parametrize("part", PARTS)
    def test_a_covered_part_is_flat(self, part: str, crop: Pixels) -> None:
        covered = crop.copy()
        rows, columns = PARTS[part]
        covered[rows.start - 8 : rows.stop + 8, columns.start - 8 : columns.stop + 8] = 90
        assert pattern(grey(covered))[2] < 0.1 < pattern(grey(crop))[2]

    def test_features_are_symmetrical(self) -> None:
        np.testing.assert_allclose(FACE_FEATURES, FACE_FEATURES[:, ::-1], atol=1e-6)


def head(yaw: float, roll: float, size: float) -> NDArray[np.float64]:
    """Return a generic head's landmarks, seen from far away."""
    points = np.array([[-1, 0, 0], [1, 0, 0], [0, 1.1, NOSE_DEPTH], [-0.8, 2, 0], [0.8, 2, 0]])
    turn, lean = np.radians(yaw), np.radians(roll)
    x = points[:, 0] * np.cos(turn) + points[:, 2] * np.sin(turn)
    seen = np.stack([x, points[:, 1]], axis=1)
    rotation = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    return 100 + size / 2 * seen @ rotation.T


class TestPose:
    @given(st.floats(-60, 60), st.floats(-170, 170), st.floats(5, 500))
    def test_a_turned_head(self, yaw: float, roll: float, size: float) -> None:
        distance, found_yaw, found_roll = pose(head(yaw, roll, size))
        assert found_yaw == pytest.approx(yaw, abs=1e-6)
        assert found_roll == pytest.approx(roll, abs=1e-6)
        # turned or not, the eyes are as far apart
        assert distance == pytest.approx(size)

    def test_a_profile_has_no_endless_distance(self) -> None:
        distance, yaw, _ = pose(head(89, 0, 50))
        assert yaw == pytest.approx(89)
        assert distance < 50

    @given(st.lists(st.floats(0, 100), min_size=10, max_size=10))
    def test_mirrored_faces_turn_the_other_way(self, values: list[float]) -> None:
        points = np.array(values).reshape(5, 2)
        mirrored = (points * (-1, 1))[[1, 0, 2, 4, 3]]
        one, other = pose(points), pose(mirrored)
        assert one[1] == pytest.approx(-other[1], abs=1e-6)
        assert np.isfinite(one).all()

    def test_coinciding_eyes(self) -> None:
        assert pose(np.full((5, 2), 7.0)) == (0, 0, 0)


@settings(deadline=None, max_examples=30)
@given(st.floats(-90, 90), st.floats(-120, 120), st.floats(0.3, 3))
def test_cut_off_is_what_stays_black(x: float, y: float, scale: float) -> None:
    landmarks = scale * ARCFACE_TEMPLATE + (x, y)
    photo = np.full((140, 130, 3), 255, np.uint8)
    warped = cv2.warpAffine(
        photo, estimate_transform(landmarks), (112, 112), flags=cv2.INTER_NEAREST
    )
    expected = float((warped[WHOLE_FACE] == 0).any(axis=1).mean())
    found = cut_off(estimate_transform(landmarks), (130, 140))
    assert found == pytest.approx(expected, abs=0.04)


class TestBlockiness:
    def test_steps_on_the_grid_by_hand(self) -> None:
        steps = (np.arange(64) // 8 * 10).astype(np.uint8)
        blocks = np.repeat((steps[:, None] + steps[None])[..., None], 3, axis=2)
        # seven of 63 differences are 10, the others nothing
        assert blockiness(blocks) == pytest.approx(63 / 7 - 1)

    @pytest.mark.parametrize("shift", [0, 3])
    def test_worse_with_stronger_compression(self, astronaut: Pixels, shift: int) -> None:
        found = []
        for quality in (95, 40, 15, 5):
            _, data = cv2.imencode(".jpg", astronaut, [cv2.IMWRITE_JPEG_QUALITY, quality])
            found.append(blockiness(cv2.imdecode(data, cv2.IMREAD_COLOR)[shift:200, shift:200]))
        assert np.all(np.diff(found) > 0)
        assert found[0] < 0.2
        assert found[-1] > 1

    def test_plain_or_tiny(self) -> None:
        assert blockiness(plain(3)) == 0
        assert blockiness(plain(3)[:20]) is None


class TestAll:
    def test_a_crop_alone(self, crop: Pixels) -> None:
        found = measure(crop, photo_of(crop), None)
        assert (found.eye_distance, found.yaw, found.roll, found.cut_off) == (None,) * 4
        assert found.blockiness is not None
        assert found.sharpness == sharpness(grey(crop))

    def test_a_face_in_its_photo(self, astronaut: Pixels) -> None:
        landmarks = np.add(ARCFACE_TEMPLATE, (170, 60))
        aligned = align(astronaut, Face(np.zeros(4), landmarks), antialias=True)
        found = measure(aligned.pixels, photo_of(astronaut), aligned)
        assert found.cut_off == 0
        assert found.eye_distance == pytest.approx(35.2, abs=1)
        assert found.roll == pytest.approx(0, abs=1)
        reduced = Photo(
            PhotoSource("", "", LocalFile(Path())), astronaut, FileState(0, 0), 2, (1024, 1024)
        )
        assert measure(aligned.pixels, reduced, aligned).blockiness is None

    def test_models_with_other_crops(self, crop: Pixels) -> None:
        large = cv2.resize(crop, (160, 160), interpolation=cv2.INTER_LINEAR)
        one, other = measure(crop, photo_of(crop), None), measure(large, photo_of(large), None)
        assert one.brightness == pytest.approx(other.brightness, abs=0.01)
        assert one.face_pattern == pytest.approx(other.face_pattern, abs=0.05)


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
