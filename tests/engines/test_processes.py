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
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from faceqan_toolkit.engines import processes
from faceqan_toolkit.engines.base import Engine, InlineEngine, MakePipeline
from faceqan_toolkit.engines.processes import ProcessEngine
from faceqan_toolkit.errors import ChecksumMismatch, FaceQANError, RunError, WeightsError
from faceqan_toolkit.events import WorkerReady
from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.conftest import HANG, SAMPLES, CommandLine, wait_until
from tests.engines import pipelines
from tests.engines.clusters import alive
from tests.engines.pipelines import by_path
from tests.pausing import pausing, wait_for_pause

SETTINGS = Settings(task="detect", detector="yunet", device="cpu")
posix = pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")


def photos(folder: Path, *names: str) -> Path:
    """Return a folder with copies of one photo."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(SAMPLES / "astronaut.jpg", folder / f"{name}.jpg")
    return folder


def run(engine: Engine, folder: Path, settings: Settings = SETTINGS) -> list[list[Record]]:
    return list(engine.run(find_photos([str(folder)]), settings, None))


def statuses(found: list[list[Record]]) -> dict[str, str]:
    return {path: rows[0].status for path, rows in by_path(found).items()}


def numbered(count: int) -> list[str]:
    return [f"{number:02d}" for number in range(count)]


@pytest.mark.parametrize(
    ("make", "workers"), [(pipelines.accidents, 1), (pipelines.accidents_in_blocks, 2)]
)
def test_a_photo_that_kills_its_worker_costs_one_record(
    make: MakePipeline, workers: int, tmp_path: Path
) -> None:
    folder = photos(tmp_path / "photos", *numbered(6), "03_killer")
    engine, events = ProcessEngine(["cpu"] * workers, make=make), []
    found = list(engine.run(find_photos([str(folder)]), SETTINGS, None, events.append))
    assert {(type(event), event.device) for event in events} == {(WorkerReady, "cpu")}
    # two more replaced those that the photo killed; the last one may not have been needed
    assert len({event.pid for event in events}) == len(events) >= workers + 1
    expected = dict.fromkeys((f"{name}.jpg" for name in numbered(6)), "ok")
    assert statuses(found) == {**expected, "03_killer.jpg": "crashed"}
    (crashed,) = by_path(found)["03_killer.jpg"]
    assert "its worker process ended, twice" in crashed.reason
    assert crashed.file_size == (folder / "03_killer.jpg").stat().st_size
    assert crashed.face is None
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *numbered(3), "once")
    (folder / "alive").touch()
    assert set(
        statuses(run(ProcessEngine(["cpu"], make=pipelines.accidents), folder)).values()
    ) == {"ok"}
    assert not (folder / "alive").exists()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_worker_that_is_hard_to_start_again(workers: int, tmp_path: Path, monkeypatch) -> None:
    folder = photos(tmp_path / "photos", *numbered(3), "once")
    starts = tmp_path / "starts"
    monkeypatch.setattr(processes, "RESTARTS", 2)
    own_time = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)
    monkeypatch.setattr(processes, "time", own_time)

    def attempt(failures: int) -> dict[str, str]:
        starts.mkdir(exist_ok=True)
        for name in ("first", *map(str, range(failures))):
            (starts / name).touch()
        (folder / "alive").touch()
        make = partial(pipelines.hard_to_start_again, starts)
        engine = ProcessEngine(["cpu"] * workers, make=make)
        return statuses(run(engine, folder))

    assert set(attempt(2).values()) == {"ok"}
    assert not list(starts.iterdir())
    if workers == 1:
        with pytest.raises(FaceQANError, match=r"before they have loaded .*SIGKILL"):
            attempt(3)


def only_hanging_ones_are_overdue(monkeypatch) -> None:
    """Let no other photo be given up, however slow the machine is."""
    real = processes.Worker.overdue

    def overdue(worker: processes.Worker, begun_before: float) -> list[processes.Task]:
        return [task for task in real(worker, begun_before) if "hanging" in task.source.path]

    monkeypatch.setattr(processes.Worker, "overdue", overdue)


@pytest.mark.parametrize(
    ("make", "workers", "preparers"),
    [
        pytest.param(pipelines.accidents, 1, 1, marks=pytest.mark.slow),
        (pipelines.accidents_in_blocks, 2, 3),
    ],
)
def test_a_photo_that_hangs_is_given_up(
    make: MakePipeline, workers: int, preparers: int, tmp_path: Path, monkeypatch
) -> None:
    only_hanging_ones_are_overdue(monkeypatch)
    folder = photos(tmp_path / "photos", *numbered(9), "03_hanging", "05_hanging")
    engine = ProcessEngine(["cpu"] * workers, preparers=preparers, make=make)
    found = run(engine, folder, SETTINGS.replace(photo_timeout=1.5))
    expected = dict.fromkeys((f"{name}.jpg" for name in numbered(9)), "ok")
    hanging = dict.fromkeys(("03_hanging.jpg", "05_hanging.jpg"), "timed_out")
    assert statuses(found) == {**expected, **hanging}
    (given_up,) = by_path(found)["03_hanging.jpg"]
    assert given_up.reason == "not decoded and searched within 1.5 s (--photo-timeout)"
    assert not multiprocessing.active_children()


def test_time_in_which_the_parent_does_something_else_is_no_photos_fault(
    tmp_path: Path, monkeypatch
) -> None:
    """Nor is a machine that was asleep, or a run that was stopped by Ctrl-Z."""
    folder = photos(tmp_path / "photos", "00_gated", *numbered(20)[1:])
    clock = 0.0
    own_time = SimpleNamespace(monotonic=lambda: clock, sleep=time.sleep)
    monkeypatch.setattr(processes, "time", own_time)
    engine = ProcessEngine(["cpu"] * 2, make=pipelines.accidents)
    found = []
    limited = SETTINGS.replace(photo_timeout=3 * processes.TICK)
    for rows in engine.run(find_photos([str(folder)]), limited, None):
        found.append(rows)
        begun = [task for worker in engine._team for task, _ in worker.preparing.values()]
        if clock or len(found) == 18:  # all that can be done while the gate is closed
            pipelines.gate(folder).touch()
        if any("gated" in task.source.path for task in begun):
            clock = 1000.0
    assert clock
    assert set(statuses(found).values()) == {"ok"}


def test_a_killer_among_many_costs_two_workers(tmp_path: Path, monkeypatch) -> None:
    """Who was at work on it is known, so the others in hand are not divided again and again."""
    folder = photos(tmp_path / "photos", *numbered(9), "05_killer")
    engine = ProcessEngine(["cpu"], make=pipelines.accidents_in_blocks)
    started = []
    start = engine._start
    monkeypatch.setattr(engine, "_start", lambda device: started.append(device) or start(device))
    assert statuses(run(engine, folder))["05_killer.jpg"] == "crashed"
    assert len(started) == 3


def test_weights_that_changed_stop_the_run(tmp_path: Path) -> None:
    settings = Settings(preset="instant", device="cpu")
    folder = photos(tmp_path / "photos", "one")
    before = find_model("sface").sha256
    assert statuses(run(ProcessEngine(["cpu"], weights_sha256=before), folder, settings)) == {
        "one.jpg": "ok"
    }
    with pytest.raises(ChecksumMismatch, match=f"weights of sface have changed.*{before[:12]}"):
        run(ProcessEngine(["cpu"], weights_sha256="0" * 64), folder, settings)
    assert not multiprocessing.active_children()


def test_a_fast_scorer_does_not_wait_if_there_are_preparers(tmp_path: Path) -> None:
    """As many photos as make a block are prepared at the same time."""
    folder = photos(tmp_path / "photos", *numbered(16))  # more than are given at once
    alone = run(ProcessEngine(["cpu"], make=pipelines.accidents_in_blocks), folder)
    shared = run(ProcessEngine(["cpu"], preparers=6, make=pipelines.together), folder)
    assert by_path(shared) == by_path(alone)


@posix
def test_kill_9_of_a_worker(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *numbered(12))
    expected = by_path(run(InlineEngine(), folder))
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
    folder = photos(tmp_path / "photos", "00_gated", *numbered(10)[1:])
    engine = ProcessEngine(["cpu"] * 2, make=pipelines.accidents)
    found = []
    # without any limit
    unlimited = SETTINGS.replace(photo_timeout=0)
    for rows in engine.run(find_photos([str(folder)]), unlimited, None):
        found.append(rows)
        if len(found) == 8:
            assert "00_gated.jpg" not in by_path(found)
            pipelines.gate(folder).touch()
    assert len(found) == 10


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
        (pipelines.dead_on_arrival, FaceQANError, r"exit code 7.*fewer `workers`"),
        (pipelines.accidents, RunError, r"^cannot write: No space left on device$"),
    ],
    ids=["weights", "unsupported", "bug", "dead", "disk"],
)
def test_what_stops_a_worker_stops_the_run(
    make: MakePipeline, error: type[Exception], message: str, tmp_path: Path
) -> None:
    folder = photos(tmp_path / "photos", "full", "other")
    engine = ProcessEngine(["cpu"] * (2 if make is pipelines.dead_on_arrival else 1), make=make)
    with pytest.raises(error, match=message) as raised:
        run(engine, folder)
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
    wait_until(lambda: not any(map(alive, pids)))
    parent.stdout.close()


@posix
def test_ctrl_c_goes_to_all_processes_and_one_answers(
    command_line: CommandLine, tmp_path: Path
) -> None:
    folder = photos(tmp_path / "photos", *numbered(12))
    arguments = ["detect", str(folder), "-o", str(tmp_path / "run"), "--detector", "yunet"]
    program = pausing(tmp_path, "cli.progress:Progress.advance", 4)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}\nfrom faceqan_toolkit.cli import main; main()",
         *arguments, "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for_pause(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stdout + stderr
    (done,) = re.findall(r"Interrupted\. (\d+) of 12 photos are recorded", stderr)
    assert 0 < int(done) < 12
    assert not list((tmp_path / "run").glob(".spill-*"))
    again = command_line(*arguments)
    assert again.returncode == 0, again.stderr
    assert f"{done} of them done before" in again.stderr
    assert command_line(*arguments[:3], tmp_path / "whole", *arguments[4:]).returncode == 0
    one, other = (tmp_path / name / "faces.csv" for name in ("run", "whole"))
    assert one.read_bytes() == other.read_bytes()
