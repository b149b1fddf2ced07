"""The crops the instant head learns from, is chosen by, and is reported on.

Folds 1 to 3 of LFW's pairs and some photos train, fold 4 selects, fold 5 reports; folds share no
person. Photos of people who look like anybody of folds 4 and 5 are left out. What a crop is, and
how it is damaged, depends on names alone, so the same roots give the same crops.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from damage import KINDS, no_face, several, tint

from faceqan_toolkit.alignment import align
from faceqan_toolkit.detection import make_detector
from faceqan_toolkit.detection.base import select_faces
from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Face, Photo, Pixels

TRAINING_FACES, SELECTION_FACES, REPORT_PAIRS = 1350, 200, 155
PHOTO_VARIANTS = 6
SPLITS = ("report", "select", "train")
SAME_PERSON = 0.35
"""Cosine above which a face in a photo may be somebody of folds 4 or 5: errs on the safe side."""


@dataclass(frozen=True)
class Item:
    """One crop to be labelled.

    Attributes:
        key: hash of the name and the variant; no name can be read from it.
        split: "train", "select" or "report".
        kind: "clean" or how it was damaged.
        image: hash of the image's name; all variants of a crop share it.
        person: hash of the person's name.
        crop: (112, 112, 3) uint8, RGB.
    """

    key: str
    split: str
    kind: str
    image: str
    person: str
    crop: Pixels


def digest(text: str) -> str:
    return hashlib.sha256(f"faceqan-toolkit {text}".encode()).hexdigest()[:16]


def read_folds(root: Path) -> list[list[tuple[Path, ...]]]:
    """Return for every fold of `pairs.txt` its pairs as image paths; mated pairs come first."""
    dataset = read_dataset("lfw", root)
    files = [dataset.root / path for path in dataset.paths]
    folds: list[list[tuple[Path, ...]]] = [[] for _ in range(dataset.folds or 0)]
    for block in dataset.pairs.blocks():
        assert block.fold is not None
        for fold, first, second in zip(block.fold, block.first, block.second, strict=True):
            folds[fold].append((files[first], files[second]))
    return folds


def split_images(root: Path) -> dict[str, list[Path]]:
    """Return the images of each split."""
    folds = read_folds(root)
    people = [{path.parent.name for pair in fold for path in pair} for fold in folds]
    assert not (people[0] | people[1] | people[2]) & (people[3] | people[4])
    assert not people[3] & people[4]

    def sample(pairs: list[tuple[Path, ...]], number: int) -> list[Path]:
        images = sorted({path for pair in pairs for path in pair}, key=lambda p: digest(p.name))
        return images[:number]

    # mated pairs, so that error-versus-discard curves can be drawn
    mated = [pair for pair in folds[4] if pair[0].parent == pair[1].parent]
    mated.sort(key=lambda pair: digest(pair[0].name + pair[1].name))
    return {
        "train": sample(folds[0] + folds[1] + folds[2], TRAINING_FACES),
        "select": sample(folds[3], SELECTION_FACES),
        "report": sample(mated[:REPORT_PAIRS], 10**6),
    }


def variants(photo: Photo, face: Face, crop: Pixels, name: str, number: int) -> list[tuple]:
    """Return (kind, crop) of a face: clean, then damaged in ways its name decides."""
    chosen: list[tuple[str, Pixels]] = [("clean", crop)]
    for variant in range(1, number):
        rng = np.random.default_rng(int(digest(f"{name} {variant}"), 16))
        kind = str(rng.choice([*KINDS, "several", "no_face", "tint"]))
        if kind == "no_face":
            made = no_face(photo.pixels, tuple(face.box), rng)
        else:
            made = {**KINDS, "several": several, "tint": tint}[kind](crop, rng)
        chosen.append((kind, made))
    return chosen


def items(lfw: Path, photos: Path, splits: tuple[str, ...] = SPLITS) -> Iterator[Item]:
    """Yield the crops of some splits, report and selection first."""
    settings = Settings(task="align", device="cpu")
    detector = make_detector(settings)
    network = load_model("sface")
    held_out = []

    def faces(path: Path, policy: str) -> Iterator[tuple[Photo, Face, Pixels]]:
        try:
            for source in find_photos([path]):
                photo = decode(source, max_pixels=settings.max_pixels)
                for _, face in select_faces(detector.detect(photo), policy, photo.size):
                    yield photo, face, align(photo.pixels, face, antialias=True).pixels
        except PhotoError as error:
            print(f"left out: {error.status} {digest(path.name)}", file=sys.stderr)

    def embed(crop: Pixels) -> np.ndarray:
        (embedding,) = network.embed([crop], device="cpu")
        return embedding / np.linalg.norm(embedding)

    images = split_images(lfw)
    for split in splits:
        for path in images[split]:
            for photo, face, crop in faces(path, "central"):
                if split != "train":
                    held_out.append(embed(crop))
                for number, (kind, made) in enumerate(variants(photo, face, crop, path.name, 2)):
                    key = digest(f"{path.name} {number}")
                    yield Item(key, split, kind, digest(path.name), digest(path.parent.name), made)
    for path in sorted(photos.iterdir()) if "train" in splits else ():
        for index, (photo, face, crop) in enumerate(faces(path, "all")):
            if (np.stack(held_out) @ embed(crop)).max() > SAME_PERSON:
                print(f"left out: resembles a held-out person {path.name}", file=sys.stderr)
                continue
            name = f"{path.name} {index}"
            for number, (kind, made) in enumerate(
                variants(photo, face, crop, name, PHOTO_VARIANTS)
            ):
                whose = digest(name)
                yield Item(digest(f"{name} {number}"), "train", kind, whose, whose, made)
