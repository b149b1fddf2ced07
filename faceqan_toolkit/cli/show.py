"""Rankings and summaries as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faceqan_toolkit.paths import printable
from faceqan_toolkit.quality.scale import Scale
from faceqan_toolkit.results.calibration import Calibration, Rate, Threshold, below_thresholds
from faceqan_toolkit.results.comparison import Comparison
from faceqan_toolkit.results.groups import GroupSummary
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.rounding import down_text, exact_text
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.wording import LIKE_A_CROP, RESIZED, counted

ENDS = 5
"""Rows shown from either end of a ranking."""

PRINTED = 1000
"""Rows that are laid out as one table."""

WIDEST = {"preset": len("instant")}
"""Cells that are wider than their column's header."""


def print_ranking(ranking: Ranking, top: int | None, bottom: int | None) -> None:
    """Print rows on standard output, one line each, few of them in memory."""
    console = make_console(stderr=False)
    rows = ranking.iterate(top=top, bottom=bottom)
    width = len(str(sum(ranking.counts().values())))
    previous, header = 0, True
    while (block := list(islice(rows, PRINTED))) or header:
        table = _table(block, ranking, previous, rank_width=width)
        table.show_header, header = header, False
        console.print(table)
        previous = (block and block[-1].get("rank")) or previous


def print_summary(run: RunInfo, counts: Mapping[str, int], files: Sequence[Path]) -> None:
    """Print the best and worst, the counts and where the files are, on standard error."""
    console = make_console(stderr=True)
    ranking = Ranking(run)
    failed = {status: number for status, number in counts.items() if status != "ok"}
    if ranking.scored and counts.get("ok"):
        rows = ranking.rows(top=ENDS, bottom=ENDS)
        console.print(_table(rows, ranking))
        settings = run.content["settings"]
        most = ", 1 at most" if settings.get("method", "faceqan") == "faceqan" else ""
        console.print(
            f"Quality: higher is better{most}. Compare it only with scores of the same model "
            f"and settings (fingerprint {run.content.get('fingerprint', 'unknown')})."
        )
    warn_of_one_quality(ranking)
    if aligned := ranking.noted(LIKE_A_CROP):
        console.print(
            f"Warning: {counted(aligned, 'photo')} looked like aligned crops and were aligned "
            "again, which moves scores a little. The command score takes crops as they are.",
            style="yellow",
        )
    if resized := ranking.noted(RESIZED):
        console.print(
            f"Warning: {resized:,} crops were not of the model's size and were resized; resizing "
            "aligns nothing. Use align-and-score for raw photos.",
            style="yellow",
        )
    for what, faces in below_thresholds(run).items():
        console.print(f"{what}: {faces}", markup=False)
    console.print("Rows: " + ", ".join(f"{n:,} {status}" for status, n in counts.items()))
    examples = ranking.examples() if failed else {}
    for status in filter(examples.get, failed):
        path, reason = map(printable, examples[status])
        console.print(f"  {status}, for instance {path}: {reason}", markup=False)
    for file in files:
        console.print(f"Written: {file}", markup=False)
    crops = run.folder / "crops"
    if crops.is_dir():
        console.print(f"Crops:   {crops}", markup=False)
    if failed:
        what = ", ".join(f"{number:,} {status}" for status, number in failed.items())
        console.print(
            f"Exit code 3: the run is complete, but some photos or faces have no result ({what}); "
            "columns status and reason say why.",
            style="yellow",
            markup=False,
        )


def warn_of_one_quality(ranking: Ranking) -> None:
    """Say on standard error that a ranking says nothing, if all faces have the same score."""
    quality = ranking.only_quality()
    if quality is not None:
        make_console(stderr=True).print(
            f"Warning: all faces have the same quality, {quality:.6g}; the ranking says nothing. "
            "Take another method or model.",
            style="yellow",
        )


def print_calibration(calibration: Calibration) -> None:
    """Print what thresholds do to people that did not choose them, on standard error."""
    console = make_console(stderr=True)
    counts = calibration.counts
    console.print(
        f"{counts['choosing_people']:,} people ({counts['choosing_faces']:,} faces) choose; all "
        f"figures are of the other {counts['other_people']:,} ({counts['other_faces']:,} faces); "
        "intervals of 95 %"
    )
    for item in calibration.thresholds:
        console.print(_calibrated(item, calibration.scale), markup=False)
    console.print(
        f"Scale {calibration.scale.id}: quality {calibration.scale.midpoint:.4f} becomes 50",
        markup=False,
    )


