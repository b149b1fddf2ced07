"""The MTCNN cascade with facenet-pytorch's networks, made faster.

Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks", IEEE Signal Processing Letters, 2016; networks and weights of
facenet-pytorch 2.5.3.

Pyramid levels and large windows are resized, as uint8, from copies at half the size, a quarter and
so on. On a CPU, threads share the work in pieces of a fixed size, so results do not depend on the
number of threads.

facenet-pytorch clips a window that crosses the image's edge and stretches the rest to a square,
which moves the landmarks of cut-off faces outwards, and it finds no face larger than the image.
Here such windows keep their shape and are filled with grey, and large faces are also searched
beyond the edges. Other faces are the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from faceqan_toolkit.detection.base import (
    SMALLEST_FACE,
    Array,
    PhotoDetector,
    best,
    contained,
    distinct,
    halved,
    join,
    select,
)
from faceqan_toolkit.detection.mtcnn_networks import (
    CELL,
    STRIDE,
    ProposalNet,
    WindowNet,
    normalised,
    stripes,
)
from faceqan_toolkit.hardware import keep_freed_buffers, serial_workers
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Detections, Pixels

FACTOR = 0.709
"""Scale from one pyramid level to the next; half the area."""
BILINEAR_LIMIT = 1.5
"""Reduction above which pyramid levels are resized by area averaging. Bilinear sampling is several
times faster, but would skip pixels and so the smallest faces."""
ENOUGH = 3
"""Windows are cut from the smallest copy of the image where they are this many times as large as
the network's input; rounding to whole pixels moves them by 0.7 % at most."""
THRESHOLDS = (0.6, 0.7, 0.7)

FILL = (127.5,) * 3
"""Colour beyond the image's edges, the zero of the networks' input. With black more cut-off faces
are lost and landmarks are less exact, see `benchmarks/edges.py`."""
MARGIN = 6
"""Width of the grey border of the pyramid levels for faces beyond the edges, pixels: half of
`CELL`, and a multiple of `STRIDE`."""
LARGE_SHARE = 1 / 3
"""Least size of faces that are searched beyond the edges, relative to the image's shorter side.
Their pyramid levels are tiny."""
WHOLE = (0.9, 1.1, 1.3, 1.5)
"""Sides of additional centred windows, relative to the image's longer side. P-Net often misses a
face that fills the whole image."""
CPU_PIXELS, GPU_PIXELS = 1 << 16, 1 << 20
"""Pixels per call of a network: as many as fit the processor's cache, or fill a GPU."""


class Accepted(NamedTuple):
    """The accepted candidates.

    Attributes:
        boxes: (N, 5), corners and score.
        offsets: (N, 4), regression of the corners, in units of the box's sides.
        points: (N, 10) landmarks, five x then five y, in units of the box's sides; from O-Net only.
    """

    boxes: Array
    offsets: Array
    points: Array


NOTHING = Accepted(*(np.empty((0, columns), np.float32) for columns in (5, 4, 10)))


