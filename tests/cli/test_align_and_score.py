"""The main job on the command line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from faceqan_toolkit.cli.progress import Progress
from faceqan_toolkit.runs.folder import RunWriter
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import path_from_text, unguard
from tests.cli.conftest import Finished
from tests.cli.jobs import (
    INSTANT,
    MAIN,
    QUICK,
    QUICKEST,
    after_parts,
    few,
    read_csv,
    recorded,
    start,
)
from tests.conftest import SAMPLES, CommandLine
from tests.pausing import wait_for_pause


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of a few samples that a test may change."""
    return few(tmp_path)


def test_the_main_job(finished: Finished) -> None:
    done, run = finished.done, finished.run
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "Exit code 3" in done.stderr
    rows = read_csv(run / "rankings.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3", "", ""]
    qualities = [float(row["quality"]) for row in rows[:3]]
    assert qualities == sorted(qualities, reverse=True)
    assert [row["percentile"] for row in rows[:3]] == ["100.00", "66.66", "33.33"]
    assert {row["path"]: row["status"] for row in rows[3:]} == {
        "corrupt.jpg": "unreadable",
        "no_face.png": "no_face",
    }
    for row in rows[:3]:
        assert (run / row["crop"]).is_file()
        assert row["root"] == str(finished.photos)
    lines = [json.loads(line) for line in (run / "rankings.jsonl").read_text().splitlines()]
    table = pq.read_table(run / "rankings.parquet").to_pylist()
    assert [line["path"] for line in lines] == [row["path"] for row in rows]
    assert [row["quality"] for row in table] == [line["quality"] for line in lines]
    assert float(rows[0]["quality"]) == pytest.approx(lines[0]["quality"], abs=1e-6)
    info = json.loads((run / "run.json").read_text())
    assert info["counts"] == {"ok": 3, "no_face": 1, "unreadable": 1}
    assert info["settings"]["copies"] == 1
    assert info["model"]["name"] == "sface"
    assert {"decode", "detect", "align", "score"} <= set(info["invocations"][0]["seconds_by_stage"])
    assert info["invocations"][0]["backend"] == "torch"
    assert info["invocations"][0]["workers"] >= 1


def test_two_workers(command_line: CommandLine, finished: Finished, tmp_path: Path) -> None:
    """They change nothing, and another number of them goes on with the run."""
    done = command_line(MAIN, finished.photos, "-o", "run", *QUICK, "--workers", "2")
    assert done.returncode == 3, done.stderr
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["invocations"][0]["workers"] == 2
    assert {"decode", "detect", "score"} <= set(info["invocations"][0]["seconds_by_stage"])
    one, other = (run / "rankings.csv" for run in (tmp_path / "run", finished.run))
    assert one.read_bytes() == other.read_bytes()
    done = command_line(MAIN, finished.photos, SAMPLES / "hopper_tiny.jpg", "-o", "run", *QUICK)
    assert "5 of them done before" in done.stderr


def test_resume_does_nothing_twice(
    command_line: CommandLine, finished: Finished, tmp_path: Path
) -> None:
    run = finished.copy(tmp_path)
    ranking = (run / "rankings.csv").read_bytes()
    parts = sorted(path.name for path in (run / "records").iterdir())
    again = command_line(MAIN, finished.photos, "-o", "run", *QUICK)
    assert again.returncode == 3
    assert "5 of them done before" in again.stderr
    assert (run / "rankings.csv").read_bytes() == ranking
    assert sorted(path.name for path in (run / "records").iterdir()) == parts
    assert len(json.loads((run / "run.json").read_text())["invocations"]) == 1
    retried = command_line(MAIN, finished.photos, "-o", "run", *QUICK, "--retry-failed")
    assert "3 of them done before" in retried.stderr


