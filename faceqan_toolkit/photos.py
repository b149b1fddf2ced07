"""Find photos and decode them: the only place that opens an image."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from faceqan_toolkit.errors import (
    MissingExtra,
    PhotoError,
    SettingsError,
    TooLarge,
    UnreadablePhoto,
)
from faceqan_toolkit.files import absolute, is_folder
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.process_wide import Shared, quiet_opencv
from faceqan_toolkit.sources.archives import (
    ARCHIVE_EXTENSIONS,
    ArchiveOptions,
    expand,
    is_archive,
)
from faceqan_toolkit.sources.base import Inside
from faceqan_toolkit.sources.local import LocalFile
from faceqan_toolkit.sources.locate import locate
from faceqan_toolkit.sources.names import PHOTO_EXTENSIONS, extension
from faceqan_toolkit.sources.remote import RemoteFile, expand_url, is_url
from faceqan_toolkit.types import Photo, PhotoSource, Pixels
from faceqan_toolkit.wording import first_line, reason_of

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "HEIF")

HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
)


def find_photos(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    stdin: IO[bytes] | None = None,
    options: ArchiveOptions | None = None,
) -> Iterator[PhotoSource]:
    """Yield the photos of all inputs, each once, folders sorted.

    Args:
        inputs: folders (searched recursively for `PHOTO_EXTENSIONS`), files, archives and videos
            (whose photos and frames are taken), glob patterns, URLs, `@list` (a text file of such
            inputs, one a line) or `-` (the same from standard input).
        stdin: in place of the process's standard input.
        options: how archives are read.

    Raises:
        SettingsError: an input that does not exist, a pattern without a match, a folder that has
            archives and no photos, or two photos that would have the same path in the results.
        MissingDependency: URLs need a package that is not installed.
    """
    roots: dict[str, str] = {}
    places: set[str] = set()
    for source in stream_photos(inputs, stdin=stdin, options=options):
        if source.place in places:
            continue
        places.add(source.place)
        root = roots.setdefault(source.path, source.root)
        if root != source.root:
            raise SettingsError(
                f"{source.path!r} exists below {root} and below {source.root}; give a common "
                "parent folder, so that their paths differ"
            )
        yield source


def stream_photos(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    stdin: IO[bytes] | None = None,
    options: ArchiveOptions | None = None,
) -> Iterator[PhotoSource]:
    """Yield the photos of all inputs as `find_photos` does, but keep none in mind.

    So one that is given twice comes twice, and several may have the same path: `todo.Todo` sees
    to that.
    """
    options = options or ArchiveOptions()
    for given in inputs:
        text = os.fspath(given)
        if text == "-":
            data = (stdin or sys.stdin.buffer).read()
            yield from _listed(data, Path.cwd(), options)
        elif text.startswith("@") and not os.path.lexists(text):
            listing = Path(text[1:])
            try:
                data = listing.read_bytes()
            except OSError as error:
                raise SettingsError(f"{text}: {reason_of(error)}") from error
            yield from _listed(data, listing.absolute().parent, options)
        elif os.path.lexists(text):
            yield from _existing(text, options)
        elif is_url(text):
            yield from _remote(text, options)
        elif glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute ones
            if not matches:
                raise SettingsError(f"{text}: nothing matches")
            # `**` also matches the folders on the way; what lies in them matches by itself
            plain = [match for match in matches if not Path(match).is_dir()] or matches
            for match in plain:
                yield from _existing(match, options)
        elif isinstance(locate("", text.replace(os.sep, "/")).content, Inside):
            yield from _existing(text, options)
        else:
            raise SettingsError(f"{text}: no such file or folder")


def _listed(data: bytes, base: Path, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield the photos of a list: lines, or texts ended by NUL if there is one (find -print0)."""
    lines = data.split(b"\0") if b"\0" in data else data.removeprefix(b"\xef\xbb\xbf").splitlines()
    for line in lines:
        if not line.strip() or line.startswith(b"#"):
            continue
        text = os.fsdecode(line)
        if is_url(text):
            yield from _remote(text, options)
            continue
        beside = base / text
        # lists are written relative to themselves or to where they are used
        yield from _existing(os.fspath(beside) if os.path.lexists(beside) else text, options)


def _existing(text: str, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield a folder's photos, an archive's, or the one file or member that a text names.

    What is gone gets its record later.
    """
    path = absolute(text)
    if is_folder(path):
        yield from _walk(path)
        return
    here = Path.cwd()
    root = here if path.is_relative_to(here) else Path(path.anchor)
    source = _below(root, path)
    if isinstance(source.content, LocalFile) and is_archive(path.name):
        yield from expand(source.root, source.path, source.content, options)
    else:
        yield source


def _remote(url: str, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield the photos a URL means: a file, an archive, those below a folder."""
    archives = found = 0
    for root, name, is_named in expand_url(url):
        path = path_text(name)
        source = locate(path_text(root), path)
        if is_named and isinstance(source.content, RemoteFile) and is_archive(source.content.name):
            yield from expand(source.root, path, source.content, options)
        elif is_named or extension(name) in PHOTO_EXTENSIONS:
            found += 1
            yield source
        elif extension(name) in ARCHIVE_EXTENSIONS:
            archives += 1
    if archives and not found:
        raise SettingsError(_only_archives(url, archives, f"{url.rstrip('/')}/*.tar"))


def _only_archives(folder: str | Path, archives: int, example: str) -> str:
    return (
        f"{folder} holds no photos, but {archives:,} archives or videos, which are read only when "
        f"they are given themselves, as in '{example}'"
    )


def _walk(root: Path) -> Iterator[PhotoSource]:
    """Yield the photos below a folder, by name, every real folder once."""
    physical = {_identity(root)}
    pending = [root]
    while pending:  # folders that are not links have precedence over links to them
        for entry in _entries(pending.pop())[0]:
            if entry.is_dir(follow_symlinks=False):
                physical.add(_identity(entry.path))
                pending.append(Path(entry.path))
    visited: set[tuple[int, int]] = set()
    archives: list[Path] = []

    def walk(folder: Path) -> Iterator[PhotoSource]:
        entries, readable = _entries(folder)
        if not readable:
            yield _below(root, folder)
        for entry in entries:
            path = Path(entry.path)
            if path.suffix.lower() in PHOTO_EXTENSIONS:
                yield _below(root, path)
            elif path.suffix.lower() in ARCHIVE_EXTENSIONS:
                archives.append(path)
            if not _is_dir(entry):
                continue
            identity = _identity(path)
            linked = entry.is_symlink()
            if identity in visited or (linked and identity in physical):
                continue
            visited.add(identity)
            yield from walk(path)

    visited.add(_identity(root))
    found = False
    for source in walk(root):
        found = True
        yield source
    if not found and archives:
        example = archives[0].with_name(f"*{archives[0].suffix}")
        raise SettingsError(_only_archives(root, len(archives), str(example)))


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], bool]:
    """Return a folder's entries by name, hidden ones left out, and whether it could be read."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError:
        return [], False
    return sorted(entries, key=lambda entry: entry.name), True


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # links that go in circles


def _identity(path: str | Path) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return (-1, -1)
    return found.st_dev, found.st_ino


def _below(root: Path, path: Path) -> PhotoSource:
    return locate(path_text(root), path_text(path.relative_to(root)))


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
            f"{width}x{height} is {width * height / 1e6:.1f} megapixels, "
            f"--max-pixels is {max_pixels:,}"
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
