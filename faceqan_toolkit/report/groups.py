"""Groups of a run as its page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from faceqan_toolkit.results.groups import Grouping, GroupSummary, members, summarise
from faceqan_toolkit.rounding import rounded_down
from faceqan_toolkit.runs.folder import RunInfo

GROUP_LIMIT = 10_000
"""A page lists so many groups, those that lose most first."""

FIGURES = (
    "group", "faces", "unscored", "q05", "q25", "median", "q75", "q95",
    "share", "share_low", "share_high", "difference", "difference_low", "difference_high",
)  # fmt: skip
"""What the page knows of a group, in order."""

QUALITIES = ("q05", "q25", "median", "q75", "q95")
"""Those of them that can be thresholds."""

NONE = -1
"""The place of a photo whose group is not listed."""


@dataclass(frozen=True)
class Groups:
    """Groups that a page lists.

    Attributes:
        by: what they are made by.
        below: the threshold of the summaries' shares.
        summaries: of the listed ones.
        number: of all.
        places: of each photo by its path, the index of its group in `summaries`; None if the page
            holds a sample, which cannot count shares.
    """

    by: str
    below: float | None
    summaries: list[GroupSummary]
    number: int
    places: dict[str, int] | None

    @property
    def follow(self) -> bool:
        """Whether shares follow the threshold on the page."""
        return self.places is not None

    def place(self, path: str) -> int:
        """Return the index of a photo's group, `NONE` if that is not listed."""
        return NONE if self.places is None else self.places.get(path, NONE)

    def meta(self) -> dict[str, Any]:
        """Return what the script must know: each group's figures in rows."""
        rows = [[_short(name, getattr(item, name)) for name in FIGURES] for item in self.summaries]
        return {
            "by": self.by,
            "below": self.below,
            "figures": FIGURES,
            "rows": rows,
            "follow": self.follow,
        }


def page_groups(run: RunInfo, grouping: Grouping, below: float | None, *, follow: bool) -> Groups:
    """Return the groups of a run for its page.

    Args:
        run: with scores.
        grouping: what makes the groups.
        below: the threshold for shares that do not follow, None to leave them out.
        follow: the page holds all rows.

    Raises:
        RunError, SettingsError: as `groups.summarise`.
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
