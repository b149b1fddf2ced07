"""P-Net by stripes against facenet-pytorch's, which takes a picture whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facenet_pytorch.models.mtcnn import PNet

from faceqan_toolkit.detection.mtcnn_networks import CELL, ProposalNet, normalised, stripes
from faceqan_toolkit.types import Pixels

SIZES = [
    (12, 12),
    (13, 12),
    (12, 13),
    (15, 17),
    (64, 81),
    (63, 80),
    (101, 103),
    (12, 300),
    (300, 13),
]


@pytest.fixture(scope="module")
def network() -> ProposalNet:
    return ProposalNet()


def part(photo: Pixels, height: int, width: int) -> Pixels:
    """Return a part of a photo with faces and edges, no multiple of the photo."""
    wide = np.tile(photo, (1 + height // 512, 1 + width // 512, 1))
    return np.ascontiguousarray(wide[60 : 60 + height, 150 : 150 + width])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_same_proposals_as_facenet_pytorchs(
    network: ProposalNet, astronaut: Pixels, height: int, width: int
) -> None:
    pixels = part(astronaut, height, width)
    threshold = 0.02  # low, so that many places pass
    found = network.propose(pixels, threshold)
    with torch.inference_mode():
        offsets, scores = PNet()(normalised(torch.from_numpy(pixels)[None]))
    expected = scores[0, 1].numpy()
    x, y = found.places.T
    np.testing.assert_allclose(found.scores, expected[y, x], atol=1e-5)
    np.testing.assert_allclose(found.offsets, offsets[0].numpy()[:, y, x].T, atol=1e-5)
    passed = np.zeros(expected.shape, bool)
    passed[y, x] = True
    assert passed[expected > threshold + 1e-5].all()
    assert not passed[expected < threshold - 1e-5].any()


def test_something_passes(network: ProposalNet, astronaut: Pixels) -> None:
    assert len(network.propose(part(astronaut, 101, 103), 0.02).scores) > 50


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("limit", [1, 3000])
def test_stripes_give_what_the_whole_picture_gives(
    network: ProposalNet, astronaut: Pixels, height: int, width: int, limit: int
) -> None:
    pixels = part(astronaut, height, width)
    cut = list(stripes(pixels, limit))
    with torch.inference_mode():
        whole = network.features(pixels)
        pieces = [network.features(stripe) for _, stripe in cut]
    np.testing.assert_allclose(torch.cat(pieces), whole, atol=1e-5)
    starts = np.cumsum([0] + [len(piece) for piece in pieces])
    assert [first for first, _ in cut] == starts[:-1].tolist()
    if height == 300 and limit == 1:
        assert len(cut) > 3


@pytest.mark.parametrize("shape", [(6000, 9000), (20_000, 300), (12, 100_000)])
def test_no_stripe_is_large(shape: tuple[int, int]) -> None:
    pixels = np.broadcast_to(np.zeros(3, np.uint8), (*shape, 3))
    largest = max(len(stripe) for _, stripe in stripes(pixels, 65_536)) * shape[1]
    assert largest <= max(65_536, 2 * CELL * shape[1]) + CELL * shape[1]
