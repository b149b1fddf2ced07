"""Acting on the decisions of `filter`: files are copied, moved or linked, and moves undone.

Every action is written to the manifest first.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from faceqan_toolkit.errors import NotPlaced, PhotoError
from faceqan_toolkit.files import sha256_of
from faceqan_toolkit.photos.find import ARCHIVE_EXTENSIONS, locate_recorded
from faceqan_toolkit.photos.stores import LocalFile, extension
from faceqan_toolkit.results.copying import (
    OCCUPIED,
    PENDING,
    THERE,
    check_inside,
    inspect,
    inspect_content,
    part_of,
    place,
    place_below,
    place_content,
)
from faceqan_toolkit.results.crops import crop_file
from faceqan_toolkit.results.filtering import Decision
from faceqan_toolkit.results.manifest import Entry, Manifest
from faceqan_toolkit.text import down_text, path_from_text, path_text, reason_of
from faceqan_toolkit.types import Content, FileState

BATCH = 256
"""Rows that are written to the manifest at once."""


@dataclass(frozen=True)
class Plan:
    """What to do with the photos or crops that are kept.

    Attributes:
        run_folder: the run folder, absolute.
        mode: one of `choices.MODES`.
        what: one of `choices.WHATS`.
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
    """The result for one photo or crop.

    Attributes:
        entry: its row of the manifest.
        source: absolute path or URL of the photo.
        rule: see `results.filtering.Decision`.
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


def carry_out(
    decisions: Iterable[Decision], plan: Plan, manifest: Manifest | None = None
) -> Iterator[Outcome]:
    """Act on the decisions; yield each result, in order.

    No file is replaced, and nothing is written outside the plan's folder. After an interruption
    the same call continues.

    Args:
        decisions: from `results.filtering.decide`.
        plan: what to do.
        manifest: the manifest to write first; None writes none.

    Raises:
        RunError: the manifest cannot be written.
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
        target = place_below(plan.folder, _relative(decision, plan))
        entry = replace(entry, destination=path_text(target))
        check_inside(plan.folder, target)
        state = known_state(decision, plan)
        if isinstance(content, LocalFile):
            began = manifest.has if manifest else _never
            found = inspect(
                content.file, target, plan.mode, state,
                lambda: began(entry.source, entry.destination),
            )  # fmt: skip
        else:
            found = inspect_content(lambda: content.read()[0], target, plan.mode, state)
        if isinstance(content, LocalFile) and plan.mode == "move" and not plan.dry:
            entry = replace(entry, sha256=_sha256(content.file, target, state))
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
    """Check that a wanted crop exists inside the run folder.

    Raises:
        NotPlaced: it does not.
    """
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


def _never(*_: str) -> bool:
    return False


def _sha256(source: Path, target: Path, state: FileState | None) -> str:
    if state and state.sha256:
        return state.sha256
    return sha256_of(source if os.path.lexists(source) else target)


def _relative(decision: Decision, plan: Plan) -> str:
    """Return the path below the destination; for a crop without the leading `crops/`."""
    if plan.what == "photos":
        return path_from_text(decision.path)
    return str(PurePosixPath(*PurePosixPath(decision.crop).parts[1:]))


def _execute(item: _Item, plan: Plan, manifest: Manifest | None) -> Outcome:
    """Act; return `item.outcome` itself on success, else the changed result."""
    if item.target is None:
        return item.outcome
    assert plan.folder is not None
    entry, content = item.outcome.entry, item.content
    try:
        check_inside(plan.folder, item.target)
        try:
            if isinstance(content, LocalFile):
                place(content.file, item.target, plan.mode, item.state, item.found)
            elif item.found != THERE:
                place_content(content.read()[0], item.target, item.state)
        except FileExistsError:
            # an earlier file of this call, on a case-insensitive file system
            if _is_there(content, item.target, plan.mode, item.state):
                return replace(item.outcome, entry=replace(entry, reason=THERE))
            raise NotPlaced(OCCUPIED) from None
    except (NotPlaced, PhotoError) as error:
        return failed(item.outcome, error)
    return item.outcome


def _is_there(content: Content, target: Path, mode: str, state: FileState | None) -> bool:
    if isinstance(content, LocalFile):
        return inspect(content.file, target, mode, state) == THERE
    return inspect_content(lambda: content.read()[0], target, mode, state) == THERE


def failed(outcome: Outcome, error: Exception) -> Outcome:
    """Return the result as an error with its reason."""
    entry = replace(outcome.entry, decision="error", reason=reason_of(error))
    return replace(outcome, entry=entry)


def put_back(manifest: Manifest, *, dry: bool = False) -> Iterator[Outcome]:
    """Undo the moves in a manifest; yield each result.

    The decision is "back" or "error"; the reason is `THERE` if the file is already back. A file is
    put back only if its content is unchanged and nothing else is at its old path.

    Args:
        manifest: the manifest.
        dry: report without changing anything.
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
        _drop_second_name(source, moved, dry=dry)
        return False
    if not _is_file(moved, sha256):
        raise NotPlaced("what is in its place now is not the file that was moved")
    if not dry:
        place(moved, source, "move", None, PENDING)
    return True


def _is_file(file: Path, sha256: str) -> bool:
    return stat.S_ISREG(file.lstat().st_mode) and sha256_of(file) == sha256


def _drop_second_name(source: Path, moved: Path, *, dry: bool) -> None:
    """Remove the second hard link that an interrupted move leaves."""
    if dry or source.parent.samefile(moved.parent):
        return
    if os.path.samestat(source.lstat(), moved.lstat()):
        moved.unlink()
