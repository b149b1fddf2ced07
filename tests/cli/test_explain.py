"""`explain` and hints on the command line."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from faceqan_toolkit.runs.folder import RunWriter
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import MEASURE_COLUMNS
from tests.cli.conftest import Finished
from tests.conftest import SAMPLES, CommandLine, run_here

QUICK = ("-k", "1", "-l", "2", "--device", "cpu", "--backend", "torch")


def read_csv(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def samples(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for name in ("hopper.jpg", "hopper_blurred.jpg", "hopper_dark.jpg", "corrupt.jpg"):
        shutil.copy2(SAMPLES / name, folder / "photos")
    return folder / "photos"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos that a test may change."""
    return samples(tmp_path)


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("scored")
    photos = samples(folder)
    done = run_here("align-and-score", photos, "-o", "run", *QUICK, cwd=folder)
    assert done.returncode == 3, done.stderr
    return Finished(photos, folder / "run", done)


def test_photos(command_line: CommandLine, scored: Finished, tmp_path: Path) -> None:
    done = command_line("explain", scored.photos, "-o", "why", *QUICK)
    assert done.returncode == 3, done.stderr
    assert "corrupt.jpg: unreadable" in done.stderr
    assert "Traceback" not in done.stderr
    files = {Path(line).relative_to("why").as_posix() for line in done.stdout.splitlines()}
    assert files == {
        "corrupt.jpg.failed.json",
        *(f"hopper{e}.jpg.0.{kind}" for e in ("", "_blurred", "_dark") for kind in ("png", "json")),
    }
    assert all((tmp_path / "why" / file).is_file() for file in files)
    dark = json.loads((tmp_path / "why/hopper_dark.jpg.0.json").read_text(encoding="utf-8"))
    assert [hint["hint"] for hint in dark["hints"]] == ["dark"]
    # as the run says, which has the same settings
    row = read_csv(scored.run / "rankings.csv")["hopper_dark.jpg"]
    assert float(row["quality"]) == pytest.approx(dark["quality"], abs=1e-6)
    assert row["hints"] == "dark"


def test_a_folder_without_photos(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = command_line("explain", "empty", "-o", "why", *QUICK)
    assert (done.returncode, done.stdout) == (4, "")
    assert "Exit code 4: no photos were found" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="names that only POSIX allows")
