"""What the rest of the package expects of a face recognition network."""

from __future__ import annotations

from torch import Tensor, nn


class Embedder(nn.Module):
    """A network that maps aligned crops to embeddings and owns its preprocessing.

    `forward` takes (N, 3, S, S) float32, RGB, in [0, 1] and returns (N, D) float32 embeddings,
    not normalised. It is differentiable with respect to its input and computes every row of a
    batch independently (evaluation mode).

    Attributes:
        name: what settings and records call it.
        sha256: of the weights it was loaded from, hexadecimal.
        input_size: S, pixels.
    """

    name: str = ""
    sha256: str = ""
    input_size: int = 112

    def __call__(self, crops: Tensor) -> Tensor:
        """Return the embeddings of a batch of crops."""
        embeddings: Tensor = super().__call__(crops)
        return embeddings
