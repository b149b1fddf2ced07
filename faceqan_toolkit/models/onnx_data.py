"""External data of ONNX graphs: weights in files of their own beside the graph's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import ModelProto, TensorProto

from faceqan_toolkit.errors import DamagedWeights, UnsupportedGraph
from faceqan_toolkit.paths import path_text


def external_names(content: bytes) -> list[str]:
    """Return the names of the files that hold weights of a graph; none of a damaged graph."""
    try:
        model = ModelProto.FromString(content)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, which moved between its releases
        return []
    return sorted({location_of(tensor) for tensor in external_tensors(model)})


def external_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors of a model whose values are in other files."""
    graph = model.graph
    nodes = [*graph.node, *(node for function in model.functions for node in function.node)]
    attributes = [attribute for node in nodes for attribute in node.attribute]
    held = (tensor for entry in attributes for tensor in (entry.t, *entry.tensors))
    for tensor in (*graph.initializer, *held):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor


def embed_data(content: bytes, data: Mapping[str, bytes], largest: int) -> bytes:
    """Return a graph that holds its weights itself.

    Args:
        content: of the ONNX file.
        data: of the files it names.
        largest: bytes that the weights may have.

    Raises:
        DamagedWeights: a tensor that does not lie within its file.
        UnsupportedGraph: more than `largest` bytes.
    """
    model = ModelProto.FromString(content)
    size = len(content)
    for tensor in external_tensors(model):
        fields = _fields(tensor)
        name = location_of(tensor)
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


def location_of(tensor: TensorProto) -> str:
    """Return the name of the file that a tensor's values are in."""
    return _fields(tensor).get("location", "")


def _fields(tensor: TensorProto) -> dict[str, str]:
    return {_text(entry.key): _text(entry.value) for entry in tensor.external_data}


def _text(value: str | bytes) -> str:
    """Return a protobuf string, which is bytes where it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
