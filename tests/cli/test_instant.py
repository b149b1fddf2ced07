"""`--preset instant` on the real command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import SAMPLES, CommandLine

MAIN = "align-and-score"
INSTANT = ("--preset", "instant", "--device", "cpu")
NAMES = ("astronaut.jpg", "astronaut_blurred.jpg", "hopper.jpg", "hopper_dark.jpg")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in (*NAMES, "two_people.jpg", "no_face.png"):
        shutil.copy2(SAMPLES / name, folder)
    return folder


def ranking(run: Path) -> dict[tuple[str, int], dict]:
    rows = pq.read_table(run / "rankings.parquet").to_pylist()
    assert [row["rank"] for row in rows if row["rank"]] == list(
        range(1, 1 + sum(row["quality"] is not None for row in rows))
    )
    return {(row["path"], row["face"]): row for row in rows}


def test_predicted_scores(command_line: CommandLine, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = (MAIN, photos, "-o", "run", "--faces", "all", "--format", "parquet", *INSTANT)
    done = command_line(*job)
    assert done.returncode == 3, done.stderr
    predicted = ranking(run)
    scored = {key for key, row in predicted.items() if row["quality"] is not None}
    assert len(scored) == 6
    for key in scored:
        row = predicted[key]
        assert row["preset"] == "instant"
        assert row["quality_error"] > 0
        assert row["similarity_mean"] is row["similarity_std"] is row["symmetry"] is None
        assert row["embedding_norm"] > 0
    assert predicted["astronaut.jpg", 0]["quality"] > predicted["hopper_dark.jpg", 0]["quality"]

    info = json.loads((run / "run.json").read_text())
    assert {"name", "sha256", "head_sha256", "licence"} <= set(info["model"])


def test_scores_of_crops(command_line: CommandLine, tmp_path: Path) -> None:
    crop = Path(__file__).parents[1] / "data" / "astronaut.png"
    done = command_line("score", crop, "-o", "run", *INSTANT, "--format", "parquet")
    assert done.returncode == 0, done.stderr
    (row,) = ranking(tmp_path / "run").values()
    assert row["preset"] == "instant"


def test_presets_never_mix(command_line: CommandLine, tmp_path: Path) -> None:
    photo = SAMPLES / "hopper.jpg"
    assert command_line(MAIN, photo, "-o", "run", *INSTANT).returncode == 0
    done = command_line(MAIN, photo, "-o", "run", "--preset", "fast", "--device", "cpu")
    assert done.returncode == 1
    assert "preset: instant in the run, fast now" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*INSTANT, "-k", "3"), "copies is 3; it must be 10 for preset instant"),
        ((*INSTANT, "--seed", "3"), "seed is 3"),
        ((*INSTANT, "--backend", "torch"), "backend is torch; it must be auto for preset instant"),
        ((*INSTANT, "--like-published"), "--like-published sets preset to exact"),
    ],
)
def test_wrong_use(command_line: CommandLine, tmp_path: Path, options, words: str) -> None:
    done = command_line(MAIN, SAMPLES / "hopper.jpg", "-o", "run", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
