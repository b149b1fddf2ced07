"""From an ONNX file's content to a torch network: read, rewrite, convert by onnx2torch, check."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx.shape_inference
import onnx2torch
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import ModelProto
from onnx2torch.node_converters import get_converter
from onnx2torch.onnx_graph import OnnxGraph
from torch import Tensor, fx, nn

from faceqan_toolkit.errors import UnsupportedGraph, WrongArchitecture
from faceqan_toolkit.models import onnx_rewrites as rewrites
from faceqan_toolkit.models.architectures import Loaded
from faceqan_toolkit.models.base import (
    EQUAL,
    BackboneEmbedder,
    Preprocessing,
    check_embeddings,
    has_equal_lengths,
    noise_crops,
)
from faceqan_toolkit.models.onnx_file import (
    USUAL_SIZE,
    GraphInput,
    check_weights,
    find_input,
    find_output,
    read_model,
    tallied,
)
from faceqan_toolkit.text import first_line

Floats = NDArray[np.float32]

onnxruntime.disable_telemetry_events()

FATAL = 4
"""onnxruntime's log severity for fatal errors only."""

OPERATORS = {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv}

FLAT = ("Round", "Floor", "Ceil", "Sign", "QuantizeLinear")
"""Piecewise constant operators: their gradient is zero."""

TOLERANCE = 1e-4
"""Largest difference between our embedding and onnxruntime's, relative to its length."""

LEAST_LIKENESS = 0.5
"""Least cosine between embeddings with and without rounded activations. SFace in QDQ has 0.95 on
noise, which is far from its calibration data; a wrong conversion has about 0."""

STEP = 1e-8
"""Step of the finite difference, in [0, 1] units of a crop, in double precision. Within 1e-6 so
many units change sign that SFace's difference is off by a percent."""

GRADIENT_TOLERANCE = 1e-3
"""Largest difference between the slope by the gradient and by a finite difference, relative to the
gradient's length."""

NEAR = 8
"""Most nodes between the embedding before its normalisation and the output."""

NO_GRADIENT = "no gradient reaches the crop: an operator rounds or compares"


def read_network(content: bytes, preprocessing: Preprocessing | None) -> Loaded:
    """Return the network in an ONNX file's content, see `load_onnx`."""
    model = read_model(content)
    title = f"ONNX file ({model.producer_name})" if model.producer_name else "ONNX file"
    rewrites.use_float32(model)
    rewrites.prune_inputs(model)
    rewrites.mend_mxnet(model)
    if rewrites.version_of(model) < 7:  # onnxruntime does not know these opsets
        model = rewrites.to_opset(model)
    check_weights(model)
    entry = find_input(model, preprocessing.input_size if preprocessing else None)
    original = Session(model)
    crops = noise_crops(entry.size).numpy()
    outputs = original.run_crops(crops, entry)
    output = find_output(outputs)
    notes = [f"its output {name} is not used" for name in outputs if name != output]
    if unnormalised := find_unnormalised(model, entry, crops, outputs, output):
        output, length = unnormalised
        notes.remove(f"its output {length} is not used")
        notes.append(f"its output {length} is the length of the embedding before normalisation")
        model = rewrites.with_outputs(model, [output])
        original = Session(model)

    rewrites.fold_constants(model, lambda part, names: Session(part).run({}, names))
    model = rewrites.to_opset(model)
    rewrites.fill_bounds(model)
    rewrites.set_ends(model, output, entry.size, entry.channels_last)
    first = replace(entry, name=model.graph.input[0].name, channels_last=False)
    unrounded = None
    if rewrites.pass_activations(model):
        notes.append("its activations are not rounded, since rounding has no gradient")
        unrounded = Session(model)
    rewrites.skip_idle(model)
    shapes = _shapes(model, first)
    rewrites.pad_explicitly(model, shapes)
    rewrites.free_batch(model, shapes, entry.batch)
    rewrites.name_nodes(model)

    chosen, assumed = _choose_preprocessing(model, entry, preprocessing)
    embedder = BackboneEmbedder(to_torch(model), chosen)
    embedder.name, embedder.family = "onnx", "onnx"
    embedder.sha256 = hashlib.sha256(content).hexdigest()
    embedder.eval().requires_grad_(False)
    pictures = embedder.normalise(noise_crops(entry.size)).numpy()
    expected = original.run_crops(pictures, entry, [output])[output]
    if unrounded is not None:
        rounded = expected
        (expected,) = unrounded.run_crops(pictures, first).values()
        _compare_rounded(torch.from_numpy(expected), torch.from_numpy(rounded))
    size = expected.shape[1]
    check_embeddings(embedder, size)
    _compare(embedder, torch.from_numpy(expected))
    _check_gradient(embedder)
    if has_equal_lengths(embedder):
        notes.append("its embeddings all have the same length, so embedding_norm stays empty")
    embedder.title, embedder.notes = f"{title}, {size}-d", tuple(notes)
    return Loaded(embedder, size, assumed=assumed)


