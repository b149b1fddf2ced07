"""FaceQAN's scores and traces, and the prediction by preset instant."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from scipy.stats import spearmanr
from torch import Tensor

from faceqan_toolkit.errors import ChecksumMismatch, FaceQANError, SettingsError, UnknownModel
from faceqan_toolkit.models import registry
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.load import find_model, load_model
from faceqan_toolkit.models.weights import weights_path
from faceqan_toolkit.quality import faceqan as quality
from faceqan_toolkit.quality.backends import make_step
from faceqan_toolkit.quality.faceqan import FaceQAN, InstantFaceQAN, aggregate
from faceqan_toolkit.types import Pixels
from tests.conftest import BACKENDS, DATA, cases, needs_openvino, read_rgb


def name(case) -> str:
    return f"{case['image']}-l{case['l']}-k{case['k']}-p{case['p']}"


@pytest.fixture(scope="module")
def sface() -> Embedder:
    return load_model("sface")


@pytest.fixture(scope="module", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Freeze a network once, and compile its step once for each backend and number of threads."""
    compiled = cache(lambda threads, *arguments: make_step(*arguments))

    def compile_once(*arguments: Any) -> Any:
        return compiled(torch.get_num_threads(), *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "freeze", cache(quality.freeze))
        patch.setattr(quality, "make_step", compile_once)
        yield


PARITY = [
    pytest.param(
        case, backend, id=f"{name(case)}-{backend}",
        # all of them take a minute
        marks=[*([needs_openvino] if backend == "openvino" else []),
               *([pytest.mark.slow] if number > 1 else [])],
    )
    for number, case in enumerate(cases())
    for backend in ("torch", "openvino")
]  # fmt: skip


@pytest.mark.parametrize(("case", "backend"), PARITY)
def test_parity_with_the_published_code(case, backend: str, sface: Embedder) -> None:
    scorer = FaceQAN(
        sface, eps=case["eps"], steps=case["l"], copies=case["k"], exponent=case["p"],
        seed=case["seed"], device="cpu", backend=backend,
    )  # fmt: skip
    (score,) = scorer.score([read_rgb(DATA / case["image"])])
    assert score.similarities.shape == (case["l"], case["k"])
    # of plain grey nearly every gradient is nothing, and rounding decides its sign
    apart = 1e-2 if case["image"] == "grey.png" else 3e-3
    np.testing.assert_allclose(score.similarities, case["similarities"], atol=apart)
    assert score.similarity_mean == pytest.approx(case["mean"], abs=3e-3)
    assert score.similarity_std == pytest.approx(case["std"], abs=3e-3)
    assert score.symmetry == pytest.approx(case["symmetry"], abs=1e-5)
    assert score.quality == pytest.approx(case["quality"], abs=3e-3)
    assert score.embedding_norm == pytest.approx(case["embedding_norm"], abs=1e-3)


@pytest.mark.parametrize("case", cases(), ids=name)
def test_aggregation_of_the_published_similarities(case) -> None:
    found, mean, std = aggregate(case["similarities"], case["symmetry"], case["p"])
    assert mean == pytest.approx(case["mean"], abs=1e-5)
    assert std == pytest.approx(case["std"], abs=1e-5)
    assert found == pytest.approx(case["quality"], abs=1e-5)


@pytest.mark.parametrize("exponent", [1, 3, 5, 0.5, 2.5, 2])
def test_a_negative_base_keeps_its_sign(exponent: float) -> None:
    found, _, _ = aggregate([[0.8, 0.9]], -0.5, exponent)
    opposite, _, _ = aggregate([[0.8, 0.9]], 0.5, exponent)
    assert found == -opposite < 0


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(-1, 1), st.floats(0.01, 20))
def test_quality_is_finite_and_bounded(values, symmetry, exponent) -> None:
    found, mean, std = aggregate(np.array([values]), symmetry, exponent)
    assert math.isfinite(found)
    assert -1 <= found <= 1
    assert std >= 0
    assert mean == pytest.approx(np.mean(values), abs=1e-12)


@given(st.permutations([0.2, 0.5, 0.9, 0.95]))
def test_order_of_copies_does_not_matter(values) -> None:
    assert aggregate([values], 0.9, 5) == pytest.approx(aggregate([sorted(values)], 0.9, 5))


class Small(Embedder):
    """A network of a few weights, quick, with the built-in model's input size."""

    name, sha256 = "small", "0"

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(
            torch.randn(16, 3 * 14 * 14, generator=generator), requires_grad=False
        )

    def forward(self, crops: Tensor) -> Tensor:
        return (torch.nn.functional.avg_pool2d(crops, 8) - 0.5).flatten(1) @ self.weight.T


