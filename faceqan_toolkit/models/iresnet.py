"""IResNet, the residual network of ArcFace, CosFace, ElasticFace and MagFace.

Source: InsightFace's `arcface_torch`, with its names of parameters. I. C. Duta et al., "Improved
residual networks for image and video recognition", ICPR 2020, in the variant of J. Deng et al.,
"ArcFace", CVPR 2019.
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}
"""Blocks in each of the four stages, by depth."""
CHANNELS = (64, 128, 256, 512)


class Block(nn.Module):
    """Norm, convolution, norm, PReLU, convolution, norm; added to the input."""

    def __init__(self, inputs: int, outputs: int, stride: int, eps: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, eps)
            )
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        branch = self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))
        added: Tensor = self.bn3(branch) + self.downsample(x)
        return added


class IResNet(nn.Module):
    """The network without preprocessing.

    Args:
        depth: one of `BLOCKS`.
        embedding_size: D.
        eps: batch-norm epsilon; InsightFace's is 1e-5, MagFace's 2e-5.
    """

    def __init__(self, depth: int, embedding_size: int = 512, eps: float = 1e-5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps)
        self.prelu = nn.PReLU(64)
        inputs = (64, *CHANNELS)
        stages = [
            _stage(*sizes, eps) for sizes in zip(inputs, CHANNELS, BLOCKS[depth], strict=False)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2 = nn.BatchNorm2d(512, eps)
        self.fc = nn.Linear(512 * 7 * 7, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) normalised crops to (N, D) embeddings, not normalised."""
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embeddings: Tensor = self.features(self.fc(self.bn2(x).flatten(1)))
        return embeddings

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the four stages: 56, 28, 14 and 7 pixels a side."""
        return self.layer1, self.layer2, self.layer3, self.layer4


def _stage(inputs: int, outputs: int, blocks: int, eps: float) -> nn.Sequential:
    """Return a stage whose first block halves the resolution."""
    rest = (Block(outputs, outputs, 1, eps) for _ in range(blocks - 1))
    return nn.Sequential(Block(inputs, outputs, 2, eps), *rest)
