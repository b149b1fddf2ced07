"""Error-versus-discard curves (EDC; older papers say ERC): errors left when bad faces are dropped.

The comparisons with the lowest quality are discarded first, those of one quality together. The
curve is the false non-match rate of the others over the share that is discarded:

- "fixed": one threshold, from all non-mated comparisons; the share is that of mated comparisons;
  the curve is a staircase, for between two qualities there is nothing to discard.
- "recompute": threshold from the non-mated comparisons that are left, anew at every share in 0,
  0.05, ..., 0.95 of all comparisons, mated or not; points are joined by lines. This is how
  CR-FIQA's script goes about it, save that there the achieved FMR may also exceed the target.

Sources: Grother and Tabassi, "Performance of biometric quality measures", TPAMI 2007; ISO/IEC
29794-1; Schlett et al., "Considerations on the evaluation of biometric quality assessment
algorithms", 2023; Boutros et al., "CR-FIQA", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.comparisons import Bools, Floats, Ints, allowed, largest
from faceqan_toolkit.evaluation.options import PAIR_QUALITIES, check_limit, check_target

GRID: tuple[float, ...] = tuple(step / 20 for step in range(20))
"""Discard shares of the "recompute" variant."""
CURVE_SHARES: tuple[float, ...] = tuple(step / 100 for step in range(96))
"""Where curves are read that are means of many."""


def pair_quality(
    quality: ArrayLike, first: ArrayLike, second: ArrayLike, how: str = "min"
) -> Floats:
    """Return (P,) qualities of comparisons; NaN where one of the samples has none.

    Args:
        quality: (N,) of samples, NaN for none.
        first: (P,) indices of samples.
        second: (P,) indices of samples.
        how: "min", "mean" or "product" of the two.

    Raises:
        EvaluationError: the product of negative qualities, whose order means nothing, is asked
            for; or a comparison names a sample that has no row.
    """
    values = np.asarray(quality, dtype=np.float64)
    one, two = np.asarray(first), np.asarray(second)
    if len(one) and max(one.max(), two.max()) >= len(values):
        raise EvaluationError(f"a comparison names a sample beyond the {len(values)} qualities")
    if how == "min":
        return np.asarray(np.minimum(values[one], values[two]))
    if how == "mean":
        return np.asarray((values[one] + values[two]) / 2)
    if how == "product":
        if (values < 0).any():
            raise EvaluationError("the product needs qualities >= 0; use min or mean")
        return np.asarray(values[one] * values[two])
    raise SettingsError(f"pair quality must be one of {', '.join(PAIR_QUALITIES)}, not {how!r}")


@dataclass(frozen=True)
class Curve:
    """FNMR over the share of comparisons that are discarded.

    Attributes:
        discard: (S,) shares in [0, 1), ascending, the first is 0.
        fnmr: (S,) false non-match rates of the comparisons that are left; the last holds to 1.
        errors: (S,) false non-matches among them.
        mated: (S,) mated comparisons that are left.
        staircase: whether each rate holds up to the next share, or lines join them.
    """

    discard: Floats
    fnmr: Floats
    errors: Ints
    mated: Ints
    staircase: bool = True

    def at(self, shares: ArrayLike) -> Floats:
        """Return the FNMR when at most these shares are discarded."""
        wanted = np.asarray(shares, dtype=np.float64)
        if not self.staircase:
            return np.asarray(np.interp(wanted, self.discard, self.fnmr))
        return self.fnmr[np.searchsorted(self.discard, wanted, side="right") - 1]

    def area(self, limit: float) -> float:
        """Return the partial area under the curve (pAUC) from 0 to a share in (0, 1]."""
        check_limit(limit)
        if self.staircase:
            return float(self.fnmr @ np.diff(np.minimum(np.append(self.discard, 1.0), limit)))
        inside = self.discard[self.discard < limit]
        x = np.append(inside, limit)
        y = self.at(x)
        return float((y[1:] + y[:-1]) / 2 @ np.diff(x))


def edc(errors: ArrayLike, quality: ArrayLike) -> Curve:
    """Return the curve at a fixed threshold.

    Args:
        errors: (M,) bool, which mated comparisons are rejected.
        quality: (M,) of the comparisons, no NaN; -inf is discarded first.

    Raises:
        EvaluationError: no comparison, shapes differ, or a quality is NaN.

    Examples:
        Four comparisons, the worst two of them errors: 2 of 4, then 1 of 3, then none.

        >>> curve = edc([True, True, False, False], [0.1, 0.2, 0.3, 0.4])
        >>> curve.errors.tolist(), curve.mated.tolist()
        ([2, 1, 0, 0], [4, 3, 2, 1])
        >>> curve.at([0.0, 0.24, 0.5]).tolist()
        [0.5, 0.5, 0.0]
        >>> round(curve.area(0.5), 4)  # 1/2 and 1/3, each over a quarter
        0.2083

        What has one quality is discarded together.

        >>> edc([True, False, False], [0.1, 0.1, 0.2]).mated.tolist()
        [3, 1]
    """
    wrong, values = np.asarray(errors, dtype=np.bool_), np.asarray(quality, dtype=np.float64)
    if wrong.shape != values.shape or wrong.ndim != 1 or not wrong.size:
        raise EvaluationError(f"errors {wrong.shape} and qualities {values.shape} make no curve")
    if np.isnan(values).any():
        raise EvaluationError("a comparison has no quality")
    order, starts = groups(values)
    before = np.concatenate([[0], np.cumsum(wrong[order])])
    left = len(values) - starts
    remaining = before[-1] - before[starts]
    return Curve(starts / len(values), remaining / left, remaining, left)


def groups(quality: Floats) -> tuple[Ints, Ints]:
    """Return the order of ascending quality and where in it each distinct quality starts."""
    order = np.argsort(quality, kind="stable")
    ordered = quality[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def edc_recomputed(
    similarity: ArrayLike,
    mated: ArrayLike,
    quality: ArrayLike,
    fmr_targets: Sequence[float],
    grid: Sequence[float] = GRID,
) -> list[Curve]:
    """Return a curve for every FMR target, with thresholds from what is left at each share.

    Args:
        similarity: (P,) no NaN.
        mated: (P,) bool.
        quality: (P,) of the comparisons, no NaN; -inf is discarded first.
        fmr_targets: each in (0, 1); of the thresholds that keep it, the smallest is taken.
        grid: ascending shares of all comparisons, from 0. A curve ends early where no mated or
            no non-mated comparison is left.

    Raises:
        EvaluationError: shapes differ, a value is NaN, or one kind of comparison is missing.
    """
    values, same = np.asarray(similarity, dtype=np.float64), np.asarray(mated, dtype=np.bool_)
    scores = np.asarray(quality, dtype=np.float64)
    if values.shape != same.shape or values.shape != scores.shape:
        raise EvaluationError("similarity, mated and quality differ in length")
    if np.isnan(values).any() or np.isnan(scores).any():
        raise EvaluationError("a comparison has no similarity or no quality")
    if same.all() or not same.any():
        raise EvaluationError("both mated and non-mated comparisons are needed")
    for target in fmr_targets:
        check_target(target)
    # a quality is dropped only when all comparisons of that quality are
    dropped = np.minimum(
        np.floor(np.asarray(grid) * len(scores) * (1 + 1e-12)).astype(np.int64), len(scores) - 1
    )
    ordered = np.sort(scores)
    cuts = ordered[dropped]
    remaining = len(scores) - np.searchsorted(ordered, cuts)

    mated_values, mated_scores = values[same], scores[same]
    survivors = _Survivors(values[~same], scores[~same], max(fmr_targets))
    steps: list[list[tuple[float, int, int]]] = [[] for _ in fmr_targets]
    for share, cut, count in zip(grid, cuts, remaining, strict=True):
        left = mated_values[mated_scores >= cut]
        others = int(count) - len(left)
        if not len(left) or not others:
            break
        thresholds = survivors.thresholds(float(cut), others, fmr_targets)
        for row, threshold in zip(steps, thresholds, strict=True):
            row.append((share, int(np.count_nonzero(left <= threshold)), len(left)))
    curves = []
    for row in steps:
        discard, errors, counts = (np.array(column) for column in zip(*row, strict=True))
        curves.append(Curve(discard, errors / counts, errors, counts, staircase=False))
    return curves


class _Survivors:
    """Finds thresholds of the non-mated comparisons that reach a quality.

    Looks through the most similar ones first; nearly always they suffice.
    """

    def __init__(self, similarity: Floats, quality: Floats, largest_target: float) -> None:
        self._similarity, self._quality = similarity, quality
        size = min(len(similarity), 4 * (int(largest_target * len(similarity)) + 1) + 1000)
        top = np.flatnonzero(largest(similarity, size)[0])
        top = top[np.argsort(-similarity[top], kind="stable")]
        self._top, self._top_quality = similarity[top], quality[top]

    def thresholds(self, cut: float, count: int, targets: Sequence[float]) -> list[float]:
        """Return the smallest threshold for each target among the `count` that reach `cut`."""
        places = [int(allowed(target, count)) for target in targets]
        top = self._top[self._top_quality >= cut]
        if max(places) < len(top):
            return [float(top[place]) for place in places]
        ranked = np.sort(self._similarity[self._quality >= cut])
        return [float(ranked[count - 1 - place]) for place in places]


def ideal(errors: int, mated: int) -> Curve:
    """Return the curve of an oracle that discards the errors first, one by one.

    No quality reaches a lower FNMR at any share. (Schlett et al. draw the line FNMR(0) - share,
    which no quality reaches either.)
    """
    steps = np.arange(min(errors, mated - 1) + 1)
    return Curve(steps / mated, (errors - steps) / (mated - steps), errors - steps, mated - steps)


def ideal_area(errors: ArrayLike, mated: ArrayLike, limit: float) -> Floats:
    """Return pAUCs of `ideal` curves in closed form, for arrays of counts (mated at least 1)."""
    wrong, total = np.asarray(errors, np.float64), np.asarray(mated, np.float64)
    # a sum of (errors - d) / (mated - d) over whole steps d, and a part of the next one
    whole = np.minimum(np.floor(limit * total), np.minimum(wrong, total - 1))
    sums = whole - (total - wrong) * (digamma(total + 1) - digamma(total - whole + 1))
    reached = whole < wrong
    rest = np.where(whole == total - 1, np.inf, 1.0)
    part = np.minimum(limit * total - whole, rest) * (wrong - whole) / (total - whole)
    return np.asarray((sums + np.where(reached, part, 0.0)) / total)


@dataclass(frozen=True)
class Area:
    """Partial area under a curve, from 0 to a share.

    Attributes:
        limit: that share.
        raw: the area; at most `limit`.
        normalised: raw / (FNMR(0) * limit), 1 if discarding does not help; None if FNMR(0) is 0.
        gap: raw less the area of the ideal curve; 0 is perfect.
    """

    limit: float
    raw: float
    normalised: float | None
    gap: float


def area(curve: Curve, limit: float) -> Area:
    """Return the partial area under a curve.

    The ideal curve of the gap is that of the curve's first point: at its threshold, and for a
    fixed one.
    """
    raw = curve.area(limit)
    start = float(curve.fnmr[0])
    best = ideal(int(curve.errors[0]), int(curve.mated[0])).area(limit)
    return Area(limit, raw, raw / (start * limit) if start > 0 else None, raw - best)


@dataclass(frozen=True)
class RandomDiscard:
    """Curves of qualities that are random numbers: what knowing nothing gives.

    Attributes:
        shares: (G,) discard shares of the rates below.
        mean: (G,) mean FNMR over the draws.
        low: (G,) 2.5 % quantile.
        high: (G,) 97.5 % quantile.
        areas: (R, L) raw pAUC of each draw to each limit.
    """

    shares: Floats
    mean: Floats
    low: Floats
    high: Floats
    areas: Floats


def random_discard(
    errors: Bools,
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    limits: Sequence[float],
    *,
    shares: Sequence[float] = CURVE_SHARES,
    draws: int = 200,
    how: str = "min",
    seed: int = 0,
) -> RandomDiscard:
    """Return what random qualities of the samples give at a fixed threshold.

    Samples, not comparisons, get the random numbers: comparisons that share a face fall
    together, so the spread is the one a quality without information really has.

    Args:
        errors: (M,) which mated comparisons are rejected.
        first: (M,) indices of samples.
        second: (M,) indices of samples.
        limits: of the areas.
        shares: where the curves are read.
        draws: R, number of curves.
        how: see `pair_quality`.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    samples = int(max(first.max(), second.max())) + 1
    curves = [
        edc(errors, pair_quality(rng.random(samples), first, second, how)) for _ in range(draws)
    ]
    rates = np.array([curve.at(shares) for curve in curves])
    low, high = np.quantile(rates, [0.025, 0.975], axis=0)
    areas = np.array([[curve.area(limit) for limit in limits] for curve in curves])
    return RandomDiscard(np.asarray(shares), rates.mean(axis=0), low, high, areas)
