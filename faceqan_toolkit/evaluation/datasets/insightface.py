"""Readers of data sets as InsightFace ships them: `.bin` files, and IJB-C 1:1 with templates."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as pacsv

from faceqan_toolkit.errors import DatasetError, RefusedPickle
from faceqan_toolkit.evaluation.datasets.base import (
    Dataset,
    IssueLog,
    PairList,
    Templates,
    inner_path,
    joined_identities,
)  # fmt: skip
from faceqan_toolkit.evaluation.safe_pickle import LARGEST, read_pickle
from faceqan_toolkit.files import HEAD_BYTES, encoding_of, replacing
from faceqan_toolkit.photos.archives import told_extension
from faceqan_toolkit.text import path_from_text, path_text, reason_of
from faceqan_toolkit.types import LANDMARK_COLUMNS

BIN_PAIRS = {"lfw": 6000, "cfp_fp": 7000, "agedb_30": 6000, "calfw": 6000, "cplfw": 6000}
BIN_FOLDS = 10

NAMES = "meta/ijbc_name_5pts_score.txt"
MEDIA = "meta/ijbc_face_tid_mid.txt"
PAIRS = "meta/ijbc_template_pair_label.txt"
PHOTOS = "loose_crop"
IJBC_ROWS = {NAMES: 469_375, MEDIA: 469_375, PAIRS: 15_658_489}
IJBC_MATED = 19_557

BLOCK_BYTES = 1 << 22

_NUMBERS = [*(f"x{index}" for index in range(10)), "score"]
COLUMNS = {
    NAMES: {"name": "string", **dict.fromkeys(_NUMBERS, "double")},
    MEDIA: {"name": "string", "template": "int32", "media": "int32"},
    PAIRS: {"first": "int32", "second": "int32", "label": "int32"},
}
"""Columns and pyarrow types of the lists, which have no header and a space between cells."""


def read_insightface_bin(root: Path) -> Dataset:
    """Return the data set in a `.bin` file; `root` is the file, or a folder with one such file."""
    file, log = _find_bin(Path(root)), IssueLog()
    photos, mated = _load_bin(file, log)
    count = min(len(photos) // 2, len(mated))
    official = BIN_PAIRS.get(file.stem)
    if official and count and count != official:
        log.add("official_count", f"{count} pairs; the official file has {official}", file.name)
    first = np.arange(count, dtype=np.int64) * 2
    folds = BIN_FOLDS if count and count % BIN_FOLDS == 0 else None
    fold = np.arange(count, dtype=np.int64) * BIN_FOLDS // count if folds else None
    pairs = PairList(first, first + 1, np.array(mated[:count], np.bool_), fold)
    seen: dict[bytes, int] = {}
    copies = [
        (index, seen.setdefault(hashlib.sha256(photo).digest(), index))
        for index, photo in enumerate(photos)
    ]
    paths = (f"{index:05d}{told_extension(photo)}" for index, photo in enumerate(photos))
    return Dataset(
        file.stem, file.parent, tuple(path_text(f"{file.stem}/images/{path}") for path in paths),
        joined_identities(len(photos), pairs, zip(*copies, strict=True)), pairs, folds,
        encoded=tuple(photos), log=log,
    )  # fmt: skip


def unpack(dataset: Dataset, folder: Path) -> Dataset:
    """Write encoded photos as files below a folder; return the data set of those files.

    A data set whose photos are files already is returned as it is.

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


def _find_bin(root: Path) -> Path:
    found = sorted(root.glob("*.bin")) if root.is_dir() else [root]
    if not found:
        raise DatasetError(f"{root} has no .bin file")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise DatasetError(f"{root} has several .bin files: give one of {names}")
    return found[0]


