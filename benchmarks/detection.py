"""Our detectors against facenet-pytorch's `MTCNN.detect`: time, faces found, landmarks.

    python benchmarks/detection.py PHOTOS [--megapixels 2 4 12] [--limit 20] [--detector yunet]

With `--megapixels` every photo is brought to each size first; without, photos stay as they are.
Both look for faces of 20 pixels; facenet-pytorch's count if their confidence is 0.9. Ours reduces
photos to its working resolution and counts that time. A face is the same if the boxes'
intersection is half of their union. Both take turns on every photo.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from facenet_pytorch import MTCNN

from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.photos import decode, find_photos
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Photo


def resized(photo: Photo, megapixels: float | None) -> Photo:
    """Return a photo with that many pixels."""
    if megapixels is None:
        return photo
    factor = float(np.sqrt(megapixels * 1e6 / (photo.pixels.shape[0] * photo.pixels.shape[1])))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(photo.pixels, None, fx=factor, fy=factor, interpolation=way)
    return replace(photo, pixels=np.asarray(pixels, np.uint8))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = (high - low).clip(0).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--megapixels", type=float, nargs="*")
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--detector", default="mtcnn")
    options = parser.parse_args()
    theirs = MTCNN(keep_all=True, min_face_size=20)
    one_based = options.detector == "mtcnn"
    ours = make_detector(Settings(detector=options.detector, one_based=one_based, device="cpu"))
    sources = list(find_photos([options.photos]))
    sources = sources[:: max(1, len(sources) // options.limit)][: options.limit]
    for megapixels in options.megapixels or [None]:
        seconds, apart = np.zeros(2), []
        faces = central = found = found_central = photos = 0
        for source in sources:
            photo = resized(decode(source, max_pixels=10**9), megapixels)
            photos += 1
            start = time.perf_counter()
            boxes, confidences, landmarks = theirs.detect(photo.pixels, landmarks=True)
            middle = time.perf_counter()
            try:
                mine = ours.detect(photo)
            except PhotoError:
                mine = []
            seconds += [middle - start, time.perf_counter() - middle]
            if boxes is None:
                continue
            sure = [n for n, confidence in enumerate(confidences) if confidence >= 0.9]
            centre = np.array(photo.pixels.shape[1::-1]) / 2
            middles = {n: (boxes[n][:2] + boxes[n][2:]) / 2 for n in sure}
            nearest = min(sure, key=lambda n: np.linalg.norm(middles[n] - centre), default=None)
            for number in sure:
                same = [f for f in mine if overlap(f.box, boxes[number].astype(float)) > 0.5]
                faces, found = faces + 1, found + bool(same)
                central += number == nearest
                found_central += bool(same) and number == nearest
                if same:
                    points = landmarks[number].astype(float)
                    eyes = np.linalg.norm(points[0] - points[1])
                    shift = np.linalg.norm(same[0].landmarks - points, axis=1).mean()
                    apart.append(shift / max(eyes, 1e-9))
        size = "as they are" if megapixels is None else f"{megapixels:g} megapixels"
        print(
            f"{photos} photos, {size}: {1000 * seconds[0] / photos:.0f} ms facenet-pytorch, "
            f"{1000 * seconds[1] / photos:.0f} ms ours, {seconds[0] / seconds[1]:.2f} x; "
            f"{found} of {faces} faces, {found_central} of {central} central ones; landmarks apart "
            f"{100 * np.median(apart):.2f} % of the eyes' distance at the median, "
            f"{100 * np.percentile(apart, 95):.2f} % at 95 %"
        )


if __name__ == "__main__":
    main()
