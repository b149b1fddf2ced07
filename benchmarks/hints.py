"""Does the right hint fire? Every kind of damage in three strengths, on real photos.

    python benchmarks/hints.py --lfw ROOT --photos ROOT [--faces 300] [--fit]

ROOT of `--lfw` holds `images/NAME/NAME_0001.jpg`, that of `--photos` any photos. Photos are damaged
as a whole, then detected, aligned and measured as `align-and-score` does it; what the damage hides
from the detector is counted apart. People are split by a hash of their name: `--fit` shows the half
that chose the thresholds, without it the other half is shown. The photos of `--photos` chose only
the threshold of noise. Pieces without a face are given as crops, since a detector shows none.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from faceqan_toolkit.alignment import align, estimate_transform
from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.detection.base import Detector, select_faces
from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.quality.measures import WHOLE_FACE, find_hints, measure
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import AlignedCrop, Face, FileState, Photo, PhotoSource, Pixels

CROP_EYES = 35.2
"""Pixels between the eyes in an aligned crop."""

LARGEST_EYES = 60.0
"""Pixels between the eyes to which larger faces are reduced first: damage is then of one scale."""


@dataclass(frozen=True)
class Subject:
    """A photo before it is damaged."""

    name: str
    pixels: Pixels
    face: Face

    @property
    def eyes(self) -> float:
        """Pixels between the eyes."""
        return float(np.hypot(*(self.face.landmarks[1] - self.face.landmarks[0])))

    def covered(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask of the crop as one of the photo."""
        height, width = self.pixels.shape[:2]
        inverse = cv2.invertAffineTransform(estimate_transform(self.face.landmarks))
        warped = cv2.warpAffine(mask.astype(np.uint8), inverse, (width, height))
        return np.asarray(warped > 0)


Damage = Callable[[Subject, float, Generator], Pixels]


def to_pixels(values: object) -> Pixels:
    return np.asarray(np.clip(np.rint(np.asarray(values, np.float64)), 0, 255), np.uint8)


def blur(subject: Subject, sigma: float, rng: Generator) -> Pixels:
    scale = subject.eyes / CROP_EYES
    return to_pixels(cv2.GaussianBlur(subject.pixels, (0, 0), sigma * scale))


def motion(subject: Subject, length: float, rng: Generator) -> Pixels:
    pixels = max(3, round(length * subject.eyes / CROP_EYES))
    kernel = np.zeros((pixels, pixels), np.float32)
    kernel[pixels // 2] = 1
    middle = (pixels - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), rng.uniform(0, 180), 1)
    kernel = cv2.warpAffine(kernel, turn, (pixels, pixels))
    return to_pixels(cv2.filter2D(subject.pixels, -1, kernel / kernel.sum()))


