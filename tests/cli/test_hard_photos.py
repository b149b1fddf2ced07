"""A folder of photos that are hard to live with, on the real command line."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as pads
import pytest

from tests.conftest import SAMPLES, CommandLine, read_rgb

ROOT = Path(__file__).parents[2]
GOOD = 12
posix = pytest.mark.skipif(sys.platform == "win32", reason="no such signals and pipes on Windows")


@contextmanager
def leased(file: Path) -> Iterator[None]:
    """Have the kernel let everybody else wait who opens a file, as a dead network disk does."""
    import fcntl

    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's plea to give it back
    descriptor = os.open(file, os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)


def hard_photos(folder: Path) -> dict[str, str]:
    """Fill a folder; return the status that every photo must have."""
    folder.mkdir()
    astronaut = SAMPLES / "astronaut.jpg"
    pixels = read_rgb(astronaut)[..., ::-1]
    expected = {}

    def add(name: str, status: str) -> Path:
        expected[name] = status
        return folder / name

    for number in range(GOOD):
        shutil.copy(astronaut, add(f"{number:02d}_good.jpg", "ok"))
    for name in ("03_hanging.jpg", "07_leased.jpg"):
        shutil.copy(astronaut, add(name, "timed_out"))
    shutil.copy(astronaut, add("05_killer.jpg", "crashed"))
    cv2.imwrite(str(add("01_one_pixel.png", "too_small")), pixels[:1, :1])
    cv2.imwrite(str(add("04_60_megapixels.jpg", "ok")), cv2.resize(pixels, (7750, 7750)))
    cv2.imwrite(str(add("06_24_megapixels.png", "ok")), cv2.resize(pixels, (4900, 4900)))
    cv2.imwrite(str(add("08_strip.png", "no_face")), np.zeros((40, 30_000, 3), np.uint8))
    add("02_empty.jpg", "unreadable").write_bytes(b"")
    add("09_text.jpg", "unreadable").write_text("no photo")
    add("10_cut_off.jpg", "unreadable").write_bytes(astronaut.read_bytes()[:300])
    os.mkfifo(add("11_pipe.jpg", "not_a_file"))
    return expected


def statuses(run: Path) -> dict[str, list[tuple[str, str]]]:
    """Return status and reason of every row of a run's ledger, by path."""
    found: dict[str, list[tuple[str, str]]] = {}
    rows = pads.dataset(run / "records", format="parquet").to_table().to_pylist()
    for row in sorted(rows, key=lambda row: row["attempt"]):
        found.setdefault(row["path"], []).append((row["status"], row["reason"]))
    return found


@posix
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="leases are Linux's")
def test_every_photo_gets_its_record(real_command_line: CommandLine, tmp_path: Path) -> None:
    expected = hard_photos(tmp_path / "photos")
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    command = ["align-and-score", "photos", "-o", "run", "-k", "1", "-l", "1", "--device", "cpu",
               "--backend", "torch", "--no-report", "--workers", "2", "--photo-timeout", "3",
               "--model", "tests.cli.faulty_decoder:sface"]  # fmt: skip
    with leased(tmp_path / "photos/07_leased.jpg"):
        done = real_command_line(*command, env={"PYTHONPATH": paths, "FAULTS": "1"})
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    first = statuses(tmp_path / "run")
    assert {path: rows[0][0] for path, rows in first.items()} == expected
    assert all(len(rows) == 1 for rows in first.values())
    assert "SIGSEGV" in first["05_killer.jpg"][0][1]
    for path in ("03_hanging.jpg", "07_leased.jpg"):
        assert "within 3 s (--photo-timeout)" in first[path][0][1]

    again = real_command_line(*command, env={"PYTHONPATH": paths})
    assert again.returncode == 3, again.stderr
    second = statuses(tmp_path / "run")
    healed = {path: rows[1][0] for path, rows in second.items() if len(rows) > 1}
    assert healed == dict.fromkeys(("03_hanging.jpg", "05_killer.jpg", "07_leased.jpg"), "ok")
