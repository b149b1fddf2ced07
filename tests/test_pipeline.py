"""Photos to records, through the Python interface."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceqan_toolkit import FaceQAN, Pipeline, Record, Settings, alignment
from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.text import LIKE_A_CROP
from faceqan_toolkit.types import LANDMARK_COLUMNS, Face, Photo
from tests.conftest import DATA, SAMPLES, read_rgb

QUICK = {"steps": 2, "copies": 1, "device": "cpu", "backend": "torch"}


def by_path(records) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.path, []).append(record)
    return found


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> tuple[dict[str, list[Record]], Path]:
    folder = tmp_path_factory.mktemp("run") / "crops"
    pipeline = Pipeline(Settings(**QUICK, faces="all"), crops_folder=folder)
    return by_path(pipeline.run([SAMPLES])), folder


def test_every_sample_has_records(samples) -> None:
    records, _ = samples
    files = {path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*.*")}
    assert set(records) == files


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("corrupt.jpg", "unreadable", "truncated"),
        ("no_face.png", "no_face", "no face found"),
        ("astronaut_thumbnail.jpg", "too_small", "--min-face is 20"),
        ("astronaut_sideways_no_exif.jpg", "no_face", "--rotate"),
    ],
)
def test_failures_say_why(samples, name: str, status: str, reason: str) -> None:
    (record,) = samples[0][name]
    assert record.status == status
    assert reason in record.reason
    assert record.quality is None
    assert record.face is None
    assert record.file_size == (SAMPLES / name).stat().st_size


@pytest.mark.parametrize("person", ["astronaut", "hopper"])
def test_clean_photos_beat_their_damaged_versions(person: str) -> None:
    names = [f"{person}{damage}.jpg" for damage in ("", "_blurred", "_dark")]
    records = Pipeline(Settings(preset="fast", device="cpu", backend="torch")).run(
        SAMPLES / name for name in names
    )
    clean, blurred, dark = (record.quality for record in records)
    assert clean > blurred + 0.05
    assert blurred > dark + 0.05


def test_two_people_are_two_faces(samples) -> None:
    first, second = samples[0]["two_people.jpg"]
    assert (first.face, second.face) == (0, 1)
    assert first.face_px > second.face_px
    assert {record.crop for record in (first, second)} == {
        "crops/two_people.jpg.0.png",
        "crops/two_people.jpg.1.png",
    }


def test_a_larger_false_face_is_not_chosen(tmp_path: Path) -> None:
    """People upside down, where MTCNN is sure of a face that is none, beside a smaller true one."""
    upside_down = read_rgb(SAMPLES / "two_people.jpg")[::-1, ::-1]
    height, width = max(upside_down.shape[0], 512), upside_down.shape[1]
    photo = np.zeros((height, width + 512, 3), np.uint8)
    photo[: len(upside_down), :width] = upside_down
    photo[:512, width:] = read_rgb(SAMPLES / "astronaut.jpg")
    Image.fromarray(photo).save(tmp_path / "photo.png")

    def found(faces: str) -> list[Record]:
        return list(Pipeline(Settings(task="detect", faces=faces)).run([tmp_path]))

    false, true = sorted(found("all"), key=lambda record: -(record.face_px or 0))
    assert false.box_x1 < width < true.box_x1
    assert false.confidence > 0.99
    for policy in ("largest", "central"):
        (chosen,) = found(policy)
        assert (chosen.face, chosen.box_x1) == (true.face, true.box_x1)


def test_an_aligned_crop_among_photos_is_told(tmp_path: Path) -> None:
    crop = DATA / "astronaut.png"
    for size in (112, 224):
        pixels = cv2.resize(read_rgb(crop), (size, size), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(pixels).save(tmp_path / f"{size}.png")
    pipeline = Pipeline(Settings(**QUICK))
    assert [record.reason for record in pipeline.run([tmp_path])] == [LIKE_A_CROP] * 2
    assert [record.reason for record in pipeline.run([SAMPLES / "astronaut.jpg"])] == [""]


def test_exif_orientation_is_applied(samples) -> None:
    (upright,), (sideways,) = (samples[0][f"astronaut{e}.jpg"] for e in ("", "_sideways_exif"))
    for column in LANDMARK_COLUMNS:
        assert getattr(upright, column) == pytest.approx(getattr(sideways, column), abs=2)


def test_crops_on_disk_give_the_same_scores(samples) -> None:
    records, folder = samples
    scored = [record for rows in records.values() for record in rows if record.crop]
    assert len(scored) == len(list(folder.rglob("*.png"))) == 14
    crops = [read_rgb(folder.parent / record.crop) for record in scored[:3]]
    scores = FaceQAN(**QUICK).score(crops)
    assert [score.quality for score in scores] == [record.quality for record in scored[:3]]
    # and as a task of its own
    again = by_path(Pipeline(Settings(task="score", **QUICK)).run([folder]))
    for record in scored:
        (row,) = again[record.crop.removeprefix("crops/")]
        assert row.quality == record.quality
        assert row.box_x1 is None


def test_score_of_pictures_of_another_size(tmp_path: Path) -> None:
    Image.fromarray(read_rgb(SAMPLES / "hopper.jpg")).save(tmp_path / "large.png")
    Image.new("RGB", (50, 60), "teal").save(tmp_path / "small.png")
    records = list(Pipeline(Settings(task="score", **QUICK)).run([tmp_path]))
    assert [record.status for record in records] == ["ok", "ok"]
    assert [record.reason for record in records] == ["resized from 512x600", "resized from 50x60"]


def test_align_makes_crops_and_no_scores(tmp_path: Path) -> None:
    pipeline = Pipeline(Settings(task="align", device="cpu"), crops_folder=tmp_path / "crops")
    (record,) = pipeline.run([SAMPLES / "astronaut.jpg"])
    assert pipeline.scorer is None
    assert record.quality is None
    assert record.status == "ok"
    assert read_rgb(tmp_path / record.crop).shape == (112, 112, 3)


def test_detect_makes_no_crops(tmp_path: Path) -> None:
    pipeline = Pipeline(Settings(task="detect", device="cpu"), crops_folder=tmp_path / "crops")
    (record,) = pipeline.run([SAMPLES / "astronaut.jpg"])
    assert record.crop == ""
    assert record.face_px is not None
    assert not (tmp_path / "crops").exists()


@pytest.fixture(scope="module")
def in_the_middle(tmp_path_factory) -> tuple[Path, list[Record]]:
    """A photo whose smaller face is in the middle, and what is found by default."""
    photo = tmp_path_factory.mktemp("middle") / "photo.png"
    wide = np.concatenate(
        [read_rgb(SAMPLES / "two_people.jpg"), np.zeros((512, 300, 3), np.uint8)], 1
    )
    Image.fromarray(np.roll(wide, 300, axis=1)).save(photo)
    return photo, list(Pipeline(Settings(task="detect", device="cpu")).run([photo]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("faces", "central"),
        ("faces", "all"),
        ("detector", "yunet"),
        ("min_face", 140),
        ("min_confidence", 1.0),
        ("max_side", 300),
        ("one_based", True),
        ("max_pixels", 1000),
    ],
)
def test_every_detection_option_changes_the_result(option: str, value, in_the_middle) -> None:
    photo, plain = in_the_middle
    settings = Settings(task="detect", device="cpu", **{option: value})
    assert list(Pipeline(settings).run([photo])) != plain


def test_antialiasing_changes_crops_of_large_faces(tmp_path: Path) -> None:
    picture = Image.open(SAMPLES / "hopper.jpg")
    picture.resize((picture.width * 3, picture.height * 3)).save(tmp_path / "large.png")
    one, other = (
        Pipeline(Settings(antialias=value, detector="yunet", **QUICK)).run([tmp_path])
        for value in (True, False)
    )
    assert next(one).quality != next(other).quality


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One picture of 3600 pixels, a large face and a small one, as JPEG and as PNG."""
    folder = tmp_path_factory.mktemp("large")
    hopper = Image.open(SAMPLES / "hopper.jpg").convert("RGB")
    large = hopper.resize((hopper.width * 6, hopper.height * 6), Image.Resampling.BICUBIC)
    wide = Image.new("RGB", (3600, 3600), "grey")
    wide.paste(large, (0, 0))
    astronaut = Image.open(SAMPLES / "astronaut.jpg").convert("RGB").crop((100, 0, 400, 300))
    wide.paste(astronaut.resize((600, 600)), (3000, 3000))
    wide.save(folder / "photo.jpg", quality=95)
    # the same pixels without a way to decode them smaller
    Image.open(folder / "photo.jpg").save(folder / "photo.png")
    return folder


