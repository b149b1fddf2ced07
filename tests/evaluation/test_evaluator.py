"""Evaluating: consistency, faces not found, few errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.comparisons import SPARE, Comparisons
from faceqan_toolkit.evaluation.edc import GRID, edc
from faceqan_toolkit.evaluation.evaluator import evaluate
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.summary import Method
from tests.evaluation.synthetic import QUICK, World, run, world


def test_few_errors_are_warned_of() -> None:
    result = run(world(), fmr_targets=(0.1, 1e-4))
    warnings = [point.warnings for point in result.points]
    assert warnings[0] == () or "false non-matches" in warnings[0][0]
    assert any("0 false matches stand behind the threshold" in text for text in warnings[1])
    few = run(world(8), fmr_targets=(0.5,))
    assert any("false non-matches stand behind the curve" in w for w in few.points[0].warnings)


def test_streamed_comparisons_give_the_same() -> None:
    seen = world(60)
    keep = int(SPARE * 0.1 * len(seen.mated))
    whole, top = run(seen).to_dict(), run(seen, keep=keep).to_dict()
    whole_eer, top_eer = (summary["verification"].pop("eer") for summary in (whole, top))
    assert top_eer == pytest.approx(whole_eer, abs=1e-3)
    for summary in (whole, top):
        for method in summary["methods"].values():
            method["fnmr_starts"]["0.1"].pop("achieved_fmr")
            method["fnmr_starts"]["0.1"].pop("false_matches")
    assert whole == top


def test_seed_decides_and_nothing_else() -> None:
    seen = world()
    assert run(seen).to_dict() == run(seen).to_dict()
    assert run(seen).to_dict() != run(seen, seed=1).to_dict()


def with_gaps(seen: World) -> tuple[Comparisons, dict[str, Method], np.ndarray, np.ndarray]:
    """Sample 0 has no face, so no embedding; method B has no quality for sample 5 either."""
    similarity = np.where((seen.first == 0) | (seen.second == 0), np.nan, seen.similarity)
    a, b = -seen.damage.copy(), -seen.damage[::-1].copy()
    a[0] = b[0] = b[5] = np.nan
    comparisons = Comparisons.of(similarity, seen.mated, seen.first, seen.second, seen.identity)
    return comparisons, {"A": Method(a), "B": Method(b)}, a, b


@pytest.mark.parametrize("kind", ["fixed", "recompute"])
def test_faces_not_found_are_excluded_and_counted(kind: str) -> None:
    seen = world()
    comparisons, methods, a, _ = with_gaps(seen)
    options = EvaluationOptions(**QUICK, edc=kind)
    result = evaluate(comparisons, methods, dataset="d", recogniser="r", options=options)
    bad = np.isin(seen.first, (0, 5)) | np.isin(seen.second, (0, 5))
    no_face = (seen.first == 0) | (seen.second == 0)
    assert result.excluded == (bad & seen.mated).sum() > 0
    assert result.mated == (~bad & seen.mated).sum()
    assert result.non_mated_missing == (no_face & ~seen.mated).sum()
    assert result.method("A").missing == (no_face & seen.mated).sum()
    assert result.method("B").missing == (bad & seen.mated).sum()
    if kind == "fixed":
        kept = ~bad & seen.mated
        errors = seen.similarity[kept] <= result.points[0].threshold
        quality = np.minimum(a[seen.first], a[seen.second])[kept]
        expected = edc(errors, quality).fnmr.tolist()
        assert result.method("A").figures[0].curve.fnmr.tolist() == expected
    for method in result.methods:
        assert method.figures[0].curve.mated[0] == result.mated


@pytest.mark.parametrize("kind", ["fixed", "recompute"])
def test_faces_not_found_may_be_the_worst(kind: str) -> None:
    seen = world()
    comparisons, methods, _, _ = with_gaps(seen)
    options = EvaluationOptions(**QUICK, edc=kind, fte="worst")
    result = evaluate(comparisons, methods, dataset="d", recogniser="r", options=options)
    no_face = ((seen.first == 0) | (seen.second == 0)) & seen.mated
    assert result.mated == seen.mated.sum()
    assert result.excluded == 0
    curve = result.method("A").figures[0].curve
    # they are errors, and the first to go
    expected = no_face.sum() + np.sum(
        seen.similarity[seen.mated & ~no_face] <= result.points[0].threshold
    )
    assert curve.errors[0] == expected
    if kind == "fixed":
        assert curve.mated[0] - curve.mated[1] == no_face.sum()
        assert curve.errors[0] - curve.errors[1] == no_face.sum()


def test_recompute_starts_at_the_fixed_point() -> None:
    seen = world()
    fixed, anew = run(seen), run(seen, edc="recompute")
    for one, two in zip(fixed.methods, anew.methods, strict=True):
        if one.kind not in ("quality", "simple"):
            continue
        for before, after in zip(one.figures, two.figures, strict=True):
            assert before.curve.fnmr[0] == after.curve.fnmr[0]
        for index in range(2):
            assert two.figures[index].curve.discard.tolist() == list(GRID)[: len(
                two.figures[index].curve.discard)]  # fmt: skip
            assert not two.figures[index].curve.staircase
        assert two.figures[2].curve.staircase  # at a fixed FNMR the threshold is fixed
    assert all(one is None for one in anew.method("FaceQAN").figures[0].intervals)
    with pytest.raises(EvaluationError, match="all non-mated"):
        run(seen, keep=1000, edc="recompute")


def test_pair_quality_changes_the_curve() -> None:
    seen = world()
    methods = {"A": Method(1 - seen.damage)}
    curves = {
        how: run(seen, methods, pair_quality=how).method("A").figures[0].curve.fnmr.tolist()
        for how in ("min", "mean", "product")
    }
    assert curves["min"] != curves["mean"] != curves["product"]


def test_no_errors_give_none() -> None:
    seen = world(10)
    perfect = World(seen.mated.astype(float), *[getattr(seen, name) for name in
                    ("mated", "first", "second", "identity", "damage")])  # fmt: skip
    summary = run(perfect).to_dict()
    for method in summary["methods"].values():
        area = method["targets"]["0.1"]["pauc"]["0.2"]
        assert (area["raw"], area["normalised"], area["normalised_interval"]) == (0, None, None)
    json.dumps(summary, allow_nan=False)


def test_identities_are_not_needed_without_intervals() -> None:
    seen = world()
    nameless = Comparisons.of(seen.similarity, seen.mated, seen.first, seen.second)
    result = evaluate(
        nameless, seen.methods(), dataset="d", recogniser="r", options=EvaluationOptions(**QUICK)
    )
    assert result.tests == ()
    assert result.method("FaceQAN").figures[0].intervals == (None, None, None)
    assert result.method("random").figures[0].intervals[0] is not None


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"oracle": Method([0.0])}, "cannot be called"),
        ({"": Method([0.0])}, "cannot be called"),
        ({"A": Method([0.0], "other")}, "A: kind"),
        ({"A": Method([0.0])}, "A: a comparison names a sample beyond the 1 qualities"),
        ({"A": Method([np.inf])}, "A: qualities must be"),
        ({"A": Method(np.full(500, np.nan))}, "no mated comparison has both"),
    ],
)
def test_bad_methods_are_refused(methods, message: str) -> None:
    with pytest.raises((EvaluationError, SettingsError), match=message):
        run(world(), methods)