def _calibrated(item: Threshold, scale: Scale) -> str:
    lines = [
        f"Threshold for {item.title}: quality {exact_text(item.quality, 4)}, "
        f"{scale.of(item.quality)} of 100"
    ]
    if item.low is not None and item.high is not None:
        lines.append(f"the others would choose {item.low:.4f} .. {item.high:.4f}")
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


def make_console(*, stderr: bool) -> Console:
    """Return a console; a pipe has no width, so every row has the line it needs."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 1000
    return console


def _table(
    rows: Sequence[Mapping[str, Any]], ranking: Ranking, previous: int = 0, rank_width: int = 0
) -> Table:
    """Return a table of a ranking's rows; a gap in the ranks shows as a line.

    Args:
        rows: the rows.
        ranking: where they come from.
        previous: the rank before them.
        rank_width: least width of the column of ranks.
    """
    scored = ranking.scored
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ["rank", "quality", "of 100", "percentile"] if scored else []
    # the row says which scores were measured and which predicted
    mixed = scored and ranking.run.content["settings"].get("preset") == "instant"
    names += ["preset"] if mixed else []
    for name in (*names, "face px", "confidence"):
        widest = rank_width if name == "rank" else WIDEST.get(name, 0)
        table.add_column(name, justify="right", min_width=max(widest, len(name)))
    table.add_column(r"path \[face]", overflow="fold")
    for row in rows:
        if scored and row["rank"] and previous and row["rank"] > previous + 1:
            table.add_row("...")
        previous = row.get("rank") or previous
        cells = [_number(row["face_px"], 0), _number(row["confidence"], 3)]
        if scored:
            rank = "" if row["rank"] is None else str(row["rank"])
            quality, of_100 = _number(row["quality"], 4), _number(row["quality_100"], 0)
            scores = [rank, quality, of_100, _number(row["percentile"], 1)]
            cells = [*scores, *([row["preset"]] if mixed else []), *cells]
        name = row["path"] if row["face"] is None else f"{row['path']} [{row['face']}]"
        if row["status"] != "ok":
            name += f"  {row['status']}: {row['reason']}"
        table.add_row(*cells, Text(printable(name)))
    return table


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
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in ("moved", "percentile", "then", "quality", "then"):
        table.add_column(name, justify="right")
    table.add_column(r"path \[face]", overflow="fold")
    for row in movers:
        name = f"{row['path']} [{row['face']}]"
        if row["path_b"] != row["path"]:
            name += f"  in the second run {row['path_b']}"
        table.add_row(
            f"{row['shift']:+.1f}",
            *(_number(row[f"percentile_{run}"], 1) for run in "ab"),
            *(_number(row[f"quality_{run}"], 4) for run in "ab"),
            Text(printable(name)),
        )
    console.print(table)


def print_groups(summaries: Sequence[GroupSummary], by: str, below: float | None) -> None:
    """Print summaries of groups on standard output, one line each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ["faces", "unscored", "mean", "5 %", "25 %", "median", "75 %", "95 %"]
    if below is not None:
        names += [f"below {exact_text(below)}", "95 % interval", "against others", "95 % interval"]
    table.add_column(Text(by))
    for name in names:
        table.add_column(name, justify="right")
    for item in summaries:
        values = (item.mean, item.q05, item.q25, item.median, item.q75, item.q95)
        cells = [f"{item.faces:,}", f"{item.unscored:,}", *(_number(value, 3) for value in values)]
        if below is not None:
            cells += [
                _percent(item.share),
                _interval(item.share_low, item.share_high),
                _percent(item.difference, sign="+"),
                _interval(item.difference_low, item.difference_high, sign="+"),
            ]
        table.add_row(Text("(none)" if item.group is None else printable(item.group)), *cells)
    make_console(stderr=False).print(table)


def _percent(share: float | None, sign: str = "") -> str:
    return "" if share is None else f"{100 * share:{sign}.1f} %"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"{100 * low:{sign}.1f} .. {100 * high:{sign}.1f}"