def test_resume_takes_in_new_and_changed_photos(command_line: CommandLine, tmp_path: Path) -> None:
    (photos := tmp_path / "photos").mkdir()
    for name in ("astronaut.jpg", "corrupt.jpg"):
        shutil.copy2(SAMPLES / name, photos)
    assert command_line(MAIN, photos, "-o", "run", *QUICK).returncode == 3
    shutil.copy(SAMPLES / "hopper_tiny.jpg", photos / "new.jpg")
    shutil.copy(SAMPLES / "astronaut.jpg", photos / "corrupt.jpg")
    done = command_line(MAIN, photos, "-o", "run", *QUICK)
    assert "1 of them done before" in done.stderr
    rows = {row["path"]: row for row in read_csv(tmp_path / "run/rankings.csv")}
    assert len(rows) == 3
    assert rows["corrupt.jpg"]["quality"] == rows["astronaut.jpg"]["quality"]
    fresh = command_line(MAIN, photos, "-o", "fresh", *QUICK)
    assert fresh.returncode == done.returncode, fresh.stderr
    run, fresh_run = tmp_path / "run", tmp_path / "fresh"
    assert (run / "rankings.csv").read_bytes() == (fresh_run / "rankings.csv").read_bytes()


def test_too_large_heals_with_another_limit(command_line: CommandLine, tmp_path: Path) -> None:
    job = (MAIN, SAMPLES / "hopper.jpg", "-o", "run", *QUICK, "--no-crops")
    done = command_line(*job, "--max-pixels", "1000")
    assert done.returncode == 3
    assert "1 too_large" in done.stderr
    done = command_line(*job)
    assert done.returncode == 0, done.stderr
    assert "Exit code" not in done.stderr
    assert not (tmp_path / "run/crops").exists()


def test_other_settings_are_refused(command_line: CommandLine, finished: Finished) -> None:
    done = command_line(
        MAIN, finished.photos, "-o", finished.run, *QUICK, "--eps", "0.002", "--faces", "all"
    )
    assert done.returncode == 1
    assert "eps: 0.001 in the run, 0.002 now" in done.stderr
    assert "faces: largest in the run, all now" in done.stderr
    assert "steps" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_kill_9_loses_nothing_that_was_written(
    command_line: CommandLine, whole: Finished, tmp_path: Path
) -> None:
    arguments = [MAIN, str(whole.photos), "-o", "run", *QUICKEST, "--engine", "inline"]
    process = start(arguments, tmp_path, after_parts(tmp_path, 3))
    wait_for_pause(tmp_path, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    run = tmp_path / "run"
    before = recorded(run)
    assert len(before) == 3
    assert not (run / "rankings.csv").exists()

    assert command_line(*arguments).returncode == 3
    after = recorded(run)
    assert after[: len(before)] == before
    assert sorted(after) == sorted(set(after)), "nothing is scored twice"
    assert len(after) == 12
    assert (run / "rankings.csv").read_bytes() == (whole.run / "rankings.csv").read_bytes()
    for crop in (whole.run / "crops").rglob("*.png"):
        assert (run / "crops" / crop.name).read_bytes() == crop.read_bytes()


def test_ctrl_c_flushes_and_says_so(
    command_line: CommandLine, whole: Finished, tmp_path: Path, monkeypatch
) -> None:
    arguments = [MAIN, str(whole.photos), "-o", "run", *QUICKEST]
    advance = Progress.advance
    advanced = []

    def interrupted(*given: object) -> None:
        advance(*given)
        advanced.append(given)
        if len(advanced) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupted)
        done = command_line(*arguments)
    assert done.returncode == 130, done.stderr
    assert "Interrupted." in done.stderr
    before = recorded(tmp_path / "run")
    assert 0 < len(before) < 12
    assert command_line(*arguments).returncode == 3
    after = recorded(tmp_path / "run")
    assert after[: len(before)] == before
    assert len(after) == 12


def test_two_processes_on_one_run(command_line: CommandLine, tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", Settings(), ""):
        second = command_line(MAIN, SAMPLES / "hopper.jpg", "-o", "run", *QUICKEST)
    assert second.returncode == 1
    assert "another process is writing" in second.stderr


def test_like_published(command_line: CommandLine, tmp_path: Path) -> None:
    job = (MAIN, SAMPLES / "no_face.png", "-o", "run", "--like-published", "--device", "cpu")
    done = command_line(*job)
    assert done.returncode == 3, done.stderr
    settings = json.loads((tmp_path / "run/run.json").read_text())["settings"]
    assert (settings["antialias"], settings["one_based"], settings["max_side"]) == (False, True, 0)
    done = command_line(*job, "-k", "3")
    assert done.returncode == 2
    assert "--like-published sets copies to 10" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="names that only POSIX allows")
