"""`faceqan-toolkit align-and-score`."""

from __future__ import annotations

from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.exit_codes import fail_on_option


@click.command("align-and-score", cls=Command, example="align-and-score photos/ -o run")
@options.photos_argument
@options.run_options
@fail_on_option
@options.crops_option
@options.report_option
@options.calibration_option
@options.like_published_option
@options.detection_options
@options.alignment_options
@options.quality_options
@options.hints_option
def command(photos: tuple[str, ...], **chosen: Any) -> None:
    """Detect, align, score and rank the faces of raw PHOTOS.

    PHOTOS are folders (searched recursively), files, archives (.tar, .parquet, .rec) and videos,
    glob patterns, URLs, @list.txt (a file of these), or - (these from standard input).

    The same command continues where it stopped, and adds new photos.
    """
    from faceqan_toolkit.cli.run_job import run_job

    run_job("align-and-score", photos, **chosen)
