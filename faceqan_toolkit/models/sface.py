"""SFace: a MobileNet-like network with 128-dimensional embeddings.

Source: OpenCV Zoo's `face_recognition_sface_2021dec` ONNX graph; see weights/README.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faceqan_toolkit.models.base import Embedder

BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1),
    (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Output channels and stride of each depthwise-separable block after the 32-channel stem."""
STAGE_ENDS = (2, 4, 10, 12)
"""Index of the last block at 56, 28, 14 and 7 pixels a side."""
EMBEDDING_SIZE = 128


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, PReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.prelu = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        activated: Tensor = self.prelu(self.bn(self.conv(x)))
        return activated


class SeparableBlock(nn.Module):
    """A 3x3 depthwise unit followed by a 1x1 unit."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvUnit(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = ConvUnit(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        activated: Tensor = self.pointwise(self.depthwise(x))
        return activated


class SFace(Embedder):
    """The network with its preprocessing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvUnit(3, 32, 3)
        channels = (32, *(outputs for outputs, _ in BLOCKS))
        self.blocks = nn.Sequential(
            *(
                SeparableBlock(inputs, outputs, stride)
                for inputs, (outputs, stride) in zip(channels, BLOCKS, strict=False)
            )
        )
        self.bn = nn.BatchNorm2d(1024, eps=2e-5)
        self.fc = nn.Linear(1024 * 7 * 7, EMBEDDING_SIZE)
        self.embedding_bn = nn.BatchNorm1d(EMBEDDING_SIZE, eps=2e-5)

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) crops in [0, 1] to (N, 128) embeddings."""
        return self.project(self.bn(self.feature_maps(crops)[-1]))

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the last block of each of the four stages: 56, 28, 14 and 7 pixels a side."""
        return tuple(self.blocks[end] for end in STAGE_ENDS)

    def feature_maps(self, crops: Tensor) -> list[Tensor]:
        """Return the (N, C, H, W) output of the stem and of every block, in order."""
        maps = [self.stem((crops * 255 - 127.5) / 128)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps

    def project(self, features: Tensor) -> Tensor:
        """Map (N, 1024, 7, 7) batch-normalised features to (N, 128) embeddings."""
        embeddings: Tensor = self.embedding_bn(self.fc(features.flatten(1)))
        return embeddings


def dequantise(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the float32 state dict of weights stored as int8 blocks.

    A weight `w` is stored as `w.int8`, `w.scales`, `w.zero_points` and `w.shape`, with blocks along
    the last axis. Other tensors are returned unchanged.
    """
    state = {}
    for name, tensor in tensors.items():
        weight, _, part = name.rpartition(".")
        if part == "int8":
            scales = tensors[f"{weight}.scales"]
            block = tensor.shape[-1] // scales.shape[-1]
            zero_points = tensors[f"{weight}.zero_points"].repeat_interleave(block, dim=-1)
            values = (tensor.float() - zero_points) * scales.repeat_interleave(block, dim=-1)
            state[weight] = values.reshape(tensors[f"{weight}.shape"].tolist())
        elif part not in ("scales", "zero_points", "shape"):
            state[name] = tensor
            if part == "running_var":  # not in the file
                state[f"{weight}.num_batches_tracked"] = torch.tensor(0)
    return state
