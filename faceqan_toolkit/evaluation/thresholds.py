"""Quality thresholds for a target error rate or discard share.

A threshold is fitted on one half of the people and evaluated on the held-out half.

The similarity threshold is the smallest one with the wanted false match rate (`verification`).
Discarding the faces below a quality threshold discards their comparisons. The quality threshold for
a false non-match rate is the smallest one at which the remaining comparisons reach that rate: where
the error-versus-discard curve ("fixed", see `curves`) first comes down to it. It is rounded down to
the fewest decimals that discard the same faces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import CalibrationError
from faceqan_toolkit.evaluation.bootstrap import (
    CHUNK_VALUES,
    Counts,
    draw_identities,
    fmr_thresholds,
    interval,
    non_mated_totals,
)
from faceqan_toolkit.evaluation.curves import groups, pair_quality
from faceqan_toolkit.evaluation.datasets.base import PairList
from faceqan_toolkit.evaluation.verification import (
    Bools,
    Comparisons,
    Floats,
    Ints,
    NonMatedCollector,
    identity_codes,
    rejected,
)
from faceqan_toolkit.results.calibration import ENOUGH_ERRORS, Errors, Rate, Threshold
from faceqan_toolkit.text import shortest_between

REPLICATES = 1000
BLOCK_VALUES = 1 << 22
"""Similarities computed together."""


@dataclass(frozen=True)
class Faces:
    """Faces of some people.

    Attributes:
        quality: (N,) finite qualities.
        identity: (N,) int32 identities, 0, 1, ...
        comparisons: comparisons of these faces; None if all are mated or all are non-mated.
        all_compared: whether every face was compared with every other one.
    """

    quality: Floats
    identity: NDArray[np.int32]
    comparisons: Comparisons | None = None
    all_compared: bool = False

    @property
    def people(self) -> int:
        """Number of people."""
        return int(self.identity.max(initial=-1)) + 1

    def non_mated(self, weights: Counts) -> Ints:
        """Return (B,) numbers of non-mated comparisons in replicates with (B, I) weights."""
        if self.all_compared:
            drawn = weights.astype(np.int64) * np.bincount(self.identity, minlength=self.people)
            return np.asarray((drawn.sum(axis=1) ** 2 - (drawn**2).sum(axis=1)) // 2)
        assert self.comparisons is not None
        return non_mated_totals(self.comparisons.non_mated.identity_pairs, weights)


def split_people(identity: NDArray[np.int64], seed: int) -> Bools:
    """Return a mask of the faces of a random half of the people: those the threshold is fitted on.

    People with similar numbers of faces are paired, and one of each pair is drawn, so that both
    halves have about as many faces and mated comparisons.

    Args:
        identity: (N,) int64 identities of the faces.
        seed: random seed.
    """
    codes = identity_codes(identity)
    sizes = np.bincount(codes)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(sizes)), -sizes))
    second = rng.integers(0, 2, -(-len(sizes) // 2))
    chosen = np.zeros(len(sizes), np.bool_)
    places = np.minimum(2 * np.arange(len(second)) + second, len(sizes) - 1)
    chosen[order[places]] = True
    return np.asarray(chosen[codes])


def faces_of(
    quality: Floats,
    identity: NDArray[np.int64],
    chosen: Bools,
    embeddings: NDArray[np.float32] | None = None,
    pairs: PairList | None = None,
    fmr: float = 1e-3,
) -> Faces:
    """Return a subset of the faces with the comparisons among them.

    Args:
        quality: (N,) qualities of all faces.
        identity: (N,) int64 identities of all faces.
        chosen: (N,) mask of the subset; it has all faces of a person, or none.
        embeddings: (N, D) embeddings of all faces without NaN; None for no comparisons.
        pairs: pairs to compare, indices into all faces; None to compare all with all.
        fmr: false match rate of the threshold; decides how many comparisons are kept.
    """
    quality, codes = quality[chosen], identity_codes(identity[chosen])
    if embeddings is None:
        return Faces(quality, codes)
    vectors = embeddings[chosen]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if pairs is None:
        return Faces(quality, codes, _all_compared(vectors, codes, fmr), True)
    place = np.cumsum(chosen) - 1
    inside = chosen[pairs.first] & chosen[pairs.second] & (pairs.first != pairs.second)
    first, second = (place[ends[inside]] for ends in (pairs.first, pairs.second))
    same = pairs.mated[inside]
    if same.all() or not same.any():
        return Faces(quality, codes)
    parts = [
        np.einsum("pd,pd->p", vectors[first[block]], vectors[second[block]])
        for block in _slices(len(first), vectors.shape[1])
    ]
    return Faces(quality, codes, Comparisons.of(np.concatenate(parts), same, first, second, codes))


def _all_compared(
    vectors: NDArray[np.float32], codes: NDArray[np.int32], fmr: float
) -> Comparisons | None:
    """Return all comparisons of normalised (N, D) vectors; None if all have the same kind."""
    sizes = np.bincount(codes).astype(np.int64)
    mated = int((sizes * (sizes - 1) // 2).sum())
    others = len(codes) * (len(codes) - 1) // 2 - mated
    if not mated or not others:
        return None
    collector = NonMatedCollector(NonMatedCollector.enough(others, fmr))
    found: list[tuple[NDArray[np.float32], Ints, Ints]] = []
    for rows in _slices(len(codes), len(codes)):
        similarity = vectors[rows] @ vectors[rows.start :].T
        # the upper triangle: each pair once
        one, two = np.nonzero(np.triu(np.ones(similarity.shape, np.bool_), 1))
        values, one, two = similarity[one, two], one + rows.start, two + rows.start
        same = codes[one] == codes[two]
        found.append((values[same], one[same], two[same]))
        collector.add(values[~same], one[~same], two[~same])
    values, one, two = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Comparisons.streamed(values, one, two, collector.result(), codes)


def _slices(number: int, width: int) -> Iterator[slice]:
    """Yield slices of `number` rows, each with about `BLOCK_VALUES` values of `width` columns."""
    step = max(1, BLOCK_VALUES // max(1, width))
    for start in range(0, number, step):
        yield slice(start, min(start + step, number))


def quality_for_fnmr(faces: Faces, target: float, similarity: Floats, weights: Counts) -> Floats:
    """Return (B,) smallest quality thresholds with an FNMR of at most the target.

    Args:
        faces: faces with comparisons.
        target: FNMR target in (0, 1).
        similarity: (B,) similarity thresholds.
        weights: (B, I) weights of the people in each replicate.

    Returns:
        thresholds; NaN where none reaches the target, the lowest quality where the FNMR is within
        it without discarding.
    """
    comparisons = faces.comparisons
    assert comparisons is not None
    quality = pair_quality(faces.quality, comparisons.first, comparisons.second)
    order, starts = groups(quality)
    levels = quality[order][starts]
    person = faces.identity[comparisons.first[order]]
    ordered = comparisons.similarity[order]
    result = np.full(len(weights), np.nan)
    step = max(1, CHUNK_VALUES // len(order))
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        counts = weights[part][:, person].astype(np.float64)
        wrong = counts * ~(ordered > similarity[part, None])
        counts, wrong = (np.add.reduceat(values, starts, axis=1) for values in (counts, wrong))
        left, errors = (np.cumsum(n[:, ::-1], axis=1)[:, ::-1] for n in (counts, wrong))
        there = counts > 0  # skip levels without a resampled face
        reached = there & (errors / np.maximum(left, 1) <= target)
        reached &= ~np.isnan(similarity[part, None])
        first = np.argmax(reached, axis=1)
        found = np.where(first == np.argmax(there, axis=1), faces.quality.min(), levels[first])
        result[part] = np.where(reached.any(axis=1), found, np.nan)
    return result


def quality_for_discard(faces: Faces, target: float, weights: Counts) -> Floats:
    """Return (B,) largest quality thresholds that discard at most a share of the faces.

    Args:
        faces: at least one face.
        target: discard share in (0, 1).
        weights: (B, I) weights of the people in each replicate.
    """
    order, starts = groups(faces.quality)
    levels = faces.quality[order][starts]
    person = faces.identity[order]
    result = np.full(len(weights), np.nan)
    step = max(1, CHUNK_VALUES // len(order))
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        counts = np.add.reduceat(weights[part][:, person].astype(np.float64), starts, axis=1)
        before = np.cumsum(counts, axis=1) - counts
        # skip levels without a resampled face
        within = (before <= target * counts.sum(axis=1, keepdims=True)) & (counts > 0)
        last = within.shape[1] - 1 - np.argmax(within[:, ::-1], axis=1)
        result[part] = levels[last]
    return result


def choose(
    kind: str,
    target: float,
    fmr: float,
    choosing: Faces,
    others: Faces,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Threshold:
    """Return the threshold for a target, with its effect on held-out people.

    Args:
        kind: kind of the target, "fnmr" or "discard".
        target: FNMR or discard share in (0, 1).
        fmr: false match rate of the similarity threshold.
        choosing: faces that the threshold is fitted on.
        others: faces of the held-out people.
        seed: random seed of the intervals.
        replicates: number of bootstrap replicates of the intervals.

    Raises:
        CalibrationError: no threshold reaches the FNMR, or too few errors to estimate it.
    """
    weights = draw_identities(others.people, replicates, seed)
    similarity = _similarity(choosing, fmr, _once(choosing))[0]
    if kind == "fnmr":
        for faces in (choosing, others):
            _refuse_without(faces, fmr)
        (quality,) = quality_for_fnmr(choosing, target, np.array([similarity]), _once(choosing))
        if np.isnan(quality):
            raise CalibrationError(
                f"no quality threshold reaches an FNMR of {target:g} at FMR {fmr:g}: even the "
                "best faces have more errors"
            )
        drawn = quality_for_fnmr(others, target, _similarity(others, fmr, weights), weights)
    else:
        (quality,) = quality_for_discard(choosing, target, _once(choosing))
        drawn = quality_for_discard(others, target, weights)
    spread = interval(drawn)
    quality = _rounded(float(quality), choosing, others)
    threshold = Threshold(
        kind=kind,
        target=target,
        quality=quality,
        low=spread.low if spread else None,
        high=spread.high if spread else None,
        discard=_rate(others.quality < quality, others.identity, weights),
        errors=_errors(others, quality, fmr, float(similarity), weights),
    )
    if kind == "fnmr":
        _refuse_few_errors(threshold)
    return threshold


def _rounded(quality: float, *halves: Faces) -> float:
    """Return the threshold with the fewest decimals that discards the same faces."""
    lower = [half.quality[half.quality < quality].max(initial=-np.inf) for half in halves]
    return shortest_between(float(max(lower)), quality)


def _once(faces: Faces) -> Counts:
    """Return (1, I) weights of the original data: 1 for everybody."""
    return np.ones((1, faces.people), np.int32)


def _refuse_without(faces: Faces, fmr: float) -> None:
    """Raise CalibrationError if the comparisons do not suffice for a false match rate."""
    if faces.comparisons is None:
        raise CalibrationError(
            "calibration needs people with two photos and other people to compare with, in both "
            "halves of the people: add photos"
        )
    total = faces.comparisons.non_mated.total
    if fmr * total < ENOUGH_ERRORS:
        raise CalibrationError(
            f"calibration at FMR {fmr:g} needs at least {int(np.ceil(ENOUGH_ERRORS / fmr)):,} "
            f"non-mated comparisons in each half of the people, one half has {total:,}: add people "
            "or raise --fmr"
        )


def _refuse_few_errors(threshold: Threshold) -> None:
    """Raise CalibrationError if too few errors remain to estimate the achieved rate."""
    assert threshold.errors is not None
    after = threshold.errors.after
    if after.count < ENOUGH_ERRORS:
        raise CalibrationError(
            f"calibration for {threshold.title} needs at least {ENOUGH_ERRORS} errors among the "
            f"held-out people, there are {after.count} in {after.total:,} mated comparisons: add "
            "photos or raise --target-fnmr"
        )


def _similarity(faces: Faces, fmr: float, weights: Counts) -> Floats:
    """Return (B,) smallest similarity thresholds within an FMR; NaN without comparisons."""
    if faces.comparisons is None:
        return np.full(len(weights), np.nan)
    others = faces.comparisons.non_mated
    totals = faces.non_mated(weights)
    return fmr_thresholds(others, faces.identity, [fmr], weights, totals)[:, 0]


def _errors(
    faces: Faces, quality: float, fmr: float, similarity: float, weights: Counts
) -> Errors | None:
    comparisons = faces.comparisons
    if comparisons is None or np.isnan(similarity):
        return None
    person = faces.identity[comparisons.first]
    wrong = rejected(comparisons.similarity, similarity)
    kept = pair_quality(faces.quality, comparisons.first, comparisons.second) >= quality
    return Errors(
        fmr,
        similarity,
        _false_matches(faces, similarity, weights),
        _rate(wrong, person, weights),
        _rate(wrong[kept], person[kept], weights),
    )


def _false_matches(faces: Faces, similarity: float, weights: Counts) -> Rate:
    assert faces.comparisons is not None
    others = faces.comparisons.non_mated
    count = others.at_threshold(similarity).false_matches
    if count > len(others.similarity):  # the FMR is far from its target: not all were kept
        return Rate(count, others.total)
    first, second = (faces.identity[ends[:count]] for ends in (others.first, others.second))
    accepted = np.array([np.dot(row[first].astype(np.int64), row[second]) for row in weights])
    found = interval(_shares(accepted, faces.non_mated(weights)))
    return Rate(count, others.total, *((found.low, found.high) if found else (None, None)))


def _rate(counted: Bools, person: NDArray[np.int32], weights: Counts) -> Rate:
    """Return the share of counted items, with an interval.

    Args:
        counted: (N,) mask of the counted items.
        person: (N,) person of each item.
        weights: (B, I) weights of the people in each replicate.
    """
    people = weights.shape[1]
    one, every = (np.bincount(who, minlength=people) for who in (person[counted], person))
    found = interval(_shares(weights @ one, weights @ every))
    return Rate(int(one.sum()), len(person), *((found.low, found.high) if found else (None, None)))


def _shares(counts: Ints, totals: Ints) -> Floats:
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
