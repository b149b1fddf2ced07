"""Rankings and summaries as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.cli.tables import Cell, Column, print_rows, print_table
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

PATH = Column("path [face]", least=26, is_path=True)


def print_ranking(ranking: Ranking, top: int | None, bottom: int | None) -> None:
    """Print rows on standard output, few of them in memory."""
    console = make_console(stderr=False)
    rows = ranking.iterate(top=top, bottom=bottom)
    columns = _columns(ranking)
    widths: Mapping[int, int] | None = None
    ranks = len(str(sum(ranking.counts().values())))  # later blocks have the longest ones
    previous = 0
    while (block := list(islice(rows, PRINTED))) or widths is None:
        cells = _cells(block, ranking, previous, rank_width=ranks)
        widths = print_rows(console, columns, cells, widths)
        previous = (block and block[-1].get("rank")) or previous


def print_summary(run: RunInfo, counts: Mapping[str, int], files: Sequence[Path]) -> None:
    """Print the best and worst, the counts and where the files are, on standard error."""
    tell = Reporter()
    ranking = Ranking(run)
    failed = {status: number for status, number in counts.items() if status != "ok"}
    if ranking.scored and counts.get("ok"):
        if tell.shows_tables:
            rows = ranking.rows(top=ENDS, bottom=ENDS)
            print_table(make_console(stderr=True), _columns(ranking), _cells(rows, ranking))
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
    """Warn of a ranking that says nothing because all faces have the same score."""
    quality = ranking.only_quality()
    if quality is not None:
        Reporter().warn(
            f"all faces have the same quality, {quality:.6g}; the ranking says nothing. "
            "Take another method or model."
        )


def print_calibration(calibration: Calibration) -> None:
    """Print what thresholds do to people that did not choose them, on standard error."""
    tell = Reporter()
    counts = calibration.counts
    tell.message(
        f"{counts['choosing_people']:,} people ({counts['choosing_faces']:,} faces) choose; all "
        f"figures are of the other {counts['other_people']:,} ({counts['other_faces']:,} faces); "
        "intervals of 95 %"
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
    """Return a console whose lines are not broken."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _columns(ranking: Ranking) -> list[Column]:
    """Return the columns of a table of a ranking."""
    scores = [
        Column("rank", right=True),
        Column("quality", right=True),
        Column("of 100", right=True, drop=2),
        Column("percentile", right=True, drop=3),
    ]
    # in a run that predicts scores, rows say which of them were measured
    if ranking.run.content["settings"].get("preset") == "instant":
        scores.append(Column("preset", right=True, drop=6))
    faces = [Column("face px", right=True, drop=4), Column("confidence", right=True, drop=5)]
    return [*(scores if ranking.scored else []), *faces, PATH]


def _cells(
    rows: Sequence[Mapping[str, Any]], ranking: Ranking, previous: int = 0, rank_width: int = 0
) -> list[list[Cell]]:
    """Return the cells of a ranking's rows; a gap in the ranks shows as a row of dots.

    Args:
        rows: the rows.
        ranking: where they come from.
        previous: the rank before them.
        rank_width: smallest width of ranks.
    """
    columns = _columns(ranking)
    cells = []
    for row in rows:
        if ranking.scored and row["rank"] and previous and row["rank"] > previous + 1:
            cells.append([Cell("..."), *[Cell("")] * (len(columns) - 1)])
        previous = row.get("rank") or previous
        name = row["path"] if row["face"] is None else f"{row['path']} [{row['face']}]"
        remark = "" if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        texts = {"face px": _number(row["face_px"], 0), "confidence": _number(row["confidence"], 3)}
        if ranking.scored:
            texts |= {
                "rank": str(row["rank"] or "").rjust(rank_width),
                "quality": _number(row["quality"], 4),
                "of 100": _number(row["quality_100"], 0),
                "percentile": _number(row["percentile"], 1),
                "preset": row["preset"] or "",
            }
        cells.append(
            [
                *(Cell(texts[column.name]) for column in columns[:-1]),
                Cell(printable(name), printable(remark)),
            ]
        )
    return cells


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
        Column("moved", right=True),
        Column("percentile", right=True, drop=1),
        Column("then", right=True, drop=1),
        Column("quality", right=True, drop=2),
        Column("then", right=True, drop=2),
        PATH,
    ]
    rows = []
    for row in movers:
        moved = row["path_b"] != row["path"]
        remark = f"in the second run {row['path_b']}" if moved else ""
        numbers = [
            f"{row['shift']:+.1f}",
            *(_number(row[f"percentile_{run}"], 1) for run in "ab"),
            *(_number(row[f"quality_{run}"], 4) for run in "ab"),
        ]
        path = Cell(printable(f"{row['path']} [{row['face']}]"), printable(remark))
        rows.append([*map(Cell, numbers), path])
    print_table(console, columns, rows)


def print_groups(summaries: Sequence[GroupSummary], by: str, below: float | None) -> None:
    """Print summaries of groups on standard output, one row each."""
    columns = [
        Column(by, least=12, is_path=True),
        Column("faces", right=True),
        Column("unscored", right=True, drop=4),
        Column("mean", right=True, drop=3),
        Column("5 %", right=True, drop=5),
        Column("25 %", right=True, drop=6),
        Column("median", right=True),
        Column("75 %", right=True, drop=6),
        Column("95 %", right=True, drop=5),
    ]
    if below is not None:
        columns += [
            Column(f"below {exact_text(below)}", right=True),
            Column("95 % interval", right=True, drop=1),
            Column("against others", right=True, drop=2),
            Column("95 % interval", right=True, drop=2),
        ]
    rows = []
    for item in summaries:
        values = (item.mean, item.q05, item.q25, item.median, item.q75, item.q95)
        texts = [f"{item.faces:,}", f"{item.unscored:,}", *(_number(value, 3) for value in values)]
        if below is not None:
            texts += [
                _percent(item.share),
                _interval(item.share_low, item.share_high),
                _percent(item.difference, sign="+"),
                _interval(item.difference_low, item.difference_high, sign="+"),
            ]
        group = "(none)" if item.group is None else printable(item.group)
        rows.append([Cell(group), *map(Cell, texts)])
    print_table(make_console(stderr=False), columns, rows)


def _percent(share: float | None, sign: str = "") -> str:
    return "" if share is None else f"{100 * share:{sign}.1f} %"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"{100 * low:{sign}.1f} .. {100 * high:{sign}.1f}"
