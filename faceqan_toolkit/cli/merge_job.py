"""Merge runs from the command line: join them, write results, tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from faceqan_toolkit.cli.job import check_redact, finish, write_page, write_results
from faceqan_toolkit.results.merging import check_alike, merge
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import read_run


def merge_runs(
    folders: Sequence[Path], output: Path, formats: Sequence[str], *, report: bool, redact: bool
) -> None:
    """Merge runs and exit with 0, or 3 if some photos have no result.

    Raises:
        RunError: they cannot be merged, or not into that folder.
        SettingsError: `redact` without a report.
    """
    check_redact(report=report, redact=redact)
    runs = [read_run(folder) for folder in folders]
    check_alike(runs)
    for run in runs:
        if not _has_ended(Ranking(run)):
            click.echo(
                f"Warning: the last command on {run.folder} did not end; give it again and merge "
                "again, or photos will be missing",
                err=True,
            )
    with merge(runs, output) as merged:
        counts, files = write_results(Ranking(merged.info), formats)
        merged.write_info(counts)
        if report and Ranking(merged.info).scored:
            files.append(write_page(output, redact=redact))
    finish(output, counts, files)


def _has_ended(ranking: Ranking) -> bool:
    """Tell whether the last command on a run counted its rows; without any, wrote results."""
    counts = ranking.counts()
    results = ranking.run.folder.glob(f"{ranking.name}.*")
    return counts == ranking.run.content.get("counts") and bool(counts or any(results))
