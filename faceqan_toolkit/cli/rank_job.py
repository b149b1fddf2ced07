"""What `rank` does: print or export a ranking, a comparison, or summaries of groups."""

from __future__ import annotations

from functools import partial

from faceqan_toolkit.cli.export import Exports
from faceqan_toolkit.cli.show import (
    print_comparison,
    print_groups,
    print_ranking,
    warn_of_one_quality,
)
from faceqan_toolkit.errors import RunError
from faceqan_toolkit.results.comparison import RunComparison
from faceqan_toolkit.results.groups import Grouping, export, summarise
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo

MOVERS = 10


def rank(run: RunInfo, top: int | None, bottom: int | None, exports: Exports) -> None:
    """Print a ranking as a table, or export it."""
    ranking = Ranking(run)
    if not ranking.scored and (exports.some_rows or "pickle" in exports.formats):
        raise RunError(run.no_scores)
    warn_of_one_quality(ranking)
    if not exports.formats:
        print_ranking(ranking, top, bottom)
        return
    total = sum(ranking.counts().values())
    for file_format in exports.formats:
        name = "results.pkl" if file_format == "pickle" else f"{ranking.name}.{file_format}"
        write = partial(ranking.export, file_format=file_format, top=top, bottom=bottom)
        exports.write(file_format, run.folder / name, total, write)


def compare(first: RunInfo, second: RunInfo, top: int | None, exports: Exports) -> None:
    """Print how two runs differ, or export all common faces, or the `top` that moved most."""
    comparison = RunComparison(first, second)
    if not exports.formats:
        print_comparison(*comparison.summary(top or MOVERS))
        return
    total = comparison.figures().common
    for file_format in exports.formats:
        write = partial(comparison.export, file_format=file_format, number=top)
        exports.write(file_format, second.folder / f"comparison.{file_format}", total, write)


def group(run: RunInfo, grouping: Grouping, below: float | None, exports: Exports) -> None:
    """Print summaries of groups, or export them."""
    run.check_threshold(below)
    summaries = summarise(run, grouping, below=below)
    for file_format in exports.formats:
        write = partial(export, summaries, file_format=file_format)
        exports.write(file_format, run.folder / f"groups.{file_format}", len(summaries), write)
    if not exports.formats:
        print_groups(summaries, grouping.by, below)
