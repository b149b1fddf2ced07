"""Training sets of the photos or crops that `filter` keeps: WebDataset's tars and RecordIO."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
import struct
import sys
import tarfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

from faceqan_toolkit.errors import NotPlaced, PhotoError, RunError, SettingsError
from faceqan_toolkit.files import parse_json, read_text, replacing, write_text
from faceqan_toolkit.photos.archives import is_safe, told_extension
from faceqan_toolkit.photos.find import ARCHIVE_EXTENSIONS
from faceqan_toolkit.photos.recordio import FIRST, HEADER, LAST, LENGTH_BITS, MAGIC, MIDDLE, WHOLE
from faceqan_toolkit.photos.stores import PHOTO_EXTENSIONS, extension
from faceqan_toolkit.results.actions import (
    BATCH,
    Decision,
    Manifest,
    Outcome,
    Plan,
    check_source,
    failed,
    known_state,
    outcome_of,
)
from faceqan_toolkit.results.copying import CHANGED, THERE
from faceqan_toolkit.text import path_text, reason_of

SHARD_SIZE = 10_000
"""Default number of photos in a WebDataset shard."""
INDEX = "shards.json"
RUN_CHANGED = "the run changed during the export; choose another folder when the run is complete"

PAIR = 2
"""Number of labels in a record without a photo."""


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
    """

    decide: Callable[[], Iterator[Decision]]
    plan: Plan
    sink: str
    shard_size: int = SHARD_SIZE
    manifest: Manifest | None = None

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise SettingsError(f"shard-size is {self.shard_size}; it must be at least 1")
        assert self.plan.folder is not None
        self.folder = self.plan.folder
        self._shards: dict[str, dict[str, Any]] = {}

    def outcomes(self) -> Iterator[Outcome]:
        """Write the set; yield the result for each photo or crop.

        RunError if the folder holds another set or cannot be written, or the run changed while the
        set was written.
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
        yield from self._noted(numbered, _refuse)
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
            reason = THERE if whole else ""
            yield from self._noted(
                items,
                lambda item: self._placed(outcome_of(item.decision, self.plan)[0], name, reason),
            )
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
                kind = TarWriter if len(parts) == 1 else RecordWriter
                writer = stack.enter_context(closing(kind(*parts)))
                found = hashlib.sha256()

                def add(item: Kept) -> Outcome:
                    outcome = self._add(item, name, writer)
                    found.update(item.line)
                    counts["errors" if outcome.entry.decision == "error" else "photos"] += 1
                    return outcome

                yield from self._noted(items, add)
                if found.hexdigest() != digest:
                    raise RunError(f"{target} is not written: {RUN_CHANGED}")
                writer.finish()
        except OSError as error:
            raise RunError(f"cannot write {target}: {reason_of(error)}") from error
        self._note(name, {"selection": digest, **counts, "bytes": _sizes(target)})

    def _add(self, item: Kept, shard: str, writer: TarWriter | RecordWriter) -> Outcome:
        """Add one photo to a shard; return the result."""
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

    def _noted(
        self, items: Iterable[Kept | Decision], act: Callable[[Kept], Outcome]
    ) -> Iterator[Outcome]:
        """Act on what is kept; yield all results once they are in the manifest."""
        outcomes = (
            act(item) if isinstance(item, Kept) else outcome_of(item, self.plan)[0]
            for item in items
        )
        while batch := list(islice(outcomes, BATCH)):
            if self.manifest:
                self.manifest.write(outcome.entry for outcome in batch)
            yield from batch

    def _placed(self, outcome: Outcome, place: str, reason: str = "") -> Outcome:
        destination = path_text(f"{self.folder.as_posix()}/{place}")
        entry = replace(outcome.entry, destination=destination, reason=reason)
        return replace(outcome, entry=entry)

    def _note(self, name: str, entry: dict[str, Any]) -> None:
        self._shards[name] = entry
        content = {"tool": "faceqan-toolkit", "shards": self._shards}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / INDEX, json.dumps(content, indent=1) + "\n")


def _sample(item: Kept, data: bytes, *, crop: bool) -> Sample:
    decision = item.decision
    folder, name = posixpath.dirname(decision.path), decision.crop if crop else decision.path
    metadata: dict[str, str | float | None] = {"path": decision.path, "quality": decision.quality}
    if crop:
        metadata["crop"] = decision.crop
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


def _refuse(_: Kept) -> Outcome:
    raise RunError(RUN_CHANGED)


def _files(target: Path) -> list[Path]:
    return [target] if target.suffix == ".tar" else [target, target.with_suffix(".idx")]


def _sizes(target: Path) -> list[int] | None:
    """Return the sizes of a shard's files; None if one is missing."""
    try:
        return [path.stat().st_size for path in _files(target)]
    except OSError:
        return None


