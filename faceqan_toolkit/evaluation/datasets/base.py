"""Types that every data set reader returns, and helpers that the readers share."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import DatasetError, SettingsError
from faceqan_toolkit.photos.find import find_photos, locate
from faceqan_toolkit.text import path_text, reason_of
from faceqan_toolkit.types import PhotoSource

Index = NDArray[np.int64]

BLOCK = 65_536
"""Comparisons in a block: the embeddings of both sides, 512 floats each, take 268 MB."""
ROWS_AT_ONCE = 32_768
"""Embeddings that `Templates.embed` reads at once."""

_KINDS = {
    "error": "missing_list unreadable_list header row_count malformed_row unknown_sample "
    "contradicting_label missing_file unreadable_photo",
    "warning": "duplicate_pair self_pair contradicting_identity same_photo no_identity "
    "several_identities several_folders",
    "note": "official_count extra_file",
}
SEVERITY = {kind: severity for severity, kinds in _KINDS.items() for kind in kinds.split()}
"""Severity of every kind of issue, in the order of reports."""

KEPT_OF_A_KIND = 1000
"""Issues of one kind that are kept; further ones are only counted."""


@dataclass(frozen=True)
class Issue:
    """One problem of a data set.

    Attributes:
        kind: key of `SEVERITY`.
        message: description, without a full stop.
        file: name of the file; "" if there is no single file.
        line: line number in that file, from 1.
    """

    kind: str
    message: str
    file: str = ""
    line: int | None = None

    @property
    def severity(self) -> str:
        """The severity: "error", "warning" or "note"."""
        return SEVERITY[self.kind]

    def __str__(self) -> str:
        where = self.file + (f", line {self.line}" if self.line else "")
        return f"{where}: {self.message}" if where else self.message


@dataclass
class IssueLog:
    """Issues of a data set: their number by kind, and the first `KEPT_OF_A_KIND` of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    issues: list[Issue] = field(default_factory=list)

    def add(self, kind: str, message: str, file: str = "", line: int | None = None) -> None:
        """Add an issue; the arguments are those of `Issue`."""
        if self.counts[kind] < KEPT_OF_A_KIND:
            self.issues.append(Issue(kind, message, file, line))
        self.counts[kind] += 1

    @contextmanager
    def reading(self, file: str, *errors: type[Exception]) -> Iterator[None]:
        """Log OSError, ValueError and other errors of reading a file instead of raising them."""
        logged: tuple[type[Exception], ...] = (OSError, ValueError, *errors)
        try:
            yield
        except FileNotFoundError:
            self.add("missing_list", "no such file", file)
        except logged as error:
            self.add("unreadable_list", reason_of(error), file)

    def raise_errors(self, name: str = "") -> None:
        """Raise DatasetError with the first error, if any; `name` is the data set's."""
        errors = [issue for issue in self.issues if issue.severity == "error"]
        if errors:
            more = sum(n for kind, n in self.counts.items() if SEVERITY[kind] == "error") - 1
            rest = f" (and {more} more; validate lists them)" if more else ""
            raise DatasetError(f"{name}: {errors[0]}{rest}".removeprefix(": "))


@dataclass(frozen=True)
class PairBlock:
    """Pairs of samples, or of templates if the data set has templates.

    Attributes:
        first, second: (P,) int64 indices.
        mated: (P,) bool, whether both show the same identity.
        fold: (P,) int64 from 0; None if the data set has no folds.
    """

    first: Index
    second: Index
    mated: NDArray[np.bool_]
    fold: Index | None = None


class Pairs(Protocol):
    """Comparisons, held in memory or generated on demand."""

    def __len__(self) -> int: ...

    def blocks(self, size: int = BLOCK) -> Iterator[PairBlock]:
        """Yield all comparisons in order, at most `size` at a time."""
        ...


