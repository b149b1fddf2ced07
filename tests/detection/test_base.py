"""Detectors find the faces that are there, and the right ones are chosen."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import cv2
import numpy as np
import pytest
from facenet_pytorch import MTCNN
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.alignment import ARCFACE_TEMPLATE
from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.detection.base import accept_faces, select_faces, spans, unrotate
from faceqan_toolkit.errors import FaceTooSmall, MissingDependency, NoFace, SettingsError
from faceqan_toolkit.registry import DETECTORS
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import down_text
from faceqan_toolkit.types import Face, Pixels
from tests.conftest import SAMPLES, photo_of, read_rgb

both = pytest.mark.parametrize("detector", DETECTORS)


def detect(pixels: Pixels, **options) -> list[Face]:
    settings = Settings(**{"device": "cpu", **options})
    return make_detector(settings).detect(photo_of(pixels))


@both
def test_landmarks_are_where_the_face_is(detector: str, astronaut: Pixels) -> None:
    (face,) = detect(astronaut, detector=detector)
    eyes, nose, mouth = face.landmarks[:2], face.landmarks[2], face.landmarks[3:]
    # read off the photo by eye
    np.testing.assert_allclose(eyes, [[204, 101], [246, 103]], atol=5)
    assert eyes[:, 1].max() < nose[1] < mouth[:, 1].min()
    assert face.box[0] < eyes[0, 0] < eyes[1, 0] < face.box[2]
    assert face.confidence is not None
    assert face.confidence > 0.92
    assert face.box.dtype == face.landmarks.dtype == np.float64


def test_one_based_coordinates_are_facenet_pytorchs(astronaut: Pixels) -> None:
    boxes, _, landmarks = MTCNN(keep_all=True).detect(astronaut, landmarks=True)
    (raw,) = detect(astronaut, one_based=True)
    (face,) = detect(astronaut)
    # the pyramid is made in another way, so the candidates differ a little
    np.testing.assert_allclose(raw.box, boxes[0].astype(float), atol=4)
    np.testing.assert_allclose(raw.landmarks, landmarks[0].astype(float), atol=1.5)
    np.testing.assert_allclose(face.landmarks, raw.landmarks - 1)


@pytest.mark.parametrize(
    "name", ["astronaut.jpg", "hopper.jpg", "two_people.jpg", "hopper_tiny.jpg"]
)
def test_finds_what_facenet_pytorch_finds(name: str) -> None:
    pixels = read_rgb(SAMPLES / name)
    boxes, _, landmarks = MTCNN(keep_all=True).detect(pixels, landmarks=True)
    found = detect(pixels, one_based=True)
    assert len(found) == len(boxes)
    for face, points in zip(found, landmarks.astype(float), strict=True):
        eyes = np.linalg.norm(points[0] - points[1])
        assert np.linalg.norm(face.landmarks - points, axis=1).mean() < 0.06 * eyes


def test_a_mirrored_photo_has_its_landmarks_mirrored(astronaut: Pixels) -> None:
    """The reason for the offset: coordinates counted from zero are unbiased under mirroring."""
    width = astronaut.shape[1]

    def bias(one_based: bool) -> float:
        (face,) = detect(astronaut, one_based=one_based)
        (mirrored,) = detect(np.ascontiguousarray(astronaut[:, ::-1]), one_based=one_based)
        back = width - 1 - mirrored.landmarks[[1, 0, 2, 4, 3], 0]
        return float((face.landmarks[:, 0] - back).mean() / 2)

    assert abs(bias(False)) < abs(bias(True))


@both
def test_working_resolution_moves_landmarks_little(detector: str, astronaut: Pixels) -> None:
    large = cv2.resize(astronaut, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    (face,) = detect(np.asarray(large), max_side=512, detector=detector)
    (expected,) = detect(astronaut, detector=detector)
    eyes = np.linalg.norm(expected.landmarks[0] - expected.landmarks[1])
    shift = np.abs((face.landmarks + 0.5) / 4 - 0.5 - expected.landmarks).max()
    assert shift < 0.05 * eyes


@both
def test_max_side_decides_what_is_found(detector: str, astronaut: Pixels) -> None:
    """A face of 87 px in 2000 has 9 px at a working resolution of 200."""
    wide = np.zeros((600, 2000, 3), np.uint8)
    wide[:512, :512] = astronaut
    assert detect(wide, max_side=0, detector=detector)
    with pytest.raises((NoFace, FaceTooSmall)):
        detect(wide, max_side=200, detector=detector)


@both
def test_min_face_is_exact(detector: str, astronaut: Pixels) -> None:
    (face,) = detect(astronaut, detector=detector)
    assert detect(astronaut, min_face=int(face.size), detector=detector)
    with pytest.raises(FaceTooSmall, match=rf"has {face.size:.0f} pixels"):
        detect(astronaut, min_face=int(face.size) + 1, detector=detector)


def test_min_face_does_not_move_what_it_keeps(astronaut: Pixels) -> None:
    (face,) = detect(astronaut)
    for smallest in (15, 29, 40, 60, 85):
        (same,) = detect(astronaut, min_face=smallest)
        if smallest >= 20:  # below, the pyramid gets finer levels
            np.testing.assert_allclose(same.landmarks, face.landmarks, atol=0.01)
        np.testing.assert_allclose(same.landmarks, face.landmarks, atol=3)


@both
def test_min_confidence_is_exact(detector: str, astronaut: Pixels) -> None:
    dark = read_rgb(SAMPLES / "astronaut_dark.jpg")
    (face,) = detect(dark, detector=detector)
    assert face.confidence is not None
    assert detect(dark, min_confidence=face.confidence, detector=detector)
    with pytest.raises(NoFace, match=f"best candidate has {down_text(face.confidence, 2)}"):
        detect(dark, min_confidence=min(1.0, face.confidence + 1e-4), detector=detector)


@pytest.mark.parametrize("name", ["astronaut.jpg", "hopper.jpg"])
@pytest.mark.parametrize("margin", [0.1, 0, -0.05, -0.1])
def test_landmarks_stay_where_they_are_when_the_photo_is_cropped(name: str, margin: float) -> None:
    pixels = read_rgb(SAMPLES / name)
    (face,) = detect(pixels)
    sides = np.tile(face.box[2:] - face.box[:2], 2)
    x1, y1, x2, y2 = np.rint(face.box + margin * sides * [-1, -1, 1, 1]).astype(int)
    part = np.ascontiguousarray(pixels[y1 : y2 + 1, x1 : x2 + 1])
    eyes = np.linalg.norm(face.landmarks[0] - face.landmarks[1])

    def off(**options: bool) -> float:
        (found,) = detect(part, **options)
        return float(
            np.linalg.norm(found.landmarks + np.array([x1, y1]) - face.landmarks, axis=1).mean()
        )

    assert off() < 0.05 * eyes
    if margin == 0:  # facenet-pytorch stretches what its windows show at an edge
        assert off(one_based=True) > 0.1 * eyes


def test_faces_away_from_the_edge_are_as_facenet_pytorch_has_edges(astronaut: Pixels) -> None:
    for pixels in (
        astronaut,
        read_rgb(SAMPLES / "hopper.jpg"),
        read_rgb(SAMPLES / "two_people.jpg"),
    ):
        filled, clipped = detect(pixels), detect(pixels, one_based=True)
        for one, other in zip(filled, clipped, strict=True):
            np.testing.assert_array_equal(one.landmarks, (other.landmarks - 1))
            assert one.confidence == other.confidence


@pytest.mark.parametrize(("detector", "sure"), [("mtcnn", 0.995), ("yunet", 0.9)])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotate_finds_a_lying_face_where_it_is(
    detector: str, sure: float, astronaut: Pixels, turns: int
) -> None:
    (upright,) = detect(astronaut, detector=detector)
    lying = np.ascontiguousarray(np.rot90(astronaut, turns))
    # MTCNN takes one of the lying faces for an upright one, with a confidence of 0.99
    with pytest.raises(NoFace):
        detect(lying, min_confidence=sure, detector=detector)
    (found,) = detect(lying, rotate=True, min_confidence=sure, detector=detector)
    assert found.rotation == (360 - 90 * turns) % 360
    # the same pixels of the photo, wherever they lie now
    x, y = upright.landmarks.T
    side = astronaut.shape[0] - 1
    expected = {1: (y, side - x), 2: (side - x, side - y), 3: (side - y, x)}[turns]
    np.testing.assert_allclose(found.landmarks, np.stack(expected, axis=1), atol=1e-6)
    np.testing.assert_allclose(found.size, upright.size)


@both
def test_rotate_changes_nothing_when_a_face_is_found(detector: str, astronaut: Pixels) -> None:
    assert detect(astronaut, rotate=True, detector=detector)[0].rotation == 0


@both
@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("name", ["astronaut.jpg", "hopper.jpg", "astronaut_noisy.jpg"])
def test_rotate_takes_the_true_face_over_a_false_upright_one(
    detector: str, turns: int, name: str
) -> None:
    """With the default confidence, which false upright faces reach."""
    lying = np.ascontiguousarray(np.rot90(read_rgb(SAMPLES / name), turns))
    assert detect(lying, rotate=True, detector=detector)[0].rotation == 360 - 90 * turns


def panorama(face: Pixels, sides: list[int], width: int) -> tuple[Pixels, np.ndarray]:
    """Return a strip of noise with a face in sizes, and the middles of these."""
    strip = np.random.default_rng(0).integers(100, 140, (500, width, 3), dtype=np.uint8)
    middles = np.linspace(300, width - 300, len(sides))
    for side, middle in zip(sides, middles, strict=True):
        small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
        x, y = round(middle - side / 2), 250 - side // 2
        strip[y : y + side, x : x + side] = small
    return strip, middles


@both
def test_small_faces_in_a_huge_photo_are_found_in_tiles(detector: str, astronaut: Pixels) -> None:
    # the face has 87 of 512 pixels: 34 to 140 here, of which whole photos show a fifth or an eighth
    head = np.ascontiguousarray(astronaut[20:220, 120:320])
    sides = [80, 320, 100, 120, 80, 90, 250, 110]
    strip, middles = panorama(head, sides, 8000)
    faces = detect(strip, faces="all", detector=detector)
    found = sorted((face.box[0] + face.box[2]) / 2 for face in faces)
    np.testing.assert_allclose(found, middles, atol=12)  # each once, none besides
    large = detect(strip, faces="all", detector=detector, min_face=100)
    assert [face.size > 100 for face in large] == [True, True]
    # the largest one is found without tiles
    assert detect(strip, detector=detector)[0].size == pytest.approx(faces[0].size, rel=0.15)


def test_a_reduced_photo_says_which_faces_it_hides() -> None:
    plain = np.full((1000, 4000, 3), 128, np.uint8)
    with pytest.raises(NoFace, match=r"hides faces below 50: --max-side 0 .* try --rotate"):
        detect(plain)
    with pytest.raises(NoFace, match=r"^no face found$"):
        detect(plain, max_side=0, rotate=True)
    with pytest.raises(NoFace, match=r"^no face found$"):
        detect(plain, min_face=50, rotate=True)


@given(st.integers(1, 10_000), st.integers(2, 500), st.integers(0, 400))
def test_spans_cover_everything_and_overlap(length: int, side: int, overlap: int) -> None:
    overlap = min(overlap, side - 1)
    found = spans(length, side, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(end - start == min(side, length) for start, end in found)
    assert all(end - start >= overlap for (_, end), (start, _) in pairwise(found))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_unrotate_inverts_rot90(turns: int) -> None:
    height, width = 30, 50
    picture = np.zeros((height, width), np.uint8)
    picture[7, 41] = 255
    y, x = np.argwhere(np.rot90(picture, turns))[0]
    face = Face(
        box=np.array([x - 1.0, y - 2.0, x + 1.0, y + 2.0]),
        landmarks=np.tile([float(x), float(y)], (5, 1)),
        rotation=90 * turns,
    )
    back = unrotate(face, width, height)
    assert back.landmarks.tolist() == [[41, 7]] * 5
    half = (2, 1) if turns % 2 else (1, 2)
    assert back.box.tolist() == [41 - half[0], 7 - half[1], 41 + half[0], 7 + half[1]]


@both
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 500), (500, 1), (19, 19), (20, 20), (21, 21), (24, 600), (12, 12)],
    ids=str,
)
@pytest.mark.parametrize("min_face", [1, 12, 20])
def test_tiny_photos_have_no_face(detector: str, shape: tuple[int, int], min_face: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    with pytest.raises((NoFace, FaceTooSmall)):
        detect(pixels, min_face=min_face, rotate=True, max_side=100, detector=detector)


@both
@pytest.mark.parametrize("value", [0, 128, 255])
def test_plain_photos_have_no_face(detector: str, value: int) -> None:
    with pytest.raises(NoFace):
        detect(np.full((300, 200, 3), value, np.uint8))


@both
def test_long_strips_have_no_face(detector: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 21_000, 3), dtype=np.uint8)
    for strip in (pixels, np.ascontiguousarray(pixels.transpose(1, 0, 2))):
        with pytest.raises(NoFace):
            detect(strip, detector=detector)


@both
def test_several_faces_largest_first(detector: str) -> None:
    faces = detect(read_rgb(SAMPLES / "two_people.jpg"), detector=detector)
    assert len(faces) == 2
    assert faces[0].size > faces[1].size
    assert faces[0].box[0] > faces[1].box[0]  # Grace Hopper, on the right, is the larger one


@both
def test_repeats_are_identical(detector: str, astronaut: Pixels) -> None:
    one, other = detect(astronaut, detector=detector)[0], detect(astronaut, detector=detector)[0]
    assert np.array_equal(one.landmarks, other.landmarks)
    assert one.confidence == other.confidence


@pytest.mark.parametrize("side", [960, 0])
def test_yunet_finds_a_face_that_fills_a_large_photo(side: int) -> None:
    hopper = read_rgb(SAMPLES / "hopper.jpg")
    large = cv2.resize(hopper[80:380, 120:420], (3000, 3000), interpolation=cv2.INTER_CUBIC)
    (face,) = detect(np.asarray(large), detector="yunet", max_side=side)
    assert face.size > 1500
    (small,) = detect(hopper, detector="yunet")
    back = (face.landmarks + 0.5) / 10 - 0.5 + [120, 80]
    eyes = np.linalg.norm(small.landmarks[0] - small.landmarks[1])
    assert np.linalg.norm(back - small.landmarks, axis=1).max() < 0.1 * eyes


def test_the_detectors_agree() -> None:
    for name in ("astronaut.jpg", "hopper.jpg", "two_people.jpg"):
        pixels = read_rgb(SAMPLES / name)
        pairs = zip(detect(pixels), detect(pixels, detector="yunet"), strict=True)
        for one, other in pairs:
            eyes = np.linalg.norm(one.landmarks[0] - one.landmarks[1])
            assert np.linalg.norm(one.landmarks - other.landmarks, axis=1).mean() < 0.12 * eyes


@pytest.mark.parametrize(
    "told",
    [cv2.error("parse error: DequantizeLinear"), TypeError("Can't convert object to 'str'")],
    ids=["4.11", "4.8"],
)
def test_an_opencv_that_cannot_read_yunet(told: Exception, monkeypatch) -> None:
    class Old:
        @staticmethod
        def create(*arguments: object) -> None:
            raise told

    monkeypatch.setattr(cv2, "FaceDetectorYN", Old)
    with pytest.raises(MissingDependency, match=r"OpenCV 4\.12 or newer"):
        make_detector(Settings(detector="yunet"))


def test_what_belongs_to_mtcnn_is_refused_for_yunet(tmp_path) -> None:
    for option in ({"one_based": True}, {"landmarks": tmp_path / "faces.csv"}):
        with pytest.raises(SettingsError, match=next(iter(option)).replace("_", "-")):
            Settings(detector="yunet", **option)


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
