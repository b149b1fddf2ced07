"""The table of groups in a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from faceqan_toolkit.results.groups import Grouping, GroupSummary, members, summarise
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import rounded_down

GROUP_LIMIT = 10_000
"""Most groups in a report; those with the largest share below the threshold are listed."""

FIGURES = (
    "group", "faces", "unscored", "q05", "q25", "median", "q75", "q95",
    "share", "share_low", "share_high", "difference", "difference_low", "difference_high",
)  # fmt: skip
"""Columns of the table."""

QUALITIES = ("q05", "q25", "median", "q75", "q95")
"""Columns that are qualities, so they are rounded down like thresholds."""

NONE = -1
"""Index of a photo whose group is not listed."""


@dataclass(frozen=True)
class Groups:
    """Groups in a report.

    Attributes:
        by: name of the grouping.
        below: threshold of the shares in `summaries`.
        summaries: the listed groups.
        number: number of all groups.
        places: index in `summaries` of each photo's group, by path; None if the report shows a
            sample of the rows, which cannot count shares.
    """

    by: str
    below: float | None
    summaries: list[GroupSummary]
    number: int
    places: dict[str, int] | None

    @property
    def follow(self) -> bool:
        """Whether the page updates the shares when the threshold moves."""
        return self.places is not None

    def place(self, path: str) -> int:
        """Return the index of a photo's group; `NONE` if the group is not listed."""
        return NONE if self.places is None else self.places.get(path, NONE)

    def meta(self) -> dict[str, Any]:
        """Return the data for the page's script: one row of `FIGURES` for each group."""
        rows = [[_short(name, getattr(item, name)) for name in FIGURES] for item in self.summaries]
        return {
            "by": self.by,
            "below": self.below,
            "figures": FIGURES,
            "rows": rows,
            "follow": self.follow,
        }


def page_groups(run: RunInfo, grouping: Grouping, below: float | None, *, follow: bool) -> Groups:
    """Return the groups of a run for its report.

    Args:
        run: a run with scores.
        grouping: how photos are grouped.
        below: threshold of the shares; None leaves them out.
        follow: the page holds all rows and can update the shares.

    Raises:
        RunError, SettingsError: see `results.groups.summarise`.
    """
    summaries = summarise(run, grouping, below=below)
    listed = summaries[:GROUP_LIMIT]
    places = None
    if follow:
        numbers = {item.group: number for number, item in enumerate(listed)}
        found = members(run, grouping).items()
        places = {path: numbers[group] for path, group in found if group in numbers}
    return Groups(grouping.by, below, listed, len(summaries), places)


def _short(name: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return rounded_down(value, 6) if name in QUALITIES else round(value, 6)
