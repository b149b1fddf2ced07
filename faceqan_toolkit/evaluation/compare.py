"""Embeddings and a protocol to comparisons, block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import EvaluationError
from faceqan_toolkit.evaluation.comparisons import Comparisons, NonMatedCollector
from faceqan_toolkit.evaluation.datasets.base import Protocol
from faceqan_toolkit.evaluation.embeddings import Vectors
from faceqan_toolkit.evaluation.verification import Accuracy, fold_accuracy

BLOCK = 16_384
"""Comparisons that are made together: both sides' embeddings of 512 numbers take 67 MB."""


def compared(
    protocol: Protocol, embeddings: Vectors, weights: NDArray[np.float64] | None = None
) -> Vectors:
    """Return the vectors that a protocol compares: its samples' or, if it has them, templates'.

    Args:
        protocol: whose samples, or templates, are compared.
        embeddings: (N, D) of its samples, of any length; NaN for one that has none.
        weights: (N,) of the samples within their template's media; None counts all alike.

    Returns:
        (M, D) float32 of length one; NaN for what has none.

    Raises:
        EvaluationError: nothing has one.
    """
    if protocol.templates is not None:
        vectors = protocol.templates.embed(embeddings, weights)
    else:
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        vectors = np.asarray(embeddings / lengths, np.float32)
    if np.isnan(vectors).all():
        raise EvaluationError("no photo has an embedding")
    return vectors


def compare(
    protocol: Protocol, vectors: Vectors, *, largest_fmr: float | None
) -> tuple[Comparisons, Accuracy | None]:
    """Return all comparisons of a protocol by cosine similarity.

    Args:
        protocol: whose samples, or templates, are compared.
        vectors: (M, D) of length one, see `compared`.
        largest_fmr: the most similar non-mated comparisons are kept as FMR targets up to this one
            need them; None keeps all.

    Returns:
        the comparisons; without identities, and so without intervals, if a non-mated pair is of
        what mated pairs say is one person. And the accuracy over folds, if there are any.

    Raises:
        EvaluationError: there is no mated comparison.
    """
    identity = None if contradicts(protocol) else protocol.identities
    total = len(protocol.pairs)
    keep = None if largest_fmr is None else NonMatedCollector.enough(total, largest_fmr)
    collector = NonMatedCollector(keep, identity)
    mated, folds = [], []
    for block in protocol.pairs.blocks(BLOCK):
        similarity = np.einsum("ij,ij->i", vectors[block.first], vectors[block.second])
        others = ~block.mated
        collector.add(similarity[others], block.first[others], block.second[others])
        same = block.mated
        mated.append((similarity[same], block.first[same], block.second[same]))
        if block.fold is not None:
            folds.append((similarity, block.mated, block.fold))
    accuracy = None
    if folds and (protocol.folds or 0) > 1:
        accuracy = fold_accuracy(*(np.concatenate(part) for part in zip(*folds, strict=True)))
    values, first, second = (np.concatenate(part) for part in zip(*mated, strict=True))
    comparisons = Comparisons.streamed(values, first, second, collector.result(), identity)
    return comparisons, accuracy


def contradicts(protocol: Protocol) -> bool:
    """Tell whether a non-mated pair is of one person, as far as the identities tell."""
    people = protocol.identities
    return any(
        bool(np.any((people[block.first] == people[block.second]) & ~block.mated))
        for block in protocol.pairs.blocks()
    )