def small(subject: Subject, eyes: float, rng: Generator) -> Pixels:
    scale = eyes / subject.eyes
    return to_pixels(
        cv2.resize(subject.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    )


def enlarged(subject: Subject, eyes: float, rng: Generator) -> Pixels:
    """Reduce and enlarge again, as many photos from the web were."""
    height, width = subject.pixels.shape[:2]
    return to_pixels(
        cv2.resize(small(subject, eyes, rng), (width, height), interpolation=cv2.INTER_CUBIC)
    )


def noise(subject: Subject, deviation: float, rng: Generator) -> Pixels:
    """Add noise whose grain is a pixel of the crop, or of the photo where that is larger."""
    height, width = subject.pixels.shape[:2]
    grain = max(1, round(subject.eyes / CROP_EYES))
    values = rng.normal(0, 1, (height // grain, width // grain, 3))
    values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return to_pixels(subject.pixels + deviation * values / values.std())


def exposure(subject: Subject, gain: float, rng: Generator) -> Pixels:
    """Multiply the light itself, not its coded values."""
    light = np.clip((subject.pixels / 255) ** 2.2 * gain, 0, 1)
    return to_pixels(255 * light ** (1 / 2.2))


def low_contrast(subject: Subject, share: float, rng: Generator) -> Pixels:
    mean = subject.pixels.mean()
    return to_pixels((subject.pixels - mean) * share + mean)


def jpeg(subject: Subject, quality: float, rng: Generator) -> Pixels:
    bgr = cv2.cvtColor(subject.pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return to_pixels(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def occlusion(subject: Subject, share: float, rng: Generator) -> Pixels:
    """Cover a share of the face: from below, across the eyes, from a side, or somewhere."""
    y, x = np.mgrid[:112, :112]
    rows, columns = np.nonzero(WHOLE_FACE)
    kind = rng.integers(4)
    if kind == 0:  # a mask, a scarf
        mask = y >= np.quantile(rows, 1 - share)
    elif kind == 1:  # glasses, a bar
        half = share * 112 / 2
        mask = np.abs(y - 51.6) <= half * 0.85
    elif kind == 2:  # a hand, hair, another head
        edge = np.quantile(columns, share)
        mask = x <= edge if rng.random() < 0.5 else x >= 111 - edge
    else:
        centre = rng.uniform((35, 50), (77, 95))
        radius = np.sqrt(share * len(rows) / np.pi)
        mask = np.hypot(x - centre[0], y - centre[1]) <= radius
    photo = subject.pixels
    cover: NDArray[np.float64] = np.broadcast_to(rng.integers(0, 256, 3), photo.shape).astype(float)
    if rng.random() < 0.5:  # what lies in a corner of the photo, enlarged
        corner = photo[: len(photo) // 4, : photo.shape[1] // 4]
        cover = cv2.resize(corner, photo.shape[1::-1]).astype(float)
    # shaded and grained as anything in a photo is
    height, width = photo.shape[:2]
    slope = rng.uniform(-0.3, 0.3, 2) * 255 / subject.eyes / 4
    shade = slope[0] * np.arange(height)[:, None] + slope[1] * np.arange(width)
    middle = subject.face.landmarks.mean(axis=0)
    shade = shade - slope[0] * middle[1] - slope[1] * middle[0]
    cover = cover + shade[..., None] + rng.normal(0, 3, photo.shape)
    return to_pixels(np.where(subject.covered(mask)[..., None], cover, photo))


def edge(subject: Subject, share: float, rng: Generator) -> Pixels:
    """Cut the photo so that this share of the face is gone."""
    mask = subject.covered(WHOLE_FACE)
    rows, columns = np.nonzero(mask)
    side = rng.integers(4)
    photo = subject.pixels
    cut = (
        photo[int(np.quantile(rows, share)) :],
        photo[: int(np.quantile(rows, 1 - share))],
        photo[:, int(np.quantile(columns, share)) :],
        photo[:, : int(np.quantile(columns, 1 - share))],
    )[side]
    return np.ascontiguousarray(cut)


def tilt(subject: Subject, degrees: float, rng: Generator) -> Pixels:
    height, width = subject.pixels.shape[:2]
    centre = tuple(subject.face.landmarks.mean(axis=0).tolist())
    turn = cv2.getRotationMatrix2D(centre, degrees * rng.choice([-1, 1]), 1)
    return to_pixels(
        cv2.warpAffine(subject.pixels, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    )


KINDS: dict[str, tuple[Damage, tuple[float, float, float], frozenset[str]]] = {
    "blur, sigma in crop pixels": (blur, (1.5, 2.5, 4), frozenset({"blurred"})),
    "motion, length in crop pixels": (motion, (6, 10, 16), frozenset({"blurred"})),
    "reduced to pixels between the eyes": (small, (18, 13, 9), frozenset({"small"})),
    "reduced so and enlarged again": (enlarged, (18, 13, 9), frozenset({"blurred"})),
    "noise, grey levels": (noise, (10, 20, 40), frozenset({"noisy"})),
    "less light, times": (exposure, (0.25, 0.1, 0.04), frozenset({"dark"})),
    "more light, times": (exposure, (3, 6, 12), frozenset({"overexposed"})),
    "contrast, times": (low_contrast, (0.5, 0.3, 0.15), frozenset({"low contrast"})),
    "JPEG quality": (jpeg, (20, 10, 5), frozenset({"compressed"})),
    "share of the face covered": (
        occlusion, (0.2, 0.35, 0.5), frozenset({"possibly covered", "may not be a face"}),
    ),
    "share of the face cut off": (edge, (0.1, 0.2, 0.35), frozenset({"cut by the edge"})),
    "tilted, degrees": (tilt, (25, 35, 50), frozenset({"tilted"})),
}  # fmt: skip
"""Damage, its strengths, and the hints that are right for it."""


def no_face(subject: Subject, rng: Generator) -> Pixels:
    """Return a piece of the photo beside the face as a crop."""
    photo, box = subject.pixels, subject.face.box
    height, width = photo.shape[:2]
    for _ in range(200):
        side = int(rng.integers(24, max(25, min(height, width) // 2)))
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        if x + side < box[0] or x > box[2] or y + side < box[1] or y > box[3]:
            return to_pixels(cv2.resize(photo[y : y + side, x : x + side], (112, 112)))
    return np.full((112, 112, 3), 128, np.uint8)


def plain(subject: Subject, rng: Generator) -> Pixels:
    """Return grey, a gradient, or noise."""
    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.float32)
    smooth = cv2.resize(corners, (112, 112), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        smooth = np.full_like(smooth, rng.uniform(0, 255))
    return to_pixels(smooth + rng.normal(0, rng.choice([0, 20, 60]), smooth.shape))


NOT_FACES = {"piece of a photo without a face": no_face, "grey, gradient or noise": plain}


def subjects(inputs: list[str], detector: Detector, *, policy: str) -> Iterator[Subject]:
    """Yield photos, reduced so that no face is larger than the damage is meant for."""
    for source in find_photos(inputs):
        try:
            photo = decode(source, max_pixels=200_000_000)
            faces = select_faces(detector.detect(photo), policy, photo.size)
        except PhotoError:
            continue
        for _, face in faces:
            subject = Subject(source.path, photo.pixels, face)
            scale = LARGEST_EYES / subject.eyes
            if scale < 1:
                pixels = cv2.resize(
                    photo.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
                )
                marks = (face.landmarks + 0.5) * scale - 0.5
                face = replace(face, box=face.box * scale, landmarks=marks)
                subject = Subject(source.path, np.asarray(pixels, np.uint8), face)
            yield subject


def in_fit_half(name: str) -> bool:
    """Tell whether a person's photos may choose thresholds."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0


def as_photo(pixels: Pixels) -> Photo:
    return Photo(PhotoSource("", "", LocalFile(Path())), pixels, FileState(0, 0))


def row_of(
    photo: Photo, crop: Pixels, aligned: AlignedCrop | None, embedder: Embedder
) -> dict[str, float | None]:
    """Return what the ledger would hold of a face, as far as hints look at it."""
    (embedding,) = embedder.embed([crop], device="cpu")
    confidence = aligned.face.confidence if aligned else None
    norm = float(np.linalg.norm(embedding))
    return asdict(measure(crop, photo, aligned)) | {
        "embedding_norm": norm,
        "confidence": confidence,
    }


def examine(
    pixels: Pixels, near: NDArray[np.float64] | None, detector: Detector, embedder: Embedder
) -> dict[str, float | None] | None:
    """Return the row of the face nearest to a place, or None if there is no face there.

    Args:
        pixels: a photo.
        near: x y as shares of the photo's width and height; None takes the largest face.
    """
    photo = as_photo(pixels)
    try:
        faces = detector.detect(photo)
        if near is not None:
            goal = near * photo.size
            faces.sort(key=lambda face: float(np.hypot(*(face.landmarks.mean(axis=0) - goal))))
        aligned = align(pixels, faces[0], antialias=True)
    except PhotoError:
        return None
    return row_of(photo, aligned.pixels, aligned, embedder)


def rows_of(
    chosen: list[Subject], detector: Detector, embedder: Embedder
) -> Iterator[tuple[str, str, frozenset[str], list[dict[str, float | None]], int]]:
    """Yield kind, strength, right hints, rows and number of faces that were lost."""
    clean = [examine(subject.pixels, place(subject), detector, embedder) for subject in chosen]
    found = [row for row in clean if row is not None]
    yield "clean", "", frozenset(), found, len(clean) - len(found)
    for kind, (damage, strengths, right) in KINDS.items():
        for strength in strengths:
            rows = []
            for number, subject in enumerate(chosen):
                rng = np.random.default_rng([number, int(100 * strength)])
                damaged = damage(subject, strength, rng)
                near = None if damage is edge else place(subject)
                rows.append(examine(damaged, near, detector, embedder))
            found = [row for row in rows if row is not None]
            yield kind, f"{strength:g}", right, found, len(rows) - len(found)
    for kind, make in NOT_FACES.items():
        rows = []
        for number, subject in enumerate(chosen):
            crop = make(subject, np.random.default_rng(number))
            rows.append(row_of(as_photo(crop), crop, None, embedder))
        yield kind, "", frozenset({"may not be a face"}), rows, 0


def place(subject: Subject) -> NDArray[np.float64]:
    height, width = subject.pixels.shape[:2]
    return subject.face.landmarks.mean(axis=0) / (width, height)


def report(
    title: str,
    results: Iterator[tuple[str, str, frozenset[str], list[dict[str, float | None]], int]],
) -> None:
    """Print a table of how often the right hint fired, and what else did."""
    print(f"\n### {title}\n")
    print("| damage | strength | faces found | right hint | other hints, most frequent first |")
    print("|---|---|---|---|---|")
    alarms = ""
    for kind, strength, right, rows, lost in results:
        fired = [set(find_hints(row, model="sface")) for row in rows]
        share = 100 / max(1, len(rows))
        hits = f"{share * sum(bool(hints & right) for hints in fired):.0f} %" if right else ""
        others = Counter(hint for hints in fired for hint in hints - right).most_common()
        if kind == "clean":
            told = ", ".join(f"{hint} {share * number:.1f} %" for hint, number in others)
            alarms = f"{share * sum(map(bool, fired)):.1f} % of clean faces have a hint: {told}."
        told = ", ".join(f"{hint} {share * n:.0f} %" for hint, n in others[:4] if share * n >= 1)
        found = f"{len(rows)} of {len(rows) + lost}"
        print(f"| {kind} | {strength} | {found} | {hits} | {told} |", flush=True)
    print(f"\n{alarms}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lfw", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--faces", type=int, default=300, help="of LFW, at the most")
    parser.add_argument("--fit", action="store_true", help="show the half that chose thresholds")
    options = parser.parse_args()
    detector, embedder = make_detector(Settings(device="cpu")), load_model("sface")
    if options.lfw:
        people = sorted(folder for folder in (options.lfw / "images").iterdir() if folder.is_dir())
        chosen = [person for person in people if in_fit_half(person.name) is options.fit]
        first = [str(sorted(person.iterdir())[0]) for person in chosen[: options.faces]]
        half = "the half that chose the thresholds" if options.fit else "people who chose nothing"
        found = list(subjects(first, detector, policy="central"))
        report(f"LFW, {half}", rows_of(found, detector, embedder))
    if options.photos:
        found = list(subjects([str(options.photos)], detector, policy="all"))
        report("Raw photos, every face", rows_of(found, detector, embedder))


if __name__ == "__main__":
    main()
