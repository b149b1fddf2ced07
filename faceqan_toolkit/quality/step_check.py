"""Is another library's step of the attack torch's own?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from faceqan_toolkit.errors import FaceQANError

LEAST_AGREEMENT = 0.999
"""Least cosine between another gradient and torch's; rounding leaves 0.99999, a bug about 0."""


class WrongGradient(FaceQANError):
    """A backend computes something else than torch on this machine."""


def check_gradient(found: Tensor, expected: Tensor, name: str) -> None:
    """Compare a gradient with torch's: nothing else would show a mistake but the scores.

    Args:
        found: of any shape.
        expected: of the same shape.
        name: of what computed the former, for people.

    Raises:
        WrongGradient: they differ by more than rounding.
    """
    agreement = F.cosine_similarity(found.flatten(), expected.flatten(), dim=0).item()
    if not agreement >= LEAST_AGREEMENT:
        raise WrongGradient(
            f"{name}'s gradient and torch's have a cosine of {agreement:.3f}; take the backend "
            f"torch, or another version of {name}"
        )
