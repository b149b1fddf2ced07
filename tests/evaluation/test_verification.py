"""Comparisons, thresholds and accuracy against sorting and counting."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.verification import (
    Comparisons,
    NonMatedCollector,
    allowed,
    fold_accuracy,
    rejected,
)
from tests.evaluation.synthetic import collect, non_mated, world

SIMILARITIES = st.lists(st.sampled_from([-0.5, -0.1, 0.0, 0.1, 0.2, 0.3, 0.7]), min_size=1)
TARGETS = st.sampled_from([1e-4, 0.05, 0.1, 0.29, 1 / 3, 0.5, 0.9])


def smallest_threshold(values: list[float], target: float) -> float:
    """Try every similarity: below the smallest one everything is accepted."""
    return min(t for t in values if sum(v > t for v in values) / len(values) <= target)


@given(SIMILARITIES, TARGETS)
def test_threshold_is_the_smallest_that_keeps_the_target(
    values: list[float], target: float
) -> None:
    threshold = non_mated(values).at_fmr(target)
    assert threshold.value == smallest_threshold(values, target)
    assert threshold.fmr <= target
    assert threshold.false_matches == sum(value > threshold.value for value in values)


def test_threshold_by_hand() -> None:
    others = non_mated([0.1, 0.5, 0.2, 0.5, 0.3, 0.0, 0.4, 0.1, 0.2, 0.6])
    # descending: .6 .5 .5 .4 .3 .2 .2 .1 .1 .0
    assert others.at_fmr(0.05).value == 0.6
    assert others.at_fmr(0.1).value == 0.5
    assert (others.at_fmr(0.2).value, others.at_fmr(0.2).fmr) == (0.5, 0.1)
    assert (others.at_fmr(0.3).value, others.at_fmr(0.3).fmr) == (0.4, 0.3)


@given(TARGETS, st.integers(1, 10**9))
def test_allowed_counts(target: float, total: int) -> None:
    count = int(allowed(target, total))
    assert count / total <= target < (count + 1) / total
    assert abs(count - Fraction(target) * total) <= 1


def test_allowed_counts_are_not_a_rounding_error_short() -> None:
    assert int(allowed(0.29, 100)) == 29  # 0.29 * 100 is 28.999999999999996


@settings(deadline=None)
@given(
    st.lists(st.integers(-20, 20), min_size=5, max_size=200), st.integers(1, 60), st.integers(1, 40)
)
def test_streaming_keeps_the_largest(numbers: list[int], keep: int, block: int) -> None:
    values = np.array(numbers) / 20
    index = np.arange(len(values))
    blocks = [
        (values[s : s + block], index[s : s + block], index[s : s + block])
        for s in range(0, len(values), block)
    ]
    top = collect(blocks, keep=keep)
    ranked = np.sort(values)[::-1]
    assert top.similarity.tolist() == ranked[:keep].tolist()
    assert values[top.first].tolist() == top.similarity.tolist()
    assert top.total == len(values)
    assert top.floor == (ranked[keep] if keep < len(values) else -np.inf)
    assert top.histogram.sum() == len(values)
    for target in (0.02, 0.1, 0.3, 0.6):
        place = int(allowed(target, len(values)))
        if place <= keep:
            assert top.at_fmr(target) == non_mated(values).at_fmr(target)
        else:
            with pytest.raises(EvaluationError, match="were kept"):
                top.at_fmr(target)


def test_counts_below_what_was_kept_are_close() -> None:
    values = np.random.default_rng(0).normal(0, 0.2, 50_000)
    top = collect([(values, np.zeros(50_000, int), np.zeros(50_000, int))], keep=500)
    at = np.array([-1.5, -0.9, -0.2, 0.0, 0.1, 0.3, top.floor, 0.5, 2.0])
    exact = (values[None] > at[:, None]).sum(axis=1)
    assert np.abs(top.count_above(at) - exact).max() < 30
    assert top.count_above(at[6:]).tolist() == exact[6:].tolist()
    assert top.at_threshold(-np.inf).false_matches == 50_000


def test_pairs_of_identities_are_counted() -> None:
    seen = world(8)
    other = ~seen.mated
    parts = np.array_split(np.flatnonzero(other), 7)
    collector = NonMatedCollector(3, seen.identity)
    for part in parts:
        collector.add(seen.similarity[part], seen.first[part], seen.second[part])
    expected = np.zeros((8, 8), int)
    for one, two in zip(seen.first[other], seen.second[other], strict=True):
        expected[tuple(sorted((seen.identity[one], seen.identity[two])))] += 1
    assert (collector.result().identity_pairs.toarray() == expected).all()


def test_missing_similarities_are_counted_and_left_out() -> None:
    top = collect([([0.1, np.nan, 0.3], [0, 1, 2], [3, 4, 5])])
    assert (top.total, top.missing) == (2, 1)
    assert top.similarity.tolist() == [0.3, 0.1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity": [0.1, np.inf]}, "infinite"),
        ({"similarity": ["a", "b"]}, "must be numbers"),
        ({"similarity": [[0.1, 0.2]]}, "one-dimensional"),
        ({"first": [0]}, "first has shape"),
        ({"first": [0.0, 2.0]}, "sample indices"),
        ({"second": [-1, 3]}, "negative"),
        ({"mated": [1, 0]}, "booleans"),
        ({"mated": [False, False], "identity": None}, "no mated"),
        ({"identity": ["a", "b", "c", "d"]}, "mated pair with two identities"),
        ({"identity": ["a", "a", "c", "c"]}, "non-mated pair with one identity"),
        ({"identity": ["a", "a", "c"]}, "no identity"),
        ({"identity": ["a"]}, "no identity"),
    ],
)
def test_bad_input_is_refused(changes: dict, message: str) -> None:
    given_ = {"similarity": [0.9, 0.1], "mated": np.array([True, False]),
              "first": [0, 2], "second": [1, 3], "identity": ["a", "a", "b", "c"]}  # fmt: skip
    Comparisons.of(**given_)
    given_ |= changes
    given_["mated"] = np.array(given_["mated"])
    with pytest.raises(EvaluationError, match=message):
        Comparisons.of(**given_)


def test_bad_targets_are_refused() -> None:
    for target in (0, 1, -0.1, 2, float("nan")):
        with pytest.raises(SettingsError, match="between 0 and 1"):
            non_mated([0.1]).at_fmr(target)
    with pytest.raises(EvaluationError, match="no non-mated"):
        non_mated([]).at_fmr(0.1)
    with pytest.raises(SettingsError, match="at least one"):
        NonMatedCollector(0)


def test_rejection_is_at_or_below_the_threshold() -> None:
    values = np.array([0.1, 0.2, 0.3, np.nan, -np.inf])
    assert rejected(values, 0.2).tolist() == [True, True, False, True, True]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=6, max_size=30))
def test_accuracy_against_every_threshold(rows: list[tuple[int, bool]]) -> None:
    values = np.array([row[0] for row in rows]) / 5
    mated = np.array([row[1] for row in rows])
    fold = np.arange(len(rows)) % 3
    found = fold_accuracy(values, mated, fold)
    for name in range(3):
        train = fold != name
        cuts = np.array([-2.0, *np.unique(values[train])])
        right = [np.mean((values[train] > cut) == mated[train]) for cut in cuts]
        chosen = found.thresholds[name]
        assert np.mean((values[train] > chosen) == mated[train]) == max(right)
        test = ~train
        assert found.by_fold[name] == np.mean((values[test] > chosen) == mated[test])
    assert found.mean == pytest.approx(np.mean(found.by_fold))


def test_accuracy_by_hand() -> None:
    values = np.array([0.9, 0.1, 0.8, 0.2, 0.45, np.nan])
    mated = np.array([True, False, True, False, True, True])
    found = fold_accuracy(values, mated, [0, 0, 1, 1, 2, 2])
    # 0: halfway between .2 and .45; 1: between .1 and .45; 2: between .2 and .8
    assert found.thresholds.tolist() == pytest.approx([0.325, 0.275, 0.5])
    assert found.by_fold.tolist() == [1, 1, 0]
    assert found.standard_error == pytest.approx(1 / 3)


def test_bad_folds_are_refused() -> None:
    with pytest.raises(EvaluationError, match="two folds"):
        fold_accuracy([0.1, 0.2], [True, False], [0, 0])
    with pytest.raises(EvaluationError, match="differ in length"):
        fold_accuracy([0.1, 0.2], [True], [0, 1])
    with pytest.raises(EvaluationError, match="only one fold has similarities"):
        fold_accuracy([np.nan, 0.2], [True, False], [0, 1])
