"""Files that photos are read from, on this machine or, through fsspec, behind URLs."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import zlib
from collections.abc import Iterator
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

PHOTO_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("heic", "heif", "avif"),
    )
)
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
        try:
            found = self.file.stat()
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        return FileState(found.st_size, found.st_mtime_ns)

    def read(self) -> tuple[bytes, FileState]:
        """Return the content and its state."""
        try:
            found = self.file.stat()
            # checked before opening: opening a pipe would wait for a writer
            if not stat.S_ISREG(found.st_mode):
                kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
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
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.file.name

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        try:
            return self.file.open("rb")
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return bytes from an offset on, and the file state."""
        try:
            with self.file.open("rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                file.seek(offset)
                pieces = []
                while size and (piece := file.read(size)):
                    pieces.append(piece)
                    size -= len(piece)
            return b"".join(pieces), FileState(found.st_size, found.st_mtime_ns)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def sibling(self, extension: str) -> LocalFile:
        """Return the file beside it with another extension."""
        return LocalFile(self.file.with_suffix(extension))

    def _failure(self, error: OSError | ValueError) -> PhotoError:
        if isinstance(error, PermissionError):
            return NoPermission("no permission to read it")
        if isinstance(error, FileNotFoundError):
            return MissingPhoto("a link to nothing" if self.file.is_symlink() else "no such file")
        return UnreadablePhoto(reason_of(error))


REMEMBERED = 4096
"""Number of files whose size and time are cached."""


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
        try:
            return bytes(files.cat_file(path)), state
        except Exception as error:
            raise _failure(error) from error

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        files, path = file_system(self.url)
        try:
            opened: BinaryIO = files.open(path, "rb")
        except Exception as error:
            raise _failure(error) from error
        if not opened.seekable():
            raise UnreadablePhoto("its server gives whole files only, no parts of an archive")
        return opened

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return bytes from an offset on, and the file state."""
        files, path = file_system(self.url)
        state = self.state()
        end = min(offset + size, state.size)
        if offset >= end:
            return b"", state
        try:
            return bytes(files.cat_file(path, start=offset, end=end)), state
        except Exception as error:
            raise _failure(error) from error

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
    except ImportError as error:
        raise MissingDependency(f"{url}: another package is needed: {error}") from error
    except Exception as error:  # each kind of URL raises its own errors
        raise SettingsError(f"{url}: {first_line(error)}") from error
    return files, path


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
    entries = sorted(files.ls(path, detail=True), key=lambda entry: entry["name"])
    for entry in entries:
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
    return path[len(start.rstrip("/")) :].lstrip("/") if path.startswith(start.rstrip("/")) else ""


@lru_cache(REMEMBERED)
def _state(url: str) -> FileState:
    files, path = file_system(url)
    try:
        info = files.info(path)
    except Exception as error:
        raise _failure(error) from error
    if info.get("size") is None:
        raise UnreadablePhoto("its server does not tell its size")
    return FileState(int(info["size"]), _time(files, path, info))


def _time(files: Any, path: str, info: dict[str, Any]) -> int:
    """Return the modification time in nanoseconds; without one, a number made of the ETag."""
    try:
        return int(files.modified(path).timestamp() * 1e6) * 1000
    except Exception:  # noqa: BLE001 - not every store knows
        return zlib.crc32(str(info.get("ETag") or info.get("etag") or "").encode())


def _failure(error: Exception) -> PhotoError | MissingDependency:
    if isinstance(error, (PhotoError, MissingDependency)):
        return error
    # fsspec reports a server that does not answer as FileNotFoundError with this cause
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    answer = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or answer in (404, 410):
        return MissingPhoto("no such file")
    if isinstance(error, PermissionError) or answer in (401, 403):
        return NoPermission("no permission to read it")
    return Unreachable(f"{type(error).__name__}: {error}")


Store: TypeAlias = LocalFile | RemoteFile
"""A file; hashable and picklable. Its methods raise PhotoErrors."""
