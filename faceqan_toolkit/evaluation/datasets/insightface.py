"""Readers of data sets as InsightFace ships them: `.bin` files, and IJB-C 1:1 with templates."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as pacsv

from faceqan_toolkit.errors import DatasetError, RefusedPickle, SettingsError
from faceqan_toolkit.evaluation.datasets.base import (
    Dataset,
    Index,
    IssueLog,
    PairList,
    inner_path,
    joined_identities,
)
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
ROWS_AT_ONCE = 32_768

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


def _find_bin(root: Path) -> Path:
    if not root.is_dir():
        return root
    found = sorted(root.glob("*.bin"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in found)
    several = f"{root} has several .bin files: give one of {names}"
    raise DatasetError(several if found else f"{root} has no .bin file")


def _load_bin(file: Path, log: IssueLog) -> tuple[list[bytes], list[bool]]:
    """Return the encoded photos and the labels; log problems."""
    content: Any = None
    with log.reading(file.name, RefusedPickle):
        content = read_pickle(file)
        if not _is_photos_and_labels(content):
            raise ValueError("not a pair of photos and labels")
        # a small pickle can refer to the same photo many times
        sizes = (len(i) if isinstance(i, bytes) else getattr(i, "nbytes", 0) for i in content[0])
        if sum(sizes) > LARGEST:
            raise ValueError("more than 2 GiB of photos")
    if log.counts:
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


def _is_photos_and_labels(content: Any) -> bool:
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        return False
    photos, labels = content
    is_row = isinstance(labels, np.ndarray) and labels.ndim == 1
    return isinstance(photos, (list, tuple)) and (is_row or isinstance(labels, (list, tuple)))


def _encoded(item: Any) -> bytes | None:
    if isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 1:
        item = item.tobytes()
    return (item or None) if isinstance(item, bytes) else None


def _label(item: Any) -> bool | None:
    is_number = isinstance(item, (bool, np.bool_, int, np.integer))
    return bool(item) if is_number and item in (0, 1) else None


@dataclass(frozen=True)
class Templates:
    """Several photos or video frames of a person, compared as one.

    One row is one sample's membership in one template.

    Attributes:
        names: (T,) int64, template numbers of the data set, ascending.
        template: (R,) int64, index into `names`.
        sample: (R,) int64, index of the sample.
        media: (R,) int64, number of the photo or video that the sample comes from.
    """

    names: Index
    template: Index
    sample: Index
    media: Index

    def __len__(self) -> int:
        return len(self.names)

    def embed(
        self, embeddings: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        """Return the templates' embeddings: mean over each medium, sum over media, L2-normalised.

        Samples without an embedding are left out.

        Args:
            embeddings: (N, D) embeddings, NaN rows for samples without. Longer embeddings have more
                weight. A memory-mapped array is read in blocks.
            weights: (N,) weights of the samples within their medium, e.g. the detector's
                confidence; None for equal weights.

        Returns:
            (T, D) float32 of length 1; NaN for a template without embeddings.

        Source: the 1:1 protocol of IJB-C as InsightFace computes it.
        """
        from scipy.sparse import csr_array

        starts = range(0, len(embeddings), ROWS_AT_ONCE)
        found = np.zeros(len(embeddings), np.bool_)
        for start in starts:
            part = slice(start, start + ROWS_AT_ONCE)
            found[part] = np.isfinite(embeddings[part]).all(axis=1)
        rows = np.flatnonzero(found[self.sample])
        samples = self.sample[rows]
        share = 1 / np.bincount(self._medium[rows], minlength=1)[self._medium[rows]]
        if weights is not None:
            share = share * weights[samples]
        sums = np.zeros((len(self), embeddings.shape[1]), np.float64)
        for start in starts:
            part = slice(start, start + ROWS_AT_ONCE)
            block = np.asarray(embeddings[part], np.float32)
            here = (samples >= start) & (samples < start + len(block))
            places = self.template[rows[here]], samples[here] - start
            parts = csr_array(
                (share[here].astype(np.float32), places), shape=(len(self), len(block))
            )
            sums += parts @ np.where(found[part, None], block, np.float32(0))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return (sums / np.where(lengths > 0, lengths, np.nan)).astype(np.float32)

    def quality(self, values: NDArray[np.float64], how: str = "min") -> NDArray[np.float64]:
        """Return the templates' qualities.

        Args:
            values: (N,) qualities of the samples; samples with NaN are left out.
            how: "min", "mean" or "max" over the template's samples.

        Returns:
            (T,) float64, NaN for a template without qualities.

        Raises:
            SettingsError: another `how`.
        """
        reduce: dict[str, Callable[..., NDArray[np.float64]]] = {
            "min": np.minimum.reduceat,
            "mean": np.add.reduceat,
            "max": np.maximum.reduceat,
        }
        if how not in reduce:
            raise SettingsError(f"a template's quality is min, mean or max, not {how!r}")
        result = np.full(len(self), np.nan)
        rows = np.flatnonzero(~np.isnan(values[self.sample]))
        if len(rows):
            rows = rows[np.argsort(self.template[rows], kind="stable")]
            present, starts, counts = np.unique(
                self.template[rows], return_index=True, return_counts=True
            )
            result[present] = reduce[how](values[self.sample[rows]], starts)
            if how == "mean":
                result[present] /= counts
        return result

    @cached_property
    def _medium(self) -> Index:
        """(R,) consecutive numbers of the (template, medium) pairs, from 0."""
        low = self.media.min(initial=0)
        span = self.media.max(initial=0) - low + 1
        _, numbers = np.unique(self.template * span + self.media - low, return_inverse=True)
        return np.asarray(numbers, np.int64).reshape(-1)


def read_ijbc(root: Path) -> Dataset:
    """Return the 1:1 protocol of IJB-C, with comparisons between templates.

    Landmarks and the detector's confidence come from the lists.

    Args:
        root: folder with `meta` and `loose_crop`, or with a folder `IJBC` that has them.
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
        name="ijbc",
        root=root,
        paths=tuple(names),
        identities=joined_identities(len(templates), pairs),
        pairs=pairs,
        templates=templates,
        landmarks=numbers[:, :10].reshape(-1, 5, 2),
        confidences=numbers[:, 10],
        photos=PHOTOS,
        log=log,
    )


