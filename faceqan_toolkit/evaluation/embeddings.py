"""Embeddings: computed from crops, cached in a file, or read from files of other tools.

torch is imported when the first embedding is computed.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faceqan_toolkit.errors import PhotoError, RunError
from faceqan_toolkit.evaluation.path_matching import Match, match_paths, reading
from faceqan_toolkit.files import parse_json, sha256_of, writing
from faceqan_toolkit.text import path_text, reason_of
from faceqan_toolkit.types import Pixels

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

Read = TypeVar("Read", str, bytes)
Vectors = NDArray[np.float32]

ROWS = 8192
"""Embeddings read or written together: those of IJB-C, a gigabyte, do not fit twice."""
METADATA = b"faceqan-toolkit"
MAX_PIXELS = 1 << 28
SAVE_SECONDS, SAVE_SHARE = 60.0, 0.05
"""Seconds between saves of the cache, and the largest share of the time spent on saving."""


def embed_crops(
    crops: Iterable[Pixels | None], embedder: Embedder, *, device: str = "auto"
) -> Iterator[Vectors]:
    """Yield the embedding of each crop, (D,) float32, not normalised.

    NaN for None, and for a crop whose embedding is zero or not finite. The crops are (H, W, 3)
    uint8 RGB each; they are resized to the model's input size, as for scores. SettingsError if this
    machine does not have the device.
    """
    from faceqan_toolkit.hardware import resolve_device
    from faceqan_toolkit.models.base import forward_block

    remaining, block_size = iter(crops), forward_block(resolve_device(device))
    while block := list(islice(remaining, block_size)):
        yield from _embed(embedder, block, device=device)


def _embed(
    model: Embedder, crops: Sequence[Pixels | None], *, device: str, flip: bool = False
) -> Vectors:
    """Return (N, D) embeddings; rows of NaN for None, and for embeddings without a direction."""
    from faceqan_toolkit.alignment import resize_crop

    there = [crop is not None for crop in crops]
    size = model.input_size
    given = [resize_crop(crop, size) for crop in crops if crop is not None]
    found = model.embed(given, flip=flip, device=device)
    found[~(np.isfinite(found).all(axis=1) & found.any(axis=1))] = np.nan
    vectors = np.full((len(crops), found.shape[1]), np.nan, np.float32)
    vectors[there] = found
    return vectors


@dataclass(frozen=True)
class EmbeddingSource:
    """Model and options that embeddings were computed with.

    `sha256` is the checksum of the model's weights; with `flip` the mirror image's embedding is
    added.
    """

    model: str
    sha256: str
    flip: bool = False


def stored_source(file: Path) -> EmbeddingSource | None:
    """Return the source of the embeddings in a cache file; None for any other file."""
    try:
        metadata = pq.read_schema(file).metadata or {}
        return EmbeddingSource(**parse_json(metadata[METADATA]))
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException):
        return None


class EmbeddingCache:
    """A parquet file with the embeddings of a data set's crops; `read_embeddings` reads it, too.

    Each row has the checksum of its crop; rows of changed crops are computed again. RunError if a
    crop cannot be read.

    Args:
        file: created if missing.
        source: model and options; a file of another source is replaced.
        paths: (N,) paths of the samples.
        crops: (N,) files of their crops; None for a sample without.

    Attributes:
        vectors: (N, D) float32, not normalised, NaN rows for none; (N, 0) before the first one.
        pending: indices of the samples whose crop is not embedded yet.
    """

    def __init__(
        self, file: Path, source: EmbeddingSource, paths: Sequence[str],
        crops: Sequence[Path | None],
    ) -> None:  # fmt: skip
        self.file, self.source, self.paths, self.crops = file, source, paths, crops
        self._keys = [_read(crop, sha256_of) if crop else "" for crop in crops]
        self.vectors: Vectors = np.empty((len(paths), 0), np.float32)
        self._done = np.zeros(len(paths), np.bool_)
        if stored_source(file) == source:
            self._load()
        self.pending = [index for index, crop in enumerate(crops) if crop and not self._done[index]]

    def complete(
        self, model: Embedder, advance: Callable[[int], object] = lambda number: None, *,
        device: str = "auto",
    ) -> Vectors:  # fmt: skip
        """Embed the pending crops, save from time to time, and return all vectors.

        `advance` is called with the number of crops after each block. RunError if a crop cannot be
        read or the file cannot be written.
        """
        from faceqan_toolkit.hardware import resolve_device
        from faceqan_toolkit.models.base import forward_block

        saved, wait = time.monotonic(), SAVE_SECONDS
        step = 4 * forward_block(resolve_device(device))
        try:
            while self.pending:
                chosen = self.pending[:step]
                crops = [_decoded(crop) for index in chosen if (crop := self.crops[index])]
                vectors = _embed(model, crops, device=device, flip=self.source.flip)
                if vectors.size:
                    self._allocate(vectors.shape[1])
                    self.vectors[chosen] = vectors
                self._done[chosen] = True
                del self.pending[:step]
                advance(len(chosen))
                if time.monotonic() - saved > wait:
                    before = time.monotonic()
                    self._save()
                    saved = time.monotonic()
                    wait = max(SAVE_SECONDS, (saved - before) / SAVE_SHARE)
        finally:
            self._save()
        return self.vectors

    def _allocate(self, width: int) -> None:
        if not self.vectors.shape[1]:
            self.vectors = np.full((len(self.paths), width), np.nan, np.float32)

    def _load(self) -> None:
        """Load the rows whose crop is unchanged."""
        places = {path: index for index, path in enumerate(self.paths)}
        try:
            with pq.ParquetFile(self.file) as opened:
                for batch in opened.iter_batches(ROWS):
                    table = np.asarray(batch.column("embedding").flatten())
                    table = table.reshape(batch.num_rows, -1)
                    self._allocate(table.shape[1])
                    paths, keys = (batch.column(name).to_pylist() for name in ("path", "sha256"))
                    for row, (path, key) in enumerate(zip(paths, keys, strict=True)):
                        index = places.get(path)
                        if index is not None and key and key == self._keys[index]:
                            self.vectors[index] = table[row]
                            self._done[index] = True
        except (
            OSError, LookupError, ValueError, TypeError, AttributeError, pa.ArrowException
        ) as error:  # fmt: skip
            raise RunError(f"{self.file} is damaged ({error}); delete it and run again") from error

    def _save(self) -> None:
        rows = np.flatnonzero(self._done)
        width = self.vectors.shape[1]
        if not width:
            return
        vector = pa.list_(pa.float32(), width)
        schema = pa.schema(
            {"path": pa.string(), "sha256": pa.string(), "embedding": vector},
            metadata={METADATA: json.dumps(asdict(self.source))},
        )
        with writing(self.file) as temporary:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(temporary, schema) as writer:
                for start in range(0, len(rows), ROWS):
                    part = rows[start : start + ROWS].tolist()
                    flat = pa.array(self.vectors[part].reshape(-1), from_pandas=False)
                    columns = [
                        pa.array([self.paths[index] for index in part]),
                        pa.array([self._keys[index] for index in part]),
                        pa.FixedSizeListArray.from_arrays(flat, width),
                    ]
                    writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _read(crop: Path, read: Callable[[Path], Read]) -> Read:
    try:
        return read(crop)
    except OSError as error:
        raise RunError(f"cannot read the crop {crop}: {reason_of(error)}") from error


def _decoded(crop: Path) -> Pixels | None:
    """Return a crop's pixels; None for a damaged one."""
    from faceqan_toolkit.photos.decode import decode_bytes

    data = _read(crop, Path.read_bytes)
    with suppress(PhotoError):
        return decode_bytes(data, max_pixels=MAX_PIXELS)
    return None


