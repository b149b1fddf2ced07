"""Comparison of two runs of the same photos: DuckDB queries over both ledgers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.runs.ledger import connect, export_rows, fetch_value, iterate_dicts
from faceqan_toolkit.text import guard_sql, short_checksum

SAME_FACE = 0.5
"""Least intersection over union of two boxes of the same face."""

COLUMNS = ("path", "face", "path_b", "face_b", "quality_a", "quality_b", "difference",
           "percentile_a", "percentile_b", "shift")  # fmt: skip

# settings that shift all scores of given weights
_HEIGHT = ("method", "eps", "eps_mode", "steps", "exponent", "clamp", "channels", "pixel_mean",
           "pixel_std", "norm_eps")  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Statistics of the faces that both runs scored.

    Attributes:
        common: number of faces that both runs scored.
        only_a, only_b: number of scored faces without a match in the other run.
        changed: number of photos with equal paths and other content; their faces do not match.
        spearman: rank correlation of the qualities, ties at their mean rank; None with fewer than
            two faces or if one run's qualities are all equal.
        mean_difference, mean_distance: mean of b - a and of |b - a|; None if only ranks compare.
        differing: settings that differ, with the values of both runs.
    """

    common: int
    only_a: int
    only_b: int
    changed: int
    spearman: float | None
    mean_difference: float | None
    mean_distance: float | None
    differing: Mapping[str, tuple[Any, Any]]


class RunComparison:
    """Matches the faces of two runs and compares their scores.

    Two faces match if their boxes overlap and their photos are the same: equal path and content,
    or equal content if no other photo has it.

    Args:
        first, second: runs "a" and "b", both scored with the same weights.

    Attributes:
        scores_compare: whether scores are comparable; if not, only ranks are.

    Raises:
        RunError: a run has no scores, or the runs used different models.
    """

    def __init__(self, first: RunInfo, second: RunInfo) -> None:
        for run in (first, second):
            if not Ranking(run).scored:
                raise RunError(run.no_scores)
        self.first, self.second = first, second
        one, other = (_identity(run) for run in (first, second))
        if one["weights"] != other["weights"]:
            raise RunError(
                f"{first.folder} was scored by {one['model']} ({short_checksum(one['weights'])}), "
                f"{second.folder} by {other['model']} ({short_checksum(other['weights'])}): a "
                "score says how well its own model can use a face, so scores of different models "
                "cannot be compared"
            )
        self.differing = {
            name: (one.get(name), other.get(name))
            for name in {**one, **other}
            if one.get(name) != other.get(name)
        }
        self.scores_compare = not any(name in self.differing for name in _HEIGHT)

    def summary(self, movers: int = 0) -> tuple[Comparison, list[dict[str, Any]]]:
        """Return the statistics, and the faces whose percentile changed most, as dictionaries.

        RunError if a ledger is damaged.
        """
        # twice the mean rank is an integer, whose sums are exact in any order
        rank = (
            "CAST(2 * rank() OVER (ORDER BY {0}) + count(*) OVER (PARTITION BY {0}) - 1 AS HUGEINT)"
        )
        one, other = (rank.format(f"quality_{run}") for run in "ab")
        with self._connection() as connection:
            found = connection.execute(
                f"""SELECT avg(difference ORDER BY path, face),
                    avg(abs(difference) ORDER BY path, face), count(*),
                    sum(one), sum(other), sum(one * one), sum(other * other), sum(one * other)
                FROM (SELECT *, {one} AS one, {other} AS other FROM pairs)"""
            ).fetchall()
            counts = (
                "count(DISTINCT path) FROM a JOIN b USING (path) WHERE a.sha256 <> b.sha256",
                "count(*) FROM a",
                "count(*) FROM b",
            )
            changed, in_a, in_b = (fetch_value(connection, f"SELECT {what}") for what in counts)
            moved = list(iterate_dicts(connection.execute(f"{_ROWS} LIMIT {int(movers)}")))
        ((mean, distance, common, *sums),) = found
        figures = Comparison(
            common, in_a - common, in_b - common, changed, _correlation(common, *sums),
            mean, distance, self.differing,
        )  # fmt: skip
        return figures, moved

    def export(self, target: Path, file_format: str, *, number: int | None = None) -> int:
        """Write a row for each matched face, biggest mover first; return the number of rows.

        The file is replaced if it exists; `file_format` is one of `settings.FORMATS`; with `number`
        only so many of the biggest movers are written. RunError if the file cannot be written.
        """
        query = _ROWS if number is None else f"{_ROWS} LIMIT {int(number)}"
        if file_format == "csv":
            cells = ", ".join(
                f"{guard_sql(name)} AS {name}" if name.startswith("path") else name
                for name in COLUMNS
            )
            query = f"SELECT {cells} FROM ({query})"
        with self._connection() as connection:
            return export_rows(connection, query, target, file_format)

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection with scored faces in tables a and b and matches in table pairs."""
        with connect(run_a=self.first.ledger, run_b=self.second.ledger) as connection:
            for name in "ab":
                connection.execute(
                    f"CREATE TEMP VIEW {name} AS SELECT * FROM run_{name} WHERE quality IS NOT NULL"
                )
            apart = "b.quality - a.quality" if self.scores_compare else "CAST(NULL AS DOUBLE)"
            connection.execute(f"CREATE TEMP TABLE pairs AS {_PAIRS.format(difference=apart)}")
            yield connection


# intersection over union; the area of a box is never 0
_SHARED = """(
    greatest(0, least(a.box_x2, b.box_x2) - greatest(a.box_x1, b.box_x1))
    * greatest(0, least(a.box_y2, b.box_y2) - greatest(a.box_y1, b.box_y1))
)"""
_AREAS = """(
    (a.box_x2 - a.box_x1) * (a.box_y2 - a.box_y1) + (b.box_x2 - b.box_x1) * (b.box_y2 - b.box_y1)
)"""
_OVERLAP = f"""
    CASE WHEN a.box_x1 IS NULL OR b.box_x1 IS NULL THEN CAST(a.face = b.face AS INTEGER)
    ELSE {_SHARED} / ({_AREAS} - {_SHARED}) END
