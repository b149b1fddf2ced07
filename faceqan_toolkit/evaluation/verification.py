"""Verification: comparisons of faces, thresholds at a false match rate (FMR), accuracy over folds.

A comparison is mated if both samples show the same person. It is accepted if its similarity is
GREATER than the threshold. So the smallest threshold with an FMR within a target always exists and
is one of the non-mated similarities. It depends on the largest ones alone, so only those are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.options import check_target

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Bools = NDArray[np.bool_]
Block = tuple[NDArray[np.floating], Bools, NDArray[np.integer], NDArray[np.integer]]

PIECE = 1 << 18
"""Comparisons processed together; they fit into the processor's cache."""

BINS = 1 << 14
"""Bins of the histogram of similarities over [-1, 1]."""

SPARE = 2.0
"""Kept similarities per similarity that the largest target needs; bootstrap resamples need more."""


def as_floats(values: ArrayLike, what: str) -> Floats:
    """Return values, called `what` in messages, as float64; NaN stands for missing ones.

    EvaluationError if they are not one-dimensional, not numbers, or infinite.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{what} must be numbers: {error}") from error
    if array.ndim != 1:
        raise EvaluationError(f"{what} must be one-dimensional, not of shape {array.shape}")
    if np.isinf(array).any():
        raise EvaluationError(f"{what} must not be infinite")
    return array


def _as_comparisons(
    similarity: ArrayLike, first: ArrayLike, second: ArrayLike
) -> tuple[Floats, Codes, Codes]:
    """Return similarities as float64 and sample indices as int32; EvaluationError for others."""
    values, ends = as_floats(similarity, "similarities"), []
    for what, given in (("first", first), ("second", second)):
        array = np.asarray(given)
        if array.shape != values.shape:
            raise EvaluationError(f"{what} has shape {array.shape}, similarities {values.shape}")
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise EvaluationError(f"{what} must be sample indices, not {array.dtype}")
        if array.size and array.min() < 0:
            raise EvaluationError(f"{what} holds a negative sample index")
        ends.append(array.astype(np.int32, copy=False))
    return values, ends[0], ends[1]


def identity_codes(identity: ArrayLike) -> Codes:
    """Return (N,) int32 numbers 0, 1, ... for (N,) labels of any type."""
    return np.unique(np.asarray(identity), return_inverse=True)[1].astype(np.int32)


def people_of(codes: Codes, first: Codes, second: Codes, *, mated: bool) -> tuple[Codes, Codes]:
    """Return the identities of both samples of each comparison.

    EvaluationError if a sample has none, or if a comparison is not of the given kind.
    """
    if len(first) and max(first.max(), second.max()) >= len(codes):
        raise EvaluationError("a comparison names a sample that has no identity")
    one, two = codes[first], codes[second]
    wrong = (one == two) != mated
    if wrong.any():
        place = int(np.argmax(wrong))
        what = "mated pair with two identities" if mated else "non-mated pair with one identity"
        raise EvaluationError(f"samples {first[place]} and {second[place]} are a {what}")
    return one, two


def allowed(target: ArrayLike, total: int) -> Ints:
    """Return the largest counts m with m / total <= target, in floating-point arithmetic."""
    targets = np.asarray(target, dtype=np.float64)
    count = np.floor(targets * total).astype(np.int64)
    count += (count + 1) / total <= targets
    count -= count / total > targets
    return np.asarray(count)


def largest(values: Floats, count: int) -> tuple[Bools, float]:
    """Return a mask of the `count` largest values, and the largest of the others (-inf if none).

    The first of equal values are taken. Faster than numpy's argpartition.
    """
    if count >= len(values):
        return np.ones(len(values), np.bool_), -np.inf
    border = np.partition(values, len(values) - count)[len(values) - count]
    chosen = values > border
    ties = np.flatnonzero(values == border)
    needed = count - int(np.count_nonzero(chosen))
    chosen[ties[:needed]] = True
    dropped = border if len(ties) > needed else values[values < border].max()
    return chosen, float(dropped)


@dataclass(frozen=True)
class DecisionThreshold:
    """A similarity threshold, and its false matches among all non-mated comparisons."""

    value: float
    false_matches: int
    total: int

    @property
    def fmr(self) -> float:
        """The achieved false match rate."""
        return self.false_matches / self.total


@dataclass(frozen=True)
class NonMated:
    """Non-mated comparisons: the most similar ones, and counts of the others.

    Attributes:
        similarity: (K,) the largest similarities, descending.
        first, second: (K,) indices of samples.
        total: number of all non-mated comparisons, without `missing`.
        missing: number of comparisons without a similarity (NaN).
        floor: largest similarity that was not kept; -inf if all were.
        histogram: (BINS,) counts of all similarities over [-1, 1].
        identity_pairs: (I, I) sparse number of comparisons of each two identities, or None.
    """

    similarity: Floats
    first: Codes
    second: Codes
    total: int
    missing: int
    floor: float
    histogram: Ints
    identity_pairs: Any = None

    @property
    def complete(self) -> bool:
        """Whether every similarity was kept."""
        return len(self.similarity) == self.total

    def at_fmr(self, target: float) -> DecisionThreshold:
        """Return the smallest threshold with an FMR of at most the target, in (0, 1); exact.

        EvaluationError if there is no non-mated comparison, or too few were kept for this target.
        """
        check_target(target)
        if not self.total:
            raise EvaluationError("there are no non-mated comparisons, so no threshold")
        place = int(allowed(target, self.total))
        if place > len(self.similarity):
            raise EvaluationError(
                f"FMR {target:g} needs the {place + 1} largest non-mated similarities, "
                f"{len(self.similarity)} were kept"
            )
        return self.at_threshold(float(np.append(self.similarity, self.floor)[place]))

    def at_threshold(self, value: float) -> DecisionThreshold:
        """Return a threshold with its false matches: exact from `floor` up, below it estimated."""
        (accepted,) = self.count_above(np.array([value]))
        return DecisionThreshold(value, round(accepted), self.total)

    def count_above(self, values: Floats, *, equal: bool = False) -> Floats:
        """Return the number of similarities greater than each value, or at least as great.

        Exact for values from `floor` up; below it interpolated in the histogram.
        """
        found = np.searchsorted(-self.similarity, -values, side="right" if equal else "left")
        exact = found.astype(np.float64)
        if self.complete:
            return exact
        above = np.concatenate([np.cumsum(self.histogram[::-1])[::-1], [0]])
        guess = np.interp(values, np.linspace(-1, 1, BINS + 1), above)
        inside = values > self.floor if equal else values >= self.floor
        return np.asarray(np.where(inside, exact, np.maximum(guess, exact)))


class NonMatedCollector:
    """Receives non-mated comparisons in blocks and keeps the `keep` most similar ones, or all.

    Memory: 32 bytes for each kept comparison, and 8 for every compared pair of identities. The
    bootstrap over identities needs the samples' (N,) labels `identity`, of any type.
    """

    def __init__(self, keep: int | None = None, identity: ArrayLike | None = None) -> None:
        if keep is not None and keep < 1:
            raise SettingsError(f"at least one comparison must be kept, not {keep}")
        self._keep = keep
        self._codes: Codes | None = None
        self._pairs: Any = None
        if identity is not None:
            self._codes = identity_codes(identity)
            people = int(self._codes.max(initial=-1)) + 1
            self._pairs = sparse.csr_matrix((people, people), dtype="i4")
        self._waiting: list[Codes] = []
        self._parts = [(np.empty(0), np.empty(0, np.int32), np.empty(0, np.int32))]
        self._held = 0
        self._total = self._missing = 0
        self._floor = -np.inf
        self._histogram = np.zeros(BINS, np.int64)

    @staticmethod
    def enough(total: int, target: float) -> int:
        """Return how many of `total` comparisons FMR `target` and its intervals need."""
        return min(max(total, 1), int(SPARE * target * total) + 100_000)

    def add(self, similarity: ArrayLike, first: ArrayLike, second: ArrayLike) -> None:
        """Add (B,) similarities, NaN where a sample has no embedding, of (B,) sample indices.

        EvaluationError if lengths differ, a similarity is infinite, or both samples of a comparison
        have the same identity.
        """
        values, one, two = _as_comparisons(similarity, first, second)
        for start in range(0, len(values), PIECE):
            piece = slice(start, start + PIECE)
            self._add(values[piece], one[piece], two[piece])

    def _add(self, values: Floats, one: Codes, two: Codes) -> None:
        made = ~np.isnan(values)
        if not made.all():
            values, one, two = values[made], one[made], two[made]
        self._missing += len(made) - len(values)
        self._total += len(values)
        bins = ((np.clip(values, -1, 1) + 1) * (BINS / 2)).astype(np.int32)
        self._histogram += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
        if self._codes is not None:
            # each addition copies the whole matrix, so many pairs are added at once
            a, b = people_of(self._codes, one, two, mated=False)
            self._waiting.append(np.array([np.minimum(a, b), np.maximum(a, b)]))
            if sum(pairs.shape[1] for pairs in self._waiting) > max(4 * PIECE, self._pairs.nnz):
                self._count_waiting()
        wanted = values > self._floor
        self._parts.append((values[wanted], one[wanted], two[wanted]))
        self._held += int(np.count_nonzero(wanted))
        if self._keep is not None and self._held > 2 * self._keep:
            self._shrink()

    def result(self) -> NonMated:
        """Return the comparisons added so far."""
        self._shrink()
        self._count_waiting()
        similarity, first, second = self._joined()
        order = np.argsort(-similarity, kind="stable")
        return NonMated(
            similarity[order], first[order], second[order], self._total, self._missing,
            float(self._floor), self._histogram, self._pairs,
        )  # fmt: skip

    def _count_waiting(self) -> None:
        if not self._waiting:
            return
        first, second = np.concatenate(self._waiting, axis=1)
        self._waiting = []
        ones = np.ones(len(first), np.int32)
        block = sparse.coo_matrix((ones, (first, second)), shape=self._pairs.shape)
        self._pairs = self._pairs + block.tocsr()

    def _joined(self) -> tuple[Floats, Codes, Codes]:
        values, one, two = zip(*self._parts, strict=True)
        return np.concatenate(values), np.concatenate(one), np.concatenate(two)

    def _shrink(self) -> None:
        if self._keep is None or self._held <= self._keep:
            return
        similarity, first, second = self._joined()
        kept, dropped = largest(similarity, self._keep)
        self._floor = max(self._floor, dropped)
        self._parts = [(similarity[kept], first[kept], second[kept])]
        self._held = self._keep


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of a data set by one recognition model.

    Attributes:
        similarity: (M,) mated comparisons; NaN where a sample has no embedding.
        first, second: (M,) indices of samples, mated comparisons.
        identity: (N,) identities of the samples as numbers 0, 1, ..., or None.
    """

    similarity: Floats
    first: Codes
    second: Codes
    non_mated: NonMated
    identity: Codes | None = None

    @classmethod
    def of(
        cls, similarity: ArrayLike, mated: ArrayLike, first: ArrayLike, second: ArrayLike,
        identity: ArrayLike | None = None, *, keep: int | None = None,
    ) -> Comparisons:  # fmt: skip
        """Return comparisons from arrays; EvaluationError if they contradict each other.

        Args:
            similarity: (P,) higher is more alike; NaN where a sample has no embedding.
            mated: (P,) bool.
            first, second: (P,) indices of samples.
            identity: (N,) labels of the samples, of any type; confidence intervals need them.
            keep: see `NonMatedCollector`.
        """
        values, one, two = _as_comparisons(similarity, first, second)
        same = np.asarray(mated)
        if same.shape != values.shape or same.dtype != np.bool_:
            raise EvaluationError("`mated` must be booleans, one a comparison")
        return cls.streamed([(values, same, one, two)], NonMatedCollector(keep, identity), identity)

    @classmethod
    def streamed(
        cls, blocks: Iterable[Block], collector: NonMatedCollector,
        identity: ArrayLike | None = None,
    ) -> Comparisons:  # fmt: skip
        """Return the comparisons of (similarity, mated, first, second) blocks; see `of`.

        EvaluationError if there is no mated comparison, or a mated one of two identities.
        """
        found = []
        for similarity, mated, first, second in blocks:
            collector.add(similarity[~mated], first[~mated], second[~mated])
            found.append((similarity[mated], first[mated], second[mated]))
        values, one, two = _as_comparisons(
            *(np.concatenate(parts) for parts in zip(*found, strict=True))
        )
        if not len(values):
            raise EvaluationError("there are no mated comparisons")
        codes = None if identity is None else identity_codes(identity)
        if codes is not None:
            people_of(codes, one, two, mated=True)
        return cls(values, one, two, collector.result(), codes)


