"""Evaluation of quality methods on a data set and the embeddings of one recognition model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.bootstrap import (
    Interval,
    Operating,
    PairedTest,
    Replicates,
    draw_identities,
    interval,
    paired_test,
    replicate,
)
from faceqan_toolkit.evaluation.curves import (
    Area,
    Curve,
    RandomDiscard,
    area,
    det_curve,
    edc,
    edc_recomputed,
    ideal,
    pair_quality,
    random_discard,
)
from faceqan_toolkit.evaluation.datasets.base import Dataset
from faceqan_toolkit.evaluation.embeddings import Vectors
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.result import Evaluation, Figures, Method, MethodResult, Point
from faceqan_toolkit.evaluation.verification import (
    Accuracy,
    Bools,
    Comparisons,
    Floats,
    NonMatedCollector,
    fold_accuracy,
    rejected,
)

FEW = 30
"""A figure that rests on fewer errors gets a warning."""

BLOCK = 16_384
"""Comparisons computed together: the embeddings of both sides, 512 numbers each, take 67 MB."""


def evaluate_dataset(
    dataset: Dataset,
    vectors: Vectors,
    methods: Mapping[str, Method],
    *,
    name: str,
    recogniser: str,
    options: EvaluationOptions,
) -> Evaluation:
    """Evaluate methods on a data set.

    Args:
        dataset: the data set.
        vectors: (M, D) vectors from `compared_vectors`.
        methods: qualities of the samples by method.
        name: name of the data set in results.
        recogniser: name of the recognition model in results.
        options: options of the evaluation. A data set with templates uses `template_quality`.

    Raises:
        EvaluationError: there is nothing to compare.
        SettingsError: options that contradict each other.
    """
    largest = None if options.edc == "recompute" else max(options.fmr_targets)
    comparisons, accuracy = compare(dataset, vectors, largest_fmr=largest)
    if dataset.templates is not None:
        how = options.template_quality or "min"
        methods = {
            method: replace(
                one, quality=dataset.templates.quality(np.asarray(one.quality, np.float64), how)
            )
            for method, one in methods.items()
        }
    return evaluate_methods(
        comparisons, methods, dataset=name, recogniser=recogniser, options=options,
        accuracy=accuracy,
    )  # fmt: skip


def compared_vectors(
    dataset: Dataset, embeddings: Vectors, weights: NDArray[np.float64] | None = None
) -> Vectors:
    """Return the normalised embeddings of what is compared: samples, or templates if there are any.

    Args:
        dataset: the data set.
        embeddings: (N, D) embeddings of its samples, of any length; NaN rows for samples without.
        weights: (N,) weights of the samples within their template's media; None for equal weights.

    Returns:
        (M, D) float32 of length 1; NaN rows where there is no embedding.

    Raises:
        EvaluationError: there is no embedding at all.
    """
    if dataset.templates is not None:
        vectors = dataset.templates.embed(embeddings, weights)
    else:
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        vectors = np.asarray(embeddings / lengths, np.float32)
    if np.isnan(vectors).all():
        raise EvaluationError("no photo has an embedding")
    return vectors


def compare(
    dataset: Dataset, vectors: Vectors, *, largest_fmr: float | None
) -> tuple[Comparisons, Accuracy | None]:
    """Return all comparisons of a data set by cosine similarity, and the accuracy over its folds.

    If a non-mated pair contradicts the identities, the comparisons have none, and so no intervals.

    Args:
        dataset: the data set.
        vectors: (M, D) vectors from `compared_vectors`.
        largest_fmr: largest FMR target; decides how many of the most similar non-mated comparisons
            are kept. None keeps all.

    Raises:
        EvaluationError: there is no mated comparison.
    """
    identity = None if _contradicts(dataset) else dataset.identities
    total = len(dataset.pairs)
    keep = None if largest_fmr is None else NonMatedCollector.enough(total, largest_fmr)
    collector = NonMatedCollector(keep, identity)
    mated, folds = [], []
    for block in dataset.pairs.blocks(BLOCK):
        similarity = np.einsum("ij,ij->i", vectors[block.first], vectors[block.second])
        others = ~block.mated
        collector.add(similarity[others], block.first[others], block.second[others])
        same = block.mated
        mated.append((similarity[same], block.first[same], block.second[same]))
        if block.fold is not None:
            folds.append((similarity, block.mated, block.fold))
    accuracy = None
    if folds and (dataset.folds or 0) > 1:
        accuracy = fold_accuracy(*(np.concatenate(part) for part in zip(*folds, strict=True)))
    values, first, second = (np.concatenate(part) for part in zip(*mated, strict=True))
    comparisons = Comparisons.streamed(values, first, second, collector.result(), identity)
    return comparisons, accuracy


def _contradicts(dataset: Dataset) -> bool:
    """Tell whether both sides of a non-mated pair have the same identity."""
    people = dataset.identities
    return any(
        bool(np.any((people[block.first] == people[block.second]) & ~block.mated))
        for block in dataset.pairs.blocks()
    )


def evaluate_methods(
    comparisons: Comparisons,
    methods: Mapping[str, Method],
    *,
    dataset: str,
    recogniser: str,
    options: EvaluationOptions | None = None,
    accuracy: Accuracy | None = None,
) -> Evaluation:
    """Evaluate methods on the same comparisons.

    With `fte="exclude"` only comparisons for which every method has a quality are used, so that all
    curves rest on the same comparisons.

    Args:
        comparisons: the comparisons; "recompute" needs all non-mated ones kept.
        methods: methods by name; "oracle" and "random" are reserved.
        dataset: name of the data set.
        recogniser: name of the recognition model.
        options: options of the evaluation; None for the defaults.
        accuracy: accuracy over folds, see `fold_accuracy`.

    Raises:
        EvaluationError: no usable comparison, or too few non-mated ones were kept.
        SettingsError: a reserved or empty method name, or an unknown kind.
    """
    return _Evaluator(comparisons, methods, options or EvaluationOptions()).run(
        dataset, recogniser, accuracy
    )


@dataclass
class _Evaluator:
    comparisons: Comparisons
    methods: Mapping[str, Method]
    options: EvaluationOptions
    quality: dict[str, Floats] = field(init=False)  # usable mated comparisons only
    missing: dict[str, int] = field(init=False)
    usable: Bools = field(init=False)
    similarity: Floats = field(init=False)

    def __post_init__(self) -> None:
        comparisons, options = self.comparisons, self.options
        for name, method in self.methods.items():
            if name in ("oracle", "random") or not name:
                raise SettingsError(f"a method cannot be called {name!r}")
            if method.kind not in ("quality", "simple"):
                raise SettingsError(f"{name}: kind must be quality or simple, not {method.kind!r}")
        pairs = {name: self._pairs(name, comparisons.first, comparisons.second)
                 for name in self.methods}  # fmt: skip
        self.missing = {name: int(np.isnan(values).sum()) for name, values in pairs.items()}
        self.usable = np.ones(len(comparisons.similarity), np.bool_)
        if options.fte == "exclude":
            self.usable = ~np.isnan(comparisons.similarity)
            for values in pairs.values():
                self.usable &= ~np.isnan(values)
        if not self.usable.any():
            raise EvaluationError("no mated comparison has both a similarity and all qualities")
        self.quality = {name: _worst(values[self.usable]) for name, values in pairs.items()}
        self.similarity = _worst(comparisons.similarity[self.usable])

    def _pairs(self, name: str, first: Any, second: Any) -> Floats:
        values = np.asarray(self.methods[name].quality, dtype=np.float64)
        if values.ndim != 1 or np.isinf(values).any():
            raise EvaluationError(f"{name}: qualities must be one finite number a sample, or NaN")
        try:
            return pair_quality(values, first, second, self.options.pair_quality)
        except EvaluationError as error:
            raise EvaluationError(f"{name}: {error}") from error

    def run(self, dataset: str, recogniser: str, accuracy: Accuracy | None) -> Evaluation:
        comparisons, options = self.comparisons, self.options
        points = self._points()
        replicates = self._replicates(points)
        random = tuple(self._random_discard(point.threshold) for point in points)
        results = [
            *self._methods(points, replicates),
            self._random(points, random),
            self._oracle(points, replicates),
        ]
        made = ~np.isnan(comparisons.similarity)
        return Evaluation(
            dataset=dataset,
            recogniser=recogniser,
            options=options,
            mated=len(self.similarity),
            excluded=int(np.count_nonzero(~self.usable)),
            non_mated=comparisons.non_mated.total,
            non_mated_missing=comparisons.non_mated.missing,
            det=det_curve(comparisons.similarity[made], comparisons.non_mated),
            accuracy=accuracy,
            points=points,
            fnmr0_intervals=tuple(
                interval(replicates.fnmr0[:, index], options.level) if replicates else None
                for index in range(len(points))
            ),
            methods=tuple(results),
            random=random,
            tests=tuple(self._tests(results, replicates)),
        )

    def _methods(
        self, points: Sequence[Point], replicates: Replicates | None
    ) -> list[MethodResult]:
        curves = self._curves([point.threshold for point in points])
        return [
            MethodResult(
                name,
                method.kind,
                method.note,
                self.missing[name],
                tuple(
                    self._figures(
                        curve,
                        None if replicates is None else replicates.areas[name],
                        replicates,
                        index,
                    )
                    for index, curve in enumerate(curves[name])
                ),
            )
            for name, method in self.methods.items()
        ]

    def _oracle(self, points: Sequence[Point], replicates: Replicates | None) -> MethodResult:
        """Return the lower bound: errors are discarded first."""
        areas = None if replicates is None else replicates.ideal
        figures = tuple(
            self._figures(ideal(point.errors, len(self.similarity)), areas, replicates, index)
            for index, point in enumerate(points)
        )
        return MethodResult("oracle", "oracle", "", 0, figures)

    def _random_discard(self, threshold: float) -> RandomDiscard:
        comparisons, options = self.comparisons, self.options
        return random_discard(
            rejected(self.similarity, threshold),
            comparisons.first[self.usable],
            comparisons.second[self.usable],
            options.limits,
            draws=options.draws,
            how=options.pair_quality,
            seed=options.seed,
        )

    def _points(self) -> tuple[Point, ...]:
        """Return the operating points with their thresholds and error rates."""
        non_mated, options = self.comparisons.non_mated, self.options
        points = []
        for target in options.fmr_targets:
            points.append(("fmr", target, non_mated.at_fmr(target)))
        for start in options.fnmr_starts:
            place = int(np.ceil(start * len(self.similarity) * (1 - 1e-12))) - 1
            value = float(np.sort(self.similarity)[max(place, 0)])
            points.append(("fnmr", start, non_mated.at_threshold(value)))
        made = []
        for kind, target, threshold in points:
            errors = int(np.count_nonzero(rejected(self.similarity, threshold.value)))
            warnings = []
            if errors < FEW:
                warnings.append(
                    f"the curve rests on {errors} false non-matches (at least {FEW} are "
                    "recommended)"
                )
            if kind == "fmr" and threshold.false_matches < FEW:
                warnings.append(
                    f"the threshold rests on {threshold.false_matches} false matches (at least "
                    f"{FEW} are recommended)"
                )
            made.append(
                Point(
                    kind, target, threshold.value, threshold.fmr, threshold.false_matches,
                    errors / len(self.similarity), errors, tuple(warnings),
                )
            )  # fmt: skip
        return tuple(made)

    def _curves(self, thresholds: Sequence[float]) -> dict[str, list[Curve]]:
        """Return each method's curves, one for each operating point."""
        curves = {
            name: [edc(rejected(self.similarity, cut), values) for cut in thresholds]
            for name, values in self.quality.items()
        }
        if self.options.edc == "fixed":
            return curves
        non_mated, targets = self.comparisons.non_mated, self.options.fmr_targets
        if not non_mated.complete:
            raise EvaluationError("edc recompute needs all non-mated comparisons kept")
        similarity = np.concatenate([self.similarity, non_mated.similarity])
        mated = np.arange(len(similarity)) < len(self.similarity)
        for name, values in self.quality.items():
            others = self._pairs(name, non_mated.first, non_mated.second)
            scores = np.concatenate([values, others])
            kept = ~np.isnan(scores)
            if self.options.fte == "worst":
                scores, kept = _worst(scores), np.ones_like(kept)
            curves[name][: len(targets)] = edc_recomputed(
                similarity[kept], mated[kept], scores[kept], targets
            )
        return curves

    def _replicates(self, points: Sequence[Point]) -> Replicates | None:
        """Return the bootstrap replicates; None if not requested or not possible."""
        comparisons, options = self.comparisons, self.options
        if not options.replicates or comparisons.identity is None or options.edc != "fixed":
            return None
        people = int(comparisons.identity.max()) + 1
        return replicate(
            comparisons,
            self.similarity,
            self.usable,
            self.quality,
            [Operating(point.kind, point.target) for point in points],
            options.limits,
            draw_identities(people, options.replicates, options.seed),
        )

    def _figures(
        self, curve: Curve, areas: Floats | None, replicates: Replicates | None, index: int
    ) -> Figures:
        raw: list[Interval | None] = [None] * len(self.options.limits)
        normalised = list(raw)
        if areas is not None and replicates is not None:
            for place, limit in enumerate(self.options.limits):
                values, start = areas[:, index, place], replicates.fnmr0[:, index]
                raw[place] = interval(values, self.options.level)
                relative = np.full_like(values, np.nan)
                np.divide(values, start * limit, out=relative, where=start > 0)
                normalised[place] = interval(relative, self.options.level)
        warnings = []
        if not curve.staircase and curve.discard[-1] < 0.95:
            warnings.append(f"no comparison remains above a discard share of {curve.discard[-1]:g}")
        found = tuple(area(curve, limit) for limit in self.options.limits)
        return Figures(curve, found, tuple(raw), tuple(normalised), tuple(warnings))

    def _random(self, points: Sequence[Point], random: Sequence[RandomDiscard]) -> MethodResult:
        """Return the mean of the random qualities, with intervals over the draws."""
        figures = []
        for point, draws in zip(points, random, strict=True):
            left = np.round((1 - draws.shares) * len(self.similarity)).astype(np.int64)
            errors = np.round(draws.mean * left).astype(np.int64)
            curve = Curve(draws.shares, draws.mean, errors, left)
            best = ideal(point.errors, len(self.similarity))
            areas, raw, normalised = [], [], []
            for limit, values in zip(self.options.limits, draws.areas.T, strict=True):
                scale = point.fnmr0 * limit
                mean = float(values.mean())
                areas.append(
                    Area(limit, mean, mean / scale if scale else None, mean - best.area(limit))
                )
                raw.append(interval(values, self.options.level))
                normalised.append(interval(values / scale, self.options.level) if scale else None)
            figures.append(Figures(curve, tuple(areas), tuple(raw), tuple(normalised)))
        return MethodResult("random", "random", "", 0, tuple(figures))

    def _tests(
        self, results: Sequence[MethodResult], replicates: Replicates | None
    ) -> list[PairedTest]:
        """Return the tests of every two methods."""
        if replicates is None:
            return []
        named = {result.name: result for result in results}
        return [
            paired_test(
                replicates, a, b, point, limit,
                named[a].figures[point].areas[limit].raw - named[b].figures[point].areas[limit].raw,
                self.options.level,
            )
            for a, b in combinations(self.methods, 2)
            for point in range(len(replicates.points))
            for limit in range(len(replicates.limits))
        ]  # fmt: skip


def _worst(values: Floats) -> Floats:
    """Return values with NaN replaced by -inf."""
    return np.where(np.isnan(values), -np.inf, values)
