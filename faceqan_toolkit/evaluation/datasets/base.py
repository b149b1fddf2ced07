"""What every reader returns: samples, and which of them are compared. numpy only."""

from __future__ import annotations

import posixpath
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.evaluation.datasets.issues import IssueLog
from faceqan_toolkit.evaluation.datasets.templates import Templates
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.photos.locate import locate
from faceqan_toolkit.text_files import to_utf8
from faceqan_toolkit.types import PhotoSource
from faceqan_toolkit.wording import reason_of

Index = NDArray[np.int64]

BLOCK = 65_536
"""Comparisons in a block: gathering both sides' embeddings of 512 floats takes 268 MB."""


@dataclass(frozen=True)
class PairBlock:
    """Some pairs of samples or, where there are templates, of templates.

    Attributes:
        first: (P,) int64, indices.
        second: (P,) int64, indices.
        mated: (P,) bool, the same identity.
        fold: (P,) int64 from 0, or None if the protocol has no folds.
    """

    first: Index
    second: Index
    mated: NDArray[np.bool_]
    fold: Index | None = None


class Pairs(typing.Protocol):
    """Comparisons, held in memory or made when they are asked for."""

    def __len__(self) -> int: ...

    def blocks(self, size: int = BLOCK) -> Iterator[PairBlock]:
        """Yield all comparisons in order, `size` at a time."""
        ...

    def where(self, index: int) -> tuple[str, int | None]:
        """Return the file and line a comparison stands in."""
        ...


@dataclass(frozen=True)
class PairList:
    """Comparisons that were read from files.

    Attributes:
        first: (P,) indices, of any integer type.
        second: (P,) the same.
        mated: (P,) bool.
        fold: (P,) from 0, or None.
        files: names of the files they stand in, in order.
        starts: (F,) index of each file's first comparison, growing.
        lines: (P,) line numbers from 1, or None: as many lines as comparisons.
    """

    first: NDArray[np.integer[typing.Any]]
    second: NDArray[np.integer[typing.Any]]
    mated: NDArray[np.bool_]
    fold: NDArray[np.integer[typing.Any]] | None = None
    files: tuple[str, ...] = ()
    starts: Index = field(default_factory=lambda: np.zeros(1, np.int64))
    lines: NDArray[np.integer[typing.Any]] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def blocks(self, size: int = BLOCK) -> Iterator[PairBlock]:
        """Yield all comparisons in order, `size` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield PairBlock(
                self.first[part].astype(np.int64),
                self.second[part].astype(np.int64),
                self.mated[part],
                None if self.fold is None else self.fold[part].astype(np.int64),
            )

    def where(self, index: int) -> tuple[str, int | None]:
        """Return the file and line a comparison stands in."""
        if not self.files:
            return "", None
        file = self.files[int(np.searchsorted(self.starts, index, "right")) - 1]
        return file, index + 1 if self.lines is None else int(self.lines[index])


@dataclass(frozen=True)
class Protocol:
    """A data set with the comparisons its protocol asks for.

    Attributes:
        name: of the protocol, as `options.PROTOCOLS` has it.
        root: the folder that paths are relative to.
        paths: (N,) of the samples, each once, as results have them (`paths.path_text`).
        identities: (M,) int64, who is compared: of every sample or, where there are templates,
            of every template. Equal numbers are the same person as far as the protocol tells.
        pairs: the comparisons.
        folds: how many folds they are in, or None.
        templates: of samples, if templates are what is compared.
        landmarks: (N, 5, 2) float64 in pixels, NaN where there are none, or None: detect them.
        confidences: (N,) float64 of the detector that found the landmarks, or None.
        encoded: (N,) the samples' encoded photos, where they are no files of their own.
        faces: which face of a photo shows its person, see `options.FACES`; None where there is no
            choice.
        people: what told the identities, and how many there are, in words; "" if pairs tell them.
        photos: folder below `root`, "" itself, that should hold the samples and nothing else.
        log: what was wrong with the protocol's files.
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
        """Yield the samples as the pipeline takes them; none of a `.bin`, see `encoded`."""
        if self.encoded:
            return
        for path in self.paths:
            yield locate(path_text(self.root), path)

    def comparisons(self) -> PairBlock:
        """Return all pairs at once: 17 bytes each, 25 with folds."""
        blocks = list(self.pairs.blocks())
        if not blocks:
            empty = np.empty(0, np.int64)
            return PairBlock(empty, empty, np.empty(0, np.bool_))
        folds = [block.fold for block in blocks if block.fold is not None]
        return PairBlock(
            np.concatenate([block.first for block in blocks]),
            np.concatenate([block.second for block in blocks]),
            np.concatenate([block.mated for block in blocks]),
            np.concatenate(folds) if folds else None,
        )


