"""`faceqan-toolkit calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.reporter import Reporter


@click.command("calibrate", cls=Command, example="calibrate run --target-fnmr 0.01")
@options.run_argument
@click.option("-o", "--output", type=options.FILE, metavar="FILE",
              show_default="RUN/calibration.json", help="Calibration file to write.")  # fmt: skip
@click.option(
    "--target-fnmr", type=float, multiple=True, metavar="F",
    help="Find the threshold for this false non-match rate, e.g. 0.01; may be repeated.",
)  # fmt: skip
@click.option("--target-discard", type=float, multiple=True, metavar="S",
              help="Find the threshold that discards this share of faces, e.g. 0.1; may be "
              "repeated.")  # fmt: skip
@click.option("--fmr", type=float, default=1e-3, show_default=True, metavar="M",
              help="False match rate at which false non-matches are counted.")  # fmt: skip
@click.option("--pairs", type=options.FILE, metavar="FILE", show_default="all with all",
              help="CSV file of comparisons: columns a, b (paths as in rankings) and label (1 or "
              "0).")  # fmt: skip
@options.identity_option
@click.option("--embeddings", type=options.FILE, metavar="FILE",
              show_default="the run's model, of the run's crops",
              help="Embeddings by photo path, as .npz or parquet.")  # fmt: skip
@click.option("--seed", type=options.WHOLE, default=0, show_default=True,
              help="Random seed of the split of people and of the intervals.")  # fmt: skip
@click.option(
    "--model", metavar="package.module:factory",
    help="The model's code, which is run; needed for a RUN whose model is code.",
)  # fmt: skip
@options.fetch_option
@options.device_option
def command(run: Path, output: Path | None, **chosen: Any) -> None:
    """Find quality thresholds and a 0..100 scale from a RUN over labelled people.

    Thresholds are fitted on half of the people; error rates and their intervals are measured on
    the other half. Use the file with --calibration of `filter` and `align-and-score`, for the same
    model and settings. Exit code 1: not enough data for a --target-fnmr.
    """
    from faceqan_toolkit.api import open_run
    from faceqan_toolkit.cli.show import print_calibration

    target = output or run / "calibration.json"
    print_calibration(open_run(run).calibrate(target, **chosen, progress=Reporter()))
    click.echo(target)
