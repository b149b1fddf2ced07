"""Which photos or faces of a run to keep: records in, decisions out, by DuckDB. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.ranking import RANKED, Ranking, connect
from faceqan_toolkit.runs import RunInfo
from faceqan_toolkit.types import FileState

WHATS = ("photos", "crops")
BYS = ("best", "worst", "main")

# which of a photo's rows speaks for it
_SPEAKER = {
    "best": "rank NULLS LAST, face",
    "worst": "rank DESC NULLS LAST, face",
    "main": "face",
}
_FETCHED = 1000


@dataclass(frozen=True)
class Rules:
    """Conditions, all of which must hold; each is judged by itself over the whole run.

    Attributes:
        what: "photos" judges photos, "crops" faces.
        by: which face speaks for a photo: its "best" or "worst" scored one, or the "main" one,
            the largest of those the run has.
        min_quality: least quality.
        min_percentile: least percentile among the run's scored faces, as rankings show it, in
            [0, 100].
        keep_top: the best so many.
        keep_percent: the best so many percent of those with a score, rounded, in (0, 100].
        per_identity: the best so many of each identity, which is a photo's folder.
        min_per_identity: only identities of which the other conditions keep so many.
        drop_status: statuses of which nothing is kept. What has no score fails all conditions on
            quality, and no other.

    Raises:
        SettingsError: no condition, or one that makes no sense.
    """

    what: str = "photos"
    by: str = "best"
    min_quality: float | None = None
    min_percentile: float | None = None
    keep_top: int | None = None
    keep_percent: float | None = None
    per_identity: int | None = None
    min_per_identity: int | None = None
    drop_status: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.what not in WHATS or self.by not in BYS:
            raise SettingsError(f"what is one of {WHATS} and by one of {BYS}")
        if self.what == "crops" and self.by != "best":
            raise SettingsError("--by is for photos: of crops every face is judged by itself")
        conditions = [getattr(self, item.name) for item in fields(self)[2:]]
        if all(value is None or value == frozenset() for value in conditions):
            raise SettingsError(
                "say what to keep: --min-quality, --min-percentile, --keep-top, --per-identity, "
                "--min-per-identity or --drop-status"
            )
        self._check("min_quality", self.min_quality, -math.inf, math.inf, "a finite number")
        self._check("min_percentile", self.min_percentile, 0, 100, "in 0..100")
        self._check("keep_top", self.keep_percent, 1e-9, 100, "above 0 % and at most 100 %")
        for name in ("keep_top", "per_identity", "min_per_identity"):
            self._check(name, getattr(self, name), 1, math.inf, "at least 1")

    @staticmethod
    def _check(name: str, value: float | None, low: float, high: float, expected: str) -> None:
        if value is None:
            return
        if not (math.isfinite(value) and low <= value <= high):
            raise SettingsError(f"{name.replace('_', '-')} is {value}; it must be {expected}")

    @property
    def need_scores(self) -> bool:
        """Whether a condition is on quality."""
        on_quality = (self.min_quality, self.min_percentile, self.keep_top, self.keep_percent)
        return any(value is not None for value in (*on_quality, self.per_identity))


@dataclass(frozen=True)
class Decision:
    """What becomes of one photo, or of one face's crop.

    Attributes:
        root, path: of the photo, as in its record.
        crop: of the face, relative to the run folder; empty if none was kept.
        quality: of the face that counts; None without a score.
        rule: the first condition that does not hold, as its option is named; empty if kept.
        reason: the same for people; empty if kept.
        state: of the photo's file when it was read; None if it could not be looked at.
    """

    root: str
    path: str
    crop: str
    quality: float | None
    rule: str
    reason: str
    state: FileState | None

    @property
    def kept(self) -> bool:
        """Whether every condition holds."""
        return not self.rule


def decide(run: RunInfo, rules: Rules) -> Iterator[Decision]:
    """Yield a decision for every photo, or with "crops" for every face, of a run.

    They come best first, those without a score last. Memory use does not grow with their number:
    what DuckDB cannot hold goes to the run folder.

    Raises:
        RunError: conditions on quality and a run without scores, or a damaged ledger.
        SettingsError: a status to drop that does not exist.
    """
    ranking = Ranking(run)
    if rules.need_scores and not ranking.scored:
        raise RunError(f"{run.folder} has no scores; it was made by {run.task}")
    known = {*ranking.counts(), "ok", *_statuses()}
    if unknown := rules.drop_status - known:
        raise SettingsError(
            f"--drop-status {min(unknown)}: no such status; there are {', '.join(sorted(known))}"
        )
    return _rows(run, rules)


def _rows(run: RunInfo, rules: Rules) -> Iterator[Decision]:
    with connect(ledger=run) as connection:
        cursor = connection.execute(_query(rules))
        while rows := cursor.fetchmany(_FETCHED):
            for root, path, crop, quality, size, mtime_ns, sha256, rule, reason in rows:
                state = None if size is None else FileState(size, mtime_ns, sha256)
                yield Decision(root, path, crop, quality, rule, reason, state)


def _query(rules: Rules) -> str:
    """Return SQL for the decisions, in order."""
    if rules.what == "photos":
        chosen = (
            "QUALIFY row_number() OVER "
            f"(PARTITION BY path ORDER BY {_SPEAKER[rules.by]}) = 1"
        )  # fmt: skip
    else:
        chosen = "WHERE face IS NOT NULL"
    cases = _conditions(rules)
    rule = " ".join(f"WHEN {fails} THEN '{name}'" for name, fails, _ in cases)
    reason = " ".join(f"WHEN {fails} THEN {why}" for _, fails, why in cases)
    least = rules.min_per_identity or 0
    too_few = f"rule = '' AND {least} > count(*) FILTER (rule = '') OVER (PARTITION BY identity)"
    folder_keeps = f"'its folder keeps fewer than {least}'"
    return f"""
        WITH items AS (
            SELECT *, regexp_replace(root || '/' || path, '/[^/]*$', '') AS identity
            FROM ({RANKED}) {chosen}
        ), judged AS (
            SELECT * REPLACE (CASE {reason} ELSE '' END AS reason),
                CASE {rule} ELSE '' END AS rule
            FROM items
        )
        SELECT root, path, crop, quality, file_size, mtime_ns, sha256,
            {f"CASE WHEN {too_few} THEN 'min-per-identity' ELSE rule END" if least else "rule"},
            {f"CASE WHEN {too_few} THEN {folder_keeps} ELSE reason END" if least else "reason"}
        FROM judged ORDER BY rank NULLS LAST, path, face
    """


def _conditions(rules: Rules) -> list[tuple[str, str, str]]:
    """Return for each condition its name, SQL that is true where it fails, and SQL for why."""
    status = "status || CASE WHEN reason = '' THEN '' ELSE ': ' || reason END"
    found = [("never", "false", "''")]
    if rules.drop_status:
        statuses = ", ".join("'" + name.replace("'", "''") + "'" for name in rules.drop_status)
        found.append(("drop-status", f"status IN ({statuses})", status))
    if rules.need_scores:
        found.append(("no-score", "rank IS NULL", status))
    if (quality := rules.min_quality) is not None:
        why = f"printf('quality %.6f is below {quality:g}', quality)"
        found.append(("min-quality", f"quality < {float(quality)!r}", why))
    if (percentile := rules.min_percentile) is not None:
        why = f"printf('percentile %.2f is below {percentile:g}', percentile)"
        found.append(("min-percentile", f"percentile < {float(percentile)!r}", why))
    place = "row_number() OVER (ORDER BY rank NULLS LAST)"
    if rules.keep_top is not None:
        why = f"'not among the best {rules.keep_top}'"
        found.append(("keep-top", f"{place} > {rules.keep_top}", why))
    if rules.keep_percent is not None:
        number = f"round(count(rank) OVER () * {float(rules.keep_percent)!r} / 100)"
        why = f"'not among the best {rules.keep_percent:g} %'"
        found.append(("keep-top", f"{place} > {number}", why))
    if rules.per_identity is not None:
        place = "row_number() OVER (PARTITION BY identity ORDER BY rank NULLS LAST)"
        why = f"'not among the best {rules.per_identity} of its folder'"
        found.append(("per-identity", f"{place} > {rules.per_identity}", why))
    return found


def _statuses() -> set[str]:
    """Return every status a photo can have."""
    from faceqan_toolkit.errors import PhotoError

    found: set[str] = {"crashed"}
    pending = [PhotoError]
    while pending:
        kind = pending.pop()
        found.add(kind.status)
        pending += kind.__subclasses__()
    return found
