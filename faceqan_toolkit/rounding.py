"""Numbers as text that can be used as thresholds.

A number that is also an option (quality, percentile, confidence, face size) is printed rounded
down, never up. A row printed with 0.7614 then has a quality of at least 0.7614: as a threshold the
printed number keeps its row, and drops every row printed with a lower number. The report's
`assets/table.js` rounds in the same way.
"""

from __future__ import annotations

import math

MOST_DECIMALS = 20


def rounded_down(value: float, decimals: int) -> float:
    """Return the largest number of so many decimals that is not above a value.

    Examples:
        >>> rounded_down(0.76149, 4), rounded_down(-0.76141, 4), rounded_down(0.7614, 4)
        (0.7614, -0.7615, 0.7614)
    """
    scale = 10.0**decimals
    if not value or not math.isfinite(value * scale):
        return value
    nearest = round(value * scale)
    return (nearest - (nearest / scale > value)) / scale


def rounded_down_sql(column: str, decimals: int) -> str:
    """Return the SQL expression that does the same with a column of doubles, for DuckDB."""
    scale = f"1e{decimals:d}"
    nearest = f"round({column} * {scale})"
    return f"({nearest} - CAST({nearest} / {scale} > {column} AS INTEGER)) / {scale}"


def down_text(value: float, decimals: int) -> str:
    """Return a number rounded down to so many decimals.

    Examples:
        >>> down_text(0.89999998, 2), down_text(19.6, 0)
        ('0.89', '19')
    """
    return f"{rounded_down(value, decimals):.{decimals}f}"


def exact_text(value: float, decimals: int = 0) -> str:
    """Return the shortest text of at least so many decimals that reads back as the same number.

    Examples:
        >>> exact_text(0.5), exact_text(20.0), exact_text(0.5, 4), exact_text(0.123456, 4)
        ('0.5', '20', '0.5000', '0.123456')
    """
    for places in range(decimals, MOST_DECIMALS):
        text = f"{value:.{places}f}"
        if float(text) == value:
            return text
    return repr(value)


def shortest_between(low: float, high: float, decimals: int = 4) -> float:
    """Return a number with few decimals that is above `low` and at most `high`.

    Args:
        low, high: `low` is less than `high`.
        decimals: at least so many decimals are used, and more only if they are needed.

    Examples:
        >>> shortest_between(0.3, 0.33664), shortest_between(0.336602, 0.336641)
        (0.3366, 0.33664)
    """
    for places in range(decimals, MOST_DECIMALS):
        if (found := rounded_down(high, places)) > low:
            return found
    return high
