"""Should large faces be averaged down (antialiased) or sampled plainly? The evidence.

    python benchmarks/antialias.py PHOTOS [--same obama,obama2,obama3 --same biden,biden2 ...]

For every face that is shrunk more than twice: how much the embedding and the score change when
the same photo is first reduced (long side 1200, 800, 600), with the same landmarks, cropped either
way. A crop that is sampled well does not depend on the photo's resolution. With `--same`, the names
of one person's photos without extension, also the similarity of mated and non-mated pairs.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.alignment import SHRINK_LIMIT, align, scale_of
from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.quality.faceqan import FaceQAN
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Face, Photo, Pixels

LONG_SIDES = (1200, 800, 600)
WAYS = {"plain": False, "antialiased": True}


def reduced(photo: Photo, face: Face, long_side: int) -> tuple[Pixels, Face]:
    """Return photo and face as if the photo had been taken smaller."""
    height, width = photo.pixels.shape[:2]
    scale = long_side / max(height, width)
    size = (round(width * scale), round(height * scale))
    ratio = np.array([size[0] / width, size[1] / height])
    landmarks = (face.landmarks + 0.5) * ratio - 0.5
    pixels = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
    return np.asarray(pixels, np.uint8), Face(box=face.box * scale, landmarks=landmarks)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--same", action="append", default=[], help="one person's photos")
    options = parser.parse_args()
    detector, model = make_detector(Settings(device="cpu")), FaceQAN(device="cpu")
    embedder = model.embedder

    people = [set(group.split(",")) for group in options.same]
    embeddings: dict[str, dict[str, NDArray[np.float32]]] = {way: {} for way in WAYS}
    scores: dict[str, list[float]] = {way: [] for way in WAYS}
    agreement: dict[str, list[float]] = {way: [] for way in WAYS}
    drift: dict[str, list[float]] = {way: [] for way in WAYS}
    large = 0
    for source in find_photos([options.photos]):
        try:
            photo = decode(source, max_pixels=200_000_000)
            face = detector.detect(photo)[0]
        except PhotoError as error:
            print(f"{source.path}: {error}")
            continue
        shrink = 1 / scale_of(align(photo.pixels, face, antialias=False).transform)
        large += shrink > SHRINK_LIMIT
        for way, antialias in WAYS.items():
            crop = align(photo.pixels, face, antialias=antialias).pixels
            (embedding,) = embedder.embed([crop], device="cpu")
            embeddings[way][Path(source.path).stem] = embedding
            if shrink <= SHRINK_LIMIT:
                continue
            (score,) = model.score([crop])
            scores[way].append(score.quality)
            for long_side in LONG_SIDES:
                if long_side >= max(photo.pixels.shape):
                    continue
                smaller = align(*reduced(photo, face, long_side), antialias=antialias).pixels
                agreement[way].append(cosine(embedding, embedder.embed([smaller], device="cpu")[0]))
                drift[way].append(abs(score.quality - model.score([smaller])[0].quality))

    print(f"{large} faces shrunk more than {SHRINK_LIMIT:g}x")
    print(f"{'':12} full against reduced: cosine mean, min  score change mean, max   score mean")
    for way in WAYS:
        print(
            f"{way:12} {np.mean(agreement[way]):27.4f}, {np.min(agreement[way]):.4f}"
            f"{np.mean(drift[way]):19.4f}, {np.max(drift[way]):.4f} {np.mean(scores[way]):12.4f}"
        )
    if not people:
        return
    for way in WAYS:
        pairs: dict[bool, list[float]] = {True: [], False: []}
        named = [(name, group) for group in people for name in group]
        for (one, first), (other, second) in itertools.combinations(named, 2):
            pairs[first is second].append(cosine(embeddings[way][one], embeddings[way][other]))
        mated, non_mated = np.array(pairs[True]), np.array(pairs[False])
        print(
            f"{way:12} {len(mated)} mated pairs {mated.mean():.4f} (min {mated.min():.4f}), "
            f"{len(non_mated)} non-mated {non_mated.mean():.4f} (max {non_mated.max():.4f})"
        )


if __name__ == "__main__":
    main()
