"""Selections: the photos or crops of a run that meet conditions, listed, copied or moved."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.events import Listener, Message, Note, silent
from faceqan_toolkit.files import absolute, is_file
from faceqan_toolkit.results.actions import Outcome, Plan, carry_out, put_back
from faceqan_toolkit.results.calibration import read_calibration
from faceqan_toolkit.results.filtering import Rules, decide, people_of
from faceqan_toolkit.results.manifest import Manifest
from faceqan_toolkit.results.training_set import SHARD_SIZE, Export
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import counted, path_from_text


class Selection:
    """The photos or crops of a run that meet every condition.

    Args:
        run: any run.
        rules: the conditions.
        fetch: also read photos from URLs.
        tell: receives events.

    Raises:
        SettingsError: conditions that the run cannot have.
    """

    def __init__(
        self, run: RunInfo, rules: Rules, *, fetch: bool = False, tell: Listener = silent
    ) -> None:
        run.check_threshold(rules.min_quality)
        self.run, self.rules, self.fetch, self.tell = run, rules, fetch, tell

    def paths(self) -> Iterator[str]:
        """Yield the absolute paths of the selected photos or crops, best quality first."""
        for outcome in self.outcomes():
            if outcome.entry.decision == "list":
                yield outcome.source

    def copy(self, folder: Path | str) -> Counter[str]:
        """Copy the selection to a folder; return the number of files by decision."""
        return self._place("copy", folder)

    def move(self, folder: Path | str) -> Counter[str]:
        """Move the selection to a folder; return the number of files by decision.

        `undo` puts the files back.
        """
        return self._place("move", folder)

    def link(self, folder: Path | str) -> Counter[str]:
        """Hard-link the selection into a folder; return the number of files by decision."""
        return self._place("link", folder)

    def symlink(self, folder: Path | str) -> Counter[str]:
        """Symlink the selection into a folder; return the number of files by decision."""
        return self._place("symlink", folder)

    def export(
        self, folder: Path | str, sink: str, *, shard_size: int = SHARD_SIZE
    ) -> Counter[str]:
        """Write the selection as a training set; return the number of photos by decision.

        Args:
            folder: the folder, created if missing.
            sink: "webdataset" or "recordio".
            shard_size: number of photos in a tar of "webdataset".
        """
        found = self.outcomes("copy", Path(folder), sink=sink, shard_size=shard_size)
        return Counter(outcome.entry.decision for outcome in found)

    def _place(self, mode: str, folder: Path | str) -> Counter[str]:
        found = self.outcomes(mode, Path(folder))
        return Counter(outcome.entry.decision for outcome in found)

    def outcomes(
        self,
        mode: str = "list",
        folder: Path | None = None,
        *,
        sink: str = "files",
        shard_size: int | None = None,
        manifest: Path | None = None,
        dry: bool = False,
    ) -> Iterator[Outcome]:
        """Act on the selection; yield the result for every photo or crop of the run, in order.

        No file is replaced. After an interruption the same call continues.

        Args:
            mode: one of `choices.MODES`.
            folder: destination folder; None with "list".
            sink: one of `choices.SINKS`; all except "files" need the mode "copy".
            shard_size: number of photos in a tar of "webdataset"; None for the default.
            manifest: CSV file for all decisions; None means `manifest.csv` in the folder, or no
                manifest without a folder.
            dry: decide only; change no file.

        Raises:
            SettingsError: contradictory options.
            RunError: the run or the manifest cannot be used.
        """
        if folder is None and mode != "list":
            raise SettingsError(f"--mode {mode} needs --to DIR")
        if sink != "files" and mode != "copy":
            raise SettingsError(f"--as {sink} writes copies: it needs --mode copy")
        if sink != "webdataset" and shard_size is not None:
            raise SettingsError("--shard-size is for --as webdataset")
        if self.rules.need_identities or sink != "files":
            self._tell_people(optional=sink == "webdataset" and not self.rules.need_identities)
        if manifest is None and folder is not None:
            manifest = folder / "manifest.csv"
        plan = Plan(
            absolute(self.run.folder), mode, self.rules.what,
            absolute(folder) if folder else None, dry, self.fetch,
        )  # fmt: skip
        return self._outcomes(plan, sink, shard_size, None if dry else manifest)

    def _outcomes(
        self, plan: Plan, sink: str, shard_size: int | None, manifest: Path | None
    ) -> Iterator[Outcome]:
        with Manifest(absolute(manifest)) if manifest else nullcontext() as file:
            if sink == "files":
                # by path, so that archives are read one after the other
                order = "path" if plan.mode == "copy" else "quality"
                outcomes = carry_out(decide(self.run, self.rules, order), plan, file)
            else:
                order = "identity" if sink == "recordio" else "path"
                labelled = partial(decide, self.run, self.rules, order, labels=True)
                size = SHARD_SIZE if shard_size is None else shard_size
                outcomes = Export(labelled, plan, sink, size, file).outcomes()
            placing = file and sink == "files" and plan.mode != "list"
            earlier = file.placed_before() if file and placing else set()
            for outcome in outcomes:
                earlier.discard(outcome.entry.destination)
                yield outcome
        left = sum(os.path.lexists(path_from_text(place)) for place in earlier)
        if left:
            files = counted(left, "file")
            self.tell(Note(f"{files} of earlier selections still there, see the manifest"))

    def _tell_people(self, *, optional: bool) -> None:
        """Report the number of identities in the run.

        Args:
            optional: photos without an identity can be kept.

        Raises:
            RunError: no photo has an identity, so none would be kept.
        """
        people = people_of(self.run, self.rules)
        if people.nobody and not people.number and not optional:
            raise RunError(
                f"no photo of {self.run.folder} has an identity (identity = "
                f"{self.rules.identity.title}), so none would be kept; --identity FILE.csv can "
                "name them"
            )
        self.tell(Message(people.text("without a label" if optional else "dropped")))


def calibrated_quality(
    run: RunInfo,
    file: Path,
    *,
    target_fnmr: float | None = None,
    target_discard: float | None = None,
) -> float:
    """Return a quality threshold of a calibration file for a run.

    Args:
        run: a run with the settings of the calibration.
        file: file written by `calibrate`.
        target_fnmr, target_discard: target of the threshold; not needed if the file has only one.

    Raises:
        CalibrationError: the file is unusable, lacks the threshold, or has other settings.
    """
    calibration = read_calibration(file)
    calibration.check(run.content.get("identity") or {}, str(run.folder))
    return calibration.threshold(target_fnmr, target_discard).quality


def undo(path: Path, *, dry: bool = False, tell: Listener = silent) -> Iterator[Outcome]:
    """Put back the files that a manifest moved; return an iterator over the results.

    Raises:
        RunError: the manifest is unusable.
    """
    if is_file(path) and not path.stat().st_size:
        raise RunError(f"{path} is empty: it is no manifest")
    return _undo(path, dry, tell)


def _undo(path: Path, dry: bool, tell: Listener) -> Iterator[Outcome]:
    with Manifest(absolute(path), dry=dry) as manifest:
        left = sum(os.path.lexists(path_from_text(place)) for place in manifest.copied_before())
        if left:
            tell(
                Note(
                    f"{counted(left, 'file')} copied or linked by this manifest, not moved: --undo "
                    "leaves them where they are and deletes nothing. The column destination of "
                    f"{path} names them"
                )
            )
        yield from put_back(manifest, dry=dry)
