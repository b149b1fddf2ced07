"""What `rank` does: print or export a ranking, a comparison, or summaries of groups."""

from __future__ import annotations

from collections.abc import Sequence

import click

from faceqan_toolkit.cli.show import (
    print_comparison,
    print_groups,
    print_ranking,
    warn_of_one_quality,
)
from faceqan_toolkit.comparing import RunComparison
from faceqan_toolkit.errors import RunError
from faceqan_toolkit.grouping import Grouping, export, summarise
from faceqan_toolkit.ranking import Ranking
from faceqan_toolkit.runs import RunInfo

MOVERS = 10


def rank(run: RunInfo, top: int | None, bottom: int | None, formats: Sequence[str]) -> None:
    """Print a ranking, or write it to files and print their names."""
    ranking = Ranking(run)
    if not ranking.scored and (top is not None or bottom is not None or "pickle" in formats):
        raise RunError(run.no_scores)
    warn_of_one_quality(ranking)
    for file_format in formats:
        name = "results.pkl" if file_format == "pickle" else f"{ranking.name}.{file_format}"
        ranking.export(run.folder / name, file_format, top=top, bottom=bottom)
        click.echo(run.folder / name)
    if not formats:
        print_ranking(ranking, top, bottom)


def compare(first: RunInfo, second: RunInfo, top: int | None, formats: Sequence[str]) -> None:
    """Print how two runs differ, or write all common faces to files and print their names."""
    comparison = RunComparison(first, second)
    for file_format in formats:
        target = second.folder / f"comparison.{file_format}"
        comparison.export(target, file_format, number=top)
        click.echo(target)
    if not formats:
        print_comparison(*comparison.summary(top or MOVERS))


def group(run: RunInfo, grouping: Grouping, below: float | None, formats: Sequence[str]) -> None:
    """Print summaries of groups, or write them to files and print their names."""
    run.check_threshold(below)
    summaries = summarise(run, grouping, below=below)
    for file_format in formats:
        target = run.folder / f"groups.{file_format}"
        export(summaries, target, file_format)
        click.echo(target)
    if not formats:
        print_groups(summaries, grouping.by, below)
