"""Options, methods and results of an evaluation; results as JSON. Imports no numpy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.text import exact_text, shortest_between

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from faceqan_toolkit.evaluation.curves import Curve, Det, RandomDiscard
    from faceqan_toolkit.evaluation.verification import Accuracy

EDC_VARIANTS = ("fixed", "recompute")
FTE_RULES = ("exclude", "worst")
PAIR_QUALITIES = ("min", "mean", "product")
TEMPLATE_QUALITIES = ("min", "mean", "max")
FIGURE_FORMATS = ("pdf", "svg", "png")
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3)
"""Discard shares of the FNMR in the summary."""


def check_target(target: float, name: str = "fmr") -> None:
    """Raise SettingsError, naming the option, unless a rate is in (0, 1)."""
    if not 0 < target < 1:
        raise SettingsError(f"{name} is {target}; it must be between 0 and 1")


def check_limit(limit: float) -> None:
    """Raise SettingsError unless a discard share is in (0, 1]."""
    if not 0 < limit <= 1:
        raise SettingsError(f"a discard share must be above 0 and at most 1, not {limit}")


def check_choice(value: str, choices: tuple[str, ...], what: str) -> None:
    """Raise SettingsError unless a value is one of the choices."""
    if value not in choices:
        raise SettingsError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of error-versus-discard curves; all results state them.

    Attributes:
        edc: "fixed" or "recompute", see `curves`.
        fte: rule for comparisons without an embedding or a quality (failure to enrol): "exclude"
            leaves them out and counts them; "worst" discards them first, and counts those without
            an embedding as errors.
        pair_quality: quality of a comparison from its two qualities: "min", "mean" or "product".
        template_quality: quality of a template from its photos': "min", "mean" or "max"; None if
            samples are compared.
        fmr_targets: FMR targets of the thresholds, in (0, 1).
        fnmr_starts: FNMR before discarding of further thresholds, in (0, 1).
        limits: discard shares at which the areas end, in (0, 1].
        replicates: number of bootstrap replicates; 0 for no intervals.
        level: confidence level of the intervals, in (0, 1).
        draws: number of random qualities.
        seed: random seed of the bootstrap and the random qualities.

    Raises:
        SettingsError: a value is out of its range.
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
        check_choice(self.edc, EDC_VARIANTS, "edc")
        check_choice(self.fte, FTE_RULES, "fte")
        check_choice(self.pair_quality, PAIR_QUALITIES, "pair quality")
        check_target(self.level, "level")
        for name, rates in (("fmr", self.fmr_targets), ("fnmr-start", self.fnmr_starts)):
            for rate in rates:
                check_target(rate, name)
            if len({f"{rate:g}" for rate in rates}) < len(rates):
                raise SettingsError(f"{name}: a rate is given twice")
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
        quality: (N,) qualities, higher is better; NaN for none.
        kind: "quality", or "simple" for face size, sharpness and so on, drawn thinner.
        note: short note in results, e.g. "S" for the recogniser's own model, "C" for another one.
    """

    quality: ArrayLike
    kind: str = "quality"
    note: str = ""


@dataclass(frozen=True)
class Interval:
    """Percentile interval at a confidence level; `undefined` replicates are left out."""

    low: float
    high: float
    level: float
    undefined: int


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
class Point(Operating):
    """An operating point and its error rates before discarding.

    Attributes:
        threshold: similarity threshold; comparisons with a greater similarity are accepted.
        fmr: achieved false match rate; below the kept similarities it is estimated.
        fnmr0: false non-match rate.
        errors: number of false non-matches.
        warnings: figures that rest on few errors.
        fnmr0_interval: interval of `fnmr0`, or None.
    """

    threshold: float
    fmr: float
    false_matches: int
    fnmr0: float
    errors: int
    warnings: tuple[str, ...]
    fnmr0_interval: Interval | None = None

    @property
    def name(self) -> str:
        """Short name, e.g. "FMR 0.001"."""
        return f"{self.kind.upper()} {self.target:g}"


@dataclass(frozen=True)
class Area:
    """Partial area under a curve (pAUC).

    Attributes:
        limit: discard share at which the area ends.
        raw: area from 0 to `limit`, in [0, limit].
        normalised: raw / (FNMR(0) * limit), 1 if discarding does not help; None if FNMR(0) is 0.
        gap: raw minus the area of the ideal curve; 0 is the best.
        interval: interval of `raw`, or None.
        normalised_interval: interval of `normalised`, or None.
    """

    limit: float
    raw: float
    normalised: float | None
    gap: float
    interval: Interval | None = None
    normalised_interval: Interval | None = None


