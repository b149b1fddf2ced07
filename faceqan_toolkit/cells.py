"""Text in CSV cells that a spreadsheet will not run as a formula, and back."""

from __future__ import annotations

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")


def guard(text: str) -> str:
    """Return text with an apostrophe before it if a spreadsheet could run it as a formula.

    Examples:
        >>> print(guard("=1+1"), guard("ann.jpg"), unguard(guard("=1+1")))
        '=1+1 ann.jpg =1+1
    """
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def unguard(cell: str) -> str:
    """Return the text `guard` was given."""
    return cell[1:] if cell.startswith("'") else cell


def guard_sql(column: str) -> str:
    """Return the SQL expression that guards a text column, for DuckDB."""
    starts = ", ".join(f"chr({ord(start)})" for start in FORMULA_STARTS)
    return f"CASE WHEN left({column}, 1) IN ({starts}) THEN chr(39) || {column} ELSE {column} END"
