"""Training sets of the photos or crops that `filter` keeps, in shards written atomically."""

from __future__ import annotations

import hashlib
import json
import posixpath
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

from faceqan_toolkit.errors import NotPlaced, PhotoError, RunError, SettingsError
from faceqan_toolkit.files import parse_json, read_text, replacing, write_text
from faceqan_toolkit.photos.archives import is_safe
from faceqan_toolkit.photos.find import ARCHIVE_EXTENSIONS
from faceqan_toolkit.photos.stores import PHOTO_EXTENSIONS, extension
from faceqan_toolkit.results.actions import (
    BATCH,
    Outcome,
    Plan,
    check_source,
    failed,
    known_state,
    outcome_of,
)
from faceqan_toolkit.results.copying import CHANGED, THERE
from faceqan_toolkit.results.filtering import Decision
from faceqan_toolkit.results.manifest import Manifest
from faceqan_toolkit.results.set_writers import RecordWriter, Sample, TarWriter
from faceqan_toolkit.text import path_text, reason_of

SHARD_SIZE = 10_000
"""Default number of photos in a WebDataset shard."""
INDEX = "shards.json"
RUN_CHANGED = "the run changed during the export; choose another folder when the run is complete"


@dataclass(frozen=True)
class Kept:
    """A photo or crop of the set, and its number."""

    decision: Decision
    number: int

    @property
    def line(self) -> bytes:
        """JSON line that identifies it, for the checksum of a shard."""
        decision = self.decision
        state = decision.state.sha256 if decision.state else ""
        parts = (self.number, decision.label, decision.path, decision.crop, state, decision.quality)
        return (json.dumps(parts) + "\n").encode()


@dataclass
class Export:
    """Writes a training set to a folder; after an interruption the same call continues.

    Args:
        decide: returns the decisions with labels, anew at each call; in the order of identities
            for "recordio".
        plan: the plan with the destination folder; its mode is "copy".
        sink: "webdataset" or "recordio".
        shard_size: number of photos in a tar.
        manifest: manifest to write; None writes none.

    Raises:
        SettingsError: the shard size is below 1.
    """

    decide: Callable[[], Iterator[Decision]]
    plan: Plan
    sink: str
    shard_size: int = SHARD_SIZE
    manifest: Manifest | None = None
    _shards: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise SettingsError(f"shard-size is {self.shard_size}; it must be at least 1")
        assert self.plan.folder is not None
        self.folder = self.plan.folder

    def outcomes(self) -> Iterator[Outcome]:
        """Write the set; yield the result for each photo or crop.

        Raises:
            RunError: the folder holds another set or cannot be written, or the run changed while
                the set was written.
        """
        self._shards = _read_index(self.folder)
        numbered = self._numbered()
        if self.sink == "recordio":
            selections = list(self._selections(sys.maxsize)) or [hashlib.sha256().hexdigest()]
            yield from self._shard("train.rec", selections[0], numbered)
            return
        selections = list(self._selections(self.shard_size))
        for shard, selection in enumerate(selections):
            items = _shard_of(numbered, self.shard_size)
            yield from self._shard(f"shard-{shard:06d}.tar", selection, items)
        yield from self._told(_dropped(numbered), "", known=False)
        beyond = self.folder / f"shard-{len(selections):06d}.tar"
        if beyond.exists():
            raise RunError(f"{beyond} is of another set, with more shards; choose another folder")

    def _selections(self, size: int) -> Iterator[str]:
        """Yield the checksum of each shard's photos.

        This is a pass of its own over all decisions, so that no shard is held in memory.
        """
        kept = (item for item in self._numbered() if isinstance(item, Kept))
        for _, shard in groupby(kept, lambda item: item.number // size):
            digest = hashlib.sha256()
            for item in shard:
                digest.update(item.line)
            yield digest.hexdigest()

    def _numbered(self) -> Iterator[Kept | Decision]:
        numbers = count()
        for decision in self.decide():
            yield Kept(decision, next(numbers)) if decision.kept else decision

    def _shard(self, name: str, digest: str, items: Iterable[Kept | Decision]) -> Iterator[Outcome]:
        """Write one shard unless it is complete; yield its results."""
        target = self.folder / name
        entry = self._shards.get(name)
        if (entry is None and target.exists()) or (entry and entry["selection"] != digest):
            raise RunError(f"{target} holds another selection; choose another folder")
        sizes = _sizes(target)
        whole = bool(sizes and entry and entry["bytes"] == sizes and not entry["errors"])
        if whole or self.plan.dry:
            yield from self._told(items, name, known=whole)
            return
        # noted first, so that a shard of a killed process is recognised
        self._note(name, {"selection": digest, "photos": 0, "errors": 0, "bytes": None})
        for path in _files(target):
            for left in self.folder.glob(f".{path.name}.*.tmp"):
                left.unlink(missing_ok=True)  # left by a killed process
        counts = {"photos": 0, "errors": 0}
        try:
            with ExitStack() as stack:
                # renamed in reverse order: the index first, then the records
                parts = [stack.enter_context(replacing(path)) for path in _files(target)]
                writer = stack.enter_context(closing(_writer(parts)))
                found = hashlib.sha256()
                yield from self._written(items, name, writer, counts, found)
                if found.hexdigest() != digest:
                    raise RunError(f"{target} is not written: {RUN_CHANGED}")
                writer.finish()
        except OSError as error:
            raise RunError(f"cannot write {target}: {reason_of(error)}") from error
        self._note(name, {"selection": digest, **counts, "bytes": _sizes(target)})

    def _written(
        self,
        items: Iterable[Kept | Decision],
        name: str,
        writer: TarWriter | RecordWriter,
        counts: dict[str, int],
        digest: hashlib._Hash,
    ) -> Iterator[Outcome]:
        waiting = iter(items)
        while batch := list(islice(waiting, BATCH)):
            outcomes = []
            for item in batch:
                outcome = self._add(item, name, writer)
                if isinstance(item, Kept):
                    digest.update(item.line)
                    counts["errors" if outcome.entry.decision == "error" else "photos"] += 1
                outcomes.append(outcome)
            if self.manifest:
                self.manifest.write(outcome.entry for outcome in outcomes)
            yield from outcomes

    def _add(self, item: Kept | Decision, shard: str, writer: TarWriter | RecordWriter) -> Outcome:
        """Add one photo to a shard; return the result."""
        if isinstance(item, Decision):
            return outcome_of(item, self.plan)[0]
        decision = item.decision
        outcome, content = outcome_of(decision, self.plan)
        try:
            check_source(decision, self.plan)
            data, _ = content.read()
            state = known_state(decision, self.plan)
            if state and hashlib.sha256(data).hexdigest() != state.sha256:
                raise NotPlaced(CHANGED)
            if not data or extension(decision.path) in ARCHIVE_EXTENSIONS:
                raise NotPlaced("it is no photo")
            name = writer.add(_sample(item, data, crop=self.plan.what == "crops"))
        except (NotPlaced, PhotoError) as error:
            return failed(outcome, error)
        return self._placed(outcome, f"{shard}/{name}")

    def _told(
        self, items: Iterable[Kept | Decision], shard: str, *, known: bool
    ) -> Iterator[Outcome]:
        """Yield the results of a shard that is complete, or of a dry run."""
        waiting = iter(items)
        while batch := list(islice(waiting, BATCH)):
            outcomes = []
            for item in batch:
                if isinstance(item, Decision):
                    outcomes.append(outcome_of(item, self.plan)[0])
                    continue
                outcome = self._placed(outcome_of(item.decision, self.plan)[0], shard)
                reason = THERE if known else ""
                outcomes.append(replace(outcome, entry=replace(outcome.entry, reason=reason)))
            if self.manifest:
                self.manifest.write(outcome.entry for outcome in outcomes)
            yield from outcomes

    def _placed(self, outcome: Outcome, place: str) -> Outcome:
        destination = path_text(f"{self.folder.as_posix()}/{place}")
        return replace(outcome, entry=replace(outcome.entry, destination=destination))

    def _note(self, name: str, entry: dict[str, Any]) -> None:
        self._shards[name] = entry
        content = {"tool": "faceqan-toolkit", "shards": self._shards}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / INDEX, json.dumps(content, indent=1) + "\n")


