"""Evaluation of quality methods on comparisons; agreement of two tools' scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, compress
from typing import TYPE_CHECKING, Any

import numpy as np

from faceqan_toolkit.errors import EvaluationError, ScoresError, SettingsError
from faceqan_toolkit.evaluation import curves, result
from faceqan_toolkit.evaluation.curves import Area, Curve, Operating, RandomDiscard, Replicates
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.result import Evaluation, Figures, Method, MethodResult, Point
from faceqan_toolkit.evaluation.verification import (
    Accuracy,
    Block,
    Bools,
    Codes,
    Comparisons,
    Floats,
    NonMatedCollector,
    fold_accuracy,
    rejected,
)

if TYPE_CHECKING:
    from faceqan_toolkit.evaluation.datasets.base import Dataset
    from faceqan_toolkit.evaluation.embeddings import Vectors
    from faceqan_toolkit.evaluation.path_matching import Match
    from faceqan_toolkit.evaluation.score_files import ScoreTable

FEW = 30
"""A figure that rests on fewer errors gets a warning."""
BLOCK = 16_384
"""Comparisons computed together: the embeddings of both sides, 512 numbers each, take 67 MB."""


def evaluate_dataset(
    dataset: Dataset, vectors: Vectors, methods: Mapping[str, Method], *, name: str,
    recogniser: str, options: EvaluationOptions,
) -> Evaluation:  # fmt: skip
    """Evaluate methods on a data set and (M, D) vectors from `compared_vectors`.

    `name` and `recogniser` stand in results. For the errors see `compare` and `evaluate_methods`.
    """
    largest = None if options.edc == "recompute" else max(options.fmr_targets)
    comparisons, accuracy = compare(dataset, vectors, largest_fmr=largest)
    if dataset.templates is not None:
        how = options.template_quality or "min"
        quality = dataset.templates.quality
        methods = {
            method: replace(one, quality=quality(np.asarray(one.quality, np.float64), how))
            for method, one in methods.items()
        }
    return evaluate_methods(
        comparisons, methods, dataset=name, recogniser=recogniser, options=options,
        accuracy=accuracy,
    )  # fmt: skip


def compared_vectors(
    dataset: Dataset, embeddings: Vectors, weights: Floats | None = None
) -> Vectors:
    """Return the (M, D) float32 normalised embeddings of the samples, or of the templates if any.

    NaN rows stand for no embedding.

    Args:
        embeddings: (N, D) embeddings of the samples, of any length; NaN rows for none.
        weights: (N,) weights of the samples within their template's media; None for equal weights.
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

    If a non-mated pair contradicts the identities, the comparisons have no identities, and so no
    intervals. The largest FMR target decides how many non-mated comparisons are kept; None keeps
    all.
    """
    identity = None if _contradicts(dataset) else dataset.identities
    total = len(dataset.pairs)
    keep = None if largest_fmr is None else NonMatedCollector.enough(total, largest_fmr)
    folds = []

    def blocks() -> Iterator[Block]:
        for block in dataset.pairs.blocks(BLOCK):
            similarity = np.einsum("ij,ij->i", vectors[block.first], vectors[block.second])
            if block.fold is not None:
                folds.append((similarity, block.mated, block.fold))
            yield similarity, block.mated, block.first, block.second

    comparisons = Comparisons.streamed(blocks(), NonMatedCollector(keep, identity), identity)
    if not folds or (dataset.folds or 0) < 2:
        return comparisons, None
    columns = (np.concatenate(column) for column in zip(*folds, strict=True))
    return comparisons, fold_accuracy(*columns)


def _contradicts(dataset: Dataset) -> bool:
    """Return whether both sides of a non-mated pair have the same identity."""
    people = dataset.identities
    return any(
        ((people[block.first] == people[block.second]) & ~block.mated).any()
        for block in dataset.pairs.blocks()
    )


def evaluate_methods(
    comparisons: Comparisons, methods: Mapping[str, Method], *, dataset: str, recogniser: str,
    options: EvaluationOptions | None = None, accuracy: Accuracy | None = None,
) -> Evaluation:  # fmt: skip
    """Evaluate methods on the same comparisons.

    With `fte="exclude"` only comparisons for which every method has a quality are used, so that all
    curves rest on the same comparisons.

    Args:
        comparisons: "recompute" needs all non-mated ones kept.
        methods: methods by name; "oracle" and "random" are reserved.
        dataset, recogniser: names in results.
        options: None for the defaults.
        accuracy: see `fold_accuracy`.

    Raises:
        EvaluationError: no usable comparison, or too few non-mated ones were kept.
        SettingsError: a reserved or empty method name, or an unknown kind.
    """
    evaluator = _Evaluator(comparisons, methods, options or EvaluationOptions())
    return evaluator.run(dataset, recogniser, accuracy)


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
        comparisons = self.comparisons
        for name, method in self.methods.items():
            if name in ("oracle", "random") or not name:
                raise SettingsError(f"a method cannot be called {name!r}")
            if method.kind not in ("quality", "simple"):
                raise SettingsError(f"{name}: kind must be quality or simple, not {method.kind!r}")
        pairs = {name: self._pairs(name, comparisons.first, comparisons.second)
                 for name in self.methods}  # fmt: skip
        self.missing = {name: int(np.isnan(values).sum()) for name, values in pairs.items()}
        self.usable = np.ones(len(comparisons.similarity), np.bool_)
        if self.options.fte == "exclude":
            known = ~np.isnan([comparisons.similarity, *pairs.values()])
            self.usable = np.asarray(known.all(axis=0))
        if not self.usable.any():
            raise EvaluationError("no mated comparison has both a similarity and all qualities")
        self.quality = {name: _worst(values[self.usable]) for name, values in pairs.items()}
        self.similarity = _worst(comparisons.similarity[self.usable])

    def _pairs(self, name: str, first: Codes, second: Codes) -> Floats:
        values = np.asarray(self.methods[name].quality, dtype=np.float64)
        if values.ndim != 1 or np.isinf(values).any():
            raise EvaluationError(f"{name}: qualities must be one finite number a sample, or NaN")
        try:
            return curves.pair_quality(values, first, second, self.options.pair_quality)
        except EvaluationError as error:
            raise EvaluationError(f"{name}: {error}") from error

    def run(self, dataset: str, recogniser: str, accuracy: Accuracy | None) -> Evaluation:
        comparisons, options = self.comparisons, self.options
        points = self._points()
        replicates = self._replicates(points)
        if replicates is not None:
            points = [
                replace(point, fnmr0_interval=curves.interval(rates, options.level))
                for point, rates in zip(points, replicates.fnmr0.T, strict=True)
            ]
        random = [
            curves.random_discard(
                rejected(self.similarity, point.threshold), comparisons.first[self.usable],
                comparisons.second[self.usable], options,
            )
            for point in points
        ]  # fmt: skip
        drawn = self._curves([point.threshold for point in points])
        oracle = [curves.ideal(point.errors, len(self.similarity)) for point in points]
        results = [
            MethodResult(
                name, method.kind, method.note, self.missing[name],
                self._figures(name, drawn[name], replicates),
            )
            for name, method in self.methods.items()
        ]  # fmt: skip
        results.append(self._random(points, random))
        figures = self._figures("oracle", oracle, replicates)
        results.append(MethodResult("oracle", "oracle", "", 0, figures))
        made = ~np.isnan(comparisons.similarity)
        return Evaluation(
            dataset, recogniser, options,
            mated=len(self.similarity), excluded=int(np.count_nonzero(~self.usable)),
            non_mated=comparisons.non_mated.total,
            non_mated_missing=comparisons.non_mated.missing,
            det=curves.det_curve(comparisons.similarity[made], comparisons.non_mated),
            accuracy=accuracy,
            points=tuple(points), methods=tuple(results), random=tuple(random),
            tests=tuple(self._tests(points, results, replicates)),
        )  # fmt: skip

    def _points(self) -> list[Point]:
        """Return the operating points with their thresholds and error rates."""
        non_mated, options, mated = self.comparisons.non_mated, self.options, len(self.similarity)
        thresholds = [("fmr", target, non_mated.at_fmr(target)) for target in options.fmr_targets]
        for start in options.fnmr_starts:
            place = int(np.ceil(start * mated * (1 - 1e-12))) - 1
            value = float(np.sort(self.similarity)[max(place, 0)])
            thresholds.append(("fnmr", start, non_mated.at_threshold(value)))
        points = []
        for kind, target, threshold in thresholds:
            errors = int(np.count_nonzero(rejected(self.similarity, threshold.value)))
            few = []
            if errors < FEW:
                few.append(f"the curve rests on {errors} false non-matches")
            if kind == "fmr" and threshold.false_matches < FEW:
                few.append(f"the threshold rests on {threshold.false_matches} false matches")
            warnings = tuple(f"{text} (at least {FEW} are recommended)" for text in few)
            points.append(
                Point(
                    kind, target, threshold.value, threshold.fmr, threshold.false_matches,
                    errors / mated, errors, warnings,
                )
            )  # fmt: skip
        return points

    def _curves(self, thresholds: Sequence[float]) -> dict[str, list[Curve]]:
        """Return each method's curves, one for each operating point."""
        found = {
            name: [curves.edc(rejected(self.similarity, cut), values) for cut in thresholds]
            for name, values in self.quality.items()
        }
        if self.options.edc == "fixed":
            return found
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
            found[name][: len(targets)] = curves.edc_recomputed(
                similarity[kept], mated[kept], scores[kept], targets
            )
        return found

    def _figures(
        self, name: str, drawn: Sequence[Curve], replicates: Replicates | None
    ) -> tuple[Figures, ...]:
        """Return a method's figures from its curve at each point."""
        figures = []
        for index, curve in enumerate(drawn):
            areas = [curves.area(curve, limit) for limit in self.options.limits]
            if replicates is not None:
                start = replicates.fnmr0[:, index]
                areas = [
                    self._with_intervals(one, values, start)
                    for one, values in zip(areas, replicates.areas[name][:, index].T, strict=True)
                ]
            ends = not curve.staircase and curve.discard[-1] < 0.95
            warning = f"no comparison remains above a discard share of {curve.discard[-1]:g}"
            figures.append(Figures(curve, tuple(areas), (warning,) if ends else ()))
        return tuple(figures)

    def _with_intervals(self, one: Area, values: Floats, start: Floats) -> Area:
        """Return an area with intervals from (B,) raw areas and rates before discarding."""
        relative = np.full_like(values, np.nan)
        np.divide(values, start * one.limit, out=relative, where=start > 0)
        level = self.options.level
        intervals = curves.interval(values, level), curves.interval(relative, level)
        return replace(one, interval=intervals[0], normalised_interval=intervals[1])

    def _random(self, points: Sequence[Point], random: Sequence[RandomDiscard]) -> MethodResult:
        """Return the mean of the random qualities, with intervals over the draws."""
        figures = []
        left = np.round((1 - curves.CURVE_SHARES) * len(self.similarity)).astype(np.int64)
        for point, draws in zip(points, random, strict=True):
            errors = np.round(draws.mean * left).astype(np.int64)
            best = curves.ideal(point.errors, len(self.similarity))
            areas = []
            for limit, values in zip(self.options.limits, draws.areas.T, strict=True):
                mean, start = float(values.mean()), np.full(len(values), point.fnmr0)
                normalised = mean / (point.fnmr0 * limit) if point.errors else None
                one = Area(limit, mean, normalised, mean - best.area(limit))
                areas.append(self._with_intervals(one, values, start))
            curve = Curve(curves.CURVE_SHARES, draws.mean, errors, left)
            figures.append(Figures(curve, tuple(areas)))
        return MethodResult("random", "random", "", 0, tuple(figures))

    def _replicates(self, points: Sequence[Point]) -> Replicates | None:
        """Return the bootstrap replicates; None if not requested or not possible."""
        comparisons, options = self.comparisons, self.options
        if not options.replicates or comparisons.identity is None or options.edc != "fixed":
            return None
        people = int(comparisons.identity.max()) + 1
        return curves.replicate(
            comparisons, self.similarity, self.usable, self.quality, points, options.limits,
            curves.draw_identities(people, options.replicates, options.seed),
        )  # fmt: skip

    def _tests(
        self, points: Sequence[Point], results: Sequence[MethodResult],
        replicates: Replicates | None,
    ) -> Iterator[result.PairedTest]:  # fmt: skip
        """Yield the tests of every two methods."""
        if replicates is None:
            return
        for one, two in combinations([item for item in results if item.name in self.methods], 2):
            gaps = replicates.areas[one.name] - replicates.areas[two.name]
            for index, point in enumerate(points):
                at = Operating(point.kind, point.target)
                for place, limit in enumerate(self.options.limits):
                    a, b = (item.figures[index].areas[place].raw for item in (one, two))
                    found = curves.paired_test(gaps[:, index, place], self.options.level)
                    yield result.PairedTest(one.name, two.name, at, limit, a - b, *found)


