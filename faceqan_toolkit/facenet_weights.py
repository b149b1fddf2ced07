"""MTCNN's weights, read from facenet-pytorch's files without importing it.

Importing it imports torchvision, which takes as long as torch itself and is not needed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from faceqan_toolkit.errors import DamagedWeights, MissingWeights

INSTALL_AGAIN = "pip install --force-reinstall --no-deps 'facenet-pytorch<2.6'"


def load_weights(network: str, device: torch.device | str) -> dict[str, Tensor]:
    """Return the tensors of "pnet", "rnet" or "onet", those of convolutions channels last.

    Raises:
        MissingWeights: facenet-pytorch is not installed, or not whole.
        DamagedWeights: the file cannot be read.
    """
    found = find_spec("facenet_pytorch")
    folders = found.submodule_search_locations if found else None
    file = Path(next(iter(folders), "")) / "data" / f"{network}.pt" if folders else None
    if file is None or not file.is_file():
        raise MissingWeights(f"MTCNN's weights are not here: {INSTALL_AGAIN}")
    try:
        weights: dict[str, Tensor] = torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise DamagedWeights(
            f"MTCNN's weights {file} are damaged or cannot be read: {INSTALL_AGAIN}"
        ) from error
    for name, tensor in weights.items():
        if tensor.ndim == 4:
            weights[name] = tensor.contiguous(memory_format=torch.channels_last)
    return weights
