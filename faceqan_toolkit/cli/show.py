"""Rankings, summaries, calibrations, comparisons and groups, printed for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.cli.tables import Cell, Column, cells_of, print_table
from faceqan_toolkit.quality.scale import Scale
from faceqan_toolkit.results.calibration import Calibration, Rate, Threshold, below_thresholds
from faceqan_toolkit.results.comparison import Comparison
from faceqan_toolkit.results.groups import GroupSummary
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import LIKE_A_CROP, RESIZED, counted, down_text, exact_text, printable

ENDS = 5
"""Rows shown from either end of a ranking."""

PRINTED = 1000
"""Rows that are laid out as one table."""

Row = Mapping[str, Any]


def make_console(*, stderr: bool) -> Console:
    """Return a console whose lines are not broken."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_ranking(ranking: Ranking, top: int | None, bottom: int | None) -> None:
    """Print rows on standard output, few of them in memory."""
    console = make_console(stderr=False)
    rows = _with_gaps(ranking.iterate(top=top, bottom=bottom))
    # later blocks have the longest ranks
    columns = _columns(ranking, len(str(sum(ranking.counts().values()))))
    widths: Mapping[int, int] | None = None
    while (block := list(islice(rows, PRINTED))) or widths is None:
        widths = print_table(console, columns, cells_of(columns, block), widths)


def print_summary(run: RunInfo, counts: Mapping[str, int], files: Sequence[Path]) -> None:
    """Print the best and worst, the counts and where the files are, on standard error."""
    tell = Reporter()
    ranking = Ranking(run)
    failed = {status: number for status, number in counts.items() if status != "ok"}
    if ranking.scored and counts.get("ok"):
        if tell.shows_tables:
            columns = _columns(ranking)
            rows = cells_of(columns, _with_gaps(ranking.rows(top=ENDS, bottom=ENDS)))
            print_table(make_console(stderr=True), columns, rows)
        settings = run.content["settings"]
        most = ", 1 at most" if settings.get("method", "faceqan") == "faceqan" else ""
        tell.message(
            f"Quality: higher is better{most}. Compare it only with scores of the same model "
            f"and settings (fingerprint {run.content.get('fingerprint', 'unknown')})."
        )
    warn_of_one_quality(ranking)
    if aligned := ranking.noted(LIKE_A_CROP):
        tell.warn(
            f"{counted(aligned, 'photo')} looked like aligned crops and were aligned again, which "
            "moves scores a little. The command score takes crops as they are."
        )
    if resized := ranking.noted(RESIZED):
        tell.warn(
            f"{resized:,} crops were not of the model's size and were resized; resizing aligns "
            "nothing. Use align-and-score for raw photos."
        )
    for what, faces in below_thresholds(run).items():
        tell.message(f"{what}: {faces}")
    tell.message("Rows: " + ", ".join(f"{n:,} {status}" for status, n in counts.items()))
    examples = ranking.examples() if failed else {}
    for status in filter(examples.get, failed):
        path, reason = examples[status]
        tell.message(f"  {status}, for instance {path}: {reason}")
    for file in files:
        tell.message(f"Written: {file}")
    crops = run.folder / "crops"
    if crops.is_dir():
        tell.message(f"Crops:   {crops}")
    tell.emit("summary", folder=run.folder, counts=counts, files=files)


def warn_of_one_quality(ranking: Ranking) -> None:
    """Warn if all faces of a ranking have the same score."""
    quality = ranking.only_quality()
    if quality is not None:
        Reporter().warn(
            f"all faces have the same quality, {quality:.6g}; the ranking says nothing. "
            "Take another method or model."
        )


def print_calibration(calibration: Calibration) -> None:
    """Print thresholds and their error rates on the held-out people, on standard error."""
    tell = Reporter()
    counts = calibration.counts
    tell.message(
        f"Thresholds are fitted on {counts['choosing_people']:,} people "
        f"({counts['choosing_faces']:,} faces), figures and 95 % intervals are of the other "
        f"{counts['other_people']:,} ({counts['other_faces']:,} faces)"
    )
    for item in calibration.thresholds:
        tell.message(_calibrated(item, calibration.scale))
    tell.message(
        f"Scale {calibration.scale.id}: quality {calibration.scale.midpoint:.4f} becomes 50"
    )


def _calibrated(item: Threshold, scale: Scale) -> str:
    lines = [
        f"Threshold for {item.title}: quality {exact_text(item.quality, 4)}, "
        f"{scale.of(item.quality)} of 100"
    ]
    if item.low is not None and item.high is not None:
        lines.append(f"95 % interval from the held-out half: {item.low:.4f} .. {item.high:.4f}")
    lines.append(f"discards {_rate(item.discard)} of faces")
    errors = item.errors
    if errors is None:
        lines.append("errors: not enough data, none were counted")
    elif not errors.enough:
        lines.append(
            f"errors at FMR {errors.fmr:g}: not enough data ({errors.after.count:,} left in "
            f"{errors.after.total:,} mated comparisons, {errors.before.count:,} before; "
            f"{errors.false_matches.total:,} non-mated ones)"
        )
    else:
        lines += [
            f"FNMR {_rate(errors.after)}: {errors.after.count:,} errors in "
            f"{errors.after.total:,} mated comparisons",
            f"FNMR before {_rate(errors.before)}: {errors.before.count:,} errors in "
            f"{errors.before.total:,}",
            f"FMR {_rate(errors.false_matches, 3)}: {errors.false_matches.count:,} false matches "
            f"in {errors.false_matches.total:,} non-mated comparisons",
        ]
    return "\n  ".join(lines)


