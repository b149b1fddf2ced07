"""`faceqan-toolkit align`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.shards import Shard


@click.command("align")
@options.photos_argument
@options.run_options
@options.like_published_option
@options.detection_options
@options.alignment_options
@options.template_options
def command(
    photos: tuple[str, ...],
    output: Path,
    formats: tuple[str, ...],
    retry_failed: bool,
    shard: Shard | None,
    **chosen: Any,
) -> None:
    """Write the aligned crops of PHOTOS to RUN/crops, their faces to RUN/faces.csv.

    PHOTOS as for align-and-score.
    """
    from faceqan_toolkit.cli.job import run_job

    archives = options.take_archives(chosen)
    settings = options.make_settings("align", **chosen)
    run_job(
        settings, photos, output, formats, archives=archives, retry_failed=retry_failed, shard=shard
    )
