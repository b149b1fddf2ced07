"""Colours and dashes of the lines in figures and on the page: no two lines look the same.

The colours are those of Okabe and Ito, which colour-blind people can tell apart. The dashes differ
as well, so that a grey print can be read. Black is the oracle's alone.
"""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLACK, GREY = "#000000", "#6E6E6E"

Dashes = tuple[float, ...]
DASHES: tuple[Dashes, ...] = (
    (), (5, 1.5), (5, 1.5, 1, 1.5), (2.5, 1.2), (9, 2), (5, 1.5, 1, 1.5, 1, 1.5),
    (2.5, 1.2, 1, 1.2), (9, 2, 2.5, 2), (9, 2, 1, 2), (5, 1.5, 2.5, 1.5), (9, 2, 1, 2, 1, 2),
    (9, 2, 2.5, 2, 2.5, 2),
)  # fmt: skip
"""Lengths of strokes and gaps in units of the line's width; empty for a solid line."""

ORACLE: Dashes = (1, 1.2)
RANDOM: Dashes = (1, 3)


def pen(index: int) -> tuple[int, int]:
    """Return the indices of the colour and of the dashes of the n-th method, each pair once."""
    turn, dashes = divmod(index, len(DASHES))
    return (dashes + turn) % len(COLOURS), dashes
