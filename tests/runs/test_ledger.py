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
from faceqan_toolkit.runs.ledger import MANY, SCHEMA, Ledger, as_table, write_part
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
