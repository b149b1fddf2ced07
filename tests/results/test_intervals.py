"""Intervals of shares against SciPy and published figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from faceqan_toolkit.results.groups import difference, wilson

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson(count: tuple[int, int]) -> None:
    expected = binomtest(*count).proportion_ci(0.95, method="wilson")
    assert wilson(*count) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_differences(first, second, expected) -> None:
    apart, low, high = difference(first, second)
    assert apart == first[0] / first[1] - second[0] / second[1]
    assert (low, high) == pytest.approx(expected, abs=6e-5)


@given(counts, counts)
def test_exchanging_them_changes_the_sign(first, second) -> None:
    apart, low, high = difference(first, second)
    assert difference(second, first) == pytest.approx((-apart, -high, -low))
    assert low <= apart <= high
