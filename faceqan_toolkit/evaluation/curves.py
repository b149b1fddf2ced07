"""Error-versus-discard curves (EDC; older papers: ERC) and DET curves.

An EDC is the false non-match rate (FNMR) of the remaining comparisons over the share of discarded
ones. The comparisons with the lowest quality are discarded first, those of equal quality together.

- "fixed": one threshold, from all non-mated comparisons. The x axis is the share of discarded mated
  comparisons. The curve is a staircase: between two qualities there is nothing to discard.
- "recompute": at every share in 0, 0.05, ..., 0.95 of all comparisons, mated or not, the threshold
  comes from the remaining non-mated comparisons. Lines join the points. This is the method of
  CR-FIQA's script, where however the achieved FMR may also exceed the target.

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
from faceqan_toolkit.evaluation.options import PAIR_QUALITIES, check_limit, check_target
from faceqan_toolkit.evaluation.verification import (
    Bools,
    Floats,
    Ints,
    NonMated,
    allowed,
    as_floats,
    largest,
)

GRID: tuple[float, ...] = tuple(step / 20 for step in range(20))
"""Discard shares of the "recompute" variant."""
CURVE_SHARES: tuple[float, ...] = tuple(step / 100 for step in range(96))
"""Discard shares at which the mean of random curves is computed."""


def pair_quality(
    quality: ArrayLike, first: ArrayLike, second: ArrayLike, how: str = "min"
) -> Floats:
    """Return (P,) qualities of comparisons; NaN where a sample has none.

    Args:
        quality: (N,) qualities of the samples, NaN for none.
        first: (P,) indices of samples.
        second: (P,) indices of samples.
        how: "min", "mean" or "product" of the two qualities.

    Raises:
        EvaluationError: an index of N or more; or a product of negative qualities, whose order is
            meaningless.
        SettingsError: another `how`.
    """
    values = np.asarray(quality, dtype=np.float64)
    one, two = np.asarray(first), np.asarray(second)
    if len(one) and max(one.max(), two.max()) >= len(values):
        raise EvaluationError(f"a comparison has a sample index beyond the {len(values)} qualities")
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
    """FNMR over the share of discarded comparisons.

    Attributes:
        discard: (S,) discard shares in [0, 1), ascending from 0.
        fnmr: (S,) FNMR of the remaining comparisons; the last one holds up to 1.
        errors: (S,) number of false non-matches among them.
        mated: (S,) number of remaining mated comparisons.
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
        inside = self.discard[self.discard < limit]
        x = np.append(inside, limit)
        y = self.at(x)
        return float((y[1:] + y[:-1]) / 2 @ np.diff(x))


def edc(errors: ArrayLike, quality: ArrayLike) -> Curve:
    """Return the curve at a fixed threshold.

    Args:
        errors: (M,) bool, whether a mated comparison is rejected.
        quality: (M,) qualities of the comparisons, no NaN; -inf is discarded first.

    Raises:
        EvaluationError: no comparison, shapes differ, or a quality is NaN.

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
    before = np.concatenate([[0], np.cumsum(wrong[order])])
    left = len(values) - starts
    remaining = before[-1] - before[starts]
    return Curve(starts / len(values), remaining / left, remaining, left)


def groups(quality: Floats) -> tuple[Ints, Ints]:
    """Return the indices by ascending quality, and the start of each group of equal qualities."""
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
    """Return a curve for every FMR target, with the threshold recomputed at each share.

    Args:
        similarity: (P,) similarities, no NaN.
        mated: (P,) bool.
        quality: (P,) qualities of the comparisons, no NaN; -inf is discarded first.
        fmr_targets: FMR targets in (0, 1); the smallest threshold within the target is taken.
        grid: ascending discard shares of all comparisons, from 0. A curve ends where no mated or no
            non-mated comparison remains.

    Raises:
        EvaluationError: shapes differ, a value is NaN, or there are only mated or only non-mated
            comparisons.
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
    # comparisons of equal quality are discarded together, once the share covers all of them
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
    """Thresholds of the non-mated comparisons that remain at a quality.

    The most similar comparisons are searched first; they nearly always suffice.
    """

    def __init__(self, similarity: Floats, quality: Floats, largest_target: float) -> None:
        self._similarity, self._quality = similarity, quality
        size = min(len(similarity), 4 * (int(largest_target * len(similarity)) + 1) + 1000)
        top = np.flatnonzero(largest(similarity, size)[0])
        top = top[np.argsort(-similarity[top], kind="stable")]
        self._top, self._top_quality = similarity[top], quality[top]

    def thresholds(self, cut: float, count: int, targets: Sequence[float]) -> list[float]:
        """Return the smallest threshold for each target, among the `count` of quality >= `cut`."""
        places = [int(allowed(target, count)) for target in targets]
        top = self._top[self._top_quality >= cut]
        if max(places) < len(top):
            return [float(top[place]) for place in places]
        ranked = np.sort(self._similarity[self._quality >= cut])
        return [float(ranked[count - 1 - place]) for place in places]