@dataclass(frozen=True)
class EmbeddingTable:
    """Index of a file of embeddings of length `width`.

    Attributes:
        paths: (R,) paths without repetitions, in the file's order.
        rows: (R,) row of each path's embedding in the file.
        duplicates: paths that occur several times with equal embeddings.
        conflicting: paths that occur with different embeddings; they are left out.
    """

    file: Path
    paths: tuple[str, ...]
    rows: NDArray[np.int64]
    width: int
    duplicates: tuple[str, ...] = ()
    conflicting: tuple[str, ...] = ()

    def match(self, wanted: Sequence[str]) -> tuple[Vectors, Match]:
        """Read the embeddings of samples by their (N,) paths; also return the match of the paths.

        The embeddings are (N, D) float32, not normalised, with NaN rows for samples without.
        ScoresError if the file has changed.
        """
        match = match_paths(wanted, self.paths)
        found = np.full((len(wanted), self.width), np.nan, np.float32)
        places = np.flatnonzero(match.index >= 0)
        rows = self.rows[match.index[places]]
        order = np.argsort(rows)
        places, rows = places[order], rows[order]
        start = 0
        with reading(self.file):
            for block in _blocks(self.file):
                part = slice(*np.searchsorted(rows, [start, start + len(block)]))
                found[places[part]] = block[rows[part] - start]
                start += len(block)
        return found, match


