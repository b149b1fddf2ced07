"""Which landmarks are refused: none that a detector finds, all with a mistake.

    python benchmarks/impossible_landmarks.py PHOTOS... [--limit 1500] [--least-confidence 0]
                                                        [--cut] [--turned]

Faces are those that MTCNN and YuNet find (`--faces all`) in photos as they are; with `--cut` also
in seven parts of each, where edges cut through faces; with `--turned` also in the photos turned by
90, 180 and 270 degrees. Printed: the figures that thresholds of faceqan_toolkit/geometry.py
compare, over all faces that are not refused; the refused ones; and for every mistake, made with the
faces of whole photos, the shares that are recognised as this mistake, as another, and not at all,
without and with the detector's box.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit import geometry
from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.geometry import Mistake, find_mistake, misfits
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Face, Photo, Pixels

Points = NDArray[np.float64]
Size = tuple[int, int]
Found = tuple[str, Size, Face]

PARTS = {
    "left": (0.0, 0.0, 0.5, 1.0),
    "right": (0.5, 0.0, 1.0, 1.0),
    "top": (0.0, 0.0, 1.0, 0.5),
    "bottom": (0.0, 0.5, 1.0, 1.0),
    "without its left": (0.4, 0.0, 1.0, 1.0),
    "without its top": (0.0, 0.4, 1.0, 1.0),
    "middle": (0.3, 0.3, 0.7, 0.7),
}
"""Left, top, right and bottom edge, shares of the photo's sides."""

RANDOM = np.random.default_rng(0)


def from_bottom(points: Points, size: Size) -> Points:
    return np.stack([points[:, 0], size[1] - 1 - points[:, 1]], axis=1)


def mirrored(points: Points, size: Size) -> Points:
    return np.stack([size[0] - 1 - points[:, 0], points[:, 1]], axis=1)


def without(points: Points, landmark: int) -> Points:
    """Return landmarks of which one is missing, which some detectors write as 0, 0."""
    left = points.copy()
    left[landmark] = 0
    return left


MISTAKES: dict[str, tuple[Mistake, Callable[[Points, Size], Points]]] = {
    "left and right swapped": (geometry.SIDES_SWAPPED, lambda p, _: p[[1, 0, 2, 4, 3]]),
    "found in the mirrored photo": (geometry.SIDES_SWAPPED, mirrored),
    "x and y swapped": (geometry.AXES_SWAPPED, lambda p, _: p[:, ::-1]),
    "values in 0..1": (geometry.FRACTIONS, lambda p, size: p / size),
    "y from the bottom": (geometry.FROM_THE_BOTTOM, from_bottom),
    "mouth before eyes": (geometry.REORDERED, lambda p, _: p[[3, 4, 2, 0, 1]]),
    "eyes swapped": (geometry.REORDERED, lambda p, _: p[[1, 0, 2, 3, 4]]),
    "mouth's corners swapped": (geometry.REORDERED, lambda p, _: p[[0, 1, 2, 4, 3]]),
    "nose first": (geometry.REORDERED, lambda p, _: p[[2, 0, 1, 3, 4]]),
    "nose last": (geometry.REORDERED, lambda p, _: p[[0, 1, 3, 4, 2]]),
    "nose and mouth's corner swapped": (geometry.REORDERED, lambda p, _: p[[0, 1, 3, 2, 4]]),
    "five x, then five y": (geometry.NOT_IN_TURN, lambda p, _: p.T.reshape(5, 2)),
    "x twice": (geometry.NOT_A_FACE, lambda p, _: p[:, [0, 0]]),
    "one column too early": (
        geometry.NOT_A_FACE,
        lambda p, _: np.append(p.ravel()[1:], 0.99).reshape(5, 2),
    ),
    "an eye at 0, 0": (geometry.NOT_A_FACE, lambda p, _: without(p, 0)),
    "mouth's centre twice": (
        geometry.NOT_A_FACE,
        lambda p, _: np.array([*p[:3], *2 * [p[3:].mean(axis=0)]]),
    ),
    "random points": (
        geometry.NOT_A_FACE,
        lambda p, _: p.mean(axis=0) + RANDOM.normal(0, p.std(), (5, 2)),
    ),
    "1000 times as large": (geometry.TOO_LARGE, lambda p, _: 1000 * p),
    "500 pixels aside": (geometry.OUTSIDE, lambda p, _: p + 500),
    "upside down order": (geometry.REORDERED, lambda p, _: p[[4, 3, 2, 1, 0]]),
}


