"""Readers of lists of photos: LFW and XQLFW, CFP-FP, your own pairs, a folder for each person."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

import numpy as np

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.datasets.base import (
    BLOCK,
    Dataset,
    Index,
    IssueLog,
    ListBuilder,
    PairBlock,
    inner_path,
)
from faceqan_toolkit.files import is_file, is_folder, sha256_of, to_utf8
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.results.groups import IdentityRule, identities_of
from faceqan_toolkit.text import path_from_text

LISTS = {"lfw": ("pairs.txt",), "xqlfw": ("xqlfw_pairs.txt", "pairs.txt")}
FOLDERS = {
    "lfw": ("lfw", "lfw-deepfunneled", "lfw_funneled", "images"),
    "xqlfw": ("lfw_original_imgs_min_qual0.85variant11", "xqlfw_aligned_112", "images"),
}
"""Folders of photos below the root, as the official archives unpack; preferred ones first."""

LFW_PAIRS, LFW_FOLDS = 6000, 10
EXTENSIONS = (".jpg", ".png", ".jpeg", ".bmp", ".webp")
LOOKED_AT = 50
"""Photos of LFW's list that are looked for, to find the folder and the extension."""

CFP_FOLDS = 10
CFP_PAIRS_OF_A_KIND = 350
CFP_PHOTOS = {"F": 5000, "P": 2000}

COLUMNS = ("a", "b", "label")
LABELS = {"1": True, "0": False}

LFWPhoto = tuple[str, int]
"""Name of a person and number of the photo, from 1."""


def _text(file: Path) -> str:
    """Return a text in UTF-8 or the byte order mark's encoding, other bytes as surrogates."""
    return to_utf8(file.read_bytes()).decode("utf-8", "surrogateescape")


def _lines(file: Path, shown: str, log: IssueLog) -> list[tuple[int, str]] | None:
    """Return a text's lines that are not blank, with their numbers; None if it cannot be read."""
    text = None
    with log.reading(shown):
        text = _text(file).replace("\r\n", "\n")
    lines = enumerate((text or "").split("\n"), start=1)
    return None if text is None else [(number, line) for number, line in lines if line.strip()]


