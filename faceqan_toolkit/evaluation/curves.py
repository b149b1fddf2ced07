"""Error-versus-discard curves (EDC; older papers: ERC), their bootstrap, and DET curves.

An EDC is the false non-match rate (FNMR) of the remaining comparisons over the share of discarded
ones. The comparisons with the lowest quality are discarded first, those of equal quality together.

- "fixed": one threshold, from all non-mated comparisons. The x axis is the share of discarded mated
  comparisons. The curve is a staircase: between two qualities there is nothing to discard.
- "recompute": at every share in 0, 0.05, ..., 0.95 of all comparisons, mated or not, the threshold
  comes from the remaining non-mated comparisons. Lines join the points. This is the method of
  CR-FIQA's script, in which the achieved FMR may also exceed the target.

Comparisons of the same person are dependent, so the bootstrap resamples identities. In a replicate
a mated comparison of an identity that was drawn w times counts w times, and a non-mated one of
identities drawn v and w times counts v * w times; the threshold follows from these weights. Of the
non-mated comparisons the most similar ones are weighted one by one, the others only as a total.

Sources: Grother and Tabassi, "Performance of biometric quality measures", TPAMI 2007; ISO/IEC
29794-1; Schlett et al., "Considerations on the evaluation of biometric quality assessment
algorithms", 2023; Boutros et al., "CR-FIQA", CVPR 2023; Bolle, Ratha, Pankanti, "Error analysis of
pattern recognition systems: the subsets bootstrap", CVIU 2004.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma

from faceqan_toolkit.errors import EvaluationError
from faceqan_toolkit.evaluation.options import (
    PAIR_QUALITIES,
    EvaluationOptions,
    check_choice,
    check_limit,
    check_target,
)
from faceqan_toolkit.evaluation.verification import (
    Bools,
    Codes,
    Comparisons,
    Floats,
    Ints,
    NonMated,
    allowed,
    as_floats,
    largest,
)

GRID = np.arange(20) / 20
"""Discard shares of the "recompute" variant, of all comparisons."""
CURVE_SHARES = np.arange(96) / 100
"""Discard shares at which the mean of random curves is computed."""
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


@dataclass(frozen=True)
class Interval:
    """Percentile interval at a confidence level; `undefined` replicates are left out."""

    low: float
    high: float
    level: float
    undefined: int


@dataclass(frozen=True)
class Area:
    """Partial area under a curve (pAUC).

    Attributes:
        limit: discard share at which the area ends.
        raw: area from 0 to `limit`, in [0, limit].
        normalised: raw / (FNMR(0) * limit), 1 if discarding does not help; None if FNMR(0) is 0.
        gap: raw minus the area of the ideal curve; 0 is the best.
        interval, normalised_interval: intervals of `raw` and `normalised`, or None.
    """

    limit: float
    raw: float
    normalised: float | None
    gap: float
    interval: Interval | None = None
    normalised_interval: Interval | None = None


def pair_quality(
    quality: ArrayLike, first: ArrayLike, second: ArrayLike, how: str = "min"
) -> Floats:
    """Return (P,) qualities of comparisons from (N,) qualities of samples; NaN for none.

    EvaluationError for an index of N or more, and for a product of negative qualities, whose order
    is meaningless.
    """
    check_choice(how, PAIR_QUALITIES, "pair quality")
    values = np.asarray(quality, dtype=np.float64)
    ends = np.asarray(first), np.asarray(second)
    if len(ends[0]) and max(end.max() for end in ends) >= len(values):
        raise EvaluationError(f"a comparison has a sample index beyond the {len(values)} qualities")
    if how == "product" and (values < 0).any():
        raise EvaluationError("the product needs qualities >= 0; use min or mean")
    one, two = (values[end] for end in ends)
    if how == "mean":
        return np.asarray((one + two) / 2)
    return np.asarray(np.minimum(one, two) if how == "min" else one * two)


@dataclass(frozen=True)
class Curve:
    """FNMR over the share of discarded comparisons.

    Attributes:
        discard: (S,) discard shares in [0, 1), ascending from 0.
        fnmr: (S,) FNMR of the remaining comparisons; the last one holds up to 1.
        errors, mated: (S,) numbers of false non-matches and of all mated comparisons among them.
        staircase: whether each rate holds up to the next share; otherwise lines join the points.
    """

    discard: Floats
    fnmr: Floats
    errors: Ints
    mated: Ints
    staircase: bool = True

    def at(self, shares: ArrayLike) -> Floats:
        """Return the FNMR at discard shares in [0, 1]."""
        wanted = np.asarray(shares, dtype=np.float64)
        if not self.staircase:
            return np.asarray(np.interp(wanted, self.discard, self.fnmr))
        return self.fnmr[np.searchsorted(self.discard, wanted, side="right") - 1]

    def area(self, limit: float) -> float:
        """Return the partial area under the curve (pAUC) from 0 to a share in (0, 1]."""
        check_limit(limit)
        if self.staircase:
            return float(self.fnmr @ np.diff(np.minimum(np.append(self.discard, 1.0), limit)))
        shares = np.append(self.discard[self.discard < limit], limit)
        return float(np.trapezoid(self.at(shares), shares))


def edc(errors: ArrayLike, quality: ArrayLike) -> Curve:
    """Return the curve of (M,) rejections at a fixed threshold, by (M,) qualities.

    EvaluationError if there is no comparison, shapes differ, or a quality is NaN.

    Examples:
        Four comparisons; the two with the lowest quality are errors: 2 of 4, 1 of 3, then none.

        >>> curve = edc([True, True, False, False], [0.1, 0.2, 0.3, 0.4])
        >>> curve.errors.tolist(), curve.mated.tolist()
        ([2, 1, 0, 0], [4, 3, 2, 1])
        >>> curve.at([0.0, 0.24, 0.5]).tolist()
        [0.5, 0.5, 0.0]
        >>> round(curve.area(0.5), 4)  # 1/2 and 1/3, each over a quarter
        0.2083

        Comparisons of equal quality are discarded together.

        >>> edc([True, False, False], [0.1, 0.1, 0.2]).mated.tolist()
        [3, 1]
    """
    wrong, values = np.asarray(errors, dtype=np.bool_), np.asarray(quality, dtype=np.float64)
    if wrong.shape != values.shape or wrong.ndim != 1 or not wrong.size:
        raise EvaluationError(f"errors {wrong.shape} and qualities {values.shape} make no curve")
    if np.isnan(values).any():
        raise EvaluationError("a comparison has no quality")
    order, starts = groups(values)
    left = len(values) - starts
    remaining = np.cumsum(wrong[order][::-1], dtype=np.int64)[::-1][starts]
    return Curve(starts / len(values), remaining / left, remaining, left)


def groups(quality: Floats) -> tuple[Ints, Ints]:
    """Return the indices by ascending quality, and the start of each group of equal qualities."""
    order = np.argsort(quality, kind="stable")
    ordered = quality[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def edc_recomputed(
    similarity: ArrayLike, mated: ArrayLike, quality: ArrayLike, fmr_targets: Sequence[float]
) -> list[Curve]:
    """Return a curve for every FMR target, with the threshold recomputed at each share of `GRID`.

    The arrays are (P,) each. A curve ends where no mated or no non-mated comparison remains.
    EvaluationError if shapes differ, a value is NaN, or there are only mated or only non-mated
    comparisons.
    """
    values, scores = (np.asarray(array, dtype=np.float64) for array in (similarity, quality))
    same = np.asarray(mated, dtype=np.bool_)
    if values.shape != same.shape or values.shape != scores.shape:
        raise EvaluationError("similarity, mated and quality differ in length")
    if np.isnan(values).any() or np.isnan(scores).any():
        raise EvaluationError("a comparison has no similarity or no quality")
    if same.all() or not same.any():
        raise EvaluationError("both mated and non-mated comparisons are needed")
    for target in fmr_targets:
        check_target(target)
    # comparisons of equal quality are discarded together, once the share covers all of them
    dropped = np.minimum(
        np.floor(GRID * len(scores) * (1 + 1e-12)).astype(np.int64), len(scores) - 1
    )
    ordered = np.sort(scores)
    cuts = ordered[dropped]
    remaining = len(scores) - np.searchsorted(ordered, cuts)

    mated_values, mated_scores = values[same], scores[same]
    others, other_scores = values[~same], scores[~same]
    # the most similar comparisons nearly always suffice for the thresholds
    size = 4 * (int(max(fmr_targets) * len(others)) + 1) + 1000
    top = np.flatnonzero(largest(others, size)[0])
    top = top[np.argsort(-others[top], kind="stable")]
    top_values, top_scores = others[top], other_scores[top]
    steps: list[list[tuple[float, int, int]]] = [[] for _ in fmr_targets]
    for share, cut, count in zip(GRID, cuts, remaining, strict=True):
        left = mated_values[mated_scores >= cut]
        if not len(left) or count == len(left):
            break
        places = allowed(fmr_targets, int(count) - len(left))
        ranked = top_values[top_scores >= cut]
        if places.max() >= len(ranked):
            ranked = np.sort(others[other_scores >= cut])[::-1]
        for row, threshold in zip(steps, ranked[places], strict=True):
            row.append((share, int(np.count_nonzero(left <= threshold)), len(left)))
    curves = []
    for row in steps:
        discard, errors, counts = (np.array(column) for column in zip(*row, strict=True))
        curves.append(Curve(discard, errors / counts, errors, counts, staircase=False))
    return curves


def ideal(errors: int, mated: int) -> Curve:
    """Return the curve of an oracle that discards the errors first, one at a time.

    It is a lower bound at every share, tighter than the line FNMR(0) - share of Schlett et al.
    """
    steps = np.arange(min(errors, mated - 1) + 1)
    return Curve(steps / mated, (errors - steps) / (mated - steps), errors - steps, mated - steps)


def ideal_area(errors: ArrayLike, mated: ArrayLike, limit: float) -> Floats:
    """Return the pAUC of `ideal` curves in closed form, for arrays of counts (mated at least 1)."""
    wrong, total = np.asarray(errors, np.float64), np.asarray(mated, np.float64)
    # the sum of (errors - d) / (mated - d) over full steps d, plus a part of the next step
    whole = np.minimum(np.floor(limit * total), np.minimum(wrong, total - 1))
    sums = whole - (total - wrong) * (digamma(total + 1) - digamma(total - whole + 1))
    reached = whole < wrong
    rest = np.where(whole == total - 1, np.inf, 1.0)
    part = np.minimum(limit * total - whole, rest) * (wrong - whole) / (total - whole)
    return np.asarray((sums + np.where(reached, part, 0.0)) / total)


def area(curve: Curve, limit: float) -> Area:
    """Return the pAUC; its gap is to the ideal curve at the threshold of the first point."""
    raw = curve.area(limit)
    start = float(curve.fnmr[0])
    best = ideal(int(curve.errors[0]), int(curve.mated[0])).area(limit)
    return Area(limit, raw, raw / (start * limit) if start > 0 else None, raw - best)


@dataclass(frozen=True)
class RandomDiscard:
    """Curves of R random qualities: the baseline of a quality without information.

    Attributes:
        mean, low, high: mean, 2.5 % and 97.5 % quantiles of the FNMR at each of `CURVE_SHARES`.
        areas: (R, L) raw pAUC of each draw, up to each limit.
    """

    mean: Floats
    low: Floats
    high: Floats
    areas: Floats


def random_discard(
    errors: Bools, first: Codes, second: Codes, options: EvaluationOptions
) -> RandomDiscard:
    """Return the curves of random qualities for (M,) rejections at a fixed threshold.

    The samples get the random numbers, not the comparisons: comparisons that share a face are
    discarded together, so the spread is that of a real quality without information.
    """
    rng = np.random.default_rng(options.seed)
    samples = int(max(first.max(), second.max())) + 1
    curves = [
        edc(errors, pair_quality(rng.random(samples), first, second, options.pair_quality))
        for _ in range(options.draws)
    ]
    rates = np.array([curve.at(CURVE_SHARES) for curve in curves])
    low, high = np.quantile(rates, [0.025, 0.975], axis=0)
    areas = np.array([[curve.area(limit) for limit in options.limits] for curve in curves])
    return RandomDiscard(rates.mean(axis=0), low, high, areas)


def draw_identities(people: int, replicates: int, seed: int) -> Codes:
    """Return (B, I) int32 weights of the identities in each replicate; rows sum to I."""
    rng = np.random.default_rng(seed)
    rows = [
        np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(replicates)
    ]
    return np.array(rows, dtype=np.int32).reshape(replicates, people)


@dataclass(frozen=True)
class Replicates:
    """Results of B bootstrap replicates at T points, up to L discard shares; NaN where undefined.

    Attributes:
        fnmr0: (B, T) FNMR before discarding.
        areas: (B, T, L) raw pAUC by method, and of "oracle".
    """

    fnmr0: Floats
    areas: Mapping[str, Floats]


def replicate(
    comparisons: Comparisons, similarity: Floats, usable: Bools, quality: Mapping[str, Floats],
    points: Sequence[Operating], limits: Sequence[float], weights: Codes,
) -> Replicates:  # fmt: skip
    """Return the error rates and areas of every replicate.

    Args:
        comparisons: EvaluationError if they have no identities.
        similarity: similarities of the usable mated comparisons, -inf for missing ones.
        usable: (M,) mask of the usable mated comparisons.
        quality: qualities of the usable mated comparisons by method.
        points, limits: T operating points and L discard shares.
        weights: (B, I) weights from `draw_identities`.
    """
    if comparisons.identity is None or comparisons.non_mated.identity_pairs is None:
        raise EvaluationError("the bootstrap needs the samples' identities")
    person = comparisons.identity[comparisons.first[usable]]
    by_fmr = [index for index, point in enumerate(points) if point.kind == "fmr"]
    fnmr0, thresholds = np.empty((2, len(weights), len(points)))
    thresholds[:, by_fmr] = fmr_thresholds(
        comparisons.non_mated, comparisons.identity, [points[i].target for i in by_fmr], weights
    )
    ascending = np.argsort(similarity, kind="stable")
    areas = {name: np.empty((*fnmr0.shape, len(limits))) for name in (*quality, "oracle")}
    sorted_by = {name: groups(values) for name, values in quality.items()}
    for part in slices(len(weights), len(similarity), CHUNK_VALUES):
        counts = weights[part][:, person].astype(np.float64)
        total = counts.sum(axis=1)[:, None]
        cuts = thresholds[part]
        rejected = np.cumsum(counts[:, ascending], axis=1)
        for index, point in enumerate(points):
            if point.kind == "fnmr":
                reached = rejected / np.maximum(total, 1) >= point.target
                cuts[:, index] = similarity[ascending][np.argmax(reached, axis=1)]
        wrong = [counts * ~(similarity > cut[:, None]) for cut in cuts.T]
        errors = np.stack([one.sum(axis=1) for one in wrong], axis=1)
        fnmr0[part] = errors / np.maximum(total, 1)
        for name, (order, starts) in sorted_by.items():
            for place, share in enumerate(_error_areas(counts, order, starts, limits)):
                for index, one in enumerate(wrong):
                    areas[name][part, index, place] = np.einsum("cm,cm->c", one, share)
        for place, limit in enumerate(limits):
            areas["oracle"][part, :, place] = ideal_area(errors, np.maximum(total, 1), limit)
        undefined = np.isnan(cuts) | (total == 0)
        for figures in (fnmr0, *areas.values()):
            figures[part][undefined] = np.nan
    return Replicates(fnmr0, areas)


def slices(rows: int, columns: int, values: int) -> Iterator[slice]:
    """Yield slices of the rows, each with about `values` values in its columns."""
    step = max(1, values // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, start + step)


def fmr_thresholds(
    non_mated: NonMated, identity: Codes, targets: Sequence[float], weights: Codes,
    totals: Ints | None = None,
) -> Floats:  # fmt: skip
    """Return (B, T) smallest thresholds with a weighted FMR of at most each of T targets.

    NaN if a replicate has no non-mated comparison, or if the threshold lies below the kept
    similarities. The latter is rare, see `verification.SPARE`.

    Args:
        non_mated: non-mated comparisons of samples with (N,) identities.
        weights: (B, I) weights from `draw_identities`.
        totals: (B,) weighted numbers of non-mated comparisons; None to compute them.
    """
    first, second = identity[non_mated.first], identity[non_mated.second]
    if totals is None:
        totals = non_mated_totals(non_mated.identity_pairs, weights)
    result = np.full((len(weights), len(targets)), np.nan)
    similarity = np.append(non_mated.similarity, np.nan)
    for row in np.flatnonzero(totals):
        drawn = weights[row].astype(np.int64)
        accepted = np.cumsum(drawn[first] * drawn[second])
        limits = allowed(targets, int(totals[row]))
        result[row] = similarity[np.searchsorted(accepted, limits, side="right")]
    return result


def non_mated_totals(pairs: Any, weights: Codes) -> Ints:
    """Return (B,) weighted numbers of non-mated comparisons from `NonMated.identity_pairs`."""
    matrix = pairs.astype(np.float64)
    if matrix.shape[0] <= DENSE_PEOPLE:
        matrix = matrix.toarray()
    drawn = weights.astype(np.float64)
    # exact: the sums are integers far below 2 ** 53
    return np.asarray(((matrix.T @ drawn.T).T * drawn).sum(axis=1)).round().astype(np.int64)


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


def interval(values: Floats, level: float = 0.95) -> Interval | None:
    """Return the interval of (B,) replicates; None if half of them or more are NaN."""
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(values) - len(defined))


def paired_test(gaps: Floats, level: float) -> tuple[Interval | None, float | None]:
    """Return the interval of (B,) differences, and the two-sided p-value of no difference.

    None for both if half of the differences or more are NaN.
    """
    found = interval(gaps, level)
    if found is None:
        return None, None
    gaps = gaps[~np.isnan(gaps)]
    smaller = min(np.count_nonzero(gaps <= 0), np.count_nonzero(gaps >= 0))
    return found, min(1.0, float(2 * (smaller + 1) / (len(gaps) + 1)))


@dataclass(frozen=True)
class Det:
    """Detection error tradeoff: FNMR over FMR. The ROC is 1 - FNMR over FMR.

    The (D,) points, by ascending FNMR, are the corners of a staircase, one for every distinct mated
    similarity: the least FMR at each FNMR. `eer` is the equal error rate.
    """

    fmr: Floats
    fnmr: Floats
    eer: float


def det_curve(similarity: ArrayLike, non_mated: NonMated) -> Det:
    """Return the DET curve of (M,) mated similarities.

    The FMR is exact from the `floor` of the non-mated ones up, and to the precision of their
    histogram below. EvaluationError if there is no mated or no non-mated comparison.
    """
    values, counts = np.unique(as_floats(similarity, "similarities"), return_counts=True)
    if not len(values) or np.isnan(values[-1]):
        raise EvaluationError("a DET curve needs mated similarities, all of them numbers")
    if not non_mated.total:
        raise EvaluationError("a DET curve needs non-mated comparisons")
    # between two mated similarities the FNMR is constant, the FMR falls from `highest` to `lowest`
    rejects = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    lowest = np.append(non_mated.count_above(values, equal=True), 0) / non_mated.total
    highest = np.concatenate([[1.0], non_mated.count_above(values) / non_mated.total])
    place = int(np.argmax(rejects >= lowest))
    if place == 0 or rejects[place] <= highest[place]:
        eer = rejects[place]
    else:
        over = max(rejects[place - 1], highest[place])
        eer = (over + min(rejects[place], lowest[place - 1])) / 2
    return Det(lowest, rejects, float(eer))
