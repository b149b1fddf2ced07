"""Commands that make a run: align-and-score, detect, align, score and merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.reporter import NO_PHOTOS, Reporter, code_for, fail_on_option

if TYPE_CHECKING:
    from faceqan_toolkit.api import Run

JOB_OPTIONS = ("formats", "retry_failed", "shard", "every", "image_column", "report", "redact",
               "calibration")  # fmt: skip
"""Options that are arguments of `api.run`; the others are settings."""


@click.command("align-and-score", cls=Command, example="align-and-score photos/ -o run")
@options.photos_argument
@options.run_options
@options.crops_option
@options.report_option
@options.calibration_option
@options.like_published_option
@options.detection_options
@options.alignment_options
@options.quality_options
@options.hints_option
def align_and_score(photos: tuple[str, ...], **chosen: Any) -> None:
    """Detect, align, score and rank the faces of raw PHOTOS.

    PHOTOS are folders (searched recursively), files, archives (.tar, .parquet, .rec) and videos,
    glob patterns, URLs, @list.txt (a file of these), or - (these from standard input).

    The same command continues where it stopped, and adds new photos.
    """
    run_job("align-and-score", photos, **chosen)


@click.command("detect", cls=Command, example="detect photos/ -o run")
@options.photos_argument
@options.run_options
@options.detection_options
def detect(photos: tuple[str, ...], **chosen: Any) -> None:
    """Find the faces of PHOTOS and write boxes and landmarks to RUN/faces.csv.

    That file is one `align-and-score --landmarks` reads. PHOTOS as for align-and-score.
    """
    run_job("detect", photos, **chosen)


@click.command("align", cls=Command, example="align photos/ -o run")
@options.photos_argument
@options.run_options
@options.like_published_option
@options.detection_options
@options.alignment_options
@options.template_options
def align(photos: tuple[str, ...], **chosen: Any) -> None:
    """Write the aligned crops of PHOTOS to RUN/crops, their faces to RUN/faces.csv.

    PHOTOS as for align-and-score.
    """
    run_job("align", photos, **chosen)


@click.command("score", cls=Command, example="score crops/ -o run")
@click.argument("crops", nargs=-1, required=True)
@options.run_options
@options.report_option
@options.calibration_option
@options.like_published_option
@options.quality_options
@options.hints_option
def score(crops: tuple[str, ...], **chosen: Any) -> None:
    """Score and rank CROPS that are aligned already.

    They must have the template and size of the model (`models show`), mostly ArcFace and 112x112.

    CROPS are given as PHOTOS are to align-and-score. Crops of another size are resized, but not
    aligned again; a warning says how many.
    """
    run_job("score", crops, **chosen)


@click.command("merge", cls=Command, example="merge run1 run2 -o run")
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@click.option("-o", "--output", type=options.FOLDER, required=True, metavar="RUN",
              help="Folder of the merged run; one of the same merge is continued.")  # fmt: skip
@options.format_option
@fail_on_option
@options.report_option
def merge(runs: tuple[Path, ...], output: Path, **chosen: Any) -> None:
    """Merge RUNS of the same model and settings, for instance shards, into a new run.

    The given runs are not changed; their crops and records are hard-linked if possible, else
    copied. If several runs have the same photo, the last one without a failure is used. The same
    command continues after an interruption, and adds what is new in the given runs.
    """
    from faceqan_toolkit import api

    reporter = Reporter()
    _finish(api.merge(runs, output, **chosen, progress=reporter), reporter)


def run_job(task: str, inputs: Sequence[str], *, output: Path, **chosen: Any) -> None:
    """Call `api.run` with the options of a command, and show the result.

    `chosen` are other arguments of `api.run`, and settings, see `options.make_settings`.
    """
    from faceqan_toolkit import api

    job = {name: chosen.pop(name) for name in JOB_OPTIONS if name in chosen}
    settings, reporter = options.make_settings(task, **chosen), Reporter()
    _finish(api.run(inputs, output, settings, progress=reporter, **job), reporter)


def _finish(run: Run, reporter: Reporter) -> None:
    """Show a run's results and the files they are in, and exit with the code for its failures."""
    from faceqan_toolkit.cli.show import print_summary
    from faceqan_toolkit.photos import find

    counts = run.counts()
    print_summary(run, counts, reporter.files)
    if reporter.no_photos:
        reporter.exit(NO_PHOTOS, find.NO_PHOTOS)
    failed = {status: number for status, number in counts.items() if status != "ok"}
    if failed:
        what = ", ".join(f"{number:,} {status}" for status, number in failed.items())
        text = (
            f"the run is complete, but some photos or faces have no result ({what}); columns "
            "status and reason say why."
        )
        if code := code_for(sum(failed.values()), sum(counts.values())):
            reporter.exit(code, text)
        reporter.note(text)
