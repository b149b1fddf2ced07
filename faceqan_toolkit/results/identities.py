"""Who a photo shows: one rule for all commands, in SQL over the paths of results. No torch."""

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
from faceqan_toolkit.types import PhotoSource
from faceqan_toolkit.wording import counted

LAST = -1
DEEPEST = 100

# `archive` is a tar, RecordIO or parquet file in which the photo lies, `folders` are those in it;
# outside of archives all folders of the path. A video counts as a folder.
_PLACE = (
    r"^(?:(.*?[^/]\.(?:tar|rec|parquet))/(?:column=[^/]+/)?)?"
    r"(?:(.*)/)?[^/]*$"
)


@dataclass(frozen=True)
class IdentityRule:
    """What tells which photos show one person.

    Attributes:
        level: number of the folder in a photo's path that is its person: 1 is the first folder,
            `LAST` the one that the photo lies in.
        table: CSV file with the columns `path` (as in results, or absolute) and `identity`, which
            counts in place of folders.

    Raises:
        SettingsError: a level that no path has.
    """

    level: int = 1
    table: Path | None = None

    def __post_init__(self) -> None:
        if self.level != LAST and not 1 <= self.level <= DEEPEST:
            raise SettingsError(f"identity is {self.level}; a folder's number is 1 to {DEEPEST}")

    @classmethod
    def parse(cls, text: str | None) -> IdentityRule:
        """Return the rule for "first", "last", a folder's number or a file; the default for None.

        Raises:
            SettingsError: it is none of these.
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
        """The rule in words."""
        if self.table is not None:
            return f"column identity of {self.table}"
        return {1: "first folder", LAST: "last folder"}.get(self.level, f"folder {self.level}")


@dataclass(frozen=True)
class People:
    """The people that a rule finds among photos.

    Attributes:
        rule: the rule.
        number: number of identities.
        nobody: number of photos without an identity.
        below: if there is only one identity, the number of them at the first deeper folder that
            has several; 0 if none has.
        below_level: the number of that folder.
        repeated: number of folders that stand below several roots by the same name.
    """

    rule: IdentityRule
    number: int
    nobody: int
    below: int = 0
    below_level: int = 0
    repeated: int = 0

    def text(self, consequence: str = "left out") -> str:
        """Return the rule and what it finds, in one line for people.

        Args:
            consequence: what becomes of photos without an identity.
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
    """Return SQL for rows with a further column `identity`: equal for one person, NULL if unknown.

    Folders count as the same person only if they are the same folder. Folders in archives count
    from the archive on; archives of one folder whose names differ in digits alone are shards of
    one set, in which a folder, or label, is one person.

    Args:
        connection: where the query will run; a table of identities becomes one of its tables.
        rule: the rule.
        rows: SQL, a table or a query in brackets, for rows with `path` and `root`.

    Raises:
        SettingsError: the table of identities cannot be used.
    """
    if rule.table is not None:
        named = by_file(connection, rule.table, "identity", rows)
        return f"SELECT * RENAME (name AS identity) FROM ({named})"
    return f"SELECT *, {_identity_sql(rule.level)} AS identity FROM {rows}"


def _identity_sql(level: int) -> str:
    """Return SQL for the identity of a row with `root` and `path`, by a folder of its path."""
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
    """Return the people among photos.

    Args:
        connection: where the photos are.
        rule: the rule.
        rows: SQL, a table or a query in brackets, for rows with `path` and `root`.

    Raises:
        SettingsError: the table of identities cannot be used.
    """

    def count(what: str, counted_by: IdentityRule = rule, where: str = "true") -> int:
        # one by one: several distinct counts at once do not use the disk
        known = identified(connection, counted_by, rows)
        query = f"SELECT count(DISTINCT {what}) FROM ({known}) WHERE {where}"
        return int(fetch_value(connection, query))

    number, nobody = count("identity"), count("path", where="identity IS NULL")
    if rule.table is not None:
        return People(rule, number, nobody)
    level, below = rule.level, number
    while below == 1 and 1 <= level < DEEPEST:  # ends where no path has so many folders
        level += 1
        below = count("identity", IdentityRule(level))
    repeated = number - count("substr(identity, length(root) + 1)")
    return People(rule, number, nobody, below if number == 1 < below else 0, level, repeated)


def main_faces(run: RunInfo, rule: IdentityRule) -> tuple[list[dict[str, Any]], People]:
    """Return the rows of `Ranking.main_faces` with two more columns, and the people in them.

    The columns are `identity`, None if it is unknown, and `shared`: whether the same photo (by
    its sha256) is there under another identity, too.

    Raises:
        RunError: the ledger is damaged.
        SettingsError: the table of identities cannot be used.
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
    """Return the path and the identity of each photo, None if it is unknown; and the people.

    Raises:
        SettingsError: the table of identities cannot be used.
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
