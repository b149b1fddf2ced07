"""`faceqan-toolkit explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceqan_toolkit.cli import config, options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.reporter import NO_PHOTOS, SOME_FAILED, Reporter

if TYPE_CHECKING:
    from faceqan_toolkit.settings import Settings

ENDS = 12
"""Faces of either end of a run that a contact sheet shows by default."""


@click.command("explain", cls=Command, example="explain photo.jpg -o why")
@options.photos_argument
@click.option("-o", "--output", type=options.FOLDER, required=True, metavar="DIR",
              help="Folder to write to; files of an earlier explanation are replaced.")  # fmt: skip
@click.option("--worst", type=options.WHOLE, metavar="N", show_default="12",
              help="For a RUN: number of its worst faces to show.")  # fmt: skip
@click.option("--best", type=options.WHOLE, metavar="N", show_default="12",
              help="For a RUN: number of its best faces to show.")  # fmt: skip
@options.archive_options
@options.fetch_option
@options.machine_options
@options.like_published_option
@options.detection_options
@options.alignment_options
@options.quality_options
def command(
    photos: tuple[str, ...], output: Path, worst: int | None, best: int | None, fetch: bool,
    every: str, image_column: str, **chosen: Any,
) -> None:  # fmt: skip
    """Show why faces have their scores: noise, similarity, symmetry, hints.

    For PHOTOS, given as for align-and-score: write a PNG and a JSON file for each face. For one RUN
    folder: write contact_sheet.png with its worst and best faces, by the run's own settings.
    """
    if len(photos) == 1 and (Path(photos[0]) / "run.json").is_file():
        # of the settings, only the model may be given
        allowed = ("photos", "output", "worst", "best", "device", "model", "fetch")
        if given := config.typed_options(*allowed):
            raise click.UsageError(
                f"{given[0]} cannot be given with a run folder, which has its own settings"
            )
        if worst == best == 0:
            raise click.UsageError("--worst 0 --best 0 leaves nothing to show")
        model = chosen["model"] if options.is_given("model") else None
        ends = {name: ENDS if n is None else n for name, n in (("worst", worst), ("best", best))}
        _explain_run(
            Path(photos[0]), output, **ends, device=chosen["device"], model=model, fetch=fetch
        )
    elif worst is not None or best is not None or fetch:
        raise click.UsageError("--worst, --best and --fetch are for a run folder, given alone")
    else:
        settings = options.make_settings("align-and-score", **chosen)
        _explain_photos(photos, every, image_column, output, settings)


def _explain_run(folder: Path, output: Path, **chosen: Any) -> None:
    from faceqan_toolkit.explain.explanation import write_contact_sheet
    from faceqan_toolkit.runs.folder import read_run

    target, lost = write_contact_sheet(read_run(folder), output, **chosen)
    click.echo(target)
    if lost:
        faces = f"{lost} face is" if lost == 1 else f"{lost} faces are"
        Reporter().exit(SOME_FAILED, f"{faces} not shown: crop and photo are gone or changed")


def _explain_photos(
    photos: tuple[str, ...], every: str, image_column: str, output: Path, settings: Settings
) -> None:
    from faceqan_toolkit.explain.explanation import Explainer, write_explanation
    from faceqan_toolkit.photos import find
    from faceqan_toolkit.photos.video import parse_every

    archives = find.ArchiveOptions(parse_every(every), image_column)
    explainer, tell = Explainer(settings), Reporter()
    found = failed = 0
    for source in find.find_photos(photos, options=archives):
        found += 1
        for explanation in explainer.explain(source):
            for file in write_explanation(explanation, explainer, output):
                click.echo(file)
            if explanation.failed:
                failed += 1
                record = explanation.record
                tell.warn(f"{record.path}: {record.status}: {record.reason}")
    if not found:
        tell.exit(NO_PHOTOS, find.NO_PHOTOS)
    if failed:
        tell.exit(SOME_FAILED, f"{failed} without a score; their JSON files say why.")
