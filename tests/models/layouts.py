"""Official networks as data: names, shapes, types, and what they compute (tests/data/layouts)."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tests.conftest import DATA

Network = TypeVar("Network", bound=nn.Module)


def layout(name: str) -> dict[str, Any]:
    with gzip.open(DATA / "layouts" / f"{name}.json.gz") as file:
        read: dict[str, Any] = json.load(file)
    return read


def shapes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return names, shapes and types as the files have them."""
    return {
        name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in state.items()
    }


def fill(described: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a state dict by the rule of tests/data/layouts/README.md."""
    return {name: _tensor(name, *entry) for name, entry in described.items()}


def filled(network: Network) -> Network:
    """Fill a network of ours by that rule, in place."""
    network.load_state_dict(fill(shapes(network.state_dict())))
    return network.eval()


def _tensor(name: str, shape: list[int], dtype: str) -> Tensor:
    if dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    r = random.standard_normal(math.prod(shape)).astype(np.float32).reshape(shape)
    if name.endswith("running_var"):
        r = 0.5 + np.abs(r)
    elif name.endswith("running_mean"):
        r = 0.1 * r
    elif len(shape) == 4:
        r = r / np.sqrt(shape[1] * shape[2] * shape[3])
    elif len(shape) == 2:
        r = r / np.sqrt(shape[1])
    else:
        r = 0.05 * r if name.endswith("bias") else 0.7 + 0.1 * r
    return torch.from_numpy(r.astype(np.float32))


def inputs() -> Tensor:
    """Return the (2, 3, 112, 112) input of the stored embeddings."""
    i = np.arange(2 * 3 * 112 * 112, dtype=np.float64)
    wave = np.sin(0.37 * i) * np.cos(0.011 * i)
    return torch.from_numpy(wave.reshape(2, 3, 112, 112).astype(np.float32))
