"""The ledger against plain lists of records: damage, joining, and kills in the middle of it."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.runs import ledger as ledger_module
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, read_run
from faceqan_toolkit.runs.ledger import MANY, SCHEMA, Ledger, as_table, connect, write_part
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record

posix = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def record(number: int) -> Record:
    return Record(f"{number:04d}.jpg", "/photos", 0, "ok", quality=number / 1000, sha256="ab" * 32)


def fill(ledger: Ledger, parts: int, first: int = 0) -> list[str]:
    """Write parts of two records each; return the paths of all."""
    for number in range(first, first + parts):
        ledger.write([as_table([record(2 * number), record(2 * number + 1)])])
    return [f"{number:04d}.jpg" for number in range(2 * (first + parts))]


def paths(ledger: Ledger) -> list[str]:
    found: list[str] = ledger.dataset().to_table(columns=["path"])["path"].to_pylist()
    return found


def test_schema_has_the_records_columns() -> None:
    stored = [field.name for field in dataclasses.fields(Record) if not field.metadata]
    assert SCHEMA.names == stored


def test_parts_come_in_the_order_they_were_written_in(ledger: Ledger) -> None:
    assert paths(ledger) == []
    assert paths(ledger) == fill(ledger, 0)
    expected = fill(ledger, 12)
    assert paths(ledger) == expected
    assert [part.first for part in ledger.parts] == list(range(12))


def test_columns_that_old_parts_lack_are_empty(ledger: Ledger) -> None:
    table = as_table([record(0)])
    pq.write_table(table.drop_columns(["hints", "yaw"]), ledger.folder / "part-000000.parquet")
    ledger.write([as_table([record(1)])])
    assert paths(ledger) == ["0000.jpg", "0001.jpg"]
    assert list(ledger.repair()) == []
    assert ledger.dataset().to_table()["yaw"].to_pylist() == [None, None]


def test_joining_keeps_every_row_and_leaves_few_files(ledger: Ledger) -> None:
    expected = fill(ledger, MANY - 1)
    ledger.compact()
    assert len(ledger.parts) == MANY - 1, "few are left alone"
    expected = fill(ledger, 1, MANY - 1)
    before = ledger.dataset().to_table()
    ledger.compact()
    (part,) = ledger.parts
    assert (part.first, part.last, part.rows) == (0, MANY - 1, 2 * MANY)
    assert part.damage() == ""
    assert ledger.dataset().to_table().equals(before)
    assert len(list(ledger.folder.iterdir())) == 1
    # it goes on: the joined part is joined again
    expected = fill(ledger, MANY, MANY)
    ledger.compact()
    assert paths(ledger) == expected
    assert [(part.first, part.last) for part in ledger.parts] == [(0, 2 * MANY - 1)]


def test_joined_parts_have_no_more_rows_than_they_should(ledger: Ledger, monkeypatch) -> None:
    monkeypatch.setattr(ledger_module, "JOINED_ROWS", 40)
    monkeypatch.setattr(ledger_module, "ROW_GROUP", 16)
    fill(ledger, 5)
    big = [record(number) for number in range(10, 110)]
    ledger.write([as_table(big)])  # more than a joined part may have, between small ones
    for number in range(110, 110 + MANY):
        ledger.write([as_table([record(number)])])
    expected = paths(ledger)
    assert len(expected) == 110 + MANY
    ledger.compact()
    assert paths(ledger) == expected
    found = [(part.first, part.last, part.rows) for part in ledger.parts]
    assert found == [(0, 4, 10), (5, 5, 100), (6, 45, 40), (46, 69, 24)]
    metadata = pq.read_metadata(ledger.parts[2].file)
    assert [metadata.row_group(group).num_rows for group in range(3)] == [16, 16, 8]


class Stop(BaseException):
    """A kill, as near as a test in the same process can have it."""


STEPS = ["write_part", "publish", "_checksum", "sync_folder", "unlink"]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_joining_stopped_at_any_step(ledger: Ledger, monkeypatch, step: str, late: bool) -> None:
    """Before and after each call of each step, every single deletion among them."""
    monkeypatch.setattr(ledger_module, "MANY", 6)
    monkeypatch.setattr(ledger_module, "JOINED_ROWS", 8)
    target = Path if step == "unlink" else ledger_module
    real = getattr(target, step)
    expected = fill(ledger, 6)
    calls = 0

    def stopping(*arguments, **options):
        nonlocal calls
        calls -= 1
        if calls == 0 and not late:
            raise Stop
        result = real(*arguments, **options)
        if calls == 0:
            raise Stop
        return result

    for call in range(1, 20):
        calls = call
        with monkeypatch.context() as patched:
            patched.setattr(target, step, stopping)
            try:
                ledger.compact()
            except Stop:
                assert paths(ledger) == expected
            else:
                break
        assert list(ledger.repair()) == []
        assert paths(ledger) == expected
        expected = fill(ledger, 6, len(expected) // 2)
    assert 2 < call < 19
    assert paths(ledger) == expected
    assert all(part.rows == 8 for part in ledger.parts[:-1])
    assert not list(ledger.folder.glob(".*"))


KILLED = """
import sys
from pathlib import Path
from faceqan_toolkit.runs import ledger
from faceqan_toolkit.runs.ledger import Ledger
from tests.runs.test_ledger import fill
ledger.JOINED_ROWS, ledger.MANY = 300, 8
found = Ledger(Path(sys.argv[1]))
while True:
    assert list(found.repair()) == []
    rows = found.dataset().count_rows()
    fill(found, 8, rows // 2)
    found.compact()
    print("once", flush=True)
"""


@pytest.mark.slow
@posix
def test_joining_killed_at_random_moments(ledger: Ledger) -> None:
    """A process that writes and joins without end, killed again and again."""
    chance, rows = random.Random(3), 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(ledger.folder)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = paths(ledger)
        assert len(found) >= rows
        assert found == [f"{number:04d}.jpg" for number in range(len(found))]
        rows = len(found)
    assert any(part.first < part.last for part in ledger.parts)


def flips(size: int) -> list[tuple[int, int]]:
    chance = random.Random(5)
    return [(chance.randrange(size), chance.randrange(8)) for _ in range(300)]


def test_every_flipped_bit_is_found(ledger: Ledger) -> None:
    fill(ledger, 1)
    (part,) = ledger.parts
    content = part.file.read_bytes()
    assert part.damage() == ""
    for place, bit in flips(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        part.file.write_bytes(damaged)
        assert part.damage()


def test_readers_notice_flipped_bits_in_values(ledger: Ledger) -> None:
    """Pages have checksums of their own, which readers of some columns look at."""
    write_part(
        [as_table([record(n) for n in range(1000)])],
        ledger.folder / "part-000000.parquet",
    )
    (part,) = ledger.parts
    content = part.file.read_bytes()
    column = pq.read_metadata(part.file).row_group(0).column(SCHEMA.names.index("quality"))
    middle = column.dictionary_page_offset + column.total_compressed_size // 2
    part.file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(OSError, match="CRC"):
        ledger.dataset().to_table(columns=["quality"])
    with pytest.raises(RunError, match=r"part-000000\.parquet is damaged"):
        ledger.refuse_damage()
    assert paths(ledger)[:1] == ["0000.jpg"], "other columns can be read"


@pytest.mark.parametrize("keep", [0, 3, 50, 0.3, 0.9, -1])
def test_truncated_parts_are_moved_aside(ledger: Ledger, keep: float) -> None:
    fill(ledger, 3)
    part = ledger.parts[1]
    content = part.file.read_bytes()
    length = int(keep * len(content)) if isinstance(keep, float) else keep
    part.file.write_bytes(content[:length])
    (line,) = ledger.repair()
    assert str(part.file) in line
    assert paths(ledger) == ["0000.jpg", "0001.jpg", "0004.jpg", "0005.jpg"]
    assert (ledger.folder / "damaged" / part.file.name).read_bytes() == content[:length]
    assert list(ledger.repair()) == []


def test_a_damaged_joined_part_gives_way_to_those_it_joined(ledger: Ledger, monkeypatch) -> None:
    expected = fill(ledger, MANY)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "_remove_covered", lambda _: None)
        ledger.compact()
    (part,) = ledger.parts
    part.file.write_bytes(part.file.read_bytes()[:-5])
    assert len(list(ledger.repair())) == 1
    assert paths(ledger) == expected


@posix
@pytest.mark.skipif(os.name != "nt" and os.geteuid() == 0, reason="root may read everything")
def test_a_part_that_may_not_be_read_is_not_damaged(ledger: Ledger) -> None:
    fill(ledger, 1)
    (part,) = ledger.parts
    part.file.chmod(0)
    with pytest.raises(RunError, match="cannot read"):
        list(ledger.repair())
    assert part.file.exists()


def test_a_part_whose_column_is_no_text_is_damaged(ledger: Ledger) -> None:
    file = ledger.folder / "part-000000.parquet"
    write_part([as_table([record(1)])], file)
    file.write_bytes(file.read_bytes().replace(b"quality", b"qual\x9aty"))
    (part,) = ledger.parts
    assert "decode" in part.damage()
    assert "is damaged" in next(ledger.repair())
    assert not ledger.parts


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
    monkeypatch.setattr(ledger_module, "MOST_MEMORY", 100_000_000)
    monkeypatch.setattr(ledger_module, "usable_cores", lambda: 1)
    with connect(ledger=run.ledger) as connection, connect(ledger=run.ledger) as other:
        (folder, _) = spilled(run)
        assert connection.execute(BIG).fetchone() == other.execute(BIG).fetchone() == (1_900_000,)
        assert folder.stat().st_mode & 0o077 == 0 or os.name == "nt"
    assert spilled(run) == []


KILLED_READER = """
import sys, time
from pathlib import Path
from faceqan_toolkit.runs.ledger import connect
from faceqan_toolkit.runs.folder import read_run
with connect(ledger=read_run(Path(sys.argv[1])).ledger):
    print("ready", flush=True)
    time.sleep(3600)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_what_a_kill_leaves_is_removed_by_the_next_and_nothing_else(run: RunInfo) -> None:
    command = [sys.executable, "-c", KILLED_READER, str(run.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    (folder,) = spilled(run)
    (folder / "duckdb_temp_storage.tmp").write_bytes(b"rows")
    with connect(ledger=run.ledger):
        assert folder in spilled(run), "its process lives"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert spilled(run) == [folder]
    with connect(ledger=run.ledger):
        assert folder not in spilled(run)
    assert spilled(run) == []


def test_a_process_killed_before_it_locked_its_spill_folder(run: RunInfo) -> None:
    folder = run.folder / ".spill-1"
    folder.mkdir()
    with connect(run=run.ledger):
        assert folder in spilled(run), "it may be about to lock it"
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))
    with connect(run=run.ledger):
        assert folder not in spilled(run)


def test_without_a_place_to_spill_to_small_runs_can_be_read(run: RunInfo, monkeypatch) -> None:
    def refuse(**_options: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ledger_module.tempfile, "mkdtemp", refuse)
    with connect(ledger=run.ledger) as connection:
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (5,)
    monkeypatch.setattr(ledger_module, "MOST_MEMORY", 100_000_000)
    with (
        pytest.raises(RunError, match=r"not enough memory, and .*run takes no files"),
        connect(ledger=run.ledger) as connection,
    ):
        connection.execute(BIG)


def test_only_the_last_attempt_counts(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", Settings(), "weights") as run:
        for path in "ab":
            run.append([Record(path, "/p", face, "ok", quality=0.5) for face in range(3)])
        for attempt, quality in ((1, 0.6), (2, 0.7)):
            run.append([Record("a", "/p", 0, "ok", quality=quality, attempt=attempt)])
    with connect(ledger=read_run(tmp_path / "run").ledger) as connection:
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
        connect(ledger=run.ledger) as connection,
    ):
        connection.execute("SELECT * FROM ledger").fetchall()


def test_parts_that_are_joined_meanwhile_are_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ledger_module, "MANY", 2)
    with RunWriter(tmp_path / "run", Settings(), "weights") as run:
        for number in range(3):
            run.append([Record(f"{number}.jpg", "/p", 0, "ok", quality=number / 5)])
            run.flush()
        info = read_run(tmp_path / "run")
        message = r"run is at work: parts .* joined just now; try again"

        def read_too_late() -> None:
            with connect(ledger=info.ledger) as connection:
                run.ledger.compact()
                connection.execute("SELECT * FROM ledger").fetchall()

        with pytest.raises(RunError, match=message):
            read_too_late()
        assert len(info.ledger.parts) == 1
    with connect(ledger=read_run(tmp_path / "run").ledger) as connection:
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (3,)
