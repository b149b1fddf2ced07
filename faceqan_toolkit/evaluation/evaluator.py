"""Evaluates quality methods on the comparisons of one data set by one recognition model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

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
from faceqan_toolkit.evaluation.comparisons import Bools, Comparisons, Floats
from faceqan_toolkit.evaluation.edc import (
    Area,
    Curve,
    RandomDiscard,
    area,
    edc,
    edc_recomputed,
    ideal,
    pair_quality,
    random_discard,
)
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.summary import Evaluation, Figures, Method, MethodResult, Point
from faceqan_toolkit.evaluation.verification import Accuracy, det_curve, rejected

FEW = 30
"""Fewer errors than this behind a figure earn it a warning."""


def evaluate(
    comparisons: Comparisons,
    methods: Mapping[str, Method],
    *,
    dataset: str,
    recogniser: str,
    options: EvaluationOptions | None = None,
    accuracy: Accuracy | None = None,
) -> Evaluation:
    """Evaluate any number of methods on the same comparisons.

    With `fte="exclude"` a comparison counts only if every method has a quality for it, so that
    all curves are of one set of comparisons.

    Args:
        comparisons: for "recompute" with all non-mated comparisons kept.
        methods: by name; "oracle" and "random" are taken.
        dataset: name.
        recogniser: name of the recognition model.
        options: the defaults if None.
        accuracy: over folds, see `fold_accuracy`.

    Raises:
        EvaluationError: nothing is left to evaluate, or the comparisons do not suffice.
        SettingsError: a method's name or kind makes no sense.
    """
    return _Evaluator(comparisons, methods, options or EvaluationOptions()).run(
        dataset, recogniser, accuracy
    )


@dataclass
class _Evaluator:
    comparisons: Comparisons
    methods: Mapping[str, Method]
    options: EvaluationOptions
    quality: dict[str, Floats] = field(init=False)  # of usable mated comparisons
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
        """Return the best there can be: errors are discarded first."""
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
        """Return the operating points with what they do."""
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
                warnings.append(f"only {errors} false non-matches stand behind the curve")
            if kind == "fmr" and threshold.false_matches < FEW:
                warnings.append(
                    f"only {threshold.false_matches} false matches stand behind the threshold"
                )
            made.append(
                Point(
                    kind, target, threshold.value, threshold.fmr, threshold.false_matches,
                    errors / len(self.similarity), errors, tuple(warnings),
                )
            )  # fmt: skip
        return tuple(made)

    def _curves(self, thresholds: Sequence[float]) -> dict[str, list[Curve]]:
        """Return each method's curves, one an operating point."""
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
        """Return resampled figures, None where they are not wanted or not possible."""
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
            warnings.append(
                f"nothing to compare is left above a discard share of {curve.discard[-1]:g}"
            )
        found = tuple(area(curve, limit) for limit in self.options.limits)
        return Figures(curve, found, tuple(raw), tuple(normalised), tuple(warnings))

    def _random(self, points: Sequence[Point], random: Sequence[RandomDiscard]) -> MethodResult:
        """Return the mean of random qualities; the intervals are the spread over the draws."""
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
        """Return the tests between every two methods."""
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
    """Return values with -inf for NaN."""
    return np.where(np.isnan(values), -np.inf, values)
