"""Preprocessing of aligned crops: constants that belong to a network's weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.settings import ModelOptions, check_crops

ChannelValues = float | tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """A network's input: (pixel - mean) / std, with pixels in 0..255.

    Attributes:
        channels: order of the colour channels, "RGB" or "BGR".
        mean, std: one number for all channels, or one a channel in the order of `channels`; in
            the units of a pixel in 0..255.
        input_size: side of the crop, pixels.
        template: how the crop is cut: "arcface" (five landmarks) or "box" (the detector's box).

    Raises:
        SettingsError: a value out of its range.
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
        """Return a copy with the options' values where they are given."""
        return replace(
            self,
            channels=options.channels or self.channels,
            mean=self.mean if options.mean is None else options.mean,
            std=options.std or self.std,
        )

    def in_words(self) -> dict[str, str]:
        """Return a short text for each attribute, by name."""
        return {
            "channels": self.channels,
            "mean": f"pixel mean {self.mean}",
            "std": f"pixel std {self.std}",
            "input_size": f"crops of {self.input_size}x{self.input_size}",
            "template": f"template {self.template}",
        }


class Normalise(nn.Module):
    """Normalises crops in [0, 1] for a network."""

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean = torch.tensor(_by_channel(preprocessing.mean), dtype=torch.double)
        std = torch.tensor(_by_channel(preprocessing.std), dtype=torch.double)
        # not persistent: the state dict keeps the network's own keys
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
