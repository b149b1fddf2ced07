"""Bootstrap over identities: confidence intervals of error rates and areas, and paired tests.

Comparisons of the same person are dependent, so identities are resampled, not comparisons. An
identity with weight w, the number of times it was drawn, stands for w people: its mated comparisons
count w times, and a non-mated comparison of identities with weights v and w counts v * w times. The
threshold is recomputed in every replicate. Comparisons are only weighted, never copied. Of the
non-mated comparisons the most similar ones are weighted one by one, the others only as a total.

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
from faceqan_toolkit.evaluation.curves import groups, ideal_area
from faceqan_toolkit.evaluation.verification import (
    Bools,
    Comparisons,
    Floats,
    Ints,
    NonMated,
    allowed,
)

Counts = NDArray[np.int32]
CHUNK_VALUES = 1 << 21
"""Numbers in a (replicates, comparisons) block: 16 MiB an array."""
DENSE_PEOPLE = 5000
"""Up to this number of identities a dense matrix of their pairs is small and faster."""


@dataclass(frozen=True)
class Operating:
    """An operating point: a rule for the similarity threshold.

    Attributes:
        kind: "fmr" for the smallest threshold with at most this FMR; "fnmr" for the smallest
            threshold with at least this FNMR before discarding.
        target: the rate, in (0, 1).
    """

    kind: str
    target: float


def draw_identities(people: int, replicates: int, seed: int) -> Counts:
    """Return (B, I) int32 weights of the identities in each replicate; rows sum to I."""
    rng = np.random.default_rng(seed)
    rows = [
        np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(replicates)
    ]
    return np.array(rows, dtype=np.int32).reshape(replicates, people)


@dataclass(frozen=True)
class Replicates:
    """Error rates and areas of B bootstrap replicates; NaN where undefined.

    Attributes:
        points: T operating points.
        limits: L discard shares at which the areas end.
        fnmr0: (B, T) FNMR before discarding.
        areas: (B, T, L) raw pAUC by method.
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
    """Return the error rates and areas of every replicate.

    Args:
        comparisons: comparisons with identities.
        similarity: (M',) similarities of the usable mated comparisons, -inf for missing ones.
        usable: (M,) bool, mask of the usable mated comparisons.
        quality: (M',) qualities of the usable mated comparisons by method.
        points: T operating points.
        limits: L discard shares.
        weights: (B, I) weights from `draw_identities`.

    Raises:
        EvaluationError: the comparisons have no identities.
    """
    if comparisons.identity is None or comparisons.non_mated.identity_pairs is None:
        raise EvaluationError("the bootstrap needs the samples' identities")
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
    """Return (B, T) smallest thresholds with a weighted FMR of at most each target.

    NaN if a replicate has no non-mated comparison, or if the threshold lies below the kept
    similarities. The latter is rare, see `verification.SPARE`.

    Args:
        non_mated: non-mated comparisons.
        identity: (N,) identities of the samples, 0, 1, ...
        targets: T false match rates.
        weights: (B, I) weights from `draw_identities`.
        totals: (B,) weighted number of non-mated comparisons; None to compute it.
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
    """Return (B,) weighted numbers of non-mated comparisons.

    Args:
        pairs: (I, I) sparse matrix, see `NonMated.identity_pairs`.
        weights: (B, I) weights from `draw_identities`.
    """
    matrix = pairs.astype(np.float64)
    if matrix.shape[0] <= DENSE_PEOPLE:
        matrix = matrix.toarray()
    drawn = weights.astype(np.float64)
    # exact: the sums are integers far below 2 ** 53
    return np.asarray(((matrix.T @ drawn.T).T * drawn).sum(axis=1)).round().astype(np.int64)


def _fnmr_thresholds(similarity: Floats, counts: Floats, target: float) -> Floats:
    """Return (C,) smallest thresholds with at least this FNMR; similarities are ascending."""
    rejected = np.cumsum(counts, axis=1)
    reached = rejected / np.maximum(rejected[:, -1:], 1) >= target
    return np.asarray(similarity[np.argmax(reached, axis=1)])


def _error_areas(
    counts: Floats, order: Ints, starts: Ints, limits: Sequence[float]
) -> Iterator[Floats]:
    """Yield for each limit the (C, M) area that each error contributes to the pAUC.

    An error contributes to the FNMR of every step until it is discarded.
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
    """Percentile interval of a statistic.

    Attributes:
        low: lower end.
        high: upper end.
        level: confidence level, e.g. 0.95.
        undefined: number of replicates in which the statistic is undefined; they are left out.
    """

    low: float
    high: float
    level: float
    undefined: int


def interval(values: Floats, level: float = 0.95) -> Interval | None:
    """Return the interval of (B,) replicates; None if half of them or more are NaN."""
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(values) - len(defined))


@dataclass(frozen=True)
class PairedTest:
    """Paired test of two methods' areas on the same replicates.

    Attributes:
        a: name of the first method.
        b: name of the second method.
        point: operating point.
        limit: discard share at which the areas end.
        difference: raw pAUC of a minus that of b; negative if a is better.
        interval: confidence interval of the difference, or None.
        p_value: two-sided p-value of no difference, not corrected for multiple tests; None without
            an interval.
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
        replicates: replicates of both methods.
        a: name of the first method.
        b: name of the second method.
        point: index of the operating point.
        limit: index of the limit.
        difference: raw pAUC of a minus that of b on the original data.
        level: confidence level of the interval.

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