class ListBuilder:
    """Collects the samples and pairs of lists, in the order they are met."""

    def __init__(self) -> None:
        self.samples: dict[str, int] = {}
        self._identities: list[str | None] = []
        self._rows: list[tuple[int, int, bool, int, int]] = []
        self._files: list[str] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def open(self, file: str) -> None:
        """Say where the pairs that follow stand."""
        self._files.append(file)
        self._starts.append(len(self._rows))

    def sample(self, path: str, identity: str | None = None) -> int:
        """Return a sample's index.

        Args:
            path: relative, with forward slashes.
            identity: a name, or None: as the mated pairs tell.
        """
        index = self.samples.setdefault(path_text(path), len(self.samples))
        if index == len(self._identities):
            self._identities.append(identity)
        return index

    def pair(self, first: int, second: int, mated: bool, line: int, fold: int = 0) -> None:
        """Add a pair of sample indices."""
        self._rows.append((first, second, mated, fold, line))

    def pairs(self, folds: int | None) -> PairList:
        """Return the pairs so far."""
        table = np.array(self._rows, np.int64).reshape(-1, 5)
        return PairList(
            table[:, 0], table[:, 1], table[:, 2].astype(np.bool_),
            None if folds is None else table[:, 3],
            tuple(self._files), np.array(self._starts, np.int64), table[:, 4],
        )  # fmt: skip

    def identities(self, pairs: PairList) -> Index:
        """Return (N,) int64: by name if there are names, else by what mated pairs join."""
        if None in self._identities:
            return joined_identities(len(self.samples), pairs)
        numbers: dict[str | None, int] = {}
        return np.array(
            [numbers.setdefault(name, len(numbers)) for name in self._identities], np.int64
        )


def joined_identities(number: int, pairs: PairList, extra: Iterable[Sequence[int]] = ()) -> Index:
    """Return (number,) int64: equal for what mated pairs join, directly or through others.

    Args:
        number: of samples or templates.
        pairs: of them.
        extra: two equally long sequences of indices that are joined as well.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    more = np.array(list(extra), np.int64).reshape(2, -1)
    rows = np.concatenate([pairs.first[pairs.mated], more[0]])
    columns = np.concatenate([pairs.second[pairs.mated], more[1]])
    edges = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(number, number))
    _, labels = connected_components(edges, directed=False)
    return np.asarray(labels, np.int64)


def numbered_lines(file: Path, shown: str, log: IssueLog) -> list[tuple[int, str]] | None:
    """Return the lines of a text file that are not blank, with their numbers from 1.

    Args:
        file: UTF-8, or what its byte order mark says; bytes that are no UTF-8 stay as they are.
        shown: what to call it.
        log: gets the reason if None is returned.
    """
    try:
        data = to_utf8(file.read_bytes())
    except FileNotFoundError:
        log.add("missing_list", "no such file", shown)
        return None
    except (OSError, ValueError) as error:
        log.add("unreadable_list", reason_of(error), shown)
        return None
    text = data.decode("utf-8", "surrogateescape")
    lines = enumerate(text.replace("\r\n", "\n").split("\n"), start=1)
    return [(number, line) for number, line in lines if line.strip()]


def inner_path(path: str, folder: str = "") -> str | None:
    """Return a path relative to the root, or None if it is absolute or leads out of the root.

    Args:
        path: with forward or backward slashes.
        folder: below the root, that it is relative to.
    """
    path = path.replace("\\", "/")
    if not path or path.startswith("/") or path[1:2] == ":":
        return None
    inner = posixpath.normpath(posixpath.join(folder, path))
    return None if inner in (".", "..") or inner.startswith(("../", "/")) else inner


def whole_number(text: str) -> int | None:
    """Return a number of at most nine plain digits, else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