def find_unnormalised(
    model: ModelProto, entry: GraphInput, crops: Floats, outputs: Mapping[str, Floats], output: str
) -> tuple[str, str] | None:
    """Return the names of the embedding before its normalisation and of an output with its length.

    AdaFace's official network is such a graph. A value is accepted only if its lengths are the
    other output, and dividing by them gives the embeddings; None if there is none. `outputs` are
    all outputs for two unlike crops in the range the graph expects.
    """
    embeddings = outputs[output]
    lengths = {
        name: value.reshape(len(embeddings), 1)
        for name, value in outputs.items()
        if value.size == len(embeddings) and value.dtype.kind == "f"
    }
    if not lengths or not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=EQUAL):
        return None
    names = _values_before(model, output)
    part = Session(rewrites.with_outputs(model, names)) if names else None
    for name, value in (part.run_crops(crops, entry, names) if part else {}).items():
        if value.shape != embeddings.shape:
            continue
        found = np.linalg.norm(value, axis=1, keepdims=True)
        for length, given in lengths.items():
            same = np.allclose(found, given, rtol=EQUAL, atol=0)
            if same and np.allclose(value / given, embeddings, atol=EQUAL):
                return name, length
    return None


def _values_before(model: ModelProto, output: str) -> list[str]:
    """Return the values at most `NEAR` nodes before an output, the nearest first."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, None] = {}
    last = [output]
    for _ in range(NEAR):
        last = [name for value in last if value in makers for name in makers[value].input]
        found |= dict.fromkeys(name for name in last if name in makers)
    return list(found)


def _shapes(model: ModelProto, entry: GraphInput) -> dict[str, tuple[int, ...]]:
    """Return the shapes that `pad_explicitly` and `free_batch` need."""
    picture = np.zeros((entry.batch, 3, entry.size, entry.size), np.float32)
    shapes: dict[str, tuple[int, ...]] = {entry.name: picture.shape}
    names = [name for name in rewrites.shapes_needed(model) if name != entry.name]
    if names:
        values = Session(rewrites.with_outputs(model, names)).run({entry.name: picture}, names)
        shapes |= {name: value.shape for name, value in values.items()}
    return shapes


def _choose_preprocessing(
    model: ModelProto, entry: GraphInput, given: Preprocessing | None
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the preprocessing, and the names of its guessed fields."""
    if given is not None:
        if given.input_size != entry.size:
            raise WrongArchitecture(
                f"takes {entry.size}x{entry.size} pixels; its preprocessing makes "
                f"{given.input_size}x{given.input_size}"
            )
        return given, ()
    highest = _own_range(model, entry)
    mean, std = (0.0, 255 / highest) if highest else (127.5, 127.5)
    usual = entry.size == USUAL_SIZE
    guesses = {"channels": True, "mean": not highest, "std": not highest,
               "input_size": not entry.sized, "template": not usual}  # fmt: skip
    chosen = Preprocessing("RGB", mean, std, entry.size, "arcface" if usual else "box")
    return chosen, tuple(name for name, guessed in guesses.items() if guessed)


