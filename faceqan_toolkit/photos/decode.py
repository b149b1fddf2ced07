"""Decoding of photos to upright 8-bit sRGB pixels, as a viewer shows them."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from faceqan_toolkit.errors import MissingExtra, PhotoError, TooLarge, UnreadablePhoto
from faceqan_toolkit.photos.memory import DecodedImage
from faceqan_toolkit.text import first_line
from faceqan_toolkit.threads import Shared, quiet_opencv
from faceqan_toolkit.types import Photo, PhotoSource, Pixels

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "HEIF")

HEIF_BRANDS = b"heic heix heim heis hevc hevx mif1 msf1 avif avis".split()

NEARLY_BLACK = 16
"""8-bit level; an image of 12-bit samples in 16 bits is below it."""


def decode(source: PhotoSource, *, max_pixels: int, at_least: int = 0) -> Photo:
    """Return a photo, upright, in sRGB; raise PhotoError if it cannot be read.

    Args:
        source: the photo.
        max_pixels: most pixels to decode.
        at_least: least longer side, pixels. A JPEG with two, four or eight times as many is
            decoded at a half, a quarter or an eighth, which saves time and memory; 0 decodes in
            full.
    """
    if isinstance(source.content, DecodedImage):
        return _already_decoded(source, source.content, max_pixels)
    try:
        data, found = source.content.read()
    except MemoryError as error:
        raise TooLarge("not enough memory to read it") from error
    if not data:
        raise UnreadablePhoto("the file is empty")
    state = replace(found, sha256=hashlib.sha256(data).hexdigest())
    try:
        decoded = _decode_safely(data, max_pixels, at_least)
    except PhotoError as error:
        error.state = state
        raise
    if decoded.reduction == 1:
        return Photo(source, decoded.pixels, state, note=decoded.note)
    return Photo(source, decoded.pixels, state, decoded.reduction, decoded.full_size, data)


def _already_decoded(source: PhotoSource, content: DecodedImage, max_pixels: int) -> Photo:
    image, note = content.image, ""
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    _check_pixels(width, height, max_pixels)
    data, state = content.read()
    state = replace(state, sha256=hashlib.sha256(data).hexdigest())
    if isinstance(image, Image.Image):
        image = image.copy()
        _turn_upright(image)
        profile = image.info.get("icc_profile")
        image, note = _in_8_bits(image, SampleFormat())
        image = _pixels(image, profile)
    if 0 in image.shape:
        raise UnreadablePhoto("it has no pixels")
    return Photo(source, image, state, note=note)


def decode_full(photo: Photo) -> Photo:
    """Return a photo that was decoded at a reduced size, in full size; see `decode_bytes`."""
    width, height = photo.size
    return Photo(photo.source, decode_bytes(photo.encoded, max_pixels=width * height), photo.state)


def decode_bytes(data: bytes, *, max_pixels: int) -> Pixels:
    """Return an encoded photo as (H, W, 3) uint8 sRGB, upright; the first of several frames.

    Raises:
        UnreadablePhoto: the format is not supported, or the photo is damaged.
        MissingExtra: HEIC or AVIF without the extra `heif`.
        TooLarge: more than `max_pixels`, or not enough memory.
    """
    return _decode_safely(data, max_pixels, 0).pixels


class _Decoded(NamedTuple):
    pixels: Pixels
    reduction: int = 1
    full_size: tuple[int, int] | None = None
    note: str = ""


def _decode_safely(data: bytes, max_pixels: int, at_least: int) -> _Decoded:
    """Decode; convert any error to a PhotoError."""
    try:
        with _pillow_unlimited:
            return _decode(data, max_pixels, at_least)
    except PhotoError:
        raise
    except UnidentifiedImageError:
        reason = "not a photo in a supported format, or damaged at its start"
        raise UnreadablePhoto(reason) from None
    except MemoryError as error:
        raise TooLarge("not enough memory to decode it") from error
    except Exception as error:  # decoders raise various errors on damaged files
        raise UnreadablePhoto(f"damaged: {first_line(error)}") from error


def _decode(data: bytes, max_pixels: int, at_least: int) -> _Decoded:
    try:
        image = _open(data)
    except UnidentifiedImageError:
        if data[:4] not in (b"II*\0", b"MM\0*"):
            raise
        image, note = _decode_tiff(data, max_pixels)
        return _Decoded(_pixels(image, None), note=note)
    width, height = image.size
    _check_pixels(width, height, max_pixels)
    reduction = _reduce(image, at_least)
    profile = image.info.get("icc_profile")
    image.load()
    stored = SampleFormat(bits=data[24] if image.format == "PNG" else 8)
    if isinstance(image, TiffImageFile):
        stored = _tiff_format(image.tag_v2)
    note = ""
    if _has_lost_bits(image, stored) and (samples := _decode_by_opencv(data)) is not None:
        info = image.info if image.format == "PNG" else {}  # OpenCV rotates TIFFs only
        image, note = _as_image(samples, stored)
        image.info = {name: value for name, value in info.items() if name != "transparency"}
    turned = _turn_upright(image)
    image, scaled = _in_8_bits(image, stored)
    full_size = (height, width) if turned else (width, height)
    return _Decoded(_pixels(image, profile), reduction, full_size, note or scaled)


def _in_8_bits(image: Image.Image, stored: SampleFormat) -> tuple[Image.Image, str]:
    """Return grey images of more than 8 bits in 8, with a note; others as they are."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image, ""
    samples, note = _to_uint8(np.asarray(image), stored)
    return Image.fromarray(samples), note


