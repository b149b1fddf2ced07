"""The length of a crop's embedding as its quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.lengths import have_equal_lengths
from faceqan_toolkit.quality.base import QualityEstimator, usable
from faceqan_toolkit.types import Pixels, Score

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

CPU_BLOCK_FACES, GPU_BLOCK_FACES = 4, 256


class EmbeddingNorm(QualityEstimator):
    """Takes the Euclidean length of the embedding for the quality.

    Losses that only look at an embedding's direction still leave short embeddings to faces the
    network is unsure of. How well that works depends on the model; `MagFace` trains for it. The
    scale is the model's own: above 0, higher is better.

    Costs one forward pass a crop.

    Args:
        embedder: the recognition model, or what `--model` takes (`zoo.find_model`).
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        SettingsError: a device this machine does not have; by `score`: the model's embeddings all
            have the same length.
        WeightsError: the model cannot be loaded.
    """

    def __init__(self, embedder: Embedder | str = "sface", *, device: str = "auto") -> None:
        super().__init__(embedder, device)
        self._network = self._frozen(self.embedder)
        self.block_faces = CPU_BLOCK_FACES if self.device.type == "cpu" else GPU_BLOCK_FACES

    def embed(self, crops: Sequence[Pixels] | Pixels, *, flip: bool = False) -> NDArray[np.float32]:
        """Return the embeddings of aligned crops, not normalised.

        Args:
            crops: (N, S, S, 3) uint8, RGB, S the model's input size; or a sequence of such.
            flip: add the mirror image's embedding to each, as InsightFace's evaluation does.

        Returns:
            (N, D) float32; a row may hold NaN or be all zero.

        Raises:
            SettingsError: a crop of another shape or type.
        """

        def compute(faces: Tensor) -> list[NDArray[np.float32]]:
            with torch.inference_mode():
                embeddings = self._network(faces)
                if flip:
                    embeddings = embeddings + self._network(faces.flip(3))
                return list(embeddings.cpu().numpy())

        rows = list(self._in_blocks(crops, compute))
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    def check_lengths(self) -> None:
        """Make sure that the length of an embedding says something.

        Raises:
            SettingsError: the model's embeddings all have the same length.
        """
        if have_equal_lengths(self.embedder):
            raise SettingsError(
                "the method norm ranks by the length of embeddings, and all embeddings of "
                f"{self.embedder.name} have the same length, because the network normalises them. "
                "Use another method, or export the network without the normalisation, or with the "
                "length as a second output (N, 1), which is then taken"
            )

    def _score_block(self, faces: Tensor) -> list[Score]:
        self.check_lengths()
        with torch.inference_mode():
            norms = self._network(faces).norm(dim=1).cpu().tolist()
        return [Score(norm if usable(norm) else math.nan, norm) for norm in norms]


class MagFace(EmbeddingNorm):
    """Takes the length of the embedding of a network that was trained to make it the quality.

    MagFace's loss has a margin that grows with the length, and a price on short embeddings: faces
    that are easy to recognise get long ones. It asks for lengths between 10 and 110.

    Costs one forward pass a crop.

    Args:
        embedder: a model of MagFace's family, or its name.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        SettingsError: the model is none of MagFace's; a device this machine does not have.
        WeightsError: the model cannot be loaded.

    Source: Meng, Zhao, Huang, Zhou, "MagFace: A Universal Representation for Face Recognition and
    Quality Assessment", CVPR 2021.
    """

    def __init__(self, embedder: Embedder | str, *, device: str = "auto") -> None:
        super().__init__(embedder, device=device)
        if self.embedder.family != "magface":
            raise SettingsError(
                f"the method magface needs a model trained by MagFace, and {self.embedder.name} is "
                "none; use the method norm for the length of its embeddings"
            )
