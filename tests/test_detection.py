"""Both detectors on real photos; MTCNN with its traps closed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from facenet_pytorch import MTCNN

from faceqan_toolkit.detection import make_detector, unrotate
from faceqan_toolkit.errors import FaceTooSmall, MissingDependency, NoFace, SettingsError
from faceqan_toolkit.rounding import down_text
from faceqan_toolkit.settings import DETECTORS, Settings
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
