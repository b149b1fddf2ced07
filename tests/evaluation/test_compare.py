"""Comparisons of a protocol against loops."""

from __future__ import annotations

import numpy as np
import pytest

from faceqan_toolkit.errors import EvaluationError
from faceqan_toolkit.evaluation.assemble import evaluate_protocol
from faceqan_toolkit.evaluation.compare import compare, compared, contradicts
from faceqan_toolkit.evaluation.datasets.base import ListBuilder, Protocol
from faceqan_toolkit.evaluation.datasets.templates import Templates
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.summary import Method


def made_up(tmp_path, rows, folds=None, names=True, templates=None) -> Protocol:
    builder = ListBuilder()
    for place, (a, b, mated) in enumerate(rows):
        first, second = (builder.sample(x, x[0] if names else None) for x in (a, b))
        builder.pair(first, second, mated, place + 1, place % folds if folds else 0)
    pairs = builder.pairs(folds)
    return Protocol(
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
def test_samples(tmp_path, largest) -> None:
    protocol = made_up(tmp_path, ROWS, folds=2)
    vectors = np.random.default_rng(0).normal(size=(len(protocol.paths), 5)).astype(np.float32)
    vectors[2] = np.nan
    where = dict(zip(protocol.paths, vectors, strict=True))
    found, accuracy = compare(protocol, compared(protocol, vectors), largest_fmr=largest)
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
    protocol = made_up(tmp_path, rows, names=False)
    assert contradicts(protocol)
    assert not contradicts(made_up(tmp_path, ROWS, names=False))
    vectors = np.random.default_rng(0).normal(size=(len(protocol.paths), 5)).astype(np.float32)
    found, accuracy = compare(protocol, compared(protocol, vectors), largest_fmr=0.1)
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
    protocol = Protocol(
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
        found, _ = compare(protocol, compared(protocol, vectors, given), largest_fmr=None)
        expected = [cosine(sums[0], sums[1]), cosine(sums[2], sums[3])]
        assert np.allclose(found.similarity, expected, atol=1e-5)
    quality = np.arange(8.0)
    options = EvaluationOptions(
        fmr_targets=(0.5,), fnmr_starts=(0.5,), replicates=0, draws=5, template_quality="max"
    )
    result = evaluate_protocol(
        protocol, compared(protocol, vectors), {"q": Method(quality)},
        dataset="d", recogniser="r", options=options,
    )  # fmt: skip
    # min over the pair of max over the template: 1 and 5
    curve = result.method("q").figures[0].curve
    worst = result.points[0].threshold >= found.similarity
    assert curve.fnmr.tolist() == [np.mean(worst), float(worst[1])]
    with pytest.raises(EvaluationError, match="no photo has an embedding"):
        compared(protocol, vectors * np.nan)
