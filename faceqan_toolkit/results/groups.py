"""Groups of photos: quality statistics by folder or by a CSV file's column, and identities."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import check_plain, is_file, open_text
from faceqan_toolkit.results.ranking import MAIN_FACES, Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.runs.ledger import connect, export_rows, fetch_value, iterate_dicts
from faceqan_toolkit.text import counted, guard, reason_of, unguard
from faceqan_toolkit.types import PhotoSource

FOLDER = "folder"

Z95 = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""


@dataclass(frozen=True)
class Grouping:
    """How photos are assigned to groups: by their folder, or by a column of a CSV file.

    Attributes:
        by: "folder", or a column of `file`.
        file: CSV file with the columns path (as in rankings, or absolute) and `by`.
    """

    by: str = FOLDER
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.file is None and self.by != FOLDER:
            raise SettingsError(f"`group_by` {self.by} needs `groups` FILE.csv with that column")


@dataclass(frozen=True)
class GroupSummary:
    """Statistics of one group.

    Attributes:
        group: name of the group; None for photos without a group.
        faces: number of scored faces.
        unscored: number of photos or faces without a score; they enter no other statistic.
        mean, q05, q25, median, q75, q95: mean and linearly interpolated quantiles of the quality;
            None without a scored face.
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


COLUMNS = tuple(item.name for item in fields(GroupSummary))

_TYPES = {"group": pa.string(), "faces": pa.int64(), "unscored": pa.int64(), "below": pa.int64()}
_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.float64())) for name in COLUMNS])


def summarise(
    run: RunInfo, grouping: Grouping | None = None, *, below: float | None = None
) -> list[GroupSummary]:
    """Return a summary of each group, largest share below the threshold first.

    Args:
        run: a run with scores.
        grouping: None groups by folder.
        below: quality threshold; None leaves the shares out and sorts by median, lowest first.

    Raises:
        RunError: the run has no scores, or its ledger is damaged.
        SettingsError: the file is unusable, or assigns no photo of the run to a group.
    """
    if not Ranking(run).scored:
        raise RunError(run.no_scores)
    if below is not None and not math.isfinite(below):
        raise SettingsError(f"below is {below}; it must be a finite number")
    quantiles = ", ".join(f"quantile_cont(quality, {q})" for q in (0.05, 0.25, 0.5, 0.75, 0.95))
    count = "NULL" if below is None else f"count(*) FILTER (quality < {float(below)!r})"
    worst = "median" if below is None else "-below / faces"
    with connect(ledger=run.ledger) as connection:
        grouped = _grouped(connection, grouping or Grouping())
        rows = connection.execute(
            f"""SELECT * EXCLUDE (median) FROM (
                SELECT name, count(quality) AS faces, count(*) - count(quality), avg(quality),
                    {quantiles}, {count} AS below, quantile_cont(quality, 0.5) AS median
                FROM ({grouped}) GROUP BY name
            ) ORDER BY {worst} NULLS LAST, name NULLS LAST"""
        ).fetchall()
        example = fetch_value(connection, "SELECT min(path) FROM ledger")
    summaries = [GroupSummary(*row) for row in rows]
    if grouping and grouping.file and summaries and all(one.group is None for one in summaries):
        raise SettingsError(
            f"{grouping.file} gives no photo of this run a group; its paths must be as in the "
            f"results, e.g. {example}"
        )
    return summaries if below is None else _with_shares(summaries)


def members(run: RunInfo, grouping: Grouping) -> dict[str, str | None]:
    """Return the group of each photo by path; errors are those of `summarise`."""
    with connect(ledger=run.ledger) as connection:
        grouped = _grouped(connection, grouping)
        return dict(connection.execute(f"SELECT DISTINCT path, name FROM ({grouped})").fetchall())


def export(summaries: Sequence[GroupSummary], target: Path, file_format: str) -> int:
    """Write summaries to a file, replaced if it exists; return their number, or raise RunError."""
    rows = [asdict(summary) for summary in summaries]
    if file_format == "csv":
        rows = [{**row, "group": row["group"] and guard(row["group"])} for row in rows]
    with duckdb.connect() as connection:
        connection.register("summaries", pa.Table.from_pylist(rows, schema=_SCHEMA))
        return export_rows(connection, "SELECT * FROM summaries", target, file_format)


def _by_file(
    connection: duckdb.DuckDBPyConnection, file: Path, column: str, rows: str = "ledger"
) -> str:
    """Return SQL for rows with a column `name`: the photo's value in a column of a CSV file.

    It is NULL for photos that the file does not list. The file's content is registered in the
    connection; `rows` is SQL, a table or a query in brackets, for rows with `path` and `root`.
    SettingsError if the file cannot be read, lacks the column, or names a photo twice.
    """
    connection.register("memberships", _read_groups(file, column))
    return f"""
        SELECT photos.*, coalesce(relative.name, whole.name) AS name
        FROM {rows} AS photos
        LEFT JOIN memberships AS relative ON relative.path = photos.path
        LEFT JOIN memberships AS whole ON whole.path = photos.root || '/' || photos.path
    """


