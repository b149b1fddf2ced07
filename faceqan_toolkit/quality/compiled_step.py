"""A step of the attack, compiled by torch.compile; on a GPU recorded as CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faceqan_toolkit.errors import FaceQANError
from faceqan_toolkit.quality.attack import autograd_step
from faceqan_toolkit.quality.step_check import check_gradient
from faceqan_toolkit.wording import first_line


class CannotCompile(FaceQANError):
    """torch.compile does not work on this machine, or not with this network."""


class CompiledStep:
    """A step of the attack whose network is compiled when it meets the first copies of a shape.

    A block of copies always has the same shape, so there is one compilation, of a minute or so.
    On a GPU the kernels of forward and backward pass are recorded once and then launched
    together: small networks wait more for launches than for arithmetic.

    Args:
        network: frozen; maps (N, 3, S, S) crops to (N, D) embeddings.
        device: where it is.
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
            WrongGradient: for the first copy of a new shape, torch finds another gradient.
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
        return similarity, gradient.clone()  # a recording writes to the same memory every time
