"""How well scores from fewer copies agree with exact ones.

    python benchmarks/agreement.py CROPS [--crops 80]

CROPS is a folder of aligned 112x112 faces. Each is scored clean and damaged (blur, downsampling,
noise, darkness, occlusion in turn). For every number of copies: Spearman's rank correlation with
exact and the mean difference. Fewer copies take the first ones of the same noise, so they come
from the same attack. The last line is exact with another seed: what there is to reach.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr

from faceqan_toolkit.photos.decode import decode_bytes
from faceqan_toolkit.quality.faceqan import FaceQAN, aggregate
from faceqan_toolkit.types import Pixels, Score


def damaged(crop: Pixels, kind: int) -> Pixels:
    """Return a crop with one of five kinds of damage."""
    if kind == 0:
        result = cv2.GaussianBlur(crop, (0, 0), 2)
    elif kind == 1:
        small = cv2.resize(crop, (28, 28), interpolation=cv2.INTER_AREA)
        result = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    elif kind == 2:
        noise = np.random.default_rng(0).normal(0, 20, crop.shape)
        result = (crop + noise).clip(0, 255)
    elif kind == 3:
        result = crop * 0.25
    else:
        result = crop.copy()
        result[62:] = 90
    return np.asarray(result, dtype=np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crops", type=int, default=80)
    options = parser.parse_args()
    files = sorted(options.folder.rglob("*.png"))
    files = files[:: max(1, len(files) // options.crops)][: options.crops]
    clean = [decode_bytes(file.read_bytes(), max_pixels=10**6) for file in files]
    crops = clean + [damaged(crop, number % 5) for number, crop in enumerate(clean)]

    scorer = FaceQAN("sface")
    exact = scorer.score(crops)
    reference = np.array([score.quality for score in exact])

    def report(name: str, values: list[float]) -> None:
        difference = np.array(values) - reference
        part = [spearmanr(values[s], reference[s])[0] for s in (slice(len(clean)), slice(None))]
        print(
            f"{name:18} Spearman clean {part[0]:.4f}, mixed {part[1]:.4f}; "
            f"bias {difference.mean():+.4f}, largest difference {np.abs(difference).max():.3f}"
        )

    def with_copies(score: Score, copies: int) -> float:
        return aggregate(score.similarities[:, :copies], score.symmetry, scorer.exponent)[0]

    print(f"{len(clean)} clean crops and as many damaged ones")
    for copies in (1, 2, 3, 4, 5):
        report(f"{copies} copies", [with_copies(score, copies) for score in exact])
    report("exact, other seed", [s.quality for s in FaceQAN("sface", seed=1).score(crops)])


if __name__ == "__main__":
    main()
