"""Embeddings of a data set's crops, computed once and kept; torch is imported when one is.

The file is one that `read_embeddings` reads too. Each row says of which content it was made, the
file of which model; what fits is kept, the rest is computed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from faceqan_toolkit.errors import PhotoError, RunError
from faceqan_toolkit.evaluation.embeddings import Vectors
from faceqan_toolkit.files import parse_json, writing
from faceqan_toolkit.wording import reason_of

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

METADATA = b"faceqan-toolkit"
ROWS = 8192
SAVE_SECONDS, SAVE_SHARE = 60.0, 0.05
"""Saved after so long, but no more of the time than this share is spent on saving."""


@dataclass(frozen=True)
class Source:
    """What embeddings are made with.

    Attributes:
        model: its name.
        sha256: of its weights.
        flip: whether the mirror image's embedding is added.
    """

    model: str
    sha256: str
    flip: bool = False


def stored_source(file: Path) -> Source | None:
    """Return what an embeddings file says it was made with; None if it does not say."""
    try:
        metadata = pq.read_schema(file).metadata or {}
        return Source(**parse_json(metadata[METADATA]))
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException):
        return None


class EmbeddingStore:
    """A parquet file with the embeddings of a data set's crops.

    Args:
        file: need not be there yet.
        source: a file made with anything else is made anew.
        paths: (N,) of the samples.
        crops: (N,) files of their crops; None for a sample without.

    Attributes:
        vectors: (N, D) float32, not normalised, NaN where there is none; (N, 0) before any.
        pending: indices of the samples that have a crop and no embedding of it.

    Raises:
        RunError: a crop cannot be read.
    """

    def __init__(
        self, file: Path, source: Source, paths: Sequence[str], crops: Sequence[Path | None]
    ) -> None:
        self.file, self.source, self.paths, self.crops = file, source, paths, crops
        self._keys = [_sha256(crop) if crop else "" for crop in crops]
        self.vectors: Vectors = np.empty((len(paths), 0), np.float32)
        self._none = np.zeros(len(paths), np.bool_)
        if stored_source(file) == source:
            self._load()
        self.pending = [
            index for index, crop in enumerate(crops) if crop and not self._known[index]
        ]

    def complete(
        self,
        load: Callable[[], Embedder],
        advance: Callable[[int], None] = lambda number: None,
        *,
        device: str = "auto",
    ) -> Vectors:
        """Compute what is pending, saving as it goes, and return all vectors.

        Args:
            load: returns the recognition model; not called if nothing is pending.
            advance: is told of every few crops that are done.
            device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

        Raises:
            WeightsError, SettingsError: see `load` and `Embedder.embed`.
            RunError: a crop or the file.
        """
        if not self.pending:
            return self.vectors
        from faceqan_toolkit.device import resolve_device
        from faceqan_toolkit.models.blocks import forward_block

        recogniser, step = load(), 4 * forward_block(resolve_device(device))
        saved = time.monotonic()
        wait = SAVE_SECONDS
        try:
            while self.pending:
                chosen, rest = self.pending[:step], self.pending[step:]
                self._embed(recogniser, chosen, device)
                self.pending = rest
                advance(len(chosen))
                if time.monotonic() - saved > wait:
                    before = time.monotonic()
                    self._save()
                    saved = time.monotonic()
                    wait = max(SAVE_SECONDS, (saved - before) / SAVE_SHARE)
        finally:
            self._save()
        return self.vectors

    def _embed(self, recogniser: Embedder, chosen: Sequence[int], device: str) -> None:
        from faceqan_toolkit.alignment import resize_crop
        from faceqan_toolkit.photos.decode import decode_bytes

        places, crops = [], []
        for index in chosen:
            crop = self.crops[index]
            assert crop is not None
            try:
                pixels = decode_bytes(_read(crop), max_pixels=1 << 28)
            except PhotoError:
                self._none[index] = True
                continue
            places.append(index)
            crops.append(resize_crop(pixels, recogniser.input_size))
        if not crops:
            return
        found = recogniser.embed(crops, flip=self.source.flip, device=device)
        usable = np.isfinite(found).all(axis=1) & found.any(axis=1)
        found[~usable] = np.nan
        self._allocate(found.shape[1])
        self.vectors[places] = found
        self._none[np.array(places)[~usable]] = True

    def _allocate(self, width: int) -> None:
        if not self.vectors.shape[1]:
            self.vectors = np.full((len(self.paths), width), np.nan, np.float32)

    @property
    def _known(self) -> Any:
        """(N,) bool, what has an embedding, or is known to have none."""
        if not self.vectors.shape[1]:
            return self._none
        return ~np.isnan(self.vectors[:, 0]) | self._none

    def _load(self) -> None:
        """Take the rows whose crop is still the same."""
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
                            self._none[index] = bool(np.isnan(table[row]).any())
        except (
            OSError, LookupError, ValueError, TypeError, AttributeError, pa.ArrowException
        ) as error:  # fmt: skip
            raise RunError(f"{self.file} is damaged ({error}); delete it and run again") from error

    def _save(self) -> None:
        """Write what there is, whole or not at all."""
        rows = np.flatnonzero(self._known)
        width = self.vectors.shape[1]
        if not width:
            return
        schema = pa.schema(
            {
                "path": pa.string(),
                "sha256": pa.string(),
                "embedding": pa.list_(pa.float32(), width),
            },
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


def _read(crop: Path) -> bytes:
    try:
        return crop.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read the crop {crop}: {reason_of(error)}") from error


def _sha256(crop: Path) -> str:
    return hashlib.sha256(_read(crop)).hexdigest()
