"""MTCNN's weights, read from facenet-pytorch's files without importing it.

Importing it imports torchvision, which takes as long as torch itself and is not needed.
"""

from __future__ import annotations

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from faceqan_toolkit.errors import ChecksumMismatch, MissingWeights
from faceqan_toolkit.wording import reason_of

INSTALL_AGAIN = "pip install --force-reinstall --no-deps 'facenet-pytorch<2.6'"

SHA256 = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
"""Of the files of facenet-pytorch 2.5.3, the release that is required."""


def load_weights(network: str, device: torch.device | str) -> dict[str, Tensor]:
    """Return the tensors of "pnet", "rnet" or "onet", those of convolutions channels last.

    Raises:
        MissingWeights: facenet-pytorch is not installed, or not whole; or its file cannot be read.
        ChecksumMismatch: it is not the file it should be.
    """
    found = find_spec("facenet_pytorch")
    folders = found.submodule_search_locations if found else None
    file = Path(next(iter(folders), "")) / "data" / f"{network}.pt" if folders else None
    if file is None or not file.is_file():
        raise MissingWeights(f"MTCNN's weights are not here: {INSTALL_AGAIN}")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MissingWeights(
            f"MTCNN's weights {file} cannot be read: {reason_of(error)}; {INSTALL_AGAIN}"
        ) from error
    if hashlib.sha256(content).hexdigest() != SHA256[network]:
        raise ChecksumMismatch(
            f"MTCNN's weights {file} are damaged or of another release: {INSTALL_AGAIN}"
        )
    weights: dict[str, Tensor] = torch.load(
        io.BytesIO(content), map_location=device, weights_only=True
    )
    for name, tensor in weights.items():
        if tensor.ndim == 4:
            weights[name] = tensor.contiguous(memory_format=torch.channels_last)
    return weights
