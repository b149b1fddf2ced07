"""`faceqan-toolkit rank`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import check_replaceable
from faceqan_toolkit.settings import FORMATS

MOVERS = 10
"""Faces that a comparison of two runs shows by default."""

HEADS = {
    "csv": (b"rank,", b"path,", b"group,"),
    "jsonl": (b'{"rank":', b'{"path":', b'{"group":'),
    "parquet": (b"PAR1",),
    "pickle": (b"\x80",),
}
"""First bytes of the files this tool writes, by format."""

TEXT_FORMATS = ("csv", "jsonl")
WHOLE_RESULTS = ("rankings", "faces", "results", "comparison")
"""Stems of the files in a run folder that hold every row."""


@click.command("rank", cls=Command, example="rank run --bottom 20")
@options.run_argument
@click.argument("other", metavar="[RUN_B]", required=False, type=options.PATH)
@click.option("--top", type=options.COUNT, metavar="N", help="Show the best N only.")
@click.option("--bottom", type=options.COUNT, metavar="N",
              help="Show the worst N with a score only.")  # fmt: skip
@options.group_options
@click.option("--below", type=float, metavar="Q",
              help="With --group-by: show the share of faces below this quality, with its "
              "interval.")  # fmt: skip
@click.option(
    "--format", "formats", type=click.Choice([*FORMATS, "pickle"]), multiple=True,
    help="Write RUN/rankings.FORMAT instead of printing a table; may be repeated. Groups go to "
    "RUN/groups.FORMAT, a comparison to RUN_B/comparison.FORMAT. With --top or --bottom, print the "
    "rows in this format. pickle: the published code's results.pkl, {path: quality}.",
)  # fmt: skip
@click.option("-o", "--output", type=options.FILE, metavar="FILE",
              help="Write to this file; needs one --format.")  # fmt: skip
def command(
    run: Path, other: Path | None, top: int | None, bottom: int | None, group_by: str | None,
    groups: Path | None, below: float | None, formats: tuple[str, ...], output: Path | None,
) -> None:  # fmt: skip
    """Print the ranking of a RUN, summarise it by groups, or export it.

    With RUN_B: compare two runs of the same photos by the same model. --top N then shows the N
    faces whose percentile differs most.
    """
    from faceqan_toolkit.api import open_run

    if group_by is None and (groups is not None or below is not None):
        raise SettingsError("--groups and --below go with --group-by")
    if "pickle" in formats and (other or group_by):
        raise SettingsError("--format pickle is for a ranking alone")
    exports = _Exports(formats, output, some_rows=top is not None or bottom is not None)
    if other is not None:
        if bottom is not None or group_by is not None:
            raise SettingsError("two runs are compared without --bottom and --group-by")
        _compare(run, other, top, exports)
    elif group_by is not None:
        if exports.some_rows:
            raise SettingsError("--group-by shows all groups; leave --top and --bottom out")
        _group(run, group_by, groups, below, exports)
    else:
        from faceqan_toolkit.cli.show import print_ranking, warn_of_one_quality

        ranking = open_run(run).ranking()
        if not ranking.scored and (exports.some_rows or "pickle" in formats):
            raise RunError(ranking.run.no_scores)
        warn_of_one_quality(ranking)
        if formats:
            total = sum(ranking.counts().values())
            exports.write(partial(ranking.export, top=top, bottom=bottom), run, ranking.name, total)
        else:
            print_ranking(ranking, top, bottom)


def _compare(first: Path, second: Path, top: int | None, exports: _Exports) -> None:
    """Print how two runs differ, or export all common faces, or the `top` that moved most."""
    from faceqan_toolkit.api import open_run
    from faceqan_toolkit.cli.show import print_comparison
    from faceqan_toolkit.results.comparison import RunComparison

    comparison = RunComparison(open_run(first), open_run(second))
    if exports.formats:
        total = comparison.summary()[0].common
        exports.write(partial(comparison.export, number=top), second, "comparison", total)
    else:
        print_comparison(*comparison.summary(top or MOVERS))


def _group(
    folder: Path, by: str, groups: Path | None, below: float | None, exports: _Exports
) -> None:
    """Print summaries of groups, or export them."""
    from faceqan_toolkit.api import open_run
    from faceqan_toolkit.cli.show import print_groups
    from faceqan_toolkit.results.groups import Grouping, export, summarise

    run = open_run(folder)
    run.check_threshold(below)
    summaries = summarise(run, Grouping(by, groups), below=below)
    if exports.formats:
        exports.write(partial(export, summaries), folder, "groups", len(summaries))
    else:
        print_groups(summaries, by, below)


@dataclass(frozen=True)
class _Exports:
    """The files to write, by the options; SettingsError if they contradict each other.

    All rows go to the run folder, or to `output`. Some of the rows go to `output`, or to standard
    output: a file in the run folder always holds every row.
    """

    formats: Sequence[str]
    output: Path | None
    some_rows: bool

    def __post_init__(self) -> None:
        if self.output is not None and len(self.formats) != 1:
            raise SettingsError("-o FILE takes one --format")
        printed = self.formats and self.output is None and self.some_rows
        if printed and (len(self.formats) > 1 or self.formats[0] not in TEXT_FORMATS):
            raise SettingsError(
                "--top and --bottom choose some of the rows, which replace no file of the run: "
                f"give -o FILE, or one --format of {' and '.join(TEXT_FORMATS)} to print them"
            )

    def write(
        self, export: Callable[[Path, str], int], folder: Path, name: str, total: int
    ) -> None:
        """Write the rows in each format and print the files' names, or print the rows.

        `export` writes the wanted rows of `total` to a file in a format and returns their number;
        `name` is the stem of the file for all rows in the run folder.
        """
        for file_format in self.formats:
            if self.output is not None:
                self._check(self.output, file_format)
                rows = export(self.output, file_format)
                click.echo(self.output)
            elif self.some_rows:
                with tempfile.TemporaryDirectory() as temporary:
                    rows = export(Path(temporary) / "rows", file_format)
                    with (Path(temporary) / "rows").open("rb") as file:
                        shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.flush()
            else:
                whole = "results.pkl" if file_format == "pickle" else f"{name}.{file_format}"
                export(folder / whole, file_format)
                click.echo(folder / whole)
                continue
            Reporter().message(f"{rows:,} of {total:,} rows")

    def _check(self, output: Path, file_format: str) -> None:
        in_run = (output.parent / "run.json").exists() and output.stem in WHOLE_RESULTS
        if self.some_rows and in_run:
            raise RunError(
                f"{output} is the run's own file and holds every row; choose another name"
            )
        kind, heads = f"{file_format} of this tool", HEADS[file_format]
        check_replaceable(output, lambda head: head.startswith(heads), kind)
