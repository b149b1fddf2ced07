"""Worker processes and what may befall them."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from faceqan_toolkit.engines.processes import ProcessEngine
from faceqan_toolkit.engines.worker import MakePipeline
from faceqan_toolkit.errors import FaceQANError, RunError, WeightsError
from faceqan_toolkit.photos import find_photos
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.conftest import SAMPLES, CommandLine
from tests.engines import pipelines
from tests.engines.pipelines import by_path

SETTINGS = Settings(task="detect", detector="yunet", device="cpu")
posix = pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")


def photos(folder: Path, *names: str) -> Path:
    """Return a folder with copies of one photo."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(SAMPLES / "astronaut.jpg", folder / f"{name}.jpg")
    return folder


def run(engine: ProcessEngine, folder: Path) -> list[list[Record]]:
    return list(engine.run(find_photos([str(folder)]), SETTINGS, None))


def statuses(found: list[list[Record]]) -> dict[str, str]:
    return {path: rows[0].status for path, rows in by_path(found).items()}


def numbered(count: int) -> list[str]:
    return [f"{number:02d}" for number in range(count)]


def wait_until(done, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("make", "workers"), [(pipelines.accidents, 1), (pipelines.accidents_in_blocks, 2)]
)
def test_a_photo_that_kills_its_worker_costs_one_record(
    make: MakePipeline, workers: int, tmp_path: Path
) -> None:
    folder = photos(tmp_path / "photos", *numbered(9), "05_killer")
    found = run(ProcessEngine(["cpu"] * workers, make=make), folder)
    expected = dict.fromkeys((f"{name}.jpg" for name in numbered(9)), "ok")
    assert statuses(found) == {**expected, "05_killer.jpg": "crashed"}
    (crashed,) = by_path(found)["05_killer.jpg"]
    assert "its worker process ended, twice" in crashed.reason
    assert crashed.file_size == (folder / "05_killer.jpg").stat().st_size
    assert crashed.face is None
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *numbered(3), "once")
    (folder / "alive").touch()
    assert set(
        statuses(run(ProcessEngine(["cpu"], make=pipelines.accidents), folder)).values()
    ) == {"ok"}
    assert not (folder / "alive").exists()


@posix
def test_kill_9_of_a_worker(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *numbered(12))
    expected = by_path(run(ProcessEngine(["cpu"]), folder))
    engine = ProcessEngine(["cpu"] * 2)
    running = engine.run(find_photos([str(folder)]), SETTINGS, None)
    found = [next(running)]
    before = multiprocessing.active_children()
    assert len(before) == 2
    os.kill(before[0].pid, signal.SIGKILL)
    found += running
    assert by_path(found) == expected
    assert {rows[0].status for rows in found} == {"ok"}
    assert engine.seconds["detect"] > 0


def test_a_slow_photo_holds_up_few_others(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", "00_slow", *numbered(10)[1:])
    engine = ProcessEngine(["cpu"] * 2, make=pipelines.accidents)
    paths = list(by_path(run(engine, folder)))
    assert "00_slow.jpg" in paths[-2:]


def test_photos_do_not_wait_for_company(tmp_path: Path) -> None:
    """A block of four does not fill up with two photos."""
    folder = photos(tmp_path / "photos", *numbered(2))
    found = run(ProcessEngine(["cpu"], make=pipelines.accidents_in_blocks), folder)
    assert statuses(found) == {"00.jpg": "ok", "01.jpg": "ok"}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (pipelines.bad_weights, WeightsError, r"^sface\.safetensors is damaged$"),
        (pipelines.unsupported, FaceQANError, "Softplus"),
        (pipelines.bug, RuntimeError, r"worker process failed:(.|\n)*nobody thought of this"),
        (pipelines.dead_on_arrival, FaceQANError, r"exit code 7.*fewer --workers"),
        (pipelines.accidents, RunError, r"^cannot write: No space left on device$"),
    ],
    ids=["weights", "unsupported", "bug", "dead", "disk"],
)
def test_what_stops_a_worker_stops_the_run(
    make: MakePipeline, error: type[Exception], message: str, tmp_path: Path
) -> None:
    folder = photos(tmp_path / "photos", "full", "other")
    with pytest.raises(error, match=message) as raised:
        run(ProcessEngine(["cpu"] * 2, make=make), folder)
    assert type(raised.value) is error
    assert not multiprocessing.active_children()


def test_stopping_early_ends_the_processes(tmp_path: Path) -> None:
    running = ProcessEngine(["cpu"] * 2).run(find_photos([str(SAMPLES)]), SETTINGS, None)
    next(running)
    assert len(multiprocessing.active_children()) == 2
    running.close()
    assert not multiprocessing.active_children()


def test_nothing_to_do(tmp_path: Path) -> None:
    assert run(ProcessEngine(["cpu"]), photos(tmp_path / "photos")) == []


def alive(pid: int) -> bool:
    # a dead child of a dead parent may stay as a zombie where nobody collects it
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


@posix
def test_workers_die_with_their_parent_and_have_no_part_in_its_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.engines.parent", str(tmp_path / "run")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    parent.kill()
    parent.wait()
    # at once, whether the workers are gone or not
    FileLock(tmp_path / "run" / ".lock").acquire(timeout=0)
    wait_until(lambda: not any(map(alive, pids)), 20)
    parent.stdout.close()


QUICK = ("-k", "1", "-l", "1", "--device", "cpu", "--backend", "torch")


@posix
def test_ctrl_c_goes_to_all_processes_and_one_answers(
    command_line: CommandLine, tmp_path: Path
) -> None:
    folder = photos(tmp_path / "photos", *numbered(30))
    arguments = ["align-and-score", str(folder), "-o", str(tmp_path / "run"), *QUICK,
                 "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "faceqan_toolkit", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: len(list((tmp_path / "run").glob("crops/*.png"))) > 3)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stdout + stderr
    (done,) = re.findall(r"Interrupted\. (\d+) of 30 photos are recorded", stderr)
    assert 0 < int(done) < 30
    again = command_line(*arguments)
    assert again.returncode == 0, again.stderr
    assert f"{done} of them done before" in again.stderr
    arguments[-1] = "1"
    assert command_line(*arguments[:3], tmp_path / "whole", *arguments[4:]).returncode == 0
    one, other = (tmp_path / name / "rankings.csv" for name in ("run", "whole"))
    assert one.read_bytes() == other.read_bytes()
