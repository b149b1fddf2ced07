"""Models whose embeddings all have the same length: it says nothing about a face."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

EQUAL = 1e-4
"""Difference between the longest and the shortest embedding, relative to the longest, that is
rounding. Embeddings that keep their length differ by a hundred times as much for unlike crops."""


def have_equal_lengths(embedder: Embedder) -> bool:
    """Tell whether a model's embeddings all have the same length, measured once a model."""
    if embedder.equal_lengths is None:
        tensors = [*embedder.parameters(), *embedder.buffers()]
        crops = _probes(embedder.input_size).to(tensors[0].device if tensors else "cpu")
        with torch.inference_mode():
            lengths = embedder(crops).norm(dim=1)
        embedder.equal_lengths = are_equal(lengths)
    return embedder.equal_lengths


def are_equal(lengths: Tensor) -> bool:
    """Tell whether (N,) lengths of embeddings, none of them zero, differ by rounding alone."""
    shortest, longest = lengths.min().item(), lengths.max().item()
    return 0 < longest < math.inf and longest - shortest <= EQUAL * longest


def _probes(size: int) -> Tensor:
    """Return (4, 3, S, S) unlike crops: noise, faint noise, a ramp and a bright square."""
    noise = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, size).expand(3, size, size)
    square = torch.full((3, size, size), 0.2)
    square[:, size // 4 : -(size // 4), size // 4 : -(size // 4)] = 0.8
    return torch.stack([noise, 0.45 + noise / 10, ramp, square])
