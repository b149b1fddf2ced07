"""A folder of folders, one a person: all mated pairs, and non-mated ones drawn or all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.datasets.base import BLOCK, Index, PairBlock, Protocol
from faceqan_toolkit.evaluation.datasets.issues import IssueLog
from faceqan_toolkit.evaluation.options import FACES
from faceqan_toolkit.files import sha256_of
from faceqan_toolkit.paths import path_from_text
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.results.identities import IdentityRule, identities_of
from faceqan_toolkit.text_files import HEAD_BYTES


@dataclass(frozen=True)
class RowPairs:
    """Pairs that need not be held: sample i with each of `start[i]` to `stop[i]` - 1.

    Attributes:
        start: (N,) int64, above i.
        stop: (N,) int64, not below `start`.
        mated: whether all of them are.
        chosen: (C,) int64, growing: which of the pairs, counted row by row; None means all.
    """

    start: Index
    stop: Index
    mated: bool
    chosen: Index | None = None

    @property
    def total(self) -> int:
        """How many there are to choose from."""
        return int((self.stop - self.start).sum())

    def __len__(self) -> int:
        return self.total if self.chosen is None else len(self.chosen)

    def blocks(self, size: int = BLOCK) -> Iterator[PairBlock]:
        """Yield the pairs in order, `size` at a time."""
        before = np.concatenate([[0], np.cumsum(self.stop - self.start)])
        for begin in range(0, len(self), size):
            end = min(begin + size, len(self))
            place = (
                np.arange(begin, end) if self.chosen is None else self.chosen[begin:end]
            ).astype(np.int64)
            first = np.searchsorted(before, place, "right") - 1
            second = self.start[first] + place - before[first]
            yield PairBlock(first, second, np.full(len(first), self.mated))


@dataclass(frozen=True)
class Joined:
    """Several sets of pairs, one after the other; none stands in a file."""

    parts: tuple[RowPairs, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def blocks(self, size: int = BLOCK) -> Iterator[PairBlock]:
        """Yield all comparisons in order, at most `size` at a time."""
        for part in self.parts:
            yield from part.blocks(size)

    def where(self, index: int) -> tuple[str, int | None]:
        """Return nothing: these pairs stand in no file."""
        return "", None


def read_folders(
    root: Path,
    *,
    non_mated: int | Literal["all"] | None = None,
    seed: int = 0,
    identity: IdentityRule | None = None,
) -> Protocol:
    """Return comparisons between the photos below a folder of people.

    Photos that lie under several people, file for file the same, are left out: who they show is not
    known, and they would be non-mated to themselves.

    Args:
        root: each folder in it is a person, unless `identity` says otherwise.
        non_mated: how many pairs of different people, drawn without repetition; "all"; or None:
            as many as there are mated ones. If there are fewer, all are taken.
        seed: of the draw.
        identity: which photos show one person; None for the default, the first folder below `root`.

    Raises:
        SettingsError: `root` does not exist, a negative number, or a table of identities that
            cannot be used.
    """
    root, log = Path(root), IssueLog()
    if isinstance(non_mated, int) and non_mated < 0:
        raise SettingsError(f"the number of non-mated pairs must not be negative: {non_mated}")
    if not root.is_dir():
        raise SettingsError(f"{root}: no such folder")
    photos, found = identities_of(find_photos([root]), identity or IdentityRule())
    several = _of_several(root, photos)
    people: dict[str, list[str]] = {}
    for path, person in photos:
        if person is None:
            log.add("no_identity", "a photo without an identity is left out", path)
        elif path in several:
            message = f"the same photo as {several[path]}, of another person; left out"
            log.add("several_identities", message, path)
        else:
            people.setdefault(person, []).append(path)
    sizes = np.array([len(photos) for photos in people.values()], np.int64)
    identities = np.repeat(np.arange(len(sizes)), sizes)
    ends = np.cumsum(sizes)[identities]
    here = np.arange(len(identities), dtype=np.int64)
    mated = RowPairs(here + 1, ends, True)
    others = RowPairs(ends, np.full(len(ends), len(ends)), False)
    wanted = others.total if non_mated == "all" else len(mated) if non_mated is None else non_mated
    if wanted < others.total:
        draw = np.random.default_rng(seed).choice(others.total, wanted, replace=False)
        others = RowPairs(others.start, others.stop, False, np.sort(draw).astype(np.int64))
    return Protocol(
        "folders",
        root,
        tuple(path for photos in people.values() for path in photos),
        identities.astype(np.int64),
        Joined((mated, others)),
        faces=FACES["folders"],
        people=found.text(),
        log=log,
    )


def _of_several(root: Path, photos: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return the photos of which another person has the same one, each with one of those.

    Only files that might be equal are read, by their size and how they begin. Empty files are no
    photos, so they are not compared.
    """

    def head(path: str) -> bytes:
        with (root / path_from_text(path)).open("rb") as file:
            return file.read(HEAD_BYTES)

    tests: tuple[Callable[[str], Hashable], ...] = (
        lambda path: (root / path_from_text(path)).stat().st_size or path,
        head,
        lambda path: sha256_of(root / path_from_text(path)),
    )
    groups = [[(path, person) for path, person in photos if person is not None]]
    for test in tests:
        groups = [part for group in groups for part in _alike(group, test)]
    found: dict[str, str] = {}
    for group in groups:
        one, someone = group[0]
        other = next(path for path, person in group if person != someone)
        found |= {path: other if person == someone else one for path, person in group}
    return found


def _alike(
    photos: list[tuple[str, str]], test: Callable[[str], Hashable]
) -> Iterator[list[tuple[str, str]]]:
    """Yield photos of several people on which a test has one result."""
    parts: defaultdict[Hashable, list[tuple[str, str]]] = defaultdict(list)
    for path, person in photos:
        try:
            parts[test(path)].append((path, person))
        except OSError:  # a photo that cannot be read is compared with none
            continue
    for part in parts.values():
        if len({person for _, person in part}) > 1:
            yield part
