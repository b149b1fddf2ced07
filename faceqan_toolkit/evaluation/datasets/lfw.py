"""LFW and XQLFW: `pairs.txt`, and a folder of photos for each person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from faceqan_toolkit.evaluation.datasets.base import (
    ListBuilder,
    Protocol,
    numbered_lines,
    whole_number,
)
from faceqan_toolkit.evaluation.datasets.issues import IssueLog
from faceqan_toolkit.evaluation.options import FACES
from faceqan_toolkit.files import is_file, is_folder

LISTS = {"lfw": ("pairs.txt",), "xqlfw": ("xqlfw_pairs.txt", "pairs.txt")}
FOLDERS = {
    "lfw": ("lfw", "lfw-deepfunneled", "lfw_funneled", "images"),
    "xqlfw": ("lfw_original_imgs_min_qual0.85variant11", "xqlfw_aligned_112", "images"),
}
"""Where the photos lie below the root, as the data sets' archives unpack; best first."""

OFFICIAL_PAIRS, OFFICIAL_FOLDS = 6000, 10
EXTENSIONS = (".jpg", ".png", ".jpeg", ".bmp", ".webp")
LOOKED_AT = 50


@dataclass(frozen=True)
class _Row:
    """One line: two photos, each a person's name and number."""

    line: int
    photos: tuple[tuple[str, int], tuple[str, int]]
    short: bool

    @property
    def mated(self) -> bool:
        (first, _), (second, _) = self.photos
        return first == second


def read_lfw(root: Path, *, pairs: Path | None = None, name: str = "lfw") -> Protocol:
    """Return LFW's or XQLFW's protocol.

    The list's first line is `folds n`, or `n` alone for the development sets, which have no
    folds. Then come, for every fold, n mated lines `name i j` and n non-mated ones
    `name1 i name2 j`, with tabs or spaces; photo i of a person is `name/name_000i.jpg`.

    Args:
        root: holds the people's folders, or a folder that does (`FOLDERS`).
        pairs: the list; None takes the data set's own, from `root` or the folder above it.
        name: "lfw" or "xqlfw".
    """
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
    return Protocol(
        name, root, tuple(builder.samples), builder.identities(found), found, folds,
        faces=FACES[name], photos=folder, log=log,
    )  # fmt: skip


def _find_list(root: Path, name: str) -> Path:
    candidates = [folder / listed for folder in (root, root.parent) for listed in LISTS[name]]
    return next((file for file in candidates if file.is_file()), candidates[0])


def _parse(file: Path, log: IssueLog) -> tuple[int | None, int, list[_Row]]:
    """Return folds (None: a development set), pairs of a kind in a fold, and the rows."""
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
            log.add("row_count", "a pair more than the first line promises", file.name, number)
            continue
        cells = line.strip().split("\t" if "\t" in line else None)
        row = _row(cells, number)
        if row is None:
            message = "neither 'name i j' nor 'name1 i name2 j'"
            log.add("malformed_row", message, file.name, number)
            continue
        should_be_mated = position % (2 * per_fold) < per_fold
        if row.short != should_be_mated:
            kind = "mated pair 'name i j'" if should_be_mated else "non-mated one"
            log.add("malformed_row", f"a {kind} should stand here", file.name, number)
        if row.mated and not row.short:
            message = "a non-mated pair of one and the same person"
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
    """Return the folder below the root that has the photos, and their extension."""
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
    best = max(scores, key=lambda place: scores[place])  # of equal ones the first
    others = sorted({folder for folder, _ in scores if PurePath(folder) != PurePath(best[0])})
    if others:
        log.add(
            "several_folders",
            f"photos are taken from {best[0] or '.'}; {', '.join(others)} has them too: "
            "give it as the folder if you mean that",
        )
    return best


def _below(root: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    except OSError:
        return []
