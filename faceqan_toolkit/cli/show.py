"""Rankings and summaries as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faceqan_toolkit.ranking import Ranking
from faceqan_toolkit.runs import RunInfo

ENDS = 5
"""Rows shown from either end of a ranking."""


def print_rows(rows: Sequence[Mapping[str, Any]], *, scored: bool) -> None:
    """Print rows on standard output, one line each."""
    _console(stderr=False).print(_table(rows, scored=scored))


def print_summary(run: RunInfo, counts: Mapping[str, int], files: Sequence[Path]) -> None:
    """Print the best and worst, the counts and where the files are, on standard error."""
    console = _console(stderr=True)
    ranking = Ranking(run)
    failed = {status: number for status, number in counts.items() if status != "ok"}
    if ranking.scored and counts.get("ok"):
        rows = ranking.rows(top=ENDS, bottom=ENDS)
        console.print(_table(rows, scored=True))
        console.print(
            "Quality: higher is better, 1 at most. Compare it only with scores of the same model "
            f"and settings (fingerprint {run.content['fingerprint']})."
        )
    if resized := ranking.resized():
        console.print(
            f"Warning: {resized:,} crops were not of the model's size and were resized; resizing "
            "aligns nothing. Use align-and-score for raw photos.",
            style="yellow",
        )
    console.print("Rows: " + ", ".join(f"{n:,} {status}" for status, n in counts.items()))
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


def _console(*, stderr: bool) -> Console:
    """Return a console; a pipe has no width, so every row has the line it needs."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 1000
    return console


def _table(rows: Sequence[Mapping[str, Any]], *, scored: bool) -> Table:
    """Return a table of rankings' rows; a gap in the ranks shows as a line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ["rank", "quality", "of 100", "percentile"] if scored else []
    # the row says which scores were measured and which predicted
    mixed = any(row.get("preset") == "instant" for row in rows)
    names += ["preset"] if mixed else []
    for name in (*names, "face px", "confidence"):
        table.add_column(name, justify="right")
    table.add_column("path [face]".replace("[", r"\["), overflow="fold")
    previous = 0
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
        table.add_row(*cells, Text(name))
    return table


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
