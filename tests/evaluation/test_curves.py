"""Error-versus-discard curves against brute force, by hand, and what must hold for all."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.curves import (
    GRID,
    Curve,
    Operating,
    Replicates,
    area,
    det_curve,
    draw_identities,
    edc,
    edc_recomputed,
    fmr_thresholds,
    ideal,
    ideal_area,
    interval,
    pair_quality,
    paired_test,
    random_discard,
    replicate,
)
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.verification import Comparisons, rejected
from tests.evaluation.synthetic import World, collect, non_mated, world

ROWS = st.lists(st.tuples(st.booleans(), st.integers(-4, 4).map(float)), min_size=1, max_size=30)
SHARES = (0.0, 0.1, 0.2, 0.25, 0.3, 0.5, 0.77, 0.95)
LIMITS = (0.05, 0.2, 0.3, 0.61, 1.0)


def split(rows: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def brute_rate(errors: np.ndarray, quality: np.ndarray, share: float) -> float:
    """Drop whole qualities, worst first, while the share is not exceeded."""
    kept = np.ones(len(errors), bool)
    for value in sorted(set(quality))[:-1]:
        smaller = quality > value
        if np.count_nonzero(~smaller) / len(errors) > share:
            break
        kept = smaller
    return errors[kept].mean()


@given(ROWS)
def test_curve_against_dropping_one_quality_after_another(rows) -> None:
    errors, quality = split(rows)
    curve = edc(errors, quality)
    for share in SHARES:
        assert curve.at(share) == pytest.approx(brute_rate(errors, quality, share), abs=1e-12)
    for x, rate, wrong, left in zip(
        curve.discard, curve.fnmr, curve.errors, curve.mated, strict=True
    ):
        assert rate == wrong / left
        assert x == 1 - left / len(errors) or math.isclose(x, 1 - left / len(errors))


@settings(deadline=None)
@given(ROWS, st.sampled_from(LIMITS))
def test_area_against_a_fine_sum(rows, limit: float) -> None:
    errors, quality = split(rows)
    curve = edc(errors, quality)
    middles = (np.arange(20_000) + 0.5) / 20_000 * limit
    assert curve.area(limit) == pytest.approx(curve.at(middles).mean() * limit, abs=2e-3)


def test_curve_by_hand() -> None:
    errors = np.array([True, False, True, False, False])
    quality = np.array([0.1, 0.2, 0.2, 0.3, 0.9])
    curve = edc(errors, quality)
    assert curve.discard.tolist() == [0, 0.2, 0.6, 0.8]
    assert curve.fnmr.tolist() == [0.4, 0.25, 0, 0]
    assert curve.errors.tolist() == [2, 1, 0, 0]
    assert curve.mated.tolist() == [5, 4, 2, 1]
    assert curve.at([0.19, 0.2, 0.59, 0.6, 0.99]).tolist() == [0.4, 0.25, 0.25, 0, 0]
    assert curve.area(0.3) == pytest.approx(0.2 * 0.4 + 0.1 * 0.25)
    found = area(curve, 0.3)
    assert found.normalised == pytest.approx(found.raw / (0.4 * 0.3))
    # the oracle drops both errors first: 2/5 up to 0.2, 1/4 up to 0.4
    assert found.gap == pytest.approx(0)
    assert area(curve, 1.0).gap == pytest.approx(0.2 * 0.25)


@given(ROWS)
def test_constant_quality_changes_nothing(rows) -> None:
    errors, _ = split(rows)
    curve = edc(errors, np.full(len(errors), 0.7))
    assert set(curve.at(SHARES)) == {errors.mean()}
    if errors.any():
        for limit in LIMITS:
            assert area(curve, limit).normalised == pytest.approx(1)


@given(ROWS)
def test_oracle_is_never_beaten(rows) -> None:
    errors, quality = split(rows)
    curve, best = edc(errors, quality), ideal(int(errors.sum()), len(errors))
    shares = np.linspace(0, 0.999, 97)
    assert (best.at(shares) <= curve.at(shares) + 1e-12).all()
    for limit in LIMITS:
        assert area(curve, limit).gap >= -1e-12
        reached = edc(errors, np.where(errors, -100 - np.arange(len(errors)), 1.0))
        assert area(reached, limit).gap <= 1e-12 or errors.all()


@given(st.integers(1, 60), st.data(), st.sampled_from(LIMITS))
def test_ideal_area_in_closed_form(mated: int, data, limit: float) -> None:
    errors = data.draw(st.integers(0, mated))
    assert ideal_area(errors, mated, limit) == pytest.approx(
        ideal(errors, mated).area(limit), abs=1e-12
    )


QUALITIES = st.lists(st.integers(-50, 50).map(lambda n: n / 10), min_size=12, max_size=12)
PAIRS = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 11), st.booleans()), min_size=1, max_size=30
)


@given(QUALITIES, PAIRS)
def test_min_is_invariant_to_monotone_rescaling(qualities, pairs) -> None:
    first, second, errors = (np.array(column) for column in zip(*pairs, strict=True))
    before = edc(errors, pair_quality(qualities, first, second))
    after = edc(errors, pair_quality(np.exp(np.array(qualities) / 3) - 7, first, second))
    assert before.fnmr.tolist() == after.fnmr.tolist()
    assert before.discard.tolist() == after.discard.tolist()


@given(ROWS, st.randoms(use_true_random=False))
def test_order_of_comparisons_does_not_matter(rows, random) -> None:
    before = edc(*split(rows))
    random.shuffle(rows)
    after = edc(*split(rows))
    assert before.discard.tolist() == after.discard.tolist()
    assert before.fnmr.tolist() == after.fnmr.tolist()


def test_pair_qualities() -> None:
    quality, first, second = [0.5, 2.0, np.nan], [0, 1, 0], [1, 1, 2]
    expected = {"min": [0.5, 2.0], "mean": [1.25, 2.0], "product": [1.0, 4.0]}
    for how, values in expected.items():
        found = pair_quality(quality, first, second, how)
        assert found[:2].tolist() == values
        assert np.isnan(found[2])
    with pytest.raises(SettingsError, match="min, mean, product"):
        pair_quality(quality, first, second, "max")
    with pytest.raises(EvaluationError, match="product needs"):
        pair_quality([-0.1, 1], [0], [1], "product")
    with pytest.raises(EvaluationError, match="beyond the 2 qualities"):
        pair_quality([0.1, 1], [0], [2])


def test_no_errors_give_no_normalised_area() -> None:
    found = area(edc(np.zeros(5, bool), np.arange(5.0)), 0.2)
    assert (found.raw, found.normalised, found.gap) == (0, None, 0)


# recomputed ---------------------------------------------------------------------------------


def brute_recomputed(seen: World, quality: np.ndarray, target: float) -> list[float]:
    """Drop, count, sort anew at every share."""
    rates = []
    for share in GRID:
        kept = np.ones(len(quality), bool)
        for value in np.unique(quality)[:-1]:
            if np.count_nonzero(quality <= value) > share * len(quality) + 1e-9:
                break
            kept = quality > value
        others = np.sort(seen.similarity[kept & ~seen.mated])[::-1]
        mated = seen.similarity[kept & seen.mated]
        if not len(others) or not len(mated):
            break
        threshold = next(
            value
            for value in others[::-1]
            if np.count_nonzero(others > value) / len(others) <= target
        )
        rates.append(float(np.mean(mated <= threshold)))
    return rates


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_recomputed_against_brute_force(seed: int, decimals: int | None) -> None:
    seen = world(12, seed=seed, decimals=decimals)
    sample = -seen.damage if decimals is None else -seen.damage.round(1)
    quality = pair_quality(sample, seen.first, seen.second)
    targets = (0.1, 0.01)
    curves = edc_recomputed(seen.similarity, seen.mated, quality, targets)
    for target, curve in zip(targets, curves, strict=True):
        assert curve.fnmr.tolist() == pytest.approx(brute_recomputed(seen, quality, target))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(-9, 9), st.booleans(), st.integers(0, 5)), min_size=4, max_size=40
    )
)
def test_recomputed_starts_as_fixed(rows) -> None:
    similarity, mated, quality = (np.array(column) for column in zip(*rows, strict=True))
    if mated.all() or not mated.any():
        return
    similarity = similarity / 9
    for target, curve in zip(
        (0.3, 0.05), edc_recomputed(similarity, mated, quality, (0.3, 0.05)), strict=True
    ):
        threshold = non_mated(similarity[~mated]).at_fmr(target).value
        fixed = edc(rejected(similarity[mated], threshold), quality[mated])
        assert curve.fnmr[0] == fixed.fnmr[0]
        assert curve.errors[0] == fixed.errors[0]


def test_recomputed_looks_deeper_than_the_most_similar() -> None:
    """The most similar comparisons have the worst quality, so all of them are dropped at once."""
    rng = np.random.default_rng(0)
    similarity = np.concatenate([rng.uniform(0, 1, 500), np.linspace(-1, 0.99, 40_000)])
    mated = np.arange(40_500) < 500
    quality = np.where(mated, rng.uniform(-1, 1, 40_500), -similarity)
    (curve,) = edc_recomputed(similarity, mated, quality, (0.01,))
    for share, rate in zip(curve.discard, curve.fnmr, strict=True):
        cut = np.sort(quality)[int(share * 40_500 + 1e-6)]
        others = np.sort(similarity[~mated & (quality >= cut)])[::-1]
        threshold = others[int(0.01 * len(others) + 1e-9)]
        assert rate == pytest.approx(np.mean(similarity[mated & (quality >= cut)] <= threshold))


def test_recomputed_area_is_that_of_lines() -> None:
    curve = Curve(
        np.array([0.0, 0.05, 0.1]), np.array([0.4, 0.2, 0.1]), np.array([4, 2, 1]),
        np.array([10, 10, 10]), staircase=False,
    )  # fmt: skip
    assert curve.area(0.1) == pytest.approx(0.05 * 0.3 + 0.05 * 0.15)
    assert curve.area(0.075) == pytest.approx(0.05 * 0.3 + 0.025 * 0.175)
    assert curve.area(0.2) == pytest.approx(curve.area(0.1) + 0.01)  # the last rate holds


# random -------------------------------------------------------------------------------------


def test_random_discard_of_separate_faces_is_hypergeometric() -> None:
    """Without shared faces the errors left are a draw without replacement."""
    errors = np.arange(400) < 60
    first, second = np.arange(400), np.arange(400, 800)
    options = EvaluationOptions(limits=(0.2, 1.0), draws=600, seed=3)
    found = random_discard(errors, first, second, options)
    assert found.mean == pytest.approx(0.15, abs=0.01)
    assert found.areas.mean(axis=0) == pytest.approx([0.03, 0.15], rel=0.03)
    left = 400 - np.arange(80)
    variance = 0.15 * 0.85 / left * (400 - left) / 399
    # the rates at later steps are means of subsets of the earlier ones
    exact = np.sum(variance * (2 * np.arange(79, -1, -1) + 1)) / 400**2
    assert found.areas[:, 0].std() == pytest.approx(np.sqrt(exact), rel=0.1)


def test_random_discard_has_a_seed() -> None:
    errors = np.arange(40) < 10
    index = np.arange(40)
    runs = [
        random_discard(errors, index, index[::-1], EvaluationOptions(draws=5, seed=seed)).areas
        for seed in (0, 0, 1)
    ]
    runs = [areas.tolist() for areas in runs]
    assert runs[0] == runs[1] != runs[2]


def test_shared_faces_widen_the_spread() -> None:
    errors = np.repeat(np.arange(40) < 6, 10)
    faces, options = np.arange(400), EvaluationOptions(limits=(0.2,))
    apart = random_discard(errors, faces, faces, options)
    shared = random_discard(errors, np.repeat(np.arange(40), 10), faces + 40, options)
    assert shared.areas.std() > 1.5 * apart.areas.std()


def test_bad_input_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no curve"):
        edc([], [])
    with pytest.raises(EvaluationError, match="no curve"):
        edc([True], [1.0, 2.0])
    with pytest.raises(EvaluationError, match="no quality"):
        edc([True], [np.nan])
    for limit in (0, 1.01, -1):
        with pytest.raises(SettingsError, match="discard share"):
            edc([True], [1.0]).area(limit)
    ok = ([0.1, 0.2], [True, False], [1.0, 2.0])
    for changed, message in (
        (([0.1], *ok[1:]), "differ"),
        (([0.1, np.nan], *ok[1:]), "no similarity or no quality"),
        ((ok[0], [True, True], ok[2]), "both mated and non-mated"),
    ):
        with pytest.raises(EvaluationError, match=message):
            edc_recomputed(*changed, (0.1,))


VALUES = st.lists(st.integers(-10, 10).map(lambda n: n / 10), min_size=1, max_size=40)


@given(VALUES, VALUES)
def test_det_against_every_threshold(mated: list[float], others: list[float]) -> None:
    det = det_curve(mated, non_mated(others))
    points = set()
    for threshold in [-2.0, *mated, *others, *np.nextafter(mated, -np.inf)]:
        points.add(
            (
                sum(value > threshold for value in others) / len(others),
                sum(value <= threshold for value in mated) / len(mated),
            )
        )
    # the corners bound every point that any threshold gives, and the best of them are corners
    corners = list(zip(det.fmr, det.fnmr, strict=True))
    for far, frr in points:
        assert any(x <= far and y <= frr for x, y in corners)
    assert set(corners) <= points
    step = 1 / min(len(mated), len(others))
    nearest = min(points, key=lambda point: abs(point[0] - point[1]))
    if abs(nearest[0] - nearest[1]) < 1e-12:
        assert det.eer == pytest.approx(nearest[0], abs=step)
    assert 0 <= det.eer <= 1


def test_eer_by_hand() -> None:
    # at 0.4 one of four mated and one of four non-mated comparisons go wrong
    mated, others = [0.3, 0.6, 0.7, 0.9], [0.1, 0.2, 0.35, 0.5]
    det = det_curve(mated, non_mated(others))
    assert det.eer == 0.25
    assert det_curve([0.5, 0.6], non_mated([0.1, 0.2])).eer == 0
    assert det_curve([0.1], non_mated([0.2])).eer == 1
    # everything tied: accepted or rejected together
    assert det_curve([0.1, 0.1], non_mated([0.1])).eer == 0.5


def test_eer_against_a_fine_search() -> None:
    seen = world(60)
    mated, others = seen.similarity[seen.mated], seen.similarity[~seen.mated]
    det = det_curve(mated, non_mated(others))
    thresholds = np.linspace(-1, 1, 20_001)
    far = np.array([np.mean(others > t) for t in thresholds[::20]])
    frr = np.array([np.mean(mated <= t) for t in thresholds[::20]])
    place = np.argmin(np.abs(far - frr))
    assert det.eer == pytest.approx((far[place] + frr[place]) / 2, abs=0.01)
    least = det.fnmr[np.argmax(det.fmr <= 0.01)]
    assert least == np.mean(rejected(mated, non_mated(others).at_fmr(0.01).value))


def test_det_of_a_stream_is_close() -> None:
    seen = world(60)
    mated, others = seen.similarity[seen.mated], seen.similarity[~seen.mated]
    nobody = np.zeros(len(others), int)
    streamed = det_curve(mated, collect([(others, nobody, nobody)], keep=200))
    exact = det_curve(mated, non_mated(others))
    top = exact.fmr * len(others) < 200
    assert streamed.fmr[top].tolist() == exact.fmr[top].tolist()
    assert np.abs(streamed.fmr - exact.fmr).max() < 1e-3
    assert streamed.eer == pytest.approx(exact.eer, abs=1e-3)


def test_a_det_curve_needs_both_kinds() -> None:
    with pytest.raises(EvaluationError, match="needs mated"):
        det_curve([np.nan], non_mated([0.1]))
    with pytest.raises(EvaluationError, match="needs non-mated"):
        det_curve([0.1], non_mated([]))


# bootstrap: weights against copying every comparison of the people drawn ----------------------

POINTS = (Operating("fmr", 0.05), Operating("fmr", 0.01), Operating("fnmr", 0.1))
AREA_LIMITS = (0.2, 1.0)


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
        AREA_LIMITS,
        weights,
    )
    for row, drawn in enumerate(weights):
        naive = copied(seen, drawn, sample)
        mated, others = naive.similarity[naive.mated], naive.similarity[~naive.mated]
        quality = pair_quality(naive.damage, naive.first, naive.second)[naive.mated]
        for index, point in enumerate(POINTS):
            if point.kind == "fmr":
                cut = non_mated(others).at_fmr(point.target).value
            else:
                cut = min(v for v in mated if np.mean(mated <= v) >= point.target)
            errors = rejected(mated, cut)
            assert found.fnmr0[row, index] == pytest.approx(errors.mean())
            best = ideal(int(errors.sum()), len(mated))
            for place, limit in enumerate(AREA_LIMITS):
                expected = edc(errors, quality).area(limit)
                assert found.areas["q"][row, index, place] == pytest.approx(expected)
                assert found.areas["oracle"][row, index, place] == pytest.approx(best.area(limit))


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
    monkeypatch.setattr("faceqan_toolkit.evaluation.curves.DENSE_PEOPLE", 0)
    assert (fmr_thresholds(*arguments) == dense).all()


def test_blocks_do_not_change_anything(monkeypatch) -> None:
    seen = world(15)
    comparisons = seen.comparisons()
    quality = {"q": pair_quality(-seen.damage, comparisons.first, comparisons.second)}
    usable = np.ones(len(comparisons.similarity), bool)
    weights = draw_identities(15, 30, seed=0)

    def run() -> Replicates:
        return replicate(
            comparisons, comparisons.similarity, usable, quality, POINTS, AREA_LIMITS, weights
        )

    whole = run()
    monkeypatch.setattr("faceqan_toolkit.evaluation.curves.CHUNK_VALUES", 7)
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


def test_paired_test_by_hand() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=999)
    # shared noise cancels
    found, p_value = paired_test(common - 0.1 - common, 0.95)
    assert found.low == pytest.approx(-0.1)
    assert p_value == pytest.approx(2 / 1000)
    assert paired_test(common - common, 0.95)[1] == 1
    assert paired_test(rng.normal(size=999) - common, 0.95)[1] > 0.5
    gaps = np.full(999, -1.0)
    gaps[:49] = 1.0
    assert paired_test(gaps, 0.95)[1] == pytest.approx(2 * 50 / 1000)
    assert paired_test(np.full(9, np.nan), 0.95) == (None, None)


def test_identities_are_needed() -> None:
    seen = world(5)
    nameless = dataclasses.replace(seen.comparisons(), identity=None)
    with pytest.raises(EvaluationError, match="identities"):
        replicate(nameless, nameless.similarity, np.ones(1, bool), {}, (), (), np.ones((1, 5)))
