"""`faceqan-toolkit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.errors import SettingsError


@click.command("report", cls=Command, example="report run --redact -o public.html")
@options.run_argument
@click.option("-o", "--output", type=options.FILE, metavar="FILE", show_default="RUN/report.html",
              help="HTML file to write.")  # fmt: skip
@click.option("--photos/--no-photos", default=True, show_default=True,
              help="Show photos beside the crops.")  # fmt: skip
@click.option("--redact", is_flag=True, help="Omit all pictures: show scores and names only.")
@options.fetch_option
@options.group_options
@click.option("--below", type=float, metavar="Q",
              help="Threshold that the page opens with; it can be changed there.")  # fmt: skip
def command(run: Path, output: Path | None, redact: bool, **chosen: Any) -> None:
    """Write the HTML report of a RUN: scores, crops, threshold, failures.

    It works offline. If there are more than 200 rows, pictures are in a folder beside it,
    report-files.
    """
    from faceqan_toolkit.api import open_run

    if chosen["group_by"] is None and chosen["groups"] is not None:
        raise SettingsError("--groups goes with --group-by")
    report = open_run(run).report(output, pictures=not redact, **chosen)
    click.echo(report.file)
    if report.folder:
        Reporter().message(f"Its pictures are in {report.folder}; keep them together.")
