"""The interface of quality estimators, and how many crops a GPU takes at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from faceqan_toolkit.hardware import resolve_device
from faceqan_toolkit.models.base import BlockRunner, Embedder
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.types import Pixels, Score

GPU_MEMORY_SHARE = 0.5
"""Share of a GPU's free memory that the feature maps of a block may take."""

GPU_MOST_COPIES = 4096
"""Most crops in a block on a GPU; larger blocks are no faster."""


class QualityEstimator(BlockRunner, ABC):
    """Scores aligned crops with one recognition model.

    A crop's score depends on the crop, the model and the options only, not on the other crops.

    Args:
        embedder: the recognition model, or its name, see `models.load.load_model`.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

    Attributes:
        embedder: the recognition model.
        device: device of the model.
        block_faces: crops computed at once.
        backend: library in use: "torch", "openvino" or "compile".
        precision: "float32", or "tf32" on an NVIDIA GPU.

    Raises:
        SettingsError: a device this machine does not have.
        WeightsError: the model cannot be loaded.
    """

    backend = "torch"

    def __init__(self, embedder: Embedder | str, device: str) -> None:
        where = resolve_device(device)
        self.embedder = load_model(embedder) if isinstance(embedder, str) else embedder
        super().__init__(self.embedder.input_size, where)

    def score(self, crops: Sequence[Pixels] | Pixels) -> list[Score]:
        """Return the scores of aligned crops, in order.

        The quality is NaN if the crop's embedding is zero or not finite.

        Args:
            crops: a list of (S, S, 3) uint8 RGB crops, S the model's input size, or an array
                (N, S, S, 3).

        Raises:
            SettingsError: crops of another shape or type.
            FaceQANError: not enough memory for a single crop.
        """
        return list(self._run(crops, self._score_block))

    @abstractmethod
    def _score_block(self, faces: Tensor) -> list[Score]:
        """Return the scores of (N, 3, S, S) float32 crops in [0, 1] on the device."""


def usable(norm: float) -> bool:
    """Return whether an embedding of this length has a direction: finite and not zero."""
    return math.isfinite(norm) and norm > 0


def scored(quality: float, norm: float, *parts: Any) -> Score:
    """Return a score; its quality is NaN if it is not finite or the embedding is not usable."""
    known = usable(norm) and math.isfinite(quality)
    return Score(quality if known else math.nan, norm, *parts)


def copies_that_fit(free: int, network: nn.Module, size: int) -> int:
    """Return how many crops of `size` pixels a GPU with `free` bytes can attack, a power of two."""
    most = min(GPU_MOST_COPIES, int(GPU_MEMORY_SHARE * free / feature_map_bytes(network, size)))
    return 1 << max(0, most.bit_length() - 1)


def feature_map_bytes(network: nn.Module, size: int) -> int:
    """Return the bytes of all layers' outputs for one crop, which the backward pass needs."""
    total = 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel() * output.element_size()

    first = next(network.parameters(), torch.empty(0))
    with ExitStack() as hooks, torch.no_grad():
        for module in network.modules():
            if not list(module.children()):
                hooks.enter_context(module.register_forward_hook(count))
        network(torch.zeros(1, 3, size, size, device=first.device))
    return max(1, total)
