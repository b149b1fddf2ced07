"""MTCNN's three networks from facenet-pytorch, run the quick way.

Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks", IEEE Signal Processing Letters, 2016; networks and weights of
facenet-pytorch 2.5.3. Differs from its `MTCNN.detect` in how pictures are resized, which took
more than half of the time: levels of the pyramid and large candidates come from copies of half the
size, a quarter and so on, not from the full picture, and as bytes. On a CPU, pieces of work are
shared out to threads, see `workers`; their sizes are fixed, so results do not depend on the number
of threads.

It also differs at the picture's edges. `MTCNN.detect` clips a candidate window that crosses an edge
and stretches what is left to a square, which moves the landmarks of cut faces outwards, and it
never looks for a face that is larger than the picture. Here such windows keep their shape and are
filled with grey, and large faces are looked for beyond the edges. Faces away from the edges are
found exactly as without this.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from faceqan_toolkit.allocator import keep_freed_buffers
from faceqan_toolkit.detection.base import (
    SMALLEST_FACE,
    Array,
    PhotoDetector,
    best,
    contained,
    distinct,
    halved,
)
from faceqan_toolkit.detection.facenet_weights import load_weights
from faceqan_toolkit.detection.proposals import CELL, STRIDE, ProposalNet, normalised, stripes
from faceqan_toolkit.settings import Settings
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

FILL = (127.5,) * 3
"""What lies beyond the picture's edges, as a colour: the networks' zero. With black
more cut faces are lost, and landmarks are off by more, see `benchmarks/edges.py`."""

MARGIN = 6
"""Grey pixels around a level of the pyramid where faces beyond the edges are looked for: half of
P-Net's cell, and a whole number of its strides."""

LARGE_SHARE = 1 / 3
"""Share of the picture's shorter side from which on faces are looked for beyond the edges: enough
for portraits and cheap, as those levels are tiny."""

WHOLE = (0.9, 1.1, 1.3, 1.5)
"""Sides of windows about the picture's middle, in units of its longer side: the picture may be a
face and nothing else, of which P-Net often finds no part that looks like a whole."""

CPU_PIXELS, GPU_PIXELS = 1 << 16, 1 << 20
"""Pixels a network looks at at once: what stays in a processor's cache, or fills a GPU."""


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

    def detect(
        self, pixels: Pixels, smallest: float, skip_levels: int = 0, *, clip_windows: bool = False
    ) -> Detections:
        """Return the faces of a picture, their coordinates counted from one.

        Args:
            pixels: (H, W, 3) uint8, RGB.
            smallest: face size of the pyramid's finest level, pixels.
            skip_levels: how many of the finest levels are not searched.
            clip_windows: treat the picture's edges as facenet-pytorch does.
        """
        halves = _halves(pixels)
        candidates = self._propose(islice(_pyramid(halves, smallest), skip_levels, None))
        found, windows = self._refine(halves, candidates, filled=False)
        if clip_windows:
            return found
        size = halves[0].shape[1::-1]
        beyond = self._propose(_pyramid(halves, smallest, margin=MARGIN), margin=MARGIN)
        candidates = np.concatenate([candidates, beyond, _whole(size)])
        at_edge = candidates[_crosses_edge(_grown(candidates), size)]
        again, _ = self._refine(halves, at_edge, filled=True)
        return _joined(_selected(found, ~_crosses_edge(windows, size)), again)

    def _refine(
        self, halves: list[Pixels], candidates: Array, *, filled: bool
    ) -> tuple[Detections, Array]:
        """Return the faces among candidates and the (N, 4) windows that showed them to O-Net."""
        boxes, offsets, _ = self._judge_all(
            self._refinement, halves, candidates, THRESHOLDS[1], filled=filled
        )
        kept = best(boxes[:, :4], boxes[:, 4], 0.7)
        boxes = _squared(_moved(boxes[kept], offsets[kept], extent=1))
        windows, offsets, points = self._judge_all(
            self._output, halves, boxes, THRESHOLDS[2], filled=filled
        )
        sides = windows[:, 2:4] - windows[:, :2] + 1
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None]
        landmarks = landmarks + windows[:, None, :2] - 1
        boxes = _moved(windows, offsets, extent=1)
        final = distinct(boxes)
        faces = Detections(boxes[final, :4], boxes[final, 4], landmarks[final])
        return faces, windows[final, :4]

    def _propose(self, levels: Iterable[tuple[float, Pixels]], margin: int = 0) -> Array:
        """Return (N, 5) square candidates with their scores.

        Args:
            levels: of the pyramid, with their scales.
            margin: pixels around each level that do not belong to the picture.
        """
        scales: list[float] = []

        def pieces() -> Iterator[tuple[int, int, Pixels]]:
            for level, (scale, picture) in enumerate(levels):
                scales.append(scale)
                for first, stripe in stripes(picture, self._pixels):
                    yield level, first, stripe

        def search(piece: tuple[int, int, Pixels]) -> tuple[int, Array]:
            level, first, stripe = piece
            places, scores, offsets = self._proposal.propose(stripe, THRESHOLDS[0])
            corners = np.tile(places + np.array([0, first]), 2) * STRIDE + [1, 1, CELL, CELL]
            boxes = np.floor((corners - margin) / scales[level])
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
        self,
        network: JudgingNet,
        halves: list[Pixels],
        boxes: Array,
        threshold: float,
        *,
        filled: bool,
    ) -> Judgement:
        """Return boxes, offsets and landmarks of the candidates that a network accepts.

        Args:
            network: R-Net or O-Net.
            halves: the picture, see `_halves`.
            boxes: (N, 5) candidates; those that lie wholly outside the picture are left out.
            threshold: score above which a candidate is accepted.
            filled: see `_cut`.
        """

        batch = self._pixels // (2 * network.size**2)  # their maps are more than P-Net's

        def judge(start: int) -> Judgement:
            some = boxes[start : start + batch]
            return self._judge(network, some, threshold, _cut(halves, some, network.size, filled))

        judged = [NOTHING, *self._map(judge, range(0, len(boxes), batch))]
        return Judgement(*(np.concatenate(parts) for parts in zip(*judged, strict=True)))

    @torch.inference_mode()
    def _judge(
        self,
        network: JudgingNet,
        boxes: Array,
        threshold: float,
        windows: tuple[list[int], list[Pixels]],
    ) -> Judgement:
        kept, cuts = windows
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


