"""The length of a crop's embedding as its quality."""

from __future__ import annotations

import torch
from torch import Tensor

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.base import Embedder, forward_block, has_equal_lengths
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.quality.base import QualityEstimator, scored
from faceqan_toolkit.types import Score


class EmbeddingNorm(QualityEstimator):
    """The Euclidean length of the embedding, by one forward pass per crop.

    Training losses that use only an embedding's direction still lead to short embeddings of faces
    that the network is unsure about. How well that works depends on the model; `MagFace` trains
    for it. The scale is the model's own: above 0, higher is better.

    Raises:
        SettingsError: all embeddings of the model have the same length; or see `QualityEstimator`.
    """

    def __init__(self, embedder: Embedder | str = "sface", *, device: str = "auto") -> None:
        super().__init__(embedder, device)
        if has_equal_lengths(self.embedder):
            raise SettingsError(
                "the method norm ranks by the length of embeddings, and all embeddings of "
                f"{self.embedder.name} have the same length, because the network normalises them. "
                "Use another method, or export the network without the normalisation, or with the "
                "length as a second output (N, 1), which is then taken"
            )
        self._network = freeze(self.embedder).to(self.device)
        self.block_faces = forward_block(self.device)

    def _score_block(self, faces: Tensor) -> list[Score]:
        with torch.inference_mode():
            norms = self._network(faces).norm(dim=1).cpu().tolist()
        return [scored(norm, norm) for norm in norms]


class MagFace(EmbeddingNorm):
    """The length of the embedding of a network trained by MagFace, whose loss makes it the quality.

    MagFace's loss has a margin that grows with the length and a penalty on short embeddings, so
    faces that are easy to recognise get long ones, of 10 to 110.

    Raises:
        SettingsError: a model of another family than "magface"; or see `EmbeddingNorm`.

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
