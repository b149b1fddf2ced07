"""Embeddings that other tools computed, read in blocks: those of IJB-C take a gigabyte."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faceqan_toolkit.errors import ScoresError
from faceqan_toolkit.evaluation.matching import Match, match_paths
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.wording import reason_of

Vectors = NDArray[np.float32]

ROWS = 8192
"""Embeddings that are read together."""


@dataclass(frozen=True)
class EmbeddingTable:
    """What a file says: an embedding for each path.

    Attributes:
        file: where the embeddings stand.
        paths: (R,) each once, in the file's order.
        rows: (R,) where in the file each path's embedding stands.
        width: D, numbers of an embedding.
        duplicates: paths that stood there several times with equal embeddings.
        conflicting: paths that stood there with different ones; they are left out.
    """

    file: Path
    paths: tuple[str, ...]
    rows: NDArray[np.int64]
    width: int
    duplicates: tuple[str, ...] = ()
    conflicting: tuple[str, ...] = ()

    def match(self, wanted: Sequence[str]) -> tuple[Vectors, Match]:
        """Return the embeddings of some samples, the only ones that are held in memory.

        Args:
            wanted: (N,) paths, `Protocol.paths` for instance.

        Returns:
            (N, D) float32 as they stand there, NaN rows for samples without; and how paths were
            matched.

        Raises:
            ScoresError: the file has changed.
        """
        match = match_paths(wanted, self.paths)
        found = np.full((len(wanted), self.width), np.nan, np.float32)
        places = np.flatnonzero(match.index >= 0)
        rows = self.rows[match.index[places]]
        order = np.argsort(rows)
        places, rows = places[order], rows[order]
        start = 0
        with _refusing(self.file):
            for block in _blocks(self.file):
                part = slice(*np.searchsorted(rows, [start, start + len(block)]))
                found[places[part]] = block[rows[part] - start]
                start += len(block)
        return found, match


def read_embeddings(file: Path) -> EmbeddingTable:
    """Return what a file holds, all of it looked through.

    Args:
        file: `.npz` with the arrays `paths` (N,) text and `embeddings` (N, D) numbers, as
            numpy.savez writes them, or parquet with the columns `path` (or `paths`) and
            `embedding` (or `embeddings`), a list of equal length in every row. No pickles.
            A row that is not finite or all zero counts as none.

    Raises:
        ScoresError: it cannot be read or is not as described.
    """
    file = Path(file)
    with _refusing(file):
        first: dict[str, int] = {}
        again: dict[int, int] = {}
        paths = [path_text(path.replace("\\", "/")) for path in _paths(file)]
        for row, path in enumerate(paths):
            known = first.setdefault(path, row)
            if known != row:
                again[row] = known
        repeated = np.unique([*again, *again.values()]).astype(np.int64)
        vectors: dict[int, Vectors] = {}
        widths, start = set(), 0
        for block in _blocks(file):
            widths.add(block.shape[1])
            if len(widths) > 1:
                raise ScoresError(f"embeddings of different lengths: {sorted(widths)}")
            part = repeated[slice(*np.searchsorted(repeated, [start, start + len(block)]))]
            vectors |= zip(part.tolist(), block[part - start], strict=True)
            start += len(block)
        if start != len(paths):
            raise ScoresError(f"{start:,} embeddings of {len(paths):,} paths")
        if not paths:
            raise ScoresError("no embeddings")
    equal = {
        row: np.array_equal(vectors[row], vectors[known], equal_nan=True)
        for row, known in again.items()
    }
    conflicting = dict.fromkeys(paths[row] for row in again if not equal[row])
    kept = {path: row for path, row in first.items() if path not in conflicting}
    return EmbeddingTable(
        file,
        tuple(kept),
        np.array(list(kept.values()), np.int64),
        widths.pop(),
        tuple(dict.fromkeys(paths[row] for row in again if paths[row] not in conflicting)),
        tuple(conflicting),
    )


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Turn whatever is wrong with a file into one error that names it."""
    try:
        yield
    except MemoryError as error:
        raise ScoresError(f"{file}: too large for this machine's memory") from error
    except ScoresError as error:
        raise ScoresError(f"{file}: {error}") from error
    except Exception as error:  # zip and header parsers raise anything on damaged files
        raise ScoresError(f"{file}: {reason_of(error)}") from error


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(4)
    if start not in (b"PAR1", b"PK\x03\x04"):
        raise ScoresError("neither .npz nor parquet")
    return start == b"PAR1"


