"""Runs over a few photos: their commands, programs that are stopped in one, what is in it then."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.conftest import SAMPLES
from tests.pausing import pausing

MAIN = "align-and-score"
QUICK = ("-k", "1", "-l", "1", "--device", "cpu", "--backend", "torch", "--workers", "1")
"""Scores as FaceQAN does."""
INSTANT = ("--preset", "instant", "--device", "cpu", "--workers", "1")
QUICKEST = (*INSTANT, "--detector", "yunet")
"""Where it does not matter how faces are found and scored."""

FLUSH_ALWAYS = "import faceqan_toolkit.runs.folder as runs; runs.FLUSH_SECONDS = 0"


def few(folder: Path) -> Path:
    """Return a new folder of five photos, two of which fail."""
    (folder / "photos").mkdir()
    for name in ("astronaut.jpg", "hopper.jpg", "hopper_dark.jpg", "corrupt.jpg", "no_face.png"):
        shutil.copy2(SAMPLES / name, folder / "photos")
    return folder / "photos"


def many(folder: Path) -> Path:
    """Return a new folder of twelve photos, three of which fail."""
    (folder / "many").mkdir()
    for number in range(12):
        name = ("astronaut.jpg", "hopper_dark.jpg", "hopper.jpg", "no_face.png")[number % 4]
        shutil.copy2(SAMPLES / name, folder / "many" / f"{number:02d}_{name}")
    return folder / "many"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def start(arguments: list[str], cwd: Path, code: str = "") -> subprocess.Popen[str]:
    """Start the command line in a process that runs some code first."""
    program = f"{code}\nfrom faceqan_toolkit.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def after_parts(folder: Path, number: int) -> str:
    """Return code that makes a run write every record at once, and stop after some of them."""
    return f"{FLUSH_ALWAYS}\n{pausing(folder, 'runs.ledger:Ledger.write', number)}"


def recorded(run: Path) -> list[str]:
    """Return the paths of a run's records, in the order of its parts."""
    parts = sorted((run / "records").glob("part-*.parquet"))
    return [path for part in parts for path in pq.read_table(part)["path"].to_pylist()]
