"""`faceqan-toolkit detect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.shards import Shard


@click.command("detect")
@options.photos_argument
@options.run_options
@options.detection_options
def command(
    photos: tuple[str, ...],
    output: Path,
    formats: tuple[str, ...],
    retry_failed: bool,
    shard: Shard | None,
    **chosen: Any,
) -> None:
    """Find the faces of PHOTOS and write boxes and landmarks to RUN/faces.csv.

    That file is one `align-and-score --landmarks` reads. PHOTOS as for align-and-score.
    """
    from faceqan_toolkit.cli.job import run_job

    archives = options.take_archives(chosen)
    settings = options.make_settings("detect", **chosen)
    run_job(
        settings, photos, output, formats, archives=archives, retry_failed=retry_failed, shard=shard
    )