def _rate(rate: Rate, decimals: int = 2) -> str:
    """Return a rate in percent, with its interval."""
    if rate.value is None:
        return "-"
    text = f"{100 * rate.value:.{decimals}f} %"
    if rate.low is None or rate.high is None:
        return text
    return f"{text} ({100 * rate.low:.{decimals}f} .. {100 * rate.high:.{decimals}f})"


def _columns(ranking: Ranking, rank_width: int = 0) -> list[Column]:
    """Return the columns of a table of a ranking."""
    scores = [
        Column("rank", lambda row: str(row["rank"] or "").rjust(rank_width), right=True),
        Column("quality", lambda row: _number(row["quality"], 4), right=True),
        Column("of 100", lambda row: _number(row["quality_100"], 0), right=True, drop=2),
        Column("percentile", lambda row: _number(row["percentile"], 1), right=True, drop=3),
    ]
    # in a run that predicts scores, rows say which of them were measured
    if ranking.run.content["settings"].get("preset") == "instant":
        scores.append(Column("preset", lambda row: row["preset"] or "", right=True, drop=6))
    return [
        *(scores if ranking.scored else []),
        Column("face px", lambda row: _number(row["face_px"], 0), right=True, drop=4),
        Column("confidence", lambda row: _number(row["confidence"], 3), right=True, drop=5),
        _path_column(
            lambda row: "" if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        ),
    ]


def _path_column(remark: Callable[[Row], str]) -> Column:
    """Return the column of faces' paths, each with a remark."""

    def cell(row: Row) -> Cell:
        name = row["path"] if row["face"] is None else f"{row['path']} [{row['face']}]"
        return Cell(printable(name), printable(remark(row)))

    return Column("path [face]", cell, least=26, is_path=True)


def _with_gaps(rows: Iterable[Row]) -> Iterator[Row | None]:
    """Yield a ranking's rows, and None where ranks are left out."""
    previous = 0
    for row in rows:
        rank = row.get("rank")
        if rank and previous and rank > previous + 1:
            yield None
        previous = rank or previous
        yield row


def _number(value: float | None, decimals: int) -> str:
    """Return a number rounded down, so that it can be used as a threshold; nothing for None."""
    return "" if value is None else down_text(value, decimals)


def print_comparison(figures: Comparison, movers: Sequence[Mapping[str, Any]]) -> None:
    """Print how two runs differ, on standard output."""
    console = make_console(stderr=False)
    correlation = "unknown, too few different scores"
    if figures.spearman is not None:
        correlation = f"{figures.spearman:.4f}"
    shared = f"; Spearman's rank correlation {correlation}" if figures.common else ""
    console.print(f"Common faces: {figures.common:,}{shared}")
    console.print(f"Only in the first run: {figures.only_a:,}, in the second: {figures.only_b:,}")
    if figures.changed:
        console.print(f"Photos whose content differs, not compared: {figures.changed:,}")
    for name, (one, other) in figures.differing.items():
        console.print(f"Setting {name}: {one} and {other}", markup=False)
    if figures.mean_difference is not None:
        console.print(
            f"Quality, second minus first: {figures.mean_difference:+.4f} on average, mean "
            f"distance {figures.mean_distance:.4f}"
        )
    elif figures.common:
        console.print("These settings move all scores: only ranks compare.")
    if not figures.common:
        return
    columns = [
        Column("moved", lambda row: f"{row['shift']:+.1f}", right=True),
        Column("percentile", lambda row: _number(row["percentile_a"], 1), right=True, drop=1),
        Column("then", lambda row: _number(row["percentile_b"], 1), right=True, drop=1),
        Column("quality", lambda row: _number(row["quality_a"], 4), right=True, drop=2),
        Column("then", lambda row: _number(row["quality_b"], 4), right=True, drop=2),
        _path_column(
            lambda row: "" if row["path_b"] == row["path"] else f"in the second run {row['path_b']}"
        ),
    ]
    print_table(console, columns, cells_of(columns, movers))


def print_groups(summaries: Sequence[GroupSummary], by: str, below: float | None) -> None:
    """Print summaries of groups on standard output, one row each."""
    columns = [
        Column(by, lambda group: "(none)" if group.group is None else printable(group.group),
               least=12, is_path=True),
        Column("faces", lambda group: f"{group.faces:,}", right=True),
        Column("unscored", lambda group: f"{group.unscored:,}", right=True, drop=4),
        Column("mean", lambda group: _number(group.mean, 3), right=True, drop=3),
        Column("5 %", lambda group: _number(group.q05, 3), right=True, drop=5),
        Column("25 %", lambda group: _number(group.q25, 3), right=True, drop=6),
        Column("median", lambda group: _number(group.median, 3), right=True),
        Column("75 %", lambda group: _number(group.q75, 3), right=True, drop=6),
        Column("95 %", lambda group: _number(group.q95, 3), right=True, drop=5),
    ]  # fmt: skip
    if below is not None:
        columns += [
            Column(f"below {exact_text(below)}", lambda group: _percent(group.share), right=True),
            Column("95 % interval", lambda group: _interval(group.share_low, group.share_high),
                   right=True, drop=1),
            Column("against others", lambda group: _percent(group.difference, "+"),
                   right=True, drop=2),
            Column("95 % interval",
                   lambda group: _interval(group.difference_low, group.difference_high, "+"),
                   right=True, drop=2),
        ]  # fmt: skip
    print_table(make_console(stderr=False), columns, cells_of(columns, summaries))


def _percent(share: float | None, sign: str = "") -> str:
    return "" if share is None else f"{100 * share:{sign}.1f} %"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"{100 * low:{sign}.1f} .. {100 * high:{sign}.1f}"
