"""Scale from 0 to 100: a fixed sigmoid of the quality for each recognition model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.weights import weights_path
from faceqan_toolkit.settings import Settings

UPPER = 84
"""Value at the 84th percentile of the reference faces; their median gets 50."""

SCALES_FILE = "scales.json"

_ATTACK = ("method", "eps", "eps_mode", "steps", "exponent", "clamp", "copies")
"""Settings besides the preset that shift the scores of a model systematically."""


@dataclass(frozen=True)
class Scale:
    """A map from quality to an integer in [0, 100], higher is better.

    The map 100 / (1 + exp((midpoint - quality) / width)), rounded to the nearest integer, has the
    form of ISO/IEC 29794-5's mappings of quality measures; its values are not ISO scores.

    Attributes:
        id: identifier of these constants; another fit gets another id.
        midpoint: the quality that becomes 50.
        width: width of the sigmoid in units of the quality, above 0.

    Raises:
        SettingsError: constants that are not finite, or a width of 0 or less.
    """

    id: str
    midpoint: float
    width: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.midpoint) and math.isfinite(self.width) and self.width > 0):
            raise SettingsError(f"the scale {self.id} needs a finite midpoint and a width above 0")

    @classmethod
    def from_quantiles(cls, name: str, median: float, upper: float) -> Scale:
        """Return the scale fitted to the median (50) and 84th percentile (84) of reference faces.

        Raise SettingsError unless `upper` is above `median`.
        """
        return cls(name, median, (upper - median) / math.log(UPPER / (100 - UPPER)))

    def of(self, quality: float) -> int:
        """Return the scale's value for a quality.

        Examples:
            >>> scale = Scale.from_quantiles("mine", median=0.6, upper=0.7)
            >>> [scale.of(quality) for quality in (0.0, 0.5, 0.6, 0.7, 1.0)]
            [0, 16, 50, 84, 100]
        """
        # exp overflows above 709
        exponent = min((self.midpoint - quality) / self.width, 700.0)
        return math.floor(100 / (1 + math.exp(exponent)) + 0.5)

    def sql(self, column: str) -> str:
        """Return DuckDB's SQL expression for the scale's values of a column of qualities."""
        exponent = f"least(({self.midpoint!r} - {column}) / {self.width!r}, 700.0)"
        return (
            f"CASE WHEN {column} IS NOT NULL "
            f"THEN CAST(floor(100 / (1 + exp({exponent})) + 0.5) AS INTEGER) END"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the scale as it is stored in `run.json`."""
        return asdict(self)


def scale_from(content: Mapping[str, Any] | None) -> Scale | None:
    """Return the scale that `Scale.as_dict` wrote, or raise SettingsError; None for None."""
    if content is None:
        return None
    try:
        return Scale(str(content["id"]), float(content["midpoint"]), float(content["width"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"not a scale: {content!r}") from error


def builtin_scale(settings: Settings, weights_sha256: str) -> Scale | None:
    """Return the scale that the package has for a run's scores; None if it has none.

    A scale applies to the presets it was fitted for, with the default attack. For
    `weights_sha256` see `FoundModel.weights`.
    """
    defaults = Settings(preset=settings.preset)
    if "quality" not in settings.stages or any(
        getattr(settings, name) != getattr(defaults, name) for name in _ATTACK
    ):
        return None
    weights = weights_sha256.partition("+")[0]
    text = weights_path(SCALES_FILE).read_text(encoding="utf-8")
    for entry in json.loads(text)["scales"]:
        if entry["weights_sha256"] == weights and settings.preset in entry["presets"]:
            return scale_from(entry)
    return None