@dataclass(frozen=True)
class PairList:
    """Comparisons read from files.

    Attributes:
        first, second: (P,) indices, any integer dtype.
        mated: (P,) bool.
        fold: (P,) fold from 0, or None.
        files: names of the files that list the comparisons, in order.
        starts: (F,) ascending index of each file's first comparison.
        lines: (P,) line numbers from 1; None if line i + 1 holds comparison i.
    """

    first: NDArray[np.integer[Any]]
    second: NDArray[np.integer[Any]]
    mated: NDArray[np.bool_]
    fold: NDArray[np.integer[Any]] | None = None
    files: tuple[str, ...] = ()
    starts: Index = field(default_factory=lambda: np.zeros(1, np.int64))
    lines: NDArray[np.integer[Any]] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def blocks(self, size: int = BLOCK) -> Iterator[PairBlock]:
        """Yield all comparisons in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            fold = None if self.fold is None else self.fold[part].astype(np.int64)
            first, second = self.first[part].astype(np.int64), self.second[part].astype(np.int64)
            yield PairBlock(first, second, self.mated[part], fold)

    def where(self, index: int) -> tuple[str, int | None]:
        """Return the file and line of a comparison."""
        if not self.files:
            return "", None
        file = self.files[int(np.searchsorted(self.starts, index, "right")) - 1]
        return file, index + 1 if self.lines is None else int(self.lines[index])


@dataclass(frozen=True)
class Templates:
    """Several photos or video frames of a person, compared as one.

    One row is one sample's membership in one template.

    Attributes:
        names: (T,) int64, template numbers of the data set, ascending.
        template: (R,) int64, index into `names`.
        sample: (R,) int64, index of the sample.
        media: (R,) int64, number of the photo or video that the sample comes from.
    """

    names: Index
    template: Index
    sample: Index
    media: Index

    def __len__(self) -> int:
        return len(self.names)

    def embed(
        self, embeddings: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        """Return the templates' embeddings: mean over each medium, sum over media, L2-normalised.

        Args:
            embeddings: (N, D) embeddings, longer ones with more weight; samples with NaN are left
                out. A memory-mapped array is read in blocks.
            weights: (N,) weights of the samples within their medium, e.g. the detector's
                confidence; None for equal weights.

        Returns:
            (T, D) float32 of length 1; NaN for a template without embeddings.

        Source: the 1:1 protocol of IJB-C as InsightFace computes it.
        """
        from scipy.sparse import csr_array

        starts = range(0, len(embeddings), ROWS_AT_ONCE)
        blocks = [slice(start, start + ROWS_AT_ONCE) for start in starts]
        found = np.zeros(len(embeddings), np.bool_)
        for block in blocks:
            found[block] = np.isfinite(embeddings[block]).all(axis=1)
        rows = np.flatnonzero(found[self.sample])
        samples = self.sample[rows]
        share = 1 / np.bincount(self._medium[rows], minlength=1)[self._medium[rows]]
        if weights is not None:
            share = share * weights[samples]
        sums = np.zeros((len(self), embeddings.shape[1]), np.float64)
        for block in blocks:
            values = np.asarray(embeddings[block], np.float32)
            here = (samples >= block.start) & (samples < block.stop)
            places = self.template[rows[here]], samples[here] - block.start
            shares = share[here].astype(np.float32)
            parts = csr_array((shares, places), shape=(len(self), len(values)))
            sums += parts @ np.where(found[block, None], values, np.float32(0))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return (sums / np.where(lengths > 0, lengths, np.nan)).astype(np.float32)

    def quality(self, values: NDArray[np.float64], how: str = "min") -> NDArray[np.float64]:
        """Return the templates' qualities, (T,) float64, NaN for a template without.

        A quality is the "min", "mean" or "max" of the samples' `values`, (N,), without NaN.
        Raise SettingsError for another `how`.
        """
        reduce = {"min": np.minimum, "mean": np.add, "max": np.maximum}
        if how not in reduce:
            raise SettingsError(f"a template's quality is min, mean or max, not {how!r}")
        result = np.full(len(self), np.nan)
        rows = np.flatnonzero(~np.isnan(values[self.sample]))
        if len(rows):
            rows = rows[np.argsort(self.template[rows], kind="stable")]
            present, starts, counts = np.unique(
                self.template[rows], return_index=True, return_counts=True
            )
            result[present] = reduce[how].reduceat(values[self.sample[rows]], starts)
            if how == "mean":
                result[present] /= counts
        return result

    @cached_property
    def _medium(self) -> Index:
        """(R,) consecutive numbers of the (template, medium) pairs, from 0."""
        low = self.media.min(initial=0)
        span = self.media.max(initial=0) - low + 1
        _, numbers = np.unique(self.template * span + self.media - low, return_inverse=True)
        return np.asarray(numbers, np.int64).reshape(-1)


@dataclass(frozen=True)
class Dataset:
    """A data set and its comparisons.

    Attributes:
        name: name in messages and results.
        root: folder that paths are relative to.
        paths: (N,) path of each sample, without repetitions, as in results (`text.path_text`).
        identities: (M,) int64, identity of every sample, or of every template if there are
            templates. Equal numbers mean the same person, as far as the lists tell.
        pairs: the comparisons.
        folds: number of folds, or None.
        templates: samples of each template, if templates are compared.
        landmarks: (N, 5, 2) float64 in pixels, NaN rows for samples without; None to detect them.
        confidences: (N,) float64 confidence of the detector that found the landmarks, or None.
        encoded: (N,) encoded photos, if they are not separate files.
        faces: face to take from a photo with several, one of `settings.FACE_POLICIES`; None if the
            faces are given. The registry sets it.
        people: how identities were derived and how many there are, as text; "" if from the pairs.
        photos: folder below `root` that should hold the samples and no other photos; "" for `root`.
        log: problems of the data set's files.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    identities: Index
    pairs: Pairs
    folds: int | None = None
    templates: Templates | None = None
    landmarks: NDArray[np.float64] | None = None
    confidences: NDArray[np.float64] | None = None
    encoded: tuple[bytes, ...] = ()
    faces: str | None = None
    people: str = ""
    photos: str = ""
    log: IssueLog = field(default_factory=IssueLog)

    def sources(self) -> Iterator[PhotoSource]:
        """Yield the samples as sources for the pipeline; nothing if `encoded` holds them."""
        for path in () if self.encoded else self.paths:
            yield locate(path_text(self.root), path)

    def all_photos(self) -> list[PhotoSource]:
        """Return all photos of the data set, including those in no pair."""
        prefix = f"{self.photos}/" if self.photos else ""
        return [
            replace(source, root=path_text(self.root), path=prefix + source.path)
            for source in find_photos([self.root / self.photos])
        ]


