"""Agreement of two tools: rank correlation of their scores of the same photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import ScoresError
from faceqan_toolkit.evaluation.path_matching import Match
from faceqan_toolkit.evaluation.score_files import ScoreTable


@dataclass(frozen=True)
class Agreement:
    """Scores of two tools for the N samples that both have scored.

    Attributes:
        names: names of the two tools.
        paths: (N,) paths of the first tool.
        first: (N,) float64 scores of the first tool.
        second: (N,) float64 scores of the second tool.
        first_percentile: (N,) percentiles in (0, 100]; equal scores share their mean.
        second_percentile: (N,) percentiles of the second tool.
        spearman: rank correlation in [-1, 1]; None if a tool's scores are all equal.
        pearson: linear correlation in [-1, 1]; None if a tool's scores are all equal.
        without: number of samples without a score (NaN) of each tool.
        match: match of the second tool's paths with the first's.
    """

    names: tuple[str, str]
    paths: tuple[str, ...]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    first_percentile: NDArray[np.float64]
    second_percentile: NDArray[np.float64]
    spearman: float | None
    pearson: float | None
    without: tuple[int, int]
    match: Match

    def movers(self, number: int = 20) -> list[dict[str, Any]]:
        """Return the samples whose percentiles differ most, largest difference first."""
        moved = self.second_percentile - self.first_percentile
        return [
            {
                "path": self.paths[row],
                "first": float(self.first[row]),
                "second": float(self.second[row]),
                "first_percentile": float(self.first_percentile[row]),
                "second_percentile": float(self.second_percentile[row]),
                "moved": float(moved[row]),
            }
            for row in np.argsort(-np.abs(moved), kind="stable")[:number].tolist()
        ]

    def as_dict(self, movers: int = 20) -> dict[str, Any]:
        """Return a summary as plain values, for JSON, without the scores."""
        return {
            "names": list(self.names),
            "common": len(self.paths),
            "spearman": self.spearman,
            "pearson": self.pearson,
            "without_score": list(self.without),
            "only_in_first": len(self.match.missing),
            "only_in_second": len(self.match.unused),
            "ambiguous": len(self.match.ambiguous),
            "matched_by": self.match.rules,
            "movers": self.movers(movers),
        }


def agree(first: ScoreTable, second: ScoreTable) -> Agreement:
    """Compare two tools' scores of the same samples.

    Raises:
        ScoresError: no sample has a score of both.
    """
    from scipy.stats import rankdata

    values, match = second.match(first.paths)
    both = ~(np.isnan(first.values) | np.isnan(values))
    if not both.any():
        raise ScoresError(f"{first.name} and {second.name} have no scored photo in common")
    a, b = first.values[both], values[both]
    ranks = [rankdata(scores) for scores in (a, b)]
    matched = match.index >= 0
    return Agreement(
        names=(first.name, second.name),
        paths=tuple(path for path, kept in zip(first.paths, both, strict=True) if kept),
        first=a,
        second=b,
        first_percentile=100 * ranks[0] / len(a),
        second_percentile=100 * ranks[1] / len(a),
        spearman=_correlation(*ranks),
        pearson=_correlation(a, b),
        without=(int(np.isnan(first.values).sum()), int(np.isnan(values[matched]).sum())),
        match=match,
    )


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Return Pearson's correlation, exactly 1 for equal values; None if undefined."""
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / spread, -1, 1)) if spread > 0 else None