class MTCNN:
    """The cascade: P-Net on an image pyramid, then R-Net and O-Net on its candidates."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._proposal = ProposalNet(self.device)
        self._refinement = WindowNet("rnet", size=24, pools=(3, 3, 0), device=self.device)
        self._output = WindowNet("onet", size=48, pools=(3, 3, 2, 0), device=self.device)
        on_cpu = self.device.type == "cpu"
        # with one thread, several calling threads must not share a pool of one
        shared_out = on_cpu and torch.get_num_threads() > 1
        self._map = serial_workers().map if shared_out else map
        self._pixels = CPU_PIXELS if on_cpu else GPU_PIXELS

    def detect(
        self, pixels: Pixels, smallest: float, skip_levels: int = 0, *, clip_windows: bool = False
    ) -> Detections:
        """Return the faces of an image in one-based coordinates.

        Args:
            pixels: (H, W, 3) uint8, RGB.
            smallest: face size of the finest pyramid level, pixels.
            skip_levels: number of the finest levels to skip.
            clip_windows: treat the image's edges as facenet-pytorch does.
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
        inner = select(found, ~_crosses_edge(windows, size))
        new = [not contained(inner.boxes, box).any() for box in again.boxes]
        return join(inner, select(again, np.array(new, np.bool_)))

    def _refine(
        self, halves: list[Pixels], candidates: Array, *, filled: bool
    ) -> tuple[Detections, Array]:
        """Return the faces among candidates, and the (N, 4) windows that O-Net found them in."""
        boxes, offsets, _ = self._classify_all(
            self._refinement, halves, candidates, THRESHOLDS[1], filled
        )
        kept = best(boxes[:, :4], boxes[:, 4], 0.7)
        boxes = _squared(_moved(boxes[kept], offsets[kept], extent=1))
        windows, offsets, points = self._classify_all(
            self._output, halves, boxes, THRESHOLDS[2], filled
        )
        sides = windows[:, 2:4] - windows[:, :2] + 1
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None]
        landmarks = landmarks + windows[:, None, :2] - 1
        boxes = _moved(windows, offsets, extent=1)
        final = distinct(boxes)
        faces = Detections(boxes[final, :4], boxes[final, 4], landmarks[final])
        return faces, windows[final, :4]

    def _propose(self, levels: Iterable[tuple[float, Pixels]], margin: int = 0) -> Array:
        """Return (N, 5) square candidates from pyramid levels with a border of `margin` pixels."""
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
            return level, np.column_stack([boxes, scores, offsets]).astype(np.float32)

        found = [(0, np.empty((0, 9), np.float32)), *self._map(search, pieces())]
        kept = []
        for number in range(max(1, len(scales))):
            boxes = np.concatenate([boxes for level, boxes in found if level == number])
            kept.append(boxes[best(boxes[:, :4], boxes[:, 4], 0.5)])
        candidates = np.concatenate(kept)
        candidates = candidates[best(candidates[:, :4], candidates[:, 4], 0.7)]
        return _squared(_moved(candidates[:, :5], candidates[:, 5:], extent=0))

    def _classify_all(
        self, network: WindowNet, halves: list[Pixels], boxes: Array, threshold: float, filled: bool
    ) -> Accepted:
        """Return the (N, 5) candidates that a network scores above a threshold; see `_cut`."""
        batch = self._pixels // (2 * network.size**2)  # their feature maps are larger than P-Net's

        def classify(start: int) -> Accepted:
            some = boxes[start : start + batch]
            kept, cuts = _cut(halves, some, network.size, filled)
            if not cuts:
                return NOTHING
            with torch.inference_mode():
                windows = normalised(torch.from_numpy(np.stack(cuts)).to(self.device))
                scores, offsets, *landmarks = (part.cpu().numpy() for part in network(windows))
            accepted = scores > threshold
            return Accepted(
                np.column_stack([some[kept, :4], scores])[accepted],
                offsets[accepted],
                landmarks[0][accepted] if landmarks else NOTHING.points,
            )

        accepted = [NOTHING, *self._map(classify, range(0, len(boxes), batch))]
        return Accepted(*(np.concatenate(parts) for parts in zip(*accepted, strict=True)))


def _halves(pixels: Pixels) -> list[Pixels]:
    """Return an image and its copies at half the size, a quarter, and so on."""
    halves = [pixels]
    while min(halves[-1].shape[:2]) >= 2 * CELL:
        halves.append(halved(halves[-1]))
    return halves