def _load_bin(file: Path, log: IssueLog) -> tuple[list[bytes], list[bool]]:
    """Return the encoded photos and the labels; log problems."""
    content: tuple[Any, Any] = (), ()
    with log.reading(file.name, RefusedPickle):
        content = read_pickle(file)
        match content:
            case [(list() | tuple()) as photos, list() | tuple() | np.ndarray(ndim=1)]:
                # a small pickle can refer to the same photo many times
                sizes = (
                    len(i) if isinstance(i, bytes) else getattr(i, "nbytes", 0) for i in photos
                )
            case _:
                raise ValueError("not a pair of photos and labels")
        if sum(sizes) > LARGEST:
            raise ValueError("more than 2 GiB of photos")
    if log.counts:
        return [], []
    photos, labels = list(map(_encoded, content[0])), list(map(_label, content[1]))
    for what, items in (("photo", photos), ("label", labels)):
        for index, item in enumerate(items):
            if item is None:
                log.add("malformed_row", f"{what} {index} cannot be used", file.name)
    if len(photos) != 2 * len(labels):
        message = f"{len(photos)} photos for {len(labels)} pairs; expected two a pair"
        log.add("row_count", message, file.name)
    return [photo or b"" for photo in photos], [bool(label) for label in labels]


def _encoded(item: Any) -> bytes | None:
    if isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 1:
        item = item.tobytes()
    return item if isinstance(item, bytes) and item else None


def _label(item: Any) -> bool | None:
    is_number = isinstance(item, (bool, np.bool_, int, np.integer))
    return bool(item) if is_number and item in (0, 1) else None


def read_ijbc(root: Path) -> Dataset:
    """Return the 1:1 protocol of IJB-C, which compares templates and lists landmarks.

    `root` has the folders `meta` and `loose_crop`, or a folder `IJBC` that has them.
    """
    root, log = Path(root), IssueLog()
    if not (root / "meta").is_dir() and (root / "IJBC" / "meta").is_dir():
        root = root / "IJBC"
    names, numbers = _read_names(root, log)
    templates = _read_templates(root, names, log)
    pairs = _read_pairs(root, templates, log)
    mated = int(pairs.mated.sum())
    if len(pairs) == IJBC_ROWS[PAIRS] and mated != IJBC_MATED:
        log.add("official_count", f"{mated} mated pairs; the official list has {IJBC_MATED}", PAIRS)
    return Dataset(
        "ijbc", root, tuple(names), joined_identities(len(templates), pairs), pairs,
        templates=templates, landmarks=numbers[:, :10].reshape(-1, 5, 2),
        confidences=numbers[:, 10], photos=PHOTOS, log=log,
    )  # fmt: skip


def write_landmarks(dataset: Dataset, target: Path) -> None:
    """Write the data set's landmarks to a CSV file, as `--landmarks` takes (docs/landmarks.md).

    Raises:
        DatasetError: the data set has no landmarks, or they cannot be written.
    """
    if dataset.landmarks is None or dataset.confidences is None:
        raise DatasetError(f"{dataset.name} has no landmarks")
    rows = zip(dataset.paths, dataset.landmarks, dataset.confidences, strict=True)
    try:
        with replacing(target) as new, new.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", *LANDMARK_COLUMNS, "confidence"])
            for path, points, score in rows:
                writer.writerow([path, *points.ravel().tolist(), float(score)])
    except OSError as error:
        raise DatasetError(f"cannot write {target}: {reason_of(error)}") from error


def _read_names(root: Path, log: IssueLog) -> tuple[dict[str, int], NDArray[np.float64]]:
    """Return the samples' indices by path, and their landmarks and confidence (N, 11)."""
    names: dict[str, int] = {}
    parts = [np.empty((0, 11))]
    for start, batch in _batches(root, NAMES, log):
        kept = []
        for offset, name in enumerate(batch.column("name").to_pylist()):
            path = inner_path(name, PHOTOS)
            if path is None or path_text(path) in names:
                message = f"bad name {name[:100]!r}" if path is None else f"{name!r} again"
                log.add("malformed_row", message, NAMES, start + offset)
            else:
                kept.append(offset)
                names[path_text(path)] = len(names)
        parts.append(np.column_stack([batch.column(name) for name in _NUMBERS])[kept])
    table = np.concatenate(parts)
    for row in np.flatnonzero(~np.isfinite(table).all(axis=1)):
        log.add("malformed_row", "a coordinate that is not a finite number", NAMES, int(row) + 1)
    return names, table


