"""ONNX files as they come: read, refused if they are no plain float network, described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.inliner
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from faceqan_toolkit.errors import (
    DamagedWeights,
    MissingWeights,
    UnsupportedGraph,
    WrongArchitecture,
)
from faceqan_toolkit.models.onnx_data import external_tensors, location_of
from faceqan_toolkit.models.onnx_rewrites import quantises
from faceqan_toolkit.paths import path_text

USUAL_SIZE = 112
"""Taken for a graph that says nothing about the size of its input."""

NAMED = 5
"""Things of a kind that a message names."""


@dataclass(frozen=True)
class GraphInput:
    """The graph's input.

    Attributes:
        name: of the value.
        batch: pictures it takes at once; 1 if it takes any number.
        size: of a picture, pixels.
        channels_last: (N, S, S, 3) in place of (N, 3, S, S).
        sized: the graph says the size.
    """

    name: str
    batch: int
    size: int
    channels_last: bool
    sized: bool


def read_model(content: bytes) -> ModelProto:
    """Return the model in an ONNX file's content, its functions written out.

    Raises:
        DamagedWeights: empty, no ONNX file or cut off.
        MissingWeights: its weights are in other files.
        UnsupportedGraph: it has operators that are not ONNX's own, that compute with integers or
            that hold other graphs.
    """
    if not content:
        raise DamagedWeights("the file is empty")
    model: ModelProto
    try:
        model = ModelProto.FromString(content)
    except Exception as error:  # protobuf's DecodeError, which moved between its releases
        raise DamagedWeights("no ONNX file, or one that is damaged or cut off") from error
    if not model.graph.node or not model.opset_import:
        raise DamagedWeights("no ONNX file, or one without a graph")
    _check_external(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for part in (*model.graph.node, *model.opset_import):
        part.domain = "" if part.domain == "ai.onnx" else part.domain
    if not any(entry.domain == "" for entry in model.opset_import):
        raise DamagedWeights("no ONNX file, or one that does not say its operators' version")
    _check_operators(model)
    return model


def check_weights(model: ModelProto) -> None:
    """Make sure that all weights are numbers.

    Raises:
        DamagedWeights: NaN or infinite weights.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise DamagedWeights(f"{tensor.name} has NaN or infinite values")


def find_input(model: ModelProto, size: int | None) -> GraphInput:
    """Return the graph's input.

    Args:
        model: without inputs that nothing uses.
        size: of a picture, pixels, for a graph that takes any; None takes the usual one.

    Raises:
        WrongArchitecture: it is no batch of square pictures in colour, or there are several.
    """
    inputs = model.graph.input
    if len(inputs) != 1:
        named = ", ".join(entry.name for entry in inputs[:NAMED]) or "none"
        raise WrongArchitecture(f"takes {len(inputs)} inputs ({named}); expected one, the crops")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        raise WrongArchitecture(f"takes {name} numbers; expected float")
    shape = [dimension.dim_value for dimension in kind.shape.dim] or [0, 0, 0, 0]
    last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
    batch, *picture = [shape[0], *shape[3:], *shape[1:3]] if last else shape
    sides = set(picture[1:]) - {0}
    if len(shape) != 4 or picture[0] not in (0, 3) or len(sides) > 1:
        told = ", ".join(str(side or "?") for side in shape)
        raise WrongArchitecture(f"takes ({told}); expected square pictures, (N, 3, S, S)")
    chosen = sides.pop() if sides else size or USUAL_SIZE
    return GraphInput(inputs[0].name, max(1, batch), chosen, last, any(picture[1:]))


def find_output(outputs: dict[str, NDArray[Any]]) -> str:
    """Return the name of the output that is the embedding.

    Args:
        outputs: what the graph computes for two crops.

    Raises:
        WrongArchitecture: none or several of them are embeddings, (2, D).
    """
    fitting = [name for name, value in outputs.items() if value.ndim == 2 and value.shape[1] > 1]
    if len(fitting) == 1:
        return fitting[0]
    told = ", ".join(
        f"{name} ({', '.join(['N', *map(str, value.shape[1:])])})"
        for name, value in list(outputs.items())[:NAMED]
    )
    raise WrongArchitecture(f"gives {told}; expected one output that is embeddings, (N, D)")


def _check_external(model: ModelProto) -> None:
    for tensor in external_tensors(model):
        file = path_text(location_of(tensor))
        raise MissingWeights(
            f"its weights are in another file ({file}); save it as one: "
            "onnx.save(onnx.load(path), new_path)"
        )


def _check_operators(model: ModelProto) -> None:
    nodes = model.graph.node
    integer = [node.op_type for node in nodes if _on_integers(node)]
    if integer:
        raise UnsupportedGraph(
            f"is quantised, and computes with integers ({tallied(integer)}), which have no "
            "gradient; take the float file, or one quantised in the QDQ format"
        )
    foreign = [f"{n.domain}::{n.op_type}" for n in nodes if n.domain and not quantises(n)]
    if foreign:
        raise UnsupportedGraph(
            f"has operators that are not ONNX's own: {tallied(foreign)}; export it without them"
        )
    graphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    holding = [n.op_type for n in nodes if any(entry.type in graphs for entry in n.attribute)]
    if holding:
        raise UnsupportedGraph(f"has operators that cannot be converted: {tallied(holding)}")


def _on_integers(node: NodeProto) -> bool:
    kind = node.op_type
    return kind.startswith("QLinear") or kind.endswith("Integer") or kind.startswith("DynamicQuant")


def tallied(names: Sequence[str]) -> str:
    """Return names and how often they occur, the most frequent first, for people."""
    counts = Counter(names).most_common()
    more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    return ", ".join(f"{name} x {number}" for name, number in counts[:NAMED]) + more
