"""MTCNN's three networks from facenet-pytorch, run the quick way.

Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks", IEEE Signal Processing Letters, 2016; networks and weights of
facenet-pytorch 2.5.3. Differs from its `MTCNN.detect` in how pictures are resized, which took
more than half of the time: levels of the pyramid and large candidates come from copies of half the
size, a quarter and so on, not from the full picture, and as bytes. On a CPU, pieces of work are
shared out to threads, see `workers`; their sizes are fixed, so results do not depend on the number
of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from faceqan_toolkit.facenet_weights import load_weights
from faceqan_toolkit.proposals import CELL, STRIDE, ProposalNet, normalised, stripes
from faceqan_toolkit.types import Detections, Pixels
from faceqan_toolkit.workers import serial_workers

FACTOR = 0.709
"""Size of a pyramid's level relative to the level before it; a half in area."""

BILINEAR_LIMIT = 1.5
"""Where more pixels than that, along a side, become one, levels are averaged: bilinear sampling,
several times as quick, would skip some, and the smallest faces with them."""

ENOUGH = 3
"""Candidates are cut from a copy of the picture where they have this many times the pixels that
their network takes: rounding to whole pixels moves them by 0.7 % at most."""

THRESHOLDS = (0.6, 0.7, 0.7)

CPU_PIXELS, GPU_PIXELS = 1 << 16, 1 << 20
"""Pixels a network looks at at once: what stays in a processor's cache, or fills a GPU."""

Array = NDArray[np.float32]


class Judgement(NamedTuple):
    """What a network says of N candidates it accepts.

    Attributes:
        boxes: (N, 5), corners and score.
        offsets: (N, 4), of the corners, in units of the box's sides.
        points: (N, 10) landmarks, x then y, in units of the box's sides; R-Net has none.
    """

    boxes: Array
    offsets: Array
    points: Array


NOTHING = Judgement(*(np.empty((0, columns), np.float32) for columns in (5, 4, 10)))


