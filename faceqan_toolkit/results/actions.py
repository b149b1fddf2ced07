"""Actions of `filter`: files are copied, moved or linked, and moves are undone.

Every action is first written to the manifest, a CSV file with the decision on each photo.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from faceqan_toolkit.errors import NotPlaced, PhotoError, RunError
from faceqan_toolkit.files import lock, sha256_of
from faceqan_toolkit.photos.find import ARCHIVE_EXTENSIONS, locate_recorded
from faceqan_toolkit.photos.stores import LocalFile, extension
from faceqan_toolkit.results.copying import (
    OCCUPIED,
    PENDING,
    THERE,
    check_inside,
    inspect,
    part_of,
    place,
    place_below,
)
from faceqan_toolkit.runs.folder import crop_file
from faceqan_toolkit.settings import MODES
from faceqan_toolkit.text import (
    down_text,
    guard,
    path_from_text,
    path_text,
    printable,
    reason_of,
    unguard,
)
from faceqan_toolkit.types import Content, FileState

BATCH = 256
"""Rows that are written to the manifest at once."""


@dataclass(frozen=True)
class Decision:
    """The decision on one photo, or on one face's crop.

    Attributes:
        root, path: the photo, as in its record.
        crop: path of the face's crop, relative to the run folder; "" if none was kept.
        quality: quality of the face, or of the face that represents the photo; None without one.
        rule: option name of the first condition that failed; "" if kept.
        reason: the failed condition for people; "" if kept.
        state: file state of the photo when it was scored; None if the file could not be read.
        label: number of the identity among the identities that are kept, from 0; None if labels
            are not wanted or the identity is unknown.
    """

    root: str
    path: str
    crop: str
    quality: float | None
    rule: str
    reason: str
    state: FileState | None
    label: int | None = None

    @property
    def kept(self) -> bool:
        """Whether all conditions hold."""
        return not self.rule


@dataclass(frozen=True)
class Entry:
    """A row of the manifest.

    Attributes:
        source: path of the photo or crop, absolute, as `text.path_text` writes it.
        destination: its new path; empty if it is not copied, moved or linked.
        quality: quality of the deciding face, rounded down to six decimals; empty without a score.
        decision: "list", one of `PLACED`, "drop" or "error".
        reason: why it was dropped, the error, or `THERE`.
        sha256: checksum of a moved file, hexadecimal; `undo` restores no other file.
    """

    source: str
    destination: str
    quality: str
    decision: str
    reason: str
    sha256: str

    def cells(self) -> list[str]:
        """Return the CSV cells, guarded against formulas and without line breaks."""
        return [guard(printable(getattr(self, name))) for name in COLUMNS]


PLACED = tuple(mode for mode in MODES if mode != "list")
"""Decisions that create a file in the destination folder."""

COLUMNS = tuple(item.name for item in fields(Entry))


@dataclass(frozen=True)
class Plan:
    """What to do with the photos or crops that are kept.

    Attributes:
        run_folder: the run folder, absolute.
        mode, what: one of `settings.MODES`, one of `settings.WHATS`.
        folder: destination folder, absolute; None with "list".
        dry: report without changing anything.
        fetch: also read photos from URLs.
    """

    run_folder: Path
    mode: str = "list"
    what: str = "photos"
    folder: Path | None = None
    dry: bool = False
    fetch: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result for one photo or crop: its row of the manifest, its absolute path or URL.

    `rule` is that of its `Decision`.
    """

    entry: Entry
    source: str
    rule: str = ""


@dataclass(frozen=True)
class _Item:
    outcome: Outcome
    content: Content
    target: Path | None = None
    state: FileState | None = None
    found: str = THERE


