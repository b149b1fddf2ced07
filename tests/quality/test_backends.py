"""Which backend is taken, and what is said where the one asked for cannot be had."""

from __future__ import annotations

import platform
import sys

import pytest
import torch
from torch import nn

from faceqan_toolkit.errors import MissingDependency, SettingsError
from faceqan_toolkit.models import openvino_model
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.models.openvino_model import UnsupportedOperation
from faceqan_toolkit.quality.backends import WrongGradient, make_step
from faceqan_toolkit.quality.faceqan import FaceQAN
from tests.conftest import needs_openvino

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
    with pytest.raises(SettingsError, match="--backend openvino is for --device cpu, not cuda:1"):
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

    monkeypatch.setattr(openvino_model, "MODULES", {**openvino_model.MODULES, nn.Flatten: wrong})
    with pytest.raises(WrongGradient, match=r"cosine of -1\.000"):
        taken("openvino")
    assert taken("auto") == "torch"
