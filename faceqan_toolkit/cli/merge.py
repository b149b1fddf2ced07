"""`faceqan-toolkit merge`."""

from __future__ import annotations

from pathlib import Path

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.exit_codes import fail_on_option


@click.command("merge", cls=Command, example="merge run1 run2 -o run")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
    metavar="RUN", help="New run folder, or that of the same merge before.",
)  # fmt: skip
@options.format_option
@fail_on_option
@options.report_option
def command(
    runs: tuple[Path, ...], output: Path, formats: tuple[str, ...], report: bool, redact: bool
) -> None:
    """Join RUNS of the same model and settings, shards for instance, into a new one.

    The runs stay as they are; their crops and records are linked where they can be, else copied.
    Of a photo that several have, the run named last counts, if it has no failure there. The same
    command again goes on after an interruption, and takes in what the runs have got since.
    """
    from faceqan_toolkit import api
    from faceqan_toolkit.cli.reporter import Reporter
    from faceqan_toolkit.cli.run_job import finish

    reporter = Reporter()
    merged = api.merge(
        runs, output, formats=formats, report=report, redact=redact, progress=reporter
    )
    finish(merged, reporter)
