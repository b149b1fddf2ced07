"""FaceQAN: a quality score from the similarities under attack and the symmetry of a face.

The preset instant predicts it from one forward pass, at a hundredth of the cost. Source: Babnik,
Peer, Struc, "eDifFIQA", IEEE TBIOM 2024, predict another measure in this way. weights/instant/ has
the training script of the head, and its accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.hardware import check_precision
from faceqan_toolkit.models.base import Embedder, arithmetic, forward_block
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.models.networks import SFace
from faceqan_toolkit.models.registry import head_of
from faceqan_toolkit.models.weights import read_weights
from faceqan_toolkit.quality.attack import Observe, attack, draw_noise
from faceqan_toolkit.quality.backends import make_step
from faceqan_toolkit.quality.base import QualityEstimator, copies_that_fit, scored, usable
from faceqan_toolkit.settings import check_attack
from faceqan_toolkit.types import Pixels, Score

REFERENCE_CONTRAST = 0.2
"""Contrast at and above which an attack has full strength: the median of LFW's crops."""

LEAST_CONTRAST = 1 / 255
"""Least contrast assumed of a crop: one grey level."""

_LUMA = (0.299, 0.587, 0.114)

LOG_OFFSET = 0.01
"""Added to a channel's mean before its logarithm: the mean may be 0."""

BOUNDS = {"published": (-1.0, 1.0), "valid": (0.0, 1.0)}
"""Bounds of attacked crops: the published code's, or the valid range of pixels."""


def aggregate(
    similarities: ArrayLike, symmetry: float, exponent: float
) -> tuple[float, float, float]:
    """Return quality, mean and population standard deviation of a face's (l, k) similarities.

    The quality is ((1 + mean) / 2 * clip(1 - std, 0, 1) * symmetry) ** exponent. The power keeps
    the sign of a negative base; the published code gives NaN for a fractional exponent, and a
    positive value for an even one.

    Examples:
        The quality falls with the mean similarity, and with its spread.

        >>> [round(value, 4) for value in aggregate([[0.8, 0.8]], symmetry=1.0, exponent=1.0)]
        [0.9, 0.8, 0.0]
        >>> [round(value, 4) for value in aggregate([[0.6, 1.0]], symmetry=1.0, exponent=1.0)]
        [0.72, 0.8, 0.2]
    """
    values = np.asarray(similarities, dtype=np.float64)
    mean, std = float(values.mean()), float(values.std())
    base = (1 + mean) / 2 * min(max(1 - std, 0.0), 1.0) * symmetry
    return math.copysign(abs(base) ** exponent, base), mean, std


def contrast_strength(crops: Tensor) -> Tensor:
    """Return the strength of the attack on each crop, (N,) in (0, 1], for `eps_mode="contrast"`.

    It is sqrt(min(1, contrast / `REFERENCE_CONTRAST`)). Contrast is the standard deviation of the
    grey values of (N, 3, S, S) RGB crops in [0, 1].
    """
    grey = torch.einsum("nchw,c->nhw", crops, crops.new_tensor(_LUMA))
    contrast = grey.flatten(1).std(dim=1, correction=0)
    return (contrast / REFERENCE_CONTRAST).clamp(LEAST_CONTRAST / REFERENCE_CONTRAST, 1).sqrt()


@dataclass(frozen=True)
class Trace:
    """A record of the attack on one crop.

    Attributes:
        score: the crop's score.
        after: (k,) float32 similarities after the last step, which the score does not use.
        noise: (S, S, 3) float32, RGB: change of the crop after l steps, mean over the copies,
            signed, in the crop's [0, 1] units.
        sensitivity: (S, S) float32, 0 or more: first-order loss of similarity by each pixel's
            noise, eps * |gradient| summed over colours and steps, mean over the copies.
    """

    score: Score
    after: NDArray[np.float32]
    noise: NDArray[np.float32]
    sensitivity: NDArray[np.float32]


