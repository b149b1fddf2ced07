"""TIFF files written by hand, one strip, as the specification says."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {3: "H", 4: "I", 11: "f", 12: "d"}
"""Types of a tag's values: short, long, float, double."""

Tags = Mapping[int, tuple[int, Sequence[float]]]


def tiff(
    samples: NDArray[Any],
    bits: int,
    photometric: int = 1,
    *,
    order: str = "<",
    tags: Tags | None = None,
) -> bytes:
    """Return a TIFF.

    Args:
        samples: (H, W) or (H, W, C), in [0, 2**bits), signed or floats.
        bits: of a sample.
        photometric: 0 for white as zero, 1 for black as zero, 2 for colours.
        order: of bytes.
        tags: more, type and values by number.
    """
    height, width, *rest = samples.shape
    channels = rest[0] if rest else 1
    data = _packed(samples.reshape(height, -1), bits, order)
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    everything: dict[int, tuple[int, Sequence[float]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels), 259: (3, [1]),
        262: (3, [photometric]), 273: (4, [0]), 277: (3, [channels]), 278: (4, [height]),
        279: (4, [len(data)]), 339: (3, [kind] * channels), **(tags or {}),
    }  # fmt: skip
    first = 8 + 2 + 12 * len(everything) + 4
    longer = b""
    sizes = [struct.calcsize(f"={len(v)}{CODES[k]}") for k, v in everything.values()]
    everything[273] = (4, [first + sum(size for size in sizes if size > 4)])
    rows = b""
    for tag, (kind, values) in sorted(everything.items()):
        raw = struct.pack(f"{order}{len(values)}{CODES[kind]}", *values)
        rows += struct.pack(f"{order}HHI", tag, kind, len(values))
        if len(raw) > 4:
            rows += struct.pack(f"{order}I", first + len(longer))
            longer += raw
        else:
            rows += raw.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = struct.pack(f"{order}IH", 8, len(everything))
    return magic + head + rows + bytes(4) + longer + data


def _packed(rows: NDArray[Any], bits: int, order: str) -> bytes:
    """Return rows of samples as bytes; each row begins with a new one."""
    if bits in (8, 16, 32, 64):
        return rows.astype(f"{order}{rows.dtype.kind}{bits // 8}").tobytes()
    digits = (rows.astype(np.int64)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
