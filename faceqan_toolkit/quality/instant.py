"""FaceQAN's score predicted from one forward pass, at a hundredth of the cost.

Source: Babnik, Peer, Struc, "eDifFIQA", IEEE TBIOM 2024, predict another measure in this way.
weights/instant/ has the training script of this head, and its accuracy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.blocks import forward_block
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.models.registry import head_of
from faceqan_toolkit.models.sface import SFace
from faceqan_toolkit.quality.base import QualityEstimator, usable
from faceqan_toolkit.types import Score
from faceqan_toolkit.weights import read_weights

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

LOG_OFFSET = 0.01
"""Added to a channel's mean before its logarithm: the mean may be 0."""


class PooledFeatures(nn.Module):
    """Features of a crop from which a head predicts.

    The mean of every channel of the stem and all blocks, the logarithms of the means, the length of
    the embedding, and its cosine to the embedding of the mirrored last feature map.
    """

    def __init__(self, network: SFace) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) crops in [0, 1] to (N, F); the last is the embedding's length."""
        maps = self.network.feature_maps(crops)
        means = torch.cat([F.adaptive_avg_pool2d(one, 1).flatten(1) for one in maps], dim=1)
        last = self.network.bn(maps[-1])
        embedding, mirrored = self.network.project(torch.cat([last, last.flip(3)])).chunk(2)
        symmetry = F.cosine_similarity(embedding, mirrored, dim=1)
        norms = torch.stack([mirrored.norm(dim=1), embedding.norm(dim=1)], dim=1)
        # 1e-12: the length may be 0, and its score is NaN then
        logs = [(means.abs() + LOG_OFFSET).log(), (norms + 1e-12).log()]
        return torch.cat([means, *logs, symmetry[:, None], norms], dim=1)


class Head(nn.Module):
    """A linear prediction from pooled features.

    Args:
        tensors: `mean`, `scale` and `weight` of each feature (F,), `bias` (1,).
    """

    def __init__(self, features: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.features = features
        for name in ("mean", "scale", "weight", "bias"):
            self.register_buffer(name, tensors[name])

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) crops to (N, 2): the prediction, and the embedding's length."""
        features = self.features(crops)
        raw = (((features - self.mean) * self.scale) * self.weight).sum(dim=1) + self.bias
        return torch.stack([raw, features[:, -1]], dim=1)


class InstantFaceQAN(QualityEstimator):
    """Prediction of the quality that `FaceQAN` with default options would measure.

    Args:
        embedder: a recognition model that has a head.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        SettingsError: the model has no head; a device this machine does not have.
        WeightsError: model or head cannot be loaded.
    """

    def __init__(self, embedder: Embedder | str = "sface", *, device: str = "auto") -> None:
        super().__init__(embedder, device)
        head = head_of(self.embedder.name)
        if not isinstance(self.embedder, SFace):
            raise SettingsError(
                f"--preset instant: the head of {head.weights} does not fit {self.embedder.name}; "
                "it needs the built-in model"
            )
        tensors = load(read_weights(head.weights, head.sha256))
        self._network = freeze(Head(PooledFeatures(self.embedder), tensors)).to(self.device)
        # piecewise linear maps from raw predictions to qualities and to their errors
        self._knots, self._qualities, self._errors = (
            tensors[name].double().numpy() for name in ("knots", "qualities", "errors")
        )
        self.block_faces = forward_block(self.device)

    def _score_block(self, faces: Tensor) -> list[Score]:
        with torch.inference_mode():
            rows = self._network(faces).cpu().double().tolist()
        return [self._score(*row) for row in rows]

    def _score(self, raw: float, norm: float) -> Score:
        if not (usable(norm) and math.isfinite(raw)):
            return Score(math.nan, norm)
        quality = float(np.interp(raw, self._knots, self._qualities))
        error = float(np.interp(raw, self._knots, self._errors))
        return Score(quality, norm, quality_error=error)
