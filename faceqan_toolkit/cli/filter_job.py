"""Filter a run, or undo it, from the command line: do it, print data, tell."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from faceqan_toolkit.cli import SOME_FAILED
from faceqan_toolkit.cli.given_run import given_run
from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import absolute, is_file
from faceqan_toolkit.paths import path_from_text, path_text
from faceqan_toolkit.results.calibration import read_calibration
from faceqan_toolkit.results.filtering import Rules, decide, people_of
from faceqan_toolkit.results.identities import IdentityRule
from faceqan_toolkit.results.manifest import COLUMNS, Manifest
from faceqan_toolkit.results.copying import THERE
from faceqan_toolkit.results.training_set import SHARD_SIZE, Export
from faceqan_toolkit.results.actions import Outcome, Plan, carry_out, put_back
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.wording import counted

SHOWN_ERRORS = 20
DONE = {"list": "listed", "copy": "copied", "move": "moved", "link": "linked",
        "symlink": "linked", "back": "put back"}  # fmt: skip


def run_filter(
    run_folder: Path,
    *,
    dry: bool,
    fetch: bool,
    folder: Path | None,
    mode: str,
    what: str,
    sink: str,
    shard_size: int | None,
    keep_top: str | None,
    drop_status: tuple[str, ...],
    manifest_path: Path | None,
    null: bool,
    calibration_path: Path | None,
    target_fnmr: float | None,
    target_discard: float | None,
    min_quality: float | None,
    identity: str | None,
    **conditions: Any,
) -> None:
    """Carry out what the conditions decide and exit with 0, or 3 if some files stayed.

    Raises:
        SettingsError: options that contradict each other.
        RunError: the run or the manifest cannot be used.
        CalibrationError: the calibration cannot be used, or was made for other scores.
    """
    if folder is None and mode != "list":
        raise SettingsError(f"--mode {mode} needs --to DIR")
    if null and (mode != "list" or dry):
        raise SettingsError("--null is for the paths that --mode list prints")
    if sink != "files" and mode != "copy":
        raise SettingsError(f"--as {sink} writes copies: it needs --mode copy")
    if sink != "webdataset" and shard_size is not None:
        raise SettingsError("--shard-size is for --as webdataset")
    run = given_run(run_folder)
    if calibration_path is not None:
        if min_quality is not None:
            raise SettingsError("--calibration gives the quality: leave --min-quality out")
        min_quality = _calibrated(run, calibration_path, target_fnmr, target_discard)
    elif target_fnmr is not None or target_discard is not None:
        raise SettingsError("--target-fnmr and --target-discard need --calibration FILE")
    run.check_threshold(min_quality)
    number, percent = _amount(keep_top)
    rules = Rules(
        what=what, keep_top=number, keep_percent=percent, drop_status=frozenset(drop_status),
        min_quality=min_quality, identity=IdentityRule.parse(identity), **conditions,
    )  # fmt: skip
    if rules.need_identities or sink != "files":
        _tell_people(run, rules, optional=sink == "webdataset" and not rules.need_identities)
    elif identity is not None:
        raise SettingsError(
            "--identity is for --per-identity, --min-per-identity, --as webdataset and --as "
            "recordio"
        )
    plan = Plan(absolute(run_folder), mode, what, absolute(folder) if folder else None, dry, fetch)
    if manifest_path is None and folder is not None:
        manifest_path = folder / "manifest.csv"
    writing = manifest_path is not None and not dry
    with Manifest(absolute(manifest_path)) if writing and manifest_path else nullcontext() as file:
        if sink == "files":
            # what lies in archives is copied archive by archive
            order = "path" if mode == "copy" else "quality"
            outcomes = carry_out(decide(run, rules, order), plan, file)
        else:
            order = "identity" if sink == "recordio" else "path"
            labelled = partial(decide, run, rules, order, labels=True)
            size = SHARD_SIZE if shard_size is None else shard_size
            outcomes = Export(labelled, plan, sink, size, file).outcomes()
        tell = _print_entry if dry else _print_path if mode == "list" else _print_nothing
        stale = file.placed_before() if file and sink == "files" and mode != "list" else set()
        outcomes = _without(stale, outcomes)
        _finish(outcomes, stale, tell=tell, end=b"\0" if null else b"\n", what=what, dry=dry)
    if writing:
        click.echo(f"Manifest: {manifest_path}", err=True)


def _tell_people(run: RunInfo, rules: Rules, *, optional: bool) -> None:
    """Say who the run's photos show.

    Args:
        run: with the photos.
        rules: tell people apart.
        optional: photos whose identity is not known are kept, too.

    Raises:
        RunError: no identity is known, and none of the photos could be kept.
    """
    people = people_of(run, rules)
    if people.nobody and not people.number and not optional:
        raise RunError(
            f"no photo of {run.folder} has an identity (identity = {rules.identity.title}), so "
            "none would be kept; --identity FILE.csv can name them"
        )
    click.echo(people.text("without a label" if optional else "dropped"), err=True)


def _calibrated(
    run: RunInfo, file: Path, target_fnmr: float | None, target_discard: float | None
) -> float:
    """Return the quality threshold that a calibration has for such scores and that target."""
    calibration = read_calibration(file)
    calibration.check(run.content.get("identity") or {}, str(run.folder))
    return calibration.threshold(target_fnmr, target_discard).quality


def undo(path: Path, *, dry: bool) -> None:
    """Put moved files back and exit with 0, or 3 if some could not be.

    Raises:
        RunError: the manifest cannot be used.
    """
    if is_file(path) and not path.stat().st_size:
        raise RunError(f"{path} is empty: it is no manifest")
    with Manifest(absolute(path), dry=dry) as manifest:
        left = sum(os.path.lexists(path_from_text(place)) for place in manifest.copied_before())
        if left:
            click.echo(
                f"Note: {counted(left, 'file')} copied or linked by this manifest, not moved: "
                "--undo leaves them where they are and deletes nothing. The column destination "
                f"of {path} names them",
                err=True,
            )
        outcomes = put_back(manifest, dry=dry)
        tell = _print_entry if dry else _print_nothing
        _finish(outcomes, set(), tell=tell, what="moves in the manifest", dry=dry)


def _without(stale: set[str], outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Yield outcomes; take away from places that earlier calls filled those that they name."""
    for outcome in outcomes:
        stale.discard(outcome.entry.destination)
        yield outcome


