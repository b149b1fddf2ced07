"""A run killed with SIGKILL at random moments, again and again, must end as one left in peace.

    python benchmarks/kills.py PHOTOS [--kills 50] [--photos 120] [--seed 1]

Makes PHOTOS photos out of those of the folder, each a little different, and runs
`align-and-score --preset instant` over them with one and two worker processes in turn, writing a
part of the ledger every half second. The process and its workers are killed after a random time.
After every kill: no row that was recorded is gone, none is doubled, every part can be read. Each
run that ends in spite of the kills, the last one is left to, is compared with one that nobody
disturbed: rankings, crops and rows; then the next begins. A difference, or a command that fails,
ends the script with exit code 1. Not for Windows.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from faceqan_toolkit.runs.ledger import Ledger

PROGRAM = """
import faceqan_toolkit.runs.folder as runs
runs.FLUSH_SECONDS = 0.5
from faceqan_toolkit.cli import main
main()
"""


def make_photos(folder: Path, given: Path, number: int) -> None:
    """Write small variations of the given photos."""
    files = sorted(path for path in given.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    if not files:
        raise SystemExit(f"{given} has no .jpg or .png")
    for index in range(number):
        file = files[index % len(files)]
        try:
            with Image.open(file) as image:
                picture = image.convert("RGB")
        except OSError:
            (folder / f"{index:04d}.jpg").write_bytes(file.read_bytes())  # one that fails
            continue
        picture.thumbnail((480, 480))
        picture = picture.crop((index // len(files), 0, *picture.size))
        picture.save(folder / f"{index:04d}.png")


def start(photos: Path, run: Path, workers: int) -> subprocess.Popen[bytes]:
    arguments = ["align-and-score", photos, "-o", run, "--preset", "instant", "--device", "cpu",
                 "--workers", workers]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def rows(run: Path) -> list[tuple[str, int, int]]:
    """Return path, face and attempt of every row in the ledger."""
    found: list[tuple[str, int, int]] = []
    for part in Ledger(run / "records").parts:
        table = pq.read_table(part.file, columns=["path", "face", "attempt"]).to_pydict()
        found += zip(table["path"], table["face"], table["attempt"], strict=True)
    return found


def check(before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]) -> None:
    lost = set(before) - set(after)
    if lost:
        raise SystemExit(f"lost: {sorted(lost, key=str)[:5]}")
    if len(after) != len(set(after)):
        raise SystemExit("a row is doubled")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")
    }


def refuse_failure(code: int, errors: bytes) -> None:
    if code not in (0, 3):
        raise SystemExit(f"exit code {code}: {errors.decode()}")


def finish(photos: Path, run: Path) -> float:
    began = time.monotonic()
    process = start(photos, run, 1)
    _, errors = process.communicate()
    refuse_failure(process.returncode, errors)
    return time.monotonic() - began


def compare(run: Path, whole: Path, before: list[tuple[str, int, int]]) -> None:
    """Stop if a run that was killed is not, in the end, what the undisturbed one is."""
    after = rows(run)
    check(before, after)
    found, expected = (
        (sorted(rows(folder)), (folder / "rankings.csv").read_bytes(), contents(folder / "crops"))
        for folder in (run, whole)
    )
    for what, one, other in zip(("rows", "rankings", "crops"), found, expected, strict=True):
        if one != other:
            raise SystemExit(f"{what} are not those of the undisturbed run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--photos", type=int, default=120, dest="number")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos, run, whole = folder / "photos", folder / "run", folder / "whole"
        photos.mkdir()
        make_photos(photos, options.photos, options.number)
        seconds = finish(photos, whole)
        print(f"undisturbed: {len(rows(whole))} rows in {seconds:.1f} s")
        before: list[tuple[str, int, int]] = []
        kills, hit, compared = 0, 0, 0
        while kills < options.kills:
            process = start(photos, run, 1 + kills % 2)
            wait = chance.uniform(0, min(seconds, 12))
            try:
                _, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            else:  # it is done: look at it, and begin again in a new folder
                refuse_failure(process.returncode, errors)
                compare(run, whole, before)
                compared += 1
                run, before = folder / f"run{compared}", []
                continue
            kills += 1
            after = rows(run) if run.exists() else []
            check(before, after)
            hit += bool(after)
            print(f"kill {kills} after {wait:.1f} s: {len(after)} rows, none lost, none doubled")
            before = after
        finish(photos, run)
        compare(run, whole, before)
        print(
            f"{kills} kills, {hit} of them with rows on the disk; {compared + 1} runs were killed "
            "and then ended: rows, rankings and crops equal those of the undisturbed one"
        )


if __name__ == "__main__":
    main()
