"""Base class of quality estimators: crops in blocks of one shape, scores in order."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from faceqan_toolkit.allocator import keep_freed_buffers
from faceqan_toolkit.device import resolve_device
from faceqan_toolkit.errors import FaceQANError, SettingsError
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.models.zoo import load_embedder
from faceqan_toolkit.types import Pixels, Score

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

Result = TypeVar("Result")

GPU_MEMORY_SHARE = 0.5
"""Share of a GPU's free memory that a block's feature maps may take."""

GPU_MOST_COPIES = 4096
"""Most crops of one batch on a GPU; more are no faster."""


class QualityEstimator(ABC):
    """Scores aligned crops with one recognition model.

    A score depends on the crop, the model and the options alone, not on the other crops: the
    model always sees blocks of one shape; a short last block is filled up.

    Args:
        embedder: the recognition model, or what `--model` takes (`zoo.find_model`).
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

    Attributes:
        embedder: the recognition model.
        device: the torch device it runs on.
        block_faces: crops of one batch.
        backend: name of the library that computes, such as "torch".
        precision: "float32", or "tf32" on a GPU.

    Raises:
        SettingsError: a device this machine does not have.
        WeightsError: the model cannot be loaded.
    """

    block_faces = 1
    backend = "torch"
    precision = "float32"

    def __init__(self, embedder: Embedder | str, device: str) -> None:
        self.device = resolve_device(device)
        if self.device.type == "cpu":
            keep_freed_buffers()
        self.embedder = load_embedder(embedder) if isinstance(embedder, str) else embedder

    def score(self, crops: Sequence[Pixels] | Pixels) -> list[Score]:
        """Return the scores of aligned crops, in their order.

        Args:
            crops: (N, S, S, 3) uint8, RGB, S the model's input size; or a sequence of such.

        Returns:
            N scores. If the model gives a crop no usable embedding (zero or not finite), its
            quality is NaN.

        Raises:
            SettingsError: a crop of another shape or type.
        """
        return list(self._in_blocks(crops, self._score_block))

    @abstractmethod
    def _score_block(self, faces: Tensor) -> list[Score]:
        """Return the scores of (N, 3, S, S) float32 crops in [0, 1] on the device."""

    def _shrink(self) -> None:
        """Halve the batch.

        Raises:
            FaceQANError: it is one crop already.
        """
        if self.block_faces == 1:
            raise FaceQANError(
                f"not enough memory on {self.device} for a single face; free some, or take "
                "--device cpu or a smaller --model"
            )
        self.block_faces //= 2

    def _frozen(self, network: nn.Module) -> nn.Module:
        return freeze(network).to(self.device)

    def _in_blocks(
        self, crops: Sequence[Pixels] | Pixels, compute: Callable[[Tensor], Sequence[Result]]
    ) -> Iterator[Result]:
        """Yield the result of `compute` for each crop, in blocks of one shape."""
        start = 0
        while start < len(crops):
            block = list(crops[start : start + self.block_faces])
            try:
                # a short last block is filled up: a score must not depend on the block's shape
                padded = block + [block[0]] * (self.block_faces - len(block))
                with arithmetic(self.device, self.precision):
                    results = compute(self._tensor(padded))
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                self._shrink()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            yield from results[: len(block)]
            start += len(block)

    def _tensor(self, crops: list[Pixels]) -> Tensor:
        """Return (N, 3, S, S) float32 in [0, 1] on the device."""
        size = self.embedder.input_size
        for crop in crops:
            if crop.shape != (size, size, 3) or crop.dtype != np.uint8:
                raise SettingsError(
                    f"aligned crops are {size}x{size}x3 uint8, got {crop.shape} {crop.dtype}"
                )
        pixels = torch.from_numpy(np.stack(crops))
        if self.device.type == "cuda":
            # from pinned memory the copy does not wait for what the GPU computes
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        pixels = pixels.to(self.device)
        return (pixels.permute(0, 3, 1, 2).float() / 255).contiguous(
            memory_format=torch.channels_last
        )


def usable(norm: float) -> bool:
    """Return whether an embedding's length is finite and above 0, so that it has a direction."""
    return math.isfinite(norm) and norm > 0


def copies_that_fit(free: int, network: nn.Module, size: int) -> int:
    """Return the batch size of an attack on a GPU, a power of two.

    Args:
        free: bytes of free GPU memory.
        network: frozen; maps (N, 3, S, S) crops to (N, D) embeddings.
        size: S, pixels.
    """
    bytes_a_crop = feature_map_bytes(network, size)
    most = min(GPU_MOST_COPIES, int(GPU_MEMORY_SHARE * free / bytes_a_crop))
    return 1 << max(0, most.bit_length() - 1)


def feature_map_bytes(network: nn.Module, size: int) -> int:
    """Return the bytes of all layers' outputs for one crop, which the gradient needs."""
    total = 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel() * output.element_size()

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    first = next(network.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size, device=first.device))
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, total)


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Disable TF32 on CUDA devices, or enable it for precision "tf32"."""
    if device.type != "cuda":
        yield
        return
    rounded = precision == "tf32"
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, rounded
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=rounded
        ):
            yield
    finally:
        matmul.allow_tf32 = before


def _out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means out of memory; torch's CPU allocator has no type of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