class Manifest:
    """A CSV file that rows are appended to, created if missing; use it in a `with` statement.

    An incomplete last row, left by a killed process, is removed: its file was not touched. With
    `dry` the file is only read, without a lock. RunError if the file is not a manifest, is locked
    by another process, or cannot be opened.
    """

    def __init__(self, path: Path, *, dry: bool = False) -> None:
        self.path = path
        with ExitStack() as stack:
            if not dry:
                stack.callback(lock(path.with_name(f".{path.name}.lock"), path).release)
            try:
                mode = "rb" if dry else "r+b" if path.exists() else "x+b"
                self._file: BinaryIO = path.open(mode)  # type: ignore[assignment]
                stack.callback(self._file.close)
                self._begin(dry=dry)
            except OSError as error:
                raise RunError(f"cannot write {path}: {reason_of(error)}") from error
            self._close = stack.pop_all().close

    def _begin(self, *, dry: bool) -> None:
        header = _lines([COLUMNS])
        first = self._file.readline()
        if not header.startswith(first) and first.rstrip(b"\r\n") != header.rstrip(b"\r\n"):
            raise RunError(f"{self.path} is not a manifest of this tool; choose another name")
        end = _end_of_last_line(self._file)
        if dry:
            self._before = end
            return
        self._file.truncate(end)
        self._file.seek(end)
        if end == 0:
            self._file.write(header)
        self._before = self._file.tell()

    def write(self, entries: Iterable[Entry]) -> None:
        """Append rows and flush them to the disk; RunError if that fails."""
        try:
            self._file.write(_lines(entry.cells() for entry in entries))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {reason_of(error)}") from error

    def entries(self) -> Iterator[Entry]:
        """Yield the rows that the file had when it was opened; RunError if one is malformed."""
        with self.path.open("rb") as file:
            whole = takewhile(lambda _: file.tell() <= self._before, iter(file.readline, b""))
            rows = csv.reader(line.decode("utf-8") for line in whole)
            next(rows, None)
            try:
                for row in rows:
                    yield Entry(*map(unguard, row))
            except (TypeError, UnicodeDecodeError, csv.Error):
                raise RunError(f"{self.path}, line {rows.line_num}: not a manifest's row") from None

    def has(self, source: str, destination: str) -> bool:
        """Tell whether an earlier command began to move or copy a source to a destination."""
        return (source, destination) in self._begun

    @cached_property  # needed only after an interruption
    def _begun(self) -> set[tuple[str, str]]:
        return {
            (entry.source, entry.destination)
            for entry in self.entries()
            # a file that was there already is not ours
            if entry.decision in ("move", "copy") and entry.reason != THERE
        }

    def placed_before(self) -> set[str]:
        """Return the destinations of earlier copies, moves and links."""
        return {entry.destination for entry in self.entries() if entry.decision in PLACED}

    def copied_before(self) -> set[str]:
        """Return the destinations of earlier copies and links, except files that were there."""
        return {
            entry.destination
            for entry in self.entries()
            if entry.decision in PLACED and entry.decision != "move" and entry.reason != THERE
        }

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")