"""
_PAIRS = f"""
    WITH photos_a AS (SELECT DISTINCT path, sha256 FROM a),
    photos_b AS (SELECT DISTINCT path, sha256 FROM b),
    same AS (SELECT path, sha256 FROM photos_a JOIN photos_b USING (path, sha256)),
    rest_a AS (
        SELECT * FROM photos_a ANTI JOIN same USING (path)
        WHERE sha256 <> '' QUALIFY count(*) OVER (PARTITION BY sha256) = 1
    ),
    rest_b AS (
        SELECT * FROM photos_b ANTI JOIN same USING (path)
        WHERE sha256 <> '' QUALIFY count(*) OVER (PARTITION BY sha256) = 1
    ),
    photos AS (
        SELECT path AS path_a, path AS path_b FROM same
        UNION ALL
        SELECT rest_a.path, rest_b.path FROM rest_a JOIN rest_b USING (sha256)
    ),
    faces AS (
        SELECT a.path, a.face, b.path AS path_b, b.face AS face_b,
            a.quality AS quality_a, b.quality AS quality_b, {{difference}} AS difference,
            {_OVERLAP} AS overlap
        FROM photos JOIN a ON a.path = path_a JOIN b ON b.path = photos.path_b
    ),
    partners AS (
        SELECT * FROM faces WHERE overlap >= {SAME_FACE}
        QUALIFY row_number() OVER (PARTITION BY path, face ORDER BY overlap DESC, face_b) = 1
            AND row_number() OVER (PARTITION BY path_b, face_b ORDER BY overlap DESC, face) = 1
    )
    SELECT *, 100 * cume_dist() OVER (ORDER BY quality_a) AS percentile_a,
        100 * cume_dist() OVER (ORDER BY quality_b) AS percentile_b,
        percentile_b - percentile_a AS shift
    FROM partners
"""
_ROWS = f"SELECT {', '.join(COLUMNS)} FROM pairs ORDER BY round(abs(shift), 9) DESC, path, face"


def _correlation(n: int, x: Any, y: Any, xx: Any, yy: Any, xy: Any) -> float | None:
    """Return the correlation of n pairs of integers from their sums; None if it is undefined."""
    if n < 2:
        return None
    spread = (n * int(xx) - int(x) ** 2) * (n * int(yy) - int(y) ** 2)
    return (n * int(xy) - int(x) * int(y)) / math.sqrt(spread) if spread else None


def _identity(run: RunInfo) -> dict[str, Any]:
    """Return a run's identity with the checksum of the recognition model alone as "weights"."""
    try:
        identity = dict(run.content["identity"])
        # the checksum behind the plus is that of preset instant's predictor
        identity["weights"] = identity.pop("weights_sha256").partition("+")[0]
    except (KeyError, TypeError, AttributeError):
        raise RunError(
            f"{run.folder / 'run.json'} does not identify its settings: they cannot be compared"
        ) from None
    return identity
