"""GraFIQs: gradient magnitude of the distance to the training faces' batch-norm statistics."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.freeze import frozen_copy
from faceqan_toolkit.quality.base import QualityEstimator, scored
from faceqan_toolkit.types import Score

GPU_BLOCK_FACES = 64


class GraFIQs(QualityEstimator):
    """GraFIQs quality of aligned crops.

    Every batch norm stores the mean and variance of its inputs in training. The discrepancy of a
    crop is the mean squared difference between its own means (over positions) and the stored ones,
    plus that of the variances, averaged over all batch norms. The quality is minus the sum of the
    absolute gradient of that discrepancy with respect to one tensor of the network: at most 0,
    higher is better, on the model's own scale. Statistics are those of one crop, not of a batch.

    Costs one forward pass per crop, and one backward pass down to that tensor.

    Args:
        embedder, device: see `QualityEstimator`.
        at: the tensor: "image", or "block1" to "block4" for the output of a stage of the network;
            "auto" is "block2", or "image" for a network whose stages are unknown. The attribute of
            that name is never "auto".

    Raises:
        SettingsError: a model without batch norms or without the stage `at`; or see
            `QualityEstimator`.

    Source: Kolf, Damer, Boutros, "GraFIQs: Face Image Quality Assessment Using Gradient
    Magnitudes", CVPR Workshops 2024. As in the published code, variances are biased and batch norms
    over embeddings (one number per crop) are left out. Different from it are the sign (there lower
    is better), and the units at "image": crops in [0, 1] here, normalised crops there. The paper
    defines stages for IResNet only; those of other networks are our choice.
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
        stages = {f"block{n}": stage for n, stage in enumerate(self._network.stages(), start=1)}
        if at == "auto":
            at = "block2" if "block2" in stages else "image"
        if at != "image" and at not in stages:
            raise SettingsError(
                f"at is {at}; with {self.embedder.name} it must be one of "
                f"{', '.join(['image', *stages])}"
            )
        self.at, self._stage = at, stages.get(at)
        if self.device.type != "cpu":
            self.block_faces = GPU_BLOCK_FACES

    def _score_block(self, faces: Tensor) -> list[Score]:
        magnitudes, embeddings = gradient_magnitudes(self._network, self._norms, faces, self._stage)
        norms = embeddings.norm(dim=1).cpu().tolist()
        return list(map(scored, (-magnitudes).cpu().tolist(), norms))


def gradient_magnitudes(
    network: nn.Module, norms: list[nn.BatchNorm2d], crops: Tensor, stage: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Return the sum of the absolute gradient of each crop's discrepancy, (N,), and its embedding.

    Args:
        network: maps (N, 3, S, S) crops to (N, D) embeddings, each row independently; in evaluation
            mode, without weight gradients.
        norms: its batch norms.
        crops: (N, 3, S, S) float32.
        stage: the module whose output the gradient is with respect to; None means the crops.
    """
    starts: list[Tensor] = []
    terms: list[Tensor] = []

    def start(_stage: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor:
        # autograd records only from here on; batch norms before the stage do not count
        starts.append(output.detach().requires_grad_())
        return starts[-1]

    def compare(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if starts:
            assert isinstance(norm, nn.BatchNorm2d)
            terms.append(discrepancy(inputs[0], norm))

    if stage is None:
        starts.append(crops.detach().requires_grad_())
        crops = starts[0]
    with ExitStack() as hooks, torch.enable_grad():
        for norm in norms:
            hooks.enter_context(norm.register_forward_pre_hook(compare))
        if stage is not None:
            hooks.enter_context(stage.register_forward_hook(start))
        embeddings = network(crops)
        # rows are independent: the gradient of the sum contains that of each row
        total = torch.stack(terms).sum() / len(norms)
    (gradient,) = torch.autograd.grad(total, starts[0])
    return gradient.abs().flatten(1).sum(dim=1), embeddings.detach()


def discrepancy(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Return the discrepancy between the statistics of inputs (N, C, H, W) and of a batch norm.

    It is (N,): squared difference of the means, averaged over channels, plus that of the variances.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
    means = (mean - norm.running_mean).square().mean(dim=1)
    return means + (variance - norm.running_var).square().mean(dim=1)