def _halves(pixels: Pixels) -> list[Pixels]:
    """Return a picture and its copies of half the size, a quarter, and so on."""
    halves = [pixels]
    while min(halves[-1].shape[:2]) >= 2 * CELL:
        halves.append(halved(halves[-1]))
    return halves


def _pyramid(
    halves: list[Pixels], smallest: float, *, margin: int = 0
) -> Iterator[tuple[float, Pixels]]:
    """Yield ever smaller copies of a picture with their scales.

    Args:
        halves: the picture, see `_halves`.
        smallest: face size that the finest level shows in one cell of P-Net, pixels.
        margin: grey pixels around each level. Without, levels end where a cell no longer fits
            into the picture; with, there are only those of large faces, up to 1.5 times as large
            as the picture's shorter side.
    """
    height, width = halves[0].shape[:2]
    shorter = min(height, width)
    scale = CELL / (max(smallest, LARGE_SHARE * shorter) if margin else smallest)
    while shorter * scale >= (CELL / 1.5 if margin else CELL):
        size = (int(width * scale + 1), int(height * scale + 1))
        halvings = min(max(0, int(-math.log2(scale))), len(halves) - 1)
        shrink = 1 / (scale * 2**halvings)
        how = cv2.INTER_AREA if shrink > BILINEAR_LIMIT else cv2.INTER_LINEAR
        level = np.asarray(cv2.resize(halves[halvings], size, interpolation=how), np.uint8)
        yield scale, _bordered(level, *[margin] * 4) if margin else level
        scale *= FACTOR


def _cut(
    halves: list[Pixels], boxes: Array, size: int, filled: bool
) -> tuple[list[int], list[Pixels]]:
    """Return which boxes hold pixels of the picture, and those, resized to squares.

    Args:
        halves: the picture, see `_halves`.
        boxes: (N, 4 or 5) corners, the first pixel is number one.
        size: side of the squares, pixels.
        filled: beyond the picture's edges a box is grey; else it is clipped there, and what is
            left is stretched.
    """
    height, width = halves[0].shape[:2]
    kept, cuts = [], []
    for index, (x1, y1, x2, y2) in enumerate(boxes[:, :4].astype(int).tolist()):
        left, top, right, bottom = max(x1, 1) - 1, max(y1, 1) - 1, min(x2, width), min(y2, height)
        if left >= right or top >= bottom:
            continue
        if filled:
            left, top, right, bottom = x1 - 1, y1 - 1, x2, y2
        side = min(right - left, bottom - top)
        halvings = min(int(math.log2(max(1, side / (ENOUGH * size)))), len(halves) - 1)
        x1, y1, x2, y2 = (round(edge / 2**halvings) for edge in (left, top, right, bottom))
        region = _region(halves[halvings], x1, y1, x2, y2)
        if region.size == 0:  # a sliver of the picture that the reduced copy does not have
            continue
        resized = cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA)
        kept.append(index)
        cuts.append(np.asarray(resized, np.uint8))
    return kept, cuts


