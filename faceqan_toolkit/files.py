"""Files: text in any encoding, safe writing, locks, links."""

from __future__ import annotations

import codecs
import errno
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.text import path_text, reason_of

BLOCK_BYTES = 1 << 20
"""Bytes of a file in memory at once."""
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
    (0, b"\xff\xd8\xff", "a JPEG picture"), (0, b"\x89PNG", "a PNG picture"),
    (0, b"GIF8", "a GIF picture"), (0, b"BM", "a BMP picture"), (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"), (8, b"WEBP", "a WebP picture"),
    (4, b"ftyp", "a HEIC or AVIF picture, or a video"),
    (0, b"PK\x03\x04", "an Excel, zip or .npz file"), (0, b"\xd0\xcf\x11\xe0", "an old Excel file"),
    (0, b"\x1f\x8b", "a file packed with gzip"), (0, b"PAR1", "a parquet file"),
)  # fmt: skip
"""Offset and first bytes of files that are given instead of a text; all have NUL bytes."""


def has_mark(head: bytes) -> bool:
    """Tell whether a file begins with a byte order mark."""
    return head.startswith(tuple(mark for mark, _ in MARKS))


def encoding_of(head: bytes) -> str:
    """Return a text file's codec by its first `HEAD_BYTES`: `UTF_8` without a byte order mark.

    Raises:
        ValueError: it has NUL bytes but no mark; the message is a clause that says what it is.
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
    """Return a text file's content as UTF-8 without a mark; raise ValueError if it is not text."""
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
    """Open a plain text file for reading, line ends as they are; it is decoded as it is read.

    `errors`: see `open`; for bytes that are not UTF-8 in a file without a mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not text, or a part that is read is not in its encoding.
    """
    with file.open("rb") as content:
        codec = encoding_of(content.read(HEAD_BYTES))
        content.seek(0)
        errors = errors if codec == UTF_8 else "strict"
        with _undecodable(codec), io.TextIOWrapper(content, codec, errors, newline="") as text:
            yield text


@contextmanager
def _undecodable(codec: str) -> Iterator[None]:
    """Replace a decoder's error by one that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:
        name = codec.removesuffix("-sig").upper()
        told = "it is not UTF-8" if codec == UTF_8 else f"its mark says {name}, but it is not that"
        raise ValueError(f"{told}; save it as UTF-8") from error


def check_text(folder: Path) -> None:
    """Raise RunError if a folder's name is not text, which DuckDB needs."""
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:
        raise RunError(
            f"the name of the folder {path_text(folder)} is no text; choose another"
        ) from None


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path that is flushed to the disk and takes the target's name at the end.

    If the body fails, the target stays as it was.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # a link by that name would lead elsewhere
    try:
        yield temporary
        publish(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, target: Path) -> None:
    """Flush a file to the disk, then give it its name."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(target)


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Do as `replacing` does; raise RunError instead of OSError."""
    try:
        with replacing(target) as temporary:
            yield temporary
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason_of(error)}") from error


def lock(file: Path, used: Path) -> FileLock:
    """Return a lock that this process now holds; `release` ends it.

    `file` is the lock file, whose folder is created if missing; `used` is what the lock protects.

    Raises:
        RunError: another process holds the lock, or the lock file cannot be written.
    """
    held = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"another process is writing to {used}; wait for it, or choose another place"
        ) from None
    except OSError as error:
        raise RunError(f"cannot use {used}: {reason_of(error)}") from error
    return held


def check_replaceable(target: Path, is_ours: Callable[[bytes], bool], kind: str) -> None:
    """Raise RunError if a file cannot be written to a place, or another kind of file is there.

    `is_ours` tells by a file's first `HEAD_BYTES` whether it is of the `kind` given in words.
    """
    if not is_folder(target.parent):
        raise RunError(f"cannot write {target}: {target.parent} is no folder")
    try:
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
        if target.is_symlink() or not target.exists():
            return  # of a link, only the link itself is replaced
        replaceable = target.is_file()
        if replaceable:
            with target.open("rb") as file:
                head = file.read(HEAD_BYTES)
            replaceable = not head or is_ours(head)
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason_of(error)}") from error
    if not replaceable:
        raise RunError(f"{target} is there and is no {kind}; choose another name")


def write_text(target: Path, text: str) -> None:
    """Write a small file whole or not at all; raise RunError if it cannot be written."""
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file's content, hexadecimal; raise OSError if it cannot be read."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path from the root on, without `..`; links in it stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def link_or_copy(source: Path, target: Path) -> None:
    """Put the same content in another place, as a hard link if possible, else as a copy.

    A file in that place is replaced, unless it is the same file or a copy made before. Raise
    OSError if that fails.
    """
    found = source.stat()
    with suppress(FileNotFoundError):
        there = target.stat()
        same = (there.st_size, there.st_mtime_ns) == (found.st_size, found.st_mtime_ns)
        if same or os.path.samestat(found, there):
            return
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        with replacing(target) as temporary:
            shutil.copy2(source, temporary)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where folders can be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_inside(folder: Path, file: Path) -> bool:
    """Tell whether a file lies below a folder, links followed; it need not exist."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))


def refuse_links(*paths: Path) -> None:
    """Raise RunError if a path is a link: writing there would write elsewhere."""
    for path in paths:
        if path.is_symlink():
            raise RunError(f"{path} is a link; what a run folder holds must lie in it")


def is_file(path: Path) -> bool:
    """Tell whether a path is a file; False if the path is invalid."""
    return os.path.isfile(path)  # noqa: PTH113 - Path's own fails over names that are too long


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; False if the path is invalid."""
    return os.path.isdir(path)  # noqa: PTH112 - the same


def check_plain(path: Path) -> None:
    """Raise OSError for a folder, a pipe or a device, whose content may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))


def read_text(path: Path) -> str:
    """Return the text of a plain file, not waiting for pipes; raise OSError or ValueError."""
    check_plain(path)
    with open_text(path) as text:
        return text.read()


def parse_json(text: str | bytes) -> Any:
    """Return the content of a JSON text.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has NaN or numbers too large.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text[:20]}")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(f"it holds {text[:20]}...")
    return value