class FaceQAN(QualityEstimator):
    """FaceQAN quality of aligned crops.

    All faces get the same noise, drawn once from the seed. A block is one face with its copies on a
    CPU, and as many faces as fit into memory on a GPU.

    Args:
        embedder, device: see `QualityEstimator`.
        eps: noise and step size in [0, 1] units of the crop; 0.001 is a quarter of a grey level.
        steps: l, number of measurements of the similarity.
        copies: k, noisy copies of each crop.
        exponent: p, exponent of the quality.
        seed: random seed of the noise.
        clamp: "published" keeps attacked crops in [-1, 1] as the published code does, "valid" in
            [0, 1].
        eps_mode: "absolute" uses eps for every crop, as the paper does; "contrast" uses less for
            crops of low contrast, see `contrast_strength`.
        precision: "float32", or "tf32" on NVIDIA GPUs, which changes scores less than another seed
            does.
        backend: library that computes the attack's steps: "torch"; "openvino", an extra for CPUs;
            "compile", torch.compile with CUDA graphs on a GPU; or "auto", OpenVINO where it is
            installed and known to be faster, otherwise torch. The attribute is never "auto".

    Raises:
        SettingsError: an option out of its range, or a device or precision this machine does not
            have.
        WeightsError: the model cannot be loaded.
        MissingDependency: "openvino", and it is not installed.
        UnsupportedOperation: "openvino", and it cannot compute the model.
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
        eps_mode: str = "absolute",
        precision: str = "float32",
        device: str = "auto",
        backend: str = "auto",
    ) -> None:
        check_attack(
            copies, eps=eps, steps=steps, exponent=exponent, seed=seed, clamp=clamp,
            eps_mode=eps_mode, backend=backend, precision=precision,
        )  # fmt: skip
        super().__init__(embedder, device)
        check_precision(precision, self.device)
        self.precision = precision
        size = self.embedder.input_size
        self._network = freeze(self.embedder).to(self.device)
        self.backend, self._step = make_step(backend, self._network, size, self.device)
        self.eps, self.steps, self.exponent = eps, steps, exponent
        self.bounds, self.eps_mode = BOUNDS[clamp], eps_mode
        self.noise = draw_noise(copies, size, eps=eps, seed=seed).to(self.device)
        self.block_copies = copies
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            self.block_faces = max(1, copies_that_fit(free, self._network, size) // copies)

    def trace(self, crop: Pixels) -> Trace:
        """Score one aligned crop, (S, S, 3) uint8 RGB, and return a record of the attack.

        The score is the one that `score` returns. The attack is then repeated with one more step,
        and recorded.
        """
        (score,) = self.score([crop])
        faces = self._tensor([crop])
        noise, sensitivity = torch.zeros_like(faces[0]), torch.zeros_like(faces[0, 0])
        parts = []
        strength = self._strength(faces)
        eps = self.eps if strength is None else self.eps * strength.item()
        with arithmetic(self.device, self.precision):
            with torch.no_grad():
                references = self._network(faces)
            for block in torch.split(self.noise, self.block_copies):
                copies = faces

                def observe(gradient: Tensor, attacked: Tensor) -> None:
                    nonlocal copies
                    copies = attacked
                    sensitivity.add_(gradient.abs().sum(dim=(0, 1)), alpha=eps)

                parts.append(self._attack(faces, references, block, self.steps + 1, observe))
                noise += (copies - faces).sum(dim=0)
        number = len(self.noise)
        return Trace(
            score=score,
            after=torch.cat(parts, dim=2)[0, -1].cpu().numpy(),
            noise=(noise / number).permute(1, 2, 0).cpu().numpy(),
            sensitivity=(sensitivity / number).cpu().numpy(),
        )

    def _shrink(self) -> None:
        """Halve the faces in a block, then the copies of one face."""
        if self.block_faces > 1:
            super()._shrink()
        elif self.block_copies > 1:
            self.block_copies = (self.block_copies + 1) // 2
        else:
            raise self._no_memory("copy of a face")

    def _score_block(self, faces: Tensor) -> list[Score]:
        with torch.no_grad():
            embeddings = self._network(torch.cat([faces, faces.flip(3)]))
        references, mirrored = embeddings[: len(faces)], embeddings[len(faces) :]
        blocks = torch.split(self.noise, self.block_copies)
        parts = [self._attack(faces, references, noise, self.steps) for noise in blocks]
        similarities = torch.cat(parts, dim=2)
        # all work is queued; only from here on the CPU waits for the GPU
        symmetry = F.cosine_similarity(references, mirrored, dim=1).cpu().tolist()
        norms = references.norm(dim=1).cpu().tolist()
        return list(map(self._score, similarities.cpu().numpy(), symmetry, norms))

    def _attack(
        self, faces: Tensor, references: Tensor, noise: Tensor, steps: int,
        observe: Observe | None = None,
    ) -> Tensor:  # fmt: skip
        return attack(
            self._network, faces, references, noise, eps=self.eps, steps=steps, bounds=self.bounds,
            strength=self._strength(faces), step=self._step, observe=observe,
        )  # fmt: skip

    def _strength(self, faces: Tensor) -> Tensor | None:
        return contrast_strength(faces) if self.eps_mode == "contrast" else None

    def _score(self, similarities: NDArray[np.float32], symmetry: float, norm: float) -> Score:
        quality, mean, std = aggregate(similarities, symmetry, self.exponent)
        return scored(quality, norm, mean, std, symmetry, similarities)


# the prediction from one forward pass


class PooledFeatures(nn.Module):
    """Features of a crop from which a head predicts.

    The mean of every channel of the stem and all blocks, the logarithms of the means, the length of
    the embedding, and its cosine to the embedding of the mirrored last feature map.
    """

    def __init__(self, network: SFace) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) crops in [0, 1] to (N, F); the last is the embedding's length."""
        maps = self.network.feature_maps(crops)
        means = torch.cat([F.adaptive_avg_pool2d(one, 1).flatten(1) for one in maps], dim=1)
        last = self.network.bn(maps[-1])
        embedding, mirrored = self.network.project(torch.cat([last, last.flip(3)])).chunk(2)
        symmetry = F.cosine_similarity(embedding, mirrored, dim=1)
        norms = torch.stack([mirrored.norm(dim=1), embedding.norm(dim=1)], dim=1)
        # 1e-12: the length may be 0, and its score is NaN then
        logs = [(means.abs() + LOG_OFFSET).log(), (norms + 1e-12).log()]
        return torch.cat([means, *logs, symmetry[:, None], norms], dim=1)