@dataclass(frozen=True)
class Figures:
    """A method at one operating point.

    Attributes:
        curve: error-versus-discard curve; for "random" the mean of the draws.
        areas: area up to each limit.
        warnings: warnings about this curve.
    """

    curve: Curve
    areas: tuple[Area, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodResult:
    """A method at all operating points.

    Attributes:
        kind: "quality" or "simple"; "oracle" and "random" for the baselines of these names.
        missing: number of mated comparisons without a quality.
        figures: figures at each point.
    """

    name: str
    kind: str
    note: str
    missing: int
    figures: tuple[Figures, ...]

    @property
    def label(self) -> str:
        """Name and note."""
        return f"{self.name} ({self.note})" if self.note else self.name


@dataclass(frozen=True)
class PairedTest:
    """Paired test of two methods' areas on the same replicates.

    Attributes:
        a, b: names of the methods.
        limit: discard share at which the areas end.
        difference: raw pAUC of a minus that of b; negative if a is better.
        interval: interval of the difference, or None.
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


@dataclass(frozen=True)
class Evaluation:
    """Result of the evaluation of one data set with one recogniser.

    Attributes:
        mated, excluded: numbers of mated comparisons of the curves, and of those left out.
        non_mated, non_mated_missing: numbers of non-mated comparisons of the thresholds, and of
            those without a similarity.
        det: DET curve of the recogniser, without comparisons that have no similarity.
        accuracy: accuracy of the recogniser over folds, if there are folds.
        methods: methods in the given order, then "random" and "oracle".
        random: random baseline at each point.
        tests: paired tests of every two methods, at every point and limit.
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
    methods: tuple[MethodResult, ...]
    random: tuple[RandomDiscard, ...]
    tests: tuple[PairedTest, ...]

    @property
    def title(self) -> str:
        """Data set and recogniser."""
        return f"{self.dataset}, {self.recogniser}"

    @property
    def is_complete(self) -> bool:
        """Whether every comparison has a similarity and a quality of every method."""
        failed = self.excluded + self.non_mated_missing
        return not failed and not any(one.missing for one in self.methods)

    def point(self, fmr: float) -> int:
        """Return the index of an FMR target; SettingsError if it was not evaluated."""
        for index, point in enumerate(self.points):
            if point.kind == "fmr" and point.target == fmr:
                return index
        raise SettingsError(f"FMR {fmr:g} was not evaluated on {self.title}")

    def rates(self, point: Point) -> tuple[str, str]:
        """Return the achieved FMR and the FNMR before discarding, as text.

        They have enough digits to give the same threshold again as `--fmr` or `--fnmr-start`.
        """
        decimals = max(0, 2 - math.floor(math.log10(point.fmr))) if point.fmr else 0
        next_fmr = (point.false_matches + 1) / self.non_mated
        fmr = -shortest_between(-next_fmr, -point.fmr, decimals)
        fnmr = shortest_between((point.errors - 1) / self.mated, point.fnmr0)
        return exact_text(fmr), exact_text(fnmr, 4)

    def method(self, name: str) -> MethodResult:
        """Return a method's result; SettingsError if no method has this name."""
        for method in self.methods:
            if method.name == name:
                return method
        raise SettingsError(f"no method {name!r} on {self.title}")

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `summary.json`: plain types, None for undefined values."""
        accuracy = self.accuracy
        return {
            "dataset": self.dataset,
            "recogniser": self.recogniser,
            "options": asdict(self.options),
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
            "tests": [asdict(test) for test in self.tests],
        }

    def _method(self, method: MethodResult) -> dict[str, Any]:
        rows: dict[str, dict[str, Any]] = {"fmr": {}, "fnmr": {}}
        for point, figures in zip(self.points, method.figures, strict=True):
            rates = zip(SHARES, figures.curve.at(SHARES).tolist(), strict=True)
            areas = [asdict(area) for area in figures.areas]
            rows[point.kind][f"{point.target:g}"] = {
                "threshold": point.threshold if math.isfinite(point.threshold) else None,
                "achieved_fmr": point.fmr,
                "false_matches": point.false_matches,
                "errors": point.errors,
                "mated": self.mated,
                "fnmr0": point.fnmr0,
                "fnmr0_interval": point.fnmr0_interval and asdict(point.fnmr0_interval),
                "fnmr": {f"{share:g}": rate for share, rate in rates},
                "pauc": {f"{area.pop('limit'):g}": area for area in areas},
                "warnings": [*point.warnings, *figures.warnings],
            }
        return {
            "kind": method.kind,
            "note": method.note,
            "missing": method.missing,
            "targets": rows["fmr"],
            "fnmr_starts": rows["fnmr"],
        }
