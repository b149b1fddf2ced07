"""The interface of a face recognition network: preprocessing, embeddings, checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from faceqan_toolkit.errors import DamagedWeights, WrongArchitecture
from faceqan_toolkit.hardware import resolve_device
from faceqan_toolkit.models.blocks import BlockRunner, forward_block
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.models.preprocessing import Normalise, Preprocessing
from faceqan_toolkit.types import Pixels

EQUAL = 1e-4
"""Largest difference between the lengths of embeddings, relative to the longest, that is taken for
rounding. The embeddings of unlike crops differ a hundred times as much where length is kept."""


class Embedder(nn.Module):
    """A face recognition network together with its preprocessing.

    `forward` maps (N, 3, S, S) float32 crops, RGB, in [0, 1], to (N, D) float32 embeddings, not
    normalised. It is differentiable with respect to the crops and computes every row of a batch
    independently (evaluation mode). `embed` does the same for uint8 images, without gradients.

    Attributes:
        name: name in settings and records.
        sha256: sha256 of the weights, hexadecimal.
        family: family of architectures, such as "iresnet"; "" if unknown.
        title: description, one line.
        input_size: side of a crop, S, in pixels.
        template: how crops are cut, see `alignment.Template`.
        notes: remarks on how the weights were read, one line each.
        equal_lengths: whether all embeddings have the same length; None until
            `has_equal_lengths` has measured it.
        assumed: preprocessing that the weights do not tell and that is the family's default.
    """

    name: str = ""
    sha256: str = ""
    family: str = ""
    title: str = ""
    input_size: int = 112
    template: str = "arcface"
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    equal_lengths: bool | None = None

    def __call__(self, crops: Tensor) -> Tensor:
        """Return the embeddings of a batch of crops."""
        embeddings: Tensor = super().__call__(crops)
        return embeddings

    def stages(self) -> Sequence[nn.Module]:
        """Return the modules whose outputs, (N, C, H, W), end the stages; empty if unknown."""
        return ()

    def embed(
        self, crops: Sequence[Pixels] | Pixels, *, flip: bool = False, device: str = "auto"
    ) -> NDArray[np.float32]:
        """Return the embeddings of aligned crops, not normalised.

        The crops are computed in blocks, so any number of them takes the same memory. The first
        call makes a copy of the network for speed and keeps it: change weights before it.

        Args:
            crops: a list of (S, S, 3) uint8 RGB crops, S = `input_size`, or an array (N, S, S, 3).
            flip: add the mirror image's embedding to each, as InsightFace's evaluation does.
            device: "auto", "cpu", "cuda", "cuda:1", "mps", ...

        Returns:
            (N, D) float32. A row may hold NaN or be zero if the network fails on a crop.

        Raises:
            SettingsError: crops of another shape or type, or a device this machine does not have.
            FaceQANError: not enough memory for a single crop.
        """
        where = resolve_device(device)
        runners = _runners.setdefault(self, {})
        if where not in runners:
            runners[where] = _EmbeddingRunner(self, where)
        return runners[where].embed(crops, flip)


class BackboneEmbedder(Embedder):
    """A network without preprocessing, such as a published backbone, behind its preprocessing.

    A factory named by `--model package.module:factory` usually returns one.

    Args:
        backbone: maps (N, 3, S, S) normalised crops to (N, D) embeddings, not normalised.
        preprocessing: how RGB crops in [0, 1] are normalised.
    """

    def __init__(self, backbone: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.input_size, self.template = preprocessing.input_size, preprocessing.template
        self.normalise = Normalise(preprocessing)
        self.backbone = backbone

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, S, S) crops, RGB in [0, 1], to (N, D) embeddings."""
        embeddings: Tensor = self.backbone(self.normalise(crops))
        return embeddings

    def stages(self) -> Sequence[nn.Module]:
        """Return the backbone's stages."""
        known = getattr(self.backbone, "stages", None)
        stages: Sequence[nn.Module] = known() if known else ()
        return stages


