"""Commands that make a run: options to settings, the job, its result, the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from faceqan_toolkit import api
from faceqan_toolkit.cli import SOME_FAILED
from faceqan_toolkit.cli.options import make_settings
from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.cli.show import print_summary

JOB_OPTIONS = ("formats", "retry_failed", "shard", "every", "image_column", "report", "redact",
               "calibration")  # fmt: skip


def run_job(task: str, inputs: Sequence[str], *, output: Path, **chosen: Any) -> None:
    """Process photos into a run folder and exit with 0, or 3 if some have no result.

    Args:
        task: one of `settings.TASKS`.
        inputs, output: see `api.run`.
        chosen: its other arguments, and the settings, see `options.make_settings`.

    Raises:
        FaceQANError: whatever stops the run; what was recorded until then is kept.
    """
    job = {name: chosen.pop(name) for name in JOB_OPTIONS if name in chosen}
    settings = make_settings(task, **chosen)
    reporter = Reporter()
    run = api.run(inputs, output, settings, progress=reporter, **job)
    finish(run, reporter.files)


def finish(run: api.Run, files: Sequence[Path]) -> None:
    """Show the results and the files they are in; exit with 3 if something has no result."""
    print_summary(run, run.counts(), files)
    if set(run.counts()) - {"ok"}:
        raise click.exceptions.Exit(SOME_FAILED)
