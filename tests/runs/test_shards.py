"""Shards: every photo in one, whatever else there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.runs.shards import Shard


@given(st.text(max_size=30), st.integers(1, 50))
def test_every_photo_is_in_one_shard(path: str, total: int) -> None:
    assert sum(Shard(number, total).has(path) for number in range(1, total + 1)) == 1


def test_shards_are_about_equal() -> None:
    counts = [
        sum(Shard(number, 8).has(f"person/{photo}.jpg") for photo in range(8000))
        for number in range(1, 9)
    ]
    assert all(900 < count < 1100 for count in counts)


def test_the_split_stays_as_it_is() -> None:
    """Machines with other versions must agree."""
    found = "".join(
        str(next(number for number in range(1, 5) if Shard(number, 4).has(f"{letter}.jpg")))
        for letter in "abcdefghé"
    )
    assert found == "233434121"


@pytest.mark.parametrize(
    ("text", "message"),
    [("0/4", "1..4"), ("5/4", "1..4"), ("1/0", "1..0"), ("1", "2/8"), ("a/b", "2/8"), ("", "2/8"),
     ("-1/4", "2/8"), ("1/4/2", "2/8")],
)  # fmt: skip
def test_what_is_no_shard(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Shard.parse(text)


def test_text() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"
