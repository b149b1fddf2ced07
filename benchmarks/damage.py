"""Seven ways to damage an aligned crop, each with a strength from 0 (hardly) to 1 (badly).

The idea of XQLFW: known damage at random, so that quality and errors vary more than in LFW.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from faceqan_toolkit.types import Pixels

SIDE = 112


def _pixels(values: object) -> Pixels:
    return np.asarray(np.clip(np.rint(np.asarray(values, np.float64)), 0, 255), np.uint8)


def blur(crop: Pixels, strength: float, rng: Generator) -> Pixels:
    return _pixels(cv2.GaussianBlur(crop, (0, 0), 0.7 + 2.8 * strength))


def downsampling(crop: Pixels, strength: float, rng: Generator) -> Pixels:
    side = round(SIDE / (1.5 + 4.5 * strength))
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    return _pixels(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))


def noise(crop: Pixels, strength: float, rng: Generator) -> Pixels:
    return _pixels(crop + rng.normal(0, 5 + 30 * strength, crop.shape))


def darkness(crop: Pixels, strength: float, rng: Generator) -> Pixels:
    return _pixels(crop * 0.6 * 0.15**strength)


def jpeg(crop: Pixels, strength: float, rng: Generator) -> Pixels:
    _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, round(30 - 25 * strength)])
    return _pixels(cv2.imdecode(data, cv2.IMREAD_COLOR))


def occlusion(crop: Pixels, strength: float, rng: Generator) -> Pixels:
    """Cover a square that lies somewhere over the inner face with one colour."""
    side = round(20 + 35 * strength)
    x, y = rng.integers(15, 98 - side, 2)
    covered = crop.copy()
    covered[y : y + side, x : x + side] = rng.integers(0, 256, 3)
    return covered


def pose(crop: Pixels, strength: float, rng: Generator) -> Pixels:
    """Turn the picture as if it lay on a cylinder."""
    yaw = np.radians(10 + 35 * strength) * rng.choice([-1, 1])
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    angle = np.arcsin(np.clip((x - 55.5) / 60, -1, 1)) + yaw
    source = 55.5 + 60 * np.sin(np.clip(angle, -np.pi / 2, np.pi / 2))
    maps = source.astype(np.float32), y
    return _pixels(cv2.remap(crop, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


KINDS: dict[str, Callable[[Pixels, float, Generator], Pixels]] = {
    function.__name__: function
    for function in (blur, downsampling, noise, darkness, jpeg, occlusion, pose)
}
