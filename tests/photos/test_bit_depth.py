"""Pictures of any bit depth come as viewers show them, or brightened and with a note."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from faceqan_toolkit.errors import UnreadablePhoto
from faceqan_toolkit.photos.decode import decode, decode_bytes
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Photo, PhotoSource
from tests.tiffs import Tags, tiff

GREY = np.tile(np.linspace(0, 1, 40), (8, 1))
RGB = np.stack([GREY, GREY / 2, 1 - GREY], axis=2)
SHORT = 3


def whole(picture: NDArray[np.float64], bits: int) -> NDArray[np.uint64]:
    return np.rint(picture * (2**bits - 1)).astype(np.uint64)


def read(data: bytes, folder: Path) -> Photo:
    (folder / "photo").write_bytes(data)
    source = PhotoSource(str(folder), "photo", LocalFile(folder / "photo"))
    return decode(source, max_pixels=10_000)


def assert_shows(data: bytes, picture: NDArray[np.float64], folder: Path, note: str = "") -> None:
    photo = read(data, folder)
    expected = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    assert photo.pixels.shape == expected.shape
    assert np.abs(photo.pixels - 255 * expected).max() <= 1.5
    assert photo.note == note


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16, 32])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_tiffs(tmp_path: Path, bits: int, photometric: int, order: str) -> None:
    samples = whole(GREY, bits)
    shown = samples / (2**bits - 1)
    data = tiff(samples, bits, photometric, order=order)
    assert_shows(data, shown if photometric else 1 - shown, tmp_path)


@pytest.mark.parametrize("photometric", [0, 1])
def test_16_bits_look_like_8(photometric: int) -> None:
    """Pillow and OpenCV show 8-bit negatives as they are meant, too."""
    small = tiff(whole(GREY, 8), 8, photometric)
    pillow = np.asarray(Image.open(io.BytesIO(small)))
    opencv = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(pillow, opencv)
    deep = decode_bytes(tiff(whole(GREY, 8) * 257, 16, photometric), max_pixels=10_000)
    assert np.array_equal(deep[..., 0], pillow)


@pytest.mark.parametrize("compression", ["tiff_deflate", "tiff_lzw"])
def test_compressed_negatives(tmp_path: Path, compression: str) -> None:
    buffer = io.BytesIO()
    samples = whole(GREY, 16).astype(np.uint16)
    Image.fromarray(samples).save(buffer, "TIFF", compression=compression, tiffinfo={262: 0})
    with Image.open(buffer) as image:
        assert image.tag_v2[262] == 0
    assert_shows(buffer.getvalue(), 1 - GREY, tmp_path)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("tag", [281, 341])
def test_fewer_bits_that_a_tag_tells(tmp_path: Path, bits: int, photometric: int, tag: int) -> None:
    """SMaxSampleValue, or MaxSampleValue; a dark picture stays dark."""
    tags: Tags = {tag: (SHORT, [2**bits - 1])}
    dark = GREY / 2
    data = tiff(whole(dark, bits), 16, photometric, tags=tags)
    assert_shows(data, dark if photometric else 1 - dark, tmp_path)


@pytest.mark.parametrize("value", [3000, 40_000, 65_535, 4095])
def test_tags_that_tell_no_white(tmp_path: Path, value: int) -> None:
    """The largest value that occurs, or one that is too small for the values there are."""
    data = tiff(whole(GREY, 16), 16, tags={281: (SHORT, [value]), 341: (SHORT, [value])})
    assert_shows(data, GREY, tmp_path)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("kind", ["tiff", "negative", "png", "signed", "32 bits"])
def test_fewer_bits_that_only_the_values_tell(tmp_path: Path, bits: int, kind: str) -> None:
    samples = whole(GREY, bits)
    data = {
        "tiff": lambda: tiff(samples, 16),
        "negative": lambda: tiff(samples, 16, 0),
        "png": lambda: png(samples, 0),
        "signed": lambda: tiff(samples.astype(np.int16), 16),
        "32 bits": lambda: tiff(samples, 32),
    }[kind]()
    top = 2**bits - 1
    note = f"taken for values from 0 to {top}, as none is above {top}"
    assert_shows(data, 1 - GREY if kind == "negative" else GREY, tmp_path, note)


@pytest.mark.parametrize("largest", [300, 900])
def test_dark_pictures_of_12_bits(tmp_path: Path, largest: int) -> None:
    """They are no brighter for having no values above those of 10 bits."""
    samples = np.rint(GREY * largest).astype(np.uint64)
    note = f"taken for values from 0 to 4095, as none is above {largest}"
    assert_shows(png(samples, 0), GREY * largest / 4095, tmp_path, note)


def png(samples: NDArray[np.uint64], colour_type: int, exif: bytes = b"") -> bytes:
    """Return a PNG of 16 bits a sample."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data)
        )  # fmt: skip

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if exif:
        parts.insert(1, (b"eXIf", exif))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("kind", ["tiff", "png"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_fewer_bits(tmp_path: Path, bits: int, kind: str, alpha: bool) -> None:
    samples = whole(RGB, bits)
    if alpha:
        samples = np.concatenate([samples, np.full((8, 40, 1), 65535, np.uint64)], axis=2)
    extra: Tags = {338: (SHORT, [2])} if alpha else {}
    data = tiff(samples, 16, 2, tags=extra) if kind == "tiff" else png(samples, 6 if alpha else 2)
    top = 2**bits - 1
    note = "" if bits == 16 else f"taken for values from 0 to {top}, as none is above {top}"
    assert_shows(data, RGB, tmp_path, note)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("kind", ["grey tiff", "negative", "colour tiff", "32 bits", "png"])
def test_they_are_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    tags: Tags = {274: (SHORT, [orientation])}
    exif = Image.Exif()
    exif[274] = orientation
    data = {
        "grey tiff": lambda: tiff(whole(GREY, 12), 16, tags=tags),
        "negative": lambda: tiff(whole(1 - GREY, 12), 16, 0, order=">", tags=tags),
        "colour tiff": lambda: tiff(whole(RGB, 12), 16, 2, tags=tags),
        "32 bits": lambda: tiff(RGB.astype(np.float32), 32, 2, tags=tags),
        "png": lambda: png(whole(RGB, 12), 2, exif.tobytes()[6:]),
    }[kind]()
    picture = GREY if kind in ("grey tiff", "negative") else RGB
    photo = read(data, tmp_path)
    expected = {1: picture, 3: picture[::-1, ::-1], 6: np.rot90(picture, -1)}[orientation]
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert photo.pixels.shape == expected.shape
    assert np.abs(photo.pixels - 255 * expected).max() <= 1.5


def test_signed_samples(tmp_path: Path) -> None:
    for bits in (8, 16, 32):
        kind = np.dtype(f"i{bits // 8}")
        samples = np.rint(GREY * (2 ** (bits - 1) - 1)).astype(kind)
        samples[:, 0] = -3
        assert_shows(tiff(samples, bits), GREY, tmp_path)


@pytest.mark.parametrize(
    ("scale", "shown", "told"),
    [(1, 1, False), (1.03, 1.03, False), (0.5, 0.5, False), (255, 1, True), (100, 100 / 255, True),
     (4095, 1, True), (65535, 1, True),
     (1000, 1000 / 1023, True), (2000, 2000 / 4095, True), (600, 600 / 4095, True)],
)  # fmt: skip
@pytest.mark.parametrize("bits", [32, 64])
def test_floats(tmp_path: Path, scale: float, shown: float, told: bool, bits: int) -> None:
    samples = (GREY * scale).astype(f"f{bits // 8}")
    samples[0, :3] = np.nan, -1, -np.inf
    expected = (GREY * shown).clip(0, 1)
    expected[0, :3] = 0
    for photometric in (0, 1):
        photo = read(tiff(samples, bits, photometric), tmp_path)
        picture = expected if photometric else 1 - expected
        assert np.abs(photo.pixels[..., 1] - 255 * picture).max() <= 1
        assert bool(photo.note) is told


def test_floats_of_no_photo(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePhoto, match=r"samples up to 2e\+30; a photo has its white at"):
        read(tiff((GREY * 2e30).astype(np.float32), 32), tmp_path)


def test_dark_photos_of_16_bits(tmp_path: Path) -> None:
    """One that is dark, not black, stays as it is: its samples may well use all bits."""
    for dark in (GREY * 0.07, GREY * 0.2, GREY * 0):
        assert_shows(tiff(whole(dark, 16), 16), dark, tmp_path)
        assert_shows(png(whole(dark, 16), 0), dark, tmp_path)
    for step in (256, 257):  # how programs make 16 bits of 8
        black = whole(GREY * 10 / 255, 8)
        assert_shows(tiff(black * step, 16), black / 255, tmp_path)
        assert_shows(png(black * step, 0), black / 255, tmp_path)
        assert_shows(png(np.repeat((black * step)[..., None], 3, 2), 2), black / 255, tmp_path)


def test_black_photos_of_8_bits_stay_black(tmp_path: Path) -> None:
    black = Image.fromarray(np.full((8, 40, 3), 3, np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    for kind in ("PNG", "TIFF", "BMP", "WEBP", "JPEG"):
        buffer = io.BytesIO()
        black.save(buffer, kind, **({} if kind == "BMP" else {"exif": exif}))
        photo = read(buffer.getvalue(), tmp_path)
        assert photo.pixels.shape == ((8, 40, 3) if kind == "BMP" else (40, 8, 3))
        assert photo.pixels.max() <= 5
        assert photo.note == ""


def test_records_say_it(tmp_path: Path) -> None:
    (tmp_path / "infrared.png").write_bytes(png(whole(np.tile(GREY, (5, 1)), 12), 0))
    source = PhotoSource(str(tmp_path), "infrared.png", LocalFile(tmp_path / "infrared.png"))
    settings = Settings(task="score", device="cpu", preset="instant")
    pipeline = Pipeline(settings)
    (records,) = pipeline.records([pipeline.prepare(source)])
    assert records[0].status == "ok"
    assert records[0].reason == (
        "resized from 40x40; taken for values from 0 to 4095, as none is above 4095"
    )
