"""Embeddings of crops by a recognition model; torch is imported when the first is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.results.crops import RunCrops
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.types import Pixels

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder


def embed_crops(
    crops: Iterable[Pixels | None], embedder: Embedder, *, device: str = "auto"
) -> Iterator[NDArray[np.float32]]:
    """Yield the embedding of each crop, (D,) float32, not normalised.

    Args:
        crops: (H, W, 3) uint8, RGB; of another size than the model's they are resized, as for
            scores. What is None has no embedding: NaN, as has a crop whose embedding is zero or
            not finite.
        embedder: the recognition model.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        SettingsError: a device this machine does not have.
    """
    from faceqan_toolkit.alignment import resize_crop
    from faceqan_toolkit.device import resolve_device
    from faceqan_toolkit.models.blocks import forward_block

    size = embedder.input_size
    width = embedder.embed([], device=device).shape[1]
    remaining, chunk = iter(crops), forward_block(resolve_device(device))
    while block := list(islice(remaining, chunk)):
        vectors = np.full((len(block), width), np.nan, np.float32)
        there = [crop is not None for crop in block]
        if any(there):
            found = [resize_crop(crop, size) for crop in block if crop is not None]
            vectors[there] = embedder.embed(found, device=device)
        vectors[~(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))] = np.nan
        yield from vectors


def kept_crop(run: RunInfo, row: Mapping[str, Any], *, fetch: bool = False) -> Pixels | None:
    """Return a face's crop, (S, S, 3) uint8, or None if there is none any more.

    Args:
        run: a run of align-and-score, which has crops of its own, or of score, whose photos are
            the crops.
        row: its `path`, `root`, `crop` and `sha256`.
        fetch: read photos that are on other machines.
    """
    try:
        return RunCrops(run, cut=False, fetch=fetch).crop({**row, "face": 0})
    except PhotoError:
        return None
