"""Evaluating: consistency, faces not found, few errors. Agreement of two tools, against scipy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from faceqan_toolkit.errors import EvaluationError, ScoresError, SettingsError
from faceqan_toolkit.evaluation.curves import GRID, edc
from faceqan_toolkit.evaluation.datasets.base import Dataset, ListBuilder, Templates
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.result import Method
from faceqan_toolkit.evaluation.score_files import ScoreTable, read_scores
from faceqan_toolkit.evaluation.statistics import (
    _contradicts,
    agree,
    compare,
    compared_vectors,
    evaluate_dataset,
    evaluate_methods,
)
from faceqan_toolkit.evaluation.verification import SPARE, Comparisons
from tests.evaluation.synthetic import QUICK, World, run, world


def test_few_errors_are_warned_of() -> None:
    result = run(world(), fmr_targets=(0.1, 1e-4))
    warnings = [point.warnings for point in result.points]
    assert warnings[0] == () or "false non-matches" in warnings[0][0]
    assert any("the threshold rests on 0 false matches" in text for text in warnings[1])
    few = run(world(8), fmr_targets=(0.5,))
    assert any("the curve rests on" in w for w in few.points[0].warnings)


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
    result = evaluate_methods(comparisons, methods, dataset="d", recogniser="r", options=options)
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
    result = evaluate_methods(comparisons, methods, dataset="d", recogniser="r", options=options)
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
    assert all(one.interval is None for one in anew.method("FaceQAN").figures[0].areas)
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
    result = evaluate_methods(
        nameless, seen.methods(), dataset="d", recogniser="r", options=EvaluationOptions(**QUICK)
    )
    assert result.tests == ()
    assert all(one.interval is None for one in result.method("FaceQAN").figures[0].areas)
    assert result.method("random").figures[0].areas[0].interval is not None


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"oracle": Method([0.0])}, "cannot be called"),
        ({"": Method([0.0])}, "cannot be called"),
        ({"A": Method([0.0], "other")}, "A: kind"),
        ({"A": Method([0.0])}, "A: a comparison has a sample index beyond the 1 qualities"),
        ({"A": Method([np.inf])}, "A: qualities must be"),
        ({"A": Method(np.full(500, np.nan))}, "no mated comparison has both"),
    ],
)
def test_bad_methods_are_refused(methods, message: str) -> None:
    with pytest.raises((EvaluationError, SettingsError), match=message):
        run(world(), methods)


def made_up(tmp_path, rows, folds=None, names=True, templates=None) -> Dataset:
    builder = ListBuilder()
    for place, (a, b, mated) in enumerate(rows):
        first, second = (builder.sample(x, x[0] if names else None) for x in (a, b))
        builder.pair(first, second, mated, place + 1, place % folds if folds else 0)
    pairs = builder.pairs(folds)
    return Dataset(
        "made up", tmp_path, tuple(builder.samples), builder.identities(pairs), pairs, folds,
        templates=templates,
    )  # fmt: skip


ROWS = [
    ("a1", "a2", True), ("a1", "b1", False), ("b1", "b2", True), ("a2", "b2", False),
    ("a1", "a3", True), ("c1", "a3", False), ("c1", "c2", True), ("c2", "b2", False),
]  # fmt: skip


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("largest", [None, 0.3])
def test_comparisons_of_samples(tmp_path, largest) -> None:
    dataset = made_up(tmp_path, ROWS, folds=2)
    vectors = np.random.default_rng(0).normal(size=(len(dataset.paths), 5)).astype(np.float32)
    vectors[2] = np.nan
    where = dict(zip(dataset.paths, vectors, strict=True))
    found, accuracy = compare(dataset, compared_vectors(dataset, vectors), largest_fmr=largest)
    expected = [cosine(where[a], where[b]) for a, b, mated in ROWS if mated]
    assert np.allclose(found.similarity, expected, equal_nan=True, atol=1e-6)
    others = sorted(
        (s for a, b, m in ROWS if not m and not np.isnan(s := cosine(where[a], where[b]))),
        reverse=True,
    )
    assert np.allclose(found.non_mated.similarity, others, atol=1e-6)
    assert found.non_mated.missing == 4 - len(others)
    assert accuracy is not None
    assert len(accuracy.by_fold) == 2
    assert found.identity is not None


def test_contradicting_identities_leave_no_intervals(tmp_path) -> None:
    rows = [*ROWS, ("a2", "a3", False)]
    dataset = made_up(tmp_path, rows, names=False)
    assert _contradicts(dataset)
    assert not _contradicts(made_up(tmp_path, ROWS, names=False))
    vectors = np.random.default_rng(0).normal(size=(len(dataset.paths), 5)).astype(np.float32)
    found, accuracy = compare(dataset, compared_vectors(dataset, vectors), largest_fmr=0.1)
    assert found.identity is None
    assert found.non_mated.total == 5
    assert accuracy is None


def test_templates_and_their_qualities(tmp_path) -> None:
    """Eight samples in four templates, one of them twice."""
    template = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3])
    sample = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0])
    media = np.arange(9)
    templates = Templates(np.arange(4), template, sample, media)
    builder = ListBuilder()
    for index in range(8):
        builder.sample(f"{index}.jpg")
    pairs = made_up(tmp_path, [("a0", "a1", True), ("b2", "b3", True), ("a0", "b2", False)]).pairs
    dataset = Dataset(
        "ijb", tmp_path, tuple(builder.samples), np.array([0, 0, 1, 1]), pairs, templates=templates
    )
    vectors = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    weights = np.linspace(0.1, 1, 8)
    for given in (None, weights):
        scale = np.ones(8) if given is None else given
        sums = [
            sum(scale[s] * vectors[s] for t, s in zip(template, sample, strict=True) if t == number)
            for number in range(4)
        ]
        found, _ = compare(dataset, compared_vectors(dataset, vectors, given), largest_fmr=None)
        expected = [cosine(sums[0], sums[1]), cosine(sums[2], sums[3])]
        assert np.allclose(found.similarity, expected, atol=1e-5)
    quality = np.arange(8.0)
    options = EvaluationOptions(
        fmr_targets=(0.5,), fnmr_starts=(0.5,), replicates=0, draws=5, template_quality="max"
    )
    result = evaluate_dataset(
        dataset, compared_vectors(dataset, vectors), {"q": Method(quality)},
        name="d", recogniser="r", options=options,
    )  # fmt: skip
    # min over the pair of max over the template: 1 and 5
    curve = result.method("q").figures[0].curve
    worst = result.points[0].threshold >= found.similarity
    assert curve.fnmr.tolist() == [np.mean(worst), float(worst[1])]
    with pytest.raises(EvaluationError, match="no photo has an embedding"):
        compared_vectors(dataset, vectors * np.nan)


def table(name: str, scores: dict[str, float]) -> ScoreTable:
    return ScoreTable(name, tuple(scores), np.array(list(scores.values())))


def test_against_scipy() -> None:
    rng = np.random.default_rng(0)
    paths = [f"P{index}/P{index}_0001.jpg" for index in range(200)]
    a = np.round(rng.random(200), 1)  # many ties
    b = np.round(a + rng.normal(0, 0.3, 200), 2)
    others = {f"/x/{path}": value for path, value in zip(paths[::-1], b[::-1], strict=True)}
    found = agree(table("a", dict(zip(paths, a, strict=True))), table("b", others))
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)
    assert found.pearson == pytest.approx(scipy.stats.pearsonr(a, b).statistic, abs=1e-12)
    np.testing.assert_array_equal(found.first, a)
    np.testing.assert_array_equal(found.second, b)
    np.testing.assert_allclose(
        found.first_percentile, [scipy.stats.percentileofscore(a, v, "mean") + 0.25 for v in a]
    )
    moved = np.abs(found.second_percentile - found.first_percentile)
    assert [abs(mover["moved"]) for mover in found.movers(200)] == sorted(moved, reverse=True)
    json.dumps(found.as_dict())


def test_counts() -> None:
    first = table("a", {"p": 1, "q": 2, "r": np.nan, "only": 4})
    second = table("b", {"p": 3, "q": np.nan, "r": 5, "x": 6, "y": 7})
    found = agree(first, second)
    assert found.paths == ("p",)
    assert found.spearman is None
    told = found.as_dict()
    assert (told["common"], told["only_in_first"], told["only_in_second"]) == (1, 1, 2)
    assert told["without_score"] == [1, 1]


def test_extremes() -> None:
    up = {"p": 1.0, "q": 2.0, "r": 3.0}
    assert agree(table("a", up), table("b", {k: v**3 for k, v in up.items()})).spearman == 1
    assert agree(table("a", up), table("b", {k: -v for k, v in up.items()})).spearman == -1
    assert agree(table("a", up), table("b", dict.fromkeys(up, 1.0))).spearman is None
    with pytest.raises(ScoresError, match="in common"):
        agree(table("a", up), table("b", {"z": 1}))


def test_a_file_like_the_authors(tmp_path: Path) -> None:
    """Packed CSV with eight decimals, as the authors' scores of XQLFW; and our rankings."""
    rng = np.random.default_rng(1)
    names = [f"Some_One{i}/Some_One{i}_{j:04d}.jpg" for i in range(30) for j in (1, 2)]
    theirs = dict(zip(names, rng.random(60), strict=True))
    text = "image,quality\n" + "".join(f"{p},{q:.8f}\n" for p, q in theirs.items())
    (tmp_path / "theirs.csv.gz").write_bytes(gzip.compress(text.encode()))
    rows = sorted(theirs.items(), key=lambda item: -item[1])
    ours = "rank,path,face,quality\n" + "".join(
        f"{rank},lfw_original_imgs_min_qual0.85variant11/{path},0,{quality**2:.6f}\n"
        for rank, (path, quality) in enumerate(rows, start=1)
    )
    (tmp_path / "rankings.csv").write_text(ours)
    found = agree(read_scores(tmp_path / "theirs.csv.gz"), read_scores(tmp_path / "rankings.csv"))
    assert len(found.paths) == 60
    assert found.match.rules["end"] == 60
    assert found.spearman == pytest.approx(1, abs=1e-4)
