"""IJB-C 1:1: templates of photos and video frames, 15.7 million comparisons."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from faceqan_toolkit.errors import ProtocolError
from faceqan_toolkit.evaluation.datasets.base import (
    Index,
    PairList,
    Protocol,
    inner_path,
    joined_identities,
)
from faceqan_toolkit.evaluation.datasets.issues import IssueLog
from faceqan_toolkit.evaluation.datasets.templates import Templates
from faceqan_toolkit.files import replacing
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.text_files import HEAD_BYTES, encoding_of, open_text
from faceqan_toolkit.types import LANDMARK_COLUMNS
from faceqan_toolkit.wording import reason_of

NAMES = "meta/ijbc_name_5pts_score.txt"
MEDIA = "meta/ijbc_face_tid_mid.txt"
PAIRS = "meta/ijbc_template_pair_label.txt"
PHOTOS = "loose_crop"
OFFICIAL_ROWS = {NAMES: 469_375, MEDIA: 469_375, PAIRS: 15_658_489}
OFFICIAL_MATED = 19_557

BLOCK_BYTES = 1 << 22

_NAME, _NUMBER, _REAL = pa.string(), pa.int32(), pa.float64()
_COORDINATES = [f"x{index}" for index in range(10)]
COLUMNS = {
    NAMES: {"name": _NAME, **dict.fromkeys(_COORDINATES, _REAL), "score": _REAL},
    MEDIA: {"name": _NAME, "template": _NUMBER, "media": _NUMBER},
    PAIRS: {"first": _NUMBER, "second": _NUMBER, "label": _NUMBER},
}
"""Of the three lists, which have no header and a space between cells."""


def read_ijbc(root: Path) -> Protocol:
    """Return the 1:1 protocol of IJB-C as InsightFace ships it.

    Comparisons are between templates: `Protocol.templates` says which samples each is made of.
    Landmarks and the detector's confidence come from the lists.

    Args:
        root: holds `meta` and `loose_crop`, or a folder `IJBC` that does.
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
    return Protocol(
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


def write_landmarks(protocol: Protocol, target: Path) -> None:
    """Write the protocol's landmarks as `--landmarks` takes them (docs/landmarks.md).

    Args:
        protocol: one that has landmarks.
        target: a CSV file, replaced if it exists.

    Raises:
        ProtocolError: it has none, or they cannot be written.
    """
    if protocol.landmarks is None or protocol.confidences is None:
        raise ProtocolError(f"{protocol.name} has no landmarks")
    try:
        with (
            replacing(target) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["path", *LANDMARK_COLUMNS, "confidence"])
            for path, points, score in zip(
                protocol.paths, protocol.landmarks, protocol.confidences, strict=True
            ):
                writer.writerow([path, *points.ravel().tolist(), float(score)])
    except OSError as error:
        raise ProtocolError(f"cannot write {target}: {reason_of(error)}") from error


def _read_names(
    root: Path, log: IssueLog
) -> tuple[dict[str, int], NDArray[np.float64], NDArray[np.float64]]:
    """Return the samples in order, their landmarks (N, 5, 2) and confidences (N,)."""
    names: dict[str, int] = {}
    parts = [(np.empty((0, 11)), np.empty(0, np.bool_))]
    line = 0
    for batch in _batches(root, NAMES, log):
        kept = np.ones(len(batch), np.bool_)
        for offset, name in enumerate(batch.column("name").to_pylist()):
            line += 1
            path = inner_path(name, PHOTOS)
            if path is None or path_text(path) in names:
                kept[offset] = False
                message = f"{name[:100]!r} is no name" if path is None else f"{name!r} again"
                log.add("malformed_row", message, NAMES, line)
            else:
                names[path_text(path)] = len(names)
        numbers = np.column_stack([batch.column(name) for name in (*_COORDINATES, "score")])
        parts.append((numbers[kept], kept))
    table = np.concatenate([numbers for numbers, _ in parts])
    for row in np.flatnonzero(~np.isfinite(table).all(axis=1)):
        log.add("malformed_row", "a coordinate that is no number", NAMES, int(row) + 1)
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
    """Return the comparisons, nine bytes each, of templates that are known."""
    first: list[NDArray[np.int32]] = []
    second: list[NDArray[np.int32]] = []
    mated: list[NDArray[np.bool_]] = []
    lines: list[NDArray[np.int32]] = []
    line, complete = 0, True
    for batch in _batches(root, PAIRS, log):
        columns = [_find(templates.names, batch.column(name)) for name in ("first", "second")]
        label = np.asarray(batch.column("label"))
        kept = (columns[0] >= 0) & (columns[1] >= 0) & ((label == 0) | (label == 1))
        for offset in np.flatnonzero(~kept).tolist():
            unknown = columns[0][offset] < 0 or columns[1][offset] < 0
            kind = "unknown_sample" if unknown else "malformed_row"
            message = "a template without samples" if unknown else "a label that is not 0 or 1"
            log.add(kind, message, PAIRS, line + offset + 1)
        complete &= bool(kept.all())
        first.append(columns[0][kept])
        second.append(columns[1][kept])
        mated.append(label[kept] == 1)
        lines.append((np.flatnonzero(kept) + line + 1).astype(np.int32) if not complete else
                     np.arange(line + 1, line + 1 + len(batch), dtype=np.int32))  # fmt: skip
        line += len(batch)
    empty = np.empty(0, np.int32)
    return PairList(
        np.concatenate([empty, *first]),
        np.concatenate([empty, *second]),
        np.concatenate([np.empty(0, np.bool_), *mated]),
        files=(PAIRS,),
        lines=None if complete else np.concatenate([empty, *lines]),
    )


def _find(names: Index, column: pa.Array) -> NDArray[np.int32]:
    """Return the places of template numbers in `names`, -1 for those that are not there."""
    values = np.asarray(column)
    if not len(names):
        return np.full(len(values), -1, np.int32)
    places = np.minimum(np.searchsorted(names, values), len(names) - 1)
    return np.where(names[places] == values, places, -1).astype(np.int32)


def _batches(root: Path, name: str, log: IssueLog) -> Iterator[pa.RecordBatch]:
    """Yield a list's rows, tens of thousands at a time; after a bad row there are no more."""
    columns, rows = COLUMNS[name], 0
    try:
        encoding = _encoding(root / name)
        if encoding is None:
            log.add("row_count", "the list is empty", name)
            return
    except FileNotFoundError:
        log.add("missing_list", "no such file", name)
        return
    except (OSError, ValueError) as error:
        log.add("unreadable_list", reason_of(error), name)
        return
    try:
        with pacsv.open_csv(
            root / name,
            read_options=pacsv.ReadOptions(
                column_names=list(columns), block_size=BLOCK_BYTES, encoding=encoding
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=" ", quote_char=False, ignore_empty_lines=False
            ),
            convert_options=pacsv.ConvertOptions(column_types=columns, null_values=[]),
        ) as reader:
            for batch in reader:
                rows += len(batch)
                yield batch
    except (OSError, ValueError, pa.ArrowException) as error:
        line = None if isinstance(error, OSError) else _bad_line(root / name, columns)
        if line is None:
            log.add("unreadable_list", reason_of(error), name)
        else:
            message = f"not '{' '.join(columns)}' with a space between"
            log.add("malformed_row", f"{message}; reading stopped there", name, line)
        return
    if rows != OFFICIAL_ROWS[name]:
        message = f"{rows} rows; the official list has {OFFICIAL_ROWS[name]}"
        log.add("official_count", message, name)


def _encoding(file: Path) -> str | None:
    """Return the encoding of a list, as pyarrow takes it; None if the list is empty.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text.
    """
    with file.open("rb") as content:
        head = content.read(HEAD_BYTES)
    # pyarrow reads "utf8" without Python's help, and passes over its mark
    return encoding_of(head).removesuffix("-sig") if head else None


def _int32(cell: str) -> int:
    value = int(cell)
    if not -(2**31) <= value < 2**31:
        raise ValueError("too large")
    return value


def _bad_line(file: Path, columns: dict[str, pa.DataType]) -> int | None:
    """Return the number of the first line that is not as it should be."""
    readers: dict[pa.DataType, Callable[[str], object]] = {
        _NAME: str.encode,  # fails for bytes that are no text
        _NUMBER: _int32,
        _REAL: float,
    }
    makers = [readers[kind] for kind in columns.values()]
    number = 0
    try:
        with open_text(file, "surrogateescape") as lines:
            for line in lines:
                number += 1
                cells = line.rstrip("\r\n").split(" ")
                for make, cell in zip(makers, cells, strict=True):
                    make(cell)
    except ValueError:
        return max(number, 1)
    return None
