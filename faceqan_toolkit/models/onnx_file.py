"""ONNX files: read, refused if they are no plain float network; their input and output.

Only the modules `onnx_...` import onnx, onnx2torch and onnxruntime, the extra `onnx`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import onnx.inliner
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

from faceqan_toolkit.errors import (
    DamagedWeights,
    MissingWeights,
    UnsupportedGraph,
    WrongArchitecture,
)
from faceqan_toolkit.text import first_names, path_text

USUAL_SIZE = 112
"""Side of the input of a graph that accepts any size, pixels."""


QUANTISING = [("com.microsoft", f"{kind}Linear") for kind in ("Quantize", "Dequantize")]
"""Domain and name of onnxruntime's own operators that can be converted."""


@dataclass(frozen=True)
class GraphInput:
    """The input of a graph."""

    name: str
    batch: int  # 1 if the graph takes any number of images
    size: int  # side of an image, pixels
    channels_last: bool  # (N, S, S, 3) instead of (N, 3, S, S)
    sized: bool  # whether the graph tells the size


def read_model(content: bytes) -> ModelProto:
    """Return the model in an ONNX file's content, with its functions inlined.

    Raise DamagedWeights, MissingWeights for weights in other files, or UnsupportedGraph for
    operators of other domains than ONNX's, on integers, or with subgraphs.
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
    if elsewhere := _locations(model):
        raise MissingWeights(
            f"its weights are in another file ({path_text(elsewhere[0])}); save it as one: "
            "onnx.save(onnx.load(path), new_path)"
        )
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for part in (*model.graph.node, *model.opset_import):
        part.domain = "" if part.domain == "ai.onnx" else part.domain
    if not any(entry.domain == "" for entry in model.opset_import):
        raise DamagedWeights("no ONNX file, or one that does not say its operators' version")
    _check_operators(model)
    return model


def check_weights(model: ModelProto) -> None:
    """Raise DamagedWeights if weights are NaN or infinite."""
    for tensor in model.graph.initializer:
        floats = tensor.data_type == TensorProto.FLOAT
        if floats and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise DamagedWeights(f"{tensor.name} has NaN or infinite values")


def find_input(model: ModelProto, size: int | None) -> GraphInput:
    """Return the graph's input; raise WrongArchitecture unless it is a batch of square images.

    `size` is the side of an image for a graph that accepts any; None means `USUAL_SIZE`.
    """
    inputs = model.graph.input
    if len(inputs) != 1:
        named = first_names(entry.name for entry in inputs) or "none"
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


def find_output(outputs: Mapping[str, NDArray[Any]]) -> str:
    """Return the name of the output with the embeddings, given all outputs for two crops.

    Raise WrongArchitecture if none or several of them have the shape (2, D).
    """
    fitting = [name for name, value in outputs.items() if value.ndim == 2 and value.shape[1] > 1]
    if len(fitting) == 1:
        return fitting[0]
    told = first_names(
        f"{name} ({', '.join(['N', *map(str, value.shape[1:])])})"
        for name, value in outputs.items()
    )
    raise WrongArchitecture(f"gives {told}; expected one output that is embeddings, (N, D)")


def _check_operators(model: ModelProto) -> None:
    nodes, kinds = model.graph.node, [node.op_type for node in model.graph.node]
    if integer := [kind for kind in kinds if re.search("^QLinear|^DynamicQuant|Integer$", kind)]:
        raise UnsupportedGraph(
            f"is quantised, and computes with integers ({tallied(integer)}), which have no "
            "gradient; take the float file, or one quantised in the QDQ format"
        )
    foreign = [f"{n.domain}::{n.op_type}" for n in nodes
               if n.domain and (n.domain, n.op_type) not in QUANTISING]  # fmt: skip
    if foreign:
        raise UnsupportedGraph(
            f"has operators that are not ONNX's own: {tallied(foreign)}; export it without them"
        )
    graphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    holding = [n.op_type for n in nodes if any(entry.type in graphs for entry in n.attribute)]
    if holding:
        raise UnsupportedGraph(f"has operators that cannot be converted: {tallied(holding)}")


def tallied(names: Sequence[str]) -> str:
    """Return a list of names with counts, the most frequent first, such as "Conv x 2, Relu x 1"."""
    return first_names(f"{name} x {number}" for name, number in Counter(names).most_common())


# external data: weights in files beside the graph


def external_names(content: bytes) -> list[str]:
    """Return the names of the files with a graph's weights; empty for a damaged graph."""
    try:
        model = ModelProto.FromString(content)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, which moved between its releases
        return []
    return sorted(set(_locations(model)))


def embed_data(content: bytes, data: Mapping[str, bytes], largest: int) -> bytes:
    """Return an ONNX file's content with its external data, by file name, in the tensors.

    Raise DamagedWeights if a tensor does not lie within its file, UnsupportedGraph for more than
    `largest` bytes.
    """
    model = ModelProto.FromString(content)
    size = len(content)
    for tensor in _external_tensors(model):
        fields = _fields(tensor)
        name = fields.get("location", "")
        try:
            start = int(fields.get("offset", "0"))
            length = int(fields.get("length", str(len(data[name]) - start)))
        except ValueError:
            start = length = -1
        if not 0 <= start <= start + length <= len(data[name]):
            raise DamagedWeights(
                f"{path_text(_text(tensor.name))} does not lie within {path_text(name)}: that "
                "file is cut off, or another model's"
            )
        size += length
        if size > largest:
            raise UnsupportedGraph("its weights have more than 2 GiB")
        tensor.raw_data = data[name][start : start + length]
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return bytes(model.SerializeToString())


def _external_tensors(model: ModelProto) -> list[TensorProto]:
    """Return the tensors of a model whose values are in other files."""
    nodes = chain(model.graph.node, *(function.node for function in model.functions))
    attributes = [attribute for node in nodes for attribute in node.attribute]
    held = (tensor for entry in attributes for tensor in (entry.t, *entry.tensors))
    tensors = chain(model.graph.initializer, held)
    return [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]


def _locations(model: ModelProto) -> list[str]:
    return [_fields(tensor).get("location", "") for tensor in _external_tensors(model)]


def _fields(tensor: TensorProto) -> dict[str, str]:
    return {_text(entry.key): _text(entry.value) for entry in tensor.external_data}


def _text(value: str | bytes) -> str:
    """Return a protobuf string as text; protobuf gives bytes if it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
