"""What `--quiet`, `--verbose` and `--log-format json` print of the library's events."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner, Result

from faceqan_toolkit import events
from faceqan_toolkit.cli import cli
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.types import Record
from tests.conftest import SAMPLES

RECORDS = (
    Record("a.jpg", "/photos", 0, "ok", quality=0.5),
    Record("b.jpg", "/photos", None, "no_face", "no face found", quality=float("nan")),
)
EVENTS: list[Any] = [
    events.Message("Writing the report"),
    events.Note("licence\x1b[31m"),
    events.Warned("odd"),
    events.NoPhotos("no photos were found"),
    events.Planned(1200, 3),
    events.Started(2),
    events.WorkerReady(42, "cpu"),
    events.WorkerReady(43, "cuda", "node7"),
    events.Loaded(2),
    events.Advanced(1, RECORDS[:1]),
    events.Advanced(1, RECORDS[1:]),
    events.Timed(1.5, 2, "torch", {"decode": 0.25, "score": 1.0}),
    events.Wrote(Path("run/rankings.csv")),
    events.Ended(True),
    events.Interrupted(1, 2, Path("run")),
]


@click.command("tell", cls=Command, example="tell")
def tell() -> None:
    """Tell of all events."""
    reporter = Reporter()
    for event in EVENTS:
        reporter(event)
    assert reporter.files == [Path("run/rankings.csv")]
    assert reporter.no_photos
    reporter.emit("unheard_of", number=3)
    reporter.exit(3, "some failed")


def told(*arguments: str, code: int = 3, **environment: str) -> list[str]:
    done = CliRunner().invoke(tell, arguments, env=environment)
    assert done.exit_code == code, done.output
    assert not done.stdout
    return done.stderr.splitlines()


def test_all_events_are_tried() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(events.Event))


def test_text() -> None:
    lines = told()
    assert lines.pop(4).startswith("2 photos in 0 s (")
    assert lines == [
        "Writing the report",
        r"Note: licence\x1b[31m",
        "Warning: odd",
        "1,200 photos, 3 of them done before",
        "",
        "Interrupted. 1 of 2 photos are recorded in run; the same command goes on from there.",
        "Exit code 3: some failed",
    ]


def test_quiet() -> None:
    for lines in (told("--quiet"), told("-q"), told(FACEQAN_QUIET="1")):
        assert [line.partition(" ")[0] for line in lines] == [
            "Warning:",
            "",
            "Interrupted.",
            "Exit",
        ]


def test_verbose() -> None:
    lines = told("--verbose")
    assert lines[lines.index("Loaded: 2 workers") - 2 :][:2] == [
        "Worker 42 is ready on cpu",
        "Worker 43 of node7 is ready on cuda",
    ]
    assert "Loaded: 2 workers" in lines
    assert "Timed: seconds 1.5, workers 2, backend torch, stages decode 0.25, score 1" in lines
    assert "Unheard_of: number 3" in lines
    assert {line for line in told() if " in 0 s " not in line} <= set(lines)


def test_json() -> None:
    lines = [json.loads(line) for line in told("--log-format", "json")]
    assert [line["event"] for line in lines] == [
        "options", "message", "note", "warned", "no_photos", "planned", "started",
        "worker_ready", "worker_ready", "loaded", "advanced", "advanced", "timed", "wrote", "ended",
        "interrupted", "unheard_of", "exit",
    ]  # fmt: skip
    assert all(line["time"].endswith("+00:00") for line in lines)
    by_name = {line.pop("event"): line for line in lines if line.pop("time")}
    assert by_name["note"] == {"text": "licence\x1b[31m"}
    assert by_name["planned"] == {"photos": 1200, "known": 3}
    assert by_name["timed"]["stages"] == {"decode": 0.25, "score": 1.0}
    assert by_name["wrote"] == {"file": str(Path("run/rankings.csv"))}
    assert by_name["exit"] == {"code": 3, "text": "some failed"}
    (record,) = by_name["advanced"]["records"]  # fields that are not known are left out
    assert record == {
        "path": "b.jpg", "root": "/photos", "status": "no_face", "reason": "no face found",
        "quality": None, "attempt": 0,
    }  # fmt: skip
    quiet = [json.loads(line)["event"] for line in told("--log-format", "json", "-q")]
    assert quiet == ["warned", "interrupted", "exit"]


def test_quiet_and_verbose() -> None:
    assert "contradict each other" in told("-q", "-v", code=2)[-1]
    # the command line overrules the environment
    assert told("-v", FACEQAN_QUIET="1") != told("-q", FACEQAN_VERBOSE="1")
    assert told("-q", FACEQAN_VERBOSE="1")[0] == "Warning: odd"
    assert "Loaded: 2 workers" in told("-v", FACEQAN_QUIET="1")


def test_outside_of_a_command(capsys) -> None:
    Reporter()(events.Note("plain"))
    assert capsys.readouterr().err == "Note: plain\n"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("hopper_tiny.jpg", "corrupt.jpg"):
        shutil.copy(SAMPLES / name, tmp_path / "photos")
    return tmp_path / "photos"


def detect(*arguments: str) -> Result:
    words = ["detect", "photos", "-o", "run", "--engine", "inline", *arguments]
    return CliRunner().invoke(cli, words)


@pytest.mark.usefixtures("photos")
def test_a_run_as_json() -> None:
    done = detect("--log-format", "json", "--min-face", "21")
    assert done.exit_code == 3, done.output
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    by_name = {line["event"]: line for line in lines}
    assert [line["event"] for line in lines if line["event"] != "message"] == [
        "options", "planned", "started", "loaded", "advanced", "advanced", "ended", "timed",
        "wrote", "summary", "exit",
    ]  # fmt: skip
    assert by_name["options"]["values"]["min-face"] == 21
    assert by_name["summary"]["counts"] == {"ok": 1, "unreadable": 1}
    assert by_name["summary"]["files"] == [str(Path("run/faces.csv"))]
    # a run that cannot be continued is one event, too
    done = detect("--log-format", "json", "--min-face", "22")
    assert done.exit_code == 1
    error = json.loads(done.stderr.splitlines()[-1])
    assert (error["event"], error["exit_code"]) == ("error", 1)
    assert "min-face" in error["text"]


@pytest.mark.usefixtures("photos")
def test_a_run_that_is_quiet_or_tells_all() -> None:
    quiet = detect("--quiet", "--fail-on", "all")
    assert (quiet.exit_code, quiet.output) == (0, "")
    told = detect("--verbose", "--retry-failed", "--fail-on", "all").stderr
    assert "Options: --output run, --retry-failed True, --engine inline" in told
    assert "Loaded: 1 worker\n" in told
    assert "stages decode " in told
