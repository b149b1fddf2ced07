"""The pieces of the cascade that prepare pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from facenet_pytorch.models.mtcnn import ONet, RNet
from torchvision.ops import nms

from faceqan_toolkit.detection.mtcnn import FACTOR, MTCNN, _cut, _halves, _pyramid, best
from faceqan_toolkit.types import Pixels


@pytest.fixture(scope="module")
def smooth(astronaut: Pixels) -> Pixels:
    """A picture that every good way to resize makes into nearly the same."""
    return np.asarray(cv2.GaussianBlur(astronaut, None, 6), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (333, 501), (25, 400), (12, 12), (5, 9)])
def test_levels_are_the_picture_made_smaller(height: int, width: int) -> None:
    def slope(count: int) -> np.ndarray:
        return 255 * (np.arange(count) + 0.5) / count

    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.rint(slope(width))
    pixels[..., 1] = np.rint(slope(height))[:, None]
    levels = list(_pyramid(_halves(pixels), 20))
    assert len(levels) == sum(min(height, width) * 0.6 * FACTOR**n >= 12 for n in range(50))
    for scale, level in levels:
        rows, columns = int(height * scale + 1), int(width * scale + 1)
        assert level.shape == (rows, columns, 3)
        # an odd last row or column is lost with every halving
        allowed = 2 + 255 * 2 ** int(-np.log2(scale)) / min(height, width)
        assert np.abs(level[..., 0] - slope(columns)).max() < allowed
        assert np.abs(level[..., 1] - slope(rows)[:, None]).max() < allowed


@pytest.mark.parametrize("size", [24, 48])
@pytest.mark.parametrize("side", [1, 10, 24, 60, 143, 144, 200, 511, 900])
def test_cuts_are_the_region_made_square(smooth: Pixels, size: int, side: int) -> None:
    large = np.asarray(cv2.resize(smooth, (1100, 1100), interpolation=cv2.INTER_CUBIC))
    x, y = 101, 40
    box = np.array([[x, y, x + side, y + side, 1]], np.float32)
    kept, (cut,) = _cut(_halves(large), box, size, filled=False)
    assert kept == [0]
    assert np.array_equal(_cut(_halves(large), box, size, filled=True)[1][0], cut)
    region = large[y - 1 : y + side, x - 1 : x + side]  # boxes count pixels from one
    expected = cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(cut.astype(float) - expected).mean() < 3


def test_cuts_at_the_edges(smooth: Pixels) -> None:
    boxes = np.array(
        [
            [-300, -300, -1, -1, 1],  # outside, on every side
            [600, 600, 700, 700, 1],
            [-50, 10, 0, 40, 1],
            [-50, -50, 60, 60, 1],  # reaching in
            [500, 500, 900, 900, 1],
            [-9000, -9000, 9000, 9000, 1],
        ],
        np.float32,
    )
    kept, cuts = _cut(_halves(smooth), boxes, 24, filled=False)
    assert kept == [3, 4, 5]
    whole = cv2.resize(smooth, (24, 24), interpolation=cv2.INTER_AREA)
    assert np.abs(cuts[2].astype(float) - whole).mean() < 3


def test_filled_cuts_keep_their_shape(smooth: Pixels) -> None:
    """As if the picture had a wide border of the networks' zero."""
    border = 1000
    wide = cv2.copyMakeBorder(smooth, *[border] * 4, cv2.BORDER_CONSTANT, value=(127.5,) * 3)
    boxes = np.array(
        [
            [-300, -300, -1, -1, 1],  # outside
            [-50, -50, 60, 60, 1],
            [400, 300, 700, 600, 1],
            [-400, -400, 912, 912, 1],
            [2, 2, 100, 100, 1],  # inside
        ],
        np.float32,
    )
    kept, cuts = _cut(_halves(smooth), boxes, 48, filled=True)
    assert kept == [1, 2, 3, 4]
    for index, cut in zip(kept, cuts, strict=True):
        x1, y1, x2, y2 = boxes[index, :4].astype(int) + border
        region = wide[y1 - 1 : y2, x1 - 1 : x2]
        expected = cv2.resize(region, (48, 48), interpolation=cv2.INTER_AREA)
        assert np.abs(cut.astype(float) - expected).mean() < 3


def test_the_judging_networks_are_facenet_pytorchs() -> None:
    ours = MTCNN()
    for network, theirs in ((ours._refinement, RNet()), (ours._output, ONet())):
        pictures = torch.rand(7, 3, network.size, network.size) * 2 - 1
        with torch.inference_mode():
            scores, *rest = network(pictures)
            *expected, both = theirs(pictures)
        torch.testing.assert_close(scores, both[:, 1], atol=1e-5, rtol=1e-5)
        for one, other in zip(rest, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_suppression_is_torchvisions(count: int) -> None:
    rng = np.random.default_rng(count)
    corners = rng.uniform(-50, 500, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0, 150, (count, 2))]).astype(np.float32)
    scores = rng.uniform(0.3, 1, count).astype(np.float32)
    for overlap in (0.3, 0.5, 0.7):
        expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), overlap)
        assert best(boxes, scores, overlap).tolist() == expected.tolist()