def _grouped(connection: duckdb.DuckDBPyConnection, grouping: Grouping) -> str:
    """Return SQL for the ledger's rows with their group as `name`; see `Grouping`."""
    if grouping.file is not None:
        return _by_file(connection, grouping.file, grouping.by)
    # folders are absolute if there are several roots
    roots = fetch_value(connection, "SELECT count(DISTINCT root) FROM ledger")
    path = "path" if roots <= 1 else "root || '/' || path"
    return rf"""
        SELECT *, CASE WHEN contains({path}, '/')
            THEN regexp_replace({path}, '/[^/]*$', '') ELSE '.' END AS name
        FROM ledger
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
        if 0 < faces < all_faces:
            others = (all_below - count, all_faces - faces)
            apart, low, high = share_difference((count, faces), others)
            summary = replace(summary, difference=apart, difference_low=low, difference_high=high)
        found.append(summary)
    return found


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of `count` hits in `total` > 0 independent trials.

    Examples:
        >>> [round(end, 4) for end in wilson(0, 10)], [round(end, 4) for end in wilson(5, 10)]
        ([0.0, 0.2775], [0.2366, 0.7634])

    Source: Wilson, JASA 1927. Importing scipy.stats takes as long as a summary.
    """
    share, scale = count / total, 1 + Z95**2 / total
    centre = share + Z95**2 / (2 * total)
    reach = Z95 * math.sqrt(share * (1 - share) / total + Z95**2 / (4 * total**2))
    low, high = (centre - reach) / scale, (centre + reach) / scale
    # exact at the ends, where rounding would put the share itself outside the interval
    return (0.0 if count == 0 else low), (1.0 if count == total else high)


def share_difference(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float, float]:
    """Return the difference of two shares, first minus second, and its 95 % interval.

    The shares are given as count and total; their samples are independent.

    Source: Newcombe, Statistics in Medicine 1998, method 10, from two Wilson intervals.
    """
    one, other = first[0] / first[1], second[0] / second[1]
    (low_1, high_1), (low_2, high_2) = wilson(*first), wilson(*second)
    apart = one - other
    below = math.hypot(one - low_1, high_2 - other)
    above = math.hypot(high_1 - one, other - low_2)
    return apart, apart - below, apart + above


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


LAST = -1
DEEPEST = 100

# group 1: path of the tar, RecordIO or parquet file that holds the photo, if any
# group 2: folders of the photo in that archive, else in the path; a video counts as a folder
_PLACE = r"^(?:(.*?[^/]\.(?:tar|rec|parquet))/(?:column=[^/]+/)?)?(?:(.*)/)?[^/]*$"


@dataclass(frozen=True)
class IdentityRule:
    """How photos are assigned to identities.

    Attributes:
        level: which folder of a photo's path is its identity: 1 is the first, `LAST` the last.
        table: CSV file with the columns path (as in results, or absolute) and identity, used
            instead of folders.
    """

    level: int = 1
    table: Path | None = None

    def __post_init__(self) -> None:
        if self.level != LAST and not 1 <= self.level <= DEEPEST:
            raise SettingsError(f"identity is {self.level}; a folder's number is 1 to {DEEPEST}")

    @classmethod
    def parse(cls, text: str | None) -> IdentityRule:
        """Return the rule for "first", "last", a folder number or a file; "first" for None."""
        if text in (None, "first", "last"):
            return cls(LAST if text == "last" else 1)
        if text.isascii() and text.isdigit():
            return cls(int(text[:4]))
        if not is_file(Path(text)):
            raise SettingsError(
                f"identity is {text}: it must be first, last, the number of a folder in the path, "
                "or a CSV file with the columns path and identity"
            )
        return cls(table=Path(text))

    @property
    def title(self) -> str:
        """The rule, for people."""
        if self.table is not None:
            return f"column identity of {self.table}"
        return {1: "first folder", LAST: "last folder"}.get(self.level, f"folder {self.level}")


@dataclass(frozen=True)
class People:
    """Counts of the identities that a rule finds.

    Attributes:
        number: number of identities.
        nobody: number of photos without an identity.
        below, below_level: if there is only one identity, the number of identities at the first
            deeper folder level with more than one, and that level; 0 if there is none.
        repeated: number of identities whose folder has the same name as one below another root.
    """

    rule: IdentityRule
    number: int
    nobody: int
    below: int = 0
    below_level: int = 0
    repeated: int = 0

    def text(self, consequence: str = "left out") -> str:
        """Return one line for people; `consequence` is that for photos without an identity."""
        people = "1 person" if self.number == 1 else f"{self.number:,} people"
        parts = [f"identity = {self.rule.title}, {people}"]
        if self.nobody:
            parts.append(f"{counted(self.nobody, 'photo')} without an identity: {consequence}")
        if self.below:
            parts.append(
                f"all lie in one folder: identity = folder {self.below_level} would find "
                f"{self.below:,} people"
            )
        if self.repeated:
            parts.append(
                f"{self.repeated:,} of them have the same folder name as another one, below "
                "another root; a file of identities can join them"
            )
        return "; ".join(parts)


