"""Rows as compact JSON by column, safe inside a script tag."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from faceqan_toolkit.results.ranking import ROUNDED_DOWN, Column
from faceqan_toolkit.text import rounded_down

_UNSAFE = {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"}


def script_json(value: Any) -> Markup:
    """Return JSON in ASCII that cannot end the surrounding script tag."""
    return Markup(_safe(json.dumps(value, separators=(",", ":"))))


def columns_json(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Any]],
    more: Mapping[str, Sequence[int]] | None = None,
) -> Markup:
    """Return rows as one JSON object with a member for each column and their number as `length`.

    A column is a list of its values, {"all": value} if all are equal, or, where that is shorter,
    {"values": [...], "at": [...]} with indices into the values. Numbers have the decimals of CSV.

    Args:
        columns: columns of the leading values in each row; the other values are left out.
        rows: at least one row.
        more: additional columns of integers by name.
    """
    members = [f'"length":{len(rows)}']
    members += [
        f"{_text(column.name)}:{_values([_literal(column, row[place]) for row in rows])}"
        for place, column in enumerate(columns)
    ]
    for name, numbers in (more or {}).items():
        members.append(f"{_text(name)}:{_values([str(number) for number in numbers])}")
    return Markup("{" + ",".join(members) + "}")


def _values(literals: list[str]) -> str:
    distinct = list(dict.fromkeys(literals))
    if len(distinct) == 1:
        return f'{{"all":{distinct[0]}}}'
    if len(distinct) > len(literals) // 4:
        return f"[{','.join(literals)}]"
    place = {literal: str(index) for index, literal in enumerate(distinct)}
    at = ",".join(place[literal] for literal in literals)
    return f'{{"values":[{",".join(distinct)}],"at":[{at}]}}'


def _literal(column: Column, value: Any) -> str:
    """Return a value as JSON."""
    if value is None:
        return "null"
    if column.kind == "text":
        return _text(value if isinstance(value, str) else str(value).lower())
    if column.kind == "integer":
        return str(int(value))
    if not math.isfinite(value):
        return "null"
    if column.decimals is None:
        return repr(float(value))
    if column.name in ROUNDED_DOWN:
        value = rounded_down(value, column.decimals)
    digits = f"{value:.{column.decimals}f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _text(value: str) -> str:
    return _safe(json.dumps(value))


def _safe(text: str) -> str:
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    return text
