"""Every method by its name, and what no method's score may depend on."""

from __future__ import annotations

import math
from inspect import signature

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.architectures import build, official
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.quality.base import QualityEstimator
from faceqan_toolkit.quality.faceqan import FaceQAN, InstantFaceQAN
from faceqan_toolkit.quality.grafiqs import GraFIQs
from faceqan_toolkit.quality.norm import EmbeddingNorm, MagFace
from faceqan_toolkit.quality.registry import make_estimator
from faceqan_toolkit.quality.serfiq import SERFIQ
from faceqan_toolkit.registry import METHODS
from faceqan_toolkit.settings import Settings, setting_field
from faceqan_toolkit.types import Pixels
from tests.toys import SIZE, Toy

CLASSES = {
    "faceqan": FaceQAN, "serfiq": SERFIQ, "grafiqs": GraFIQs, "magface": MagFace,
    "norm": EmbeddingNorm,
}  # fmt: skip


def toy(family: str = "magface") -> Toy:
    network = Toy()
    network.family = family
    return network


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_estimator(method: str) -> None:
    backend = "torch" if method == "faceqan" else "auto"
    scorer = make_estimator(Settings(method=method, device="cpu", backend=backend), toy())
    assert type(scorer) is CLASSES[method]
    assert scorer.device.type == "cpu"
    crop = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert math.isfinite(scorer.score([crop])[0].quality)


def test_presets_arrive() -> None:
    scorer = make_estimator(Settings(device="cpu", preset="instant"), load_model("sface"))
    assert type(scorer) is InstantFaceQAN


def test_faceqans_options_arrive() -> None:
    options = {"eps": 0.004, "eps_mode": "contrast", "steps": 3, "copies": 4, "exponent": 2.0,
               "seed": 1, "clamp": "valid", "backend": "torch"}  # fmt: skip
    made = make_estimator(Settings(device="cpu", **options), toy())
    direct = FaceQAN(toy(), device="cpu", **options)
    crop = np.random.default_rng(0).integers(0, 56, (SIZE, SIZE, 3), dtype=np.uint8)
    assert made.score([crop])[0].quality == direct.score([crop])[0].quality


def test_the_seed_is_serfiqs_too() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    qualities = [
        make_estimator(Settings(method="serfiq", device="cpu", seed=seed), toy())
        .score([crop])[0]
        .quality
        for seed in (0, 0, 1)
    ]
    assert qualities[0] == qualities[1] != qualities[2]


def test_options_of_other_methods_arrive() -> None:
    chosen = {"passes": 7, "dropout": 0.25, "seed": 2}
    made = make_estimator(Settings(method="serfiq", device="cpu", **chosen), toy())
    direct = SERFIQ(toy(), **chosen, device="cpu")
    crop = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    assert made.score(crop) == direct.score(crop)
    at = Settings(method="grafiqs", device="cpu", at="block1")
    assert make_estimator(at, toy()).at == "block1"
    with pytest.raises(SettingsError, match="at is block4; with toy it must be one of image"):
        make_estimator(at.replace(at="block4"), toy())


@pytest.mark.parametrize("part", METHODS.values(), ids=lambda part: part.name)
def test_defaults_are_those_of_the_class(part) -> None:
    known = signature(CLASSES[part.name]).parameters
    assert {name: item.default for name, item in part.fields.items()} == {
        name: known[name].default for name in part.fields
    }
    assert part.make.__doc__
    for name in {*part.uses} - {"preset", "copies"}:
        assert known[name].default == setting_field(name).default


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("serfiq", {"eps": 0.002}),
        ("serfiq", {"preset": "fast"}),
        ("serfiq", {"backend": "torch"}),
        ("grafiqs", {"seed": 1}),
        ("grafiqs", {"steps": 3}),
        ("norm", {"preset": "instant"}),
        ("norm", {"copies": 3}),
        ("magface", {"clamp": "valid"}),
        ("magface", {"exponent": 2.0}),
    ],
)
def test_settings_that_would_be_ignored_are_refused(method: str, option) -> None:
    (name,) = option
    with pytest.raises(SettingsError, match=rf"{name} is .* method {method} would ignore"):
        Settings(method=method, **option)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"method is fiq; it must be one of faceqan, serfiq"):
        Settings(method="fiq")


