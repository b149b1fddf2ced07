"""What an evaluation is asked for. No numpy: the command line shows choices and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from faceqan_toolkit.errors import SettingsError

PROTOCOLS = ("lfw", "xqlfw", "cfp-fp", "bin", "ijbc", "pairs", "folders")
FACES = {"lfw": "central", "xqlfw": "central", "cfp-fp": "largest", "pairs": "largest",
         "folders": "largest"}  # fmt: skip
"""Which face of a photo shows its person, one of `settings.FACE_POLICIES`. Of LFW's photos, which
are centred on their person, the largest face is a bystander's in 42 of 3,811. The other protocols'
faces are given: aligned crops, or landmarks."""
EDC_VARIANTS = ("fixed", "recompute")
FTE_RULES = ("exclude", "worst")
PAIR_QUALITIES = ("min", "mean", "product")
TEMPLATE_QUALITIES = ("min", "mean", "max")
FIGURE_FORMATS = ("pdf", "svg", "png")


def check_target(target: float, name: str = "fmr") -> None:
    """Raise SettingsError, with the option's name, unless an error rate lies in (0, 1)."""
    if not 0 < target < 1:
        raise SettingsError(f"{name} is {target}; it must be between 0 and 1")


def check_limit(limit: float) -> None:
    """Raise SettingsError unless a discard share lies in (0, 1]."""
    if not 0 < limit <= 1:
        raise SettingsError(f"a discard share must lie above 0 and at most at 1, not {limit}")


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
            (self.edc, EDC_VARIANTS, "edc"),
            (self.fte, FTE_RULES, "fte"),
            (self.pair_quality, PAIR_QUALITIES, "pair quality"),
        ):
            if value not in choices:
                raise SettingsError(f"{what} must be one of {', '.join(choices)}, not {value!r}")
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
