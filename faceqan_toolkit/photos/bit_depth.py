"""Conversion of images with more than 8 bits per sample to 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import UnreadablePhoto
from faceqan_toolkit.types import Pixels

WIDTH, HEIGHT, BITS, PHOTOMETRIC = 256, 257, 258, 262
LARGEST, FORMAT, SAMPLE_LARGEST = 281, 339, 341
"""TIFF tag numbers."""

WHITES = {255: 1, 1023: 973, 4095: 256, 65535: 4096}
"""White of 8, 10, 12 and 16-bit samples, and the least maximum from which it is assumed.

10 bits are assumed only near their maximum, as a dark 12-bit image can have the same values. 14
bits are never assumed, as any dark 16-bit image can have the same values.
"""


@dataclass(frozen=True)
class SampleFormat:
    """Format of a file's samples.

    Attributes:
        bits: bits per sample.
        signed: whether samples are signed; negative values are black.
        inverted: whether zero is white.
        white: largest possible value; 0 if the file does not state it.
    """

    bits: int = 16
    signed: bool = False
    inverted: bool = False
    white: int = 0


def tiff_format(tags: Mapping[int, Any]) -> SampleFormat:
    """Return the sample format in a TIFF's tags; of several values the first counts."""
    first = {tag: _first(value) for tag, value in tags.items()}
    bits = min(int(first.get(BITS) or 1), 64)
    white = 0 if bits in (8, 16, 32, 64) else 2**bits - 1
    for tag in (LARGEST, SAMPLE_LARGEST):
        # some programs write the largest value in the image, which is not the white
        white = next((2**n - 1 for n in range(8, bits) if first.get(tag) == 2**n - 1), white)
    return SampleFormat(bits, first.get(FORMAT) == 2, first.get(PHOTOMETRIC) == 0, white)


def read_tiff_tags(data: bytes) -> dict[int, int]:
    """Return the first value of each integer tag of a TIFF's first image."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    start, found = number(4, 4), {}
    for at in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        # an entry: 2 bytes tag, 2 type, 4 count, 4 values or their offset
        size = {3: 2, 4: 4}.get(number(at + 2, 2), 0)
        place = at + 8 if size * number(at + 4, 4) <= 4 else number(at + 8, 4)
        if size:
            found[number(at, 2)] = number(place, size)
    return found


def to_uint8(samples: NDArray[Any], stored: SampleFormat) -> tuple[Pixels, str]:
    """Return samples as 8 bits with zero as black.

    If the file does not state its white, the largest value decides, see `WHITES`; for floats up to
    2 the white is 1. 16-bit samples that are all multiples of 256 or of 257 use all 16 bits.

    Returns:
        The samples, and a note for people if the white was guessed from the values.

    Raises:
        UnreadablePhoto: floats above 65535.
    """
    if samples.dtype == np.uint8:
        return samples, ""
    if samples.dtype == np.int32 and stored.bits == 32 and not stored.signed:
        samples = samples.view(np.uint32)
    floats = samples.dtype.kind == "f"
    values = samples.astype(np.float32)
    values[np.isnan(values)] = 0
    largest = float(values.max(initial=0, where=np.isfinite(values)))
    usual = 1 if floats else 2 ** (stored.bits - stored.signed) - 1
    white: float = stored.white if stored.white >= largest else 0
    note = ""
    if not white:
        white = _likely_white(largest, floats, usual)
        if white != usual and usual == 65535 and _are_expanded(samples):
            white = usual
        if white != usual:
            note = f"taken for values from 0 to {white:g}, as none is above {largest:g}"
    values *= 255 / white
    scaled: Pixels = np.rint(values.clip(0, 255, out=values), out=values).astype(np.uint8)
    return (255 - scaled if stored.inverted else scaled), note


def _likely_white(largest: float, floats: bool, usual: int) -> float:
    """Return the most likely white of samples of unknown range."""
    if largest <= (2 if floats else 0):
        return usual
    for white, start in WHITES.items():
        if start <= largest <= white and (floats or white < usual):
            return white
    if floats:
        raise UnreadablePhoto(
            f"floating-point samples up to {largest:g}; a photo has its white at 1, 255 or 65535"
        )
    return usual


def _are_expanded(samples: NDArray[Any]) -> bool:
    """Tell whether 16-bit samples were expanded from 8 bits."""
    return any(not (samples % step).any() for step in (256, 257))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value
