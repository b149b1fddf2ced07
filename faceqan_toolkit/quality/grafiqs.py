"""GraFIQs: how much a network would have to change to find a face ordinary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.freeze import frozen_copy
from faceqan_toolkit.quality.base import QualityEstimator, usable
from faceqan_toolkit.types import Score

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

GPU_BLOCK_FACES = 64


class GraFIQs(QualityEstimator):
    """Measures the gradient of how far a crop's statistics are from those of the training faces.

    Every batch norm keeps mean and variance of what it saw in training. The discrepancy of a crop
    is the mean squared difference of its own means (over positions) from those, plus that of its
    variances, on average over batch norms; quality is the negative sum of the absolute gradient of
    that discrepancy with respect to one tensor of the network: at most 0, higher is better, on the
    model's own scale. Statistics are those of one crop, never of a batch.

    Costs one forward pass a crop, and one backward pass from the end to that tensor.

    Args:
        embedder: the recognition model with its batch norms, or its name.
        at: which tensor: "image", or "block1" to "block4" for the output of one of the network's
            stages; "auto" is "block2", or "image" for a network whose stages are not known.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

    Attributes:
        at: the tensor in use.

    Raises:
        SettingsError: a model without batch norms or without that stage; a device this machine
            does not have.
        WeightsError: the model cannot be loaded.

    Source: Kolf, Damer, Boutros, "GraFIQs: Face Image Quality Assessment Using Gradient
    Magnitudes", CVPR Workshops 2024. As in the published code, variances are biased ones and
    batch norms over embeddings (one number a crop) are left out. Differs from it in the sign (its
    numbers are better the lower they are), and at "image" in units: crops in [0, 1] here,
    normalised ones there. Stages other than IResNet's four are ours to choose.
    """

    def __init__(
        self, embedder: Embedder | str = "sface", *, at: str = "auto", device: str = "auto"
    ) -> None:
        super().__init__(embedder, device)
        self._network = frozen_copy(self.embedder).to(self.device)
        self._norms = [one for one in self._network.modules() if isinstance(one, nn.BatchNorm2d)]
        if not self._norms:
            raise SettingsError(
                f"the method grafiqs needs a network with batch norms, and {self.embedder.name} "
                "has none (exporting a network to ONNX often folds them away)"
            )
        stages = {
            f"block{number}": stage for number, stage in enumerate(self._network.stages(), start=1)
        }
        if at == "auto":
            at = "block2" if "block2" in stages else "image"
        if at != "image" and at not in stages:
            raise SettingsError(
                f"at is {at}; with {self.embedder.name} it must be one of "
                f"{', '.join(['image', *stages])}"
            )
        self.at = at
        self._stage = stages.get(at)
        if self.device.type != "cpu":
            self.block_faces = GPU_BLOCK_FACES

    def _score_block(self, faces: Tensor) -> list[Score]:
        magnitudes, embeddings = gradient_magnitudes(self._network, self._norms, faces, self._stage)
        norms = embeddings.norm(dim=1).cpu().tolist()
        return [
            Score(-magnitude if usable(norm) and math.isfinite(magnitude) else math.nan, norm)
            for magnitude, norm in zip(magnitudes.cpu().tolist(), norms, strict=True)
        ]


def gradient_magnitudes(
    network: nn.Module, norms: list[nn.BatchNorm2d], crops: Tensor, stage: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Return the sum of the absolute gradient of each crop's discrepancy, and the embeddings.

    Args:
        network: maps (N, 3, S, S) crops to (N, D) embeddings, each row by itself; in evaluation
            mode, no weight asking for gradients.
        norms: its batch norms.
        crops: (N, 3, S, S) float32.
        stage: a module of the network; the gradient is that with respect to its output. None
            takes the crops.

    Returns:
        (N,) and (N, D) float32.
    """
    starts: list[Tensor] = []
    terms: list[Tensor] = []

    def start(_stage: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor:
        # what comes before it does not count: only from here on a graph is recorded
        starts.append(output.detach().requires_grad_())
        return starts[-1]

    def compare(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if starts:
            assert isinstance(norm, nn.BatchNorm2d)
            terms.append(discrepancy(inputs[0], norm))

    if stage is None:
        starts.append(crops.detach().requires_grad_())
        crops = starts[0]
    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    if stage is not None:
        hooks.append(stage.register_forward_hook(start))
    try:
        with torch.enable_grad():
            embeddings = network(crops)
            # rows do not mix, so the gradient of the sum holds that of each
            total = torch.stack(terms).sum() / len(norms)
    finally:
        for hook in hooks:
            hook.remove()
    (gradient,) = torch.autograd.grad(total, starts[0])
    return gradient.abs().flatten(1).sum(dim=1), embeddings.detach()


def discrepancy(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Return how far each crop's statistics are from those a batch norm keeps.

    Args:
        x: (N, C, H, W), the batch norm's input.
        norm: with running statistics.

    Returns:
        (N,) mean over channels of the squared difference of means, plus that of variances.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
    means = (mean - norm.running_mean).square().mean(dim=1)
    return means + (variance - norm.running_var).square().mean(dim=1)
