"""What is there, what is missing, what contradicts itself: before any work is done."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.evaluation.datasets.base import PairList, Protocol
from faceqan_toolkit.evaluation.datasets.insightface_bin import pixels
from faceqan_toolkit.evaluation.datasets.issues import KEPT_OF_A_KIND, SEVERITY, Issue, IssueLog
from faceqan_toolkit.files import is_file
from faceqan_toolkit.paths import path_from_text, path_text, printable
from faceqan_toolkit.photos.stores import PHOTO_EXTENSIONS


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        protocol: its name.
        root: the folder that was looked at.
        counts: samples, identities, templates, folds, comparisons, mated, non_mated.
        issue_counts: of all issues, by kind (`issues.SEVERITY`).
        issues: the first `KEPT_OF_A_KIND` of each kind, errors first.
    """

    protocol: str
    root: Path
    counts: dict[str, int]
    issue_counts: dict[str, int]
    issues: tuple[Issue, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(SEVERITY[kind] == "error" for kind in self.issue_counts)

    def lines(self, of_a_kind: int = 10) -> list[str]:
        """Return the report as lines of text, at most so many issues of each kind."""
        shown = [f"{self.protocol} in {path_text(self.root)}"]
        shown += [
            f"  {name.replace('_', '-')}: {count:,}"
            for name, count in self.counts.items()
            if count or name not in ("templates", "folds")
        ]
        for kind, count in self.issue_counts.items():
            shown.append(f"{SEVERITY[kind]}: {kind.replace('_', ' ')}: {count:,}")
            same = [issue for issue in self.issues if issue.kind == kind]
            shown += [f"  {printable(str(issue))}" for issue in same[:of_a_kind]]
            if count > of_a_kind:
                shown.append(f"  and {count - min(of_a_kind, len(same)):,} more")
        shown.append("no errors" if self.ok else "not usable as it is")
        return shown

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "protocol": self.protocol,
            "root": path_text(self.root),
            "ok": self.ok,
            "counts": self.counts,
            "issue_counts": self.issue_counts,
            "issues": [
                {
                    "severity": issue.severity, "kind": issue.kind,
                    "message": printable(issue.message), "file": printable(issue.file),
                    "line": issue.line,
                }
                for issue in self.issues
            ],
        }  # fmt: skip


def validate(protocol: Protocol) -> Validation:
    """Return what is there and what is wrong: lists, pairs and photos.

    Pairs count as duplicates in either order. A photo is missing if it is no file below the
    root; photos of a `.bin` are decoded.
    """
    log = IssueLog()
    log.counts.update(protocol.log.counts)
    log.issues += protocol.log.issues
    if isinstance(protocol.pairs, PairList):
        _check_pairs(protocol, protocol.pairs, log)
        if not protocol.encoded and protocol.templates is None:
            _check_contents(protocol, protocol.pairs, log)
    if protocol.encoded:
        _check_encoded(protocol, log)
    else:
        _check_files(protocol, log)
    kinds = [kind for kind in SEVERITY if log.counts[kind]]
    mated = sum(int(block.mated.sum()) for block in protocol.pairs.blocks())
    counts = {
        "samples": len(protocol.paths),
        "identities": len(np.unique(protocol.identities)),
        "templates": len(protocol.templates) if protocol.templates else 0,
        "folds": protocol.folds or 0,
        "comparisons": len(protocol.pairs),
        "mated": mated,
        "non_mated": len(protocol.pairs) - mated,
    }
    return Validation(
        protocol.name, protocol.root,
        counts,
        {kind: log.counts[kind] for kind in kinds},
        tuple(sorted(log.issues, key=lambda issue: kinds.index(issue.kind))),
    )  # fmt: skip


def _check_pairs(protocol: Protocol, pairs: PairList, log: IssueLog) -> None:
    first, second = pairs.first.astype(np.int64), pairs.second.astype(np.int64)
    keys = np.minimum(first, second) * max(len(protocol.identities), 1)
    keys += np.maximum(first, second)
    selves = first == second
    alike = protocol.identities[first] == protocol.identities[second]

    def note(kind: str, rows: NDArray[np.int64], message: Callable[[int], str]) -> None:
        for row in rows[:KEPT_OF_A_KIND].tolist():
            log.add(kind, message(row), *pairs.where(row))
        log.counts[kind] += max(0, len(rows) - KEPT_OF_A_KIND)

    note("self_pair", np.flatnonzero(selves & pairs.mated), lambda row: "compared with itself")
    note(
        "contradicting_label",
        np.flatnonzero(selves & ~pairs.mated),
        lambda row: "compared with itself, as of another person",
    )
    note(
        "contradicting_identity",
        np.flatnonzero(alike & ~pairs.mated & ~selves),
        lambda row: "a non-mated pair, but other pairs say it is one person",
    )
    del alike
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = np.flatnonzero(keys[1:] == keys[:-1])
    del keys
    earlier, later = order[same], order[same + 1]
    del order
    differ = pairs.mated[later] != pairs.mated[earlier]

    def told(row: int) -> str:
        before = int(earlier[np.flatnonzero(later == row)[0]])
        swapped = "" if first[row] == first[before] else ", the other way round"
        file, line = pairs.where(before)
        return f"the pair of {file}, line {line}, again{swapped}"

    note("duplicate_pair", np.sort(later[~differ]), told)
    note("contradicting_label", np.sort(later[differ]), lambda row: f"{told(row)}, another label")


def _check_contents(protocol: Protocol, pairs: PairList, log: IssueLog) -> None:
    """Report non-mated pairs of two files with the same content."""
    files = [protocol.root / path_from_text(path) for path in protocol.paths]
    rows = np.flatnonzero(~pairs.mated & (pairs.first != pairs.second))
    sizes = np.full(len(files), -1, np.int64)
    for sample in np.unique([pairs.first[rows], pairs.second[rows]]).tolist():
        with suppress(OSError, ValueError):
            sizes[sample] = files[sample].stat().st_size
    one, other = sizes[pairs.first[rows]], sizes[pairs.second[rows]]
    for row in rows[(one == other) & (one > 0)].tolist():
        first, second = int(pairs.first[row]), int(pairs.second[row])
        with suppress(OSError):
            if filecmp.cmp(files[first], files[second], shallow=False):
                message = (
                    f"a non-mated pair of one and the same photo: {protocol.paths[first]} and "
                    f"{protocol.paths[second]} are equal files"
                )
                log.add("same_photo", message, *pairs.where(row))


def _check_files(protocol: Protocol, log: IssueLog) -> None:
    present = {
        path_text(PurePath(folder, name).relative_to(protocol.root))
        for folder, _, names in os.walk(protocol.root / protocol.photos)
        for name in names
    }
    for path in protocol.paths:
        # what lies behind a linked folder is not walked through
        if path not in present and not is_file(protocol.root / path_from_text(path)):
            log.add("missing_file", "no such photo", path)
    for path in sorted(present.difference(protocol.paths)):
        if PurePath(path).suffix.lower() in PHOTO_EXTENSIONS:
            log.add("extra_file", "a photo that no pair names", path)


def _check_encoded(protocol: Protocol, log: IssueLog) -> None:
    for index, path in enumerate(protocol.paths):
        try:
            pixels(protocol, index)
        except PhotoError as error:
            log.add("unreadable_photo", error.reason, path)
