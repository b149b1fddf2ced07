"""A folder for each person: all mated pairs, and sampled or all non-mated pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.datasets.base import BLOCK, Dataset, Index, IssueLog, PairBlock
from faceqan_toolkit.evaluation.datasets.registry import register_dataset
from faceqan_toolkit.files import sha256_of
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.text import path_from_text

if TYPE_CHECKING:
    from faceqan_toolkit.results.identities import IdentityRule


@dataclass(frozen=True)
class RowPairs:
    """Pairs generated on demand: sample i with each of `start[i]` to `stop[i]` - 1.

    Attributes:
        start: (N,) int64, above i.
        stop: (N,) int64, at least `start`.
        mated: whether all pairs are mated, or all non-mated.
        chosen: (C,) int64 ascending indices of the sampled pairs, counted row by row; None for all.
    """

    start: Index
    stop: Index
    mated: bool
    chosen: Index | None = None

    @property
    def total(self) -> int:
        """Number of pairs before sampling."""
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
    """Several sets of pairs, one after the other."""

    parts: tuple[RowPairs, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def blocks(self, size: int = BLOCK) -> Iterator[PairBlock]:
        """Yield all comparisons in order, at most `size` at a time."""
        for part in self.parts:
            yield from part.blocks(size)


@register_dataset(
    "folders",
    help="Your own photos: ROOT holds a folder for each person, or as --identity says.",
    faces="largest",
    root="a folder for each person",
    size="yours",
    layout="Each folder is a person; photos may lie deeper in it. `--identity` takes another "
    "folder of the path, or a table ([who is one person](calibration.md#who-is-one-person)). "
    "Identical files under several people are left out, because their identity is unknown. All "
    "mated pairs are compared, and as many non-mated ones, sampled with a seed; `--non-mated` "
    "takes another number of them, or `all`, which are never held in memory at once.",
    own=True,
)
def read_folders(
    root: Path,
    *,
    non_mated: int | Literal["all"] | None = None,
    seed: int = 0,
    identity: IdentityRule | None = None,
) -> Dataset:
    """Return comparisons between the photos below a folder of people.

    Args:
        root: folder with a folder for each person, unless `identity` says otherwise.
        non_mated: number of non-mated pairs, sampled without replacement; "all"; None for as many
            as there are mated ones. All are taken if there are fewer.
        seed: random seed of the sample.
        identity: rule for a photo's identity; None for the first folder below `root`.

    Raises:
        SettingsError: `root` does not exist, a negative number, or an unusable table of identities.
    """
    from faceqan_toolkit.results.identities import IdentityRule, identities_of

    root, log = Path(root), IssueLog()
    if isinstance(non_mated, int) and non_mated < 0:
        raise SettingsError(f"the number of non-mated pairs must not be negative: {non_mated}")
    if not root.is_dir():
        raise SettingsError(f"{root}: no such folder")
    photos, found = identities_of(find_photos([root]), identity or IdentityRule())
    duplicates = _shared_photos(root, photos)
    people: dict[str, list[str]] = {}
    for path, person in photos:
        if person is None:
            log.add("no_identity", "left out: a photo without an identity", path)
        elif path in duplicates:
            message = f"left out: the same photo as {duplicates[path]}, of another person"
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
    return Dataset(
        "folders",
        root,
        tuple(path for photos in people.values() for path in photos),
        identities.astype(np.int64),
        Joined((mated, others)),
        people=found.text(),
        log=log,
    )


def _shared_photos(root: Path, photos: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return each photo that another person has too, with one of that person's copies.

    Only files whose size occurs under several people are read. Empty files are not photos, so they
    are not compared.
    """

    def size(path: str) -> Hashable:
        return (root / path_from_text(path)).stat().st_size or path

    def checksum(path: str) -> Hashable:
        return sha256_of(root / path_from_text(path))

    groups = [[(path, person) for path, person in photos if person is not None]]
    for key in (size, checksum):
        groups = [part for group in groups for part in _alike(group, key)]
    found: dict[str, str] = {}
    for group in groups:
        one, someone = group[0]
        other = next(path for path, person in group if person != someone)
        found |= {path: other if person == someone else one for path, person in group}
    return found


def _alike(
    photos: list[tuple[str, str]], key: Callable[[str], Hashable]
) -> Iterator[list[tuple[str, str]]]:
    """Yield the photos with equal keys, where they are of several people."""
    parts: defaultdict[Hashable, list[tuple[str, str]]] = defaultdict(list)
    for path, person in photos:
        with suppress(OSError):  # unreadable photos are compared with none
            parts[key(path)].append((path, person))
    for part in parts.values():
        if len({person for _, person in part}) > 1:
            yield part
