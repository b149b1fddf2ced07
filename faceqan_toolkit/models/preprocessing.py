"""How an aligned crop becomes a network's input: constants that travel with the weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.settings import ModelOptions, check_crops

ChannelValues = float | tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """What a network was trained to see: (pixel - mean) / std, pixels in 0..255.

    Attributes:
        channels: order of the colour channels, "RGB" or "BGR".
        mean, std: one number for all channels, or one a channel in the order of `channels`; in
            units of a pixel in 0..255.
        input_size: side of the crop, pixels.
        template: how the crop is cut: "arcface" (five landmarks) or "box" (the detector's box).

    Raises:
        SettingsError: another order of channels, a std that is not above 0, an unknown template,
            or a size that is no crop's.
    """

    channels: str = "RGB"
    mean: ChannelValues = 127.5
    std: ChannelValues = 127.5
    input_size: int = 112
    template: str = "arcface"

    def __post_init__(self) -> None:
        if self.channels not in ("RGB", "BGR"):
            raise SettingsError(f"channels is {self.channels}; it must be RGB or BGR")
        check_crops(self.template, self.input_size, "input_size")
        if not all(value > 0 for value in _by_channel(self.std)):
            raise SettingsError(f"std is {self.std}; it must be above 0")

    def adjusted(self, options: ModelOptions) -> Preprocessing:
        """Return it with what options say in place of its own."""
        return replace(
            self,
            channels=options.channels or self.channels,
            mean=self.mean if options.mean is None else options.mean,
            std=options.std or self.std,
        )

    def in_words(self) -> dict[str, str]:
        """Return its parts as people are told them, by their names."""
        return {
            "channels": self.channels,
            "mean": f"pixel mean {self.mean}",
            "std": f"pixel std {self.std}",
            "input_size": f"crops of {self.input_size}x{self.input_size}",
            "template": f"template {self.template}",
        }


class Normalise(nn.Module):
    """Makes a network's input from crops in [0, 1]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean = torch.tensor(_by_channel(preprocessing.mean), dtype=torch.double)
        std = torch.tensor(_by_channel(preprocessing.std), dtype=torch.double)
        # no part of a checkpoint, so its keys stay the network's own
        self.register_buffer("scale", (255 / std).float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).float().view(1, 3, 1, 1), persistent=False)
        self.reverse = preprocessing.channels == "BGR"

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, S, S) RGB in [0, 1] to the network's range and channel order."""
        if self.reverse:
            crops = crops.flip(1)
        return crops * self.scale + self.shift


def _by_channel(values: ChannelValues) -> tuple[float, ...]:
    return values if isinstance(values, tuple) else (values,) * 3
