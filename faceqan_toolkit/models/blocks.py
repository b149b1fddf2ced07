"""Batches of aligned crops: checked, made tensors, and computed in blocks of a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from faceqan_toolkit.errors import FaceQANError, SettingsError
from faceqan_toolkit.hardware import keep_freed_buffers
from faceqan_toolkit.types import Pixels

Result = TypeVar("Result")

CPU_BLOCK_FACES, GPU_BLOCK_FACES = 4, 256


def forward_block(device: torch.device) -> int:
    """Return how many crops to compute at once if no gradients are needed."""
    return CPU_BLOCK_FACES if device.type == "cpu" else GPU_BLOCK_FACES


class BlockRunner:
    """Computes something for every crop, a block of crops at a time.

    All blocks have the same shape: a short last block is padded with copies of its first crop. So
    a result does not depend on the other crops. After an out-of-memory error the block is halved
    and computed again.

    Args:
        input_size: side of a crop, S, in pixels.
        device: where the network is.

    Attributes:
        block_faces: crops in a block.
        precision: "float32", or "tf32" on an NVIDIA GPU.
    """

    block_faces = 1
    precision = "float32"

    def __init__(self, input_size: int, device: torch.device) -> None:
        self.input_size, self.device = input_size, device
        if device.type == "cpu":
            keep_freed_buffers()

    def _run(
        self, crops: Sequence[Pixels] | Pixels, compute: Callable[[Tensor], Sequence[Result]]
    ) -> Iterator[Result]:
        """Yield the result of each crop, in order.

        Args:
            crops: see `check_batch`.
            compute: maps (block_faces, 3, S, S) float32 crops in [0, 1] to as many results.

        Raises:
            SettingsError: see `check_batch`.
            FaceQANError: not enough memory for the smallest block.
        """
        check_batch(crops, self.input_size)
        start = 0
        while start < len(crops):
            block = list(crops[start : start + self.block_faces])
            try:
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

    def _shrink(self) -> None:
        """Halve the block.

        Raises:
            FaceQANError: it is a single crop already.
        """
        if self.block_faces == 1:
            raise FaceQANError(
                f"not enough memory on {self.device} for a single face; free some, or take "
                "--device cpu or a smaller --model"
            )
        self.block_faces //= 2

    def _tensor(self, crops: Sequence[Pixels]) -> Tensor:
        """Return crops as (N, 3, S, S) float32 in [0, 1] on the device."""
        pixels = torch.from_numpy(np.stack(crops))
        if self.device.type == "cuda":
            # copies from pinned memory do not wait for the GPU's current work
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        pixels = pixels.to(self.device)
        return (pixels.permute(0, 3, 1, 2).float() / 255).contiguous(
            memory_format=torch.channels_last
        )


def check_batch(crops: object, size: int) -> None:
    """Check the crops that a caller gives to a model.

    Args:
        crops: a list of (S, S, 3) uint8 RGB crops, or an array (N, S, S, 3).
        size: S, pixels.

    Raises:
        SettingsError: anything else; the message says what was given and what is expected.
    """
    expected = f"expected a list of {size}x{size}x3 uint8 RGB crops, or an array of shape "
    expected += f"(N, {size}, {size}, 3)"
    if isinstance(crops, np.ndarray):
        if crops.ndim == 3:
            raise SettingsError(
                f"got a single crop, an array of shape {crops.shape}; {expected}. "
                "Put it into a list: [crop]"
            )
        if crops.ndim != 4:
            raise SettingsError(f"got an array of shape {crops.shape}; {expected}")
    elif isinstance(crops, str | bytes) or not isinstance(crops, Sequence):
        raise SettingsError(f"got a {type(crops).__name__}; {expected}")
    for index, crop in enumerate(crops):
        if not isinstance(crop, np.ndarray):
            raise SettingsError(f"crop {index} is a {type(crop).__name__}; {expected}")
        if crop.shape == (size, size, 3) and crop.dtype == np.uint8:
            continue
        advice = ""
        if crop.dtype.kind == "f":
            advice = ". Convert values in [0, 1] with (crop * 255).round().astype(np.uint8)"
        elif crop.ndim == 3 and crop.shape[:2] != (size, size):
            advice = f". Align or resize it to {size}x{size} pixels first"
        raise SettingsError(
            f"crop {index} has shape {crop.shape} and type {crop.dtype}; {expected}{advice}"
        )


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Enable TF32 on a CUDA device for precision "tf32" and disable it for "float32".

    By default cuDNN rounds the inputs of float32 convolutions to TF32's 10 bits of mantissa.
    """
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
    """Return whether torch ran out of memory; its CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
