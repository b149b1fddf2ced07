"""CFP-FP: frontal against profile faces."""

from __future__ import annotations

from pathlib import Path

from faceqan_toolkit.evaluation.datasets.base import (
    Dataset,
    IssueLog,
    ListBuilder,
    inner_path,
    numbered_lines,
    whole_number,
)
from faceqan_toolkit.evaluation.datasets.registry import register_dataset

FOLDS = 10
OFFICIAL_OF_A_KIND = 350
OFFICIAL_PHOTOS = {"F": 5000, "P": 2000}


@register_dataset(
    "cfp-fp",
    help="CFP-FP: ROOT holds the folders Protocol and Data.",
    faces="largest",
    root="`Protocol` and `Data`",
    size="7,000 pairs, half mated, 10 folds; 5,000 frontal and 2,000 profile photos",
    layout="`Protocol/Pair_list_F.txt` and `Pair_list_P.txt` number frontal and profile photos "
    "from 1 (`1 ../Data/Images/001/frontal/01.jpg`, relative to the list's folder). "
    "`Protocol/Split/FP/01` to `10` have `same.txt` and `diff.txt` with lines `frontal,profile`.",
)
def read_cfp_fp(root: Path) -> Dataset:
    """Return Celebrities in Frontal-Profile.

    Args:
        root: folder with `Protocol` and `Data`.
    """
    root, log, builder = Path(root), IssueLog(), ListBuilder()
    photos = {which: _photos(root, which, log) for which in ("F", "P")}
    counts = {}
    for fold in range(FOLDS):
        for name, mated in (("same.txt", True), ("diff.txt", False)):
            shown = f"Protocol/Split/FP/{fold + 1:02d}/{name}"
            lines = numbered_lines(root / shown, shown, log)
            if lines is None:
                continue
            counts[shown] = len(lines)
            builder.open(shown)
            for number, line in lines:
                cells = [whole_number(cell.strip()) for cell in line.split(",")]
                if len(cells) != 2 or not all(cells):
                    log.add("malformed_row", "not 'frontal,profile', both from 1", shown, number)
                    continue
                found = []
                for index, (which, listed) in zip(cells, photos.items(), strict=True):
                    if photo := listed.get(index or 0):
                        found.append((photo, photo.split("/")[-3]))
                    else:
                        message = f"photo {index} is not in Pair_list_{which}.txt"
                        log.add("unknown_sample", message, shown, number)
                        break
                else:
                    (_, one), (_, other) = found
                    if (one == other) != mated:
                        message = f"people {one} and {other} do not belong in {name}"
                        log.add("contradicting_label", message, shown, number)
                    first, second = (builder.sample(*sample) for sample in found)
                    builder.pair(first, second, mated, number, fold)
    _check_counts(counts, log)
    pairs = builder.pairs(FOLDS)
    return Dataset(
        "cfp_fp", root, tuple(builder.samples), builder.identities(pairs), pairs, FOLDS,
        photos="Data", log=log,
    )  # fmt: skip


def _photos(root: Path, which: str, log: IssueLog) -> dict[int, str]:
    """Return the photos of a list by number, as paths relative to the root."""
    shown = f"Protocol/Pair_list_{which}.txt"
    found: dict[int, str] = {}
    lines = numbered_lines(root / shown, shown, log)
    for number, line in lines or ():
        index, _, path = line.strip().partition(" ")
        key, inner = whole_number(index), inner_path(path.strip(), "Protocol")
        if not key or inner is None or inner.count("/") < 2:
            message = "not 'index path', with a path of person/pose/photo below the data set"
            log.add("malformed_row", message, shown, number)
        elif key in found:
            log.add("malformed_row", f"photo {key} is listed twice", shown, number)
        else:
            found[key] = inner
    if lines is not None and len(found) != OFFICIAL_PHOTOS[which]:
        message = f"{len(found)} photos; the official list has {OFFICIAL_PHOTOS[which]}"
        log.add("official_count", message, shown)
    return found


def _check_counts(counts: dict[str, int], log: IssueLog) -> None:
    usual = max(counts.values(), key=list(counts.values()).count, default=0)
    for shown, number in counts.items():
        if number != usual or not number:
            log.add("row_count", f"{number} pairs, where most files have {usual}", shown)
    if counts and usual != OFFICIAL_OF_A_KIND:
        message = f"{usual} pairs a file; the official ones have {OFFICIAL_OF_A_KIND}"
        log.add("official_count", message, "Protocol/Split/FP")