class JudgingNet:
    """R-Net or O-Net: looks at candidates one by one.

    Args:
        network: "rnet" or "onet".
        size: side of the candidates it takes, pixels.
        pools: what each convolution is followed by: maxima of so many pixels squared, or 0.
        device: where it runs.
    """

    def __init__(
        self, network: str, *, size: int, pools: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> None:
        self.size = size
        self._pools = pools
        self._weights = load_weights(network, device)
        last = len(pools) + 2
        self._heads = [f"dense{last}_{head}" for head in (1, 2, 3)]

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """Return what it says of pictures.

        Args:
            pictures: (N, 3, size, size), see `proposals.normalised`.

        Returns:
            (N,) scores in [0, 1], (N, 4) offsets and, from O-Net, (N, 10) landmarks.
        """
        maps = pictures
        for layer, pool in enumerate(self._pools, 1):
            maps = self._activate(layer, F.conv2d(maps, *self._layer(f"conv{layer}")))
            if pool:
                maps = F.max_pool2d(maps, pool, stride=2, ceil_mode=True)
        dense = len(self._pools) + 1
        flat = maps.permute(0, 3, 2, 1).flatten(1)  # the weights count columns first
        features = self._activate(dense, F.linear(flat, *self._layer(f"dense{dense}")))
        scores, *rest = (
            F.linear(features, *self._layer(head))
            for head in self._heads
            if f"{head}.weight" in self._weights
        )
        return [scores.softmax(dim=1)[:, 1], *rest]

    def _layer(self, name: str) -> tuple[Tensor, Tensor]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    def _activate(self, layer: int, maps: Tensor) -> Tensor:
        return torch.prelu(maps, self._weights[f"prelu{layer}.weight"])


class MTCNN:
    """The cascade: proposals from a pyramid, refined twice.

    Args:
        device: where the networks run; pictures and boxes stay on the CPU.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._proposal = ProposalNet(self.device)
        self._refinement = JudgingNet("rnet", size=24, pools=(3, 3, 0), device=self.device)
        self._output = JudgingNet("onet", size=48, pools=(3, 3, 2, 0), device=self.device)
        on_cpu = self.device.type == "cpu"
        # threads that call, if there are several, share no single thread
        shared_out = on_cpu and torch.get_num_threads() > 1
        self._map = serial_workers().map if shared_out else map
        self._pixels = CPU_PIXELS if on_cpu else GPU_PIXELS

    def detect(self, pixels: Pixels, smallest: float, skip_levels: int = 0) -> Detections:
        """Return the faces of a picture, their coordinates counted from one.

        Args:
            pixels: (H, W, 3) uint8, RGB.
            smallest: face size of the pyramid's finest level, pixels.
            skip_levels: how many of the finest levels are not searched.
        """
        halves = _halves(pixels)
        boxes = self._propose(halves, smallest, skip_levels)
        boxes, offsets, _ = self._judge_all(self._refinement, halves, boxes, THRESHOLDS[1])
        kept = best(boxes[:, :4], boxes[:, 4], 0.7)
        boxes = _squared(_moved(boxes[kept], offsets[kept], extent=1))
        boxes, offsets, points = self._judge_all(self._output, halves, boxes, THRESHOLDS[2])
        sides = boxes[:, 2:4] - boxes[:, :2] + 1
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None]
        landmarks = landmarks + boxes[:, None, :2] - 1
        boxes = _moved(boxes, offsets, extent=1)
        final = _without_contained(boxes, 0.7)
        return Detections(boxes[final, :4], boxes[final, 4], landmarks[final])

    def _propose(self, halves: list[Pixels], smallest: float, skip_levels: int) -> Array:
        """Return (N, 5) square candidates with their scores."""
        scales: list[float] = []

        def pieces() -> Iterator[tuple[int, int, Pixels]]:
            levels = islice(_pyramid(halves, smallest), skip_levels, None)
            for level, (scale, picture) in enumerate(levels):
                scales.append(scale)
                for first, stripe in stripes(picture, self._pixels):
                    yield level, first, stripe

        def search(piece: tuple[int, int, Pixels]) -> tuple[int, Array]:
            level, first, stripe = piece
            places, scores, offsets = self._proposal.propose(stripe, THRESHOLDS[0])
            corners = np.tile(places + np.array([0, first]), 2) * STRIDE + [1, 1, CELL, CELL]
            boxes = np.floor(corners / scales[level])
            return level, np.concatenate(
                [boxes, scores[:, None], offsets], axis=1, dtype=np.float32
            )

        found = [(0, np.empty((0, 9), np.float32)), *self._map(search, pieces())]
        by_level = [
            np.concatenate([candidates for level, candidates in found if level == number])
            for number in range(max(1, len(scales)))
        ]
        candidates = np.concatenate(
            [level[best(level[:, :4], level[:, 4], 0.5)] for level in by_level]
        )
        candidates = candidates[best(candidates[:, :4], candidates[:, 4], 0.7)]
        return _squared(_moved(candidates[:, :5], candidates[:, 5:], extent=0))

    def _judge_all(
        self, network: JudgingNet, halves: list[Pixels], boxes: Array, threshold: float
    ) -> Judgement:
        """Return what a network says of all candidates that lie in the picture."""

        batch = self._pixels // (2 * network.size**2)  # their maps are more than P-Net's

        def judge(start: int) -> Judgement:
            some = boxes[start : start + batch]
            return self._judge(network, halves, some, threshold)

        judged = [NOTHING, *self._map(judge, range(0, len(boxes), batch))]
        return Judgement(*(np.concatenate(parts) for parts in zip(*judged, strict=True)))

    @torch.inference_mode()
    def _judge(
        self, network: JudgingNet, halves: list[Pixels], boxes: Array, threshold: float
    ) -> Judgement:
        kept, cuts = _cut(halves, boxes, network.size)
        if not cuts:
            return NOTHING
        batch = normalised(torch.from_numpy(np.stack(cuts)).to(self.device))
        scores, offsets, *landmarks = (part.cpu().numpy() for part in network(batch))
        accepted = scores > threshold
        return Judgement(
            np.column_stack([boxes[kept, :4], scores])[accepted],
            offsets[accepted],
            landmarks[0][accepted] if landmarks else NOTHING.points,
        )


def halved(pixels: Pixels) -> Pixels:
    """Return a picture of at least 2x2 pixels at half its size, an odd last row left out."""
    height, width = (side // 2 for side in pixels.shape[:2])
    # of an even size halving is exact, and quick
    even = pixels[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _halves(pixels: Pixels) -> list[Pixels]:
    """Return a picture and its copies of half the size, a quarter, and so on."""
    halves = [pixels]
    while min(halves[-1].shape[:2]) >= 2 * CELL:
        halves.append(halved(halves[-1]))
    return halves


def _pyramid(halves: list[Pixels], smallest: float) -> Iterator[tuple[float, Pixels]]:
    """Yield ever smaller copies of a picture with their scales, as long as P-Net's cell fits."""
    height, width = halves[0].shape[:2]
    scale = CELL / smallest
    while min(height, width) * scale >= CELL:
        size = (int(width * scale + 1), int(height * scale + 1))
        halvings = max(0, int(-math.log2(scale)))
        shrink = 1 / (scale * 2**halvings)
        how = cv2.INTER_AREA if shrink > BILINEAR_LIMIT else cv2.INTER_LINEAR
        level = cv2.resize(halves[halvings], size, interpolation=how)
        yield scale, np.asarray(level, np.uint8)
        scale *= FACTOR


def _cut(halves: list[Pixels], boxes: Array, size: int) -> tuple[list[int], list[Pixels]]:
    """Return which boxes hold pixels of the picture, and those, resized to squares."""
    height, width = halves[0].shape[:2]
    kept, cuts = [], []
    for index, (x1, y1, x2, y2) in enumerate(boxes[:, :4].astype(int).tolist()):
        left, top, right, bottom = max(x1, 1) - 1, max(y1, 1) - 1, min(x2, width), min(y2, height)
        if left >= right or top >= bottom:
            continue
        side = min(right - left, bottom - top)
        halvings = min(int(math.log2(max(1, side / (ENOUGH * size)))), len(halves) - 1)
        x1, y1, x2, y2 = (round(edge / 2**halvings) for edge in (left, top, right, bottom))
        region = halves[halvings][y1:y2, x1:x2]
        resized = cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA)
        kept.append(index)
        cuts.append(np.asarray(resized, np.uint8))
    return kept, cuts


