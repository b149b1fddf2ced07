"""Summaries of a run by group: whose faces are better, and who is discarded more. No torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from faceqan_toolkit.cells import guard, unguard
from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import check_plain
from faceqan_toolkit.results.groups import difference, wilson
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.database import connect, copy_rows, exporting, fetch_value
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text_files import open_text
from faceqan_toolkit.wording import reason_of

FOLDER = "folder"


@dataclass(frozen=True)
class Grouping:
    """What photos are grouped by.

    Attributes:
        by: a column of `file`; without that file "folder", a photo's own.
        file: CSV with a header: `path`, as in rankings or absolute, and columns.

    Raises:
        SettingsError: a column without its file.
    """

    by: str = FOLDER
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.file is None and self.by != FOLDER:
            raise SettingsError(f"--group-by {self.by} needs --groups FILE.csv with that column")


@dataclass(frozen=True)
class GroupSummary:
    """What one group's faces are like.

    Attributes:
        group: its name; None for photos that belong to none.
        faces: with a score.
        unscored: photos, or faces, without one; they count in no other figure.
        mean: of the quality, as the quantiles; None without a scored face.
        q05, q25, median, q75, q95: quantiles, interpolated linearly.
        below: faces below the threshold; None without a threshold.
        share, share_low, share_high: below / faces and its 95 % Wilson interval, in [0, 1].
        difference, difference_low, difference_high: the share minus that of all other groups'
            faces together, in [-1, 1], and its 95 % interval (Newcombe); None if there are no
            others.
    """

    group: str | None
    faces: int
    unscored: int
    mean: float | None
    q05: float | None
    q25: float | None
    median: float | None
    q75: float | None
    q95: float | None
    below: int | None = None
    share: float | None = None
    share_low: float | None = None
    share_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return its columns in order."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


COLUMNS = tuple(item.name for item in fields(GroupSummary))

_TYPES = {"group": pa.string(), "faces": pa.int64(), "unscored": pa.int64(), "below": pa.int64()}
_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.float64())) for name in COLUMNS])


def summarise(
    run: RunInfo, grouping: Grouping | None = None, *, below: float | None = None
) -> list[GroupSummary]:
    """Return a summary of each group, those with most faces below the threshold first.

    Args:
        run: with scores.
        grouping: by folder if None.
        below: a quality, the threshold; None leaves the shares out, and then the groups with the
            lowest median come first.

    Raises:
        RunError: the run has no scores, or its ledger is damaged.
        SettingsError: the file cannot be read, has no such column, names a photo twice, or
            gives none of the run a group.
    """
    if not Ranking(run).scored:
        raise RunError(run.no_scores)
    if below is not None and not math.isfinite(below):
        raise SettingsError(f"below is {below}; it must be a finite number")
    with connect(ledger=run) as connection:
        grouped = _grouped(connection, grouping or Grouping())
        rows = connection.execute(_summary_query(grouped, below)).fetchall()
        example = fetch_value(connection, "SELECT min(path) FROM ledger")
    summaries = [GroupSummary(*row) for row in rows]
    if grouping and grouping.file and summaries and all(one.group is None for one in summaries):
        raise SettingsError(
            f"{grouping.file} gives no photo of this run a group; its paths must be as in the "
            f"results, e.g. {example}"
        )
    return summaries if below is None else _with_shares(summaries)


def members(run: RunInfo, grouping: Grouping) -> dict[str, str | None]:
    """Return the group of each photo by its path, as `summarise` has it; it needs their memory.

    Raises:
        RunError: the ledger is damaged.
        SettingsError: as `summarise` does.
    """
    with connect(ledger=run) as connection:
        grouped = _grouped(connection, grouping)
        return dict(connection.execute(f"SELECT DISTINCT path, name FROM ({grouped})").fetchall())


def export(summaries: Sequence[GroupSummary], target: Path, file_format: str) -> int:
    """Write summaries to a file, whole or not at all, and return their number.

    Args:
        summaries: of `summarise`.
        target: replaced if it exists.
        file_format: one of `choices.FORMATS`.

    Raises:
        RunError: it cannot be written.
    """
    rows = [summary.as_dict() for summary in summaries]
    if file_format == "csv":
        rows = [{**row, "group": row["group"] and guard(row["group"])} for row in rows]
    with exporting(target) as temporary, duckdb.connect() as connection:
        connection.register("summaries", pa.Table.from_pylist(rows, schema=_SCHEMA))
        return copy_rows(connection, "SELECT * FROM summaries", temporary, file_format)


def by_file(
    connection: duckdb.DuckDBPyConnection, file: Path, column: str, rows: str = "ledger"
) -> str:
    """Return SQL for rows with a further column `name`: what a table says of their photo, or NULL.

    Args:
        connection: gets the table.
        file: CSV with a header: `path`, as in rankings or absolute, and columns.
        column: of the file.
        rows: SQL, a table or a query in brackets, for rows with `path` and `root`.

    Raises:
        SettingsError: the file cannot be read, has no such column, or names a photo twice.
    """
    connection.register("memberships", _read_groups(file, column))
    return f"""
        SELECT photos.*, coalesce(relative.name, whole.name) AS name
        FROM {rows} AS photos
        LEFT JOIN memberships AS relative ON relative.path = photos.path
        LEFT JOIN memberships AS whole ON whole.path = photos.root || '/' || photos.path
    """


def _grouped(connection: duckdb.DuckDBPyConnection, grouping: Grouping) -> str:
    """Return SQL for the rows with the name of their group."""
    if grouping.file is None:
        return _by_folder(connection)
    return by_file(connection, grouping.file, grouping.by)


def _by_folder(connection: duckdb.DuckDBPyConnection) -> str:
    """Return SQL for the rows with their folder's name: whole if the run has several roots."""
    roots = fetch_value(connection, "SELECT count(DISTINCT root) FROM ledger")
    path = "path" if roots <= 1 else "root || '/' || path"
    return rf"""
        SELECT *, CASE WHEN contains({path}, '/')
            THEN regexp_replace({path}, '/[^/]*$', '') ELSE '.' END AS name
        FROM ledger
    """


