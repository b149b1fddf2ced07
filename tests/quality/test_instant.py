"""The instant preset against a second computation, and against measured scores."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from faceqan_toolkit.errors import ChecksumMismatch, SettingsError
from faceqan_toolkit.models import registry
from faceqan_toolkit.models.load import find_model, load_model
from faceqan_toolkit.quality.instant import InstantFaceQAN
from faceqan_toolkit.types import Pixels
from faceqan_toolkit.weights import weights_path
from tests.conftest import DATA, cases, read_rgb

HEAD = "sface_instant.safetensors"


@pytest.fixture(scope="module")
def estimator() -> InstantFaceQAN:
    return InstantFaceQAN(device="cpu")


def crops() -> list[Pixels]:
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    return [*(read_rgb(path) for path in sorted(DATA.glob("*.png"))), noise]


def by_hand(crop: Pixels) -> tuple[float, float]:
    """The prediction again, from the plain network's layers, in numpy."""
    network = load_model("sface")
    means: list[np.ndarray] = []
    maps: list[torch.Tensor] = []
    for layer in (network.stem, *network.blocks):
        layer.register_forward_hook(
            lambda _module, _inputs, output: means.append(output.numpy().mean(axis=(2, 3))[0])
        )
    network.bn.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    with torch.no_grad():
        x = torch.from_numpy(crop[None].transpose(0, 3, 1, 2) / 255).float()
        embedding = network(x)[0].double().numpy()
        flipped = torch.from_numpy(maps[0].numpy()[..., ::-1].copy())
        mirrored = network.embedding_bn(network.fc(flipped.flatten(1)))[0].double().numpy()
    channels = np.concatenate(means).astype(np.float64)
    lengths = np.array([np.linalg.norm(mirrored), np.linalg.norm(embedding)])
    features = np.concatenate([
        channels, np.log(np.abs(channels) + 0.01), np.log(lengths),
        [embedding @ mirrored / lengths.prod()], lengths,
    ])  # fmt: skip
    head = load_file(weights_path(HEAD))
    raw = ((features - head["mean"]) * head["scale"]) @ head["weight"] + head["bias"][0]
    return float(np.interp(raw, head["knots"], head["qualities"])), lengths[1]


def test_equals_the_prediction_done_by_hand(estimator: InstantFaceQAN) -> None:
    chosen = [crops()[0], crops()[-1]]
    for crop, score in zip(chosen, estimator.score(chosen), strict=True):
        quality, norm = by_hand(crop)
        assert score.quality == pytest.approx(quality, abs=1e-3)
        assert score.embedding_norm == pytest.approx(norm, abs=1e-3)
        assert score.quality_error is not None
        assert 0 < score.quality_error < 0.2
        assert score.similarity_mean is score.symmetry is score.similarities is None


def test_predicts_what_the_published_code_measures(estimator: InstantFaceQAN) -> None:
    measured = {
        case["image"]: case["quality"]
        for case in cases()
        if (case["l"], case["k"], case["p"], case["eps"]) == (5, 10, 5, 0.001)
    }
    scores = estimator.score([read_rgb(DATA / name) for name in measured])
    predicted = [score.quality for score in scores]
    assert len(measured) >= 4
    assert spearmanr(predicted, list(measured.values()))[0] > 0.85
    np.testing.assert_allclose(predicted, list(measured.values()), atol=0.2)


def test_a_score_does_not_depend_on_company(estimator: InstantFaceQAN) -> None:
    batch = crops()
    assert len(batch) > estimator.block_faces
    alone = [estimator.score([crop])[0].quality for crop in batch]
    assert [score.quality for score in estimator.score(batch)] == alone
    assert [score.quality for score in estimator.score(batch[::-1])][::-1] == alone


def test_the_scale_keeps_the_order_and_has_no_ties() -> None:
    head = load_file(weights_path(HEAD))
    assert (np.diff(head["knots"]) > 0).all()
    assert (np.diff(head["qualities"]) > 0).all()
    assert (head["errors"] > 0).all()


def test_the_head_is_small_and_names_its_model() -> None:
    assert weights_path(HEAD).stat().st_size < 2_000_000
    with safe_open(weights_path(HEAD), "numpy") as file:
        assert file.metadata()["model_sha256"] == find_model("sface").sha256


@pytest.mark.parametrize(("raw", "norm"), [(0.5, 0.0), (0.5, math.inf), (math.nan, 1.0)])
def test_a_useless_embedding_gives_nan(estimator: InstantFaceQAN, raw: float, norm: float) -> None:
    assert math.isnan(estimator._score(raw, norm).quality)


def test_a_model_without_a_head_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(registry, "HEADS", {})
    with pytest.raises(SettingsError, match="sface has none"):
        InstantFaceQAN(device="cpu")
    with pytest.raises(SettingsError, match="sface has none"):
        find_model("sface").weights("instant")
    assert find_model("sface").weights("exact") == find_model("sface").sha256


def test_a_changed_head_is_refused(monkeypatch) -> None:
    head = replace(registry.HEADS["sface"], sha256="0" * 64)
    monkeypatch.setitem(registry.HEADS, "sface", head)
    with pytest.raises(ChecksumMismatch, match=HEAD):
        InstantFaceQAN(device="cpu")
