"""Options of an evaluation and their checks. Imports no numpy, which help would wait for."""

from __future__ import annotations

from dataclasses import dataclass

from faceqan_toolkit.errors import SettingsError

EDC_VARIANTS = ("fixed", "recompute")
FTE_RULES = ("exclude", "worst")
PAIR_QUALITIES = ("min", "mean", "product")
TEMPLATE_QUALITIES = ("min", "mean", "max")
FIGURE_FORMATS = ("pdf", "svg", "png")


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
    """Options of error-versus-discard curves; SettingsError for a value out of its range.

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