def _region(picture: Pixels, x1: int, y1: int, x2: int, y2: int) -> Pixels:
    """Return part of a picture, grey where it reaches beyond; empty if it has no pixel of it."""
    height, width = picture.shape[:2]
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    region = picture[top:bottom, left:right]
    if region.size == 0 or (left, top, right, bottom) == (x1, y1, x2, y2):
        return region
    return _bordered(region, top - y1, y2 - bottom, left - x1, x2 - right)


def _bordered(picture: Pixels, top: int, bottom: int, left: int, right: int) -> Pixels:
    """Return a picture with so many pixels of `FILL` on each side."""
    wider = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=FILL)
    return np.asarray(wider, np.uint8)


def _crosses_edge(boxes: Array, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return (N,) whether boxes reach beyond a picture of that width and height."""
    low, high = boxes[:, :2].astype(int), boxes[:, 2:4].astype(int)
    return np.asarray(((low < 1) | (high > size)).any(axis=1), np.bool_)


def _whole(size: tuple[int, ...]) -> Array:
    """Return (N, 5) candidates that show a picture of that width and height whole."""
    middle, half = np.array(size) / 2, np.array(WHOLE)[:, None] * max(size) / 2
    return np.hstack([middle - half, middle + half, np.ones_like(half)]).astype(np.float32)


def _grown(boxes: Array) -> Array:
    """Return boxes twice as large about their centres: the networks move corners by less."""
    half = (boxes[:, 2:4] - boxes[:, :2]) / 2
    return np.column_stack([boxes[:, :2] - half, boxes[:, 2:4] + half])


def _selected(faces: Detections, which: NDArray[Any]) -> Detections:
    """Return some of the faces, by index or mask."""
    return Detections(faces.boxes[which], faces.confidences[which], faces.landmarks[which])


def _joined(faces: Detections, more: Detections) -> Detections:
    """Return faces and those of more that none of them is already."""
    new = [index for index, box in enumerate(more.boxes) if not contained(faces.boxes, box).any()]
    more = _selected(more, np.array(new, np.int64))
    return Detections(
        np.concatenate([faces.boxes, more.boxes]),
        np.concatenate([faces.confidences, more.confidences]),
        np.concatenate([faces.landmarks, more.landmarks]),
    )


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


class MTCNNDetector(PhotoDetector):
    """MTCNN with facenet-pytorch's networks, its traps closed.

    facenet-pytorch counts pixels from one and cuts halves off, so its coordinates are about one
    pixel too large: one pixel of the working resolution is subtracted, unless `one_based` asks
    for them as they are.

    Args:
        settings: only `settings.detection` matters; `one_based` also treats the photo's edges as
            facenet-pytorch does, see `detection.mtcnn.MTCNN`.
        device: where the three networks run; detection on "mps" runs on the CPU, as torch lacks
            an operator there.
    """

    certain = 0.999

    def __init__(self, settings: Settings, device: torch.device) -> None:
        super().__init__(settings)
        self.networks = MTCNN("cpu" if device.type == "mps" else device)
        self._own = threading.local()
        if self.networks.device.type == "cpu":
            keep_freed_buffers()

    def search(self, pixels: Pixels, scale: float) -> Detections:
        """Return what MTCNN finds."""
        # the pyramid is the same whatever `min_face` is: that filters faces and moves none
        finest = float(min(SMALLEST_FACE, self.settings.min_face))
        skipped = self._levels_to_skip(finest, self.settings.min_face * scale)
        with self._own_stream():
            found = self.networks.detect(
                pixels, finest, skip_levels=skipped, clip_windows=self.settings.one_based
            )
        offset = np.float32(0 if self.settings.one_based else 1)
        return Detections(found.boxes - offset, found.confidences, found.landmarks - offset)

    def _own_stream(self) -> AbstractContextManager[object]:
        """Have a GPU not queue this thread's work behind that of the thread that scores."""
        device = self.networks.device
        if device.type != "cuda":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)

    def _levels_to_skip(self, finest: float, wanted: float) -> int:
        """Return how many of the image pyramid's finest levels hold no face that counts.

        Args:
            finest: face size of the finest level, pixels at working resolution.
            wanted: smallest face that counts, pixels at working resolution.
        """
        skipped = 0
        # one finer level than seems needed: the best candidate often comes from there
        while finest / FACTOR ** (skipped + 2) <= wanted:
            skipped += 1
        return skipped
