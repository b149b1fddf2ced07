"""A run's crops, cut again, against those the pipeline cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.results.crops import RunCrops
from faceqan_toolkit.runs.folder import RunWriter, read_run
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.conftest import SAMPLES, read_rgb
from tests.report.runs import face, failed, make_run, write_photo


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG that detection reads at a half: its face is large."""
    pixels = cv2.imread(str(SAMPLES / "hopper.jpg"))
    assert pixels is not None
    large = cv2.resize(pixels, None, fx=7, fy=7, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "large.jpg"), large)
    return tmp_path / "large.jpg"


def pipeline_run(folder: Path, photo: Path, **options: object) -> tuple[RunCrops, Record]:
    settings = Settings(task="align", device="cpu", **options)  # type: ignore[arg-type]
    with RunWriter(folder, settings, "") as run:
        (record,) = Pipeline(settings, crops_folder=run.crops_folder).run([photo])
        run.append([record])
        run.write_info({})
    return RunCrops(read_run(folder)), record


@pytest.mark.parametrize(
    "options",
    [{}, {"antialias": False}, {"template": "box", "crop_size": 160}, {"crop_size": 448}],
    ids=str,
)
def test_cut_again_as_the_run_cut(tmp_path: Path, photo: Path, options) -> None:
    crops, record = pipeline_run(tmp_path / "run", photo, **options)
    kept = read_rgb(tmp_path / "run" / record.crop)
    assert (crops.crop(record.to_dict()) == kept).all()
    shutil.rmtree(tmp_path / "run/crops")
    assert (crops.crop(record.to_dict()) == kept).all()


def test_a_file_of_landmarks_is_not_asked_again(tmp_path: Path, photo: Path) -> None:
    _, found = pipeline_run(tmp_path / "detected", photo)
    row = found.to_dict()
    names = ["path", *(name for name in row if name.split("_")[-1] in "xy")]
    table = tmp_path / "faces.csv"
    table.write_text(
        f"{','.join(names)}\n{','.join(str(row[name]) for name in names)}\n", encoding="utf-8"
    )
    crops, record = pipeline_run(tmp_path / "run", photo, landmarks=table)
    table.unlink()
    kept = read_rgb(tmp_path / "run" / record.crop)
    assert (crops.crop({**record.to_dict(), "crop": ""}) == kept).all()


def test_turned_faces(tmp_path: Path) -> None:
    sideways = SAMPLES / "astronaut_sideways_no_exif.jpg"
    crops, record = pipeline_run(tmp_path / "run", sideways, rotate=True, template="box")
    assert record.rotation
    kept = read_rgb(tmp_path / "run" / record.crop)
    assert (crops.crop({**record.to_dict(), "crop": ""}) == kept).all()


def test_there_is_none(tmp_path: Path) -> None:
    write_photo(tmp_path / "p/a.png", (9, 99, 199), (112, 112))
    write_photo(tmp_path / "outside.png", (1, 2, 3), (112, 112))
    run = make_run(tmp_path / "run", [])
    root = str(tmp_path / "p")
    whole = RunCrops(run).crop(face("a.png", 0.5, root).to_dict())
    assert whole.shape == (112, 112, 3)
    rows = [
        failed("a.png", root=root),
        face("gone.png", 0.5, root),
        face("a.png", 0.5, root, sha256="0" * 64),
        face("a.png", 0.5, root, nose_x=None),
    ]
    for row in rows:
        with pytest.raises(PhotoError):
            RunCrops(run).crop(row.to_dict())
    for crop in ("", "crops/../../outside.png", str(tmp_path / "outside.png")):
        with pytest.raises(PhotoError):
            RunCrops(run, cut=False).crop(face("a.png", 0.5, root, crop=crop).to_dict())


def test_photos_of_score_are_crops(tmp_path: Path) -> None:
    write_photo(tmp_path / "crops/x.png", (9, 99, 199), (50, 60))
    run = make_run(tmp_path / "run", [], "score")
    found = RunCrops(run, cut=False).crop(face("x.png", 0.5, str(tmp_path / "crops")).to_dict())
    assert (found == np.full((50, 60, 3), (9, 99, 199))).all()
