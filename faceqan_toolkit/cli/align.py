"""`faceqan-toolkit align`."""

from __future__ import annotations

from typing import Any

import click

from faceqan_toolkit.cli import options


@click.command("align")
@options.photos_argument
@options.run_options
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
