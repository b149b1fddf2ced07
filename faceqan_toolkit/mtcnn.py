"""MTCNN's three networks from facenet-pytorch, run the quick way.

Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks", IEEE Signal Processing Letters, 2016; networks and weights of
facenet-pytorch 2.5.3. Differs from its `MTCNN.detect` in how pictures are resized: levels of
the pyramid are reduced from earlier levels, not from the full picture, and candidates are cut
out as bytes. That took more than half of the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import nms

from faceqan_toolkit.types import Detections, Pixels

FACTOR = 0.709
"""Size of a pyramid's level relative to the level before it; a half in area."""

LEVELS_BACK = 3

CELL, STRIDE = 12, 2  # of P-Net, pixels
THRESHOLDS = (0.6, 0.7, 0.7)
BATCH = 512

Array = NDArray[np.float32]


class MTCNN:
    """The cascade: proposals from a pyramid, refined twice.

    Args:
        device: where the networks run; pictures and boxes stay on the CPU.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._proposal, self._refinement, self._output = (
            network().eval().requires_grad_(False).to(self.device) for network in (PNet, RNet, ONet)
        )

    @torch.inference_mode()
    def detect(self, pixels: Pixels, smallest: float, skip_levels: int = 0) -> Detections:
        """Return the faces of a picture, their coordinates counted from one.

        Args:
            pixels: (H, W, 3) uint8, RGB.
            smallest: face size of the pyramid's finest level, pixels.
            skip_levels: how many of the finest levels are not searched.
        """
        boxes = self._propose(pixels, smallest, skip_levels)
        boxes, offsets, _ = self._judge(self._refinement, pixels, boxes, 24, THRESHOLDS[1])
        kept = _best(boxes, 0.7)
        boxes = _squared(_moved(boxes[kept], offsets[kept], extent=1))
        boxes, offsets, points = self._judge(self._output, pixels, boxes, 48, THRESHOLDS[2])
        sides = boxes[:, 2:4] - boxes[:, :2] + 1
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None]
        landmarks = landmarks + boxes[:, None, :2] - 1
        boxes = _moved(boxes, offsets, extent=1)
        final = _without_contained(boxes, 0.7)
        return Detections(boxes[final, :4], boxes[final, 4], landmarks[final])

    def _propose(self, pixels: Pixels, smallest: float, skip_levels: int) -> Array:
        """Return (N, 5) square candidates with their scores."""
        found = [np.empty((0, 9), np.float32)]
        for scale, level in islice(_pyramid(pixels, smallest), skip_levels, None):
            offsets, scores = self._proposal(self._tensor([level]))
            face = scores[0, 1].cpu().numpy()
            y, x = np.nonzero(face >= THRESHOLDS[0])
            corners = np.stack([x, y, x, y], axis=1) * STRIDE + np.array([1, 1, CELL, CELL])
            moves = offsets[0].cpu().numpy()[:, y, x].T
            candidates = np.concatenate(
                [np.floor(corners / scale), face[y, x, None], moves], axis=1
            ).astype(np.float32)
            found.append(candidates[_best(candidates, 0.5)])
        candidates = np.concatenate(found)
        candidates = candidates[_best(candidates, 0.7)]
        return _squared(_moved(candidates[:, :5], candidates[:, 5:], extent=0))

    def _judge(
        self, network: nn.Module, pixels: Pixels, boxes: Array, size: int, threshold: float
    ) -> tuple[Array, Array, Array]:
        """Return the candidates a network accepts, its offsets for them, and landmarks if any."""
        kept, cuts = _cut(pixels, boxes, size)
        offsets, points = np.empty((0, 4), np.float32), np.empty((0, 10), np.float32)
        if not cuts:
            return boxes[:0], offsets, points
        results = [
            [part.cpu().numpy() for part in network(self._tensor(cuts[start : start + BATCH]))]
            for start in range(0, len(cuts), BATCH)
        ]
        offsets, *between, scores = (np.concatenate(part) for part in zip(*results, strict=True))
        accepted = scores[:, 1] > threshold
        judged = np.column_stack([boxes[kept, :4], scores[:, 1]])[accepted]
        return judged, offsets[accepted], between[0][accepted] if between else points

    def _tensor(self, pictures: list[Pixels]) -> Tensor:
        """Return (N, 3, H, W) float32 in [-1, 1] on the device."""
        batch = torch.from_numpy(np.stack(pictures)).to(self.device)
        return (batch.permute(0, 3, 1, 2).float() - 127.5) * 0.0078125


def _pyramid(pixels: Pixels, smallest: float) -> Iterator[tuple[float, Pixels]]:
    """Yield ever smaller copies of a picture with their scales, as long as P-Net's cell fits."""
    height, width = pixels.shape[:2]
    # A level comes from the third before it: reducing by 0.709 again and again blurs, by a
    # third hardly (landmarks move half as much), and the third before is small already.
    sources = deque([pixels], maxlen=LEVELS_BACK)
    scale = CELL / smallest
    while min(height, width) * scale >= CELL:
        size = (int(width * scale + 1), int(height * scale + 1))
        level = np.asarray(cv2.resize(sources[0], size, interpolation=cv2.INTER_AREA), np.uint8)
        sources.append(level)
        yield scale, level
        scale *= FACTOR


def _cut(pixels: Pixels, boxes: Array, size: int) -> tuple[list[int], list[Pixels]]:
    """Return which boxes hold pixels of the picture, and those, resized to squares."""
    height, width = pixels.shape[:2]
    kept, cuts = [], []
    for index, (x1, y1, x2, y2) in enumerate(boxes[:, :4].astype(int).tolist()):
        region = pixels[max(y1, 1) - 1 : min(y2, height), max(x1, 1) - 1 : min(x2, width)]
        if region.size:
            kept.append(index)
            resized = cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA)
            cuts.append(np.asarray(resized, np.uint8))
    return kept, cuts


def _best(candidates: Array, overlap: float) -> NDArray[np.int64]:
    """Return which candidates non-maximum suppression keeps, best first."""
    boxes, scores = torch.from_numpy(candidates[:, :4]), torch.from_numpy(candidates[:, 4])
    kept: NDArray[np.int64] = nms(boxes, scores, overlap).numpy()
    return kept


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
