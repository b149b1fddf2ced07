"""SER-FIQ: robustness of a face's embedding to dropout in the network."""

from __future__ import annotations

from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.freeze import frozen_copy
from faceqan_toolkit.quality.base import QualityEstimator, scored
from faceqan_toolkit.types import Score

GPU_BLOCK_FACES = 32


class SERFIQ(QualityEstimator):
    """SER-FIQ quality of aligned crops.

    Dropout is applied m times to the input of the last fully connected layer. The quality is
    2 * sigmoid(-d), where d is the mean Euclidean distance over all pairs of the m normalised
    embeddings: in (0, 1], higher is better, in a narrow range that depends on the model. All faces
    get the same dropout masks, drawn once from the seed.

    Costs one forward pass per crop, and m + 1 passes of the last layers: for m = 100 they cost as
    much as the forward pass on SFace, and a tenth of it on IResNet-100.

    Args:
        embedder, device: see `QualityEstimator`.
        passes: m, at least 2.
        dropout: probability that a feature is dropped.
        seed: random seed of the masks.

    Raises:
        SettingsError: an option out of its range; a model without a fully connected layer, or whose
            last layers need a fixed batch size; or see `QualityEstimator`.

    Source: Terhoerst, Kolf, Damer, Kirchbuchner, Kuijper, "SER-FIQ: Unsupervised Estimation of
    Face Image Quality Based on Stochastic Embedding Robustness", CVPR 2020, variant "same model".
    As in the published code, m is 100 and d is the mean over m * (m - 1) / 2 pairs (the paper's
    formula divides by m ** 2 / 2). A dropout of 0.5 is the paper's and the first version's of the
    code; the current version uses 0.4, with which its ArcFace network was trained, and also
    stretches the quality by 1 / (1 + exp(-130 * (quality - 0.88))). These constants fit that
    network only and do not change a ranking, so they are left out here.
    """

    def __init__(
        self,
        embedder: Embedder | str = "sface",
        *,
        passes: int = 100,
        dropout: float = 0.5,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        if passes < 2:
            raise SettingsError(f"passes is {passes}; it must be at least 2")
        if not 0 < dropout < 1:
            raise SettingsError(f"dropout is {dropout}; it must be between 0 and 1")
        super().__init__(embedder, device)
        # no folding: a batch norm inside the last layer would be masked too
        self._network = frozen_copy(self.embedder).to(self.device)
        layer = last_linear(self._network, self.embedder.input_size)
        if layer is None:
            raise SettingsError(
                f"the method serfiq needs a fully connected layer, and {self.embedder.name} has "
                "none"
            )
        masks = draw_masks(passes, layer.in_features, dropout=dropout, seed=seed)
        # row 0 drops nothing: the embedding itself
        self._masks = torch.cat([torch.ones(1, layer.in_features), masks]).to(self.device)
        layer.register_forward_pre_hook(self._multiply)
        self._check()
        if self.device.type != "cpu":
            self.block_faces = GPU_BLOCK_FACES

    def _multiply(self, _layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """Repeat every row of features once per mask, and apply the masks."""
        (features,) = inputs
        return ((features[:, None] * self._masks).flatten(0, 1),)

    def _check(self) -> None:
        """Raise SettingsError if the layers after the last linear one need a fixed batch size."""
        size = self.embedder.input_size
        refusal = SettingsError(
            f"the method serfiq cannot be computed with {self.embedder.name}: the layers after its "
            "last fully connected one take a fixed number of crops"
        )
        try:
            with torch.inference_mode():
                rows = len(self._network(torch.zeros(1, 3, size, size, device=self.device)))
        except RuntimeError as error:
            raise refusal from error
        if rows != len(self._masks):
            raise refusal

    def _score_block(self, faces: Tensor) -> list[Score]:
        with torch.inference_mode():
            embeddings = self._network(faces).view(len(faces), len(self._masks), -1)
            norms = embeddings[:, 0].norm(dim=1).cpu().tolist()
            qualities = robustness(embeddings[:, 1:]).cpu().tolist()
        return list(map(scored, qualities, norms))


def robustness(embeddings: Tensor) -> Tensor:
    """Return 2 * sigmoid(-d), (N,), d the mean distance of all pairs of a face's embeddings.

    They are (N, m, D), and are normalised here.
    """
    units = F.normalize(embeddings, dim=2)
    # via matrix products, small distances would be lost to rounding
    distances = torch.cdist(units, units, compute_mode="donot_use_mm_for_euclid_dist")
    passes = embeddings.shape[1]
    return 2 * torch.sigmoid(-distances.sum(dim=(1, 2)) / (passes * (passes - 1)))


def draw_masks(passes: int, features: int, *, dropout: float, seed: int) -> Tensor:
    """Return dropout masks for all passes, drawn pass by pass on the CPU.

    They are (passes, features) float32: 0, or 1 / (1 - dropout), which keeps a feature's mean. A
    seed gives the same masks on every machine.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = [torch.rand(features, generator=generator) >= dropout for _ in range(passes)]
    return torch.stack(kept) / (1 - dropout)


def last_linear(network: nn.Module, size: int) -> nn.Linear | None:
    """Return the fully connected layer that is computed last, for crops of `size` pixels."""
    called: list[nn.Linear] = []

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(layer, nn.Linear) and inputs[0].ndim == 2:
            called.append(layer)

    first = next(network.parameters(), torch.empty(0))
    with ExitStack() as hooks, torch.inference_mode():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                hooks.enter_context(module.register_forward_pre_hook(note))
        network(torch.zeros(1, 3, size, size, device=first.device))
    return called[-1] if called else None