def test_names_of_every_kind(command_line: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [
        *(b"=1+1.jpg", b"-2.jpg", b"'quoted.jpg", b"a,b.jpg", b"new\nline.jpg", b"\xff.jpg"),
        *("日本.jpg".encode(), b"100%41.jpg", b'say "hi".jpg', b"[1].jpg", b"x" * 240 + b".jpg"),
    ]
    for name in names:
        shutil.copy(SAMPLES / "hopper.jpg", folder / os.fsdecode(name))
    done = command_line(MAIN, folder, "-o", "run", *QUICKEST)
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "run/rankings.csv")
    found = {os.fsencode(path_from_text(unguard(row["path"]))) for row in rows}
    assert found == set(names)
    assert not any(row["path"].startswith(("=", "-", "+", "@")) for row in rows)
    for row in rows:
        assert (tmp_path / "run" / unguard(row["crop"])).is_file()
    # and its crops can be scored again
    done = command_line("score", "run/crops", "-o", "again", *INSTANT)
    assert done.returncode == 0, done.stderr
    again = read_csv(tmp_path / "again/rankings.csv")
    assert {row["quality"] for row in again} == {row["quality"] for row in rows}


def test_lists_and_standard_input(command_line: CommandLine, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("photos/hopper.jpg\nphotos/gone.jpg\n")
    done = command_line("detect", "@list.txt", "-o", "run", "--device", "cpu")
    assert done.returncode == 3
    rows = {row["path"]: row["status"] for row in read_csv(tmp_path / "run/faces.csv")}
    assert rows == {"photos/hopper.jpg": "ok", "photos/gone.jpg": "missing"}
    done = command_line(
        "detect", "-", "-o", "other", "--device", "cpu", input="photos/hopper.jpg\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg", "-o", "run"], "no such file"),
        (["nowhere/*.jpg", "-o", "run"], "nothing matches"),
        (["photos"], "--output"),
        (["photos", "-o", "run", "--eps", "2"], "eps is 2.0"),
        (["photos", "-o", "run", "--model", "arcfase"], "unknown model"),
        (["photos", "-o", "run", "--device", "toaster"], "not a device"),
        (["photos", "-o", "run", "--workers", "0"], "workers is 0"),
        (["photos", "-o", "run", "--workers", "many"], "neither a number nor auto"),
        (["photos", "-o", "run", "--device", "cpu", "--precision", "tf32"], "for --device cuda"),
        (["photos", "-o", "run", "--landmarks", "photos/hopper.jpg"], "hopper.jpg"),
        (["photos", "-o", "photos"], "not a run folder"),
        (["photos", "-o", "photos/hopper.jpg"], "is a file"),
        (["@missing.txt", "-o", "run"], "missing.txt"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_clear_line(
    command_line: CommandLine, photos: Path, arguments: list[str], message: str
) -> None:
    done = command_line(MAIN, *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr


def test_what_cannot_be_done_leaves_no_run(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    refused = command_line(MAIN, photos, "-o", "run", "--method", "magface", "--device", "cpu")
    assert refused.returncode == 2
    assert "needs a model trained by MagFace, and sface is none" in refused.stderr
    assert not (tmp_path / "run").exists(), "the same folder is free for another method"
    arguments = (MAIN, photos, "-o", "run", "--device", "cpu")
    assert command_line(*arguments, "--precision", "tf32").returncode == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_device_that_is_not_here_leaves_no_run(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    refused = command_line(MAIN, photos, "-o", "run", "--device", "cuda")
    assert refused.returncode in (1, 2)
    assert "CUDA device" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_an_empty_folder(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = command_line(MAIN, "empty", "-o", "run", *QUICK)
    assert done.returncode == 4, done.stderr
    assert "0 photos" in done.stderr
    assert "no photos were found" in done.stderr
    assert read_csv(tmp_path / "run/rankings.csv") == []


def test_landmarks_of_other_photos(command_line: CommandLine, photos: Path, tmp_path: Path) -> None:
    numbers = "60,80,100,80,80,100,65,120,95,120"
    (tmp_path / "others.csv").write_text(f"others/hopper.jpg,{numbers}\n")
    done = command_line("align", photos, "-o", "run", "--landmarks", "others.csv")
    assert done.returncode == 3, done.stderr
    assert "Warning: no photo got a face from others.csv" in done.stderr
    example = next(
        row for row in read_csv(tmp_path / "run/faces.csv") if "no_land" in row["status"]
    )
    assert f"as in the results, e.g. {example['path']}, or absolute" in done.stderr


def test_landmarks_with_one_mistake(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    """One line says which mistake a file's rows share: before the run, or after photos are seen."""
    swapped = "100,80,60,80,80,100,95,120,65,120"
    far = "9060,80,9100,80,9080,100,9065,120,9095,120"
    for numbers, expected, first in (
        (swapped, "left and right are swapped; swap left_* and right_*", True),
        (far, "the landmarks lie outside the photo; give pixels of the upright photo", False),
    ):
        rows = [f"{name}.jpg,{numbers}\n" for name in ("hopper", "astronaut")]
        (tmp_path / "faces.csv").write_text("".join(rows))
        done = command_line("align", photos, "-o", f"run_{first}", "--landmarks", "faces.csv")
        assert done.returncode == 3, done.stderr
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("Warning: faces"))
        assert line.startswith("Warning: faces.csv: in 2 of 2 rows the landmarks")
        assert expected in line
        assert (done.stderr.index(line) < done.stderr.index("photos/s)")) == first


def test_stages_one_by_one(command_line: CommandLine, finished: Finished, tmp_path: Path) -> None:
    """detect, align and score in turn end where align-and-score does."""
    photos = finished.photos
    assert command_line("detect", photos, "-o", "faces", "--device", "cpu").returncode == 3
    aligned = command_line("align", photos, "-o", "aligned", "--device", "cpu", "--landmarks",
                           "faces/faces.csv")  # fmt: skip
    assert aligned.returncode == 3, aligned.stderr
    assert command_line("score", "aligned/crops", "-o", "scored", *QUICK).returncode == 0
    expected = {row["path"]: row["quality"] for row in read_csv(finished.run / "rankings.csv")}
    found = {row["path"]: row["quality"] for row in read_csv(tmp_path / "scored/rankings.csv")}
    assert found.keys() == {f"{path}.0.png" for path, quality in expected.items() if quality}
    for path, quality in found.items():
        # faces.csv keeps hundredths of a pixel
        assert float(quality) == pytest.approx(
            float(expected[path.removesuffix(".0.png")]), abs=5e-3
        )


def test_score_warns_of_pictures_that_are_no_crops(command_line: CommandLine, photos: Path) -> None:
    done = command_line("score", photos / "hopper.jpg", "-o", "run", "-e", "0.002", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "Warning: 1 crops were not of the model's size" in done.stderr


def test_rank_prints_and_exports(
    command_line: CommandLine, finished: Finished, tmp_path: Path
) -> None:
    finished.copy(tmp_path)
    done = command_line("rank", "run")
    assert done.returncode == 0, done.stderr
    assert "corrupt.jpg" in done.stdout
    assert "hopper_dark.jpg" in done.stdout
    top = command_line("rank", "run", "--top", "1").stdout
    assert len(top.splitlines()) == 2
    done = command_line("rank", "run", "--format", "pickle", "--format", "parquet")
    assert done.stdout.split() == [str(Path("run/results.pkl")), str(Path("run/rankings.parquet"))]
    results = pickle.loads((tmp_path / "run/results.pkl").read_bytes())
    ranked = read_csv(tmp_path / "run/rankings.csv")
    assert {path: pytest.approx(quality, abs=1e-6) for path, quality in results.items()} == {
        row["path"]: float(row["quality"]) for row in ranked[:3]
    }
    assert all(np.isscalar(quality) for quality in results.values())
    done = command_line("rank", finished.photos)
    assert done.returncode == 1
    assert "no run.json" in done.stderr


def test_doctor(command_line: CommandLine) -> None:
    done = command_line("doctor")
    assert done.returncode == 0, done.stderr
    for word in ("torch", "sface", "weights verified", "heif", "extra       openvino", "device"):
        assert word in done.stdout


def test_help_of_every_command_shows_defaults(command_line: CommandLine) -> None:
    text = command_line(MAIN, "--help").stdout
    for default in ("0.001", "sface", "1600", "largest", "200000000"):
        assert default in text
    assert command_line("--version").stdout.startswith("faceqan-toolkit")