def _finish(
    outcomes: Iterable[Outcome],
    stale: set[str],
    *,
    tell: Callable[[Outcome, bytes], bool],
    what: str,
    dry: bool,
    end: bytes = b"\n",
) -> None:
    """Go through all outcomes, printing and counting; exit with 3 if there were errors.

    Args:
        outcomes: what is done as they are taken.
        stale: when they all are, where files of earlier selections may lie.
        tell, end: prints an outcome and what ends its line.
        what, dry: for the summary.
    """
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if dry:
        _print_row(COLUMNS)
    try:
        # no spinner between lines of data
        quiet = tell is not _print_nothing or not console.is_terminal
        with nullcontext() if quiet else console.status("") as status:
            for outcome in outcomes:
                entry = outcome.entry
                decision = entry.decision
                if decision == "drop":
                    dropped[outcome.rule] += 1
                if not tell(outcome, end) and decision != "error":
                    decision = "error"
                    entry = replace(entry, reason="its name has a line break; use --null")
                if decision == "error" and counts["error"] < SHOWN_ERRORS:
                    console.print(f"Error: {entry.source}: {entry.reason}", markup=False)
                counts[THERE if entry.reason == THERE else decision] += 1
                if status and counts.total() % 100 == 0:
                    status.update(f"{counts.total():,} {what}")
    except KeyboardInterrupt:
        click.echo("\nInterrupted; the same command goes on from here.", err=True)
        raise
    finally:
        _tell(console, counts, dropped, what=what, dry=dry)
    sys.stdout.flush()
    left = sum(os.path.lexists(path_from_text(place)) for place in stale)
    if left:
        click.echo(
            f"Note: {counted(left, 'file')} of earlier selections still there, see the manifest",
            err=True,
        )
    if counts["error"]:
        raise click.exceptions.Exit(SOME_FAILED)


def _tell(
    console: Console, counts: Counter[str], dropped: Counter[str], *, what: str, dry: bool
) -> None:
    total = counts.total()
    parts = [f"{counts[name]:,} {done}" for name, done in DONE.items() if counts[name]]
    if counts[THERE]:
        parts.append(f"{counts[THERE]:,} {THERE}")
    if counts["drop"]:
        why = ", ".join(f"{number:,} {rule}" for rule, number in dropped.most_common())
        parts.append(f"{counts['drop']:,} dropped ({why})")
    if counts["error"]:
        parts.append(f"{counts['error']:,} errors")
    would = "Nothing was touched. It would be: " if dry else ""
    told = f": {', '.join(parts)}" if parts else ""
    console.print(f"{would}{total:,} {what}{told}", markup=False)


def _print_path(outcome: Outcome, end: bytes) -> bool:
    """Print the path of what is kept; tell whether it can be told from the next one."""
    if outcome.entry.decision == "list":
        raw = os.fsencode(outcome.source)
        if b"\n" in raw and end == b"\n":
            return False
        if sys.stdout.isatty():  # a name must not command the terminal
            raw = path_text(outcome.source).encode("utf-8", "replace")
        sys.stdout.buffer.write(raw + end)
    return True


def _print_entry(outcome: Outcome, _end: bytes) -> bool:
    _print_row(outcome.entry.cells())
    return True


def _print_nothing(_outcome: Outcome, _end: bytes) -> bool:
    return True


def _print_row(cells: Iterable[str]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    sys.stdout.buffer.write(text.getvalue().encode("utf-8"))


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
