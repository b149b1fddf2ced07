"""Embeddings of uint8 crops by `Embedder.embed`."""

from __future__ import annotations

import gc
import weakref
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

from faceqan_toolkit.errors import FaceQANError, SettingsError
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.types import Pixels
from tests.conftest import DATA, read_rgb
from tests.toys import SIZE, Toy

NAMES = ("astronaut", "astronaut_blur3", "astronaut_dark", "astronaut_occluded", "grey")
NUMBER = 11  # two full blocks and a short one


def random_crops() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (NUMBER, SIZE, SIZE, 3), dtype=np.uint8)


def test_embeddings_are_the_networks(crop: Pixels) -> None:
    network = load_model("sface")
    crops = [crop, crop[:, ::-1].copy(), *(read_rgb(DATA / f"{name}.png") for name in NAMES)]
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        plain, mirrored = network(batch).numpy(), network(batch.flip(3)).numpy()
    found = network.embed(crops, device="cpu")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain, atol=2e-3)
    both = network.embed(crops, flip=True, device="cpu")
    np.testing.assert_allclose(both, plain + mirrored, atol=4e-3)
    assert np.array_equal(network.embed(np.stack(crops), device="cpu"), found)
    assert np.array_equal(network.embed(crops[2:3], device="cpu"), found[2:3])
    assert network.embed([], device="cpu").shape == (0, 128)


def test_the_model_stays_as_it_was() -> None:
    network = Toy()
    keys = list(network.state_dict())
    expected = network.embed(random_crops(), device="cpu")
    assert list(network.state_dict()) == keys
    assert len(list(network.children())) == len(list(Toy().children()))
    assert np.array_equal(deepcopy(network).embed(random_crops(), device="cpu"), expected)
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


class Hungry(Toy):
    """Runs out of memory on more than `limit` crops at once."""

    limit = 1

    def forward(self, crops: Tensor) -> Tensor:
        if len(crops) > self.limit:
            raise torch.OutOfMemoryError("no memory left")
        return super().forward(crops)


def test_out_of_memory_halves_the_block() -> None:
    found = Hungry().embed(random_crops(), device="cpu")
    np.testing.assert_allclose(found, Toy().embed(random_crops(), device="cpu"), rtol=1e-4)
    none = Hungry()
    none.limit = 0
    with pytest.raises(FaceQANError, match="not enough memory on cpu for a single face"):
        none.embed(random_crops(), device="cpu")


def test_unknown_devices() -> None:
    with pytest.raises(SettingsError, match="toaster"):
        Toy().embed(random_crops(), device="toaster")
