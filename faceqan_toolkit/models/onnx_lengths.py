"""ONNX graphs that divide the embedding by its length, and give the length beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from faceqan_toolkit.models.lengths import EQUAL
from faceqan_toolkit.models.onnx_rewrites import with_outputs
from faceqan_toolkit.models.onnx_session import Session
from faceqan_toolkit.models.onnx_source import GraphInput

NEAR = 8
"""Nodes between the undivided embedding and the output, at most."""

Values = Mapping[str, NDArray[np.float32]]


def find_undivided(
    model: ModelProto, entry: GraphInput, crops: NDArray[np.float32], outputs: Values, output: str
) -> tuple[str, str] | None:
    """Return the embedding before it is divided by its length, if the graph gives the length.

    AdaFace's official network is such a graph. Only a value that fits both outputs is taken: its
    lengths are those of the one, and divided by them it is the other.

    Args:
        model: as it came.
        entry: its input.
        crops: two that differ, in the range the graph expects.
        outputs: what the graph gives for them.
        output: name of the embeddings, (2, D).

    Returns:
        Names of the value and of the output that is its length; None if there are no such.
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
    values = Session(with_outputs(model, names)).run_crops(crops, entry, names) if names else {}
    for name, value in values.items():
        if value.shape != embeddings.shape:
            continue
        found = np.linalg.norm(value, axis=1, keepdims=True)
        for length, given in lengths.items():
            if np.allclose(found, given, rtol=EQUAL, atol=0) and np.allclose(
                value / given, embeddings, atol=EQUAL
            ):
                return name, length
    return None


def _values_before(model: ModelProto, output: str) -> list[str]:
    """Return the values that a graph computes shortly before one, the nearest first."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, None] = {}
    last = [output]
    for _ in range(NEAR):
        last = [name for value in last if value in makers for name in makers[value].input]
        found |= dict.fromkeys(name for name in last if name in makers)
    return list(found)
