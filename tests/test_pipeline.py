"""Photos to records, through the Python interface."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from faceqan_toolkit import FaceQAN, Pipeline, Record, Settings
from faceqan_toolkit.embedders.base import Embedder
from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.types import LANDMARK_COLUMNS
from tests.conftest import SAMPLES, read_rgb

QUICK = {"steps": 2, "copies": 1, "device": "cpu"}


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
    records = Pipeline(Settings(preset="fast", device="cpu")).run(SAMPLES / name for name in names)
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


def test_exif_orientation_is_applied(samples) -> None:
    (upright,), (sideways,) = (samples[0][f"astronaut{e}.jpg"] for e in ("", "_sideways_exif"))
    for column in LANDMARK_COLUMNS:
        assert getattr(upright, column) == pytest.approx(getattr(sideways, column), abs=2)


def test_crops_on_disk_give_the_same_scores(samples) -> None:
    records, folder = samples
    scored = [record for rows in records.values() for record in rows if record.crop]
    assert len(scored) == len(list(folder.rglob("*.png"))) == 14
    crops = [read_rgb(folder.parent / record.crop) for record in scored]
    scores = FaceQAN(**QUICK).score(crops)
    assert [score.quality for score in scores] == [record.quality for record in scored]
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


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("faces", ("largest", "central")),
        ("faces", ("largest", "all")),
        ("detector", ("mtcnn", "yunet")),
        ("min_face", (20, 140)),
        ("min_confidence", (0.9, 1.0)),
        ("max_side", (1600, 300)),
        ("one_based", (False, True)),
        ("max_pixels", (10_000_000, 1000)),
    ],
    ids=str,
)
def test_every_detection_option_changes_the_result(option, values, tmp_path: Path) -> None:
    wide = np.concatenate(
        [read_rgb(SAMPLES / "two_people.jpg"), np.zeros((512, 300, 3), np.uint8)], 1
    )
    # the smaller face moves to the middle
    Image.fromarray(np.roll(wide, 300, axis=1)).save(tmp_path / "photo.png")
    one, other = (
        [
            dataclasses.replace(record, root="")
            for record in Pipeline(Settings(task="detect", device="cpu", **{option: value})).run(
                [tmp_path]
            )
        ]
        for value in values
    )
    assert one != other


def test_antialiasing_changes_crops_of_large_faces(tmp_path: Path) -> None:
    picture = Image.open(SAMPLES / "hopper.jpg")
    picture.resize((picture.width * 3, picture.height * 3)).save(tmp_path / "large.png")
    one, other = (
        Pipeline(Settings(antialias=value, **QUICK)).run([tmp_path]) for value in (True, False)
    )
    assert next(one).quality != next(other).quality


def test_landmarks_from_a_file_replace_detection(tmp_path: Path) -> None:
    settings = Settings(**QUICK)
    (found,) = Pipeline(settings).run([SAMPLES / "hopper.jpg"])
    numbers = ",".join(repr(getattr(found, column)) for column in LANDMARK_COLUMNS)
    table = tmp_path / "retinaface.csv"
    table.write_text(f"hopper.jpg,{numbers},0.97\n")
    records = by_path(Pipeline(dataclasses.replace(settings, landmarks=table)).run([SAMPLES]))
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


class Useless(Embedder):
    def forward(self, crops: Tensor) -> Tensor:
        return crops.flatten(1)[:, :8] * 0


def test_a_useless_embedding_is_a_record() -> None:
    pipeline = Pipeline(Settings(**QUICK))
    pipeline.scorer = FaceQAN(Useless(), copies=1, device="cpu")
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


def test_a_disk_that_is_full_stops_the_run(tmp_path: Path, monkeypatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    pipeline = Pipeline(Settings(task="align", device="cpu"), crops_folder=tmp_path / "crops")
    with pytest.raises(RunError, match=r"No space left on device.*is safe"):
        list(pipeline.run([SAMPLES / "hopper.jpg"]))


def test_inputs_that_do_not_exist() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.jpg"):
        list(Pipeline(Settings(task="detect", device="cpu")).run(["nowhere.jpg"]))


def test_no_photos_no_records(tmp_path: Path) -> None:
    assert list(Pipeline(Settings(task="detect", device="cpu")).run([tmp_path])) == []
