"""Landmarks that people bring from other detectors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from faceqan_toolkit.errors import NoFace, NoLandmarks, PhotoError, SettingsError, Unalignable
from faceqan_toolkit.landmarks import LandmarksFile
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Face
from tests.conftest import SAMPLES, photo_of, read_rgb

POINTS = [60.0, 80.0, 100.0, 80.0, 80.0, 100.0, 65.0, 120.0, 95.0, 120.0]
NUMBERS = ",".join(map(str, POINTS))
HEADER = ",".join(["path", *LANDMARK_COLUMNS])


def read(tmp_path: Path, text: str, **options) -> LandmarksFile:
    (tmp_path / "faces.csv").write_text(text, encoding="utf-8", newline="")
    return LandmarksFile(tmp_path / "faces.csv", Settings(**options))


def detect(table: LandmarksFile, name: str = "a.jpg") -> list[Face]:
    return table.detect(photo_of(np.zeros((200, 200, 3), np.uint8), name))


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        (f"a.jpg,{NUMBERS}\n", None),
        (f"a.jpg,{NUMBERS},0.95\n", 0.95),
        (f"{HEADER}\na.jpg,{NUMBERS}\n", None),
        (f"{HEADER},confidence\r\na.jpg,{NUMBERS},0.95\r\n", 0.95),
        (f"\ufeff{HEADER},note\na.jpg,{NUMBERS},=x\n", None),
        (f"\n{HEADER}\n\na.jpg,{NUMBERS}\n\n", None),
        (f"/photos/a.jpg,{NUMBERS}\n", None),
        (f'"a.jpg",{NUMBERS}\n', None),
    ],
)
def test_layouts(tmp_path: Path, text: str, confidence: float | None) -> None:
    (face,) = detect(read(tmp_path, text))
    assert face.landmarks.ravel().tolist() == POINTS
    assert face.confidence == confidence
    # the crop's footprint: a template of 112 pixels, enlarged as the face is
    assert 100 < face.size < 160
    assert face.box[0] < 60
    assert face.box[2] > 100


def test_columns_in_any_order_with_boxes(tmp_path: Path) -> None:
    header = ",".join(["confidence", *reversed(BOX_COLUMNS), *LANDMARK_COLUMNS, "path"])
    (face,) = detect(read(tmp_path, f"{header}\n0.9,4,3,2,1,{NUMBERS},a.jpg\n", min_face=1))
    assert face.box.tolist() == [1, 2, 3, 4]


def test_rotation(tmp_path: Path) -> None:
    header = ",".join(["path", "rotation", *LANDMARK_COLUMNS])
    rows = f"a.jpg,90,{NUMBERS}\nb.jpg,,{NUMBERS}\nc.jpg,0,{NUMBERS}\n"
    table = read(tmp_path, f"{header}\n{rows}")
    assert [detect(table, f"{name}.jpg")[0].rotation for name in "abc"] == [90, 0, 0]
    plain = read(tmp_path, f"{HEADER}\na.jpg,{NUMBERS}\n")
    a, b, c, before = (
        some.identify(photo_of(np.zeros((1, 1, 3), np.uint8), name).source)
        for some, name in ((table, "a.jpg"), (table, "b.jpg"), (table, "c.jpg"), (plain, "a.jpg"))
    )
    assert b == c == before
    assert a != b


def test_box_crops_of_turned_faces_are_the_detectors(tmp_path: Path) -> None:
    """From faces.csv as `detect` writes it, a FaceNet crop is that of detection itself."""
    sideways = SAMPLES / "astronaut_sideways_no_exif.jpg"
    options = {"device": "cpu", "rotate": True, "template": "box", "crop_size": 160}
    pipeline = Pipeline(Settings(task="align", **options), crops_folder=tmp_path / "one")
    (record,) = pipeline.run([sideways])
    assert record.rotation in (90, 270)
    row = record.as_dict()
    with (tmp_path / "faces.csv").open("w", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, row).writeheader()
        csv.DictWriter(file, row).writerow(row)
    settings = Settings(task="align", landmarks=tmp_path / "faces.csv", **options)
    (again,) = Pipeline(settings, crops_folder=tmp_path / "two").run([sideways])
    assert again.rotation == record.rotation
    crops = [read_rgb(tmp_path / folder / crop.crop.split("/", 1)[1])
             for folder, crop in (("one", record), ("two", again))]  # fmt: skip
    assert (crops[0] == crops[1]).all()


def test_several_faces_largest_first(tmp_path: Path) -> None:
    small = ",".join(str(value / 3) for value in POINTS)
    faces = detect(read(tmp_path, f"a.jpg,{small}\nb.jpg,{NUMBERS}\na.jpg,{NUMBERS}\n"))
    assert [face.landmarks[0, 0] for face in faces] == [60, 20]


def test_windows_paths_and_guarded_cells(tmp_path: Path) -> None:
    table = read(tmp_path, f"sub\\a.jpg,{NUMBERS}\n'=b.jpg,'{NUMBERS}\n")
    assert detect(table, "sub/a.jpg")
    assert detect(table, "=b.jpg")


def test_photos_it_lacks(tmp_path: Path) -> None:
    table = read(tmp_path, f"a.jpg,{NUMBERS}\nnobody.jpg,,,,,,,,,,\n")
    for name in ("b.jpg", "nobody.jpg"):
        with pytest.raises(NoLandmarks, match=r"faces\.csv"):
            detect(table, name)


def test_identity_follows_the_photos_rows(tmp_path: Path) -> None:
    def identity(text: str, name: str) -> str:
        return read(tmp_path, text).identify(photo_of(np.zeros((1, 1, 3), np.uint8), name).source)

    before = f"a.jpg,{NUMBERS}\nb.jpg,{NUMBERS}\n"
    after = f"b.jpg,{NUMBERS}\na.jpg,{NUMBERS.replace('60.0', '61.0')}\n"
    assert identity(before, "a.jpg") != identity(after, "a.jpg")
    assert identity(before, "b.jpg") == identity(after, "b.jpg")
    assert identity(before, "c.jpg") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,left_eye_x\na.jpg,3\n", "lacks the columns"),
        ("a.jpg,1,2,3\n", "line 1: 4 cells"),
        (f"{HEADER}\na.jpg,1,2,,,,,,,,\n", "line 2: 2 of ten"),
        (f"{HEADER}\na.jpg,{NUMBERS}\nb.jpg,1,2,x,4,5,6,7,8,9,10\n", "line 3: .*'x'"),
        (f"{HEADER},rotation\na.jpg,{NUMBERS},45\n", "line 2: rotation 45 is none of"),
        ("hello\nworld\n", "line 1: 1 cells"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        detect(read(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.csv"):
        LandmarksFile(tmp_path / "gone.csv", Settings())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308"])
def test_numbers_that_are_no_pixels(tmp_path: Path, value: str) -> None:
    with pytest.raises(PhotoError):
        detect(read(tmp_path, f"a.jpg,{value},{NUMBERS.partition(',')[2]}\n"))


def test_coinciding_points_and_least_confidence(tmp_path: Path) -> None:
    with pytest.raises(Unalignable):
        detect(read(tmp_path, "a.jpg," + ",".join(["5"] * 10)))
    with pytest.raises(NoFace, match=r"0\.50"):
        detect(read(tmp_path, f"a.jpg,{NUMBERS},0.5\n"))
