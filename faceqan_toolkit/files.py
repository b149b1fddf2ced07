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
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.text import reason_of

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


BLOCK_BYTES = 1 << 20
"""Of a file that are in memory at once."""


def check_text(folder: Path) -> None:
    """Refuse a folder whose name DuckDB could not be given.

    Raises:
        RunError: the name is no text.
    """
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
    """Flush a file that was written to the disk, then give it its name."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(target)


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Do as `replacing` does, for people.

    Raises:
        RunError: it cannot be written.
    """
    try:
        with replacing(target) as temporary:
            yield temporary
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason_of(error)}") from error


def lock(file: Path, used: Path) -> FileLock:
    """Return a lock that this process now holds; `release` ends it.

    Args:
        file: the lock file; its folder is created if missing.
        used: what the lock protects, for messages.

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
    """Do nothing if a file can be written to a place, over one of the same kind at most.

    Args:
        target: the place.
        is_ours: tells by a file's first `HEAD_BYTES` whether it is of that kind.
        kind: in words.

    Raises:
        RunError: its folder takes no file, or what lies there is something else.
    """
    if not is_folder(target.parent):
        raise RunError(f"cannot write {target}: {target.parent} is no folder")
    try:
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
        replaceable = _is_replaceable(target, is_ours)
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason_of(error)}") from error
    if not replaceable:
        raise RunError(f"{target} is there and is no {kind}; choose another name")


def _is_replaceable(target: Path, is_ours: Callable[[bytes], bool]) -> bool:
    if target.is_symlink() or not target.exists():
        return True  # of a link, nothing but the link itself is replaced
    if not target.is_file():
        return False
    with target.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return not head or is_ours(head)


def write_text(target: Path, text: str) -> None:
    """Write a small file whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file's content, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path from the root on, without `..`; links in it stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def link_or_copy(source: Path, target: Path) -> None:
    """Have the same content in another place: as a hard link, else as a copy.

    What is in its place is replaced, unless it is the same file or a copy made before.

    Raises:
        FileNotFoundError: the source is gone.
        OSError: the target cannot be written.
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
    """Have the disk know the names in a folder, where folders can be opened at all."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_inside(folder: Path, file: Path) -> bool:
    """Tell whether a file lies below a folder, links followed; it need not be there."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))


def refuse_links(*paths: Path) -> None:
    """Do nothing if none of some paths is a link.

    Raises:
        RunError: one is, and what is written there would land elsewhere.
    """
    for path in paths:
        if path.is_symlink():
            raise RunError(f"{path} is a link; what a run folder holds must lie in it")


def is_file(path: Path) -> bool:
    """Tell whether a path is a file; one that no file system takes is none."""
    return os.path.isfile(path)  # noqa: PTH113 - Path's own fails over names that are too long


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; one that no file system takes is none."""
    return os.path.isdir(path)  # noqa: PTH112 - the same


def check_plain(path: Path) -> None:
    """Do nothing for a plain file, or a path where nothing is.

    Raises:
        OSError: a folder, a pipe or a device, whose content may never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))


def read_text(path: Path) -> str:
    """Return the text of a plain file; a pipe in its place is not waited for.

    Raises:
        OSError, ValueError: it is not there, no plain file, or no text.
    """
    check_plain(path)
    with open_text(path) as text:
        return text.read()


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or holds NaN or numbers too large.
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
