"""Tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from faceqan_toolkit.cli.reporter import Reporter

GAP = 2
"""Spaces between columns."""
MOST_LINES = 3
"""Lines of a row."""
DOTS = "..."


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: header.
        cell: returns its text, or its `Cell`, of an item, see `cells_of`.
        right: align it to the right.
        least: smallest width it may be narrowed to; None never narrows it.
        is_path: shorten text in the middle instead of wrapping it.
        drop: if a table does not fit, columns with the largest number are left out first; columns
            with 0 stay.
    """

    name: str
    cell: Callable[[Any], str | Cell] = str
    right: bool = False
    least: int | None = None
    is_path: bool = False
    drop: int = 0


@dataclass(frozen=True)
class Cell:
    """A text, and a remark behind it on the same or the next lines, separated by `gap`."""

    text: str
    remark: str = ""
    gap: str = "  "

    @property
    def width(self) -> int:
        """Characters on one line."""
        return cell_len(self.whole(self.text))

    def whole(self, text: str) -> str:
        """Return a text, the cell's own or a shorter one, with the remark."""
        return f"{text}{self.gap}{self.remark}" if self.remark else text


def cells_of(columns: Sequence[Column], items: Iterable[Any]) -> list[list[Cell]]:
    """Return a row of cells for each item; a row of dots for None."""
    gap = [Cell(DOTS), *[Cell("")] * (len(columns) - 1)]
    return [
        gap if item is None
        else [Cell(one) if isinstance(one := column.cell(item), str) else one for column in columns]
        for item in items
    ]  # fmt: skip


class Layout:
    """Widths of columns.

    Args:
        columns: all columns of the table.
        rows: rows of cells, see `cells_of`.
        width: characters of a line; None to give every row one line of any length.
        above: widths of the rows above, if this continues a table.

    Attributes:
        widths: characters of each shown column, by its index in `columns`.
        dropped: names of the columns that are left out.
    """

    def __init__(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None,
        above: Mapping[int, int] | None = None,
    ) -> None:  # fmt: skip
        self._columns = columns
        wanted = {
            index: max(cell_len(column.name), (above or {}).get(index, 0),
                       *(row[index].width for row in rows), 0)
            for index, column in enumerate(columns)
        }  # fmt: skip
        least = {
            index: wanted[index] if column.least is None else min(wanted[index], column.least)
            for index, column in enumerate(columns)
        }
        self._narrow = width is not None and _line_length(wanted) > width
        self.widths = _narrowed(columns, wanted, least, width or 0) if self._narrow else wanted
        self.dropped = [one.name for index, one in enumerate(columns) if index not in self.widths]

    def lines(self, row: Sequence[Cell]) -> list[str]:
        """Return the lines of a row; in a narrow table a remark may use the room of empty cells."""
        if self._narrow and row[-1].remark and not any(cell.text.strip() for cell in row[:-1]):
            indent = next(iter(self.widths.values())) + GAP
            room = _line_length(self.widths) - indent
            return [" " * indent + line for line in _lines(row[-1], room, is_path=True)]
        columns = [
            _lines(row[index], width, is_path=self._columns[index].is_path)
            for index, width in self.widths.items()
        ]
        return [
            (" " * GAP).join(map(self._padded, self.widths, texts)).rstrip()
            for texts in zip_longest(*columns, fillvalue="")
        ]

    def _padded(self, index: int, text: str) -> str:
        spaces = " " * (self.widths[index] - cell_len(text))
        return spaces + text if self._columns[index].right else text + spaces


def _line_length(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _narrowed(
    columns: Sequence[Column], wanted: Mapping[int, int], least: Mapping[int, int], width: int
) -> dict[int, int]:
    """Return widths that fit a line: columns are narrowed, and left out if that is not enough.

    `wanted` and `least` are the columns' largest and smallest widths, `width` is the line's.
    """
    widths = dict(least)
    while _line_length(widths) > width and (first := max(columns[i].drop for i in widths)):
        widths = {index: one for index, one in widths.items() if columns[index].drop < first}
    for _ in range(width - _line_length(widths)):
        narrowed = [index for index, one in widths.items() if one < wanted[index]]
        if narrowed:
            widths[min(narrowed, key=widths.__getitem__)] += 1
    return widths


def _lines(cell: Cell, width: int, *, is_path: bool) -> list[str]:
    """Return a cell's lines, none longer than `width`."""
    text = shorten(cell.text, width) if is_path else cell.text
    whole = cell.whole(text)
    if cell_len(whole) <= width:
        return [whole]
    if cell.remark and max(cell_len(text), cell_len(cell.remark)) <= width:
        return [text, cell.remark]
    lines = [str(line).rstrip() for line in Text(whole).wrap(Console(), width, overflow="fold")]
    if len(lines) > MOST_LINES:
        last = set_cell_size(lines[MOST_LINES - 1], max(0, width - len(DOTS))).rstrip()
        lines[MOST_LINES - 1 :] = [last + DOTS]
    return lines


def shorten(text: str, width: int) -> str:
    """Return a text that fits a width, without its middle if necessary.

    Examples:
        >>> shorten("people/ann/holiday/1.jpg [0]", 20)
        'people...y/1.jpg [0]'
    """
    if cell_len(text) <= width:
        return text
    room = max(0, width - len(DOTS))
    end = room - room * 2 // 5
    tail = text
    while cell_len(tail) > end:
        tail = tail[1:]
    return set_cell_size(text, room - cell_len(tail)) + DOTS + tail


def print_table(
    console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Cell]],
    above: Mapping[int, int] | None = None,
) -> Mapping[int, int]:  # fmt: skip
    """Print a table to fit the console, or one line a row without a terminal; return its widths.

    For `rows`, see `cells_of`. `above` are the widths of rows above; None begins with the header.
    """
    layout = Layout(columns, rows, console.width if console.is_terminal else None, above)
    if above is None:
        header = layout.lines([Cell(column.name) for column in columns])
        console.print(Text("\n".join(header), "bold"))
    if rows:
        console.print(Text("\n".join(line for row in rows for line in layout.lines(row))))
    if above is None and layout.dropped:
        names = ", ".join(dict.fromkeys(layout.dropped))
        Reporter().message(f"Columns left out to fit the terminal: {names}")
    return layout.widths
