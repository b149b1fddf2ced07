"""Identities of photos, from their folders or a CSV file, in SQL over recorded paths. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.files import is_file
from faceqan_toolkit.results.groups import by_file
from faceqan_toolkit.results.ranking import MAIN_FACES
from faceqan_toolkit.runs.database import connect, fetch_dicts, fetch_value
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import counted
from faceqan_toolkit.types import PhotoSource

LAST = -1
DEEPEST = 100

# group 1: path of the tar, RecordIO or parquet file that holds the photo, if any
# group 2: folders of the photo in that archive, else in the path; a video counts as a folder
_PLACE = (
    r"^(?:(.*?[^/]\.(?:tar|rec|parquet))/(?:column=[^/]+/)?)?"
    r"(?:(.*)/)?[^/]*$"
)


@dataclass(frozen=True)
class IdentityRule:
    """How photos are assigned to identities.

    Attributes:
        level: which folder of a photo's path is its identity: 1 is the first, `LAST` the last.
        table: CSV file with the columns `path` (as in results, or absolute) and `identity`, used
            instead of folders.

    Raises:
        SettingsError: the level is out of range.
    """

    level: int = 1
    table: Path | None = None

    def __post_init__(self) -> None:
        if self.level != LAST and not 1 <= self.level <= DEEPEST:
            raise SettingsError(f"identity is {self.level}; a folder's number is 1 to {DEEPEST}")

    @classmethod
    def parse(cls, text: str | None) -> IdentityRule:
        """Return the rule for "first", "last", a folder number or a file; the default for None.

        Raises:
            SettingsError: the text is none of these.
        """
        if text is None or text == "first":
            return cls()
        if text == "last":
            return cls(LAST)
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
        rule: the rule.
        number: number of identities.
        nobody: number of photos without an identity.
        below: if there is only one identity, the number of identities at the first deeper folder
            level with more than one; 0 if there is no such level.
        below_level: that folder level.
        repeated: number of identities whose folder has the same name as one below another root.
    """

    rule: IdentityRule
    number: int
    nobody: int
    below: int = 0
    below_level: int = 0
    repeated: int = 0

    def text(self, consequence: str = "left out") -> str:
        """Return the rule and the counts as one line for people.

        Args:
            consequence: what happens to photos without an identity, e.g. "left out".
        """
        people = "1 person" if self.number == 1 else f"{self.number:,} people"
        parts = [f"identity = {self.rule.title}, {people}"]
        if self.nobody:
            parts.append(f"{counted(self.nobody, 'photo')} without an identity: {consequence}")
        if self.below:
            parts.append(
                f"all lie in one folder: --identity {self.below_level} would find "
                f"{self.below:,} people"
            )
        if self.repeated:
            parts.append(
                f"{self.repeated:,} of them have the same folder name as another one, below "
                "another root; --identity FILE.csv can join them"
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
        named = by_file(connection, rule.table, "identity", rows)
        return f"SELECT * RENAME (name AS identity) FROM ({named})"
    return f"SELECT *, {_identity_sql(rule.level)} AS identity FROM {rows}"


def _identity_sql(level: int) -> str:
    """Return SQL for the identity of a row with `root` and `path`, from a folder of its path."""
    archive, folders = (f"regexp_extract(path, '{_PLACE}', {group}, 'is')" for group in (1, 2))
    shards = (
        f"regexp_extract({archive}, '^(.*/)?') || "
        f"regexp_replace(regexp_extract({archive}, '[^/]*$'), '[0-9]+', '#', 'g')"
    )
    person = folders
    if level != LAST:
        person = f"regexp_extract({folders}, '^[^/]+(?:/[^/]+){{{level - 1}}}')"
    return (
        f"root || '/' || CASE WHEN {archive} = '' THEN '' ELSE {shards} || '/' END "
        f"|| nullif({person}, '')"
    )


def count_people(
    connection: duckdb.DuckDBPyConnection, rule: IdentityRule, rows: str = "ledger"
) -> People:
    """Return the counts of identities among photos.

    Args:
        connection: connection with the photos.
        rule: the rule.
        rows: SQL, a table or a query in brackets, for rows with `path` and `root`.

    Raises:
        SettingsError: the identity table is unusable.
    """

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
    with connect(ledger=run) as connection:
        connection.execute(f"CREATE TEMP TABLE main_faces AS {MAIN_FACES}")
        known = identified(connection, rule, "main_faces")
        rows = fetch_dicts(
            connection.execute(
                f"""WITH faces AS ({known}), several AS (
                    SELECT sha256 FROM faces WHERE sha256 <> ''
                    GROUP BY sha256 HAVING count(DISTINCT identity) > 1
                )
                SELECT faces.*, several.sha256 IS NOT NULL AS shared
                FROM faces LEFT JOIN several USING (sha256) ORDER BY path"""
            )
        )
        return rows, count_people(connection, rule, "main_faces")


def identities_of(
    photos: Iterable[PhotoSource], rule: IdentityRule
) -> tuple[list[tuple[str, str | None]], People]:
    """Return each photo's path and identity (None if unknown), and the counts of identities.

    Raises:
        SettingsError: the identity table is unusable.
    """
    rows = [(place, source.root, source.path) for place, source in enumerate(photos)]
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    types = (pa.int64(), pa.string(), pa.string())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    with duckdb.connect() as connection:
        connection.register("photos", pa.table(arrays, ["place", "root", "path"]))
        known = identified(connection, rule, "photos")
        found = connection.execute(f"SELECT path, identity FROM ({known}) ORDER BY place")
        return found.fetchall(), count_people(connection, rule, "photos")
