"""Photos that are bad or odd, made from one face: the same ones for the same seed."""

from __future__ import annotations

import io
import os
import random
import socket
import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import PIL
import pillow_heif
import skimage.data
from PIL import Image, ImageCms, ImageFilter, PngImagePlugin, features

from faceqan_toolkit.text import path_text

MAX_PIXELS = 20_000_000
"""What the corpus expects `--max-pixels` to be."""

Statuses = frozenset[str]
OK: Statuses = frozenset(("ok",))
NO_FACE: Statuses = frozenset(("no_face",))
UNREADABLE: Statuses = frozenset(("unreadable",))
TOO_LARGE: Statuses = frozenset(("too_large",))
NOT_A_FILE: Statuses = frozenset(("not_a_file",))
DAMAGED: Statuses = frozenset(("ok", "no_face", "too_small", "unreadable", "too_large"))
"""Of a file with flipped bits: what it shows may still be a face. Never `crashed`."""


@dataclass
class Corpus:
    """A folder that fills.

    Attributes:
        folder: of the files.
        expected: which statuses a file may have, by its path in results.
    """

    folder: Path
    expected: dict[str, Statuses] = field(default_factory=dict)

    def path(self, name: str | bytes, status: Statuses) -> Path:
        """Expect a file and return where it is to be made."""
        name = os.fsdecode(name)
        shown = path_text(name)
        assert shown not in self.expected, name
        self.expected[shown] = status
        return self.folder / name

    def write(self, name: str | bytes, content: bytes, status: Statuses) -> None:
        """Write a file."""
        self.path(name, status).write_bytes(content)


def portrait() -> Image.Image:
    """Return a photo of 224x224 pixels with one face."""
    return Image.fromarray(np.ascontiguousarray(skimage.data.astronaut()[:224, 110:334]))


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return a file's content."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def formats(image: Image.Image) -> dict[str, bytes]:
    """Return a photo in every format, by extension and variant."""
    pillow_heif.register_heif_opener()
    found = {
        "baseline.jpg": encoded(image, "JPEG", quality=90),
        "progressive.jpg": encoded(image, "JPEG", quality=90, progressive=True),
        "grey.jpg": encoded(image.convert("L"), "JPEG", quality=90),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", quality=90),
        "two.mpo": encoded(image, "MPO", save_all=True, append_images=[image]),
        "rgb.png": encoded(image, "PNG"),
        "palette.png": encoded(image.quantize(128), "PNG"),
        "lossy.webp": encoded(image, "WEBP", quality=90),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "plain.bmp": encoded(image, "BMP"),
        "plain.tif": encoded(image, "TIFF"),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "deflate.tiff": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "palette.gif": encoded(image, "GIF"),
        "phone.heic": encoded(image, "HEIF", quality=80),
    }
    if "avif" in features.modules and features.check("avif"):  # Pillow 11.3 and newer
        found["web.avif"] = encoded(image, "AVIF", quality=80)
    return found


def make_corpus(folder: Path, seed: int = 0) -> dict[str, Statuses]:
    """Fill a folder; return the statuses that each file may have, by its path in results.

    What this system cannot have is left out.
    """
    folder.mkdir()
    corpus, dice, image = Corpus(folder), random.Random(seed), portrait()
    whole = formats(image)
    for name, content in whole.items():
        corpus.write(f"whole_{name}", content, OK)
    _truncated(corpus, whole)
    _flipped(corpus, whole, dice)
    _mislabelled(corpus, whole)
    _no_photos(corpus, dice)
    _huge_headers(corpus, whole)
    _bombs(corpus, image)
    _animations(corpus, image)
    _exif(corpus, image, dice)
    _profiles(corpus, image)
    _sizes(corpus, image)
    _samples(corpus, image)
    _polyglots(corpus, whole)
    if os.name == "posix":
        _things(corpus, whole["baseline.jpg"])
    _names(corpus, whole["baseline.jpg"])
    return corpus.expected


def _truncated(corpus: Corpus, whole: dict[str, bytes]) -> None:
    for name, content in whole.items():
        for number, share in enumerate((0.0, 0.05, 0.3, 0.6, 0.9)):
            length = max(12, int(len(content) * share))
            # of two pictures the first one counts
            whole_first = name == "two.mpo" and share > 0.5
            corpus.write(f"cut{number}_{name}", content[:length], OK if whole_first else UNREADABLE)