def _read_templates(root: Path, names: dict[str, int], log: IssueLog) -> Templates:
    parts = [np.empty((0, 3), np.int64)]
    for start, batch in _batches(root, MEDIA, log):
        listed = batch.column("name").to_pylist()
        found = (names.get(path_text(f"{PHOTOS}/{name}"), -1) for name in listed)
        samples = np.fromiter(found, np.int64)
        for offset in np.flatnonzero(samples < 0).tolist():
            message = f"{listed[offset][:100]!r} has no landmarks"
            log.add("unknown_sample", message, MEDIA, start + offset)
        rows = [batch.column("template"), samples, batch.column("media")]
        parts.append(np.column_stack(rows)[samples >= 0])
    template, sample, media = np.concatenate(parts).T.copy()
    ids, template = np.unique(template, return_inverse=True)
    return Templates(ids, template.reshape(-1).astype(np.int64), sample, media)


def _read_pairs(root: Path, templates: Templates, log: IssueLog) -> PairList:
    """Return the comparisons between known templates: nine bytes each."""
    first, second = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    mated, used = [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
    known = pa.array(templates.names, pa.int32())
    for start, batch in _batches(root, PAIRS, log):
        one, other = (
            np.asarray(pc.index_in(batch.column(name), value_set=known).fill_null(-1))
            for name in ("first", "second")
        )
        label = np.asarray(batch.column("label"))
        is_known = (one >= 0) & (other >= 0)
        kept = is_known & ((label == 0) | (label == 1))
        for offset in np.flatnonzero(~kept).tolist():
            if is_known[offset]:
                kind, message = "malformed_row", "a label that is not 0 or 1"
            else:
                kind, message = "unknown_sample", "a template without photos"
            log.add(kind, message, PAIRS, start + offset)
        first.append(one[kept])
        second.append(other[kept])
        mated.append(label[kept] == 1)
        used.append(kept)
    rows = np.concatenate(used)
    return PairList(
        np.concatenate(first), np.concatenate(second), np.concatenate(mated), files=(PAIRS,),
        lines=None if rows.all() else np.flatnonzero(rows) + 1,
    )  # fmt: skip


def _batches(root: Path, name: str, log: IssueLog) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of a list, tens of thousands at a time, each time with the first line number.

    Stop at the first malformed row.
    """
    columns, rows = COLUMNS[name], 0
    with log.reading(name, pa.ArrowException):
        with (root / name).open("rb") as content:
            head = content.read(HEAD_BYTES)
        if not head:
            log.add("row_count", "the list is empty", name)
            return
        options = {
            "read_options": pacsv.ReadOptions(
                column_names=list(columns), block_size=BLOCK_BYTES,
                # pyarrow decodes "utf8" natively and skips its byte order mark
                encoding=encoding_of(head).removesuffix("-sig"),
                use_threads=False,  # else pyarrow's errors do not tell the row
            ),
            "parse_options": pacsv.ParseOptions(
                delimiter=" ", quote_char=False, ignore_empty_lines=False
            ),
            "convert_options": pacsv.ConvertOptions(column_types=columns, null_values=[]),
        }  # fmt: skip
        try:
            with pacsv.open_csv(root / name, **options) as reader:
                for batch in reader:
                    yield rows + 1, batch
                    rows += len(batch)
        except (ValueError, pa.ArrowException) as error:
            row = re.search(r"Row #(\d+)", str(error))
            if not row:
                raise
            message = f"not '{' '.join(columns)}' with a space between; reading stopped there"
            log.add("malformed_row", message, name, int(row[1]))
            return
        if rows != IJBC_ROWS[name]:
            message = f"{rows} rows; the official list has {IJBC_ROWS[name]}"
            log.add("official_count", message, name)