def faces(number: int) -> list[Pixels]:
    """Return different crops."""
    pictures = [read_rgb(path) for path in sorted(DATA.glob("*.png"))]
    return [np.roll(pictures[n % len(pictures)], n, axis=1) for n in range(number)]


OTHERWISE = {
    "eps_mode": "contrast",
    "eps": 0.004, "steps": 3, "copies": 4, "exponent": 2.0, "seed": 1, "clamp": "valid"
}  # fmt: skip


@pytest.mark.parametrize(("option", "value"), OTHERWISE.items())
def test_every_option_changes_the_score(option: str, value) -> None:
    black = np.zeros((112, 112, 3), np.uint8)
    black[40:70, 30:90] = 90
    # the bounds matter only near black, the mode at low contrast
    crop = {"clamp": black, "eps_mode": faces(1)[0] // 4}.get(option, faces(1)[0])
    (before,) = FaceQAN(Small(), device="cpu").score([crop])
    (after,) = FaceQAN(Small(), device="cpu", **{option: value}).score([crop])
    assert before.quality != after.quality


def test_contrast_decides_the_strength() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    crops[1] = crops[1] // 8
    crops[2] = 90
    tensor = torch.from_numpy(crops).permute(0, 3, 1, 2) / 255
    grey = crops @ np.array([0.299, 0.587, 0.114]) / 255
    contrast = np.maximum(grey.std(axis=(1, 2)), 1 / 255)
    expected = np.sqrt(np.minimum(contrast / 0.2, 1))
    np.testing.assert_allclose(quality.contrast_strength(tensor), expected, rtol=1e-5)
    assert expected[2] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_attack_by_contrast_is_one_with_less_eps(backend: str, sface: Embedder) -> None:
    dark = (faces(3)[1] * 0.3).astype(np.uint8)
    tensor = torch.from_numpy(dark)[None].permute(0, 3, 1, 2) / 255
    eps = 0.001 * float(quality.contrast_strength(tensor))
    assert eps < 0.0008
    (one,), (other,), (third,) = (
        FaceQAN(sface, copies=2, device="cpu", backend=backend, **options).score([dark])
        for options in ({"eps_mode": "contrast"}, {"eps": eps}, {})
    )
    np.testing.assert_allclose(one.similarities, other.similarities, atol=3e-3)
    assert one.quality > third.quality + 0.02
    assert one.symmetry == third.symmetry


def test_an_attack_by_contrast_leaves_contrasty_crops_alone() -> None:
    checks = np.zeros((112, 112, 3), np.uint8)
    checks[::2, ::3] = checks[1::2, 1::3] = 255
    crops = [checks, faces(1)[0] // 4]
    absolute, by_contrast = (
        FaceQAN(Small(), eps_mode=mode, device="cpu").score(crops)
        for mode in ("absolute", "contrast")
    )
    assert np.array_equal(absolute[0].similarities, by_contrast[0].similarities)
    assert not np.array_equal(absolute[1].similarities, by_contrast[1].similarities)


def test_a_trace_by_contrast_shows_the_attack_that_was_made() -> None:
    dark = faces(1)[0] // 4
    scorer = FaceQAN(Small(), copies=2, steps=3, eps_mode="contrast", device="cpu")
    trace = scorer.trace(dark)
    assert trace.score.quality == scorer.score([dark])[0].quality
    strength = float(
        quality.contrast_strength(torch.from_numpy(dark)[None].permute(0, 3, 1, 2) / 255)
    )
    # noise and three steps, each of at most eps times the strength
    assert 0 < np.abs(trace.noise).max() <= 4 * 0.001 * strength * (1 + 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_score_does_not_depend_on_company_or_order(backend: str, sface: Embedder) -> None:
    crops = faces(2)
    scorer = FaceQAN(sface, steps=2, copies=2, device="cpu", backend=backend)
    alone = [scorer.score([crop])[0] for crop in crops]
    together = scorer.score(crops)
    backwards = scorer.score(crops[::-1])[::-1]
    for one, other, third in zip(alone, together, backwards, strict=True):
        assert one.quality == other.quality == third.quality
        assert np.array_equal(one.similarities, other.similarities)


@pytest.mark.parametrize("backend", BACKENDS)
def test_thread_counts_agree(backend: str, sface: Embedder) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            scorer = FaceQAN(sface, copies=2, steps=2, device="cpu", backend=backend)
            found.append(scorer.score(faces(1))[0].quality)
    finally:
        torch.set_num_threads(before)
    assert found[0] == pytest.approx(found[1], abs=3e-3)


@needs_openvino
def test_backends_agree(sface: Embedder) -> None:
    crops = faces(2)
    first, second = (
        FaceQAN(sface, copies=2, steps=3, device="cpu", backend=name)
        for name in ("torch", "openvino")
    )
    assert (first.backend, second.backend) == ("torch", "openvino")
    for one, other in zip(first.score(crops), second.score(crops), strict=True):
        assert one.quality == pytest.approx(other.quality, abs=1e-3)
        np.testing.assert_allclose(one.similarities, other.similarities, atol=5e-3)
        # nothing was pushed before the first row: rounding alone
        np.testing.assert_allclose(one.similarities[0], other.similarities[0], atol=1e-5)


def test_blocks_of_many_faces_give_the_same_scores() -> None:
    crops = faces(5)
    expected = FaceQAN(Small(), device="cpu").score(crops)
    scorer = FaceQAN(Small(), device="cpu")
    scorer.block_faces = 3  # as on a GPU: 5 faces make one block and a padded one
    found = scorer.score(crops)
    alone = scorer.score(crops[3:4])
    assert len(found) == 5
    assert alone[0].quality == found[3].quality
    for one, other in zip(expected, found, strict=True):
        assert one.quality == pytest.approx(other.quality, abs=3e-3)


def test_seeds_repeat() -> None:
    crops = faces(1)
    first, again, other = (
        FaceQAN(Small(), seed=seed, device="cpu").score(crops)[0].quality for seed in (1, 1, 2)
    )
    assert first == again != other


class Hungry(Small):
    """Runs out of memory on more than `limit` crops at once."""

    limit = 6

    def forward(self, crops: Tensor) -> Tensor:
        if len(crops) > self.limit:
            raise torch.OutOfMemoryError("no memory left")
        return super().forward(crops)


def test_out_of_memory_halves_the_block_and_goes_on() -> None:
    crops = faces(5)
    scorer = FaceQAN(Hungry(), copies=10, device="cpu")
    scorer.block_faces = 4
    found = scorer.score(crops)
    assert (scorer.block_faces, scorer.block_copies) == (1, 5)
    for one, other in zip(FaceQAN(Small(), device="cpu").score(crops), found, strict=True):
        assert one.quality == pytest.approx(other.quality, abs=3e-3)
        assert other.similarities.shape == (5, 10)


def test_no_memory_at_all_is_an_error() -> None:
    hungry = Hungry()
    hungry.limit = 0
    with pytest.raises(FaceQANError, match="not enough memory"):
        FaceQAN(hungry, device="cpu").score(faces(1))


def test_other_runtime_errors_are_not_taken_for_memory() -> None:
    class Broken(Small):
        def forward(self, crops: Tensor) -> Tensor:
            raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        FaceQAN(Broken(), device="cpu").score(faces(1))


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_useless_embedding_gives_nan(value: float) -> None:
    class Useless(Small):
        def forward(self, crops: Tensor) -> Tensor:
            return super().forward(crops) * 0 + value

    (score,) = FaceQAN(Useless(), device="cpu").score(faces(1))
    assert math.isnan(score.quality)


def test_no_crops_no_scores() -> None:
    assert FaceQAN(Small(), device="cpu").score([]) == []


@pytest.mark.parametrize(
    "bad",
    [np.zeros((96, 112, 3), np.uint8), np.zeros((112, 112, 3)), np.zeros((112, 112), np.uint8)],
)
def test_crops_of_another_kind_are_refused(bad) -> None:
    with pytest.raises(SettingsError, match="112x112x3 uint8"):
        FaceQAN(Small(), device="cpu").score([bad])


@pytest.mark.parametrize(
    "option",
    [
        {"eps": 0}, {"eps": 1}, {"eps": math.nan}, {"steps": 0}, {"copies": 0}, {"exponent": 0},
        {"exponent": math.inf}, {"seed": -1}, {"clamp": "no"}, {"eps_mode": "no"},
        {"device": "toaster"}, {"device": "cuda:99"}, {"device": "meta"},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range(option) -> None:
    with pytest.raises(SettingsError, match=next(iter(option)).replace("_", "-")):
        FaceQAN(Small(), **option)


def test_models_by_name() -> None:
    assert FaceQAN(device="cpu", backend="torch").embedder.name == "sface"
    with pytest.raises(UnknownModel):
        FaceQAN("nobody")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    crops = faces(3)
    for one, other in zip(
        FaceQAN(device="cuda").score(crops), FaceQAN(device="cpu").score(crops), strict=True
    ):
        assert one.quality == pytest.approx(other.quality, abs=3e-3)


def test_bounds_are_the_settings_choices() -> None:
    from faceqan_toolkit.settings import CLAMPS

    assert tuple(quality.BOUNDS) == CLAMPS


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
def test_a_useless_embedding_gives_a_nan_prediction(
    estimator: InstantFaceQAN, raw: float, norm: float
) -> None:
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
