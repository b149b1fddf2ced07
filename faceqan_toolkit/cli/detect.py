"""`faceqan-toolkit detect`."""

from __future__ import annotations

from typing import Any

import click

from faceqan_toolkit.cli import options


@click.command("detect")
@options.photos_argument
@options.run_options
@options.detection_options
def command(photos: tuple[str, ...], **chosen: Any) -> None:
    """Find the faces of PHOTOS and write boxes and landmarks to RUN/faces.csv.

    That file is one `align-and-score --landmarks` reads. PHOTOS as for align-and-score.
    """
    from faceqan_toolkit.cli.run_job import run_job

    run_job("detect", photos, **chosen)