def views(photo: Photo, *, cut: bool, turned: bool) -> Iterator[tuple[str, Photo]]:
    """Yield a photo as it is, and parts and turned copies if they are wanted."""

    def changed(pixels: Pixels) -> Photo:
        return replace(photo, pixels=np.ascontiguousarray(pixels))

    yield "whole", photo
    height, width = photo.pixels.shape[:2]
    for left, top, right, bottom in PARTS.values() if cut else ():
        rows = slice(int(top * height), int(bottom * height))
        yield "cut", changed(photo.pixels[rows, int(left * width) : int(right * width)])
    for turns in (1, 2, 3) if turned else ():
        yield "turned", changed(np.rot90(photo.pixels, turns))


def detect(options: argparse.Namespace, detector: str) -> list[Found]:
    """Return all faces with the kind of photo they are in, and its size."""
    found: list[Found] = []
    settings = Settings(detector=detector, faces="all", device="cpu")
    if options.least_confidence is not None:
        settings = settings.replace(min_confidence=options.least_confidence)
    network = make_detector(settings)
    sources = list(find_photos(options.photos))
    for source in sources[:: max(1, len(sources) // options.limit)]:
        try:
            photo = decode(source, max_pixels=10**9)
        except PhotoError:
            continue
        for kind, view in views(photo, cut=options.cut, turned=options.turned):
            try:
                found += [(kind, view.size, face) for face in network.detect(view)]
            except PhotoError:
                continue
    return found


def figures(face: Face, size: Size) -> dict[str, float]:
    """Return what the thresholds compare, of one face."""
    points, box = face.landmarks, face.box
    (misfit,) = misfits(points[None])
    corrected = np.stack(list(geometry._corrections(points).values()))
    across, along = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[::-1]
    extent = np.ptp(points, axis=0).max()
    sides = box[2:] - box[:2]
    offset = np.abs(points.mean(axis=0) - (box[:2] + box[2:]) / 2) / sides
    return {
        "misfit": misfit,
        "better when corrected by": misfit - misfits(corrected).min(),
        "eyes and mouth apart": geometry._eyes_and_mouth(points),
        "across over along": across / along,
        "extent over photo": extent / max(size),
        "extent over box": extent / sides.min(),
        "offset in box": offset.max(),
    }


def describe(found: list[Found]) -> None:
    """Print the distribution of every figure, and which faces are refused."""
    refused = [find_mistake(face.landmarks, face.box, size) for _, size, face in found]
    kept = [item for item, mistake in zip(found, refused, strict=True) if mistake is None]
    table = [figures(face, size) for _, size, face in kept]
    for name in table[0]:
        values = np.array([row[name] for row in table])
        least, low, middle, high, most = np.percentile(values, [0, 0.1, 50, 99.9, 100])
        print(f"  {name:25} {least:6.3f} {low:6.3f} {middle:6.3f} {high:6.3f} {most:6.3f}")
    kinds = Counter(kind for kind, *_ in found)
    for kind, number in kinds.items():
        reasons = Counter(
            mistake.reason
            for (in_kind, *_), mistake in zip(found, refused, strict=True)
            if mistake is not None and in_kind == kind
        )
        told = ", ".join(f"{count} times {reason}" for reason, count in reasons.items())
        print(f"  {kind}: {number:,} faces, refused: {told or 'none'}")


def spoil(found: list[Found]) -> None:
    """Print how often each mistake is recognised, with the faces of whole photos."""
    faces = [
        (size, face)
        for kind, size, face in found
        if kind == "whole" and find_mistake(face.landmarks, face.box, size) is None
    ]
    print(f"{len(faces):,} faces with mistakes: % right, another, none; then with the box")
    for name, (mistake, change) in MISTAKES.items():
        cells = []
        for with_box in (False, True):
            shares: Counter[str] = Counter()
            for size, face in faces:
                points = change(face.landmarks, size)
                got = find_mistake(points, face.box if with_box else None, size)
                shares["none" if got is None else "right" if got is mistake else "another"] += 1
            shown = (100 * shares[key] / len(faces) for key in ("right", "another", "none"))
            cells.append(" ".join(f"{share:6.2f}" for share in shown))
        print(f"  {name:32} {'   '.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--limit", type=int, default=10**9, help="about so many photos")
    parser.add_argument("--least-confidence", type=float, help="of the detector; default: its own")
    parser.add_argument("--cut", action="store_true")
    parser.add_argument("--turned", action="store_true")
    options = parser.parse_args()
    everything: list[Found] = []
    for detector in ("mtcnn", "yunet"):
        found = detect(options, detector)
        if not found:
            sys.exit(f"{detector} finds no face in these photos")
        print(f"{detector}: smallest, 0.1 %, median, 99.9 %, largest of {len(found):,} faces")
        describe(found)
        everything += found
    spoil(everything)


if __name__ == "__main__":
    main()
