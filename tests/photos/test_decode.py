"""Decoding all photos that people have."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from faceqan_toolkit.errors import (
    MissingExtra,
    MissingPhoto,
    NoPermission,
    NotAFile,
    PhotoError,
    TooLarge,
    UnreadablePhoto,
)
from faceqan_toolkit.photos import decode as photos
from faceqan_toolkit.photos.decode import decode, decode_bytes
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Photo, PhotoSource, Pixels
from tests.tiffs import Tags, tiff

LIMIT = 10_000_000


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Pixels:
    pixels = decode_bytes(data, max_pixels=LIMIT)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    return pixels


def picture(height: int = 24, width: int = 40) -> Pixels:
    """Return smooth colours that JPEG keeps, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 255 - 128 * x / width]
    return np.stack(channels, axis=2).astype(np.uint8)


def register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def turned(upright: Pixels, file_format: str, exif: int | None, turn: int) -> bytes:
    """Return a HEIC or AVIF with an EXIF orientation, and one of its own by irot and imir.

    Encoders make the second of the EXIF orientation they are given, and drop or keep that. So it is
    written with other tags' numbers in the places of the two, which are then exchanged.
    """
    register_heif()
    tags = Image.Exif()
    tags[0x0112] = turn
    if exif is not None:
        tags[0x0103] = exif
    data = encoded(Image.fromarray(upright), file_format, quality=95, exif=tags.tobytes())
    short = b"\0\x03\0\0\0\x01\0"  # the type and count of both tags, and their value's first byte
    data = data.replace(b"\x01\x12" + short, b"\x01\x04" + short)
    return data.replace(b"\x01\x03" + short, b"\x01\x12" + short)


