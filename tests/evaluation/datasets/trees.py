"""Small data sets in the layouts that the official ones have."""

from __future__ import annotations

import csv
import itertools
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from faceqan_toolkit.evaluation.datasets.base import Dataset, PairBlock

Pair = tuple[str, str, bool]


def photo(file: Path) -> None:
    """Write a tiny picture, another one for each name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(bytes(file))).integers(0, 256, (8, 8, 3), np.uint8)
    file.write_bytes(_encoded(noise, file.suffix))


def encoded(shade: int, extension: str = ".jpg") -> bytes:
    return _encoded(np.full((8, 8, 3), shade % 256, np.uint8), extension)


def _encoded(pixels: np.ndarray, extension: str) -> bytes:
    done, data = cv2.imencode(extension, pixels)
    assert done
    return data.tobytes()


def lfw_photo(person: str, number: int, extension: str = ".jpg") -> str:
    return f"{person}/{person}_{number:04d}{extension}"


@dataclass(frozen=True)
class LFWTree:
    """Where it is, the list's lines, and what the list means."""

    root: Path
    lines: list[str]
    pairs: list[Pair]

    def rewrite(self, lines: Iterable[str], name: str = "pairs.txt") -> None:
        (self.root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def lfw_tree(
    root: Path,
    *,
    folds: int | None = 10,
    per_fold: int = 3,
    folder: str = "",
    name: str = "pairs.txt",
    extension: str = ".jpg",
) -> LFWTree:
    """Make `per_fold` mated and as many non-mated pairs in each fold, each once."""
    header = f"{per_fold}" if folds is None else f"{folds}\t{per_fold}"
    lines, pairs = [header], []
    for fold in range(folds or 1):
        people = [f"Person_{fold}_{index}" for index in range(per_fold + 1)]
        for person in people[:per_fold]:
            lines.append(f"{person}\t1\t2")
            pairs.append((lfw_photo(person, 1, extension), lfw_photo(person, 2, extension), True))
        for first, second in itertools.pairwise(people):
            lines.append(f"{first}\t1\t{second}\t1")
            pairs.append((lfw_photo(first, 1, extension), lfw_photo(second, 1, extension), False))
    prefix = f"{folder}/" if folder else ""
    pairs = [(prefix + a, prefix + b, mated) for a, b, mated in pairs]
    for path in {path for a, b, _ in pairs for path in (a, b)}:
        photo(root / path)
    tree = LFWTree(root, lines, pairs)
    tree.rewrite(lines, name)
    return tree


def cfp_tree(root: Path, people: int = 12, of_a_kind: int = 4) -> list[tuple[str, str, bool, int]]:
    """Make ten frontal and four profile photos a person, as CFP has; return pairs and folds."""
    for which, pose, number in (("F", "frontal", 10), ("P", "profile", 4)):
        lines, index = [], 1
        for person in range(1, people + 1):
            for shot in range(1, number + 1):
                path = f"Data/Images/{person:03d}/{pose}/{shot:02d}.jpg"
                photo(root / path)
                lines.append(f"{index} ../{path}\n")
                index += 1
        (root / "Protocol").mkdir(exist_ok=True)
        (root / "Protocol" / f"Pair_list_{which}.txt").write_text("".join(lines))
    rng = np.random.default_rng(0)
    pairs = []
    for fold in range(10):
        target = root / "Protocol" / "Split" / "FP" / f"{fold + 1:02d}"
        target.mkdir(parents=True)
        for name, mated in (("same.txt", True), ("diff.txt", False)):
            lines = []
            for row in range(of_a_kind):
                first = (fold * of_a_kind + row) % people
                second = first if mated else (first + 1) % people
                f, p = int(rng.integers(10)), int(rng.integers(4))
                lines.append(f"{10 * first + f + 1},{4 * second + p + 1}\n")
                pairs.append((
                    f"Data/Images/{first + 1:03d}/frontal/{f + 1:02d}.jpg",
                    f"Data/Images/{second + 1:03d}/profile/{p + 1:02d}.jpg",
                    mated, fold,
                ))  # fmt: skip
            (target / name).write_text("".join(lines))
    return pairs


@dataclass(frozen=True)
class IJBTree:
    """Rows of the lists: landmarks and score; template, medium; templates and label."""

    root: Path
    points: np.ndarray
    rows: np.ndarray
    pairs: np.ndarray

    def rewrite(self, name: str, lines: Iterable[str]) -> None:
        (self.root / "meta" / f"ijbc_{name}.txt").write_text("".join(f"{x}\n" for x in lines))

    def lines(self, name: str) -> list[str]:
        return (self.root / "meta" / f"ijbc_{name}.txt").read_text().splitlines()


def ijbc_tree(root: Path, samples: int = 40, templates: int = 12, pairs: int = 60) -> IJBTree:
    """Make lists like IJB-C's; template numbers have gaps, as the official ones."""
    rng = np.random.default_rng(3)
    (root / "meta").mkdir(parents=True)
    points = np.round(rng.uniform(0, 200, (samples, 11)), 3)
    points[:, 10] = np.round(rng.uniform(0.5, 1, samples), 3)
    names = 3 * np.arange(templates) + 1
    template = np.concatenate([names, rng.choice(names, samples - templates)])
    rows = np.column_stack([template, rng.integers(100, 106, samples)])
    # the first half of the templates are people, the second half the same people again
    half = templates // 2
    every = [(a, half + b, int(a == b)) for a in range(half) for b in range(half)]
    chosen = rng.permutation(len(every))[: min(pairs, len(every))]
    table = np.array([(names[every[c][0]], names[every[c][1]], every[c][2]) for c in chosen])
    tree = IJBTree(root, points, rows, table)
    tree.rewrite("name_5pts_score", (
        " ".join([f"{index + 1}.jpg", *(f"{value:.3f}" for value in line)])
        for index, line in enumerate(points)
    ))  # fmt: skip
    tree.rewrite("face_tid_mid", (f"{i + 1}.jpg {t} {m}" for i, (t, m) in enumerate(rows)))
    tree.rewrite("template_pair_label", (f"{a} {b} {label}" for a, b, label in table))
    for index in range(samples):
        photo(root / "loose_crop" / f"{index + 1}.jpg")
    return tree


def pairs_csv(
    file: Path, pairs: Iterable[Pair], columns: tuple[str, ...] = ("a", "b", "label")
) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, columns)
        writer.writeheader()
        writer.writerows({"a": a, "b": b, "label": int(mated)} for a, b, mated in pairs)


def all_pairs(dataset: Dataset) -> PairBlock:
    """Return all comparisons of a data set in one block."""
    blocks = list(dataset.pairs.blocks())
    folds = [block.fold for block in blocks if block.fold is not None]
    return PairBlock(
        np.concatenate([block.first for block in blocks]),
        np.concatenate([block.second for block in blocks]),
        np.concatenate([block.mated for block in blocks]),
        np.concatenate(folds) if folds else None,
    )