def _read_index(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the shards that a folder's `INDEX` lists; none without one."""
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


@dataclass(frozen=True)
class Sample:
    """A photo or crop of the set.

    Attributes:
        number, label: its index in the set, and that of its identity (None if unknown), from 0.
        folder: folder of the photo, as in results; "" for the top folder.
        data, extension: the encoded photo, and its file extension with the dot.
        metadata: content of WebDataset's `.json`.
    """

    number: int
    label: int | None
    folder: str
    data: bytes
    extension: str
    metadata: dict[str, str | float | None]


class TarWriter:
    """Writes one WebDataset shard; equal samples give equal bytes.

    The files of a sample stand together: `FOLDER/NUMBER.jpg` (or the photo's own extension),
    `.cls` with the label if it has one, and `.json`.
    """

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, sample: Sample) -> str:
        """Append a sample; return the photo's name in the shard."""
        # WebDataset ends a sample's key at the first dot behind the last slash
        key = f"{sample.folder}/{sample.number:09d}" if sample.folder else f"{sample.number:09d}"
        self._add_file(f"{key}{sample.extension}", sample.data)
        if sample.label is not None:
            self._add_file(f"{key}.cls", str(sample.label).encode())
        metadata = json.dumps(sample.metadata, ensure_ascii=False, sort_keys=True)
        self._add_file(f"{key}.json", metadata.encode())
        return f"{key}{sample.extension}"

    def close(self) -> None:
        """Write the end of the tar and close it."""
        self._tar.close()

    finish = close

    def _add_file(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))


class RecordWriter:
    """Writes a set as `train.rec` and `train.idx`; the samples of an identity must be adjacent.

    Record 0 holds the range of the identities' records. Records 1 to N are the photos with their
    labels. The records after them hold, for each identity, the range of its photos. See
    `photos.recordio` for the format.
    """

    def __init__(self, records: Path, index: Path) -> None:
        self._records = records.open("wb")
        self._index = index.open("w", encoding="ascii", newline="\n")
        self._key = 0
        self._firsts = array("q")
        self._label = -1
        self._append(_pair(0, 0, 0))  # placeholder, overwritten by `finish`

    def add(self, sample: Sample) -> str:
        """Append a sample; return the photo's name as `photos.recordio` reads it back.

        NotPlaced if the photo is too large for a record, or has no label.
        """
        if sample.label is None:
            raise NotPlaced("its identity is not known, and a record needs a label")
        if len(sample.data) >= 1 << LENGTH_BITS - 1:
            raise NotPlaced("too large for a record")
        if sample.label != self._label:
            self._label = sample.label
            self._firsts.append(self._key)
        label, key = len(self._firsts) - 1, self._key
        self._append(HEADER.pack(0, float(label), key, 0) + sample.data)
        return f"{label:05d}/{key:08d}{told_extension(sample.data)}"

    def finish(self) -> None:
        """Write the identities' records and record 0, and close the files."""
        end = self._key
        ends = [*self._firsts[1:], end]
        for first, last in zip(self._firsts, ends, strict=False):
            self._append(_pair(self._key, first, last))
        self._records.seek(0)
        self._records.write(_encoded(_pair(0, end, self._key)))
        self.close()

    def close(self) -> None:
        """Close the files, finished or not."""
        self._records.close()
        self._index.close()

    def _append(self, data: bytes) -> None:
        self._index.write(f"{self._key}\t{self._records.tell()}\n")
        self._records.write(_encoded(data))
        self._key += 1


def _pair(key: int, first: int, last: int) -> bytes:
    return HEADER.pack(PAIR, 0.0, key, 0) + struct.pack("<2f", first, last)


def _encoded(data: bytes) -> bytes:
    """Return a record; data that contain the magic number at a multiple of 4 are split there."""
    cuts = [at.start() for at in re.finditer(re.escape(MAGIC), data) if at.start() % 4 == 0]
    starts = [0, *(cut + len(MAGIC) for cut in cuts)]
    pieces = [data[start:end] for start, end in zip(starts, [*cuts, len(data)], strict=True)]
    kinds = [FIRST, *[MIDDLE] * (len(pieces) - 2), LAST] if cuts else [WHOLE]
    encoded = b""
    for kind, piece in zip(kinds, pieces, strict=True):
        word = struct.pack("<I", kind << LENGTH_BITS | len(piece))
        encoded += MAGIC + word + piece + b"\0" * (-len(piece) % 4)
    return encoded