def _own_range(model: ModelProto, entry: GraphInput) -> int | None:
    """Return the highest pixel value, 255 or 1, that a graph expects if it scales pixels itself.

    It follows from the pixel value that the graph maps to zero, which is near the middle of the
    range or at its lower end.
    """
    head = rewrites.affine_head(model)
    if head == model.graph.input[0].name:
        return None
    session = Session(rewrites.with_outputs(model, [head]))
    name, shape = model.graph.input[0].name, (entry.batch, 3, entry.size, entry.size)
    black = session.run({name: np.zeros(shape, np.float32)}, [head])[head]
    slope = session.run({name: np.ones(shape, np.float32)}, [head])[head] - black
    if not (slope > 0).all():
        return None
    middle = -black / slope
    if middle.min() >= 0 and 1 < middle.max() < 255:
        return 255
    if middle.min() > 0 and middle.max() <= 1:
        return 1
    return 255 if (middle == 0).all() and slope.max() < 0.1 else None


def _compare(embedder: BackboneEmbedder, expected: Tensor) -> None:
    """Check that a batch gives the embeddings that onnxruntime computes for each crop alone."""
    with torch.no_grad():
        found = embedder(noise_crops(embedder.input_size))
    difference = ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()
    if not difference <= TOLERANCE:
        raise UnsupportedGraph(
            f"its embeddings differ from onnxruntime's by {difference:.1e} of their length"
        )


def _compare_rounded(expected: Tensor, rounded: Tensor) -> None:
    """Check that embeddings with and without rounded activations are similar."""
    likeness = F.cosine_similarity(expected, rounded, dim=1).min().item()
    if not likeness >= LEAST_LIKENESS:
        raise UnsupportedGraph(
            "it does not work without the rounding of its activations: embeddings with and without "
            f"have a cosine of {likeness:.2f}"
        )


def _check_gradient(embedder: BackboneEmbedder) -> None:
    """Compare the gradient's slope along a random direction with a finite difference."""
    generator = torch.Generator().manual_seed(1)
    crop = noise_crops(embedder.input_size)[:1].double().requires_grad_()
    direction = torch.randn(crop.shape, generator=generator, dtype=torch.double)
    embedder.double()
    try:
        embedding = embedder(crop)
        weights = torch.randn(embedding.shape, generator=generator, dtype=torch.double)
        if not embedding.requires_grad:
            raise UnsupportedGraph(NO_GRADIENT)
        (gradient,) = torch.autograd.grad((embedding * weights).sum(), crop)
        with torch.no_grad():
            ahead, behind = (embedder(crop + sign * STEP * direction) for sign in (1, -1))
    finally:
        embedder.float()
    if not gradient.any():
        raise UnsupportedGraph(NO_GRADIENT)
    found = (gradient * direction).sum()
    expected = ((ahead - behind) * weights).sum() / (2 * STEP)
    if not abs(found - expected) <= GRADIENT_TOLERANCE * gradient.norm():
        raise UnsupportedGraph(
            f"its gradient is wrong: the slope is {found:.4g}, a finite difference {expected:.4g}"
        )


def to_torch(model: ModelProto) -> fx.GraphModule:
    """Return a rewritten graph as a torch module.

    Raise UnsupportedGraph if an operator has no gradient, or no counterpart in torch.
    """
    if flat := [node.op_type for node in model.graph.node if node.op_type in FLAT]:
        raise UnsupportedGraph(f"has operators without a gradient: {tallied(flat)}")
    try:
        converted: fx.GraphModule = onnx2torch.convert(model)
    except Exception as error:  # converters raise anything
        culprits = _unconvertible(model)
        raise UnsupportedGraph(
            f"has operators that cannot be converted: {'; '.join(culprits) or error}"
        ) from error
    _use_torch_modules(converted)
    return converted