def rejected(similarity: Floats, threshold: float) -> Bools:
    """Return a mask of the rejected comparisons: those not above the threshold, and NaN."""
    return ~(similarity > threshold)


@dataclass(frozen=True)
class Accuracy:
    """(F,) shares of correct decisions and thresholds by fold, each chosen on the other folds."""

    by_fold: Floats
    thresholds: Floats

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(self.by_fold.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, as LFW's results report it."""
        return float(self.by_fold.std(ddof=1) / np.sqrt(len(self.by_fold)))


def fold_accuracy(similarity: ArrayLike, mated: ArrayLike, fold: ArrayLike) -> Accuracy:
    """Return the accuracy by LFW's protocol: the threshold of each fold comes from the others.

    The arrays are (P,) each; a similarity of NaN counts as rejected. EvaluationError if shapes
    differ or there is only one fold.

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
    """Return the threshold with the most correct decisions; the smallest of several.

    It lies halfway between the two similarities that it separates.
    """
    made = ~np.isnan(values)
    order = np.argsort(values[made], kind="stable")
    ordered, labels = values[made][order], same[made][order]
    if not len(ordered):
        raise EvaluationError("only one fold has similarities; no threshold can be chosen for it")
    # cut c rejects the first c similarities; cuts between equal ones do not exist
    right = np.append(0, np.cumsum(np.where(labels, -1, 1)))  # plus the number of mated ones
    ends = np.concatenate([[True], ordered[1:] != ordered[:-1], [True]])
    cut = int(np.argmax(np.where(ends, right, -len(right))))
    if cut == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if cut == len(ordered):
        return float(ordered[-1])
    middle = float((ordered[cut - 1] + ordered[cut]) / 2)
    return middle if middle < ordered[cut] else float(ordered[cut - 1])
