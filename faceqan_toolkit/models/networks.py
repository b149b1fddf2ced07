"""Recognition networks, with the parameter names of their official code.

All but SFace take normalised crops and leave their embeddings unnormalised; `stages` returns the
modules that end the four resolutions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate, chain

import torch
from torch import Tensor, nn

from faceqan_toolkit.models.base import Embedder

IRESNET_BLOCKS = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6),
}  # fmt: skip
IR_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3)}
"""Blocks in each of the four stages, by depth."""
CHANNELS = (64, 128, 256, 512)
"""Output channels of each stage."""
REDUCTION = 16
"""Reduction ratio of squeeze-and-excitation units."""

SFACE_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1),
    (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Output channels and stride of each depthwise-separable block after the 32-channel stem."""
SFACE_STAGE_ENDS = (2, 4, 10, 12)
"""Index of the last block at 56, 28, 14 and 7 pixels a side."""
SFACE_EMBEDDING_SIZE = 128


def _stages(blocks: Sequence[int]) -> list[list[tuple[int, int, int]]]:
    """Return the input channels, output channels and stride of each block, by stage.

    The first block of a stage halves the resolution.
    """
    return [
        [(inputs, outputs, 2), *[(outputs, outputs, 1)] * (number - 1)]
        for inputs, outputs, number in zip((64, *CHANNELS), CHANNELS, blocks, strict=False)
    ]


class IResNetBlock(nn.Module):
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
            _convolved_shortcut(inputs, outputs, stride, eps) if stride > 1 else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        branch = self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))
        added: Tensor = self.bn3(branch) + self.downsample(x)
        return added


def _convolved_shortcut(inputs: int, outputs: int, stride: int, eps: float) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps))


