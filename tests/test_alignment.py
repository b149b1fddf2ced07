"""Alignment against scikit-image, OpenCV and arithmetic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.transform
from facenet_pytorch.models.utils.detect_face import extract_face
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from faceqan_toolkit.alignment import (
    ARCFACE_TEMPLATE,
    Template,
    align,
    detail_survives,
    estimate_transform,
    footprint,
    scale_of,
)
from faceqan_toolkit.errors import SettingsError, Unalignable
from faceqan_toolkit.types import Face, Pixels


def face_at(landmarks: NDArray[np.float64]) -> Face:
    return Face(box=np.array([0.0, 0.0, 1.0, 1.0]), landmarks=landmarks)


def placed(scale: float, angle: float, x: float, y: float) -> NDArray[np.float64]:
    """Return landmarks so that the template is `scale` times as large, turned and moved."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * ARCFACE_TEMPLATE @ turn.T + (x, y)


def umeyama(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares by another way: the normal equations of a, b, tx, ty."""
    rows, targets = [], []
    for (x, y), (u, v) in zip(points, ARCFACE_TEMPLATE, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        targets += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


@settings(deadline=None)
@given(
    st.floats(0.2, 20), st.floats(-3, 3), st.floats(-500, 5000), st.floats(-500, 5000),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_transform_is_the_least_squares_one(scale, angle, x, y, seed) -> None:
    jitter = np.random.default_rng(seed).normal(0, 2 * scale, (5, 2))
    landmarks = placed(scale, angle, x, y) + jitter
    found = estimate_transform(landmarks)
    np.testing.assert_allclose(found, umeyama(landmarks), atol=1e-6 * max(1, abs(x), abs(y)))


def test_exact_landmarks_give_the_exact_transform() -> None:
    landmarks = placed(3, 0.4, 100, 50)
    found = estimate_transform(landmarks)
    assert scale_of(found) == pytest.approx(1 / 3)
    mapped = landmarks @ found[:, :2].T + found[:, 2]
    np.testing.assert_allclose(mapped, ARCFACE_TEMPLATE, atol=1e-9)


def test_plain_crop_equals_opencv(astronaut: Pixels) -> None:
    landmarks = placed(1.7, 0.3, 130, 20)
    crop = align(astronaut, face_at(landmarks), antialias=False)
    expected = cv2.warpAffine(astronaut, umeyama(landmarks), (112, 112), flags=cv2.INTER_LINEAR)
    # fixed-point interpolation on a region that starts elsewhere may round one level differently
    assert np.abs(crop.pixels.astype(int) - expected.astype(int)).max() <= 2
    assert crop.pixels.shape == (112, 112, 3)
    assert crop.pixels.dtype == np.uint8


def test_plain_crop_equals_scikit_image(astronaut: Pixels) -> None:
    landmarks = placed(1.7, 0.3, 130, 20)
    matrix = np.vstack([umeyama(landmarks), [0, 0, 1]])
    transform = skimage.transform.AffineTransform(matrix)
    expected = 255 * skimage.transform.warp(
        astronaut, transform.inverse, output_shape=(112, 112), order=1
    )
    crop = align(astronaut, face_at(landmarks), antialias=False).pixels
    assert np.abs(crop - expected).mean() < 0.7
    assert np.abs(crop - expected).max() < 8


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_antialiased_crop_equals_a_filtered_one(astronaut: Pixels, angle: float) -> None:
    """A large face, blurred with a wide kernel first, then sampled, gives nearly our crop."""
    large = cv2.resize(astronaut, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 40, large.shape)
    large = (large + noise).clip(0, 255).astype(np.uint8)
    landmarks = placed(8, angle, 700, 100)
    filtered = cv2.blur(large, (8, 8), anchor=(4, 4))
    expected = align(filtered, face_at(landmarks), antialias=False).pixels.astype(float)
    with_it = align(large, face_at(landmarks), antialias=True).pixels
    without = align(large, face_at(landmarks), antialias=False).pixels
    assert np.abs(with_it - expected).mean() < 3
    assert np.abs(without - expected).mean() > 10


def test_antialiasing_leaves_small_faces_alone(astronaut: Pixels) -> None:
    face = face_at(placed(1.9, 0.1, 120, 20))
    plain, averaged = (align(astronaut, face, antialias=choice).pixels for choice in (False, True))
    assert np.array_equal(plain, averaged)
    face = face_at(placed(2.1, 0.1, 120, 20))
    plain, averaged = (align(astronaut, face, antialias=choice).pixels for choice in (False, True))
    assert not np.array_equal(plain, averaged)


def test_antialiased_crop_is_not_shifted() -> None:
    """A smooth ramp keeps its values whatever the sampling: pixel centres are respected."""
    x, y = np.meshgrid(np.arange(1000), np.arange(1000))
    ramp = np.stack([x / 4, y / 4, (x + y) / 8], axis=2).astype(np.uint8)
    face = face_at(placed(5.5, 0.2, 200, 100))
    plain, averaged = (
        align(ramp, face, antialias=choice).pixels.astype(float) for choice in (False, True)
    )
    assert np.abs((plain - averaged).mean(axis=(0, 1))).max() < 0.6


def test_black_beyond_the_photo() -> None:
    white = np.full((100, 100, 3), 255, np.uint8)
    crop = align(white, face_at(placed(1, 0, 60, 60)), antialias=True).pixels
    assert crop[10, 10].tolist() == [255, 255, 255]
    assert crop[80, 80].tolist() == [0, 0, 0]


def test_photos_wider_than_opencv_can_warp() -> None:
    wide = np.zeros((120, 40_000, 3), np.uint8)
    wide[:, 39_900:] = 200
    crop = align(wide, face_at(placed(1, 0, 39_880, 0)), antialias=False).pixels
    assert crop[50, 10].tolist() == [0, 0, 0]
    assert crop[50, 60].tolist() == [200, 200, 200]


def test_footprint_holds_the_crop() -> None:
    box = footprint(estimate_transform(placed(2, 0, 30, 40)))
    np.testing.assert_allclose(box, [29, 39, 253, 263])


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), np.nan),
        np.full((5, 2), np.inf),
        np.full((5, 2), 7.0),
        np.array([[0, 0], [0, 0], [0, 0], [0, 0], [1e-300, 0]], float),
        placed(1, 0, 10_000, 10_000),
        placed(1e9, 0, 0, 0),
    ],
    ids=["nan", "infinite", "one point", "nearly one point", "outside", "huge"],
)
def test_landmarks_that_cannot_be_aligned(landmarks: NDArray[np.float64]) -> None:
    with pytest.raises(Unalignable):
        align(np.zeros((50, 50, 3), np.uint8), face_at(landmarks), antialias=True)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-1e6, 1e6) | st.floats(), min_size=10, max_size=10)
    | st.lists(st.sampled_from([0.0, 1.0, 40.0, 1e-300, 1e300]), min_size=10, max_size=10),
    st.booleans(),
)
def test_any_landmarks_give_a_crop_or_a_reason(values, antialias) -> None:
    landmarks = np.array(values).reshape(5, 2)
    pixels = np.full((60, 80, 3), 9, np.uint8)
    try:
        crop = align(pixels, face_at(landmarks), antialias=antialias)
    except Unalignable:
        return
    assert crop.pixels.shape == (112, 112, 3)


def test_collinear_landmarks_align(astronaut: Pixels) -> None:
    landmarks = np.array([[100, 100], [120, 110], [140, 120], [160, 130], [180, 140]], float)
    assert align(astronaut, face_at(landmarks), antialias=True).pixels.any()


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_photo_gives_the_same_crop(astronaut: Pixels, reduction: int) -> None:
    crop_of_small = face_at(placed(0.75, 0.2, 130, 40))
    expected = align(astronaut, crop_of_small, antialias=True).pixels
    # the photo is `astronaut` enlarged, so reduced it is `astronaut` again
    large = face_at((crop_of_small.landmarks + 0.5) * reduction - 0.5)
    crop = align(astronaut, large, antialias=True, reduction=reduction)
    assert np.abs(crop.pixels.astype(int) - expected).max() <= 1
    np.testing.assert_allclose(crop.transform, estimate_transform(large.landmarks))


def test_whether_detail_survives() -> None:
    face = face_at(placed(5, 0.2, 130, 40))  # shrunk five times
    transform = estimate_transform(face.landmarks)
    assert [detail_survives(transform, reduction) for reduction in (1, 2, 4)] == [True, True, False]


def test_the_template_grows_with_the_crop(astronaut: Pixels) -> None:
    face = face_at(placed(2, 0.1, 150, 60))
    small = align(astronaut, face, antialias=True)
    large = align(astronaut, face, antialias=True, template=Template("arcface", 224))
    assert large.pixels.shape == (224, 224, 3)
    np.testing.assert_allclose(large.transform, 2 * small.transform)


def boxed(*box: float, rotation: int = 0) -> Face:
    return Face(box=np.array(box), landmarks=np.zeros((5, 2)), rotation=rotation)


@pytest.mark.parametrize("box", [(170.0, 60.0, 290.0, 210.0), (-40.0, 30.0, 200.0, 560.0)])
def test_box_crops_are_facenet_pytorchs(astronaut: Pixels, box: tuple[float, ...]) -> None:
    """Theirs counts pixels' edges, ours their centres."""
    ours = boxed(*(np.array(box) - 0.5))
    crop = align(astronaut, ours, antialias=True, template=Template("box", 160)).pixels
    expected = extract_face(Image.fromarray(astronaut), np.array(box)).permute(1, 2, 0).numpy()
    inner = np.s_[8:-8, 8:-8]
    # where the photo is shrunk the two average it differently
    assert np.abs(crop[inner].astype(float) - expected[inner]).mean() < 2
    moved = np.roll(expected, 1, axis=1)
    assert np.abs(crop[inner].astype(float) - moved[inner]).mean() > 4


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_box_found_in_a_turned_photo_is_cut_upright(astronaut: Pixels, turns: int) -> None:
    upright = align(
        astronaut, boxed(170, 60, 290, 210), antialias=True, template=Template("box", 96)
    )
    # the photo lies on its side; the detector found the face after turning it back
    lying = np.ascontiguousarray(np.rot90(astronaut, -turns))
    corners = np.array([[170.0, 60.0], [290.0, 210.0]])
    for _ in range(turns):  # a quarter clockwise: x' = height - 1 - y, y' = x
        corners = np.stack([511 - corners[:, 1], corners[:, 0]], axis=1)
    box = (*corners.min(axis=0), *corners.max(axis=0))
    face = boxed(*box, rotation=90 * turns)
    crop = align(lying, face, antialias=True, template=Template("box", 96))
    assert np.abs(crop.pixels.astype(int) - upright.pixels).max() <= 2


def test_boxes_outside_the_photo_and_templates_nobody_knows(astronaut: Pixels) -> None:
    with pytest.raises(Unalignable, match="no area inside"):
        align(astronaut, boxed(600, 0, 700, 90), antialias=True, template=Template("box", 160))
    with pytest.raises(SettingsError, match="template"):
        Template("dlib")
    with pytest.raises(SettingsError, match="crop-size"):
        Template("box", 4)


def test_a_reduced_photo_gives_the_same_box_crop(astronaut: Pixels) -> None:
    template = Template("box", 64)
    expected = align(astronaut, boxed(100, 40, 399, 299), antialias=True, template=template)
    large = boxed(*((np.array([100, 40, 399, 299]) + 0.5) * 4 - 0.5))
    crop = align(
        astronaut, large, antialias=True, template=template, reduction=4, photo_size=(2048, 2048)
    )
    assert np.abs(crop.pixels.astype(int) - expected.pixels).max() <= 1
