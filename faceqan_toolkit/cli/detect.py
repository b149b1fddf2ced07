"""`faceqan-toolkit detect`."""

from __future__ import annotations

from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.exit_codes import fail_on_option


@click.command("detect", cls=Command, example="detect photos/ -o run")
@options.photos_argument
@options.run_options
@fail_on_option
@options.detection_options
def command(photos: tuple[str, ...], **chosen: Any) -> None:
    """Find the faces of PHOTOS and write boxes and landmarks to RUN/faces.csv.

    That file is one `align-and-score --landmarks` reads. PHOTOS as for align-and-score.
    """
    from faceqan_toolkit.cli.run_job import run_job

    run_job("detect", photos, **chosen)
