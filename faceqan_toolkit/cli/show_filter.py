"""Outcomes of a filter as people and programs read them."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace

import click
from rich.console import Console

from faceqan_toolkit.cli.exit_codes import SOME_FAILED
from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.results.actions import Outcome
from faceqan_toolkit.results.copying import THERE
from faceqan_toolkit.results.manifest import COLUMNS
from faceqan_toolkit.text import path_text

SHOWN_ERRORS = 20
DONE = {"list": "listed", "copy": "copied", "move": "moved", "link": "linked",
        "symlink": "linked", "back": "put back"}  # fmt: skip

Print = Callable[[Outcome], bool]
"""Prints an outcome, and returns False if its path cannot be told from the next one."""


def show(outcomes: Iterable[Outcome], tell: Print, *, what: str, dry: bool) -> None:
    """Go through all outcomes, printing and counting; exit with 3 if there were errors.

    Args:
        outcomes: their work is done as they are taken.
        tell: prints one of them on standard output.
        what: noun for all of them.
        dry: nothing was done.
    """
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    reporter = Reporter()
    console = Console(stderr=True)
    if dry:
        _print_row(COLUMNS)
    try:
        # no spinner between lines of data
        spins = tell is print_nothing and console.is_terminal and reporter.shows_tables
        with console.status("") if spins else nullcontext() as status:
            for outcome in outcomes:
                entry = outcome.entry
                decision = entry.decision
                if decision == "drop":
                    dropped[outcome.rule] += 1
                if not tell(outcome) and decision != "error":
                    decision = "error"
                    entry = replace(entry, reason="its name has a line break; use --null")
                if decision == "error" and counts["error"] < SHOWN_ERRORS:
                    reporter.error(f"{entry.source}: {entry.reason}")
                counts[THERE if entry.reason == THERE else decision] += 1
                if status and counts.total() % 100 == 0:
                    status.update(f"{counts.total():,} {what}")
    except KeyboardInterrupt:
        reporter.warn("Interrupted; the same command goes on from here")
        raise
    finally:
        _print_summary(reporter, counts, dropped, what=what, dry=dry)
    sys.stdout.flush()
    if counts["error"]:
        raise click.exceptions.Exit(SOME_FAILED)


def _print_summary(
    reporter: Reporter, counts: Counter[str], dropped: Counter[str], *, what: str, dry: bool
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
    reporter.message(f"{would}{total:,} {what}{told}")


def print_paths(end: bytes) -> Print:
    """Return what prints the path of what is kept.

    Args:
        end: of a line, a line break or NUL.
    """

    def tell(outcome: Outcome) -> bool:
        if outcome.entry.decision == "list":
            raw = os.fsencode(outcome.source)
            if b"\n" in raw and end == b"\n":
                return False
            if sys.stdout.isatty():  # a name must not command the terminal
                raw = path_text(outcome.source).encode("utf-8", "replace")
            sys.stdout.buffer.write(raw + end)
        return True

    return tell


def print_entry(outcome: Outcome) -> bool:
    """Print a row of the manifest."""
    _print_row(outcome.entry.cells())
    return True


def print_nothing(_outcome: Outcome) -> bool:
    """Print nothing: a file was placed."""
    return True


def _print_row(cells: Iterable[str]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    sys.stdout.buffer.write(text.getvalue().encode("utf-8"))
