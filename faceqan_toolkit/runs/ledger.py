"""The ledger: records in Parquet parts that are joined when there are many; DuckDB reads them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.files import (
    BLOCK_BYTES,
    check_text,
    link_or_copy,
    publish,
    sync_folder,
    writing,
)
from faceqan_toolkit.hardware import usable_cores, usable_memory
from faceqan_toolkit.text import reason_of
from faceqan_toolkit.types import Record

JOINED_ROWS = 1_000_000
"""Most rows in a joined part."""
MANY = 64
"""Parts are joined when this many have fewer rows than `JOINED_ROWS`."""
ROW_GROUP = 100_000
"""Rows in memory when a part is written or read."""

MOST_MEMORY = 2_000_000_000
"""Bytes DuckDB holds at most; it spills the rest. Sorting is hardly faster with more."""

LOCKED_WITHIN = 60
"""Seconds; a spill folder without a lock that is older belongs to a killed process."""
FETCHED = 1000
"""Rows that are fetched at once."""

_ARROW = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
SCHEMA = pa.schema(
    [
        pa.field(
            column.name,
            _ARROW[str(column.type).removesuffix(" | None")],
            nullable=str(column.type).endswith(" | None"),
        )
        for column in fields(Record)
        if not column.metadata.get("derived")
    ]
)
"""Columns of the ledger: those of `Record` that cannot be derived from others."""

_NAME = re.compile(r"part-(\d+)(?:-(\d+))?(?:\.([0-9a-f]{8}))?\.parquet")
_CHECKED = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)


@dataclass(frozen=True)
class Part:
    """A file of the ledger.

    Attributes:
        file: `part-000007.1f3a9c0e.parquet`, or `part-000000-000063.1f3a9c0e.parquet` for one that
            replaces parts 0 to 63.
        first, last: numbers of the first and last part that it replaces, or its own number twice.
        checksum: CRC-32 of its bytes, hexadecimal; "" if its name has none.
    """

    file: Path
    first: int
    last: int
    checksum: str = ""

    @property
    def rows(self) -> int:
        """Number of its rows."""
        return int(pq.read_metadata(self.file).num_rows)

    def damage(self) -> str:
        """Read the whole file and return what is wrong with it, "" for nothing.

        RunError if the file cannot be read, so damage is unknown.
        """
        try:
            if self.checksum:  # first: Arrow may abort the process over a damaged footer
                return "" if _checksum(self.file) == self.checksum else "its checksum is wrong"
            with pq.ParquetFile(self.file, page_checksum_verification=True) as found:
                rows = sum(batch.num_rows for batch in found.iter_batches())
                return "" if rows == found.metadata.num_rows else "rows are missing"
        except (OSError, ValueError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno:
                raise RunError(f"cannot read {self.file}: {reason_of(error)}") from error
            return str(error)


class Ledger:
    """The parts of a run's ledger in the folder `records`; later parts have later records.

    A joined part replaces the parts that it covers even before they are deleted, so joining can
    be interrupted anywhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def parts(self) -> list[Part]:
        """The parts that no joined part covers, oldest first."""
        return self._sorted_out()[0]

    def dataset(self) -> pads.Dataset:
        """Return all records; columns that older versions did not write are null.

        Reading them fails if a page is damaged. RunError if the end of a part is damaged, or parts
        are being joined.
        """
        parts = self.parts
        for part in parts:
            try:
                _check_columns(part)
            except FileNotFoundError:
                raise _joined_meanwhile(self.folder.parent) from None
            except (OSError, pa.ArrowException, ValueError) as error:
                raise _damaged(part, str(error)) from error
        return pads.dataset([str(part.file) for part in parts], schema=SCHEMA, format=_CHECKED)

    def refuse_damage(self) -> None:
        """Read all parts; raise RunError, which names the part, if one is damaged."""
        for part in self.parts:
            if damage := part.damage():
                raise _damaged(part, damage)

    def write(self, tables: Iterable[pa.Table]) -> None:
        """Write tables, one in memory at a time, as a new part; OSError if that fails."""
        number = self._next_number()
        self._write(tables, number, number)

    def take(self, part: Part) -> None:
        """Link or copy a part of another ledger as the next one here; OSError if that fails."""
        ending = f".{part.checksum}.parquet" if part.checksum else ".parquet"
        link_or_copy(part.file, self.folder / f"part-{self._next_number():06d}{ending}")

    def clear(self) -> None:
        """Remove all parts; the caller holds the run's lock."""
        for file in self.folder.glob("part-*.parquet"):
            file.unlink()

    def repair(self) -> Iterator[str]:
        """Move damaged parts aside and remove covered ones; yield a message for each damaged part.

        The caller holds the run's lock.
        """
        while damaged := [(part, damage) for part in self.parts if (damage := part.damage())]:
            for part, damage in damaged:
                aside = self.folder / "damaged" / part.file.name
                aside.parent.mkdir(exist_ok=True)
                part.file.replace(aside)
                yield (
                    f"{part.file} is damaged ({damage}); it was moved to {aside.parent}, and its "
                    "photos are done again"
                )
        for leftover in self.folder.glob(".part-*.tmp"):
            leftover.unlink(missing_ok=True)
        self._remove_covered()

    def compact(self) -> None:
        """Join neighbouring small parts if there are many, in bounded memory; killing it is safe.

        The caller holds the run's lock.

        Raises:
            OSError, pyarrow.ArrowException: a part cannot be written or read; none is lost.
        """
        sized = [(part, part.rows) for part in self.parts]
        if sum(rows < JOINED_ROWS for _, rows in sized) < MANY:
            return
        for group in _groups(sized):
            tables = pads.dataset(
                [str(part.file) for part in group], schema=SCHEMA, format=_CHECKED
            ).to_batches(batch_readahead=1, fragment_readahead=1)
            self._write(_blocks(tables), group[0].first, group[-1].last)
            self._remove_covered()

    def _write(self, tables: Iterable[pa.Table], first: int, last: int) -> None:
        """Write a part under a temporary name, then rename it; its name has its checksum."""
        numbers = f"{first:06d}" if first == last else f"{first:06d}-{last:06d}"
        temporary = self.folder / f".part-{numbers}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)  # a link by that name would lead elsewhere
        try:
            write_part(tables, temporary)
            name = f"part-{numbers}.{_checksum(temporary)}.parquet"
            publish(temporary, self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)

    def _next_number(self) -> int:
        kept, covered = self._sorted_out()
        return max((part.last for part in (*kept, *covered)), default=-1) + 1

    def _remove_covered(self) -> None:
        sync_folder(self.folder)  # the part that covers them must be there even without power
        for part in self._sorted_out()[1]:
            part.file.unlink(missing_ok=True)

    def _sorted_out(self) -> tuple[list[Part], list[Part]]:
        """Return the parts that count, oldest first, and those that joined parts cover."""
        found = [
            Part(file, int(name[1]), int(name[2] or name[1]), name[3] or "")
            for file in self.folder.glob("part-*.parquet")
            if (name := _NAME.fullmatch(file.name)) and file.is_file()
        ]
        kept: list[Part] = []
        covered: list[Part] = []
        for part in sorted(found, key=lambda part: (part.first, -part.last, part.file.name)):
            joined = kept and kept[-1].first < kept[-1].last
            (covered if joined and part.last <= kept[-1].last else kept).append(part)
        return kept, covered


