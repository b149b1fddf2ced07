"""Full and read-only disks, impatient people, clocks that jump: the real command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Finished
from tests.cli.jobs import FLUSH_ALWAYS, MAIN, QUICK, QUICKEST, many, read_csv, recorded, start
from tests.conftest import HANG, CommandLine
from tests.pausing import pausing, wait_for_pause

HERE = ("--engine", "inline")
"""Starts no further process, where it does not matter who works."""


def can_mount() -> bool:
    """Tell whether this user may mount in a namespace of their own: Linux, and not everywhere."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="cannot mount file systems here")


def in_namespace(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount; the mounts are gone when it ends."""
    return subprocess.run(
        ["unshare", "-rm", "sh", "-e", "-c", script, sys.executable, *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize(
    "arguments",
    [("models", "list"), ()],
    ids=lambda arguments: " ".join(arguments) or "guide",
)
def test_nobody_can_be_told(arguments: tuple[str, ...]) -> None:
    """Standard output goes to a file on a full disk."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "faceqan_toolkit", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=HANG, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "Error: No space left on device\n"


@needs_mounts
@pytest.mark.parametrize(
    "size", [16, *(pytest.param(size, marks=pytest.mark.slow) for size in (40, 300))]
)
def test_a_full_disk(command_line: CommandLine, whole: Finished, tmp_path: Path, size: int) -> None:
    """What was recorded survives; with room again the same command ends as if nothing had been."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "kept").mkdir()
    script = f"""
        mount -t tmpfs -o size={size}k tmpfs disk
        code=0; "$0" -m faceqan_toolkit "$@" || code=$?
        cp -a disk/. kept
        exit $code
    """
    arguments = (MAIN, str(whole.photos), *QUICKEST, *HERE, "-o")
    full = in_namespace(script, *arguments, "disk/run", cwd=tmp_path)
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    assert "No space left on device" in full.stderr
    again = command_line(*arguments, "kept/run")
    assert again.returncode == 3, again.stderr
    one, other = (run / "rankings.csv" for run in (tmp_path / "kept/run", whole.run))
    assert one.read_bytes() == other.read_bytes()
    assert len(recorded(tmp_path / "kept/run")) == 12


@needs_mounts
def test_a_read_only_place(whole: Finished, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o ro tmpfs disk; exec "$0" -m faceqan_toolkit "$@"'
    done = in_namespace(script, MAIN, str(whole.photos), *QUICKEST, "-o", "disk/run", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Read-only file system" in done.stderr


@needs_mounts
def test_a_run_that_has_become_read_only(finished: Finished, tmp_path: Path) -> None:
    """It can still be ranked; going on with it is refused in one line."""
    finished.copy(tmp_path)
    script = 'mount --bind run run; mount -o remount,bind,ro run; exec "$0" -m faceqan_toolkit "$@"'
    ranked = in_namespace(script, "rank", "run", cwd=tmp_path)
    assert ranked.returncode == 0, ranked.stderr
    assert "astronaut.jpg" in ranked.stdout
    shutil.copy2(finished.photos / "astronaut.jpg", tmp_path / "new.jpg")
    more = in_namespace(
        script, MAIN, str(finished.photos), "new.jpg", "-o", "run", *QUICK, *HERE, cwd=tmp_path
    )
    assert more.returncode == 1
    assert "Traceback" not in more.stderr
    assert "Read-only file system" in more.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child on Windows")
def test_ctrl_c_twice(command_line: CommandLine, whole: Finished, tmp_path: Path) -> None:
    arguments = [MAIN, str(whole.photos), "-o", "run", *QUICKEST]
    second_photo = pausing(tmp_path, "cli.progress:Progress.advance", 2)
    process = start(arguments, tmp_path, f"{FLUSH_ALWAYS}\n{second_photo}")
    wait_for_pause(tmp_path, process)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    again = command_line(*arguments)
    assert again.returncode == 3, again.stderr
    assert sorted(recorded(tmp_path / "run")) == sorted(
        path.name for path in whole.photos.iterdir()
    )


JUMPING = """
import random, time
real, chance = time.time, random.Random(0)
time.time = lambda: real() + chance.uniform(-1e9, 1e9)
time.time_ns = lambda: int(time.time() * 1e9)
"""


def test_a_clock_that_jumps(whole: Finished, tmp_path: Path) -> None:
    process = start(
        [MAIN, str(whole.photos), "-o", "run", *QUICKEST, *HERE], tmp_path, JUMPING + FLUSH_ALWAYS
    )
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 3, stderr
    one, other = (run / "rankings.csv" for run in (tmp_path / "run", whole.run))
    assert one.read_bytes() == other.read_bytes()


def test_photos_from_the_future(command_line: CommandLine, tmp_path: Path) -> None:
    """Times of files decide nothing when the content has not changed."""
    photos = many(tmp_path)
    arguments = (MAIN, photos, "-o", "run", *QUICKEST)
    assert command_line(*arguments).returncode == 3
    for offset, path in zip((-1e9, 0, 1e9) * 4, sorted(photos.iterdir()), strict=True):
        os.utime(path, (time.time() + offset,) * 2)
    again = command_line(*arguments)
    assert again.returncode == 3
    assert "12 of them done before" in again.stderr


def test_photos_that_go_while_a_run_is_at_work(tmp_path: Path) -> None:
    """A photo that was found and is gone when its turn comes costs one record."""
    photos = many(tmp_path)
    code = f"""
from faceqan_toolkit import events
from pathlib import Path
plan = events.Planned
def removing(*arguments):
    Path({str(photos / "04_astronaut.jpg")!r}).unlink()
    Path({str(photos / "02_hopper.jpg")!r}).write_bytes(b"changed")
    return plan(*arguments)
events.Planned = removing
"""
    process = start([MAIN, str(photos), "-o", "run", *QUICKEST, *HERE], tmp_path, code)
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 3, stderr
    assert "Traceback" not in stderr
    status = {row["path"]: row["status"] for row in read_csv(tmp_path / "run/rankings.csv")}
    assert status["04_astronaut.jpg"] == "missing"
    assert status["02_hopper.jpg"] == "unreadable"
    assert sorted(status.values()).count("ok") == 7
