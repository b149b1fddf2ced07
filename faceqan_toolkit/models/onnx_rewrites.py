"""Rewrite ONNX graphs into equivalent ones that onnx2torch can convert.

Models are changed in place. `onnx_network.read_network` shows the order of the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx.shape_inference
import onnx.version_converter
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]
Run = Callable[[ModelProto, Sequence[str]], dict[str, Array]]
"""Returns the named values of a model."""

OPSET = 17
"""The latest opset that onnx2torch can convert."""

WIDE_OR_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

SMALL = 1024
"""Most elements of a constant that may be a parameter of an operator; weights have more."""

RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
PADDING = ("Conv", "MaxPool", "AveragePool")

REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip
"""Operators whose axes are an input since opset 18."""

AFFINE = ("Add", "Sub", "Mul", "Div")


# valid graphs


def prune_inputs(model: ModelProto) -> None:
    """Remove the graph's inputs that are unused, or have an initialiser."""
    used = {name for node in model.graph.node for name in node.input}
    filled = {tensor.name for tensor in model.graph.initializer}
    _keep(model.graph.input, lambda entry: entry.name in used - filled)
    # before version 4 every initialiser had to be an input
    model.ir_version = max(model.ir_version, 4)


def use_float32(model: ModelProto) -> None:
    """Convert half and double precision to float32."""
    graph = model.graph
    for tensor in graph.initializer:
        _to_float32(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _to_float32(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in WIDE_OR_HALF:
                attribute.i = TensorProto.FLOAT
    for entry in (*graph.input, *graph.output):
        if entry.type.tensor_type.elem_type in WIDE_OR_HALF:
            entry.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]


def _to_float32(tensor: TensorProto) -> None:
    if tensor.data_type in WIDE_OR_HALF:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def mend_mxnet(model: ModelProto) -> None:
    """Correct two mistakes of MXNet's exporter.

    Batch norms have the attribute `spatial=0`, and PReLU's slopes lie along the width instead of
    the channels.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    flat = []
    for node in graph.node:
        parameter = tensors.get(node.input[1]) if len(node.input) > 1 else None
        if parameter is None or len(parameter.dims) != 1:
            continue
        if node.op_type == "BatchNormalization":
            _drop_attributes(node, "spatial")
        elif node.op_type == "PRelu" and parameter.dims[0] > 1:
            flat.append((node, parameter))
    types = _inferred(model) if flat else {}
    for node, slopes in flat:
        known = types.get(node.input[0])
        shape = [dimension.dim_value for dimension in known.shape.dim] if known else []
        if len(shape) != 4 or list(slopes.dims) != [shape[1]]:
            continue
        # before opset 7 a list of slopes was one per channel
        if shape[1] != shape[3] or version_of(model) < 7:
            slopes.dims.extend([1, 1])


# fewer kinds of graphs


def fold_constants(model: ModelProto, run: Run) -> None:
    """Replace values that do not depend on the graph's input by constants."""
    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer}
    folded = []
    for node in graph.node:
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
            folded.append(node)
    made = {name for node in folded for name in node.output}
    left = [node for node in graph.node if not made.intersection(node.output)]
    wanted = sorted({name for node in left for name in node.input if name in made})
    if wanted:
        used = {name for node in folded for name in node.input}
        part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        part.graph.name = "constants"
        part.graph.node.extend(folded)
        part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        part.graph.initializer.extend(one for one in graph.initializer if one.name in used)
        values = run(part, wanted)
        _keep(graph.node, lambda node: not made.intersection(node.output))
        graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in wanted)
    _drop_unused(graph)


def to_opset(model: ModelProto) -> ModelProto:
    """Return the model in `OPSET`."""
    version = version_of(model)
    if version < OPSET:
        model = _convert_version(model)  # needs the imports of other domains, too
    _keep(model.opset_import, lambda entry: entry.domain == "")
    if version > OPSET:
        # onnx's converter cannot downgrade many operators; few of them changed
        _use_old_forms(model)
        model.opset_import[0].version = OPSET
    model.ir_version = 8
    return model


