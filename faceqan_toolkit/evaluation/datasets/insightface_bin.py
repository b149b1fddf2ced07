"""InsightFace's verification sets: a `.bin` file of aligned photos and pair labels."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from faceqan_toolkit.errors import DatasetError, RefusedPickle
from faceqan_toolkit.evaluation.datasets.base import Dataset, IssueLog, PairList, joined_identities
from faceqan_toolkit.evaluation.datasets.registry import register_dataset
from faceqan_toolkit.evaluation.safe_pickle import LARGEST, read_pickle
from faceqan_toolkit.photos.archives import told_extension
from faceqan_toolkit.photos.decode import decode_bytes
from faceqan_toolkit.text import path_from_text, path_text, reason_of
from faceqan_toolkit.types import Pixels

OFFICIAL_PAIRS = {"lfw": 6000, "cfp_fp": 7000, "agedb_30": 6000, "calfw": 6000, "cplfw": 6000}
FOLDS = 10
MAX_PIXELS = 4096 * 4096


@register_dataset(
    "bin",
    help="InsightFace's .bin: ROOT is the file, or a folder with one; its photos are aligned.",
    faces=None,
    root="a `.bin` file, or a folder with one",
    size="lfw, agedb_30, calfw, cplfw 6,000 pairs, cfp_fp 7,000; 10 folds",
    layout="InsightFace's pickle of encoded photos and labels, of any pickle protocol, Python 2's "
    "included; photos 2i and 2i+1 are a pair. Only plain data is unpickled, no code is run; a file "
    "with anything else, or of more than 2 GiB, is refused. Samples are named "
    "`lfw/images/00000.jpg` and so on, which CR-FIQA's score files match. The file has no "
    "identities: identical photos and mated pairs show the same person. Folds are consecutive "
    "tenths.",
    aligned=True,
)
def read_insightface_bin(root: Path) -> Dataset:
    """Return the data set in a `.bin` file.

    Args:
        root: the file, or a folder with one such file.
    """
    file, log = _find(Path(root)), IssueLog()
    photos, mated = _load(file, log)
    count = min(len(photos) // 2, len(mated))
    official = OFFICIAL_PAIRS.get(file.stem)
    if official and count and count != official:
        message = f"{count} pairs; the official file has {official}"
        log.add("official_count", message, file.name)
    first = np.arange(count, dtype=np.int64) * 2
    folds = FOLDS if count and count % FOLDS == 0 else None
    fold = np.arange(count, dtype=np.int64) * FOLDS // max(count, 1)
    pairs = PairList(first, first + 1, np.array(mated[:count], np.bool_), fold if folds else None)
    seen: dict[bytes, int] = {}
    copies = [
        (index, seen.setdefault(hashlib.sha256(photo).digest(), index))
        for index, photo in enumerate(photos)
    ]
    return Dataset(
        name=file.stem,
        root=file.parent,
        paths=tuple(
            path_text(f"{file.stem}/images/{index:05d}{told_extension(photo)}")
            for index, photo in enumerate(photos)
        ),
        identities=joined_identities(len(photos), pairs, zip(*copies, strict=True)),
        pairs=pairs,
        folds=folds,
        encoded=tuple(photos),
        log=log,
    )


def pixels(dataset: Dataset, index: int) -> Pixels:
    """Return an encoded sample as (H, W, 3) uint8 RGB.

    Raises:
        PhotoError: it cannot be decoded.
    """
    return decode_bytes(dataset.encoded[index], max_pixels=MAX_PIXELS)


def unpack(dataset: Dataset, folder: Path) -> Dataset:
    """Write encoded photos as files below a folder.

    Returns:
        the data set of those files; the given one if its photos are files already.

    Raises:
        DatasetError: a file cannot be written.
    """
    if not dataset.encoded:
        return dataset
    try:
        for path, encoded in zip(dataset.paths, dataset.encoded, strict=True):
            target = folder / path_from_text(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(encoded)
    except OSError as error:
        raise DatasetError(f"cannot write to {folder}: {reason_of(error)}") from error
    return replace(dataset, root=folder, encoded=())


def _find(root: Path) -> Path:
    if not root.is_dir():
        return root
    found = sorted(root.glob("*.bin"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in found)
    raise DatasetError(
        f"{root} has several .bin files: give one of {names}"
        if found
        else f"{root} has no .bin file"
    )


def _load(file: Path, log: IssueLog) -> tuple[list[bytes], list[bool]]:
    """Return the encoded photos and the labels; log problems."""
    try:
        content = read_pickle(file)
    except FileNotFoundError:
        log.add("missing_list", "no such file", file.name)
        return [], []
    except (OSError, ValueError, RefusedPickle) as error:
        log.add("unreadable_list", reason_of(error), file.name)
        return [], []
    if not (
        isinstance(content, (tuple, list))
        and len(content) == 2
        and isinstance(content[0], (list, tuple))
        and (
            isinstance(content[1], (list, tuple))
            or (isinstance(content[1], np.ndarray) and content[1].ndim == 1)
        )
    ):
        log.add("unreadable_list", "not a pair of photos and labels", file.name)
        return [], []
    # a small pickle can refer to the same photo many times
    sizes = (len(i) if isinstance(i, bytes) else getattr(i, "nbytes", 0) for i in content[0])
    if sum(sizes) > LARGEST:
        log.add("unreadable_list", "more than 2 GiB of photos", file.name)
        return [], []
    photos = [_encoded(item) for item in content[0]]
    labels = [_label(item) for item in content[1]]
    for what, items in (("photo", photos), ("label", labels)):
        for index, item in enumerate(items):
            if item is None:
                log.add("malformed_row", f"{what} {index} cannot be used", file.name)
    if len(photos) != 2 * len(labels):
        message = f"{len(photos)} photos for {len(labels)} pairs; expected two a pair"
        log.add("row_count", message, file.name)
    return [photo or b"" for photo in photos], [bool(label) for label in labels]


def _encoded(item: Any) -> bytes | None:
    if isinstance(item, bytes):
        return item or None
    if isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 1 and len(item):
        return item.tobytes()
    return None


def _label(item: Any) -> bool | None:
    if isinstance(item, (bool, np.bool_)) or (
        isinstance(item, (int, np.integer)) and item in (0, 1)
    ):
        return bool(item)
    return None
