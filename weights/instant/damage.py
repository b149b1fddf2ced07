"""Ways in which a crop gets worse, for training and testing the instant head."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from faceqan_toolkit.types import Pixels

SIDE = 112


def _pixels(values: object) -> Pixels:
    return np.asarray(np.clip(np.rint(np.asarray(values, np.float64)), 0, 255), np.uint8)


def blur(crop: Pixels, rng: Generator) -> Pixels:
    return _pixels(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.8, 4)))


def motion(crop: Pixels, rng: Generator) -> Pixels:
    length = int(rng.integers(5, 18))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    middle = (length - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), rng.uniform(0, 180), 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return _pixels(cv2.filter2D(crop, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT))


def downsampling(crop: Pixels, rng: Generator) -> Pixels:
    side = int(SIDE / rng.uniform(2, 7))
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    back = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[rng.integers(3)]
    return _pixels(cv2.resize(small, (SIDE, SIDE), interpolation=back))


def noise(crop: Pixels, rng: Generator) -> Pixels:
    if rng.random() < 0.3:
        struck = rng.random(crop.shape[:2]) < rng.uniform(0.01, 0.15)
        salted = crop.copy()
        salted[struck] = rng.choice([0, 255], (int(struck.sum()), 1))
        return salted
    return _pixels(crop + rng.normal(0, rng.uniform(5, 40), crop.shape))


def jpeg(crop: Pixels, rng: Generator) -> Pixels:
    quality = int(rng.integers(3, 31))
    _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _pixels(cv2.imdecode(data, cv2.IMREAD_COLOR))


def darkness(crop: Pixels, rng: Generator) -> Pixels:
    return _pixels(255 * rng.uniform(0.08, 0.6) * (crop / 255) ** rng.uniform(0.8, 1.6))


def over_exposure(crop: Pixels, rng: Generator) -> Pixels:
    return _pixels(crop * rng.uniform(1.4, 4) + rng.uniform(0, 60))


def occlusion(crop: Pixels, rng: Generator) -> Pixels:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    centre, half = rng.integers(10, 102, 2), rng.integers(12, 48, 2)
    if rng.random() < 0.5:
        cv2.rectangle(mask, (centre - half).tolist(), (centre + half).tolist(), 1, -1)
    else:
        angle = rng.uniform(0, 180)
        cv2.ellipse(mask, centre.tolist(), half.tolist(), angle, 0, 360, 1, -1)
    cover = np.broadcast_to(rng.integers(0, 256, 3), crop.shape)
    if rng.random() < 0.4:
        cover = rng.integers(0, 256, crop.shape)
    return _pixels(np.where(mask[..., None] > 0, cover, crop))


def pose(crop: Pixels, rng: Generator) -> Pixels:
    """Turn the picture as if it lay on a cylinder, then tilt the cylinder."""
    yaw, pitch = np.radians(rng.uniform(15, 60) * rng.choice([-1, 1])), rng.uniform(-0.25, 0.25)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    across = np.clip((x - 55.5) / 60, -1, 1)
    source = 55.5 + 60 * np.sin(np.clip(np.arcsin(across) + yaw, -np.pi / 2, np.pi / 2))
    down = 55.5 + (y - 55.5) * (1 + pitch * across)
    maps = source.astype(np.float32), down.astype(np.float32)
    return _pixels(cv2.remap(crop, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def misalignment(crop: Pixels, rng: Generator) -> Pixels:
    """Rotate, scale and shift, as wrong landmarks do."""
    warp = cv2.getRotationMatrix2D((55.5, 55.5), rng.uniform(-45, 45), rng.uniform(0.75, 1.3))
    warp[:, 2] += rng.uniform(-15, 15, 2)
    return _pixels(cv2.warpAffine(crop, warp, (SIDE, SIDE)))


def low_contrast(crop: Pixels, rng: Generator) -> Pixels:
    return _pixels((crop - 127.5) * rng.uniform(0.15, 0.6) + rng.uniform(70, 190))


def tint(crop: Pixels, rng: Generator) -> Pixels:
    """Colour: much of what is known of faces here is grey."""
    return _pixels(crop * rng.uniform(0.55, 1.25, 3) + rng.uniform(-15, 15, 3))


def no_face(photo: Pixels, box: tuple[float, ...], rng: Generator) -> Pixels:
    """Return a piece of a photo beside the face, or nothing but a gradient or noise."""
    height, width = photo.shape[:2]
    for _ in range(50):
        side = int(rng.integers(20, max(21, min(height, width) // 2)))
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        apart = x + side < box[0] or x > box[2] or y + side < box[1] or y > box[3]
        if apart and rng.random() < 0.9:
            piece = photo[y : y + side, x : x + side]
            shrink = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
            return _pixels(cv2.resize(piece, (SIDE, SIDE), interpolation=shrink))
    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.float32)
    smooth = cv2.resize(corners, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return _pixels(smooth + rng.normal(0, rng.uniform(0, 60), smooth.shape))


KINDS: dict[str, Callable[[Pixels, Generator], Pixels]] = {
    function.__name__: function
    for function in (
        blur, motion, downsampling, noise, jpeg, darkness, over_exposure, occlusion, pose,
        misalignment, low_contrast,
    )
}  # fmt: skip


def several(crop: Pixels, rng: Generator) -> Pixels:
    """Damage a crop in two ways, one after the other."""
    first, second = rng.choice(list(KINDS), 2, replace=False)
    return KINDS[second](KINDS[first](crop, rng), rng)
