"""`faceqan-toolkit filter`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.choices import BYS, MODES, SINKS, WHATS
from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.config import is_typed
from faceqan_toolkit.errors import SettingsError


@click.command("filter", cls=Command, example="filter run --keep-top 80% --mode copy --to kept")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where kept files and the manifest go; made if it is not there.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="list",
    show_default=True,
    help="Print the paths of what is kept, or place it below DIR; link is a hard link.",
)
@click.option(
    "--what",
    type=click.Choice(WHATS),
    default="photos",
    show_default=True,
    help="Photos, or the run's aligned crops.",
)
@click.option(
    "--as",
    "sink",
    type=click.Choice(SINKS),
    default="files",
    show_default=True,
    help="With copy: files as they are, or a set for training: tars, or InsightFace's train.rec.",
)
@click.option(
    "--shard-size",
    type=int,
    metavar="N",
    show_default="10000",
    help="With --as webdataset: photos in a tar.",
)
@click.option(
    "--by",
    type=click.Choice(BYS),
    default="best",
    show_default=True,
    help="Which face speaks for a photo with several: the best, the worst, or the largest.",
)
@click.option("--min-quality", type=float, metavar="Q", help="Keep from this quality on.")
@click.option(
    "--calibration",
    "calibration_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep from a quality threshold on that `calibrate` wrote to this file.",
)
@click.option(
    "--target-fnmr",
    type=float,
    metavar="F",
    help="With --calibration: the threshold for this false non-match rate.",
)
@click.option(
    "--target-discard",
    type=float,
    metavar="S",
    help="With --calibration: the threshold for this share of discarded faces.",
)
@click.option(
    "--min-percentile",
    type=float,
    metavar="P",
    help="Keep from this percentile of the run's scored faces on, 0..100.",
)
@click.option(
    "--keep-top", metavar="N|X%", help="Keep the best N, or the best X percent of the scored."
)
@click.option(
    "--per-identity",
    type=int,
    metavar="N",
    help="Keep the best N of each identity.",
)
@options.identity_option
@click.option(
    "--per-window",
    type=float,
    metavar="SECONDS",
    help="Of videos: keep the best frame in each so many seconds.",
)
@click.option(
    "--min-per-identity",
    type=int,
    metavar="N",
    help="Drop identities of which the other conditions keep fewer than N.",
)
@click.option(
    "--drop-status",
    multiple=True,
    metavar="STATUS",
    help="Drop what has this status, e.g. no_face; may be repeated. ok drops what has a score.",
)
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="CSV file of all decisions.",
    show_default="DIR/manifest.csv",
)
@click.option(
    "-0", "--null", is_flag=True, help="With list: end paths with NUL in place of a line break."
)
@options.fetch_option
@click.option(
    "--dry-run", is_flag=True, help="Print the manifest that would be written; touch nothing."
)
@click.option(
    "--undo",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="MANIFEST",
    help="Put back the files that this manifest says were moved. Copies and links stay.",
)
def command(run: Path | None, undo: Path | None, dry_run: bool, **chosen: Any) -> None:
    """Keep the photos or crops of a RUN that meet every condition given.

    Nothing is ever replaced. The same command again goes on after an interruption. Exit code 3:
    some files could not be placed; the manifest says which and why.
    """
    from faceqan_toolkit.cli import filter_job

    if undo is not None:
        _only_dry_run_with_undo(run)
        filter_job.undo(undo, dry=dry_run)
        return
    if run is None:
        raise click.UsageError("give the RUN to filter, or --undo MANIFEST")
    filter_job.run_filter(run, dry=dry_run, **chosen)


def _only_dry_run_with_undo(run: Path | None) -> None:
    """Refuse options that `--undo` would ignore."""
    given = [
        parameter.opts[0]
        for parameter in click.get_current_context().command.params
        if parameter.name not in ("run", "undo", "dry_run")
        and parameter.expose_value
        and is_typed(str(parameter.name))
    ]
    if run is not None or given:
        raise SettingsError(
            f"--undo takes the manifest alone, without {given[0] if given else 'RUN'}"
        )