Cut = tuple[list[Record], list[np.ndarray]]


def cut(folder: Path, name: str, **options) -> Cut:
    """Return the records and crops of a photo's faces."""
    pipeline = Pipeline(
        Settings(**{"task": "align", "faces": "all", "device": "cpu", **options}),
        crops_folder=folder / "crops",
    )
    records = list(pipeline.run([folder / name]))
    return records, [read_rgb(folder / record.crop) for record in records]


@pytest.fixture(scope="module")
def reduced(folder: Path) -> Cut:
    return cut(folder, "photo.jpg")


class TestReducedJPEGs:
    """Large JPEGs are decoded smaller where nothing is lost by it."""

    def test_the_same_faces_in_pixels_of_the_full_photo(self, folder: Path, reduced: Cut) -> None:
        of_jpeg, of_png = reduced[0], cut(folder, "photo.png")[0]
        assert [record.status for record in of_jpeg] == ["ok", "ok"]
        for one, other in zip(of_jpeg, of_png, strict=True):
            apart = [
                abs(getattr(one, column) - getattr(other, column)) for column in LANDMARK_COLUMNS
            ]
            assert max(apart) < 0.03 * other.face_px
        assert of_png[0].face_px > 900
        assert of_png[1].face_px < 200

    def test_large_faces_score_the_same(self, folder: Path, reduced: Cut) -> None:
        table = folder / "faces.csv"
        (found, _), (crop, _) = reduced
        numbers = ",".join(repr(getattr(found, column)) for column in LANDMARK_COLUMNS)
        table.write_text(f"{found.path},{numbers},0.97\n")
        # a landmarks file looks at no picture, so it has the photo decoded in full
        _, (in_full,) = cut(folder, "photo.jpg", landmarks=table)
        assert not np.array_equal(crop, in_full)
        one, other = load_model("sface").embed([crop, in_full], device="cpu")
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.99

    def test_small_faces_are_cut_from_the_full_photo(
        self, folder: Path, reduced: Cut, monkeypatch
    ) -> None:
        _, (large, small) = reduced
        monkeypatch.setattr(alignment, "detail_survives", lambda *_: False)
        _, (large_in_full, small_in_full) = cut(folder, "photo.jpg")
        assert np.array_equal(small, small_in_full)
        assert not np.array_equal(large, large_in_full)

    @pytest.mark.parametrize(
        "options", [{"antialias": False}, {"max_side": 0}, {"max_side": 1801}], ids=str
    )
    def test_what_needs_every_pixel_gets_them(self, folder: Path, options) -> None:
        options |= {"faces": "largest", "detector": "yunet"}
        (_, of_jpeg), (_, of_png) = (
            cut(folder, f"photo.{kind}", **options) for kind in ("jpg", "png")
        )
        assert np.array_equal(of_jpeg, of_png)

    def test_turned_photos(self, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        lying = Image.open(folder / "photo.jpg").crop((0, 0, 3600, 3000))
        lying.rotate(90, expand=True).save(folder / "tagged.jpg", exif=exif, quality=95)
        lying.rotate(90, expand=True).save(folder / "untagged.jpg", quality=95)
        lying.save(folder / "upright.jpg", quality=95)
        options = {"task": "detect", "faces": "largest", "rotate": True, "min_confidence": 0.995}
        upright, tagged, untagged = (
            next(Pipeline(Settings(device="cpu", **options)).run([folder / f"{name}.jpg"]))
            for name in ("upright", "tagged", "untagged")
        )
        assert untagged.rotation == 270
        for column in LANDMARK_COLUMNS:
            assert getattr(tagged, column) == pytest.approx(getattr(upright, column), abs=15)
        # what was at the right is at the top, counted from the full photo's edge
        assert untagged.left_eye_y == pytest.approx(3600 - 1 - upright.left_eye_x, abs=15)
        assert untagged.left_eye_x == pytest.approx(upright.left_eye_y, abs=15)


def test_landmarks_from_a_file_replace_detection(tmp_path: Path) -> None:
    settings = Settings(**QUICK)
    (found,) = Pipeline(settings).run([SAMPLES / "hopper.jpg"])
    numbers = ",".join(repr(getattr(found, column)) for column in LANDMARK_COLUMNS)
    table = tmp_path / "retinaface.csv"
    table.write_text(f"hopper.jpg,{numbers},0.97\n")
    (photos := tmp_path / "photos").mkdir()
    for name in ("hopper.jpg", "astronaut.jpg"):
        shutil.copy(SAMPLES / name, photos)
    records = by_path(Pipeline(settings.replace(landmarks=table)).run([photos]))
    (row,) = records["hopper.jpg"]
    assert row.quality == found.quality
    assert row.confidence == 0.97
    assert row.landmarks_id
    (other,) = records["astronaut.jpg"]
    assert other.status == "no_landmarks"
    assert "retinaface.csv" in other.reason


def test_an_unexpected_error_costs_one_photo(monkeypatch) -> None:
    pipeline = Pipeline(Settings(task="detect", device="cpu"))
    detect = pipeline.detector.detect

    def fail_once(photo):
        if photo.source.path.endswith("hopper.jpg"):
            raise ZeroDivisionError("nobody thought of this")
        return detect(photo)

    monkeypatch.setattr(pipeline.detector, "detect", fail_once)
    records = list(pipeline.run([SAMPLES / "hopper.jpg", SAMPLES / "astronaut.jpg"]))
    assert [record.status for record in records] == ["crashed", "ok"]
    assert "ZeroDivisionError: nobody thought of this" in records[0].reason
    assert records[0].sha256


def test_a_useless_embedding_is_a_record(monkeypatch) -> None:
    pipeline = Pipeline(Settings(**QUICK))
    monkeypatch.setattr(pipeline.scorer, "_network", lambda crops: crops.flatten(1)[:, :128] * 0)
    (record,) = pipeline.run([SAMPLES / "hopper.jpg"])
    assert record.status == "unscorable"
    assert record.quality is None
    assert record.face_px


def test_one_unalignable_face_does_not_spoil_the_others(tmp_path: Path) -> None:
    (found,) = Pipeline(Settings(task="detect", device="cpu")).run([SAMPLES / "hopper.jpg"])
    good = ",".join(repr(getattr(found, column)) for column in LANDMARK_COLUMNS)
    box = "0,0,50,50"
    table = tmp_path / "faces.csv"
    header = ",".join(["path", *LANDMARK_COLUMNS, "box_x1,box_y1,box_x2,box_y2"])
    same = ",".join(["7"] * 10)
    table.write_text(f"{header}\nhopper.jpg,{good},100,100,300,300\nhopper.jpg,{same},{box}\n")
    settings = Settings(faces="all", landmarks=table, **QUICK)
    first, second = by_path(Pipeline(settings).run([SAMPLES]))["hopper.jpg"]
    assert (first.status, second.status) == ("ok", "unalignable")
    assert second.face == 1


@pytest.fixture
def swapped(tmp_path: Path) -> Path:
    """A landmarks file of one photo: a large face with left and right swapped, and a right one."""
    points = np.array([[208.0, 110], [246, 110], [228, 132], [212, 154], [242, 154]])
    wrong = 3 * points[[1, 0, 2, 4, 3]] - 400
    path = (SAMPLES / "astronaut.jpg").as_posix()
    lines = [",".join([path, *map(str, face.ravel())]) for face in (wrong, points)]
    (tmp_path / "faces.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "faces.csv"


@pytest.mark.parametrize("task", ["detect", "align"])
def test_impossible_faces_are_no_faces(task: str, swapped: Path) -> None:
    """The policy chooses among the others; "all" tells of each."""
    photo, options = SAMPLES / "astronaut.jpg", {"device": "cpu", "landmarks": swapped}

    def run(**more) -> list[tuple[int, str, str]]:
        settings = Settings(task=task, **options, **more)
        return [(r.face, r.status, r.reason) for r in Pipeline(settings).run([photo])]

    reason = "the landmarks' left and right are swapped"
    assert run() == [(0, "ok", "")]
    assert run(faces="all") == [(0, "ok", ""), (1, "unalignable", reason)]
    swapped.write_text(swapped.read_text().splitlines()[0] + "\n")
    assert run() == [(0, "unalignable", reason)]


@pytest.mark.parametrize("alone", [False, True])
def test_a_detectors_impossible_face_is_no_face(alone: bool, monkeypatch) -> None:
    pipeline = Pipeline(Settings(task="align", device="cpu"))
    detect = pipeline.detector.detect

    def detect_mirrored(photo: Photo) -> list[Face]:
        (face,) = detect(photo)
        box, landmarks = np.add(face.box, (-50, -50, 50, 50)), face.landmarks[[1, 0, 2, 4, 3]]
        mirrored = dataclasses.replace(face, box=box, landmarks=landmarks)
        return [mirrored] if alone else [mirrored, face]

    (right,) = pipeline.run([SAMPLES / "astronaut.jpg"])
    monkeypatch.setattr(pipeline.detector, "detect", detect_mirrored)
    (record,) = pipeline.run([SAMPLES / "astronaut.jpg"])
    if alone:
        assert (record.status, record.face) == ("unalignable", 0)
        assert "left and right are swapped" in record.reason
        assert record.face_px == pytest.approx(right.face_px + 100)
    else:
        assert record == right


def test_a_disk_that_is_full_stops_the_run(tmp_path: Path, monkeypatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    pipeline = Pipeline(Settings(task="align", device="cpu"), crops_folder=tmp_path / "crops")
    with pytest.raises(RunError, match=r"No space left on device.*is safe"):
        list(pipeline.run([SAMPLES / "hopper.jpg"]))


def test_photos_need_not_wait_for_their_block_to_fill_up() -> None:
    pipeline = Pipeline(Settings(preset="instant", device="cpu"))
    assert pipeline.scorer.block_faces > 2
    sources = list(find_photos([str(SAMPLES / name) for name in ("hopper.jpg", "astronaut.jpg")]))
    taken = []

    def prepared():
        for source in sources:
            taken.append(source.path)
            yield pipeline.prepare(source)
            yield None
            yield None

    found = pipeline.records(prepared())
    assert next(found)[0].path.endswith("hopper.jpg")
    assert len(taken) == 1
    (rest,) = found
    assert rest[0].path.endswith("astronaut.jpg")


def test_inputs_that_do_not_exist() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.jpg"):
        list(Pipeline(Settings(task="detect", device="cpu")).run(["nowhere.jpg"]))


def test_no_photos_no_records(tmp_path: Path) -> None:
    assert list(Pipeline(Settings(task="detect", device="cpu")).run([tmp_path])) == []