def _paths(file: Path) -> Iterator[str]:
    """Yield the paths as they stand there."""
    if _is_parquet(file):
        for texts in _column(file, "path"):
            if not pa.types.is_string(texts.type) or texts.null_count:
                raise ScoresError("every row needs a path that is text")
            yield from texts.to_pylist()
        return
    # numpy leaves files that it opened itself open if they are damaged
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        missing = {"paths", "embeddings"} - set(arrays.files)
        if missing:
            raise ScoresError(f"the array {' and '.join(sorted(missing))} is missing")
        paths = arrays["paths"]
    if paths.dtype.kind not in "US" or paths.ndim != 1:
        raise ScoresError("paths must be an array of texts")
    for path in paths.tolist():
        yield path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else str(path)


def _blocks(file: Path) -> Iterator[Vectors]:
    """Yield all embeddings in order, (B, D) float32 each; rows that are none are NaN."""
    for block in _parquet_blocks(file) if _is_parquet(file) else _npz_blocks(file):
        if block.ndim != 2 or block.dtype.kind not in "fiu":
            raise ScoresError("embeddings must be one row of numbers a path")
        if not block.shape[1]:
            raise ScoresError("the embeddings have no numbers")
        with np.errstate(over="ignore"):
            single = block.astype(np.float32)
        single[~np.isfinite(single).all(axis=1) | ~single.any(axis=1)] = np.nan
        yield single


def _parquet_blocks(file: Path) -> Iterator[NDArray[np.generic]]:
    for lists in _column(file, "embedding"):
        if lists.null_count:
            raise ScoresError("every row needs an embedding")
        lengths = set(pc.list_value_length(lists).unique().to_pylist())
        if len(lengths) > 1:
            raise ScoresError(f"embeddings of different lengths: {sorted(lengths)}")
        numbers = np.asarray(lists.flatten().to_numpy(zero_copy_only=False))
        yield numbers.reshape(len(lists), *lengths)


def _column(file: Path, name: str) -> Iterator[pa.Array]:
    """Yield a column, named in the singular or plural, in pieces."""
    # buffering ahead would hold the whole file
    with pq.ParquetFile(file, pre_buffer=False) as opened:
        names = opened.schema_arrow.names
        found = {
            wanted: next((there for there in (wanted, f"{wanted}s") if there in names), None)
            for wanted in ("path", "embedding")
        }
        if None in found.values():
            raise ScoresError(f"the columns path and embedding are needed; there are {names}")
        for batch in opened.iter_batches(ROWS, columns=[found[name]]):
            if len(batch):
                yield batch.column(0)


def _npz_blocks(file: Path) -> Iterator[NDArray[np.generic]]:
    with zipfile.ZipFile(file) as archive, archive.open("embeddings.npy") as member:
        version = np.lib.format.read_magic(member)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, columns_first, dtype = read_header(member)
        if dtype.kind not in "fiu" or len(shape) != 2:
            described = "x".join(map(str, shape))
            raise ScoresError(
                f"embeddings must be one row of numbers a path, not {described} {dtype}"
            )
        if columns_first:  # nothing is complete before the last number
            data = member.read()
            yield np.frombuffer(data, dtype).reshape(shape, order="F")
            return
        for start in range(0, shape[0], ROWS):
            rows = min(ROWS, shape[0] - start)
            data = member.read(rows * shape[1] * dtype.itemsize)
            yield np.frombuffer(data, dtype).reshape(rows, shape[1])