def test_hostile_and_colliding_names(command_line: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    names = ["a.jpg", "a.jpg.0.jpg", "a.png", "sub/a.jpg", "new\nline.jpg", "<b>&.jpg", "日本.jpg",
             "-o.jpg", "x" * 240 + ".jpg"]  # fmt: skip
    for name in names:
        shutil.copy(SAMPLES / "hopper_tiny.jpg", folder / name)
    (folder / "a.jpg.failed.jpg").write_bytes(b"")
    done = command_line("explain", folder, "-o", "why", *QUICK, "--detector", "yunet")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    written = [path for path in (tmp_path / "why").rglob("*") if path.is_file()]
    assert len([path for path in written if path.suffix == ".png"]) == len(names)
    assert len([path for path in written if path.suffix == ".json"]) == len(names) + 1
    told = {json.loads(path.read_text(encoding="utf-8"))["path"] for path in written
            if path.suffix == ".json"}  # fmt: skip
    assert len(told) == len(names) + 1


def test_a_run(command_line: CommandLine, photos: Path, tmp_path: Path) -> None:
    assert command_line("align-and-score", photos, "-o", "run", *QUICK).returncode == 3
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = command_line("explain", "run", "-o", "sheet", "--worst", "2", "--best", "1", "--device",
                        "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(Path("sheet/contact_sheet.png"))
    with Image.open(tmp_path / "sheet/contact_sheet.png") as sheet:
        assert sheet.width > 1400
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert after == before

    shutil.rmtree(tmp_path / "run/crops")
    (photos / "hopper.jpg").write_bytes((photos / "hopper_dark.jpg").read_bytes())
    done = command_line("explain", "run", "-o", "sheet", "--worst", "3", "--device", "cpu")
    assert done.returncode == 3
    assert "1 face is not shown: crop and photo are gone or changed" in done.stderr
    shutil.rmtree(photos)
    done = command_line("explain", "run", "-o", "sheet", "--worst", "1", "--device", "cpu")
    assert done.returncode == 3
    assert "3 faces are not shown" in done.stderr


def test_a_run_outlives_its_file_of_landmarks(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    assert command_line("detect", photos, "-o", "found", "--device", "cpu").returncode == 3
    table = tmp_path / "faces.csv"
    shutil.move(tmp_path / "found/faces.csv", table)
    done = command_line("align-and-score", photos, "-o", "run", *QUICK, "--landmarks", table,
                        "--no-crops")  # fmt: skip
    assert done.returncode == 3, done.stderr
    table.unlink()
    done = command_line("explain", "run", "-o", "sheet", "--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["photos", "--worst", "3", "-o", "why"],
            "--worst, --best and --fetch are for a run folder",
        ),
        (["photos", "--preset", "instant", "-o", "why"], "predicts scores and attacks nothing"),
        (["photos"], "--output"),
        (["run", "-o", "why", "--eps", "0.002"], "--eps cannot be given with a run folder"),
        (["run", "photos", "-o", "why", "--best", "1"], "given alone"),
        (["run", "-o", "why", "--best", "0", "--worst", "0"], "leaves nothing to show"),
        (["photos", "-o", "photos/hopper.jpg"], "is a file"),
    ],
    ids=str,
)
def test_wrong_usage(
    command_line: CommandLine, photos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with RunWriter(tmp_path / "run", Settings(), ""):
        pass
    done = command_line("explain", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


class TestHintsOfARun:
    def test_without_hints_scores_are_the_same(
        self, command_line: CommandLine, scored: Finished, tmp_path: Path
    ) -> None:
        job = ("align-and-score", scored.photos, "-o", "without", *QUICK)
        assert command_line(*job, "--no-hints").returncode == 3
        runs = (scored.run, tmp_path / "without")
        told, silent = (read_csv(run / "rankings.csv") for run in runs)
        for path, row in told.items():
            assert silent[path]["quality"] == row["quality"]
            assert silent[path]["brightness"] == silent[path]["hints"] == ""
            assert (row["brightness"] == "") == (row["quality"] == "")
        assert told["hopper_blurred.jpg"]["hints"] == "blurred"
        assert float(told["hopper.jpg"]["eye_distance"]) > 50
        infos = [json.loads((run / "run.json").read_text()) for run in runs]
        assert infos[0]["fingerprint"] == infos[1]["fingerprint"]
        # either may go on with the other, and keeps the rows it has
        done = command_line(*job, SAMPLES / "astronaut.jpg")
        assert "4 of them done before" in done.stderr
        mixed = read_csv(tmp_path / "without/rankings.csv")
        (new,) = mixed.keys() - told.keys()
        assert mixed[new]["brightness"]
        assert mixed["hopper.jpg"]["brightness"] == ""

    def test_crops_have_no_place_in_a_photo(
        self, command_line: CommandLine, scored: Finished, tmp_path: Path
    ) -> None:
        done = command_line("score", scored.run / "crops", "-o", "run", *QUICK)
        assert done.returncode == 0, done.stderr
        for row in read_csv(tmp_path / "run/rankings.csv").values():
            assert row["sharpness"]
            assert row["eye_distance"] == row["yaw"] == row["cut_off"] == ""

    def test_runs_made_before_there_were_hints(
        self, command_line: CommandLine, scored: Finished, tmp_path: Path
    ) -> None:
        scored.copy(tmp_path)
        (part,) = (tmp_path / "run/records").iterdir()
        old = pq.read_table(part).drop_columns([*MEASURE_COLUMNS, "hints"])
        part.unlink()
        pq.write_table(old, part.with_name("part-000000.parquet"))  # as parts were called then
        content = json.loads((tmp_path / "run/run.json").read_text())
        del content["settings"]["hints"]
        (tmp_path / "run/run.json").write_text(json.dumps(content))
        ranked = command_line("rank", "run", "--format", "csv", "--format", "parquet")
        assert ranked.returncode == 0, ranked.stderr
        rows = read_csv(tmp_path / "run/rankings.csv")
        assert all(row["hints"] == row["yaw"] == "" for row in rows.values())
        new = SAMPLES / "astronaut.jpg"
        done = command_line("align-and-score", scored.photos, new, "-o", "run", *QUICK)
        assert "4 of them done before" in done.stderr
        again = read_csv(tmp_path / "run/rankings.csv")
        (added,) = again.keys() - rows.keys()
        assert again[added]["yaw"]
        assert again["hopper.jpg"]["quality"] == rows["hopper.jpg"]["quality"]
        done = command_line("explain", "run", "-o", "sheet", "--best", "1", "--worst", "1",
                            "--device", "cpu")  # fmt: skip
        assert done.returncode == 0, done.stderr
