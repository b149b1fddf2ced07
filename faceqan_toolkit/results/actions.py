"""Carry decisions out on the disk, each written to the manifest before it is done; undo moves."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from faceqan_toolkit.errors import NotPlaced, PhotoError
from faceqan_toolkit.files import sha256_of
from faceqan_toolkit.paths import path_from_text, path_text
from faceqan_toolkit.photos.archives import ARCHIVE_EXTENSIONS
from faceqan_toolkit.photos.local import LocalFile
from faceqan_toolkit.photos.locate import locate_recorded
from faceqan_toolkit.photos.names import extension
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
from faceqan_toolkit.rounding import down_text
from faceqan_toolkit.types import Content, FileState
from faceqan_toolkit.wording import reason_of

BATCH = 256
"""Rows that are written to the manifest, and to the disk, at once."""


@dataclass(frozen=True)
class Plan:
    """What to do with what is kept.

    Attributes:
        run_folder: the run's, absolute.
        mode: one of `choices.MODES`.
        what: one of `choices.WHATS`.
        folder: where to put them, absolute; None with "list".
        dry: only tell.
        fetch: read photos that are on other machines.
    """

    run_folder: Path
    mode: str = "list"
    what: str = "photos"
    folder: Path | None = None
    dry: bool = False
    fetch: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one photo or crop.

    Attributes:
        entry: its row in the manifest.
        source: where the photo is, absolute.
        rule: of `results.filtering.Decision`.
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
    """Yield what became of each photo or crop, in order, as it is done.

    Nothing is replaced, and nothing leaves the plan's folder. The same again goes on where it was
    interrupted.

    Args:
        decisions: of `results.filtering.decide`.
        plan: what to do.
        manifest: where it is written first; None writes nothing.

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
    """Return what is to be done about a decision, looking at files and changing none."""
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
    """Return what a decision comes to before anything is done, and the photo's or crop's bytes."""
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
    """Check that what is wanted exists in the run, and lies in it.

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
    """Return what a photo must be to be taken; None for a crop, which lies in the run folder.

    Raises:
        NotPlaced: the run never saw the photo; a folder from elsewhere could name any file.
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
    """Return the path below the folder; that of a crop without the run's `crops/`."""
    if plan.what == "photos":
        return path_from_text(decision.path)
    return str(PurePosixPath(*PurePosixPath(decision.crop).parts[1:]))


def _execute(item: _Item, plan: Plan, manifest: Manifest | None) -> Outcome:
    """Do it; return the outcome it has, the very same if all went well."""
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
            # an earlier one of these came there, on file systems that know no upper case
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
    """Return the outcome as an error, with its reason."""
    entry = replace(outcome.entry, decision="error", reason=reason_of(error))
    return replace(outcome, entry=entry)


def put_back(manifest: Manifest, *, dry: bool = False) -> Iterator[Outcome]:
    """Yield, for every move a manifest tells of, what became of putting the file back.

    Its entry's decision is "back", or "error"; its reason `THERE` if the file is where it was.
    Only the file that was moved is put back, unchanged, and only to where nothing else is.

    Args:
        manifest: what was moved.
        dry: only tell.
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
    """Put one file back; tell whether there was anything to do."""
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
    """Remove what a move on one file system leaves when it is cut off: a name too many."""
    if dry or source.parent.samefile(moved.parent):
        return
    if os.path.samestat(source.lstat(), moved.lstat()):
        moved.unlink()
