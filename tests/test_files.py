"""JSON and paths that come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.files import is_file, is_folder, parse_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**63, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_what_json_writes_comes_back(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    ["", "{", "[NaN]", "-Infinity", "1e999", "[-1e999]", str(2**63), "1" * 5000, "[" * 100_000,
     b"\xff"],
)  # fmt: skip
def test_what_no_reader_could_use(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whose words they are does not matter
        parse_json(text)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "nowhere"])
def test_names_that_no_file_system_takes_are_no_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").touch()
    assert not is_file(tmp_path / name)
    assert not is_folder(tmp_path / name)
    assert is_file(tmp_path / "a")
    assert is_folder(tmp_path)
