"""Files that photos are read from, on this machine or, through fsspec, behind URLs."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from faceqan_toolkit.errors import (
    MissingDependency,
    MissingPhoto,
    NoPermission,
    NotAFile,
    PhotoError,
    SettingsError,
    TooLarge,
    Unreachable,
    UnreadablePhoto,
)
from faceqan_toolkit.text import first_line, reason_of
from faceqan_toolkit.types import FileState

PHOTO_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff",
    ".gif", ".heic", ".heif", ".avif",
))  # fmt: skip
"""Extensions of photos in folders and archives; a file given by name may have any."""
MOST_BYTES = 2 << 30
"""Largest encoded photo. 200 megapixels of four 16-bit channels, uncompressed, are 1.6 GB."""


def extension(name: str) -> str:
    """Return a name's extension in lower case with its dot; "" if it has none."""
    head, dot, tail = name.rpartition("/")[2].rpartition(".")
    return f".{tail.lower()}" if dot and head else ""


def check_size(size: int) -> None:
    """Raise TooLarge if a photo has more than `MOST_BYTES`."""
    if size > MOST_BYTES:
        raise TooLarge(f"{size:,} bytes, more than the {MOST_BYTES:,} that a photo may have")


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine, see `types.Content`."""

    file: Path

    def state(self) -> FileState:
        """Return size and modification time, links followed."""
        with self._checked():
            found = self.file.stat()
        return FileState(found.st_size, found.st_mtime_ns)

    def read(self) -> tuple[bytes, FileState]:
        """Return the content and its state."""
        with self._checked():
            mode = self.file.stat().st_mode
            # checked before opening: opening a pipe would wait for a writer
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
                raise NotAFile(f"{kind}, not a file")
            with self.file.open("rb") as file:
                found = os.fstat(file.fileno())
                check_size(found.st_size)
                # read() allocates the requested size, so request no more than the file claims
                data = file.read(found.st_size + 1)
                if len(data) > found.st_size:  # it has grown
                    data += file.read(MOST_BYTES + 1 - len(data))
                    check_size(len(data))
        return data, FileState(found.st_size, found.st_mtime_ns)

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.file.name

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        with self._checked():
            file: BinaryIO = self.file.open("rb")
        return file

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return bytes from an offset on, and the file state."""
        pieces = []
        with self._checked(), self.file.open("rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            file.seek(offset)
            while size and (piece := file.read(size)):
                pieces.append(piece)
                size -= len(piece)
        return b"".join(pieces), FileState(found.st_size, found.st_mtime_ns)

    def sibling(self, extension: str) -> LocalFile:
        """Return the file beside it with another extension."""
        return LocalFile(self.file.with_suffix(extension))

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """Convert the system's errors to PhotoErrors."""
        try:
            yield
        except PermissionError as error:
            raise NoPermission("no permission to read it") from error
        except FileNotFoundError as error:
            reason = "a link to nothing" if self.file.is_symlink() else "no such file"
            raise MissingPhoto(reason) from error
        except (OSError, ValueError) as error:
            raise UnreadablePhoto(reason_of(error)) from error


REMEMBERED = 4096
"""Number of remote files whose size and time are cached."""


def is_url(text: str) -> bool:
    """Tell a URL from a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z0-9+.-]+)*://", text) is not None


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, see `types.Content`."""

    url: str

    @property
    def name(self) -> str:
        """File name without folders."""
        return posixpath.basename(self.url.partition("?")[0]) or self.url

    def state(self) -> FileState:
        """Return size and modification time, or a number made of the ETag; cached per process."""
        return _state(self.url)

    def read(self) -> tuple[bytes, FileState]:
        """Return the content and its state."""
        files, path = file_system(self.url)
        state = self.state()
        check_size(state.size)
        with _checked():
            data = bytes(files.cat_file(path))
        return data, state

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        files, path = file_system(self.url)
        with _checked():
            opened: BinaryIO = files.open(path, "rb")
        if not opened.seekable():
            raise UnreadablePhoto("its server gives whole files only, no parts of an archive")
        return opened

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return bytes from an offset on, and the file state."""
        files, path = file_system(self.url)
        state = self.state()
        end = min(offset + size, state.size)
        data = b""
        if offset < end:
            with _checked():
                data = bytes(files.cat_file(path, start=offset, end=end))
        return data, state

    def sibling(self, extension: str) -> RemoteFile:
        """Return the file beside it with another extension."""
        path, mark, query = self.url.partition("?")
        return RemoteFile(posixpath.splitext(path)[0] + extension + mark + query)


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path there.

    Raises:
        MissingDependency: fsspec, or a package for this kind of URL, is not installed.
        SettingsError: the kind of URL is unknown, or its server cannot be reached.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingDependency(
            f"{url}: URLs need an extra: pip install 'faceqan-toolkit[remote]'"
        ) from None
    try:
        files, path = url_to_fs(url)
        return files, path
    except ImportError as error:
        raise MissingDependency(f"{url}: another package is needed: {error}") from error
    except Exception as error:  # each kind of URL raises its own errors
        raise SettingsError(f"{url}: {first_line(error)}") from error


def expand_url(url: str) -> Iterator[tuple[str, str, bool]]:
    """Yield root and path of each file at a URL, and whether the URL names the file itself.

    The URL is a file, a pattern with `*`, or a folder, which ends with `/` or is one for fsspec.

    Raises:
        SettingsError: nothing is found, or the server fails.
    """
    if re.match(r"[^/]*://[^/@]*:[^/@]*@", url):
        raise SettingsError(
            "a URL with a password would stand in every result; give credentials as the library "
            "of such URLs takes them: by its environment variables or its own file"
        )
    files, path = file_system(url)
    try:
        if "*" in url:
            base = url.partition("*")[0].rsplit("/", 1)[0]
            found = sorted(files.glob(path))
            if not found:
                raise SettingsError(f"{url}: nothing matches")
            start = file_system(base)[1]
            for match in found:
                yield base, _relative(start, match), True
        elif url.endswith("/") or (
            not url.startswith(("http:", "https:")) and files.info(path)["type"] == "directory"
        ):
            root, empty = url.rstrip("/"), True
            for file in _walk(files, path):
                yield root, _relative(path, file), False
                empty = False
            if empty:
                raise SettingsError(f"{url}: no files there")
        else:
            yield (*url.rsplit("/", 1), True)  # type: ignore[misc]
    except SettingsError:
        raise
    except FileNotFoundError:
        raise SettingsError(f"{url}: no such file or folder") from None
    except Exception as error:  # each kind of server raises its own errors
        raise SettingsError(f"{url}: {type(error).__name__}: {error}") from error


def _walk(files: Any, path: str) -> Iterator[str]:
    """Yield the files below a folder, by name; only one folder's names are in memory."""
    for entry in sorted(files.ls(path, detail=True), key=lambda entry: entry["name"]):
        name = entry["name"].rstrip("/")
        if name == path.rstrip("/") or name.rpartition("/")[2].startswith("."):
            continue
        if entry["type"] == "directory":
            # links in a folder's HTML listing may lead elsewhere
            if name.startswith(path.rstrip("/") + "/"):
                yield from _walk(files, entry["name"])
        else:
            yield name


def _relative(start: str, path: str) -> str:
    start = start.rstrip("/")
    return path[len(start) :].lstrip("/") if path.startswith(start) else ""


@lru_cache(REMEMBERED)
def _state(url: str) -> FileState:
    files, path = file_system(url)
    with _checked():
        info = files.info(path)
    if info.get("size") is None:
        raise UnreadablePhoto("its server does not tell its size")
    try:
        time = int(files.modified(path).timestamp() * 1e6) * 1000
    except Exception:  # noqa: BLE001 - not every store knows
        time = zlib.crc32(str(info.get("ETag") or info.get("etag") or "").encode())
    return FileState(int(info["size"]), time)


@contextmanager
def _checked() -> Iterator[None]:
    """Convert a file system's errors to PhotoErrors."""
    try:
        yield
    except (PhotoError, MissingDependency):
        raise
    except Exception as error:
        # fsspec reports a server that does not answer as FileNotFoundError with this cause
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
        reason = cause if isinstance(cause, Exception) else error
        answer = getattr(reason, "status", None)
        if isinstance(reason, FileNotFoundError) or answer in (404, 410):
            raise MissingPhoto("no such file") from error
        if isinstance(reason, PermissionError) or answer in (401, 403):
            raise NoPermission("no permission to read it") from error
        raise Unreachable(f"{type(reason).__name__}: {reason}") from error


Store: TypeAlias = LocalFile | RemoteFile
"""A file; hashable and picklable. Its methods raise PhotoErrors."""
