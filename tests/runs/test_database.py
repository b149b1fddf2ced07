"""Spilling, its folders, and what a reader is told of a ledger it cannot read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.runs import database, ledger
from faceqan_toolkit.runs.database import connect
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, read_run
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    with RunWriter(tmp_path / "run", Settings(), "weights") as run:
        for number in range(5):
            run.append([Record(f"{number}.jpg", "/p", 0, "ok", quality=number / 5)])
    return read_run(tmp_path / "run")


def spilled(run: RunInfo) -> list[Path]:
    return list(run.folder.glob(".spill-*"))


BIG = """
    SELECT count(*) FROM (
        SELECT md5(CAST(n AS VARCHAR)) AS a FROM range(2_000_000) AS t(n) ORDER BY a LIMIT 1_900_000
    )
"""


def test_what_memory_cannot_hold_is_spilled_and_removed(run: RunInfo, monkeypatch) -> None:
    monkeypatch.setattr(database, "MOST_MEMORY", 100_000_000)
    monkeypatch.setattr(database, "usable_cores", lambda: 1)
    with connect(ledger=run) as connection, connect(ledger=run) as other:
        (folder, _) = spilled(run)
        assert connection.execute(BIG).fetchone() == other.execute(BIG).fetchone() == (1_900_000,)
        assert folder.stat().st_mode & 0o077 == 0 or os.name == "nt"
    assert spilled(run) == []


KILLED = """
import sys, time
from pathlib import Path
from faceqan_toolkit.runs.database import connect
from faceqan_toolkit.runs.folder import read_run
with connect(ledger=read_run(Path(sys.argv[1]))):
    print("ready", flush=True)
    time.sleep(3600)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_what_a_kill_leaves_is_removed_by_the_next_and_nothing_else(run: RunInfo) -> None:
    command = [sys.executable, "-c", KILLED, str(run.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    (folder,) = spilled(run)
    (folder / "duckdb_temp_storage.tmp").write_bytes(b"rows")
    with connect(ledger=run):
        assert folder in spilled(run), "its process lives"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert spilled(run) == [folder]
    with connect(ledger=run):
        assert folder not in spilled(run)
    assert spilled(run) == []


def test_without_a_place_to_spill_to_small_runs_can_be_read(run: RunInfo, monkeypatch) -> None:
    def refuse(**_options: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(database.tempfile, "mkdtemp", refuse)
    with connect(ledger=run) as connection:
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (5,)
    monkeypatch.setattr(database, "MOST_MEMORY", 100_000_000)
    with (
        pytest.raises(RunError, match=r"not enough memory, and .*run takes no files"),
        connect(ledger=run) as connection,
    ):
        connection.execute(BIG)


def test_only_the_last_attempt_counts(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", Settings(), "weights") as run:
        for path in "ab":
            run.append([Record(path, "/p", face, "ok", quality=0.5) for face in range(3)])
        for attempt, quality in ((1, 0.6), (2, 0.7)):
            run.append([Record("a", "/p", 0, "ok", quality=quality, attempt=attempt)])
    with connect(ledger=read_run(tmp_path / "run")) as connection:
        found = connection.execute("SELECT path, face, quality FROM ledger ORDER BY ALL").fetchall()
        assert found == [("a", 0, 0.7), ("b", 0, 0.5), ("b", 1, 0.5), ("b", 2, 0.5)]
        assert connection.execute("SELECT count(*) FROM ledger_attempts").fetchone() == (8,)


def test_a_damaged_part_is_named_by_whoever_meets_it(run: RunInfo) -> None:
    (part,) = run.ledger.parts
    content = bytearray(part.file.read_bytes())
    content[len(content) // 8] ^= 1
    part.file.write_bytes(content)
    with (
        pytest.raises(RunError, match=rf"{part.file.name} is damaged.*run again"),
        connect(ledger=run) as connection,
    ):
        connection.execute("SELECT * FROM ledger").fetchall()


def test_parts_that_are_joined_meanwhile_are_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ledger, "MANY", 2)
    with RunWriter(tmp_path / "run", Settings(), "weights") as run:
        for number in range(3):
            run.append([Record(f"{number}.jpg", "/p", 0, "ok", quality=number / 5)])
            run.flush()
        info = read_run(tmp_path / "run")
        message = r"run is at work: parts .* joined just now; try again"

        def read_too_late() -> None:
            with connect(ledger=info) as connection:
                run.ledger.compact()
                connection.execute("SELECT * FROM ledger").fetchall()

        with pytest.raises(RunError, match=message):
            read_too_late()
        assert len(info.ledger.parts) == 1
    with connect(ledger=read_run(tmp_path / "run")) as connection:
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (3,)
