"""Our detectors against facenet-pytorch's `MTCNN.detect`: time, faces found, landmarks.

    python benchmarks/detection.py PHOTOS [--megapixels 2 4 12] [--limit 12] [--rounds 3]
                                          [--detector yunet]

With `--megapixels` every photo is brought to each size first; without, photos stay as they are.
Both look for faces of 20 pixels; facenet-pytorch's count if their confidence is 0.9. Ours reduces
photos to its working resolution and counts that time. A face is the same if the boxes'
intersection is half of their union. The two take turns, each in a process of its own with torch's
defaults, that detects in all photos after one to warm up; the figure is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("facenet-pytorch", "ours")


def worker(way: str, files: list[str], megapixels: float | None, detector: str) -> dict[str, Any]:
    """Detect in photos; return seconds a photo, and each photo's size and faces."""
    import cv2

    from faceqan_toolkit.detection import make_detector
    from faceqan_toolkit.errors import PhotoError
    from faceqan_toolkit.photos.decode import decode
    from faceqan_toolkit.photos.find import find_photos
    from faceqan_toolkit.settings import Settings
    from faceqan_toolkit.types import Photo, Pixels

    def resized(pixels: Pixels) -> Pixels:
        """Return a photo with that many pixels."""
        if megapixels is None:
            return pixels
        factor = float(np.sqrt(megapixels * 1e6 / (pixels.shape[0] * pixels.shape[1])))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=how))

    if way == "ours":
        one_based = detector == "mtcnn"
        ours = make_detector(Settings(detector=detector, one_based=one_based, device="cpu"))

        def detect(photo: Photo) -> list[tuple[Any, Any]]:
            try:
                found = ours.detect(photo)
            except PhotoError:
                return []
            return [(face.box.tolist(), face.landmarks.tolist()) for face in found]
    else:
        from facenet_pytorch import MTCNN

        theirs = MTCNN(keep_all=True, min_face_size=20)

        def detect(photo: Photo) -> list[tuple[Any, Any]]:
            boxes, confidences, landmarks = theirs.detect(photo.pixels, landmarks=True)
            if boxes is None:
                return []
            sure = [n for n, confidence in enumerate(confidences) if confidence >= 0.9]
            return [(boxes[n].tolist(), landmarks[n].tolist()) for n in sure]

    seconds, sizes, faces = 0.0, [], []
    for number, source in enumerate(find_photos(files)):
        photo = decode(source, max_pixels=10**9)
        photo = Photo(source, resized(photo.pixels), photo.state)
        if number == 0:
            detect(photo)
        start = time.perf_counter()
        found = detect(photo)
        seconds += time.perf_counter() - start
        sizes.append(photo.pixels.shape[1::-1])
        faces.append(found)
    return {"seconds": seconds / len(files), "sizes": sizes, "faces": faces}


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = (high - low).clip(0).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return how many of their faces ours has, and how far apart the landmarks are."""
    apart: list[float] = []
    faces = central = found = found_central = 0
    for size, wanted, have in zip(theirs["sizes"], theirs["faces"], ours["faces"], strict=True):
        middle = np.array(size) / 2
        distances = [np.linalg.norm((np.array(b[:2]) + b[2:]) / 2 - middle) for b, _ in wanted]
        for number, (box, landmarks) in enumerate(wanted):
            same = [points for b, points in have if overlap(np.array(b), np.array(box)) > 0.5]
            is_central = number == int(np.argmin(distances))
            faces, found = faces + 1, found + bool(same)
            central, found_central = (
                central + is_central,
                found_central + (is_central and bool(same)),
            )
            if same:
                points = np.array(landmarks)
                eyes = max(float(np.linalg.norm(points[0] - points[1])), 1e-9)
                apart.append(np.linalg.norm(np.array(same[0]) - points, axis=1).mean() / eyes)
    return (
        f"{found} of {faces} faces, {found_central} of {central} central ones; landmarks apart "
        f"{100 * np.median(apart):.2f} % of the eyes' distance at the median, "
        f"{100 * np.percentile(apart, 95):.2f} % at 95 %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--megapixels", type=float, nargs="*")
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detector", default="mtcnn")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, *json.load(sys.stdin))))
        return
    from faceqan_toolkit.photos.find import find_photos

    files = [source.place for source in find_photos([options.photos])]
    files = files[:: max(1, len(files) // options.limit)][: options.limit]
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")
    for megapixels in options.megapixels or [None]:
        results: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                done = subprocess.run(
                    [sys.executable, __file__, str(options.photos), "--worker", way],
                    input=json.dumps([files, megapixels, options.detector]),
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                results[way].append(json.loads(done.stdout))
        theirs, ours = (statistics.median(r["seconds"] for r in results[way]) for way in WAYS)
        size = "as they are" if megapixels is None else f"{megapixels:g} megapixels"
        print(
            f"{len(files)} photos, {size}: {1000 * theirs:.0f} ms facenet-pytorch, "
            f"{1000 * ours:.0f} ms ours, {theirs / ours:.2f} x; "
            + compare(*(results[way][0] for way in WAYS)),
            flush=True,
        )


if __name__ == "__main__":
    main()
