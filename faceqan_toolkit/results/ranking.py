"""The ranking of a run: DuckDB queries over its ledger."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from faceqan_toolkit.files import writing
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.runs.ledger import connect, export_rows, iterate_dicts
from faceqan_toolkit.text import guard_sql, rounded_down_sql
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, MEASURE_COLUMNS

PARTS = ("quality_error", "similarity_mean", "similarity_std", "symmetry", "embedding_norm")
PIXELS = (*BOX_COLUMNS, *LANDMARK_COLUMNS, "face_px")
WHERE_AND_WHY = ("status", "reason", "root")
TEXTS = ("path", "crop", "hints", "model", "method", "preset", *WHERE_AND_WHY)
SCORED_COLUMNS = (
    "rank", "path", "face", "quality", "quality_100", "percentile",
    "hints", *PARTS, "confidence", *PIXELS,
    "rotation", *MEASURE_COLUMNS, "crop", "model", "method", "preset", *WHERE_AND_WHY,
)  # fmt: skip
ROUNDED_DOWN = ("quality", "percentile", "confidence", "face_px")
"""Columns that can be thresholds, so their numbers are rounded down."""
FACE_COLUMNS = ("path", "face", "confidence", *PIXELS, "rotation", "crop", *WHERE_AND_WHY)

DECIMALS = {
    **dict.fromkeys(("quality", "confidence", *PARTS), 6),
    **dict.fromkeys(MEASURE_COLUMNS, 4),
    **dict.fromkeys(("percentile", *PIXELS), 2),
}
"""Decimals of the number columns in CSV; columns neither here nor in `TEXTS` are integers."""

ORDER = "quality DESC NULLS LAST, status <> 'ok', path, face"
"""SQL order of a ranking: best quality first, failures last, ties by path."""


def ranked(rows: str, left_out: str = "0") -> str:
    """Return SQL for rows in ranking order with `number` (row number from 1), `rank`, `percentile`.

    The sort can spill to the disk and everything after it streams. A window function with its own
    ORDER BY would have to fit in memory.

    Args:
        rows: SQL, a table or a query, for some rows of the table `ledger`.
        left_out: SQL for the number of ledger rows that rank above a row but are not in `rows`.
    """
    return f"""
        SELECT * EXCLUDE (before, best),
            CASE WHEN quality IS NOT NULL THEN number END AS rank,
            CASE WHEN quality IS NOT NULL THEN 100 * (
                ((SELECT count(quality) FROM ledger) - best + 1)
                / (SELECT count(quality) FROM ledger)
            ) END AS percentile
        FROM (
            SELECT *, max(CASE WHEN quality IS DISTINCT FROM before THEN number END)
                OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS best
            FROM (
                SELECT *, row_number() OVER () + {left_out} AS number,
                    lag(quality) OVER () AS before
                FROM (FROM {rows} ORDER BY {ORDER})
            )
        )
    """


RANKED = ranked("ledger")
MAIN_FACES = """
    SELECT path, root, crop, sha256, quality FROM ledger WHERE face IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY path ORDER BY face) = 1 AND quality IS NOT NULL