def _end_of_last_line(file: BinaryIO) -> int:
    """Return the byte position after the last line break; 0 without one."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 4096)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def carry_out(
    decisions: Iterable[Decision], plan: Plan, manifest: Manifest | None = None
) -> Iterator[Outcome]:
    """Act on the decisions, after writing them to a manifest, if any; yield each result, in order.

    No file is replaced, and nothing is written outside the plan's folder. After an interruption the
    same call continues. RunError if the manifest cannot be written.
    """
    waiting = iter(decisions)
    while batch := list(islice(waiting, BATCH)):
        items = [_prepare(decision, plan, manifest) for decision in batch]
        if manifest:
            manifest.write(item.outcome.entry for item in items)
        for item in items:
            outcome = item.outcome if plan.dry else _execute(item, plan, manifest)
            if manifest and outcome is not item.outcome:
                manifest.write([outcome.entry])
            yield outcome


def _prepare(decision: Decision, plan: Plan, manifest: Manifest | None) -> _Item:
    """Return what to do for a decision; files are read, none is changed."""
    outcome, content = outcome_of(decision, plan)
    entry = outcome.entry
    if not decision.kept:
        return _Item(outcome, content)
    try:
        check_source(decision, plan)
        if plan.folder is None or plan.mode == "list":
            return _Item(outcome, content)
        if isinstance(content, LocalFile) and extension(content.name) in ARCHIVE_EXTENSIONS:
            raise NotPlaced("an archive, which stays where it is")
        relative = path_from_text(decision.path)
        if plan.what == "crops":  # without the leading `crops/`
            relative = str(PurePosixPath(*PurePosixPath(decision.crop).parts[1:]))
        target = place_below(plan.folder, relative)
        entry = replace(entry, destination=path_text(target))
        check_inside(plan.folder, target)
        state = known_state(decision, plan)
        found = inspect(
            content, target, plan.mode, state,
            lambda: manifest is not None and manifest.has(entry.source, entry.destination),
        )  # fmt: skip
        if isinstance(content, LocalFile) and plan.mode == "move" and not plan.dry:
            there = content.file if os.path.lexists(content.file) else target
            entry = replace(entry, sha256=(state and state.sha256) or sha256_of(there))
        if found == THERE:
            entry = replace(entry, reason=THERE)
        return _Item(replace(outcome, entry=entry), content, target, state, found)
    except (NotPlaced, PhotoError, OSError) as error:
        return _Item(failed(replace(outcome, entry=entry), error), content)


def outcome_of(decision: Decision, plan: Plan) -> tuple[Outcome, Content]:
    """Return the result of a decision before any action, and the content of the photo or crop."""
    if plan.what == "crops":
        content: Content = LocalFile(plan.run_folder / decision.crop)
        place = os.fspath(plan.run_folder / decision.crop)
    else:
        source = locate_recorded(decision.root, decision.path, fetch=plan.fetch)
        content = source.content
        place = os.fspath(content.file) if isinstance(content, LocalFile) else source.place
    quality = "" if decision.quality is None else down_text(decision.quality, 6)
    entry = Entry(path_text(place), "", quality, plan.mode, "", "")
    if not decision.kept:
        entry = replace(entry, decision="drop", reason=decision.reason)
    return Outcome(entry, place, decision.rule), content


def check_source(decision: Decision, plan: Plan) -> None:
    """Raise NotPlaced if a wanted crop is not inside the run folder."""
    if plan.what == "crops":
        if not decision.crop:
            raise NotPlaced("the run kept no crop of it")
        place_below(plan.run_folder, decision.crop)
        if crop_file(plan.run_folder, decision.crop) is None:
            raise NotPlaced("its crop is not among the run's, or a link that leads elsewhere")


def known_state(decision: Decision, plan: Plan) -> FileState | None:
    """Return the file state that a photo must have; None for crops, which the run folder holds.

    Raises:
        NotPlaced: the run has no state of the photo. Run folders are untrusted: such a record
            could name any file.
    """
    if plan.what == "photos" and decision.state is None:
        raise NotPlaced("the run could not look at it")
    return decision.state if plan.what == "photos" else None


def _execute(item: _Item, plan: Plan, manifest: Manifest | None) -> Outcome:
    """Act; return `item.outcome` itself on success, else the changed result."""
    if item.target is None:
        return item.outcome
    assert plan.folder is not None
    entry, content = item.outcome.entry, item.content
    try:
        check_inside(plan.folder, item.target)
        try:
            place(content, item.target, plan.mode, item.state, item.found)
        except FileExistsError:
            # an earlier file of this call, on a case-insensitive file system
            if inspect(content, item.target, plan.mode, item.state) == THERE:
                return replace(item.outcome, entry=replace(entry, reason=THERE))
            raise NotPlaced(OCCUPIED) from None
    except (NotPlaced, PhotoError) as error:
        return failed(item.outcome, error)
    return item.outcome


def failed(outcome: Outcome, error: Exception) -> Outcome:
    """Return the result as an error with its reason."""
    entry = replace(outcome.entry, decision="error", reason=reason_of(error))
    return replace(outcome, entry=entry)


def put_back(manifest: Manifest, *, dry: bool = False) -> Iterator[Outcome]:
    """Undo the moves in a manifest, or with `dry` only report; yield each result.

    The decision is "back" or "error"; the reason is `THERE` if the file is already back. A file is
    put back only if its content is unchanged and nothing else is at its old path.
    """
    for entry in manifest.entries():
        if entry.decision != "move":
            continue
        source = Path(path_from_text(entry.source))
        outcome = Outcome(replace(entry, decision="back"), os.fspath(source))
        try:
            done = _put_back(source, Path(path_from_text(entry.destination)), entry.sha256, dry=dry)
            yield outcome if done else replace(outcome, entry=replace(outcome.entry, reason=THERE))
        except (NotPlaced, OSError) as error:
            yield failed(outcome, error)


def _put_back(source: Path, moved: Path, sha256: str, *, dry: bool) -> bool:
    """Put one file back; return False if it is already back."""
    if not dry:
        part_of(moved).unlink(missing_ok=True)
    if not os.path.lexists(moved):
        if os.path.lexists(source):
            return False
        raise NotPlaced("it is neither where it was nor where it was moved to")
    if os.path.lexists(source):
        if _is_file(moved, sha256) and not _is_file(source, sha256):
            raise NotPlaced("another file is where it was; it stays as it is")
        # an interrupted move leaves a second hard link
        if not (dry or source.parent.samefile(moved.parent)) and os.path.samestat(
            source.lstat(), moved.lstat()
        ):
            moved.unlink()
        return False
    if not _is_file(moved, sha256):
        raise NotPlaced("what is in its place now is not the file that was moved")
    if not dry:
        place(LocalFile(moved), source, "move", None, PENDING)
    return True


def _is_file(file: Path, sha256: str) -> bool:
    return stat.S_ISREG(file.lstat().st_mode) and sha256_of(file) == sha256
