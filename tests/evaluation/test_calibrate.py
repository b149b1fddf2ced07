"""Thresholds against known answers, brute force and copies of the people drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from faceqan_toolkit.errors import CalibrationError
from faceqan_toolkit.evaluation.calibrate import (
    Faces,
    choose,
    faces_of,
    kept_crops,
    quality_for_discard,
    quality_for_fnmr,
    split_people,
)
from faceqan_toolkit.evaluation.curves import draw_identities, edc, non_mated_totals, pair_quality
from faceqan_toolkit.evaluation.datasets.base import PairList
from faceqan_toolkit.evaluation.verification import Comparisons
from faceqan_toolkit.results.calibration import ENOUGH_ERRORS
from faceqan_toolkit.results.crops import RunCrops
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Pixels
from tests.conftest import DATA
from tests.evaluation.synthetic import collect, world
from tests.ledgers import face, write_run

targets = st.floats(0.01, 0.9)


def made_up(people: int, seed: int, decimals: int | None = 2) -> Faces:
    seen = world(people, seed=seed, decimals=decimals)
    quality = -seen.damage if decimals is None else -seen.damage.round(decimals)
    return Faces(quality, seen.identity.astype(np.int32), seen.comparisons(), True)


def labelled(people: int, photos: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return quality, identity and embeddings: the worse a face, the further off it lies."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people), photos)
    quality = rng.random(len(identity))
    centres = rng.normal(size=(people, 32))
    spread = (0.3 + 1.7 * (1 - quality) ** 2)[:, None]
    embeddings = centres[identity] + spread * rng.normal(size=(len(identity), 32))
    return quality, identity, embeddings.astype(np.float32)


def once(faces: Faces) -> np.ndarray:
    return np.ones((1, faces.people), np.int32)


def brute_fnmr(faces: Faces, target: float, cut: float, drawn: np.ndarray) -> float:
    """Try every quality in turn on comparisons that are copied as often as they count."""
    comparisons = faces.comparisons
    assert comparisons is not None
    times = drawn[faces.identity[comparisons.first]]
    quality = np.repeat(pair_quality(faces.quality, comparisons.first, comparisons.second), times)
    wrong = np.repeat(~(comparisons.similarity > cut), times)
    for level in np.unique(quality):
        if wrong[quality >= level].mean() <= target:
            # with nothing discarded no face need be either
            return faces.quality.min() if level == quality.min() else level
    return np.nan


@given(st.integers(0, 20), targets, st.floats(-0.2, 0.9))
def test_fnmr_against_brute_force(seed: int, target: float, cut: float) -> None:
    faces = made_up(8, seed)
    weights = np.concatenate([once(faces), draw_identities(faces.people, 4, seed)])
    found = quality_for_fnmr(faces, target, np.full(len(weights), cut), weights)
    for row, drawn in zip(found, weights, strict=True):
        expected = brute_fnmr(faces, target, cut, drawn)
        assert row == expected or (np.isnan(row) and np.isnan(expected))


@given(st.integers(0, 20), targets, targets)
def test_the_chosen_reach_the_target_and_a_stricter_one_discards_more(
    seed: int, one: float, other: float
) -> None:
    faces = made_up(10, seed)
    comparisons = faces.comparisons
    assert comparisons is not None
    wrong = ~(comparisons.similarity > 0.5)
    quality = pair_quality(faces.quality, comparisons.first, comparisons.second)
    curve = edc(wrong, quality)
    found = {}
    for target in (one, other):
        (at,) = quality_for_fnmr(faces, target, np.array([0.5]), once(faces))
        found[target] = at
        if np.isnan(at):
            assert (curve.fnmr > target).all()
        else:
            assert wrong[quality >= at].mean() <= target
            lower = np.unique(quality[quality < at])
            assert all(wrong[quality >= level].mean() > target for level in lower)
    strict, loose = sorted((one, other))
    assert np.isnan(found[strict]) or found[strict] >= found[loose]


@given(
    hnp.arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 9).map(float)),
    targets,
    st.integers(0, 5),
)
def test_discard_against_copies(quality: np.ndarray, target: float, seed: int) -> None:
    identity = (np.arange(len(quality)) % 4).astype(np.int32)
    faces = Faces(quality, identity)
    weights = np.concatenate([once(faces), draw_identities(faces.people, 5, seed)])
    for found, drawn in zip(quality_for_discard(faces, target, weights), weights, strict=True):
        copies = np.repeat(quality, drawn[identity])
        levels = np.unique(copies)
        within = [level for level in levels if (copies < level).sum() <= target * len(copies)]
        assert found == max(within)


def known_halves() -> list[Faces]:
    """Two halves of 100 people; each has faces of quality 0.1, 0.29, 0.3, 0.6 and 0.9.

    The first two match nothing; of the comparisons among the others one in five is an error.
    """
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(2):
        identity = np.repeat(np.arange(100), 5).astype(np.int32)
        quality = np.tile([0.1, 0.29, 0.3, 0.6, 0.9], 100)
        first, second = np.triu_indices(len(identity), 1)
        same = identity[first] == identity[second]
        good = np.minimum(quality[first], quality[second]) >= 0.3
        match = same & good
        match[rng.choice(np.flatnonzero(match), 60, replace=False)] = False
        # non-mated ones are all alike but for one in 2,000
        similarity = np.where(same, np.where(match, 0.9, -0.5), 0.2)
        others = np.flatnonzero(~same)
        similarity[rng.choice(others, len(others) // 2000, replace=False)] = 0.95
        halves.append(
            Faces(quality, identity, Comparisons.of(similarity, same, first, second, identity),
                  True)
        )  # fmt: skip
    return halves


def test_a_known_threshold() -> None:
    halves = known_halves()
    found = choose("fnmr", 0.25, 1e-3, *halves, replicates=100)
    # 760 errors of 1,000 with all faces, 360 of 600 from 0.29 on, 60 of 300 from 0.3 on
    assert (found.quality, found.low, found.high) == (0.3, 0.3, 0.3)
    assert found.errors is not None
    assert found.errors.similarity == 0.2
    assert (found.errors.before.count, found.errors.before.total) == (760, 1000)
    assert (found.errors.after.count, found.errors.after.total) == (60, 300)
    assert (found.discard.value, found.discard.low, found.discard.high) == (0.4, 0.4, 0.4)
    assert found.errors.enough
    # the rate was there from the beginning
    assert choose("fnmr", 0.8, 1e-3, *halves, replicates=10).quality == 0.1
    for share, quality in ((0.19, 0.1), (0.2, 0.29), (0.5, 0.3), (0.6, 0.6)):
        found = choose("discard", share, 1e-3, *halves, replicates=10)
        assert found.quality == quality
        assert found.errors is not None


def test_figures_are_of_the_others() -> None:
    quality, identity, embeddings = labelled(400, 6)
    chosen = split_people(identity, 1)
    halves = [faces_of(quality, identity, half, embeddings, None, 1e-2) for half in
              (chosen, ~chosen)]  # fmt: skip
    found = choose("fnmr", 0.03, 1e-2, *halves, seed=1, replicates=200)
    choosing, others = halves
    assert choosing.comparisons is not None
    assert others.comparisons is not None
    errors = found.errors
    assert errors is not None
    assert errors.similarity == choosing.comparisons.non_mated.at_fmr(1e-2).value
    wrong = ~(others.comparisons.similarity > errors.similarity)
    both = pair_quality(others.quality, others.comparisons.first, others.comparisons.second)
    kept = both >= found.quality
    assert (errors.before.count, errors.before.total) == (wrong.sum(), len(wrong))
    assert (errors.after.count, errors.after.total) == (wrong[kept].sum(), kept.sum())
    assert (found.discard.count, found.discard.total) == (
        (others.quality < found.quality).sum(),
        len(others.quality),
    )
    accepted = others.comparisons.non_mated.similarity > errors.similarity
    assert errors.false_matches.count == accepted.sum()
    assert errors.enough
    for rate in (errors.before, errors.after, errors.false_matches, found.discard):
        assert rate.low is not None
        assert rate.high is not None
        assert rate.low < rate.value < rate.high
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.high
    # both halves come from one population
    assert errors.after.low < 0.03 < errors.after.high
    assert errors.false_matches.low < 0.01 < errors.false_matches.high
    assert choose("fnmr", 0.03, 1e-2, *halves, seed=1, replicates=200) == found


def test_intervals_hold_what_other_people_give() -> None:
    """Of many worlds, the truth lies in about 95 % of the intervals."""
    quality, identity, embeddings = labelled(3000, 4, seed=9)
    held = 0
    worlds = 60
    for number in range(worlds):
        mine = (identity // 50) == number
        chosen = split_people(identity[mine], number)
        halves = [
            faces_of(quality[mine], identity[mine], half, embeddings[mine], None, 1e-2)
            for half in (chosen, ~chosen)
        ]
        found = choose("discard", 0.25, 1e-2, *halves, seed=number, replicates=200)
        truth = (quality < found.quality).mean()
        held += found.discard.low <= truth <= found.discard.high
    assert 0.83 * worlds <= held


def test_all_with_all_is_every_pair_once() -> None:
    quality, identity, embeddings = labelled(30, 3)
    rng = np.random.default_rng(3)
    order = rng.permutation(len(identity))
    everybody = np.ones(len(identity), np.bool_)
    found = faces_of(quality[order], identity[order], everybody, embeddings[order])
    first, second = np.triu_indices(len(identity), 1)
    vectors = embeddings[order] / np.linalg.norm(embeddings[order], axis=1, keepdims=True)
    similarity = (vectors[first] * vectors[second]).sum(axis=1)
    same = identity[order][first] == identity[order][second]
    comparisons = found.comparisons
    assert comparisons is not None
    assert np.allclose(np.sort(comparisons.similarity), np.sort(similarity[same]), atol=1e-6)
    others = comparisons.non_mated
    assert others.complete
    assert np.allclose(np.sort(others.similarity), np.sort(similarity[~same]), atol=1e-6)
    # the closed form against counting
    weights = draw_identities(found.people, 20, 0)
    counted = collect([(similarity[~same], first[~same], second[~same])], identity=identity[order])
    codes = np.unique(identity[order], return_inverse=True)[1]
    assert (np.bincount(codes) == np.bincount(found.identity)).all()
    assert (found.non_mated(weights) == non_mated_totals(counted.identity_pairs, weights)).all()


def test_blocks_change_nothing(monkeypatch) -> None:
    quality, identity, embeddings = labelled(20, 3)
    everybody = np.ones(len(identity), np.bool_)
    whole = faces_of(quality, identity, everybody, embeddings)
    monkeypatch.setattr("faceqan_toolkit.evaluation.calibrate.BLOCK_VALUES", 300)
    parts = faces_of(quality, identity, everybody, embeddings)
    assert whole.comparisons is not None
    assert parts.comparisons is not None
    assert np.allclose(parts.comparisons.similarity, whole.comparisons.similarity, atol=1e-6)
    assert np.allclose(
        parts.comparisons.non_mated.similarity,
        whole.comparisons.non_mated.similarity,
        atol=1e-6,
    )


def test_pairs_alone_are_compared() -> None:
    quality, identity, embeddings = labelled(6, 2)
    pairs = PairList(
        np.array([0, 2, 0, 4, 1, 5]), np.array([1, 3, 2, 6, 1, 11]),
        np.array([True, True, False, False, True, False]),
    )  # fmt: skip
    chosen = identity < 3
    found = faces_of(quality, identity, chosen, embeddings, pairs)
    comparisons = found.comparisons
    assert comparisons is not None
    # not with itself, and not across the halves
    assert list(zip(comparisons.first, comparisons.second, strict=True)) == [(0, 1), (2, 3)]
    assert comparisons.non_mated.total == 1
    cosine = embeddings[0] @ embeddings[1] / np.prod(np.linalg.norm(embeddings[:2], axis=1))
    assert comparisons.similarity[0] == pytest.approx(cosine, abs=1e-6)
    assert found.non_mated(once(found)).tolist() == [1]
    assert faces_of(quality, identity, ~chosen, embeddings, pairs).comparisons is None


@given(st.lists(st.integers(1, 12), min_size=2, max_size=60), st.integers(0, 50))
def test_people_are_split_whole_and_evenly(sizes: list[int], seed: int) -> None:
    identity = np.repeat(np.arange(len(sizes)), sizes)
    chosen = split_people(identity, seed)
    by_person = [set(chosen[identity == person]) for person in range(len(sizes))]
    assert all(len(values) == 1 for values in by_person)
    number = sum(True in values for values in by_person)
    assert number in (len(sizes) // 2, -(-len(sizes) // 2))
    assert 0 < number < len(sizes)
    # of each pair the sizes differ by little: over all by no more than the largest
    assert abs(2 * int(chosen.sum()) - len(identity)) <= 2 * max(sizes)
    assert (split_people(identity, seed) == chosen).all()


def test_another_seed_splits_otherwise() -> None:
    identity = np.repeat(np.arange(20), 3)
    assert len({split_people(identity, seed).tobytes() for seed in range(5)}) == 5


def test_not_enough_data() -> None:
    quality, identity, embeddings = labelled(40, 4)
    chosen = split_people(identity, 0)
    halves = [faces_of(quality, identity, half, embeddings) for half in (chosen, ~chosen)]
    needed = int(np.ceil(ENOUGH_ERRORS / 1e-4))
    with pytest.raises(CalibrationError, match=f"FMR 0.0001.*{needed:,} non-mated"):
        choose("fnmr", 0.1, 1e-4, *halves)
    with pytest.raises(CalibrationError, match="calibration for FNMR"):
        choose("fnmr", 0.001, 1e-2, *halves)
    alone = Faces(np.array([0.1, 0.2]), np.array([0, 1], np.int32))
    with pytest.raises(CalibrationError, match="people with two photos"):
        choose("fnmr", 0.1, 1e-3, alone, alone)
    assert choose("discard", 0.5, 1e-3, alone, alone).errors is None


def test_a_rate_nobody_reaches() -> None:
    quality, identity, embeddings = labelled(400, 3)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=embeddings.shape).astype(np.float32)
    # of the very best face one comparison is an error
    chosen = split_people(identity, 0)
    quality[np.flatnonzero(chosen)[:2]] = 2.0
    halves = [faces_of(quality, identity, half, noise, None, 1e-2) for half in (chosen, ~chosen)]
    with pytest.raises(CalibrationError, match="no quality threshold reaches"):
        choose("fnmr", 0.05, 1e-2, *halves)


def test_crops_of_a_run(tmp_path: Path, crop: Pixels) -> None:
    records = [
        face(tmp_path, "a/1.jpg", 0.5, crop="crops/a/1.jpg.0.png"),
        face(tmp_path, "a/2.jpg", 0.5),
        face(tmp_path, "a/3.jpg", 0.5, crop="crops/gone.png"),
    ]
    run = write_run(tmp_path / "run", records)
    (tmp_path / "run/crops/a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "run/crops/a/1.jpg.0.png"), crop[..., ::-1])
    rows = [record.to_dict() for record in records]
    found = list(kept_crops(RunCrops(run, cut=False), rows))
    assert np.array_equal(found[0], crop)
    assert found[1:] == [None, None]


def test_crops_that_were_scored_as_such(tmp_path: Path) -> None:
    content = (DATA / "astronaut.png").read_bytes()
    record = face(tmp_path, "a/1.png", 0.5)
    (tmp_path / "a/1.png").write_bytes(content)
    run = write_run(tmp_path / "run", [record], Settings(task="score"))
    row = record.to_dict() | {"sha256": hashlib.sha256(content).hexdigest()}
    changed, kept = kept_crops(RunCrops(run, cut=False), [record.to_dict(), row])
    assert changed is None
    assert kept is not None
    assert kept.shape == (112, 112, 3)
