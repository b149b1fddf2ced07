"""Uncertainty of error rates and areas: people are drawn again, with replacement.

Comparisons of one person depend on each other, so identities are drawn, not comparisons. An
identity that is drawn w times stands for w people: its mated comparisons count w times, a
non-mated comparison of identities drawn v and w times counts v * w times. The threshold is found
anew in every replicate. None of it copies a comparison: only weights change, and of the
non-mated comparisons only the most similar are looked at, the others by their sum of weights.

Source: Bolle, Ratha, Pankanti, "Error analysis of pattern recognition systems: the subsets
bootstrap", CVIU 2004.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.comparisons import (
    Bools,
    Comparisons,
    Floats,
    Ints,
    NonMated,
    allowed,
)
from faceqan_toolkit.evaluation.edc import groups, ideal_area

Counts = NDArray[np.int32]
CHUNK_VALUES = 1 << 21
"""Numbers in one block of replicates times comparisons: 16 MiB an array."""
DENSE_PEOPLE = 5000
"""Up to here a full matrix of pairs of identities is both small and faster."""


@dataclass(frozen=True)
class Operating:
    """What fixes the threshold.

    Attributes:
        kind: "fmr" for the smallest threshold with at most this FMR; "fnmr" for the smallest
            with at least this FNMR before anything is discarded.
        target: that rate.
    """

    kind: str
    target: float


def draw_identities(people: int, replicates: int, seed: int) -> Counts:
    """Return (B, I) int32: how often each replicate has drawn each identity; rows sum to I."""
    rng = np.random.default_rng(seed)
    rows = [
        np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(replicates)
    ]
    return np.array(rows, dtype=np.int32).reshape(replicates, people)


@dataclass(frozen=True)
class Replicates:
    """Figures of resampled people; NaN where a replicate has none.

    Attributes:
        points: (T,) operating points.
        limits: (L,) of the areas.
        fnmr0: (B, T) FNMR before anything is discarded.
        areas: {method: (B, T, L)} raw pAUC.
        ideal: (B, T, L) raw pAUC of the oracle.
    """

    points: tuple[Operating, ...]
    limits: tuple[float, ...]
    fnmr0: Floats
    areas: Mapping[str, Floats]
    ideal: Floats


def replicate(
    comparisons: Comparisons,
    similarity: Floats,
    usable: Bools,
    quality: Mapping[str, Floats],
    points: Sequence[Operating],
    limits: Sequence[float],
    weights: Counts,
) -> Replicates:
    """Return the figures of every replicate.

    Args:
        comparisons: with identities.
        similarity: (M',) of the usable mated comparisons, -inf where they could not be made.
        usable: (M,) which of the mated comparisons these are.
        quality: {method: (M',)} of the usable ones.
        points: T operating points.
        limits: L shares.
        weights: (B, I) see `draw_identities`.

    Raises:
        EvaluationError: the comparisons have no identities.
    """
    if comparisons.identity is None or comparisons.non_mated.identity_pairs is None:
        raise EvaluationError("resampling people needs the samples' identities")
    person = comparisons.identity[comparisons.first[usable]]
    thresholds = np.empty((len(weights), len(points)))
    by_fmr, by_fnmr = (
        [index for index, point in enumerate(points) if point.kind == kind]
        for kind in ("fmr", "fnmr")
    )
    thresholds[:, by_fmr] = fmr_thresholds(
        comparisons.non_mated, comparisons.identity, [points[i].target for i in by_fmr], weights
    )
    ascending = np.argsort(similarity, kind="stable")

    fnmr0 = np.empty((len(weights), len(points)))
    ideal = np.empty((*fnmr0.shape, len(limits)))
    areas = {name: np.empty_like(ideal) for name in quality}
    sorted_by = {name: groups(values) for name, values in quality.items()}
    step = max(1, CHUNK_VALUES // max(1, len(similarity)))
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        counts = weights[part][:, person].astype(np.float64)
        total = counts.sum(axis=1)
        cuts = thresholds[part]
        for index in by_fnmr:
            cuts[:, index] = _fnmr_thresholds(
                similarity[ascending], counts[:, ascending], points[index].target
            )
        wrong = [counts * ~(similarity > cut[:, None]) for cut in cuts.T]
        errors = np.stack([one.sum(axis=1) for one in wrong], axis=1)
        fnmr0[part] = errors / np.maximum(total, 1)[:, None]
        for name, (order, starts) in sorted_by.items():
            for place, share in enumerate(_error_areas(counts, order, starts, limits)):
                for index, one in enumerate(wrong):
                    areas[name][part, index, place] = np.einsum("cm,cm->c", one, share)
        for place, limit in enumerate(limits):
            ideal[part, :, place] = ideal_area(errors, np.maximum(total, 1)[:, None], limit)
        undefined = np.isnan(cuts) | (total == 0)[:, None]
        for figures in (fnmr0, ideal, *areas.values()):
            figures[part][undefined] = np.nan
    return Replicates(tuple(points), tuple(limits), fnmr0, areas, ideal)


def fmr_thresholds(
    non_mated: NonMated,
    identity: NDArray[np.int32],
    targets: Sequence[float],
    weights: Counts,
    totals: Ints | None = None,
) -> Floats:
    """Return (B, T) smallest thresholds whose weighted FMR is at most each target.

    NaN where a replicate has no non-mated comparison, or where those that were kept do not reach
    down to the threshold; they do unless its FMR is more than `SPARE` times the usual.

    Args:
        non_mated: the comparisons.
        identity: (N,) of the samples, 0, 1, ...
        targets: T rates.
        weights: (B, I) see `draw_identities`.
        totals: (B,) weighted numbers of all non-mated comparisons; None counts them.
    """
    first, second = identity[non_mated.first], identity[non_mated.second]
    if totals is None:
        totals = non_mated_totals(non_mated.identity_pairs, weights)
    result = np.full((len(weights), len(targets)), np.nan)
    for row in np.flatnonzero(totals):
        drawn = weights[row].astype(np.int64)
        accepted = np.cumsum(drawn[first] * drawn[second])
        limits = [int(allowed(target, totals[row])) for target in targets]
        for column, place in enumerate(np.searchsorted(accepted, limits, side="right")):
            if place < len(accepted):
                result[row, column] = non_mated.similarity[place]
    return result


def non_mated_totals(pairs: Any, weights: Counts) -> Ints:
    """Return (B,) sums of the weights of all non-mated comparisons (`NonMated.identity_pairs`)."""
    matrix = pairs.astype(np.float64)
    if matrix.shape[0] <= DENSE_PEOPLE:
        matrix = matrix.toarray()
    drawn = weights.astype(np.float64)
    # exact: sums of whole numbers far below 2 ** 53
    return np.asarray(((matrix.T @ drawn.T).T * drawn).sum(axis=1)).round().astype(np.int64)


def _fnmr_thresholds(similarity: Floats, counts: Floats, target: float) -> Floats:
    """Return (C,) smallest thresholds, of ascending similarities, with at least this FNMR."""
    rejected = np.cumsum(counts, axis=1)
    reached = rejected / np.maximum(rejected[:, -1:], 1) >= target
    return np.asarray(similarity[np.argmax(reached, axis=1)])


def _error_areas(
    counts: Floats, order: Ints, starts: Ints, limits: Sequence[float]
) -> Iterator[Floats]:
    """Yield for each limit the (C, M) area under the curve that each error contributes.

    An error is part of every rate, errors left over comparisons left, up to the step that
    discards it.
    """
    in_group = np.add.reduceat(counts[:, order], starts, axis=1)
    left = np.cumsum(in_group[:, ::-1], axis=1)[:, ::-1]
    total = np.maximum(left[:, :1], 1)
    ends = 1 - np.concatenate([left, np.zeros((len(left), 1))], axis=1) / total
    group = np.empty(len(order), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
    for limit in limits:
        widths = np.diff(np.minimum(ends, limit))
        rates = np.divide(widths, left, out=np.zeros_like(widths), where=left > 0)
        yield np.cumsum(rates, axis=1)[:, group]


@dataclass(frozen=True)
class Interval:
    """Percentile interval of a figure.

    Attributes:
        low: lower end.
        high: upper end.
        level: share of the replicates inside, e.g. 0.95.
        undefined: replicates in which the figure does not exist; they are left out.
    """

    low: float
    high: float
    level: float
    undefined: int


def interval(values: Floats, level: float = 0.95) -> Interval | None:
    """Return the interval of (B,) replicates, NaN ones left out; None if fewer than half are."""
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(values) - len(defined))


@dataclass(frozen=True)
class PairedTest:
    """Whether one method's area is smaller than another's on the same resampled people.

    Attributes:
        a: name of a method.
        b: name of another.
        point: operating point.
        limit: of the areas.
        difference: raw pAUC of a less that of b; negative if a is better.
        interval: of that difference, or None.
        p_value: two-sided, of no difference; not corrected for the number of tests. None
            without an interval.
    """

    a: str
    b: str
    point: Operating
    limit: float
    difference: float
    interval: Interval | None
    p_value: float | None


def paired_test(
    replicates: Replicates,
    a: str,
    b: str,
    point: int,
    limit: int,
    difference: float,
    level: float = 0.95,
) -> PairedTest:
    """Compare two methods.

    Args:
        replicates: of both.
        a: name of a method.
        b: name of another.
        point: index of the operating point.
        limit: index of the limit.
        difference: raw pAUC of a less that of b on all people.
        level: of the interval.

    Raises:
        SettingsError: a method has no replicates.
    """
    for name in (a, b):
        if name not in replicates.areas:
            raise SettingsError(f"no replicates of {name}")
    gaps = (replicates.areas[a] - replicates.areas[b])[:, point, limit]
    between = interval(gaps, level)
    p_value = None
    if between is not None:
        gaps = gaps[~np.isnan(gaps)]
        smaller = min(np.count_nonzero(gaps <= 0), np.count_nonzero(gaps >= 0))
        p_value = min(1.0, float(2 * (smaller + 1) / (len(gaps) + 1)))
    return PairedTest(
        a, b, replicates.points[point], replicates.limits[limit], difference, between, p_value
    )
