"""FaceQAN: attack and symmetry make a quality score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from faceqan_toolkit.device import check_precision
from faceqan_toolkit.errors import FaceQANError
from faceqan_toolkit.quality.attack import Observe, attack, draw_noise
from faceqan_toolkit.quality.backends import make_step
from faceqan_toolkit.quality.base import QualityEstimator, arithmetic, copies_that_fit, usable
from faceqan_toolkit.settings import check_attack
from faceqan_toolkit.types import Pixels, Score

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

REFERENCE_CONTRAST = 0.2
"""Contrast from which on an attack has its full strength: the median of LFW's crops."""

LEAST_CONTRAST = 1 / 255
"""What a crop without any counts as: one grey level."""

_LUMA = (0.299, 0.587, 0.114)

BOUNDS = {"published": (-1.0, 1.0), "valid": (0.0, 1.0)}
"""Value bounds of attacked crops: the published code's, or those an image really has."""


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

    Examples:
        Copies that agree cost nothing but their distance; those that spread cost more.

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
    """Return how strong an attack each crop gets if its contrast is to decide.

    Args:
        crops: (N, 3, S, S) float32, RGB, in [0, 1].

    Returns:
        (N,) float32 in (0, 1]: the square root of contrast over `REFERENCE_CONTRAST`, and 1 from
        there on. Contrast is the standard deviation of the grey values.
    """
    grey = torch.einsum("nchw,c->nhw", crops, crops.new_tensor(_LUMA))
    contrast = grey.flatten(1).std(dim=1, correction=0)
    return (contrast / REFERENCE_CONTRAST).clamp(LEAST_CONTRAST / REFERENCE_CONTRAST, 1).sqrt()


@dataclass(frozen=True)
class Trace:
    """What an attack did to one crop.

    Attributes:
        score: of the crop.
        after: (k,) float32 similarities after the last step, which the score leaves out.
        noise: (S, S, 3) float32, RGB: what l steps added to the crop, mean over the copies, signed,
            in the crop's [0, 1] units.
        sensitivity: (S, S) float32, 0 or more: by how much each pixel's noise lowered the
            similarity to first order, eps * |gradient| summed over colours and steps, mean over
            the copies.
    """

    score: Score
    after: NDArray[np.float32]
    noise: NDArray[np.float32]
    sensitivity: NDArray[np.float32]


class FaceQAN(QualityEstimator):
    """Measures the quality of aligned crops with one recognition model.

    The noise is drawn once from the seed and serves every face. A block is one face with its
    copies on a CPU, as many faces as memory holds on a GPU.

    Args:
        embedder: the recognition model, or what `--model` takes (`zoo.find_model`).
        eps: noise and step size in [0, 1] units of the crop; 0.001 is a quarter of a grey level.
        steps: l, how often the similarity is measured.
        copies: k, noisy copies of each crop.
        exponent: p of the aggregation.
        seed: of the noise.
        clamp: "published" keeps attacked crops in [-1, 1] as the published code does, "valid" in
            [0, 1].
        eps_mode: "absolute" is the paper's: eps for every crop. "contrast" is ours: less for crops
            of low contrast, see `contrast_strength`.
        precision: "float32", or "tf32" on NVIDIA GPUs: products of numbers of 10 bits; scores
            move by less than another seed moves them.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
        backend: what computes the attack's steps: "torch"; "openvino", an extra for CPUs;
            "compile", which is torch.compile, with CUDA graphs on a GPU; or "auto", which is
            OpenVINO where it is installed and known to be faster.

    Attributes:
        backend: the one in use, never "auto".

    Raises:
        SettingsError: an option out of its range, a device this machine does not have, a precision
            the device does not have.
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
        eps_mode: str = "absolute",
        precision: str = "float32",
        device: str = "auto",
        backend: str = "auto",
    ) -> None:
        check_attack(eps, steps, copies, exponent, seed, clamp, eps_mode, backend, precision)
        super().__init__(embedder, device)
        check_precision(precision, self.device)
        self.precision = precision
        size = self.embedder.input_size
        self._network = self._frozen(self.embedder)
        self.backend, self._step = make_step(backend, self._network, size, self.device)
        self.eps, self.steps, self.exponent = eps, steps, exponent
        self.bounds = BOUNDS[clamp]
        self.eps_mode = eps_mode
        self.noise = draw_noise(copies, size, eps=eps, seed=seed).to(self.device)
        self.block_copies = copies
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            self.block_faces = max(1, copies_that_fit(free, self._network, size) // copies)

    def trace(self, crop: Pixels) -> Trace:
        """Score one crop and keep what its attack did.

        The score is `score`'s own. The attack is then done again and watched, one step further:
        nothing is scored after the last one.

        Args:
            crop: (S, S, 3) uint8, RGB, aligned.

        Raises:
            SettingsError: a crop of another shape or type.
        """
        (score,) = self.score([crop])
        faces = self._tensor([crop])
        noise = torch.zeros_like(faces[0])
        sensitivity = torch.zeros_like(faces[0, 0])
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
        """Halve what is computed at once: faces first, then the copies of one face."""
        if self.block_faces > 1:
            super()._shrink()
        elif self.block_copies > 1:
            self.block_copies = (self.block_copies + 1) // 2
        else:
            raise FaceQANError(
                f"not enough memory on {self.device} for a single copy of a face; free some, or "
                "take --device cpu or a smaller --model"
            )

    def _score_block(self, faces: Tensor) -> list[Score]:
        with torch.no_grad():
            embeddings = self._network(torch.cat([faces, faces.flip(3)]))
        references, mirrored = embeddings[: len(faces)], embeddings[len(faces) :]
        similarities = torch.cat(
            [
                self._attack(faces, references, noise, self.steps)
                for noise in torch.split(self.noise, self.block_copies)
            ],
            dim=2,
        )
        # the first wait for the device
        symmetry = F.cosine_similarity(references, mirrored, dim=1).cpu().tolist()
        norms = references.norm(dim=1).cpu().tolist()
        return [
            self._score(*parts)
            for parts in zip(similarities.cpu().numpy(), symmetry, norms, strict=True)
        ]

    def _attack(
        self,
        faces: Tensor,
        references: Tensor,
        noise: Tensor,
        steps: int,
        observe: Observe | None = None,
    ) -> Tensor:
        return attack(
            self._network,
            faces,
            references,
            noise,
            eps=self.eps,
            steps=steps,
            bounds=self.bounds,
            strength=self._strength(faces),
            step=self._step,
            observe=observe,
        )

    def _strength(self, faces: Tensor) -> Tensor | None:
        return contrast_strength(faces) if self.eps_mode == "contrast" else None

    def _score(self, similarities: NDArray[np.float32], symmetry: float, norm: float) -> Score:
        quality, mean, std = aggregate(similarities, symmetry, self.exponent)
        return Score(quality if usable(norm) else math.nan, norm, mean, std, symmetry, similarities)
