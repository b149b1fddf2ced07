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
    """Score CROPS that are aligned already and rank them.

    They must be cut as the model wants them (`models show`): 112x112, ArcFace template, mostly.

    CROPS are given as PHOTOS are to align-and-score. Pictures of another size are resized, which
    aligns nothing: a warning says how many were.
    """
    from faceqan_toolkit.cli.run_job import run_job

    run_job("score", crops, **chosen)
