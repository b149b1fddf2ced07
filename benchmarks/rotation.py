"""`--rotate` on photos that lie on their side: how often it is right, and what it costs.

    python benchmarks/rotation.py PHOTOS [--every 1] [--detector mtcnn]

Upright photos with a face are turned by 90, 180 and 270 degrees, without EXIF. Counted: those where
the face is found in another turn than the true one, and those where a search that stops at the
first confident face would be wrong. The cost is the number of searches, of four at the most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.detection.base import PhotoDetector
from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Photo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every Nth photo")
    parser.add_argument("--detector", default="mtcnn")
    options = parser.parse_args()
    upright = make_detector(Settings(detector=options.detector, device="cpu"))
    rotating = make_detector(Settings(detector=options.detector, device="cpu", rotate=True))
    assert isinstance(rotating, PhotoDetector)
    searches = 0
    search = rotating.search

    def counted(*arguments: object) -> object:
        nonlocal searches
        searches += 1
        return search(*arguments)

    rotating.search = counted
    photos = cases = wrong = first_wrong = on_upright = on_turned = 0
    for source in list(find_photos([options.photos]))[:: options.every]:
        photo = decode(source, max_pixels=10**9)
        try:
            upright.detect(photo)
        except PhotoError:
            continue
        photos += 1
        for turns in range(4):
            pixels = np.ascontiguousarray(np.rot90(photo.pixels, turns))
            turned = Photo(source, pixels, photo.state)
            before = searches
            try:
                rotation = rotating.detect(turned)[0].rotation
            except PhotoError:
                rotation = None
            if turns == 0:
                on_upright += searches - before
            else:
                on_turned += searches - before
                cases += 1
            if rotation != -90 * turns % 360:
                wrong += 1
                print(f"wrong: {source.path} turned by {90 * turns}: found at {rotation}")
            try:
                upright.detect(turned)
                first_wrong += turns > 0
            except PhotoError:
                pass
    print(f"{photos} photos, turned {cases} times")
    print(f"wrong: {wrong}; a search that stops at the first confident face: {first_wrong}")
    print(f"searches: {on_upright / photos:.2f} an upright photo, {on_turned / cases:.2f} a turned")


if __name__ == "__main__":
    main()
