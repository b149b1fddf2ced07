"""The length of the embedding, and who may call it MagFace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.architectures import build, official
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.quality.norm import EmbeddingNorm, MagFace
from faceqan_toolkit.types import Pixels
from tests.conftest import DATA, read_rgb
from tests.models.layouts import filled

NAMES = ("astronaut", "astronaut_blur3", "astronaut_dark", "astronaut_occluded", "grey")


def test_equals_the_plain_networks_embedding() -> None:
    crops = [read_rgb(DATA / f"{name}.png") for name in NAMES]
    scores = EmbeddingNorm(device="cpu").score(crops)
    for crop, score in zip(crops, scores, strict=True):
        with torch.no_grad():
            embedding = load_model("sface")(torch.from_numpy(crop.transpose(2, 0, 1) / 255)[None]
                                               .float())  # fmt: skip
        length = np.sqrt((embedding.double().numpy() ** 2).sum())
        assert score.quality == score.embedding_norm == pytest.approx(length, rel=1e-5)
        assert score.similarities is score.symmetry is score.quality_error is None


def test_damage_lowers_it() -> None:
    best, *worse = EmbeddingNorm(device="cpu").score(
        [read_rgb(DATA / f"{name}.png") for name in NAMES]
    )
    assert max(score.quality for score in worse) < best.quality


def test_magface_wants_its_own_networks(crop: Pixels) -> None:
    network = build(official("magface", 18, embedding_size=8))
    filled(network.backbone)
    assert network.family == "magface"
    (score,) = MagFace(network, device="cpu").score([crop])
    assert score == EmbeddingNorm(network, device="cpu").score([crop])[0]
    with pytest.raises(SettingsError, match="trained by MagFace, and sface is none"):
        MagFace("sface", device="cpu")
    with pytest.raises(SettingsError, match="iresnet18 is none"):
        MagFace(build(official("iresnet", 18, embedding_size=8)), device="cpu")
