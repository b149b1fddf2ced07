"""The basic iterative method: push noisy copies of a face away from the face's embedding."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Embed = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps copies (B, 3, S, S) and unit vectors (B, D) to cosine similarities (B,) and their gradient
with respect to the copies."""
Observe = Callable[[Tensor, Tensor], None]
"""Called with the gradient (B, 3, S, S) of a step and the copies after it."""


def draw_noise(copies: int, size: int, *, eps: float, seed: int) -> Tensor:
    """Return uniform noise for k copies, (k, 3, size, size) float32 in [-eps, eps].

    It is drawn copy by copy on the CPU: a seed gives the same noise on every machine.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.empty(3, size, size).uniform_(-eps, eps, generator=generator) for _ in range(copies)]
    )


def autograd_step(embed: Embed) -> Step:
    """Return a step whose gradient torch's autograd computes."""

    def step(attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        attacked = attacked.detach().requires_grad_()
        with torch.enable_grad():
            similarity = _similarity(embed, attacked, targets)
        (gradient,) = torch.autograd.grad(similarity.sum(), attacked)
        return similarity.detach(), gradient

    return step


def attack(
    embed: Embed,
    crops: Tensor,
    references: Tensor,
    noise: Tensor,
    *,
    eps: float,
    steps: int,
    bounds: tuple[float, float],
    strength: Tensor | None = None,
    step: Step | None = None,
    observe: Observe | None = None,
) -> Tensor:
    """Return the similarity of the attacked copies to their faces before each step.

    Args:
        embed: (B, 3, S, S) crops to (B, D) embeddings, differentiable.
        crops: (N, 3, S, S) float32, RGB, in [0, 1].
        references: (N, D) embeddings of the crops.
        noise: (k, 3, S, S) float32, added to every crop.
        eps: L-infinity length of a step, in the crops' [0, 1] units.
        steps: l.
        bounds: lowest and highest pixel value of a copy.
        strength: (N,) factor on the noise and the steps of each crop; None means 1.
        step: computes similarity and gradient; None means `autograd_step(embed)`.
        observe: called after each of the l - 1 steps.

    Returns:
        (N, l, k) float32 cosine similarities in [-1, 1]; row t is measured before step t.

    Source: Babnik, Peer, Struc, "FaceQAN", ICPR 2022. The published code also computes a last
    step, after which nothing is measured.
    """
    faces, copies = len(crops), len(noise)
    step = step or autograd_step(embed)
    targets = F.normalize(references, dim=1).repeat_interleave(copies, dim=0)
    low, high = bounds
    spread = noise[None]
    length: float | Tensor = eps
    if strength is not None:
        spread = spread * strength.view(-1, 1, 1, 1, 1)
        length = eps * strength.repeat_interleave(copies).view(-1, 1, 1, 1)
    attacked = (crops[:, None] + spread).clamp(low, high).flatten(0, 1)
    rows = []
    for _ in range(steps - 1):
        similarity, gradient = step(attacked, targets)
        rows.append(similarity)
        attacked = (attacked - length * gradient.sign()).clamp(low, high)
        if observe is not None:
            observe(gradient, attacked)
    with torch.no_grad():
        rows.append(_similarity(embed, attacked, targets))
    return torch.stack([row.reshape(faces, copies) for row in rows], dim=1)


def _similarity(embed: Embed, attacked: Tensor, targets: Tensor) -> Tensor:
    return (F.normalize(embed(attacked), dim=1) * targets).sum(dim=1)