def ideal(errors: int, mated: int) -> Curve:
    """Return the curve of an oracle that discards the errors first, one at a time.

    It is a lower bound of the FNMR at every share. (Schlett et al. draw the line FNMR(0) - share, a
    looser bound.)
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


@dataclass(frozen=True)
class Area:
    """Partial area under a curve (pAUC).

    Attributes:
        limit: discard share at which the area ends.
        raw: area from 0 to `limit`, in [0, limit].
        normalised: raw / (FNMR(0) * limit), 1 if discarding does not help; None if FNMR(0) is 0.
        gap: raw minus the area of the ideal curve; 0 is the best.
    """

    limit: float
    raw: float
    normalised: float | None
    gap: float


def area(curve: Curve, limit: float) -> Area:
    """Return the partial area under a curve.

    The gap is to the ideal curve at the threshold of the curve's first point.
    """
    raw = curve.area(limit)
    start = float(curve.fnmr[0])
    best = ideal(int(curve.errors[0]), int(curve.mated[0])).area(limit)
    return Area(limit, raw, raw / (start * limit) if start > 0 else None, raw - best)


@dataclass(frozen=True)
class RandomDiscard:
    """Curves of random qualities: the baseline of a quality without information.

    Attributes:
        shares: (G,) discard shares.
        mean: (G,) mean FNMR over the draws.
        low: (G,) 2.5 % quantile of the FNMR.
        high: (G,) 97.5 % quantile of the FNMR.
        areas: (R, L) raw pAUC of each draw, up to each limit.
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
    """Return the curves of random qualities at a fixed threshold.

    The samples get the random numbers, not the comparisons: comparisons that share a face are
    discarded together, so the spread is that of a real quality without information.

    Args:
        errors: (M,) bool, whether a mated comparison is rejected.
        first: (M,) indices of samples.
        second: (M,) indices of samples.
        limits: L discard shares of the areas.
        shares: G discard shares of the rates.
        draws: R, number of curves.
        how: see `pair_quality`.
        seed: random seed.
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


@dataclass(frozen=True)
class Det:
    """Detection error tradeoff: FNMR over FMR. The ROC is 1 - FNMR over FMR.

    The points are the corners of a staircase, one for every distinct mated similarity: the least
    FMR at each FNMR.

    Attributes:
        threshold: (D,) thresholds, ascending.
        fmr: (D,) false match rates, descending.
        fnmr: (D,) false non-match rates, ascending.
        eer: equal error rate.
    """

    threshold: Floats
    fmr: Floats
    fnmr: Floats
    eer: float


def det_curve(similarity: ArrayLike, non_mated: NonMated) -> Det:
    """Return the DET curve.

    Args:
        similarity: (M,) mated similarities, no NaN.
        non_mated: non-mated comparisons. The FMR is exact from its `floor` up, and to the
            precision of its histogram below.

    Raises:
        EvaluationError: no mated or no non-mated comparison.
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
    last = max(values[-1], non_mated.similarity[0] if len(non_mated.similarity) else -np.inf)
    threshold = np.append(np.nextafter(values, -np.inf), last)
    return Det(threshold, lowest, rejects, float(eer))
