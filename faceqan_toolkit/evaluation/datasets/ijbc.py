"""IJB-C 1:1: templates of photos and video frames, 15.7 million comparisons."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import DatasetError
from faceqan_toolkit.evaluation.datasets.base import (
    Dataset,
    Index,
    IssueLog,
    PairList,
    inner_path,
    joined_identities,
)
from faceqan_toolkit.evaluation.datasets.registry import register_dataset
from faceqan_toolkit.evaluation.datasets.templates import Templates
from faceqan_toolkit.files import HEAD_BYTES, encoding_of, replacing
from faceqan_toolkit.text import path_text, reason_of
from faceqan_toolkit.types import LANDMARK_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = "meta/ijbc_name_5pts_score.txt"
MEDIA = "meta/ijbc_face_tid_mid.txt"
PAIRS = "meta/ijbc_template_pair_label.txt"
PHOTOS = "loose_crop"
OFFICIAL_ROWS = {NAMES: 469_375, MEDIA: 469_375, PAIRS: 15_658_489}
OFFICIAL_MATED = 19_557

BLOCK_BYTES = 1 << 22

_COORDINATES = [f"x{index}" for index in range(10)]
COLUMNS = {
    NAMES: {"name": "string", **dict.fromkeys(_COORDINATES, "double"), "score": "double"},
    MEDIA: {"name": "string", "template": "int32", "media": "int32"},
    PAIRS: {"first": "int32", "second": "int32", "label": "int32"},
}
"""Columns and pyarrow types of the lists, which have no header and a space between cells."""


@register_dataset(
    "ijbc",
    help="IJB-C 1:1: ROOT holds meta and loose_crop; landmarks come from its lists.",
    faces=None,
    root="`meta` and `loose_crop`, or a folder `IJBC` with them",
    size="469,375 photos, 15,658,489 comparisons of templates, 19,557 mated",
    layout="`meta/ijbc_name_5pts_score.txt` (photo, ten coordinates, detector's score; used "
    "instead of detection), `ijbc_face_tid_mid.txt` (photo, template, medium) and "
    "`ijbc_template_pair_label.txt` (template, template, 1 or 0), with one space between cells. A "
    "template's embedding is the mean over each medium, then the sum over the media, then "
    "L2-normalised; its quality is the minimum of its photos', or their mean or maximum "
    "(`--template-quality`). Both leave out photos without a face.",
)
def read_ijbc(root: Path) -> Dataset:
    """Return the 1:1 protocol of IJB-C as InsightFace ships it.

    Comparisons are between templates (`Dataset.templates`). Landmarks and the detector's confidence
    come from the lists.

    Args:
        root: folder with `meta` and `loose_crop`, or with a folder `IJBC` that has them.
    """
    root, log = Path(root), IssueLog()
    if not (root / "meta").is_dir() and (root / "IJBC" / "meta").is_dir():
        root = root / "IJBC"
    names, landmarks, scores = _read_names(root, log)
    templates = _read_templates(root, names, log)
    pairs = _read_pairs(root, templates, log)
    mated = int(pairs.mated.sum())
    if len(pairs) == OFFICIAL_ROWS[PAIRS] and mated != OFFICIAL_MATED:
        message = f"{mated} mated pairs; the official list has {OFFICIAL_MATED}"
        log.add("official_count", message, PAIRS)
    return Dataset(
        name="ijbc",
        root=root,
        paths=tuple(names),
        identities=joined_identities(len(templates), pairs),
        pairs=pairs,
        templates=templates,
        landmarks=landmarks,
        confidences=scores,
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


def _read_names(
    root: Path, log: IssueLog
) -> tuple[dict[str, int], NDArray[np.float64], NDArray[np.float64]]:
    """Return the samples' indices by path, landmarks (N, 5, 2) and confidences (N,)."""
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
        numbers = np.column_stack([batch.column(name) for name in (*_COORDINATES, "score")])
        parts.append(numbers[kept])
    table = np.concatenate(parts)
    for row in np.flatnonzero(~np.isfinite(table).all(axis=1)):
        log.add("malformed_row", "a coordinate that is not a finite number", NAMES, int(row) + 1)
    return names, table[:, :10].reshape(-1, 5, 2), table[:, 10]


def _read_templates(root: Path, names: dict[str, int], log: IssueLog) -> Templates:
    samples: list[int] = []
    columns: list[NDArray[np.int32]] = []
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
        columns.append(np.column_stack([batch.column(n) for n in ("template", "media")])[kept])
    rows = np.concatenate(columns) if columns else np.empty((0, 2), np.int32)
    ids, template = np.unique(rows[:, 0], return_inverse=True)
    return Templates(
        ids.astype(np.int64), template.reshape(-1).astype(np.int64), np.array(samples, np.int64),
        rows[:, 1].astype(np.int64),
    )  # fmt: skip


def _read_pairs(root: Path, templates: Templates, log: IssueLog) -> PairList:
    """Return the comparisons between known templates: nine bytes each."""
    first: list[NDArray[np.int32]] = []
    second: list[NDArray[np.int32]] = []
    mated: list[NDArray[np.bool_]] = []
    used: list[NDArray[np.bool_]] = []
    line = 0
    for batch in _batches(root, PAIRS, log):
        columns = [_find(templates.names, batch.column(name)) for name in ("first", "second")]
        label = np.asarray(batch.column("label"))
        kept = (columns[0] >= 0) & (columns[1] >= 0) & ((label == 0) | (label == 1))
        for offset in np.flatnonzero(~kept).tolist():
            unknown = columns[0][offset] < 0 or columns[1][offset] < 0
            kind = "unknown_sample" if unknown else "malformed_row"
            message = "a template without photos" if unknown else "a label that is not 0 or 1"
            log.add(kind, message, PAIRS, line + offset + 1)
        first.append(columns[0][kept])
        second.append(columns[1][kept])
        mated.append(label[kept] == 1)
        used.append(kept)
        line += len(batch)
    empty, none = np.empty(0, np.int32), np.empty(0, np.bool_)
    rows = np.concatenate([none, *used])
    return PairList(
        np.concatenate([empty, *first]),
        np.concatenate([empty, *second]),
        np.concatenate([none, *mated]),
        files=(PAIRS,),
        lines=None if rows.all() else np.flatnonzero(rows) + 1,
    )


def _find(names: Index, column: pa.Array) -> NDArray[np.int32]:
    """Return the indices of template numbers in `names`, -1 for unknown numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(column, value_set=pa.array(names, pa.int32()))
    return np.asarray(found.fill_null(-1))


def _batches(root: Path, name: str, log: IssueLog) -> Iterator[pa.RecordBatch]:
    """Yield a list's rows, tens of thousands at a time; stop at the first malformed row."""
    import pyarrow as pa
    from pyarrow import csv as pacsv

    columns, rows = COLUMNS[name], 0
    try:
        encoding = _encoding(root / name)
        if encoding is None:
            log.add("row_count", "the list is empty", name)
            return
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
    except FileNotFoundError:
        log.add("missing_list", "no such file", name)
    except (OSError, ValueError, pa.ArrowException) as error:
        if row := re.search(r"Row #(\d+)", str(error)):
            message = f"not '{' '.join(columns)}' with a space between; reading stopped there"
            log.add("malformed_row", message, name, int(row[1]))
        else:
            log.add("unreadable_list", reason_of(error), name)
    else:
        if rows != OFFICIAL_ROWS[name]:
            message = f"{rows} rows; the official list has {OFFICIAL_ROWS[name]}"
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