class Head(nn.Module):
    """A linear prediction from pooled features.

    `tensors` holds `mean`, `scale` and `weight` of each feature, (F,), and `bias`, (1,).
    """

    def __init__(self, features: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.features = features
        for name in ("mean", "scale", "weight", "bias"):
            self.register_buffer(name, tensors[name])

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, 112, 112) crops to (N, 2): the prediction, and the embedding's length."""
        features = self.features(crops)
        raw = (((features - self.mean) * self.scale) * self.weight).sum(dim=1) + self.bias
        return torch.stack([raw, features[:, -1]], dim=1)


class InstantFaceQAN(QualityEstimator):
    """Prediction of the quality that `FaceQAN` with default options would measure.

    Raises:
        SettingsError: the model has no head; or see `QualityEstimator`.
        WeightsError: model or head cannot be loaded.
    """

    def __init__(self, embedder: Embedder | str = "sface", *, device: str = "auto") -> None:
        super().__init__(embedder, device)
        head = head_of(self.embedder.name)
        if not isinstance(self.embedder, SFace):
            raise SettingsError(
                f"`preset` instant: the head of {head.weights} does not fit {self.embedder.name}; "
                "it needs the built-in model"
            )
        tensors = load(read_weights(head.weights, head.sha256))
        self._network = freeze(Head(PooledFeatures(self.embedder), tensors)).to(self.device)
        # piecewise linear maps from raw predictions to qualities and to their errors
        self._knots, self._qualities, self._errors = (
            tensors[name].double().numpy() for name in ("knots", "qualities", "errors")
        )
        self.block_faces = forward_block(self.device)

    def _score_block(self, faces: Tensor) -> list[Score]:
        with torch.inference_mode():
            rows = self._network(faces).cpu().double().tolist()
        return [self._score(*row) for row in rows]

    def _score(self, raw: float, norm: float) -> Score:
        if not (usable(norm) and math.isfinite(raw)):
            return Score(math.nan, norm)
        quality = float(np.interp(raw, self._knots, self._qualities))
        error = float(np.interp(raw, self._knots, self._errors))
        return Score(quality, norm, quality_error=error)
