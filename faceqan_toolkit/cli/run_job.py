"""Commands that make a run: options to settings, the job, its result, the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faceqan_toolkit import api
from faceqan_toolkit.cli.exit_codes import NO_PHOTOS, code_for
from faceqan_toolkit.cli.options import make_settings
from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.cli.show import print_summary
from faceqan_toolkit.photos import find

JOB_OPTIONS = ("formats", "retry_failed", "shard", "every", "image_column", "report", "redact",
               "calibration")  # fmt: skip


def run_job(task: str, inputs: Sequence[str], *, output: Path, **chosen: Any) -> None:
    """Process photos into a run folder and exit; see `finish`.

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
    finish(run, reporter)


def finish(run: api.Run, reporter: Reporter) -> None:
    """Show a run's results and the files they are in, and exit as `exit_codes` says."""
    counts = run.counts()
    print_summary(run, counts, reporter.files)
    if reporter.no_photos:
        reporter.exit(NO_PHOTOS, find.NO_PHOTOS)
    total = sum(counts.values())
    failed = {status: number for status, number in counts.items() if status != "ok"}
    if not failed:
        return
    what = ", ".join(f"{number:,} {status}" for status, number in failed.items())
    text = (
        f"the run is complete, but some photos or faces have no result ({what}); columns status "
        "and reason say why."
    )
    if code := code_for(sum(failed.values()), total):
        reporter.exit(code, text)
    reporter.note(text)
