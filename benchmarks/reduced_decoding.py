"""What decoding large JPEGs at a half, a quarter or an eighth saves, and what it changes.

    python benchmarks/reduced_decoding.py PHOTOS [--megapixels 12 48] [--limit 8]

First, on the photos as they are: for every face and every reduction that its crop allows
(`alignment.detail_survives`), how much the embedding and the score change against the crop from
the full photo, with the same landmarks. Then, on photos enlarged to each size, with a camera's
noise, as JPEGs: processor time to decode and detect, in full and reduced, in turns.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from faceqan_toolkit.alignment import align, detail_survives, estimate_transform
from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.detection.mtcnn import MTCNNDetector
from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos, locate
from faceqan_toolkit.quality.faceqan import FaceQAN
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Photo, PhotoSource

UNLIMITED = 10**9


def as_jpeg(photo: Photo, folder: Path, megapixels: float | None = None) -> PhotoSource:
    """Write a photo as a JPEG, enlarged and with noise if a size is given."""
    image = Image.fromarray(photo.pixels)
    if megapixels:
        factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        size = (round(image.width * factor), round(image.height * factor))
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        noise = np.random.default_rng(0).normal(0, 3, (*pixels.shape[:2], 1))
        image = Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    (folder / "photo.jpg").write_bytes(buffer.getvalue())
    return locate(str(folder), "photo.jpg")


def measure_crops(
    detector: MTCNNDetector, model: FaceQAN, sources: list[PhotoSource], folder: Path
) -> None:
    """Print how much reduced decoding changes embeddings and scores."""
    embedder = model.embedder
    cosines, drifts = [], []
    for source in sources:
        jpeg = as_jpeg(decode(source, max_pixels=UNLIMITED), folder)
        full = decode(jpeg, max_pixels=UNLIMITED)
        try:
            faces = detector.detect(full)
        except PhotoError:
            continue
        for face in faces:
            for reduction in (2, 4, 8):
                if not detail_survives(estimate_transform(face.landmarks), reduction):
                    continue
                photo = decode(jpeg, max_pixels=UNLIMITED, at_least=max(full.size) // reduction)
                assert photo.reduction == reduction
                crops = [
                    align(p.pixels, face, antialias=True, reduction=p.reduction).pixels
                    for p in (full, photo)
                ]
                one, other = embedder.embed(crops, device="cpu")
                cosines.append(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
                first, second = model.score(crops)
                drifts.append(abs(first.quality - second.quality))
    if not cosines:
        print("no face is large enough for its crop to come from a reduced photo")
        return
    print(
        f"{len(cosines)} reduced crops against full ones: cosine {np.mean(cosines):.4f} "
        f"(min {min(cosines):.4f}), score change {np.mean(drifts):.4f} (max {max(drifts):.4f})"
    )


def measure_time(
    detector: MTCNNDetector, sources: list[PhotoSource], megapixels: float, folder: Path
) -> None:
    """Print how long decoding and detection take in full and reduced."""
    seconds: dict[int, list[float]] = {0: [], detector.settings.max_side: []}
    for source in sources:
        jpeg = as_jpeg(decode(source, max_pixels=UNLIMITED), folder, megapixels)
        for at_least, spent in seconds.items():
            start = time.process_time()
            detector.detect(decode(jpeg, max_pixels=UNLIMITED, at_least=at_least))
            spent.append(time.process_time() - start)
    full_time, reduced_time = (statistics.median(spent) for spent in seconds.values())
    print(
        f"{megapixels:g} megapixels, decoding and detection: {1000 * full_time:.0f} ms of "
        f"processor time in full, {1000 * reduced_time:.0f} ms reduced"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--megapixels", type=float, nargs="*", default=[12, 48])
    parser.add_argument("--limit", type=int, default=8, help="photos that are timed")
    options = parser.parse_args()
    detector, model = make_detector(Settings(device="cpu")), FaceQAN(device="cpu")
    assert isinstance(detector, MTCNNDetector)
    sources = list(find_photos([options.photos]))
    with tempfile.TemporaryDirectory() as folder:
        measure_crops(detector, model, sources, Path(folder))
        for megapixels in options.megapixels:
            measure_time(detector, sources[: options.limit], megapixels, Path(folder))


if __name__ == "__main__":
    main()
