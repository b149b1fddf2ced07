"""`faceqan-toolkit filter`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.choices import BYS, MODES, SINKS, WHATS
from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.config import is_typed
from faceqan_toolkit.errors import SettingsError


@click.command("filter", cls=Command, example="filter run --keep-top 80% --mode copy --to kept")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for kept files and the manifest; created if missing.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="list",
    show_default=True,
    help="Print the paths of kept files, or copy, move or link them to DIR. link: hard link.",
)
@click.option(
    "--what",
    type=click.Choice(WHATS),
    default="photos",
    show_default=True,
    help="Filter photos, or the run's aligned crops.",
)
@click.option(
    "--as",
    "sink",
    type=click.Choice(SINKS),
    default="files",
    show_default=True,
    help="With --mode copy: write files, or a training set: WebDataset tars or InsightFace's "
    "train.rec.",
)
@click.option(
    "--shard-size",
    type=int,
    metavar="N",
    show_default="10000",
    help="With --as webdataset: photos per tar.",
)
@click.option(
    "--by",
    type=click.Choice(BYS),
    default="best",
    show_default=True,
    help="Which face's score represents a photo with several faces: the best, the worst, or the "
    "main (largest).",
)
@click.option("--min-quality", type=float, metavar="Q", help="Keep this quality or higher.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the quality threshold in this file of `calibrate`, or higher.",
)
@click.option(
    "--target-fnmr",
    type=float,
    metavar="F",
    help="With --calibration: use the threshold for this false non-match rate.",
)
@click.option(
    "--target-discard",
    type=float,
    metavar="S",
    help="With --calibration: use the threshold for this share of discarded faces.",
)
@click.option(
    "--min-percentile",
    type=float,
    metavar="P",
    help="Keep this percentile of the run's scored faces or higher, 0..100.",
)
@click.option(
    "--keep-top", metavar="N|X%", help="Keep the best N, or the best X percent of scored photos."
)
@click.option(
    "--per-identity",
    type=int,
    metavar="N",
    help="Keep the best N of each identity.",
)
@options.identity_option
@click.option(
    "--per-window",
    type=float,
    metavar="SECONDS",
    help="For videos: keep the best frame of every interval of this length.",
)
@click.option(
    "--min-per-identity",
    type=int,
    metavar="N",
    help="Drop identities with fewer than N photos left by the other conditions.",
)
@click.option(
    "--drop-status",
    multiple=True,
    metavar="STATUS",
    help="Drop photos with this status, e.g. no_face; may be repeated. ok: photos with a score.",
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="CSV file with the decision on every photo.",
    show_default="DIR/manifest.csv",
)
@click.option(
    "-0", "--null", is_flag=True, help="With --mode list: end paths with NUL, not a line break."
)
@options.fetch_option
@click.option("--dry-run", is_flag=True, help="Print the manifest, but write nothing.")
@click.option(
    "--undo",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="MANIFEST",
    help="Move the files in this manifest back. Copies and links stay.",
)
def command(run: Path | None, undo: Path | None, dry_run: bool, **chosen: Any) -> None:
    """List, copy, move or link the photos or crops of a RUN that meet every condition.

    Existing files are never replaced. After an interruption, the same command continues. Exit code
    3: some files could not be written; the manifest says which and why.
    """
    from faceqan_toolkit.cli.reporter import Reporter
    from faceqan_toolkit.cli.show_filter import print_entry, print_nothing, show
    from faceqan_toolkit.results.filtering import undo as put_back

    if undo is not None:
        _only_dry_run_with_undo(run)
        outcomes = put_back(undo, dry=dry_run, tell=Reporter())
        tell = print_entry if dry_run else print_nothing
        show(outcomes, tell, what="moves in the manifest", dry=dry_run)
        return
    if run is None:
        raise click.UsageError("give the RUN to filter, or --undo MANIFEST")
    _filter(run, dry=dry_run, **chosen)


def _filter(
    folder: Path,
    *,
    dry: bool,
    fetch: bool,
    to: Path | None,
    mode: str,
    what: str,
    sink: str,
    shard_size: int | None,
    keep_top: str | None,
    drop_status: tuple[str, ...],
    manifest: Path | None,
    null: bool,
    calibration: Path | None,
    target_fnmr: float | None,
    target_discard: float | None,
    min_quality: float | None,
    identity: str | None,
    **conditions: Any,
) -> None:
    """Carry out what the conditions decide and exit with 0, or 3 if some files stayed."""
    from faceqan_toolkit.api import open_run
    from faceqan_toolkit.cli.reporter import Reporter
    from faceqan_toolkit.cli.show_filter import print_entry, print_nothing, print_paths, show
    from faceqan_toolkit.results.filtering import Rules, Selection, calibrated_quality
    from faceqan_toolkit.results.groups import IdentityRule

    if null and (mode != "list" or dry):
        raise SettingsError("--null is for the paths that --mode list prints")
    run = open_run(folder)
    if calibration is not None:
        if min_quality is not None:
            raise SettingsError("--calibration gives the quality: leave --min-quality out")
        min_quality = calibrated_quality(
            run, calibration, target_fnmr=target_fnmr, target_discard=target_discard
        )
    elif target_fnmr is not None or target_discard is not None:
        raise SettingsError("--target-fnmr and --target-discard need --calibration FILE")
    number, percent = _amount(keep_top)
    rules = Rules(
        what=what, keep_top=number, keep_percent=percent, drop_status=frozenset(drop_status),
        min_quality=min_quality, identity=IdentityRule.parse(identity), **conditions,
    )  # fmt: skip
    if identity is not None and not rules.need_identities and sink == "files":
        raise SettingsError(
            "--identity is for --per-identity, --min-per-identity, --as webdataset and --as "
            "recordio"
        )
    reporter = Reporter()
    outcomes = Selection(run, rules, fetch=fetch, tell=reporter).outcomes(
        mode, to, sink=sink, shard_size=shard_size, manifest=manifest, dry=dry
    )
    paths = print_paths(b"\0" if null else b"\n")
    show(
        outcomes,
        print_entry if dry else paths if mode == "list" else print_nothing,
        what=what,
        dry=dry,
    )
    if not dry and (manifest or to):
        reporter.message(f"Manifest: {manifest or (to and to / 'manifest.csv')}")


def _amount(text: str | None) -> tuple[int | None, float | None]:
    """Return the number, or the percentage, that `--keep-top` is given."""
    if text is None:
        return None, None
    try:
        return (None, float(text[:-1])) if text.endswith("%") else (int(text), None)
    except ValueError:
        raise SettingsError(
            f"keep-top is {text}; it must be a number, or a percentage as in 10%"
        ) from None


def _only_dry_run_with_undo(run: Path | None) -> None:
    """Refuse options that `--undo` would ignore."""
    given = [
        parameter.opts[0]
        for parameter in click.get_current_context().command.params
        if parameter.name not in ("run", "undo", "dry_run")
        and parameter.expose_value
        and is_typed(str(parameter.name))
    ]
    if run is not None or given:
        raise SettingsError(
            f"--undo takes the manifest alone, without {given[0] if given else 'RUN'}"
        )
