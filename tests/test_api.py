"""The library does what the command line does, and prints nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import faceqan_toolkit as fq
from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.events import Advanced, Ended, Event, Note, Planned, Started, Wrote
from faceqan_toolkit.pipeline import Pipeline
from tests.conftest import SAMPLES, read_rgb

SETTINGS = fq.Settings(preset="instant", device="cpu", engine="inline")
NAMES = ("hopper.jpg", "astronaut_blurred.jpg", "no_face.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        shutil.copy2(SAMPLES / name, folder)
    return folder


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory) -> tuple[fq.Run, list[Event]]:
    events: list[Event] = []
    output = tmp_path_factory.mktemp("finished") / "run"
    return fq.run(photos, output, SETTINGS, progress=events.append), events


def test_a_run_from_python(finished: tuple[fq.Run, list[Event]], capfd) -> None:
    run, events = finished
    assert run.counts() == {"ok": 2, "no_face": 1}
    rows = run.ranking().rows()
    assert [row["path"] for row in rows] == list(NAMES)
    assert rows[0]["quality"] > rows[1]["quality"]
    kinds = [type(event) for event in events]
    assert kinds.count(Advanced) == 3
    assert kinds.index(Note) < kinds.index(Planned) < kinds.index(Started) < kinds.index(Ended)
    assert Planned(3, 0) in events
    assert Started(3) in events
    assert Ended(complete=True) in events
    written = [event.file.name for event in events if isinstance(event, Wrote)]
    assert written == ["rankings.csv", "report.html"]
    assert {file.name for file in run.folder.iterdir()} >= {
        *written,
        "run.json",
        "records",
        "crops",
    }
    assert capfd.readouterr() == ("", "")


def test_the_same_call_again_goes_on(photos: Path, finished, tmp_path: Path) -> None:
    folder, output = tmp_path / "photos", tmp_path / "run"
    folder.mkdir()
    shutil.copy2(photos / NAMES[0], folder)
    assert fq.run(folder, output, SETTINGS, report=False).counts() == {"ok": 1}
    for name in NAMES[1:]:
        shutil.copy2(photos / name, folder)
    events: list[Event] = []
    again = fq.run(str(folder), str(output), SETTINGS, report=False, progress=events.append)
    assert Planned(3, 1) in events
    found, expected = (
        [{**row, "root": ""} for row in run.ranking().rows()] for run in (again, finished[0])
    )
    assert found == expected
    with pytest.raises(RunError, match="made with other settings"):
        fq.run(folder, output, fq.Settings(preset="fast", device="cpu", engine="inline"))


def test_tasks(photos: Path, tmp_path: Path) -> None:
    settings = fq.Settings(task="align", device="cpu", engine="inline")
    aligned = fq.run(photos, tmp_path / "aligned", settings)
    assert not (aligned.folder / "report.html").exists()
    settings = fq.Settings(task="score", preset="instant", device="cpu", engine="inline")
    scored = fq.run(aligned.folder / "crops", tmp_path / "scored", settings, report=False)
    assert scored.counts() == {"ok": 2}


def test_shards_are_merged(photos: Path, finished, tmp_path: Path) -> None:
    runs = [
        fq.run(photos, tmp_path / number, SETTINGS, shard=f"{number}/2", report=False)
        for number in "12"
    ]
    merged = fq.merge(runs, tmp_path / "merged", report=False)
    assert (merged.folder / "rankings.csv").read_bytes() == (
        finished[0].folder / "rankings.csv"
    ).read_bytes()


def test_filter(finished: tuple[fq.Run, list[Event]], photos: Path, tmp_path: Path) -> None:
    run, _ = finished
    best = run.filter(keep_top=1)
    assert list(best.paths()) == [str(photos / NAMES[0])]
    assert best.copy(tmp_path / "kept") == {"copy": 1, "drop": 2}
    assert (tmp_path / "kept" / NAMES[0]).read_bytes() == (photos / NAMES[0]).read_bytes()
    assert (tmp_path / "kept/manifest.csv").exists()
    assert list(run.filter(drop_status=["no_face"]).paths()) == [str(photos / n) for n in NAMES[:2]]
    assert list(run.filter(keep_top="50%").paths()) == list(best.paths())
    assert list(run.filter(keep_top="1").paths()) == list(best.paths())
    with pytest.raises(SettingsError, match="`keep_top` is half; it must be a number, or a perc"):
        run.filter(keep_top="half")
    with pytest.raises(SettingsError, match="`calibration` gives the quality: leave `min_qual"):
        run.filter(calibration="c.json", min_quality=0.5)
    with pytest.raises(SettingsError, match="`target_fnmr` and `target_discard` need `calib"):
        run.filter(target_fnmr=0.1)
    with pytest.raises(SettingsError, match="say what to keep"):
        run.filter()
    with pytest.raises(SettingsError, match="no quality reaches"):
        run.filter(min_quality=50)


def test_report(finished: tuple[fq.Run, list[Event]], tmp_path: Path) -> None:
    run, _ = finished
    report = run.report(tmp_path / "page.html", pictures=False, below=0.5)
    assert report.file == tmp_path / "page.html"
    assert "hopper.jpg" in report.file.read_text(encoding="utf-8")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"mine\.txt"):
        run.report(tmp_path / "mine.txt")


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        fq.open_run(tmp_path)


def test_calibrate(tmp_path: Path) -> None:
    for number, name in enumerate(("hopper", "hopper_blurred", "astronaut", "astronaut_noisy")):
        person = tmp_path / "people" / name.partition("_")[0]
        person.mkdir(parents=True, exist_ok=True)
        shutil.copy2(SAMPLES / f"{name}.jpg", person / f"{number}.jpg")
    run = fq.run(tmp_path / "people", tmp_path / "run", SETTINGS, report=False)
    events: list[Event] = []
    made = run.calibrate(target_discard=0.25, progress=events.append)
    assert Started(4, "crop") in events
    threshold = made.threshold(discard=0.25)
    again = fq.run(
        tmp_path / "people", run.folder, SETTINGS, report=False,
        calibration=run.folder / "calibration.json",
    )  # fmt: skip
    assert again.content["calibration"]["id"] == made.id
    kept = run.filter(calibration=run.folder / "calibration.json")
    assert kept.rules.min_quality == threshold.quality


def test_detect_and_align() -> None:
    pixels = read_rgb(SAMPLES / "two_people.jpg")
    faces = fq.detect(SAMPLES / "two_people.jpg")
    assert len(faces) == 2
    assert faces[0].size >= faces[1].size
    assert np.array_equal(fq.detect(pixels)[0].landmarks, faces[0].landmarks)
    assert fq.detect(SAMPLES / "no_face.png") == []
    (record, *_) = Pipeline(SETTINGS).assess(pixels)
    assert record.face_px == faces[0].size
    crop = fq.align(pixels)
    assert crop.pixels.shape == (112, 112, 3)
    assert np.array_equal(fq.align(pixels, faces[0]).pixels, crop.pixels)
    assert not np.array_equal(fq.align(Image.fromarray(pixels), faces[1]).pixels, crop.pixels)