def _summary_query(grouped: str, below: float | None) -> str:
    """Return SQL for the first columns of `GroupSummary`, in order."""
    quantiles = ", ".join(f"quantile_cont(quality, {q})" for q in (0.05, 0.25, 0.5, 0.75, 0.95))
    count = "NULL" if below is None else f"count(*) FILTER (quality < {float(below)!r})"
    worst = "median" if below is None else "-below / faces"
    return f"""
        SELECT * EXCLUDE (median) FROM (
            SELECT name, count(quality) AS faces, count(*) - count(quality), avg(quality),
                {quantiles}, {count} AS below, quantile_cont(quality, 0.5) AS median
            FROM ({grouped}) GROUP BY name
        ) ORDER BY {worst} NULLS LAST, name NULLS LAST
    """


def _with_shares(summaries: list[GroupSummary]) -> list[GroupSummary]:
    all_faces = sum(summary.faces for summary in summaries)
    all_below = sum(summary.below or 0 for summary in summaries)
    found = []
    for summary in summaries:
        faces, count = summary.faces, summary.below or 0
        if faces:
            low, high = wilson(count, faces)
            summary = replace(summary, share=count / faces, share_low=low, share_high=high)
        if faces and all_faces > faces:
            others = (all_below - count, all_faces - faces)
            apart, low, high = difference((count, faces), others)
            summary = replace(summary, difference=apart, difference_low=low, difference_high=high)
        found.append(summary)
    return found


def _read_groups(file: Path, column: str) -> pa.Table:
    """Return paths and names of groups; an empty cell is no group."""
    names: dict[str, str | None] = {}
    try:
        check_plain(file)
        with open_text(file) as lines:
            reader = csv.DictReader(lines)
            have = reader.fieldnames or []
            if "path" not in have or column not in have:
                raise SettingsError(
                    f"{file} needs the columns path and {column}; it has {', '.join(have)}"
                )
            for row in reader:
                path = unguard(row["path"] or "").replace("\\", "/")
                if path in names:
                    raise SettingsError(f"{file}, line {reader.line_num}: {path} a second time")
                names[path] = unguard((row[column] or "").strip()) or None
    except (OSError, ValueError, csv.Error) as error:
        raise SettingsError(f"{file}: {reason_of(error)}") from error
    return pa.table(
        {"path": pa.array(names.keys(), pa.string()), "name": pa.array(names.values(), pa.string())}
    )
