"""Networks small enough to compute by hand."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from faceqan_toolkit.models.base import Embedder

SIZE = 8


class Toy(Embedder):
    """All that a recognition network has, two stages of it: batch norms, PReLU, a last layer."""

    name, input_size = "toy", SIZE

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.bn = nn.BatchNorm2d(3)
        self.first = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, padding=1, bias=False), nn.BatchNorm2d(4), nn.PReLU(4)
        )
        self.second = nn.Sequential(
            nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.PReLU(5)
        )
        self.last_bn = nn.BatchNorm2d(5)
        self.fc = nn.Linear(5 * 4 * 4, 6)
        self.features = nn.BatchNorm1d(6)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean.normal_()  # type: ignore[union-attr]
                norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                nn.init.normal_(norm.bias)
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> Tensor:
        maps = self.second(self.first(self.bn(crops)))
        embeddings: Tensor = self.features(self.fc(self.last_bn(maps).flatten(1)))
        return embeddings

    def stages(self) -> tuple[nn.Module, ...]:
        return self.first, self.second


class Wrapped(Embedder):
    """Any module as an embedder of 8x8 crops."""

    name, input_size = "wrapped", SIZE

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> Tensor:
        embeddings: Tensor = self.network(crops)
        return embeddings


def traced(network: nn.Module) -> Wrapped:
    """Return the network as torch.fx, and converters of ONNX files, would write it down."""
    return Wrapped(fx.symbolic_trace(network))
