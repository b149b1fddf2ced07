"""Normalisation against the same arithmetic in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.preprocessing import Normalise, Preprocessing

CASES = [
    Preprocessing(),
    Preprocessing("BGR"),
    Preprocessing("BGR", mean=0.0, std=255.0),
    Preprocessing("RGB", mean=127.5, std=128.0),
    Preprocessing("RGB", mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)),
    Preprocessing("BGR", mean=(103.5, 116.3, 123.7), std=(57.4, 57.1, 58.4)),
]


@pytest.mark.parametrize("preprocessing", CASES)
def test_normalised_as_by_hand(preprocessing: Preprocessing) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 7, 7, 3), dtype=np.uint8)
    channels = pixels[..., ::-1] if preprocessing.channels == "BGR" else pixels
    expected = (channels - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    crops = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    found = Normalise(preprocessing)(crops).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_both_orders_of_unequal_channels_agree() -> None:
    crops = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rgb, bgr = (Normalise(preprocessing)(crops) for preprocessing in CASES[-2:])
    assert torch.equal(rgb, bgr.flip(1))


def test_constants_are_no_part_of_a_checkpoint() -> None:
    assert not Normalise(Preprocessing()).state_dict()


@pytest.mark.parametrize(
    ("wrong", "named"), [({"channels": "rgb"}, "channels"), ({"std": (1.0, 0.0, 1.0)}, "std")]
)
def test_nonsense_is_refused(wrong, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Preprocessing(**wrong)