def _pyramid(
    halves: list[Pixels], smallest: float, *, margin: int = 0
) -> Iterator[tuple[float, Pixels]]:
    """Yield the pyramid levels of an image (see `_halves`) with their scales, finest first.

    Args:
        halves: the image.
        smallest: face size that fills one `CELL` in the finest level, pixels.
        margin: width of a grey border, pixels. With 0 the coarsest level still holds one `CELL`.
            With a border there are only levels for large faces, up to 1.5 times the image's
            shorter side.
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
    """Return the indices of the boxes that overlap the image, and their pixels as squares.

    Args:
        halves: the image, see `_halves`.
        boxes: (N, 4 or 5) corners, one-based.
        size: side of the squares, pixels.
        filled: fill boxes with grey beyond the image's edges; otherwise clip and stretch them.
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
        if region.size:  # not too thin for the reduced copy
            resized = cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA)
            kept.append(index)
            cuts.append(np.asarray(resized, np.uint8))
    return kept, cuts


def _region(picture: Pixels, x1: int, y1: int, x2: int, y2: int) -> Pixels:
    """Return a part of an image, grey beyond its edges; empty if it is completely outside."""
    height, width = picture.shape[:2]
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    region = picture[top:bottom, left:right]
    if region.size == 0 or (left, top, right, bottom) == (x1, y1, x2, y2):
        return region
    return _bordered(region, top - y1, y2 - bottom, left - x1, x2 - right)


def _bordered(picture: Pixels, top: int, bottom: int, left: int, right: int) -> Pixels:
    """Return an image with a border of `FILL`; widths in pixels."""
    wider = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=FILL)
    return np.asarray(wider, np.uint8)


def _crosses_edge(boxes: Array, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return (N,) whether boxes reach beyond an image of a width and height."""
    low, high = boxes[:, :2].astype(int), boxes[:, 2:4].astype(int)
    return np.asarray(((low < 1) | (high > size)).any(axis=1), np.bool_)


def _whole(size: tuple[int, ...]) -> Array:
    """Return the (N, 5) candidates of `WHOLE` for an image of a width and height."""
    middle, half = np.array(size) / 2, np.array(WHOLE)[:, None] * max(size) / 2
    return np.hstack([middle - half, middle + half, np.ones_like(half)]).astype(np.float32)


def _grown(boxes: Array) -> Array:
    """Return boxes at twice the size, which bounds how far the networks move corners."""
    half = (boxes[:, 2:4] - boxes[:, :2]) / 2
    return np.column_stack([boxes[:, :2] - half, boxes[:, 2:4] + half])


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
    """MTCNN in zero-based coordinates.

    facenet-pytorch counts pixels from one and cuts halves off, so its coordinates are about one
    pixel too large: one pixel of the working resolution is subtracted. With `one_based`
    coordinates and the photo's edges are as in facenet-pytorch. "mps" detects on the CPU, as torch
    lacks an operator there.
    """

    certain = 0.999

    def __init__(self, settings: Settings, device: torch.device) -> None:
        super().__init__(settings)
        self.networks = MTCNN("cpu" if device.type == "mps" else device)
        self._own = threading.local()
        if self.networks.device.type == "cpu":
            keep_freed_buffers()

    def search(self, pixels: Pixels, scale: float) -> Detections:
        """Return MTCNN's faces."""
        # `min_face` only filters faces: the pyramid's other levels are the same for any value
        finest = float(min(SMALLEST_FACE, self.settings.min_face))
        skipped = 0  # finest levels, with faces below `min_face` only
        # one finer level than seems needed: the best candidate often comes from there
        while finest / FACTOR ** (skipped + 2) <= self.settings.min_face * scale:
            skipped += 1
        with self._own_stream():
            found = self.networks.detect(
                pixels, finest, skip_levels=skipped, clip_windows=self.settings.one_based
            )
        offset = np.float32(0 if self.settings.one_based else 1)
        return Detections(found.boxes - offset, found.confidences, found.landmarks - offset)

    def _own_stream(self) -> AbstractContextManager[object]:
        """Keep a GPU from queueing this thread's work behind that of the thread that scores."""
        device = self.networks.device
        if device.type != "cuda":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)
