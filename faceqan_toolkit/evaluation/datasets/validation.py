"""Checks of a data set before an evaluation: missing files, contradicting lists, duplicates."""

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

from faceqan_toolkit.errors import DatasetError, PhotoError
from faceqan_toolkit.evaluation.datasets.base import (
    KEPT_OF_A_KIND,
    SEVERITY,
    Dataset,
    Issue,
    IssueLog,
    PairList,
)
from faceqan_toolkit.files import is_file
from faceqan_toolkit.photos.decode import decode_bytes
from faceqan_toolkit.photos.stores import PHOTO_EXTENSIONS
from faceqan_toolkit.text import path_from_text, path_text, printable

FACES_NOT_FOUND = {"missing_file", "unreadable_photo"}
"""Errors that cost comparisons but do not stop an evaluation: these photos fail to enrol."""

MAX_PIXELS = 4096 * 4096
"""Largest encoded photo that is decoded."""


@dataclass(frozen=True)
class Validation:
    """Report on a data set.

    Attributes:
        dataset, root: name and folder of the data set.
        counts: number of samples, identities, templates, folds, comparisons, mated, non_mated.
        issue_counts: number of issues by kind.
        issues: the first `KEPT_OF_A_KIND` issues of each kind, errors first.
    """

    dataset: str
    root: Path
    counts: dict[str, int]
    issue_counts: dict[str, int]
    issues: tuple[Issue, ...]

    @property
    def errors(self) -> set[str]:
        """The kinds of errors."""
        return {kind for kind in self.issue_counts if SEVERITY[kind] == "error"}

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def lines(self, of_a_kind: int = 10) -> list[str]:
        """Return the report as lines of text, with `of_a_kind` issues of a kind at most."""
        shown = [f"{self.dataset} in {path_text(self.root)}"]
        for name, count in self.counts.items():
            if count or name not in ("templates", "folds"):
                shown.append(f"  {name.replace('_', '-')}: {count:,}")
        for kind, count in self.issue_counts.items():
            shown.append(self._summary(kind))
            same = [issue for issue in self.issues if issue.kind == kind]
            shown += [f"  {printable(str(issue))}" for issue in same[:of_a_kind]]
            if count > of_a_kind:
                shown.append(f"  and {count - min(of_a_kind, len(same)):,} more")
        return [*shown, "no errors" if self.ok else "not usable as it is"]

    def _summary(self, kind: str) -> str:
        return f"{SEVERITY[kind]}: {kind.replace('_', ' ')}: {self.issue_counts[kind]:,}"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "protocol": self.dataset,
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

    def remarks(self) -> list[str]:
        """Return a line for each kind of issue, with an example unless it is a note."""
        examples = {issue.kind: f", e.g. {path_text(str(issue))}" for issue in self.issues[::-1]}
        return [
            self._summary(kind) + (examples[kind] if SEVERITY[kind] != "note" else "")
            for kind in self.issue_counts
        ]

    def require_usable(self) -> None:
        """Raise DatasetError if there are errors other than `FACES_NOT_FOUND`."""
        if self.errors - FACES_NOT_FOUND:
            lines = "\n".join(self.lines())
            raise DatasetError(f"the data set cannot be evaluated as it is\n{lines}")


def validate(dataset: Dataset) -> Validation:
    """Return a report on a data set's lists, pairs and photos.

    Pairs are duplicates in either order. A photo is missing if it is not a file below the root.
    Encoded photos are decoded.
    """
    log = IssueLog(dataset.log.counts.copy(), dataset.log.issues.copy())
    if isinstance(dataset.pairs, PairList):
        _check_pairs(dataset, dataset.pairs, log)
        if not dataset.encoded and dataset.templates is None:
            _check_contents(dataset, dataset.pairs, log)
    if dataset.encoded:
        _check_encoded(dataset, log)
    else:
        _check_files(dataset, log)
    kinds = [kind for kind in SEVERITY if log.counts[kind]]
    mated = sum(int(block.mated.sum()) for block in dataset.pairs.blocks())
    counts = {
        "samples": len(dataset.paths),
        "identities": len(np.unique(dataset.identities)),
        "templates": len(dataset.templates) if dataset.templates else 0,
        "folds": dataset.folds or 0,
        "comparisons": len(dataset.pairs),
        "mated": mated,
        "non_mated": len(dataset.pairs) - mated,
    }
    return Validation(
        dataset.name, dataset.root, counts,
        {kind: log.counts[kind] for kind in kinds},
        tuple(sorted(log.issues, key=lambda issue: kinds.index(issue.kind))),
    )  # fmt: skip


