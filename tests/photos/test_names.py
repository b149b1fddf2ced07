"""Names inside archives: what is taken once, and what that costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import UnreadablePhoto
from faceqan_toolkit.photos.names import Names, Numbers


@given(st.lists(st.integers(0, 600) | st.integers(0, 10**18)))
def test_numbers_are_a_set(numbers: list[int]) -> None:
    seen: set[int] = set()
    found = Numbers()
    for number in numbers:
        assert found.add(number) is (number not in seen)
        seen.add(number)


def test_the_first_of_a_name_or_key_is_taken() -> None:
    names = Names()
    assert [names.take(name) for name in ("a", "b", "a", "../a")] == [True, True, False, False]
    assert [names.take(name, key) for name, key in (("c", 1), ("d", 2), ("e", 1))] == [
        True, True, False,
    ]  # fmt: skip
    with pytest.raises(UnreadablePhoto, match=r"broken; the 4 photos .* left out 2 .* e\.g\. 'a'"):
        names.finish("broken")
