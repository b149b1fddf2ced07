"""`faceqan-toolkit explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.cli import config, exit_codes, options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.photos.find import ArchiveOptions

ENDS = 12
"""Faces a contact sheet shows of either end of a run."""


OF_RUNS = ("photos", "output", "worst", "best", "device", "model", "fetch")
"""Parameters that may be given with a run folder; of its settings, only the model."""


@click.command("explain", cls=Command, example="explain photo.jpg -o why")
@options.photos_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
    metavar="DIR", help="Folder to write to; files of an earlier explanation are replaced.",
)  # fmt: skip
@click.option(
    "--worst",
    type=click.IntRange(min=0),
    metavar="N",
    show_default="12",
    help="For a RUN: number of its worst faces to show.",
)
@click.option(
    "--best",
    type=click.IntRange(min=0),
    metavar="N",
    show_default="12",
    help="For a RUN: number of its best faces to show.",
)
@options.archive_options
@options.fetch_option
@options.machine_options
@options.like_published_option
@options.detection_options
@options.alignment_options
@options.quality_options
def command(
    photos: tuple[str, ...],
    output: Path,
    worst: int | None,
    best: int | None,
    fetch: bool,
    **chosen: Any,
) -> None:
    """Show why faces have their scores: noise, similarity, symmetry, hints.

    For PHOTOS, given as for align-and-score: write a PNG and a JSON file for each face. For one RUN
    folder: write contact_sheet.png with its worst and best faces, by the run's own settings.
    """
    if len(photos) == 1 and (Path(photos[0]) / "run.json").is_file():
        _refuse_settings()
        if worst == best == 0:
            raise click.UsageError("--worst 0 --best 0 leaves nothing to show")
        _explain_run(Path(photos[0]), output, worst, best, fetch, chosen)
        return
    if worst is not None or best is not None or fetch:
        raise click.UsageError("--worst, --best and --fetch are for a run folder, given alone")
    archives = ArchiveOptions(chosen.pop("every"), chosen.pop("image_column"))
    _explain_photos(photos, archives, output, options.make_settings("align-and-score", **chosen))


def _refuse_settings() -> None:
    """Raise UsageError for options that the run's own settings decide."""
    for name in click.get_current_context().params:
        if config.is_typed(name) and name not in OF_RUNS:
            raise click.UsageError(
                f"--{name.replace('_', '-')} cannot be given with a run folder, which has its own "
                "settings"
            )


def _explain_run(
    folder: Path,
    output: Path,
    worst: int | None,
    best: int | None,
    fetch: bool,
    chosen: dict[str, Any],
) -> None:
    from faceqan_toolkit.cli.reporter import Reporter
    from faceqan_toolkit.explain.explanation import write_contact_sheet
    from faceqan_toolkit.runs.folder import read_run

    target, lost = write_contact_sheet(
        read_run(folder),
        output,
        worst=ENDS if worst is None else worst,
        best=ENDS if best is None else best,
        device=chosen["device"],
        model=chosen["model"] if options.is_given("model") else None,
        fetch=fetch,
    )
    click.echo(target)
    if lost:
        faces = f"{lost} face is" if lost == 1 else f"{lost} faces are"
        Reporter().exit(
            exit_codes.SOME_FAILED, f"{faces} not shown: crop and photo are gone or changed"
        )


def _explain_photos(
    photos: tuple[str, ...], archives: ArchiveOptions, output: Path, settings: Any
) -> None:
    from faceqan_toolkit.cli.reporter import Reporter
    from faceqan_toolkit.explain.explanation import Explainer, write_explanation
    from faceqan_toolkit.photos.find import NO_PHOTOS, find_photos

    explainer, tell = Explainer(settings), Reporter()
    found = failed = 0
    for source in find_photos(photos, options=archives):
        found += 1
        for explanation in explainer.explain(source):
            for file in write_explanation(explanation, explainer, output):
                click.echo(file)
            if explanation.failed:
                failed += 1
                record = explanation.record
                tell.warn(f"{record.path}: {record.status}: {record.reason}")
    if not found:
        tell.exit(exit_codes.NO_PHOTOS, NO_PHOTOS)
    if failed:
        tell.exit(exit_codes.SOME_FAILED, f"{failed} without a score; their JSON files say why.")