def as_table(records: Sequence[Record]) -> pa.Table:
    """Return records as rows."""
    return pa.Table.from_pylist([record.to_dict() for record in records], schema=SCHEMA)


def completed(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Return rows as `SCHEMA` needs them: texts that older versions did not write are empty."""
    table = pa.Table.from_batches(batches)
    texts = {column.name for column in SCHEMA if column.type == pa.string() and not column.nullable}
    columns = [table[name].fill_null("") if name in texts else table[name] for name in SCHEMA.names]
    return pa.table(columns, schema=SCHEMA)


def write_part(tables: Iterable[pa.Table], file: Path) -> None:
    """Write tables with the columns of `SCHEMA`; one is in memory at a time."""
    # statistics of other columns are not used, and could be damaged
    with pq.ParquetWriter(
        file, SCHEMA, write_page_checksum=True, write_statistics=["attempt"]
    ) as writer:
        for table in tables:
            writer.write_table(table)


def _check_columns(part: Part) -> None:
    """Raise ValueError if a column has another type, or lacks a value that every record has."""
    wanted = {column.name: column for column in SCHEMA}
    unsure = []
    for found in pq.read_schema(part.file):
        column = wanted.get(found.name, found)
        if found.type != column.type:
            raise ValueError(f"its column {found.name} is {found.type}")
        # files of this version cannot leave such a value out
        if found.nullable and not column.nullable:
            unsure.append(found.name)
    if unsure:
        with pq.ParquetFile(part.file) as file:
            for batch in file.iter_batches(columns=unsure):
                if any(column.null_count for column in batch.columns):
                    raise ValueError(f"a value is missing in {', '.join(unsure)}")


def _groups(parts: Iterable[tuple[Part, int]]) -> Iterator[list[Part]]:
    """Yield lists of neighbouring parts that fit into one, given parts and numbers of rows."""
    groups: list[list[Part]] = [[]]
    held = 0
    for part, rows in parts:
        if held + rows > JOINED_ROWS:
            groups.append([])
            held = 0
        groups[-1].append(part)
        held += rows
    return (group for group in groups if len(group) > 1)


def _blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield batches joined to row groups."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(held.num_rows for held in waiting) >= ROW_GROUP:
            yield completed(waiting)
            waiting = []
    if waiting:
        yield completed(waiting)


def _checksum(file: Path) -> str:
    found = 0
    with file.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            found = zlib.crc32(block, found)
    return f"{found:08x}"


def _joined_meanwhile(folder: Path) -> RunError:
    return RunError(
        f"{folder} is at work: parts of its ledger have been joined just now; try again"
    )


def _damaged(part: Part, damage: str) -> RunError:
    return RunError(
        f"{part.file} is damaged ({damage}); run again: only its photos are scored anew"
    )


@contextmanager
def connect(**ledgers: Ledger) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to ledgers, each with the tables that `attach` makes.

    DuckDB spills to a folder in the first run's folder, which is removed afterwards. RunError if a
    ledger is damaged, its parts have just been joined, or memory and disk do not suffice.
    """
    with open_database(next(iter(ledgers.values())).folder.parent) as connection:
        parts = [(ledger, ledger.parts) for ledger in ledgers.values()]
        for name, ledger in ledgers.items():
            attach(connection, name, ledger)
        try:
            yield connection
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            for ledger, before in parts:
                if not all(part.file.exists() for part in before):
                    raise _joined_meanwhile(ledger.folder.parent) from None
                ledger.refuse_damage()
            raise


@contextmanager
def open_database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to an empty database in memory, which spills to a new folder in `folder`.

    RunError if memory and disk do not suffice, or the folder's name is not valid text.
    """
    check_text(folder)
    with spill_folder(folder) as spill, duckdb.connect() as connection:
        connection.execute("SET temp_directory = ?", [str(spill or "")])
        connection.execute(f"SET memory_limit = '{_memory()} bytes'")
        connection.execute(f"SET threads = {usable_cores()}")
        connection.execute("SET enable_progress_bar = false")
        try:
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise RunError(
                "there is not enough memory"
                + ("" if spill else f", and {folder} takes no files to spill to")
                + f": {error}"
            ) from error


def attach(connection: duckdb.DuckDBPyConnection, name: str, ledger: Ledger) -> None:
    """Make the rows of each photo's last attempt a table `name`, and all rows `name`_attempts.

    RunError if the ledger is damaged.
    """
    connection.register(f"{name}_attempts", ledger.dataset())
    # few photos have a second attempt; without any, the parts' statistics make the join free
    connection.execute(
        f"""CREATE TEMP VIEW {name} AS
        SELECT * FROM {name}_attempts ANTI JOIN (
            SELECT path, max(attempt) AS last FROM {name}_attempts WHERE attempt > 0 GROUP BY path
        ) AS later ON {name}_attempts.path = later.path AND {name}_attempts.attempt < later.last"""
    )


def fetch_value(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """Return the one value of a query."""
    ((value,),) = connection.execute(query).fetchall()
    return value


def iterate_dicts(cursor: duckdb.DuckDBPyConnection) -> Iterator[dict[str, Any]]:
    """Yield the rows of a result as dictionaries, few of them in memory."""
    names = [column[0] for column in cursor.description or ()]
    while rows := cursor.fetchmany(FETCHED):
        for row in rows:
            yield dict(zip(names, row, strict=True))


def copy_rows(
    connection: duckdb.DuckDBPyConnection, query: str, target: Path, file_format: str
) -> int:
    """Write the rows of a query to a file, replaced if it exists, and return their number.

    `file_format` is "csv" (with texts that are guarded already, see `text.guard_sql`), "jsonl" or
    "parquet".
    """
    options = {"csv": "csv, HEADER true", "jsonl": "json, ARRAY false", "parquet": "parquet"}
    destination = str(target).replace("'", "''")
    copying = f"COPY ({query}) TO '{destination}' (FORMAT {options[file_format]})"
    return int(fetch_value(connection, copying))


def export_rows(
    connection: duckdb.DuckDBPyConnection, query: str, target: Path, file_format: str
) -> int:
    """Write as `copy_rows` does, but the file whole or not at all; RunError if that fails."""
    try:
        with writing(target) as temporary:
            return copy_rows(connection, query, temporary, file_format)
    except duckdb.IOException as error:
        raise RunError(f"cannot write {target}: {error}") from error


def _memory() -> int:
    """Return the bytes DuckDB may hold: half of the free memory, within limits."""
    free = usable_memory()
    return MOST_MEMORY if free is None else max(MOST_MEMORY // 16, min(MOST_MEMORY, free // 2))


@contextmanager
def spill_folder(home: Path) -> Iterator[Path | None]:
    """Yield a new folder in `home` for one connection; None if none can be created.

    A lock in it shows that it is in use; folders that a killed process left are removed.
    """
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    for left in home.glob(".spill-*"):
        if not left.is_symlink() and not _in_use(left):
            shutil.rmtree(left, ignore_errors=True)
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".spill-", dir=home))
    except OSError:  # a read-only run
        yield None
        return
    try:
        with FileLock(folder / "lock"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # others have put something there since
            for made in missing:
                made.rmdir()


def _in_use(folder: Path) -> bool:
    """Tell whether a process holds the folder's lock, or may be about to take it."""
    with suppress(Timeout, OSError):
        if not (folder / "lock").exists():
            return time.time() - folder.stat().st_mtime < LOCKED_WITHIN
        with FileLock(folder / "lock", timeout=0):
            return False
    return True
