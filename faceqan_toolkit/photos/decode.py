"""Decoding of photos to upright sRGB pixels, as a viewer shows them. All images are opened here."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from faceqan_toolkit.errors import MissingExtra, PhotoError, TooLarge, UnreadablePhoto
from faceqan_toolkit.hardware import Shared, quiet_opencv
from faceqan_toolkit.photos.bit_depth import (
    HEIGHT,
    WIDTH,
    SampleFormat,
    read_tiff_tags,
    tiff_format,
    to_uint8,
)
from faceqan_toolkit.photos.memory import DecodedImage
from faceqan_toolkit.text import first_line
from faceqan_toolkit.types import Photo, PhotoSource, Pixels

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "HEIF")

HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
)

NEARLY_BLACK = 16
"""8-bit level; an image of 12-bit samples in 16 bits is below it."""


def decode(source: PhotoSource, *, max_pixels: int, at_least: int = 0) -> Photo:
    """Return a photo, upright, in sRGB.

    Args:
        source: the photo.
        max_pixels: most pixels to decode.
        at_least: least longer side, pixels. A JPEG with two, four or eight times as many is
            decoded at a half, a quarter or an eighth, which saves time and memory; 0 decodes in
            full.

    Raises:
        PhotoError: the photo cannot be read; the class says why.
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
    image = content.image
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    _check_pixels(width, height, max_pixels)
    data, state = content.read()
    state = replace(state, sha256=hashlib.sha256(data).hexdigest())
    if not isinstance(image, Image.Image):
        if 0 in image.shape:
            raise UnreadablePhoto("it has no pixels")
        return Photo(source, image, state)
    image = image.copy()
    _turn_upright(image)
    pixels, note = _in_8_bits(image, SampleFormat())
    return Photo(source, _pixels(pixels, image.info.get("icc_profile")), state, note=note)


def decode_full(photo: Photo) -> Photo:
    """Return a photo that was decoded at a reduced size, in full size.

    Raises:
        UnreadablePhoto, TooLarge: see `decode_bytes`.
    """
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
        raise UnreadablePhoto(
            "not a photo in a supported format, or damaged at its start"
        ) from None
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
    stored = _sample_format(image, data)
    note = ""
    if _has_lost_bits(image, stored):
        image, note = _decode_all_bits(image, data, stored)
    turned = _turn_upright(image)
    image, scaled = _in_8_bits(image, stored)
    full_size = (height, width) if turned else (width, height)
    return _Decoded(_pixels(image, profile), reduction, full_size, note or scaled)


def _in_8_bits(image: Image.Image, stored: SampleFormat) -> tuple[Image.Image, str]:
    """Return grey images of more than 8 bits in 8, with a note; others as they are."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image, ""
    samples, note = to_uint8(np.asarray(image), stored)
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
    formats = [name for name in FORMATS if name in _registered()]
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        if data[4:8] != b"ftyp" or data[8:12] not in HEIF_BRANDS:
            raise
    name = "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIC"
    try:
        import pillow_heif
    except ImportError:
        raise MissingExtra(
            f"{name} photos need an extra: pip install 'faceqan-toolkit[heif]'"
        ) from None
    pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(data), formats=["HEIF"])


def _registered() -> Iterable[str]:
    Image.init()
    return Image.OPEN


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Disable Pillow's limit of pixels and its warnings, which are process-wide.

    `max_pixels` is checked instead. Pillow checks its limit when it opens an image and, for some
    formats, when it loads one.
    """
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
    """Rotate an image as its EXIF orientation says; invalid EXIF is ignored.

    HEIC and AVIF are rotated by their own `irot` and `imir`; EXIF and XMP orientations are ignored.

    Returns:
        Whether width and height were swapped.
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
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        return white
    return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the image converted to sRGB if it has a usable colour profile."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # an invalid profile, or one for other channels; viewers ignore it
    return converted if converted is not None else image


def _sample_format(image: Image.Image, data: bytes) -> SampleFormat:
    """Return the sample format of a file, which Pillow's mode does not show."""
    if isinstance(image, TiffImageFile):
        return tiff_format(image.tag_v2)
    return SampleFormat(bits=data[24] if image.format == "PNG" else 8)


def _has_lost_bits(image: Image.Image, stored: SampleFormat) -> bool:
    """Tell whether Pillow lost bits of the samples.

    Of colour images it keeps the highest 8 bits of 16, so samples that do not use all bits become
    nearly black.
    """
    if stored.signed and image.mode == "L":
        return True
    if image.mode not in ("RGB", "RGBA", "LA") or stored.bits <= 8:
        return False
    extrema: Any = image.getextrema()
    colours = extrema[: 1 if image.mode == "LA" else 3]
    return stored.white > 0 or max(high for _, high in colours) < NEARLY_BLACK


def _decode_all_bits(
    image: Image.Image, data: bytes, stored: SampleFormat
) -> tuple[Image.Image, str]:
    """Return an image decoded from all bits of its samples, and a note; see `to_uint8`."""
    samples = _decode_by_opencv(data)
    if samples is None:
        return image, ""
    whole, note = _as_image(samples, stored)
    if image.format == "PNG":  # OpenCV rotates TIFFs only
        whole.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return whole, note


def _decode_tiff(data: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    """Return a TIFF that Pillow does not support, e.g. 32-bit channels, in 8 bits, and a note."""
    tags = read_tiff_tags(data)
    if not (tags.get(WIDTH) and tags.get(HEIGHT)):
        raise UnreadablePhoto("a TIFF that does not say its size, or is damaged")
    # OpenCV's own limit is much larger
    _check_pixels(tags[WIDTH], tags[HEIGHT], max_pixels)
    samples = _decode_by_opencv(data)
    if samples is None:
        raise UnreadablePhoto("not a TIFF that can be read, or damaged")
    return _as_image(samples, tiff_format(tags))


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
        grey, note = to_uint8(samples, stored)
        return Image.fromarray(grey), note
    colours, note = to_uint8(samples[..., :3], stored)
    alpha, _ = to_uint8(samples[..., 3:], stored)
    # OpenCV's order is blue, green, red
    return Image.fromarray(np.concatenate([colours[..., ::-1], alpha], axis=2)), note
