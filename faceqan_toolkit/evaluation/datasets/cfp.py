"""CFP-FP: frontal against profile faces, from the data set's own Protocol folder."""

from __future__ import annotations

from pathlib import Path

from faceqan_toolkit.evaluation.datasets.base import (
    ListBuilder,
    Protocol,
    inner_path,
    numbered_lines,
    whole_number,
)
from faceqan_toolkit.evaluation.datasets.issues import IssueLog
from faceqan_toolkit.evaluation.options import FACES

FOLDS = 10
OFFICIAL_OF_A_KIND = 350
OFFICIAL_PHOTOS = {"F": 5000, "P": 2000}


def read_cfp_fp(root: Path) -> Protocol:
    """Return the frontal-profile protocol of Celebrities in Frontal-Profile.

    `Protocol/Pair_list_F.txt` and `_P.txt` number the frontal and the profile photos from 1:
    `1 ../Data/Images/001/frontal/01.jpg`, relative to the folder of the list.
    `Protocol/Split/FP/01` to `10` have `same.txt` and `diff.txt` with lines `frontal,profile`.

    Args:
        root: holds `Protocol` and `Data`.
    """
    root, log, builder = Path(root), IssueLog(), ListBuilder()
    frontal = _photos(root, "F", log)
    profile = _photos(root, "P", log)
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
                photos = frontal.get(cells[0] or 0), profile.get(cells[1] or 0)
                if photos[0] is None or photos[1] is None:
                    which, index = ("F", cells[0]) if photos[0] is None else ("P", cells[1])
                    message = f"photo {index} is not in Pair_list_{which}.txt"
                    log.add("unknown_sample", message, shown, number)
                    continue
                people = [_person(photo) for photo in photos if photo]
                if (people[0] == people[1]) != mated:
                    message = f"people {people[0]} and {people[1]} do not belong in {name}"
                    log.add("contradicting_label", message, shown, number)
                a, b = (
                    builder.sample(photo, person)
                    for photo, person in zip(photos, people, strict=True)
                    if photo
                )
                builder.pair(a, b, mated, number, fold)
    _check_counts(counts, log)
    pairs = builder.pairs(FOLDS)
    return Protocol(
        "cfp_fp", root, tuple(builder.samples), builder.identities(pairs), pairs, FOLDS,
        faces=FACES["cfp-fp"], photos="Data", log=log,
    )  # fmt: skip


def _photos(root: Path, which: str, log: IssueLog) -> dict[int, str]:
    """Return the numbered photos of a list: paths relative to the root."""
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
            log.add("malformed_row", f"photo {key} is there twice", shown, number)
        else:
            found[key] = inner
    if lines is not None and len(found) != OFFICIAL_PHOTOS[which]:
        message = f"{len(found)} photos; the official list has {OFFICIAL_PHOTOS[which]}"
        log.add("official_count", message, shown)
    return found


def _person(path: str) -> str:
    return path.split("/")[-3]


def _check_counts(counts: dict[str, int], log: IssueLog) -> None:
    usual = max(counts.values(), key=list(counts.values()).count, default=0)
    for shown, number in counts.items():
        if number != usual or not number:
            log.add("row_count", f"{number} pairs, where most files have {usual}", shown)
    if counts and usual != OFFICIAL_OF_A_KIND:
        message = f"{usual} pairs a file; the official ones have {OFFICIAL_OF_A_KIND}"
        log.add("official_count", message, "Protocol/Split/FP")