def _whole_number(text: str) -> int | None:
    """Return the number if the text is one to nine ASCII digits, else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def read_lfw(root: Path, name: str = "lfw", *, pairs: Path | None = None) -> Dataset:
    """Return LFW or XQLFW.

    Args:
        root: folder with the people's folders, or with one of `FOLDERS` that has them.
        name: "lfw" or "xqlfw".
        pairs: list of pairs; None for the data set's own, in `root` or its parent folder.
    """
    root, log, builder = Path(root), IssueLog(), ListBuilder()
    own = [folder / listed for folder in (root, root.parent) for listed in LISTS[name]]
    file = pairs or next((file for file in own if file.is_file()), own[0])
    folds, per_fold, rows = _parse_lfw(file, log)
    photos = list(dict.fromkeys(photo for _, *both in rows for photo in both))[:LOOKED_AT]
    folder, extension = _find_photos(root, name, photos, log)
    builder.open(file.name)
    for position, (line, *both) in enumerate(rows):
        first, second = (
            builder.sample(str(PurePosixPath(folder, _lfw_path(photo, extension))), photo[0])
            for photo in both
        )
        fold = position // (2 * per_fold) if folds else 0
        builder.pair(first, second, both[0][0] == both[1][0], line, fold)
    found = builder.pairs(folds)
    if pairs is None and rows and (len(rows), folds) != (LFW_PAIRS, LFW_FOLDS):
        message = (
            f"{len(rows)} pairs in {folds or 'no'} folds; the official list has {LFW_PAIRS} in"
        )
        log.add("official_count", f"{message} {LFW_FOLDS}", file.name)
    return Dataset(
        name, root, tuple(builder.samples), builder.identities(found), found, folds,
        photos=folder, log=log,
    )  # fmt: skip


def _parse_lfw(
    file: Path, log: IssueLog
) -> tuple[int | None, int, list[tuple[int, LFWPhoto, LFWPhoto]]]:
    """Return the folds (None for a development set), pairs of a kind per fold, and the rows."""
    shown = file.name
    lines = _lines(file, shown, log)
    if lines is None:
        return None, 1, []
    if not lines:
        log.add("header", "the list is empty", shown)
        return None, 1, []
    number, header = lines[0]
    counts = [count for count in map(_whole_number, header.split()) if count]
    if len(counts) not in (1, 2) or len(counts) < len(header.split()):
        message = "'folds pairs' (such as 10 300), or the number of pairs alone"
        log.add("header", f"the first line must be {message}", shown, number)
        return None, 1, []
    *folds, per_fold = counts
    wanted = 2 * per_fold * (folds[0] if folds else 1)
    if len(lines) - 1 != wanted:
        message = f"{len(lines) - 1} pairs, but the first line promises {wanted}"
        log.add("row_count", message, shown)
    rows = []
    for position, (number, line) in enumerate(lines[1:]):
        if position >= wanted:
            log.add("row_count", "more pairs than the first line promises", shown, number)
            continue
        cells = [cell.strip() for cell in line.strip().split("\t" if "\t" in line else None)]
        both = _lfw_photos(cells)
        if both is None:
            log.add("malformed_row", "neither 'name i j' nor 'name1 i name2 j'", shown, number)
            continue
        is_short = len(cells) == 3
        if is_short != (position % (2 * per_fold) < per_fold):
            form = "non-mated pair 'name1 i name2 j'" if is_short else "mated pair 'name i j'"
            log.add("malformed_row", f"expected a {form}", shown, number)
        if both[0][0] == both[1][0] and not is_short:
            log.add("contradicting_label", "a non-mated pair of the same person", shown, number)
        rows.append((number, *both))
    return folds[0] if folds else None, per_fold, rows


def _lfw_photos(cells: list[str]) -> tuple[LFWPhoto, LFWPhoto] | None:
    if len(cells) == 3:
        cells = [*cells[:2], cells[0], cells[2]]
    names, numbers = cells[::2], list(map(_whole_number, cells[1::2]))
    if len(cells) != 4 or {"", ".", ".."} & set(names) or set("/\\:\0") & set("".join(names)):
        return None
    first, second = numbers
    return ((names[0], first), (names[1], second)) if first and second else None


def _find_photos(root: Path, name: str, photos: list[LFWPhoto], log: IssueLog) -> tuple[str, str]:
    """Return the folder of the photos, relative to the root, and their extension."""
    below: list[str] = []
    with suppress(OSError):
        below = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    counts: dict[tuple[str, str], int] = {}
    for folder in dict.fromkeys(("", *FOLDERS[name], *below)):
        if any(is_folder(root / folder / person) for person, _ in photos):
            for extension in EXTENSIONS:
                files = (root / folder / _lfw_path(photo, extension) for photo in photos)
                if count := sum(map(is_file, files)):
                    counts[folder, extension] = count
    if not counts:
        return "", EXTENSIONS[0]
    best = max(counts, key=lambda place: counts[place])  # the first of equals
    others = sorted({folder for folder, _ in counts if PurePath(folder) != PurePath(best[0])})
    if others:
        message = f"using the photos in {best[0] or '.'}; {', '.join(others)} has them too"
        log.add("several_folders", f"{message}: give that folder as ROOT to use it instead")
    return best


def _lfw_path(photo: LFWPhoto, extension: str) -> str:
    person, number = photo
    return f"{person}/{person}_{number:04d}{extension}"


def read_cfp_fp(root: Path) -> Dataset:
    """Return Celebrities in Frontal-Profile; `root` has the folders `Protocol` and `Data`."""
    root, log, builder = Path(root), IssueLog(), ListBuilder()
    photos = {which: _cfp_photos(root, which, log) for which in CFP_PHOTOS}
    counts = {}
    for fold in range(CFP_FOLDS):
        for name, mated in (("same.txt", True), ("diff.txt", False)):
            shown = f"Protocol/Split/FP/{fold + 1:02d}/{name}"
            lines = _lines(root / shown, shown, log)
            if lines is None:
                continue
            counts[shown] = len(lines)
            builder.open(shown)
            for number, line in lines:
                cells = [_whole_number(cell.strip()) for cell in line.split(",")]
                if len(cells) != 2 or not all(cells):
                    log.add("malformed_row", "not 'frontal,profile', both from 1", shown, number)
                    continue
                given = list(zip(cells, photos.items(), strict=True))
                found = [listed[index] for index, (_, listed) in given if index in listed]
                if len(found) < 2:
                    index, which = next((i, w) for i, (w, listed) in given if i not in listed)
                    message = f"photo {index} is not in Pair_list_{which}.txt"
                    log.add("unknown_sample", message, shown, number)
                    continue
                one, other = (photo.split("/")[-3] for photo in found)
                if (one == other) != mated:
                    message = f"people {one} and {other} do not belong in {name}"
                    log.add("contradicting_label", message, shown, number)
                first, second = map(builder.sample, found, (one, other))
                builder.pair(first, second, mated, number, fold)
    usual = max(counts.values(), key=list(counts.values()).count, default=0)
    for shown, count in counts.items():
        if count != usual or not count:
            log.add("row_count", f"{count} pairs, where most files have {usual}", shown)
    if counts and usual != CFP_PAIRS_OF_A_KIND:
        message = f"{usual} pairs a file; the official ones have {CFP_PAIRS_OF_A_KIND}"
        log.add("official_count", message, "Protocol/Split/FP")
    pairs = builder.pairs(CFP_FOLDS)
    return Dataset(
        "cfp_fp", root, tuple(builder.samples), builder.identities(pairs), pairs, CFP_FOLDS,
        photos="Data", log=log,
    )  # fmt: skip


def _cfp_photos(root: Path, which: str, log: IssueLog) -> dict[int | None, str]:
    """Return the photos of a list by number, as paths relative to the root."""
    shown = f"Protocol/Pair_list_{which}.txt"
    lines = _lines(root / shown, shown, log)
    found: dict[int | None, str] = {}
    for number, line in lines or ():
        index, _, path = line.strip().partition(" ")
        key, inner = _whole_number(index), inner_path(path.strip(), "Protocol")
        if not key or inner is None or inner.count("/") < 2:
            message = "not 'index path', with a path of person/pose/photo below the data set"
            log.add("malformed_row", message, shown, number)
        elif key in found:
            log.add("malformed_row", f"photo {key} is listed twice", shown, number)
        else:
            found[key] = inner
    if lines is not None and len(found) != CFP_PHOTOS[which]:
        message = f"{len(found)} photos; the official list has {CFP_PHOTOS[which]}"
        log.add("official_count", message, shown)
    return found


def read_pairs(root: Path, *, pairs: Path) -> Dataset:
    """Return the comparisons of a CSV file with the columns `COLUMNS`, of paths below `root`."""
    root, file, log, builder = Path(root), Path(pairs), IssueLog(), ListBuilder()
    builder.open(file.name)
    with log.reading(file.name, csv.Error):
        _parse_pairs(_text(file), file.name, builder, log)
    found = builder.pairs(None)
    return Dataset("pairs", root, tuple(builder.samples), builder.identities(found), found, log=log)


def _parse_pairs(text: str, shown: str, builder: ListBuilder, log: IssueLog) -> None:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = (cells for cells in reader if any(cell.strip() for cell in cells))
    names = [cell.strip() for cell in next(rows, ())]
    if sorted(names) != sorted(COLUMNS):
        listed = ", ".join(names)[:80]
        found = f"found {listed}" if listed.isprintable() else "the file is not text"
        message = f"the columns must be a, b, label; {found}" if names else "the file is empty"
        log.add("header", message, shown, reader.line_num if names else None)
        return
    for cells in rows:
        line = reader.line_num
        if len(cells) != len(COLUMNS):
            log.add("malformed_row", f"{len(cells)} cells instead of 3", shown, line)
            continue
        row = dict(zip(names, cells, strict=True))
        first, second = (inner_path(row[column].strip()) for column in ("a", "b"))
        label = LABELS.get(row["label"].strip())
        if first is None or second is None:
            message = "a path that is empty, absolute or leads out of the folder"
            log.add("malformed_row", message, shown, line)
        elif label is None:
            message = f"the label must be 1 or 0, not {row['label'][:50]!r}"
            log.add("malformed_row", message, shown, line)
        else:
            builder.pair(builder.sample(first), builder.sample(second), label, line)


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
            index = np.arange(begin, min(begin + size, len(self)), dtype=np.int64)
            if self.chosen is not None:
                index = self.chosen[index]
            first = np.searchsorted(before, index, "right") - 1
            second = self.start[first] + index - before[first]
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


def read_folders(
    root: Path, *, non_mated: int | Literal["all"] | None = None, seed: int = 0,
    identity: IdentityRule | str | None = None,
) -> Dataset:  # fmt: skip
    """Return comparisons between the photos below a folder of people.

    Args:
        root: folder with a folder for each person, unless `identity` says otherwise.
        non_mated: number of non-mated pairs, sampled without replacement; "all"; None for as many
            as there are mated ones. All are taken if there are fewer.
        seed: random seed of the sample.
        identity: rule for a photo's identity, or its text, see `IdentityRule.parse`; None for the
            first folder below `root`.

    Raises:
        SettingsError: `root` does not exist, a negative number, or an unusable table of identities.
    """
    root, log = Path(root), IssueLog()
    if isinstance(non_mated, int) and non_mated < 0:
        raise SettingsError(f"the number of non-mated pairs must not be negative: {non_mated}")
    if not root.is_dir():
        raise SettingsError(f"{root}: no such folder")
    rule = identity if isinstance(identity, IdentityRule) else IdentityRule.parse(identity)
    photos, found = identities_of(find_photos([root]), rule)
    duplicates = _shared_photos(root, [(path, who) for path, who in photos if who is not None])
    people: defaultdict[str, list[str]] = defaultdict(list)
    for path, person in photos:
        if person is None:
            log.add("no_identity", "left out: a photo without an identity", path)
        elif path in duplicates:
            message = f"left out: the same photo as {duplicates[path]}, of another person"
            log.add("several_identities", message, path)
        else:
            people[person].append(path)
    sizes = np.array([len(paths) for paths in people.values()], np.int64)
    identities = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    ends = np.cumsum(sizes)[identities]
    mated = RowPairs(np.arange(1, len(ends) + 1, dtype=np.int64), ends, True)
    others = RowPairs(ends, np.full(len(ends), len(ends)), False)
    wanted = others.total if non_mated == "all" else len(mated) if non_mated is None else non_mated
    if wanted < others.total:
        draw = np.random.default_rng(seed).choice(others.total, wanted, replace=False)
        others = RowPairs(others.start, others.stop, False, np.sort(draw).astype(np.int64))
    return Dataset(
        "folders", root, tuple(path for paths in people.values() for path in paths), identities,
        Joined((mated, others)), people=found.text(), log=log,
    )  # fmt: skip


def _shared_photos(root: Path, photos: list[tuple[str, str]]) -> dict[str, str]:
    """Return each photo that another person has too, with one of that person's copies.

    Only files whose size occurs under several people are read. Empty files are not photos, so they
    are not compared.
    """
    same_size = _alike(photos, root, lambda file: file.stat().st_size or file)
    groups = [part for group in same_size for part in _alike(group, root, sha256_of)]
    found: dict[str, str] = {}
    for group in groups:
        one, someone = group[0]
        other = next(path for path, person in group if person != someone)
        found |= {path: other if person == someone else one for path, person in group}
    return found


def _alike(
    photos: list[tuple[str, str]], root: Path, key: Callable[[Path], Hashable]
) -> Iterator[list[tuple[str, str]]]:
    """Yield the photos with equal keys, where they are of several people."""
    parts: defaultdict[Hashable, list[tuple[str, str]]] = defaultdict(list)
    for path, person in photos:
        with suppress(OSError):  # unreadable photos are compared with none
            parts[key(root / path_from_text(path))].append((path, person))
    yield from (part for part in parts.values() if len({person for _, person in part}) > 1)
