"""Methods and results of an evaluation; results as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import ArrayLike

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.curves import Area, Curve, Det, Interval, Operating, RandomDiscard
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.verification import Accuracy
from faceqan_toolkit.text import exact_text, shortest_between

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3)
"""Discard shares of the FNMR in the summary."""


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
class Point(Operating):
    """An operating point and its error rates before discarding.

    Attributes:
        threshold: similarity threshold; comparisons with a greater similarity are accepted.
        fmr: achieved false match rate; below the kept similarities it is estimated.
        fnmr0: false non-match rate, with its interval or None in `fnmr0_interval`.
        errors: number of false non-matches.
        warnings: figures that rest on few errors.
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
class Figures:
    """A method at one operating point: its curve, and the area up to each limit.

    For "random" the curve is the mean of the draws.
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
    """Paired test of the areas of two methods, a and b, on the same replicates.

    Attributes:
        limit: discard share at which the areas end.
        difference: raw pAUC of a minus that of b; negative if a is better.
        interval: interval of the difference, or None.
        p_value: two-sided, of no difference, not corrected for multiple tests; None without an
            interval.
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
            "dataset": self.dataset, "recogniser": self.recogniser,
            "options": asdict(self.options),
            "comparisons": {
                "mated": self.mated, "mated_excluded": self.excluded,
                "non_mated": self.non_mated, "non_mated_missing": self.non_mated_missing,
            },
            "verification": {
                "eer": self.det.eer,
                "accuracy": accuracy and accuracy.mean,
                "accuracy_standard_error": accuracy and accuracy.standard_error,
            },
            "methods": {method.name: self._method(method) for method in self.methods},
            "tests": [asdict(test) for test in self.tests],
        }  # fmt: skip

    def _method(self, method: MethodResult) -> dict[str, Any]:
        rows: dict[str, dict[str, Any]] = {"fmr": {}, "fnmr": {}}
        for point, figures in zip(self.points, method.figures, strict=True):
            rates = zip(SHARES, figures.curve.at(SHARES).tolist(), strict=True)
            areas = [asdict(area) for area in figures.areas]
            rows[point.kind][f"{point.target:g}"] = {
                "threshold": point.threshold if math.isfinite(point.threshold) else None,
                "achieved_fmr": point.fmr, "false_matches": point.false_matches,
                "errors": point.errors, "mated": self.mated, "fnmr0": point.fnmr0,
                "fnmr0_interval": point.fnmr0_interval and asdict(point.fnmr0_interval),
                "fnmr": {f"{share:g}": rate for share, rate in rates},
                "pauc": {f"{area.pop('limit'):g}": area for area in areas},
                "warnings": [*point.warnings, *figures.warnings],
            }  # fmt: skip
        return {
            "kind": method.kind, "note": method.note, "missing": method.missing,
            "targets": rows["fmr"], "fnmr_starts": rows["fnmr"],
        }  # fmt: skip
