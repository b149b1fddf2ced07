"""Evaluates quality methods on the comparisons of one data set by one recognition model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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
from faceqan_toolkit.evaluation.comparisons import Bools, Comparisons, Floats, check_target
from faceqan_toolkit.evaluation.edc import (
    PAIR_QUALITIES,
    Area,
    Curve,
    RandomDiscard,
    area,
    check_limit,
    edc,
    edc_recomputed,
    ideal,
    pair_quality,
    random_discard,
)
from faceqan_toolkit.evaluation.verification import Accuracy, Det, det_curve, rejected

FEW = 30
"""Fewer errors than this behind a figure earn it a warning."""

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3)
"""Discard shares at which the summary states the FNMR."""

KINDS = ("quality", "simple", "oracle", "random")


@dataclass(frozen=True)
class EvaluationOptions:
    """How curves are made; every output states them.

    Attributes:
        edc: "fixed" or "recompute".
        fte: comparisons without an embedding or a quality: "exclude" leaves them out and counts
            them; "worst" counts them among the errors (no embedding) and discards them first.
        pair_quality: "min", "mean" or "product".
        template_quality: how a template's quality came from its images', a word for the
            outputs; None where samples are images.
        fmr_targets: of the thresholds.
        fnmr_starts: further thresholds, chosen so that this FNMR is reached at discard 0.
        limits: discard shares up to which areas are taken.
        replicates: of the bootstrap; 0 for no intervals.
        level: of the intervals.
        draws: of random qualities.
        seed: of bootstrap and random qualities.

    Raises:
        SettingsError: a value makes no sense.
    """

    edc: str = "fixed"
    fte: str = "exclude"
    pair_quality: str = "min"
    template_quality: str | None = None
    fmr_targets: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    fnmr_starts: tuple[float, ...] = (0.05,)
    limits: tuple[float, ...] = (0.2, 0.3, 1.0)
    replicates: int = 1000
    level: float = 0.95
    draws: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for value, choices, what in (
            (self.edc, ("fixed", "recompute"), "edc"),
            (self.fte, ("exclude", "worst"), "fte"),
            (self.pair_quality, PAIR_QUALITIES, "pair quality"),
        ):
            if value not in choices:
                raise SettingsError(f"{what} must be one of {', '.join(choices)}, not {value!r}")
        for rate in (*self.fmr_targets, *self.fnmr_starts, self.level):
            check_target(rate)
        for rates in (self.fmr_targets, self.fnmr_starts):
            if len({f"{rate:g}" for rate in rates}) < len(rates):
                raise SettingsError("an error rate is given twice")
        for limit in self.limits:
            check_limit(limit)
        if not self.fmr_targets or not self.limits:
            raise SettingsError("at least one FMR target and one limit are needed")
        if self.replicates < 0 or self.draws < 1:
            raise SettingsError("replicates must be at least 0 and draws at least 1")


@dataclass(frozen=True)
class Method:
    """Qualities of the samples by one method.

    Attributes:
        quality: (N,) larger is better; NaN for none.
        kind: "quality", or "simple" for face size, sharpness and the like, drawn thinner.
        note: a word for the outputs, e.g. "S" for the recogniser's own model, "C" for another.
    """

    quality: ArrayLike
    kind: str = "quality"
    note: str = ""


@dataclass(frozen=True)
class Point:
    """An operating point and what it does before anything is discarded.

    Attributes:
        kind: "fmr" or "fnmr", what the target is.
        target: that rate.
        threshold: comparisons with a greater similarity are accepted.
        fmr: achieved false match rate; of an FNMR target to the histogram's precision where
            not all non-mated comparisons were kept.
        false_matches: behind it.
        fnmr0: false non-match rate.
        errors: false non-matches behind it.
        warnings: where few errors stand behind a figure.
    """

    kind: str
    target: float
    threshold: float
    fmr: float
    false_matches: int
    fnmr0: float
    errors: int
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """Short name, e.g. "FMR 0.001"."""
        return f"{self.kind.upper()} {self.target:g}"


@dataclass(frozen=True)
class Figures:
    """A method at one operating point.

    Attributes:
        curve: the error-versus-discard curve; for "random" the mean of its draws.
        areas: one for each limit.
        intervals: of the raw areas, each or None.
        normalised_intervals: of the normalised ones.
        warnings: of this curve.
    """

    curve: Curve
    areas: tuple[Area, ...]
    intervals: tuple[Interval | None, ...]
    normalised_intervals: tuple[Interval | None, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodResult:
    """A method at all operating points.

    Attributes:
        name: as given; "oracle" and "random" are the baselines.
        kind: one of `KINDS`.
        note: as given.
        missing: mated comparisons for which it has no quality.
        figures: one for each point.
    """

    name: str
    kind: str
    note: str
    missing: int
    figures: tuple[Figures, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything about one data set and recogniser.

    Attributes:
        dataset: name.
        recogniser: name of the recognition model.
        options: how it was made.
        mated: mated comparisons behind the curves.
        excluded: mated comparisons left out.
        non_mated: non-mated comparisons behind the thresholds.
        non_mated_missing: those without a similarity.
        det: of the recogniser, comparisons without a similarity left out.
        accuracy: of the recogniser over folds, if the protocol has any.
        points: operating points.
        fnmr0_intervals: one for each point, or None.
        methods: in the order given, then "random" and "oracle".
        random: one for each point.
        tests: between every two methods, at every point and limit.
    """

    dataset: str
    recogniser: str
    options: EvaluationOptions
    mated: int
    excluded: int
    non_mated: int
    non_mated_missing: int
    det: Det
    accuracy: Accuracy | None
    points: tuple[Point, ...]
    fnmr0_intervals: tuple[Interval | None, ...]
    methods: tuple[MethodResult, ...]
    random: tuple[RandomDiscard, ...]
    tests: tuple[PairedTest, ...]

    @property
    def title(self) -> str:
        """Data set and recogniser."""
        return f"{self.dataset}, {self.recogniser}"

    def point(self, fmr: float) -> int:
        """Return the index of an FMR target.

        Raises:
            SettingsError: it was not evaluated.
        """
        for index, point in enumerate(self.points):
            if point.kind == "fmr" and point.target == fmr:
                return index
        raise SettingsError(f"FMR {fmr:g} was not evaluated on {self.title}")

    def limit(self, share: float) -> int:
        """Return the index of a limit.

        Raises:
            SettingsError: areas to that share were not taken.
        """
        if share not in self.options.limits:
            raise SettingsError(f"areas up to {share:g} were not taken on {self.title}")
        return self.options.limits.index(share)

    def method(self, name: str) -> MethodResult:
        """Return a method's result.

        Raises:
            SettingsError: there is none of that name.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise SettingsError(f"no method {name!r} on {self.title}")

    def to_dict(self) -> dict[str, Any]:
        """Return what `summary.json` says of it: plain types, None for what does not exist."""
        accuracy = self.accuracy
        return {
            "dataset": self.dataset,
            "recogniser": self.recogniser,
            "options": _plain(asdict(self.options)),
            "comparisons": {
                "mated": self.mated,
                "mated_excluded": self.excluded,
                "non_mated": self.non_mated,
                "non_mated_missing": self.non_mated_missing,
            },
            "verification": {
                "eer": self.det.eer,
                "accuracy": accuracy and accuracy.mean,
                "accuracy_standard_error": accuracy and accuracy.standard_error,
            },
            "methods": {method.name: self._method(method) for method in self.methods},
            "tests": [_plain(asdict(test)) for test in self.tests],
        }

    def _method(self, method: MethodResult) -> dict[str, Any]:
        rows: dict[str, dict[str, Any]] = {"fmr": {}, "fnmr": {}}
        for point, start, figures in zip(
            self.points, self.fnmr0_intervals, method.figures, strict=True
        ):
            rows[point.kind][f"{point.target:g}"] = {
                "threshold": point.threshold if np.isfinite(point.threshold) else None,
                "achieved_fmr": point.fmr,
                "false_matches": point.false_matches,
                "errors": point.errors,
                "mated": self.mated,
                "fnmr0": point.fnmr0,
                "fnmr0_interval": start and asdict(start),
                "fnmr": {
                    f"{share:g}": float(rate)
                    for share, rate in zip(SHARES, figures.curve.at(SHARES), strict=True)
                },
                "pauc": {
                    f"{one.limit:g}": {
                        "raw": one.raw,
                        "normalised": one.normalised,
                        "gap": one.gap,
                        "interval": raw and asdict(raw),
                        "normalised_interval": normalised and asdict(normalised),
                    }
                    for one, raw, normalised in zip(
                        figures.areas,
                        figures.intervals,
                        figures.normalised_intervals,
                        strict=True,
                    )
                },
                "warnings": [*point.warnings, *figures.warnings],
            }
        return {
            "kind": method.kind,
            "note": method.note,
            "missing": method.missing,
            "targets": rows["fmr"],
            "fnmr_starts": rows["fnmr"],
        }


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
        thresholds = [point.threshold for point in points]
        replicates = self._replicates(points)
        curves = self._curves(thresholds)
        random = tuple(
            random_discard(
                rejected(self.similarity, threshold),
                comparisons.first[self.usable],
                comparisons.second[self.usable],
                options.limits,
                draws=options.draws,
                how=options.pair_quality,
                seed=options.seed,
            )
            for threshold in thresholds
        )
        results = [
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
        results.append(self._random(points, random))
        results.append(
            MethodResult(
                "oracle", "oracle", "", 0,
                tuple(
                    self._figures(
                        ideal(point.errors, len(self.similarity)),
                        None if replicates is None else replicates.ideal, replicates, index,
                    )
                    for index, point in enumerate(points)
                ),
            )
        )  # fmt: skip
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


def _plain(value: Any) -> Any:
    """Return a value of JSON's types."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
