"""Embeddings that other tools computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faceqan_toolkit.errors import ScoresError
from faceqan_toolkit.evaluation.matching import Match, match_paths
from faceqan_toolkit.paths import path_text

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingTable:
    """What a file says: an embedding for each path.

    Attributes:
        paths: (R,) each once, in the file's order.
        vectors: (R, D) float32 as they stand there; NaN rows where there is none.
        duplicates: paths that stood there several times with equal embeddings.
        conflicting: paths that stood there with different ones; they are left out.
    """

    paths: tuple[str, ...]
    vectors: Vectors
    duplicates: tuple[str, ...] = ()
    conflicting: tuple[str, ...] = ()

    def match(self, wanted: Sequence[str]) -> tuple[Vectors, Match]:
        """Return the embeddings of some samples.

        Args:
            wanted: (N,) paths, `Protocol.paths` for instance.

        Returns:
            (N, D) float32, NaN rows for samples without; and how paths were matched.
        """
        match = match_paths(wanted, self.paths)
        found = np.full((len(wanted), self.vectors.shape[1]), np.nan, np.float32)
        there = match.index >= 0
        found[there] = self.vectors[match.index[there]]
        return found, match


def read_embeddings(file: Path) -> EmbeddingTable:
    """Return the embeddings in a file.

    Args:
        file: `.npz` with the arrays `paths` (N,) text and `embeddings` (N, D) numbers, as
            numpy.savez writes them, or parquet with the columns `path` (or `paths`) and
            `embedding` (or `embeddings`), a list of equal length in every row. No pickles.
            A row that is not finite or all zero counts as none.

    Raises:
        ScoresError: it cannot be read or is not as described.
    """
    file = Path(file)
    try:
        with file.open("rb") as opened:
            start = opened.read(4)
        if start == b"PAR1":
            paths, vectors = _from_parquet(file)
        elif start == b"PK\x03\x04":
            paths, vectors = _from_npz(file)
        else:
            raise ScoresError("neither .npz nor parquet")
    except MemoryError as error:
        raise ScoresError(f"{file}: too large for this machine's memory") from error
    except ScoresError as error:
        raise ScoresError(f"{file}: {error}") from error
    except Exception as error:  # zip and header parsers raise anything on damaged files
        raise ScoresError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    if not len(paths):
        raise ScoresError(f"{file} has no embeddings")
    return _table([path_text(path.replace("\\", "/")) for path in paths], vectors)


def _from_npz(file: Path) -> tuple[list[str], Vectors]:
    # numpy leaves files that it opened itself open if they are damaged
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        missing = {"paths", "embeddings"} - set(arrays.files)
        if missing:
            raise ScoresError(f"the array {' and '.join(sorted(missing))} is missing")
        paths, vectors = arrays["paths"], arrays["embeddings"]
    if paths.dtype.kind not in "US" or paths.ndim != 1:
        raise ScoresError("paths must be an array of texts")
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or len(vectors) != len(paths):
        shape = "x".join(map(str, vectors.shape))
        raise ScoresError(f"embeddings must be one row of numbers a path, not {shape}")
    texts = [
        path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else str(path)
        for path in paths.tolist()
    ]
    return texts, _single(vectors)


def _from_parquet(file: Path) -> tuple[list[str], Vectors]:
    with pq.ParquetFile(file) as opened:
        names = opened.schema_arrow.names
        path = next((name for name in ("path", "paths") if name in names), None)
        column = next((name for name in ("embedding", "embeddings") if name in names), None)
        if path is None or column is None:
            raise ScoresError(f"the columns path and embedding are needed; there are {names}")
        paths: list[str] = []
        parts: list[Vectors] = []
        for batch in opened.iter_batches(columns=[path, column]):
            texts, lists = batch.column(path), batch.column(column)
            if not pa.types.is_string(texts.type) or texts.null_count or lists.null_count:
                raise ScoresError("every row needs a path that is text, and an embedding")
            paths += texts.to_pylist()
            parts.append(_rows_of(lists))
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise ScoresError(f"embeddings of different lengths: {sorted(widths)}")
    return paths, np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _rows_of(lists: pa.Array) -> Vectors:
    """Return a column of lists as an array, if they are equally long."""
    lengths = {len(vector) for vector in lists}
    if len(lengths) > 1:
        raise ScoresError(f"embeddings of different lengths: {sorted(lengths)}")
    numbers = np.asarray(lists.flatten().to_numpy(zero_copy_only=False))
    if numbers.dtype.kind not in "fiu":
        raise ScoresError("embeddings must be numbers")
    return _single(numbers.reshape(len(lists), -1) if len(numbers) else np.empty((len(lists), 0)))


def _single(vectors: NDArray[np.generic]) -> Vectors:
    """Return float32, rows that are no embedding NaN."""
    if not vectors.shape[1]:
        raise ScoresError("the embeddings have no numbers")
    with np.errstate(over="ignore"):
        single = vectors.astype(np.float32)
    none = ~np.isfinite(single).all(axis=1) | ~single.any(axis=1)
    single[none] = np.nan
    return single


def _table(paths: list[str], vectors: Vectors) -> EmbeddingTable:
    first: dict[str, int] = {}
    duplicates: dict[str, None] = {}
    conflicting: dict[str, None] = {}
    for row, path in enumerate(paths):
        known = first.setdefault(path, row)
        if known != row:
            equal = np.array_equal(vectors[known], vectors[row], equal_nan=True)
            (duplicates if equal else conflicting)[path] = None
    kept = {path: row for path, row in first.items() if path not in conflicting}
    return EmbeddingTable(
        tuple(kept),
        vectors if len(kept) == len(paths) else vectors[list(kept.values())],
        tuple(path for path in duplicates if path not in conflicting),
        tuple(conflicting),
    )
