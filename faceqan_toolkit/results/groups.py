"""Quality statistics of a run by group, and the share of each group below a threshold. No torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import check_plain, open_text
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.database import connect, copy_rows, exporting, fetch_value
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import guard, reason_of, unguard

FOLDER = "folder"

Z95 = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""


@dataclass(frozen=True)
class Grouping:
    """How photos are assigned to groups.

    Attributes:
        by: a column of `file`; without a file "folder", the folder of the photo.
        file: CSV file with a header: `path` (as in rankings, or absolute) and columns of groups.

    Raises:
        SettingsError: a column is named but no file is given.
    """

    by: str = FOLDER
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.file is None and self.by != FOLDER:
            raise SettingsError(f"--group-by {self.by} needs --groups FILE.csv with that column")


@dataclass(frozen=True)
class GroupSummary:
    """Statistics of one group.

    Attributes:
        group: name of the group; None for photos without a group.
        faces: number of scored faces.
        unscored: number of photos or faces without a score; they enter no other statistic.
        mean: mean quality; None without a scored face, as are the quantiles.
        q05, q25, median, q75, q95: quantiles of the quality, linearly interpolated.
        below: number of faces below the threshold; None without a threshold.
        share, share_low, share_high: below / faces and its 95 % Wilson interval, in [0, 1].
        difference, difference_low, difference_high: the share minus the share over all other
            groups, in [-1, 1], and its 95 % interval (Newcombe); None without other groups.
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
    """Return a summary of each group, largest share below the threshold first.

    Args:
        run: a run with scores.
        grouping: how photos are grouped; None groups by folder.
        below: quality threshold; None leaves the shares out and sorts by median, lowest first.

    Raises:
        RunError: the run has no scores, or its ledger is damaged.
        SettingsError: the file cannot be read, lacks the column, names a photo twice, or assigns
            no photo of the run to a group.
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
    """Return the group of each photo by path, in one dictionary.

    Raises:
        RunError: the ledger is damaged.
        SettingsError: as `summarise` does.
    """
    with connect(ledger=run) as connection:
        grouped = _grouped(connection, grouping)
        return dict(connection.execute(f"SELECT DISTINCT path, name FROM ({grouped})").fetchall())


def export(summaries: Sequence[GroupSummary], target: Path, file_format: str) -> int:
    """Write summaries to a file atomically; return their number.

    Args:
        summaries: from `summarise`.
        target: the file, replaced if it exists.
        file_format: one of `settings.FORMATS`.

    Raises:
        RunError: the file cannot be written.
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
    """Return SQL for rows with an additional column `name`: their photo's value in a CSV file.

    `name` is NULL for photos that the file does not list.

    Args:
        connection: connection in which the file's content is registered.
        file: CSV file with a header: `path` (as in rankings, or absolute) and further columns.
        column: the column to take.
        rows: SQL, a table or a query in brackets, for rows with `path` and `root`.

    Raises:
        SettingsError: the file cannot be read, lacks the column, or names a photo twice.
    """
    connection.register("memberships", _read_groups(file, column))
    return f"""
        SELECT photos.*, coalesce(relative.name, whole.name) AS name
        FROM {rows} AS photos
        LEFT JOIN memberships AS relative ON relative.path = photos.path
        LEFT JOIN memberships AS whole ON whole.path = photos.root || '/' || photos.path
    """


def _grouped(connection: duckdb.DuckDBPyConnection, grouping: Grouping) -> str:
    """Return SQL for the ledger's rows with the column `name`, their group."""
    if grouping.file is None:
        return _by_folder(connection)
    return by_file(connection, grouping.file, grouping.by)


def _by_folder(connection: duckdb.DuckDBPyConnection) -> str:
    """Return SQL for rows with the column `name`: the folder, absolute with several roots."""
    roots = fetch_value(connection, "SELECT count(DISTINCT root) FROM ledger")
    path = "path" if roots <= 1 else "root || '/' || path"
    return rf"""
        SELECT *, CASE WHEN contains({path}, '/')
            THEN regexp_replace({path}, '/[^/]*$', '') ELSE '.' END AS name
        FROM ledger
    """


def _summary_query(grouped: str, below: float | None) -> str:
    """Return SQL for the columns of `GroupSummary` up to `below`, in order."""
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
            apart, low, high = share_difference((count, faces), others)
            summary = replace(summary, difference=apart, difference_low=low, difference_high=high)
        found.append(summary)
    return found


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share, without continuity correction.

    Args:
        count: number of hits.
        total: number of independent trials, at least 1.

    Examples:
        None of ten still allows a share of 28 %.

        >>> [round(end, 4) for end in wilson(0, 10)], [round(end, 4) for end in wilson(5, 10)]
        ([0.0, 0.2775], [0.2366, 0.7634])

    Source: Wilson, JASA 1927. scipy.stats has it too, but takes as long to import as a summary
    takes to compute.
    """
    share = count / total
    centre = share + Z95**2 / (2 * total)
    reach = Z95 * math.sqrt(share * (1 - share) / total + Z95**2 / (4 * total**2))
    scale = 1 + Z95**2 / total
    low, high = (centre - reach) / scale, (centre + reach) / scale
    # exact at the ends, where rounding would put the share itself outside the interval
    return (0.0 if count == 0 else low), (1.0 if count == total else high)


def share_difference(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float, float]:
    """Return the difference of two shares, first minus second, and its 95 % interval.

    Args:
        first, second: count and total of each; the samples are independent.

    Source: Newcombe, Statistics in Medicine 1998, method 10, from two Wilson intervals.
    """
    one, other = first[0] / first[1], second[0] / second[1]
    (low_1, high_1), (low_2, high_2) = wilson(*first), wilson(*second)
    apart = one - other
    return (
        apart,
        apart - math.hypot(one - low_1, high_2 - other),
        apart + math.hypot(high_1 - one, other - low_2),
    )


def _read_groups(file: Path, column: str) -> pa.Table:
    """Return a table of `path` and group `name`; an empty cell means no group."""
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
