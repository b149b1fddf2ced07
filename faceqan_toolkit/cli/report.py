"""`faceqan-toolkit report`."""

from __future__ import annotations

from pathlib import Path

import click

from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.options import fetch_option, group_options
from faceqan_toolkit.errors import SettingsError


@click.command("report", cls=Command, example="report run --redact -o public.html")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="HTML file to write.",
    show_default="RUN/report.html",
)
@click.option(
    "--photos/--no-photos",
    default=True,
    show_default=True,
    help="Show photos beside the crops.",
)
@click.option("--redact", is_flag=True, help="Omit all pictures: show scores and names only.")
@fetch_option
@group_options
@click.option(
    "--below",
    type=float,
    metavar="Q",
    help="Threshold that the page opens with; it can be changed there.",
)
def command(
    run: Path,
    output: Path | None,
    photos: bool,
    redact: bool,
    fetch: bool,
    group_by: str | None,
    groups: Path | None,
    below: float | None,
) -> None:
    """Write the HTML report of a RUN: scores, crops, threshold, failures.

    It works offline. If there are more than 200 rows, pictures are in a folder beside it,
    report-files.
    """
    from faceqan_toolkit.api import open_run
    from faceqan_toolkit.cli.reporter import Reporter

    if group_by is None and groups is not None:
        raise SettingsError("--groups goes with --group-by")
    report = open_run(run).report(
        output, pictures=not redact, photos=photos, group_by=group_by, groups=groups, below=below,
        fetch=fetch,
    )  # fmt: skip
    click.echo(report.file)
    if report.folder:
        Reporter().message(f"Its pictures are in {report.folder}; keep them together.")