def best(boxes: Array, scores: Array, overlap: float) -> NDArray[np.int64]:
    """Return which boxes non-maximum suppression keeps, best first.

    Args:
        boxes: (N, 4) corners.
        scores: (N,), above 0.
        overlap: intersection over union from which on only the better one is kept.
    """
    corners_and_sides = np.hstack([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]]).astype(np.float64)
    kept = cv2.dnn.NMSBoxes(corners_and_sides, scores, 0.0, overlap)  # type: ignore[arg-type]
    return np.asarray(kept, dtype=np.int64)


def _moved(boxes: Array, offsets: Array, *, extent: int) -> Array:
    """Return boxes whose corners a network moved, in units of their sides plus `extent`."""
    sides = np.tile(boxes[:, 2:4] - boxes[:, :2] + extent, 2)
    return np.column_stack([boxes[:, :4] + offsets * sides, boxes[:, 4]])


def _squared(boxes: Array) -> Array:
    """Return boxes grown to squares about their centres."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    side = sides.max(axis=1, keepdims=True, initial=0)
    corners = boxes[:, :2] + sides / 2 - side / 2
    return np.column_stack([corners, corners + side, boxes[:, 4]])


def _without_contained(boxes: Array, overlap: float) -> list[int]:
    """Return boxes, best first, without those that a better one overlaps by most of either."""
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    waiting = np.argsort(-boxes[:, 4], kind="stable")
    kept = []
    while waiting.size:
        best, waiting = int(waiting[0]), waiting[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[waiting, :2])
        high = np.minimum(boxes[best, 2:4], boxes[waiting, 2:4])
        shared = (high - low + 1).clip(0).prod(axis=1)
        waiting = waiting[shared <= overlap * np.minimum(areas[best], areas[waiting])]
    return kept
