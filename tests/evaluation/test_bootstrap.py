"""Weights against copying every comparison of the people drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.bootstrap import (
    Operating,
    Replicates,
    draw_identities,
    fmr_thresholds,
    interval,
    paired_test,
    replicate,
)
from faceqan_toolkit.evaluation.curves import edc, ideal, pair_quality
from faceqan_toolkit.evaluation.verification import Comparisons, NonMated, rejected
from tests.evaluation.synthetic import World, world

POINTS = (Operating("fmr", 0.05), Operating("fmr", 0.01), Operating("fnmr", 0.1))
LIMITS = (0.2, 1.0)


def copied(seen: World, drawn: np.ndarray, sample: np.ndarray) -> World:
    """Return the comparisons of the people drawn, each draw a person of its own."""
    people = np.repeat(np.arange(len(drawn)), drawn)
    images = np.concatenate([np.flatnonzero(seen.identity == person) for person in people])
    identity = np.concatenate(
        [np.full((seen.identity == p).sum(), n) for n, p in enumerate(people)]
    )
    by_pair = {
        frozenset(pair): value
        for *pair, value in zip(seen.first, seen.second, seen.similarity, strict=True)
    }
    first, second = np.triu_indices(len(images), 1)
    person = seen.identity[images]
    # two copies of one person are not compared: nobody knows whether they would match
    kept = (person[first] != person[second]) | (identity[first] == identity[second])
    first, second = first[kept], second[kept]
    similarity = [by_pair[frozenset((images[a], images[b]))]
                  for a, b in zip(first, second, strict=True)]  # fmt: skip
    return World(
        np.array(similarity), identity[first] == identity[second], first, second, identity,
        sample[images],
    )  # fmt: skip


@pytest.mark.parametrize("decimals", [None, 1])
def test_replicates_against_copies(decimals: int | None) -> None:
    seen = world(10, decimals=decimals)
    sample = -seen.damage if decimals is None else -seen.damage.round(1)
    comparisons = seen.comparisons()
    weights = draw_identities(10, 25, seed=5)
    found = replicate(
        comparisons,
        comparisons.similarity,
        np.ones(len(comparisons.similarity), bool),
        {"q": pair_quality(sample, comparisons.first, comparisons.second)},
        POINTS,
        LIMITS,
        weights,
    )
    for row, drawn in enumerate(weights):
        naive = copied(seen, drawn, sample)
        mated, others = naive.similarity[naive.mated], naive.similarity[~naive.mated]
        quality = pair_quality(naive.damage, naive.first, naive.second)[naive.mated]
        for index, point in enumerate(POINTS):
            if point.kind == "fmr":
                cut = NonMated.of(others).at_fmr(point.target).value
            else:
                cut = min(v for v in mated if np.mean(mated <= v) >= point.target)
            errors = rejected(mated, cut)
            assert found.fnmr0[row, index] == pytest.approx(errors.mean())
            best = ideal(int(errors.sum()), len(mated))
            for place, limit in enumerate(LIMITS):
                expected = edc(errors, quality).area(limit)
                assert found.areas["q"][row, index, place] == pytest.approx(expected)
                assert found.ideal[row, index, place] == pytest.approx(best.area(limit))


def test_thresholds_from_the_top_are_those_of_all() -> None:
    seen = world(40)
    weights = draw_identities(40, 200, seed=0)
    full, top = seen.comparisons(), seen.comparisons(keep=1500)
    assert not top.non_mated.complete
    both = [fmr_thresholds(c.non_mated, c.identity, (0.02, 0.001), weights) for c in (full, top)]
    assert (both[0] == both[1]).all()
    # too few kept: no figure rather than a wrong one
    scarce = seen.comparisons(keep=100)
    found = fmr_thresholds(scarce.non_mated, scarce.identity, (0.02, 0.001), weights)
    known = ~np.isnan(found)
    assert not known.all()
    assert (found[known] == both[0][known]).all()


def test_many_people_take_the_sparse_way(monkeypatch) -> None:
    seen = world(30)
    comparisons = seen.comparisons()
    weights = draw_identities(30, 20, seed=0)
    arguments = (comparisons.non_mated, comparisons.identity, (0.02,), weights)
    dense = fmr_thresholds(*arguments)
    monkeypatch.setattr("faceqan_toolkit.evaluation.bootstrap.DENSE_PEOPLE", 0)
    assert (fmr_thresholds(*arguments) == dense).all()


def test_blocks_do_not_change_anything(monkeypatch) -> None:
    seen = world(15)
    comparisons = seen.comparisons()
    quality = {"q": pair_quality(-seen.damage, comparisons.first, comparisons.second)}
    usable = np.ones(len(comparisons.similarity), bool)
    weights = draw_identities(15, 30, seed=0)

    def run() -> Replicates:
        return replicate(
            comparisons, comparisons.similarity, usable, quality, POINTS, LIMITS, weights
        )

    whole = run()
    monkeypatch.setattr("faceqan_toolkit.evaluation.bootstrap.CHUNK_VALUES", 7)
    parts = run()
    assert np.allclose(whole.areas["q"], parts.areas["q"], rtol=1e-12)
    assert (whole.fnmr0 == parts.fnmr0).all()


def test_draws_are_of_people_with_replacement() -> None:
    weights = draw_identities(50, 400, seed=1)
    assert weights.shape == (400, 50)
    assert (weights.sum(axis=1) == 50).all()
    # a binomial count of mean 1: none with probability (1 - 1/50) ** 50
    assert np.mean(weights == 0) == pytest.approx(0.98**50, abs=0.01)
    assert (weights == draw_identities(50, 400, seed=1)).all()
    assert (weights != draw_identities(50, 400, seed=2)).any()


def test_a_replicate_without_anybody_is_undefined() -> None:
    """Of two people one is drawn twice half of the time: no non-mated comparison is left."""
    comparisons = Comparisons.of(
        [0.9, 0.1, 0.2], np.array([True, False, False]), [0, 0, 1], [1, 2, 2], ["a", "a", "b"]
    )
    weights = np.array([[2, 0], [0, 2], [1, 1]], dtype=np.int32)
    found = replicate(
        comparisons, comparisons.similarity, np.array([True]), {"q": np.array([1.0])},
        (Operating("fmr", 0.1), Operating("fnmr", 0.5)), (0.2,), weights,
    )  # fmt: skip
    assert np.isnan(found.fnmr0[:2, 0]).all()
    assert found.fnmr0[2, 0] == 0
    assert np.isnan(found.fnmr0[:, 1]).tolist() == [False, True, False]
    assert np.isnan(found.areas["q"][:, 0, 0]).tolist() == [True, True, False]


def test_intervals() -> None:
    found = interval(np.append(np.arange(101.0), np.nan), 0.9)
    assert (found.low, found.high, found.undefined) == (pytest.approx(5), 95, 1)
    assert interval(np.array([1.0, np.nan])) is None


def test_intervals_cover_the_truth() -> None:
    """Of intervals from small samples of people about nine in ten hold everybody's FNMR."""
    everybody = world(400, images=5)
    true_rate = np.mean(everybody.similarity[everybody.mated] <= 0.5)
    mated = np.flatnonzero(everybody.mated)
    person = everybody.identity[everybody.first[mated]]
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        people = rng.choice(400, 60, replace=False)
        rows = mated[np.isin(person, people)]
        # one far-off non-mated comparison a pair of people puts the threshold at 0.5
        one, two = np.triu_indices(60, 1)
        images = [int(np.argmax(everybody.identity == number)) for number in people]
        comparisons = Comparisons.of(
            np.append(everybody.similarity[rows], np.full(len(one), 0.5)),
            np.arange(len(rows) + len(one)) < len(rows),
            np.append(everybody.first[rows], np.array(images)[one]),
            np.append(everybody.second[rows], np.array(images)[two]),
            np.where(np.isin(everybody.identity, people), everybody.identity, people[0]),
        )
        found = replicate(
            comparisons, comparisons.similarity, np.ones(len(rows), bool), {},
            (Operating("fmr", 0.01),), (0.2,), draw_identities(60, 200, seed),
        )  # fmt: skip
        limits = interval(found.fnmr0[:, 0], 0.9)
        held += limits.low <= true_rate <= limits.high
    assert 80 <= held <= 97