class IResNet(nn.Module):
    """The residual network of ArcFace, CosFace, ElasticFace and MagFace.

    Args:
        depth: one of `IRESNET_BLOCKS`.
        embedding_size: D.
        eps: batch-norm epsilon; InsightFace's is 1e-5, MagFace's 2e-5.

    Source: InsightFace's `arcface_torch`. I. C. Duta et al., "Improved residual networks for image
    and video recognition", ICPR 2020, in the variant of J. Deng et al., "ArcFace", CVPR 2019.
    """

    def __init__(self, depth: int, embedding_size: int, eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps)
        self.prelu = nn.PReLU(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = [
            nn.Sequential(*(IResNetBlock(*sizes, eps) for sizes in stage))
            for stage in _stages(IRESNET_BLOCKS[depth])
        ]
        self.bn2 = nn.BatchNorm2d(512, eps)
        self.fc = nn.Linear(512 * 7 * 7, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) normalised crops to (N, D) embeddings."""
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embeddings: Tensor = self.features(self.fc(self.bn2(x).flatten(1)))
        return embeddings

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the four stages: 56, 28, 14 and 7 pixels a side."""
        return self.layer1, self.layer2, self.layer3, self.layer4


class SqueezeExcitation(nn.Module):
    """Scales each channel by a function of all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        weighed: Tensor = x * self.sigmoid(self.fc2(self.relu(self.fc1(self.pool(x)))))
        return weighed


class IRBlock(nn.Module):
    """Norm, convolution, PReLU, convolution, norm; added to the shortcut.

    Shortcuts between equal numbers of channels subsample pixels instead of convolving them. For
    the arguments see `IR`.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, eps: float, inner_norm: bool,
        squeeze_excitation: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        if inputs != outputs:
            self.shortcut_layer = _convolved_shortcut(inputs, outputs, stride, eps)
        else:
            self.shortcut_layer = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs, eps),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            *([nn.BatchNorm2d(outputs, eps)] if inner_norm else []),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs, eps),
        )
        if squeeze_excitation:
            # its name in AdaFace; the others number it
            name = "se_block" if inner_norm else str(len(self.res_layer))
            self.res_layer.add_module(name, SqueezeExcitation(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        added: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return added


class IR(nn.Module):
    """IR or IR-SE, the residual network of CurricularFace, InsightFace_Pytorch and AdaFace.

    The official AdaFace network returns the normalised embedding and its length, CurricularFace's
    the embedding and the last feature map. This one returns the embedding, not normalised.

    Args:
        depth: one of `IR_BLOCKS`.
        embedding_size: D.
        eps: batch-norm epsilon.
        inner_norm: AdaFace's layout, with a norm between a block's first convolution and PReLU.
        squeeze_excitation: IR-SE: a squeeze-and-excitation unit ends each block's branch.
        output_affine: whether the last batch norm has weights, as in InsightFace_Pytorch.

    Source: CurricularFace `backbone/model_irse.py`, InsightFace_Pytorch `model.py` (TreB1eN),
    AdaFace `net.py`. J. Hu et al., "Squeeze-and-excitation networks", CVPR 2018.
    """

    def __init__(
        self, depth: int, embedding_size: int, eps: float, *, inner_norm: bool,
        squeeze_excitation: bool, output_affine: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64, eps), nn.PReLU(64)
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512, eps),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, embedding_size),
            nn.BatchNorm1d(embedding_size, eps, affine=output_affine),
        )
        stages = _stages(IR_BLOCKS[depth])
        options = eps, inner_norm, squeeze_excitation
        self.body = nn.Sequential(*(IRBlock(*block, *options) for block in chain(*stages)))
        self._ends = tuple(accumulate(IR_BLOCKS[depth]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) normalised crops to (N, D) embeddings."""
        embeddings: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return embeddings

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the last block of each of the four stages: 56, 28, 14 and 7 pixels a side."""
        return tuple(self.body[end - 1] for end in self._ends)


def inception_resnet(device: str) -> nn.Module:
    """Return facenet-pytorch's Inception-ResNet v1, with random weights; nothing is downloaded.

    It maps (N, 3, 160, 160) normalised crops to (N, 512) embeddings.
    """
    # importing it takes as long as importing torch
    from facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1

    class InceptionResnet(InceptionResnetV1):  # type: ignore[misc]
        def stages(self) -> tuple[nn.Module, ...]:
            """Return the stem and the blocks before each reduction: 17, 17, 8 and 3 pixels."""
            return self.conv2d_4b, self.repeat_1, self.repeat_2, self.repeat_3

    with torch.device(device):
        network = InceptionResnet(pretrained=None)
    # as a classifier it skips normalisation; the identity replaces its last layer
    network.classify, network.logits = True, nn.Identity()
    return network


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return a convolution without bias, batch norm and PReLU."""
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return _named(conv=conv, bn=nn.BatchNorm2d(outputs, eps=1e-3), prelu=nn.PReLU(outputs))


def _separable(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return a 3x3 depthwise unit followed by a 1x1 unit."""
    depthwise = _unit(inputs, inputs, 3, stride, groups=inputs)
    return _named(depthwise=depthwise, pointwise=_unit(inputs, outputs, 1))


class SFace(Embedder):
    """A MobileNet-like network with 128-dimensional embeddings, with its preprocessing.

    Source: OpenCV Zoo's `face_recognition_sface_2021dec` ONNX graph; see weights/README.md.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 32, 3)
        channels = (32, *(outputs for outputs, _ in SFACE_BLOCKS))
        blocks = zip(channels, SFACE_BLOCKS, strict=False)
        self.blocks = nn.Sequential(*(_separable(inputs, *block) for inputs, block in blocks))
        self.bn = nn.BatchNorm2d(1024, eps=2e-5)
        self.fc = nn.Linear(1024 * 7 * 7, SFACE_EMBEDDING_SIZE)
        self.embedding_bn = nn.BatchNorm1d(SFACE_EMBEDDING_SIZE, eps=2e-5)

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) crops in [0, 1] to (N, 128) embeddings."""
        return self.project(self.bn(self.feature_maps(crops)[-1]))

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the last block of each of the four stages: 56, 28, 14 and 7 pixels a side."""
        return tuple(self.blocks[end] for end in SFACE_STAGE_ENDS)

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
