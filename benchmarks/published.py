"""The published FaceQAN code's work, written anew: the baseline of every claim about speed.

One image at a time, batch norms unfolded, gradients for all weights, a backward pass after every
step (the last one too), the crop's own embedding computed twice, torch's defaults.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def score(
    network: nn.Module, crop: Tensor, *, eps: float = 0.001, steps: int = 5, copies: int = 10,
    exponent: float = 5.0,
) -> float:  # fmt: skip
    """Return the quality of one crop, (1, 3, S, S) in [0, 1]; weights with gradients."""
    reference = network(crop).detach()
    noise = torch.cat([torch.empty_like(crop).uniform_(-eps, eps) for _ in range(copies)])
    attacked = (crop + noise).clamp(-1, 1)
    similarities = []
    for _ in range(steps):
        attacked = attacked.detach().requires_grad_()
        embeddings = network(attacked)
        similarities.append(F.cosine_similarity(reference, embeddings.detach(), dim=1))
        target = torch.ones(copies)
        loss = F.cosine_embedding_loss(embeddings, reference.expand(copies, -1), target)
        network.zero_grad()
        loss.backward()
        assert attacked.grad is not None
        attacked = (attacked + eps * attacked.grad.sign()).clamp(-1, 1)
    with torch.no_grad():
        symmetry = F.cosine_similarity(network(crop), network(crop.flip(3))).item()
    values = torch.stack(similarities)
    mean, std = values.mean().item(), values.std(correction=0).item()
    return float(((1 + mean) / 2 * min(max(1 - std, 0.0), 1.0) * symmetry) ** exponent)
