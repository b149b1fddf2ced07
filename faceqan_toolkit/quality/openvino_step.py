"""A step of the attack, computed by OpenVINO."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceqan_toolkit.errors import MissingDependency
from faceqan_toolkit.models.openvino_model import step_model
from faceqan_toolkit.quality.attack import autograd_step
from faceqan_toolkit.quality.step_check import check_gradient


class OpenVINOStep:
    """A step of the attack, compiled for this machine's CPU, in float32.

    A copy is computed by one thread from beginning to end: threads need not wait for each other,
    and neither their number nor that of the copies changes the result.

    Args:
        network: frozen; maps (N, 3, S, S) crops to (N, D) embeddings.
        size: S, pixels.
        threads: copies computed at once.

    Raises:
        MissingDependency: OpenVINO is not installed.
        UnsupportedOperation: the network cannot be converted.
        WrongGradient: on a crop of noise, torch finds another gradient.
    """

    def __init__(self, network: nn.Module, size: int, threads: int) -> None:
        openvino = import_openvino()
        self._compiled = openvino.Core().compile_model(
            step_model(openvino, network, size),
            "CPU",
            {
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                # left alone, OpenVINO takes bfloat16 where the CPU has it: too coarse for steps
                # of a quarter of a grey level
                "INFERENCE_PRECISION_HINT": "f32",
                # several processes must not crowd on the same first cores
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._requests: list[Any] = []
        self._check(network, size)

    def __call__(self, attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarities of copies to unit vectors, and their gradient.

        Args:
            attacked: (B, 3, S, S) float32 on the CPU.
            targets: (B, D) float32, of length 1.

        Returns:
            (B,) float32, and (B, 3, S, S) float32 in the memory layout of `attacked`.
        """
        while len(self._requests) < len(attacked):
            self._requests.append(self._compiled.create_infer_request())
        requests = self._requests[: len(attacked)]
        similarity, gradient = torch.empty(len(attacked)), torch.empty_like(attacked)
        # NumPy copies in this thread; torch would wake its own threads, which get in the way
        copies, units = attacked.numpy(), targets.numpy()
        similarities, gradients = similarity.numpy(), gradient.numpy()
        try:
            for request, copy, unit in zip(requests, copies, units, strict=True):
                request.get_input_tensor(0).data[0] = copy
                request.get_input_tensor(1).data[0] = unit
                request.start_async()
        finally:
            for request in requests:
                request.wait()
        for index, request in enumerate(requests):
            similarities[index] = request.get_output_tensor(0).data[0, 0]
            gradients[index] = request.get_output_tensor(1).data[0]
        return similarity, gradient

    def _check(self, network: nn.Module, size: int) -> None:
        """Compare one step with torch's."""
        crop = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        targets = F.normalize(torch.ones_like(network(crop)), dim=1)
        (_, found), (_, expected) = self(crop, targets), autograd_step(network)(crop, targets)
        check_gradient(found, expected, "OpenVINO")


def import_openvino() -> Any:
    """Return the package, imported without its telemetry, which reports every import.

    Raises:
        MissingDependency: it is not installed.
    """
    telemetry = "openvino_telemetry"
    before = {telemetry: sys.modules[telemetry]} if telemetry in sys.modules else {}
    # None makes importing it fail; OpenVINO has a stub that does nothing for that case
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise MissingDependency(
            "the backend openvino needs an extra: pip install 'faceqan-toolkit[openvino]'"
        ) from error
    finally:
        del sys.modules[telemetry]
        sys.modules.update(before)
    return openvino
