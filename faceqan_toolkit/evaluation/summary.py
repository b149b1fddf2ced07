"""What the evaluation of quality methods on one data set is given, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.bootstrap import Interval, PairedTest
from faceqan_toolkit.evaluation.edc import Area, Curve, RandomDiscard
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.verification import Accuracy, Det
from faceqan_toolkit.rounding import exact_text, shortest_between

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3)
"""Discard shares at which the summary states the FNMR."""


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
        kind: "quality" or "simple", as given; "oracle" and "random" for those.
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

    def rates(self, point: Point) -> tuple[str, str]:
        """Return the achieved FMR and the FNMR before discarding of an operating point.

        As `--fmr` and `--fnmr-start` each chooses the same threshold again.
        """
        decimals = max(0, 2 - math.floor(math.log10(point.fmr))) if point.fmr else 0
        next_fmr = (point.false_matches + 1) / self.non_mated
        fmr = -shortest_between(-next_fmr, -point.fmr, decimals)
        fnmr = shortest_between((point.errors - 1) / self.mated, point.fnmr0)
        return exact_text(fmr), exact_text(fnmr, 4)

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


def _plain(value: Any) -> Any:
    """Return a value of JSON's types."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