def _convert_version(model: ModelProto) -> ModelProto:
    """Return the model in `OPSET`; weights are kept from the converter, which copies often."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if np.prod(tensor.dims) > SMALL}
    small = [tensor for tensor in graph.initializer if tensor.name not in weights]
    entries = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
               for tensor in weights.values()]  # fmt: skip
    inputs = [*graph.input, *entries]
    parts = helper.make_graph(graph.node, graph.name or "graph", inputs, graph.output, small)
    shell = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=parts)
    converted = onnx.version_converter.convert_version(shell, OPSET)
    _keep(converted.graph.input, lambda entry: entry.name not in weights)
    converted.graph.initializer.extend(weights.values())
    return converted


def _use_old_forms(model: ModelProto) -> None:
    constants = _constants(model.graph)
    for node in model.graph.node:
        if node.op_type in REDUCTIONS and len(node.input) == 2:
            if (axes := constants.get(node.input[1])) is not None:
                node.attribute.append(helper.make_attribute("axes", axes.tolist()))
                del node.input[1:]
        elif node.op_type == "Split":
            _drop_attributes(node, "num_outputs")


def fill_bounds(model: ModelProto) -> None:
    """Fill in the omitted lower bound of Clip; remove trailing empty inputs."""
    graph = model.graph
    for node in graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]
        if node.op_type == "Clip" and len(node.input) == 3 and not node.input[1]:
            lowest = np.array(np.finfo(np.float32).min)
            node.input[1] = _add_constant(graph, f"{node.output[0]}/lowest", lowest)


def pass_activations(model: ModelProto) -> bool:
    """Replace the quantisation of activations by clipping; return whether there was any.

    Rounding has no gradient. Clipping to the quantised range stays: it often is the network's ReLU.
    """
    graph, found = model.graph, False
    constants = _constants(graph)
    users = _users(graph)
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.output[0] not in users:
            continue
        back = users[node.output[0]]
        same = all(
            user.op_type == "DequantizeLinear" and _same(node.input[1:], user.input[1:], constants)
            for user in back
        )
        bounds = _quantised_range([constants.get(name) for name in node.input[1:]])
        if not same or bounds is None:
            continue
        found = True
        names = [
            _add_constant(graph, f"{node.output[0]}/{end}", np.array(bound, np.float32))
            for end, bound in zip(("lowest", "highest"), bounds, strict=True)
        ]
        clipped = f"{node.output[0]}/clipped"
        clip = helper.make_node("Clip", [node.input[0], *names], [clipped])
        for user in back:
            user.CopyFrom(helper.make_node("Identity", [clipped], user.output))
        node.CopyFrom(clip)
    if found:
        skip(model, [node for node in graph.node if node.op_type == "Identity"])
    return found


def _same(names: Sequence[str], others: Sequence[str], constants: Mapping[str, Array]) -> bool:
    return len(names) == len(others) and all(
        a in constants and b in constants and np.array_equal(constants[a], constants[b])
        for a, b in zip(names, others, strict=True)
    )


def _quantised_range(parameters: Sequence[Array | None]) -> tuple[float, float] | None:
    """Return the lowest and highest value of a scale and zero point; None if not scalars."""
    if any(values is None or values.size != 1 for values in parameters):
        return None
    scale, zero = [*parameters, np.uint8(0)][:2]
    if scale is None or zero is None or zero.dtype.kind not in "iu":
        return None
    limits = np.iinfo(zero.dtype)
    low, high = (float(scale.item()) * (end - int(zero.item())) for end in (limits.min, limits.max))
    return low, high


def skip_idle(model: ModelProto) -> None:
    """Remove nodes without effect: dropouts, identities, casts from float to float, expansions that
    broadcasting makes superfluous, and pairs of inverse transpositions."""
    graph = model.graph
    types = _inferred(model) if any(node.op_type == "Cast" for node in graph.node) else {}
    users, makers = _users(graph), {name: node for node in graph.node for name in node.output}

    def idle(node: NodeProto) -> bool:
        if node.op_type == "Cast":
            source, to = types.get(node.input[0]), _attributes(node)["to"]
            return source is not None and to == TensorProto.FLOAT == source.elem_type
        if node.op_type == "Expand":
            return all(user.op_type in AFFINE for user in users.get(node.output[0], [node]))
        return node.op_type in ("Dropout", "Identity")

    skip(model, list(filter(idle, graph.node)))
    undone = []
    for node in graph.node:
        before = makers.get(node.input[0]) if node.op_type == "Transpose" else None
        if before is not None and before.op_type == "Transpose" and before not in undone:
            first, second = _order(before), _order(node)
            if len(first) == len(second) and [first[axis] for axis in second] == sorted(first):
                node.input[0] = before.input[0]
                undone.append(node)
    skip(model, undone)
    _drop_unused(graph)


def _order(transpose: NodeProto) -> list[int]:
    return list(_attributes(transpose).get("perm", [-1]))


# rewrites that need shapes


def shapes_needed(model: ModelProto) -> list[str]:
    """Return the values whose shapes `pad_explicitly` and `free_batch` need."""
    nodes = [node for node in model.graph.node if _reshapes(node) or _pads_itself(node)]
    return sorted({name for node in nodes for name in (node.input[0], node.output[0])})


def free_batch(model: ModelProto, shapes: Mapping[str, Sequence[int]], batch: int) -> None:
    """Make every reshaping independent of the batch size.

    `shapes` are those of the values of `shapes_needed`, for a batch size that the graph accepts.
    """
    graph = model.graph
    idle = []
    for index, node in enumerate(graph.node):
        if not _reshapes(node):
            continue
        before, after = shapes[node.input[0]], shapes[node.output[0]]
        if not before or not after or before[0] != batch or after[0] != batch:
            continue  # the first axis is not the batch
        if before == after:
            idle.append(node)
        elif len(after) == 2:
            node.CopyFrom(helper.make_node("Flatten", node.input[:1], node.output, axis=1))
        else:
            rows = _add_constant(graph, f"rows/{index}", np.array([-1, *after[1:]], np.int64))
            node.CopyFrom(helper.make_node("Reshape", [node.input[0], rows], node.output))
    skip(model, idle)
    _drop_unused(graph)


def pad_explicitly(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Replace the padding "same" by explicit pads."""
    constants = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if not _pads_itself(node):
            continue
        attributes = _attributes(node)
        before, after = shapes[node.input[0]][2:], shapes[node.output[0]][2:]
        kernel = attributes.get("kernel_shape") or constants[node.input[1]][2:]
        ones = [1] * len(kernel)
        missing = [
            max(0, (there - 1) * step + (length - 1) * apart + 1 - here)
            for here, there, length, step, apart in zip(
                before, after, kernel, attributes.get("strides", ones),
                attributes.get("dilations", ones), strict=True,
            )
        ]  # fmt: skip
        less, more = [pad // 2 for pad in missing], [pad - pad // 2 for pad in missing]
        pads = [*less, *more] if attributes["auto_pad"] == b"SAME_UPPER" else [*more, *less]
        _drop_attributes(node, "auto_pad", "pads")
        node.attribute.append(helper.make_attribute("pads", pads))


def set_ends(model: ModelProto, output: str, size: int, channels_last: bool) -> None:
    """Give the graph one output, and one input: (N, 3, S, S) float32."""
    graph = model.graph
    (source,) = graph.input
    entry = helper.make_tensor_value_info(source.name, TensorProto.FLOAT, ["crops", 3, size, size])
    if channels_last:
        entry.name = f"{source.name}/channels_first"
        turned = helper.make_node("Transpose", [entry.name], [source.name], perm=[0, 2, 3, 1])
        graph.node.insert(0, turned)
    del graph.input[:], graph.output[:]
    graph.input.append(entry)
    graph.output.append(onnx.ValueInfoProto(name=output))
    del graph.value_info[:]
    _drop_unused(graph)


def with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return a copy of the model whose outputs are the named values."""
    copied = ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[:]
    copied.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copied


def name_nodes(model: ModelProto) -> None:
    """Name every node by its operator and a number: `PRelu_7`."""
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"


def affine_head(model: ModelProto) -> str:
    """Return the last value before which the graph only scales, shifts and clips its input."""
    graph = model.graph
    constants, users = _constants(graph), _users(graph)
    value: str = graph.input[0].name
    while len(users.get(value, [])) == 1:
        (node,) = users[value]
        scales = node.op_type in AFFINE and any(name in constants for name in node.input)
        divides = node.op_type == "Div" and node.input[0] != value
        if divides or not (scales or node.op_type in ("Transpose", "Identity", "Cast", "Clip")):
            break
        value = node.output[0]
    return value


# tools


def skip(model: ModelProto, idle: Iterable[NodeProto]) -> None:
    """Remove nodes that pass their first input on; a node that makes a graph's output stays."""
    graph = model.graph
    ends = {entry.name for entry in graph.output}
    source = {node.output[0]: node.input[0] for node in idle if node.output[0] not in ends}
    for node in graph.node:
        for index, name in enumerate(node.input):
            while name in source:
                name = source[name]
            node.input[index] = name
    _keep(graph.node, lambda node: not node.output or node.output[0] not in source)


def _drop_unused(graph: GraphProto) -> None:
    """Remove unused nodes and initialisers."""
    wanted = {entry.name for entry in graph.output}
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            # unused outputs: masks of dropouts, statistics of batch norms
            while len(node.output) > 1 and node.output[-1] not in wanted:
                del node.output[-1]
    _keep(graph.node, lambda node: bool(wanted.intersection(node.output)))
    _keep(graph.initializer, lambda tensor: tensor.name in wanted)


def _keep(field: Any, wanted: Callable[[Any], bool]) -> None:
    """Remove unwanted items of a repeated field in place, without copying the others."""
    for index in reversed(range(len(field))):
        if not wanted(field[index]):
            del field[index]


def _add_constant(graph: GraphProto, name: str, values: Array) -> str:
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _drop_attributes(node: NodeProto, *names: str) -> None:
    _keep(node.attribute, lambda entry: entry.name not in names)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def version_of(model: ModelProto) -> int:
    """Return a model's opset."""
    return max(int(entry.version) for entry in model.opset_import if entry.domain == "")


def _reshapes(node: NodeProto) -> bool:
    """Return whether a node changes shapes other than by flattening each row."""
    by_row = node.op_type == "Flatten" and _attributes(node).get("axis", 1) == 1
    return node.op_type in RESHAPING and not by_row


def _pads_itself(node: NodeProto) -> bool:
    same = (b"SAME_UPPER", b"SAME_LOWER")
    return node.op_type in PADDING and _attributes(node).get("auto_pad") in same


def _constants(graph: GraphProto) -> dict[str, Array]:
    """Return constants of at most `SMALL` elements: parameters of operators, not weights."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if np.prod(tensor.dims) <= SMALL
    }


def _users(graph: GraphProto) -> dict[str, list[NodeProto]]:
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in set(node.input):
            users.setdefault(name, []).append(node)
    return users


def _inferred(model: ModelProto) -> dict[str, Any]:
    """Return the types, with shapes, of all values that shape inference knows."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        entry.name: entry.type.tensor_type
        for entry in (*graph.value_info, *graph.input, *graph.output)
    }
