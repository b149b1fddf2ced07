"""Pictures: the right one in the right place, and none where there is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from faceqan_toolkit.report.pictures import PHOTO_SIDE, Pictures, sheet
from faceqan_toolkit.types import Record
from tests.conftest import SAMPLES, read_rgb
from tests.report.runs import face, failed, make_run, write_photo


def pixels_of(jpeg: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1]


def test_a_sheet_has_each_thumbnail_in_its_place() -> None:
    colours = [(n * 20 % 256, 255 - n * 20 % 256, 40) for n in range(11)]
    thumbnails = [np.full((112, 112, 3), colour, np.uint8) for colour in colours]
    found = pixels_of(sheet([*thumbnails[:3], None, *thumbnails[4:]]))
    assert found.shape == (224, 896, 3)
    for place, colour in enumerate(colours):
        top, left = place // 8 * 112, place % 8 * 112
        tile = found[top : top + 112, left : left + 112].astype(int)
        expected = (127, 127, 127) if place == 3 else colour
        assert np.abs(tile - expected).max() <= 4, place


def row(record: Record) -> dict[str, object]:
    return record.to_dict()


def pictures(folder: Path, task: str = "align-and-score", *, cut: bool = True) -> Pictures:
    return Pictures(make_run(folder, [], task), cut=cut)


def test_crops_come_from_the_run(tmp_path: Path) -> None:
    found = pictures(tmp_path / "run")
    write_photo(tmp_path / "run/crops/a.jpg.0.png", (200, 30, 60), (112, 112))
    write_photo(tmp_path / "run/crops/large.png", (10, 130, 60), (224, 224))
    write_photo(tmp_path / "outside.png", (1, 2, 3), (112, 112))
    thumbnail = found.thumbnail(row(face("a.jpg", 0.5, crop="crops/a.jpg.0.png")))
    assert thumbnail is not None
    assert (thumbnail == (200, 30, 60)).all()
    large = found.thumbnail(row(face("b.jpg", 0.5, crop="crops/large.png")))
    assert large is not None
    assert large.shape == (112, 112, 3)
    for crop in ("crops/gone.png", "crops/../../outside.png", str(tmp_path / "outside.png"), ""):
        assert found.thumbnail(row(face("c.jpg", 0.5, crop=crop))) is None
    assert found.thumbnail(row(failed("d.jpg"))) is None


def test_crops_that_were_not_kept_are_cut_again(tmp_path: Path) -> None:
    from faceqan_toolkit.pipeline import Pipeline
    from faceqan_toolkit.settings import Settings

    settings = Settings(task="align", device="cpu")
    photos = [SAMPLES / "hopper.jpg"]
    (record,) = Pipeline(settings, crops_folder=tmp_path / "crops").run(photos)
    expected = read_rgb(tmp_path / record.crop)
    found = pictures(tmp_path / "run").thumbnail({**row(record), "crop": ""})
    assert found is not None
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert pictures(tmp_path / "other", cut=False).thumbnail({**row(record), "crop": ""}) is None


def test_crops_given_to_score_are_shown(tmp_path: Path) -> None:
    write_photo(tmp_path / "crops/x.png", (9, 99, 199), (112, 112))
    record = face("x.png", 0.5, str(tmp_path / "crops"))
    found = pictures(tmp_path / "run", "score").thumbnail(row(record))
    assert found is not None
    assert (found == (9, 99, 199)).all()


def test_photos_are_made_smaller(tmp_path: Path) -> None:
    write_photo(tmp_path / "wide.png", (10, 200, 90), (500, 2000))
    write_photo(tmp_path / "small.png", (10, 200, 90), (50, 70))
    found = pictures(tmp_path / "run")
    wide = found.photo(row(face("wide.png", 0.5, str(tmp_path))))
    assert wide is not None
    assert wide[1:] == (2000, 500)
    assert pixels_of(wide.jpeg).shape == (PHOTO_SIDE // 4, PHOTO_SIDE, 3)
    small = found.photo(row(failed("small.png", root=str(tmp_path))))
    assert small is not None
    assert pixels_of(small.jpeg).shape == (50, 70, 3)


def test_photos_that_are_not_those_are_none(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", (10, 200, 90))
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    digest = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    found = pictures(tmp_path / "run")
    root = str(tmp_path)
    assert found.photo(row(face("a.png", 0.5, root, sha256=digest)))
    assert found.photo(row(face("a.png", 0.5, root, sha256="0" * 64))) is None
    assert found.photo(row(face("gone.png", 0.5, root))) is None
    assert found.photo(row(face("bad.jpg", 0.5, root))) is None
