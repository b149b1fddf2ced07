"""The three networks of MTCNN, with the weights of facenet-pytorch.

The weights are read from its files: importing facenet-pytorch would import torchvision, which takes
as long as torch and is not needed.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from faceqan_toolkit.errors import ChecksumMismatch, MissingWeights
from faceqan_toolkit.text import reason_of
from faceqan_toolkit.types import Pixels

INSTALL_AGAIN = "pip install --force-reinstall --no-deps 'facenet-pytorch<2.6'"

SHA256 = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
"""Checksums of the weights in facenet-pytorch 2.5.3."""
CELL, STRIDE = 12, 2
"""Side of P-Net's receptive field, and distance between two of them, pixels."""


def load_weights(network: str, device: torch.device | str) -> dict[str, Tensor]:
    """Return the tensors of "pnet", "rnet" or "onet", convolutions in channels-last layout.

    Raises:
        MissingWeights: facenet-pytorch or its file is missing, or cannot be read.
        ChecksumMismatch: the file is damaged or of another release.
    """
    found = find_spec("facenet_pytorch")
    folders = found.submodule_search_locations if found else None
    file = Path(next(iter(folders or []), ""), "data", f"{network}.pt")
    if not folders or not file.is_file():
        raise MissingWeights(f"MTCNN's weights are missing: {INSTALL_AGAIN}")
    named = f"MTCNN's weights {file}"
    try:
        content = file.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {reason_of(error)}; {INSTALL_AGAIN}"
        raise MissingWeights(f"{named} {reason}") from error
    if hashlib.sha256(content).hexdigest() != SHA256[network]:
        raise ChecksumMismatch(f"{named} are damaged or of another release: {INSTALL_AGAIN}")
    weights: dict[str, Tensor] = torch.load(
        io.BytesIO(content), map_location=device, weights_only=True
    )
    for name, tensor in weights.items():
        if tensor.ndim == 4:
            weights[name] = tensor.contiguous(memory_format=torch.channels_last)
    return weights


class Proposals(NamedTuple):
    """P-Net's output at the positions whose score reaches the threshold.

    Attributes:
        places: (N, 2) int64, column and row in the output map; the receptive field of a position
            starts at `STRIDE` times it.
        scores: (N,) float32 in [0, 1].
        offsets: (N, 4) float32, regression of the box's corners, in units of its sides.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    offsets: NDArray[np.float32]


class ProposalNet:
    """P-Net, with facenet-pytorch's results and less computation.

    The softmax over two logits is the sigmoid of their difference. Offsets are computed only where
    the score reaches the threshold. The first layer's activation and pooling follow the memory
    layout.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
        self._weights = weights = load_weights("pnet", device)
        scores, biases = weights["conv4_1.weight"].flatten(1), weights["conv4_1.bias"]
        self._margin = scores[1:] - scores[:1], biases[1:] - biases[:1]
        self._offsets = weights["conv4_2.weight"].flatten(1), weights["conv4_2.bias"]

    @torch.inference_mode()
    def propose(self, pixels: Pixels, threshold: float) -> Proposals:
        """Return the positions of an image or a stripe whose score reaches a threshold."""
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
        """Return the (h, w, 32) float32 feature map before the output layers."""
        height, width = pixels.shape[:2]
        # ceil-mode pooling at an odd edge equals pooling after repeating the last row or column
        odd_rows, odd_columns = height % 2, width % 2
        picture = torch.from_numpy(pixels).to(self.device)
        picture = F.pad(picture, (0, 0, 0, odd_columns, 0, odd_rows))
        maps = self._convolve(1, normalised(picture[None]))[0].permute(1, 2, 0)
        rows, columns, channels = maps.shape
        # a row of ten channels vectorises better than ten channels alone
        flat = torch.prelu(maps.reshape(rows, -1), self._weights["prelu1.weight"].repeat(columns))
        maps = flat.view(rows, columns, channels)
        if odd_rows:
            maps[-1] = maps[-2]
        if odd_columns:
            maps[:, -1] = maps[:, -2]
        # torch's max_pool2d takes three times as long, as it also stores indices
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


class WindowNet:
    """R-Net or O-Net, which classify candidate windows.

    Args:
        network: "rnet" or "onet".
        size: side of its input windows, pixels.
        pools: kernel size of the max pooling after each convolution; 0 for none.
        device: device of the network.
    """

    def __init__(
        self, network: str, *, size: int, pools: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> None:
        self.size = size
        self._pools = pools
        self._weights = load_weights(network, device)
        last = len(pools) + 2
        self._heads = [f"dense{last}_{head}" for head in (1, 2, 3)]

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """Return (N,) scores in [0, 1], (N, 4) offsets and, from O-Net, (N, 10) landmarks."""
        maps = pictures
        for layer, pool in enumerate(self._pools, 1):
            maps = self._activate(layer, F.conv2d(maps, *self._layer(f"conv{layer}")))
            if pool:
                maps = F.max_pool2d(maps, pool, stride=2, ceil_mode=True)
        dense = len(self._pools) + 1
        flat = maps.permute(0, 3, 2, 1).flatten(1)  # the weights expect columns before rows
        features = self._activate(dense, F.linear(flat, *self._layer(f"dense{dense}")))
        scores, *rest = (
            F.linear(features, *self._layer(head))
            for head in self._heads
            if f"{head}.weight" in self._weights
        )
        return [scores.softmax(dim=1)[:, 1], *rest]

    def _layer(self, name: str) -> tuple[Tensor, Tensor]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    def _activate(self, layer: int, maps: Tensor) -> Tensor:
        return torch.prelu(maps, self._weights[f"prelu{layer}.weight"])


def normalised(pictures: Tensor) -> Tensor:
    """Return (N, H, W, 3) uint8 images as (N, 3, H, W) float32 in [-1, 1], channels-last."""
    return (pictures.permute(0, 3, 1, 2).float() - 127.5) * 0.0078125


def stripes(pixels: Pixels, limit: int) -> Iterator[tuple[int, Pixels]]:
    """Yield an image in stripes whose output maps of P-Net together are that of the image.

    Each comes with the row offset of its output in the full map. It has at most `limit` pixels, but
    is at least `2 * CELL` pixels high.
    """
    height, width = pixels.shape[:2]
    places = (height - CELL + 1) // STRIDE + 1
    rows = max(CELL, limit // (STRIDE * width))
    for first in range(0, places, rows):
        top, last = STRIDE * first, first + rows
        # the last stripe includes the rest, which ceil-mode pooling uses
        bottom = height if last >= places else STRIDE * (last - 1) + CELL
        yield first, pixels[top:bottom]