class ListBuilder:
    """Collects the samples and pairs of lists, in the order of their appearance."""

    def __init__(self) -> None:
        self.samples: dict[str, int] = {}
        self._identities: list[str | None] = []
        self._rows: list[tuple[int, int, bool, int, int]] = []
        self._files: list[str] = []
        self._starts: list[int] = []

    def open(self, file: str) -> None:
        """Set the file that lists the pairs added from now on."""
        self._files.append(file)
        self._starts.append(len(self._rows))

    def sample(self, path: str, identity: str | None = None) -> int:
        """Return the index of a sample, by its path below the root; add it if it is new.

        Without an `identity`, the person's name, identities are derived from the mated pairs.
        """
        index = self.samples.setdefault(path_text(path), len(self.samples))
        if index == len(self._identities):
            self._identities.append(identity)
        return index

    def pair(self, first: int, second: int, mated: bool, line: int, fold: int = 0) -> None:
        """Add a pair of sample indices."""
        self._rows.append((first, second, mated, fold, line))

    def pairs(self, folds: int | None) -> PairList:
        """Return the pairs added so far."""
        first, second, mated, fold, lines = np.array(self._rows, np.int64).reshape(-1, 5).T
        return PairList(
            first, second, mated.astype(np.bool_), None if folds is None else fold,
            tuple(self._files), np.array(self._starts, np.int64), lines,
        )  # fmt: skip

    def identities(self, pairs: PairList) -> Index:
        """Return (N,) int64 identities: by name, or by mated pairs if a name is missing."""
        if None in self._identities:
            return joined_identities(len(self.samples), pairs)
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self._identities))}
        return np.array([numbers[name] for name in self._identities], np.int64)


def joined_identities(number: int, pairs: PairList, extra: Iterable[Sequence[int]] = ()) -> Index:
    """Return (number,) int64 identities: the connected components of the mated pairs.

    `extra` are two sequences of indices: more pairs of the same identity.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    more = np.array(list(extra), np.int64).reshape(2, -1)
    rows = np.concatenate([pairs.first[pairs.mated], more[0]])
    columns = np.concatenate([pairs.second[pairs.mated], more[1]])
    edges = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(number, number))
    _, labels = connected_components(edges, directed=False)
    return np.asarray(labels, np.int64)


def inner_path(path: str, folder: str = "") -> str | None:
    """Return a path in `folder` below the root as one relative to the root.

    None if it is absolute or leads out of the root. Slashes may be backward.
    """
    path = path.replace("\\", "/")
    if not path or path.startswith("/") or path[1:2] == ":":
        return None
    inner = posixpath.normpath(posixpath.join(folder, path))
    return None if inner in (".", "..") or inner.startswith(("../", "/")) else inner
