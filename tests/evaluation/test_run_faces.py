"""One face a photo, of the last attempt, as score files choose it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.evaluation.datasets.readers import read_folders
from faceqan_toolkit.evaluation.run_faces import (
    baselines,
    crop_files,
    is_constant,
    model_note,
    other_faces,
    own_method,
    read_run_faces,
)
from faceqan_toolkit.evaluation.score_files import read_scores
from faceqan_toolkit.runs.folder import RunWriter
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.evaluation.datasets.trees import photo
from tests.ledgers import write_run


def record(path: str, face: int | None, quality: float | None, **more) -> Record:
    status = more.pop("status", "ok" if quality is not None else "no_face")
    some = (quality or 0) / 10
    known = {"face_px": 50 + some, "sharpness": 2.0, "confidence": 0.9 + some,
             "embedding_norm": 9 + some} if status == "ok" else {}  # fmt: skip
    return Record(path, "/photos", face, status, quality=quality, **{**known, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = Settings(preset="fast", faces="all")
    model = {"template": "arcface", "input_size": 112}
    with RunWriter(tmp_path / "run", settings, "w" * 64, model) as run:
        run.append([record("a/1.jpg", 1, 0.9, crop="crops/a1.1"), record("a/1.jpg", 0, 0.2)])
        run.append([record("a/2.jpg", 0, None, status="unscorable"), record("a/2.jpg", 1, 0.4)])
        run.append([record("b/1.jpg", None, None)])
        run.append([record("b/2.jpg", 0, 0.7)])
        run.append([record("b/2.jpg", 0, 0.1, crop="crops/b2.0", attempt=1)])
        run.append([record("a/3.jpg", 0, 0.5, sharpness=None)])
        run.write_info({})
    return tmp_path / "run"


def test_faces(folder: Path) -> None:
    faces = read_run_faces(folder)
    table = read_scores(folder)
    assert dict(zip(faces.paths, faces.values["quality"], strict=True)) == pytest.approx(
        dict(zip(table.paths, table.values, strict=True)), nan_ok=True
    )
    assert faces.cut_as == ("arcface", 112)
    assert faces.counts() == {"ok": 4, "no_face": 1}
    matched, match = faces.match(["x/b/2.jpg", "nothing.jpg", "x/a/1.jpg"])
    assert matched.status == ("ok", "not_in_run", "ok")
    assert matched.values["quality"].tolist()[::2] == [0.1, 0.2]
    assert np.isnan(matched.values["quality"][1])
    assert matched.crops == ("crops/b2.0", "", "")
    assert match.missing == ("nothing.jpg",)


def test_only_what_is_asked_for_is_read(folder: Path) -> None:
    wanted = ["x/b/2.jpg", "nothing.jpg", "a/1.jpg.0.png", "a/3"]
    everything, some = read_run_faces(folder), read_run_faces(folder, wanted)
    assert everything.others == 0
    assert some.paths == ("a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg")
    few = read_run_faces(folder, ["a/3", "nothing.jpg"])
    assert (few.paths, few.others) == (("a/3.jpg",), 4)
    for faces in (some, few):
        found, expected = (
            source.match(["a/3", "nothing.jpg"])[0] for source in (faces, everything)
        )
        assert found.status == expected.status == ("ok", "not_in_run")
        assert found.values["quality"][0] == expected.values["quality"][0] == 0.5


def test_photos_are_counted_whatever_their_faces(tmp_path: Path) -> None:
    """Of a run with --faces central any face may be a photo's only one."""
    with RunWriter(tmp_path / "run", Settings(preset="fast", faces="central"), "w" * 64) as run:
        run.append([record("a/1.jpg", 2, 0.9)])
        run.append([record("a/2.jpg", 1, 0.4)])
        run.append([record("b/3.jpg", None, None)])
        run.write_info({})
    assert read_run_faces(tmp_path / "run").others == 0
    few = read_run_faces(tmp_path / "run", ["a/1.jpg"])
    assert (few.paths, few.others) == (("a/1.jpg",), 2)


def test_a_run_of_other_faces_is_told(tmp_path: Path) -> None:
    def told(policy: str | None, **settings: Any) -> str:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        return other_faces(write_run(folder, [], Settings(**settings)), protocol, policy)

    photo(tmp_path / "people/a/1.jpg")
    protocol = read_folders(tmp_path / "people")
    warning = told("central", faces="largest")
    assert "run1 was made with --faces largest, folders takes --faces central" in warning
    assert told("central", faces="all")
    assert told("central", faces="central") == ""
    assert told(None, faces="largest") == ""  # the data set gives them
    assert told("central", task="score") == ""
    assert told("central", landmarks=Path("faces.csv")) == ""


def test_constant_values() -> None:
    assert is_constant([0.5, np.nan, 0.5, 0.5 + 1e-7])
    assert is_constant([-3.0] * 3)
    assert is_constant([0.0] * 3)
    assert not is_constant([0.5, 0.5])
    assert not is_constant([0.5, 0.5, 0.5001])
    assert not is_constant([np.nan] * 5)


def test_methods(folder: Path) -> None:
    faces = read_run_faces(folder)
    (name,) = own = own_method(faces, "w" * 64)
    assert name == "FaceQAN fast"
    assert own[name].note == "S"
    assert own_method(faces, "v" * 64)[name].note == "C"
    made, left_out = baselines(faces, own, "v" * 64)
    assert list(made) == ["face size", "detector confidence", "embedding norm"]
    assert left_out == ["Not measured in this run: sharpness"]
    assert [method.note for method in made.values()] == ["", "", "C"]
    assert {method.kind for method in made.values()} == {"simple"}
    faces.values["embedding_norm"][:] = 1 + np.arange(len(faces.paths)) % 2 * 1e-7
    made, left_out = baselines(faces, own, "v" * 64)
    assert list(made) == ["face size", "detector confidence"]
    assert left_out[1:] == ["Left out, the same for all faces: embedding norm"]
    taken = {"embedding norm": own[name]}
    assert "embedding norm" not in baselines(faces, taken, "w" * 64)[0]
    detected = Settings(task="detect")
    with RunWriter(folder.parent / "detect", detected, "") as run:
        run.append([record("a/1.jpg", 0, None, status="ok")])
        run.write_info({})
    other = read_run_faces(folder.parent / "detect")
    assert own_method(other, "w" * 64) == {}
    assert model_note(other.run, "w" * 64) == ""
    assert other.cut_as is None
    (folder.parent / "people/a").mkdir(parents=True)
    (folder.parent / "people/a/1.jpg").write_bytes(b"")
    protocol = read_folders(folder.parent / "people")
    with pytest.raises(RunError, match="no crops to embed"):
        crop_files(protocol, other)
    (folder.parent / "people/b").mkdir()
    (folder.parent / "people/b/2.jpg").write_bytes(b"")
    matched, _ = faces.match(read_folders(folder.parent / "people").paths)
    assert crop_files(protocol, matched) == [None, folder / "crops/b2.0"]


def test_an_empty_run(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", Settings(task="detect"), ""):
        pass
    with pytest.raises(RunError, match="has no photos"):
        read_run_faces(tmp_path / "run")