def read_embeddings(file: Path) -> EmbeddingTable:
    """Return the index of a file of embeddings, after reading it once; ScoresError if it cannot be.

    The file is `.npz` with the arrays `paths` (N,) text and `embeddings` (N, D) numbers, as
    numpy.savez writes them; or parquet with the columns `path` (or `paths`) and `embedding` (or
    `embeddings`), a list of equal length in every row. No pickles. An embedding that is all zero or
    not finite counts as missing.
    """
    with reading(file):
        first: dict[str, int] = {}
        paths = [path_text(path.replace("\\", "/")) for path in _paths(file)]
        known = [first.setdefault(path, row) for row, path in enumerate(paths)]
        again = {row: before for row, before in enumerate(known) if before != row}
        repeated = np.unique([*again, *again.values()]).astype(np.int64)
        vectors: dict[int, Vectors] = {}
        widths, start = set(), 0
        for block in _blocks(file):
            widths.add(block.shape[1])
            if len(widths) > 1:
                raise ValueError(f"embeddings of different lengths: {sorted(widths)}")
            part = repeated[slice(*np.searchsorted(repeated, [start, start + len(block)]))]
            vectors |= zip(part.tolist(), block[part - start], strict=True)
            start += len(block)
        if start != len(paths):
            raise ValueError(f"{start:,} embeddings for {len(paths):,} paths")
        if not paths:
            raise ValueError("no embeddings")
    conflicting = dict.fromkeys(
        paths[row]
        for row, before in again.items()
        if not np.array_equal(vectors[row], vectors[before], equal_nan=True)
    )
    kept = {path: row for path, row in first.items() if path not in conflicting}
    duplicates = dict.fromkeys(paths[row] for row in again if paths[row] not in conflicting)
    return EmbeddingTable(
        file, tuple(kept), np.array(list(kept.values()), np.int64), widths.pop(),
        tuple(duplicates), tuple(conflicting),
    )  # fmt: skip


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(4)
    if start not in (b"PAR1", b"PK\x03\x04"):
        raise ValueError("the file is neither .npz nor parquet")
    return start == b"PAR1"


def _paths(file: Path) -> Iterator[str]:
    if _is_parquet(file):
        for texts in _column(file, "path"):
            if not pa.types.is_string(texts.type) or texts.null_count:
                raise ValueError("a row has no path, or one that is not text")
            yield from texts.to_pylist()
        return
    # numpy does not close a damaged file that it opened itself
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        missing = {"paths", "embeddings"} - set(arrays.files)
        if missing:
            raise ValueError(f"no array {' and '.join(sorted(missing))}")
        paths = arrays["paths"]
    if paths.dtype.kind not in "US" or paths.ndim != 1:
        raise ValueError("paths must be a one-dimensional array of strings")
    for path in paths.tolist():
        yield path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else str(path)


def _blocks(file: Path) -> Iterator[Vectors]:
    """Yield all embeddings in order as (B, D) float32; NaN rows for missing ones."""
    for block in _parquet_blocks(file) if _is_parquet(file) else _npz_blocks(file):
        if block.ndim != 2 or block.dtype.kind not in "fiu":
            raise ValueError("embeddings must be a row of numbers for each path")
        if not block.shape[1]:
            raise ValueError("the embeddings have length 0")
        with np.errstate(over="ignore"):
            single = block.astype(np.float32)
        single[~np.isfinite(single).all(axis=1) | ~single.any(axis=1)] = np.nan
        yield single


def _parquet_blocks(file: Path) -> Iterator[NDArray[np.generic]]:
    for lists in _column(file, "embedding"):
        if lists.null_count:
            raise ValueError("a row has no embedding")
        lengths = set(pc.list_value_length(lists).unique().to_pylist())
        if len(lengths) > 1:
            raise ValueError(f"embeddings of different lengths: {sorted(lengths)}")
        numbers = np.asarray(lists.flatten().to_numpy(zero_copy_only=False))
        yield numbers.reshape(len(lists), *lengths)


def _column(file: Path, name: str) -> Iterator[pa.Array]:
    """Yield the batches of a column; its name may be singular or plural."""
    # pre-buffering would hold the whole file in memory
    with pq.ParquetFile(file, pre_buffer=False) as opened:
        names = opened.schema_arrow.names
        found = {
            wanted: next((there for there in (wanted, f"{wanted}s") if there in names), None)
            for wanted in ("path", "embedding")
        }
        if None in found.values():
            raise ValueError(
                f"expected the columns path and embedding; found {', '.join(names)[:300]}"
            )
        for batch in opened.iter_batches(ROWS, columns=[found[name]]):
            if len(batch):
                yield batch.column(0)


def _npz_blocks(file: Path) -> Iterator[NDArray[np.generic]]:
    with zipfile.ZipFile(file) as archive, archive.open("embeddings.npy") as member:
        is_first = np.lib.format.read_magic(member) == (1, 0)
        read_header = getattr(np.lib.format, f"read_array_header_{1 if is_first else 2}_0")
        shape, columns_first, dtype = read_header(member)
        if dtype.kind not in "fiu" or len(shape) != 2:
            described = "x".join(map(str, shape))
            raise ValueError(
                f"embeddings must be a row of numbers for each path, not {described} {dtype}"
            )
        if columns_first:  # no row is complete before the end of the data
            data = member.read()
            yield np.frombuffer(data, dtype).reshape(shape, order="F")
            return
        for start in range(0, shape[0], ROWS):
            rows = min(ROWS, shape[0] - start)
            data = member.read(rows * shape[1] * dtype.itemsize)
            yield np.frombuffer(data, dtype).reshape(rows, shape[1])
