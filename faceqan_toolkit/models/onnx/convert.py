"""Convert a rewritten ONNX graph to torch's own layers, by onnx2torch."""

from __future__ import annotations

import operator

import numpy as np
import onnx.shape_inference
import onnx2torch
import torch
from onnx import ModelProto
from onnx2torch.node_converters import get_converter
from onnx2torch.onnx_graph import OnnxGraph
from torch import Tensor, fx, nn

from faceqan_toolkit.errors import UnsupportedGraph
from faceqan_toolkit.models.onnx.source import tallied

OPERATORS = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
}

FLAT = ("Round", "Floor", "Ceil", "Sign", "QuantizeLinear")
"""Piecewise constant operators: their gradient is zero."""


def to_torch(model: ModelProto) -> fx.GraphModule:
    """Return a rewritten graph as a torch module.

    Raises:
        UnsupportedGraph: an operator has no gradient, or no counterpart in torch.
    """
    flat = [node.op_type for node in model.graph.node if node.op_type in FLAT]
    if flat:
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
            graph.erase_node(node)
        elif kind == "Cast" and layer.torch_dtype == torch.float32:
            # the type of the input, which is double in the gradient check
            with graph.inserting_before(node):
                cast = graph.call_method("type_as", (node.args[0], source))
            node.replace_all_uses_with(cast)
            graph.erase_node(node)
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
        prelu = nn.PReLU(channels)
        prelu.weight = nn.Parameter(constant.flatten(), requires_grad=False)
        return prelu
    if constant.ndim != 2:
        return None
    inputs, outputs = constant.shape
    linear = nn.Linear(inputs, outputs, bias=False)
    linear.weight = nn.Parameter(constant.T.contiguous(), requires_grad=False)
    return linear