def _sample(item: Kept, data: bytes, *, crop: bool) -> Sample:
    decision = item.decision
    folder = posixpath.dirname(decision.path)
    metadata: dict[str, str | float | None] = {"path": decision.path, "quality": decision.quality}
    if crop:
        metadata["crop"] = decision.crop
    name = decision.crop if crop else decision.path
    kind = extension(name) if extension(name) in PHOTO_EXTENSIONS else ".jpg"
    safe = folder if is_safe(folder) else ""
    return Sample(item.number, decision.label, safe, data, kind, metadata)


def _shard_of(items: Iterator[Kept | Decision], size: int) -> Iterator[Kept | Decision]:
    """Yield items up to the `size`-th that is kept."""
    for item in items:
        yield item
        size -= isinstance(item, Kept)
        if not size:
            return


def _dropped(items: Iterator[Kept | Decision]) -> Iterator[Decision]:
    """Yield the remaining items; raise RunError if one is kept."""
    for item in items:
        if isinstance(item, Kept):
            raise RunError(RUN_CHANGED)
        yield item


def _files(target: Path) -> list[Path]:
    return [target] if target.suffix == ".tar" else [target, target.with_suffix(".idx")]


def _writer(parts: list[Path]) -> TarWriter | RecordWriter:
    return TarWriter(parts[0]) if len(parts) == 1 else RecordWriter(*parts)


def _sizes(target: Path) -> list[int] | None:
    """Return the sizes of a shard's files; None if one is missing."""
    try:
        return [path.stat().st_size for path in _files(target)]
    except OSError:
        return None


def _read_index(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the shards that a folder's `INDEX` lists; none without one.

    Raises:
        RunError: the index cannot be read.
    """
    try:
        content = parse_json(read_text(folder / INDEX))
        return {
            str(name): {key: entry[key] for key in ("selection", "photos", "errors", "bytes")}
            for name, entry in content["shards"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder / INDEX} cannot be read: {error}") from error