OTHERS = [name for name in METHODS if name != "faceqan"]


@pytest.fixture(scope="module", params=OTHERS)
def scorer(request: pytest.FixtureRequest) -> QualityEstimator:
    return make_estimator(Settings(method=request.param, device="cpu"), toy())


@given(st.lists(st.integers(0, 20), min_size=1, max_size=7), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_a_score_does_not_depend_on_company(
    scorer: QualityEstimator, numbers: list[int], block: int
) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (21, SIZE, SIZE, 3), dtype=np.uint8)
    crops[20] = 90
    scorer.block_faces = block
    alone = [scorer.score([crops[number]])[0] for number in numbers]
    together = scorer.score([crops[number] for number in numbers])
    for name in ("quality", "embedding_norm"):
        found, expected = ([getattr(one, name) for one in each] for each in (together, alone))
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", [name for name in OTHERS if name != "magface"])
def test_nor_on_company_with_the_built_in_model(method: str, crop: Pixels) -> None:
    scorer = make_estimator(Settings(method=method, device="cpu"), load_model("sface"))
    crops = [crop, *(np.roll(crop, 9 * n, axis=1) for n in range(1, 5))]
    alone = [scorer.score([one])[0] for one in crops]
    assert scorer.score(crops) == alone
    assert scorer.score(crops[::-1])[::-1] == alone
    assert len({score.quality for score in alone}) == 5
    again = make_estimator(Settings(method=method, device="cpu"), load_model("sface"))
    assert again.score(crops) == alone
    # blocks of another shape may be added up in another order
    again.block_faces = 3
    found = [score.quality for score in again.score(crops)]
    assert found == pytest.approx([score.quality for score in alone], rel=1e-4)


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_a_useless_embedding_gives_nan(method: str, value: float) -> None:
    network = toy()
    network.features.weight.fill_(value)
    network.features.bias.zero_()
    crop = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    (score,) = make_estimator(Settings(method=method, device="cpu"), network).score([crop])
    assert math.isnan(score.quality)


@pytest.mark.parametrize("method", OTHERS)
def test_no_crops_no_scores(method: str) -> None:
    scorer = make_estimator(Settings(method=method, device="cpu"), toy())
    assert scorer.score([]) == []
    with pytest.raises(SettingsError, match="8x8x3 uint8"):
        scorer.score([np.zeros((9, 8, 3), np.uint8)])


@pytest.mark.parametrize("method", OTHERS)
def test_the_model_stays_as_it_was(method: str) -> None:
    network = toy()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    scorer = make_estimator(Settings(method=method, device="cpu"), network)
    scorer.score(np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8))
    assert all(torch.equal(before[name], after) for name, after in network.state_dict().items())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in network.modules())


ARCHITECTURES = [
    official("magface", 18, embedding_size=16),
    official("adaface", 18, embedding_size=16),
    official("ir", 18, embedding_size=16, squeeze_excitation=True),
    official("facenet"),
]


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda one: one.name)
def network(request: pytest.FixtureRequest) -> Embedder:
    torch.manual_seed(0)
    return build(request.param)


@pytest.mark.parametrize("method", ["serfiq", "grafiqs", "norm"])
def test_every_network_can_be_asked(network: Embedder, method: str) -> None:
    size = network.input_size
    crops = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    one, other = make_estimator(Settings(method=method, device="cpu"), network).score(crops)
    assert math.isfinite(one.quality)
    assert one.quality != other.quality
    with torch.no_grad():
        expected = network(torch.from_numpy(crops.transpose(0, 3, 1, 2) / 255).float()).norm(dim=1)
    found = [one.embedding_norm, other.embedding_norm]
    assert found == pytest.approx(expected.tolist(), rel=1e-3)
