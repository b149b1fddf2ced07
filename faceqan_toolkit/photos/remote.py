"""Photos and archives behind URLs, through fsspec."""

from __future__ import annotations

import posixpath
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from faceqan_toolkit.errors import (
    MissingDependency,
    MissingPhoto,
    NoPermission,
    PhotoError,
    SettingsError,
    Unreachable,
    UnreadablePhoto,
)
from faceqan_toolkit.photos.stores import check_size
from faceqan_toolkit.text import first_line
from faceqan_toolkit.types import FileState

REMEMBERED = 4096
"""Number of files whose size and time are cached."""


def is_url(text: str) -> bool:
    """Tell a URL from a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z0-9+.-]+)*://", text) is not None


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, see `stores.Store`."""

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
