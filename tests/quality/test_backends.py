"""The choice of a backend, and OpenVINO's gradients against torch's."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceqan_toolkit.errors import MissingDependency, SettingsError
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.quality import backends
from faceqan_toolkit.quality.attack import autograd_step
from faceqan_toolkit.quality.backends import (
    OpenVINOStep,
    UnsupportedOperation,
    WrongGradient,
    make_step,
)
from faceqan_toolkit.quality.faceqan import FaceQAN
from tests.conftest import HANG, needs_openvino
from tests.models.test_freeze import Residual

CPU = torch.device("cpu")


def network(*layers: nn.Module) -> nn.Module:
    return freeze(nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 8 * 8, 4)))


def taken(backend: str, *layers: nn.Module, device: torch.device = CPU) -> str:
    return make_step(backend, network(*layers), 8, device)[0]


@pytest.fixture(autouse=True)
def on_a_pc(monkeypatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")


@needs_openvino
def test_auto_is_openvino_on_the_cpu_of_a_pc(monkeypatch) -> None:
    assert taken("auto") == taken("openvino") == "openvino"
    assert taken("torch") == "torch"
    assert taken("auto", device=torch.device("cuda")) == "torch"
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert taken("auto") == "torch"


def test_without_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert taken("auto") == taken("torch") == "torch"
    with pytest.raises(MissingDependency, match=r"pip install 'faceqan-toolkit\[openvino\]'"):
        taken("openvino")
    with pytest.raises(MissingDependency):
        FaceQAN(backend="openvino", device="cpu")


def test_openvino_is_for_the_cpu() -> None:
    with pytest.raises(SettingsError, match="`backend` openvino is for `device` cpu, not cuda:1"):
        taken("openvino", device=torch.device("cuda:1"))


def test_unknown_backends() -> None:
    with pytest.raises(SettingsError, match="backend is onnx; it must be one of auto, torch"):
        FaceQAN(backend="onnx")


@needs_openvino
def test_networks_that_cannot_be_converted() -> None:
    assert taken("auto", nn.Softplus()) == "torch"
    with pytest.raises(UnsupportedOperation, match="Softplus"):
        taken("openvino", nn.Softplus())


@needs_openvino
def test_a_wrong_gradient_is_noticed(monkeypatch) -> None:
    def wrong(rules, module, x):
        value, (pull,) = rules.flatten(x, 1)
        return value, (lambda gradient: rules.ops.negative(pull(gradient)),)

    monkeypatch.setattr(backends, "MODULES", {**backends.MODULES, nn.Flatten: wrong})
    with pytest.raises(WrongGradient, match=r"cosine of -1\.000"):
        taken("openvino")
    assert taken("auto") == "torch"


pytestmark = needs_openvino


class Everything(nn.Module):
    """Every operation there is a rule for and that the others lack."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([1.9, 2.0, 2.1]).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor([-1.0, -0.9, -1.1]).view(1, 3, 1, 1))
        self.first = nn.Conv2d(3, 8, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(8, 8, (3, 1), stride=(2, 1), padding=(1, 0), groups=4, bias=False)
        self.square = nn.Conv2d(8, 8, 1)
        self.odd = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.prelu, self.one_slope, self.same = nn.PReLU(8, -0.3), nn.PReLU(), nn.Identity()
        self.pick, self.cut = nn.MaxPool2d(1, (1, 2)), nn.MaxPool2d(kernel_size=1, stride=2)
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.norm.running_mean.uniform_(-1, 1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 5 * 5, 6, bias=False), nn.PReLU(6))

    def forward(self, crops: Tensor) -> Tensor:
        x = crops.flip(1) * self.scale + self.shift
        x = self.prelu(self.first((1 - x) / 0.9 - 0.1))
        x = torch.add(self.pick(self.grouped(x)), 3)
        y = self.square(self.norm(x))
        y += self.same(x)
        z = 2 / (y * y + 1) - self.one_slope(x) * x / (y * y + 2)
        return self.head(self.odd(z) + self.cut(z.flip(1)))


