"""Merging of runs with equal settings into a new run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.files import is_file, link_or_copy
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, crop_file, differences, read_run
from faceqan_toolkit.runs.ledger import (
    FETCHED,
    JOINED_ROWS,
    ROW_GROUP,
    attach,
    completed,
    copy_rows,
    fetch_value,
    open_database,
)
from faceqan_toolkit.text import reason_of


def check_alike(runs: Sequence[RunInfo]) -> None:
    """Raise RunError if runs differ in settings, which the message lists, or one is given twice."""
    first = runs[0]
    for run in runs[1:]:
        one, other = _comparable(first), _comparable(run)
        if one != other:
            differing = differences(one, other, f"in {first.folder}", f"in {run.folder}")
            raise RunError(
                "these runs were made with other settings, whose scores must not be mixed:"
                + "".join(f"\n  {line}" for line in differing)
            )
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise RunError("a run is given twice")


@contextmanager
def merge(runs: Sequence[RunInfo], output: Path) -> Iterator[RunWriter]:
    """Yield the merged run, opened for writing, with all records and crops.

    If several runs have the same photo, the rows of the last one without a failure are taken; if
    all failed, those of the last run. Ledger parts and crops are hard-linked where possible, else
    copied. A merge that was killed can be repeated.

    Args:
        runs: runs that pass `check_alike`.
        output: a new run folder, or one of an earlier merge that was not continued since.

    Raises:
        RunError: the folder cannot be used, a ledger is damaged, or two runs have different photos
            with the same path.
    """
    _check_output(runs, output)
    for run in runs:
        run.ledger.refuse_damage()
    content = runs[0].content
    own = {"name", "sha256", "head_sha256"}  # RunWriter writes these
    model = {name: value for name, value in (content.get("model") or {}).items() if name not in own}
    calls = [
        {**call, "run": run.folder.name}
        for run in runs
        for call in run.content.get("invocations", [])
    ]
    merged = {"runs": [str(run.folder) for run in runs], "invocations": len(calls)}
    identity = content["identity"]
    weights = str(identity.get("weights_sha256", ""))
    with RunWriter(
        output, runs[0].settings, weights, model, merged=merged, identity=identity
    ) as target:
        target.invocations = calls
        target.scale = runs[0].scale
        if all(run.content.get("calibration") == content.get("calibration") for run in runs):
            target.calibration = content.get("calibration")
        target.ledger.clear()
        with open_database(output) as database:
            _find_repeated(database, runs)
            for number, run in enumerate(runs):
                _take_records(database, number, run, target)
                _take_crops(database, number, run, target)
        yield target


def _comparable(run: RunInfo) -> dict[str, Any]:
    """Return the entries of `run.json` that must be equal."""
    try:
        content = run.content
        return {**content["identity"], "scale": content["scale"]}
    except (KeyError, TypeError):
        raise RunError(
            f"{run.folder / 'run.json'} lacks the identity of the run, so it cannot be merged"
        ) from None


def _check_output(runs: Sequence[RunInfo], output: Path) -> None:
    if any(run.folder.resolve() == output.resolve() for run in runs):
        raise RunError(f"{output} is one of the runs to merge; choose a new folder")
    if not (output / "run.json").exists():
        return
    before = read_run(output).content
    merged = before.get("merged")
    if not merged:
        raise RunError(f"{output} is a run of its own; choose a new folder")
    if len(before.get("invocations", [])) > merged["invocations"]:
        raise RunError(f"{output} was continued since it was merged; choose a new folder")
    if not before.get("counts"):
        return  # that merge was interrupted, so nothing is lost
    given = {run.folder.resolve() for run in runs}
    if lost := [run for run in merged.get("runs", ()) if Path(run).resolve() not in given]:
        raise RunError(
            f"{output} also holds what was merged from {', '.join(lost)}; give all of its runs, "
            "or choose a new folder"
        )


def _find_repeated(database: duckdb.DuckDBPyConnection, runs: Sequence[RunInfo]) -> None:
    """Create a table `lost` of each run's photos that are taken from another run."""
    database.execute(
        "CREATE TABLE photos "
        "(path VARCHAR, run INTEGER, root VARCHAR, sha256 VARCHAR, failed BOOLEAN)"
    )
    for number, run in enumerate(runs):
        attach(database, f"run_{number}", run.ledger)
        database.execute(
            f"""INSERT INTO photos SELECT path, {number}, any_value(root), any_value(sha256),
                bool_or(status <> 'ok') FROM run_{number} GROUP BY path"""
        )
    database.execute(
        """CREATE TABLE repeated AS SELECT * FROM photos
        SEMI JOIN (SELECT path FROM photos GROUP BY path HAVING count(*) > 1) USING (path)"""
    )
    clashes = database.execute(
        """SELECT path, min(root), max(root) FROM repeated GROUP BY path
        HAVING min(root) <> max(root) AND count(DISTINCT nullif(sha256, '')) > 1
        ORDER BY path LIMIT 1"""
    ).fetchall()
    for path, one, other in clashes:
        raise RunError(
            f"{path!r} is one photo below {one} and another below {other}; runs to be merged "
            "need paths that differ: give each the photos' common parent folder"
        )
    database.execute(
        """CREATE TABLE lost AS SELECT path, run FROM repeated
        QUALIFY row_number() OVER (PARTITION BY path ORDER BY failed, run DESC) > 1"""
    )


def _take_records(
    database: duckdb.DuckDBPyConnection, number: int, run: RunInfo, target: RunWriter
) -> None:
    """Take a run's ledger parts unchanged, or without the rows of lost photos."""
    try:
        if not fetch_value(database, f"SELECT count(*) FROM lost WHERE run = {number}"):
            for part in run.ledger.parts:
                target.ledger.take(part)
            return
        kept = target.ledger.folder / ".part-kept.tmp"
        copy_rows(
            database,
            f"""SELECT * FROM run_{number}_attempts AS rows
            ANTI JOIN (FROM lost WHERE run = {number}) AS lost ON rows.path = lost.path
            ORDER BY path, attempt, face""",  # a join of several threads keeps no order
            kept,
            "parquet",
        )
        with pq.ParquetFile(kept) as rows:
            batches = rows.iter_batches(ROW_GROUP)
            while block := list(islice(batches, JOINED_ROWS // ROW_GROUP)):
                target.ledger.write(completed([batch]) for batch in block)
        kept.unlink()
    except OSError as error:
        raise RunError(f"cannot write to {target.ledger.folder}: {error}") from error


def _take_crops(
    database: duckdb.DuckDBPyConnection, number: int, run: RunInfo, target: RunWriter
) -> None:
    """Take the crops of a run's rows, except those of lost photos and deleted ones."""
    cursor = database.execute(
        f"""SELECT crop FROM run_{number} AS rows
        ANTI JOIN (FROM lost WHERE run = {number}) AS lost ON rows.path = lost.path
        WHERE crop <> ''"""
    )
    while rows := cursor.fetchmany(FETCHED):
        for (crop,) in rows:
            source, place = crop_file(run.folder, crop), crop_file(target.folder, crop)
            if source and place and is_file(source):  # it may have been deleted
                try:
                    link_or_copy(source, place)
                except OSError as error:
                    raise RunError(f"cannot write {place}: {reason_of(error)}") from error
