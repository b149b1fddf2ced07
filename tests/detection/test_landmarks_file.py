"""Landmarks that people bring from other detectors."""

from __future__ import annotations

import csv
import gc
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faceqan_toolkit.detection import landmarks_file
from faceqan_toolkit.detection.landmarks_file import LandmarksFile
from faceqan_toolkit.errors import NoFace, NoLandmarks, PhotoError, SettingsError, Unalignable
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Face
from tests.conftest import SAMPLES, in_every_encoding, photo_of, read_rgb

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


def test_every_encoding(tmp_path: Path) -> None:
    for data in in_every_encoding(f"{HEADER}\r\nä/写真.jpg,{NUMBERS}\r\n"):
        (tmp_path / "faces.csv").write_bytes(data)
        (face,) = detect(LandmarksFile(tmp_path / "faces.csv", Settings()), "ä/写真.jpg")
        assert face.landmarks.ravel().tolist() == POINTS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (f"a.jpg,{NUMBERS}\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (f"\ufeffa.jpg,{NUMBERS}\n".encode("utf-16-le")[:-1], "its mark says UTF-16"),
        ((SAMPLES / "hopper.jpg").read_bytes(), "it is a JPEG picture, not text"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "faces.csv").write_bytes(data)
    with pytest.raises(SettingsError, match=rf"faces\.csv: .*{message}"):
        LandmarksFile(tmp_path / "faces.csv", Settings())


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
    row = record.to_dict()
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
        ("path,left_eye_x\na.jpg,3\n", r"\.csv lacks the columns"),
        ("a.jpg,1,2,3\n", "line 1: 4 cells"),
        (f"{HEADER}\na.jpg,1,2,,,,,,,,\n", "line 2: 2 of ten"),
        (
            f"{HEADER}\na.jpg,{NUMBERS}\nb.jpg,1,2,x,4,5,6,7,8,9,10\n",
            f"line 3: {LANDMARK_COLUMNS[2]} is 'x', not a number",
        ),
        (f"a.jpg,{NUMBERS},sure\n", "line 1: confidence is 'sure', not a number"),
        (f"a.jpg,{NUMBERS},1.5\n", r"line 1: confidence 1\.5 is not in 0\.\.1"),
        (f"a.jpg,{NUMBERS},-0.1\n", r"line 1: confidence -0\.1 is not in"),
        (f"a.jpg,{NUMBERS},nan\n", "line 1: confidence nan is not in"),
        (f"a.jpg,{NUMBERS}\n".replace(",", ";"), "line 1: .*separated by commas, not semicolons"),
        (f"{HEADER}\n".replace(",", ";"), "line 1: .*separated by commas, not semicolons"),
        ("", r"\.csv is empty"),
        (f"\n{HEADER}\n", r"\.csv is empty"),
        (f"{HEADER},rotation\na.jpg,{NUMBERS},45\n", "line 2: rotation 45 is not 0"),
        ("hello\nworld\n", "line 1: 1 cells"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        detect(read(tmp_path, text))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes as files here")
def test_what_may_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for file in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(SettingsError, match="not a file"):
            LandmarksFile(file, Settings())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.csv"):
        LandmarksFile(tmp_path / "gone.csv", Settings())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308"])
def test_numbers_that_are_no_pixels(tmp_path: Path, value: str) -> None:
    with pytest.raises(PhotoError):
        detect(read(tmp_path, f"a.jpg,{value},{NUMBERS.partition(',')[2]}\n"))


def test_rows_without_numbers_are_left_out(tmp_path: Path) -> None:
    missing = ",".join(["nan"] * 10)
    (face,) = detect(read(tmp_path, f"a.jpg,{missing}\na.jpg,{NUMBERS}\n"))
    assert face.landmarks.ravel().tolist() == POINTS
    with pytest.raises(Unalignable, match="not finite"):
        detect(read(tmp_path, f"a.jpg,{missing}\n"))
    boxed = f"{HEADER},{','.join(BOX_COLUMNS)}\na.jpg,{NUMBERS},nan,0,200,200\n"
    (face,) = detect(read(tmp_path, boxed))
    assert np.isfinite(face.box).all()


def swapped(numbers: list[float]) -> str:
    """Return a face's numbers with left and right swapped."""
    points = np.array(numbers).reshape(5, 2)[[1, 0, 2, 4, 3]]
    return ",".join(map(str, points.ravel()))


@pytest.mark.parametrize(
    "numbers", [",".join(["5"] * 10), ",".join(str(v / 200) for v in POINTS), swapped(POINTS)]
)
def test_impossible_faces_are_not_too_small(tmp_path: Path, numbers: str) -> None:
    """Their box is the one around the landmarks: a transform that fits nothing has no crop."""
    (face,) = detect(read(tmp_path, f"a.jpg,{numbers}\n"))
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    assert face.box.tolist() == [*low, *high]


def common(tmp_path: Path, text: str) -> tuple[str, int, int] | None:
    found = read(tmp_path, text).common_mistake()
    return found and (found.mistake.reason, found.number, found.rows)


def test_a_mistake_most_rows_share(tmp_path: Path) -> None:
    right, wrong = f"a.jpg,{NUMBERS}\n", f"b.jpg,{swapped(POINTS)}\n"
    assert common(tmp_path, right) is None
    assert common(tmp_path, right + wrong) is None
    assert common(tmp_path, "nobody.jpg,,,,,,,,,,\n") is None
    expected = ("the landmarks' left and right are swapped", 2, 3)
    assert common(tmp_path, wrong + right + wrong) == expected
    other = f"c.jpg,{NUMBERS.replace('60.0', '600.0')}\n"
    assert common(tmp_path, wrong + other) is None
    # the beginning of a large file is enough
    assert common(tmp_path, wrong * 200 + right * 300) == (expected[0], 200, 200)


def test_least_confidence(tmp_path: Path) -> None:
    with pytest.raises(NoFace, match=r"0\.50"):
        detect(read(tmp_path, f"a.jpg,{NUMBERS},0.5\n"))


ODD_FILE = f"""{HEADER},confidence,rotation,box_x1,box_y1,box_x2,box_y2
z.jpg,{NUMBERS},0.95,90,1,2,3.3333333333333335,4
a.jpg,nan,{NUMBERS.partition(",")[2]},,,,,,
sub\\b.jpg,{NUMBERS},0.5,,,,,
z.jpg,{NUMBERS},,,5,6,7,
"""


def test_identities_are_those_of_version_0_1(tmp_path: Path) -> None:
    """Stored runs hold them: another identity would score their photos again."""
    table = read(tmp_path, ODD_FILE)
    identities = [
        table.identify(photo_of(np.zeros((1, 1, 3), np.uint8), name).source)
        for name in ("z.jpg", "a.jpg", "sub/b.jpg", "nobody.jpg")
    ]
    assert identities == ["a5f571fcb6aa4bdb", "3028bddffdedb0da", "f6637882430c6943", ""]


def test_paths_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_bytes(b"/photos/\xff.jpg," + NUMBERS.encode() + b"\n")
    table = LandmarksFile(tmp_path / "faces.csv", Settings())
    assert table.identify(photo_of(np.zeros((1, 1, 3), np.uint8), "\udcff.jpg").source)


def tables() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("faceqan-landmarks-*"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_file_is_read_once_for_a_process_and_its_children(
    tmp_path: Path, temporary: Path
) -> None:
    table = read(tmp_path, f"a.jpg,{NUMBERS}\n")
    assert len(tables()) == 1
    code = """
import sys
from pathlib import Path
from faceqan_toolkit.detection.landmarks_file import LandmarksFile
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource
LandmarksFile._entries = lambda self: None
table = LandmarksFile(Path(sys.argv[1]), Settings())
print(table.identify(PhotoSource("/", "a.jpg", LocalFile(Path("/a.jpg")))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "faces.csv")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == table.identify(
        photo_of(np.zeros((1, 1, 3), np.uint8), "a.jpg").source
    )
    assert len(tables()) == 1
    changed = read(tmp_path, f"b.jpg,{NUMBERS}\na.jpg,{NUMBERS}\n")
    assert detect(changed, "b.jpg")
    del table, changed
    gc.collect()
    assert tables() == []


def test_a_bad_line_leaves_no_table(tmp_path: Path, temporary: Path) -> None:
    with pytest.raises(SettingsError, match="line 2"):
        read(tmp_path, f"a.jpg,{NUMBERS}\nb.jpg,1\n")
    gc.collect()
    assert tables() == []


def test_rows_of_many_blocks_keep_their_order(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(landmarks_file, "BLOCK", 3)
    lines = [f"{n % 4}.jpg,{n}{NUMBERS}\n" for n in range(10)]
    table = read(tmp_path, "".join(lines), min_face=1)
    rows = [[row.landmarks[0] for row in table._table.rows(f"{n}.jpg")] for n in range(4)]
    assert rows == [[float(f"{n}60.0") for n in range(first, 10, 4)] for first in range(4)]


def test_threads_look_up_at_once(tmp_path: Path) -> None:
    table = read(tmp_path, "".join(f"{n}.jpg,{n}{NUMBERS}\n" for n in range(100)))

    def first(number: int) -> float:
        return detect(table, f"{number}.jpg")[0].landmarks[0, 0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(first, range(100))) == [float(f"{n}60.0") for n in range(100)]


CELLS = st.one_of(
    st.sampled_from(["a.jpg", "path", "60", "1e999", "nan", "-0", '"', "=1", "", "90", "x" * 300]),
    st.floats().map(str),
    st.text(max_size=3),
)
LINES = st.lists(
    st.one_of(
        st.lists(CELLS, max_size=14).map(",".join),
        st.lists(st.floats().map(str), min_size=10, max_size=10).map(
            lambda numbers: ",".join(["a.jpg", *numbers])
        ),
    ),
    max_size=4,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.sampled_from(["", f"{HEADER}\n", f"{HEADER},{','.join(BOX_COLUMNS)},rotation\n"]))
def test_any_table_is_read_or_refused(tmp_path: Path, lines: list[str], header: str) -> None:
    text = (header + "\n".join(lines)).encode("utf-8", "surrogatepass")
    (tmp_path / "any.csv").write_bytes(text)
    try:
        faces = detect(LandmarksFile(tmp_path / "any.csv", Settings()))
    except (SettingsError, PhotoError):
        return
    assert faces
    for face in faces:
        assert np.isfinite(face.landmarks).all()
        assert np.isfinite(face.box).all()
