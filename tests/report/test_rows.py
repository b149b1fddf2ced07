"""Rows as JSON: what comes back, and what cannot get out."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.report.rows import columns_json, script_json
from faceqan_toolkit.results.ranking import Column

COLUMNS = [
    Column("text", "text", guarded=True),
    Column("whole", "integer"),
    Column("number", "number", 6),
    Column("free", "number"),
]
HOSTILE = st.sampled_from(["</script>", "<!--", "\u2028", "\u2029", "]]>", "&lt;", "\ud800", "\0"])
texts = st.one_of(st.none(), st.text(), HOSTILE, st.builds(str.__add__, st.text(), HOSTILE))
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.5, 0.25]))
rows_of_values = st.lists(
    st.tuples(texts, st.one_of(st.none(), st.integers(-5, 2**53)), numbers, numbers),
    min_size=1, max_size=40,
)  # fmt: skip


def values(encoded: Any, length: int) -> list[Any]:
    """Return a column's values as docs of `columns_json` say."""
    if isinstance(encoded, list):
        return encoded
    if "all" in encoded:
        return [encoded["all"]] * length
    return [encoded["values"][place] for place in encoded["at"]]


@given(rows_of_values)
def test_every_value_comes_back(rows: list[tuple[Any, ...]]) -> None:
    text = columns_json(COLUMNS, rows, {"more": [n % 2 for n in range(len(rows))]})
    found = json.loads(text)
    assert found["length"] == len(rows)
    decoded = [values(found[column.name], len(rows)) for column in COLUMNS]
    expected = [list(column) for column in zip(*rows, strict=True)]
    assert decoded[0] == expected[0]
    assert decoded[1] == expected[1]
    assert decoded[2] == [None if n is None else float(f"{n:.6f}") for n in expected[2]]
    assert decoded[3] == expected[3]
    assert values(found["more"], len(rows)) == [n % 2 for n in range(len(rows))]


@given(rows_of_values)
def test_nothing_ends_the_script_tag(rows: list[tuple[Any, ...]]) -> None:
    for text in (columns_json(COLUMNS, rows), script_json([list(map(repr, row)) for row in rows])):
        assert text.isascii()
        assert not set("<>&") & set(text)


def test_repeated_values_are_short() -> None:
    rows = [("no_face" if n % 2 else "unreadable", 3, None, 0.5) for n in range(1000)]
    assert len(columns_json(COLUMNS, rows)) < 2300


def test_numbers_that_are_none() -> None:
    rows = [("a", 1, float("nan"), float("inf")), ("b", 2, 0.5, 1e-9)]
    found = json.loads(columns_json(COLUMNS, rows))
    assert found["number"] == [None, 0.5]
    assert found["free"] == [None, 1e-9]
