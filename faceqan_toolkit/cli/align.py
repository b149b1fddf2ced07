"""`faceqan-toolkit align`."""

from __future__ import annotations

from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.exit_codes import fail_on_option


@click.command("align", cls=Command, example="align photos/ -o run")
@options.photos_argument
@options.run_options
@fail_on_option
@options.like_published_option
@options.detection_options
@options.alignment_options
@options.template_options
def command(photos: tuple[str, ...], **chosen: Any) -> None:
    """Write the aligned crops of PHOTOS to RUN/crops, their faces to RUN/faces.csv.

    PHOTOS as for align-and-score.
    """
    from faceqan_toolkit.cli.run_job import run_job

    run_job("align", photos, **chosen)
