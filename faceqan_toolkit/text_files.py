"""Text files that people give: in the encoding of their byte order mark, UTF-8 without one."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

HEAD_BYTES = 4096
"""Bytes at the beginning of a file that tell its encoding, and whether it is text."""

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with UTF-16's, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
"""Byte order marks, and the codec that reads what begins with one."""

UTF_8 = "utf-8"

KINDS = (
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (8, b"WEBP", "a WebP picture"),
    (4, b"ftyp", "a HEIC or AVIF picture, or a video"),
    (0, b"PK\x03\x04", "an Excel, zip or .npz file"),
    (0, b"\xd0\xcf\x11\xe0", "an old Excel file"),
    (0, b"\x1f\x8b", "a file packed with gzip"),
    (0, b"PAR1", "a parquet file"),
)
"""Offset and first bytes of files that are given in place of a text; all have NUL bytes, too."""


def has_mark(head: bytes) -> bool:
    """Tell whether a file begins with a byte order mark."""
    return head.startswith(tuple(mark for mark, _ in MARKS))


def encoding_of(head: bytes) -> str:
    """Return the codec for a text file: that of its byte order mark, `UTF_8` without one.

    Args:
        head: its first `HEAD_BYTES`, or all of it.

    Raises:
        ValueError: without a mark it has NUL bytes, so it is no UTF-8 text; the message is a
            clause that says what it is and what to do.
    """
    for mark, codec in MARKS:
        if head.startswith(mark):
            return codec
    if b"\0" in head:
        for offset, start, kind in KINDS:
            if head.startswith(start, offset):
                raise ValueError(f"it is {kind}, not text")
        raise ValueError(
            "it has NUL bytes: it is not text, or UTF-16 without a byte order mark; save it as "
            "UTF-8"
        )
    return UTF_8


def to_utf8(data: bytes) -> bytes:
    """Return the content of a text file as UTF-8 without a mark; unchanged if it has no mark.

    Bytes that are no UTF-8 are left in a file without a mark.

    Raises:
        ValueError: it is no text, or not what its mark says.
    """
    codec = encoding_of(data)
    if codec == UTF_8:
        return data
    with _undecodable(codec):
        text = data.decode(codec)
    if "\0" in text:
        raise ValueError("it has NUL characters: it is not text")
    return text.encode()


@contextmanager
def open_text(file: Path, errors: str = "strict") -> Iterator[TextIO]:
    r"""Open a text file for reading, line ends as they are; it is decoded as it is read.

    Args:
        file: a plain file.
        errors: how bytes that are no UTF-8 are decoded in a file without a mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text, or a part that is read is not in its encoding.
    """
    with file.open("rb") as content:
        codec = encoding_of(content.read(HEAD_BYTES))
        content.seek(0)
        if codec != UTF_8:
            errors = "strict"
        with (
            _undecodable(codec),
            io.TextIOWrapper(content, codec, errors, newline="") as text,
        ):
            yield text


@contextmanager
def _undecodable(codec: str) -> Iterator[None]:
    """Turn a decoder's error into one that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:
        name = codec.removesuffix("-sig").upper()
        told = "it is not UTF-8" if codec == UTF_8 else f"its mark says {name}, but it is not that"
        raise ValueError(f"{told}; save it as UTF-8") from error
