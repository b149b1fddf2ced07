"""ONNX graphs computed by onnxruntime, which here says what is right."""

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

    from faceqan_toolkit.models.onnx_source import GraphInput

FATAL = 4


class Session:
    """A graph ready to be computed on the CPU, operator by operator as it is written.

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
                enable_fallback=0,  # it would print the error and try the same again
            )
        except Exception as error:  # its errors have no common base
            raise UnsupportedGraph(f"onnxruntime cannot read it: {first_line(error)}") from error

    def run(
        self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Return the named outputs, or all of them.

        Raises:
            UnsupportedGraph: onnxruntime fails.
        """
        names = names or [entry.name for entry in self._session.get_outputs()]
        try:
            values = self._session.run(list(names), dict(feeds))
        except Exception as error:
            raise UnsupportedGraph(f"onnxruntime cannot run it: {first_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def run_crops(
        self, crops: NDArray[np.float32], entry: GraphInput, names: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Return what each crop alone gives; a graph for batches gets copies of it.

        Args:
            crops: (N, 3, S, S), in the range the graph expects.
            entry: the graph's input.
            names: of outputs; all if empty.

        Returns:
            Each output's first row for every crop: (N, ...).
        """
        found: dict[str, list[NDArray[Any]]] = {}
        for crop in crops:
            batch = np.repeat(crop[None], entry.batch, axis=0)
            if entry.channels_last:
                batch = batch.transpose(0, 2, 3, 1)
            for name, values in self.run({entry.name: batch}, names).items():
                found.setdefault(name, []).append(np.atleast_1d(values)[:1])
        return {name: np.concatenate(rows) for name, rows in found.items()}


def first_line(error: Exception) -> str:
    """Return what an error says, short."""
    line = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