def write_landmarks(dataset: Dataset, target: Path) -> None:
    """Write the data set's landmarks in the format of `--landmarks` (docs/landmarks.md).

    Args:
        dataset: data set with landmarks.
        target: CSV file; replaced if it exists.

    Raises:
        DatasetError: the data set has no landmarks, or they cannot be written.
    """
    if dataset.landmarks is None or dataset.confidences is None:
        raise DatasetError(f"{dataset.name} has no landmarks")
    try:
        with (
            replacing(target) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["path", *LANDMARK_COLUMNS, "confidence"])
            for path, points, score in zip(
                dataset.paths, dataset.landmarks, dataset.confidences, strict=True
            ):
                writer.writerow([path, *points.ravel().tolist(), float(score)])
    except OSError as error:
        raise DatasetError(f"cannot write {target}: {reason_of(error)}") from error


def _read_names(root: Path, log: IssueLog) -> tuple[dict[str, int], NDArray[np.float64]]:
    """Return the samples' indices by path, and their landmarks and confidence (N, 11)."""
    names: dict[str, int] = {}
    parts = [np.empty((0, 11))]
    line = 0
    for batch in _batches(root, NAMES, log):
        kept = np.ones(len(batch), np.bool_)
        for offset, name in enumerate(batch.column("name").to_pylist()):
            line += 1
            path = inner_path(name, PHOTOS)
            if path is None or path_text(path) in names:
                kept[offset] = False
                message = f"bad name {name[:100]!r}" if path is None else f"{name!r} again"
                log.add("malformed_row", message, NAMES, line)
            else:
                names[path_text(path)] = len(names)
        parts.append(np.column_stack([batch.column(name) for name in _NUMBERS])[kept])
    table = np.concatenate(parts)
    for row in np.flatnonzero(~np.isfinite(table).all(axis=1)):
        log.add("malformed_row", "a coordinate that is not a finite number", NAMES, int(row) + 1)
    return names, table


def _read_templates(root: Path, names: dict[str, int], log: IssueLog) -> Templates:
    samples: list[int] = []
    parts = [np.empty((0, 2), np.int32)]
    line = 0
    for batch in _batches(root, MEDIA, log):
        kept = np.ones(len(batch), np.bool_)
        for offset, name in enumerate(batch.column("name").to_pylist()):
            line += 1
            sample = names.get(path_text(f"{PHOTOS}/{name}"))
            if sample is None:
                kept[offset] = False
                log.add("unknown_sample", f"{name[:100]!r} has no landmarks", MEDIA, line)
            else:
                samples.append(sample)
        parts.append(np.column_stack([batch.column(n) for n in ("template", "media")])[kept])
    rows = np.concatenate(parts).astype(np.int64)
    ids, template = np.unique(rows[:, 0], return_inverse=True)
    return Templates(
        ids, template.reshape(-1).astype(np.int64), np.array(samples, np.int64), rows[:, 1]
    )


def _read_pairs(root: Path, templates: Templates, log: IssueLog) -> PairList:
    """Return the comparisons between known templates: nine bytes each."""
    first, second = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    mated, used = [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
    known = pa.array(templates.names, pa.int32())
    line = 0
    for batch in _batches(root, PAIRS, log):
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
            log.add(kind, message, PAIRS, line + offset + 1)
        first.append(one[kept])
        second.append(other[kept])
        mated.append(label[kept] == 1)
        used.append(kept)
        line += len(batch)
    rows = np.concatenate(used)
    return PairList(
        np.concatenate(first), np.concatenate(second), np.concatenate(mated), files=(PAIRS,),
        lines=None if rows.all() else np.flatnonzero(rows) + 1,
    )  # fmt: skip


def _batches(root: Path, name: str, log: IssueLog) -> Iterator[pa.RecordBatch]:
    """Yield a list's rows, tens of thousands at a time; stop at the first malformed row."""
    columns, rows = COLUMNS[name], 0
    with log.reading(name, pa.ArrowException):
        encoding = _encoding(root / name)
        if encoding is None:
            log.add("row_count", "the list is empty", name)
            return
        try:
            with pacsv.open_csv(
                root / name,
                # only without threads do pyarrow's errors tell the row
                read_options=pacsv.ReadOptions(
                    column_names=list(columns), block_size=BLOCK_BYTES, encoding=encoding,
                    use_threads=False,
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=" ", quote_char=False, ignore_empty_lines=False
                ),
                convert_options=pacsv.ConvertOptions(column_types=columns, null_values=[]),
            ) as reader:  # fmt: skip
                for batch in reader:
                    rows += len(batch)
                    yield batch
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


def _encoding(file: Path) -> str | None:
    """Return the encoding of a list in pyarrow's spelling; None if the list is empty.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not text.
    """
    with file.open("rb") as content:
        head = content.read(HEAD_BYTES)
    # pyarrow decodes "utf8" natively and skips its byte order mark
    return encoding_of(head).removesuffix("-sig") if head else None
