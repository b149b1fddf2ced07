"""Which photos or faces of a run to keep, and what `filter` does with them."""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import duckdb

from faceqan_toolkit.errors import PhotoError, RunError, SettingsError
from faceqan_toolkit.events import Listener, Message, Note, silent
from faceqan_toolkit.files import absolute, is_file
from faceqan_toolkit.results.actions import Decision, Manifest, Outcome, Plan, carry_out, put_back
from faceqan_toolkit.results.calibration import read_calibration
from faceqan_toolkit.results.groups import IdentityRule, count_people, identified
from faceqan_toolkit.results.ranking import ORDER, Ranking
from faceqan_toolkit.results.training_set import SHARD_SIZE, Export
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.runs.ledger import FETCHED, connect, fetch_value
from faceqan_toolkit.settings import BYS, WHATS
from faceqan_toolkit.text import counted, exact_text, path_from_text, rounded_down_sql
from faceqan_toolkit.types import FileState

_REPRESENTATIVE = {
    "best": "quality DESC NULLS LAST, face", "worst": "quality NULLS LAST, face", "main": "face",
}  # fmt: skip
"""SQL orders that put the face first that represents a photo."""


@dataclass(frozen=True)
class Rules:
    """Conditions that a photo or face must meet; each is evaluated over the whole run.

    Without a score, a photo or face fails every condition on quality and no other.

    Attributes:
        what: filter "photos" or the faces' "crops".
        by: the face that represents a photo: its "best" or "worst" scored one, or its "main" one,
            the largest.
        min_quality: least quality.
        min_percentile: least percentile among the run's scored faces, in [0, 100].
        keep_top: number of the best photos or faces to keep.
        keep_percent: percentage of the scored ones to keep, best first, rounded, in (0, 100].
        per_identity: number of the best to keep of each identity; without an identity it fails.
        per_window: keep the best frame of each window of this many seconds of a video; photos that
            are not video frames pass.
        min_per_identity: drop identities of which the other conditions keep fewer than this;
            without an identity it fails.

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
                "`by` is for photos; with `what` crops each face is filtered on its own"
            )
        conditions = [getattr(self, item.name) for item in fields(self)[3:]]
        if all(value is None or value == frozenset() for value in conditions):
            raise SettingsError(
                "say what to keep: `min_quality`, `calibration`, `min_percentile`, `keep_top`, "
                "`per_identity`, `per_window`, `min_per_identity` or `drop_status`"
            )
        for name, value, low, high, expected in (
            ("min_quality", self.min_quality, -math.inf, math.inf, "a finite number"),
            ("min_percentile", self.min_percentile, 0, 100, "in 0..100"),
            ("keep_top", self.keep_percent, 1e-9, 100, "above 0 % and at most 100 %"),
            ("per_window", self.per_window, 1e-3, math.inf, "at least 0.001 seconds"),
            ("keep_top", self.keep_top, 1, math.inf, "at least 1"),
            ("per_identity", self.per_identity, 1, math.inf, "at least 1"),
            ("min_per_identity", self.min_per_identity, 1, math.inf, "at least 1"),
        ):
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise SettingsError(f"`{name}` is {value}; it must be {expected}")
        if (self.min_per_identity or 0) > (self.per_identity or math.inf):
            raise SettingsError(
                f"`min_per_identity` {self.min_per_identity} is more than `per_identity` "
                f"{self.per_identity} leaves: nothing would be kept"
            )

    @property
    def need_scores(self) -> bool:
        """Whether any condition is on quality."""
        on_quality = (self.min_quality, self.min_percentile, self.keep_top, self.keep_percent,
                      self.per_identity, self.per_window)  # fmt: skip
        return any(value is not None for value in on_quality)

    @property
    def need_identities(self) -> bool:
        """Whether any condition is on identities."""
        return self.per_identity is not None or self.min_per_identity is not None


def number_or_percentage(text: str) -> tuple[int | None, float | None]:
    """Return the number, or the percentage, of the best to keep that a text such as "80%" means."""
    try:
        return (None, float(text[:-1])) if text.endswith("%") else (int(text), None)
    except ValueError:
        raise SettingsError(
            f"`keep_top` is {text}; it must be a number, or a percentage as in 10%"
        ) from None


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
        run, rules: any run, and the conditions.
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
    known = {*ranking.counts(), "ok", "crashed", *_statuses(PhotoError)}
    if unknown := rules.drop_status - known:
        raise SettingsError(
            f"`drop_status` {min(unknown)}: no such status; there are {', '.join(sorted(known))}"
        )
    return _rows(run, rules, order, labels or order == "identity")


def _rows(run: RunInfo, rules: Rules, order: str, labels: bool) -> Iterator[Decision]:
    with connect(ledger=run.ledger) as connection:
        cursor = connection.execute(*_prepare(connection, rules, order, labels))
        while rows := cursor.fetchmany(FETCHED):
            for root, path, crop, quality, size, mtime_ns, sha256, rule, reason, label in rows:
                state = None if size is None else FileState(size, mtime_ns, sha256)
                yield Decision(root, path, crop, quality, rule, reason, state, label)


class _Condition(NamedTuple):
    """A condition: option name, SQL that is true for rows that fail, SQL for the reason."""

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
        first = _REPRESENTATIVE[rules.by]
        chosen = f"QUALIFY row_number() OVER (PARTITION BY path ORDER BY {first}) = 1"
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
    labelled = f"SELECT *, NULL AS label FROM ({judged})"
    if labels:
        labelled = f"""
            WITH decided AS MATERIALIZED ({judged}), labels AS (
                SELECT identity, row_number() OVER (ORDER BY identity) - 1 AS label FROM (
                    SELECT DISTINCT identity FROM decided WHERE rule = '' AND identity IS NOT NULL
                )
            )
            SELECT decided.*, label FROM decided LEFT JOIN labels USING (identity)
        """
    query = f"""
        SELECT root, path, crop, quality, file_size, mtime_ns, sha256, rule, reason, label
        FROM ({labelled}) ORDER BY {ORDERS[order]}
    """
    return query, parameters


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
        below = bisect_left(
            range(1, faces + 1), rules.min_percentile, key=lambda number: 100 * (number / faces)
        )
        if below:
            at = parameters["percentile"] = fetch_value(
                connection,
                "SELECT quality FROM faces WHERE quality IS NOT NULL "
                f"ORDER BY quality LIMIT 1 OFFSET {below}",
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
    place = "row_number() OVER (PARTITION BY {} ORDER BY quality DESC NULLS LAST, path, face)"
    if rules.per_identity is not None:
        why = f"'not among the best {rules.per_identity} of its identity'"
        fails = f"{place.format('identity')} > {rules.per_identity}"
        yield _Condition("per-identity", fails, why)
    if rules.per_window is not None:
        # as photos.video names frames
        time = r"TRY_CAST(regexp_extract(path, '/\d+-(\d+\.\d+)s\.png$', 1) AS DOUBLE)"
        video = "regexp_replace(root || '/' || path, '/[^/]*$', '')"
        window = f"{video}, floor({time} / {rules.per_window!r})"
        why = f"'not the best of its {rules.per_window:g} seconds'"
        yield _Condition("per-window", f"{time} IS NOT NULL AND {place.format(window)} > 1", why)


def _statuses(kind: type[PhotoError]) -> set[str]:
    return {kind.status}.union(*map(_statuses, kind.__subclasses__()))


class Selection:
    """The photos or crops of a run that meet every condition.

    With `fetch` photos are also read from URLs; `tell` receives events. SettingsError if no score
    of the run can reach the least quality.
    """

    def __init__(
        self, run: RunInfo, rules: Rules, *, fetch: bool = False, tell: Listener = silent
    ) -> None:
        run.check_threshold(rules.min_quality)
        self.run, self.rules, self.fetch, self.tell = run, rules, fetch, tell

    def paths(self) -> Iterator[str]:
        """Yield the absolute paths of the selected photos or crops, best quality first."""
        for outcome in self.outcomes():
            if outcome.entry.decision == "list":
                yield outcome.source

    def copy(self, folder: Path | str) -> Counter[str]:
        """Copy the selection to a folder; return the number of files by decision."""
        return _counts(self.outcomes("copy", Path(folder)))

    def move(self, folder: Path | str) -> Counter[str]:
        """Move the selection to a folder, see also `undo`; return the number by decision."""
        return _counts(self.outcomes("move", Path(folder)))

    def link(self, folder: Path | str) -> Counter[str]:
        """Hard-link the selection into a folder; return the number of files by decision."""
        return _counts(self.outcomes("link", Path(folder)))

    def symlink(self, folder: Path | str) -> Counter[str]:
        """Symlink the selection into a folder; return the number of files by decision."""
        return _counts(self.outcomes("symlink", Path(folder)))

    def export(
        self, folder: Path | str, sink: str, *, shard_size: int | None = None
    ) -> Counter[str]:
        """Write the selection as a training set; return the number of photos by decision.

        `sink` is "recordio", or "webdataset" with `shard_size` photos in a tar (10,000 if None).
        """
        return _counts(self.outcomes("copy", Path(folder), sink=sink, shard_size=shard_size))

    def outcomes(
        self,
        mode: str = "list",
        folder: Path | None = None,
        *,
        sink: str = "files",
        shard_size: int | None = None,
        manifest: Path | None = None,
        dry: bool = False,
    ) -> Iterator[Outcome]:
        """Act on the selection; yield the result for every photo or crop of the run, in order.

        No file is replaced. After an interruption the same call continues.

        Args:
            mode: one of `settings.MODES`.
            folder: destination folder; None with "list".
            sink: one of `settings.SINKS`; all except "files" need the mode "copy".
            shard_size: number of photos in a tar of "webdataset"; None for the default.
            manifest: CSV file for all decisions; None means `manifest.csv` in the folder, if any.
            dry: decide only; change no file.

        Raises:
            SettingsError: contradictory options.
            RunError: the run or the manifest cannot be used.
        """
        if folder is None and mode != "list":
            raise SettingsError(f"`mode` {mode} needs `to` DIR")
        if sink != "files" and mode != "copy":
            raise SettingsError(f"`sink` {sink} writes copies: it needs `mode` copy")
        if sink != "webdataset" and shard_size is not None:
            raise SettingsError("`shard_size` is for `sink` webdataset")
        if self.rules.need_identities or sink != "files":
            self._tell_people(optional=sink == "webdataset" and not self.rules.need_identities)
        if manifest is None and folder is not None:
            manifest = folder / "manifest.csv"
        plan = Plan(
            absolute(self.run.folder), mode, self.rules.what,
            absolute(folder) if folder else None, dry, self.fetch,
        )  # fmt: skip
        return self._outcomes(plan, sink, shard_size, None if dry else manifest)

    def _outcomes(
        self, plan: Plan, sink: str, shard_size: int | None, manifest: Path | None
    ) -> Iterator[Outcome]:
        with Manifest(absolute(manifest)) if manifest else nullcontext() as file:
            if sink == "files":
                # by path, so that archives are read one after the other
                order = "path" if plan.mode == "copy" else "quality"
                outcomes = carry_out(decide(self.run, self.rules, order), plan, file)
            else:
                order = "identity" if sink == "recordio" else "path"
                labelled = partial(decide, self.run, self.rules, order, labels=True)
                size = SHARD_SIZE if shard_size is None else shard_size
                outcomes = Export(labelled, plan, sink, size, file).outcomes()
            placing = file and sink == "files" and plan.mode != "list"
            earlier = file.placed_before() if file and placing else set()
            for outcome in outcomes:
                earlier.discard(outcome.entry.destination)
                yield outcome
        if left := _still_there(earlier):
            self.tell(Note(f"{left} of earlier selections still there, see the manifest"))

    def _tell_people(self, *, optional: bool) -> None:
        """Report the number of identities; RunError if there is none and it is not optional."""
        with connect(ledger=self.run.ledger) as connection:
            people = count_people(connection, self.rules.identity)
        if people.nobody and not people.number and not optional:
            raise RunError(
                f"no photo of {self.run.folder} has an identity (identity = "
                f"{self.rules.identity.title}), so none would be kept; `identity` FILE.csv can "
                "name them"
            )
        self.tell(Message(people.text("without a label" if optional else "dropped")))


def calibrated_quality(
    run: RunInfo,
    file: Path,
    *,
    target_fnmr: float | None = None,
    target_discard: float | None = None,
) -> float:
    """Return a quality threshold of a calibration file; no target is needed for the only one.

    CalibrationError if the file is unusable, lacks the threshold, or is for other settings than the
    run's.
    """
    calibration = read_calibration(file)
    calibration.check(run.content.get("identity") or {}, str(run.folder))
    return calibration.threshold(target_fnmr, target_discard).quality


def undo(path: Path, *, dry: bool = False, tell: Listener = silent) -> Iterator[Outcome]:
    """Put back the files that a manifest moved; yield the results, or raise RunError."""
    if is_file(path) and not path.stat().st_size:
        raise RunError(f"{path} is empty: it is no manifest")
    return _undo(path, dry, tell)


def _undo(path: Path, dry: bool, tell: Listener) -> Iterator[Outcome]:
    with Manifest(absolute(path), dry=dry) as manifest:
        if left := _still_there(manifest.copied_before()):
            text = (
                f"{left} copied or linked by this manifest, not moved: --undo leaves them where "
                f"they are and deletes nothing. The column destination of {path} names them"
            )
            tell(Note(text))
        yield from put_back(manifest, dry=dry)


def _still_there(places: Iterable[str]) -> str:
    """Return how many of some files there are, as text; "" for none."""
    number = sum(os.path.lexists(path_from_text(place)) for place in places)
    return counted(number, "file") if number else ""


def _counts(outcomes: Iterator[Outcome]) -> Counter[str]:
    return Counter(outcome.entry.decision for outcome in outcomes)