def _check_pairs(dataset: Dataset, pairs: PairList, log: IssueLog) -> None:
    first, second = pairs.first.astype(np.int64), pairs.second.astype(np.int64)
    keys = np.minimum(first, second) * max(len(dataset.identities), 1)
    keys += np.maximum(first, second)
    selves = first == second
    alike = dataset.identities[first] == dataset.identities[second]

    def note(kind: str, rows: NDArray[np.int64], message: str | Callable[[int], str]) -> None:
        for row in rows[:KEPT_OF_A_KIND].tolist():
            text = message if isinstance(message, str) else message(row)
            log.add(kind, text, *pairs.where(row))
        log.counts[kind] += max(0, len(rows) - KEPT_OF_A_KIND)

    for kind, found, message in (
        ("self_pair", selves & pairs.mated, "compared with itself"),
        ("contradicting_label", selves & ~pairs.mated, "compared with itself as a non-mated pair"),
        ("contradicting_identity", alike & ~pairs.mated & ~selves,
         "a non-mated pair, but other pairs show the same person"),
    ):  # fmt: skip
        note(kind, np.flatnonzero(found), message)
    # IJB-C's 15.7 million pairs: what is not needed any more is freed
    del alike, selves, found
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = np.flatnonzero(keys[1:] == keys[:-1])
    del keys
    earlier, later = order[same], order[same + 1]
    del order
    differ = pairs.mated[later] != pairs.mated[earlier]

    def earlier_pair(row: int) -> str:
        before = int(earlier[np.flatnonzero(later == row)[0]])
        swapped = "" if first[row] == first[before] else ", in the other order"
        file, line = pairs.where(before)
        return f"repeats the pair of {file}, line {line}{swapped}"

    note("duplicate_pair", np.sort(later[~differ]), earlier_pair)
    note(
        "contradicting_label",
        np.sort(later[differ]),
        lambda row: f"{earlier_pair(row)}, with another label",
    )


def _check_contents(dataset: Dataset, pairs: PairList, log: IssueLog) -> None:
    """Log non-mated pairs of two files with the same content."""
    files = [dataset.root / path_from_text(path) for path in dataset.paths]
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
                    f"a non-mated pair of the same photo: {dataset.paths[first]} and "
                    f"{dataset.paths[second]} are identical files"
                )
                log.add("same_photo", message, *pairs.where(row))


def _check_files(dataset: Dataset, log: IssueLog) -> None:
    present = {
        path_text(PurePath(folder, name).relative_to(dataset.root))
        for folder, _, names in os.walk(dataset.root / dataset.photos)
        for name in names
    }
    for path in dataset.paths:
        # os.walk does not follow linked folders
        if path not in present and not is_file(dataset.root / path_from_text(path)):
            log.add("missing_file", "no such photo", path)
    for path in sorted(present.difference(dataset.paths)):
        if PurePath(path).suffix.lower() in PHOTO_EXTENSIONS:
            log.add("extra_file", "a photo that no pair names", path)


def _check_encoded(dataset: Dataset, log: IssueLog) -> None:
    for path, encoded in zip(dataset.paths, dataset.encoded, strict=True):
        try:
            decode_bytes(encoded, max_pixels=MAX_PIXELS)
        except PhotoError as error:
            log.add("unreadable_photo", error.reason, path)