def _pixels(image: Image.Image, profile: bytes | None) -> Pixels:
    pixels = np.array(_to_rgb(image, profile), dtype=np.uint8)
    if 0 in pixels.shape:
        raise UnreadablePhoto("it has no pixels")
    return pixels


def _reduce(image: Image.Image, at_least: int) -> int:
    """Set the size at which Pillow decodes a JPEG; return the reduction factor."""
    longer = max(image.size)
    if image.format not in ("JPEG", "MPO") or not 0 < at_least <= longer // 2:
        return 1
    width, height = (max(1, side * at_least // longer) for side in image.size)
    image.draft(None, (width, height))  # picks the smallest size that is not below this
    return round(longer / max(image.size))


def _open(data: bytes) -> Image.Image:
    """Open with Pillow, photo formats only; HEIC, and AVIF if needed, through pillow-heif."""
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        if data[4:8] != b"ftyp" or data[8:12] not in HEIF_BRANDS:
            raise
    try:
        import pillow_heif
    except ImportError:
        name = "AVIF" if data[8:11] == b"avi" else "HEIC"
        raise MissingExtra(
            f"{name} photos need an extra: pip install 'faceqan-toolkit[heif]'"
        ) from None
    pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(data), formats=["HEIF"])


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Disable Pillow's limit of pixels, when opening and loading; `max_pixels` takes its place."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


_pillow_unlimited = Shared(_without_pillows_limit)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooLarge(
            f"{width}x{height} has {width * height:,} pixels, --max-pixels is {max_pixels:,}"
        )


def _turn_upright(image: Image.Image) -> bool:
    """Rotate an image as its EXIF orientation says; return whether width and height were swapped.

    Invalid EXIF is ignored. HEIC and AVIF are rotated by their own `irot` and `imir` instead.
    """
    if image.format == "HEIF":  # rotated by the decoder
        return False
    if image.format == "AVIF":  # Pillow reports irot and imir as EXIF orientation
        image.info.pop("xmp", None)
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        ImageOps.exif_transpose(image, in_place=True)  # a copy would double the memory
    except Exception:  # noqa: BLE001 - the pixels are good, whatever the tags are
        return False
    return orientation in (5, 6, 7, 8)


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image of any mode as sRGB, transparency over white."""
    if image.mode in ("PA", "La", "LA") or "transparency" in image.info or image.mode == "RGBa":
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if image.mode not in ("RGB", "CMYK", "L", "LAB"):
        image = image.convert("RGB")
    image = _to_srgb(image, profile).convert("RGB")
    if alpha is None:
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the image converted to sRGB if it has a usable colour profile."""
    if not profile:
        return image
    srgb = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # an invalid profile, or one for other channels; viewers ignore it


def _has_lost_bits(image: Image.Image, stored: SampleFormat) -> bool:
    """Tell whether Pillow lost bits of the samples.

    Of colour images it keeps the highest 8 bits of 16, so samples that do not use all bits become
    nearly black.
    """
    if image.mode not in ("RGB", "RGBA", "LA") or stored.bits <= 8:
        return stored.signed and image.mode == "L"
    extrema: Any = image.getextrema()
    colours = extrema[: 1 if image.mode == "LA" else 3]
    return stored.white > 0 or max(high for _, high in colours) < NEARLY_BLACK


def _decode_tiff(data: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    """Return a TIFF that Pillow does not support, e.g. 32-bit channels, in 8 bits, and a note."""
    file = io.BytesIO(data.ljust(8, b"\0"))  # even of a cut-off header
    tags = ImageFileDirectory_v2(file.read(8))
    file.seek(tags.next)
    tags.load(file)
    if not (tags.get(WIDTH) and tags.get(HEIGHT)):
        raise UnreadablePhoto("a TIFF that does not say its size, or is damaged")
    # OpenCV's own limit is much larger
    _check_pixels(tags[WIDTH], tags[HEIGHT], max_pixels)
    samples = _decode_by_opencv(data)
    if samples is None:
        raise UnreadablePhoto("not a TIFF that can be read, or damaged")
    return _as_image(samples, _tiff_format(tags))


def _decode_by_opencv(data: bytes) -> np.ndarray[Any, Any] | None:
    """Return (H, W) or (H, W, C) samples of any type; None if OpenCV cannot decode them.

    Samples of 10, 12 or 14 bits are in the highest bits of 16. TIFFs are upright.
    """
    import cv2

    with quiet_opencv:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def _as_image(samples: np.ndarray[Any, Any], stored: SampleFormat) -> tuple[Image.Image, str]:
    """Return OpenCV's samples as an image in 8 bits, and a note."""
    if 8 < stored.bits < 16:
        stored = replace(stored, bits=16, white=65535)
    if samples.ndim == 2:
        scaled, note = _to_uint8(samples, stored)
        return Image.fromarray(scaled), note
    colours, note = _to_uint8(samples[..., :3], stored)
    alpha, _ = _to_uint8(samples[..., 3:], stored)
    # OpenCV's order is blue, green, red
    return Image.fromarray(np.concatenate([colours[..., ::-1], alpha], axis=2)), note


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


def _tiff_format(tags: Mapping[int, Any]) -> SampleFormat:
    """Return the sample format in a TIFF's tags; of several values the first counts."""
    first = {
        tag: value[0] if isinstance(value, tuple) and value else value
        for tag, value in tags.items()
    }
    bits = min(int(first.get(BITS) or 1), 64)
    white = 0 if bits in (8, 16, 32, 64) else 2**bits - 1
    for tag in (LARGEST, SAMPLE_LARGEST):
        # some programs write the largest value in the image, which is not the white
        white = next((2**n - 1 for n in range(8, bits) if first.get(tag) == 2**n - 1), white)
    return SampleFormat(bits, first.get(FORMAT) == 2, first.get(PHOTOMETRIC) == 0, white)


def _to_uint8(samples: NDArray[Any], stored: SampleFormat) -> tuple[Pixels, str]:
    """Return samples as 8 bits with zero as black, and a note if their white had to be guessed.

    If the file does not state its white, the largest value decides, see `WHITES`; for floats up to
    2 the white is 1. 16-bit samples that are all multiples of 256 or of 257 use all 16 bits.
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
        if white != usual == 65535 and any(not (samples % step).any() for step in (256, 257)):
            white = usual  # expanded from 8 bits
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
