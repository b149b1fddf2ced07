"""A face recognition network behind its preprocessing, and its computation on batches of crops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from faceqan_toolkit.errors import DamagedWeights, FaceQANError, SettingsError, WrongArchitecture
from faceqan_toolkit.hardware import keep_freed_buffers, resolve_device
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.settings import ModelOptions, check_crops
from faceqan_toolkit.types import Pixels

Result = TypeVar("Result")
ChannelValues = float | tuple[float, float, float]

CPU_BLOCK_FACES, GPU_BLOCK_FACES = 4, 256

EQUAL = 1e-4
"""Largest difference between the lengths of embeddings, relative to the longest, that is taken for
rounding. The embeddings of unlike crops differ a hundred times as much where length is kept."""


def _by_channel(values: ChannelValues) -> tuple[float, ...]:
    return values if isinstance(values, tuple) else (values,) * 3


@dataclass(frozen=True)
class Preprocessing:
    """A network's input: (pixel - mean) / std, with pixels in 0..255.

    Attributes:
        channels: order of the colour channels, "RGB" or "BGR".
        mean, std: one number, or one a channel in the order of `channels`; pixel values in 0..255.
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
        given = {name: getattr(options, name) for name in ("channels", "mean", "std")}
        return replace(self, **{name: one for name, one in given.items() if one is not None})

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
    """Maps (N, 3, S, S) RGB crops in [0, 1] to a network's range and channel order."""

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
        """Return the normalised crops."""
        return (crops.flip(1) if self.reverse else crops) * self.scale + self.shift


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
        stages: Sequence[nn.Module] = getattr(self.backbone, "stages", tuple)()
        return stages


def forward_block(device: torch.device) -> int:
    """Return how many crops to compute at once if no gradients are needed."""
    return CPU_BLOCK_FACES if device.type == "cpu" else GPU_BLOCK_FACES


class BlockRunner:
    """Computes something for every crop, a block of crops at a time.

    All blocks have the same shape: a short last block is padded with copies of its first crop. So
    a result does not depend on the other crops. After an out-of-memory error the block is halved
    and computed again.

    Attributes:
        input_size: side of a crop, S, in pixels.
        device: device of the network.
        block_faces: crops in a block.
        precision: "float32", or "tf32" on an NVIDIA GPU.
    """

    block_faces = 1
    precision = "float32"

    def __init__(self, input_size: int, device: torch.device) -> None:
        self.input_size, self.device = input_size, device
        if device.type == "cpu":
            keep_freed_buffers()

    def _run(
        self, crops: Sequence[Pixels] | Pixels, compute: Callable[[Tensor], Sequence[Result]]
    ) -> Iterator[Result]:
        """Yield the result of each crop, in order; for errors see `check_batch` and `_shrink`.

        `compute` maps (block_faces, 3, S, S) float32 crops in [0, 1] to as many results.
        """
        check_batch(crops, self.input_size)
        start = 0
        while start < len(crops):
            block = list(crops[start : start + self.block_faces])
            try:
                padded = block + [block[0]] * (self.block_faces - len(block))
                with arithmetic(self.device, self.precision):
                    results = compute(self._tensor(padded))
            except RuntimeError as error:
                # torch's CPU allocator raises a plain RuntimeError
                typed = isinstance(error, torch.OutOfMemoryError)
                if not typed and "can't allocate memory" not in str(error):
                    raise
                self._shrink()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            yield from results[: len(block)]
            start += len(block)

    def _shrink(self) -> None:
        """Halve the block; raise FaceQANError if it is a single crop already."""
        if self.block_faces == 1:
            raise self._no_memory("face")
        self.block_faces //= 2

    def _no_memory(self, least: str) -> FaceQANError:
        return FaceQANError(
            f"not enough memory on {self.device} for a single {least}; free some, or take "
            "`device` cpu or a smaller `model`"
        )

    def _tensor(self, crops: Sequence[Pixels]) -> Tensor:
        """Return crops as (N, 3, S, S) float32 in [0, 1] on the device."""
        pixels = torch.from_numpy(np.stack(crops))
        if self.device.type == "cuda":
            # copies from pinned memory do not wait for the GPU's current work
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        faces = pixels.to(self.device).permute(0, 3, 1, 2).float() / 255
        return faces.contiguous(memory_format=torch.channels_last)


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

        if rows := list(self._run(crops, compute)):
            return np.stack(rows)
        blank = np.zeros((1, self.input_size, self.input_size, 3), np.uint8)
        return self.embed(blank, flip)[:0]  # the network tells D


_runners: WeakKeyDictionary[Embedder, dict[torch.device, _EmbeddingRunner]] = WeakKeyDictionary()
"""Frozen copies by model and device. Not attributes of the model: they are no part of its state."""


def check_batch(crops: object, size: int) -> None:
    """Raise SettingsError unless crops are a list of (S, S, 3) uint8 RGB crops, or such an array.

    The message says what was given and what is expected.
    """
    expected = f"expected a list of {size}x{size}x3 uint8 RGB crops, or an array of shape "
    expected += f"(N, {size}, {size}, 3)"
    if isinstance(crops, np.ndarray):
        if crops.ndim == 3:
            raise SettingsError(
                f"got a single crop, an array of shape {crops.shape}; {expected}. "
                "Put it into a list: [crop]"
            )
        if crops.ndim != 4:
            raise SettingsError(f"got an array of shape {crops.shape}; {expected}")
    elif isinstance(crops, str | bytes) or not isinstance(crops, Sequence):
        raise SettingsError(f"got a {type(crops).__name__}; {expected}")
    for index, crop in enumerate(crops):
        if not isinstance(crop, np.ndarray):
            raise SettingsError(f"crop {index} is a {type(crop).__name__}; {expected}")
        if crop.shape == (size, size, 3) and crop.dtype == np.uint8:
            continue
        advice = ""
        if crop.dtype.kind == "f":
            advice = ". Convert values in [0, 1] with (crop * 255).round().astype(np.uint8)"
        elif crop.ndim == 3 and crop.shape[:2] != (size, size):
            advice = f". Align or resize it to {size}x{size} pixels first"
        raise SettingsError(
            f"crop {index} has shape {crop.shape} and type {crop.dtype}; {expected}{advice}"
        )


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Enable TF32 on a CUDA device for precision "tf32" and disable it for "float32".

    By default cuDNN rounds the inputs of float32 convolutions to TF32's 10 bits of mantissa.
    """
    if device.type != "cuda":
        yield
        return
    rounded, matmul = precision == "tf32", torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, rounded
    flags = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": rounded}
    try:
        with torch.backends.cudnn.flags(**flags):
            yield
    finally:
        matmul.allow_tf32 = before


def embedding_size(embedder: Embedder) -> int:
    """Return the length D of a model's embeddings.

    Raise WrongArchitecture if the output for a crop is not (1, D).
    """
    size = embedder.input_size
    with torch.inference_mode():
        embedding: Tensor = embedder(torch.zeros(1, 3, size, size))
    if embedding.ndim != 2 or len(embedding) != 1 or not embedding.numel():
        raise WrongArchitecture(f"a crop gives an embedding of shape {tuple(embedding.shape)}")
    return embedding.shape[1]


def check_embeddings(embedder: Embedder, embedding_size: int) -> None:
    """Check the embeddings of two noise crops, computed together and one by one.

    Raise DamagedWeights if they are not finite or equal, WrongArchitecture if they have another
    shape or depend on the batch.
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
