"""`faceqan-toolkit rank`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("rank")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="The best N only.")
@click.option("--bottom", type=click.IntRange(min=1), metavar="N", help="The worst scored N only.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["csv", "jsonl", "parquet", "pickle"]),
    multiple=True,
    help="Write RUN/rankings.FORMAT instead of printing; may be repeated. "
    "pickle is the published code's results.pkl, {path: quality}.",
)
def command(run: Path, top: int | None, bottom: int | None, formats: tuple[str, ...]) -> None:
    """Print the ranking of a RUN again, or export it."""
    from faceqan_toolkit.cli.show import print_rows
    from faceqan_toolkit.ranking import Ranking
    from faceqan_toolkit.runs import read_run

    ranking = Ranking(read_run(run))
    for file_format in formats:
        name = "results.pkl" if file_format == "pickle" else f"{ranking.name}.{file_format}"
        ranking.export(run / name, file_format, top=top, bottom=bottom)
        click.echo(run / name)
    if not formats:
        print_rows(ranking.rows(top=top, bottom=bottom), scored=ranking.scored)
