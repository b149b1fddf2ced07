"""Photos as a viewer would show them: the only place that opens an image."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from faceqan_toolkit.errors import MissingExtra, PhotoError, TooLarge, UnreadablePhoto
from faceqan_toolkit.process_wide import Shared, quiet_opencv
from faceqan_toolkit.types import Photo, PhotoSource, Pixels
from faceqan_toolkit.wording import first_line

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "HEIF")

HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
)


def decode(source: PhotoSource, *, max_pixels: int, at_least: int = 0) -> Photo:
    """Return a photo as a viewer would show it.

    Args:
        source: the photo.
        max_pixels: a photo with more is not decoded.
        at_least: pixels its longer side must keep. A JPEG with twice, four or eight times as many
            is decoded at a half, a quarter or an eighth, for a fraction of the time and memory;
            0 decodes in full.

    Raises:
        PhotoError: it cannot be read; the class says why.
    """
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
        return Photo(source, decoded.pixels, state)
    return Photo(source, decoded.pixels, state, decoded.reduction, decoded.full_size, data)


def decode_full(photo: Photo) -> Photo:
    """Return a photo that was decoded smaller, in its own size.

    Raises:
        UnreadablePhoto, TooLarge: see `decode_bytes`.
    """
    width, height = photo.size
    return Photo(photo.source, decode_bytes(photo.encoded, max_pixels=width * height), photo.state)


def decode_bytes(data: bytes, *, max_pixels: int) -> Pixels:
    """Return an encoded photo as (H, W, 3) uint8 sRGB, upright; of several frames the first.

    Raises:
        UnreadablePhoto: no photo in a supported format, or a damaged one.
        MissingExtra: HEIC or AVIF, and the extra `heif` is not installed.
        TooLarge: more than `max_pixels`, or more than memory holds.
    """
    return _decode_safely(data, max_pixels, 0).pixels


class _Decoded(NamedTuple):
    pixels: Pixels
    reduction: int = 1
    full_size: tuple[int, int] | None = None


def _decode_safely(data: bytes, max_pixels: int, at_least: int) -> _Decoded:
    """Decode; whatever goes wrong becomes a PhotoError."""
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
    except Exception as error:  # decoders raise anything on damaged files
        raise UnreadablePhoto(f"damaged: {first_line(error)}") from error


def _decode(data: bytes, max_pixels: int, at_least: int) -> _Decoded:
    try:
        image = _open(data)
    except UnidentifiedImageError:
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _Decoded(_decode_tiff(data, max_pixels))
        raise
    width, height = image.size
    _check_pixels(width, height, max_pixels)
    reduction = _reduce(image, at_least)
    profile = image.info.get("icc_profile")
    turned = _turn_upright(image)
    pixels = np.array(_to_rgb(image, profile), dtype=np.uint8)
    if 0 in pixels.shape:
        raise UnreadablePhoto("it has no pixels")
    return _Decoded(pixels, reduction, (height, width) if turned else (width, height))


def _reduce(image: Image.Image, at_least: int) -> int:
    """Have a JPEG decoded smaller, if it may be; return how many times."""
    longer = max(image.size)
    if image.format not in ("JPEG", "MPO") or not 0 < at_least <= longer // 2:
        return 1
    width, height = (max(1, side * at_least // longer) for side in image.size)
    image.draft(None, (width, height))  # the smallest that is not below this size
    return round(longer / max(image.size))


def _open(data: bytes) -> Image.Image:
    """Open with Pillow, formats of photos only; HEIC and AVIF through pillow-heif if need be."""
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
    """Lift Pillow's own limit in pixels: ours was checked before.

    It is a global, looked at when Pillow opens and, for some formats, when it loads. The same goes
    for warnings, which nobody sees meanwhile: people get a record.
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
    """Turn a picture as its EXIF orientation says; broken EXIF turns nothing.

    Returns:
        Whether width and height changed places.
    """
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        ImageOps.exif_transpose(image, in_place=True)  # a copy would double the memory
    except Exception:  # noqa: BLE001 - the pixels are good, whatever the tags are
        return False
    return orientation in (5, 6, 7, 8)


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return any mode as RGB in sRGB, transparency over white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_uint8(np.asarray(image))).convert("RGB")
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
    """Return the picture in sRGB if it carries a colour profile that fits it."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile, or one for other channels: viewers ignore it
    return converted if converted is not None else image


def _to_uint8(values: np.ndarray[Any, Any]) -> Pixels:
    """Return samples of any type as 8 bits: 16-bit ones scaled, floats in [0, 1] or 0..255."""
    if values.dtype == np.uint8:
        return values
    finite = np.nan_to_num(values.astype(np.float64))
    top = finite.max(initial=0)
    if values.dtype == np.uint16 or (np.issubdtype(values.dtype, np.integer) and top > 255):
        finite = finite / 257
    elif np.issubdtype(values.dtype, np.floating) and top <= 1:
        finite = finite * 255
    scaled: Pixels = np.rint(finite.clip(0, 255)).astype(np.uint8)
    return scaled


def _decode_tiff(data: bytes, max_pixels: int) -> Pixels:
    """Return a TIFF that Pillow does not know, 16 bits a channel for instance, by OpenCV."""
    import cv2

    _check_pixels(*_tiff_size(data), max_pixels)  # OpenCV has limits of its own, much larger
    with quiet_opencv:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise UnreadablePhoto("not a TIFF that can be read, or damaged")
    samples = _to_uint8(decoded)
    if samples.ndim == 2:
        return np.ascontiguousarray(np.repeat(samples[..., None], 3, axis=2))
    if samples.shape[2] == 4:
        alpha = samples[..., 3:].astype(np.float64) / 255
        opaque = samples[..., :3] * alpha + 255 * (1 - alpha)
        samples = np.rint(opaque).astype(np.uint8)
    rgb: Pixels = np.ascontiguousarray(samples[..., ::-1])
    return rgb


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a TIFF's first picture, as its directory says them."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    start, found = number(4, 4), {}
    for at in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        # two bytes of a tag, two of a type, four of a count; short values stand first in their four
        found[number(at, 2)] = number(at + 8, 2 if number(at + 2, 2) == 3 else 4)
    if not (found.get(256) and found.get(257)):
        raise UnreadablePhoto("a TIFF that does not say its size, or is damaged")
    return found[256], found[257]
