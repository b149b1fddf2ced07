"""Comparisons of made-up people, alike enough to real ones to test with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.result import Evaluation, Method
from faceqan_toolkit.evaluation.statistics import evaluate_methods
from faceqan_toolkit.evaluation.verification import Comparisons, NonMated, NonMatedCollector


@dataclass(frozen=True)
class World:
    similarity: NDArray[np.float64]
    mated: NDArray[np.bool_]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    identity: NDArray[np.int64]
    damage: NDArray[np.float64]

    def comparisons(self, keep: int | None = None) -> Comparisons:
        return Comparisons.of(
            self.similarity, self.mated, self.first, self.second, self.identity, keep=keep
        )

    def methods(self) -> dict[str, Method]:
        rng = np.random.default_rng(1)
        noise = rng.normal(size=(3, len(self.damage)))
        return {
            "FaceQAN": Method(-self.damage + 0.05 * noise[0], note="S"),
            "Norm & co": Method(-self.damage + 0.3 * noise[1], note="C"),
            "Sharpness": Method(noise[2], "simple"),
        }


def world(people: int = 30, images: int = 4, seed: int = 0, decimals: int | None = None) -> World:
    """Return all comparisons of damaged images; rounded similarities have ties."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people), 1 + rng.poisson(images - 1, people))
    centres = rng.normal(size=(people, 16))
    damage = rng.beta(2, 4, len(identity))
    spread = (0.2 + 2 * damage**2)[:, None]
    embeddings = centres[identity] + spread * rng.normal(size=(len(identity), 16))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(identity), 1)
    similarity = (embeddings[first] * embeddings[second]).sum(axis=1)
    if decimals is not None:
        similarity = similarity.round(decimals)
    mated = identity[first] == identity[second]
    return World(similarity, mated, first, second, identity, damage)


QUICK = {"replicates": 50, "draws": 20, "fmr_targets": (0.1, 0.01), "fnmr_starts": (0.1,)}


def run(seen: World, methods=None, *, keep: int | None = None, **options) -> Evaluation:
    return evaluate_methods(
        seen.comparisons(keep), seen.methods() if methods is None else methods,
        dataset="Made up", recogniser="none", options=EvaluationOptions(**QUICK | options),
    )  # fmt: skip


def collect(blocks, *, keep: int | None = None, identity=None) -> NonMated:
    """Return the non-mated comparisons of (similarity, first, second) blocks."""
    collector = NonMatedCollector(keep, identity)
    for block in blocks:
        collector.add(*block)
    return collector.result()


def non_mated(similarity) -> NonMated:
    """Return non-mated comparisons between unknown samples."""
    nobody = np.zeros(len(similarity), int)
    return collect([(similarity, nobody, nobody)])