def _flipped(corpus: Corpus, whole: dict[str, bytes], dice: random.Random) -> None:
    for name, content in whole.items():
        for number, places in enumerate((1, 4, 16, 64)):
            # half of the damage goes to the header, where it hurts
            reach = min(200, len(content)) if number % 2 else len(content)
            damaged = bytearray(content)
            for _ in range(places):
                damaged[dice.randrange(reach)] ^= 1 << dice.randrange(8)
            corpus.write(f"flip{number}_{name}", bytes(damaged), DAMAGED)


def _mislabelled(corpus: Corpus, whole: dict[str, bytes]) -> None:
    names = list(whole)
    for index, (name, content) in enumerate(whole.items()):
        other = names[(index + 5) % len(names)]
        corpus.write(f"really_{name.replace('.', '_')}.{other.split('.')[1]}", content, OK)


def _no_photos(corpus: Corpus, dice: random.Random) -> None:
    contents = {
        "empty.jpg": b"",
        "empty.heic": b"",
        "one_byte.png": b"\x89",
        "zeros.tif": bytes(4096),
        "ones.bmp": b"\xff" * 4096,
        "noise.webp": dice.randbytes(5000),
        "text.jpg": "no photo, just text\n".encode("utf-16"),
        "only_start.jpg": b"\xff\xd8\xff",
        "only_start.png": b"\x89PNG\r\n\x1a\n",
        "only_start.avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1",
        "vector.jpg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\nshowpage\n",
        "program.jpg": b"#!/bin/sh\ntouch pwned\n",
        "pickle.jpg": b"cos\nsystem\n(S'touch pwned'\ntR.",
        "lfs.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "netpbm.jpg": b"P6 2 2 255\n" + bytes(12),
    }
    for name, content in contents.items():
        corpus.write(name, content, UNREADABLE)


def png(
    width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, mode: int = 2
) -> bytes:
    """Return a PNG file of given chunks after its header, checksums right."""
    header = struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0)
    wanted = ((b"IHDR", header), *chunks, (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in wanted)


def tiff(entries: Iterable[tuple[int, int, int]], data: bytes = b"") -> bytes:
    """Return a little-endian TIFF of entries (tag, type, value), data at byte 8."""
    rows = sorted(entries)
    directory = struct.pack("<H", len(rows))
    for tag, kind, value in rows:
        directory += struct.pack("<HHII", tag, kind, 1, value)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + bytes(4)


def wide_tiff(width: int, height: int, samples: int, bits: int) -> bytes:
    """Return a TIFF that says how large it is and has next to no data."""
    return tiff(
        [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 2),
         (273, 4, 8), (277, 3, samples), (278, 4, height), (279, 4, 16)],
        bytes(16),
    )  # fmt: skip


