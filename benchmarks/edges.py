"""Faces at the photo's edge: photos cropped to a face's box, against the same photo whole.

    python benchmarks/edges.py PHOTOS [--limit 100] [--detector mtcnn]

Every clear face (confidence 0.99, 40 pixels, away from the edges) is cropped out of its photo along
its box, grown by a margin, a share of the box's sides; below 0 the crop cuts the face. The crop is
searched again, once as facenet-pytorch treats edges (`--one-based`) and once as this package does.
Printed: how many faces are lost; how far the landmarks are from those in the whole photo, in units
of the eyes' distance, mean over the five; and by how much the quality falls (preset fast).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from faceqan_toolkit.alignment import align
from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.detection.base import Detector
from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.quality.faceqan import FaceQAN
from faceqan_toolkit.settings import PRESETS, Settings
from faceqan_toolkit.types import Face, Photo, Pixels

MARGINS = (0.3, 0.1, 0.0, -0.05, -0.1, -0.15)


def faces_of(detector: Detector, photo: Photo) -> list[Face]:
    try:
        return detector.detect(photo)
    except PhotoError:
        return []


def clear_faces(photo: Photo, detector: Detector) -> Iterator[Face]:
    width, height = photo.size
    for face in faces_of(detector, photo):
        x1, y1, x2, y2 = face.box
        inside = x1 >= 0 and y1 >= 0 and x2 <= width - 1 and y2 <= height - 1
        if inside and face.size >= 40 and (face.confidence or 0) >= 0.99:
            yield face


def cropped(photo: Photo, face: Face, margin: float) -> tuple[Photo, np.ndarray]:
    """Return the part of a photo around a face, and its first pixel."""
    sides = np.tile(face.box[2:] - face.box[:2], 2)
    x1, y1, x2, y2 = np.rint(face.box + margin * sides * [-1, -1, 1, 1]).astype(int)
    x1, y1 = max(0, x1), max(0, y1)
    part = np.ascontiguousarray(photo.pixels[y1 : y2 + 1, x1 : x2 + 1])
    return Photo(photo.source, part, photo.state), np.array([x1, y1])


def off(found: Face, shift: np.ndarray, face: Face) -> float:
    """Return how far landmarks are from a face's, in units of the eyes' distance."""
    eyes = np.linalg.norm(face.landmarks[0] - face.landmarks[1])
    return float(np.linalg.norm(found.landmarks + shift - face.landmarks, axis=1).mean() / eyes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=100, help="faces")
    parser.add_argument("--detector", default="mtcnn")
    options = parser.parse_args()
    chosen = {"detector": options.detector, "faces": "all", "device": "cpu"}
    ways = {"ours": make_detector(Settings(**chosen))}
    if options.detector == "mtcnn":
        ways = {
            "facenet-pytorch's edges": make_detector(Settings(**chosen, one_based=True)),
            **ways,
        }
    model = FaceQAN(device="cpu", copies=PRESETS["fast"])

    def quality(pixels: Pixels, face: Face) -> float:
        return next(iter(model.score([align(pixels, face, antialias=True).pixels]))).quality

    rows: dict[tuple[str, float], list[tuple[float, float] | None]] = {}
    number = 0
    for source in find_photos([options.photos]):
        photo = decode(source, max_pixels=10**9)
        for face in clear_faces(photo, ways["ours"]):
            if number == options.limit:
                break
            number += 1
            whole = quality(photo.pixels, face)
            for way, detector in ways.items():
                for margin in MARGINS:
                    part, corner = cropped(photo, face, margin)
                    again = faces_of(detector, part)
                    shift = corner - (1 if detector is not ways["ours"] else 0)
                    found = min(again, key=lambda one: off(one, shift, face), default=None)
                    row = None
                    if found is not None and off(found, shift, face) < 1:
                        row = off(found, shift, face), whole - quality(part.pixels, found)
                    rows.setdefault((way, margin), []).append(row)
    print(f"{number} faces")
    print(
        "edges                    margin  lost  landmarks off: median, 90 %  quality falls: median"
    )
    for (way, margin), results in rows.items():
        known = np.array([row for row in results if row is not None])
        distances, falls = known.T
        print(
            f"{way:24} {margin:+6.2f} {len(results) - len(known):5d}"
            f"  {np.median(distances):21.3f} {np.quantile(distances, 0.9):6.3f}"
            f"  {np.median(falls):22.3f}"
        )


if __name__ == "__main__":
    main()
