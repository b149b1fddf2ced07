"""`faceqan-toolkit rank`."""

from __future__ import annotations

from pathlib import Path

import click

from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.options import group_options
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.settings import FORMATS


@click.command("rank", cls=Command, example="rank run --bottom 20")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("other", metavar="[RUN_B]", required=False, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Show the best N only.")
@click.option(
    "--bottom", type=click.IntRange(min=1), metavar="N", help="Show the worst N with a score only."
)
@group_options
@click.option(
    "--below",
    type=float,
    metavar="Q",
    help="With --group-by: show the share of faces below this quality, with its interval.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice([*FORMATS, "pickle"]),
    multiple=True,
    help="Write RUN/rankings.FORMAT instead of printing a table; may be repeated. Groups go to "
    "RUN/groups.FORMAT, a comparison to RUN_B/comparison.FORMAT. With --top or --bottom, print the "
    "rows in this format. pickle: the published code's results.pkl, {path: quality}.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to this file; needs one --format.",
)
def command(
    run: Path,
    other: Path | None,
    top: int | None,
    bottom: int | None,
    group_by: str | None,
    groups: Path | None,
    below: float | None,
    formats: tuple[str, ...],
    output: Path | None,
) -> None:
    """Print the ranking of a RUN, summarise it by groups, or export it.

    With RUN_B: compare two runs of the same photos by the same model. --top N then shows the N
    faces whose percentile differs most.
    """
    from faceqan_toolkit.api import open_run
    from faceqan_toolkit.cli import rank_job
    from faceqan_toolkit.cli.export import Exports
    from faceqan_toolkit.results.groups import Grouping

    if group_by is None and (groups is not None or below is not None):
        raise SettingsError("--groups and --below go with --group-by")
    if "pickle" in formats and (other or group_by):
        raise SettingsError("--format pickle is for a ranking alone")
    exports = Exports(formats, output, some_rows=top is not None or bottom is not None)
    if other is not None:
        if bottom is not None or group_by is not None:
            raise SettingsError("two runs are compared without --bottom and --group-by")
        rank_job.compare(open_run(run), open_run(other), top, exports)
    elif group_by is not None:
        if top is not None or bottom is not None:
            raise SettingsError("--group-by shows all groups; leave --top and --bottom out")
        rank_job.group(open_run(run), Grouping(group_by, groups), below, exports)
    else:
        rank_job.rank(open_run(run), top, bottom, exports)
