"""FaceQAN: attack and symmetry make a quality score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from faceqan_toolkit.allocator import keep_freed_buffers
from faceqan_toolkit.attack import attack, draw_noise
from faceqan_toolkit.errors import FaceQANError, SettingsError
from faceqan_toolkit.types import Pixels, Score

if TYPE_CHECKING:
    from faceqan_toolkit.embedders.base import Embedder

BOUNDS = {"published": (-1.0, 1.0), "valid": (0.0, 1.0)}
"""Value bounds of attacked crops: the published code's, or those an image really has."""

GPU_BLOCK_COPIES = 640
"""Noisy copies a GPU takes at once: enough to fill it, about 4 GB with a ResNet-100."""


def aggregate(
    similarities: ArrayLike, symmetry: float, exponent: float
) -> tuple[float, float, float]:
    """Return quality, mean and population standard deviation of a face's similarities.

    Args:
        similarities: (l, k) cosine similarities in [-1, 1].
        symmetry: cosine between the embeddings of the crop and of its mirror image.
        exponent: p > 0.

    Returns:
        ((1 + mean) / 2 * clip(1 - std, 0, 1) * symmetry) ** p, mean, std. A negative base keeps
        its sign whatever p, so a fractional p never gives NaN; the published code gives NaN
        there, and a positive value for even p.
    """
    values = np.asarray(similarities, dtype=np.float64)
    mean, std = float(values.mean()), float(values.std())
    base = (1 + mean) / 2 * min(max(1 - std, 0.0), 1.0) * symmetry
    return math.copysign(abs(base) ** exponent, base), mean, std


class FaceQAN:
    """Scores aligned crops with one recognition model.

    A score depends on the crop, the model and the options alone, not on the other crops: the
    noise is drawn once from the seed and serves every face, and the model always sees blocks of
    one shape (one face with its copies on a CPU, many faces, padded, on a GPU).

    Args:
        embedder: the recognition model, or its name (see `faceqan-toolkit doctor`).
        eps: noise and step size in [0, 1] units of the crop; 0.001 is a quarter of a grey level.
        steps: l, how often the similarity is measured.
        copies: k, noisy copies of each crop.
        exponent: p of the aggregation.
        seed: of the noise.
        clamp: "published" keeps attacked crops in [-1, 1] as the published code does, "valid" in
            [0, 1].
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
        backend: what computes the attack's steps: "torch"; "openvino", an extra for CPUs; or
            "auto", which is OpenVINO where it is installed and known to be faster.

    Attributes:
        backend: the one in use, "torch" or "openvino".

    Raises:
        SettingsError: an option out of its range, or a device this machine does not have.
        WeightsError: the model cannot be loaded.
        MissingDependency: "openvino" is asked for and not installed.
        UnsupportedOperation: "openvino" is asked for and cannot compute the model.
    """

    def __init__(
        self,
        embedder: Embedder | str = "sface",
        *,
        eps: float = 0.001,
        steps: int = 5,
        copies: int = 10,
        exponent: float = 5.0,
        seed: int = 0,
        clamp: str = "published",
        device: str = "auto",
        backend: str = "auto",
    ) -> None:
        from faceqan_toolkit.backend import make_step
        from faceqan_toolkit.device import resolve_device
        from faceqan_toolkit.embedders.freeze import freeze
        from faceqan_toolkit.embedders.zoo import load_embedder
        from faceqan_toolkit.settings import check_attack

        check_attack(eps, steps, copies, exponent, seed, clamp, backend)
        self.device = resolve_device(device)
        if self.device.type == "cpu":
            keep_freed_buffers()
        self.embedder = load_embedder(embedder) if isinstance(embedder, str) else embedder
        self._network = freeze(self.embedder).to(self.device)
        self.backend, self._step = make_step(
            backend, self._network, self.embedder.input_size, self.device
        )
        self.eps, self.steps, self.exponent = eps, steps, exponent
        self.bounds = BOUNDS[clamp]
        self.noise = draw_noise(copies, self.embedder.input_size, eps=eps, seed=seed).to(
            self.device
        )
        self.block_faces = 1 if self.device.type == "cpu" else max(1, GPU_BLOCK_COPIES // copies)
        self.block_copies = copies

    def score(self, crops: Sequence[Pixels] | Pixels) -> list[Score]:
        """Return the scores of aligned crops, in their order.

        Args:
            crops: (N, S, S, 3) uint8, RGB, S the model's input size; or a sequence of such.

        Returns:
            N scores. If the model gives a crop no usable embedding (zero or not finite), its
            quality is NaN.

        Raises:
            SettingsError: a crop of another shape or type.
        """
        return list(self._scores(crops))

    def embed(self, crops: Sequence[Pixels] | Pixels) -> NDArray[np.float32]:
        """Return (N, D) float32 embeddings of aligned crops, not normalised."""
        with torch.inference_mode():
            blocks = [self._network(self._tensor([crop])).cpu().numpy() for crop in crops]
        return np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)

    def _scores(self, crops: Sequence[Pixels] | Pixels) -> Iterator[Score]:
        start = 0
        while start < len(crops):
            block = list(crops[start : start + self.block_faces])
            try:
                scores = self._score_block(block)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                self._shrink()
                continue
            yield from scores
            start += len(block)

    def _shrink(self) -> None:
        """Halve what is computed at once: faces first, then the copies of one face."""
        if self.block_faces > 1:
            self.block_faces //= 2
        elif self.block_copies > 1:
            self.block_copies = (self.block_copies + 1) // 2
        else:
            raise FaceQANError(f"not enough memory on {self.device} for a single copy of a face")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _tensor(self, crops: list[Pixels]) -> Tensor:
        """Return (N, 3, S, S) float32 in [0, 1] on the device."""
        size = self.embedder.input_size
        for crop in crops:
            if crop.shape != (size, size, 3) or crop.dtype != np.uint8:
                raise SettingsError(
                    f"aligned crops are {size}x{size}x3 uint8, got {crop.shape} {crop.dtype}"
                )
        pixels = torch.from_numpy(np.stack(crops)).to(self.device)
        return (pixels.permute(0, 3, 1, 2).float() / 255).contiguous(
            memory_format=torch.channels_last
        )

    def _score_block(self, crops: list[Pixels]) -> list[Score]:
        # a short last block is filled up: a score must not depend on the block's shape
        padded = crops + [crops[0]] * (self.block_faces - len(crops))
        faces = self._tensor(padded)
        with torch.no_grad():
            embeddings = self._network(torch.cat([faces, faces.flip(3)]))
        references, mirrored = embeddings[: len(faces)], embeddings[len(faces) :]
        symmetry = F.cosine_similarity(references, mirrored, dim=1).cpu().tolist()
        norms = references.norm(dim=1).cpu().tolist()
        similarities = torch.cat(
            [
                attack(
                    self._network,
                    faces,
                    references,
                    noise,
                    eps=self.eps,
                    steps=self.steps,
                    bounds=self.bounds,
                    step=self._step,
                )
                for noise in torch.split(self.noise, self.block_copies)
            ],
            dim=2,
        )
        return [
            self._score(*parts)
            for parts in zip(similarities.cpu().numpy(), symmetry, norms, strict=True)
        ][: len(crops)]

    def _score(self, similarities: NDArray[np.float32], symmetry: float, norm: float) -> Score:
        quality, mean, std = aggregate(similarities, symmetry, self.exponent)
        usable = math.isfinite(norm) and norm > 0
        return Score(quality if usable else math.nan, mean, std, symmetry, norm, similarities)


def _out_of_memory(error: RuntimeError) -> bool:
    """Tell torch's several ways to say so: its CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
