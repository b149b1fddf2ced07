"""ONNX graphs run by onnxruntime, the reference for conversions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from faceqan_toolkit.errors import UnsupportedGraph

if TYPE_CHECKING:
    from onnx import ModelProto

    from faceqan_toolkit.models.onnx.source import GraphInput

FATAL = 4
"""onnxruntime's log severity for fatal errors only."""


class Session:
    """A graph on the CPU, run without any graph optimisation.

    Raises:
        UnsupportedGraph: onnxruntime cannot read it.
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
            raise UnsupportedGraph(f"onnxruntime cannot read it: {error_text(error)}") from error

    def run(
        self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Return outputs by name: the named ones, or all.

        Raises:
            UnsupportedGraph: onnxruntime fails.
        """
        names = names or [entry.name for entry in self._session.get_outputs()]
        try:
            values = self._session.run(list(names), dict(feeds))
        except Exception as error:
            raise UnsupportedGraph(f"onnxruntime cannot run it: {error_text(error)}") from error
        return dict(zip(names, values, strict=True))

    def run_crops(
        self, crops: NDArray[np.float32], entry: GraphInput, names: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Return the outputs for each crop alone, repeated to the graph's batch size.

        Args:
            crops: (N, 3, S, S), in the range that the graph expects.
            entry: the graph's input.
            names: names of outputs; empty means all.

        Returns:
            The first row of each output for every crop: (N, ...).
        """
        found: dict[str, list[NDArray[Any]]] = {}
        for crop in crops:
            batch = np.repeat(crop[None], entry.batch, axis=0)
            if entry.channels_last:
                batch = batch.transpose(0, 2, 3, 1)
            for name, values in self.run({entry.name: batch}, names).items():
                found.setdefault(name, []).append(np.atleast_1d(values)[:1])
        return {name: np.concatenate(rows) for name, rows in found.items()}


def error_text(error: Exception) -> str:
    """Return an error's type and the first line of its message, shortened."""
    line = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