def _huge_headers(corpus: Corpus, whole: dict[str, bytes]) -> None:
    """Sizes that no memory holds, said by a few bytes."""
    few = (b"IDAT", zlib.compress(bytes(1000)))
    corpus.write("huge.png", png(100_000, 100_000, few), TOO_LARGE)
    corpus.write("huger.png", png(2**31 - 1, 2**31 - 1, few), TOO_LARGE)
    jpeg = bytearray(whole["baseline.jpg"])
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    corpus.write("huge.jpg", bytes(jpeg), TOO_LARGE)
    bmp = bytearray(whole["plain.bmp"])
    bmp[18:26] = struct.pack("<ii", 2**30, 2**30)
    corpus.write("huge.bmp", bytes(bmp), TOO_LARGE)
    gif = bytearray(whole["palette.gif"])
    gif[6:10] = b"\xff\xff\xff\xff"
    corpus.write("huge.gif", bytes(gif), TOO_LARGE)
    corpus.write("huge.tif", wide_tiff(2**31 - 1, 2**31 - 1, 3, 8), TOO_LARGE)
    # Pillow knows no such pixels, so another library is asked
    for samples, bits in ((3, 32), (4, 64), (7, 16), (65535, 8)):
        name = f"huge_{samples}x{bits}.tif"
        corpus.write(name, wide_tiff(30_000, 30_000, samples, bits), TOO_LARGE | UNREADABLE)
    webp = bytearray(encoded(portrait(), "WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"
    corpus.write("huge.webp", bytes(webp), TOO_LARGE | UNREADABLE)
    for name in ("phone.heic", "web.avif"):
        if name in whole and (at := whole[name].find(b"ispe")) > 0:
            boxed = bytearray(whole[name])
            boxed[at + 8 : at + 16] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
            corpus.write(f"huge.{name.split('.')[1]}", bytes(boxed), TOO_LARGE | UNREADABLE)
    sparse = corpus.path("sparse_of_64_GB.jpg", TOO_LARGE)
    with sparse.open("wb") as file:
        file.write(whole["baseline.jpg"])
        file.truncate(64 << 30)


def _bombs(corpus: Corpus, image: Image.Image) -> None:
    """Little data that becomes much."""
    lines = zlib.compress(bytes((4000 // 8 + 1) * 4000), 9)
    corpus.write("black.png", png(4000, 4000, (b"IDAT", lines), depth=1, mode=0), NO_FACE)
    much = zlib.compress(bytes(100 << 20), 1)
    text = b"Comment\0\0" + much
    row = zlib.compress(bytes(4))
    corpus.write("text.png", png(1, 1, (b"zTXt", text), (b"IDAT", row)), DAMAGED)
    corpus.write("profile.png", png(1, 1, (b"iCCP", text), (b"IDAT", row)), DAMAGED)
    many = [(b"tEXt", b"Comment\0" + b"x" * 100)] * 20_000
    corpus.write("comments.png", png(1, 1, *many, (b"IDAT", row)), DAMAGED)
    overfull = zlib.compress(bytes(100 << 20), 1)
    corpus.write("overfull.png", png(8, 8, (b"IDAT", overfull)), DAMAGED)
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "x" * 100_000, zip=True)
    corpus.write("long_title.png", encoded(image, "PNG", pnginfo=info), OK)


def _animations(corpus: Corpus, image: Image.Image) -> None:
    small = [Image.new("RGB", image.size, (n % 256, 0, 0)) for n in range(60)]
    for name, file_format in (("deep.gif", "GIF"), ("deep.webp", "WEBP"), ("deep.png", "PNG"),
                              ("deep.tif", "TIFF")):  # fmt: skip
        content = encoded(image, file_format, save_all=True, append_images=small)
        corpus.write(name, content, OK)


def _exif(corpus: Corpus, image: Image.Image, dice: random.Random) -> None:
    # how a picture must lie to be upright once it is turned as the tag says
    turns = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
             4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
             6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
             8: Image.Transpose.ROTATE_270}  # fmt: skip
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying = image.transpose(turns[orientation]) if orientation > 1 else image
        corpus.write(f"orientation{orientation}.jpg", encoded(lying, "JPEG", exif=exif), OK)
    for value in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = value
        corpus.write(f"orientation_{value}.jpg", encoded(image, "JPEG", exif=exif), OK)
    loop = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0"
    for name, exif_bytes in {
        "garbage": b"Exif\0\0II*\0" + dice.randbytes(300),
        "truncated": b"Exif\0\0MM\0*\0\0\0\x08\0\xff",
        "nothing": b"Exif\0\0",
        "looping": loop,
        "large": b"Exif\0\0II*\0\x08\0\0\0" + bytes(60_000),
    }.items():
        corpus.write(f"exif_{name}.jpg", encoded(image, "JPEG", exif=exif_bytes), OK)
        corpus.write(f"exif_{name}.png", encoded(image, "PNG", exif=exif_bytes), OK)


def _profiles(corpus: Corpus, image: Image.Image) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    srgb = srgb[:24] + bytes(12) + srgb[36:]  # without the time it was made at
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab = lab[:24] + bytes(12) + lab[36:]
    swapped = srgb.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    profiles = {
        "srgb": srgb, "swapped": swapped, "lab": lab, "garbage": b"no profile" * 99,
        "cut": srgb[:200], "lying": srgb[:16] + b"CMYK" + srgb[20:], "long": srgb + bytes(200_000),
    }  # fmt: skip
    for name, profile in profiles.items():
        corpus.write(f"icc_{name}.png", encoded(image, "PNG", icc_profile=profile), OK)
    for mode in ("L", "CMYK"):
        content = encoded(image.convert(mode), "JPEG", icc_profile=srgb)
        corpus.write(f"icc_{mode}.jpg", content, OK)


def _sizes(corpus: Corpus, image: Image.Image) -> None:
    small: Statuses = frozenset(("no_face", "too_small"))
    for width, height in ((1, 1), (2, 1), (1, 30_000), (30_000, 1), (3, 3), (11, 11), (12, 12),
                          (65_000, 2), (40, 9_000)):  # fmt: skip
        shape = Image.new("RGB", (width, height), (120, 90, 60))
        corpus.write(f"size_{width}x{height}.png", encoded(shape, "PNG"), small)
    corpus.write("size_0x0.png", png(0, 0, (b"IDAT", zlib.compress(b""))), UNREADABLE)
    corpus.write("size_0x5.png", png(0, 5, (b"IDAT", zlib.compress(bytes(5)))), UNREADABLE)
    corpus.write("tiny_face.jpg", encoded(image.resize((28, 28)), "JPEG"), small | OK)
    wide = Image.new("RGB", (6_000, 224))
    wide.paste(image, (5_700, 0))
    corpus.write("wide_face.png", encoded(wide, "PNG"), DAMAGED)


def _samples(corpus: Corpus, image: Image.Image) -> None:
    """Pixels of every kind."""
    rgb = np.asarray(image)
    grey = np.asarray(image.convert("L"))
    deep = rgb.astype(np.uint16) * 257
    alpha = np.dstack([deep, np.full(grey.shape, 65535, np.uint16)])
    for extension in ("png", "tif"):
        for name, samples in (("grey", grey.astype(np.uint16) * 257), ("rgb", deep[..., ::-1]),
                              ("rgba", alpha[..., [2, 1, 0, 3]])):  # fmt: skip
            _, content = cv2.imencode(f".{extension}", samples)
            corpus.write(f"16bit_{name}.{extension}", content.tobytes(), OK)
    real = grey.astype(np.float32)
    holed = real.copy()
    holed[:20] = np.nan
    holed[-20:] = np.inf
    for name, samples, status in (
        ("0to255", real, OK), ("0to1", real / 255, OK), ("holed", holed, DAMAGED),
        ("nan", np.full_like(real, np.nan), NO_FACE), ("negative", -real, NO_FACE),
        ("vast", real * np.float32(1e35), UNREADABLE),
    ):  # fmt: skip
        corpus.write(f"float_{name}.tif", encoded(Image.fromarray(samples), "TIFF"), status)
    whole = Image.fromarray(grey.astype(np.int32) * 65536)
    corpus.write("int32.tif", encoded(whole, "TIFF"), DAMAGED)
    _, content = cv2.imencode(".tif", rgb[..., ::-1].astype(np.float64) / 255)
    corpus.write("float64_rgb.tif", content.tobytes(), DAMAGED)
    corpus.write("bits.png", encoded(image.convert("1"), "PNG"), DAMAGED)
    corpus.write("two_colours.gif", encoded(image.quantize(2), "GIF"), DAMAGED)
    see_through = image.copy()
    see_through.putalpha(0)
    corpus.write("see_through.png", encoded(see_through, "PNG"), NO_FACE)
    half = image.copy()
    half.putalpha(200)
    corpus.write("half_through.webp", encoded(half, "WEBP", lossless=True), OK)
    # Pillow 12 cannot read what it wrote
    read = OK if PIL.__version__ >= "13" else UNREADABLE
    corpus.write("ycbcr.tif", encoded(image.convert("YCbCr"), "TIFF"), read)
    corpus.write("blurred.jpg", encoded(image.filter(ImageFilter.GaussianBlur(2)), "JPEG"), OK)


def _polyglots(corpus: Corpus, whole: dict[str, bytes]) -> None:
    """Files that are a photo and something else, too."""
    jpeg, gif, photo_png = whole["baseline.jpg"], whole["palette.gif"], whole["rgb.png"]
    archive = b"PK\x05\x06" + bytes(18)
    script = b"<script>document.title='owned'</script>"
    comment = b"\xff\xfe" + struct.pack(">H", len(script) + 2) + script
    corpus.write("and_zip.jpg", jpeg + archive, OK)
    corpus.write("and_zip.png", photo_png + archive, OK)
    corpus.write("and_rar.gif", gif + b"Rar!\x1a\x07\0" + bytes(40), OK)
    corpus.write("and_html.jpg", jpeg[:2] + comment + jpeg[2:], OK)
    corpus.write("and_script.png", photo_png[:-12] + _chunk(b"tEXt", b"Comment\0" + script)
                 + photo_png[-12:], OK)  # fmt: skip
    corpus.write("and_php.gif", gif + b"<?php system($_GET['c']); ?>", OK)
    corpus.write("two_photos.jpg", jpeg + photo_png, OK)
    corpus.write("pdf.jpg", b"%PDF-1.4\n1 0 obj\nstream\n" + jpeg + b"\nendstream", UNREADABLE)
    corpus.write("html.jpg", b"<html>" + jpeg, UNREADABLE)
    corpus.write("windows.png", b"MZ" + photo_png, UNREADABLE)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _things(corpus: Corpus, jpeg: bytes) -> None:
    """What a file system has besides files."""
    for device in ("zero", "null", "full", "urandom", "tty"):
        if Path(f"/dev/{device}").exists():
            corpus.path(f"device_{device}.jpg", NOT_A_FILE).symlink_to(f"/dev/{device}")
    os.mkfifo(corpus.path("pipe.jpg", NOT_A_FILE))
    corpus.path("link_to_pipe.jpg", NOT_A_FILE).symlink_to("pipe.jpg")
    corpus.path("folder.jpg", NOT_A_FILE).mkdir()
    corpus.write("folder.jpg/inside.jpg", jpeg, OK)
    corpus.path("itself.jpg", UNREADABLE).symlink_to("itself.jpg")
    corpus.path("to.jpg", UNREADABLE).symlink_to("and_fro.jpg")
    corpus.path("and_fro.jpg", UNREADABLE).symlink_to("to.jpg")
    corpus.path("broken_link.jpg", frozenset(("missing",))).symlink_to("nowhere.jpg")
    corpus.path("good_link.jpg", OK).symlink_to("whole_baseline.jpg")
    (corpus.folder / "loop").mkdir()
    (corpus.folder / "loop/back").symlink_to("..")
    corpus.write("loop/in_loop.jpg", jpeg, OK)
    readable_anyway = os.geteuid() == 0
    corpus.write("forbidden.jpg", jpeg, OK if readable_anyway else frozenset(("no_permission",)))
    (corpus.folder / "forbidden.jpg").chmod(0)
    server = socket.socket(socket.AF_UNIX)
    here = os.open(corpus.folder, os.O_RDONLY)  # names of sockets must be short
    try:
        server.bind(f"/proc/self/fd/{here}/socket.jpg")
        corpus.expected["socket.jpg"] = NOT_A_FILE
    except OSError:
        pass
    finally:
        os.close(here)
        server.close()


def _names(corpus: Corpus, jpeg: bytes) -> None:
    names: list[str | bytes] = [
        "-rf.jpg", "--help.jpg", "-", "=1+1.jpg", "=cmd|' C'!A0.jpg", "+49.jpg", "@sum(a1).jpg",
        "'quoted'.jpg", '"quoted".jpg', "<img src=x onerror=alert(1)>.jpg", "&amp;.jpg",
        "{{ 7*7 }}.jpg", "%s%n%x.jpg", "100%.jpg", "%2e%2e.jpg", "$(touch pwned).jpg",
        "`touch pwned`.jpg", "; touch pwned;.jpg", "a b\u00a0c\u3000d.jpg", " leading.jpg",
        "trailing .jpg", "CON.jpg", "[a-z]*?.jpg", "\u202egpj.exe.jpg",
        "\u0130\u0131\u1e9e.JPG", "e\u0301.jpg", "\U0001f468\u200d\U0001f469\u200d\U0001f467.jpg",
        "\ufeffbom.jpg", "n" * 251 + ".jpg", "\u00fc" * 125 + "n.jpg", "nul.tar.jpg",
    ]  # fmt: skip
    if os.name == "posix":
        names += [
            "new\nline.jpg", "carriage\rreturn.jpg", "tab\tbed.jpg", "\x1b[31mred.jpg",
            "\x1b]0;title\x07.jpg", "back\\slash.jpg", "c:\\windows.jpg", "\u2028line.jpg",
            "\x7fdelete.jpg", "\x85next.jpg", b"\xff\xfe.jpg", b"latin1_\xe9.jpg",
            b"half_\xe2\x82.jpg", b"\xed\xa0\x80surrogate.jpg", "question?.jpg", "pipe|.jpg",
        ]  # fmt: skip
    for name in names:
        if os.fsdecode(name).lower().endswith(".jpg"):
            corpus.write(name, jpeg, OK)


def is_special(path: Path) -> bool:
    """Tell whether a path is no plain file, or a link."""
    return not stat.S_ISREG(path.lstat().st_mode)
