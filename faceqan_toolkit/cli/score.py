"""`faceqan-toolkit score`."""

from __future__ import annotations

from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.exit_codes import fail_on_option


@click.command("score", cls=Command, example="score crops/ -o run")
@click.argument("crops", nargs=-1, required=True)
@options.run_options
@fail_on_option
@options.report_option
@options.calibration_option
@options.like_published_option
@options.quality_options
@options.hints_option
def command(crops: tuple[str, ...], **chosen: Any) -> None:
    """Score and rank CROPS that are aligned already.

    They must have the template and size of the model (`models show`), mostly ArcFace and 112x112.

    CROPS are given as PHOTOS are to align-and-score. Crops of another size are resized, but not
    aligned again; a warning says how many.
    """
    from faceqan_toolkit.cli.run_job import run_job

    run_job("score", crops, **chosen)