"""

FEW_PHOTOS = 3
"""Least number of different photos for which equal scores are suspicious."""


def differ_by_rounding(low: float, high: float) -> bool:
    """Tell whether the lowest and the highest score are equal up to float32 rounding."""
    return high - low <= 1e-5 * max(abs(low), abs(high))


@dataclass(frozen=True)
class Column:
    """Format of a column in CSV; `kind` is "text", "integer", or "number" with `decimals`."""

    name: str
    kind: str
    decimals: int = 0


class Ranking:
    """The rows of a run: best quality first, failures last, ties, and runs without scores, by path.

    Every method raises RunError if the ledger is damaged.
    """

    def __init__(self, run: RunInfo) -> None:
        self.run = run
        self.scored = run.task in ("align-and-score", "score")
        self.columns = SCORED_COLUMNS if self.scored else FACE_COLUMNS
        self.name = "rankings" if self.scored else "faces"

    def counts(self) -> dict[str, int]:
        """Return the number of rows by status; "ok" counts faces, most others count photos."""
        query = """SELECT status, count(*) FROM ledger GROUP BY status
            ORDER BY status <> 'ok', count(*) DESC, status"""
        return dict(self._fetch(query))

    def below(self, quality: float) -> tuple[int, int]:
        """Return the number of faces with a lower quality, and of all scored faces."""
        ((below, faces),) = self._fetch(
            "SELECT count(*) FILTER (quality < $quality), count(quality) FROM ledger",
            quality=quality,
        )
        return below, faces

    def only_quality(self) -> float | None:
        """Return the quality if all faces have the same, up to rounding; None if they differ.

        With fewer than `FEW_PHOTOS` different photos it is None too: copies of one photo have
        equal scores.
        """
        ((low, high),) = self._fetch("SELECT min(quality), max(quality) FROM ledger")
        if low is None or not differ_by_rounding(low, high):
            return None
        photos = self._fetch(
            f"SELECT DISTINCT sha256 FROM ledger WHERE quality IS NOT NULL LIMIT {FEW_PHOTOS}"
        )
        return float(high) if len(photos) == FEW_PHOTOS else None

    def main_faces(self) -> list[dict[str, Any]]:
        """Return `path`, `root`, `crop`, `sha256` and `quality` of each photo's main face, by path.

        The main face is the photo's largest in the run. Photos whose main face has no score are
        left out.
        """
        with self._connection() as connection:
            return list(iterate_dicts(connection.execute(f"{MAIN_FACES} ORDER BY path")))

    def examples(self) -> dict[str, tuple[str, str]]:
        """Return path and reason of the first photo, by path, of each status except "ok"."""
        rows = self._fetch(
            "SELECT status, min(path), arg_min(reason, path) FROM ledger WHERE status <> 'ok' "
            "GROUP BY status"
        )
        return {status: (path, reason) for status, path, reason in rows}

    def reasons(self, status: str) -> dict[str, int]:
        """Return the number of rows of a status by reason."""
        query = "SELECT reason, count(*) FROM ledger WHERE status = $status GROUP BY reason"
        return dict(self._fetch(query, status=status))

    def noted(self, note: str) -> int:
        """Return the number of scored faces whose reason contains a note."""
        query = "SELECT count(*) FROM ledger WHERE status = 'ok' AND contains(reason, $note)"
        return int(self._fetch(query, note=note)[0][0])

    def rows(
        self, *, top: int | None = None, bottom: int | None = None, extra: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return rows as dictionaries: all, or the `top` best and the `bottom` worst scored ones.

        `extra` names additional columns of the ledger.
        """
        return list(self.iterate(top=top, bottom=bottom, extra=extra))

    def iterate(
        self, *, top: int | None = None, bottom: int | None = None, extra: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows that `rows` returns, in bounded memory."""
        with self._connection() as connection:
            yield from iterate_dicts(connection.execute(self._query(top, bottom, extra)))

    def described(self) -> list[Column]:
        """Return the format of each of `columns` in CSV."""
        kinds = dict.fromkeys(TEXTS, "text") | dict.fromkeys(DECIMALS, "number")
        return [
            Column(name, kinds.get(name, "integer"), DECIMALS.get(name, 0)) for name in self.columns
        ]

    def blocks(
        self, size: int, *, extra: Sequence[str] = (), every: int = 1, every_failure: int = 1
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows in order in blocks: `columns`, then the `extra` columns of the ledger.

        Every `every`-th row with status "ok" is taken, and every `every_failure`-th other one.
        """
        columns = ", ".join((self._columns(), *extra))
        query = f"""
            SELECT {columns} FROM ({RANKED}) WHERE CASE WHEN status = 'ok'
                THEN (number - 1) % {every:d}
                ELSE (number - 1 - (SELECT count(*) FROM ledger WHERE status = 'ok'))
                    % {every_failure:d}
            END = 0
        """
        with self._connection() as connection:
            cursor = connection.execute(query)
            while rows := cursor.fetchmany(size):
                yield rows

    def export(
        self, target: Path | str, file_format: str, *, top: int | None = None,
        bottom: int | None = None,
    ) -> int:  # fmt: skip
        """Write the rows that `rows` returns to a file, replaced if it exists; return their number.

        Memory is bounded, except for pickle, which is one dictionary.

        Args:
            file_format: one of `settings.FORMATS`, or "pickle" for the published code's
                {path: quality}.

        Raises:
            RunError: the file cannot be written.
        """
        target, query = Path(target), self._query(top, bottom)
        if file_format == "pickle":
            query = f"""SELECT path, arg_min(quality, face) FROM ({query})
                WHERE quality IS NOT NULL GROUP BY path ORDER BY min(rank)"""
            qualities = dict(self._fetch(query))
            with writing(target) as temporary:
                temporary.write_bytes(pickle.dumps(qualities))
            return len(qualities)
        if file_format == "csv":
            query = f"SELECT {', '.join(map(_cell, self.columns))} FROM ({query})"
        with self._connection() as connection:
            return export_rows(connection, query, target, file_format)

    def _columns(self) -> str:
        """Return SQL for `columns` of ranked rows."""
        scale = self.run.scale
        on_scale = f"{scale.sql('quality') if scale else 'CAST(NULL AS INTEGER)'} AS quality_100"
        return ", ".join(on_scale if name == "quality_100" else name for name in self.columns)

    def _query(self, top: int | None, bottom: int | None, extra: Sequence[str] = ()) -> str:
        """Return SQL for the rows of either end, or for all, in order."""
        columns = ", ".join((self._columns(), *extra))
        if top is None and bottom is None:
            return f"SELECT {columns} FROM ({RANKED})"
        # filter by the quality limits of both ends first, so that few rows are sorted
        least, most = "(SELECT least FROM ends)", "(SELECT most FROM ends)"
        between = f"(SELECT count(*) FROM ledger WHERE quality < {least} AND quality > {most})"
        return f"""
            WITH ends AS MATERIALIZED (SELECT
                coalesce((SELECT min(quality) FROM (
                    SELECT quality FROM ledger ORDER BY quality DESC NULLS LAST LIMIT {top or 0}
                )), CAST('infinity' AS DOUBLE)) AS least,
                coalesce((SELECT max(quality) FROM (
                    SELECT quality FROM ledger ORDER BY quality NULLS LAST LIMIT {bottom or 0}
                )), CAST('-infinity' AS DOUBLE)) AS most
            ), outer_rows AS (
                SELECT * FROM ledger WHERE quality >= {least} OR quality <= {most}
            )
            SELECT {columns} FROM (
                {ranked("outer_rows", f"CASE WHEN quality < {least} THEN {between} ELSE 0 END")}
            )
            WHERE rank <= {top or 0} OR rank > (SELECT count(quality) FROM ledger) - {bottom or 0}
            ORDER BY rank
        """

    def _fetch(self, query: str, **parameters: Any) -> list[Any]:
        with self._connection() as connection:
            return connection.execute(query, parameters or None).fetchall()

    def _connection(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return connect(ledger=self.run.ledger)


def _cell(column: str) -> str:
    """Return SQL for a column's cell in CSV: fixed decimals, text guarded against formulas."""
    if column in TEXTS:
        return f"nullif({guard_sql(column)}, '') AS {column}"
    if column not in DECIMALS:
        return column
    decimals = DECIMALS[column]
    value = rounded_down_sql(column, decimals) if column in ROUNDED_DOWN else column
    return f"printf('%.{decimals}f', {value}) AS {column}"
