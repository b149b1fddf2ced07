"""CSV cells that spreadsheets leave alone."""

from __future__ import annotations

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.cells import FORMULA_STARTS, guard, guard_sql, unguard

texts = st.text() | st.builds(str.__add__, st.sampled_from(FORMULA_STARTS), st.text())


@given(texts)
def test_text_comes_back_and_is_harmless(text: str) -> None:
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(texts.filter(lambda text: "\0" not in text and text.isprintable()))
def test_sql_guards_the_same(text: str) -> None:
    (found,) = duckdb.execute(f"SELECT {guard_sql('t')} FROM (SELECT ? AS t)", [text]).fetchone()
    assert found == guard(text)
