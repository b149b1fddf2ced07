"""The basic iterative method, pushing noisy copies of a face away from its own embedding."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Embed = Callable[[Tensor], Tensor]


def draw_noise(copies: int, size: int, *, eps: float, seed: int) -> Tensor:
    """Return the uniform noise of all copies, drawn one copy after the other on the CPU.

    Args:
        copies: k.
        size: side of the crop, pixels.
        eps: half-width of the uniform distribution, in [0, 1] units of the crop.
        seed: same seed, same noise, on every machine.

    Returns:
        (k, 3, size, size) float32 in [-eps, eps].
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.empty(3, size, size).uniform_(-eps, eps, generator=generator) for _ in range(copies)]
    )


def attack(
    embed: Embed,
    crops: Tensor,
    references: Tensor,
    noise: Tensor,
    *,
    eps: float,
    steps: int,
    bounds: tuple[float, float],
) -> Tensor:
    """Return how similar the copies' embeddings stay to their face's while they are pushed away.

    Args:
        embed: (B, 3, S, S) crops to (B, D) embeddings, differentiable.
        crops: (N, 3, S, S) float32, RGB, in [0, 1].
        references: (N, D) embeddings of the crops.
        noise: (k, 3, S, S) float32, added to every crop.
        eps: L-infinity length of a step, in the crops' [0, 1] units.
        steps: l.
        bounds: lowest and highest value a copy may take.

    Returns:
        (N, l, k) float32 cosine similarities in [-1, 1]; row t is measured before step t.

    Source: Babnik, Peer, Struc, "FaceQAN", ICPR 2022. Differs from the published code in that
    the last step, after which nothing is measured, is not computed.
    """
    faces, copies = len(crops), len(noise)
    targets = F.normalize(references, dim=1).repeat_interleave(copies, dim=0)
    low, high = bounds
    attacked = (crops[:, None] + noise[None]).clamp(low, high).flatten(0, 1)
    rows = []
    for step in range(steps):
        last = step == steps - 1
        attacked = attacked.detach().requires_grad_(not last)
        with torch.set_grad_enabled(not last):
            similarity = (F.normalize(embed(attacked), dim=1) * targets).sum(dim=1)
        rows.append(similarity.detach().reshape(faces, copies))
        if not last:
            (gradient,) = torch.autograd.grad(similarity.sum(), attacked)
            attacked = (attacked.detach() - eps * gradient.sign()).clamp(low, high)
    return torch.stack(rows, dim=1)
