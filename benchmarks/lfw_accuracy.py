"""Verification accuracy of a recognition model on LFW, aligned by our own pipeline.

    python benchmarks/lfw_accuracy.py LFW_ROOT [--model sface]

LFW_ROOT holds `pairs.txt` and the images as `images/NAME/NAME_0001.jpg` (or `NAME/...` directly).
Of several faces in an image the central one counts, as the data set means it. Prints the accuracy
at the best threshold over all pairs, and with a threshold chosen on the other folds, as the
protocol of LFW has it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings

Pair = tuple[Path, Path, bool]


def read_pairs(root: Path) -> list[list[Pair]]:
    """Return the pairs of every fold of `pairs.txt`."""
    images = root / "images" if (root / "images").is_dir() else root

    def image(name: str, number: str) -> Path:
        return images / name / f"{name}_{int(number):04d}.jpg"

    header, *lines = (root / "pairs.txt").read_text(encoding="utf-8").splitlines()
    size = 2 * int(header.split()[-1])
    pairs: list[Pair] = []
    for line in lines:
        match line.split("\t"):
            case [name, first, second]:
                pairs.append((image(name, first), image(name, second), True))
            case [one, first, other, second]:
                pairs.append((image(one, first), image(other, second), False))
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def accuracy_at(
    similarity: NDArray[np.float64], mated: NDArray[np.bool_], threshold: float
) -> float:
    """Return the share of pairs on the right side of a threshold."""
    return float(((similarity >= threshold) == mated).mean())


def best_threshold(similarity: NDArray[np.float64], mated: NDArray[np.bool_]) -> float:
    """Return the threshold, one of the similarities, with the most pairs on the right side."""
    return float(max(similarity, key=lambda value: accuracy_at(similarity, mated, value)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", default="sface")
    options = parser.parse_args()
    folds = read_pairs(options.root.resolve())
    images = sorted({image for fold in folds for pair in fold for image in pair[:2]})

    pipeline = Pipeline(Settings(task="align", faces="central"))
    model = load_model(options.model)
    embeddings: dict[Path, NDArray[np.float32]] = {}
    for number, prepared in enumerate(pipeline.prepare_ahead(find_photos(images)), 1):
        for cut in prepared.cuts:
            if cut.crop is not None:
                (embedding,) = model.embed([cut.crop])
                embeddings[Path(prepared.source.place)] = embedding / np.linalg.norm(embedding)
        if number % 500 == 0:
            print(f"{number} of {len(images)} images", flush=True)

    def similarity(pair: Pair) -> float:
        first, second = (embeddings.get(image) for image in pair[:2])
        # a pair without two faces counts as rejected
        return -1.0 if first is None or second is None else float(first @ second)

    mated = np.array([[pair[2] for pair in fold] for fold in folds])
    scores = np.array([[similarity(pair) for pair in fold] for fold in folds])
    by_fold = [
        accuracy_at(
            scores[fold],
            mated[fold],
            best_threshold(np.delete(scores, fold, 0).ravel(), np.delete(mated, fold, 0).ravel()),
        )
        for fold in range(len(folds))
    ]
    threshold = best_threshold(scores.ravel(), mated.ravel())
    print(f"{len(images)} images, {len(images) - len(embeddings)} without a face found")
    print(
        f"{mated.size} pairs: {100 * accuracy_at(scores, mated, threshold):.2f} % right at "
        f"the best threshold {threshold:.3f}"
    )
    print(f"{100 * np.mean(by_fold):.2f} % over folds, threshold from the others")


if __name__ == "__main__":
    main()
