"""Templates against loops."""

from __future__ import annotations

import numpy as np
import pytest

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.datasets import templates as module
from faceqan_toolkit.evaluation.datasets.templates import Templates


@pytest.fixture
def some() -> Templates:
    """Nine templates of 60 rows over 50 samples; a sample may be in several."""
    rng = np.random.default_rng(5)
    return Templates(
        names=np.arange(9, dtype=np.int64) * 2,
        template=np.concatenate([np.arange(9), rng.integers(0, 9, 51)]),
        sample=rng.integers(0, 50, 60),
        media=rng.integers(0, 4, 60),
    )


def looped(some: Templates, vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the same, template by template and medium by medium."""
    result = np.full((len(some), vectors.shape[1]), np.nan)
    for template in range(len(some)):
        total = np.zeros(vectors.shape[1])
        for medium in set(some.media[some.template == template]):
            rows = (some.template == template) & (some.media == medium)
            samples = [s for s in some.sample[rows] if np.isfinite(vectors[s]).all()]
            if samples:
                total += np.mean([weights[s] * vectors[s] for s in samples], axis=0)
        if total.any():
            result[template] = total / np.linalg.norm(total)
    return result


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [7, 1000])
def test_embeddings(
    some: Templates, weighted: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", block)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 6)).astype(np.float32)
    vectors[rng.integers(0, 50, 12)] = np.nan
    vectors[some.sample[some.template == 3]] = np.nan
    weights = rng.uniform(0.1, 1, 50) if weighted else None
    found = some.embed(vectors, weights)
    assert found.dtype == np.float32
    wanted = looped(some, vectors, np.ones(50) if weights is None else weights)
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize(("how", "function"), [("min", min), ("mean", np.mean), ("max", max)])
def test_qualities(some: Templates, how: str, function) -> None:
    values = np.random.default_rng(1).random(50)
    values[::7] = np.nan
    values[some.sample[some.template == 3]] = np.nan
    found = some.quality(values, how)
    for template in range(len(some)):
        own = [v for v in values[some.sample[some.template == template]] if not np.isnan(v)]
        if own:
            assert found[template] == pytest.approx(function(own))
        else:
            assert np.isnan(found[template])
    assert np.isnan(some.quality(np.full(50, np.nan), how)).all()
    with pytest.raises(SettingsError, match="median"):
        some.quality(values, "median")
