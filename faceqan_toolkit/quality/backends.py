"""The libraries that compute the attack's steps: torch, torch.compile, OpenVINO."""

from __future__ import annotations

import platform
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceqan_toolkit.errors import FaceQANError, MissingDependency, SettingsError
from faceqan_toolkit.models.openvino_model import UnsupportedOperation, step_model
from faceqan_toolkit.quality.attack import Step, autograd_step
from faceqan_toolkit.text import first_line

OPENVINO_MACHINES = ("x86_64", "amd64")
"""Processor types on which OpenVINO was measured to be faster than torch."""

LEAST_AGREEMENT = 0.999
"""Least cosine between a backend's gradient and torch's; rounding gives 0.99999, a bug about 0."""


class WrongGradient(FaceQANError):
    """A backend's gradient differs from torch's on this machine."""


class CannotCompile(FaceQANError):
    """torch.compile does not work on this machine, or not with this network."""


def make_step(
    backend: str, network: nn.Module, size: int, device: torch.device
) -> tuple[str, Step]:
    """Return the name of the backend in use, and its step.

    "auto" depends on the machine's type, the installed packages and the network, never on a
    timing: the same machine always gives the same scores.

    Args:
        backend: "auto", "torch", "openvino" or "compile"; "auto" never chooses "compile".
        network: frozen; maps (N, 3, S, S) crops to (N, D) embeddings.
        size: S, pixels.
        device: device of the network.

    Raises:
        SettingsError: "openvino" on another device than the CPU.
        MissingDependency: "openvino", and it is not installed.
        UnsupportedOperation: "openvino", and the network cannot be converted.
        WrongGradient: "openvino", and its gradient differs from torch's.
    """
    if backend == "compile":
        return "compile", CompiledStep(network, device)
    on_cpu = device.type == "cpu"
    suitable = on_cpu and platform.machine().lower() in OPENVINO_MACHINES
    if backend == "openvino" or (backend == "auto" and suitable):
        if not on_cpu:
            raise SettingsError(f"--backend openvino is for --device cpu, not {device}")
        try:
            return "openvino", OpenVINOStep(network, size, torch.get_num_threads())
        except (MissingDependency, UnsupportedOperation, WrongGradient):
            if backend == "openvino":
                raise
    return "torch", autograd_step(network)


def check_gradient(found: Tensor, expected: Tensor, name: str) -> None:
    """Compare a backend's gradient with torch's.

    Args:
        found: the backend's, of any shape.
        expected: torch's, of the same shape.
        name: name of the backend in messages.

    Raises:
        WrongGradient: they differ by more than rounding.
    """
    agreement = F.cosine_similarity(found.flatten(), expected.flatten(), dim=0).item()
    if not agreement >= LEAST_AGREEMENT:
        raise WrongGradient(
            f"{name}'s gradient and torch's have a cosine of {agreement:.3f}; take the backend "
            f"torch, or another version of {name}"
        )


class CompiledStep:
    """A step of the attack by torch.compile; on a GPU with CUDA graphs.

    The network is compiled for the first copies of a shape, which takes about a minute. All blocks
    have the same shape, so that happens once. CUDA graphs launch all kernels of the forward and
    backward pass together, since small networks spend more time on launches than on arithmetic.

    Args:
        network: frozen; maps (N, 3, S, S) crops to (N, D) embeddings.
        device: device of the network.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._recorded = device.type == "cuda"
        mode = "reduce-overhead" if self._recorded else "default"
        self._compiled = autograd_step(torch.compile(network, dynamic=False, mode=mode))
        self._plain = autograd_step(network)
        self._known: set[torch.Size] = set()

    def __call__(self, attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarities of copies to unit vectors, and their gradient.

        Args:
            attacked: (B, 3, S, S) float32.
            targets: (B, D) float32, of length 1.

        Raises:
            CannotCompile: there is no working compiler, or it fails.
            WrongGradient: the gradient for the first copy of a new shape differs from torch's.
        """
        if attacked.shape in self._known:
            return self._computed(attacked, targets)
        from torch._dynamo.exc import TorchDynamoException

        try:
            similarity, gradient = self._computed(attacked, targets)
        except TorchDynamoException as error:
            cause = getattr(error, "inner_exception", error)
            raise CannotCompile(
                f"--backend compile: torch.compile fails ({first_line(cause)}). It needs a C++ "
                "compiler on a CPU and Triton on a GPU; the backend torch needs neither"
            ) from error
        _, expected = self._plain(attacked[:1], targets[:1])
        check_gradient(gradient[:1], expected, "torch.compile")
        self._known.add(attacked.shape)
        return similarity, gradient

    def _computed(self, attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if not self._recorded:
            return self._compiled(attacked, targets)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        similarity, gradient = self._compiled(attacked, targets)
        return similarity, gradient.clone()  # the next replay of the graph overwrites it


class OpenVINOStep:
    """A step of the attack by OpenVINO, compiled for this machine's CPU, in float32.

    Every copy is computed by a single thread. So threads need not wait for each other, and the
    result depends neither on their number nor on the number of copies.

    Args:
        network: frozen; maps (N, 3, S, S) crops to (N, D) embeddings.
        size: S, pixels.
        threads: copies computed at once.

    Raises:
        MissingDependency: OpenVINO is not installed.
        UnsupportedOperation: the network cannot be converted.
        WrongGradient: the gradient for a crop of noise differs from torch's.
    """

    def __init__(self, network: nn.Module, size: int, threads: int) -> None:
        openvino = import_openvino()
        self._compiled = openvino.Core().compile_model(
            step_model(openvino, network, size),
            "CPU",
            {
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                # the default is bfloat16 on CPUs that have it: too coarse for steps of a quarter
                # of a grey level
                "INFERENCE_PRECISION_HINT": "f32",
                # pinned threads of several processes would share the same first cores
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
        # NumPy copies in this thread; torch would start threads that compete with OpenVINO's
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
        """Compare the gradient for a crop of noise with torch's."""
        crop = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        targets = F.normalize(torch.ones_like(network(crop)), dim=1)
        (_, found), (_, expected) = self(crop, targets), autograd_step(network)(crop, targets)
        check_gradient(found, expected, "OpenVINO")


def import_openvino() -> Any:
    """Return the package `openvino`, imported without its telemetry, which reports every import.

    Raises:
        MissingDependency: it is not installed.
    """
    telemetry = "openvino_telemetry"
    before = {telemetry: sys.modules[telemetry]} if telemetry in sys.modules else {}
    # None makes the import of telemetry fail; OpenVINO then uses a stub
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
