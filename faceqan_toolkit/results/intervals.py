"""Intervals for shares: how far a count from few faces can be trusted."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The normal distribution's 97.5th percentile: intervals of 95 %."""


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, each in [0, 1].

    Args:
        count: how many of them.
        total: of how many, at least 1; they are taken to be independent of each other.

    Examples:
        None of ten says little.

        >>> [round(end, 4) for end in wilson(0, 10)], [round(end, 4) for end in wilson(5, 10)]
        ([0.0, 0.2775], [0.2366, 0.7634])

    Source: Wilson, JASA 1927, the score interval without continuity correction.
    """
    share = count / total
    centre = share + Z95**2 / (2 * total)
    reach = Z95 * math.sqrt(share * (1 - share) / total + Z95**2 / (4 * total**2))
    scale = 1 + Z95**2 / total
    low, high = (centre - reach) / scale, (centre + reach) / scale
    # exact at the ends, where rounding would leave the share itself outside
    return (0.0 if count == 0 else low), (1.0 if count == total else high)


def difference(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float, float]:
    """Return the difference of two shares, first minus second, and its 95 % interval.

    Args:
        first, second: count and total of each, independent of each other.

    Source: Newcombe, Statistics in Medicine 1998, method 10, from two Wilson intervals.
    """
    one, other = first[0] / first[1], second[0] / second[1]
    (low_1, high_1), (low_2, high_2) = wilson(*first), wilson(*second)
    apart = one - other
    return (
        apart,
        apart - math.hypot(one - low_1, high_2 - other),
        apart + math.hypot(high_1 - one, other - low_2),
    )