def _worst(values: Floats) -> Floats:
    """Return values with NaN replaced by -inf."""
    return np.where(np.isnan(values), -np.inf, values)


@dataclass(frozen=True)
class Agreement:
    """Scores of two tools for the N samples that both have scored.

    Attributes:
        paths: (N,) paths of the first tool.
        first, second: (N,) scores of each tool.
        first_percentile, second_percentile: (N,) in (0, 100]; equal scores share their mean.
        spearman, pearson: rank and linear correlation; None if a tool's scores are all equal.
        without: number of samples without a score (NaN) of each tool.
        match: match of the second tool's paths with the first's.
    """

    names: tuple[str, str]
    paths: tuple[str, ...]
    first: Floats
    second: Floats
    first_percentile: Floats
    second_percentile: Floats
    spearman: float | None
    pearson: float | None
    without: tuple[int, int]
    match: Match

    def movers(self, number: int = 20) -> list[dict[str, Any]]:
        """Return the samples whose percentiles differ most, largest difference first."""
        moved = self.second_percentile - self.first_percentile
        columns = ("first", "second", "first_percentile", "second_percentile")
        return [
            {"path": self.paths[row], **{name: float(getattr(self, name)[row]) for name in columns},
             "moved": float(moved[row])}
            for row in np.argsort(-np.abs(moved), kind="stable")[:number].tolist()
        ]  # fmt: skip

    def as_dict(self, movers: int = 20) -> dict[str, Any]:
        """Return a summary for JSON, without the scores."""
        match = self.match
        return {
            "names": list(self.names), "common": len(self.paths),
            "spearman": self.spearman, "pearson": self.pearson,
            "without_score": list(self.without), "only_in_first": len(match.missing),
            "only_in_second": len(match.unused), "ambiguous": len(match.ambiguous),
            "matched_by": match.rules, "movers": self.movers(movers),
        }  # fmt: skip


def agree(first: ScoreTable, second: ScoreTable) -> Agreement:
    """Compare two tools' scores of the same samples; ScoresError if none has a score of both."""
    from scipy.stats import pearsonr, rankdata  # takes half a second to import

    values, match = second.match(first.paths)
    both = ~(np.isnan(first.values) | np.isnan(values))
    if not both.any():
        raise ScoresError(f"{first.name} and {second.name} have no scored photo in common")
    scores = np.array([first.values, values])[:, both]
    ranks = rankdata(scores, axis=1)
    percentile = 100 * ranks / scores.shape[1]
    is_constant = (np.ptp(scores, axis=1) == 0).any()
    spearman, pearson = (  # rounded, so that equal ranks give exactly 1
        None if is_constant else round(float(pearsonr(*pair).statistic), 15)
        for pair in (ranks, scores)
    )
    missing = np.isnan(first.values).sum(), np.isnan(values[match.index >= 0]).sum()
    return Agreement(
        (first.name, second.name), tuple(compress(first.paths, both)), scores[0], scores[1],
        percentile[0], percentile[1], spearman, pearson, (int(missing[0]), int(missing[1])), match,
    )  # fmt: skip
