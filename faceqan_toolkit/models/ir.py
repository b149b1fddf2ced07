"""IR and IR-SE, the residual networks of CurricularFace, InsightFace_Pytorch and AdaFace.

Similar to IResNet, but shortcuts between equal numbers of channels subsample pixels instead of
convolving them. Parameters are named as in the official code.

Source: CurricularFace `backbone/model_irse.py`, InsightFace_Pytorch `model.py` (TreB1eN), AdaFace
`net.py`. J. Hu et al., "Squeeze-and-excitation networks", CVPR 2018.
"""

from __future__ import annotations

from itertools import accumulate

from torch import Tensor, nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3)}
"""Blocks in each of the four stages, by depth."""
CHANNELS = (64, 128, 256, 512)
REDUCTION = 16
"""Reduction ratio of squeeze-and-excitation units."""


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


class Block(nn.Module):
    """Norm, convolution, PReLU, convolution, norm; added to the shortcut.

    Args:
        inputs, outputs: channels.
        stride: stride of the second convolution and the shortcut.
        inner_norm: AdaFace's layout, with a norm between the first convolution and PReLU.
        squeeze_excitation: whether a squeeze-and-excitation unit ends the branch.
        eps: batch-norm epsilon.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, inner_norm: bool,
        squeeze_excitation: bool, eps: float,
    ) -> None:  # fmt: skip
        super().__init__()
        if inputs != outputs:
            self.shortcut_layer: nn.Module = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, eps)
            )
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
    """The network without preprocessing.

    The official AdaFace network returns the normalised embedding and its length, CurricularFace's
    the embedding and the last feature map. This one returns the embedding, not normalised.

    Args:
        depth: one of `BLOCKS`.
        embedding_size: D.
        inner_norm: AdaFace's layout.
        squeeze_excitation: IR-SE.
        output_affine: whether the last batch norm has weights, as in InsightFace_Pytorch.
        eps: batch-norm epsilon.
    """

    def __init__(
        self, depth: int, embedding_size: int = 512, *, inner_norm: bool = False,
        squeeze_excitation: bool = False, output_affine: bool = False, eps: float = 1e-5,
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
        blocks = []
        inputs = 64
        for outputs, number in zip(CHANNELS, BLOCKS[depth], strict=True):
            for position in range(number):
                stride = 1 if position else 2
                blocks.append(
                    Block(
                        inputs, outputs, stride, inner_norm=inner_norm,
                        squeeze_excitation=squeeze_excitation, eps=eps,
                    )
                )  # fmt: skip
                inputs = outputs
        self.body = nn.Sequential(*blocks)
        self._ends = tuple(accumulate(BLOCKS[depth]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) normalised crops to (N, D) embeddings, not normalised."""
        embeddings: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return embeddings

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the last block of each of the four stages: 56, 28, 14 and 7 pixels a side."""
        return tuple(self.body[end - 1] for end in self._ends)
