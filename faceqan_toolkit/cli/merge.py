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
    metavar="RUN", help="Folder of the merged run; one of the same merge is continued.",
)  # fmt: skip
@options.format_option
@fail_on_option
@options.report_option
def command(
    runs: tuple[Path, ...], output: Path, formats: tuple[str, ...], report: bool, redact: bool
) -> None:
    """Merge RUNS of the same model and settings, for instance shards, into a new run.

    The given runs are not changed; their crops and records are hard-linked if possible, else
    copied. If several runs have the same photo, the last one without a failure is used. The same
    command continues after an interruption, and adds what is new in the given runs.
    """
    from faceqan_toolkit import api
    from faceqan_toolkit.cli.reporter import Reporter
    from faceqan_toolkit.cli.run_job import finish

    reporter = Reporter()
    merged = api.merge(
        runs, output, formats=formats, report=report, redact=redact, progress=reporter
    )
    finish(merged, reporter)