def _unconvertible(model: ModelProto) -> list[str]:
    """Return each operator that onnx2torch cannot convert, with its reason."""
    graph = OnnxGraph(onnx.shape_inference.infer_shapes(model).graph)
    found: dict[str, str] = {}
    for node in graph.nodes.values():
        kind = node.operation_type
        try:
            convert = get_converter(kind, model.opset_import[0].version, node.domain)
        except NotImplementedError:
            found.setdefault(kind, kind)
            continue
        try:
            convert(node, graph)
        except Exception as error:  # noqa: BLE001 - as above
            found.setdefault(kind, f"{kind} ({error})")
    return list(found.values())


def _use_torch_modules(converted: fx.GraphModule) -> None:
    """Replace onnx2torch's wrappers by torch's layers and operators, which `freeze` and the
    backends know."""
    graph = converted.graph
    source = next(iter(graph.nodes))
    for node in list(graph.nodes):
        if node.op != "call_module":
            continue
        kind = str(node.target).partition("_")[0]
        layer = converted.get_submodule(str(node.target))
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.eps = float(str(np.float32(layer.eps)))  # 0.001, not its nearest float32
        elif kind in OPERATORS:
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_function(OPERATORS[kind], node.args))
        elif kind == "Cast" and layer.torch_dtype == torch.float32:
            # the type of the input, which is double in the gradient check
            with graph.inserting_before(node):
                cast = graph.call_method("type_as", (node.args[0], source))
            node.replace_all_uses_with(cast)
        elif kind in ("PRelu", "MatMul") and node.args[1].op == "get_attr":
            own = _layer(kind, operator.attrgetter(node.args[1].target)(converted))
            if own is not None:
                converted.add_module(str(node.target), own)
                node.args = node.args[:1]
    graph.eliminate_dead_code()
    converted.delete_all_unused_submodules()
    converted.recompile()


def _layer(kind: str, constant: Tensor) -> nn.Module | None:
    """Return the layer for an operator with a constant; None if there is none."""
    if kind == "PRelu":
        channels = constant.shape[-3] if constant.ndim >= 3 else constant.numel()
        if constant.numel() != channels:
            return None  # slopes per pixel
        own: nn.Module = nn.PReLU(channels)
        weight = constant.flatten()
    elif constant.ndim == 2:
        inputs, outputs = constant.shape
        own = nn.Linear(inputs, outputs, bias=False)
        weight = constant.T.contiguous()
    else:
        return None
    own.weight = nn.Parameter(weight, requires_grad=False)
    return own


class Session:
    """A graph on the CPU, run by onnxruntime without any graph optimisation, as the reference.

    Raise UnsupportedGraph if onnxruntime cannot read it.
    """

    def __init__(self, model: ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # the fallback would print the error and retry
            )
        except Exception as error:  # onnxruntime's errors have no common base class
            reason = first_line(error, kind=True)
            raise UnsupportedGraph(f"onnxruntime cannot read it: {reason}") from error

    def run(
        self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Return outputs by name: the named ones, or all; UnsupportedGraph if onnxruntime fails."""
        names = names or [entry.name for entry in self._session.get_outputs()]
        try:
            values = self._session.run(list(names), dict(feeds))
        except Exception as error:
            reason = first_line(error, kind=True)
            raise UnsupportedGraph(f"onnxruntime cannot run it: {reason}") from error
        return dict(zip(names, values, strict=True))

    def run_crops(
        self, crops: Floats, entry: GraphInput, names: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Return the outputs for each crop alone, repeated to the graph's batch size.

        They are the first rows of the named outputs, or all, (N, ...), for crops (N, 3, S, S) in
        the range that the graph expects.
        """
        found: dict[str, list[NDArray[Any]]] = {}
        for crop in crops:
            batch = np.repeat(crop[None], entry.batch, axis=0)
            if entry.channels_last:
                batch = batch.transpose(0, 2, 3, 1)
            for name, values in self.run({entry.name: batch}, names).items():
                found.setdefault(name, []).append(np.atleast_1d(values)[:1])
        return {name: np.concatenate(rows) for name, rows in found.items()}