def seeded(build: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build().eval()


def inputs(number: int, size: int, embedding: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    crops = torch.rand(number, 3, size, size, generator=generator)
    targets = torch.randn(number, embedding, generator=generator)
    return crops.contiguous(memory_format=torch.channels_last), F.normalize(targets, dim=1)


@pytest.mark.parametrize(
    ("network", "size", "embedding"),
    [(seeded(Residual), 16, 5), (seeded(Everything), 18, 6), (None, 112, 128)],
    ids=["residual", "everything", "sface"],
)
def test_the_same_as_autograd_in_double(
    network: nn.Module | None, size: int, embedding: int
) -> None:
    network = network or load_model("sface")
    crops, targets = inputs(3, size, embedding)
    similarity, gradient = OpenVINOStep(freeze(network), size, threads=2)(crops, targets)
    assert gradient.dtype == similarity.dtype == torch.float32
    assert gradient.stride() == crops.stride()
    expected, wanted = autograd_step(network.double())(crops.double(), targets.double())
    network.float()
    # bfloat16, which OpenVINO would take by itself on some machines, is wrong by 1e-3
    torch.testing.assert_close(similarity.double(), expected, atol=2e-6, rtol=0)
    apart = (gradient - wanted).norm() / wanted.norm()
    assert apart < 0.01  # a unit whose input is zero up to rounding may take the other slope
    assert (gradient.sign() == wanted.sign()).double().mean() > 0.998


def test_finite_differences_in_double() -> None:
    network = seeded(Everything)
    crops, targets = inputs(1, 18, 6)
    _, gradient = OpenVINOStep(freeze(network), 18, threads=1)(crops, targets)
    network.double()
    step = 1e-6
    with torch.no_grad():
        for place in np.random.default_rng(0).choice(3 * 18 * 18, 100, replace=False):
            shift = torch.zeros(crops.numel(), dtype=torch.double)
            shift[place] = step
            shift = shift.view(crops.shape)
            up, down = (
                F.cosine_similarity(network(crops + sign * shift), targets.double())
                for sign in (1, -1)
            )
            expected = (up - down).item() / (2 * step)
            found = gradient.reshape(-1)[place].item()
            assert found == pytest.approx(expected, abs=1e-6, rel=1e-3)


def test_neither_threads_nor_company_change_a_bit() -> None:
    network = freeze(load_model("sface"))
    crops, targets = inputs(4, 112, 128)
    first = OpenVINOStep(network, 112, threads=1)(crops, targets)
    step = OpenVINOStep(network, 112, threads=3)
    for _ in range(2):
        for found, expected in zip(step(crops, targets), first, strict=True):
            assert torch.equal(found, expected)
    for found, expected in zip(step(crops[3:4], targets[3:4]), first, strict=True):
        assert torch.equal(found, expected[3:4])


class Pair(nn.Module):
    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        return crops.flatten(1), crops


class Untraceable(nn.Module):
    def forward(self, crops: Tensor) -> Tensor:
        return crops.flatten(1) if crops.sum() > 0 else -crops.flatten(1)


class Keyword(nn.Module):
    def forward(self, crops: Tensor) -> Tensor:
        return torch.add(crops, crops, alpha=2).flatten(1)


class Reversed(nn.Module):
    def forward(self, crops: Tensor) -> Tensor:
        return crops.flip((2, 3)).flatten(1)


class Spread(nn.Module):
    """Repeats what is computed from the crop along an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wide = nn.Conv2d(3, 1, 1), nn.Parameter(torch.ones(1, 3, 1, 1))

    def forward(self, crops: Tensor) -> Tensor:
        return (self.conv(crops) * self.wide).flatten(1)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.Sequential(nn.Softplus(), nn.Flatten()), "Softplus"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), "MaxPool2d"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding="same"), nn.Flatten()), "padded"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding_mode="reflect"), nn.Flatten()), "reflect"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "one embedding"),
        (nn.Sequential(nn.Flatten(2), nn.Flatten()), "flatten"),
        (Pair(), "one embedding"),
        (Untraceable(), "Untraceable"),
        (Keyword(), "add"),
        (Reversed(), "flip"),
        (Spread(), "repeats"),
    ],
)
def test_what_cannot_be_converted_is_named(layer: nn.Module, named: str) -> None:
    with pytest.raises(UnsupportedOperation, match=named):
        OpenVINOStep(freeze(layer), 8, threads=1)


def test_nothing_is_sent_or_left_behind(tmp_path: Path) -> None:
    code = """
import json, sys
seen = []
def note(event, arguments):
    if event.startswith("socket."):
        seen.append(event)
sys.addaudithook(note)
from faceqan_toolkit.quality.backends import import_openvino
from faceqan_toolkit.quality.faceqan import FaceQAN
assert FaceQAN(device="cpu", backend="openvino").backend == "openvino"
import_openvino()
print(json.dumps([seen, [name for name in sys.modules if name.startswith("openvino_telemetry")]]))
"""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "HOME": str(home), "USERPROFILE": str(home)}, timeout=HANG,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == [[], []]
    assert list(home.iterdir()) == []


def test_telemetry_stays_importable_for_others(monkeypatch) -> None:
    from faceqan_toolkit.quality.backends import import_openvino

    monkeypatch.setitem(sys.modules, "openvino_telemetry", json)
    import_openvino()
    assert sys.modules["openvino_telemetry"] is json
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    import_openvino()
    assert "openvino_telemetry" not in sys.modules
