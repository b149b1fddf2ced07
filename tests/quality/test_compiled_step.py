"""torch.compile against torch itself, and where no compiler works."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.quality import backends
from faceqan_toolkit.quality.attack import attack, autograd_step, draw_noise
from faceqan_toolkit.quality.backends import CannotCompile, CompiledStep, WrongGradient, make_step
from faceqan_toolkit.quality.faceqan import FaceQAN

CPU = torch.device("cpu")
SIZE = 16


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(8),
        nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=8), nn.PReLU(8),
        nn.Flatten(), nn.Linear(8 * SIZE * SIZE // 4, 16),
    )  # fmt: skip
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return freeze(layers)


def copies(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    crops = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    targets = F.normalize(torch.randn(count, 16, generator=generator), dim=1)
    return crops.contiguous(memory_format=torch.channels_last), targets


@pytest.fixture
def eager(monkeypatch) -> list[dict[str, object]]:
    """torch.compile that compiles nothing, for what surrounds it."""
    asked: list[dict[str, object]] = []

    def compile(model, **options):
        asked.append(options)
        return model

    monkeypatch.setattr(torch, "compile", compile)
    return asked


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own, about GPUs that are not there
def test_the_compiled_attack_is_the_attack() -> None:
    model = network()
    crops, _ = copies(1)
    with torch.no_grad():
        references = model(crops)
    noise = draw_noise(3, SIZE, eps=0.001, seed=0)
    step = make_step("compile", model, SIZE, CPU)[1]
    found, expected = (
        attack(model, crops, references, noise, eps=0.001, steps=5, bounds=(-1, 1), step=one)
        for one in (step, autograd_step(model))
    )
    assert found.shape == (1, 5, 3)
    assert found.std() > 0
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    (similarity, gradient), again = step(*copies(3)), step(*copies(3))
    expected_similarity, expected_gradient = autograd_step(model)(*copies(3))
    torch.testing.assert_close(similarity, expected_similarity)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-4)
    assert torch.equal(gradient, again[1])


def test_it_is_never_taken_by_itself(eager) -> None:
    assert make_step("auto", network(), SIZE, CPU)[0] != "compile"
    assert make_step("auto", network(), SIZE, torch.device("cuda"))[0] == "torch"
    assert not eager
    name, step = make_step("compile", network(), SIZE, CPU)
    assert (name, type(step)) == ("compile", CompiledStep)
    assert eager == [{"dynamic": False, "mode": "default"}]
    make_step("compile", network(), SIZE, torch.device("cuda"))
    assert eager[1]["mode"] == "reduce-overhead"


def test_it_reaches_the_scorer(eager, crop) -> None:
    options = {"steps": 2, "copies": 1, "device": "cpu"}
    compiled, plain = (FaceQAN(backend=backend, **options) for backend in ("compile", "torch"))
    assert compiled.backend == "compile"
    assert compiled.score([crop])[0].quality == plain.score([crop])[0].quality


@pytest.mark.filterwarnings("ignore")
def test_without_a_compiler(monkeypatch) -> None:
    from torch._inductor import config

    torch.compiler.reset()
    monkeypatch.setattr(config.cpp, "cxx", (None, "/no/such/compiler"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    with pytest.raises(CannotCompile, match=r"no/such/compiler.*needs a C\+\+ compiler") as raised:
        CompiledStep(network(), CPU)(*copies(1))
    assert "\n" not in str(raised.value)


def test_a_wrong_gradient_is_noticed(eager, monkeypatch) -> None:
    right = backends.autograd_step

    def wrong(embed):
        def step(attacked, targets):
            similarity, gradient = right(embed)(attacked, targets)
            return similarity, gradient.flip(3) if len(attacked) > 1 else gradient

        return step

    monkeypatch.setattr(backends, "autograd_step", wrong)
    with pytest.raises(WrongGradient, match=r"torch\.compile's gradient"):
        CompiledStep(network(), CPU)(*copies(2))
