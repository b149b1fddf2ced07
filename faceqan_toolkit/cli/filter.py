"""`faceqan-toolkit filter`."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.config import typed_options
from faceqan_toolkit.cli.reporter import SOME_FAILED, Reporter
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.settings import BYS, MODES, SINKS, WHATS
from faceqan_toolkit.text import path_text

if TYPE_CHECKING:
    from faceqan_toolkit.results.actions import Outcome

SHOWN_ERRORS = 20
DONE = {"list": "listed", "copy": "copied", "move": "moved", "link": "linked",
        "symlink": "linked", "back": "put back"}  # fmt: skip
"""Word of the summary for each decision."""

selection_options = options.stack(
    click.option("--to", type=options.FOLDER, metavar="DIR",
                 help="Folder for kept files and the manifest; created if missing."),
    click.option("--mode", type=click.Choice(MODES), default="list", show_default=True,
                 help="Print the paths of kept files, or copy, move or link them to DIR. link: "
                 "hard link."),
    click.option("--what", type=click.Choice(WHATS), default="photos", show_default=True,
                 help="Filter photos, or the run's aligned crops."),
    click.option("--as", "sink", type=click.Choice(SINKS), default="files", show_default=True,
                 help="With --mode copy: write files, or a training set: WebDataset tars or "
                 "InsightFace's train.rec."),
    click.option("--shard-size", type=int, metavar="N", show_default="10000",
                 help="With --as webdataset: photos per tar."),
    click.option("--by", type=click.Choice(BYS), default="best", show_default=True,
                 help="Which face's score represents a photo with several faces: the best, the "
                 "worst, or the main (largest)."),
    click.option("--min-quality", type=float, metavar="Q", help="Keep this quality or higher."),
    click.option("--calibration", type=options.FILE, metavar="FILE",
                 help="Keep the quality threshold in this file of `calibrate`, or higher."),
    click.option("--target-fnmr", type=float, metavar="F",
                 help="With --calibration: use the threshold for this false non-match rate."),
    click.option("--target-discard", type=float, metavar="S",
                 help="With --calibration: use the threshold for this share of discarded faces."),
    click.option("--min-percentile", type=float, metavar="P",
                 help="Keep this percentile of the run's scored faces or higher, 0..100."),
    click.option("--keep-top", metavar="N|X%",
                 help="Keep the best N, or the best X percent of scored photos."),
    click.option("--per-identity", type=int, metavar="N", help="Keep the best N of each identity."),
    options.identity_option,
    click.option("--per-window", type=float, metavar="SECONDS",
                 help="For videos: keep the best frame of every interval of this length."),
    click.option("--min-per-identity", type=int, metavar="N",
                 help="Drop identities with fewer than N photos left by the other conditions."),
    click.option("--drop-status", multiple=True, metavar="STATUS",
                 help="Drop photos with this status, e.g. no_face; may be repeated. ok: photos "
                 "with a score."),
    click.option("--manifest", type=options.FILE, metavar="FILE", show_default="DIR/manifest.csv",
                 help="CSV file with the decision on every photo."),
    click.option("-0", "--null", is_flag=True,
                 help="With --mode list: end paths with NUL, not a line break."),
    options.fetch_option,
)  # fmt: skip


@click.command("filter", cls=Command, example="filter run --keep-top 80% --mode copy --to kept")
@click.argument("run", required=False, type=options.PATH)
@selection_options
@click.option("--dry-run", "dry", is_flag=True, help="Print the manifest, but write nothing.")
@click.option("--undo", type=options.INPUT_FILE, metavar="MANIFEST",
              help="Move the files in this manifest back. Copies and links stay.")  # fmt: skip
def command(run: Path | None, undo: Path | None, dry: bool, **chosen: Any) -> None:
    """List, copy, move or link the photos or crops of a RUN that meet every condition.

    Existing files are never replaced. After an interruption, the same command continues. Exit code
    3: some files could not be written; the manifest says which and why.
    """
    from faceqan_toolkit.results.filtering import undo as put_back

    if undo is not None:
        given = typed_options("run", "undo", "dry")
        if run is not None or given:
            raise SettingsError(
                f"--undo takes the manifest alone, without {given[0] if given else 'RUN'}"
            )
        outcomes = put_back(undo, dry=dry, tell=Reporter())
        _show(outcomes, _print_entry if dry else None, what="moves in the manifest", dry=dry)
    elif run is None:
        raise click.UsageError("give the RUN to filter, or --undo MANIFEST")
    else:
        _filter(run, dry=dry, **chosen)


def _filter(
    folder: Path, *, dry: bool, to: Path | None, mode: str, sink: str, shard_size: int | None,
    manifest: Path | None, null: bool, identity: str | None, **conditions: Any,
) -> None:  # fmt: skip
    """Carry out what the conditions decide and exit with 0, or 3 if some files stayed."""
    from faceqan_toolkit.api import open_run

    if null and (mode != "list" or dry):
        raise SettingsError("--null is for the paths that --mode list prints")
    reporter = Reporter()
    selection = open_run(folder).filter(identity=identity, progress=reporter, **conditions)
    if identity is not None and not selection.rules.need_identities and sink == "files":
        users = "--per-identity, --min-per-identity, --as webdataset and --as recordio"
        raise SettingsError(f"--identity is for {users}")
    outcomes = selection.outcomes(
        mode, to, sink=sink, shard_size=shard_size, manifest=manifest, dry=dry
    )
    paths = partial(_print_path, end=b"\0" if null else b"\n") if mode == "list" else None
    _show(outcomes, _print_entry if dry else paths, what=selection.rules.what, dry=dry)
    if not dry and (manifest or to):
        reporter.message(f"Manifest: {manifest or (to and to / 'manifest.csv')}")


def _show(
    outcomes: Iterable[Outcome], tell: Callable[[Outcome], bool] | None, *, what: str, dry: bool
) -> None:
    """Print and count the outcomes, whose files are placed meanwhile; exit with 3 on errors.

    `tell` prints an outcome and returns whether it could; `what` is a noun for what is counted.
    """
    from rich.console import Console

    from faceqan_toolkit.results.actions import COLUMNS
    from faceqan_toolkit.results.copying import THERE

    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    reporter, console = Reporter(), Console(stderr=True)
    if dry:
        _print_row(COLUMNS)
    try:
        # no spinner between lines of data
        spins = tell is None and console.is_terminal and reporter.shows_tables
        with console.status("") if spins else nullcontext() as status:
            for outcome in outcomes:
                entry = outcome.entry
                if tell and not tell(outcome) and entry.decision != "error":
                    reason = "its name has a line break; use --null"
                    entry = replace(entry, decision="error", reason=reason)
                if entry.decision == "drop":
                    dropped[outcome.rule] += 1
                if entry.decision == "error" and counts["error"] < SHOWN_ERRORS:
                    reporter.error(f"{entry.source}: {entry.reason}")
                counts[THERE if entry.reason == THERE else entry.decision] += 1
                if status and counts.total() % 100 == 0:
                    status.update(f"{counts.total():,} {what}")
    except KeyboardInterrupt:
        reporter.warn("Interrupted; the same command goes on from here")
        raise
    finally:
        why = ", ".join(f"{number:,} {rule}" for rule, number in dropped.most_common())
        words = {**DONE, THERE: THERE, "drop": f"dropped ({why})", "error": "errors"}
        parts = [f"{counts[name]:,} {word}" for name, word in words.items() if counts[name]]
        would = "Nothing was touched. It would be: " if dry else ""
        told = f": {', '.join(parts)}" if parts else ""
        reporter.message(f"{would}{counts.total():,} {what}{told}")
    sys.stdout.flush()
    if counts["error"]:
        raise click.exceptions.Exit(SOME_FAILED)


def _print_path(outcome: Outcome, end: bytes) -> bool:
    """Print a kept file's path and `end`; return False for a line break within a line."""
    if outcome.entry.decision == "list":
        raw = os.fsencode(outcome.source)
        if b"\n" in raw and end == b"\n":
            return False
        if sys.stdout.isatty():  # a file name must not control the terminal
            raw = path_text(outcome.source).encode("utf-8", "replace")
        sys.stdout.buffer.write(raw + end)
    return True


def _print_entry(outcome: Outcome) -> bool:
    """Print a row of the manifest."""
    _print_row(outcome.entry.cells())
    return True


def _print_row(cells: Iterable[str]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    sys.stdout.buffer.write(text.getvalue().encode("utf-8"))
