"""LFW and XQLFW: a list of pairs, and a folder of photos for each person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from faceqan_toolkit.evaluation.datasets.base import (
    Dataset,
    IssueLog,
    ListBuilder,
    numbered_lines,
    whole_number,
)
from faceqan_toolkit.evaluation.datasets.registry import register_dataset
from faceqan_toolkit.files import is_file, is_folder

LISTS = {"lfw": ("pairs.txt",), "xqlfw": ("xqlfw_pairs.txt", "pairs.txt")}
FOLDERS = {
    "lfw": ("lfw", "lfw-deepfunneled", "lfw_funneled", "images"),
    "xqlfw": ("lfw_original_imgs_min_qual0.85variant11", "xqlfw_aligned_112", "images"),
}
"""Folders of photos below the root, as the official archives unpack; preferred ones first."""

OFFICIAL_PAIRS, OFFICIAL_FOLDS = 6000, 10
EXTENSIONS = (".jpg", ".png", ".jpeg", ".bmp", ".webp")
LOOKED_AT = 50
"""Photos of the list that are looked for, to find the folder and the extension."""


@dataclass(frozen=True)
class _Row:
    """A line of the list.

    Attributes:
        line: line number from 1.
        photos: name of the person and number of the photo, twice.
        short: whether the line has the mated form `name i j`.
    """

    line: int
    photos: tuple[tuple[str, int], tuple[str, int]]
    short: bool

    @property
    def mated(self) -> bool:
        (first, _), (second, _) = self.photos
        return first == second


@register_dataset(
    "lfw",
    help="LFW: ROOT holds pairs.txt and a folder for each person.",
    faces="central",
    root="`pairs.txt` and the people's folders, or `lfw`, `lfw-deepfunneled`, `lfw_funneled`, "
    "`images` with them",
    size="6,000 pairs, half mated, 10 folds; 13,233 photos, not all of them in pairs",
    layout="The list starts with `10<TAB>300` (folds, pairs of a kind per fold). Every fold has "
    "300 mated lines `name i j`, then 300 non-mated lines `name1 i name2 j`; photo i is "
    "`name/name_000i.jpg` (or `.png` and so on). A development set has a first line with one "
    "number and no folds. `--pairs` takes another list, which must have as many pairs as its first "
    "line says. If the list is not in the folder, the parent folder is tried.",
)
def read_lfw(root: Path, *, pairs: Path | None = None) -> Dataset:
    """Return LFW.

    Args:
        root: folder with the people's folders, or with one of `FOLDERS` that has them.
        pairs: list of pairs; None for the data set's own, in `root` or its parent folder.
    """
    return _read(root, "lfw", pairs)


@register_dataset(
    "xqlfw",
    help="XQLFW: ROOT holds its pairs and lfw_original_imgs_min_qual0.85variant11.",
    faces="central",
    root="`xqlfw_pairs.txt` (or `pairs.txt`) and `lfw_original_imgs_min_qual0.85variant11`, or "
    "`xqlfw_aligned_112`",
    size="as LFW",
    layout="The list is that of LFW. If both folders are there, the original photos are used; to "
    "use the aligned ones, give their folder.",
)
def read_xqlfw(root: Path, *, pairs: Path | None = None) -> Dataset:
    """Return XQLFW; the arguments are those of `read_lfw`."""
    return _read(root, "xqlfw", pairs)


def _read(root: Path, name: str, pairs: Path | None) -> Dataset:
    root, log, builder = Path(root), IssueLog(), ListBuilder()
    file = pairs or _find_list(root, name)
    folds, per_fold, rows = _parse(file, log)
    folder, extension = _find_photos(root, name, rows, log)
    prefix = f"{folder}/" if folder else ""
    builder.open(file.name)
    for position, row in enumerate(rows):
        (first, i), (second, j) = row.photos
        a = builder.sample(f"{prefix}{first}/{first}_{i:04d}{extension}", first)
        b = builder.sample(f"{prefix}{second}/{second}_{j:04d}{extension}", second)
        builder.pair(a, b, row.mated, row.line, position // (2 * per_fold) if folds else 0)
    found = builder.pairs(folds)
    if pairs is None and rows and (len(rows), folds) != (OFFICIAL_PAIRS, OFFICIAL_FOLDS):
        log.add(
            "official_count",
            f"{len(rows)} pairs in {folds or 'no'} folds; the official list has {OFFICIAL_PAIRS} "
            f"in {OFFICIAL_FOLDS}",
            file.name,
        )
    return Dataset(
        name, root, tuple(builder.samples), builder.identities(found), found, folds,
        photos=folder, log=log,
    )  # fmt: skip


def _find_list(root: Path, name: str) -> Path:
    candidates = [folder / listed for folder in (root, root.parent) for listed in LISTS[name]]
    return next((file for file in candidates if file.is_file()), candidates[0])


def _parse(file: Path, log: IssueLog) -> tuple[int | None, int, list[_Row]]:
    """Return the folds (None for a development set), pairs of a kind per fold, and the rows."""
    lines = numbered_lines(file, file.name, log)
    if lines is None:
        return None, 1, []
    if not lines:
        log.add("header", "the list is empty", file.name)
        return None, 1, []
    number, header = lines[0]
    counts = [whole_number(cell) for cell in header.split()]
    if len(counts) not in (1, 2) or not all(counts):
        log.add(
            "header",
            "the first line must be 'folds pairs' (such as 10 300), or the number of pairs alone",
            file.name,
            number,
        )
        return None, 1, []
    folds, per_fold = (None, counts[0]) if len(counts) == 1 else counts
    assert per_fold
    wanted = 2 * per_fold * (folds or 1)
    if len(lines) - 1 != wanted:
        log.add(
            "row_count", f"{len(lines) - 1} pairs, but the first line promises {wanted}", file.name
        )
    rows: list[_Row] = []
    for position, (number, line) in enumerate(lines[1:]):
        if position >= wanted:
            log.add("row_count", "more pairs than the first line promises", file.name, number)
            continue
        cells = line.strip().split("\t" if "\t" in line else None)
        row = _row(cells, number)
        if row is None:
            message = "neither 'name i j' nor 'name1 i name2 j'"
            log.add("malformed_row", message, file.name, number)
            continue
        should_be_mated = position % (2 * per_fold) < per_fold
        if row.short != should_be_mated:
            form = (
                "mated pair 'name i j'" if should_be_mated else "non-mated pair 'name1 i name2 j'"
            )
            log.add("malformed_row", f"expected a {form}", file.name, number)
        if row.mated and not row.short:
            message = "a non-mated pair of the same person"
            log.add("contradicting_label", message, file.name, number)
        rows.append(row)
    return folds, per_fold, rows


def _row(cells: list[str], line: int) -> _Row | None:
    cells = [cell.strip() for cell in cells]
    if len(cells) == 3:
        cells = [cells[0], cells[1], cells[0], cells[2]]
        short = True
    elif len(cells) == 4:
        short = False
    else:
        return None
    first, i, second, j = cells
    numbers = whole_number(i), whole_number(j)
    if not (_is_name(first) and _is_name(second) and numbers[0] and numbers[1]):
        return None
    return _Row(line, ((first, numbers[0]), (second, numbers[1])), short)


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and not set(text) & set("/\\:\0")


def _find_photos(root: Path, name: str, rows: list[_Row], log: IssueLog) -> tuple[str, str]:
    """Return the folder of the photos, relative to the root, and their extension."""
    photos = list(dict.fromkeys(photo for row in rows for photo in row.photos))[:LOOKED_AT]
    scores: dict[tuple[str, str], int] = {}
    for folder in ("", *FOLDERS[name], *_below(root)):
        for extension in EXTENSIONS:
            count = sum(
                is_file(root / folder / person / f"{person}_{number:04d}{extension}")
                for person, number in photos
            )
            if count:
                scores.setdefault((folder, extension), count)
            elif extension == EXTENSIONS[0] and not any(
                is_folder(root / folder / person) for person, _ in photos
            ):
                break
    if not scores:
        return "", EXTENSIONS[0]
    best = max(scores, key=lambda place: scores[place])  # the first of equals
    others = sorted({folder for folder, _ in scores if PurePath(folder) != PurePath(best[0])})
    if others:
        log.add(
            "several_folders",
            f"using the photos in {best[0] or '.'}; {', '.join(others)} has them too: "
            "give that folder as ROOT to use it instead",
        )
    return best


def _below(root: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    except OSError:
        return []
