"""P-Net, the first of MTCNN's networks, which looks at whole pictures: stripe by stripe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from faceqan_toolkit.detection.facenet_weights import load_weights
from faceqan_toolkit.types import Pixels

CELL, STRIDE = 12, 2
"""Pixels that decide about one place, and from one place to the next."""


class Stripe(NamedTuple):
    """A part of a picture.

    Attributes:
        first: row of places that its first row of places is in the picture.
        pixels: (H, W, 3) uint8, RGB, all that its places see.
    """

    first: int
    pixels: Pixels


class Proposals(NamedTuple):
    """Places that look like faces.

    Attributes:
        places: (N, 2) int64, column and row; a place sees `CELL` pixels from `STRIDE` times it on.
        scores: (N,) float32 in [0, 1].
        offsets: (N, 4) float32, of the box's corners, in units of its sides.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    offsets: NDArray[np.float32]


class ProposalNet:
    """facenet-pytorch's P-Net with the same results, less work and bounded memory.

    A score's share of two comes from their difference; offsets are computed where a face may be,
    nowhere else; activation and pooling of the first layer go over memory as it lies.

    Args:
        device: where it runs.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
        self._weights = weights = load_weights("pnet", device)
        scores, biases = weights["conv4_1.weight"].flatten(1), weights["conv4_1.bias"]
        self._margin = scores[1:] - scores[:1], biases[1:] - biases[:1]
        self._offsets = weights["conv4_2.weight"].flatten(1), weights["conv4_2.bias"]

    @torch.inference_mode()
    def propose(self, pixels: Pixels, threshold: float) -> Proposals:
        """Return the places of a picture, or of a stripe, whose score reaches a threshold."""
        features = self.features(pixels)
        margin = F.linear(features, *self._margin)[..., 0]
        y, x = torch.nonzero(margin >= math.log(threshold / (1 - threshold)), as_tuple=True)
        offsets = F.linear(features[y, x], *self._offsets)
        return Proposals(
            torch.stack([x, y], dim=1).cpu().numpy(),
            torch.sigmoid(margin[y, x]).cpu().numpy(),
            offsets.cpu().numpy(),
        )

    def features(self, pixels: Pixels) -> Tensor:
        """Return (h, w, 32) float32, what the network knows of each place of a picture."""
        height, width = pixels.shape[:2]
        # Pooling takes two by two and makes do with one at an odd edge; two equal ones do as well.
        odd_rows, odd_columns = height % 2, width % 2
        picture = torch.from_numpy(pixels).to(self.device)
        picture = F.pad(picture, (0, 0, 0, odd_columns, 0, odd_rows))
        maps = self._convolve(1, normalised(picture[None]))[0].permute(1, 2, 0)
        rows, columns, channels = maps.shape
        # ten channels are no whole vector of the processor, a row of them is many
        flat = torch.prelu(maps.reshape(rows, -1), self._weights["prelu1.weight"].repeat(columns))
        maps = flat.view(rows, columns, channels)
        if odd_rows:
            maps[-1] = maps[-2]
        if odd_columns:
            maps[:, -1] = maps[:, -2]
        # torch's own pooling takes three times as long: it also notes where each maximum was
        taller = torch.maximum(maps[::2], maps[1::2])
        pairs = taller.view(rows // 2, columns // 2, 2 * channels)
        pooled = torch.maximum(pairs[..., :channels], pairs[..., channels:])
        maps = pooled.permute(2, 0, 1)[None]
        for layer in (2, 3):
            maps = torch.prelu(self._convolve(layer, maps), self._weights[f"prelu{layer}.weight"])
        return maps[0].permute(1, 2, 0)

    def _convolve(self, layer: int, maps: Tensor) -> Tensor:
        weights = self._weights
        return F.conv2d(maps, weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"])


def normalised(pictures: Tensor) -> Tensor:
    """Return (N, H, W, 3) uint8 pictures as MTCNN's networks take them.

    Returns:
        (N, 3, H, W) float32 in [-1, 1], channels last in memory.
    """
    return (pictures.permute(0, 3, 1, 2).float() - 127.5) * 0.0078125


def stripes(pixels: Pixels, limit: int) -> Iterator[Stripe]:
    """Yield a picture in stripes whose places together are those of the picture, each once.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        limit: of a stripe's pixels; but it has twice the height of a cell at least.
    """
    height, width = pixels.shape[:2]
    places = (height - CELL + 1) // STRIDE + 1
    rows = max(CELL, limit // (STRIDE * width))
    for first in range(0, places, rows):
        top, last = STRIDE * first, first + rows
        # the last one reaches to the end: pooling makes do with half a cell there
        bottom = height if last >= places else STRIDE * (last - 1) + CELL
        yield Stripe(first, pixels[top:bottom])