class _EmbeddingRunner(BlockRunner):
    """Embeds crops with a frozen copy of a network."""

    def __init__(self, embedder: Embedder, device: torch.device) -> None:
        super().__init__(embedder.input_size, device)
        self.block_faces = forward_block(device)
        self._network = freeze(embedder).to(device)

    def embed(self, crops: Sequence[Pixels] | Pixels, flip: bool) -> NDArray[np.float32]:
        def compute(faces: Tensor) -> list[NDArray[np.float32]]:
            with torch.inference_mode():
                embeddings = self._network(faces)
                if flip:
                    embeddings = embeddings + self._network(faces.flip(3))
                return list(embeddings.cpu().numpy())

        rows = list(self._run(crops, compute))
        if not rows:  # the network tells D
            blank = np.zeros((1, self.input_size, self.input_size, 3), np.uint8)
            return self.embed(blank, flip)[:0]
        return np.stack(rows)


_runners: WeakKeyDictionary[Embedder, dict[torch.device, _EmbeddingRunner]] = WeakKeyDictionary()
"""Frozen copies by model and device. Not attributes of the model: they are no part of its state."""


def embedding_size(embedder: Embedder) -> int:
    """Return the length D of a model's embeddings.

    Raises:
        WrongArchitecture: the output for a crop is not (1, D).
    """
    size = embedder.input_size
    with torch.inference_mode():
        embedding = embedder(torch.zeros(1, 3, size, size))
    if embedding.ndim != 2 or len(embedding) != 1 or not embedding.numel():
        raise WrongArchitecture(f"a crop gives an embedding of shape {tuple(embedding.shape)}")
    return embedding.shape[1]


def check_embeddings(embedder: Embedder, embedding_size: int) -> None:
    """Check the embeddings of two noise crops, computed together and one by one.

    Raises:
        DamagedWeights: embeddings are not finite, or the same for both crops.
        WrongArchitecture: embeddings have another shape, or depend on the batch.
    """
    crops = noise_crops(embedder.input_size)
    with torch.inference_mode():
        together = embedder(crops)
        alone = torch.cat([embedder(crop[None]) for crop in crops])
    if together.shape != (2, embedding_size):
        raise WrongArchitecture(
            f"two crops give embeddings of shape {tuple(together.shape)}, "
            f"expected (2, {embedding_size})"
        )
    if not together.isfinite().all():
        raise DamagedWeights("embeddings are not finite")
    tolerance = 1e-3 * together.norm(dim=1).max()
    if (together - alone).norm(dim=1).max() > tolerance:
        raise WrongArchitecture("a crop's embedding depends on the batch it is in")
    if (together[0] - together[1]).norm() <= 1e-3 * tolerance:
        raise DamagedWeights("unlike crops have equal embeddings")


def has_equal_lengths(embedder: Embedder) -> bool:
    """Return whether all embeddings of a model have the same length, which then tells nothing.

    Measured on four unlike crops at the first call, then kept in `equal_lengths`.
    """
    if embedder.equal_lengths is None:
        network = deepcopy(embedder).eval()  # a network in training mode would update its norms
        tensors = [*network.parameters(), *network.buffers()]
        crops = _probes(embedder.input_size).to(tensors[0].device if tensors else "cpu")
        with torch.inference_mode():
            lengths = network(crops).norm(dim=1)
        shortest, longest = lengths.min().item(), lengths.max().item()
        embedder.equal_lengths = 0 < longest < math.inf and longest - shortest <= EQUAL * longest
    return embedder.equal_lengths


def noise_crops(size: int) -> Tensor:
    """Return two crops of noise, (2, 3, S, S) in [0, 1]."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def _probes(size: int) -> Tensor:
    """Return (4, 3, S, S) unlike crops: noise, faint noise, a ramp and a bright square."""
    noise = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, size).expand(3, size, size)
    square = torch.full((3, size, size), 0.2)
    square[:, size // 4 : -(size // 4), size // 4 : -(size // 4)] = 0.8
    return torch.stack([noise, 0.45 + noise / 10, ramp, square])
