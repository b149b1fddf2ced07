"""Decisions of `filter`: which photos or faces of a run to keep, by DuckDB. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import duckdb

from faceqan_toolkit.choices import BYS, WHATS
from faceqan_toolkit.errors import PhotoError, RunError, SettingsError
from faceqan_toolkit.results.identities import IdentityRule, People, count_people, identified
from faceqan_toolkit.results.ranking import ORDER, Ranking
from faceqan_toolkit.runs.database import FETCHED, connect, fetch_value
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import exact_text, rounded_down_sql
from faceqan_toolkit.types import FileState

# order that puts the face that represents a photo first
_SPEAKER = {
    "best": "quality DESC NULLS LAST, face",
    "worst": "quality NULLS LAST, face",
    "main": "face",
}


@dataclass(frozen=True)
class Rules:
    """Conditions that a photo or face must meet; each is evaluated over the whole run.

    Without a score, a photo or face fails every condition on quality and no other.

    Attributes:
        what: one of `choices.WHATS`: filter "photos" or the faces' "crops".
        by: one of `choices.BYS`: the face that represents a photo: its "best" or "worst" scored
            face, or its "main" one, the largest.
        min_quality: least quality.
        min_percentile: least percentile among the run's scored faces, in [0, 100].
        keep_top: number of the best photos or faces to keep.
        keep_percent: percentage of the scored ones to keep, best first, rounded, in (0, 100].
        identity: how photos are assigned to identities.
        per_identity: number of the best to keep of each identity; without an identity it fails.
        per_window: keep the best frame of each window of this many seconds of a video; photos that
            are not video frames pass.
        min_per_identity: drop identities of which the other conditions keep fewer than this;
            without an identity it fails.
        drop_status: statuses to drop.

    Raises:
        SettingsError: no condition is given, or a value is out of range.
    """

    what: str = "photos"
    by: str = "best"
    identity: IdentityRule = field(default_factory=IdentityRule)
    min_quality: float | None = None
    min_percentile: float | None = None
    keep_top: int | None = None
    keep_percent: float | None = None
    per_identity: int | None = None
    per_window: float | None = None
    min_per_identity: int | None = None
    drop_status: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.what not in WHATS or self.by not in BYS:
            raise SettingsError(f"what is one of {', '.join(WHATS)} and by one of {', '.join(BYS)}")
        if self.what == "crops" and self.by != "best":
            raise SettingsError(
                "--by is for photos; with --what crops each face is filtered on its own"
            )
        conditions = [getattr(self, item.name) for item in fields(self)[3:]]
        if all(value is None or value == frozenset() for value in conditions):
            raise SettingsError(
                "say what to keep: --min-quality, --calibration, --min-percentile, --keep-top, "
                "--per-identity, --per-window, --min-per-identity or --drop-status"
            )
        self._check("min_quality", self.min_quality, -math.inf, math.inf, "a finite number")
        self._check("min_percentile", self.min_percentile, 0, 100, "in 0..100")
        self._check("keep_top", self.keep_percent, 1e-9, 100, "above 0 % and at most 100 %")
        self._check("per_window", self.per_window, 1e-3, math.inf, "at least 0.001 seconds")
        for name in ("keep_top", "per_identity", "min_per_identity"):
            self._check(name, getattr(self, name), 1, math.inf, "at least 1")
        if (self.min_per_identity or 0) > (self.per_identity or math.inf):
            raise SettingsError(
                f"--min-per-identity {self.min_per_identity} is more than --per-identity "
                f"{self.per_identity} leaves: nothing would be kept"
            )

    @staticmethod
    def _check(name: str, value: float | None, low: float, high: float, expected: str) -> None:
        if value is None:
            return
        if not (math.isfinite(value) and low <= value <= high):
            raise SettingsError(f"{name.replace('_', '-')} is {value}; it must be {expected}")

    @property
    def need_scores(self) -> bool:
        """Whether any condition is on quality."""
        on_quality = (self.min_quality, self.min_percentile, self.keep_top, self.keep_percent)
        by_place = (self.per_identity, self.per_window)
        return any(value is not None for value in (*on_quality, *by_place))

    @property
    def need_identities(self) -> bool:
        """Whether any condition is on identities."""
        return self.per_identity is not None or self.min_per_identity is not None


def number_or_percentage(text: str) -> tuple[int | None, float | None]:
    """Return the number, or the percentage, of the best to keep that a text such as "80%" means.

    Raises:
        SettingsError: it means neither.
    """
    try:
        return (None, float(text[:-1])) if text.endswith("%") else (int(text), None)
    except ValueError:
        raise SettingsError(
            f"keep-top is {text}; it must be a number, or a percentage as in 10%"
        ) from None


@dataclass(frozen=True)
class Decision:
    """The decision on one photo, or on one face's crop.

    Attributes:
        root, path: the photo, as in its record.
        crop: path of the face's crop, relative to the run folder; "" if none was kept.
        quality: quality of the face, or of the face that represents the photo; None without one.
        rule: option name of the first condition that failed; "" if kept.
        reason: the failed condition for people; "" if kept.
        state: file state of the photo when it was scored; None if the file could not be read.
        label: number of the identity among the identities that are kept, from 0; None if labels
            are not wanted or the identity is unknown.
    """

    root: str
    path: str
    crop: str
    quality: float | None
    rule: str
    reason: str
    state: FileState | None
    label: int | None = None

    @property
    def kept(self) -> bool:
        """Whether all conditions hold."""
        return not self.rule


ORDERS = {
    "quality": ORDER,
    "path": "root, path, face",
    "identity": "label NULLS LAST, root, path, face",
}
"""SQL orders of the decisions."""


def decide(
    run: RunInfo, rules: Rules, order: str = "quality", *, labels: bool = False
) -> Iterator[Decision]:
    """Yield a decision for every photo of a run, or with "crops" for every face.

    Memory is bounded; DuckDB spills to the run folder.

    Args:
        run: any run.
        rules: the conditions.
        order: "quality" (best first, unscored last), "path", or "identity", which also drops
            photos without an identity.
        labels: number the identities that are kept; always done in the order "identity".

    Raises:
        RunError: a condition on quality in a run without scores, or a damaged ledger.
        SettingsError: an unknown status in `drop_status`, or an unusable identity table.
    """
    ranking = Ranking(run)
    if rules.need_scores and not ranking.scored:
        raise RunError(run.no_scores)
    known = {*ranking.counts(), "ok", *_statuses()}
    if unknown := rules.drop_status - known:
        raise SettingsError(
            f"--drop-status {min(unknown)}: no such status; there are {', '.join(sorted(known))}"
        )
    return _rows(run, rules, order, labels or order == "identity")


def people_of(run: RunInfo, rules: Rules) -> People:
    """Return the identities in a run.

    Raises:
        RunError: the ledger is damaged.
        SettingsError: the identity table is unusable.
    """
    with connect(ledger=run) as connection:
        return count_people(connection, rules.identity)


def _rows(run: RunInfo, rules: Rules, order: str, labels: bool) -> Iterator[Decision]:
    with connect(ledger=run) as connection:
        cursor = connection.execute(*_prepare(connection, rules, order, labels))
        while rows := cursor.fetchmany(FETCHED):
            for root, path, crop, quality, size, mtime_ns, sha256, rule, reason, label in rows:
                state = None if size is None else FileState(size, mtime_ns, sha256)
                yield Decision(root, path, crop, quality, rule, reason, state, label)


@dataclass(frozen=True)
class _Condition:
    """A condition in SQL.

    Attributes:
        rule: option name of the condition.
        fails: SQL that is true for rows that fail.
        why: SQL for the reason.
    """

    rule: str
    fails: str
    why: str


def _prepare(
    connection: duckdb.DuckDBPyConnection, rules: Rules, order: str, labels: bool
) -> tuple[str, dict[str, float | str]]:
    """Return the query for the decisions, in order, and its parameters.

    Thresholds come from sorts, which can spill to the disk. A window function over the whole run
    would be held in memory.
    """
    columns = "path, root, face, status, reason, quality, crop, file_size, mtime_ns, sha256"
    rows = "SELECT *, CAST(NULL AS VARCHAR) AS identity FROM ledger"
    if rules.need_identities or labels:
        rows = identified(connection, rules.identity)
    connection.execute(f"CREATE TEMP TABLE faces AS SELECT {columns}, identity FROM ({rows})")
    chosen = "WHERE face IS NOT NULL" if rules.what == "crops" else ""
    if rules.what == "photos" and fetch_value(connection, "SELECT max(face) > 0 FROM faces"):
        chosen = f"QUALIFY row_number() OVER (PARTITION BY path ORDER BY {_SPEAKER[rules.by]}) = 1"
    connection.execute(f"CREATE TEMP TABLE items AS FROM faces {chosen}")
    parameters: dict[str, float | str] = {}
    conditions = [
        _Condition("", "false", "''"),
        *_on_status(rules, identity=rules.need_identities or order == "identity"),
        *_on_quality(connection, rules, parameters),
        *_on_place(connection, rules, parameters),
    ]
    rule = " ".join(f"WHEN {item.fails} THEN '{item.rule}'" for item in conditions)
    why = " ".join(f"WHEN {item.fails} THEN {item.why}" for item in conditions)
    judged = f"""
        SELECT * REPLACE (CASE {why} ELSE '' END AS reason), CASE {rule} ELSE '' END AS rule
        FROM items
    """
    if least := rules.min_per_identity:
        judged = f"""
            WITH judged AS MATERIALIZED ({judged}), poor AS (
                SELECT identity, true AS too_few FROM judged
                GROUP BY identity HAVING count(*) FILTER (rule = '') < {least}
            )
            SELECT * EXCLUDE (too_few) REPLACE (
                CASE WHEN rule = '' AND too_few THEN 'min-per-identity' ELSE rule END AS rule,
                CASE WHEN rule = '' AND too_few THEN 'its identity keeps fewer than {least}'
                    ELSE reason END AS reason
            ) FROM judged LEFT JOIN poor USING (identity)
        """
    query = f"""
        SELECT root, path, crop, quality, file_size, mtime_ns, sha256, rule, reason, label
        FROM ({_labelled(judged) if labels else f"SELECT *, NULL AS label FROM ({judged})"})
        ORDER BY {ORDERS[order]}
    """
    return query, parameters


def _labelled(judged: str) -> str:
    """Return SQL for the decided rows with the label of their identity."""
    return f"""
        WITH decided AS MATERIALIZED ({judged}), labels AS (
            SELECT identity, row_number() OVER (ORDER BY identity) - 1 AS label
            FROM (SELECT DISTINCT identity FROM decided WHERE rule = '' AND identity IS NOT NULL)
        )
        SELECT decided.*, label FROM decided LEFT JOIN labels USING (identity)
    """


def _on_status(rules: Rules, *, identity: bool) -> Iterator[_Condition]:
    text = "status || CASE WHEN reason = '' THEN '' ELSE ': ' || reason END"
    if rules.drop_status:
        statuses = ", ".join("'" + name.replace("'", "''") + "'" for name in rules.drop_status)
        yield _Condition("drop-status", f"status IN ({statuses})", f"'status ' || {text}")
    if rules.need_scores:
        yield _Condition("no-score", "quality IS NULL", text)
    if identity:
        yield _Condition("no-identity", "identity IS NULL", "'its identity is not known'")


def _on_quality(
    connection: duckdb.DuckDBPyConnection, rules: Rules, parameters: dict[str, float | str]
) -> Iterator[_Condition]:
    if rules.min_quality is not None:
        parameters["quality"] = rules.min_quality
        why = _below(exact_text(rules.min_quality))
        yield _Condition("min-quality", "quality < $quality", why)
    if rules.min_percentile is not None:
        faces = fetch_value(connection, "SELECT count(quality) FROM faces")
        number = _least_number(rules.min_percentile, faces)
        if number > 1:
            at = parameters["percentile"] = fetch_value(
                connection,
                "SELECT quality FROM faces WHERE quality IS NOT NULL "
                f"ORDER BY quality LIMIT 1 OFFSET {number - 1}",
            )
            percentile = exact_text(rules.min_percentile)
            why = _below(f"percentile {percentile}, which is {exact_text(at, 6)}")
            yield _Condition("min-percentile", "quality < $percentile", why)


def _below(threshold: str) -> str:
    """Return SQL for the reason that a quality is below a threshold."""
    return f"printf('quality %.6f is below {threshold}', {rounded_down_sql('quality', 6)})"


def _on_place(
    connection: duckdb.DuckDBPyConnection, rules: Rules, parameters: dict[str, float | str]
) -> Iterator[_Condition]:
    number, why = rules.keep_top, f"'not among the best {rules.keep_top}'"
    total = fetch_value(connection, "SELECT count(quality) FROM items")
    if rules.keep_percent is not None:
        number = math.floor(total * rules.keep_percent / 100 + 0.5)
        why = f"'not among the best {rules.keep_percent:g} %'"
    if number == 0:
        yield _Condition("keep-top", "true", why)
    elif number is not None and number < total:
        row = connection.execute(
            "SELECT quality, path, face FROM items WHERE quality IS NOT NULL "
            f"ORDER BY quality DESC, path, face LIMIT 1 OFFSET {number - 1}"
        ).fetchone()
        parameters |= zip(("last", "last_path", "last_face"), row or (), strict=True)
        fails = (
            "quality < $last OR quality = $last AND "
            "(path > $last_path OR path = $last_path AND face > $last_face)"
        )
        yield _Condition("keep-top", fails, why)
    if rules.per_identity is not None:
        place = (
            "row_number() OVER (PARTITION BY identity ORDER BY quality DESC NULLS LAST, path, face)"
        )
        why = f"'not among the best {rules.per_identity} of its identity'"
        yield _Condition("per-identity", f"{place} > {rules.per_identity}", why)
    if rules.per_window is not None:
        # as photos.video names frames
        time = r"TRY_CAST(regexp_extract(path, '/\d+-(\d+\.\d+)s\.png$', 1) AS DOUBLE)"
        video = "regexp_replace(root || '/' || path, '/[^/]*$', '')"
        place = (
            f"row_number() OVER (PARTITION BY {video}, floor({time} / {rules.per_window!r}) "
            "ORDER BY quality DESC NULLS LAST, path, face)"
        )
        why = f"'not the best of its {rules.per_window:g} seconds'"
        yield _Condition("per-window", f"{time} IS NOT NULL AND {place} > 1", why)


def _least_number(percentile: float, faces: int) -> int:
    """Return the least number n of faces with 100 * n / faces >= percentile."""
    number = math.floor(percentile / 100 * faces)
    while number > 0 and 100 * ((number - 1) / faces) >= percentile:
        number -= 1
    while number < faces and 100 * (number / faces) < percentile:
        number += 1
    return number


def _statuses() -> set[str]:
    """Return all statuses of a photo."""
    found: set[str] = {"crashed"}
    pending = [PhotoError]
    while pending:
        kind = pending.pop()
        found.add(kind.status)
        pending += kind.__subclasses__()
    return found