def replicates(a: np.ndarray, b: np.ndarray) -> Replicates:
    shape = (len(a), 1, 1)
    return Replicates(
        (Operating("fmr", 0.01),), (0.2,), np.ones((len(a), 1)),
        {"a": a.reshape(shape), "b": b.reshape(shape)}, np.zeros(shape),
    )  # fmt: skip


def test_paired_test_by_hand() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=999)
    # shared noise cancels
    found = paired_test(replicates(common - 0.1, common), "a", "b", 0, 0, -0.1)
    assert found.interval.low == pytest.approx(-0.1)
    assert found.p_value == pytest.approx(2 / 1000)
    same = paired_test(replicates(common, common), "a", "b", 0, 0, 0.0)
    assert same.p_value == 1
    unclear = paired_test(replicates(rng.normal(size=999), common), "a", "b", 0, 0, 0.0)
    assert unclear.p_value > 0.5
    gaps = np.full(999, -1.0)
    gaps[:49] = 1.0
    few = paired_test(replicates(gaps, np.zeros(999)), "a", "b", 0, 0, -0.9)
    assert few.p_value == pytest.approx(2 * 50 / 1000)
    gone = paired_test(replicates(np.full(9, np.nan), np.zeros(9)), "a", "b", 0, 0, 0.0)
    assert gone.interval is None
    assert gone.p_value is None
    with pytest.raises(SettingsError, match="no replicates of c"):
        paired_test(replicates(common, common), "a", "c", 0, 0, 0.0)


def test_identities_are_needed() -> None:
    seen = world(5)
    nameless = dataclasses.replace(seen.comparisons(), identity=None)
    with pytest.raises(EvaluationError, match="identities"):
        replicate(nameless, nameless.similarity, np.ones(1, bool), {}, (), (), np.ones((1, 5)))