def identified(
    connection: duckdb.DuckDBPyConnection, rule: IdentityRule, rows: str = "ledger"
) -> str:
    """Return SQL for rows with an additional column `identity`, NULL if unknown.

    Two folders of equal names are different identities unless they are the same folder. Folders
    in archives are numbered within the archive. Archives in one folder whose names differ only in
    digits are shards of one set: equal folders, or labels, in them are one identity.

    Args:
        connection: connection for the query; an identity table is registered in it.
        rule: the rule.
        rows: SQL, a table or a query in brackets, for rows with `path` and `root`.

    Raises:
        SettingsError: the identity table is unusable.
    """
    if rule.table is not None:
        named = _by_file(connection, rule.table, "identity", rows)
        return f"SELECT * RENAME (name AS identity) FROM ({named})"
    archive, folders = (f"regexp_extract(path, '{_PLACE}', {group}, 'is')" for group in (1, 2))
    shards = (
        f"regexp_extract({archive}, '^(.*/)?') || "
        f"regexp_replace(regexp_extract({archive}, '[^/]*$'), '[0-9]+', '#', 'g')"
    )
    person = folders
    if rule.level != LAST:
        person = f"regexp_extract({folders}, '^[^/]+(?:/[^/]+){{{rule.level - 1}}}')"
    return (
        f"SELECT *, root || '/' || CASE WHEN {archive} = '' THEN '' ELSE {shards} || '/' END "
        f"|| nullif({person}, '') AS identity FROM {rows}"
    )


def count_people(
    connection: duckdb.DuckDBPyConnection, rule: IdentityRule, rows: str = "ledger"
) -> People:
    """Return the counts of identities among rows; arguments and errors are `identified`'s."""

    def count(what: str, counted_by: IdentityRule = rule, where: str = "true") -> int:
        # one query each: DuckDB cannot spill several distinct counts of one query
        known = identified(connection, counted_by, rows)
        query = f"SELECT count(DISTINCT {what}) FROM ({known}) WHERE {where}"
        return int(fetch_value(connection, query))

    number, nobody = count("identity"), count("path", where="identity IS NULL")
    if rule.table is not None:
        return People(rule, number, nobody)
    level, below = rule.level, number
    while below == 1 and 1 <= level < DEEPEST:  # ends at the deepest folder of all paths
        level += 1
        below = count("identity", IdentityRule(level))
    repeated = number - count("substr(identity, length(root) + 1)")
    return People(rule, number, nobody, below if number == 1 < below else 0, level, repeated)


def main_faces(run: RunInfo, rule: IdentityRule) -> tuple[list[dict[str, Any]], People]:
    """Return the rows of `Ranking.main_faces` with two more columns, and the counts of identities.

    The columns are `identity`, None if unknown, and `shared`: whether a photo of equal content
    (sha256) has another identity.

    Raises:
        RunError: the ledger is damaged.
        SettingsError: the identity table is unusable.
    """
    with connect(ledger=run.ledger) as connection:
        connection.execute(f"CREATE TEMP TABLE main_faces AS {MAIN_FACES}")
        known = identified(connection, rule, "main_faces")
        found = connection.execute(
            f"""WITH faces AS ({known}), several AS (
                SELECT sha256 FROM faces WHERE sha256 <> ''
                GROUP BY sha256 HAVING count(DISTINCT identity) > 1
            )
            SELECT faces.*, several.sha256 IS NOT NULL AS shared
            FROM faces LEFT JOIN several USING (sha256) ORDER BY path"""
        )
        return list(iterate_dicts(found)), count_people(connection, rule, "main_faces")


def identities_of(
    photos: Iterable[PhotoSource], rule: IdentityRule
) -> tuple[list[tuple[str, str | None]], People]:
    """Return each photo's path and identity (None if unknown), and the counts of identities.

    SettingsError if the identity table is unusable.
    """
    rows = [
        {"place": place, "root": source.root, "path": source.path}
        for place, source in enumerate(photos)
    ]
    schema = pa.schema([("place", pa.int64()), ("root", pa.string()), ("path", pa.string())])
    with duckdb.connect() as connection:
        connection.register("photos", pa.Table.from_pylist(rows, schema=schema))
        known = identified(connection, rule, "photos")
        found = connection.execute(f"SELECT path, identity FROM ({known}) ORDER BY place")
        return found.fetchall(), count_people(connection, rule, "photos")
