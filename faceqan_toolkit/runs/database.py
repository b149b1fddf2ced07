"""DuckDB over the ledgers of runs, in bounded memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.files import check_text, writing
from faceqan_toolkit.hardware import usable_cores, usable_memory
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.runs.ledger import joined_meanwhile

MOST_MEMORY = 2_000_000_000
"""Bytes DuckDB holds at most; what needs more is spilled. Sorting is hardly faster with more."""

FETCHED = 1000
"""Rows that are fetched at once."""


@contextmanager
def connect(**runs: RunInfo) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to the records of runs.

    A run given as `ledger` is a table `ledger` of the rows that count, those of each photo's last
    attempt, and a table `ledger_attempts` of all rows. What does not fit into memory goes to a
    folder in that of the first run, which is removed afterwards.

    Raises:
        RunError: a ledger is damaged, its parts are joined meanwhile, memory and disk do not
            suffice.
    """
    with open_database(next(iter(runs.values())).folder) as connection:
        parts = {name: run.ledger.parts for name, run in runs.items()}
        for name, run in runs.items():
            attach(connection, name, run)
        try:
            yield connection
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            for name, run in runs.items():
                if not all(part.file.exists() for part in parts[name]):
                    raise joined_meanwhile(run.folder) from None
                run.ledger.refuse_damage()
            raise


@contextmanager
def open_database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to an empty database, in memory as far as there is enough.

    Args:
        folder: where what does not fit goes, into a folder that is removed afterwards.

    Raises:
        RunError: memory and disk do not suffice, or the folder's name is no text.
    """
    check_text(folder)
    with spill_folder(folder) as spill, duckdb.connect() as connection:
        connection.execute("SET temp_directory = ?", [str(spill or "")])
        connection.execute(f"SET memory_limit = '{_memory()} bytes'")
        connection.execute(f"SET threads = {usable_cores()}")
        # the order is in the query; without progress bars on people's terminals
        connection.execute("SET enable_progress_bar = false")
        try:
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise RunError(
                "there is not enough memory"
                + ("" if spill else f", and {folder} takes no files to spill to")
                + f": {error}"
            ) from error


def attach(connection: duckdb.DuckDBPyConnection, name: str, run: RunInfo) -> None:
    """Give a connection a run's rows that count as table `name`, all as `name`_attempts.

    Raises:
        RunError: the ledger is damaged.
    """
    connection.register(f"{name}_attempts", run.ledger.dataset())
    connection.execute(f"CREATE TEMP VIEW {name} AS {_LATEST.format(name=name)}")


# few photos have a second attempt; without any the join has nothing on its right side, as the
# parts' statistics tell without reading
_LATEST = """
    SELECT * FROM {name}_attempts ANTI JOIN (
        SELECT path, max(attempt) AS last FROM {name}_attempts WHERE attempt > 0 GROUP BY path
    ) AS later ON {name}_attempts.path = later.path AND {name}_attempts.attempt < later.last
"""


def fetch_value(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """Return the one value a query has."""
    ((value,),) = connection.execute(query).fetchall()
    return value


def fetch_dicts(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Return all rows of a result as dictionaries."""
    return list(iterate_dicts(cursor))


def iterate_dicts(cursor: duckdb.DuckDBPyConnection) -> Iterator[dict[str, Any]]:
    """Yield the rows of a result as dictionaries, few of which are in memory."""
    names = [column[0] for column in cursor.description or ()]
    while rows := cursor.fetchmany(FETCHED):
        for row in rows:
            yield dict(zip(names, row, strict=True))


def copy_rows(
    connection: duckdb.DuckDBPyConnection, query: str, target: Path, file_format: str
) -> int:
    """Write the rows of a query to a file and return their number.

    Args:
        connection: where the query runs.
        query: SQL; for CSV its cells must be harmless already, see `cells.guard_sql`.
        target: replaced if it exists.
        file_format: "csv", "jsonl" or "parquet".
    """
    options = {
        "csv": "FORMAT csv, HEADER true",
        "jsonl": "FORMAT json, ARRAY false",
        "parquet": "FORMAT parquet",
    }[file_format]
    destination = str(target).replace("'", "''")
    return int(fetch_value(connection, f"COPY ({query}) TO '{destination}' ({options})"))


@contextmanager
def exporting(target: Path) -> Iterator[Path]:
    """Do as `files.writing` does, for a file that DuckDB writes.

    Raises:
        RunError: it cannot be written.
    """
    try:
        with writing(target) as temporary:
            yield temporary
    except duckdb.IOException as error:
        raise RunError(f"cannot write {target}: {error}") from error


def _memory() -> int:
    """Return how many bytes DuckDB may hold: half of what is free, within reason."""
    free = usable_memory()
    return MOST_MEMORY if free is None else max(MOST_MEMORY // 16, min(MOST_MEMORY, free // 2))


@contextmanager
def spill_folder(home: Path) -> Iterator[Path | None]:
    """Yield a new folder for one connection; None where none can be made.

    Two connections must not share one. A lock in it tells whether it is in use: what a killed
    process left behind is removed by the next.
    """
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    for left in home.glob(".spill-*"):
        if not left.is_symlink() and not _in_use(left):
            shutil.rmtree(left, ignore_errors=True)
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".spill-", dir=home))
    except OSError:  # a run that may only be read
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
    """Tell whether a process holds the folder's lock, or is about to take it."""
    if not (folder / "lock").exists():
        return True
    with suppress(Timeout, OSError), FileLock(folder / "lock", timeout=0):
        return False
    return True
