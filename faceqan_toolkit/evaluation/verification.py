"""How well a recognition model tells people apart: DET curve, EER, accuracy over folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from faceqan_toolkit.errors import EvaluationError
from faceqan_toolkit.evaluation.comparisons import Bools, Floats, NonMated, as_floats


def rejected(similarity: Floats, threshold: float) -> Bools:
    """Return which comparisons are rejected: those not above the threshold, NaN among them."""
    return ~(similarity > threshold)


def fnmr(similarity: Floats, threshold: float) -> float:
    """Return the share of mated comparisons that a threshold rejects.

    Args:
        similarity: (M,) of mated comparisons, M at least 1.
        threshold: see `rejected`.
    """
    return float(np.mean(rejected(similarity, threshold)))


@dataclass(frozen=True)
class Det:
    """Detection error tradeoff: FNMR over FMR. The ROC is 1 - fnmr over fmr.

    Holds the curve's corners, one for every distinct mated similarity: at each FNMR the least
    FMR. Between them the curve is a staircase.

    Attributes:
        threshold: (D,) ascending.
        fmr: (D,) descending.
        fnmr: (D,) ascending.
        eer: the error rate where both are equal.
    """

    threshold: Floats
    fmr: Floats
    fnmr: Floats
    eer: float


def det_curve(similarity: ArrayLike, non_mated: NonMated) -> Det:
    """Return the DET curve.

    Args:
        similarity: (M,) of mated comparisons, no NaN.
        non_mated: exact where all were kept, else to the precision of its histogram.

    Raises:
        EvaluationError: no mated or no non-mated comparison.
    """
    values, counts = np.unique(as_floats(similarity, "similarities"), return_counts=True)
    if not len(values) or np.isnan(values[-1]):
        raise EvaluationError("a DET curve needs mated similarities, all of them numbers")
    if not non_mated.total:
        raise EvaluationError("a DET curve needs non-mated comparisons")
    # With thresholds from one mated similarity up to below the next the FNMR is constant,
    # while the FMR falls from `highest` to `lowest`.
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


@dataclass(frozen=True)
class Accuracy:
    """Verification accuracy over folds.

    Attributes:
        by_fold: (F,) accuracy of each fold at the threshold the other folds chose.
        thresholds: (F,) those thresholds.
    """

    by_fold: Floats
    thresholds: Floats

    @property
    def mean(self) -> float:
        """The mean accuracy."""
        return float(self.by_fold.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean, as LFW's results report it."""
        return float(self.by_fold.std(ddof=1) / np.sqrt(len(self.by_fold)))


def fold_accuracy(similarity: ArrayLike, mated: ArrayLike, fold: ArrayLike) -> Accuracy:
    """Return the accuracy by LFW's protocol: for each fold the threshold comes from the others.

    Args:
        similarity: (P,) NaN counts as rejected.
        mated: (P,) bool.
        fold: (P,) labels of the folds, at least two (ten for LFW).

    Raises:
        EvaluationError: shapes differ, or there is one fold only.

    Source: Huang et al., "Labeled Faces in the Wild", 2007, view 2.
    """
    values = as_floats(similarity, "similarities")
    same, folds = np.asarray(mated, dtype=np.bool_), np.asarray(fold)
    if same.shape != values.shape or folds.shape != values.shape:
        raise EvaluationError("similarity, mated and fold differ in length")
    names = np.unique(folds)
    if len(names) < 2:
        raise EvaluationError("accuracy over folds needs at least two folds")
    thresholds = np.array([_best_threshold(values[folds != n], same[folds != n]) for n in names])
    by_fold = [
        np.mean(rejected(values[folds == name], threshold) != same[folds == name])
        for name, threshold in zip(names, thresholds, strict=True)
    ]
    return Accuracy(np.array(by_fold), thresholds)


def _best_threshold(values: Floats, same: Bools) -> float:
    """Return the threshold with most comparisons right; of equals the smallest.

    It lies halfway between the two similarities it parts, which favours neither side.
    """
    made = ~np.isnan(values)
    order = np.argsort(values[made], kind="stable")
    ordered, labels = values[made][order], same[made][order]
    if not len(ordered):
        raise EvaluationError("all folds but one have no similarities to choose a threshold from")
    # cut c rejects the first c; it exists only between different similarities
    right = np.concatenate([[0], np.cumsum(~labels)]) + (
        labels.sum() - np.concatenate([[0], np.cumsum(labels)])
    )
    ends = np.concatenate([[True], ordered[1:] != ordered[:-1], [True]])
    cut = int(np.argmax(np.where(ends, right, -1)))
    if cut == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if cut == len(ordered):
        return float(ordered[-1])
    middle = float((ordered[cut - 1] + ordered[cut]) / 2)
    return middle if middle < ordered[cut] else float(ordered[cut - 1])
