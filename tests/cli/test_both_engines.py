"""What becomes of a job is the same with either engine: stopped and gone on with, over a tar."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.jobs import after_parts, recorded
from tests.conftest import HANG, SAMPLES, CommandLine
from tests.pausing import wait_for_pause
from tests.photos.makers import write_tar

JOB = ("align-and-score", "--preset", "instant", "--device", "cpu", "--workers", "1")


def rankings(*runs: Path) -> list[bytes]:
    return [(run / "rankings.csv").read_bytes() for run in runs]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child on Windows")
@pytest.mark.slow
def test_interrupted_and_gone_on_with(command_line: CommandLine, tmp_path: Path) -> None:
    """With the other engine, as a run does not ask which it was begun with."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        name = ("astronaut.jpg", "hopper_dark.jpg", "hopper.jpg", "no_face.png")[number % 4]
        shutil.copy2(SAMPLES / name, tmp_path / "photos" / f"{number:02d}_{name}")
    job = [*JOB, "photos", "--engine", "ray", "-o", "run"]
    program = f"{after_parts(tmp_path, 2)}\nfrom faceqan_toolkit.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *job],
        cwd=tmp_path, text=True, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    wait_for_pause(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: whoever belongs to the command
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    before = recorded(tmp_path / "run")
    assert 2 <= len(before) < 12
    assert "of 12 photos are recorded in run; the same command goes on from there" in stderr
    assert not list((tmp_path / "run").glob(".spill-*"))

    again = command_line(*JOB, "photos", "-o", "run")
    assert again.returncode == 3, again.stderr
    assert f"{len(before)} of them done before" in again.stderr
    assert sorted(recorded(tmp_path / "run")) == sorted(
        photo.name for photo in (tmp_path / "photos").iterdir()
    )
    assert command_line(*JOB, "photos", "-o", "whole").returncode == 3
    one, other = rankings(tmp_path / "run", tmp_path / "whole")
    assert one == other


@pytest.mark.slow
def test_a_tar_tried_again(
    command_line: CommandLine, real_command_line: CommandLine, tmp_path: Path
) -> None:
    """On a cluster of the command's own, of which the terminal sees nothing."""
    names = ("hopper.jpg", "astronaut_noisy.jpg", "two_people.jpg", "corrupt.jpg")
    write_tar(tmp_path / "a.tar", {name: (SAMPLES / name).read_bytes() for name in names})
    job = (*JOB, "a.tar", "--faces", "all")
    done = real_command_line(*job, "--engine", "ray", "-o", "ray")
    assert done.returncode == 3, done.stderr
    assert "ray" not in done.stderr.replace("ray/", "").lower()
    assert done.stdout == ""
    assert command_line(*job, "-o", "local").returncode == 3
    one, other = rankings(tmp_path / "ray", tmp_path / "local")
    assert one == other

    again = command_line(*job, "-o", "ray", "--retry-failed")
    assert again.returncode == 3, again.stderr
    assert "4 photos, 3 of them done before" in again.stderr
    assert rankings(tmp_path / "ray") == [other]
    calls = json.loads((tmp_path / "ray/run.json").read_text())["invocations"]
    assert [call["photos"] for call in calls] == [4, 1]