class TestDecoding:
    @pytest.mark.parametrize(
        ("file_format", "tolerance"),
        [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("WEBP", 0), ("JPEG", 8), ("AVIF", 8), ("HEIF", 8),
         ("MPO", 8)],
    )  # fmt: skip
    def test_formats(self, file_format: str, tolerance: int) -> None:
        if file_format == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encoded(Image.fromarray(picture()), file_format, **options)
        difference = np.abs(decoded(data).astype(int) - picture().astype(int))
        assert difference.max() <= max(tolerance, 0) * 2
        assert difference.mean() <= tolerance

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
    def test_exif_orientation(self, orientation: int, mode: str) -> None:
        upright = picture()
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.transpose(1, 0, 2),
            6: np.rot90(upright, 1),
            7: upright[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(upright, -1),
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        grey = np.ascontiguousarray(stored[..., 0])
        image = {
            "RGB": lambda: Image.fromarray(np.ascontiguousarray(stored)),
            "L": lambda: Image.fromarray(grey),
            "I;16": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
        }[mode]()
        expected = upright if mode == "RGB" else np.repeat(upright[..., :1], 3, axis=2)
        assert np.array_equal(decoded(encoded(image, "PNG", exif=exif)), expected)

    @pytest.mark.parametrize("file_format", ["JPEG", "MPO", "WEBP", "TIFF", "AVIF"])
    def test_exif_orientation_in_other_formats(self, file_format: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        lying = Image.fromarray(np.ascontiguousarray(np.rot90(picture())))
        pixels = decoded(encoded(lying, file_format, exif=exif))
        assert pixels.shape == (24, 40, 3)
        assert np.abs(pixels.astype(int) - picture()).mean() < 8

    @pytest.mark.parametrize("file_format", ["HEIF", "AVIF"])
    @pytest.mark.parametrize("exif", [None, 1, 6, 8])
    @pytest.mark.parametrize("turn", [1, 2, 3, 5, 6])
    def test_heic_and_avif_are_turned_by_irot_and_imir_alone(
        self, file_format: str, exif: int | None, turn: int
    ) -> None:
        """As libheif, libavif, browsers and macOS show them, whatever EXIF says."""
        data = turned(picture(64, 128), file_format, exif, turn)
        assert (b"irot" in data, b"imir" in data) == (turn in (3, 5, 6), turn in (2, 5))
        assert (b"\x01\x12\0\x03" in data) is (exif is not None)
        upright = decoded(data)
        expected = {
            1: picture(64, 128),
            2: picture(64, 128)[:, ::-1],
            3: picture(64, 128)[::-1, ::-1],
            5: picture(64, 128).transpose(1, 0, 2),
            6: np.rot90(picture(64, 128), -1),
        }[turn]
        assert upright.shape == expected.shape
        assert np.abs(upright.astype(int) - expected).mean() < 4

    @pytest.mark.parametrize("file_format", ["HEIF", "AVIF"])
    def test_xmp_turns_no_heic_or_avif(self, file_format: str) -> None:
        xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
        if file_format == "HEIF":
            register_heif()
        data = encoded(Image.fromarray(picture(64, 128)), file_format, xmp=xmp)
        if file_format == "HEIF":  # it was written as a turn, too
            data = data.replace(b"irot", b"free")
        assert b"tiff:Orientation" in data
        assert decoded(data).shape == (64, 128, 3)

    @pytest.mark.parametrize(
        ("image", "colour"),
        [
            (Image.new("L", (4, 4), 77), (77, 77, 77)),
            (Image.new("1", (4, 4), 1), (255, 255, 255)),
            (Image.new("LA", (4, 4), (0, 128)), (127, 127, 127)),
            (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), (255, 255, 255)),
            (Image.new("RGBA", (4, 4), (255, 0, 0, 255)), (255, 0, 0)),
            (Image.new("RGBA", (4, 4), (0, 0, 0, 51)), (204, 204, 204)),
            (Image.new("I;16", (4, 4), 65535), (255, 255, 255)),
            (Image.new("I;16", (4, 4), 257 * 100), (100, 100, 100)),
        ],
        ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
    )
    def test_modes_in_png(self, image: Image.Image, colour: tuple[int, int, int]) -> None:
        pixels = decoded(encoded(image, "PNG"))
        assert np.abs(pixels.astype(int) - colour).max() <= 1

    @pytest.mark.parametrize(
        "mode",
        [
            *("CMYK", "F", "I", "LAB"),
            pytest.param(
                "YCbCr",
                marks=pytest.mark.skipif(
                    PIL.__version__ < "13", reason="Pillow 12 cannot read what it wrote"
                ),
            ),
        ],
    )
    def test_modes_in_tiff(self, mode: str) -> None:
        if mode in "FI":
            image = Image.new(mode, (4, 4), 100)
        else:
            image = Image.new("RGB", (4, 4), (200, 100, 50))
            image = (
                ImageCms.profileToProfile(
                    image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
                    outputMode="LAB",
                ) if mode == "LAB" else image.convert(mode)
            )  # fmt: skip
        expected = (100, 100, 100) if mode in "FI" else (200, 100, 50)
        assert np.abs(decoded(encoded(image, "TIFF")).astype(int) - expected).max() <= 4

    def test_palettes_and_their_transparency(self) -> None:
        image = Image.new("P", (4, 2))
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.putdata([0, 0, 1, 1, 0, 0, 1, 1])
        assert decoded(encoded(image, "PNG"))[0].tolist() == [[255, 0, 0]] * 2 + [[0, 0, 255]] * 2
        pixels = decoded(encoded(image, "PNG", transparency=b"\x00\xff"))
        assert pixels[0].tolist() == [[255, 255, 255]] * 2 + [[0, 0, 255]] * 2
        pixels = decoded(encoded(image, "GIF", transparency=1))
        assert pixels[0].tolist() == [[255, 0, 0]] * 2 + [[255, 255, 255]] * 2

    @pytest.mark.parametrize("extension", [".png", ".tiff"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_16_bits(self, extension: str, channels: int) -> None:
        colour = np.array([10, 100, 250, 255][:channels], np.uint16)
        samples = np.full((5, 6, channels), colour * 257, np.uint16)
        _, data = cv2.imencode(extension, samples)
        expected = [10] * 3 if channels == 1 else [250, 100, 10]
        assert np.abs(decoded(data.tobytes()).astype(int) - expected).max() <= 1

    def test_colour_profiles(self) -> None:
        image = Image.fromarray(picture())
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        same = decoded(encoded(image, "PNG", icc_profile=srgb))
        assert np.abs(same.astype(int) - picture()).max() <= 2
        broken = decoded(encoded(image, "PNG", icc_profile=b"no profile"))
        assert np.array_equal(broken, picture())
        # a profile with red and blue exchanged: its three colourants are read by tag
        swapped = srgb.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
        exchanged = decoded(encoded(image, "PNG", icc_profile=swapped))
        assert np.abs(exchanged[..., ::-1].astype(int) - picture()).max() <= 6

    @pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_the_first_of_several_frames(self, file_format: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert decoded(data)[4, 4].tolist() == [255, 0, 0]

    def test_heic_without_the_extra(self, monkeypatch) -> None:
        import pillow_heif

        pillow_heif.register_heif_opener()
        data = encoded(Image.fromarray(picture()), "HEIF")
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        monkeypatch.delitem(Image.OPEN, "HEIF")
        with pytest.raises(MissingExtra, match=r"faceqan-toolkit\[heif\]"):
            decoded(data)

    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_truncated_photos(self, data: st.DataObject) -> None:
        file_format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"]))
        whole = encoded(Image.fromarray(picture()), file_format)
        length = data.draw(st.integers(1, len(whole) - 1))
        try:
            pixels = decoded(whole[:length])
        except UnreadablePhoto:
            return
        assert np.array_equal(pixels, decoded(whole)), "half a photo is no photo"

    @settings(deadline=None, max_examples=200)
    @given(st.data())
    def test_damaged_photos(self, data: st.DataObject) -> None:
        file_format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"]))
        damaged = bytearray(encoded(Image.fromarray(picture()), file_format))
        for _ in range(data.draw(st.integers(1, 8))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(PhotoError):
            decoded(bytes(damaged))

    @given(st.binary(max_size=200))
    def test_random_bytes(self, data: bytes) -> None:
        with pytest.raises(PhotoError):
            decoded(data)

    def test_too_many_pixels_are_not_decoded(self, monkeypatch) -> None:
        data = encoded(Image.new("1", (20_000, 20_000)), "PNG")
        monkeypatch.setattr(Image.Image, "load", None)
        with pytest.raises(TooLarge, match=r"has 400,000,000 pixels, --max-pixels is 1,000"):
            decode_bytes(data, max_pixels=1000)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("samples", [7, 65535])
    def test_huge_tiffs_that_pillow_does_not_know(self, monkeypatch, order: str, samples) -> None:
        entries = [(256, 4, 90_000), (257, 3, 60_000), (277, 3, samples)]
        rows = b"".join(
            struct.pack(f"{order}HHI{'I' if kind == 4 else 'Hxx'}", tag, kind, 1, value)
            for tag, kind, value in entries
        )
        magic = b"II*\0" if order == "<" else b"MM\0*"
        data = magic + struct.pack(f"{order}IH", 8, len(entries)) + rows + bytes(4)
        monkeypatch.setattr(cv2, "imdecode", None)
        with pytest.raises(TooLarge, match="90000x60000"):
            decoded(data)

    def test_pillows_own_limit_is_not_ours_and_stays(self, monkeypatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        for file_format in ("PNG", "GIF", "TIFF", "JPEG", "WEBP"):
            assert decoded(encoded(Image.fromarray(picture()), file_format)).shape == (24, 40, 3)
        assert Image.MAX_IMAGE_PIXELS == 100

    def test_broken_exif_turns_nothing(self) -> None:
        data = encoded(Image.fromarray(picture()), "PNG", exif=b"Exif\0\0II*\0garbage garbage")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert np.array_equal(decoded(data), picture())
        assert not caught


class TestReducedDecoding:
    """JPEGs decoded at a half, a quarter, an eighth."""

    def decode(self, tmp_path: Path, data: bytes, **options) -> photos.Photo:
        path = tmp_path / "photo.jpg"
        path.write_bytes(data)
        source = PhotoSource(str(tmp_path), path.name, LocalFile(path))
        return decode(source, **{"max_pixels": LIMIT, **options})

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    def test_what_is_shown_is_the_same(self, tmp_path: Path, orientation: int, mode: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(picture(401, 640)).convert(mode)
        data = encoded(image, "JPEG", exif=exif, quality=95)
        full = self.decode(tmp_path, data)
        assert (full.reduction, full.size) == (1, full.pixels.shape[1::-1])
        for at_least, reduction in ((320, 2), (161, 2), (160, 4), (80, 8), (10, 8)):
            photo = self.decode(tmp_path, data, at_least=at_least)
            assert photo.reduction == reduction
            assert photo.size == full.size
            expected = cv2.resize(
                full.pixels[: full.size[1] // 8 * 8, : full.size[0] // 8 * 8],
                None, fx=1 / reduction, fy=1 / reduction, interpolation=cv2.INTER_AREA,
            )  # fmt: skip
            # a picture that was turned has its odd row at the other end
            height, width = expected.shape[:2]
            assert 0 <= photo.pixels.shape[0] - height <= 1
            difference = photo.pixels[:height, :width].astype(int) - expected
            assert np.abs(difference).max() <= 6
            again = photos.decode_full(photo)
            assert again.reduction == 1
            assert np.array_equal(again.pixels, full.pixels)

    def test_colour_profiles(self, tmp_path: Path) -> None:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        swapped = srgb.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
        data = encoded(Image.new("RGB", (640, 400), (250, 10, 60)), "JPEG", icc_profile=swapped)
        photo = self.decode(tmp_path, data, at_least=100)
        assert photo.reduction == 4
        assert np.abs(photo.pixels.astype(int) - (60, 10, 250)).max() < 12

    def test_mpo(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (640, 400), colour) for colour in ("red", "blue")]
        data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
        photo = self.decode(tmp_path, data, at_least=320)
        assert photo.reduction == 2
        assert photo.size == (640, 400)
        assert photo.pixels[100, 100, 0] > 250 > 5 > photo.pixels[100, 100, 2]

    @pytest.mark.parametrize(
        ("file_format", "at_least"), [("PNG", 100), ("WEBP", 100), ("JPEG", 321), ("JPEG", 0)]
    )
    def test_what_is_decoded_in_full(self, tmp_path: Path, file_format: str, at_least: int) -> None:
        data = encoded(Image.fromarray(picture(400, 640)), file_format)
        photo = self.decode(tmp_path, data, at_least=at_least)
        assert (photo.reduction, photo.pixels.shape) == (1, (400, 640, 3))
        assert photo.encoded == b""

    def test_limits_hold_for_the_whole_photo(self, tmp_path: Path) -> None:
        data = encoded(Image.fromarray(picture(400, 640)), "JPEG")
        with pytest.raises(TooLarge, match="640x400"):
            self.decode(tmp_path, data, at_least=80, max_pixels=640 * 400 - 1)

    def test_truncated(self, tmp_path: Path) -> None:
        data = encoded(Image.fromarray(picture(400, 640)), "JPEG")
        with pytest.raises(UnreadablePhoto):
            self.decode(tmp_path, data[: len(data) // 2], at_least=80)


class TestFiles:
    def source(self, path: Path) -> PhotoSource:
        return PhotoSource(str(path.parent), path.name, LocalFile(path))

    def decode(self, path: Path) -> photos.Photo:
        return decode(self.source(path), max_pixels=LIMIT)

    def test_what_is_known_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "wrong_extension.jpg"
        path.write_bytes(encoded(Image.fromarray(picture()), "PNG"))
        photo = self.decode(path)
        assert np.array_equal(photo.pixels, picture())
        assert photo.state.size == path.stat().st_size
        assert photo.state.mtime_ns == path.stat().st_mtime_ns
        assert photo.state.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    @pytest.mark.parametrize(
        ("content", "reason"), [(b"", "empty"), (b"hello, I am text", "supported format")]
    )
    def test_files_that_are_no_photos(self, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(UnreadablePhoto, match=reason):
            self.decode(tmp_path / "a.jpg")

    def test_what_is_known_of_a_file_that_is_no_photo(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"no photo")
        with pytest.raises(UnreadablePhoto) as caught:
            self.decode(tmp_path / "a.jpg")
        assert caught.value.state is not None
        assert caught.value.state.sha256 == hashlib.sha256(b"no photo").hexdigest()

    @pytest.mark.skipif(sys.platform != "linux", reason="files with holes take no space there")
    def test_a_file_larger_than_any_photo_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "a.jpg").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(TooLarge, match=r"1,099,511,627,776 bytes, more than the 2,147,483,648"):
            self.decode(tmp_path / "a.jpg")

    def test_things_that_are_no_files(self, tmp_path: Path) -> None:
        (tmp_path / "folder.jpg").mkdir()
        with pytest.raises(NotAFile, match="folder"):
            self.decode(tmp_path / "folder.jpg")
        with pytest.raises(MissingPhoto, match="no such file"):
            self.decode(tmp_path / "gone.jpg")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes as files here")
    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jpg")
        with pytest.raises(NotAFile, match="pipe"):
            self.decode(tmp_path / "pipe.jpg")

    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").symlink_to("gone.jpg")
        with pytest.raises(MissingPhoto, match="link to nothing"):
            self.decode(tmp_path / "a.jpg")

    def test_no_permission(self, tmp_path: Path, monkeypatch) -> None:
        touch(tmp_path, "a.jpg")

        def refuse(*_args, **_options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(NoPermission):
            self.decode(tmp_path / "a.jpg")

    def test_a_disk_that_fails(self, tmp_path: Path, monkeypatch) -> None:
        touch(tmp_path, "a.jpg")

        def fail(*_args, **_options):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(Path, "open", fail)
        with pytest.raises(UnreadablePhoto, match="Input/output error"):
            self.decode(tmp_path / "a.jpg")


def test_threads_decode_at_once_without_warnings(monkeypatch) -> None:
    """Filters of warnings are the process's: threads must not take them from each other."""
    real = photos._decode

    def noisy(*arguments):
        warnings.warn("odd EXIF", stacklevel=2)
        time.sleep(0.001)
        return real(*arguments)

    monkeypatch.setattr(photos, "_decode", noisy)
    data = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(lambda _: decode_bytes(data, max_pixels=100), range(200)):
            assert pixels.shape == (8, 8, 3)
    assert warnings.filters == before
    assert limit == Image.MAX_IMAGE_PIXELS


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
