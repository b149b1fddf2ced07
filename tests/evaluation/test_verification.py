"""DET curve, EER and accuracy against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import EvaluationError
from faceqan_toolkit.evaluation.comparisons import NonMated, collect
from faceqan_toolkit.evaluation.verification import det_curve, fnmr, fold_accuracy, rejected
from tests.evaluation.synthetic import world

VALUES = st.lists(st.integers(-10, 10).map(lambda n: n / 10), min_size=1, max_size=40)


def test_rejection_is_at_or_below_the_threshold() -> None:
    values = np.array([0.1, 0.2, 0.3, np.nan, -np.inf])
    assert rejected(values, 0.2).tolist() == [True, True, False, True, True]
    assert fnmr(values, 0.2) == 0.8


@given(VALUES, VALUES)
def test_det_against_every_threshold(mated: list[float], others: list[float]) -> None:
    det = det_curve(mated, NonMated.of(others))
    points = set()
    for threshold in [-2.0, *mated, *others]:
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
    for threshold, far, frr in zip(det.threshold, det.fmr, det.fnmr, strict=True):
        assert far == sum(value > threshold for value in others) / len(others)
        assert frr == sum(value <= threshold for value in mated) / len(mated)
    step = 1 / min(len(mated), len(others))
    nearest = min(points, key=lambda point: abs(point[0] - point[1]))
    if abs(nearest[0] - nearest[1]) < 1e-12:
        assert det.eer == pytest.approx(nearest[0], abs=step)
    assert 0 <= det.eer <= 1


def test_eer_by_hand() -> None:
    # at 0.4 one of four mated and one of four non-mated comparisons go wrong
    mated, others = [0.3, 0.6, 0.7, 0.9], [0.1, 0.2, 0.35, 0.5]
    det = det_curve(mated, NonMated.of(others))
    assert det.eer == 0.25
    assert det_curve([0.5, 0.6], NonMated.of([0.1, 0.2])).eer == 0
    assert det_curve([0.1], NonMated.of([0.2])).eer == 1
    # everything tied: accepted or rejected together
    assert det_curve([0.1, 0.1], NonMated.of([0.1])).eer == 0.5


def test_eer_against_a_fine_search() -> None:
    seen = world(60)
    mated, others = seen.similarity[seen.mated], seen.similarity[~seen.mated]
    det = det_curve(mated, NonMated.of(others))
    thresholds = np.linspace(-1, 1, 20_001)
    far = np.array([np.mean(others > t) for t in thresholds[::20]])
    frr = np.array([np.mean(mated <= t) for t in thresholds[::20]])
    place = np.argmin(np.abs(far - frr))
    assert det.eer == pytest.approx((far[place] + frr[place]) / 2, abs=0.01)
    least = det.fnmr[np.argmax(det.fmr <= 0.01)]
    assert least == fnmr(mated, NonMated.of(others).at_fmr(0.01).value)


def test_det_of_a_stream_is_close() -> None:
    seen = world(60)
    mated, others = seen.similarity[seen.mated], seen.similarity[~seen.mated]
    nobody = np.zeros(len(others), int)
    streamed = det_curve(mated, collect([(others, nobody, nobody)], keep=200))
    exact = det_curve(mated, NonMated.of(others))
    top = exact.fmr * len(others) < 200
    assert streamed.fmr[top].tolist() == exact.fmr[top].tolist()
    assert np.abs(streamed.fmr - exact.fmr).max() < 1e-3
    assert streamed.eer == pytest.approx(exact.eer, abs=1e-3)


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


def test_bad_input_is_refused() -> None:
    with pytest.raises(EvaluationError, match="two folds"):
        fold_accuracy([0.1, 0.2], [True, False], [0, 0])
    with pytest.raises(EvaluationError, match="differ in length"):
        fold_accuracy([0.1, 0.2], [True], [0, 1])
    with pytest.raises(EvaluationError, match="no similarities"):
        fold_accuracy([np.nan, 0.2], [True, False], [0, 1])
    with pytest.raises(EvaluationError, match="needs mated"):
        det_curve([np.nan], NonMated.of([0.1]))
    with pytest.raises(EvaluationError, match="needs non-mated"):
        det_curve([0.1], NonMated.of([]))
